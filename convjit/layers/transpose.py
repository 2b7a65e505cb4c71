"""The transposed convolution layers: weights and optimizer state around `conv_transpose2d` and its siblings.

Knows PyTorch's layout of transposed weights; does not know how anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..functional import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose3d,
    conv_transpose3d_backward,
)
from ..functional.front_door import public_as
from ..functional.options import TransposeOptions
from ..functional.transpose import transposed_shape
from ..parsing import LARGE_IMAGE
from ..typing import Array, DTypeLike, IntOrPair, Padding
from .base import Shape
from .convolving import Convolving


class _Functions(NamedTuple):
    """What a layer computes with."""

    forward: Callable[..., Array]
    backward: Callable[..., tuple[Array | None, Array | None, Array | None]]


_FUNCTIONS = {
    1: _Functions(conv_transpose1d, conv_transpose1d_backward),
    2: _Functions(conv_transpose2d, conv_transpose2d_backward),
    3: _Functions(conv_transpose3d, conv_transpose3d_backward),
}


class _ConvTranspose(Convolving):
    """A transposed convolution with weights, of images of the layer's rank."""

    frozen_names: ClassVar[tuple[str, ...]] = ("stride", "padding", "output_padding", "dilation", "groups")

    def __init__(
        self,
        n_filters: int,
        filter_shape: IntOrPair,
        input_shape: Shape | None = None,
        padding: Padding = "same",
        stride: IntOrPair = 1,
        *,
        output_padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        dtype: DTypeLike = np.float64,
        rng: np.random.Generator | int | None = None,
        initializer: str = "uniform",
    ) -> None:
        self._configure(
            n_filters, filter_shape, input_shape, padding, stride, dilation, groups, dtype, rng, initializer
        )  # fmt: skip
        self.output_padding = output_padding
        self._shape_of(type(self).__name__, (self.groups, *(LARGE_IMAGE,) * self.rank))

    def output_shape(self) -> Shape:
        """Filters and sizes of one output, for inputs of `input_shape`."""
        return self._shape_of(f"{type(self).__name__}.output_shape", self._needed_input_shape("output_shape"))

    def _shape_of(self, function: str, shape: Shape) -> Shape:
        """The shape of one output for one input."""
        options = TransposeOptions(self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return transposed_shape(function, (1, *shape), self._weight_shape(shape[0]), options)[1:]

    def _weight_shape(self, channels: int) -> Shape:
        return channels, self.n_filters // self.groups, *self.filter_shape

    def _weight_channels(self) -> int:
        return int(self.W.shape[0])

    def _result(self, images: Array, weight: Array, options: dict[str, Any], training: bool) -> Array:
        return _FUNCTIONS[self.rank].forward(images, weight, self.w0.reshape(-1), **options)

    def _gradients(
        self, gradient: Array, images: Array, weight: Array, options: dict[str, Any], need: tuple[bool, bool, bool]
    ) -> tuple[Array | None, Array | None, Array | None]:
        return _FUNCTIONS[self.rank].backward(gradient, images, weight, **options, need=need)

    def _options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "groups": self.groups,
            "dilation": self.dilation,
        }


class Conv1DTranspose(_ConvTranspose):
    """A one-dimensional transposed convolution with weights: `Conv2DTranspose` of sequences.

    Parameters
    ----------
    n_filters, groups : int
    filter_shape : int
        Taps of a filter.
    input_shape : (int, int), optional
        Channels and length of one input.
    padding, stride, output_padding, dilation
        In any form that `conv_transpose1d` takes.
    dtype, rng, initializer
        As `Conv2DTranspose`.

    Attributes
    ----------
    W : ndarray, (C, F // groups, K)
        As PyTorch's `ConvTranspose1d.weight`.
    w0 : ndarray, (F, 1)
    W_opt, w0_opt, trainable
        As `Conv2DTranspose`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Conv1DTranspose
    >>> layer = Conv1DTranspose(4, 3, input_shape=(8, 50), stride=2, output_padding=1, rng=0)
    >>> layer.initialize(None)
    >>> layer.forward_pass(np.zeros((1, 8, 50))).shape, layer.W.shape
    ((1, 4, 100), (8, 4, 3))
    """

    rank = 1
    __init__ = public_as("Conv1DTranspose")(_ConvTranspose.__init__)


class Conv2DTranspose(_ConvTranspose):
    """A two-dimensional transposed convolution with weights: what a decoder makes images larger with.

    Parameters
    ----------
    n_filters : int
        Output channels.
    filter_shape : (int, int)
        Height and width of a filter.
    input_shape : (int, int, int), optional
        Channels, height and width of one input; needed before `initialize`, given by a `Sequential` for all layers but
        the first. Inputs of another height and width are taken, too.
    padding
        What is cut off, in any form that `conv_transpose2d` takes. `"same"` undoes the `"same"` of a `Conv2D`, up to
        `output_padding`; `"same_upper"` and `"same_lower"` give an output of size times stride.
    stride, dilation : int or (int, int)
    output_padding : int or (int, int)
        Pixels added at the end, fewer than stride or dilation.
    groups : int
    dtype : float32 or float64
        Of the weights. Outputs follow `np.result_type(X, W)`.
    rng : numpy.random.Generator or int, optional
        Where the weights are drawn from; NumPy's global state if not given.
    initializer : {"uniform", "glorot", "he"}
        `"uniform"` draws from ±1/sqrt(KH*KW), as `Conv2D`. The others count the taps of `C // groups` channels in and
        `n_filters // groups` out, as for a convolution of stride 1.

    Attributes
    ----------
    W : ndarray, (C, F // groups, KH, KW)
        As PyTorch's `ConvTranspose2d.weight`.
    w0 : ndarray, (F, 1)
    W_opt, w0_opt
        Copies of the optimizer given to `initialize`.
    trainable : bool
        Whether `backward_pass` updates the weights.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Notes
    -----
    As `Conv2D`: `forward_pass` keeps its input, and with `training=False` nothing. `backward_pass` returns the gradient
    with respect to that input, computed with the weights and options of the forward pass, then updates. One layer
    serves many threads for inference; training it is one thread's business.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SGD, Conv2DTranspose
    >>> layer = Conv2DTranspose(8, (3, 3), input_shape=(16, 7, 7), stride=2, output_padding=1, rng=0)
    >>> layer.initialize(SGD(0.01))
    >>> y = layer.forward_pass(np.zeros((1, 16, 7, 7)))
    >>> y.shape, layer.W.shape, layer.parameters()
    ((1, 8, 14, 14), (16, 8, 3, 3), 1160)
    >>> layer.backward_pass(y).shape
    (1, 16, 7, 7)
    """

    rank = 2
    __init__ = public_as("Conv2DTranspose")(_ConvTranspose.__init__)


class Conv3DTranspose(_ConvTranspose):
    """A three-dimensional transposed convolution with weights: `Conv2DTranspose` of volumes.

    Parameters
    ----------
    n_filters, groups : int
    filter_shape : int or (int, int, int)
        Depth, height and width of a filter.
    input_shape : (int, int, int, int), optional
        Channels, depth, height and width of one input.
    padding, stride, output_padding, dilation
        In any form that `conv_transpose3d` takes.
    dtype, rng, initializer
        As `Conv2DTranspose`.

    Attributes
    ----------
    W : ndarray, (C, F // groups, KD, KH, KW)
        As PyTorch's `ConvTranspose3d.weight`.
    w0 : ndarray, (F, 1)
    W_opt, w0_opt, trainable
        As `Conv2DTranspose`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Conv3DTranspose
    >>> layer = Conv3DTranspose(2, (1, 3, 3), input_shape=(4, 2, 5, 5), stride=(1, 2, 2), rng=0)
    >>> layer.initialize(None)
    >>> layer.forward_pass(np.zeros((1, 4, 2, 5, 5))).shape, layer.W.shape
    ((1, 2, 2, 9, 9), (4, 2, 1, 3, 3))
    """

    rank = 3
    __init__ = public_as("Conv3DTranspose")(_ConvTranspose.__init__)
