"""The workers of one parallel loop: tasks dealt to whoever is free, and a core for each worker.

A board is a small int64 array that the workers of one call share:

===============  ==================================================================================
`NEXT`           the next task that nobody has taken
`STOP`, `GRAIN`  where the tasks end, and how many are taken at once
`SPREAD`         1 where workers may look for a core of their own
`ARRIVED`        workers that have begun
`YIELDED`        how often worker 0 has given way
`PLACES`         for each worker, the CPU it began on, plus 1; 0 before it begins and after it ends
after those      room for each worker's two CPU masks
===============  ==================================================================================

Which worker runs a task never shows in the result, so tasks are dealt by a counter: a worker whose core is taken by
somebody else (another process, a BLAS thread that waits for work by spinning) holds up the call by one task at most.

A core for each: Linux wakes a sleeping thread on the core of its waker and moves it when it balances load, which after
a pause of 50 ms took 10 to 30 ms, in which two workers shared a core while the other idled. So a worker that finds
itself on the CPU of another one excludes that CPU from its own mask and puts the mask back at once: it has moved then
and may be moved again. Worker 0 gives way until the others had a chance to do so. Only Numba's pool threads under
OpenMP are moved, never a thread of the caller's. `python -m bench --pauses` measures what it brings.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from numba import types
from numba.core import config
from numba.extending import intrinsic

from ..typing import Array
from .options import kernel

# Counters that workers write are a cache line of 8 elements apart.
NEXT, STOP, GRAIN, SPREAD, ARRIVED, YIELDED, PLACES = 0, 8, 9, 10, 16, 17, 24
BOARD = types.Array(types.int64, 1, "C")

# A CPU mask of glibc: 1024 bits.
_MASK_WORDS = 16
_MASK_BYTES = 8 * _MASK_WORDS

# Tasks are taken so many times a worker: enough to even out, few enough that the counter is no bottleneck.
_TURNS = 16
# How often worker 0 gives way to workers that have not begun, at the end of its turns.
_MOST_YIELDS = 4


def new_board(workers: int, first: int, stop: int, spread: bool) -> Array:
    """A board for tasks `first <= task < stop`."""
    board = np.zeros(PLACES + workers * (1 + 2 * _MASK_WORDS), np.int64)
    board[NEXT], board[STOP] = first, stop
    board[GRAIN] = max(1, (stop - first) // (_TURNS * workers))
    board[SPREAD] = spread
    return board


def _typed_fetch_add(typing_context: Any, board: Any, index: Any, addend: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        return builder.atomic_rmw("add", place, arguments[2], "monotonic")

    return types.int64(board, types.int64, types.int64), emit


def _fetch_add_in_python(board: Any, index: Any, addend: Any) -> Any:
    """Add to `board[index]` and return what it was: in one step, among all threads."""
    before = board[index]
    board[index] += addend
    return before


fetch_add: Any = _fetch_add_in_python if config.DISABLE_JIT else intrinsic(_typed_fetch_add)


@kernel
def take_tasks(board: Any) -> Any:
    """The first of the next `GRAIN` tasks; at or beyond `STOP` if there are none."""
    return fetch_add(board, NEXT, board[GRAIN])


@kernel
def leave(board: Any, worker: Any) -> None:
    """Say that the worker's core is free."""
    board[PLACES + worker] = 0


def can_spread() -> bool:
    """Whether threads can be moved here: Linux with glibc."""
    return sys.platform == "linux" and all(
        hasattr(ctypes.CDLL(None), name)
        for name in ("sched_getcpu", "sched_getaffinity", "sched_setaffinity", "sched_yield")
    )


if can_spread():
    _getcpu = types.ExternalFunction("sched_getcpu", types.int32())
    _getaffinity = types.ExternalFunction("sched_getaffinity", types.int32(types.int32, types.int64, types.uint64))
    _setaffinity = types.ExternalFunction("sched_setaffinity", types.int32(types.int32, types.int64, types.uint64))
    _yield = types.ExternalFunction("sched_yield", types.int32())

    @kernel
    def _move(board: Any, worker: Any, workers: Any) -> None:
        """Leave the CPUs of all other workers, if there is another one to go to."""
        own = PLACES + workers + worker * 2 * _MASK_WORDS
        narrow = own + _MASK_WORDS
        address = board.ctypes.data + own * 8
        if _getaffinity(0, _MASK_BYTES, address) != 0:
            return
        for word in range(_MASK_WORDS):
            board[narrow + word] = board[own + word]
        for other in range(workers):
            cpu = board[PLACES + other] - 1
            if other != worker and 0 <= cpu < 64 * _MASK_WORDS:
                board[narrow + cpu // 64] &= ~(1 << (cpu % 64))
        if _setaffinity(0, _MASK_BYTES, address + _MASK_BYTES) == 0:
            _setaffinity(0, _MASK_BYTES, address)

    @kernel
    def join(board: Any, worker: Any, workers: Any) -> None:
        """Begin: take a place, and another CPU if a worker is on this one."""
        fetch_add(board, ARRIVED, 1)
        if board[SPREAD] == 0:
            return
        place = _getcpu() + 1
        if worker > 0 and board[NEXT] < board[STOP]:
            for other in range(workers):
                if other != worker and board[PLACES + other] == place:
                    _move(board, worker, workers)
                    place = _getcpu() + 1
                    break
        board[PLACES + worker] = place

    @kernel
    def make_way(board: Any, worker: Any, workers: Any) -> None:
        """Between turns: let workers begin that wait for this one's CPU."""
        if worker == 0 and board[SPREAD] > 0 and board[ARRIVED] < workers and board[YIELDED] < _MOST_YIELDS:
            board[YIELDED] += 1
            _yield()

else:

    @kernel
    def join(board: Any, worker: Any, workers: Any) -> None:
        """Begin."""
        fetch_add(board, ARRIVED, 1)

    @kernel
    def make_way(board: Any, worker: Any, workers: Any) -> None:
        """Between turns."""


# What the parallel twin calls by name.
VOCABULARY = {
    "STOP": STOP,
    "GRAIN": GRAIN,
    "join": join,
    "take_tasks": take_tasks,
    "make_way": make_way,
    "leave": leave,
}
