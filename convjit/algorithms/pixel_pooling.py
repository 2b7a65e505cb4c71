"""Pooling of images whose channels lie side by side, (N, H, W, C): channels are what vectors hold.

The drivers of `pooling` for the other layout, with every sum in the same order. Knows windows; what counts in one is
`pooling`'s to say.
"""

from __future__ import annotations

from typing import Any

from ..arrays import write
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling
from .averaging import PADDED, counted_taps, divided_by
from .pooling import beats, over, taps_inside


@driver
def _max_pool(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, lowest: Any, y: Any, indices: Any
) -> None:
    """y[n,oh,ow,c] = max of x[n,h,w,c] over the window, indices[n,oh,ow,c] = h*W + w of the first maximum.

    NaN is larger than everything. A window without pixels gives `lowest[0]` and index -1.
    """
    n, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        for ow in range(before, behind):
            left = ow * g.stride_w - g.pad_left
            low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
            maxima, places = y[n, oh, ow], indices[n, oh, ow]
            for c in range(len(maxima)):
                maxima[c] = lowest[0]
                places[c] = -1
            for kh in range(low_h, high_h):
                h = top + kh * g.dilation_h
                for kw in range(low_w, high_w):
                    w = left + kw * g.dilation_w
                    _one_tap(x[n, h, w], h * g.in_w + w, maxima, places)


@kernel
def _one_tap(pixel: Any, at: Any, maxima: Any, places: Any) -> None:
    """One tap of a window: all channels of the pixel that is number `at`."""
    for c in range(len(maxima)):
        value, best, where = pixel[c], maxima[c], places[c]
        won = (where < 0) | beats(value, best)
        maxima[c] = value if won else best
        places[c] = at if won else where


def max_pool(workers: int, g: Geometry, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """Fill `y` and `indices` (N, OH, OW, C) from `x` (N, H, W, C)."""
    _launch_over(_max_pool, workers, g, g.out_h, g.out_w, x, lowest, y, indices)


def _launch_over(driver: Any, workers: int, g: Geometry, height: int, width: int, *arrays: Any) -> None:
    cost = g.kernel_h * g.kernel_w * g.in_channels
    tiles = tiling(height, width, cost / 4)
    nanoseconds = float(g.batch * height * width * cost)
    launch(driver, workers, g.batch * tiles.a_plane, nanoseconds, g, tiles.rows, tiles.cols, *arrays)


# Channels of a task of the scatter, a cache line in float32; and outputs of all planes that a launch takes.
_CHANNELS = 16
_SCATTERED_TOGETHER = 1 << 22


@driver
def _scatter(task: Any, worker: Any, first: Any, stop: Any, dy: Any, indices: Any, dx: Any) -> None:
    """dx[n, indices[n,q,c], c] += dy[n,q,c] for `first <= q < stop`, in order: a task owns its channels of an image."""
    channels = dy.shape[2]
    blocks = (channels + _CHANNELS - 1) // _CHANNELS
    n, c = task // blocks, task % blocks * _CHANNELS
    behind = min(c + _CHANNELS, channels)
    for q in range(first, stop):
        for j in range(c, behind):
            place = indices[n, q, j]
            if place >= 0:
                dx[n, place, j] += dy[n, q, j]


def max_pool_backward(workers: int, dy: Any, indices: Any, dx: Any) -> None:
    """dx[n,h,c] = sum of dy[n,q,c] where indices[n,q,c] is h; `dy` is (N, outputs, C), `dx` (N, pixels, C)."""
    batch, outputs, channels = dy.shape
    write(dx, 0)
    together = max(1, _SCATTERED_TOGETHER // max(batch * channels, 1))
    for first in range(0, outputs, together):
        stop = min(outputs, first + together)
        tasks, nanoseconds = batch * -(-channels // _CHANNELS), 2 * batch * channels * (stop - first)
        launch(_scatter, workers, tasks, nanoseconds, first, stop, dy, indices, dx)


@kernel
def _clear(values: Any) -> None:
    for c in range(len(values)):
        values[c] = 0


@kernel
def _add(total: Any, values: Any) -> None:
    for c in range(len(total)):
        total[c] += values[c]


@driver
def _avg_pool(
    task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, divisor: Any, y: Any, parts: Any
) -> None:
    """y[n,oh,ow,c] = (sum of x[n,h,w,c] over the window) / the divisor; 0 where a window sees no pixel."""
    n, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    part = parts[worker]
    pads_h = g.pad_top + g.pad_bottom if divisor == PADDED else -1
    pads_w = g.pad_left + g.pad_right if divisor == PADDED else -1
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        for ow in range(before, behind):
            left = ow * g.stride_w - g.pad_left
            low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
            total = y[n, oh, ow]
            _clear(total)
            for kh in range(low_h, high_h):
                _clear(part)
                for kw in range(low_w, high_w):
                    _add(part, x[n, top + kh * g.dilation_h, left + kw * g.dilation_w])
                _add(total, part)
            counted = counted_h * counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high_w - low_w)
            if high_h > low_h and high_w > low_w:
                by = x.dtype.type(divided_by(divisor, counted))
                for c in range(len(total)):
                    total[c] /= by


def avg_pool(workers: int, g: Geometry, x: Any, divisor: int, y: Any, parts: Any) -> None:
    """Fill `y` (N, OH, OW, C) from `x` (N, H, W, C); `parts` is a workspace, (workers, C)."""
    _launch_over(_avg_pool, workers, g, g.out_h, g.out_w, x, divisor, y, parts)


@driver
def _shares(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, dy: Any, divisor: Any, part: Any) -> None:
    """part[n,oh,ow,c] = dy[n,oh,ow,c] / the divisor of its window: what each of its pixels gets."""
    n, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    pads_h = g.pad_top + g.pad_bottom if divisor == PADDED else -1
    pads_w = g.pad_left + g.pad_right if divisor == PADDED else -1
    for oh in range(above, below):
        low, high = taps_inside(oh * g.stride_h - g.pad_top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high - low)
        for ow in range(before, behind):
            low, high = taps_inside(ow * g.stride_w - g.pad_left, g.kernel_w, g.dilation_w, g.in_w)
            counted = counted_h * counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high - low)
            given, shares, by = dy[n, oh, ow], part[n, oh, ow], dy.dtype.type(divided_by(divisor, counted))
            for c in range(len(shares)):
                shares[c] = given[c] / by


@kernel
def _window_of(pixel: Any, tap: Any, stride: Any, dilation: Any, pad: Any, out_size: Any) -> Any:
    """The window that sees a pixel by a tap; -1 where there is none."""
    reach = pixel + pad - tap * dilation
    o = over(reach, stride)
    return -1 if reach < 0 or o * stride != reach or o >= out_size else o


@driver
def _avg_pool_backward(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, part: Any, dx: Any) -> None:
    """dx[n,h,w,c] = sum over the windows (oh,ow) that see pixel (h,w) of part[n,oh,ow,c], windows in order."""
    n, top, bottom, left, right = tile(task, g.in_h, g.in_w, rows, cols)
    for h in range(top, bottom):
        for w in range(left, right):
            total = dx[n, h, w]
            _clear(total)
            # The taps from the last one on: their windows come in order.
            for kh in range(g.kernel_h - 1, -1, -1):
                oh = _window_of(h, kh, g.stride_h, g.dilation_h, g.pad_top, g.out_h)
                if oh < 0:
                    continue
                for kw in range(g.kernel_w - 1, -1, -1):
                    ow = _window_of(w, kw, g.stride_w, g.dilation_w, g.pad_left, g.out_w)
                    if ow >= 0:
                        _add(total, part[n, oh, ow])


def avg_pool_backward(workers: int, g: Geometry, dy: Any, divisor: int, part: Any, dx: Any) -> None:
    """Fill `dx` (N, H, W, C) from `dy` (N, OH, OW, C); `part` is a workspace like `dy`."""
    _launch_over(_shares, workers, g, g.out_h, g.out_w, dy, divisor, part)
    _launch_over(_avg_pool_backward, workers, g, g.in_h, g.in_w, part, dx)
