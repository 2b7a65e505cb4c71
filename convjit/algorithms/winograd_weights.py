"""Winograd's weights: where they lie once they are transformed, and their transform, for a call or for a plan.

They lie by panels (of output channels) and blocks of channels: `[panel][block][p][c][lane]`. Each sink has panels of
its own, each source blocks of its own.
Knows panels, blocks of channels and workers; does not know tiles or images.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..gemm import winograd
from ..gemm.winograd import ELEMENT, LANES, PRODUCTS, VECTORS, WINDOW
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, Run
from ..runtime.memory import CACHE_LINE
from ..typing import DType
from .algorithm import PACKED_WEIGHT, Space
from .winograd_tiles import TAPS, Problem, sinks, sources

# Channels summed in one chain. Weights of a block for two vectors of output channels take 590 KB, part of a second-
# level cache of 1 or 2 MB; those of one product, 16 KB, stay in the first level while tiles pass by.
CHANNEL_BLOCK = 128
_NINE = TAPS * TAPS


@kernel
def aligned(address: Any) -> Any:
    """The first cache line that begins at an address or behind it: vectors across two lines are slow."""
    return (address + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE


@kernel
def line_of(kernels: Any) -> Any:
    """Elements of a cache line."""
    return CACHE_LINE // kernels[ELEMENT]


@kernel
def channel_blocks(p: Problem) -> Any:
    """Blocks that cover all channels of all sources."""
    return sources(p) * _blocks_of_source(p)


@kernel
def _blocks_of_source(p: Problem) -> Any:
    return (p.channels + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK


@kernel
def channels_of(p: Problem, block: Any) -> Any:
    """A block's source, the first of its channels, and how many they are."""
    each = _blocks_of_source(p)
    first = block % each * CHANNEL_BLOCK
    return block // each, first, min(CHANNEL_BLOCK, p.channels - first)


@kernel
def panels(p: Problem, kernels: Any) -> Any:
    """Panels that cover all output channels of all sinks."""
    return sinks(p) * _panels_of_sink(p, kernels)


@kernel
def _panels_of_sink(p: Problem, kernels: Any) -> Any:
    width = kernels[LANES] * kernels[VECTORS]
    return (p.filters + width - 1) // width


@kernel
def filters_of(p: Problem, kernels: Any, panel: Any) -> Any:
    """A panel's sink, the first of its output channels, and how many vectors they are: all but the last are full."""
    each, lanes, most = _panels_of_sink(p, kernels), kernels[LANES], kernels[VECTORS]
    before = panel % each * most
    return panel // each, before * lanes, min(most, (p.filters + lanes - 1) // lanes - before)


@kernel
def weights_at(p: Problem, kernels: Any, panel: Any, block: Any) -> Any:
    """Where the weights of a panel and of a block of channels lie among all."""
    source, channel, _ = channels_of(p, block)
    before, width = (panel * sources(p) + source) * p.channels + channel, kernels[LANES] * kernels[VECTORS]
    lines = panel * channel_blocks(p) + block
    return kernels[PRODUCTS] * (before * width + lines * line_of(kernels))


@kernel
def has_product(p: Problem, kernels: Any, panel: Any, block: Any, product: Any) -> Any:
    """Whether a product is one of the phase of a sink or source: those of the point at infinity have the last tap."""
    window = kernels[WINDOW]
    row, col = _phase(p, filters_of(p, kernels, panel)[0], channels_of(p, block)[0])
    return (row == 0 or product // window < window - 1) and (col == 0 or product % window < window - 1)


@kernel
def _phase(p: Problem, sink: Any, source: Any) -> Any:
    """The phase of the kernel, down and across, that a sink or a source stands for; the other of them is 0."""
    return (sink + source) // p.stride, (sink + source) % p.stride


@kernel
def transform_weights(p: Problem, kernels: Any, weight: Any, panel: Any, block: Any, taps: Any, target: Any) -> None:
    """Transform the weights of a panel and of a block of channels; `taps` is scratch.

    `weight` is flat, that of the forward pass also for a gradient; addresses all.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    sink, filters, vectors = filters_of(p, kernels, panel)
    source, channel, channels = channels_of(p, block)
    pitch = vectors * lanes
    product_pitch = channels * pitch + line_of(kernels)
    row, col = _phase(p, sink, source)
    # Taps 0, 1 and 2 from either end; with stride 2 taps 0 and 2, or tap 1.
    step = -p.stride if p.turned == 1 else p.stride
    end = TAPS - 1 if p.turned == 1 else 0
    first_row, first_col = end if row == 0 else 1, end if col == 0 else 1
    rows, cols = (TAPS - row + p.stride - 1) // p.stride, (TAPS - col + p.stride - 1) // p.stride
    first = taps + (TAPS * first_row + first_col) * lanes * size
    for j in range(vectors):
        o = filters + j * lanes
        if p.turned == 0:
            start = weight + (o * p.channels + channel) * _NINE * size
            winograd.turn(kernels, start, p.channels * _NINE, p.filters - o, channels * _NINE, taps)
        else:
            for c in range(channels):
                start = weight + ((channel + c) * p.filters + o) * _NINE * size
                winograd.turn(kernels, start, _NINE, p.filters - o, _NINE, taps + c * _NINE * lanes * size)
        winograd.weights(
            kernels, first, TAPS * step * lanes, step * lanes, rows, cols, _NINE * lanes, channels,
            target + j * lanes * size, product_pitch, pitch,
        )  # fmt: skip


@driver
def _all_weights(task: Any, worker: Any, p: Problem, kernels: Any, weight: Any, taps: Any, transformed: Any) -> None:
    """Transform the weights of a panel and a block of channels."""
    blocks = channel_blocks(p)
    panel, block = task // blocks, task % blocks
    target = aligned(transformed.ctypes.data) + weights_at(p, kernels, panel, block) * kernels[ELEMENT]
    transform_weights(p, kernels, weight.ctypes.data, panel, block, aligned(taps[worker].ctypes.data), target)


@lru_cache(maxsize=256)
def _launch(p: Problem, dtype: DType) -> Launch:
    kernels = winograd.kernels(dtype, p.stride)
    tasks = int(panels(p, kernels)) * int(channel_blocks(p))
    return Launch(_all_weights, tasks, p.stride**2 * p.channels * p.filters * _NINE, p, kernels)


def all_transformed(p: Problem, weight: Any, taps: Any, transformed: Any) -> Run:
    """The transform of all weights."""
    return _launch(p, transformed.dtype).on(weight.reshape(-1), taps, transformed)


def taps_space(p: Problem, workers: int, dtype: DType) -> Space:
    """Scratch of `transform_weights`, with room for its beginning to be aligned."""
    lanes = winograd.numbers(dtype, p.stride)[LANES]
    line = CACHE_LINE // dtype.itemsize
    return Space((workers, (min(CHANNEL_BLOCK, p.channels) * _NINE + lanes) * lanes + line), name="taps")


def lasting_space(p: Problem, dtype: DType) -> Space:
    """All transformed weights, with room for their beginning to be aligned."""
    kernels = winograd.numbers(dtype, p.stride)
    width, line = int(kernels[VECTORS] * kernels[LANES]), CACHE_LINE // dtype.itemsize
    of_panel = int(sources(p)) * p.channels * width + line * int(channel_blocks(p))
    elements = int(panels(p, kernels) * kernels[PRODUCTS]) * of_panel
    return Space((1, elements + line), name=PACKED_WEIGHT)


def passing_space(p: Problem, workers: int, dtype: DType) -> Space:
    """Transformed weights of a panel and a block of channels, for each worker."""
    kernels, line = winograd.numbers(dtype, p.stride), CACHE_LINE // dtype.itemsize
    width, products = int(kernels[VECTORS] * kernels[LANES]), int(kernels[PRODUCTS])
    return Space((workers, products * (min(CHANNEL_BLOCK, p.channels) * width + line) + line), name=PACKED_WEIGHT)


def lasting_bytes(p: Problem, dtype: DType) -> int:
    """Bytes of all transformed weights."""
    return int(np.prod(lasting_space(p, dtype).shape)) * dtype.itemsize
