"""Pooling windows over each channel by itself, forward and backward.

Padding never wins a maximum: windows are cut to the image. The sum of a window is divided by `divisor`, a
number other than 0, or by its taps that count. Source: PyTorch's `MaxPool2d` and `AvgPool2d`, whose `ceil_mode`,
`count_include_pad` and `divisor_override` these are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import by_slices
from ..gemm import maxima
from ..gemm.planes import clipped, inside
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, launch, run_in_turn
from ..runtime.options import COMPILED
from ..runtime.tiles import tile, tiling
from ..typing import DType

# Divisors that are none, as nobody may give them: taps count if they are in the image, or up to the end of its padding.
INSIDE, PADDED = 0, 1 << 62


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
    """The same by vectors of windows, where strides along rows are small; those that reach over an edge one by one."""
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    image, size = x[plane], kernels[maxima.ELEMENT]
    first, stop = _whole_windows(g, before, behind)
    oh = above
    while oh < below:
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        lines = 1
        if high_h - low_h == g.kernel_h:  # and so of those below, down to the last one that reaches over no edge
            reach = (g.kernel_h - 1) * g.dilation_h + 1
            lines = min(below - oh, over(g.in_h - reach - top, g.stride_h) + 1)
        whole = stop if low_h < high_h else first
        if first < whole:
            number = (top + low_h * g.dilation_h) * g.in_w + first * g.stride_w - g.pad_left
            at = (plane * g.out_h + oh) * g.out_w + first
            maxima.pool_lines(
                kernels, g.stride_w, x.ctypes.data + (plane * g.in_h * g.in_w + number) * size, g.dilation_h * g.in_w,
                high_h - low_h, g.dilation_w, g.kernel_w, whole - first, number, y.ctypes.data + at * size,
                indices.ctypes.data + at * 8, lines, g.stride_h * g.in_w, g.out_w,
            )  # fmt: skip
        for line in range(lines if before < first or whole < behind else 0):
            row, largest, places = top + line * g.stride_h, y[plane, oh + line], indices[plane, oh + line]
            _some_windows(g, image, row, low_h, high_h, lowest[0], before, first, largest, places)
            _some_windows(g, image, row, low_h, high_h, lowest[0], whole, behind, largest, places)
        oh += lines


@kernel
def _whole_windows(g: Geometry, before: Any, behind: Any) -> Any:
    """The windows of a row, of `before <= ow < behind`, that reach over neither end: first, and behind the last."""
    reach = (g.kernel_w - 1) * g.dilation_w + 1
    first = max(before, over(g.pad_left + g.stride_w - 1, g.stride_w))
    last = g.in_w - reach + g.pad_left  # where the last one may begin, counted from the padding's edge
    stop = min(behind, over(last, g.stride_w) + 1 if last >= 0 else 0)
    return min(first, behind), max(stop, min(first, behind))


def max_pool(workers: int, g: Geometry, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """Fill `y` and `indices` (planes, OH, OW) from `x` (planes, H, W)."""
    by_vectors = COMPILED and x.dtype in maxima.DTYPES and g.stride_w <= maxima.STRIDES
    if by_vectors and g.in_h * g.in_w <= maxima.MOST_PIXELS:
        _launch_over(
            _max_pool_rows, workers, g, g.out_h, g.out_w, x.dtype, maxima.kernels(x.dtype), x, lowest, y, indices
        )
        return
    _launch_over(_max_pool, workers, g, g.out_h, g.out_w, x.dtype, x, lowest, y, indices)


def _launch_over(driver: Any, workers: int, g: Geometry, height: int, width: int, dtype: DType, *arrays: Any) -> None:
    """Run a driver over tiles of the planes of arrays of this dtype, beside which there may be lists."""
    run_in_turn(workers, _launch(driver, g, height, width, dtype).on(*arrays))


@lru_cache(maxsize=256)
def _launch(driver: Any, g: Geometry, height: int, width: int, dtype: DType) -> Launch:
    taps = g.kernel_h * g.kernel_w
    tiles, planes = tiling(height, width, taps), g.batch * g.in_channels
    nanoseconds = float(planes * height * width * taps)
    return Launch(driver, planes * tiles.a_plane, nanoseconds, g, tiles.rows, tiles.cols)


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


def max_pool_backward(workers: int, dy: Any, indices: Any, dx: Any) -> None:
    """dx[p,h] = sum of dy[p,q] where indices[p,q] is h: the adjoint of y[p,q] = x[p, indices[p,q]].

    `dy` and `indices` are (planes, outputs), `dx` is (planes, pixels).
    """
    planes, outputs = dy.shape
    together = max(1, _SCATTERED_TOGETHER // max(planes, 1))
    clear = together >= outputs and dx.shape[1] <= _CLEARED
    if not clear:
        by_slices(_zero, dx)
    for first in range(0, outputs, together):
        stop = min(outputs, first + together)
        nanoseconds = planes * (2 * (stop - first) + clear * dx.shape[1] / 8)
        launch(_scatter, workers, planes, nanoseconds, int(clear), first, stop, dy, indices, dx)


def _zero(target: Any) -> None:
    target[...] = 0


@kernel
def counted_taps(o: Any, stride: Any, kernel_size: Any, dilation: Any, size: Any, pads: Any, inside: Any) -> Any:
    """The taps of a window along one axis that count: those inside, or up to the end of the padding.

    `pads` is the padding of both sides, or negative where it does not count.
    """
    if pads < 0:
        return inside
    reach = min((kernel_size - 1) * dilation, size + pads - 1 - o * stride)
    return over(reach, dilation) + 1


@kernel
def divided_by(divisor: Any, counted: Any) -> Any:
    """What the sum of a window is divided by, of which so many taps count."""
    return divisor if divisor != INSIDE and divisor != PADDED else counted


@driver
def _avg_pool(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, divisor: Any, y: Any) -> None:
    """y[p,oh,ow] = (sum of x[p,h,w] over the window) / the divisor; a window that sees no pixel gives 0."""
    zero = x.dtype.type(0)
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    image = x[plane]
    pads_h = g.pad_top + g.pad_bottom if divisor == PADDED else -1
    pads_w = g.pad_left + g.pad_right if divisor == PADDED else -1
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        for ow in range(before, behind):
            left = ow * g.stride_w - g.pad_left
            low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
            total = zero
            for kh in range(low_h, high_h):
                h = np.uint64(top + kh * g.dilation_h)
                part = zero
                for kw in range(low_w, high_w):
                    part += image[h, np.uint64(left + kw * g.dilation_w)]
                total += part
            counted = counted_h * counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high_w - low_w)
            seen = high_h > low_h and high_w > low_w
            y[plane, oh, ow] = total / x.dtype.type(divided_by(divisor, counted)) if seen else zero


def avg_pool(workers: int, g: Geometry, x: Any, divisor: int, y: Any) -> None:
    """Fill `y` (planes, OH, OW) from `x` (planes, H, W)."""
    _launch_over(_avg_pool, workers, g, g.out_h, g.out_w, x.dtype, x, divisor, y)


@driver
def _shares(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, dy: Any, divisor: Any, part: Any) -> None:
    """part[p,oh,ow] = dy[p,oh,ow] / the divisor of its window: what each of its pixels gets."""
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    pads_h = g.pad_top + g.pad_bottom if divisor == PADDED else -1
    pads_w = g.pad_left + g.pad_right if divisor == PADDED else -1
    for oh in range(above, below):
        low, high = taps_inside(oh * g.stride_h - g.pad_top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high - low)
        for ow in range(before, behind):
            low, high = taps_inside(ow * g.stride_w - g.pad_left, g.kernel_w, g.dilation_w, g.in_w)
            counted = counted_h * counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high - low)
            part[plane, oh, ow] = dy[plane, oh, ow] / dy.dtype.type(divided_by(divisor, counted))


@driver
def _avg_pool_backward(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, part: Any, dx: Any) -> None:
    """dx[p,h,w] = sum over the windows (oh,ow) that see pixel (h,w) of part[p,oh,ow], windows in order."""
    plane, top, bottom, left, right = tile(task, g.in_h, g.in_w, rows, cols)
    for h in range(top, bottom):
        line = dx[plane, h]
        for w in range(left, right):
            line[np.uint64(w)] = 0
        # The taps from the last one on: their windows come in order.
        for kh in range(g.kernel_h - 1, -1, -1):
            reach = h + g.pad_top - kh * g.dilation_h
            oh = over(reach, g.stride_h)
            if reach < 0 or oh * g.stride_h != reach or oh >= g.out_h:
                continue
            for kw in range(g.kernel_w - 1, -1, -1):
                shift = kw * g.dilation_w - g.pad_left
                lowest, _ = inside(shift - left, g.stride_w, g.in_w)
                _, highest = inside(shift, g.stride_w, right)
                for ow in range(lowest, min(highest, g.out_w)):
                    line[np.uint64(ow * g.stride_w + shift)] += part[plane, oh, np.uint64(ow)]


def avg_pool_backward(workers: int, g: Geometry, dy: Any, divisor: int, part: Any, dx: Any) -> None:
    """Fill `dx` (planes, H, W) from `dy` (planes, OH, OW); `part` is a workspace like `dy`."""
    _launch_over(_shares, workers, g, g.out_h, g.out_w, dy.dtype, dy, divisor, part)
    _launch_over(_avg_pool_backward, workers, g, g.in_h, g.in_w, dx.dtype, part, dx)
