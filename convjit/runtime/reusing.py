"""Large arrays that the steps of a training use again, one step after the other.

When a step has ended and its arrays are free, glibc gives their memory back to the system, and the next step gets it
page by page, each of them cleared: 950 pages a step of the network `cifar` of `python -m bench.race`, which takes 4 to
6 % less without. So a network keeps its blocks, and a step finds those that nobody else has any more. It keeps a room
for workspaces, too: what one call leaves in the cache, the next one writes over.
Knows who has an array by CPython's count of references; does not know what is in it.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from ..typing import Array, DType

# The C library keeps what is smaller by itself, as a rule: a step of `digits`, whose arrays are, takes 19 pages. To
# look for a block takes 0.5 us.
REUSED_FROM = 1 << 18

_Kind = tuple[tuple[int, ...], DType]
# All of one that begins with a cache line, part of the memory that is its base: arrays made of it refer to that. In a
# list of one: a name would refer to it, too.
_Block = list[Array]


class _Here(threading.local):
    """What the large arrays of a thread come from; None where each is new."""

    reused: Reused | None = None


_here = _Here()


def here() -> Reused | None:
    """What large arrays of the calling thread come from; None where each is new."""
    return _here.reused


def _references(block: _Block) -> int:
    return sys.getrefcount(block[0].base)


# Of a block that nobody has: no array that was made of it, nor anybody who has one of these.
_UNUSED = _references([np.empty(1)[:1]])


# Where the arrays of a room begin: cache lines.
_APART = 64
# Kinds of call whose arrays are kept: more than the layers of most networks have.
_CUTS = 512


class Workspaces(list[Array]):
    """The workspaces of a kind of call, and what such a call runs in them, where that was found before."""

    run: Callable[..., None] | None = None


class Room:
    """Memory in which the workspaces of a network's calls lie, those of one call at a time."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._cuts: dict[Hashable, tuple[int, Workspaces]] = {}
        self._wanted = 0

    def arrays(self, kind: Hashable) -> Workspaces | None:
        """Those of a kind of call that was here before."""
        cut = self._cuts.get(kind)
        if cut is None:
            return None
        self._wanted = max(self._wanted, cut[0])
        return cut[1]

    def new_arrays(self, kind: Hashable, kinds: Iterable[_Kind], new: Callable[[int], Array]) -> Workspaces:
        """Arrays of these shapes and dtypes, for a kind of call; `new` gives so many bytes, where there are too few."""
        sizes = [(shape, dtype, math.prod(shape) * dtype.itemsize) for shape, dtype in kinds]
        size = sum(-(-taken // _APART) * _APART for _, _, taken in sizes)
        if size > self._memory.size or len(self._cuts) == _CUTS:
            self._cuts = {}
        if size > self._memory.size:
            self._memory = np.empty(0, np.uint8)  # gone before there is more
            memory = new(size + _APART)
            first = -memory.__array_interface__["data"][0] % _APART
            self._memory = memory[first : first + size]
        arrays, at = Workspaces(), 0
        for shape, dtype, taken in sizes:
            arrays.append(self._memory[at : at + taken].view(dtype).reshape(shape))
            at += -(-taken // _APART) * _APART
        self._cuts[kind] = size, arrays
        self._wanted = max(self._wanted, size)
        return arrays

    def has_too_much(self) -> bool:
        """Whether nobody wanted half of it since this was asked last."""
        wanted, self._wanted = self._wanted, 0
        return 2 * wanted < self._memory.size


class Reused:
    """The blocks of a network's arrays, and its room; its copies have their own."""

    def __init__(self) -> None:
        # By their number of elements and dtype; of kinds that this step has not wanted yet, those of the step before.
        self._blocks: dict[tuple[int, DType], deque[_Block]] = {}
        self._before: dict[tuple[int, DType], deque[_Block]] = {}
        self._rooms: deque[Room] = deque()  # one between steps; none while a call has it

    def __reduce__(self) -> tuple[type[Reused], tuple[()]]:
        return Reused, ()

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step: this thread's large arrays come from here, and kinds that the step before did not want are gone."""
        self._before, self._blocks = self._blocks, {}
        room = self.take_room()
        self._rooms.append(Room() if room is None or room.has_too_much() else room)
        outer, _here.reused = _here.reused, self
        try:
            yield
        finally:
            _here.reused = outer

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Steps after which all blocks are given up."""
        try:
            yield
        finally:
            self.clear()

    def clear(self) -> None:
        """Give up all blocks, and the room; arrays that were made of them keep theirs."""
        self._before, self._blocks = {}, {}
        self._rooms.clear()

    def take_room(self) -> Room | None:
        """The room, until it is put back; None where another call has it."""
        try:
            return self._rooms.pop()
        except IndexError:
            return None

    def put_back(self, room: Room) -> None:
        """What `take_room` gave; gone, if there is another one by now."""
        if not self._rooms:
            self._rooms.append(room)

    def take(self, shape: tuple[int, ...], dtype: DType, elements: int) -> Array | None:
        """An array of a block that nobody has; None where all are taken."""
        blocks = self._blocks.get((elements, dtype))
        if blocks is None:
            blocks = self._wanted(elements, dtype)
        for _ in range(len(blocks)):
            try:
                block = blocks.pop()  # no other thread has it now
            except IndexError:
                break
            if _references(block) == _UNUSED:
                array = block[0].reshape(shape)
                blocks.append(block)
                return array
            blocks.appendleft(block)
        return None

    def add(self, shape: tuple[int, ...], flat: Array) -> Array:
        """An array of a new block: all of these elements, part of a larger array."""
        block = [flat]
        array = flat.reshape(shape)
        self._wanted(flat.size, flat.dtype).append(block)
        return array

    def _wanted(self, elements: int, dtype: DType) -> deque[_Block]:
        """Blocks of a kind that this step has use for."""
        kind = elements, dtype
        return self._blocks.setdefault(kind, self._before.pop(kind, deque()))
