"""Winograd's weight gradient: for a block of tiles, the inputs and the output gradient transformed, and their products.

Of each block, a panel of output channels is multiplied with some channels of the inputs, over all tiles, and the sums
are transformed into taps, which are added up over the blocks, in their order. Each worker does whole blocks, where
memory has room for what each has then, and for the taps of all blocks; or all of them do one block together, first its
transforms, then its products: what one of them has transformed comes slowly to the others. How many workers there are
never shows: blocks are cut by the problem alone.
Knows blocks, tasks and workspaces; does not know how tiles are transformed or multiplied.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..gemm import direct_kernels, micro, winograd, winograd_taps
from ..gemm.cook_toom import F4X3
from ..gemm.micro import ELEMENT, LANES, multiply
from ..gemm.summation import TERM_BLOCK
from ..gemm.winograd import STEP
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, run_in_turn
from ..runtime.memory import CACHE_LINE
from ..simd import isa
from ..typing import DType
from .algorithm import INDICES, Explained, Operation, Space, each_call, work_ns, workspace_limit
from .winograd_blocks import list_entries, list_rows, row_entries, transform_inputs
from .winograd_cut import (
    MULTIPLICATIONS_A_CYCLE,
    PRODUCTS_SPEED,
    TRANSFORMS_TAKE_LONGER,
    VECTOR,
    blocks_of,
    cycles_of,
)
from .winograd_tiles import TAPS, Blocks, Problem, block_of, forward_problem, grid
from .winograd_weights import aligned

_NINE = TAPS * TAPS
PRODUCTS = F4X3.window**2
# Channels whose inputs a task transforms, and channels whose sums it takes: with a panel of two or three vectors these
# are 150 to 440 KiB for all products in float32, part of a second-level cache.
_TRANSFORMED, _SUMMED = 8, 64
# Tasks a worker, to even out, as long as they have so many channels.
_TASKS_A_WORKER, _LEAST_SUMMED = 4, 16
# Tiles of a block at most: as many as a chain may have. Of ten layers (32 to 512 channels, one thread) blocks of up to
# four times as many took 0.99 to 1.12 of the time: they add up taps less often, and leave the near caches.
_MOST_TILES = TERM_BLOCK
# So many blocks even out, whoever takes the last one; and what part of their turns workers are busy at least, where
# each does whole blocks.
_MANY_BLOCKS, _EVEN = 16, 0.8


class Shares(NamedTuple):
    """How a gradient is cut; all that compiled code is told beside problem and blocks."""

    vectors: int  # of output channels, of a panel
    width: int  # lanes of them
    panels: int
    transformed: int  # channels a task
    input_tasks: int  # of the tasks that transform: the others transform gradients
    transform_tasks: int
    summed: int  # channels a task
    chunks: int  # of channels, for each panel
    pixels_pitch: int  # elements from product to product of a panel's transformed gradients
    sums_pitch: int  # and of sums


@driver
def _transform(
    task: Any, worker: Any, p: Problem, blocks: Blocks, shares: Shares, kernels: Any, of_taps: Any, block: Any, x: Any,
    dy: Any, places: Any, lines: Any, rows: Any, data: Any, pixels: Any,
) -> None:  # fmt: skip
    """The transformed inputs of some channels of a block, or the transformed gradients of a vector of them."""
    mine = places[worker]
    if mine[0] != block:
        list_rows(p, blocks, block, mine)
        mine[0] = block
    of_data, of_pixels = aligned(data[0].ctypes.data), aligned(pixels[0].ctypes.data)
    # Both kinds of tasks lie among one another, so that each worker transforms some of the inputs that it sums up.
    inputs_before = task * shares.input_tasks // shares.transform_tasks
    if (task + 1) * shares.input_tasks // shares.transform_tasks > inputs_before:
        first = inputs_before * shares.transformed
        transform_inputs(
            p, blocks, kernels, block, first, min(first + shares.transformed, p.channels), x.ctypes.data, mine,
            lines[worker], of_data,
        )  # fmt: skip
    else:
        _transform_gradients(
            p, blocks, shares, kernels, of_taps, block, task - inputs_before, dy.ctypes.data, mine,
            aligned(rows[worker].ctypes.data), of_pixels,
        )  # fmt: skip


@kernel
def _transform_gradients(
    p: Problem, blocks: Blocks, shares: Shares, kernels: Any, of_taps: Any, block: Any, vector: Any, dy: Any,
    places: Any, rows: Any, pixels: Any,
) -> None:  # fmt: skip
    """Transform a block's output gradients, of a vector of channels; addresses all, but the list of `places`."""
    size, lanes = kernels[winograd.ELEMENT], kernels[winograd.LANES]
    row_first, row_stop, col_first, col_stop = block_of(p, blocks, block)
    tiles, channels, plane = col_stop - col_first, p.filters - vector * lanes, p.out_h * p.out_w
    panel, pitch = vector // shares.vectors, shares.width
    target = pixels + (panel * PRODUCTS * shares.pixels_pitch + (vector - panel * shares.vectors) * lanes) * size
    row_pitch = (tiles * STEP + lanes) * lanes
    for row in range(row_stop - row_first):
        at = 1 + row * row_entries(p)
        source, exist = dy + places[at] * size, places[at + 2] - places[at + 1]
        cols = min(places[at + 4] - places[at + 3], tiles * STEP)
        whole = (cols + lanes - 1) // lanes * lanes
        for i in range(STEP):
            line, pixels_of_row = rows + i * row_pitch * size, source + (vector * lanes * plane + i * p.out_w) * size
            if i < exist:
                winograd.turn(kernels, pixels_of_row, plane, channels, cols, line)
                if whole < tiles * STEP:
                    winograd.turn(kernels, source, 0, 0, tiles * STEP - whole, line + whole * lanes * size)
            else:
                winograd.turn(kernels, source, 0, 0, tiles * STEP, line)
        winograd_taps.transform_pixels(of_taps, rows, row_pitch, tiles, target, shares.pixels_pitch, pitch)
        target += tiles * pitch * size


@driver
def _sum_products(
    task: Any, worker: Any, p: Problem, blocks: Blocks, shares: Shares, kernels: Any, of_taps: Any, of_results: Any,
    offsets: Any, block: Any, data: Any, pixels: Any, sums: Any, totals: Any, dw: Any,
) -> None:  # fmt: skip
    """The taps of a panel of output channels and some channels, over the tiles of a block, added to those before.

    With the last block they are put into `dw`, which is flat. `totals` have a row for each task, or for each worker
    where there is one block.
    """
    of_totals = aligned(totals[task if blocks.number > 1 else worker].ctypes.data)
    _sum_tiles(
        p, blocks, shares, kernels, of_taps, offsets, block, task, aligned(data[0].ctypes.data),
        aligned(pixels[0].ctypes.data), aligned(sums[worker].ctypes.data), of_totals, 1 if block > 0 else 0,
    )  # fmt: skip
    if block == blocks.number - 1:
        _land(p, shares, of_results, task, of_totals, dw)


@driver
def _do_block(
    task: Any, worker: Any, p: Problem, blocks: Blocks, shares: Shares, of_inputs: Any, kernels: Any, of_taps: Any,
    offsets: Any, x: Any, dy: Any, places: Any, lines: Any, rows: Any, data: Any, pixels: Any, sums: Any, totals: Any,
) -> None:  # fmt: skip
    """All of a block but adding up: its taps are put into its own rows of `totals`."""
    mine, parts = places[worker], shares.panels * shares.chunks
    of_data, of_pixels = aligned(data[worker].ctypes.data), aligned(pixels[worker].ctypes.data)
    list_rows(p, blocks, task, mine)
    transform_inputs(p, blocks, of_inputs, task, 0, p.channels, x.ctypes.data, mine, lines[worker], of_data)
    for vector in range(shares.transform_tasks - shares.input_tasks):
        _transform_gradients(
            p, blocks, shares, of_inputs, of_taps, task, vector, dy.ctypes.data, mine,
            aligned(rows[worker].ctypes.data), of_pixels,
        )  # fmt: skip
    for part in range(parts):
        _sum_tiles(
            p, blocks, shares, kernels, of_taps, offsets, task, part, of_data, of_pixels,
            aligned(sums[worker].ctypes.data), aligned(totals[task * parts + part].ctypes.data), 0,
        )  # fmt: skip


@driver
def _add_up(
    task: Any, worker: Any, p: Problem, blocks: Blocks, shares: Shares, of_results: Any, totals: Any, dw: Any
) -> None:
    """Add up the taps that blocks have for a panel and some channels, block after block, and put them into `dw`."""
    parts = shares.panels * shares.chunks
    of_totals = aligned(totals[task].ctypes.data)
    first = (of_totals - totals[task].ctypes.data) // totals.itemsize
    for block in range(1, blocks.number):
        row = block * parts + task
        other = (aligned(totals[row].ctypes.data) - totals[row].ctypes.data) // totals.itemsize
        for i in range(_summed_here(p, shares, task) * _NINE * shares.width):
            totals[task, first + i] += totals[row, other + i]
    _land(p, shares, of_results, task, of_totals, dw)


@kernel
def _summed_here(p: Problem, shares: Shares, part: Any) -> Any:
    """Channels of a part: parts are (channels, panel), the last one fastest."""
    return min(shares.summed, p.channels - part // shares.panels * shares.summed)


@kernel
def _sum_tiles(
    p: Problem, blocks: Blocks, shares: Shares, kernels: Any, of_taps: Any, offsets: Any, block: Any, part: Any,
    data: Any, pixels: Any, sums: Any, totals: Any, extend: Any,
) -> None:  # fmt: skip
    """The taps of a part, over the tiles of a block; addresses all, but the list of `offsets`."""
    size, lanes, width = kernels[ELEMENT], kernels[LANES], shares.width
    channels, first = _summed_here(p, shares, part), part // shares.panels * shares.summed
    row_first, row_stop, col_first, col_stop = block_of(p, blocks, block)
    tiles = (row_stop - row_first) * (col_stop - col_first)
    of_data = data + first * blocks.data_pitch * size
    of_panel = pixels + part % shares.panels * PRODUCTS * shares.pixels_pitch * size
    for product in range(PRODUCTS):
        multiply(
            kernels, of_data + product * blocks.product_pitch * size, blocks.data_pitch, channels,
            of_panel + product * shares.pixels_pitch * size, offsets.ctypes.data, tiles, width,
            sums + product * shares.sums_pitch * size, width, 0, 0,
        )  # fmt: skip
    for j in range(0, width, lanes):
        winograd_taps.transform_taps(
            of_taps, sums + j * size, shares.sums_pitch, channels, width, totals + j * size, extend
        )  # fmt: skip


@kernel
def _land(p: Problem, shares: Shares, kernels: Any, part: Any, totals: Any, dw: Any) -> None:
    """Put the taps of a part into `dw`, which is flat; `totals` is an address."""
    first, o = part // shares.panels * shares.summed, part % shares.panels * shares.width
    direct_kernels.land(
        kernels, totals, shares.vectors, _summed_here(p, shares, part) * _NINE, min(shares.width, p.filters - o),
        dw.ctypes.data + (o * p.channels + first) * _NINE * dw.itemsize, p.channels * _NINE, 0,
    )  # fmt: skip


# --- the cut ----------------------------------------------------------------------------------------------------------


class _Setup(NamedTuple):
    """Everything that geometry, dtype and number of workers decide."""

    problem: Problem
    blocks: Blocks
    shares: Shares
    by_block: bool  # whether each worker does whole blocks
    steps: tuple[Launch, Launch]  # blocks, and adding them up; or of each block transforms, and products


@lru_cache(maxsize=64)
def _set_up(g: Geometry, workers: int, dtype: DType) -> _Setup:
    p = forward_problem(g)
    lanes, line = isa.lanes(dtype), CACHE_LINE // dtype.itemsize
    of_filters = max(1, -(-p.filters // lanes))
    panels = -(-of_filters // isa.here().vectors)
    vectors = -(-of_filters // panels)  # of equal width, and none of empty vectors where that can be
    width = vectors * lanes
    blocks = _blocks_of(p, dtype)
    tiles = blocks.tile_rows * blocks.tile_cols
    turns = -(-blocks.number // workers)
    even = workers > 1 and blocks.number >= _EVEN * workers * turns
    by_block = even and blocks.number > 1 and _has_room(g, dtype, workers, blocks, panels * width)
    summed = _summed_together(p.channels, panels, 1 if by_block else workers)
    input_tasks = -(-p.channels // _TRANSFORMED)
    shares = Shares(
        vectors, width, panels, _TRANSFORMED, input_tasks, input_tasks + -(-p.filters // lanes), summed,
        -(-p.channels // summed), tiles * width + line, summed * width + line,
    )  # fmt: skip
    offsets = np.arange(TERM_BLOCK) * width
    offsets.flags.writeable = False
    each, shared = work_ns(g) / 4 / max(1, blocks.number), (p, blocks, shares)
    of_inputs, of_taps, products, results = (
        partial(module.kernels, dtype) for module in (winograd, winograd_taps, micro, direct_kernels)
    )
    parts = shares.panels * shares.chunks
    if by_block:
        of_blocks = Launch(_do_block, blocks.number, work_ns(g) / 2, *shared, of_inputs, products, of_taps, offsets)
        added = blocks.number * p.channels * _NINE * panels * width / 4
        return _Setup(p, blocks, shares, True, (of_blocks, Launch(_add_up, parts, added, *shared, results)))
    transform = Launch(_transform, shares.transform_tasks, each, *shared, of_inputs, of_taps)
    sum_up = Launch(_sum_products, parts, each, *shared, products, of_taps, results, offsets)
    return _Setup(p, blocks, shares, False, (transform, sum_up))


def _blocks_of(p: Problem, dtype: DType) -> Blocks:
    """As few as can be, or a few more where an odd number of them would leave one of two workers without."""
    most = blocks_of(p, _MOST_TILES, dtype)
    if most.number in (0, 1) or most.number >= _MANY_BLOCKS:
        return most
    sizes = range(_MOST_TILES, _MOST_TILES // 2, -1)
    return next((cut for cut in (blocks_of(p, size, dtype) for size in sizes) if cut.number % 2 == 0), most)


def _has_room(g: Geometry, dtype: DType, workers: int, blocks: Blocks, filters: int) -> bool:
    """Whether half of the memory has room for all workers' transformed pixels and all blocks' taps."""
    tiles = blocks.tile_rows * blocks.tile_cols
    of_pixels = workers * PRODUCTS * tiles * (g.in_channels + filters)
    of_taps = blocks.number * _NINE * g.in_channels * filters
    room = workspace_limit(g.batch * g.in_channels * g.in_h * g.in_w, dtype) // 2
    return (of_pixels + of_taps) * dtype.itemsize <= room


def _summed_together(channels: int, panels: int, workers: int) -> int:
    """Channels a task, whole register tiles: fewer than would be best alone, where workers would else wait for one."""
    chunks = -(-channels // _SUMMED)
    if workers > 1:
        chunks = max(chunks, min(-(-_TASKS_A_WORKER * workers // max(panels, 1)), channels // _LEAST_SUMMED))
    each = -(-channels // max(chunks, 1))
    tile = isa.here().rows
    return max(1, min(channels, -(-each // tile) * tile))


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    p, blocks, shares, by_block, _ = _set_up(g, workers, dtype)
    lanes, line = isa.lanes(dtype), CACHE_LINE // dtype.itemsize
    rows, crew = shares.panels * shares.chunks if blocks.number > 1 else workers, workers if by_block else 1
    if by_block:
        rows *= blocks.number
    return (
        Space((workers, int(list_entries(p, blocks.tile_rows))), INDICES, "places"),
        Space((workers, F4X3.window * blocks.line_pitch + line), name="lines"),
        Space((workers, STEP * (blocks.tile_cols * STEP + lanes) * lanes + line), name="rows of gradients"),
        Space((crew, PRODUCTS * blocks.product_pitch + line), name="transformed inputs"),
        Space((crew, shares.panels * PRODUCTS * shares.pixels_pitch + line), name="transformed gradients"),
        Space((workers, PRODUCTS * shares.sums_pitch + line), name="sums"),
        Space((rows, shares.summed * _NINE * shares.width + line), name="taps"),
    )


def _run(
    workers: int, g: Geometry, dy: Any, x: Any, dw: Any, places: Any, lines: Any, rows: Any, data: Any, pixels: Any,
    sums: Any, totals: Any,
) -> None:  # fmt: skip
    """Launch the drivers: twice, or twice a block."""
    _, blocks, _, by_block, (first, second) = _set_up(g, workers, dw.dtype)
    if blocks.number == 0:
        dw[...] = 0
        return
    x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
    if by_block:
        done = first.on(x, dy, places, lines, rows, data, pixels, sums, totals)
        run_in_turn(workers, done, second.on(totals, dw))
        return
    places[:, 0] = -1  # no worker has any block's list
    for block in range(blocks.number):
        transformed = first.on(block, x, dy, places, lines, rows, data, pixels)
        run_in_turn(workers, transformed, second.on(block, data, pixels, sums, totals, dw))


def _explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    p, blocks, shares, by_block, _ = _set_up(g, workers, dtype)
    tasks = blocks.number * (1 if by_block else shares.panels * shares.chunks)
    how = f"{blocks.number} blocks of {blocks.tile_rows}x{blocks.tile_cols} tiles; tasks: {tasks}"
    useful = PRODUCTS * p.channels * p.filters * g.batch * p.out_h * p.out_w / STEP**2 / MULTIPLICATIONS_A_CYCLE
    return Explained(how, useful / max(_expected_cycles(g), 1))


# --- whether it pays --------------------------------------------------------------------------------------------------

# Cycles as those of `winograd_cut`: the gradients of a tile in a vector of channels, and the taps of a channel. What is
# transformed lies beyond the nearest cache until it is multiplied: (1, 64, 56, 56) with 64 filters took 0.36 ms
# for it at 2.5 GHz, (256, 16, 8, 8) with 32 3.0 ms, twice to five times what the same takes in near caches.
_PIXELS_CYCLES, _TAPS_CYCLES, _FAR = 180, 320, 2
# What the weight gradient of register tiles reaches of two multiply-adds a cycle, and what has to be saved.
_DIRECT_SPEED, _SAVED = 0.75, 0.1


def _expected_cycles(g: Geometry) -> float:
    """Of one worker, in float32 with vectors of 16, as all of `winograd_cut`."""
    p = forward_problem(g)
    down, across = grid(p)
    rows, vectors = g.batch * down, -(-p.filters // VECTOR)
    tiles = rows * across
    inputs = rows * cycles_of(p, min(across, TERM_BLOCK)).inputs
    products = PRODUCTS * tiles * p.channels * vectors * VECTOR / MULTIPLICATIONS_A_CYCLE / PRODUCTS_SPEED
    taps = max(tiles / _MOST_TILES, 1) * p.channels * vectors * _TAPS_CYCLES
    return float(_FAR * (inputs + tiles * vectors * _PIXELS_CYCLES) + products + taps)


def _yields(g: Geometry, dtype: DType) -> str | None:
    direct = g.batch * g.in_channels * g.out_channels * _NINE * g.out_h * g.out_w
    if _expected_cycles(g) <= (1 - _SAVED) * direct / MULTIPLICATIONS_A_CYCLE / _DIRECT_SPEED:
        return None
    return TRANSFORMS_TAKE_LONGER


def _declines(g: Geometry, dtype: DType) -> str | None:
    if (g.stride_h, g.stride_w) != (1, 1):
        return f"its weight gradient is for stride 1, not {g.stride_h}x{g.stride_w}"
    if (g.dilation_h, g.dilation_w) != (1, 1):
        return f"its weight gradient is for dilation 1, not {g.dilation_h}x{g.dilation_w}"
    taken = sum(np.prod(space.shape) * (space.dtype or dtype).itemsize for space in _workspace(g, 1, dtype))
    if taken > workspace_limit(g.batch * g.in_channels * g.in_h * g.in_w, dtype):
        return "its transformed pixels would take too much memory"
    return None


OPERATION = Operation(each_call(_run), _workspace, explained=_explained, declines=_declines, yields=_yields)
