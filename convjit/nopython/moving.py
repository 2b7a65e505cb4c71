"""Entries that move values or compare them: copies, padding, columns, pooling; each on the calling thread.

Runs the tasks of the drivers, each a whole plane. Knows jobs; checks nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms import averaging, columns, padding, pooling
from ..runtime.entries import Entry, array_at, run_tasks, strided_at
from ..runtime.options import kernel
from ..runtime.status import read_status, write_status
from .geometry import CONSTANT, EDGE, SYMMETRIC, WRAP
from .jobs import BIAS, DTYPES, OPTION, OPTION2, RESULT, A, B, geometry_of, job_at

# What only moves values takes them as integers of their size.
BITS = {dtype: np.dtype(f"uint{8 * dtype.itemsize}") for dtype in DTYPES}


@kernel
def extremes(address: Any, count: Any) -> Any:
    """The least and the largest of so many 64-bit integers; -1 and -1 of none."""
    numbers = array_at(address, (count,), 0)
    least = largest = -1 if count == 0 else numbers[0]
    for number in numbers:
        least, largest = min(least, number), max(largest, number)
    return least, largest


@kernel
def _copy_as(address: Any, zero: Any, wanted: Any) -> Any:
    """result[i, j, k, l] = a[i, j, k, l]; the job: address, extents, strides, the result's address.

    `a` has the dtype of `zero`, the result that of `wanted`.
    """
    r = array_at(address, (10,), 0)
    shape = (r[1], r[2], r[3], r[4])
    source = strided_at(r[0], shape, (r[5], r[6], r[7], r[8]), zero)
    target = array_at(r[9], shape, wanted)
    for i in range(r[1]):
        for j in range(r[2]):
            for k in range(r[3]):
                for m in range(r[4]):
                    target[i, j, k, m] = source[i, j, k, m]
    return 0


def _copy(address: Any, zero: Any) -> Any:
    """A C-contiguous copy."""
    return _copy_as(address, zero, zero)


def _widen(address: Any, zero: Any) -> Any:
    """The same in float64."""
    return _copy_as(address, zero, 0.0)


@kernel
def _shown(mode: Any, size: Any, before: Any, after: Any) -> Any:
    """As `algorithms.padding.source_indices`."""
    shown = np.empty(before + size + after, np.int64)
    for i in range(shown.size):
        position = i - before
        if mode == CONSTANT:
            shown[i] = position if 0 <= position < size else -1
        elif mode == EDGE:
            shown[i] = min(max(position, 0), size - 1)
        elif mode == WRAP:
            shown[i] = position % size
        else:
            period = 2 * size if mode == SYMMETRIC else max(2 * size - 2, 1)
            last = 2 * size - 1 if mode == SYMMETRIC else 2 * size - 2
            shown[i] = min(position % period, last - position % period)
    return shown


@kernel
def _positions(shown: Any, size: Any) -> Any:
    """As `algorithms.padding.positions_of_pixels`, where every position shows a pixel."""
    starts, positions = np.zeros(size + 1, np.int64), np.empty(shown.size, np.int64)
    for pixel in shown:
        starts[pixel + 1] += 1
    for pixel in range(size):
        starts[pixel + 1] += starts[pixel]
    behind = np.empty(size + 1, np.int64)
    for pixel in range(size + 1):
        behind[pixel] = starts[pixel]
    for i in range(shown.size):
        positions[behind[shown[i]]] = i
        behind[shown[i]] += 1
    return starts, positions


def _pad_planes(address: Any, zero: Any) -> Any:
    """Padded images; the options are the mode and the constant's bits."""
    job = job_at(address)
    g = geometry_of(job)
    rows = _shown(job[OPTION], g.in_h, g.pad_top, g.pad_bottom)
    cols = _shown(job[OPTION], g.in_w, g.pad_left, g.pad_right)
    planes = g.batch * g.in_channels
    x = array_at(job[A], (planes, g.in_h, g.in_w), zero)
    constant = array_at(address + 8 * OPTION2, (1,), zero)
    y = array_at(job[RESULT], (planes, rows.size, cols.size), zero)
    run_tasks(padding._pad, planes, rows.size, cols.size, x, rows, cols, constant, y)
    return 0


def _pad_planes_backward(address: Any, zero: Any) -> Any:
    """The adjoint, for modes that show pixels; the option is the mode."""
    job = job_at(address)
    g = geometry_of(job)
    rows = _shown(job[OPTION], g.in_h, g.pad_top, g.pad_bottom)
    cols = _shown(job[OPTION], g.in_w, g.pad_left, g.pad_right)
    row_starts, of_rows = _positions(rows, g.in_h)
    col_starts, of_cols = _positions(cols, g.in_w)
    planes = g.batch * g.in_channels
    dy = array_at(job[A], (planes, rows.size, cols.size), zero)
    dx = array_at(job[RESULT], (planes, g.in_h, g.in_w), zero)
    run_tasks(padding._pad_backward, planes, g.in_h, g.in_w, dy, row_starts, of_rows, col_starts, of_cols, dx)
    return 0


def _im2col(address: Any, zero: Any) -> Any:
    """im2col."""
    job = job_at(address)
    g = geometry_of(job)
    taps, planes = g.kernel_h * g.kernel_w, g.batch * g.in_channels
    images = array_at(job[A], (planes, g.in_h, g.in_w), zero)
    rows = array_at(job[RESULT], (planes * taps, g.out_h * g.out_w), zero)
    run_tasks(columns._im2col, planes * taps, g, g.out_h, g.out_w, images, rows)
    return 0


def _col2im(address: Any, zero: Any) -> Any:
    """col2im."""
    job = job_at(address)
    g = geometry_of(job)
    taps, planes = g.kernel_h * g.kernel_w, g.batch * g.in_channels
    rows = array_at(job[A], (planes * taps, g.out_h, g.out_w), zero)
    images = array_at(job[RESULT], (planes, g.in_h, g.in_w), zero)
    run_tasks(columns._col2im, planes, g, g.in_h, g.in_w, rows, images)
    return 0


def _max_pool(address: Any, zero: Any) -> Any:
    """Maxima and their positions, `b`."""
    job = job_at(address)
    g = geometry_of(job)
    planes = g.batch * g.in_channels
    x = array_at(job[A], (planes, g.in_h, g.in_w), zero)
    y = array_at(job[RESULT], (planes, g.out_h, g.out_w), zero)
    indices = array_at(job[B], (planes, g.out_h, g.out_w), 0)
    lowest = np.full(1, -np.inf, x.dtype)
    run_tasks(pooling._max_pool, planes, g, g.out_h, g.out_w, x, lowest, y, indices)
    return 0


def _max_pool_backward(address: Any, zero: Any) -> Any:
    """Gradients `a` go to positions `b`."""
    job = job_at(address)
    g = geometry_of(job)
    planes, outputs = g.batch * g.in_channels, g.out_h * g.out_w
    dy, indices = array_at(job[A], (planes, outputs), zero), array_at(job[B], (planes, outputs), 0)
    dx = array_at(job[RESULT], (planes, g.in_h * g.in_w), zero)
    run_tasks(pooling._scatter, planes, 1, 0, outputs, dy, indices, dx)
    return 0


def _avg_pool(address: Any, zero: Any) -> Any:
    """Averages; the option is the divisor."""
    job = job_at(address)
    g = geometry_of(job)
    planes = g.batch * g.in_channels
    x = array_at(job[A], (planes, g.in_h, g.in_w), zero)
    y = array_at(job[RESULT], (planes, g.out_h, g.out_w), zero)
    run_tasks(averaging._avg_pool, planes, g, g.out_h, g.out_w, x, job[OPTION], y)
    return 0


def _avg_pool_backward(address: Any, zero: Any) -> Any:
    """The adjoint of averages; the option is the divisor."""
    job = job_at(address)
    g = geometry_of(job)
    planes = g.batch * g.in_channels
    dy = array_at(job[A], (planes, g.out_h, g.out_w), zero)
    dx = array_at(job[RESULT], (planes, g.in_h, g.in_w), zero)
    part = np.empty((planes, g.out_h, g.out_w), dy.dtype)
    run_tasks(averaging._shares, planes, g, g.out_h, g.out_w, dy, job[OPTION], part)
    run_tasks(averaging._avg_pool_backward, planes, g, g.in_h, g.in_w, part, dx)
    return 0


def _add_bias(address: Any, zero: Any) -> Any:
    """result[n, c, h, w] += bias[c], of the input of the geometry."""
    flags, job = read_status(), job_at(address)
    g = geometry_of(job)
    bias = array_at(job[BIAS], (g.in_channels,), zero)
    y = array_at(job[RESULT], (g.batch * g.in_channels, g.in_h * g.in_w), zero)
    for plane in range(g.batch * g.in_channels):
        for pixel in range(g.in_h * g.in_w):
            y[plane, pixel] += bias[plane % g.in_channels]
    write_status(flags)
    return 0


def _of_bits(body: Any) -> dict[Any, Entry]:
    return {dtype: Entry(body, (), BITS[dtype]) for dtype in DTYPES}


def _of_numbers(body: Any) -> dict[Any, Entry]:
    return {dtype: Entry(body, (), dtype) for dtype in DTYPES}


COPY = _of_bits(_copy)
WIDEN = _of_numbers(_widen)
PAD = _of_bits(_pad_planes)
PAD_BACKWARD = _of_numbers(_pad_planes_backward)
IM2COL = _of_bits(_im2col)
COL2IM = _of_numbers(_col2im)
MAX_POOL = _of_numbers(_max_pool)
MAX_POOL_BACKWARD = _of_numbers(_max_pool_backward)
AVG_POOL = _of_numbers(_avg_pool)
AVG_POOL_BACKWARD = _of_numbers(_avg_pool_backward)
ADD_BIAS = _of_numbers(_add_bias)
