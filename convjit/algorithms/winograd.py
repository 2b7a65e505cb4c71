"""Winograd's convolution F(4x4, 3x3): a quarter of the multiplications, for a less accurate and less contained result.

Knows tiles, blocks of them and tasks; does not know how a transform is computed. Forward and input gradient are one
computation: a gradient is a forward with weights transposed and flipped, and `kernel - 1 - pad` for a padding. Relative
to exact results the L2 norm of the error is at most 2e-5 in float32 and 4e-14 in float64; a pixel that is not finite
spoils the tiles that see it. Channels are summed in blocks of `CHANNEL_BLOCK`, each in order: neither threads nor
blocks of tiles nor other images show in a result.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..gemm import winograd
from ..gemm.winograd import ELEMENT, LANES, PRODUCTS, STEP, TAPS, VECTORS, WINDOW
from ..geometry import Geometry
from ..runtime.compile import driver, kernel, uncompiled
from ..runtime.launch import launch
from ..runtime.options import COMPILED
from ..typing import DType
from .algorithm import PACKED_WEIGHT, Algorithm, Operation, Packing, Space, work_ns

# Channels summed in one chain. Weights of a block for two vectors of output channels take 590 KB, part of a second-
# level cache of 1 or 2 MB; those of one product, 16 KB, stay in the first level while tiles pass by.
CHANNEL_BLOCK = 128
# Channels whose inputs a task transforms where inputs are transformed by tasks of their own.
_CHANNELS_TOGETHER = 8
_CACHE_LINE = 64


class Problem(NamedTuple):
    """What is convolved: a forward pass, or with `turned` weights, an input gradient."""

    batch: int
    channels: int
    in_h: int
    in_w: int
    filters: int
    out_h: int
    out_w: int
    pad_top: int  # may be negative
    pad_left: int
    turned: int


class Cut(NamedTuple):
    """How tiles are cut into blocks, and where things lie; sizes in elements.

    A block is `tile_rows` rows of tiles (of all images, one below the other) by `tile_cols`.
    """

    tile_rows: int
    tile_cols: int
    blocks: int
    lasting: int  # 1 where all weights are transformed first, 0 where each task transforms those that it needs
    wave: int  # 0 where a task does a whole block, else how many blocks have their inputs transformed first
    line_pitch: int
    data_pitch: int  # from channel to channel
    product_pitch: int  # from product to product of the data


def _forward_problem(g: Geometry) -> Problem:
    return Problem(
        g.batch, g.in_channels, g.in_h, g.in_w, g.out_channels, g.out_h, g.out_w, g.pad_top, g.pad_left, 0
    )  # fmt: skip


def _backward_problem(g: Geometry) -> Problem:
    return Problem(
        g.batch, g.out_channels, g.out_h, g.out_w, g.in_channels, g.in_h, g.in_w, TAPS - 1 - g.pad_top,
        TAPS - 1 - g.pad_left, 1,
    )  # fmt: skip


@kernel
def _tiles(pixels: Any) -> Any:
    """Tiles that cover so many pixels of an axis."""
    return (pixels + STEP - 1) // STEP


# --- weights --------------------------------------------------------------------------------------------------------


@kernel
def _weights_at(p: Problem, panel: Any, channel: Any, width: Any, line: Any) -> Any:
    """Where the weights of a panel (`width` lanes) and of a block of channels lie among all."""
    blocks = (p.channels + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    behind = PRODUCTS * line * (panel * blocks + channel // CHANNEL_BLOCK)
    return PRODUCTS * width * (panel * p.channels + channel) + behind


@kernel
def _aligned(address: Any) -> Any:
    """The first cache line that begins at an address or behind it: vectors across two lines are slow."""
    return (address + _CACHE_LINE - 1) // _CACHE_LINE * _CACHE_LINE


@kernel
def _panel_vectors(p: Problem, kernels: Any, panel: Any) -> Any:
    """Vectors of output channels of a panel: all panels but the last are full."""
    lanes, most = kernels[LANES], kernels[VECTORS]
    return min(most, (p.filters + lanes - 1) // lanes - panel * most)


@kernel
def _transform_weights(p: Problem, kernels: Any, weight: Any, panel: Any, channel: Any, taps: Any, target: Any) -> None:
    """Transform the weights of a panel and of the block of channels from `channel` on; `taps` is scratch.

    `weight` is flat, that of the forward pass also for a gradient; addresses all.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    vectors, channels = _panel_vectors(p, kernels, panel), min(CHANNEL_BLOCK, p.channels - channel)
    nine, pitch = TAPS * TAPS, vectors * lanes
    product_pitch = channels * pitch + _CACHE_LINE // size
    for j in range(vectors):
        o = (panel * kernels[VECTORS] + j) * lanes
        if p.turned == 0:
            source = weight + (o * p.channels + channel) * nine * size
            winograd.turn(kernels, source, p.channels * nine, p.filters - o, channels * nine, taps)
            first, step = taps, lanes
        else:
            for c in range(channels):
                source = weight + ((channel + c) * p.filters + o) * nine * size
                winograd.turn(kernels, source, nine, p.filters - o, nine, taps + c * nine * lanes * size)
            first, step = taps + (nine - 1) * lanes * size, -lanes
        winograd.weights(kernels, first, step, channels, target + j * lanes * size, product_pitch, pitch)


@driver
def _all_weights(task: Any, worker: Any, p: Problem, kernels: Any, weight: Any, taps: Any, transformed: Any) -> None:
    """Transform the weights of a panel and of a block of channels."""
    blocks = (p.channels + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    panel, channel = task // blocks, task % blocks * CHANNEL_BLOCK
    size = kernels[ELEMENT]
    at = _weights_at(p, panel, channel, kernels[VECTORS] * kernels[LANES], _CACHE_LINE // size)
    target = _aligned(transformed.ctypes.data) + at * size
    _transform_weights(p, kernels, weight.ctypes.data, panel, channel, _aligned(taps[worker].ctypes.data), target)


# --- blocks of tiles ------------------------------------------------------------------------------------------------


@kernel
def _block(p: Problem, cut: Cut, block: Any) -> Any:
    """The rows of tiles of a block, and the tiles of each: first row, behind the last, first tile, behind the last."""
    across = _tiles(p.out_w)
    pieces = (across + cut.tile_cols - 1) // cut.tile_cols
    row, col = block // pieces * cut.tile_rows, block % pieces * cut.tile_cols
    return (
        row, min(row + cut.tile_rows, p.batch * _tiles(p.out_h)), col, min(col + cut.tile_cols, across)
    )  # fmt: skip


@kernel
def _transform_inputs(
    p: Problem, cut: Cut, kernels: Any, block: Any, first: Any, stop: Any, x: Any, lines: Any, data: Any
) -> None:
    """Transform channels `first <= c < stop` of a block's tiles; `lines` is an array of scratch, `data` an address."""
    size, lanes = kernels[ELEMENT], kernels[LANES]
    row_first, row_stop, col_first, col_stop = _block(p, cut, block)
    tiles, down = col_stop - col_first, _tiles(p.out_h)
    lines[:] = 0  # lanes beside a row's tiles are computed, too, and denormals are slow
    mixed = _aligned(lines.ctypes.data)
    vectors = (STEP * tiles + WINDOW - STEP + lanes - 1) // lanes
    for c in range(first, stop):
        target = data + c * cut.data_pitch * size
        for row in range(row_first, row_stop):
            n, top, left = row // down, row % down * STEP - p.pad_top, col_first * STEP - p.pad_left
            image = x + (((n * p.channels + c) * p.in_h + top) * p.in_w + left) * size
            winograd.mix_rows(kernels, image, p.in_w, -top, p.in_h - top, left, p.in_w, mixed, cut.line_pitch, vectors)
            winograd.spread(kernels, mixed, cut.line_pitch, target, cut.product_pitch, tiles)
            target += tiles * size


@kernel
def _results_of_panel(
    p: Problem, cut: Cut, kernels: Any, block: Any, panel: Any, data: Any, weight: Any, bias: Any, y: Any, taps: Any,
    transformed: Any, sums: Any,
) -> None:  # fmt: skip
    """Multiply a block's data with the weights of a panel, and transform the sums into results. Addresses all.

    `transformed` are all weights, or scratch for those of a panel and a block of channels. `bias` may be 0.
    """
    size, lanes, most = kernels[ELEMENT], kernels[LANES], kernels[VECTORS]
    row_first, row_stop, col_first, col_stop = _block(p, cut, block)
    across, down = col_stop - col_first, _tiles(p.out_h)
    tiles, line = across * (row_stop - row_first), _CACHE_LINE // size
    vectors = _panel_vectors(p, kernels, panel)
    tile_pitch = vectors * PRODUCTS * lanes
    for channel in range(0, p.channels, CHANNEL_BLOCK):
        channels = min(CHANNEL_BLOCK, p.channels - channel)
        of_panel = transformed
        if cut.lasting == 1:
            of_panel += _weights_at(p, panel, channel, most * lanes, line) * size
        else:
            _transform_weights(p, kernels, weight, panel, channel, taps, of_panel)
        for k in range(PRODUCTS):
            winograd.multiply(
                kernels, vectors, data + (k * cut.product_pitch + channel * cut.data_pitch) * size, cut.data_pitch,
                tiles, of_panel + k * (channels * vectors * lanes + line) * size, channels, sums + k * lanes * size,
                tile_pitch, channel,
            )  # fmt: skip
    for j in range(vectors):
        o = (panel * most + j) * lanes
        shift = bias + o * size if bias != 0 else 0
        source = sums + j * PRODUCTS * lanes * size
        for row in range(row_first, row_stop):
            n, top, left = row // down, row % down * STEP, col_first * STEP
            target = y + (((n * p.filters + o) * p.out_h + top) * p.out_w + left) * size
            winograd.results(
                kernels, source, tile_pitch, across, shift, target, p.out_h * p.out_w, p.out_w, p.out_h - top,
                min(p.out_w - left, across * STEP), p.filters - o,
            )  # fmt: skip
            source += across * tile_pitch * size


@kernel
def _panels(p: Problem, kernels: Any) -> Any:
    """Panels that cover all output channels."""
    width = kernels[LANES] * kernels[VECTORS]
    return (p.filters + width - 1) // width


@kernel
def _of_worker(lasting: Any, transformed: Any, worker: Any) -> Any:
    """The address of all transformed weights, or of the worker's."""
    if lasting == 1:
        return _aligned(transformed[0].ctypes.data)
    return _aligned(transformed[worker].ctypes.data)


@driver
def _whole_block(
    task: Any, worker: Any, p: Problem, cut: Cut, kernels: Any, x: Any, weight: Any, bias: Any, y: Any, lines: Any,
    taps: Any, transformed: Any, data: Any, sums: Any,
) -> None:  # fmt: skip
    """All results of a block of tiles."""
    own = _aligned(data[worker].ctypes.data)
    _transform_inputs(p, cut, kernels, task, 0, p.channels, x.ctypes.data, lines[worker], own)
    shift = bias.ctypes.data if bias.size > 0 else 0
    for panel in range(_panels(p, kernels)):
        _results_of_panel(
            p, cut, kernels, task, panel, own, weight.ctypes.data, shift, y.ctypes.data,
            _aligned(taps[worker].ctypes.data), _of_worker(cut.lasting, transformed, worker),
            _aligned(sums[worker].ctypes.data),
        )  # fmt: skip


@driver
def _some_inputs(
    task: Any, worker: Any, p: Problem, cut: Cut, first_block: Any, kernels: Any, x: Any, lines: Any, data: Any
) -> None:
    """Transform some channels of a block of tiles."""
    shares = (p.channels + _CHANNELS_TOGETHER - 1) // _CHANNELS_TOGETHER
    place, first = task // shares, task % shares * _CHANNELS_TOGETHER
    _transform_inputs(
        p, cut, kernels, first_block + place, first, min(first + _CHANNELS_TOGETHER, p.channels), x.ctypes.data,
        lines[worker], _aligned(data[place].ctypes.data),
    )  # fmt: skip


@driver
def _some_results(
    task: Any, worker: Any, p: Problem, cut: Cut, first_block: Any, kernels: Any, weight: Any, bias: Any, y: Any,
    taps: Any, transformed: Any, data: Any, sums: Any,
) -> None:  # fmt: skip
    """The results of a panel of output channels in a block of tiles."""
    panels = _panels(p, kernels)
    place, panel = task // panels, task % panels
    _results_of_panel(
        p, cut, kernels, first_block + place, panel, _aligned(data[place].ctypes.data), weight.ctypes.data,
        bias.ctypes.data if bias.size > 0 else 0, y.ctypes.data, _aligned(taps[worker].ctypes.data),
        _of_worker(cut.lasting, transformed, worker), _aligned(sums[worker].ctypes.data),
    )  # fmt: skip


# --- the row --------------------------------------------------------------------------------------------------------

# Tiles of a block: transforming weights anew for each block costs a tenth of its products at 64 tiles, and sizes from
# 32 to 112 differ by less than that.
_MOST_TILES, _FEWEST_TILES = 64, 8
# Transformed inputs of a block.
_DATA_BYTES = 1 << 23
# Weights that are worth reading from a cache behind the second level, where they were transformed before: (1, 128, 56,
# 56) with 128 filters took 2.0 ms with them, 2.3 ms without; with 256 channels and filters it is the other way round.
_LASTING_BYTES = 5 << 19
# A task takes 20 ms at most: at 25 multiplications a nanosecond, what float64 reaches.
_TASK_MULTIPLICATIONS = 1 << 28
# Transformed inputs of blocks that are transformed before they are multiplied.
_WAVE_BYTES = 1 << 24


@lru_cache(maxsize=256)
def _cut(p: Problem, workers: int, dtype: DType) -> Cut:
    kernels = winograd.kernels(dtype)
    size, lanes = int(kernels[ELEMENT]), int(kernels[LANES])
    line = _CACHE_LINE // size
    across, down = -(-p.out_w // STEP), p.batch * -(-p.out_h // STEP)
    a_tile = PRODUCTS * p.channels * size
    most = min(_MOST_TILES, max(_FEWEST_TILES, _DATA_BYTES // a_tile))
    pieces = -(-across // most)
    cols = -(-across // pieces)
    row_blocks = -(-down // max(1, most // cols))
    rows = -(-down // row_blocks)
    blocks = pieces * -(-down // rows)
    long = PRODUCTS * rows * cols * p.channels * p.filters > _TASK_MULTIPLICATIONS
    uneven = workers > 1 and blocks < 4 * workers and blocks % workers != 0
    data_pitch = (-(-rows * cols // line) | 1) * line  # an odd number of lines, which fall into all sets of a cache
    product_pitch = p.channels * data_pitch + line
    lasting = blocks > 1 and PRODUCTS * p.channels * p.filters * size <= _LASTING_BYTES
    wave = min(blocks, max(1, _WAVE_BYTES // (PRODUCTS * product_pitch * size))) if long or uneven else 0
    line_pitch = (-(-cols // lanes) * STEP + 1) * lanes + line
    return Cut(rows, cols, blocks, int(lasting), wave, line_pitch, data_pitch, product_pitch)


def _transformed_elements(p: Problem, dtype: DType) -> int:
    """Elements of all transformed weights, with room for their beginning to be aligned."""
    kernels = winograd.kernels(dtype)
    line, width = _CACHE_LINE // int(kernels[ELEMENT]), int(kernels[VECTORS]) * int(kernels[LANES])
    panels = int(uncompiled(_panels)(p, kernels))
    return panels * PRODUCTS * (p.channels * width + line * -(-p.channels // CHANNEL_BLOCK)) + line


def _taps_space(p: Problem, workers: int, dtype: DType) -> Space:
    kernels = winograd.kernels(dtype)
    lanes, line = int(kernels[LANES]), _CACHE_LINE // int(kernels[ELEMENT])
    return Space((workers, (min(CHANNEL_BLOCK, p.channels) * TAPS * TAPS + lanes) * lanes + line), name="taps")


def _spaces(p: Problem, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Taps, transformed weights, lines, data and sums; each part has room for its beginning to be aligned."""
    kernels = winograd.kernels(dtype)
    line, width = _CACHE_LINE // int(kernels[ELEMENT]), int(kernels[VECTORS]) * int(kernels[LANES])
    transformed = (workers, PRODUCTS * (min(CHANNEL_BLOCK, p.channels) * width + line) + line)
    if _cut(p, workers, dtype).lasting:
        transformed = (1, _transformed_elements(p, dtype))
    taps = _taps_space(p, workers, dtype)
    return taps, Space(transformed, name=PACKED_WEIGHT), *_spaces_of_inputs(p, workers, dtype)


def _spaces_of_inputs(p: Problem, workers: int, dtype: DType) -> tuple[Space, ...]:
    cut, kernels = _cut(p, workers, dtype), winograd.kernels(dtype)
    lanes, line = int(kernels[LANES]), _CACHE_LINE // int(kernels[ELEMENT])
    tiles, width = cut.tile_rows * cut.tile_cols, int(kernels[VECTORS]) * lanes
    return (
        Space((workers, WINDOW * cut.line_pitch + line), name="lines"),
        Space((cut.wave or workers, PRODUCTS * cut.product_pitch + line), name="transformed inputs"),
        Space((workers, (tiles + lanes // STEP) * width * PRODUCTS + line), name="sums"),
    )


def _transform_all(workers: int, p: Problem, weight: Any, taps: Any, transformed: Any) -> None:
    kernels = winograd.kernels(transformed.dtype)
    tasks = int(uncompiled(_panels)(p, kernels)) * -(-p.channels // CHANNEL_BLOCK)
    launch(_all_weights, workers, tasks, weight.size, p, kernels, weight.reshape(-1), taps, transformed)


def _run(
    workers: int, p: Problem, nanoseconds: float, x: Any, weight: Any, bias: Any, y: Any, taps: Any, transformed: Any,
    *spaces: Any,
) -> None:  # fmt: skip
    cut = _cut(p, workers, y.dtype)
    if cut.lasting:
        _transform_all(workers, p, weight, taps, transformed)
    _multiply(workers, p, cut, nanoseconds, x, weight, bias, y, taps, transformed, *spaces)


def _multiply(
    workers: int, p: Problem, cut: Cut, nanoseconds: float, x: Any, weight: Any, bias: Any, y: Any, taps: Any,
    transformed: Any, lines: Any, data: Any, sums: Any,
) -> None:  # fmt: skip
    """Everything but the weights, where these are lasting."""
    kernels = winograd.kernels(y.dtype)
    x, weight, y = x.reshape(-1), weight.reshape(-1), y.reshape(-1)
    # Written through addresses only. A plan's are read-only: kernels then have one signature for both.
    transformed = transformed.view()
    transformed.flags.writeable = False
    if cut.wave == 0:
        launch(
            _whole_block, workers, cut.blocks, nanoseconds, p, cut, kernels, x, weight, bias, y, lines, taps,
            transformed, data, sums,
        )  # fmt: skip
        return
    panels, shares = int(uncompiled(_panels)(p, kernels)), -(-p.channels // _CHANNELS_TOGETHER)
    for first in range(0, cut.blocks, cut.wave):
        here = min(cut.wave, cut.blocks - first)
        share = nanoseconds * here / cut.blocks
        launch(_some_inputs, workers, here * shares, share / 4, p, cut, first, kernels, x, lines, data)
        launch(
            _some_results, workers, here * panels, share, p, cut, first, kernels, weight, bias, y, taps, transformed,
            data, sums,
        )  # fmt: skip


# --- weights transformed once, for a plan -----------------------------------------------------------------------------


def _pack(workers: int, g: Geometry, weight: Any, packed: Any) -> None:
    p = _forward_problem(g)
    _transform_all(workers, p, weight, np.empty(_taps_space(p, workers, packed.dtype).shape, packed.dtype), packed)


def _run_packed(workers: int, g: Geometry, x: Any, packed: Any, bias: Any, y: Any, *spaces: Any) -> None:
    p = _forward_problem(g)
    cut, taps = _cut(p, workers, y.dtype)._replace(lasting=1), np.empty((workers, 0), y.dtype)
    _multiply(workers, p, cut, work_ns(g) / 2, x, packed, bias, y, taps, packed, *spaces)


PACKING = Packing(
    lambda g, dtype: Space((1, _transformed_elements(_forward_problem(g), dtype)), name=PACKED_WEIGHT),
    _pack,
    _run_packed,
    lambda g, workers, dtype: _spaces_of_inputs(_forward_problem(g), workers, dtype),
)


# --- the row ----------------------------------------------------------------------------------------------------------


def _run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, *spaces: Any) -> None:
    _run(workers, _forward_problem(g), work_ns(g) / 2, x, weight, bias, y, *spaces)


def _forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _spaces(_forward_problem(g), workers, dtype)


def _run_input_grad(workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, *spaces: Any) -> None:
    _run(workers, _backward_problem(g), work_ns(g) / 2, dy, weight, np.empty(0, dx.dtype), dx, *spaces)


def _input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _spaces(_backward_problem(g), workers, dtype)


def _declines(g: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return "kernels are not compiled (NUMBA_DISABLE_JIT=1)"
    if dtype.kind != "f":
        return f"its matrices have fractions, which {dtype} has not"
    if (g.kernel_h, g.kernel_w) != (TAPS, TAPS):
        return f"it is for 3x3 kernels, not {g.kernel_h}x{g.kernel_w}"
    if (g.stride_h, g.stride_w, g.dilation_h, g.dilation_w) != (1, 1, 1, 1):
        return "it is for stride 1 and dilation 1"
    if g.groups != 1:
        return f"it is for one group, not {g.groups}"
    if max(g.in_channels, g.out_channels) > _MOST_CHANNELS:
        return f"it is for at most {_MOST_CHANNELS} channels"
    if not _pays(g):
        return "transforms would take longer than the multiplications that they save"
    return None


# Past it, a task on a block of the fewest tiles would be long, and its transformed inputs large.
_MOST_CHANNELS = 8192
# What the transforms cost, in multiplications: of the inputs or the results of a tile in a channel, and of the weights
# of a filter in a channel. Fitted to images of 8 to 512 channels and 7x7 to 64x64 pixels: at 8x8 a single image is a
# tie, a batch takes half the time.
_TILE_COST, _WEIGHT_COST = 350, 300
# Lanes of output channels, whether they count or not: those of the widest vectors, so that every machine decides alike.
_FILTERS_TOGETHER = 16


def _pays(g: Geometry) -> bool:
    """Whether one image takes fewer multiplications, transforms included, than the direct method.

    That of a batch never matters: its images would get other bits than each alone.
    """
    tiles = -(-g.out_h // STEP) * -(-g.out_w // STEP)
    filters = -(-g.out_channels // _FILTERS_TOGETHER) * _FILTERS_TOGETHER
    transforms = _TILE_COST * tiles * (g.in_channels + filters) + _WEIGHT_COST * g.in_channels * filters
    return PRODUCTS * tiles * g.in_channels * filters + transforms <= g._replace(batch=1).multiplications


ALGORITHM = Algorithm(
    "winograd",
    _declines,
    Operation(_run_forward, _forward_workspace, PACKING),
    Operation(_run_input_grad, _input_grad_workspace),
    None,
    keeps_promises=False,
)
