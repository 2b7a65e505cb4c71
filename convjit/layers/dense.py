"""Fully connected layers, and what stands before them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..arrays import shaped
from ..functional.front_door import public
from ..parsing import as_positive, shown
from ..typing import Array, DTypeLike, Updates
from .base import Layer, Shape, as_batch, check_grad, floating
from .initializers import LIMITS, as_rng, as_weight_dtype, check_initializer, draw
from .products import input_gradient, product, weight_gradient


class Dense(Layer):
    """A fully connected layer: `y = X @ W + w0`.

    Parameters
    ----------
    n_units : int
    input_shape : (int,), optional
        Features of one input; needed before `initialize`.
    dtype : float32 or float64
    rng : numpy.random.Generator or int, optional
        NumPy's global state, as in the original text, if not given.
    initializer : {"uniform", "glorot", "he"}
        `"uniform"` draws from ±1/sqrt(features), as the original text does.

    Attributes
    ----------
    W : ndarray, (features, n_units)
    w0 : ndarray, (1, n_units)

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Dense
    >>> layer = Dense(3, input_shape=(2,), rng=0)
    >>> layer.initialize(None)
    >>> layer.forward_pass(np.ones((5, 2))).shape, layer.parameters()
    ((5, 3), 9)
    """

    weight_names: ClassVar[tuple[str, ...]] = ("W", "w0")

    W: Array
    w0: Array

    @public
    def __init__(
        self,
        n_units: int,
        input_shape: Shape | None = None,
        *,
        dtype: DTypeLike = np.float64,
        rng: np.random.Generator | int | None = None,
        initializer: str = "uniform",
    ) -> None:
        self.n_units = as_positive("Dense", "n_units", n_units)
        self.input_shape = None if input_shape is None else _features(input_shape)
        self.dtype = as_weight_dtype("Dense", dtype)
        self.rng = as_rng("Dense", rng)
        self.initializer = check_initializer("Dense", initializer)
        self.trainable = True

    def set_input_shape(self, shape: Shape) -> None:
        """Set the features of one input."""
        self.input_shape = _features(shape)

    def initialize(self, optimizer: Updates | None) -> None:
        """Draw the weights, and give each a copy of the optimizer; None is fine for inference."""
        (features,) = self._needed_input_shape("initialize")
        fan = max(features, 1)
        limit = LIMITS[self.initializer](fan, self.n_units, fan)
        weights = draw("Dense.initialize", limit, (features, self.n_units), self.rng, self.dtype)
        self._start(optimizer, W=weights, w0=np.zeros((1, self.n_units), self.dtype))

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """`X @ W + w0` for `X` (N, features)."""
        self._initialized("forward_pass")
        x = as_batch("Dense.forward_pass", X, 2)
        weight = self.W
        if weight.ndim != 2:
            raise ValueError(f"Dense.forward_pass: W must have shape (features, units), got {weight.shape}")
        if x.shape[1] != weight.shape[0]:
            raise ValueError(
                f"Dense.forward_pass: the layer has weights for {weight.shape[0]} features, but X has {x.shape[1]}"
            )
        bias = self.w0
        if bias.shape not in (weight.shape[1:], (1, *weight.shape[1:])):
            raise ValueError(f"Dense.forward_pass: w0 must have shape {(1, weight.shape[1])}, got {bias.shape}")
        y = product(x, weight, bias)
        self.__dict__.update(layer_input=x if training else None, _weight_used=weight if training else None)
        return y

    def backward_pass(self, accum_grad: Array, need_input: bool = True) -> Any:
        """The gradient with respect to the last input; then the weights are updated, if the layer is trainable.

        Without `need_input` that gradient is not computed, and None returned.
        """
        if self.trainable:
            self._refuse_if_frozen("backward_pass", "its weights cannot be updated")
        x, weight = self._kept("layer_input"), self._kept("_weight_used")
        dy = check_grad("Dense", accum_grad, (x.shape[0], weight.shape[1]))
        dy = floating("Dense.backward_pass", "accum_grad", dy)
        dx = input_gradient(dy, weight) if need_input else None
        if self.trainable:
            self._update(W=weight_gradient(x, dy), w0=dy.sum(axis=0, keepdims=True))
        return dx

    def output_shape(self) -> Shape:
        """`(n_units,)`"""
        return (self.n_units,)


def _features(shape: Any) -> Shape:
    try:
        (features,) = shape
    except (TypeError, ValueError):
        raise ValueError(
            f"Dense: input_shape must be (features,), got {shown(shape)}; add a Flatten before it"
        ) from None
    return (as_positive("Dense", "input_shape", features),)


class Flatten(Layer):
    """Each input as one row.

    Parameters
    ----------
    input_shape : tuple of int, optional

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Flatten
    >>> Flatten().forward_pass(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    @public
    def __init__(self, input_shape: Shape | None = None) -> None:
        if input_shape is not None:
            self.set_input_shape(input_shape)

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """`X` (N, ...) as (N, features)."""
        x = as_batch("Flatten.forward_pass", X)
        self._input_shape_used = x.shape if training else None
        return shaped("Flatten.forward_pass", "X", x, (x.shape[0], math.prod(x.shape[1:])))

    def backward_pass(self, accum_grad: Array) -> Array:
        """The gradient in the shape of the last input."""
        shape = self._kept("_input_shape_used")
        gradient = check_grad("Flatten", accum_grad, (shape[0], math.prod(shape[1:])))
        return shaped("Flatten.backward_pass", "accum_grad", gradient, shape)

    def output_shape(self) -> Shape:
        """`(features,)`"""
        return (math.prod(self._needed_input_shape("output_shape")),)
