"""How convjit lives with others in a process: `python -m bench.peace`.

Knows three things that a user of NumPy does between calls of convjit: a matrix product, a pause, Ctrl-C. Everything
happens in this one process, since it is about sharing it. How fast the calls are beside their peers is told by
`python -m bench`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numba
import numpy as np

import convjit
from convjit import environment

from . import command
from .__main__ import positive
from .contenders import Convjit
from .problems import SEED, Problem, draw
from .process import THREAD_VARIABLES
from .worker import WAKE_SECONDS

if TYPE_CHECKING:
    from rich.table import Table

Call = Callable[[], object]
Advance = Callable[[str], None]

BLAS_SIZE = 200

#            name       N   C  H=W   O  k  s  p  d  g
SMALL = Problem("small", 1, 16, 28, 16, 3, 1, 1, 1, 1)
MIDDLE = Problem("middle", 1, 64, 56, 64, 3, 1, 1, 1, 1)
LARGE = Problem("large", 1, 64, 224, 64, 3, 1, 1, 1, 1)
LONG = Problem("long", 8, 64, 256, 64, 3, 1, 1, 1, 1)
POOLED_SHAPE = (4, 64, 512, 512)
DENSE_SIZE = 4096

# A pair that stands in its own way took 10 ms instead of 0.3 ms: a sample holds several of those.
SAMPLE_SECONDS = 0.05
PAUSE_SECONDS = 0.05
# After it OpenBLAS's threads sleep, and convjit starts teams again, see `convjit.runtime.contention`.
CALM_SECONDS = 0.15
# An interrupt that has not arrived so long after the call in which it fell will not arrive.
LOST_SECONDS = 1.0


@dataclass
class Row:
    """One line of the table; samples are seconds, by what took them. `sent` counts interrupts."""

    section: str
    name: str
    samples: dict[str, list[float]]
    sent: int = 0

    def median(self, what: str) -> float:
        """Seconds; NaN where nothing was measured."""
        return statistics.median(self.samples[what] or [float("nan")])


# --- a matrix product in turn with a convolution ----------------------------------------------------------------------


def in_turn(problem: Problem, rounds: int) -> Row:
    """A matrix product and a convolution, each alone and one after the other."""
    product, convolution = _matrix_product(), _convolution(problem)

    def pair() -> None:
        product()
        convolution()

    calls: dict[str, Call] = {"product": product, "conv2d": convolution, "pair": pair}
    samples: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(rounds):
        for what, call in calls.items():
            time.sleep(CALM_SECONDS)
            samples[what].append(steady_seconds(call))
    return Row("in turn", f"{problem.name}: conv2d {_sizes(problem)}", samples)


def turn_ratio(row: Row) -> float:
    """How many times longer a pair takes than its two calls alone."""
    return row.median("pair") / (row.median("product") + row.median("conv2d"))


def steady_seconds(call: Call) -> float:
    """Seconds a call, after untimed ones that bring threads to cores of their own and let those of others sleep."""
    _repeat(call, WAKE_SECONDS)
    return _repeat(call, SAMPLE_SECONDS)


def _repeat(call: Call, seconds: float) -> float:
    """Seconds a call, over as many calls as fill the time."""
    calls, began = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        took = time.perf_counter() - began
        if took >= seconds:
            return took / calls


def _matrix_product() -> Call:
    a = np.random.default_rng(SEED).standard_normal((BLAS_SIZE, BLAS_SIZE))
    return lambda: a @ a


def _convolution(problem: Problem, passed: str = "forward") -> Call:
    return Convjit().prepare(passed, problem, draw(problem, "float32"))


def _sizes(problem: Problem) -> str:
    images = "x".join(map(str, problem.x_shape))
    return f"{images}, {problem.out_channels} filters {problem.kernel}x{problem.kernel}"


# --- a pause ----------------------------------------------------------------------------------------------------------


def after_a_pause(problem: Problem, rounds: int) -> Row:
    """A convolution that is called again and again, and the mean of the first two calls after a pause."""
    call = _convolution(problem)
    samples: dict[str, list[float]] = {"steady": [], "first two": []}
    for _ in range(rounds):
        samples["steady"].append(steady_seconds(call))
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        call()
        call()
        samples["first two"].append((time.perf_counter() - began) / 2)
    return Row("pause", f"{problem.name}: conv2d {_sizes(problem)}", samples)


def pause_ratio(row: Row) -> float:
    """How many times longer a call takes after a pause."""
    return row.median("first two") / row.median("steady")


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


class Interrupt(KeyboardInterrupt):
    """What a timer raises in place of Ctrl-C, so that the user's own ends the bench."""


def long_calls() -> dict[str, Callable[[], Call]]:
    """What is interrupted; each makes its arrays when it is asked for the call."""
    pooled = "x".join(map(str, POOLED_SHAPE))
    return {
        f"conv2d {_sizes(LONG)}": lambda: _convolution(LONG),
        f"conv2d_backward {_sizes(LONG)}": lambda: _convolution(LONG, "backward"),
        f"max_pool2d {pooled}, kernel 15": _pooling,
        f"Dense({DENSE_SIZE}) forward, backward, batch {DENSE_SIZE}": _dense,
    }


def _pooling() -> Call:
    x = np.random.default_rng(SEED).standard_normal(POOLED_SHAPE, np.float32)
    return lambda: convjit.max_pool2d(x, 15, 1, 7)


def _dense() -> Call:
    x = np.random.default_rng(SEED).standard_normal((DENSE_SIZE, DENSE_SIZE), np.float32)
    layer = convjit.Dense(DENSE_SIZE, input_shape=(DENSE_SIZE,), dtype="float32", rng=SEED)
    layer.initialize(convjit.SGD(1e-9))  # a step so small that the weights stay as large as they are
    return lambda: layer.backward_pass(layer.forward_pass(x))


def interrupted(name: str, call: Call, interrupts: int) -> Row:
    """Interrupt a long call at random moments: how late each interrupt arrives."""
    call()  # to the end first: compilation is not interrupted
    whole = _repeat(call, 0)
    moments = random.Random(SEED)
    delays: list[float] = []
    with timer_interrupts():
        for _ in range(interrupts):
            delay = interrupt_delay(call, moments.uniform(0, whole))
            if delay is not None:
                delays.append(delay)
    return Row("Ctrl-C", name, {"whole call": [whole], "delay": delays}, interrupts)


@contextmanager
def timer_interrupts() -> Iterator[None]:
    """SIGALRM raises `Interrupt`; afterwards the timer is off and the handler what it was."""

    def handler(number: int, frame: object) -> NoReturn:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt_delay(call: Call, seconds: float) -> float | None:
    """Seconds from a signal, sent so long after the start, to its exception; None if it was lost.

    The timer needs no thread, which could wait for the interpreter's lock and send late. A call that ends before the
    signal is made again.
    """
    try:
        due = time.perf_counter() + seconds
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))  # 0 would turn it off
        while time.perf_counter() < due + LOST_SECONDS:
            call()
    except Interrupt:
        return time.perf_counter() - due
    return None


def lost(row: Row) -> int:
    """How many interrupts never arrived."""
    return row.sent - len(row.samples["delay"])


# --- the whole run ----------------------------------------------------------------------------------------------------


def measure(rounds: int, interrupts: int, advance: Advance) -> list[Row]:
    """All rows; `advance` is told what begins now."""
    rows = []
    for problem in (SMALL, MIDDLE, LARGE):
        advance(f"a @ a in turn with conv2d, {problem.name}")
        rows.append(in_turn(problem, rounds))
    advance("after a pause")
    rows.append(after_a_pause(MIDDLE, rounds))
    for name, made in long_calls().items():
        advance(f"Ctrl-C in {name}")
        rows.append(interrupted(name, made(), interrupts))
    return rows


def _parts() -> int:
    """How many rows `measure` makes."""
    return 4 + len(long_calls())


def as_table(rows: list[Row], rounds: int) -> Table:
    """All rows; each section says what its columns are."""
    from rich.table import Table

    product = f"a @ a, {BLAS_SIZE}x{BLAS_SIZE}"
    pause = f"after {PAUSE_SECONDS * 1e3:.0f} ms of nothing"
    headings = {
        "in turn": (f"{product}, in turn with conv2d: µs", "a @ a", "conv2d", "pair", "pair/sum"),
        "pause": (f"{pause}: µs", "", "steady", "first two", "times"),
        "Ctrl-C": ("Ctrl-C at a random moment: ms", "whole call", "arrived", "median", "worst"),
    }
    table = Table(
        title=f"convjit beside others in a process, medians of {rounds} rounds, {numba.get_num_threads()} threads",
        title_justify="left", show_header=False,
    )  # fmt: skip
    table.add_column(no_wrap=True)
    for _ in range(4):
        table.add_column(justify="right", no_wrap=True)
    for section, titles in headings.items():
        table.add_section()
        table.add_row(*(f"[bold]{title}[/bold]" for title in titles), end_section=True)
        for row in rows:
            if row.section == section:
                table.add_row(row.name, *_CELLS[section](row))
    return table


def _turn_cells(row: Row) -> list[str]:
    return [*(_microseconds(row.median(what)) for what in row.samples), f"{turn_ratio(row):.2f}"]


def _pause_cells(row: Row) -> list[str]:
    return ["", *(_microseconds(row.median(what)) for what in row.samples), f"{pause_ratio(row):.2f}"]


def _interrupt_cells(row: Row) -> list[str]:
    arrived = f"{row.sent - lost(row)} of {row.sent}"
    seconds = row.median("whole call"), row.median("delay"), max(row.samples["delay"], default=float("nan"))
    whole, median, worst = (f"{each * 1e3:.1f}" for each in seconds)
    return [whole, f"[bold red]{arrived}[/bold red]" if lost(row) else arrived, median, worst]


_CELLS: dict[str, Callable[[Row], list[str]]] = {
    "in turn": _turn_cells,
    "pause": _pause_cells,
    "Ctrl-C": _interrupt_cells,
}


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"


def blas_name() -> str:
    """The library behind NumPy's matrix product, as NumPy was built."""
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


# --- the command line -------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peace",
        description="Measure how convjit lives with others in a process: a matrix product in turn, a pause, Ctrl-C. "
        "Exit status 1 if an interrupt is lost. Takes several minutes on 2 cores, most of them in interrupted calls: "
        "--interrupts 3 for a short look.",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="of Numba and of BLAS (default: their own)")
    parser.add_argument("--rounds", type=positive, default=21, metavar="N", help="samples of each call (default: 21)")
    parser.add_argument("--interrupts", type=positive, default=20, metavar="N", help="of each call (default: 20)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the JSON (default: results)")
    return parser


def main(arguments: list[str]) -> int:
    """Measure, print and write; the exit status."""
    options = _parser().parse_args(arguments)
    if not command.has("rich", "python -m bench.peace"):
        return 1
    if options.threads:
        start_with_threads(options.threads, arguments)
    return _run(options, arguments)


def start_with_threads(threads: int, arguments: list[str]) -> None:
    """Start this process anew with so many threads, unless it was: BLAS and Numba read their number when imported."""
    wanted = {variable: str(threads) for variable in THREAD_VARIABLES}
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "bench.peace", *arguments], os.environ | wanted)


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    from rich.console import Console

    from .progress import shown
    from .results import save, stamp

    with shown(_parts(), own_thread=False) as advance:
        rows = measure(options.rounds, options.interrupts, advance)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(as_table(rows, options.rounds))
    content = {
        "stamp": stamp("bench.peace", arguments, {"blas": blas_name()}),
        "options": {
            "rounds": options.rounds,
            "interrupts": options.interrupts,
            "threads": numba.get_num_threads(),
            "threading layer": environment.threading_layer(),
        },
        "rows": [asdict(row) for row in rows],
    }
    print(f"written: {save(options.output, 'peace', content)}")
    return 1 if any(lost(row) for row in rows if row.sent) else 0


if __name__ == "__main__":
    command.run(main)
