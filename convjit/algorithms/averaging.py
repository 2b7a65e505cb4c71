"""Means of windows over each channel by itself, and their gradient.

The sum of a window, cut to the image, is divided by `divisor`, a number other than 0, or by its taps that count.
Source: PyTorch's `AvgPool2d`, whose `ceil_mode`, `count_include_pad` and `divisor_override` these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gemm import means
from ..gemm.planes import inside
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import launch, run_in_turn
from ..runtime.options import COMPILED
from ..runtime.tiles import TILE_COST, tile
from .pooling import launch_over, launch_over_planes, lines_alike, over, taps_inside, whole_windows

# Divisors that are none, as nobody may give them: taps count if they are in the image, or up to the end of its padding.
INSIDE, PADDED = 0, 1 << 62

# Nanoseconds to fill a pixel, of planes in a second-level cache.
_FILL_NS = 0.1


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
    """What the sum of a window is divided by, of which so many taps count; of none, 1."""
    return divisor if divisor != INSIDE and divisor != PADDED else max(counted, 1)


@kernel
def padding(g: Geometry, divisor: Any) -> Any:
    """The padding of both sides, of rows and of columns, where its taps count, else negative."""
    if divisor == PADDED:
        return g.pad_top + g.pad_bottom, g.pad_left + g.pad_right
    return -1, -1


# --- means ----------------------------------------------------------------------------------------------------------


@kernel
def _some_means(
    g: Geometry, image: Any, top: Any, low_h: Any, high_h: Any, counted_h: Any, pads_w: Any, divisor: Any, first: Any,
    stop: Any, y: Any,
) -> None:  # fmt: skip
    """The windows `first <= ow < stop` of a row of results, one by one; one that sees no pixel gives 0."""
    zero = image.dtype.type(0)
    for ow in range(first, stop):
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
        y[ow] = total / image.dtype.type(divided_by(divisor, counted)) if seen else zero


@driver
def _avg_pool(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, divisor: Any, y: Any) -> None:
    """y[p,oh,ow] = (sum of x[p,h,w] over the window) / the divisor; a window that sees no pixel gives 0."""
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    pads_h, pads_w = padding(g, divisor)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        _some_means(g, x[plane], top, low_h, high_h, counted_h, pads_w, divisor, before, behind, y[plane, oh])


@driver
def _avg_pool_rows(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, kernels: Any, x: Any, divisor: Any, y: Any
) -> None:  # fmt: skip
    """The same by vectors of windows; those that reach over an edge one by one."""
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    image, size = x[plane], kernels[means.ELEMENT]
    pads_h, pads_w = padding(g, divisor)
    first, stop = whole_windows(g, before, behind)
    oh = above
    while oh < below:
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        lines = lines_alike(g, top, high_h - low_h, below - oh)
        whole = stop if low_h < high_h else first
        if first < whole:
            number = (plane * g.in_h + top + low_h * g.dilation_h) * g.in_w + first * g.stride_w - g.pad_left
            at = (plane * g.out_h + oh) * g.out_w + first
            means.mean_lines(
                kernels, g.stride_w, x.ctypes.data + number * size, 0, 1, g.dilation_h * g.in_w, high_h - low_h,
                g.dilation_w, g.kernel_w, whole - first, divided_by(divisor, counted_h * g.kernel_w),
                y.ctypes.data + at * size, lines, g.stride_h * g.in_w, g.out_w,
            )  # fmt: skip
        for line in range(lines if before < first or whole < behind else 0):
            row, results = top + line * g.stride_h, y[plane, oh + line]
            _some_means(g, image, row, low_h, high_h, counted_h, pads_w, divisor, before, first, results)
            _some_means(g, image, row, low_h, high_h, counted_h, pads_w, divisor, whole, behind, results)
        oh += lines


@driver
def _avg_pool_planes(
    task: Any, worker: Any, g: Geometry, together: Any, kernels: Any, x: Any, divisor: Any, y: Any
) -> None:  # fmt: skip
    """The same where a plane has one window: by vectors of planes, so many a task."""
    first, size = task * together, kernels[means.ELEMENT]
    pads_h, pads_w = padding(g, divisor)
    low_h, high_h = taps_inside(-g.pad_top, g.kernel_h, g.dilation_h, g.in_h)
    low_w, high_w = taps_inside(-g.pad_left, g.kernel_w, g.dilation_w, g.in_w)
    counted_h = counted_taps(0, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
    counted_w = counted_taps(0, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high_w - low_w)
    planes, pixels = min(together, len(x) - first), g.in_h * g.in_w
    if low_h >= high_h or low_w >= high_w:
        y[first : first + planes] = 0
        return
    number = (low_h * g.dilation_h - g.pad_top) * g.in_w + low_w * g.dilation_w - g.pad_left
    means.mean_lines(
        kernels, pixels, x.ctypes.data + (first * pixels + number) * size, 0, 1, g.dilation_h * g.in_w, high_h - low_h,
        g.dilation_w, high_w - low_w, planes, divided_by(divisor, counted_h * counted_w),
        y.ctypes.data + first * size, 1, 0, 0,
    )  # fmt: skip


def avg_pool(workers: int, g: Geometry, x: Any, divisor: int, y: Any) -> None:
    """Fill `y` (planes, OH, OW) from `x` (planes, H, W)."""
    if not COMPILED or x.dtype not in means.DTYPES:
        launch_over(_avg_pool, workers, g, g.out_h, g.out_w, x.dtype, x, divisor, y)
    elif g.out_h == g.out_w == 1:
        how = launch_over_planes(_avg_pool_planes, g, means.kernels, x.dtype)
        run_in_turn(workers, how.on(x, divisor, y.reshape(len(y))))
    else:
        launch_over(_avg_pool_rows, workers, g, g.out_h, g.out_w, x.dtype, means.kernels(x.dtype), x, divisor, y)


# --- their gradient -------------------------------------------------------------------------------------------------


@driver
def _shares(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, dy: Any, divisor: Any, part: Any) -> None:
    """part[p,oh,ow] = dy[p,oh,ow] / the divisor of its window: what each of its pixels gets."""
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    pads_h, pads_w = padding(g, divisor)
    first, stop = whole_windows(g, before, behind)
    for oh in range(above, below):
        low, high = taps_inside(oh * g.stride_h - g.pad_top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high - low)
        _some_shares(g, dy[plane, oh], counted_h, pads_w, divisor, before, first, part[plane, oh])
        _some_shares(g, dy[plane, oh], counted_h, pads_w, divisor, stop, behind, part[plane, oh])
        gradients, shares = dy[plane, oh, first:stop], part[plane, oh, first:stop]
        number = dy.dtype.type(divided_by(divisor, counted_h * g.kernel_w))
        for i in range(len(shares)):
            shares[i] = gradients[i] / number


@kernel
def _some_shares(
    g: Geometry, dy: Any, counted_h: Any, pads_w: Any, divisor: Any, first: Any, stop: Any, part: Any
) -> None:  # fmt: skip
    """Those of the windows `first <= ow < stop` of a row of results, one by one."""
    for ow in range(first, stop):
        low, high = taps_inside(ow * g.stride_w - g.pad_left, g.kernel_w, g.dilation_w, g.in_w)
        counted = counted_h * counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high - low)
        part[ow] = dy[ow] / dy.dtype.type(divided_by(divisor, counted))


@driver
def _avg_pool_backward(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, part: Any, dx: Any) -> None:
    """dx[p,h,w] = sum over the windows (oh,ow) that see pixel (h,w) of part[p,oh,ow], windows in order."""
    plane, top, bottom, left, right = tile(task, g.in_h, g.in_w, rows, cols)
    are_pairs = g.kernel_w == 2 and g.stride_w == 2 and g.dilation_w == 1 and g.pad_left == 0
    are_pairs = are_pairs and g.dilation_h == 1 and 2 * g.out_w <= g.in_w
    first_above = last_above = -1
    for h in range(top, bottom):
        line, reach = dx[plane, h], h + g.pad_top
        behind = reach - (g.kernel_h - 1) * g.dilation_h - 1  # the last row whose windows end before this one
        first = 0 if behind < 0 else over(behind, g.stride_h) + 1
        last = min(over(reach, g.stride_h), g.out_h - 1)
        if h > top and g.dilation_h == 1 and first == first_above and last == last_above:  # seen by the same windows
            above = dx[plane, h - 1]
            for w in range(left, right):
                line[np.uint64(w)] = above[np.uint64(w)]
            continue
        if are_pairs and first == last and right - left == g.in_w:
            _set_pairs(part[plane, first], line)
        else:
            for w in range(left, right):
                line[np.uint64(w)] = 0
            if g.dilation_h == 1:
                for oh in range(first, last + 1):
                    _add_shares(g, part[plane, oh], left, right, line)
            else:  # the taps from the last one on: their windows come in order
                for kh in range(g.kernel_h - 1, -1, -1):
                    row = reach - kh * g.dilation_h
                    oh = over(row, g.stride_h)
                    if first <= oh and oh <= last and oh * g.stride_h == row:
                        _add_shares(g, part[plane, oh], left, right, line)
        first_above, last_above = first, last


@kernel
def _set_pairs(part: Any, line: Any) -> None:
    """The pixels of a row that one row of windows sees, which are pairs of pixels; those behind them are 0."""
    zero, two, one = line.dtype.type(0), np.uint64(2), np.uint64(1)
    for i in range(len(part)):
        share, at = zero + part[i], two * np.uint64(i)
        line[at] = share
        line[at + one] = share
    for w in range(2 * len(part), len(line)):
        line[np.uint64(w)] = 0


@kernel
def _add_shares(g: Geometry, part: Any, left: Any, right: Any, line: Any) -> None:
    """Add a row of windows to the pixels `left <= w < right` that they see, windows in order."""
    # The taps from the last one on: their windows come in order.
    for kw in range(g.kernel_w - 1, -1, -1):
        shift = kw * g.dilation_w - g.pad_left
        lowest, _ = inside(shift - left, g.stride_w, g.in_w)
        _, highest = inside(shift, g.stride_w, right)
        highest = max(lowest, min(highest, g.out_w))
        if g.stride_w == 1:  # in whole vectors
            pixels, shares = line[lowest + shift : highest + shift], part[lowest:highest]
            for i in range(len(pixels)):
                pixels[i] += shares[i]
        else:
            for ow in range(lowest, highest):
                line[np.uint64(ow * g.stride_w + shift)] += part[np.uint64(ow)]


def _sees_all(g: Geometry) -> bool:
    """Whether the only window of a plane sees each of its pixels, which are not too many for a task."""
    is_dense = g.dilation_h == g.dilation_w == 1 and g.pad_top == g.pad_left == 0
    return (
        is_dense
        and g.in_h * g.in_w <= TILE_COST
        and (g.out_h, g.out_w, g.kernel_h, g.kernel_w) == (1, 1, g.in_h, g.in_w)
    )


@driver
def _whole_planes(task: Any, worker: Any, together: Any, part: Any, dx: Any) -> None:
    """dx[p,i] = part[p], so many planes a task: where the only window sees every pixel."""
    zero = dx.dtype.type(0)
    for plane in range(task * together, min(len(dx), (task + 1) * together)):
        pixels, share = dx[plane], zero + part[plane]
        for i in range(len(pixels)):
            pixels[i] = share


def avg_pool_backward(workers: int, g: Geometry, dy: Any, divisor: int, part: Any, dx: Any) -> None:
    """Fill `dx` (planes, H, W) from `dy` (planes, OH, OW); `part` is a workspace like `dy`."""
    launch_over(_shares, workers, g, g.out_h, g.out_w, dy.dtype, dy, divisor, part)
    if _sees_all(g):
        planes, pixels = len(dx), g.in_h * g.in_w
        together = max(1, TILE_COST // pixels)
        tasks, nanoseconds = -(-planes // together), _FILL_NS * dx.size
        launch(_whole_planes, workers, tasks, nanoseconds, together, part.reshape(planes), dx.reshape(planes, pixels))
        return
    launch_over(_avg_pool_backward, workers, g, g.in_h, g.in_w, dx.dtype, part, dx)
