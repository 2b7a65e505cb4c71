"""The weight gradient of `implicit`, also where `direct` does the rest: a matrix product, or channels as lanes.

Knows which of them is expected to be fastest; does not know how any computes. All give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..geometry import Geometry
from ..typing import DType
from . import weight_channels, weight_input_lanes, weight_product
from .algorithm import Explained, Operation, Space


@lru_cache(maxsize=256)
def _way(g: Geometry, dtype: DType) -> Any:
    """A product, whose lanes are filters of one group; filters of several groups as lanes; or the input's channels."""
    if math.prod(g.x_shape) * math.prod(g.y_shape) * math.prod(g.weight_shape) == 0:
        return weight_product
    ways = [weight_channels] if g.groups > 1 else []
    if not g.is_pointwise:  # where a product may have the input's channels as lanes, too
        ways.append(weight_input_lanes)
    taken: list[Any] = [weight_product, *(way for way in ways if way.declines(g, dtype) is None)]
    return max(taken, key=lambda way: way.explained(g, 1, dtype).share_of_peak)


def _bind(workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
    run: Callable[..., None] = _way(g, dtype).bind(workers, g, dtype, *workspaces)
    return run


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    spaces: tuple[Space, ...] = _way(g, dtype).workspace(g, workers, dtype)
    return spaces


def _explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    found: Explained = _way(g, dtype).explained(g, workers, dtype)
    return found


def _sums_bias(g: Geometry, dtype: DType) -> bool:
    return _way(g, dtype) is weight_product and weight_product.sums_bias(g, dtype)


OPERATION = Operation(
    _bind, _workspace, explained=_explained, channels_last=weight_product.CHANNELS_LAST, sums_bias=_sums_bias
)  # fmt: skip
