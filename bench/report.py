"""The report: one table for people, one JSON file with every sample and a stamp of where it comes from."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from convjit import environment

from .contenders import OURS, PASSES
from .measure import Outcome, Row
from .problems import Problem
from .process import CHECKOUT

# The rows of one line of the table, by contender.
Line = dict[str, Row]


def milliseconds(seconds: float | None) -> str:
    """Three significant figures."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def ratio(line: Line, peer: str) -> float | None:
    """How many times longer a peer takes, where both were measured and gave the right answer."""
    if peer not in line or OURS not in line:
        return None
    theirs, ours = line[peer].median, line[OURS].median
    if not theirs or not ours or line[peer].faults or line[OURS].faults:
        return None
    return theirs / ours


def geometric_mean(values: list[float]) -> float:
    """The mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def lines_by_setting(outcome: Outcome) -> dict[tuple[str, int], list[Line]]:
    """Lines of the table under each dtype and number of threads."""
    found: dict[tuple[str, int], dict[tuple[str, str], Line]] = defaultdict(lambda: defaultdict(dict))
    for row in outcome.rows:
        found[row.dtype, row.threads][row.problem.name, row.passed][row.contender] = row
    return {setting: list(lines.values()) for setting, lines in found.items()}


def print_report(console: Console, outcome: Outcome, rounds: int) -> None:
    """The table, its summary, and what went wrong."""
    names = list(outcome.versions)
    peers = [name for name in names if name != OURS]
    table = Table(
        title=f"Median of {rounds} rounds, in milliseconds",
        caption="first call: of convjit, with compilation where nothing was on disk yet; later lines share that code",
        title_justify="left", caption_justify="left", header_style="bold",
    )  # fmt: skip
    table.add_column("problem", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    for name in [*names, "first call", *(f"{peer}/{OURS}" for peer in peers)]:
        table.add_column(name, justify="right", no_wrap=True)
    sections = lines_by_setting(outcome)
    for (dtype, threads), lines in sections.items():
        table.add_section()
        table.add_row(f"[bold]{_setting(dtype, threads)}[/bold]")
        table.add_section()
        for line in lines:
            table.add_row(*_cells(line, names, peers), end_section=next(iter(line.values())).passed == PASSES[-1])
    console.print(table)
    summary = _summary(sections, peers)
    if summary.row_count:
        console.print(summary)
    for trouble in outcome.troubles:
        console.print(f"[bold red]trouble:[/bold red] {escape(trouble)}", soft_wrap=True)


def _setting(dtype: str, threads: int) -> str:
    return f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"


def _cells(line: Line, names: list[str], peers: list[str]) -> list[str]:
    first = next(iter(line.values()))
    times = [_time_cell(line.get(name)) for name in names]
    ours = line.get(OURS)
    ratios = [_ratio_cell(ratio(line, peer)) for peer in peers]
    name = first.problem.name if first.passed == PASSES[0] else ""
    return [name, first.passed, *times, milliseconds(ours.first_seconds if ours else None), *ratios]


def _time_cell(row: Row | None) -> str:
    if row is None:
        return "failed"
    if row.declined:
        return "[dim]cannot[/dim]"
    if row.faults:
        return "[bold red]wrong[/bold red]"
    return milliseconds(row.median) if row.samples else "failed"


def _ratio_cell(value: float | None) -> str:
    if value is None:
        return "[dim]-[/dim]"
    colour = "green" if value >= 1 else "red"
    return f"[{colour}]{value:.2f}[/{colour}]"


def _summary(sections: dict[tuple[str, int], list[Line]], peers: list[str]) -> Table:
    """For each peer and pass: the geometric mean of the ratios, and the least of them."""
    table = Table(title=f"How many times longer than {OURS}", title_justify="left", header_style="bold")
    for heading in ("setting", "peer", "pass"):
        table.add_column(heading, no_wrap=True)
    for heading in ("problems", "geometric mean", "least", "least of C < 256"):
        table.add_column(heading, no_wrap=True, justify="right")
    for (dtype, threads), lines in sections.items():
        table.add_section()
        for peer in peers:
            for passed in PASSES:
                ratios = _ratios(lines, peer, passed)
                if ratios:
                    mean = f"{geometric_mean(list(ratios.values())):.2f}"
                    small = {problem: value for problem, value in ratios.items() if problem.in_channels < 256}
                    setting = _setting(dtype, threads)
                    table.add_row(setting, peer, passed, str(len(ratios)), mean, _least(ratios), _least(small))
    return table


def _ratios(lines: list[Line], peer: str, passed: str) -> dict[Problem, float]:
    found = {}
    for line in lines:
        first = next(iter(line.values()))
        value = ratio(line, peer)
        if first.passed == passed and value is not None:
            found[first.problem] = value
    return found


def _least(ratios: dict[Problem, float]) -> str:
    if not ratios:
        return "-"
    problem = min(ratios, key=lambda key: ratios[key])
    return f"{ratios[problem]:.2f} ({problem.name})"


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether files differ from it; None where there is no git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", *command], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes)}


def stamp(program: str, arguments: list[str], versions: dict[str, str]) -> dict[str, Any]:
    """Where and with what the numbers were made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", program, *arguments]),
        "git": git_state(),
        "machine": {
            "cpu": environment.cpu_name(),
            "instruction set": environment.instruction_set(),
            "cores": environment.usable_cores(),
        },
        "versions": environment.versions() | versions,
        "python executable": Path(sys.executable).name,
    }


def write_json(folder: Path, outcome: Outcome, arguments: list[str], options: dict[str, Any]) -> Path:
    """Write everything that was measured."""
    content = {
        "stamp": stamp("bench", arguments, outcome.versions),
        "options": options,
        "rows": [
            {
                **asdict(row), "problem": row.problem._asdict(), "median_seconds": row.median,
            }
            for row in outcome.rows
        ],
        "troubles": outcome.troubles,
    }  # fmt: skip
    return save(folder, "bench", content)


def save(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write a stamped result as JSON; the date of its stamp is part of the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{content['stamp']['date'][:19].replace(':', '')}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
