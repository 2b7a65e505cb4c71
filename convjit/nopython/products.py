"""Entries that compute convolutions and their gradients, each on the calling thread.

Runs the tasks of the algorithms' own drivers, cut in one way that serves every problem: panels are packed; outputs and
input gradients take an image at a time, read in place where it needs no padding; weight gradients take many. Every
algorithm gives the same bits, so this one does. Knows jobs; checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..algorithms import bias as bias_rows
from ..algorithms import filling, input_product, running, weight_product
from ..gemm import direct_kernels, pixel_sums
from ..gemm.blocked import LIST_ENTRIES, PANEL_LANES, TOTALS, tile_count, tile_lanes
from ..gemm.micro import LANES
from ..gemm.planes import (
    BEHIND,
    Axis,
    Planes,
    backward_axis,
    clipped,
    elements_a_channel,
    forward_axis,
    grid_phases,
    horizontal_phase,
    list_phase_terms,
    list_pixels,
    listed_pixels,
    most_listed,
    shows_image,
    vertical_phase,
)
from ..gemm.product import Product, phase_tiles, task_count
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.emitting import Passes
from ..runtime.entries import Entry, array_at, run_tasks
from ..runtime.options import kernel
from ..runtime.plain import shared
from ..typing import DType
from .jobs import (
    BIAS,
    DTYPES,
    RESULT,
    A,
    B,
    channel_kernels_at_hand,
    channel_kernels_row,
    geometry_of,
    job_at,
    kernels_at_hand,
    kernels_row,
)

# Rows of results that share a packed panel: with their totals, and results of long sums, they stay in the second-level
# cache or little beyond it.
_ROWS = 480

_ROWS_TOGETHER = input_product._ROWS_TOGETHER
_SUM_ROWS = pixel_sums._MOST_ROWS
_CHANNELS = bias_rows._CHANNELS


# For each axis, wherever a phase is looked at.
shared(backward_axis)


@kernel
def _axes(g: Geometry) -> Any:
    return (
        forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h),
        forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w),
    )


@kernel
def _list_forward_terms(offsets: Any, vertical: Axis, horizontal: Axis, channels: Any) -> None:
    """As `planes.term_offsets`."""
    at = 0
    for c in range(channels):
        for kh in range(vertical.taps):
            row = (vertical.shift + kh * vertical.tap_step) // vertical.step
            for kw in range(horizontal.taps):
                col = (horizontal.shift + kw * horizontal.tap_step) // horizontal.step
                plane = (c * vertical.planes + kh % vertical.planes) * horizontal.planes + kw % horizontal.planes
                offsets[at] = (plane * vertical.padded + row) * horizontal.padded + col
                at += 1


@kernel
def _list_inside(table: Any, at: Any, axis: Axis) -> None:
    """As `planes.filling` lists it, for one axis."""
    for phase in range(axis.planes):
        shift = phase * axis.plane_step % axis.step + axis.first
        lowest, highest = clipped(shift, axis.step, axis.size, axis.padded)
        table[at + phase, 0], table[at + phase, 1], table[at + phase, 2] = shift, lowest, highest


@kernel
def _planes(vertical: Axis, horizontal: Axis, inside: Any) -> Any:
    """As `planes.filling`, which has made the table."""
    return Planes(
        vertical.planes, horizontal.planes, vertical.padded, horizontal.padded, vertical.step, horizontal.step,
        vertical.size, horizontal.size, 0, 0, listed_pixels(inside, vertical, horizontal),
    )  # fmt: skip


@kernel
def _inside(vertical: Axis, horizontal: Axis) -> Any:
    """The table of `planes.filling`."""
    axes = vertical.planes + horizontal.planes
    table = np.empty((axes + most_listed(vertical, horizontal), 3), np.int64)
    _list_inside(table, 0, vertical)
    _list_inside(table, vertical.planes, horizontal)
    if len(table) > axes:
        list_pixels(table, vertical, horizontal)
    return table


@kernel
def _product(
    g: Geometry, rows: Any, channels: Any, vertical: Axis, horizontal: Axis, lanes: Any, tiles: Any
) -> Any:  # fmt: skip
    """The product for one image, on a grid in so many tiles; `rows` and `channels` are those of a group."""
    return Product(
        1, g.groups, rows, channels, vertical.taps * horizontal.taps, vertical.grid, horizontal.grid, vertical.grid,
        horizontal.padded, elements_a_channel(vertical, horizontal), g.out_h * g.out_w, lanes, tiles,
        max(min(rows, _ROWS), 1), 0, 0, 1, 0,
    )  # fmt: skip


def _forward(address: Any, zero: Any) -> Any:
    """y = conv2d(x, weight) + bias."""
    job = job_at(address)
    g = geometry_of(job)
    pixels_in, pixels_out = g.in_h * g.in_w, g.out_h * g.out_w
    bias = array_at(job[BIAS], (g.out_channels if job[BIAS] != 0 else 0,), zero)
    size, kernels = bias.itemsize, kernels_at_hand(bias.itemsize)
    vertical, horizontal = _axes(g)
    rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
    weight = array_at(job[B], (g.out_channels * channels * g.kernel_h * g.kernel_w,), zero)
    extent = vertical.grid * horizontal.grid
    lanes, tiles = tile_lanes(extent, kernels[LANES]), tile_count(extent)
    p = _product(g, rows, channels, vertical, horizontal, lanes, tiles)
    in_place = shows_image(vertical) and shows_image(horizontal)
    planes = np.empty(0 if in_place else g.in_channels * p.each + BEHIND, bias.dtype)
    planes[max(planes.size - BEHIND, 0) :] = 0
    offsets = np.empty(channels * p.taps, np.int64)
    scratch = np.empty((1, PANEL_LANES * (TOTALS + 2 * p.chunk)), bias.dtype)
    lists = np.empty((1, LIST_ENTRIES), np.int64)
    _list_forward_terms(offsets, vertical, horizontal, channels)
    inside = _inside(vertical, horizontal)
    how = _planes(vertical, horizontal, inside)
    for n in range(g.batch):
        begin = job[A] + n * g.in_channels * pixels_in * size
        y = array_at(job[RESULT] + n * g.out_channels * pixels_out * size, (g.out_channels, g.out_h, g.out_w), zero)
        source = array_at(begin, (g.in_channels * pixels_in,), zero)
        if not in_place:
            images = array_at(begin, (1, g.in_channels, g.in_h, g.in_w), zero)
            run_tasks(
                filling._fill, min(g.in_channels, 1), how, g.in_channels, vertical.padded, horizontal.padded, kernels,
                inside, images, planes,
            )  # fmt: skip
            source = planes
        run_tasks(
            running._multiply_long, task_count(p), p, vertical, horizontal, kernels, weight, offsets, bias, source, y,
            scratch, lists,
        )  # fmt: skip
    return 0


@kernel
def _tap_table(phases: Any, vertical: Any, g: Geometry) -> Any:
    """As `planes.taps_before_phases`."""
    before = np.zeros(phases + 1, np.int64)
    for phase in range(phases):
        taps = vertical_phase(g, phase).taps if vertical else horizontal_phase(g, phase).taps
        before[phase + 1] = before[phase] + taps
    return before


def _input_grad(address: Any, zero: Any) -> Any:
    """The gradient of the input, a product for each phase of the pixels modulo the stride."""
    job = job_at(address)
    g = geometry_of(job)
    pixels_in, pixels_out = g.in_h * g.in_w, g.out_h * g.out_w
    rows, channels = g.in_channels // g.groups, g.out_channels // g.groups
    terms = channels * g.kernel_h * g.kernel_w
    weight = array_at(job[B], (g.in_channels * terms,), zero)
    size, kernels = weight.itemsize, kernels_at_hand(weight.itemsize)
    down, along = grid_phases(g.stride_h, g.in_h), grid_phases(g.stride_w, g.in_w)
    above, before = _tap_table(down, True, g), _tap_table(along, False, g)
    vertical, horizontal = vertical_phase(g, 0), horizontal_phase(g, 0)
    lanes, tiles = phase_tiles(vertical.grid, horizontal.grid)
    p = _product(g, rows, channels, vertical, horizontal, lanes, tiles)
    packed, offsets = np.empty(weight.size, weight.dtype), np.empty(terms, np.int64)
    planes = np.empty(g.out_channels * p.each + BEHIND, weight.dtype)
    planes[planes.size - BEHIND :] = 0
    scratch = np.empty((1, 2 * PANEL_LANES * (TOTALS + 2 * p.chunk)), weight.dtype)  # of two phases
    lists = np.empty((1, LIST_ENTRIES), np.int64)
    shares = down * along * g.groups * ((rows + _ROWS_TOGETHER - 1) // _ROWS_TOGETHER)
    run_tasks(input_product._pack_transposed, shares, g, above, before, weight, packed, offsets)
    if g.stride_h * g.stride_w == 1:  # which are not listed there
        list_phase_terms(offsets, 0, vertical, horizontal, channels)
    inside = _inside(vertical, horizontal)
    how = _planes(vertical, horizontal, inside)
    tasks = down * ((along + 1) // 2) * task_count(p)
    for n in range(g.batch):
        begin = job[A] + n * g.out_channels * pixels_out * size
        gradients = array_at(begin, (1, g.out_channels, g.out_h, g.out_w), zero)
        dx = array_at(job[RESULT] + n * g.in_channels * pixels_in * size, (g.in_channels, g.in_h, g.in_w), zero)
        run_tasks(
            filling._fill, min(g.out_channels, 1), how, g.out_channels, vertical.padded, horizontal.padded, kernels,
            inside, gradients, planes,
        )  # fmt: skip
        run_tasks(
            input_product._multiply_phases, tasks, g, p, above, before, kernels, packed, offsets, planes, dx, scratch,
            lists,
        )  # fmt: skip
    return 0


# Bytes of planes that a weight gradient fills at a time, where its sums can be cut.
_PLANES_BYTES = 1 << 25


def _weight_gradient(address: Any, zero: Any) -> Any:
    """The gradient of the weight: of so many images at a time as sums can be cut between."""
    job = job_at(address)
    g = geometry_of(job)
    pixels, rows, channels = g.out_h * g.out_w, g.out_channels // g.groups, g.in_channels // g.groups
    terms, of_image = g.batch * pixels, g.in_channels * g.in_h * g.in_w
    dy = array_at(job[A], (g.batch * g.out_channels, pixels), zero)
    dw = array_at(job[RESULT], (g.out_channels, channels * g.kernel_h * g.kernel_w), zero)
    size, kernels = dy.itemsize, kernels_at_hand(dy.itemsize)
    vertical, horizontal = _axes(g)
    tiles = channel_kernels_at_hand(dy.itemsize)
    each, lanes = elements_a_channel(vertical, horizontal), tiles[direct_kernels.LANES]
    vectors = (rows + lanes - 1) // lanes
    panels = max((vectors + tiles[direct_kernels.WIDEST] - 1) // tiles[direct_kernels.WIDEST], 1)
    widest = (vectors + panels - 1) // panels * lanes
    chunk = max(min(dw.shape[1], _SUM_ROWS), 1)
    tasks = g.groups * panels * ((dw.shape[1] + chunk - 1) // chunk)
    sums = pixel_sums.PixelSums(
        g.groups, rows, channels, g.kernel_h * g.kernel_w, g.out_h, g.out_w, horizontal.padded, 1, channels * each,
        g.in_channels * each, vectors, panels, chunk, 0, 0,
    )  # fmt: skip
    # Whole totals at a time: images that lie on both sides of a cut are filled twice.
    least = (TERMS_A_TOTAL + pixels - 1) // pixels + 1
    together = max(least, _PLANES_BYTES // max(g.in_channels * each * size, 1))
    span = terms
    if together < g.batch:
        span = TERMS_A_TOTAL * max(1, (together - 1) * pixels // TERMS_A_TOTAL)
    planes = np.empty(min(together, g.batch) * g.in_channels * each + BEHIND, dy.dtype)
    planes[planes.size - BEHIND :] = 0
    positions = np.empty(dw.shape[1], np.int64)
    partial, lists = np.empty((0, dw.shape[0], dw.shape[1]), dy.dtype), np.empty((1, TERM_BLOCK), np.int64)
    no_bias, no_sums = np.empty(0, dy.dtype), np.empty((1, 0), dy.dtype)
    totals, panel = np.empty((1, chunk * widest), dy.dtype), np.empty((1, TERM_BLOCK * widest), dy.dtype)
    _list_forward_terms(positions, vertical, horizontal, channels)
    inside = _inside(vertical, horizontal)
    how = _planes(vertical, horizontal, inside)
    for first in range(0, terms, span):
        stop = min(terms, first + span)
        image, behind = first // pixels, (stop + pixels - 1) // pixels
        images = array_at(job[B] + image * of_image * size, (behind - image, g.in_channels, g.in_h, g.in_w), zero)
        channels_here = (behind - image) * g.in_channels
        run_tasks(
            filling._fill, min(channels_here, 1), how, channels_here, vertical.padded, horizontal.padded, kernels,
            inside, images, planes,
        )  # fmt: skip
        for total in range(first, stop, TERMS_A_TOTAL):
            run_tasks(
                weight_product._weight_grad, tasks, sums, tasks, tiles, positions, 0, total,
                min(stop, total + TERMS_A_TOTAL), dy, planes, image * g.in_channels * each, dw, no_bias, partial,
                no_sums, totals, panel, lists,
            )  # fmt: skip
    return 0


def _bias_gradient(address: Any, zero: Any) -> Any:
    """The gradient of the bias, of at least one term."""
    job = job_at(address)
    g = geometry_of(job)
    dy = array_at(job[A], (g.batch, g.out_channels, g.out_h * g.out_w), zero)
    db = array_at(job[RESULT], (g.out_channels,), zero)
    tasks = (g.out_channels + _CHANNELS - 1) // _CHANNELS
    run_tasks(bias_rows._bias_grad, tasks, 0, g.batch * g.out_h * g.out_w, dy, db)
    return 0


def _entries(body: Any, *rows: Callable[[DType], Any], passes: Passes = Passes.FEW) -> dict[Any, Entry]:
    """An entry for each dtype, which needs such rows of the table."""
    return {dtype: Entry(body, tuple(row(dtype) for row in rows), dtype, passes) for dtype in DTYPES}


FORWARD = _entries(_forward, kernels_row)
INPUT_GRAD = _entries(_input_grad, kernels_row)
WEIGHT_GRAD = _entries(_weight_gradient, kernels_row, channel_kernels_row)
BIAS_GRAD = _entries(_bias_gradient, passes=Passes.ALL)  # whose loops are its own
