"""Workspaces that calls leave for the next call of their kind.

Allocating, aligning and shaping five arrays takes 10 us: a call finds those of the last one, if they are small. Knows
calls and their workspaces; does not know what is computed in them.
"""

from __future__ import annotations

from collections import OrderedDict

from ..typing import Array
from .calls import Call

# So many kinds of call leave their workspaces, the latest ones, and so many bytes in all: those of some layers, which
# stay in the second-level cache.
CALLS, BYTES = 16, 3 << 20

# With their bytes. Each step on it is one in C, which no other thread sees half done.
_kept: OrderedDict[tuple[Call, int], tuple[int, list[Array]]] = OrderedDict()


def take(call: Call, workers: int) -> tuple[int, list[Array]] | None:
    """The workspaces that a call of this kind left, and their bytes: nobody else has them until they are put back."""
    return _kept.pop((call, workers), None)


def put_back(call: Call, workers: int, size: int, workspaces: list[Array], *, are_new: bool) -> None:
    """Leave the workspaces of a call that has ended, if they are small enough; `are_new` if none had been left."""
    if CALLS == 0 or size > BYTES // 2:
        return
    _kept[call, workers] = size, workspaces
    if not are_new and len(_kept) <= CALLS:  # as many bytes as before it took them
        return
    try:
        while len(_kept) > CALLS or sum([size for size, _ in list(_kept.values())]) > BYTES:
            _kept.popitem(last=False)
    except KeyError:  # other threads took them all in the meantime
        return
