"""A training race: `python -m bench.race`.

The networks of `bench/networks.py`, trained by convjit, by PyTorch and with convolutions the original NumPy way, from
the same weights on the same batches. Each racer has a process of its own and they are timed in turn; losses are
compared step by step. Knows the order, the table and the file; neither networks nor who trains them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import command
from .__main__ import default_threads, positive
from .contenders.contender import OURS
from .measure import SETTLE_SECONDS
from .networks import NETWORKS
from .problems import DTYPES
from .process import Asking, WorkerProcess
from .racers import RACERS, installed

if TYPE_CHECKING:
    from rich.table import Table

# Losses of the same step may differ by so much; they are a few units.
TOLERANCE = 1e-4
# A sample takes about so long, but for the slowest one step.
SAMPLE_SECONDS = 0.1
# Who has not come down to the loss after so many times the steps will not.
PATIENCE = 2


@dataclass
class Row:
    """What one racer did with one network; samples are seconds a step, `until_seconds` those to the common loss."""

    network: str
    dtype: str
    threads: int
    racer: str
    losses: list[float] = field(default_factory=list)
    steps_a_sample: int = 0
    samples: list[float] = field(default_factory=list)
    until_seconds: float | None = None
    until_steps: int | None = None
    apart: float | None = None  # the largest difference from convjit's loss at the same step

    @property
    def median(self) -> float | None:
        """Seconds a step, or None where nothing was measured."""
        return statistics.median(self.samples) if self.samples else None


@dataclass
class Outcome:
    """All rows, the versions of the racers, and a sentence for everything that went wrong."""

    rows: list[Row] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


class _Race(Asking):
    """The workers of one number of threads."""

    def __init__(self, outcome: Outcome, workers: dict[str, WorkerProcess], threads: int) -> None:
        super().__init__(workers, outcome.troubles)
        self._outcome, self._threads = outcome, threads

    def greet(self) -> None:
        for name in list(self._workers):
            reply = self._ask(name, "", "hello")
            if reply is not None:
                self._outcome.versions[name] = reply["version"]

    def run(self, network: str, dtype: str, rounds: int, steps: int) -> None:
        """Losses first, which compile what is to be compiled; then the time to the last of them, and of a step."""
        where = f"{network}, {dtype}, {self._threads} thread{'s' if self._threads > 1 else ''}"
        rows = [Row(network, dtype, self._threads, name) for name in self._workers]
        self._outcome.rows += rows
        for row in rows:
            self._ask(row.racer, where, "load", network=network, dtype=dtype)
            reply = self._ask(row.racer, where, "losses", steps=steps)
            row.losses = reply["losses"] if reply else []
        compare(rows, where, self._outcome.troubles)
        timed = [row for row in rows if row.losses]
        goal = min(timed[0].losses) if timed else 0.0
        for row in timed:
            time.sleep(SETTLE_SECONDS)
            # A loss that is the same but for rounding is reached.
            reply = self._ask(row.racer, where, "until", loss=goal + TOLERANCE, most=PATIENCE * steps)
            if reply is not None:
                row.until_seconds, row.until_steps = reply["seconds"], reply["steps"]
        for row in timed:
            first = self._ask(row.racer, where, "time", steps=1)
            row.steps_a_sample = max(1, int(SAMPLE_SECONDS / max(first["seconds"], 1e-6))) if first else 0
        for _ in range(rounds):
            for row in timed:
                if row.steps_a_sample:
                    time.sleep(SETTLE_SECONDS)
                    reply = self._ask(row.racer, where, "time", steps=row.steps_a_sample)
                    row.samples += [reply["seconds"]] if reply else []


def compare(rows: list[Row], where: str, troubles: list[str]) -> None:
    """How far each racer's losses are from convjit's, step by step; too far is trouble."""
    ours = next((row for row in rows if row.racer == OURS), None)
    if ours is None or not ours.losses:
        return
    for row in rows:
        if row is not ours and row.losses:
            differences = [abs(a - b) for a, b in zip(row.losses, ours.losses, strict=True)]
            row.apart = max(differences)
            # `not <=` is true for a NaN.
            wrong = [step for step, apart in enumerate(differences, 1) if not apart <= TOLERANCE]
            if wrong:
                troubles.append(
                    f"{where}: the loss of {row.racer} is {differences[wrong[0] - 1]:.1e} from {OURS}'s at step "
                    f"{wrong[0]}, more than {TOLERANCE:.0e}"
                )


def measure(options: argparse.Namespace, threads: list[int], advance: Callable[[str], None]) -> Outcome:
    """Every network with every dtype and number of threads; `advance` is told what begins now."""
    outcome = Outcome()
    racers = [racer for racer in installed() if racer.name not in options.without]
    for count in threads:
        with ExitStack() as stack:
            workers = {
                racer.name: stack.enter_context(WorkerProcess(racer.name, count, None, "bench.race_worker"))
                for racer in racers
            }
            race = _Race(outcome, workers, count)
            race.greet()
            for dtype in options.dtype:
                for network in options.only:
                    advance(f"{network}, {dtype}, {count} threads" if count > 1 else f"{network}, {dtype}")
                    race.run(network, dtype, options.rounds, options.steps)
    return outcome


def as_tables(outcome: Outcome, rounds: int, steps: int) -> list[Table]:
    """Times of a step, and the way down to the same loss: a line for each network in each setting."""
    from .report import NOTHING, milliseconds, plain_table

    names = list(dict.fromkeys(row.racer for row in outcome.rows))
    peers = [name for name in names if name != OURS]
    lines: dict[tuple[str, int, str], dict[str, Row]] = {}
    for row in outcome.rows:
        lines.setdefault((row.dtype, row.threads, row.network), {})[row.racer] = row
    settings = ("setting", "network")
    ratios = [f"{name}/{OURS}" for name in peers]
    times = plain_table(
        f"A training step, median of {rounds} rounds, in milliseconds", "", settings, [*names, *ratios]
    )  # fmt: skip
    goals = plain_table(
        f"Milliseconds from the first weights to the least loss of {OURS}'s first {steps} steps",
        "loss apart: the largest difference from convjit's, step by step", settings, [*names, "steps", "loss apart"],
    )  # fmt: skip
    for (dtype, threads, network), rows in lines.items():
        setting = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
        ours = rows[OURS].median if OURS in rows else None
        medians = {name: rows[name].median if name in rows else None for name in names}
        beside = [f"{theirs / ours:.2f}" if theirs and ours else NOTHING for theirs in map(medians.get, peers)]
        times.add_row(setting, network, *map(milliseconds, medians.values()), *beside)
        needed = sorted({row.until_steps for row in rows.values() if row.until_steps})
        apart = [row.apart for row in rows.values() if row.apart is not None]
        goals.add_row(
            setting, network, *(milliseconds(rows[name].until_seconds if name in rows else None) for name in names),
            " or ".join(map(str, needed)) or NOTHING, f"{max(apart):.0e}" if apart else NOTHING,
        )  # fmt: skip
    return [times, goals]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.race",
        description="Train small networks beside PyTorch and the original NumPy way: time of a step, time to the same "
        "loss. Exit status 1 if losses are not the same or a racer fails.",
    )
    names = [network.name for network in NETWORKS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names, help=", ".join(names))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="default: both")
    parser.add_argument("--threads", nargs="+", type=positive, metavar="N", help="default: 1 and all cores")
    parser.add_argument("--rounds", type=positive, default=11, metavar="N", help="samples of each racer (default: 11)")
    parser.add_argument("--steps", type=positive, default=20, metavar="N", help="losses to compare (default: 20)")
    parser.add_argument("--without", nargs="+", default=[], choices=[r.name for r in RACERS[1:]], help="leave out")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the JSON (default: results)")
    return parser


def main(arguments: list[str]) -> int:
    """Race, print and write; the exit status."""
    options = _parser().parse_args(arguments)
    if not command.has("rich", "python -m bench.race"):
        return 1
    return _run(options, arguments)


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    from rich.console import Console
    from rich.markup import escape

    from .__main__ import TABLE_WIDTH
    from .progress import shown
    from .results import save, stamp

    threads = options.threads or default_threads()
    with shown(len(options.only) * len(options.dtype) * len(threads)) as advance:
        outcome = measure(options, threads, advance)
    console = Console(width=max(TABLE_WIDTH, Console().width))
    for table in as_tables(outcome, options.rounds, options.steps):
        console.print(table)
    for trouble in outcome.troubles:
        console.print(f"[bold red]trouble:[/bold red] {escape(trouble)}", soft_wrap=True)
    content = {
        "stamp": stamp("bench.race", arguments, outcome.versions),
        "options": {
            "rounds": options.rounds, "steps": options.steps, "threads": threads, "dtypes": options.dtype,
            "networks": options.only,
        },
        "rows": [{**asdict(row), "median_seconds": row.median} for row in outcome.rows],
        "troubles": outcome.troubles,
    }  # fmt: skip
    print(f"written: {save(options.output, 'race', content)}")
    return 1 if outcome.troubles else 0


if __name__ == "__main__":
    command.run(main)
