"""The micro-kernels of average pooling: a window a lane.

A window is summed as it would be alone: its rows by themselves, tap after tap, then row after row. Knows rows of
pixels; does not know planes or edges.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType
from .window_lanes import FAR, STEPS, load, over_windows

# The dtypes that there are kernels for.
DTYPES = tuple(np.dtype(name) for name in ("float32", "float64"))

# What compiled code is told of the kernels for a dtype, an int64 array.
ELEMENT = 0  # bytes an element
MEANS = 1  # for each step from 1 on, the last one for any


@cache
def kernels(dtype: DType, *, deep: bool = False) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call; `deep` ones for volumes."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    functions = {f"means_{step}": (14, _means(dtype, lanes, step, deep)) for step in range(1, STEPS + 1)}
    functions["means_far"] = (14, _means(dtype, min(lanes, FAR), None, deep))
    name = f"{__name__}.{dtype}.{row.name}{'.deep' * deep}"
    return passed((dtype.itemsize, *emitting.compiled(name, functions, row.features).values()))


def _means(dtype: DType, lanes: int, known: int | None, deep: bool) -> emitting.Body:
    """y[i] = sum over r < rows, c < cols of pixel `step*i + r*row_step + c*col_step`, over `divisor`.

    So for `lines` lines of `count` windows, whose pixels lie `line_step` apart, results `pitch`. `known` is the step
    from a window to the next, if it is known here. A `deep` window has such rows in `slices` slices, `slice_step`
    apart, each of which is summed by itself; another one has one.
    """

    def body(builder: Any, arguments: Any) -> None:
        top, step, slice_step, slices, row_step, rows, col_step, cols, count, divisor, *arguments = arguments
        y, lines, line_step, pitch = arguments

        def windows(together: int, values: list[Any]) -> list[Any]:
            v = Vectors(builder, dtype, together)
            place, to = values

            def tap(values: list[Any]) -> list[Any]:
                pixels, part = values
                return [v.offset(pixels, col_step), v.add(part, load(v, pixels, step, known))]

            def row(values: list[Any]) -> list[Any]:
                pixels, total = values
                part = v.loop(cols, [pixels, v.zero], tap)[1]
                return [v.offset(pixels, row_step), v.add(total, part)]

            def of_slice(values: list[Any]) -> list[Any]:
                pixels, total = values
                part = v.loop(rows, [pixels, v.zero], row)[1]
                return [v.offset(pixels, slice_step), v.add(total, part)]

            begin = [place, v.zero]
            total = (v.loop(slices, begin, of_slice) if deep else v.loop(rows, begin, row))[1]
            v.store(v.divide(total, v.number(divisor)), to)
            return [v.offset(place, builder.mul(step, index(together))), v.offset(to, together)]

        def line(begin: list[Any]) -> list[Any]:
            over_windows(v, count, begin, windows)
            place, to = begin
            return [v.offset(place, line_step), v.offset(to, pitch)]

        v = Vectors(builder, dtype, lanes)
        v.loop(lines, [v.pointer(top), v.pointer(y)], line)

    return body


_call_means = emitting.caller(14)


@kernel
def mean_lines(
    kernels: Any, step: Any, top: Any, slice_step: Any, slices: Any, row_step: Any, rows: Any, col_step: Any, cols: Any,
    count: Any, divisor: Any, y: Any, lines: Any, line_step: Any, pitch: Any,
) -> None:  # fmt: skip
    """Means of some lines of windows, see `_means`; `top` and `y` are addresses."""
    _call_means(
        kernels[MEANS + min(step - 1, STEPS)], top, step, slice_step, slices, row_step, rows, col_step, cols, count,
        divisor, y, lines, line_step, pitch,
    )  # fmt: skip
