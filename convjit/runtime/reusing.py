"""Large arrays that the steps of a training use again, one step after the other.

When a step has ended and its arrays are free, glibc gives their memory back to the system, and the next step gets it
page by page, each of them cleared: 950 pages a step of the network `cifar` of `python -m bench.race`, which takes 4 to
6 % less without. So a network keeps its blocks, and a step finds those that nobody else has any more.
Knows who has an array by CPython's count of references; does not know what is in it.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ..typing import Array, DType

# The C library keeps what is smaller by itself, as a rule: a step of `digits`, whose arrays are, takes 19 pages. To
# look for a block takes 0.5 us.
REUSED_FROM = 1 << 18

_Kind = tuple[tuple[int, ...], DType]
# In a list of one: everything that refers to it must be known, and a name would.
_Block = list[Array]


class _Here(threading.local):
    """What the large arrays of a thread come from; None where each is new."""

    reused: Reused | None = None


_here = _Here()


def here() -> Reused | None:
    """What large arrays of the calling thread come from; None where each is new."""
    return _here.reused


def _references(block: _Block) -> int:
    return sys.getrefcount(block[0])


# Of a block that nobody has: no array that was made of it, nor anybody who has one of these.
_UNUSED = _references([np.empty(0)])


class Reused:
    """The blocks of a network's arrays; its copies have blocks of their own."""

    def __init__(self) -> None:
        self._blocks: dict[_Kind, deque[_Block]] = {}
        self._wanted: set[_Kind] = set()

    def __reduce__(self) -> tuple[type[Reused], tuple[()]]:
        return Reused, ()

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step: this thread's large arrays come from here, and kinds that the step before did not want are gone."""
        for kind in self._blocks.keys() - self._wanted:
            self._blocks.pop(kind, None)
        outer, _here.reused, self._wanted = _here.reused, self, set()
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
        """Give up all blocks; arrays that were made of them keep theirs."""
        self._blocks = {}

    def take(self, shape: tuple[int, ...], dtype: DType, new: Callable[[], Array]) -> Array:
        """An array of a block that nobody has, or of a `new` one, for which all others are given up if need be."""
        kind = shape, dtype
        self._wanted.add(kind)
        blocks = self._blocks.setdefault(kind, deque())
        for _ in range(len(blocks)):
            try:
                block = blocks.pop()  # no other thread has it now
            except IndexError:
                break
            if _references(block) == _UNUSED:
                array = block[0].view()
                blocks.append(block)
                return array
            blocks.appendleft(block)
        try:
            block = [new()]
        except MemoryError:
            self.clear()
            block = [new()]
        array = block[0].view()
        self._blocks.setdefault(kind, deque()).append(block)
        return array
