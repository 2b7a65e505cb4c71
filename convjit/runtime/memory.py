"""Arrays that fit: every result and every large copy is allocated here.

Knows how much memory there is, and where a cache line begins. An array that cannot fit is a `MemoryError` that names
its size, before a page of it is touched: Linux promises memory that it does not have, and kills the process that then
uses it.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..typing import Array, DType
from .containers import memory_left, system_text
from .reusing import REUSED_FROM, here

# Below this nobody asks the system: `available_bytes` takes 25 us, which is nothing beside filling 64 MiB.
_ASK_ABOVE = 64 << 20
# The address space of a process, as NumPy can index it.
_ADDRESSABLE = (1 << 63) - 1

# Of most processors; Apple's have 128.
CACHE_LINE = 64
# Results of so many bytes begin with a cache line, as those of `np.empty` do by chance: else each vector that is stored
# lies in two of them, which costs 16-96 (112x112, 1x1) 37 % in float32 with AVX-512, 58 channels alone (28x28) 23 %,
# 64-64 (224x224) 5 %, and 2 % on average of 47 layers. Below, to find such a place, 1.2 us, costs as much as it gains.
RESULTS_ALIGNED_FROM = 1 << 17
# So do workspaces, which calls of a kind use again, and packed weights: products take 5 to 10 % less.
ALIGNED_FROM = 1 << 14

# Where arrays come from, and bytes behind those that are to begin with a cache line, to be moved by: tests put
# unreadable pages around them here, and leave no room.
_new, _ROOM = np.empty, CACHE_LINE


def available_bytes() -> int:
    """Memory that can still be had: of the machine, or of the container where that is less."""
    limits = [limit for limit in (_of_the_machine(), memory_left()) if limit is not None]
    return max(0, min(limits, default=_ADDRESSABLE))


def _of_the_machine() -> int | None:
    try:
        lines = system_text(Path("/proc/meminfo")).splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("MemAvailable:", "SwapFree:")))
    except (OSError, ValueError):
        return None  # not Linux: the system refuses by itself


def readable_size(size: int) -> str:
    """A number of bytes for people: `12.3 GiB`."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    power = min(max(size.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{size / (1 << (10 * power)):.1f} {units[power]}" if power else f"{size} bytes"


def check_fits(function: str, what: str, shape: tuple[int, ...], dtype: DType) -> None:
    """Raise `MemoryError` if an array of this shape cannot be had."""
    size = math.prod(shape) * dtype.itemsize
    if size > _ASK_ABOVE and size > available_bytes():
        raise _no_memory(function, what, shape, dtype, size)


def _no_memory(function: str, what: str, shape: tuple[int, ...], dtype: DType, size: int) -> MemoryError:
    return MemoryError(
        f"{function}: {what} of shape {shape} and dtype {dtype} needs {readable_size(size)}, "
        "more than the memory that is available"
    )


def allocate(
    function: str, what: str, shape: tuple[int, ...], dtype: DType, aligned_from: int = RESULTS_ALIGNED_FROM
) -> Array:  # fmt: skip
    """An uninitialised C-contiguous array, or `MemoryError` with its size; a large one may have been used before.

    One of `aligned_from` bytes and more begins with a cache line.
    """
    elements = math.prod(shape)
    size = elements * dtype.itemsize
    if size < aligned_from:
        try:
            return _new(shape, dtype)
        except (MemoryError, ValueError):
            raise _no_memory(function, what, shape, dtype, _least_bytes(shape, dtype)) from None
    reused = here() if size >= REUSED_FROM else None
    if reused is None:
        return _aligned(function, what, shape, dtype, size).reshape(shape)
    array = reused.take(shape, dtype, elements)
    if array is None:
        try:
            flat = _aligned(function, what, shape, dtype, size)
        except MemoryError:  # of blocks that nobody has, too
            reused.clear()
            flat = _aligned(function, what, shape, dtype, size)
        array = reused.add(shape, flat)
    return array


def _aligned(function: str, what: str, shape: tuple[int, ...], dtype: DType, size: int) -> Array:
    """The elements of such an array in a row, part of a larger one: they begin with a cache line, where it has room."""
    room, elements = _ROOM // dtype.itemsize, size // dtype.itemsize
    flat = _allocate(function, what, shape, dtype, size, room)
    first = -_address(flat) % CACHE_LINE // dtype.itemsize if room > 0 else 0
    return flat[first : first + elements]


def _address(array: Any) -> int:
    """Of the first element, in a quarter of the time that `array.ctypes.data` takes."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array))


def allocate_bytes(function: str, what: str, size: int) -> Array:
    """So many bytes that nobody has used before."""
    return _allocate(function, what, (size,), np.dtype(np.uint8), size)


def check_room(function: str, what: str, size: int) -> None:
    """Raise `MemoryError` if so many bytes cannot be had at once; they are free again when this returns."""
    allocate_bytes(function, what, size)


def _allocate(function: str, what: str, shape: tuple[int, ...], dtype: DType, size: int, room: int = 0) -> Array:
    """The elements of such an array, and room for so many more, in a row."""
    if size > _ASK_ABOVE:
        check_fits(function, what, shape, dtype)
    try:
        return _new((size // dtype.itemsize + room,), dtype)
    except (MemoryError, ValueError):
        raise _no_memory(function, what, shape, dtype, _least_bytes(shape, dtype)) from None


def _least_bytes(shape: tuple[int, ...], dtype: DType) -> int:
    """What NumPy counts: an array without elements is refused, too, by a ValueError, if others were too large."""
    return math.prod(n for n in shape if n != 0) * dtype.itemsize
