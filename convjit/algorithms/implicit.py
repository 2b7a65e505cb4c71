"""Implicit matrix product: im2col happens while a panel is packed, no column matrix exists.

Forward and input gradient are one product: rows are output channels, terms are (channel, tap), lanes are the positions
of a tile. The weight gradient is the same product turned: rows are (channel, tap), terms are pixels of the batch, lanes
are output channels. Both read zero-padded planes that are filled first.
Source: S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3 (lowering while packing).
"""

from __future__ import annotations

from typing import Any

from numba.core import config

from ..gemm.blocked import (
    LANES,
    multiply_block,
    panel_at,
    results_at,
    rounded_lanes,
    row_chunk,
    scratch_elements,
    tile_count,
    tile_lanes,
)
from ..gemm.micro import micro_lanes
from ..gemm.planes import (
    Axis,
    backward_axes,
    backward_axis,
    fill_planes,
    forward_axes,
    forward_axis,
    grid_phases,
    plane_elements,
    positions,
    tap_offset,
)
from ..gemm.summation import TERM_BLOCK
from ..geometry import Geometry
from ..runtime.compile import driver, kernel, prange
from ..runtime.copying import CHUNK, copy_chunks, copy_run
from ..typing import DType
from .algorithm import Algorithm, Operation, Shape


@kernel
def _vertical(g: Geometry) -> Any:
    return forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)


@kernel
def _horizontal(g: Geometry) -> Any:
    return forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)


@kernel
def _vertical_phase(g: Geometry, phase: Any) -> Any:
    return backward_axis(phase, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)


@kernel
def _horizontal_phase(g: Geometry, phase: Any) -> Any:
    return backward_axis(phase, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)


@kernel
def _fill(planes: Any, images: Any, vertical: Axis, horizontal: Axis, worker: Any, workers: Any) -> None:
    """One worker's share of filling the planes of all `images` (channels of the batch, H, W).

    There are no planes to fill where the images are read in place.
    """
    if planes.size == 0:
        return
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    for channel in range(worker, images.shape[0], workers):
        fill_planes(planes, channel * each, images[channel], vertical, horizontal)


@kernel
def _pack_panel(
    scratch: Any, planes: Any, channel: Any, term: Any, terms: Any, vertical: Axis, horizontal: Axis, position: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """panel[t, j] = what position `position + j` meets at term `term + t` = (channel, kh, kw)."""
    step = micro_lanes(scratch)
    taps = vertical.taps * horizontal.taps
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    c = channel + term // taps
    kh = term % taps // horizontal.taps
    kw = term % horizontal.taps
    for t in range(terms):
        start = c * each + tap_offset(vertical, horizontal, kh, kw) + position
        if start + lanes <= planes.size:
            for lane in range(0, lanes, step):
                copy_run(scratch, panel_at(lane, t, step), planes, start + lane, step)
        else:  # lanes that only fill up lie behind the last plane
            for lane in range(lanes):
                at = panel_at(lane, t, step) + lane % step
                scratch[at] = planes[start + lane] if start + lane < planes.size else 0
        kw += 1
        if kw == horizontal.taps:
            kw = 0
            kh += 1
            if kh == vertical.taps:
                kh = 0
                c += 1


@kernel
def _finish(scratch: Any, at: Any, rows: Any, lanes: Any, terms: Any, bias: Any, o: Any) -> None:
    """Add bias[o + r] to row r of the results where there is a bias; no terms make zero."""
    for r in range(rows):
        results = scratch[at + r * LANES : at + r * LANES + lanes]
        if terms == 0:
            results[:] = 0
        if bias.size > 0:
            shift = bias[o + r]
            for j in range(lanes):
                results[j] += shift


@kernel
def _store(
    planes: Any, plane: Any, scratch: Any, at: Any, rows: Any, vertical: Axis, horizontal: Axis, position: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """planes[plane + r, where position + j lands] = row r, lane j of the results, for positions of the grid."""
    step = horizontal.out_step
    i = position // horizontal.padded
    k = position - i * horizontal.padded
    j = 0
    while j < lanes:
        run = min(horizontal.grid - k, lanes - j)
        h, target = vertical.out_first + i * vertical.out_step, horizontal.out_first + k * step
        for r in range(rows if run > 0 else 0):
            line, source = planes[plane + r, h], at + r * LANES + j
            if step == 1:
                copy_run(line, target, scratch, source, run)
            else:
                for q in range(run):
                    line[target + q * step] = scratch[source + q]
        j += horizontal.padded - k
        k = 0
        i += 1


@kernel
def _product(
    a: Any, base: Any, vertical: Axis, horizontal: Axis, planes: Any, results: Any, bias: Any, g: Geometry, rows: Any,
    channels: Any, scratch: Any, worker: Any, workers: Any,
) -> None:  # fmt: skip
    """One worker's share of: result row r at each grid point = sum over (channel, tap) of a[r, term] * what it meets.

    `a` is flat, one matrix (rows, terms) a group from `base` on; `planes` are those of (N * groups * channels),
    `results` (N * groups * rows, ...). Tasks are (image and group, rows, tile), dealt to the workers in turn.
    """
    terms = channels * vertical.taps * horizontal.taps
    extent = positions(vertical, horizontal)
    step = micro_lanes(scratch)
    tiles, tile_width = tile_count(extent), tile_lanes(extent, step)
    chunk = row_chunk(rows, g.batch * g.groups * tiles, workers)
    chunks = (rows + chunk - 1) // chunk
    for task in range(worker, g.batch * g.groups * chunks * tiles, workers):
        position = task % tiles * tile_width
        row = task // tiles % chunks * chunk
        image_group = task // (tiles * chunks)
        rows_here = min(chunk, rows - row)
        lanes = min(tile_width, extent - position)
        width = rounded_lanes(lanes, step)
        start = base + (image_group % g.groups * rows + row) * terms
        for term in range(0, terms, TERM_BLOCK):
            here = min(TERM_BLOCK, terms - term)
            _pack_panel(scratch, planes, image_group * channels, term, here, vertical, horizontal, position, width)
            multiply_block(a, start + term, terms, rows_here, term, here, terms, scratch, width)
        at = results_at(rows_here, terms)
        _finish(scratch, at, rows_here, lanes, terms, bias, image_group % g.groups * rows + row)
        _store(
            results, image_group * rows + row, scratch, at, rows_here, vertical, horizontal, position, lanes
        )  # fmt: skip


@driver
def _forward(g: Geometry, x: Any, weight: Any, bias: Any, y: Any, scratch: Any, planes: Any) -> None:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]"""
    workers = scratch.shape[0]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    results = y.reshape(g.batch * g.out_channels, g.out_h, g.out_w)
    matrix = weight.reshape(weight.size)
    source = planes if planes.size > 0 else x.reshape(x.size)
    for worker in prange(workers):
        _fill(planes, images, _vertical(g), _horizontal(g), worker, workers)
    for worker in prange(workers):
        _product(
            matrix, 0, _vertical(g), _horizontal(g), source, results, bias, g, group_out, group_in, scratch[worker],
            worker, workers,
        )  # fmt: skip


# Input channels whose weights are transposed together: what is read of one filter fills some cache lines.
_ROWS_TOGETHER = 16


@kernel
def _pack_transposed(g: Geometry, weight: Any, packed: Any, worker: Any, workers: Any) -> None:
    """One worker's share of: for each phase a matrix [(group, c), (o, kh, kw)] of weight[o, c, kh, kw]."""
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    base = 0
    for phase_h in range(grid_phases(g.stride_h, g.in_h)):
        vertical = _vertical_phase(g, phase_h)
        for phase_w in range(grid_phases(g.stride_w, g.in_w)):
            horizontal = _horizontal_phase(g, phase_w)
            taps = vertical.taps * horizontal.taps
            terms = group_out * taps
            for first in range(_ROWS_TOGETHER * worker, g.in_channels, _ROWS_TOGETHER * workers):
                for o in range(group_out):
                    for row in range(first, min(first + _ROWS_TOGETHER, g.in_channels)):
                        filters = weight[row // group_in * group_out + o, row % group_in]
                        at = base + row * terms + o * taps
                        for s in range(vertical.taps):
                            line = filters[vertical.kernel_first + s * vertical.kernel_step]
                            for t in range(horizontal.taps):
                                packed[at] = line[horizontal.kernel_first + t * horizontal.kernel_step]
                                at += 1
            base += g.in_channels * terms


@driver
def _input_grad(g: Geometry, dy: Any, weight: Any, dx: Any, scratch: Any, planes: Any, packed: Any) -> None:
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    A product for each phase of `(h, w)` modulo the stride, whose taps are the same.
    """
    workers = scratch.shape[0]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    images = dy.reshape(g.batch * g.out_channels, g.out_h, g.out_w)
    results = dx.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    no_bias = packed[:0]
    source = planes if planes.size > 0 else dy.reshape(dy.size)
    for worker in prange(workers):
        _fill(planes, images, _vertical_phase(g, 0), _horizontal_phase(g, 0), worker, workers)
        _pack_transposed(g, weight, packed, worker, workers)
    for worker in prange(workers):
        base = 0
        for phase_h in range(grid_phases(g.stride_h, g.in_h)):
            vertical = _vertical_phase(g, phase_h)
            for phase_w in range(grid_phases(g.stride_w, g.in_w)):
                horizontal = _horizontal_phase(g, phase_w)
                _product(
                    packed, base, vertical, horizontal, source, results, no_bias, g, group_in, group_out,
                    scratch[worker], worker, workers,
                )  # fmt: skip
                base += g.in_channels * group_out * vertical.taps * horizontal.taps


@kernel
def _pack_pixels(
    scratch: Any, dy: Any, channel: Any, channels: Any, pixels: Any, first: Any, count: Any, out_channels: Any
) -> None:
    """panel[t, j] = dy[n, channel + j, pixel] for pixel `first + t` of the batch, j < channels; the rest is zero."""
    step = micro_lanes(scratch)
    for lane in range(0, channels, step):
        here = min(step, channels - lane)
        at = panel_at(lane, 0, step)
        n, pixel = first // pixels, first % pixels
        t = 0
        while t < count:
            run = min(pixels - pixel, count - t)
            row = n * out_channels + channel + lane
            for q in range(run):
                for j in range(here):
                    scratch[at + j] = dy[row + j, pixel + q]
                for j in range(here, step):
                    scratch[at + j] = 0
                at += step
            t += run
            n += 1
            pixel = 0


@kernel
def _pack_taps(
    rows: Any, planes: Any, g: Geometry, channel: Any, tap: Any, count: Any, vertical: Axis, horizontal: Axis,
    first: Any, terms: Any,
) -> None:  # fmt: skip
    """rows[r, t] = what row `tap + r` = (channel, kh, kw) meets at output pixel `first + t` of the batch."""
    taps = g.kernel_h * g.kernel_w
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    image = first // (vertical.grid * horizontal.grid)
    top = first // horizontal.grid % vertical.grid
    left = first % horizontal.grid
    for r in range(count):
        c, kh, kw = (tap + r) // taps, (tap + r) % taps // g.kernel_w, (tap + r) % g.kernel_w
        offset = (channel + c) * each + tap_offset(vertical, horizontal, kh, kw)
        n, i, k = image, top, left
        t = 0
        while t < terms:
            run = min(horizontal.grid - k, terms - t)
            start = n * g.in_channels * each + offset + i * horizontal.padded + k
            if start + run + CHUNK <= planes.size:
                copy_chunks(rows, r * TERM_BLOCK + t, planes, start, run)
            else:
                copy_run(rows, r * TERM_BLOCK + t, planes, start, run)
            t += run
            k = 0
            i += 1
            if i == vertical.grid:
                i = 0
                n += 1


@driver
def _weight_grad(g: Geometry, dy: Any, x: Any, dw: Any, scratch: Any, planes: Any, packed: Any) -> None:
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Tasks are (group, tile of output channels, chunk of (c, kh, kw)); each walks over all pixels of the batch in order.
    """
    workers = scratch.shape[0]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    pixels = g.out_h * g.out_w
    gradients = dy.reshape(g.batch * g.out_channels, pixels)
    rows = group_in * g.kernel_h * g.kernel_w
    matrix = dw.reshape(g.out_channels, rows)
    terms = g.batch * pixels
    source = planes if planes.size > 0 else x.reshape(x.size)
    step = micro_lanes(dy)
    tiles, tile_width = tile_count(group_out), tile_lanes(group_out, step)
    chunk = min(_TASK_ROWS, row_chunk(rows, g.groups * tiles, workers))
    chunks = (rows + chunk - 1) // chunk if chunk > 0 else 0
    for worker in prange(workers):
        _fill(planes, images, _vertical(g), _horizontal(g), worker, workers)
    for worker in prange(workers):
        vertical, horizontal = _vertical(g), _horizontal(g)
        space, taps = scratch[worker], packed[worker]
        for task in range(worker, g.groups * tiles * chunks, workers):
            lane = task % tiles * tile_width
            row = task // tiles % chunks * chunk
            group = task // (tiles * chunks)
            lanes = min(tile_width, group_out - lane)
            rows_here = min(chunk, rows - row)
            channel = group * group_out + lane
            for term in range(0, terms, TERM_BLOCK):
                here = min(TERM_BLOCK, terms - term)
                _pack_pixels(space, gradients, channel, lanes, pixels, term, here, g.out_channels)
                _pack_taps(taps, source, g, group * group_in, row, rows_here, vertical, horizontal, term, here)
                multiply_block(taps, 0, TERM_BLOCK, rows_here, term, here, terms, space, rounded_lanes(lanes, step))
            at = results_at(rows_here, terms)
            for j in range(lanes):
                for r in range(rows_here):
                    matrix[channel + j, row + r] = space[at + r * LANES + j] if terms > 0 else 0


# Rows (c, kh, kw) of a weight-gradient task: enough to pay for packing the panel, few enough that the packed taps,
# 512 x 128 float32, stay within 256 KiB.
_TASK_ROWS = 512


def _forward_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    elements = plane_elements(g.batch * g.in_channels, *forward_axes(g))
    return (workers, scratch_elements(g.out_channels // g.groups, terms)), (elements,)


def _input_grad_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    elements = plane_elements(g.batch * g.out_channels, *backward_axes(g))
    weights = g.out_channels * g.in_channels // g.groups * g.kernel_h * g.kernel_w
    return (workers, scratch_elements(g.in_channels // g.groups, terms)), (elements,), (weights,)


def _weight_grad_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    rows = min(_TASK_ROWS, g.in_channels // g.groups * g.kernel_h * g.kernel_w)
    elements = plane_elements(g.batch * g.in_channels, *forward_axes(g))
    scratch = (workers, scratch_elements(rows, g.batch * g.out_h * g.out_w))
    return scratch, (elements,), (workers, rows * TERM_BLOCK + CHUNK)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    if config.DISABLE_JIT:
        return "kernels are not compiled (NUMBA_DISABLE_JIT=1)"
    return None


ALGORITHM = Algorithm(
    "implicit",
    _declines,
    Operation(_forward, _forward_workspace),
    Operation(_input_grad, _input_grad_workspace),
    Operation(_weight_grad, _weight_grad_workspace),
)
