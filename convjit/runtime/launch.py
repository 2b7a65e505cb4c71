"""Running a driver: which twin, in how many pieces.

A signal reaches Python code only, so Ctrl-C waits for the kernel that runs: long work is cut into pieces, and between
two of them Python looks for signals. How the tasks are cut never shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np

from .compile import Driver, passed

# What a piece should take. An interrupt waits for one piece, and for its longest task.
PIECE_NS = 40_000_000
# Work is cut if it is expected to take longer than this; estimates are of one core at full speed, and denormals, a
# busy or a slow machine make them wrong by as much as the first piece leaves room for.
_CUT_ABOVE_NS = 5_000_000


def launch(driver: Driver, workers: int, tasks: int, nanoseconds: float, *arguments: Any) -> None:
    """Run tasks `0 <= task < tasks` of a driver, which take about so many nanoseconds on one core in all.

    Tasks are cut to take 20 ms at most, and workspaces made for `workers`, by the caller.
    """
    driver.used = True
    for i in driver.records:
        if type(arguments[i]) is not np.ndarray:
            arguments = tuple(map(passed, arguments))
            break
    run = driver.way(arguments).run
    if nanoseconds <= _CUT_ABOVE_NS:
        run(workers, 0, tasks, arguments)
        return
    in_pieces(lambda first, stop: run(workers, first, stop, arguments), tasks, nanoseconds / workers, workers)


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
