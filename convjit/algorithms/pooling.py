"""Windows over each channel by itself, and their maxima; the means are in `averaging`.

Padding never wins a maximum: windows are cut to the image. Source: PyTorch's `MaxPool2d`, whose `ceil_mode` this is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import by_slices
from ..gemm import maxima
from ..gemm.planes import clipped
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, run_in_turn
from ..runtime.options import COMPILED
from ..runtime.tiles import TILE_COST, tile, tiling
from ..typing import DType


@kernel
def over(number: Any, divisor: Any) -> Any:
    """`number // divisor`, without a division by 1, which is what strides and dilations mostly are."""
    return number if divisor == 1 else number // divisor


@kernel
def taps_inside(first: Any, kernel_size: Any, dilation: Any, size: Any) -> Any:
    """The taps `low <= k < high` of a window from pixel `first` on that lie in `0 <= first + k*dilation < size`."""
    if first >= 0 and first + (kernel_size - 1) * dilation < size:  # most windows, spared the division
        return 0, kernel_size
    low = 0 if first >= 0 else over(-first + dilation - 1, dilation)
    high = 0 if first >= size else over(size - 1 - first, dilation) + 1
    return low, max(low, min(kernel_size, high))


# Outputs of a row from which on taps are taken one after the other, each over the whole row: below, the start of a
# vector loop for each tap costs more than it spares. Max pooling of 1024 planes, 2x2: rows of 4 took 0.37 ms tap by
# tap and 0.26 ms window by window, rows of 16 took 1.6 ms and 3.1 ms.
WIDE = 16


@kernel
def beats(pixel: Any, best: Any) -> Any:
    """Whether a pixel is a new maximum: `not <=` is true for a NaN, and the second half keeps the first one."""
    return (not pixel <= best) & (best == best)


@kernel
def _is_two_by_two(g: Geometry) -> Any:
    """Whether windows are 2x2, side by side, and reach over no edge."""
    square = g.kernel_h == 2 and g.kernel_w == 2 and g.stride_h == 2 and g.stride_w == 2
    dense = g.dilation_h == 1 and g.dilation_w == 1
    return square and dense and g.pad_top == g.pad_left == 0 and 2 * g.out_h <= g.in_h and 2 * g.out_w <= g.in_w


@kernel
def _two_by_two(image: Any, above: Any, below: Any, before: Any, behind: Any, y: Any, indices: Any) -> None:
    """Maxima of 2x2 windows: all four pixels without a branch, as nobody foretells which one is the largest."""
    width = image.shape[1]
    # Unsigned numbers are not looked at for being negative, which would stand for places counted from the end.
    two, one = np.uint64(2), np.uint64(1)
    for oh in range(above, below):
        row = np.uint64(oh)
        top = two * row
        for ow in range(before, behind):
            col = np.uint64(ow)
            left = two * col
            at = 2 * oh * width + 2 * ow
            best, where = image[top, left], at
            pixel = image[top, left + one]
            won = beats(pixel, best)
            best = pixel if won else best
            where = at + 1 if won else where
            pixel = image[top + one, left]
            won = beats(pixel, best)
            best = pixel if won else best
            where = at + width if won else where
            pixel = image[top + one, left + one]
            won = beats(pixel, best)
            y[row, col] = pixel if won else best
            indices[row, col] = at + width + 1 if won else where


@kernel
def one_tap(pixels: Any, stride: Any, first: Any, y: Any, indices: Any) -> None:
    """One tap of each window of a row: every `stride`-th of the pixels, the first of which is number `first`."""
    if stride == 1:  # in whole vectors
        for i in range(len(y)):
            pixel, best, where = pixels[i], y[i], indices[i]
            won = (where < 0) | beats(pixel, best)
            y[i] = pixel if won else best
            indices[i] = first + i if won else where
    else:
        step = np.uint64(stride)
        for i in range(len(y)):
            pixel, best, where = pixels[np.uint64(i) * step], y[i], indices[i]
            won = (where < 0) | beats(pixel, best)
            y[i] = pixel if won else best
            indices[i] = first + i * stride if won else where


@kernel
def _one_window(g: Geometry, image: Any, top: Any, left: Any, low_h: Any, high_h: Any, lowest: Any) -> Any:
    """The maximum of a window and its place; `lowest` and -1 where no pixel is seen."""
    low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
    best = lowest
    where = -1
    for kh in range(low_h, high_h):
        h = top + kh * g.dilation_h
        for kw in range(low_w, high_w):
            w = left + kw * g.dilation_w
            pixel = image[h, w]
            if where < 0 or beats(pixel, best):
                best = pixel
                where = h * g.in_w + w
    return best, where


@kernel
def _some_windows(
    g: Geometry, image: Any, top: Any, low_h: Any, high_h: Any, lowest: Any, first: Any, stop: Any, y: Any, indices: Any
) -> None:  # fmt: skip
    """The windows `first <= ow < stop` of a row of results, one by one."""
    for ow in range(first, stop):
        best, where = _one_window(g, image, top, ow * g.stride_w - g.pad_left, low_h, high_h, lowest)
        y[ow] = best
        indices[ow] = where


@driver
def _max_pool(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, lowest: Any, y: Any, indices: Any
) -> None:
    """y[p,oh,ow] = max of x[p,h,w] over the window, indices[p,oh,ow] = h*W + w of the first maximum.

    NaN is larger than everything. A window without pixels gives `lowest[0]` and index -1.
    """
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    image = x[plane]
    if _is_two_by_two(g):
        _two_by_two(image, above, below, before, behind, y[plane], indices[plane])
        return
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        largest, places = y[plane, oh, before:behind], indices[plane, oh, before:behind]
        if behind - before >= WIDE:
            for i in range(len(largest)):
                largest[i] = lowest[0]
                places[i] = -1
            for kh in range(low_h, high_h):
                h = top + kh * g.dilation_h
                for kw in range(g.kernel_w):
                    shift = before * g.stride_w + kw * g.dilation_w - g.pad_left
                    left, right = clipped(shift, g.stride_w, g.in_w, behind - before)
                    begin = left * g.stride_w + shift
                    if left < right:
                        one_tap(
                            image[h, begin:], g.stride_w, h * g.in_w + begin, largest[left:right], places[left:right]
                        )
        else:
            _some_windows(g, image, top, low_h, high_h, lowest[0], before, behind, y[plane, oh], indices[plane, oh])


@driver
def _max_pool_rows(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, kernels: Any, x: Any, lowest: Any, y: Any, indices: Any
) -> None:
    """The same by vectors of windows; those that reach over an edge one by one."""
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    image, size = x[plane], kernels[maxima.ELEMENT]
    first, stop = whole_windows(g, before, behind)
    oh = above
    while oh < below:
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        lines = lines_alike(g, top, high_h - low_h, below - oh)
        whole = stop if low_h < high_h else first
        if first < whole:
            number = (top + low_h * g.dilation_h) * g.in_w + first * g.stride_w - g.pad_left
            at = (plane * g.out_h + oh) * g.out_w + first
            maxima.pool_lines(
                kernels, g.stride_w, x.ctypes.data + (plane * g.in_h * g.in_w + number) * size, 0, 1,
                g.dilation_h * g.in_w, high_h - low_h, g.dilation_w, g.kernel_w, whole - first, number, g.stride_w,
                y.ctypes.data + at * size, indices.ctypes.data + at * 8, lines, g.stride_h * g.in_w, g.out_w,
            )  # fmt: skip
        for line in range(lines if before < first or whole < behind else 0):
            row, largest, places = top + line * g.stride_h, y[plane, oh + line], indices[plane, oh + line]
            _some_windows(g, image, row, low_h, high_h, lowest[0], before, first, largest, places)
            _some_windows(g, image, row, low_h, high_h, lowest[0], whole, behind, largest, places)
        oh += lines


@kernel
def lines_alike(g: Geometry, top: Any, rows: Any, most: Any) -> Any:
    """How many lines of windows, from that whose first row is `top` on, see as many rows as it does, `most` at most."""
    if rows < g.kernel_h:
        return 1
    reach = (g.kernel_h - 1) * g.dilation_h + 1  # down to the last one that reaches over no edge
    return min(most, over(g.in_h - reach - top, g.stride_h) + 1)


@kernel
def whole_windows(g: Geometry, before: Any, behind: Any) -> Any:
    """The windows of a row, of `before <= ow < behind`, that reach over neither end: first, and behind the last."""
    reach = (g.kernel_w - 1) * g.dilation_w + 1
    first = max(before, over(g.pad_left + g.stride_w - 1, g.stride_w))
    last = g.in_w - reach + g.pad_left  # where the last one may begin, counted from the padding's edge
    stop = min(behind, over(last, g.stride_w) + 1 if last >= 0 else 0)
    return min(first, behind), max(stop, min(first, behind))


@driver
def _max_pool_planes(
    task: Any, worker: Any, g: Geometry, together: Any, kernels: Any, x: Any, lowest: Any, y: Any, indices: Any
) -> None:
    """The same where a plane has one window: by vectors of planes, so many a task."""
    first, size = task * together, kernels[maxima.ELEMENT]
    planes, pixels = min(together, len(x) - first), g.in_h * g.in_w
    low_h, high_h = taps_inside(-g.pad_top, g.kernel_h, g.dilation_h, g.in_h)
    low_w, high_w = taps_inside(-g.pad_left, g.kernel_w, g.dilation_w, g.in_w)
    if low_h >= high_h or low_w >= high_w:
        for plane in range(first, first + planes):
            y[plane] = lowest[0]
            indices[plane] = -1
        return
    number = (low_h * g.dilation_h - g.pad_top) * g.in_w + low_w * g.dilation_w - g.pad_left
    maxima.pool_lines(
        kernels, pixels, x.ctypes.data + (first * pixels + number) * size, 0, 1, g.dilation_h * g.in_w, high_h - low_h,
        g.dilation_w, high_w - low_w, planes, number, 0, y.ctypes.data + first * size, indices.ctypes.data + first * 8,
        1, 0, 0,
    )  # fmt: skip


def max_pool(workers: int, g: Geometry, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """Fill `y` and `indices` (planes, OH, OW) from `x` (planes, H, W)."""
    if not COMPILED or x.dtype not in maxima.DTYPES or g.in_h * g.in_w > maxima.MOST_PIXELS:
        launch_over(_max_pool, workers, g, g.out_h, g.out_w, x.dtype, x, lowest, y, indices)
    elif g.out_h == g.out_w == 1:
        how = launch_over_planes(_max_pool_planes, g, maxima.kernels, x.dtype)
        run_in_turn(workers, how.on(x, lowest, y.reshape(len(y)), indices.reshape(len(y))))
    else:
        kernels = maxima.kernels(x.dtype)
        launch_over(_max_pool_rows, workers, g, g.out_h, g.out_w, x.dtype, kernels, x, lowest, y, indices)


def launch_over(driver: Any, workers: int, g: Geometry, height: int, width: int, dtype: DType, *arrays: Any) -> None:
    """Run a driver over tiles of the planes of arrays of this dtype, beside which there may be lists."""
    run_in_turn(workers, _launch(driver, g, height, width, dtype).on(*arrays))


@lru_cache(maxsize=256)
def _launch(driver: Any, g: Geometry, height: int, width: int, dtype: DType) -> Launch:
    taps = g.kernel_h * g.kernel_w
    tiles, planes = tiling(height, width, taps), g.batch * g.in_channels
    nanoseconds = float(planes * height * width * taps)
    return Launch(driver, planes * tiles.a_plane, nanoseconds, g, tiles.rows, tiles.cols)


# Planes that fill a vector: a task takes as many, if they are not larger than 256x256 pixels.
_VECTOR = 8


@lru_cache(maxsize=256)
def launch_over_planes(driver: Any, g: Geometry, kernels: Any, dtype: DType) -> Launch:
    """Of a driver over planes with one window each, with kernels for this dtype."""
    planes, taps = g.batch * g.in_channels, g.kernel_h * g.kernel_w
    together = max(1, TILE_COST // taps, min(_VECTOR, _VECTOR * TILE_COST // taps))
    return Launch(driver, -(-planes // together), float(planes * taps), g, together, lambda: kernels(dtype))


# Outputs of all planes that a launch of the scatter takes: a few milliseconds.
_SCATTERED_TOGETHER = 1 << 22
# Pixels of a plane that the scatter may fill with zeros itself, while they are in the cache: some microseconds.
_CLEARED = 1 << 16


@driver
def _scatter(task: Any, worker: Any, clear: Any, first: Any, stop: Any, dy: Any, indices: Any, dx: Any) -> None:
    """dx[p, indices[p,q]] += dy[p,q] for `first <= q < stop`, `dx` zero before where it is to be cleared.

    A task owns a whole plane of `dx`, and adds in order.
    """
    gradient, values, places = dx[task], dy[task, first:stop], indices[task, first:stop]
    if clear:
        gradient[:] = 0
    for q in range(len(values)):
        place = places[q]
        if place >= 0:
            gradient[place] += values[q]


@driver
def _scatter_positive(
    task: Any, worker: Any, clear: Any, first: Any, stop: Any, y: Any, dy: Any, indices: Any, dx: Any
) -> None:  # fmt: skip
    """The same, but dy[p,q] counts as 0 where y[p,q] is not positive."""
    gradient, values, places = dx[task], dy[task, first:stop], indices[task, first:stop]
    above, nothing, zero = y[task, first:stop], dy.dtype.type(0), y.dtype.type(0)
    if clear:
        gradient[:] = 0
    for q in range(len(values)):
        place = places[q]
        if place >= 0:
            gradient[place] += values[q] if above[q] > zero else nothing


def max_pool_backward(workers: int, dy: Any, indices: Any, dx: Any, rectified: Any = None) -> None:
    """dx[p,h] = sum of dy[p,q] where indices[p,q] is h: the adjoint of y[p,q] = x[p, indices[p,q]].

    `dy` and `indices` are (planes, outputs), `dx` is (planes, pixels). Where maxima went through a ReLU, `rectified` is
    what it made of them, (planes, outputs), and `dy` the gradient behind it.
    """
    planes, outputs = dy.shape
    together = max(1, _SCATTERED_TOGETHER // max(planes, 1))
    clear = together >= outputs and dx.shape[1] <= _CLEARED
    if not clear:
        by_slices(_zero, dx)
    for first in range(0, outputs, together):
        stop = min(outputs, first + together)
        nanoseconds = planes * (2 * (stop - first) + clear * dx.shape[1] / 8)
        arrays = (dy, indices, dx) if rectified is None else (rectified, dy, indices, dx)
        how = _scattering(rectified is not None, *[array.dtype for array in arrays])
        run_in_turn(workers, how.part(planes, nanoseconds, int(clear), first, stop, *arrays))


@lru_cache(maxsize=16)
def _scattering(is_rectified: bool, *dtypes: DType) -> Launch:
    """Of arrays of these dtypes."""
    return Launch(_scatter_positive if is_rectified else _scatter, 0, 0.0)


def _zero(target: Any) -> None:
    target[...] = 0
