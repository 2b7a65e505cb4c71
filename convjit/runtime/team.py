"""The workers of one parallel loop: tasks dealt to whoever is free.

A board is a small int64 array that the workers of one call share:

========  =============================================
`NEXT`    the next task that nobody has taken
`STOP`    where the tasks end
`GRAIN`   how many are taken at once
========  =============================================

Which worker runs a task never shows in the result, so a counter deals them: a worker whose core is taken by somebody
else (another process, a BLAS thread that waits for work by spinning) holds up the call by the tasks that it has begun,
not by an equal share of all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..typing import Array
from .options import COMPILED, kernel

# The counter, which workers write, has a cache line of 8 elements to itself.
NEXT, STOP, GRAIN = 0, 8, 9
BOARD = types.Array(types.int64, 1, "C")

# Tasks are taken so many times a worker: enough to even out, few enough that the counter is no bottleneck.
_TURNS = 16


def grain(workers: int, first: int, stop: int) -> int:
    """How many of the tasks `first <= task < stop` are taken at once."""
    return max(1, (stop - first) // (_TURNS * workers))


def new_board(workers: int, first: int, stop: int) -> Array:
    """A board for tasks `first <= task < stop`."""
    board = np.zeros(GRAIN + 1, np.int64)
    board[NEXT], board[STOP], board[GRAIN] = first, stop, grain(workers, first, stop)
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


_fetch_add: Any = intrinsic(_typed_fetch_add) if COMPILED else _fetch_add_in_python


@kernel
def take_tasks(board: Any) -> Any:
    """The first of the next `GRAIN` tasks; at or beyond `STOP` if there are none."""
    return _fetch_add(board, NEXT, board[GRAIN])
