"""Arrays that fit: every result and every large copy is allocated here.

Knows how much memory there is. An array that cannot fit is a `MemoryError` that names its size, before a page of it is
touched: Linux promises memory that it does not have, and kills the process that then uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
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

# Where arrays come from; the tests put unreadable pages around them here.
_new = np.empty


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


def allocate(function: str, what: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised C-contiguous array, or `MemoryError` with its size; a large one may have been used before."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < REUSED_FROM:
        try:
            return _new(shape, dtype)
        except (MemoryError, ValueError):
            raise _no_memory(function, what, shape, dtype, _least_bytes(shape, dtype)) from None
    if (reused := here()) is not None:
        return reused.take(shape, dtype, partial(_allocate, function, what, shape, dtype, size))
    return _allocate(function, what, shape, dtype, size)


def allocate_bytes(function: str, what: str, size: int) -> Array:
    """So many bytes that nobody has used before."""
    return _allocate(function, what, (size,), np.dtype(np.uint8), size)


def check_room(function: str, what: str, size: int) -> None:
    """Raise `MemoryError` if so many bytes cannot be had at once; they are free again when this returns."""
    allocate_bytes(function, what, size)


def _allocate(function: str, what: str, shape: tuple[int, ...], dtype: DType, size: int) -> Array:
    if size > _ASK_ABOVE:
        check_fits(function, what, shape, dtype)
    try:
        return _new(shape, dtype)
    except (MemoryError, ValueError):
        raise _no_memory(function, what, shape, dtype, _least_bytes(shape, dtype)) from None


def _least_bytes(shape: tuple[int, ...], dtype: DType) -> int:
    """What NumPy counts: an array without elements is refused, too, by a ValueError, if others were too large."""
    return math.prod(n for n in shape if n != 0) * dtype.itemsize


# Workspaces of at least so many bytes begin with a cache line: else each vector of them lies in two, which costs
# products 5 to 10 % in float32 with AVX-512. Below, finding such a place would cost more than it gains.
ALIGNED_FROM = 1 << 14
# Of the processors that there are rows for; a vector that lies in two of them is slow.
CACHE_LINE = 64


def aligned(allocate: Callable[..., Array], function: str, what: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """What `allocate` gives for a workspace, moved to where a cache line begins if it is large."""
    elements, dtype = math.prod(shape), np.dtype(dtype)
    if elements * dtype.itemsize < ALIGNED_FROM:
        return allocate(function, what, shape, dtype)
    flat = allocate(function, what, (elements + CACHE_LINE // dtype.itemsize,), dtype)
    first = -flat.__array_interface__["data"][0] % CACHE_LINE // dtype.itemsize
    return flat[first : first + elements].reshape(shape)
