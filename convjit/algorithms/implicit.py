"""Implicit matrix product: outputs and input gradients are one product; its weight gradient is `weight_gradient`'s.

Knows what rows, channels and planes of the forward pass are; does not know how a product is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm.planes import forward_axes, term_offsets
from ..geometry import Geometry
from ..runtime.options import COMPILED, NOT_COMPILED
from ..typing import DType
from . import input_product, weight_gradient
from .algorithm import Algorithm, Explained, Operation, Space, work_ns
from .running import Setup, as_column, bind_product, explained_product, in_bands, set_up


class _Setup(NamedTuple):
    """Everything about a product that its geometry, dtype and number of workers decide: looked up once a call."""

    setup: Setup
    met: Any  # where the terms (c, kh, kw) are met
    is_row: bool


@lru_cache(maxsize=256)
def _forward(g: Geometry, workers: int, dtype: DType) -> _Setup:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]"""
    is_row, g = g.is_row, in_bands(g)
    axes, rows, channels = forward_axes(g), g.out_channels // g.groups, g.in_channels // g.groups
    setup = set_up(axes, g.batch, g.groups, rows, channels, g.out_h * g.out_w, workers, dtype, work_ns(g))
    return _Setup(setup, term_offsets(*setup.axes, channels), is_row)


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _forward(g, workers, dtype).setup.spaces


def _bind(workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
    how = _forward(g, workers, dtype)
    run = bind_product(how.setup, workers, g.batch * g.in_channels, how.met, *workspaces)
    return _of_rows(run) if how.is_row else run


def _of_rows(run: Callable[..., None]) -> Callable[..., None]:
    return lambda x, weight, bias, y: run(as_column(x), weight, bias, as_column(y))


def forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How the forward product is cut."""
    return explained_product(_forward(g, workers, dtype).setup, g.kernel_h * g.kernel_w, workers, dtype)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return NOT_COMPILED
    return None


ALGORITHM = Algorithm(
    "implicit",
    _declines,
    Operation(_bind, _workspace, explained=forward_explained),
    Operation(input_product.bind, input_product.workspace, explained=input_product.explained),
    weight_gradient.OPERATION,
)
