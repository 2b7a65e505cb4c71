"""The micro-kernels of average pooling: windows of a row side by side, one a lane.

A window is summed as it would be alone: its rows by themselves, tap after tap, then row after row. Knows rows of
pixels; does not know planes or edges.
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

# The dtypes that there are kernels for, and the steps from a window to the next that pixels are shuffled for; of larger
# ones, each is loaded by itself.
DTYPES = tuple(np.dtype(name) for name in ("float32", "float64"))
_STEPS = 2
# Windows far apart lie in cache lines of their own, of which a first-level cache keeps eight at any distance.
_FAR = 8

# What compiled code is told of the kernels for a dtype, an int64 array.
ELEMENT = 0  # bytes an element
MEANS = 1  # for each step from 1 on, the last one for any


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    functions = {f"means_{step}": (12, _means(dtype, lanes, step)) for step in range(1, _STEPS + 1)}
    functions["means_far"] = (12, _means(dtype, min(lanes, _FAR), None))
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions, row.features)
    return passed((dtype.itemsize, *addresses.values()))


def _means(dtype: DType, lanes: int, known: int | None) -> emitting.Body:
    """y[i] = sum over r < rows, c < cols of pixel `step*i + r*row_step + c*col_step`, over `divisor`.

    So for `lines` lines of `count` windows, whose pixels lie `line_step` apart, results `pitch`. `known` is the step
    from a window to the next, if it is.
    """

    def body(builder: Any, arguments: Any) -> None:
        top, step, row_step, rows, col_step, cols, count, divisor, y, lines, line_step, pitch = arguments

        def windows(together: int, values: list[Any]) -> list[Any]:
            v = Vectors(builder, dtype, together)
            place, to = values

            def tap(values: list[Any]) -> list[Any]:
                pixels, part = values
                pixel = v.load_spaced(pixels, step, v.all) if known is None else v.load_every(pixels, known)
                return [v.offset(pixels, col_step), v.add(part, pixel)]

            def row(values: list[Any]) -> list[Any]:
                pixels, total = values
                part = v.loop(cols, [pixels, v.zero], tap)[1]
                return [v.offset(pixels, row_step), v.add(total, part)]

            total = v.loop(rows, [place, v.zero], row)[1]
            v.store(v.divide(total, v.number(divisor)), to)
            return [v.offset(place, builder.mul(step, index(together))), v.offset(to, together)]

        def line(begin: list[Any]) -> list[Any]:
            values, times, together = begin, builder.sdiv(count, index(lanes)), lanes
            while together > 0:
                values = v.loop(times, values, partial(windows, together))
                together //= 2
                times = builder.zext(v.is_set(builder.and_(count, index(together))), times.type)
            place, to = begin
            return [v.offset(place, line_step), v.offset(to, pitch)]

        v = Vectors(builder, dtype, lanes)
        v.loop(lines, [v.pointer(top), v.pointer(y)], line)

    return body


_call_means = emitting.caller(12)


@kernel
def mean_lines(
    kernels: Any, step: Any, top: Any, row_step: Any, rows: Any, col_step: Any, cols: Any, count: Any, divisor: Any,
    y: Any, lines: Any, line_step: Any, pitch: Any,
) -> None:  # fmt: skip
    """Means of some lines of windows, see `_means`; `top` and `y` are addresses."""
    means = kernels[MEANS + min(step - 1, _STEPS)]
    _call_means(means, top, step, row_step, rows, col_step, cols, count, divisor, y, lines, line_step, pitch)
