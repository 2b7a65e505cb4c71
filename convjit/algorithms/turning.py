"""Images with channels last, for operations that want them first: turned on the way in, and results on the way out.

Knows layouts and operations; does not know what an operation computes. A batch is cut as its workspaces ask, so what is
turned at once is some images, or some groups of all of them for a weight gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..gemm.direct_kernels import kernels as kernels_of
from ..gemm.direct_kernels import turn_panel
from ..gemm.estimate import with_turning
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.launch import launch
from ..runtime.options import COMPILED
from ..typing import Array, DType
from .algorithm import Bind, Explained, Operation, Space, workspace_limit

# A task takes some microseconds: a tile of so many rows and columns, both of whole cache lines.
_ROWS, _COLUMNS = 256, 64


@driver
def _turn(task: Any, worker: Any, rows: Any, columns: Any, first: Any, kernels: Any, source: Any, target: Any) -> None:
    """target[n, c, r] = source[n, r, first + c] for a tile of so many rows and columns; of any dtype, bit by bit."""
    _, height, pitch = source.shape
    width = target.shape[1]
    across = (width + columns - 1) // columns
    tiles = (height + rows - 1) // rows * across
    n, place = task // tiles, task % tiles
    r, c = place // across * rows, place % across * columns
    size = source.itemsize
    turn_panel(
        kernels, source.ctypes.data + ((n * height + r) * pitch + first + c) * size, pitch, min(rows, height - r),
        min(columns, width - c), target.ctypes.data + ((n * width + c) * height + r) * size, height,
    )  # fmt: skip


def _turned(workers: int, source: Any, target: Any, first: int = 0) -> None:
    """Transpose matrices (N, rows, columns) into `target` (N, columns, rows), so many columns as that has."""
    batch, width, height = target.shape
    if not COMPILED:
        target[...] = source[:, :, first : first + width].transpose(0, 2, 1)
        return
    tasks = batch * -(-height // _ROWS) * -(-width // _COLUMNS)
    if tasks == 0:
        return
    # Kernels move bits: the dtype of which there are some anyway.
    bits = np.dtype(f"float{8 * source.itemsize}")
    source = source.view(bits)
    launch(_turn, workers, tasks, target.size / 2, _ROWS, _COLUMNS, first, kernels_of(bits), source, target.view(bits))


def _channels_first(workers: int, images: Any, target: Any, first: int = 0) -> Array:
    """Images (N, H, W, C) as (N, C, H, W), in `target` unless that has no elements: they lie alike then.

    Of more channels than `target` has, those from `first` on.
    """
    n, h, w, c = images.shape
    if target.size == 0:
        return images.reshape(n, c, h, w)
    _turned(workers, images.reshape(n, h * w, c), target.reshape(n, target.shape[1], h * w), first)
    return target


def _put_back(workers: int, images: Any, result: Any) -> None:
    """Images (N, C, H, W) into `result` (N, H, W, C)."""
    n, c, h, w = images.shape
    _turned(workers, images.reshape(n, c, h * w), result.reshape(n, h * w, c))


def _room(shape: tuple[int, ...], name: str) -> Space:
    """Room for images (N, C, H, W); none where there is one channel, or one pixel."""
    _, c, h, w = shape
    return Space((0,) if c == 1 or h * w == 1 else shape, name=name)


@lru_cache(maxsize=256)
def _some_groups(g: Geometry, dtype: DType) -> Geometry:
    """A problem of some of the groups, as many as have room: they share nothing, and each sum is of one of them.

    So a weight gradient of many images, which is one sum over all of them, is cut.
    """
    in_channels, out_channels = g.in_channels // g.groups, g.out_channels // g.groups
    each = g.batch * (in_channels * g.in_h * g.in_w + out_channels * g.out_h * g.out_w) * dtype.itemsize
    room = workspace_limit(math.prod(g.x_shape), dtype) // 2
    most = (count for count in range(g.groups, 1, -1) if g.groups % count == 0 and count * each <= room)
    count = next(most, 1)
    return g._replace(in_channels=count * in_channels, out_channels=count * out_channels, groups=count)


@cache
def turned(name: str, operation: Operation) -> Operation:
    """The operation of this name (one of `OPERATIONS`) on images with channels last."""
    work = _turned_weight_grad(operation) if name == "weight_grad" else _turned_images(name, operation)

    def explained(g: Geometry, workers: int, dtype: DType) -> Explained:
        assert operation.explained is not None
        found = operation.explained(g, workers, dtype)
        share = with_turning(found.share_of_peak, g.multiplications, math.prod(g.x_shape) + math.prod(g.y_shape), dtype)
        return Explained(f"{found.how}; images turned", share)

    return work._replace(explained=operation.explained and explained)


def _turned_images(name: str, operation: Operation) -> Operation:
    """An operation whose first input and whose result are images."""

    def workspace_with(own: Any) -> Any:
        def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
            images, results = (g.x_shape, g.y_shape) if name == "forward" else (g.y_shape, g.x_shape)
            return *own(g, workers, dtype), _room(images, "turned images"), _room(results, "turned results")

        return workspace

    def bind_with(own: Bind) -> Bind:
        def bind(workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
            *others, of_images, of_results = workspaces
            run = own(workers, g, dtype, *others)

            def run_turned(images: Any, *others: Any) -> None:
                *rest, result = others
                n, h, w, c = result.shape
                target = result.reshape(n, c, h, w) if of_results.size == 0 else of_results
                run(_channels_first(workers, images, of_images), *rest, target)
                if of_results.size > 0:
                    _put_back(workers, of_results, result)

            return run_turned

        return bind

    packing = operation.packing and operation.packing._replace(
        bind=bind_with(operation.packing.bind), workspace=workspace_with(operation.packing.workspace)
    )
    return operation._replace(
        bind=bind_with(operation.bind), workspace=workspace_with(operation.workspace), packing=packing
    )


def _turned_weight_grad(operation: Operation) -> Operation:
    def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
        part = _some_groups(g, dtype)
        rooms = _room(part.y_shape, "turned gradients"), _room(part.x_shape, "turned images")
        if part != g:  # some channels of many never lie alike
            rooms = rooms[0]._replace(shape=part.y_shape), rooms[1]._replace(shape=part.x_shape)
        return *operation.workspace(part, workers, dtype), *rooms

    def bind(workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
        *rest, of_gradients, of_images = workspaces
        part = _some_groups(g, dtype)
        run = operation.bind(workers, part, dtype, *rest)

        def run_turned(dy: Any, x: Any, dw: Any) -> None:
            for group in range(0, g.groups, part.groups):
                share = group // part.groups
                first = share * part.out_channels
                gradients = _channels_first(workers, dy, of_gradients, first)
                images = _channels_first(workers, x, of_images, share * part.in_channels)
                run(gradients, images, dw[first : first + part.out_channels])

        return run_turned

    return operation._replace(bind=bind, workspace=workspace)
