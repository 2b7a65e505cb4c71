"""Depthwise convolution: one input channel a group, so that there is nothing to multiply as matrices.

Knows which problems it takes, and whether pixels of images or of rows, or channels are lanes; does not know how any of
them computes.
Source: P. Zhang, E. Lo, B. Lu, "High Performance Depthwise and Pointwise Convolutions on Mobile Devices" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from ..geometry import Geometry
from ..runtime.options import COMPILED, NOT_COMPILED
from ..typing import DType
from . import depthwise_channels, depthwise_pixels, depthwise_rows, weight_channels
from .algorithm import NO_CHANNELS, Algorithm, Explained, Operation, Space, each_call, too_long


def _by_forward(g: Geometry, dtype: DType) -> ModuleType:
    """Which way computes outputs."""
    ways = (depthwise_channels, depthwise_rows)
    return next((way for way in ways if way.forward_pays(g, dtype)), depthwise_pixels)


def _by_input_grad(g: Geometry, dtype: DType) -> ModuleType:
    """Which way computes input gradients."""
    ways = (depthwise_channels, depthwise_rows)
    return next((way for way in ways if way.input_grad_pays(g, dtype)), depthwise_pixels)


def _forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    spaces: tuple[Space, ...] = _by_forward(g, dtype).forward_workspace(g, workers, dtype)
    return spaces


def _bind_forward(workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
    return each_call(_by_forward(g, dtype).run_forward)(workers, g, dtype, *workspaces)


def _input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    spaces: tuple[Space, ...] = _by_input_grad(g, dtype).input_grad_workspace(g, workers, dtype)
    return spaces


def _bind_input_grad(workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
    return each_call(_by_input_grad(g, dtype).run_input_grad)(workers, g, dtype, *workspaces)


def _forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    found: Explained = _by_forward(g, dtype).forward_explained(g, workers, dtype)
    return found


def _input_grad_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    found: Explained = _by_input_grad(g, dtype).input_grad_explained(g, workers, dtype)
    return found


# What a tile may take at most where taps lie far apart: 16 workers stay within 32 MiB.
_LARGEST_BYTES = 1 << 21
# More filters a channel fill a register tile's rows, and the matrix product is faster: in float32 on AVX-512, 3x3, it
# takes 1.2 times as long for 8 filters on 56x56 pixels and 0.7 to 0.8 times as long on 14x14 and 7x7 (`bench.measure`).
MOST_FILTERS = 8


def _declines(g: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return NOT_COMPILED
    if g.in_channels != g.groups:
        return f"groups have {g.in_channels // g.groups} input channels, it takes one"
    if g.in_channels == 0 or g.out_channels == 0:
        return NO_CHANNELS
    each = g.out_channels // g.groups
    if each > MOST_FILTERS:
        return f"channels have {each} filters, it takes {MOST_FILTERS} at most"
    if _tile_bytes(g, dtype) > _LARGEST_BYTES:
        return "taps lie too far apart for tiles of a cache"
    return too_long(each * g.kernel_h * g.kernel_w)


@lru_cache(maxsize=256)
def _tile_bytes(g: Geometry, dtype: DType) -> int:
    """What a worker needs for a tile of any of the operations."""
    if g.batch * g.in_h * g.in_w * g.out_h * g.out_w == 0:
        return 0
    operations = (
        depthwise_pixels.forward_workspace, depthwise_pixels.input_grad_workspace, weight_channels.workspace
    )  # fmt: skip
    spaces = (space for operation in operations for space in operation(g, 1, dtype) if space.dtype is None)
    return max(math.prod(space.shape) for space in spaces) * dtype.itemsize


ALGORITHM = Algorithm(
    "depthwise",
    _declines,
    Operation(_bind_forward, _forward_workspace, explained=_forward_explained),
    Operation(_bind_input_grad, _input_grad_workspace, explained=_input_grad_explained),
    Operation(
        weight_channels.bind,
        weight_channels.workspace,
        explained=weight_channels.explained,
        declines=weight_channels.declines,
    ),
)
