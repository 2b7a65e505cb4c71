"""The caller's own array for a result: whether it may be written while the others are read."""

from __future__ import annotations

from typing import Any

from ..runtime.options import kernel
from .arguments import has_array, is_dense, size_of
from .record import ADDRESS, DIMENSIONS, SHAPE, STRIDES, of_array, shape_of


@kernel
def takes(r: Any, i: Any, like: Any, a: Any, b: Any, c: Any, d: Any, size: Any) -> Any:
    """Whether array `i` has the shape (a, b, c, d), as many axes as array `like`, and is C-contiguous and aligned.

    Arrays of no elements are contiguous, whatever their strides.
    """
    n, o, h, w = shape_of(r, i)
    ok = n == a and o == b and h == c and w == d and r[of_array(i) + DIMENSIONS] == r[of_array(like) + DIMENSIONS]
    return ok and (is_dense(r, i, size) or (size_of(r, i) == 0 and r[of_array(i) + ADDRESS] % size == 0))


@kernel
def _extent(r: Any, at: Any, axis: Any) -> Any:
    """Elements along an axis that lie in different places."""
    return 1 if r[at + STRIDES + axis] == 0 else r[at + SHAPE + axis]


@kernel
def overlap(r: Any, out: Any, i: Any, size: Any) -> Any:
    """Whether an element of array `i` lies in the bytes of array `out`, which is C-contiguous."""
    if not has_array(r, i) or size_of(r, i) == 0 or size_of(r, out) == 0:
        return False
    at, begin = of_array(i), r[of_array(out) + ADDRESS]
    # Where an element begins that has a byte in common.
    first, last = begin - size + 1, begin + size_of(r, out) * size - 1
    lowest = highest = r[at + ADDRESS]
    for axis in range(4):
        reach = (r[at + SHAPE + axis] - 1) * r[at + STRIDES + axis]
        lowest, highest = lowest + min(reach, 0), highest + max(reach, 0)
    if highest < first or lowest > last:
        return False
    step, count = r[at + STRIDES + 3], _extent(r, at, 3)
    for n in range(_extent(r, at, 0)):
        for c in range(_extent(r, at, 1)):
            for h in range(_extent(r, at, 2)):
                row = r[at + ADDRESS] + n * r[at + STRIDES] + c * r[at + STRIDES + 1] + h * r[at + STRIDES + 2]
                left = row + min((count - 1) * step, 0)
                apart = max(max(step, -step), 1)
                k = max(0, (first - left + apart - 1) // apart)
                if k < count and left + k * apart <= last:
                    return True
    return False
