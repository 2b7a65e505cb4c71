"""Pooling windows over volumes, forward and backward: taps in depth come before those in height and width.

Windows are cut to the volume, so padding never wins a maximum. Knows neither dtypes nor arguments. Source: PyTorch's
`MaxPool3d` and `AvgPool3d`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gemm.planes import clipped, inside
from ..geometry import Depth, Geometry, Volume
from ..runtime.compile import driver
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling
from .averaging import PADDED, counted_taps, divided_by
from .pooling import WIDE, beats, one_tap, over, taps_inside


@driver
def _max_pool(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, x: Any, lowest: Any, y: Any, indices: Any
) -> None:
    """y[p,od,oh,ow] = max of x[p,z,h,w] over the window, indices[p,od,oh,ow] = (z*H + h)*W + w of the first maximum.

    NaN is larger than everything. A window without voxels gives `lowest[0]` and index -1.
    """
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od = image // d.out_size, image % d.out_size
    front = od * d.stride - d.pad_front
    low_d, high_d = taps_inside(front, d.kernel, d.dilation, d.in_size)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        maxima, places = y[plane, od, oh, before:behind], indices[plane, od, oh, before:behind]
        for i in range(len(maxima)):
            maxima[i] = lowest[0]
            places[i] = -1
        for kd in range(low_d, high_d):
            z = front + kd * d.dilation
            for kh in range(low_h, high_h):
                h = top + kh * g.dilation_h
                line, line_at = x[plane, z, h], (z * g.in_h + h) * g.in_w
                if behind - before >= WIDE:
                    for kw in range(g.kernel_w):
                        shift = before * g.stride_w + kw * g.dilation_w - g.pad_left
                        left, right = clipped(shift, g.stride_w, g.in_w, behind - before)
                        begin = left * g.stride_w + shift
                        if left < right:
                            one_tap(line[begin:], g.stride_w, line_at + begin, maxima[left:right], places[left:right])
                else:
                    for i in range(behind - before):
                        left = (before + i) * g.stride_w - g.pad_left
                        low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
                        best, where = maxima[i], places[i]
                        for kw in range(low_w, high_w):
                            w = left + kw * g.dilation_w
                            if where < 0 or beats(line[w], best):
                                best = line[w]
                                where = line_at + w
                        maxima[i] = best
                        places[i] = where


def max_pool(workers: int, v: Volume, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """Fill `y` and `indices` (planes, OD, OH, OW) from `x` (planes, D, H, W)."""
    _launch_over(_max_pool, workers, v, v.y_shape, x, lowest, y, indices)


def _launch_over(driver: Any, workers: int, v: Volume, shape: tuple[int, ...], *arrays: Any) -> None:
    """Tasks are tiles of the slices of arrays (N, C, depth, height, width)."""
    n, c, depth, height, width = shape
    taps = v.depth.kernel * v.plane.kernel_h * v.plane.kernel_w
    tiles, slices = tiling(height, width, taps), n * c * depth
    nanoseconds = float(slices * height * width * taps)
    launch(driver, workers, slices * tiles.a_plane, nanoseconds, v.depth, v.plane, tiles.rows, tiles.cols, *arrays)


@driver
def _avg_pool(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, x: Any, divisor: Any, y: Any
) -> None:
    """y[p,od,oh,ow] = (sum of x[p,z,h,w] over the window) / the divisor; 0 where no voxel is seen."""
    zero = x.dtype.type(0)
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od = image // d.out_size, image % d.out_size
    pads_d = d.pad_front + d.pad_back if divisor == PADDED else -1
    pads_h = g.pad_top + g.pad_bottom if divisor == PADDED else -1
    pads_w = g.pad_left + g.pad_right if divisor == PADDED else -1
    front = od * d.stride - d.pad_front
    low_d, high_d = taps_inside(front, d.kernel, d.dilation, d.in_size)
    counted_d = counted_taps(od, d.stride, d.kernel, d.dilation, d.in_size, pads_d, high_d - low_d)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        for ow in range(before, behind):
            left = ow * g.stride_w - g.pad_left
            low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
            total = zero
            for kd in range(low_d, high_d):
                z = front + kd * d.dilation
                of_slice = zero
                for kh in range(low_h, high_h):
                    line = x[plane, z, top + kh * g.dilation_h]
                    of_row = zero
                    for kw in range(low_w, high_w):
                        of_row += line[np.uint64(left + kw * g.dilation_w)]
                    of_slice += of_row
                total += of_slice
            counted = counted_d * counted_h
            counted *= counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high_w - low_w)
            seen = high_d > low_d and high_h > low_h and high_w > low_w
            y[plane, od, oh, ow] = total / x.dtype.type(divided_by(divisor, counted)) if seen else zero


def avg_pool(workers: int, v: Volume, x: Any, divisor: int, y: Any) -> None:
    """Fill `y` (planes, OD, OH, OW) from `x` (planes, D, H, W)."""
    _launch_over(_avg_pool, workers, v, v.y_shape, x, divisor, y)


@driver
def _shares(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, dy: Any, divisor: Any, part: Any
) -> None:
    """part[p,od,oh,ow] = dy[p,od,oh,ow] / the divisor of its window: what each of its voxels gets."""
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od = image // d.out_size, image % d.out_size
    pads_d = d.pad_front + d.pad_back if divisor == PADDED else -1
    pads_h = g.pad_top + g.pad_bottom if divisor == PADDED else -1
    pads_w = g.pad_left + g.pad_right if divisor == PADDED else -1
    low, high = taps_inside(od * d.stride - d.pad_front, d.kernel, d.dilation, d.in_size)
    counted_d = counted_taps(od, d.stride, d.kernel, d.dilation, d.in_size, pads_d, high - low)
    for oh in range(above, below):
        low, high = taps_inside(oh * g.stride_h - g.pad_top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high - low)
        for ow in range(before, behind):
            low, high = taps_inside(ow * g.stride_w - g.pad_left, g.kernel_w, g.dilation_w, g.in_w)
            counted = counted_d * counted_h
            counted *= counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high - low)
            part[plane, od, oh, ow] = dy[plane, od, oh, ow] / dy.dtype.type(divided_by(divisor, counted))


@driver
def _avg_pool_backward(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, part: Any, dx: Any
) -> None:  # fmt: skip
    """dx[p,z,h,w] = sum over the windows (od,oh,ow) that see voxel (z,h,w) of part[p,od,oh,ow], windows in order."""
    image, top, bottom, left, right = tile(task, g.in_h, g.in_w, rows, cols)
    plane, z = image // d.in_size, image % d.in_size
    for h in range(top, bottom):
        line = dx[plane, z, h]
        for w in range(left, right):
            line[np.uint64(w)] = 0
        # The taps from the last one on: their windows come in order.
        for kd in range(d.kernel - 1, -1, -1):
            reach_d = z + d.pad_front - kd * d.dilation
            od = over(reach_d, d.stride)
            if reach_d < 0 or od * d.stride != reach_d or od >= d.out_size:
                continue
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
                        line[np.uint64(ow * g.stride_w + shift)] += part[plane, od, oh, np.uint64(ow)]


def avg_pool_backward(workers: int, v: Volume, dy: Any, divisor: int, part: Any, dx: Any) -> None:
    """Fill `dx` (planes, D, H, W) from `dy` (planes, OD, OH, OW); `part` is a workspace like `dy`."""
    _launch_over(_shares, workers, v, v.y_shape, dy, divisor, part)
    _launch_over(_avg_pool_backward, workers, v, v.x_shape, part, dx)
