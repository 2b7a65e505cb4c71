"""Implicit matrix product: im2col happens while a panel is packed, no column matrix exists.

Forward and input gradient are one product: rows are output channels, terms are (channel, tap), lanes are the positions
of a tile. The weight gradient is the same product turned: rows are (channel, tap), terms are pixels of the batch, lanes
are output channels. Both read zero-padded planes that are filled first.
Source: S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3 (lowering while packing).
"""

from __future__ import annotations

from typing import Any

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
    fill_tile,
    forward_axes,
    forward_axis,
    grid_phases,
    phase_tables,
    plane_elements,
    positions,
    tap_offset,
)
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver, kernel, uncompiled
from ..runtime.copying import CHUNK, copy_chunks, copy_run
from ..runtime.launch import launch
from ..runtime.options import COMPILED
from ..runtime.tiles import tile, tiling
from ..typing import DType
from .algorithm import Algorithm, Operation, Shape, work_ns


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


@driver
def _fill(task: Any, worker: Any, g: Geometry, backward: Any, rows: Any, cols: Any, images: Any, planes: Any) -> None:
    """Fill a tile of the planes of a channel of `images` (N, C, H, W), for a forward or a backward read."""
    vertical = _vertical_phase(g, 0) if backward else _vertical(g)
    horizontal = _horizontal_phase(g, 0) if backward else _horizontal(g)
    channel, top, bottom, left, right = tile(task, vertical.padded, horizontal.padded, rows, cols)
    n, c = channel // images.shape[1], channel % images.shape[1]
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    fill_tile(planes, channel * each, images[n, c], vertical, horizontal, top, bottom, left, right)


def _fill_planes(workers: int, g: Geometry, backward: bool, images: Any, planes: Any) -> Any:
    """Fill the planes; they, or the images where those are read in place, as flat elements."""
    if planes.size == 0:
        return images.reshape(images.size)
    vertical, horizontal = backward_axes(g) if backward else forward_axes(g)
    phases = vertical.phases * horizontal.phases
    tiles = tiling(vertical.padded, horizontal.padded, phases)
    tasks = images.shape[0] * images.shape[1] * tiles.a_plane
    launch(_fill, workers, tasks, planes.size, g, backward, tiles.rows, tiles.cols, images, planes)
    # Read-only as images are: whichever of the two is read, the kernels have one signature.
    source = planes.view()
    source.flags.writeable = False
    return source


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
    task: Any, a: Any, base: Any, vertical: Axis, horizontal: Axis, planes: Any, results: Any, bias: Any, g: Geometry,
    rows: Any, channels: Any, chunk: Any, scratch: Any,
) -> None:  # fmt: skip
    """result row r at each grid point = sum over (channel, tap) of a[r, term] * what it meets, for the task's share.

    `a` is flat, one matrix (rows, terms) a group from `base` on; `planes` are those of (N * groups * channels),
    `results` (N * groups * rows, ...). Tasks are (image and group, chunk of rows, tile of positions); there may be more
    tiles than the grid fills.
    """
    terms = channels * vertical.taps * horizontal.taps
    extent = positions(vertical, horizontal)
    step = micro_lanes(scratch)
    tiles, tile_width = tile_count(extent), tile_lanes(extent, step)
    if task >= g.batch * g.groups * ((rows + chunk - 1) // chunk) * tiles:
        return
    chunks = (rows + chunk - 1) // chunk
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
    _store(results, image_group * rows + row, scratch, at, rows_here, vertical, horizontal, position, lanes)


def _product_tasks(g: Geometry, axes: tuple[Axis, Axis], rows: int, chunk: int) -> int:
    chunks = -(-rows // max(chunk, 1))
    return g.batch * g.groups * chunks * _tiles(axes)


def _tiles(axes: tuple[Axis, Axis]) -> int:
    return int(uncompiled(tile_count)(uncompiled(positions)(*axes)))


# --- forward --------------------------------------------------------------------------------------------------------


@driver
def _forward(
    task: Any, worker: Any, g: Geometry, chunk: Any, weight: Any, bias: Any, source: Any, y: Any, scratch: Any
) -> None:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]

    `weight` is flat, `y` is (N * O, OH, OW).
    """
    rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
    _product(
        task, weight, 0, _vertical(g), _horizontal(g), source, y, bias, g, rows, channels, chunk, scratch[worker]
    )  # fmt: skip


def _forward_rows(g: Geometry, workers: int, axes: tuple[Axis, Axis]) -> int:
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    return row_chunk(g.out_channels // g.groups, g.batch * g.groups * _tiles(axes), terms, workers)


def _forward_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    axes = forward_axes(g)
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    elements = plane_elements(g.batch * g.in_channels, *axes)
    return (workers, scratch_elements(_forward_rows(g, workers, axes), terms)), (elements,)


def _run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, scratch: Any, planes: Any) -> None:
    axes = forward_axes(g)
    source = _fill_planes(workers, g, False, x, planes)
    chunk = _forward_rows(g, workers, axes)
    tasks = _product_tasks(g, axes, g.out_channels // g.groups, chunk)
    results = y.reshape(g.batch * g.out_channels, g.out_h, g.out_w)
    launch(_forward, workers, tasks, work_ns(g), g, chunk, weight.reshape(-1), bias, source, results, scratch)


# --- input gradient -------------------------------------------------------------------------------------------------

# Input channels whose weights are transposed together: what is read of one filter fills some cache lines.
_ROWS_TOGETHER = 16


@kernel
def _phase_base(g: Geometry, phase_h: Any, phase_w: Any, above: Any, before: Any) -> Any:
    """Where the transposed weights of a phase begin, from the `phase_tables`: behind those of all phases before it."""
    taps = above[phase_h] * before[before.size - 1] + (above[phase_h + 1] - above[phase_h]) * before[phase_w]
    return g.in_channels * (g.out_channels // g.groups) * taps


@driver
def _pack_transposed(task: Any, worker: Any, g: Geometry, above: Any, before: Any, weight: Any, packed: Any) -> None:
    """For a phase and some input channels: rows of a matrix [(group, c), (o, kh, kw)] of weight[o, c, kh, kw]."""
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    shares = (g.in_channels + _ROWS_TOGETHER - 1) // _ROWS_TOGETHER
    phase, first = task // shares, task % shares * _ROWS_TOGETHER
    across = grid_phases(g.stride_w, g.in_w)
    vertical, horizontal = _vertical_phase(g, phase // across), _horizontal_phase(g, phase % across)
    base = _phase_base(g, phase // across, phase % across, above, before)
    taps = vertical.taps * horizontal.taps
    for o in range(group_out):
        for row in range(first, min(first + _ROWS_TOGETHER, g.in_channels)):
            filters = weight[row // group_in * group_out + o, row % group_in]
            at = base + (row * group_out + o) * taps
            for s in range(vertical.taps):
                line = filters[vertical.kernel_first + s * vertical.kernel_step]
                for t in range(horizontal.taps):
                    packed[at] = line[horizontal.kernel_first + t * horizontal.kernel_step]
                    at += 1


@driver
def _input_grad(
    task: Any,
    worker: Any,
    g: Geometry,
    chunk: Any,
    tasks_a_phase: Any,
    above: Any,
    before: Any,
    source: Any,
    packed: Any,
    dx: Any,
    scratch: Any,
) -> None:
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    A product for each phase of `(h, w)` modulo the stride, whose taps are the same. `dx` is (N * C, H, W).
    """
    across = grid_phases(g.stride_w, g.in_w)
    phase_h, phase_w = task // tasks_a_phase // across, task // tasks_a_phase % across
    vertical, horizontal = _vertical_phase(g, phase_h), _horizontal_phase(g, phase_w)
    base = _phase_base(g, phase_h, phase_w, above, before)
    rows, channels = g.in_channels // g.groups, g.out_channels // g.groups
    _product(
        task % tasks_a_phase, packed, base, vertical, horizontal, source, dx, packed[:0], g, rows, channels, chunk,
        scratch[worker],
    )  # fmt: skip


def _phases(g: Geometry) -> int:
    return min(g.stride_h, g.in_h) * min(g.stride_w, g.in_w)


def _input_grad_rows(g: Geometry, workers: int, axes: tuple[Axis, Axis]) -> int:
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    tiles = g.batch * g.groups * _phases(g) * _tiles(axes)
    return row_chunk(g.in_channels // g.groups, tiles, terms, workers)


def _input_grad_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    axes = backward_axes(g)
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    elements = plane_elements(g.batch * g.out_channels, *axes)
    weights = g.out_channels * g.in_channels // g.groups * g.kernel_h * g.kernel_w
    return (workers, scratch_elements(_input_grad_rows(g, workers, axes), terms)), (elements,), (weights,)


def _run_input_grad(
    workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, scratch: Any, planes: Any, packed: Any
) -> None:
    axes, phases, tables = backward_axes(g), _phases(g), phase_tables(g)
    source = _fill_planes(workers, g, True, dy, planes)
    shares = -(-g.in_channels // _ROWS_TOGETHER)
    launch(_pack_transposed, workers, phases * shares, packed.size, g, *tables, weight, packed)
    chunk = _input_grad_rows(g, workers, axes)
    each = _product_tasks(g, axes, g.in_channels // g.groups, chunk)
    results = dx.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    launch(_input_grad, workers, phases * each, work_ns(g), g, chunk, each, *tables, source, packed, results, scratch)


# --- weight gradient ------------------------------------------------------------------------------------------------


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


# Rows (c, kh, kw) of a task: enough to pay for packing the panel, few enough that the packed taps, 256 x 128 elements,
# stay within 256 KiB, and that a total takes 20 ms at most.
_TASK_ROWS = 256


@driver
def _weight_grad(
    task: Any, worker: Any, g: Geometry, chunk: Any, first: Any, stop: Any, dy: Any, source: Any, dw: Any, scratch: Any,
    packed: Any,
) -> None:  # fmt: skip
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, whole totals, which are added to `dw` if they are not the
    first. Tasks are (group, chunk of (c, kh, kw), tile of output channels). `dy` is (N * O, pixels), `dw` (O, rows).
    """
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    pixels = g.out_h * g.out_w
    rows = group_in * g.kernel_h * g.kernel_w
    step = micro_lanes(dy)
    tiles, tile_width = tile_count(group_out), tile_lanes(group_out, step)
    chunks = (rows + chunk - 1) // chunk
    lane = task % tiles * tile_width
    row = task // tiles % chunks * chunk
    group = task // (tiles * chunks)
    lanes = min(tile_width, group_out - lane)
    rows_here = min(chunk, rows - row)
    channel = group * group_out + lane
    vertical, horizontal = _vertical(g), _horizontal(g)
    space, taps = scratch[worker], packed[worker]
    for total in range(first, stop, TERMS_A_TOTAL):
        terms = min(TERMS_A_TOTAL, stop - total)
        for term in range(0, terms, TERM_BLOCK):
            here = min(TERM_BLOCK, terms - term)
            _pack_pixels(space, dy, channel, lanes, pixels, total + term, here, g.out_channels)
            _pack_taps(
                taps, source, g, group * group_in, row, rows_here, vertical, horizontal, total + term, here
            )  # fmt: skip
            multiply_block(taps, 0, TERM_BLOCK, rows_here, term, here, terms, space, rounded_lanes(lanes, step))
        at = results_at(rows_here, terms)
        for j in range(lanes):
            for r in range(rows_here):
                value = space[at + r * LANES + j]
                dw[channel + j, row + r] = value if total == 0 else dw[channel + j, row + r] + value


def _weight_grad_rows(g: Geometry, workers: int) -> int:
    rows = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    tiles = g.groups * int(uncompiled(tile_count)(g.out_channels // g.groups))
    return min(_TASK_ROWS, row_chunk(rows, tiles, TERMS_A_TOTAL, workers))


def _weight_grad_workspace(g: Geometry, workers: int) -> tuple[Shape, ...]:
    rows = _weight_grad_rows(g, workers)
    elements = plane_elements(g.batch * g.in_channels, *forward_axes(g))
    scratch = (workers, scratch_elements(rows, TERMS_A_TOTAL))
    return scratch, (elements,), (workers, rows * TERM_BLOCK + CHUNK)


def _run_weight_grad(
    workers: int, g: Geometry, dy: Any, x: Any, dw: Any, scratch: Any, planes: Any, packed: Any
) -> None:
    terms = g.batch * g.out_h * g.out_w
    if terms == 0:
        dw[...] = 0
        return
    source = _fill_planes(workers, g, False, x, planes)
    chunk = _weight_grad_rows(g, workers)
    rows, group_out = g.in_channels // g.groups * g.kernel_h * g.kernel_w, g.out_channels // g.groups
    tasks = g.groups * int(uncompiled(tile_count)(group_out)) * -(-rows // chunk)
    # As many totals at once as keep a task short: totals follow one another, so each launch waits for the last one.
    together = TERMS_A_TOTAL * max(1, (_TASK_ROWS * LANES) // (chunk * min(group_out, LANES)))
    gradients = dy.reshape(g.batch * g.out_channels, g.out_h * g.out_w)
    matrix = dw.reshape(g.out_channels, rows)
    for first in range(0, terms, together):
        stop = min(terms, first + together)
        share = work_ns(g) * (stop - first) / terms
        launch(_weight_grad, workers, tasks, share, g, chunk, first, stop, gradients, source, matrix, scratch, packed)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return "kernels are not compiled (NUMBA_DISABLE_JIT=1)"
    return None


ALGORITHM = Algorithm(
    "implicit",
    _declines,
    Operation(_run_forward, _forward_workspace),
    Operation(_run_input_grad, _input_grad_workspace),
    Operation(_run_weight_grad, _weight_grad_workspace),
)
