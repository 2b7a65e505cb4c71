"""Arrays that fit: every result and every large copy is allocated here.

Knows how much memory there is. An array that cannot fit is a `MemoryError` that names its size, before a page of it is
touched: Linux promises memory that it does not have, and kills the process that then uses it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..typing import Array, DType

# Below this nobody asks the system: two small files are read in about 50 us, which is nothing beside filling 64 MiB.
_ASK_ABOVE = 64 << 20
# The address space of a process, as NumPy can index it.
_ADDRESSABLE = (1 << 63) - 1


def available_bytes() -> int:
    """Memory that can still be had: of the machine, or of the container where that is less."""
    limits = [_ADDRESSABLE]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(("MemAvailable:", "SwapFree:")):
                limits.append(int(line.split()[1]) * 1024)
        limits = [min(limits[0], sum(limits[1:]))] if len(limits) > 1 else limits
    except (OSError, ValueError):
        pass  # not Linux: the system refuses by itself
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        limits.append(limit - int((group / "memory.current").read_text()) + _reclaimable(group))
    except (OSError, ValueError):
        pass
    return max(0, min(limits))


def _reclaimable(group: Path) -> int:
    """File pages that the container would give back before it runs out."""
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


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
    """An uninitialised C-contiguous array, or `MemoryError` with its size."""
    dtype = np.dtype(dtype)
    check_fits(function, what, shape, dtype)
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):
        raise _no_memory(function, what, shape, dtype, math.prod(shape) * dtype.itemsize) from None
