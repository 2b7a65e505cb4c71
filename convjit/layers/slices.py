"""NumPy passes over large arrays, slice by slice, so that an interrupt does not wait for gigabytes.

The slices depend on shapes alone: the same arrays give the same bits every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..runtime.memory import allocate
from ..typing import Array

# Elements a slice: a NumPy expression over them takes some ten milliseconds.
_SLICE = 1 << 21


def cuts(shape: tuple[int, ...], keep: int | None = None) -> Iterator[Any]:
    """Index expressions for the slices of an array, along its longest axis but `keep`."""
    size = math.prod(shape)
    axes = [axis for axis in range(len(shape)) if axis != keep]
    if size <= _SLICE or not axes:
        yield ...
        return
    axis = max(axes, key=shape.__getitem__)
    step = max(1, shape[axis] * _SLICE // size)
    for first in range(0, shape[axis], step):
        yield (*(slice(None),) * axis, slice(first, first + step))


def in_slices(name: str, function: Callable[..., Array], *arrays: Array, keep: int | None = None) -> Array:
    """`function(*arrays)`, which works on each slice as on the whole; arrays of one shape, and so is the result.

    `name` is what is called that lacks the memory; `keep` is not the first axis.
    """
    shape = arrays[0].shape
    if arrays[0].size <= _SLICE:
        return function(*arrays)
    nothing = function(*(array[:0] for array in arrays))
    result = allocate(name, "the result", shape, nothing.dtype)  # before anything is computed
    for where in cuts(shape, keep):
        result[where] = function(*(array[where] for array in arrays))
    return result


def check_result(name: str, like: Array) -> None:
    """Raise `MemoryError` before a long computation whose result, like this array, could not be had."""
    if like.size > _SLICE:
        allocate(name, "the result", like.shape, like.dtype)  # free again when this returns


def channel_sums(function: Callable[..., Array], *arrays: Array) -> Array:
    """The sum of `function(*arrays)` over all axes but the second, arrays of one shape."""
    parts = (function(*(array[where] for array in arrays)) for where in cuts(arrays[0].shape, keep=1))
    # float16 is summed in float32, as NumPy's mean does.
    sums = (part.sum(axis=(0, *range(2, part.ndim)), dtype=np.result_type(part, np.float32)) for part in parts)
    total: Array = np.sum(list(sums), axis=0)
    return total
