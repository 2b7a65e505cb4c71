"""The micro-kernel of 2x2 max pooling: windows side by side, all four pixels of each without a branch.

Nobody foretells which pixel is the largest. Knows two rows of pixels; does not know planes or edges.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType

# The dtypes that there is a kernel for.
DTYPES = tuple(np.dtype(name) for name in ("float32", "float64", "int64"))
_NUMBERS = np.dtype(np.int64)

# What compiled code is told of the kernel for a dtype, an int64 array.
ELEMENT = 0  # bytes an element
POOL = 1


@cache
def kernels(dtype: DType) -> Array:
    """The kernel of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    functions = {"pool": (6, _pool(dtype, row.vector_bytes // dtype.itemsize))}
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions, row.features)
    return passed((dtype.itemsize, addresses["pool"]))


def _pool(dtype: DType, lanes: int) -> emitting.Body:
    """y[i] = max of pixels 2*i and 2*i + 1 of two rows, `pitch` apart; indices[i] = the number of the first such one.

    The first pixel of the upper row has number `first`, the one below it `first + pitch`. A NaN is larger than
    everything. What whole vectors of the `count` windows leave takes narrower ones: masked stores are slow.
    """

    def body(builder: Any, arguments: Any) -> None:
        top, pitch, count, first, y, indices = arguments

        def windows(width: int, values: list[Any]) -> list[Any]:
            v, numbers = Vectors(builder, dtype, width), Vectors(builder, _NUMBERS, width)
            place, number, to, to_index = values
            best = found = None
            for row, start in ((place, number), (v.offset(place, pitch), builder.add(number, pitch))):
                pair = v.load(row), v.load(v.offset(row, width))
                for which in (0, 1):
                    pixel = v.shuffle(*pair, range(which, 2 * width, 2))
                    where = numbers.ramp(builder.add(start, index(which)), 2)
                    if best is None:
                        best, found = pixel, where
                    else:
                        won = v.beats(pixel, best)
                        best, found = v.chosen(won, pixel, best), v.chosen(won, where, found)
            v.store(best, to)
            numbers.store(found, to_index)
            behind = builder.add(number, index(2 * width))
            return [v.offset(place, 2 * width), behind, v.offset(to, width), v.offset(to_index, width)]

        v = Vectors(builder, dtype, lanes)
        values = [v.pointer(top), first, v.pointer(y), v.integers(indices)]
        times, width = builder.sdiv(count, index(lanes)), lanes
        while width > 0:
            values = v.loop(times, values, partial(windows, width))
            width //= 2
            times = builder.and_(count, index(width))  # not 0 where the count has this bit
            times = builder.zext(v.is_set(times), times.type)

    return body


_call_pool = emitting.caller(6)


@kernel
def pool_pairs(kernels: Any, top: Any, pitch: Any, count: Any, first: Any, y: Any, indices: Any) -> None:
    """Maxima of a row of 2x2 windows, see `_pool`; `top`, `y` and `indices` are addresses."""
    _call_pool(kernels[POOL], top, pitch, count, first, y, indices)
