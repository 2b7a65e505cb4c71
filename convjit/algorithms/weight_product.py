"""The weight gradient as a product: rows are (channel, tap), terms are pixels of the batch, lanes are output channels.

Knows how both factors are packed, 128 pixels at a time; does not know how a register tile is computed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from ..gemm.blocked import (
    LIST_ENTRIES,
    PANEL,
    PANEL_LANES,
    PANEL_OFFSETS,
    PIECES,
    fold_block,
    list_panel_offsets,
    results_at,
    row_chunk,
    scratch_elements,
    tile_count,
    tile_lanes,
)
from ..gemm.estimate import weight_share
from ..gemm.micro import ELEMENT, LANES, pack
from ..gemm.micro import kernels as kernels_of
from ..gemm.planes import BEHIND, forward_axes, list_pieces, plane_elements, term_offsets
from ..gemm.product import Product, plan_product
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver, kernel, uncompiled
from ..runtime.launch import launch
from ..typing import DType
from .algorithm import INDICES, Cut, Space, work_ns, workspace_limit
from .filling import fill_planes


@kernel
def _clear_behind(scratch: Any, lanes: Any, step: Any) -> None:
    """Zero the lanes of the panel that only fill up the last vector: what lies there may be slow (denormal)."""
    for t in range(TERM_BLOCK if lanes % step != 0 else 0):
        at = (PANEL + t) * PANEL_LANES
        for j in range(at + lanes, at + (lanes + step - 1) // step * step):
            scratch[j] = 0


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
def _list_pixels(pieces: Any, p: Product, first: Any, count: Any, lanes: Any) -> Any:
    """List what output pixels `first .. first + count` of the batch meet, as `list_pieces` does; return how many."""
    pixels, found, lane = p.grid_h * p.grid_w, 0, 0
    while lane < count:
        n, pixel = (first + lane) // pixels, (first + lane) % pixels
        run = min(pixels - pixel, count - lane)
        before = found
        found += list_pieces(pieces[3 * found :], p.grid_w, p.padded_w, pixel, run, lanes)
        for i in range(3 * before, 3 * found, 3):
            pieces[i] += n * p.groups * p.channels * p.each
            pieces[i + 1] += lane
        lane += run
    return found


# Rows (c, kh, kw) of a task: enough to pay for packing the panel, few enough that the packed taps, 256 x 128 elements,
# stay within 256 KiB, and that a total takes 20 ms at most.
_TASK_ROWS = 256


@driver
def _weight_grad(
    task: Any, worker: Any, p: Product, first: Any, stop: Any, kernels: Any, offsets: Any, dy: Any, source: Any,
    begin: Any, dw: Any, scratch: Any, packed: Any, lists: Any,
) -> None:  # fmt: skip
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, whole totals, which are added to `dw` if they are not the
    first. Tasks are (group, chunk of (c, kh, kw), tile of output channels). `dy` is (N * O, pixels), `dw` (O, rows);
    `source` are planes from element `begin` on of those of the whole batch.
    """
    pixels, rows = p.grid_h * p.grid_w, p.channels * p.taps
    chunks = (rows + p.chunk - 1) // p.chunk
    lane = task % p.tiles * p.lanes
    row = task // p.tiles % chunks * p.chunk
    group = task // (p.tiles * chunks)
    lanes = min(p.lanes, p.rows - lane)
    if lanes <= 0:
        return
    rows_here = min(p.chunk, rows - row)
    channel = group * p.rows + lane
    space, taps, list_here = scratch[worker], packed[worker], lists[worker]
    size = kernels[ELEMENT]
    panel, panel_offsets = space.ctypes.data + PANEL * PANEL_LANES * size, list_here.ctypes.data + 8 * PANEL_OFFSETS
    met = source.ctypes.data + (group * p.channels * p.each - begin) * size
    list_panel_offsets(list_here)
    _clear_behind(space, lanes, kernels[LANES])
    for total in range(first, stop, TERMS_A_TOTAL):
        terms = min(TERMS_A_TOTAL, stop - total)
        for term in range(0, terms, TERM_BLOCK):
            here = min(TERM_BLOCK, terms - term)
            _pack_pixels(space, dy, channel, lanes, pixels, total + term, here, p.groups * p.rows)
            count = _list_pixels(list_here[PIECES:], p, total + term, here, kernels[LANES])
            pack(
                kernels, met, offsets.ctypes.data + 8 * row, rows_here, list_here.ctypes.data + 8 * PIECES, count,
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


@lru_cache(maxsize=256)
def _product(g: Geometry, workers: int, dtype: DType) -> Product:
    """How the gradient is cut, in the words of a forward product: `tiles` and `lanes` are of output channels here."""
    rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
    axes = forward_axes(g)
    forward = plan_product(axes, g.batch, g.groups, rows, channels, g.out_h * g.out_w, 1, workers, dtype)
    tiles = int(uncompiled(tile_count)(rows))
    lanes = int(uncompiled(tile_lanes)(rows, kernels_of(dtype)[LANES]))
    chunk = min(_TASK_ROWS, row_chunk(channels * forward.taps, g.groups * tiles, TERMS_A_TOTAL, workers))
    return forward._replace(tiles=tiles, lanes=lanes, chunk=chunk)


def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Scratch, planes of the images that are filled together, packed taps and lists."""
    rows = _product(g, workers, dtype).chunk
    others = (
        Space((workers, scratch_elements(rows, TERMS_A_TOTAL)), name="scratch"),
        Space((workers, rows * TERM_BLOCK + BEHIND), name="packed taps"),
        Space((workers, LIST_ENTRIES), INDICES, "lists"),
    )
    taken = sum(math.prod(space.shape) * (space.dtype or dtype).itemsize for space in others)
    left = (workspace_limit(math.prod(g.x_shape), dtype) - taken) // dtype.itemsize
    planes = plane_elements(g.in_channels, *forward_axes(g))
    together = min(g.batch, max(left // max(planes, 1), _least_images(g)))
    scratch, packed, lists = others
    return scratch, Space((_planes_of(g, together),), name="planes"), packed, lists


def _planes_of(g: Geometry, images: int) -> int:
    return plane_elements(images * g.in_channels, *forward_axes(g))


def _least_images(g: Geometry) -> int:
    """Images that the pixels of one total can lie in: so many must be filled at once."""
    return -(-TERMS_A_TOTAL // (g.out_h * g.out_w)) + 1


def cut(g: Geometry, workers: int, dtype: DType) -> Cut:
    """Chunks of (channel, tap), and tiles of output channels."""
    p = _product(g, workers, dtype)
    tasks = p.groups * p.tiles * -(-p.channels * p.taps // max(p.chunk, 1))
    filled = plane_elements(g.in_channels, *forward_axes(g))
    how = f"{TERM_BLOCK} pixels at a time, packed, {p.chunk} (channel, tap) x {p.lanes} filters; tasks: {tasks}"
    return Cut(how, weight_share(p, filled, tasks, workers, dtype))


def run(
    workers: int, g: Geometry, dy: Any, x: Any, dw: Any, scratch: Any, planes: Any, packed: Any, lists: Any
) -> None:
    """Launch the drivers, for as many images at a time as `planes` has room for."""
    pixels = g.out_h * g.out_w
    terms = g.batch * pixels
    if terms == 0:
        dw[...] = 0
        return
    axes, p = forward_axes(g), _product(g, workers, dw.dtype)
    rows = p.channels * p.taps
    tasks = p.groups * p.tiles * -(-rows // p.chunk)
    # As many totals at once as keep a task short: totals follow one another, so each launch waits for the last one.
    together = TERMS_A_TOTAL * max(1, (_TASK_ROWS * PANEL_LANES) // (p.chunk * min(p.rows, PANEL_LANES)))
    gradients = dy.reshape(g.batch * g.out_channels, pixels)
    matrix = dw.reshape(g.out_channels, rows)
    kernels, offsets = kernels_of(dw.dtype), term_offsets(*axes, p.channels)
    of_image = p.groups * p.channels * p.each
    # Images that lie on both sides of a cut between totals are filled twice.
    span = terms
    if 0 < planes.size < _planes_of(g, g.batch):
        span = TERMS_A_TOTAL * max(1, ((planes.size - BEHIND) // of_image - 1) * pixels // TERMS_A_TOTAL)
    for start in range(0, terms, span):
        end = min(terms, start + span)
        image, stop_image = start // pixels, -(-end // pixels)
        source = fill_planes(workers, axes, x[image:stop_image], planes[: _planes_of(g, stop_image - image)])
        for first in range(start, end, together):
            stop = min(end, first + together)
            share = work_ns(g) * (stop - first) / terms
            launch(
                _weight_grad, workers, tasks, share, p, first, stop, kernels, offsets, gradients, source,
                image * of_image, matrix, scratch, packed, lists,
            )  # fmt: skip
