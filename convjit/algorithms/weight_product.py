"""The weight gradient as a product: rows are (channel, tap), terms are pixels of the batch, lanes are output channels.

Knows how both factors are packed, 128 pixels at a time; does not know how a register tile is computed.
"""

from __future__ import annotations

from typing import Any

from ..gemm import micro
from ..gemm.blocked import (
    LIST_ENTRIES,
    PANEL,
    PANEL_LANES,
    PANEL_OFFSETS,
    RUNS,
    clear_behind,
    fold_block,
    list_panel_offsets,
    results_at,
    row_chunk,
    scratch_elements,
    tile_count,
    tile_lanes,
)
from ..gemm.micro import pack_runs
from ..gemm.planes import BEHIND, Axis, forward_axes, horizontal_axis, plane_elements, term_offsets, vertical_axis
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver, kernel, uncompiled
from ..runtime.launch import launch
from ..typing import DType
from .algorithm import INDICES, Space, work_ns
from .filling import fill_planes


@kernel
def _pack_pixels(
    scratch: Any, dy: Any, channel: Any, channels: Any, pixels: Any, first: Any, count: Any, out_channels: Any
) -> None:
    """panel[t, j] = dy[n, channel + j, pixel] for pixel `first + t` of the batch, j < channels."""
    n, pixel = first // pixels, first % pixels
    at = PANEL * PANEL_LANES
    t = 0
    while t < count:
        run = min(pixels - pixel, count - t)
        row = n * out_channels + channel
        for q in range(run):
            for j in range(channels):
                scratch[at + j] = dy[row + j, pixel + q]
            at += PANEL_LANES
        t += run
        n += 1
        pixel = 0


@kernel
def _list_pixels(runs: Any, g: Geometry, vertical: Axis, horizontal: Axis, first: Any, count: Any) -> Any:
    """List the runs of neighbours that output pixels `first .. first + count` of the batch meet; return how many."""
    image = g.in_channels * vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    n = first // (vertical.grid * horizontal.grid)
    i = first // horizontal.grid % vertical.grid
    k = first % horizontal.grid
    found = 0
    while count > 0:
        here = min(horizontal.grid - k, count)
        runs[2 * found], runs[2 * found + 1] = n * image + i * horizontal.padded + k, here
        found += 1
        count -= here
        k = 0
        i += 1
        if i == vertical.grid:
            i = 0
            n += 1
    return found


# Rows (c, kh, kw) of a task: enough to pay for packing the panel, few enough that the packed taps, 256 x 128 elements,
# stay within 256 KiB, and that a total takes 20 ms at most.
_TASK_ROWS = 256


@driver
def _weight_grad(
    task: Any, worker: Any, g: Geometry, chunk: Any, first: Any, stop: Any, kernels: Any, offsets: Any, dy: Any,
    source: Any, dw: Any, scratch: Any, packed: Any, lists: Any,
) -> None:  # fmt: skip
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, whole totals, which are added to `dw` if they are not the
    first. Tasks are (group, chunk of (c, kh, kw), tile of output channels). `dy` is (N * O, pixels), `dw` (O, rows).
    """
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    pixels = g.out_h * g.out_w
    rows = group_in * g.kernel_h * g.kernel_w
    tiles, tile_width = tile_count(group_out), tile_lanes(group_out, kernels[micro.LANES])
    chunks = (rows + chunk - 1) // chunk
    lane = task % tiles * tile_width
    row = task // tiles % chunks * chunk
    group = task // (tiles * chunks)
    lanes = min(tile_width, group_out - lane)
    if lanes <= 0:
        return
    rows_here = min(chunk, rows - row)
    channel = group * group_out + lane
    vertical, horizontal = vertical_axis(g), horizontal_axis(g)
    space, taps = scratch[worker], packed[worker]
    panel = space.ctypes.data + PANEL * PANEL_LANES * space.itemsize
    panel_offsets = lists[worker].ctypes.data + 8 * PANEL_OFFSETS
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    met = source.ctypes.data + group * group_in * each * source.itemsize
    list_panel_offsets(lists[worker])
    clear_behind(space, lanes, kernels[micro.LANES])
    for total in range(first, stop, TERMS_A_TOTAL):
        terms = min(TERMS_A_TOTAL, stop - total)
        for term in range(0, terms, TERM_BLOCK):
            here = min(TERM_BLOCK, terms - term)
            _pack_pixels(space, dy, channel, lanes, pixels, total + term, here, g.out_channels)
            runs = _list_pixels(lists[worker, RUNS:], g, vertical, horizontal, total + term, here)
            pack_runs(
                kernels, met, offsets.ctypes.data + 8 * row, rows_here, lists[worker].ctypes.data + 8 * RUNS, runs,
                taps.ctypes.data, TERM_BLOCK,
            )  # fmt: skip
            fold_block(
                kernels, taps.ctypes.data, TERM_BLOCK, rows_here, panel, panel_offsets, term, here, terms, space, lanes
            )
        at = results_at(rows_here, terms)
        for j in range(lanes):
            for r in range(rows_here):
                value = space[at + r * PANEL_LANES + j]
                dw[channel + j, row + r] = value if total == 0 else dw[channel + j, row + r] + value


def _weight_grad_rows(g: Geometry, workers: int) -> int:
    rows = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    tiles = g.groups * int(uncompiled(tile_count)(g.out_channels // g.groups))
    return min(_TASK_ROWS, row_chunk(rows, tiles, TERMS_A_TOTAL, workers))


def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Scratch, planes, packed taps and lists."""
    rows = _weight_grad_rows(g, workers)
    elements = plane_elements(g.batch * g.in_channels, *forward_axes(g))
    scratch = scratch_elements(rows, TERMS_A_TOTAL)
    packed = rows * TERM_BLOCK + BEHIND
    return (
        Space((workers, scratch)), Space((elements,)), Space((workers, packed)), Space((workers, LIST_ENTRIES), INDICES)
    )  # fmt: skip


def run(
    workers: int, g: Geometry, dy: Any, x: Any, dw: Any, scratch: Any, planes: Any, packed: Any, lists: Any
) -> None:
    """Launch the drivers."""
    terms = g.batch * g.out_h * g.out_w
    if terms == 0:
        dw[...] = 0
        return
    source = fill_planes(workers, g, False, x, planes)
    chunk = _weight_grad_rows(g, workers)
    rows, group_out = g.in_channels // g.groups * g.kernel_h * g.kernel_w, g.out_channels // g.groups
    tasks = g.groups * int(uncompiled(tile_count)(group_out)) * -(-rows // chunk)
    # As many totals at once as keep a task short: totals follow one another, so each launch waits for the last one.
    together = TERMS_A_TOTAL * max(1, (_TASK_ROWS * PANEL_LANES) // (chunk * min(group_out, PANEL_LANES)))
    gradients = dy.reshape(g.batch * g.out_channels, g.out_h * g.out_w)
    matrix = dw.reshape(g.out_channels, rows)
    kernels = micro.kernels(dw.dtype)
    offsets = term_offsets(*forward_axes(g), g.in_channels // g.groups)
    for first in range(0, terms, together):
        stop = min(terms, first + together)
        share = work_ns(g) * (stop - first) / terms
        launch(
            _weight_grad, workers, tasks, share, g, chunk, first, stop, kernels, offsets, gradients, source,
            matrix, scratch, packed, lists,
        )  # fmt: skip
