"""Pooling windows over volumes, forward and backward: taps in depth come before those in height and width.

Windows are cut to the volume, so padding never wins a maximum. Knows neither dtypes nor arguments. Source: PyTorch's
`MaxPool3d` and `AvgPool3d`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gemm import maxima, means
from ..gemm.planes import clipped, inside
from ..geometry import Depth, Geometry, Volume
from ..runtime.compile import driver, kernel
from ..runtime.launch import launch
from ..runtime.options import COMPILED
from ..runtime.tiles import tile, tiling
from .averaging import PADDED, counted_taps, divided_by, padding
from .pooling import WIDE, beats, one_tap, over, taps_inside, whole_windows


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
        largest, places = y[plane, od, oh, before:behind], indices[plane, od, oh, before:behind]
        for i in range(len(largest)):
            largest[i] = lowest[0]
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
                            one_tap(line[begin:], g.stride_w, line_at + begin, largest[left:right], places[left:right])
                else:
                    for i in range(behind - before):
                        left = (before + i) * g.stride_w - g.pad_left
                        low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
                        best, where = largest[i], places[i]
                        for kw in range(low_w, high_w):
                            w = left + kw * g.dilation_w
                            if where < 0 or beats(line[w], best):
                                best = line[w]
                                where = line_at + w
                        largest[i] = best
                        places[i] = where


@driver
def _max_pool_rows(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, kernels: Any, x: Any, lowest: Any, y: Any,
    indices: Any,
) -> None:  # fmt: skip
    """The same by vectors of windows; those that reach over an edge of their slices one by one."""
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od, size = image // d.out_size, image % d.out_size, kernels[maxima.ELEMENT]
    front = od * d.stride - d.pad_front
    low_d, high_d = taps_inside(front, d.kernel, d.dilation, d.in_size)
    first, stop = whole_windows(g, before, behind)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        whole = stop if low_d < high_d and low_h < high_h else first
        if first < whole:
            number = ((front + low_d * d.dilation) * g.in_h + top + low_h * g.dilation_h) * g.in_w
            number += first * g.stride_w - g.pad_left
            at = ((plane * d.out_size + od) * g.out_h + oh) * g.out_w + first
            maxima.pool_lines(
                kernels, g.stride_w, x.ctypes.data + (plane * d.in_size * g.in_h * g.in_w + number) * size,
                d.dilation * g.in_h * g.in_w, high_d - low_d, g.dilation_h * g.in_w, high_h - low_h, g.dilation_w,
                g.kernel_w, whole - first, number, g.stride_w, y.ctypes.data + at * size,
                indices.ctypes.data + at * 8, 1, 0, 0,
            )  # fmt: skip
        for ow in range(before, behind):
            if ow < first or ow >= whole:
                seen = front, low_d, high_d, top, low_h, high_h
                best, where = _one_window(d, g, x[plane], seen, ow, lowest[0])
                y[plane, od, oh, ow] = best
                indices[plane, od, oh, ow] = where


@kernel
def _one_window(d: Depth, g: Geometry, volume: Any, rows: Any, ow: Any, lowest: Any) -> Any:
    """The maximum of a window and its place; `lowest` and -1 where no voxel is seen. `rows` as of `_some_means`."""
    front, low_d, high_d, top, low_h, high_h = rows
    left = ow * g.stride_w - g.pad_left
    low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
    best = lowest
    where = -1
    for kd in range(low_d, high_d):
        z = front + kd * d.dilation
        for kh in range(low_h, high_h):
            h = top + kh * g.dilation_h
            for kw in range(low_w, high_w):
                w = left + kw * g.dilation_w
                voxel = volume[z, h, w]
                if where < 0 or beats(voxel, best):
                    best = voxel
                    where = (z * g.in_h + h) * g.in_w + w
    return best, where


def max_pool(workers: int, v: Volume, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """Fill `y` and `indices` (planes, OD, OH, OW) from `x` (planes, D, H, W)."""
    voxels = v.depth.in_size * v.plane.in_h * v.plane.in_w
    if COMPILED and x.dtype in maxima.DTYPES and voxels <= maxima.MOST_PIXELS:
        kernels = maxima.kernels(x.dtype, deep=True)
        _launch_over(_max_pool_rows, workers, v, v.y_shape, kernels, x, lowest, y, indices)
    else:
        _launch_over(_max_pool, workers, v, v.y_shape, x, lowest, y, indices)


def _launch_over(driver: Any, workers: int, v: Volume, shape: tuple[int, ...], *arrays: Any) -> None:
    """Tasks are tiles of the slices of arrays (N, C, depth, height, width)."""
    n, c, depth, height, width = shape
    taps = v.depth.kernel * v.plane.kernel_h * v.plane.kernel_w
    tiles, slices = tiling(height, width, taps), n * c * depth
    nanoseconds = float(slices * height * width * taps)
    launch(driver, workers, slices * tiles.a_plane, nanoseconds, v.depth, v.plane, tiles.rows, tiles.cols, *arrays)


@kernel
def _some_means(
    d: Depth,
    g: Geometry,
    volume: Any,
    rows: Any,
    counted: Any,
    pads_w: Any,
    divisor: Any,
    first: Any,
    stop: Any,
    y: Any,
) -> None:
    """The windows `first <= ow < stop` of a row of results, of `counted` rows; one that sees no voxel gives 0.

    `rows` are the first slice and its taps, and the first row and its taps.
    """
    front, low_d, high_d, top, low_h, high_h = rows
    zero = volume.dtype.type(0)
    for ow in range(first, stop):
        left = ow * g.stride_w - g.pad_left
        low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
        total = zero
        for kd in range(low_d, high_d):
            z = front + kd * d.dilation
            of_slice = zero
            for kh in range(low_h, high_h):
                line = volume[z, top + kh * g.dilation_h]
                of_row = zero
                for kw in range(low_w, high_w):
                    of_row += line[np.uint64(left + kw * g.dilation_w)]
                of_slice += of_row
            total += of_slice
        taps = counted * counted_taps(ow, g.stride_w, g.kernel_w, g.dilation_w, g.in_w, pads_w, high_w - low_w)
        seen = high_d > low_d and high_h > low_h and high_w > low_w
        y[ow] = total / volume.dtype.type(divided_by(divisor, taps)) if seen else zero


@driver
def _avg_pool(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, x: Any, divisor: Any, y: Any
) -> None:
    """y[p,od,oh,ow] = (sum of x[p,z,h,w] over the window) / the divisor; 0 where no voxel is seen."""
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od = image // d.out_size, image % d.out_size
    pads_d = d.pad_front + d.pad_back if divisor == PADDED else -1
    pads_h, pads_w = padding(g, divisor)
    front = od * d.stride - d.pad_front
    low_d, high_d = taps_inside(front, d.kernel, d.dilation, d.in_size)
    counted_d = counted_taps(od, d.stride, d.kernel, d.dilation, d.in_size, pads_d, high_d - low_d)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        seen, counted = (front, low_d, high_d, top, low_h, high_h), counted_d * counted_h
        _some_means(d, g, x[plane], seen, counted, pads_w, divisor, before, behind, y[plane, od, oh])


@driver
def _avg_pool_rows(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, kernels: Any, x: Any, divisor: Any, y: Any
) -> None:
    """The same by vectors of windows; those that reach over an edge of their slices one by one."""
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od, size = image // d.out_size, image % d.out_size, kernels[means.ELEMENT]
    pads_d = d.pad_front + d.pad_back if divisor == PADDED else -1
    pads_h, pads_w = padding(g, divisor)
    front = od * d.stride - d.pad_front
    low_d, high_d = taps_inside(front, d.kernel, d.dilation, d.in_size)
    counted_d = counted_taps(od, d.stride, d.kernel, d.dilation, d.in_size, pads_d, high_d - low_d)
    first, stop = whole_windows(g, before, behind)
    for oh in range(above, below):
        top = oh * g.stride_h - g.pad_top
        low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
        counted_h = counted_taps(oh, g.stride_h, g.kernel_h, g.dilation_h, g.in_h, pads_h, high_h - low_h)
        counted, results = counted_d * counted_h, y[plane, od, oh]
        whole = stop if low_d < high_d and low_h < high_h else first
        if first < whole:
            number = (plane * d.in_size + front + low_d * d.dilation) * g.in_h + top + low_h * g.dilation_h
            at = ((plane * d.out_size + od) * g.out_h + oh) * g.out_w + first
            means.mean_lines(
                kernels, g.stride_w, x.ctypes.data + (number * g.in_w + first * g.stride_w - g.pad_left) * size,
                d.dilation * g.in_h * g.in_w, high_d - low_d, g.dilation_h * g.in_w, high_h - low_h, g.dilation_w,
                g.kernel_w, whole - first, divided_by(divisor, counted * g.kernel_w), y.ctypes.data + at * size,
                1, 0, 0,
            )  # fmt: skip
        seen = front, low_d, high_d, top, low_h, high_h
        _some_means(d, g, x[plane], seen, counted, pads_w, divisor, before, first, results)
        _some_means(d, g, x[plane], seen, counted, pads_w, divisor, whole, behind, results)


def avg_pool(workers: int, v: Volume, x: Any, divisor: int, y: Any) -> None:
    """Fill `y` (planes, OD, OH, OW) from `x` (planes, D, H, W)."""
    if COMPILED and x.dtype in means.DTYPES:
        _launch_over(_avg_pool_rows, workers, v, v.y_shape, means.kernels(x.dtype, deep=True), x, divisor, y)
    else:
        _launch_over(_avg_pool, workers, v, v.y_shape, x, divisor, y)


@driver
def _shares(
    task: Any, worker: Any, d: Depth, g: Geometry, rows: Any, cols: Any, dy: Any, divisor: Any, part: Any
) -> None:
    """part[p,od,oh,ow] = dy[p,od,oh,ow] / the divisor of its window: what each of its voxels gets."""
    image, above, below, before, behind = tile(task, g.out_h, g.out_w, rows, cols)
    plane, od = image // d.out_size, image % d.out_size
    pads_d = d.pad_front + d.pad_back if divisor == PADDED else -1
    pads_h, pads_w = padding(g, divisor)
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
