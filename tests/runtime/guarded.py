"""Arrays between guard pages: one element too far, read or written, and the process dies of it.

Knows pages; does not know what the arrays are for. POSIX only: `REASON` says why where it cannot work.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from typing import Any

import numpy as np

REASON = "" if hasattr(mmap, "MAP_ANONYMOUS") and sys.platform != "win32" else "guard pages need POSIX's mprotect"

_PAGE = mmap.PAGESIZE
_NOTHING = 0  # PROT_NONE
# Bytes of a quiet NaN, whatever the size of the floats, and -1 for integers.
CANARY = 0xFF


def _protect(address: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_int(_NOTHING)):
        raise OSError(ctypes.get_errno(), "mprotect failed")


class Guarded:
    """Makes arrays, and remembers them: at the end of their pages (`at_end`) or at the start.

    The pages before and after can be neither read nor written. What lies between the array and the farther guard is
    filled with a canary, and so is the array. Memory is given back when the last view of an array is gone.
    """

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self._blocks: list[tuple[Any, int, int]] = []

    def empty(self, shape: Any, dtype: Any = np.float64) -> Any:
        """As `np.empty`, full of the canary."""
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        size = math.prod(shape) * dtype.itemsize
        room = -(-max(size, 1) // _PAGE) * _PAGE
        pages = mmap.mmap(-1, room + 2 * _PAGE)
        inside = np.ndarray(room, np.uint8, pages, _PAGE)
        inside[:] = CANARY
        address = inside.ctypes.data
        _protect(address - _PAGE, _PAGE)
        _protect(address + room, _PAGE)
        start = room - size if self.at_end else 0
        self._blocks.append((inside, start, start + size))
        return np.ndarray(shape, dtype, pages, _PAGE + start)

    def full(self, shape: Any, value: Any, dtype: Any = None) -> Any:
        """As `np.full`."""
        array = self.empty(shape, np.asarray(value).dtype if dtype is None else dtype)
        array[...] = value
        return array

    def zeros(self, shape: Any, dtype: Any = np.float64) -> Any:
        """As `np.zeros`."""
        return self.full(shape, 0, dtype)

    def copy(self, array: Any) -> Any:
        """The same values between guard pages."""
        copied = self.empty(array.shape, array.dtype)
        copied[...] = array
        return copied

    def overwritten(self) -> int:
        """How many of the arrays made so far have written over the canary beside them; they are forgotten."""
        blocks, self._blocks = self._blocks, []
        return sum(
            not ((inside[:start] == CANARY).all() and (inside[end:] == CANARY).all()) for inside, start, end in blocks
        )


class GuardedNumPy:
    """NumPy, but for arrays that are made: those are guarded."""

    def __init__(self, guarded: Guarded) -> None:
        self.empty, self.full, self.zeros = guarded.empty, guarded.full, guarded.zeros

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
