"""A ReLU and the max pool behind it, run the other way around: on a quarter of the values, for pools of 2x2 pixels.

ReLU does not change which of some values is the largest, so `max(relu(x))` is `relu(max(x))`, to the bit. So are the
gradients: where the maximum is not positive, neither way passes anything on, and elsewhere it is at the same pixel.
Nobody else has the maxima, so that the ReLU writes over them, and on the way back one pass does the work of both.

Knows which layers may change places, and what they keep; does not know how a pass goes through a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..typing import Array
from .activation import Activation
from .base import Layer
from .passes import rectify
from .pooling import MaxPooling1D, MaxPooling2D, MaxPooling3D

_MAXIMA = frozenset({MaxPooling1D, MaxPooling2D, MaxPooling3D})
_PASSES = ("forward_pass", "backward_pass")
# Of others, NumPy's ReLU may keep a -0, and integers would be compared before they are rounded to float64.
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class MaximaFirst:
    """The two layers, for one pass forward and back; each keeps what it would have kept in its own place."""

    def __init__(self, relu: Activation, pool: MaxPooling1D | MaxPooling2D | MaxPooling3D) -> None:
        self._relu, self._pool = relu, pool
        self._rectified: Array | None = None  # maxima behind the ReLU; None where the layers were run as they stand

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """Maxima, then the ReLU of them, in their place."""
        relu, pool = self._relu, self._pool
        if type(X) is not np.ndarray or X.dtype not in _DTYPES or X.size == 0:
            return pool.forward_pass(relu.forward_pass(X, training), training)
        y = pool.forward_pass(X, training)
        rectify(y)
        if training:
            self._rectified = y
        # Of inputs and outputs of a ReLU the same are positive.
        relu.__dict__.update(_kept_pass=(X, X) if training else None, _name_used=relu.activation_name)
        return y

    def backward_pass(self, accum_grad: Array) -> Array:
        """The gradient at the maxima that are positive."""
        relu, pool = self._relu, self._pool
        if self._rectified is None:
            return relu.backward_pass(pool.backward_pass(accum_grad))
        if not (_watched(relu) or _watched(pool)):
            return pool.backward_through_relu(accum_grad, self._rectified)
        own = relu.__dict__["_kept_pass"]
        relu.__dict__["_kept_pass"] = self._rectified, self._rectified
        gradient = relu.backward_pass(accum_grad)
        relu.__dict__["_kept_pass"] = own
        return pool.backward_pass(gradient)


def in_running_order(layers: Sequence[Layer]) -> list[Any]:
    """What a pass goes through: layers, and pairs of those that are run the other way around."""
    order: list[Any] = []
    layer: Any
    for layer in layers:
        if type(layer) in _MAXIMA and order and _is_relu(order[-1]) and not (_watched(layer) or _watched(order[-1])):
            order[-1] = MaximaFirst(order[-1], layer)
        else:
            order.append(layer)
    return order


def _is_relu(layer: Any) -> bool:
    return type(layer) is Activation and layer.activation_name == "relu"


def _watched(layer: Layer) -> bool:
    """Whether somebody has put a pass of their own into a layer, to see what goes through it."""
    return not vars(layer).keys().isdisjoint(_PASSES)
