"""Winograd's weights: where they lie once they are transformed, and their transform, for a call or for a plan.

They lie by panels (of output channels) and blocks of channels: `[panel][block][p][c][lane]`.
Knows panels, blocks of channels and workers; does not know tiles or images.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..gemm import winograd
from ..gemm.winograd import ELEMENT, LANES, PRODUCTS, TAPS, VECTORS
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, Run
from ..runtime.memory import CACHE_LINE
from ..typing import DType
from .algorithm import PACKED_WEIGHT, Space
from .winograd_tiles import Problem

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
    """Blocks that cover all channels."""
    return (p.channels + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK


@kernel
def panels(p: Problem, kernels: Any) -> Any:
    """Panels that cover all output channels."""
    width = kernels[LANES] * kernels[VECTORS]
    return (p.filters + width - 1) // width


@kernel
def panel_vectors(p: Problem, kernels: Any, panel: Any) -> Any:
    """Vectors of output channels of a panel: all panels but the last are full."""
    lanes, most = kernels[LANES], kernels[VECTORS]
    return min(most, (p.filters + lanes - 1) // lanes - panel * most)


@kernel
def weights_at(p: Problem, kernels: Any, panel: Any, channel: Any) -> Any:
    """Where the weights of a panel and of a block of channels lie among all."""
    before = panel * channel_blocks(p) + channel // CHANNEL_BLOCK
    width = kernels[LANES] * kernels[VECTORS]
    return PRODUCTS * ((panel * p.channels + channel) * width + before * line_of(kernels))


@kernel
def transform_weights(p: Problem, kernels: Any, weight: Any, panel: Any, channel: Any, taps: Any, target: Any) -> None:
    """Transform the weights of a panel and of the block of channels from `channel` on; `taps` is scratch.

    `weight` is flat, that of the forward pass also for a gradient; addresses all.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    vectors, channels = panel_vectors(p, kernels, panel), min(CHANNEL_BLOCK, p.channels - channel)
    pitch = vectors * lanes
    product_pitch = channels * pitch + line_of(kernels)
    for j in range(vectors):
        o = (panel * kernels[VECTORS] + j) * lanes
        if p.turned == 0:
            source = weight + (o * p.channels + channel) * _NINE * size
            winograd.turn(kernels, source, p.channels * _NINE, p.filters - o, channels * _NINE, taps)
            first, step = taps, lanes
        else:
            for c in range(channels):
                source = weight + ((channel + c) * p.filters + o) * _NINE * size
                winograd.turn(kernels, source, _NINE, p.filters - o, _NINE, taps + c * _NINE * lanes * size)
            first, step = taps + (_NINE - 1) * lanes * size, -lanes
        winograd.weights(kernels, first, step, channels, target + j * lanes * size, product_pitch, pitch)


@driver
def _all_weights(task: Any, worker: Any, p: Problem, kernels: Any, weight: Any, taps: Any, transformed: Any) -> None:
    """Transform the weights of a panel and a block of channels."""
    blocks = channel_blocks(p)
    panel, channel = task // blocks, task % blocks * CHANNEL_BLOCK
    target = aligned(transformed.ctypes.data) + weights_at(p, kernels, panel, channel) * kernels[ELEMENT]
    transform_weights(p, kernels, weight.ctypes.data, panel, channel, aligned(taps[worker].ctypes.data), target)


@lru_cache(maxsize=256)
def _launch(p: Problem, dtype: DType) -> Launch:
    kernels = winograd.kernels(dtype)
    tasks = int(panels(p, kernels)) * -(-p.channels // CHANNEL_BLOCK)
    return Launch(_all_weights, tasks, p.channels * p.filters * _NINE, p, kernels)


def all_transformed(p: Problem, weight: Any, taps: Any, transformed: Any) -> Run:
    """The transform of all weights."""
    return _launch(p, transformed.dtype).on(weight.reshape(-1), taps, transformed)


def taps_space(p: Problem, workers: int, dtype: DType) -> Space:
    """Scratch of `transform_weights`, with room for its beginning to be aligned."""
    kernels = winograd.kernels(dtype)
    lanes = int(kernels[LANES])
    line = CACHE_LINE // dtype.itemsize
    return Space((workers, (min(CHANNEL_BLOCK, p.channels) * _NINE + lanes) * lanes + line), name="taps")


def lasting_space(p: Problem, dtype: DType) -> Space:
    """All transformed weights, with room for their beginning to be aligned."""
    kernels = winograd.kernels(dtype)
    width, line = int(kernels[VECTORS] * kernels[LANES]), CACHE_LINE // dtype.itemsize
    of_panel = p.channels * width + line * -(-p.channels // CHANNEL_BLOCK)
    elements = int(panels(p, kernels)) * PRODUCTS * of_panel
    return Space((1, elements + line), name=PACKED_WEIGHT)


def passing_space(p: Problem, workers: int, dtype: DType) -> Space:
    """Transformed weights of a panel and a block of channels, for each worker."""
    kernels, line = winograd.kernels(dtype), CACHE_LINE // dtype.itemsize
    width = int(kernels[VECTORS] * kernels[LANES])
    return Space((workers, PRODUCTS * (min(CHANNEL_BLOCK, p.channels) * width + line) + line), name=PACKED_WEIGHT)


def lasting_bytes(p: Problem, dtype: DType) -> int:
    """Bytes of all transformed weights."""
    return int(np.prod(lasting_space(p, dtype).shape)) * dtype.itemsize
