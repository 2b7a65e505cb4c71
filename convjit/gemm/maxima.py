"""The micro-kernels of max pooling: a window a lane, without a branch.

Nobody foretells which pixel of a window is the largest. Knows rows of pixels; does not know planes or edges.
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
DTYPES = tuple(np.dtype(name) for name in ("float32", "float64", "int64"))
_NUMBERS = np.dtype(np.int64)

# Pixels of a plane at most: places in a window are counted in 32 bits beside float32.
MOST_PIXELS = 1 << 30

# What compiled code is told of the kernels for a dtype, an int64 array.
ELEMENT = 0  # bytes an element
POOL = 1  # for each step from 1 on, the last one for any
PAIRS = POOL + STEPS + 1  # of windows of 2x2 side by side


@cache
def kernels(dtype: DType, *, deep: bool = False) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call; `deep` ones for volumes."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    functions = {f"pool_{step}": (16, _pool(dtype, lanes, step, deep=deep)) for step in range(1, STEPS + 1)}
    functions["pool_far"] = (16, _pool(dtype, min(lanes, FAR), None, deep=deep))
    if not deep:
        functions["pairs"] = (16, _pool(dtype, lanes, 2, are_pairs=True))
    name = f"{__name__}.{dtype}.{row.name}{'.deep' * deep}"
    return passed((dtype.itemsize, *emitting.compiled(name, functions, row.features).values()))


def _pool(
    dtype: DType, lanes: int, known: int | None, *, deep: bool = False, are_pairs: bool = False
) -> emitting.Body:  # fmt: skip
    """y[i] = max over r < rows, c < cols of pixel `step*i + r*row_step + c*col_step`, indices[i] = where it is first.

    Pixels are numbered on from `first`, that of the first window's first one, which grows by `apart` from a window to
    the next. A NaN is larger than everything. `known` is the step and `apart`, if they are known here; `are_pairs`
    where windows are known to be 2x2. So for `lines` lines of `count` windows, whose pixels lie `line_step` apart,
    results `pitch`. A `deep` window has such rows in `slices` slices, `slice_step` apart; another one has one.
    """

    def body(builder: Any, arguments: Any) -> None:
        top, step, slice_step, slices, row_step, rows, col_step, cols, count, first, apart, *arguments = arguments
        y, indices, lines, line_step, pitch = arguments
        if known is not None:
            step = apart = index(known)

        def of_pairs(v: Vectors, place: Any) -> list[Any]:
            """Without loops, and each pixel read once."""
            best: Any = None
            found: Any = None
            for line, behind in ((place, index(0)), (v.offset(place, row_step), row_step)):
                pair = v.load(line), v.load(v.offset(line, v.lanes))
                for which in (0, 1):
                    pixel = v.shuffle(*pair, range(which, 2 * v.lanes, 2))
                    where = v.counter(builder.add(behind, index(which)))
                    if best is None:
                        best, found = pixel, where
                        continue
                    won = v.beats(pixel, best)
                    best, found = v.chosen(won, pixel, best), v.chosen(won, where, found)
            return [best, found]

        def of_any(v: Vectors, place: Any) -> list[Any]:
            def tap(values: list[Any]) -> list[Any]:
                pixels, at, best, found = values
                pixel = load(v, pixels, step, known)
                won = v.beats(pixel, best)
                best, found = v.chosen(won, pixel, best), v.chosen(won, v.counter(at), found)
                return [v.offset(pixels, col_step), builder.add(at, col_step), best, found]

            def row(values: list[Any]) -> list[Any]:
                pixels, at, *held = values
                held = v.loop(cols, [pixels, at, *held], tap)[2:]
                return [v.offset(pixels, row_step), builder.add(at, row_step), *held]

            def of_slice(values: list[Any]) -> list[Any]:
                pixels, at, *held = values
                held = v.loop(rows, [pixels, at, *held], row)[2:]
                return [v.offset(pixels, slice_step), builder.add(at, slice_step), *held]

            # The first pixel does not beat itself.
            begin = [place, index(0), load(v, place, step, known), v.counter(index(0))]
            return (v.loop(slices, begin, of_slice) if deep else v.loop(rows, begin, row))[2:]

        def windows(width: int, values: list[Any]) -> list[Any]:
            v, numbers = Vectors(builder, dtype, width), Vectors(builder, _NUMBERS, width)
            place, number, to, to_index = values
            best, found = (of_pairs if are_pairs else of_any)(v, place)
            v.store(best, to)
            numbers.store(numbers.add(v.widened(found), numbers.ramp(number, apart)), to_index)
            behind = builder.add(number, builder.mul(apart, index(width)))
            next_place = v.offset(place, builder.mul(step, index(width)))
            return [next_place, behind, v.offset(to, width), v.offset(to_index, width)]

        def line(begin: list[Any]) -> list[Any]:
            over_windows(v, count, begin, windows)
            place, number, to, to_index = begin
            behind = builder.add(number, line_step)
            return [v.offset(place, line_step), behind, v.offset(to, pitch), v.offset(to_index, pitch)]

        v = Vectors(builder, dtype, lanes)
        v.loop(lines, [v.pointer(top), first, v.pointer(y), v.integers(indices)], line)

    return body


_call_pool = emitting.caller(16)


@kernel
def pool_lines(
    kernels: Any, step: Any, top: Any, slice_step: Any, slices: Any, row_step: Any, rows: Any, col_step: Any, cols: Any,
    count: Any, first: Any, apart: Any, y: Any, indices: Any, lines: Any, line_step: Any, pitch: Any,
) -> None:  # fmt: skip
    """Maxima of some lines of windows, see `_pool`; `top`, `y` and `indices` are addresses."""
    are_pairs = step == 2 and apart == 2 and rows == 2 and cols == 2 and col_step == 1 and len(kernels) > PAIRS
    is_known = step <= STEPS and apart == step
    pool = kernels[PAIRS if are_pairs else POOL + (step - 1 if is_known else STEPS)]
    _call_pool(
        pool, top, step, slice_step, slices, row_step, rows, col_step, cols, count, first, apart, y, indices, lines,
        line_step, pitch,
    )  # fmt: skip
