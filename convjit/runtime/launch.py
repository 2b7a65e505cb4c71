"""Running drivers: what is decided once a problem, which twin, several loops in turn, in how many pieces.

Finding out what a driver is to run takes as long as a small loop, so an algorithm makes a `Launch` for a geometry, a
dtype and a number of workers, keeps it, and gives each call's arrays to it.

A signal reaches Python code only, so Ctrl-C waits for the kernel that runs: long work is cut into pieces, and between
two of them Python looks for signals. How the tasks are cut never shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, TypeAlias

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


# Tasks with their arguments: what runs them, how many there are, nanoseconds of all on one core, and the arguments. A
# plain tuple: a named one takes 0.4 us to make, and several are made in a call of 10 us.
Run: TypeAlias = tuple[Loop | Twins, int, float, tuple[Any, ...]]


class Launch:
    """A driver's tasks, of which everything is decided but the last arguments: made once a problem, run by its calls.

    What it is given later is of the same kinds each time: arrays of one dtype and rank, contiguous or not, and numbers.
    Of the first arguments, a function gives what is passed, a table of kernels, when tasks are to run: what is planned
    only, to choose or to explain, compiles nothing.
    """

    __slots__ = ("_driver", "_first", "_nanoseconds", "_tasks", "_way")

    def __init__(self, driver: Driver, tasks: int, nanoseconds: float, *first: Any) -> None:
        self._driver, self._tasks, self._nanoseconds = driver, tasks, nanoseconds
        self._first = first
        self._way: Loop | Twins | None = None

    def on(self, *last: Any) -> Run:
        """All tasks, ready for `run_in_turn`."""
        way = self._way or self._find_way(last)
        self._driver.used = True
        return way, self._tasks, self._nanoseconds, (*self._first, *last)

    def run(self, workers: int, *last: Any) -> None:
        """All tasks, at once: 0.4 us sooner than by `run_in_turn`."""
        way = self._way or self._find_way(last)
        self._driver.used = True
        _run(workers, way, self._tasks, self._nanoseconds, (*self._first, *last))

    def part(self, tasks: int, nanoseconds: float, *last: Any) -> Run:
        """So many tasks, which take about so long on one core."""
        way = self._way or self._find_way(last)
        self._driver.used = True
        return way, tasks, nanoseconds, (*self._first, *last)

    def _find_way(self, last: tuple[Any, ...]) -> Loop | Twins:
        self._first = tuple(passed(each() if callable(each) else each) for each in self._first)
        self._way = self._driver.way((*self._first, *last))
        return self._way


def launch(driver: Driver, workers: int, tasks: int, nanoseconds: float, *arguments: Any) -> None:
    """Run tasks `0 <= task < tasks` of a driver, which take about so many nanoseconds on one core in all.

    Tasks are cut to take 20 ms at most, and workspaces made for `workers`, by the caller.
    """
    driver.used = True
    for i in driver.records:
        if type(arguments[i]) is not np.ndarray:
            arguments = tuple(map(passed, arguments))
            break
    run_in_turn(workers, (driver.way(arguments), tasks, nanoseconds, arguments))


def run_in_turn(workers: int, *runs: Run) -> None:
    """Run several, each when the one before has ended; by one start of a team, where they are short."""
    if workers > 1 and len(runs) > 1:
        loops = [way for way, _, _, _ in runs if type(way) is Loop]
        if len(loops) == len(runs) and sum([nanoseconds for _, _, nanoseconds, _ in runs]) <= _CUT_ABOVE_NS:
            steps = [loop.step(0, tasks, arguments) for loop, (_, tasks, _, arguments) in zip(loops, runs, strict=True)]
            turns.run_steps(workers, steps)
            return
    for way, tasks, nanoseconds, arguments in runs:
        _run(workers, way, tasks, nanoseconds, arguments)


def _run(workers: int, way: Loop | Twins, tasks: int, nanoseconds: float, arguments: tuple[Any, ...]) -> None:
    """At once, or in pieces where it takes long."""
    if nanoseconds <= _CUT_ABOVE_NS:
        way.run(workers, 0, tasks, arguments)
        return
    in_pieces(lambda first, stop: way.run(workers, first, stop, arguments), tasks, nanoseconds / workers, workers)


def in_pieces(run: Callable[[int, int], Any], tasks: int, nanoseconds: float, workers: int = 1) -> None:
    """Call `run(first, stop)` over all tasks, the first piece short, each of the others to take `PIECE_NS`.

    A piece has as many tasks for each worker.
    """
    first, each = 0, max(1, int(tasks * _CUT_ABOVE_NS / max(nanoseconds, 1) / workers))
    while first < tasks:
        stop = min(tasks, first + each * workers)
        began = perf_counter_ns()
        run(first, stop)
        took = max(perf_counter_ns() - began, 1)
        each = max(1, min(int(each * PIECE_NS / took), 8 * each))
        first = stop
