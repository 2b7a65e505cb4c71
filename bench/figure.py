"""The picture of a result: `python -m bench.figure results/bench-....json --output bench/speed.svg`.

Knows matplotlib and a result's file; measures nothing. A row a problem, a panel for each way of calling and each number
of threads: how many times longer the best peer takes. `auto` keeps every promise about rounding, so its peers are those
that sum directly; `fastest` stands beside all. Drawn without a screen, into a file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from . import command
from .contenders import OURS
from .problems import DTYPES
from .ratios import TIE, WORK, Line, geometric_mean, is_direct, lines, tied
from .results import read_json

TITLES = {
    "forward": 'algorithm="auto"', "fastest": 'algorithm="fastest"', "backward": 'backward, "auto"',
    "backward-fastest": 'backward, "fastest"', "layer": "layer",
}  # fmt: skip
# A plan is drawn into the panel of the function that it stands for.
PLANS = {"forward": "plan", "fastest": "plan-fastest"}
DEFAULT_PASSES = ("forward", "fastest")
FULL_NAMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "numpy": "NumPy"}
COLOURS = {
    "torch": "#d9792b", "onnxruntime": "#2f6f9f", "openvino": "#7a5195", "ncnn": "#3f8f5b", "numpy": "#9a6a3a",
}  # fmt: skip
INK, GREY, GRID, SLOWER = "#1d2733", "#55606b", "#e3e7eb", "#fbeee4"
TICKS = (0.1, 0.125, 0.167, 0.25, 0.33, 0.5, 0.67, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)

# Inches.
ROW_HEIGHT, PANEL_WIDTH, LEFT, HEAD, FOOT = 0.215, 2.75, 1.45, 1.3, 0.75


def draw(path: Path, stamp: dict[str, Any], found: list[Line], dtype: str, passes: list[str]) -> None:
    """Draw the lines of one dtype; the ending of the path says in which format."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [*passes, *(PLANS[passed] for passed in passes if passed in PLANS)]
    found = [line for line in found if line.dtype == dtype and line.passed in shown and _best(line) is not None]
    panels = [
        (passed, threads)
        for passed in passes
        for threads in sorted({line.threads for line in found})
        if any((line.passed, line.threads) == (passed, threads) for line in found)
    ]
    if not panels:
        raise ValueError(f"there is nothing to compare in {dtype}")
    problems = list(dict.fromkeys(line.problem for line in found))
    size = (LEFT + PANEL_WIDTH * len(panels) + 0.2, HEAD + ROW_HEIGHT * len(problems) + FOOT)
    # The same result gives the same file: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "convjit", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=size, dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            1, len(panels), left=LEFT / size[0], right=1 - 0.2 / size[0], top=1 - HEAD / size[1],
            bottom=FOOT / size[1], wspace=0.06,
        )  # fmt: skip
        limits = _limits(found)
        for i, (passed, threads) in enumerate(panels):
            axes = figure.add_subplot(grid[0, i])
            drawn = [line for line in found if line.threads == threads]
            _panel(axes, drawn, passed, threads, [problem.name for problem in problems], limits, labelled=i == 0)
        _words(figure, size, stamp, found, dtype)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _best(line: Line) -> tuple[str, float] | None:
    return line.best(direct=line.passed in ("forward", "plan"))


def _limits(found: list[Line]) -> tuple[float, float]:
    values = [best[1] for line in found if (best := _best(line)) is not None]
    return min(0.8, min(values) / 1.25), max(1.6, max(values) * 1.25)


def _panel(
    axes: Any, found: list[Line], passed: str, threads: int, names: list[str], limits: tuple[float, float],
    labelled: bool,
) -> None:  # fmt: skip
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvspan(limits[0], 1 / TIE, color=SLOWER, lw=0, zorder=0)
    axes.axvline(1, color=INK, lw=1, zorder=2)
    means = [_dots(axes, found, passed, names, hollow=False)]
    if passed in PLANS:
        means.append(_dots(axes, found, PLANS[passed], names, hollow=True))
    note = ", ".join(f"{text} {mean:.2f}" for text, mean in zip(("mean", "of plans"), means, strict=False) if mean)
    title = f"{TITLES.get(passed, passed)}, {threads} thread{'s' if threads > 1 else ''}"
    axes.set_title(title, fontsize=10, color=INK, weight="bold", loc="left", pad=17)
    axes.text(0, 1.004, note, transform=axes.transAxes, fontsize=8.5, color=GREY, va="bottom")
    axes.set_yticks(range(len(names)), names if labelled else [""] * len(names))
    axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=8.5, colors=GREY, length=3)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _sparse(limits) if limits[0] <= tick <= limits[1]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="both", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _sparse(limits: tuple[float, float]) -> tuple[float, ...]:
    """The ticks, fewer where many would be shown."""
    inside = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    return TICKS if len(inside) <= 7 else (0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


def _dots(axes: Any, found: list[Line], passed: str, names: list[str], hollow: bool) -> float | None:
    """A dot a problem, in the colour of the best peer, with a stem from 1; the mean of all."""
    values = []
    for line in found:
        best = _best(line)
        if line.passed != passed or best is None:
            continue
        peer, ratio = best
        row, colour = names.index(line.problem.name), COLOURS.get(peer, GREY)
        values.append(tied(ratio))
        if hollow:
            axes.plot(ratio, row, "D", ms=5.5, mfc="none", mec=colour, mew=1.3, zorder=4)
        else:
            axes.plot([1, ratio], [row, row], color=colour, lw=2.2, alpha=0.45, solid_capstyle="butt", zorder=3)
            axes.plot(ratio, row, "o", ms=6, color=colour, mec="white", mew=0.6, zorder=4)
    return geometric_mean(values)


def _words(figure: Any, size: tuple[float, float], stamp: dict[str, Any], found: list[Line], dtype: str) -> None:
    """Title, legend, and where the numbers come from."""
    from matplotlib.lines import Line2D

    def text(inches_from_top: float, words: str, **style: Any) -> None:
        figure.text(0.15 / size[0], 1 - inches_from_top / size[1], words, va="center", **style)

    what = "" if any(line.passed in WORK for line in found) else "forward, "  # titles of others say what
    text(0.24, f"How many times longer the best peer takes than {OURS}", fontsize=14, weight="bold", color=INK)
    text(
        0.5,
        f"{what}{dtype}, logarithmic; right of 1 {OURS} is faster; a mean is geometric, within 3 % counts as 1",
        fontsize=9.5,
        color=GREY,
    )
    peers = sorted({best[0] for line in found if (best := _best(line)) is not None}, key=list(COLOURS).index)
    marks = [
        Line2D([], [], marker="o", ms=7, color=COLOURS[peer], lw=2.2, label=_label(peer)) for peer in peers
    ]  # fmt: skip
    if any(line.passed in PLANS.values() for line in found):
        marks.append(Line2D([], [], marker="D", ms=6, mfc="none", mec=GREY, lw=0, label="a plan"))
    figure.legend(
        handles=marks, loc="upper left", bbox_to_anchor=(0.05 / size[0], 1 - 0.6 / size[1]), ncols=len(marks),
        frameon=False, fontsize=9, labelcolor=INK, title=None, columnspacing=1.6, handlelength=1.4,
    )  # fmt: skip
    commit = (stamp["git"].get("commit") or "unknown")[:10]
    measured = [OURS, *dict.fromkeys(name for line in found for name in line.peers)]
    versions = ", ".join(
        f"{FULL_NAMES.get(name, name)} {stamp['versions'].get(name, '?').partition('-')[0]}" for name in measured
    )
    machine = f"{stamp['machine']['cpu']}, {stamp['machine']['instruction set']}, {stamp['machine']['cores']} cores"
    foot = f"{machine}; {stamp['date'][:10]}, commit {commit}\n{versions}"
    figure.text(0.15 / size[0], 0.12 / size[1], foot, fontsize=7.5, color=GREY, va="bottom", linespacing=1.4)


def _label(peer: str) -> str:
    name = f"beside {FULL_NAMES.get(peer, peer)}"
    return name if is_direct(peer) else f'{name} (not under "auto")'


def main(arguments: list[str]) -> int:
    """Draw a result; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.figure", description="Draw, problem by problem, the ratio of the best peer to convjit."
    )
    parser.add_argument("result", type=Path, help="a file that `python -m bench` wrote")
    parser.add_argument("--output", type=Path, default=Path("speed.svg"), help="an SVG or PNG (default: speed.svg)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="default: float32")
    parser.add_argument("--passes", nargs="+", choices=list(TITLES), default=list(DEFAULT_PASSES), help="panels")
    options = parser.parse_args(arguments)
    if not command.has("matplotlib", "python -m bench.figure"):
        return 1
    try:
        stamp, rows = read_json(options.result)
        draw(options.output, stamp, lines(rows), options.dtype, options.passes)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
