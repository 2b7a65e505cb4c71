"""Running drivers: what is decided once a problem, which twin, several loops in turn, in how many pieces.

Finding out what a driver is to run takes as long as a small loop, so an algorithm makes a `Launch` for a geometry, a
dtype and a number of workers, keeps it, and gives each call's arrays to it.

A signal reaches Python code only, so Ctrl-C waits for the kernel that runs: long work is cut into pieces, and between
two of them Python looks for signals. How the tasks are cut never shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from . import turns
from .compile import Driver, passed
from .loops import Loop
from .twins import Twins

# What a piece should take. An interrupt waits for one piece, and for its longest task.
PIECE_NS = 40_000_000
# Work is cut if it is expected to take longer than this; estimates are of one core at full speed, and denormals, a
# busy or a slow machine make them wrong by as much as the first piece leaves room for.
_CUT_ABOVE_NS = 5_000_000


class Launch:
    """A driver's tasks, of which everything is decided but the last arguments: made once a problem, run by its calls.

    What it is given later is of the same kinds each time: arrays of one dtype and rank, contiguous or not, and numbers.
    """

    __slots__ = ("_driver", "_first", "_nanoseconds", "_tasks", "_way")

    def __init__(self, driver: Driver, tasks: int, nanoseconds: float, *first: Any) -> None:
        self._driver, self._tasks, self._nanoseconds = driver, tasks, nanoseconds
        self._first = tuple(map(passed, first))
        self._way: Loop | Twins | None = None

    def on(self, *last: Any) -> Run:
        """All tasks, ready for `run_in_turn`."""
        return self.part(self._tasks, self._nanoseconds, *last)

    def part(self, tasks: int, nanoseconds: float, *last: Any) -> Run:
        """So many tasks, which take about so long on one core."""
        arguments = (*self._first, *last)
        self._driver.used = True
        return Run(self._way or self._find_way(arguments), tasks, nanoseconds, arguments)

    def _find_way(self, arguments: tuple[Any, ...]) -> Loop | Twins:
        self._way = self._driver.way(arguments)
        return self._way


class Run(NamedTuple):
    """Tasks with their arguments."""

    way: Loop | Twins
    tasks: int
    nanoseconds: float  # on one core, in all
    arguments: tuple[Any, ...]


def launch(driver: Driver, workers: int, tasks: int, nanoseconds: float, *arguments: Any) -> None:
    """Run tasks `0 <= task < tasks` of a driver, which take about so many nanoseconds on one core in all.

    Tasks are cut to take 20 ms at most, and workspaces made for `workers`, by the caller.
    """
    driver.used = True
    for i in driver.records:
        if type(arguments[i]) is not np.ndarray:
            arguments = tuple(map(passed, arguments))
            break
    _run_alone(workers, Run(driver.way(arguments), tasks, nanoseconds, arguments))


def run_in_turn(workers: int, *runs: Run) -> None:
    """Run several, each when the one before has ended; by one start of a team, where they are short."""
    if workers > 1 and len(runs) > 1:
        ways = [run.way for run in runs if type(run.way) is Loop]
        if len(ways) == len(runs) and sum([run.nanoseconds for run in runs]) <= _CUT_ABOVE_NS:
            turns.run_in_turn(workers, [way.step(0, run[1], run[3]) for way, run in zip(ways, runs, strict=True)])
            return
    for run in runs:
        _run_alone(workers, run)


def _run_alone(workers: int, run: Run) -> None:
    way, tasks, nanoseconds, arguments = run
    if nanoseconds <= _CUT_ABOVE_NS:
        way.run(workers, 0, tasks, arguments)
    else:
        in_pieces(lambda first, stop: way.run(workers, first, stop, arguments), tasks, nanoseconds / workers, workers)


def in_pieces(run: Callable[[int, int], Any], tasks: int, nanoseconds: float, workers: int = 1) -> None:
    """Call `run(first, stop)` over all tasks, the first piece short, each of the others to take `PIECE_NS`.

    A piece has as many tasks for each worker.
    """
    first, turns = 0, max(1, int(tasks * _CUT_ABOVE_NS / max(nanoseconds, 1) / workers))
    while first < tasks:
        stop = min(tasks, first + turns * workers)
        began = perf_counter_ns()
        run(first, stop)
        took = max(perf_counter_ns() - began, 1)
        turns = max(1, min(int(turns * PIECE_NS / took), 8 * turns))
        first = stop
