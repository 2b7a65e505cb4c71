"""In which order a network runs its layers: as they were added, but with maxima taken before a ReLU.

ReLU does not change which of some values is the largest, so `max(relu(x))` is `relu(max(x))`, to the bit. So are the
gradients: where the maximum is not positive, neither order passes anything on, and elsewhere it is at the same pixel.
Behind a pool of 2x2 pixels a ReLU has a quarter of the work.

Knows which layers may change places; does not know how a pass goes through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .activation import Activation
from .base import Layer
from .pooling import MaxPooling1D, MaxPooling2D, MaxPooling3D

_MAXIMA = frozenset({MaxPooling1D, MaxPooling2D, MaxPooling3D})
_PASSES = ("forward_pass", "backward_pass")


def running_order(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, each ReLU behind the max pools that follow it."""
    order = list(layers)
    for i in range(1, len(order)):
        if type(order[i]) in _MAXIMA and _is_relu(order[i - 1]) and not (_watched(order[i]) or _watched(order[i - 1])):
            order[i - 1], order[i] = order[i], order[i - 1]
    return order


def _is_relu(layer: Any) -> bool:
    return type(layer) is Activation and layer.activation_name == "relu"


def _watched(layer: Layer) -> bool:
    """Whether somebody has put a pass of their own into a layer, to see what goes through it."""
    return any(name in vars(layer) for name in _PASSES)
