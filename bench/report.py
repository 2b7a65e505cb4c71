"""The report: tables for people.

Knows rich and what a run left; `ratios` says what is compared with what.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .contenders import COMPARED, DIRECT, OURS, PASSES
from .measure import Outcome, Row
from .ratios import (
    ALL_PEERS,
    DIRECT_PEERS,
    MANY_CHANNELS,
    TIE,
    Line,
    bound,
    flops,
    geometric_mean,
    is_direct,
    lines,
    ratios,
    scaling,
)

NOTHING = "[dim]-[/dim]"


def milliseconds(seconds: float | None) -> str:
    """Three significant figures."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def mebibytes(count: float | None) -> str:
    """One decimal place."""
    return "-" if count is None else f"{count / 2**20:.1f}"


def print_report(console: Console, outcome: Outcome, rounds: int) -> None:
    """All tables, and what went wrong."""
    found = lines(outcome.rows)
    peers = [name for name in outcome.versions if name != OURS]
    console.print(_times(found, peers, outcome, rounds))
    for table in (_means(found, peers), _bounds(found, outcome), _scaling(found), _starts(outcome)):
        if table.row_count:
            console.print(table)
    for trouble in outcome.troubles:
        console.print(f"[bold red]trouble:[/bold red] {escape(trouble)}", soft_wrap=True)


def plain_table(title: str, caption: str, names: Iterable[str], numbers: Iterable[str]) -> Table:
    """A table without rows: columns of names, then columns of numbers."""
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", header_style="bold",
        box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _by_setting(found: list[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The lines under each dtype and number of threads."""
    for dtype, threads in {(line.dtype, line.threads): None for line in found}:
        name = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
        yield name, [line for line in found if (line.dtype, line.threads) == (dtype, threads)]


# --- times ------------------------------------------------------------------------------------------------------------


def _times(found: list[Line], peers: list[str], outcome: Outcome, rounds: int) -> Table:
    caption = (
        f"GFLOP/s to memory: of {OURS}; GFLOP/s counts the direct method's operations, peak is that of the FMA units; "
        "first: until the first result, with compilation where nothing was on disk yet, later lines share that code; "
        "MiB: at most, above the inputs, with the result and packed weights"
    )
    numbers = [OURS, *peers, "GFLOP/s", "of peak", "first", "MiB", f"best peer / {OURS}"]
    table = plain_table(f"Median of {rounds} rounds, in milliseconds", caption, ("problem", "pass"), numbers)
    for name, section in _by_setting(found):
        table.add_row(f"[bold]{name}[/bold]")
        previous = None
        for line in section:
            shown = line.problem.name if line.problem != previous else ""
            previous = line.problem
            table.add_row(shown, line.passed, *_cells(line, peers, outcome))
        table.add_section()
    return table


def _cells(line: Line, peers: list[str], outcome: Outcome) -> list[str]:
    ours = line.ours
    repeated = COMPARED[line.passed] != line.passed  # the peers' times stand in the line above
    theirs = ["" if repeated else _time_cell(line.peers.get(name), name in line.peers) for name in peers]
    rate = flops(ours) if ours else None
    share = outcome.share_of_peak(line.dtype, line.threads, rate)
    best = line.best()
    return [
        _time_cell(ours, True),
        *theirs,
        f"{rate / 1e9:.0f}" if rate else NOTHING,
        f"{share:.0%}" if share else NOTHING,
        milliseconds(ours.until_first if ours else None),
        mebibytes(ours.peak_bytes if ours else None),
        f"[dim]{best.peer}[/dim] {_coloured(best.ratio)}" if best else NOTHING,
    ]


def _time_cell(row: Row | None, offered: bool) -> str:
    if not offered:
        return ""
    if row is None:
        return "failed"
    if row.declined:
        return "[dim]cannot[/dim]"
    if row.faults:
        return "[bold red]wrong[/bold red]"
    return milliseconds(row.median) if row.samples else "failed"


def _coloured(value: float) -> str:
    colour = "green" if value >= 1 / TIE else "red"
    return f"[{colour}]{value:.2f}[/{colour}]"


# --- summaries --------------------------------------------------------------------------------------------------------


def _means(found: list[Line], peers: list[str]) -> Table:
    """For each setting and pass: the mean ratio to each peer, and to the fastest on each problem."""
    columns = [*peers]
    if not all(is_direct(peer) for peer in peers):
        columns.append(DIRECT_PEERS)
    if len(peers) > 1:
        columns.append(ALL_PEERS)
    table = plain_table(
        f"How many times longer than {OURS}: geometric means, ties counted as 1",
        f"{DIRECT_PEERS}: without those that may take Winograd's way; least: of all peers", ("setting", "pass"),
        [*columns, "least"],
    )  # fmt: skip
    for name, section in _by_setting(found):
        for passed in PASSES:
            of_pass = [line for line in section if line.passed == passed]
            means = [geometric_mean(ratios(of_pass, column).values()) for column in columns]
            if any(means):
                cells = [NOTHING if mean is None else f"{mean:.2f}" for mean in means]
                table.add_row(name, passed, *cells, _least(of_pass))
        table.add_section()
    return table


def _bounds(found: list[Line], outcome: Outcome) -> Table:
    """How far the multiply-add units let layers of many channels go."""
    table = plain_table(
        f"Layers of {MANY_CHANNELS} channels and more in each group: geometric means",
        f"of peak: share of the FMA peak; ratio: {DIRECT_PEERS} / {OURS}, ties as they are; at peak: the same, "
        f"if {OURS} had all of it",
        ("setting", "pass"), ("layers", f"{OURS}, of peak", f"{DIRECT_PEERS}, of peak", "ratio", "at peak"),
    )  # fmt: skip
    for name, section in _by_setting(found):
        for passed in DIRECT:
            means = bound(
                [line for line in section if line.passed == passed],
                lambda row: outcome.share_of_peak(row.dtype, row.threads, flops(row)),
            )
            if means is not None:
                cells = f"{means.ours:.0%}", f"{means.peer:.0%}", f"{means.ratio:.2f}", f"{means.at_peak:.2f}"
                table.add_row(name, passed, str(means.layers), *cells)
        table.add_section()
    return table


def _least(found: list[Line]) -> str:
    values = ratios(found, ALL_PEERS)
    if not values:
        return NOTHING
    problem = min(values, key=lambda key: values[key])
    return f"{values[problem]:.2f} ({problem.name})"


def _scaling(found: list[Line]) -> Table:
    """How much faster many threads are than one, problem by problem."""
    factors = scaling(found)
    columns = list(dict.fromkeys((dtype, passed) for _, dtype, passed in factors))
    columns.sort(key=lambda column: (column[0], PASSES.index(column[1])))
    most = max((line.threads for line in found), default=1)
    names = [f"{dtype[0]}{dtype[5:]} {passed}" for dtype, passed in columns]
    table = plain_table(f"{OURS}: how many times as fast on {most} threads as on one", "", ("problem",), names)
    for problem in dict.fromkeys(problem for problem, _, _ in factors):
        values = [factors.get((problem, *column)) for column in columns]
        table.add_row(problem.name, *(NOTHING if value is None else f"{value:.2f}" for value in values))
    return table


def _starts(outcome: Outcome) -> Table:
    """What each contender takes before a forward pass can be repeated."""
    numbers = ["first: median", "first: most", "MiB: median", "MiB: most", "of which prepared"]
    table = plain_table("Forward, until the first result (ms) and memory above the inputs", "", ("contender",), numbers)
    for name in outcome.versions:
        rows = [row for row in outcome.rows if (row.contender, row.passed) == (name, "forward")]
        seconds = [row.until_first for row in rows if row.until_first is not None]
        peaks = [row for row in rows if row.peak_bytes is not None]
        if seconds:
            largest = max(peaks, key=lambda row: row.peak_bytes or 0, default=None)
            table.add_row(
                name, milliseconds(statistics.median(seconds)), milliseconds(max(seconds)),
                mebibytes(statistics.median(row.peak_bytes or 0 for row in peaks) if peaks else None),
                mebibytes(largest.peak_bytes if largest else None),
                mebibytes(largest.prepared_bytes if largest else None),
            )  # fmt: skip
    return table
