"""Entries that compute depthwise convolutions and their input gradients, each on the calling thread.

Runs the tasks of the drivers whose lanes are neighbouring pixels. Knows which problems they take; checks nothing else.
Calls whose `groups` is the constant 1 do without: their callers would wait for code that few of them need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms import depthwise, depthwise_pixels
from ..algorithms.depthwise_pixels import Tiles
from ..gemm import correlation
from ..gemm.planes import BEHIND, Axis, grid_phases, horizontal_phase, vertical_phase
from ..gemm.summation import TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.emitting import Passes
from ..runtime.entries import Entry, array_at, new_slot, row_of_table, run_tasks, set_row
from ..runtime.options import kernel
from ..typing import DType
from .jobs import BIAS, DTYPES, RESULT, A, B, geometry_of, job_at, kernels_at_hand, kernels_row
from .products import _axes

_TILE_BYTES = depthwise_pixels._TILE_BYTES
_COLUMNS = depthwise_pixels._COLUMNS
_MOST_FILTERS = depthwise.MOST_FILTERS

# Rows of the table: where a dtype's correlation kernels are, and how many numbers they are.
_KERNELS_32, _KERNELS_64, _NUMBERS = new_slot(), new_slot(), new_slot()


def _correlation_row(dtype: DType) -> Any:
    """What makes a dtype's correlation kernels ready."""

    def fill() -> None:
        kernels = correlation.kernels(dtype)
        set_row(_KERNELS_32 if dtype.itemsize == 4 else _KERNELS_64, kernels.ctypes.data)
        set_row(_NUMBERS, kernels.size)

    return fill


@kernel
def takes(g: Geometry, size: Any, slot: Any) -> Any:
    """Whether these entries run a convolution: one input channel a group, and they are ready.

    Taps lie close and strides are small, so that the planes of a tile stay within a few caches.
    """
    if row_of_table(slot) == 0 or g.in_channels != g.groups or g.in_channels == 0 or g.out_channels == 0:
        return False
    filters = g.out_channels // g.groups
    close = max((g.kernel_h - 1) * g.dilation_h, (g.kernel_w - 1) * g.dilation_w) <= _TILE_BYTES // (1024 * size)
    small = filters * g.kernel_h * g.kernel_w <= TERMS_A_TOTAL
    return filters <= _MOST_FILTERS and close and small and max(g.stride_h, g.stride_w) <= 4


@kernel
def _tile(vertical: Axis, horizontal: Axis, extra_h: Any, extra_w: Any, channels: Any, size: Any) -> Any:
    """As `depthwise_pixels._cut` for one worker, but for long tasks: nobody interrupts them here."""
    reach_h, reach_w = vertical.padded - vertical.grid + extra_h, horizontal.padded - horizontal.grid + extra_w
    room = _TILE_BYTES // (size * channels * vertical.planes * horizontal.planes)
    rows, cols = max(vertical.grid, 1), max(horizontal.grid, 1)
    if (rows + reach_h) * (cols + reach_w) > room:
        rows = min(rows, max(max(4, reach_h), room // (cols + reach_w) - reach_h))
        wide = max(room // (rows + reach_h) - reach_w, reach_w) // _COLUMNS * _COLUMNS
        cols = min(cols, max(_COLUMNS, wide))
    down, across = (vertical.grid + rows - 1) // rows, (horizontal.grid + cols - 1) // cols
    return Tiles(rows, cols, down, across, reach_h, reach_w)


@kernel
def _planes_of(cut: Tiles, vertical: Axis, horizontal: Axis, channels: Any) -> Any:
    """Elements of the planes of a tile."""
    return channels * vertical.planes * horizontal.planes * (cut.rows + cut.reach_h) * (cut.cols + cut.reach_w) + BEHIND


def _forward(address: Any, zero: Any) -> Any:
    """y = conv2d(x, weight) + bias."""
    job = job_at(address)
    g = geometry_of(job)
    taps = g.kernel_h * g.kernel_w
    bias = array_at(job[BIAS], (g.out_channels if job[BIAS] != 0 else 0,), zero)
    size = bias.itemsize
    x = array_at(job[A], (g.batch, g.in_channels, g.in_h, g.in_w), zero)
    weight = array_at(job[B], (g.out_channels * taps,), zero)
    y = array_at(job[RESULT], (g.batch, g.out_channels, g.out_h, g.out_w), zero)
    kernels = array_at(row_of_table(_KERNELS_32 if size == 4 else _KERNELS_64), (row_of_table(_NUMBERS),), 0)
    vertical, horizontal = _axes(g)
    cut = _tile(vertical, horizontal, 0, 0, 1, size)
    planes = np.empty((1, _planes_of(cut, vertical, horizontal, 1)), bias.dtype)
    lists = np.empty((1, max(taps, 2 * g.kernel_h + g.kernel_w)), np.int64)
    run_tasks(
        depthwise_pixels._forward, g.batch * g.in_channels * cut.down * cut.across, g, cut, vertical, horizontal,
        kernels, kernels_at_hand(size), weight, bias, x, y, planes, lists,
    )  # fmt: skip
    return 0


def _input_grad(address: Any, zero: Any) -> Any:
    """The gradient of the input."""
    job = job_at(address)
    g = geometry_of(job)
    each = g.out_channels // g.groups
    weight = array_at(job[B], (g.out_channels, 1, g.kernel_h, g.kernel_w), zero)
    size = weight.itemsize
    dy = array_at(job[A], (g.batch, g.out_channels, g.out_h, g.out_w), zero)
    dx = array_at(job[RESULT], (g.batch, g.in_channels, g.in_h, g.in_w), zero)
    kernels = array_at(row_of_table(_KERNELS_32 if size == 4 else _KERNELS_64), (row_of_table(_NUMBERS),), 0)
    vertical, horizontal = vertical_phase(g, 0), horizontal_phase(g, 0)
    more_h, more_w = 1 if g.stride_h > 1 else 0, 1 if g.stride_w > 1 else 0
    cut = _tile(vertical, horizontal, more_h, more_w, each, size)
    phases, terms = grid_phases(g.stride_w, g.in_w), each * g.kernel_h * g.kernel_w
    planes = np.empty((1, _planes_of(cut, vertical, horizontal, each)), weight.dtype)
    packed = np.empty((1, terms), weight.dtype)
    phased = np.empty((1, phases * cut.rows * cut.cols + BEHIND if phases > 1 else 0), weight.dtype)
    lists = np.empty((1, max(terms, 2 * g.kernel_h + g.kernel_w)), np.int64)
    run_tasks(
        depthwise_pixels._input_grad, g.batch * g.in_channels * cut.down * cut.across, g, cut, kernels,
        kernels_at_hand(size), weight, dy, dx, planes, packed, phased, lists,
    )  # fmt: skip
    return 0


def _entries(body: Any) -> dict[Any, Entry]:
    rows = {dtype: (kernels_row(dtype), _correlation_row(dtype)) for dtype in DTYPES}
    return {dtype: Entry(body, rows[dtype], dtype, Passes.FEW) for dtype in DTYPES}


FORWARD = _entries(_forward)
INPUT_GRAD = _entries(_input_grad)
