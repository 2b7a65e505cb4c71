"""Images with channels last, for operations that want them first: turned on the way in, and results on the way out.

Knows layouts and operations; does not know what an operation computes. A batch is cut as its workspaces ask, so what is
turned at once is some images.
"""

from __future__ import annotations

from functools import cache
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
from .algorithm import Cut, Operation, Space

# A task takes some microseconds: a tile of so many rows and columns, both of whole cache lines.
_ROWS, _COLUMNS = 256, 64


@driver
def _turn(task: Any, worker: Any, rows: Any, columns: Any, kernels: Any, source: Any, target: Any) -> None:
    """target[n, c, r] = source[n, r, c] for a tile of so many rows and columns; of any dtype, bit by bit."""
    _, height, width = source.shape
    across = (width + columns - 1) // columns
    tiles = (height + rows - 1) // rows * across
    n, place = task // tiles, task % tiles
    r, c = place // across * rows, place % across * columns
    size = source.itemsize
    turn_panel(
        kernels, source.ctypes.data + ((n * height + r) * width + c) * size, width, min(rows, height - r),
        min(columns, width - c), target.ctypes.data + ((n * width + c) * height + r) * size, height,
    )  # fmt: skip


def _turned(workers: int, source: Any, target: Any) -> None:
    """Transpose each of the matrices (N, rows, columns) into `target` (N, columns, rows)."""
    if not COMPILED:
        target[...] = source.transpose(0, 2, 1)
        return
    batch, height, width = source.shape
    tasks = batch * -(-height // _ROWS) * -(-width // _COLUMNS)
    if tasks == 0:
        return
    # Kernels move bits: the dtype of which there are some anyway.
    bits = np.dtype(f"float{8 * source.itemsize}")
    source = source.view(bits)
    source.flags.writeable = False  # one signature, whoever may write it
    launch(_turn, workers, tasks, source.size / 2, _ROWS, _COLUMNS, kernels_of(bits), source, target.view(bits))


def channels_first(workers: int, images: Any, target: Any) -> Array:
    """Images (N, H, W, C) as (N, C, H, W), in `target` unless that has no elements: they lie alike then."""
    n, h, w, c = images.shape
    if target.size == 0:
        return images.reshape(n, c, h, w)
    _turned(workers, images.reshape(n, h * w, c), target.reshape(n, c, h * w))
    first = target.view()
    first.flags.writeable = False  # as the caller's
    return first


def _space(shape: tuple[int, ...], name: str) -> Space:
    """Room for images (N, C, H, W); none where there is one channel, or one pixel."""
    _, c, h, w = shape
    return Space((0,) if c == 1 or h * w == 1 else shape, name=name)


def _result_of(target: Any, lying: Any) -> Any:
    """Where an operation writes what will lie as `lying` (N, H, W, C)."""
    n, h, w, c = lying.shape
    return lying.reshape(n, c, h, w) if target.size == 0 else target


def _put_back(workers: int, images: Any, lying: Any) -> None:
    n, c, h, w = images.shape
    _turned(workers, images.reshape(n, c, h * w), lying.reshape(n, h * w, c))


@cache
def turned(name: str, operation: Operation) -> Operation:
    """The operation of this name (one of `OPERATIONS`) on images with channels last."""

    def spaces(g: Geometry) -> tuple[Space, Space]:
        shapes = (g.x_shape, g.y_shape) if name == "forward" else (g.y_shape, g.x_shape)
        names = ("gradients", "images") if name == "weight_grad" else ("images", "results")
        return _space(shapes[0], f"turned {names[0]}"), _space(shapes[1], f"turned {names[1]}")

    def workspace_with(own: Any) -> Any:
        def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
            return *own(g, workers, dtype), *spaces(g)

        return workspace

    def run_with(run: Any) -> Any:
        def run_turned(workers: int, g: Geometry, images: Any, *rest: Any) -> None:
            *rest, one, other = rest
            images = channels_first(workers, images, one)
            if name == "weight_grad":
                x, *rest = rest
                run(workers, g, images, channels_first(workers, x, other), *rest)
                return
            place = 2 if name == "forward" else 1
            result = rest[place]
            target = _result_of(other, result)
            run(workers, g, images, *rest[:place], target, *rest[place + 1 :])
            if other.size > 0:
                _put_back(workers, target, result)

        return run_turned

    def cut(g: Geometry, workers: int, dtype: DType) -> Cut:
        assert operation.cut is not None
        found = operation.cut(g, workers, dtype)
        moved = sum(np.prod(space.shape) for space in spaces(g))
        return Cut(f"{found.how}; images turned", with_turning(found.share_of_peak, g.multiplications, moved, dtype))

    packing = operation.packing
    return operation._replace(
        run=run_with(operation.run),
        workspace=workspace_with(operation.workspace),
        packing=packing and packing._replace(run=run_with(packing.run), workspace=workspace_with(packing.workspace)),
        cut=operation.cut and cut,
    )
