"""Implicit matrix product: outputs and input gradients are one product; its weight gradient is `weight_gradient`'s.

Knows what rows, channels and planes of the forward pass are; does not know how a product is computed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..gemm.planes import forward_axes, term_offsets
from ..geometry import Geometry
from ..runtime.launch import run_in_turn
from ..runtime.options import COMPILED, NOT_COMPILED
from ..typing import DType
from . import input_product, weight_gradient
from .algorithm import Algorithm, Explained, Operation, Space, work_ns
from .running import Setup, explained_product, product_runs, set_up


@lru_cache(maxsize=256)
def _forward(g: Geometry, workers: int, dtype: DType) -> tuple[Setup, Any]:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]

    The setup, and where the terms (c, kh, kw) are met.
    """
    axes, rows, channels = forward_axes(g), g.out_channels // g.groups, g.in_channels // g.groups
    setup = set_up(axes, g.batch, g.groups, rows, channels, g.out_h * g.out_w, workers, dtype, work_ns(g))
    return setup, term_offsets(*setup.axes, channels)


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _forward(g, workers, dtype)[0].spaces


def _run(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, *workspaces: Any) -> None:
    setup, offsets = _forward(g, workers, y.dtype)
    run_in_turn(workers, *product_runs(setup, x, weight, offsets, bias, y, *workspaces))


def forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How the forward product is cut."""
    return explained_product(_forward(g, workers, dtype)[0], g.kernel_h * g.kernel_w, workers, dtype)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return NOT_COMPILED
    return None


ALGORITHM = Algorithm(
    "implicit",
    _declines,
    Operation(_run, _workspace, explained=forward_explained),
    Operation(input_product.run, input_product.workspace, explained=input_product.explained),
    weight_gradient.OPERATION,
)
