"""How Winograd's work is cut into blocks and tasks, what that is expected to take, and whether it pays.

Knows what transforms and products take, in cycles, and workspaces; does not know how they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..gemm import winograd
from ..gemm.tasks import TASK_MULTIPLICATIONS
from ..gemm.winograd import LANES, PRODUCTS, STEP, VECTORS, WINDOW
from ..runtime.memory import CACHE_LINE
from ..typing import DType
from .algorithm import INDICES, Explained, Space
from .winograd_blocks import list_entries, sums_elements
from .winograd_tiles import (
    Blocks,
    Problem,
    grid,
    in_stride,
    out_stride,
    phases,
    sinks,
    sources,
)
from .winograd_weights import CHANNEL_BLOCK, lasting_bytes, lasting_space, panels, passing_space, taps_space

# --- cycles -----------------------------------------------------------------------------------------------------------

# Of a core that starts two multiply-adds a cycle, in vectors of 16 float32, measured with AVX-512 at 3 GHz on maps of 7
# to 112 pixels. A row of tiles in a channel: two calls, its tiles by the vector, its pixels by the vector; pixels that
# lie apart are gathered one by one.
_ROW_CYCLES, _TILES_CYCLES, _PIXELS_CYCLES, _SECOND_CYCLES, _GATHERED_CYCLES = 60, 60, 8, 30, 100
# The results of a tile in a vector of output channels, and those that lie apart.
_RESULTS_CYCLES, _SECOND_RESULTS_CYCLES, _SCATTERED_CYCLES = 180, 220, 320
# Bytes a cycle: of pixels, which are read and written once for each phase that a cache line has, and of transformed
# inputs that the second-level cache does not hold, and how many of these, or of weights, it holds.
_MOVED_BYTES, _DATA_BYTES_A_CYCLE, _HELD_BYTES = 8, 20, 1 << 20
# The weights of a channel for a vector of output channels.
_WEIGHTS_CYCLES = 280
# Beginning and ending a register tile, in channels.
_TILE_CHANNELS = 6
# What register tiles reach of two multiply-adds a cycle.
PRODUCTS_SPEED = 0.93
# Bytes of weights a cycle, from behind the second-level cache: (1, 256, 14, 14) with 256 filters in blocks of half the
# tiles reads 9.4 MB once more, which takes 0.24 ms.
_WEIGHTS_BYTES = 12
# Waking a worker that sleeps.
_START_CYCLES = 200_000
MULTIPLICATIONS_A_CYCLE = 32
TRANSFORMS_TAKE_LONGER = "transforms would take longer than the multiplications that they save"
VECTOR = 16
_FLOAT32 = np.dtype("float32")


class Cycles(NamedTuple):
    """What a part of the work takes, for one worker."""

    inputs: float  # of a row of tiles
    results: float  # of a tile
    weights: float
    products: float  # of a tile


def cycles_of(p: Problem, tile_cols: int) -> Cycles:
    """Of rows of so many tiles."""
    channels, vectors = p.channels, -(-p.filters // VECTOR)
    window = winograd.numbers(_FLOAT32, p.stride)[WINDOW]
    pixels = -(-(STEP * tile_cols + window - STEP) // VECTOR)
    of_pixels = (_PIXELS_CYCLES, _SECOND_CYCLES, _GATHERED_CYCLES)[min(p.dilation_w, 3) - 1]
    step = p.dilation_w * int(out_stride(p))
    of_results = (_RESULTS_CYCLES, _SECOND_RESULTS_CYCLES, _SCATTERED_CYCLES)[min(step, 3) - 1]
    summed = channels + _TILE_CHANNELS * -(-channels // CHANNEL_BLOCK)
    phases = p.stride**2
    return Cycles(
        int(sources(p)) * channels * (_ROW_CYCLES + _TILES_CYCLES * -(-tile_cols // VECTOR) + of_pixels * pixels),
        int(sinks(p)) * vectors * of_results,
        phases * vectors * channels * _WEIGHTS_CYCLES,
        products_of(p) * summed * vectors * VECTOR / MULTIPLICATIONS_A_CYCLE / PRODUCTS_SPEED,
    )


def products_of(p: Problem) -> int:
    """Products of a tile, of all phases: along an axis, all but the first have one less."""
    window = winograd.numbers(_FLOAT32, p.stride)[WINDOW]
    return int((p.stride * window - (p.stride - 1)) ** 2)


def image_cycles(p: Problem, of_weights: float = 1.0) -> float:
    """Cycles of an image on one worker, with so much of what transforming the weights takes; of stride 1."""
    down, across = grid(p)
    high, wide = phases(p)
    rows, tiles = high * wide * down, high * wide * down * across
    found = cycles_of(p, min(across, _MOST_TILES))
    visits = min(wide, CACHE_LINE // _FLOAT32.itemsize)
    pixels = p.channels * p.in_h * p.in_w + p.filters * p.out_h * p.out_w
    moved = visits * pixels * _FLOAT32.itemsize / _MOVED_BYTES
    data = min(tiles, _MOST_TILES) * _data_elements(p) * _FLOAT32.itemsize
    if data > _HELD_BYTES:  # read anew for each panel of two vectors
        moved += -(-p.filters // (2 * VECTOR)) * -(-tiles // _MOST_TILES) * data / _DATA_BYTES_A_CYCLE
    return rows * found.inputs + tiles * (found.results + found.products) + of_weights * found.weights + moved


def _data_elements(p: Problem) -> int:
    """Transformed inputs of a tile."""
    return int(winograd.numbers(_FLOAT32, p.stride)[PRODUCTS] * sources(p)) * p.channels


# --- the cut ----------------------------------------------------------------------------------------------------------

# Tiles of a block: transforming weights anew for each block costs a tenth of its products at 64 tiles, and sizes from
# 28 to 112 differ by less than that. Fewer than the rows of a register tile, 14, leave multiply-adds idle.
_MOST_TILES, _FEWEST_TILES = 64, 8
_TILES = (64, 48, 32, 28, 21, 14)
# Transformed inputs of a block, and those of all workers' together.
_DATA_BYTES, _ALL_DATA_BYTES = 1 << 23, 1 << 24
# Weights that are worth reading from a cache behind the second level, where they were transformed before: (1, 128, 56,
# 56) with 128 filters took 2.0 ms with them, 2.3 ms without; with 256 channels and filters it is the other way round.
_LASTING_BYTES = 5 << 19


class Cut(NamedTuple):
    """Blocks of tiles; tasks of a block, by shares of the panels; whether all weights are transformed first."""

    blocks: Blocks
    shares: int
    together: int  # panels that are multiplied while a product's inputs are in the first-level cache
    lasting: int


@lru_cache(maxsize=256)
def cut_of(p: Problem, workers: int, dtype: DType, packed: bool = False) -> Cut:
    """The cut that is expected to be done first; with `packed` weights, of a plan."""
    candidates = _candidates(p, workers, dtype, packed)
    return min(candidates, key=lambda cut: _expected_cycles(p, cut, workers, packed))


def _candidates(p: Problem, workers: int, dtype: DType, packed: bool) -> Iterator[Cut]:
    count = int(panels(p, winograd.numbers(dtype, p.stride)))
    data = min(_DATA_BYTES, _ALL_DATA_BYTES // workers)
    most = min(_MOST_TILES, max(_FEWEST_TILES, data // max(1, _data_elements(p) * dtype.itemsize)))
    for tiles in sorted({most, *(size for size in _TILES if _FEWEST_TILES <= size <= most)}):
        blocks = blocks_of(p, tiles, dtype)
        work = products_of(p) * blocks.tile_rows * blocks.tile_cols * p.channels * p.filters
        fewest = min(count, max(1, -(-work // TASK_MULTIPLICATIONS)))
        more = () if workers == 1 else (2, 4, 8, 16, count)
        lasting = packed or (blocks.number > 1 and lasting_bytes(p, dtype) <= _LASTING_BYTES)
        for shares in sorted({fewest, *(n for n in more if fewest < n <= count)}):
            together = _together(p, blocks, -(-count // shares), workers, dtype) if lasting else 1
            yield Cut(blocks, shares, together, int(lasting))


# What is read again for each group of panels that are multiplied together are the transformed inputs. Where these stay
# in the second-level cache while the weights of a panel pass by, one panel at a time leaves its sums near, too. In a
# plan on one thread, all panels together took 6.0 ms and one at a time 8.1 ms for 512 channels of 28x28 with 512
# filters, 1.8 and 2.8 ms for 7x7, 0.89 and 1.03 ms for 256 of 14x14 with 256, but 0.50 and 0.46 ms for 64 of 56x56
# with 64.
_NEAR_BYTES, _SUMS_BYTES = 3 << 19, 1 << 22


def _together(p: Problem, blocks: Blocks, panels_of_share: int, workers: int, dtype: DType) -> int:
    tiles = blocks.tile_rows * blocks.tile_cols
    # Of a panel, sums of a tile, or weights of a channel.
    each = int(np.prod([winograd.numbers(dtype, p.stride)[i] for i in (LANES, VECTORS, PRODUCTS)])) * dtype.itemsize
    data = tiles * _data_elements(p) * dtype.itemsize
    if data + int(sources(p)) * p.channels * each <= _NEAR_BYTES:
        return 1
    room = min(_SUMS_BYTES, 2 * _SUMS_BYTES // workers) // max(1, tiles * each)
    return min(panels_of_share, max(1, room))


def blocks_of(p: Problem, tiles: int, dtype: DType) -> Blocks:
    """Blocks of so many tiles at most, of nearly equal size."""
    lanes, line = winograd.numbers(dtype, p.stride)[LANES], CACHE_LINE // dtype.itemsize
    high, wide = phases(p)
    down, across = grid(p)
    down *= p.batch * high * wide
    pieces = -(-across // tiles)
    cols = -(-across // pieces)
    rows = -(-down // max(1, -(-down // max(1, tiles // cols))))
    written = (rows - 1) * cols + -(-cols // lanes) * lanes  # by whole vectors
    data_pitch = (-(-written // line) | 1) * line  # an odd number of lines, which fall into all sets of a cache
    line_pitch = (-(-cols // lanes) * STEP * int(in_stride(p)) + 1) * lanes + line
    product_pitch = int(sources(p)) * p.channels * data_pitch + line
    return Blocks(rows, cols, pieces * -(-down // max(1, rows)), line_pitch, data_pitch, product_pitch)


def _expected_cycles(p: Problem, cut: Cut, workers: int, packed: bool) -> float:
    """When the last task is done, and a little for tasks that are long: a core may be taken by somebody else."""
    blocks, found = cut.blocks, cycles_of(p, cut.blocks.tile_cols)
    inputs = blocks.tile_rows * found.inputs
    of_block = blocks.tile_rows * blocks.tile_cols * (found.products + found.results)
    first = 0.0
    if not cut.lasting:
        of_block += found.weights
    elif (passing := lasting_bytes(p, _FLOAT32)) > _HELD_BYTES:
        of_block += passing / _WEIGHTS_BYTES
    data = blocks.tile_rows * blocks.tile_cols * _data_elements(p) * _FLOAT32.itemsize
    if data > _HELD_BYTES:  # read anew by each task, for all panels that are multiplied together
        panels_of_share = -(-int(panels(p, winograd.numbers(_FLOAT32, p.stride))) // cut.shares)
        of_block += cut.shares * -(-panels_of_share // cut.together) * data / _DATA_BYTES_A_CYCLE
    if cut.lasting and not packed:
        first = found.weights / workers + (_START_CYCLES if workers > 1 else 0)
    repeated = min(cut.shares, workers)  # workers that transform a block's inputs
    task = of_block / cut.shares + inputs * repeated / cut.shares
    return first + _dealt(task, cut.shares * blocks.number, workers) + task * _UNEVEN


# Of a task, what it may be that one worker is behind the others.
_UNEVEN = 0.1


def _dealt(task: float, tasks: int, workers: int) -> float:
    """When so many equal tasks are done that are dealt one by one to workers, of which all but the first are woken."""
    late = _START_CYCLES if workers > 1 else 0
    turns = -(-tasks // workers)  # those of the late workers, or one more
    while turns + (workers - 1) * int((turns * task - late) // task) < tasks:
        if workers * turns + int(late // task) >= tasks:
            return turns * task + late
        turns += 1
    return turns * task


def explained(p: Problem, workers: int, dtype: DType) -> Explained:
    """The cut for people to read: the share is that of its own multiplications, those of tiles that lie inside."""
    cut = cut_of(p, workers, dtype)
    high, wide = phases(p)
    blocks, tasks = cut.blocks, cut.blocks.number * cut.shares
    when = "before all" if cut.lasting else "by each task"
    apart = f" of {high}x{wide} phases" if high * wide > 1 else ""
    if p.stride > 1:
        apart = f" of {p.stride}x{p.stride} phases" + (", which are summed" if int(sinks(p)) == 1 else "")
    how = f"blocks of {blocks.tile_rows}x{blocks.tile_cols} tiles{apart}, weights transformed {when}; tasks: {tasks}"
    tiles = p.batch * p.out_h * p.out_w / STEP**2 / int(sinks(p))
    useful = products_of(p) * p.channels * p.filters * tiles / MULTIPLICATIONS_A_CYCLE
    cycles = workers * _expected_cycles(p, cut, workers, packed=False)
    return Explained(how, useful / cycles if cycles > 0 else 0.0)


# --- workspaces -------------------------------------------------------------------------------------------------------


def spaces(p: Problem, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Taps, transformed weights, and those of `inputs_spaces`."""
    cut = cut_of(p, workers, dtype)
    weights = lasting_space(p, dtype) if cut.lasting else passing_space(p, workers, dtype)
    return taps_space(p, workers, dtype), weights, *inputs_spaces(p, workers, dtype)


def inputs_spaces(p: Problem, workers: int, dtype: DType, packed: bool = False) -> tuple[Space, ...]:
    """Lines, data, sums and lists of places; floats have room for their beginning to be aligned."""
    cut, kernels = cut_of(p, workers, dtype, packed), winograd.numbers(dtype, p.stride)
    blocks, line = cut.blocks, CACHE_LINE // dtype.itemsize
    sums = cut.together * int(sums_elements(kernels, blocks.tile_rows * blocks.tile_cols))
    return (
        Space((workers, int(kernels[WINDOW]) * blocks.line_pitch + line), name="lines"),
        Space((workers, int(kernels[PRODUCTS]) * blocks.product_pitch + line), name="transformed inputs"),
        Space((workers, sums + line), name="sums"),
        Space((workers, int(list_entries(p, blocks.tile_rows))), INDICES, "places"),
    )
