"""Input gradients of windows that do not overlap: one product, whose results are put where they belong.

As of embeddings of patches, and of transposed convolutions that enlarge images: no pixel sees more than one tap. So the
gradient is that of a kernel of one pixel with the channels `(c, kh, kw)`, spread over the image (col2im, without sums):
the columns are as many as pixels are met. Where each phase of the stride has a product of its own, of few rows, that is
slow: the gradient of 768 filters of 3x16x16 has 256 phases of 3 rows.

Knows when that pays and where pixels belong; does not know how the product is computed, by one of the rows below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..gemm.estimate import with_turning
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.launch import Launch
from ..typing import DType
from . import direct, implicit
from .algorithm import Algorithm, Explained, Operation, Space, not_for, workspace_limit


@driver
def _spread(task: Any, worker: Any, g: Geometry, columns: Any, dx: Any) -> None:
    """dx[c, oh*stride + kh - pad, ow*stride + kw - pad] = columns[c, (kh,kw), oh, ow], and zero elsewhere.

    A task is a row of a plane; `columns` are (N * C, KH * KW, OH, OW), `dx` (N * C, H, W).
    """
    plane, h = task // g.in_h, task % g.in_h
    line, at = dx[plane, h], h + g.pad_top
    oh, kh = at // g.stride_h, at % g.stride_h
    is_met = kh < g.kernel_h and oh < g.out_h
    if not is_met or g.kernel_w < g.stride_w or g.out_w * g.stride_w < g.in_w + g.pad_left:
        for w in range(g.in_w):
            line[w] = 0
    if is_met:
        for kw in range(g.kernel_w):
            met, before = columns[plane, kh * g.kernel_w + kw, oh], g.pad_left - kw
            first = (max(before, 0) + g.stride_w - 1) // g.stride_w
            stop = min(g.out_w, (g.in_w - 1 + before) // g.stride_w + 1)
            for ow in range(first, stop):  # unsigned: not looked at for being negative
                line[np.uint64(ow * g.stride_w - before)] = met[np.uint64(ow)]


# Of an element that is put where it belongs: nanoseconds, and cycles, in those of one that is turned. Of 20 gradients
# of 3 to 512 channels, windows of 2x2 to 16x16 pixels, it took 2.5 to 7 cycles beside what the product takes.
_NS, _CYCLES = 2.0, 5


@lru_cache(maxsize=256)
def _spreading(g: Geometry, dtype: DType) -> Launch:
    rows = g.batch * g.in_channels * g.in_h
    return Launch(_spread, rows, _NS * rows * g.in_w, g)


@lru_cache(maxsize=256)
def _product(g: Geometry, dtype: DType) -> tuple[Geometry, Operation]:
    """The kernel of one pixel, and what computes its input gradient."""
    pixels = g.out_h * g.out_w
    p = Geometry(
        g.batch, g.in_channels * g.kernel_h * g.kernel_w, 1, pixels, g.out_channels, 1, pixels, 1, 1, 1, 1, 1, 1,
        0, 0, 0, 0, g.groups,
    )  # fmt: skip
    return p, _rows_below(p, dtype)[0]


def _rows_below(g: Geometry, dtype: DType) -> list[Operation]:
    """What computes an input gradient otherwise, the best first."""
    rows = [row for row in (direct.ALGORITHM, implicit.ALGORITHM) if row.declines(g, dtype) is None]
    found = [row.input_grad for row in rows if row.input_grad is not None]
    return [operation for operation in found if operation.passes_over(g, dtype) is None]


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    p, operation = _product(g, dtype)
    return Space(p.x_shape, name="columns"), *operation.workspace(p, workers, dtype)


def _bind(workers: int, g: Geometry, dtype: DType, columns: Any, *workspaces: Any) -> Callable[..., None]:
    p, operation = _product(g, dtype)
    multiply, spread = operation.bind(workers, p, dtype, *workspaces), _spreading(g, dtype)
    planes = g.batch * g.in_channels
    of_planes = columns.reshape(planes, -1, g.out_h, g.out_w)

    def run(dy: Any, weight: Any, dx: Any) -> None:
        multiply(dy.reshape(p.y_shape), weight.reshape(p.weight_shape), columns)
        spread.run(workers, of_planes, dx.reshape(planes, g.in_h, g.in_w))

    return run


def _explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    p, operation = _product(g, dtype)
    assert operation.explained is not None
    of_product = operation.explained(p, workers, dtype)
    share = with_turning(of_product.share_of_peak, g.multiplications, _CYCLES * math.prod(g.x_shape), dtype)
    return Explained(f"columns of {p.in_channels} channels, {of_product.how}", share)


def _declines(g: Geometry, dtype: DType) -> str | None:
    reason = not_for(g, dtype)
    if reason is not None:
        return reason
    if (g.stride_h, g.stride_w) == (1, 1) or g.kernel_h * g.kernel_w == 1:
        return "it is for kernels of several pixels with a stride"
    for taps, stride, dilation in (
        (g.kernel_h, g.stride_h, g.dilation_h), (g.kernel_w, g.stride_w, g.dilation_w)
    ):  # fmt: skip
        if taps > stride or (taps > 1 and dilation > 1):
            return "windows overlap"
    return None


def _yields(g: Geometry, dtype: DType) -> str | None:
    """Why the phases had better have products of their own."""
    p, _ = _product(g._replace(batch=1), dtype)
    if math.prod(p.x_shape) * dtype.itemsize > workspace_limit(math.prod(p.y_shape), dtype):
        return "columns of one image are too large"
    other = _rows_below(g, dtype)[0]
    assert other.explained is not None
    here, there = (explained(g, 1, dtype).share_of_peak for explained in (_explained, other.explained))
    return None if here > there else f"phase by phase {there:.0%} of the peak are expected, with columns {here:.0%}"


ALGORITHM = Algorithm(
    "patches", _declines, None, Operation(_bind, _workspace, explained=_explained, yields=_yields), None
)
