"""Convolution as a product: rows of `a` times what grid points meet in planes, tile by tile.

Rows are channels of the result, terms are (channel, tap), lanes are neighbouring grid points. A tile of lanes is packed
into a panel, or read where it lies: im2col happens on the way, no column matrix exists. Knows planes and tiles; does
not know whether it computes outputs or an input gradient.
Source: S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3 (lowering while packing);
M. Dukhan, "The Indirect Convolution Algorithm" (2019).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from ..geometry import Geometry
from ..runtime.compile import kernel, uncompiled
from ..runtime.copying import copy_run
from ..typing import DType
from . import micro
from .blocked import (
    PANEL,
    PANEL_LANES,
    PANEL_OFFSETS,
    RUNS,
    TOTALS,
    clear_behind,
    close_totals,
    list_panel_offsets,
    results_at,
    row_chunk,
    tile_count,
    tile_lanes,
)
from .micro import multiply, pack_runs, pack_vectors
from .planes import BEHIND, Axis, list_runs, list_vectors, plane_elements
from .summation import TERM_BLOCK, TERMS_A_TOTAL


class Cut(NamedTuple):
    """How a product is cut into tasks, and how lanes meet the planes."""

    tasks: int  # an image (and phase)
    chunk: int  # rows a task
    by_image: int  # 1 where a worker fills the planes of an image and does all of its tasks
    in_place: int  # 1 where planes are read in place, row by row of the grid; 0 where panels are packed
    behind: int  # elements behind the last plane that may be read


# Planes of an image that stay in the second-level cache between filling and reading.
_CACHED_BYTES = 1 << 19
# A task of one image takes 10 ms at most: at 25 multiplications a nanosecond, what float64 reaches.
_IMAGE_MULTIPLICATIONS = 1 << 28
# Cycles on AVX-512 that packing takes for a run of neighbouring pixels, and for each of its vectors.
_RUN_CYCLES, _VECTOR_CYCLES = 6, 3
# A tile of one vector, or of two, does not keep both multiply-add units busy: loads of `a` stand in the way. Four
# vectors are two tiles of two.
_TILE_SPEED = (1, 0.55, 0.9, 1.0, 0.9)


@lru_cache(maxsize=256)
def cut_product(
    axes: tuple[Axis, Axis], rows: int, channels: int, planes: int, batch: int, groups: int, phases: int, workers: int,
    dtype: DType,
) -> Cut:  # fmt: skip
    """The cut of a product: rows and channels of a group, planes of an image, and phases that each have their own."""
    vertical, horizontal = axes
    terms = channels * vertical.taps * horizontal.taps
    tiles = int(uncompiled(tile_count)(vertical.grid * horizontal.grid))
    elements = plane_elements(planes, *axes)
    multiplications = rows * groups * terms * vertical.grid * horizontal.grid * phases
    by_image = (
        elements * dtype.itemsize <= _CACHED_BYTES
        and multiplications <= _IMAGE_MULTIPLICATIONS
        and batch >= (1 if workers == 1 else 4 * workers)
    )
    chunk = row_chunk(rows, batch * groups * phases * tiles, terms, 1 if by_image else workers)
    in_place = elements > 0 and _pays_in_place(axes, chunk, dtype)
    tasks = groups * -(-rows // max(chunk, 1)) * tiles
    return Cut(tasks, chunk, int(by_image), int(in_place), BEHIND if elements > 0 else 0)


def _pays_in_place(axes: tuple[Axis, Axis], rows: int, dtype: DType) -> bool:
    """Whether a row of the grid takes fewer cycles a term with lanes that it leaves empty than packed."""
    vertical, horizontal = axes
    lanes = int(micro.kernels(dtype)[micro.LANES])
    planes = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    # Planes that lie a multiple of a few hundred bytes apart fall into few sets of the first-level cache.
    if math.gcd(planes * dtype.itemsize, 4096) > 256 * vertical.taps * horizontal.taps:
        return False
    vectors, tile = -(-horizontal.grid // lanes), rows / 2  # cycles of a tile for a vector and a term
    packed = horizontal.grid / lanes * tile + _RUN_CYCLES + _VECTOR_CYCLES * vectors
    return vectors * tile / _TILE_SPEED[min(vectors, 4)] < packed


@kernel
def product(
    task: Any, a: Any, offsets: Any, base: Any, vertical: Axis, horizontal: Axis, source: Any, results: Any, bias: Any,
    g: Geometry, rows: Any, channels: Any, cut: Cut, kernels: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """result row r at each grid point = sum over (channel, tap) of a[r, term] * what it meets, for a task's share.

    `a` is flat, a matrix (rows, terms) for each group, and `offsets` says where terms are met; both begin behind those
    of the `base` taps of other phases. `source` is the address of the planes, those of (N * groups * channels), and
    `results` are (N * groups * rows, height, width). Tasks are (image and group, chunk of rows, tile of grid points);
    some have nothing to do.
    """
    terms = channels * vertical.taps * horizontal.taps
    extent = vertical.grid * horizontal.grid
    tiles, tile_width = tile_count(extent), tile_lanes(extent, kernels[micro.LANES])
    chunks = (rows + cut.chunk - 1) // cut.chunk
    position = task % max(tiles, 1) * tile_width
    lanes = min(tile_width, extent - position)
    image = task // max(tiles * chunks, 1)  # and group
    if lanes <= 0 or image >= g.batch * g.groups:
        return
    row = task // tiles % chunks * cut.chunk
    rows_here = min(cut.chunk, rows - row)
    size, o = kernels[micro.ELEMENT], image % g.groups * rows + row
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    of_image = source + image * channels * each * size
    of_row = a.ctypes.data + (base * g.groups * rows * channels + o * terms) * size
    met = offsets.ctypes.data + base * channels * 8
    # Results go straight to where they belong if that is one run a row and their sums are short.
    is_direct = terms <= TERMS_A_TOTAL and vertical.out_step * horizontal.out_step == 1
    pitch = results.shape[1] * results.shape[2] if is_direct else PANEL_LANES
    target = scratch.ctypes.data + TOTALS * PANEL_LANES * size
    if is_direct:
        target = results.ctypes.data + ((image * rows + row) * pitch + position) * size
    shift = bias.ctypes.data + o * size if is_direct and bias.size > 0 else 0
    # Whole vectors are read, also behind a run, but never behind the last image.
    whole = cut.behind > 0 or image + 1 < g.batch * g.groups or position + lanes + BEHIND <= extent
    clear_behind(scratch, lanes, kernels[micro.LANES])
    runs = _list_tile(lists, horizontal, position, lanes, kernels[micro.LANES] if whole and cut.in_place == 0 else 0)
    for term in range(0, max(terms, 1), TERM_BLOCK):
        here = min(TERM_BLOCK, terms - term)
        done = term + here
        _multiply_tile(
            kernels, of_row + term * size, terms, rows_here, of_image, met + 8 * term, here, lists, runs, lanes,
            scratch, cut.in_place == 1, whole, target, pitch, 1 if term % TERMS_A_TOTAL > 0 else 0,
            shift if done == terms else 0,
        )  # fmt: skip
        if not is_direct:
            close_totals(scratch, rows_here, done, terms, lanes)
    if not is_direct:
        at = results_at(rows_here, terms)
        _finish(scratch, at, rows_here, lanes, bias, o)
        _store(results, image * rows + row, scratch, at, rows_here, vertical, horizontal, position, lanes)


@kernel
def _list_tile(lists: Any, horizontal: Axis, position: Any, lanes: Any, step: Any) -> Any:
    """List where the panel's rows begin, and the runs of a tile, or its vectors of `step` lanes; return how many."""
    list_panel_offsets(lists)
    if step > 0:
        return list_vectors(lists[RUNS:], horizontal, position, lanes, step)
    return list_runs(lists[RUNS:], horizontal, position, lanes)


@kernel
def _multiply_tile(
    kernels: Any, a: Any, a_stride: Any, rows: Any, source: Any, offsets: Any, terms: Any, lists: Any, runs: Any,
    lanes: Any, scratch: Any, in_place: Any, whole: Any, target: Any, pitch: Any, extend: Any, bias: Any,
) -> None:  # fmt: skip
    """Multiply a block of terms with the lanes of a tile: run by run where they lie, or packed. Addresses all."""
    size = kernels[micro.ELEMENT]
    if in_place:
        for run in range(runs):
            lane, count = lists[RUNS + 2 * run], lists[RUNS + 2 * run + 1]
            multiply(
                kernels, a, a_stride, rows, source + lane * size, offsets, terms, count, target, pitch, target, pitch,
                extend, bias,
            )  # fmt: skip
            target += count * size
        return
    panel, listed = scratch.ctypes.data + PANEL * PANEL_LANES * size, lists.ctypes.data + 8 * RUNS
    if whole:
        pack_vectors(kernels, source, offsets, terms, listed, runs, panel, PANEL_LANES)
    else:
        pack_runs(kernels, source, offsets, terms, listed, runs, panel, PANEL_LANES)
    multiply(
        kernels, a, a_stride, rows, panel, lists.ctypes.data + 8 * PANEL_OFFSETS, terms, lanes, target, pitch, target,
        pitch, extend, bias,
    )  # fmt: skip


@kernel
def _finish(scratch: Any, at: Any, rows: Any, lanes: Any, bias: Any, o: Any) -> None:
    """Add bias[o + r] to row r of the results where there is a bias."""
    for r in range(rows if bias.size > 0 else 0):
        shift = bias[o + r]
        for j in range(at + r * PANEL_LANES, at + r * PANEL_LANES + lanes):
            scratch[j] += shift


@kernel
def _store(
    planes: Any, plane: Any, scratch: Any, at: Any, rows: Any, vertical: Axis, horizontal: Axis, position: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """planes[plane + r, where position + j lands] = row r, lane j of the results."""
    step = horizontal.out_step
    i = position // horizontal.grid
    k = position - i * horizontal.grid
    j = 0
    while j < lanes:
        run = min(horizontal.grid - k, lanes - j)
        h, target = vertical.out_first + i * vertical.out_step, horizontal.out_first + k * step
        for r in range(rows):
            line, source = planes[plane + r, h], at + r * PANEL_LANES + j
            if step == 1:
                copy_run(line, target, scratch, source, run)
            else:
                for q in range(run):
                    line[target + q * step] = scratch[source + q]
        j += run
        k = 0
        i += 1
