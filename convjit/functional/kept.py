"""Workspaces of calls: those that the last call of a kind left, if they are small; in a network's step, its room.

Allocating, aligning and shaping five arrays takes 10 us. Knows calls and their workspaces; does not know what is
computed in them.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Protocol

import numpy as np

from ..algorithms import Space
from ..runtime.memory import allocate_bytes
from ..runtime.reusing import Reused, Room, here
from ..typing import Array


class Kind(Protocol):
    """A kind of call, which has the same workspaces each time."""

    def spaces(self, workers: int) -> tuple[Space, ...]:
        """The workspaces for so many workers, with their dtypes."""

    def bytes(self, workers: int) -> int:
        """Of all of them."""


# So many kinds of call leave their workspaces, the latest ones, and so many bytes in all: those of some layers, which
# stay in the second-level cache.
CALLS, BYTES = 16, 3 << 20

# Each step on it is one in C, which no other thread sees half done.
_kept: OrderedDict[tuple[Kind, int], list[Array]] = OrderedDict()

# Where workspaces come from: a network's room, or what was left, True, or new, False.
_Source = tuple[Reused, Room] | bool


def take(function: str, call: Kind, workers: int) -> tuple[_Source, list[Array] | None]:
    """Workspaces, which nobody else has until they are put back, and where they come from; None for new ones."""
    network = here() if CALLS > 0 else None
    if network is not None and (room := network.take_room()) is not None:
        kind = call, workers
        arrays = room.arrays(kind)
        if arrays is None:
            arrays = _new_in(network, room, kind, function)
        return (network, room), arrays
    left = _kept.pop((call, workers), None)
    return left is not None, left


def put_back(call: Kind, workers: int, source: _Source, arrays: list[Array]) -> None:
    """Leave the workspaces of a call that has ended, if they are small enough."""
    if isinstance(source, tuple):
        network, room = source
        network.put_back(room)
        return
    if not source and (CALLS == 0 or call.bytes(workers) > BYTES // 2):
        return
    _kept[call, workers] = arrays
    if source and len(_kept) <= CALLS:  # as many bytes as before it took them
        return
    try:
        while len(_kept) > CALLS or sum([call.bytes(workers) for call, workers in list(_kept)]) > BYTES:
            _kept.popitem(last=False)
    except KeyError:  # other threads took them all in the meantime
        return


def _new_in(network: Reused, room: Room, kind: tuple[Kind, int], function: str) -> list[Array]:
    call, workers = kind
    spaces = [(space.shape, np.dtype(space.dtype)) for space in call.spaces(workers)]
    new = partial(allocate_bytes, function, "workspaces")
    try:
        return room.new_arrays(kind, spaces, new)
    except MemoryError:
        network.clear()  # blocks that nobody has
        return room.new_arrays(kind, spaces, new)
