"""The weight gradient of `implicit`, also where `direct` does the rest: a matrix product, or channels as lanes.

Knows which of the two is expected to be faster; does not know how either computes. Both give the same bits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from ..geometry import Geometry
from ..typing import DType
from . import weight_channels, weight_product
from .algorithm import Explained, Operation, Space


@lru_cache(maxsize=256)
def _has_channel_lanes(g: Geometry, dtype: DType) -> bool:
    """Whether lanes of several groups are summed at once: a product's lanes are filters of one group alone."""
    if g.groups == 1 or math.prod(g.x_shape) * math.prod(g.y_shape) * math.prod(g.weight_shape) == 0:
        return False
    if weight_channels.declines(g, dtype) is not None:
        return False
    channels, product = weight_channels.explained(g, 1, dtype), weight_product.explained(g, 1, dtype)
    return channels.share_of_peak > product.share_of_peak


def _way(g: Geometry, dtype: DType) -> Any:
    return weight_channels if _has_channel_lanes(g, dtype) else weight_product


def _run(workers: int, g: Geometry, dy: Any, x: Any, dw: Any, *spaces: Any, **bias: Any) -> None:
    _way(g, dw.dtype).run(workers, g, dy, x, dw, *spaces, **bias)


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    spaces: tuple[Space, ...] = _way(g, dtype).workspace(g, workers, dtype)
    return spaces


def _explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    found: Explained = _way(g, dtype).explained(g, workers, dtype)
    return found


def _sums_bias(g: Geometry, dtype: DType) -> bool:
    return not _has_channel_lanes(g, dtype) and weight_product.sums_bias(g, dtype)


OPERATION = Operation(
    _run, _workspace, explained=_explained, channels_last=weight_product.CHANNELS_LAST, sums_bias=_sums_bias
)  # fmt: skip
