"""What convolution layers share: construction, weights, and the two passes around them.

Knows images of any number of dimensions, filters and when state changes; does not know which convolution it is, nor how
weights are laid out.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from ..parsing import AXES, as_entries, as_index, as_positive, shown
from ..typing import Array, DTypeLike, IntOrPair, Padding, Updates
from .base import Layer, Shape, as_batch, check_grad
from .initializers import LIMITS, as_rng, as_weight_dtype, check_initializer, draw


class Convolving(Layer):
    """A layer with filters `W` and a bias `w0`, (F, 1), over images."""

    weight_names: ClassVar[tuple[str, ...]] = ("W", "w0")
    rank: ClassVar[int]  # dimensions of an image

    W: Array
    w0: Array

    def _configure(
        self,
        n_filters: int,
        filter_shape: IntOrPair,
        input_shape: Shape | None,
        padding: Padding,
        stride: IntOrPair,
        dilation: IntOrPair,
        groups: int,
        dtype: DTypeLike,
        rng: np.random.Generator | int | None,
        initializer: str,
    ) -> None:
        """Check what is the layer's own and set everything; stride, padding and dilation are checked by the layer."""
        name = type(self).__name__
        self.n_filters = as_positive(name, "n_filters", n_filters)
        self.filter_shape = as_entries(name, "filter_shape", filter_shape, 1, self.rank)
        self.padding = padding
        self.stride = stride
        self.dilation = dilation
        self.groups = as_positive(name, "groups", groups)
        if self.n_filters % self.groups:
            raise ValueError(f"{name}: groups={self.groups} must divide n_filters={self.n_filters}")
        self.dtype = as_weight_dtype(name, dtype)
        self.rng = as_rng(name, rng)
        self.initializer = check_initializer(name, initializer)
        self.input_shape = None if input_shape is None else image_shape(name, input_shape, self.rank)
        self.trainable = True

    @abstractmethod
    def _weight_shape(self, channels: int) -> Shape:
        """The shape of `W` for so many input channels."""

    @abstractmethod
    def _weight_channels(self) -> int:
        """The input channels that `W` is for."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Keyword arguments of both passes."""

    @abstractmethod
    def _result(self, images: Array, weight: Array, options: dict[str, Any], training: bool) -> Array:
        """The forward pass."""

    @abstractmethod
    def _gradients(
        self, gradient: Array, images: Array, weight: Array, options: dict[str, Any], need: tuple[bool, bool, bool]
    ) -> tuple[Array | None, Array | None, Array | None]:
        """The gradients in input, weight and bias, None where not needed."""

    def set_input_shape(self, shape: Shape) -> None:
        """Set the shape of one input: channels, then height and width, or the sizes that there are."""
        self.input_shape = image_shape(type(self).__name__, shape, self.rank)

    def initialize(self, optimizer: Updates | None) -> None:
        """Draw the weights, and give each a copy of the optimizer; None is fine for inference."""
        name = f"{type(self).__name__}.initialize"
        channels = self._needed_input_shape("initialize")[0]
        if channels % self.groups:
            raise ValueError(f"{name}: groups={self.groups} must divide the channels of input_shape {self.input_shape}")
        taps = math.prod(self.filter_shape)
        fan_in, fan_out = channels // self.groups * taps, self.n_filters // self.groups * taps
        limit = LIMITS[self.initializer](max(fan_in, 1), fan_out, taps)
        weights = draw(name, limit, self._weight_shape(channels), self.rng, self.dtype)
        self._start(optimizer, W=weights, w0=np.zeros((self.n_filters, 1), self.dtype))

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The layer's convolution of the images `X` (N, C, H, W), or of another number of dimensions."""
        name = f"{type(self).__name__}.forward_pass"
        self._initialized("forward_pass")
        images = as_batch(name, X, self.rank + 2)
        if self.W.ndim != self.rank + 2:
            raise ValueError(f"{name}: W must have {self.rank + 2} dimensions, got shape {self.W.shape}")
        channels = self._weight_channels()
        if images.shape[1] != channels:
            raise ValueError(
                f"{name}: the layer has weights for {channels} input channels, but X has {images.shape[1]}: "
                f"X {images.shape}, W {self.W.shape}"
            )
        weight, options = self.W, self._options()
        y = self._result(images, weight, options, training)
        # Committed together: an interrupt between input and weights would mix two passes.
        self.__dict__.update(
            layer_input=images if training else None,
            _weight_used=weight if training else None,
            _options_used=options if training else None,
            _output_shape=y.shape,
        )
        return y

    def backward_pass(self, accum_grad: Array, need_input: bool = True) -> Any:
        """The gradient with respect to the last input; then the weights are updated, if the layer is trainable.

        Without `need_input` that gradient is not computed, and None returned.
        """
        if self.trainable:
            self._refuse_if_frozen("backward_pass", "its weights cannot be updated")
        images, weight, options = self._kept("layer_input"), self._kept("_weight_used"), self._kept("_options_used")
        gradient = check_grad(type(self).__name__, accum_grad, self.__dict__["_output_shape"])
        need = (need_input, self.trainable, self.trainable)
        dx, dw, db = self._gradients(gradient, images, weight, options, need)
        if dw is not None and db is not None:
            self._update(W=dw, w0=db.reshape(-1, 1))
        return dx


_COUNTS = {1: "two", 2: "three", 3: "four"}


def image_shape(layer: str, input_shape: Any, rank: int) -> Shape:
    """The shape of one input: channels and a size for each dimension."""
    needs = f"({', '.join(['channels', *AXES[rank]])})"
    try:
        given = tuple(input_shape)
    except TypeError:
        given = ()
    if len(given) != rank + 1:
        raise ValueError(f"{layer}: input_shape must be {needs}, got {shown(input_shape)}")
    sizes = tuple(as_index(layer, "input_shape", size, f"{_COUNTS[rank]} ints") for size in given)
    if min(sizes) < 0:
        raise ValueError(f"{layer}: input_shape must be {_COUNTS[rank]} ints >= 0, got {shown(input_shape)}")
    return sizes
