"""Pooling windows over each channel by itself, forward and backward.

Padding never wins a maximum: windows are cut to the image. Source: PyTorch's `MaxPool2d` and `AvgPool2d`, whose
`ceil_mode` and `count_include_pad` these are.
"""

from __future__ import annotations

from typing import Any

from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling


@kernel
def taps_inside(first: Any, kernel_size: Any, dilation: Any, size: Any) -> Any:
    """The taps `low <= k < high` of a window from pixel `first` on that lie in `0 <= first + k*dilation < size`."""
    low = 0 if first >= 0 else (-first + dilation - 1) // dilation
    high = 0 if first >= size else (size - 1 - first) // dilation + 1
    return low, max(low, min(kernel_size, high))


@driver
def _max_pool(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, lowest: Any, y: Any, indices: Any
) -> None:
    """y[p,oh,ow] = max of x[p,h,w] over the window, indices[p,oh,ow] = h*W + w of the first maximum.

    NaN is larger than everything. A window without pixels gives `lowest[0]` and index -1.
    """
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        for ow in range(before, behind):
            left = ow * g.stride_w - g.pad_left
            low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
            best = lowest[0]
            where = -1
            for kh in range(low_h, high_h):
                h = top + kh * g.dilation_h
                for kw in range(low_w, high_w):
                    w = left + kw * g.dilation_w
                    pixel = x[plane, h, w]
                    # `not <=` is true for a NaN; the second half keeps the first one.
                    if where < 0 or (not pixel <= best and best == best):
                        best = pixel
                        where = h * g.in_w + w
            y[plane, oh, ow] = best
            indices[plane, oh, ow] = where


def max_pool(workers: int, g: Geometry, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """Fill `y` and `indices` (planes, OH, OW) from `x` (planes, H, W)."""
    _launch_over(_max_pool, workers, g, g.out_h, g.out_w, x, lowest, y, indices)


def _launch_over(driver: Any, workers: int, g: Geometry, height: int, width: int, *arrays: Any) -> None:
    taps = g.kernel_h * g.kernel_w
    tiles = tiling(height, width, taps)
    planes = g.batch * g.in_channels
    nanoseconds = float(planes * height * width * taps)
    launch(driver, workers, planes * tiles.a_plane, nanoseconds, g, tiles.rows, tiles.cols, *arrays)


# Outputs of all planes that a launch of the scatter takes: a few milliseconds.
_SCATTERED_TOGETHER = 1 << 22


@driver
def _scatter(task: Any, worker: Any, first: Any, stop: Any, dy: Any, indices: Any, dx: Any) -> None:
    """dx[p, indices[p,q]] += dy[p,q] for `first <= q < stop`. A task owns a whole plane of `dx`, and adds in order."""
    for q in range(first, stop):
        if indices[task, q] >= 0:
            dx[task, indices[task, q]] += dy[task, q]


def max_pool_backward(workers: int, dy: Any, indices: Any, dx: Any) -> None:
    """dx[p, indices[p,q]] += dy[p,q]: the adjoint of y[p,q] = x[p, indices[p,q]], added to zeros.

    `dy` and `indices` are (planes, outputs), `dx` is (planes, pixels).
    """
    planes, outputs = dy.shape
    together = max(1, _SCATTERED_TOGETHER // max(planes, 1))
    for first in range(0, outputs, together):
        stop = min(outputs, first + together)
        launch(_scatter, workers, planes, 2 * planes * (stop - first), first, stop, dy, indices, dx)


@kernel
def divisor(g: Geometry, oh: Any, ow: Any, inside: Any, include_pad: Any) -> Any:
    """What a window's sum is divided by: its pixels, or its taps up to the end of the padding."""
    if not include_pad:
        return inside
    last_h = min(oh * g.stride_h + (g.kernel_h - 1) * g.dilation_h, g.in_h + g.pad_top + g.pad_bottom - 1)
    last_w = min(ow * g.stride_w + (g.kernel_w - 1) * g.dilation_w, g.in_w + g.pad_left + g.pad_right - 1)
    high = (last_h - oh * g.stride_h) // g.dilation_h + 1
    return high * ((last_w - ow * g.stride_w) // g.dilation_w + 1)


@driver
def _avg_pool(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, include_pad: Any, y: Any) -> None:
    """y[p,oh,ow] = (sum of x[p,h,w] over the window) / divisor; a window that sees no pixel gives 0."""
    zero = x.dtype.type(0)
    plane, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        for ow in range(before, behind):
            left = ow * g.stride_w - g.pad_left
            low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
            total = zero
            for kh in range(low_h, high_h):
                line = x[plane, top + kh * g.dilation_h]
                part = zero
                for kw in range(low_w, high_w):
                    part += line[left + kw * g.dilation_w]
                total += part
            inside = (high_h - low_h) * (high_w - low_w)
            y[plane, oh, ow] = total / x.dtype.type(divisor(g, oh, ow, inside, include_pad)) if inside > 0 else zero


def avg_pool(workers: int, g: Geometry, x: Any, include_pad: bool, y: Any) -> None:
    """Fill `y` (planes, OH, OW) from `x` (planes, H, W)."""
    _launch_over(_avg_pool, workers, g, g.out_h, g.out_w, x, include_pad, y)


@kernel
def windows_that_see(pixel: Any, pad: Any, kernel_size: Any, stride: Any, dilation: Any, count: Any) -> Any:
    """`low <= o < high`: windows that reach over a pixel; a dilated one sees it if a tap lies there."""
    reach = pixel + pad
    low = max(0, (reach - (kernel_size - 1) * dilation + stride - 1) // stride)
    return low, max(low, min(count, reach // stride + 1))


@driver
def _avg_pool_backward(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, dy: Any, include_pad: Any, dx: Any
) -> None:
    """dx[p,h,w] = sum over the windows (oh,ow) that see pixel (h,w) of dy[p,oh,ow] / divisor, windows in order."""
    zero = dy.dtype.type(0)
    plane, above, below, before, behind = tile(task, g.in_h, g.in_w, rows, cols)
    for h in range(above, below):
        first_oh, stop_oh = windows_that_see(h, g.pad_top, g.kernel_h, g.stride_h, g.dilation_h, g.out_h)
        for w in range(before, behind):
            first_ow, stop_ow = windows_that_see(w, g.pad_left, g.kernel_w, g.stride_w, g.dilation_w, g.out_w)
            total = zero
            for oh in range(first_oh, stop_oh):
                top = oh * g.stride_h - g.pad_top
                if (h - top) % g.dilation_h != 0:
                    continue
                low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
                for ow in range(first_ow, stop_ow):
                    left = ow * g.stride_w - g.pad_left
                    if (w - left) % g.dilation_w == 0:
                        low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
                        inside = (high_h - low_h) * (high_w - low_w)
                        total += dy[plane, oh, ow] / dy.dtype.type(divisor(g, oh, ow, inside, include_pad))
            dx[plane, h, w] = total


def avg_pool_backward(workers: int, g: Geometry, dy: Any, include_pad: bool, dx: Any) -> None:
    """Fill `dx` (planes, H, W) from `dy` (planes, OH, OW)."""
    _launch_over(_avg_pool_backward, workers, g, g.in_h, g.in_w, dy, include_pad, dx)
