"""Workspaces of calls: those that the last call of a kind left, if they are small; in a network's step, its room.

Allocating, aligning and shaping five arrays takes 10 us. And once more memory is free than twice its largest block,
glibc gives it back to the system, and the next call gets it again page by page: in a process that does nothing else,
Winograd's weight gradient of 64-64 (56x56), whose workspaces are two of 1.8 MB and small ones, took twice the time so.
So those that nobody has left lie in one block.
Knows calls and their workspaces; does not know what is computed in them.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Protocol

import numpy as np

from ..algorithms import Space
from ..runtime.memory import ALIGNED_FROM, allocate, allocate_bytes
from ..runtime.reusing import Reused, Room, Workspaces, here


class Kind(Protocol):
    """A kind of call, which has the same workspaces each time."""

    def spaces(self, workers: int) -> tuple[Space, ...]:
        """The workspaces for so many workers, with their dtypes."""

    def bytes(self, workers: int) -> int:
        """Of all of them."""


# So many kinds of call leave their workspaces, the latest ones, and so many bytes in all, one of them half of these at
# most: what calls leave comes and goes, and mixed calls are not to grow a process by more than 2 MB. With no calls, as
# in tests that look at what is around them, each workspace is alone.
CALLS, BYTES = 16, 3 << 20

# Each step on it is one in C, which no other thread sees half done.
_kept: OrderedDict[tuple[Kind, int], Workspaces] = OrderedDict()

# Where workspaces come from: a network's room, or what was left, True, or new, False.
_Source = tuple[Reused, Room] | bool


def take(function: str, call: Kind, workers: int) -> tuple[_Source, Workspaces]:
    """Workspaces, which nobody else has until they are put back, and where they come from."""
    network = here() if CALLS > 0 else None
    if network is not None and (room := network.take_room()) is not None:
        arrays = room.arrays((call, workers))
        if arrays is None:
            arrays = _new_in_network(network, room, function, call, workers)
        return (network, room), arrays
    left = _kept.pop((call, workers), None)
    if left is not None:
        return True, left
    if CALLS == 0 or network is not None:  # each alone, of what a network has for large arrays
        spaces = call.spaces(workers)
        return False, Workspaces(
            [allocate(function, space.name, space.shape, np.dtype(space.dtype), ALIGNED_FROM) for space in spaces]
        )
    return False, _new_in(Room(), function, call, workers)


def put_back(call: Kind, workers: int, source: _Source, arrays: Workspaces) -> None:
    """Leave the workspaces of a call that has ended, if they are small enough."""
    if isinstance(source, tuple):
        network, room = source
        network.put_back(room)
        return
    if not source and (CALLS == 0 or call.bytes(workers) > BYTES // 2):
        return
    _kept[call, workers] = arrays
    if source and len(_kept) <= CALLS:  # as many bytes as before it took them, but for what others left meanwhile
        return
    try:
        while len(_kept) > CALLS or sum([call.bytes(workers) for call, workers in list(_kept)]) > BYTES:
            _kept.popitem(last=False)
    except KeyError:  # other threads took them all in the meantime
        return


def _new_in_network(network: Reused, room: Room, function: str, call: Kind, workers: int) -> Workspaces:
    try:
        return _new_in(room, function, call, workers)
    except MemoryError:
        network.clear()  # blocks that nobody has
        return _new_in(room, function, call, workers)


def _new_in(room: Room, function: str, call: Kind, workers: int) -> Workspaces:
    """In one block, the room's."""
    spaces = [(space.shape, np.dtype(space.dtype)) for space in call.spaces(workers)]
    return room.new_arrays((call, workers), spaces, partial(allocate_bytes, function, "workspaces"))
