"""Implicit matrix product: im2col happens while a panel is packed, no column matrix exists.

Forward and input gradient are one gather product: rows are output channels, terms are (channel, tap), lanes are the
pixels of a tile. The weight gradient is the same product turned: rows are (channel, tap), terms are pixels of the
batch, lanes are output channels.
Source: S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3 (lowering while packing).
"""

from __future__ import annotations

from typing import Any

from numba.core import config

from ..gemm.blocked import (
    PANEL,
    TOTALS,
    multiply_block,
    results_row,
    rounded_lanes,
    row_chunk,
    scratch_rows,
    tile_count,
    tile_lanes,
)
from ..gemm.gather import Axis, forward_axis, gather_row, phase_axis, phases
from ..gemm.micro import LANES
from ..gemm.summation import TERM_BLOCK
from ..geometry import Geometry
from ..runtime.compile import driver, kernel, prange
from ..runtime.copying import copy_run
from ..typing import DType
from .algorithm import Algorithm, Operation, Shape


@kernel
def _pack_panel(
    scratch: Any, images: Any, channel: Any, term: Any, terms: Any, vertical: Axis, horizontal: Axis, i: Any, k: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """panel[t, j] = what the j-th grid point from (i, k) on meets at term `term + t` = (channel, kh, kw).

    Lanes that only fill up are zero.
    """
    taps = vertical.taps * horizontal.taps
    width = rounded_lanes(lanes)
    c = channel + term // taps
    kh = term % taps // horizontal.taps
    kw = term % horizontal.taps
    for t in range(terms):
        row = scratch[PANEL + t]
        gather_row(row, images[c], vertical, horizontal, kh, kw, i, k, lanes)
        for j in range(lanes, width):
            row[j] = 0
        kw += 1
        if kw == horizontal.taps:
            kw = 0
            kh += 1
            if kh == vertical.taps:
                kh = 0
                c += 1


@kernel
def _finish_row(results: Any, lanes: Any, terms: Any, bias: Any, o: Any) -> None:
    """results[j] += bias[o] where there is a bias; no terms make zero."""
    if terms == 0:
        for j in range(lanes):
            results[j] = 0
    if bias.size > 0:
        shift = bias[o]
        for j in range(lanes):
            results[j] += shift


@kernel
def _store_row(plane: Any, results: Any, vertical: Axis, horizontal: Axis, i: Any, k: Any, lanes: Any) -> None:
    """plane[where the j-th grid point from (i, k) on lands] = results[j]"""
    step = horizontal.out_step
    j = 0
    while j < lanes:
        end = min(horizontal.grid, k + lanes - j)
        line = plane[vertical.out_first + i * vertical.out_step]
        target = horizontal.out_first + k * step
        if step == 1:
            copy_run(line, target, results, j, end - k)
        else:
            for q in range(end - k):
                line[target + q * step] = results[j + q]
        j += end - k
        k = 0
        i += 1


@kernel
def _gather_product(
    a: Any, base: Any, vertical: Axis, horizontal: Axis, images: Any, results: Any, bias: Any, g: Geometry, rows: Any,
    channels: Any, scratch: Any, worker: Any, workers: Any,
) -> None:  # fmt: skip
    """One worker's share of: result row r at each grid point = sum over (channel, tap) of a[r, term] * gathered pixel.

    `a` is flat, one matrix (rows, terms) a group from `base` on; `images` is (N * groups * channels, H, W), `results`
    (N * groups * rows, ...). Tasks are (image and group, rows, tile), dealt to the workers in turn.
    """
    taps = vertical.taps * horizontal.taps
    terms = channels * taps
    pixels = vertical.grid * horizontal.grid
    tiles, tile_width = tile_count(pixels), tile_lanes(pixels)
    chunk = row_chunk(rows, g.batch * g.groups * tiles, workers)
    chunks = (rows + chunk - 1) // chunk
    for task in range(worker, g.batch * g.groups * chunks * tiles, workers):
        first = task % tiles * tile_width
        i, k = first // horizontal.grid, first % horizontal.grid
        row = task // tiles % chunks * chunk
        image_group = task // (tiles * chunks)
        rows_here = min(chunk, rows - row)
        lanes = min(tile_width, pixels - first)
        start = base + (image_group % g.groups * rows + row) * terms
        for term in range(0, terms, TERM_BLOCK):
            here = min(TERM_BLOCK, terms - term)
            _pack_panel(scratch, images, image_group * channels, term, here, vertical, horizontal, i, k, lanes)
            multiply_block(
                a, start + term, terms, rows_here, term, here, terms, scratch, rounded_lanes(lanes)
            )  # fmt: skip
        first_total = results_row(rows_here, terms)
        for r in range(rows_here):
            totals = scratch[first_total + r]
            _finish_row(totals, lanes, terms, bias, image_group % g.groups * rows + row + r)
            _store_row(results[image_group * rows + row + r], totals, vertical, horizontal, i, k, lanes)


@driver
def _forward(g: Geometry, x: Any, weight: Any, bias: Any, y: Any, scratch: Any) -> None:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]"""
    workers = scratch.shape[0]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    results = y.reshape(g.batch * g.out_channels, g.out_h, g.out_w)
    matrix = weight.reshape(weight.size)
    for worker in prange(workers):
        vertical = forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)
        horizontal = forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)
        _gather_product(
            matrix, 0, vertical, horizontal, images, results, bias, g, group_out, group_in, scratch[worker], worker,
            workers,
        )  # fmt: skip


@kernel
def _pack_transposed(g: Geometry, weight: Any, packed: Any, base: Any, vertical: Axis, horizontal: Axis, row: Any) -> None:
    """packed[base + row, (o, kh, kw)] = weight[o, c, kh, kw] for the taps of one phase, row = (group, c)."""
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    c, first = row % group_in, row // group_in * group_out
    at = base + row * group_out * vertical.taps * horizontal.taps
    for o in range(first, first + group_out):
        for s in range(vertical.taps):
            kh = vertical.kernel_first + s * vertical.kernel_step
            for t in range(horizontal.taps):
                packed[at] = weight[o, c, kh, horizontal.kernel_first + t * horizontal.kernel_step]
                at += 1


@driver
def _input_grad(g: Geometry, dy: Any, weight: Any, dx: Any, scratch: Any, packed: Any) -> None:
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    A gather product for each phase of `(h, w)` modulo the stride, whose taps are the same.
    """
    workers = scratch.shape[0]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    images = dy.reshape(g.batch * g.out_channels, g.out_h, g.out_w)
    results = dx.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    no_bias = packed[:0]
    phases_w = phases(g.stride_w, g.in_w)
    all_phases = phases(g.stride_h, g.in_h) * phases_w
    for worker in prange(workers):
        base = 0
        for phase in range(all_phases):
            vertical = phase_axis(
                phase // phases_w, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h
            )  # fmt: skip
            horizontal = phase_axis(
                phase % phases_w, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w
            )  # fmt: skip
            for row in range(worker, g.in_channels, workers):
                _pack_transposed(g, weight, packed, base, vertical, horizontal, row)
            base += g.in_channels * group_out * vertical.taps * horizontal.taps
    for worker in prange(workers):
        base = 0
        for phase in range(all_phases):
            vertical = phase_axis(
                phase // phases_w, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h
            )  # fmt: skip
            horizontal = phase_axis(
                phase % phases_w, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w
            )  # fmt: skip
            _gather_product(
                packed, base, vertical, horizontal, images, results, no_bias, g, group_in, group_out, scratch[worker],
                worker, workers,
            )  # fmt: skip
            base += g.in_channels * group_out * vertical.taps * horizontal.taps


@kernel
def _pack_pixels(
    panel: Any, dy: Any, channel: Any, channels: Any, pixels: Any, first: Any, count: Any, out_channels: Any
) -> None:
    """panel[t, j] = dy[n, channel + j, pixel] for pixel `first + t` of the batch, j < channels; the rest is zero."""
    width = rounded_lanes(channels)
    n, pixel = first // pixels, first % pixels
    t = 0
    while t < count:
        run = min(pixels - pixel, count - t)
        for j in range(channels):
            plane = dy[n * out_channels + channel + j]
            for q in range(run):
                panel[t + q, j] = plane[pixel + q]
        t += run
        n += 1
        pixel = 0
    for t in range(count):
        for j in range(channels, width):
            panel[t, j] = 0


@kernel
def _pack_taps(
    rows: Any, images: Any, g: Geometry, channel: Any, tap: Any, count: Any, vertical: Axis, horizontal: Axis, first: Any,
    terms: Any,
) -> None:  # fmt: skip
    """rows[r, t] = the pixel that row `tap + r` = (channel, kh, kw) meets at grid point `first + t` of the batch."""
    taps = g.kernel_h * g.kernel_w
    pixels = vertical.grid * horizontal.grid
    for r in range(count):
        row = rows[r * TERM_BLOCK : (r + 1) * TERM_BLOCK]
        c, kh, kw = (tap + r) // taps, (tap + r) % taps // g.kernel_w, (tap + r) % g.kernel_w
        n, pixel = first // pixels, first % pixels
        t = 0
        while t < terms:
            run = min(pixels - pixel, terms - t)
            plane = images[n * g.in_channels + channel + c]
            i, k = pixel // horizontal.grid, pixel % horizontal.grid
            gather_row(row[t:], plane, vertical, horizontal, kh, kw, i, k, run)
            t += run
            n += 1
            pixel = 0


@driver
def _weight_grad(g: Geometry, dy: Any, x: Any, dw: Any, scratch: Any, packed: Any) -> None:
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Tasks are (group, tile of output channels, chunk of (c, kh, kw)); each walks over all pixels of the batch in order.
    """
    workers = scratch.shape[0]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    pixels = g.out_h * g.out_w
    planes = dy.reshape(g.batch * g.out_channels, pixels)
    rows = group_in * g.kernel_h * g.kernel_w
    matrix = dw.reshape(g.out_channels, rows)
    terms = g.batch * pixels
    tiles, tile_width = tile_count(group_out), tile_lanes(group_out)
    chunk = min(_rows_a_task(rows), row_chunk(rows, g.groups * tiles, workers))
    chunks = (rows + chunk - 1) // chunk if chunk > 0 else 0
    for worker in prange(workers):
        vertical = forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)
        horizontal = forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)
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
                _pack_pixels(space[PANEL:], planes, channel, lanes, pixels, term, here, g.out_channels)
                _pack_taps(taps, images, g, group * group_in, row, rows_here, vertical, horizontal, term, here)
                multiply_block(taps, 0, TERM_BLOCK, rows_here, term, here, terms, space, rounded_lanes(lanes))
            totals = results_row(rows_here, terms)
            for j in range(lanes):
                for r in range(rows_here):
                    matrix[channel + j, row + r] = space[totals + r, j] if terms > 0 else 0


# Rows (c, kh, kw) of a weight-gradient task: enough to pay for packing the panel, few enough that the packed taps,
# 512 x 128 float32, stay within 256 KiB.
_TASK_ROWS = 512


@kernel
def _rows_a_task(rows: Any) -> Any:
    return min(rows, _TASK_ROWS)


def _forward_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    return ((workers, scratch_rows(g.out_channels // g.groups, terms), LANES),)


def _input_grad_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    weights = g.out_channels * g.in_channels // g.groups * g.kernel_h * g.kernel_w
    return (workers, scratch_rows(g.in_channels // g.groups, terms), LANES), (weights,)


def _weight_grad_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    rows = min(_TASK_ROWS, g.in_channels // g.groups * g.kernel_h * g.kernel_w)
    terms = g.batch * g.out_h * g.out_w
    return (workers, scratch_rows(rows, terms), LANES), (workers, rows * TERM_BLOCK)


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
