"""The convolution layers: weights and optimizer state around `conv2d` and its siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..algorithms import check_algorithm
from ..functional import (
    conv1d,
    conv1d_backward,
    conv1d_plan,
    conv2d,
    conv2d_backward,
    conv2d_plan,
    conv3d,
    conv3d_backward,
    conv3d_plan,
)
from ..functional.front_door import public_as
from ..functional.padding import check_mode
from ..functional.plan import Conv1DPlan, Conv2DPlan, Conv3DPlan
from ..geometry import conv_geometry
from ..parsing import LARGE_IMAGE, as_padding, as_window
from ..typing import Array, DTypeLike, IntOrPair, Padding
from .base import Shape
from .convolving import Convolving

AnyPlan = Conv1DPlan | Conv2DPlan | Conv3DPlan


class _Functions(NamedTuple):
    """What a layer computes with."""

    forward: Callable[..., Array]
    backward: Callable[..., tuple[Array | None, Array | None, Array | None]]
    plan: Callable[..., AnyPlan]


_FUNCTIONS = {
    1: _Functions(conv1d, conv1d_backward, conv1d_plan),
    2: _Functions(conv2d, conv2d_backward, conv2d_plan),
    3: _Functions(conv3d, conv3d_backward, conv3d_plan),
}


class _Conv(Convolving):
    """A convolution with weights, of images of the layer's rank."""

    frozen_names: ClassVar[tuple[str, ...]] = (
        "stride", "padding", "dilation", "groups", "padding_mode", "algorithm"
    )  # fmt: skip

    _plan: AnyPlan | None = None

    def __init__(
        self,
        n_filters: int,
        filter_shape: IntOrPair,
        input_shape: Shape | None = None,
        padding: Padding = "same",
        stride: IntOrPair = 1,
        *,
        dilation: IntOrPair = 1,
        groups: int = 1,
        padding_mode: str = "constant",
        dtype: DTypeLike = np.float64,
        rng: np.random.Generator | int | None = None,
        initializer: str = "uniform",
        algorithm: str = "auto",
    ) -> None:
        name = type(self).__name__
        self._configure(
            n_filters, filter_shape, input_shape, padding, stride, dilation, groups, dtype, rng, initializer
        )  # fmt: skip
        window = as_window(name, self.filter_shape, stride, dilation, self.rank)
        # With an image as large as any, all names of paddings are known.
        as_padding(name, padding, window, (LARGE_IMAGE,) * self.rank)
        check_mode(name, "padding_mode", padding_mode)
        check_algorithm(name, algorithm)
        self.padding_mode = padding_mode
        self.algorithm = algorithm

    def output_shape(self) -> Shape:
        """Filters and sizes of one output, for inputs of `input_shape`."""
        shape = self._needed_input_shape("output_shape")
        name, options = f"{type(self).__name__}.output_shape", (self.stride, self.padding, self.dilation, self.groups)
        return conv_geometry(name, (1, *shape), self._weight_shape(shape[0]), *options).y_shape[1:]

    def _weight_shape(self, channels: int) -> Shape:
        return self.n_filters, channels // self.groups, *self.filter_shape

    def _weight_channels(self) -> int:
        return int(self.W.shape[1]) * self.groups

    def _result(self, images: Array, weight: Array, options: dict[str, Any], training: bool) -> Array:
        plan = None if training else self._plan
        if plan is not None:
            return plan(images)
        return _FUNCTIONS[self.rank].forward(images, weight, self.w0.reshape(-1), **options)

    def _gradients(
        self, gradient: Array, images: Array, weight: Array, options: dict[str, Any], need: tuple[bool, bool, bool]
    ) -> tuple[Array | None, Array | None, Array | None]:
        return _FUNCTIONS[self.rank].backward(gradient, images, weight, **options, need=need)

    def _as_frozen(self) -> dict[str, Any]:
        plan = _FUNCTIONS[self.rank].plan(self.W, self.w0.reshape(-1), **self._options())
        assert plan.bias is not None
        return {"W": plan.weight, "w0": plan.bias.reshape(-1, 1), "_plan": plan, "_frozen": True}

    def _as_thawed(self) -> dict[str, Any]:
        return {**super()._as_thawed(), "_plan": None}

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        kept = {name: value for name, value in (attributes or {}).items() if name != "_plan"}
        return kept if slots is None else (kept, slots)

    def _options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "algorithm": self.algorithm,
        }


class Conv1D(_Conv):
    """A one-dimensional convolution with weights: `Conv2D` of sequences.

    Parameters
    ----------
    n_filters : int
        Output channels.
    filter_shape : int
        Taps of a filter.
    input_shape : (int, int), optional
        Channels and length of one input, as `Conv2D` needs them. Inputs of another length are taken, too.
    padding
        `"same"`, `"valid"` or any other form that `conv1d` takes.
    stride, dilation, groups : int
    padding_mode, algorithm, dtype, rng, initializer
        As `Conv2D`; `"uniform"` draws from ±1/sqrt(K).

    Attributes
    ----------
    W : ndarray, (F, C // groups, K)
    w0 : ndarray, (F, 1)
    W_opt, w0_opt, trainable
        As `Conv2D`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SGD, Conv1D
    >>> layer = Conv1D(n_filters=8, filter_shape=5, input_shape=(2, 100), stride=2, rng=0)
    >>> layer.initialize(SGD(0.01))
    >>> y = layer.forward_pass(np.zeros((1, 2, 100)))
    >>> y.shape, layer.parameters()
    ((1, 8, 50), 88)
    >>> layer.backward_pass(y).shape
    (1, 2, 100)
    """

    rank = 1
    __init__ = public_as("Conv1D")(_Conv.__init__)


class Conv2D(_Conv):
    """A two-dimensional convolution with weights.

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
        `"same"`, `"valid"` or any other form that `conv2d` takes.
    stride, dilation : int or (int, int)
    groups : int
    padding_mode, algorithm : str
        As `conv2d`.
    dtype : float32 or float64
        Of the weights. Outputs follow `np.result_type(X, W)`.
    rng : numpy.random.Generator or int, optional
        Where the weights are drawn from; NumPy's global state, as in the original text, if not given.
    initializer : {"uniform", "glorot", "he"}
        `"uniform"` draws from ±1/sqrt(KH*KW), as the original text does.

    Attributes
    ----------
    W : ndarray, (F, C // groups, KH, KW)
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
    `forward_pass` keeps its input, and with `training=False` nothing. `backward_pass` returns the gradient with respect
    to that input, computed with the weights and options of the forward pass, then updates. One layer serves many
    threads for inference; training it is one thread's business.

    Source: E. Linder-Norén, "ML-From-Scratch" (MIT licence), `deep_learning/layers.py`, whose calls run unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SGD, Conv2D
    >>> layer = Conv2D(n_filters=16, filter_shape=(3, 3), input_shape=(3, 32, 32), rng=0)
    >>> layer.initialize(SGD(0.01))
    >>> y = layer.forward_pass(np.zeros((1, 3, 32, 32)))
    >>> y.shape, layer.parameters()
    ((1, 16, 32, 32), 448)
    >>> layer.backward_pass(y).shape
    (1, 3, 32, 32)
    """

    rank = 2
    __init__ = public_as("Conv2D")(_Conv.__init__)


class Conv3D(_Conv):
    """A three-dimensional convolution with weights: `Conv2D` of volumes.

    Parameters
    ----------
    n_filters : int
        Output channels.
    filter_shape : int or (int, int, int)
        Depth, height and width of a filter.
    input_shape : (int, int, int, int), optional
        Channels, depth, height and width of one input, as `Conv2D` needs them. Inputs of other sizes are taken, too.
    padding
        `"same"`, `"valid"` or any other form that `conv3d` takes.
    stride, dilation : int or (int, int, int)
    groups : int
    padding_mode, algorithm, dtype, rng, initializer
        As `Conv2D`; `"uniform"` draws from ±1/sqrt(KD*KH*KW).

    Attributes
    ----------
    W : ndarray, (F, C // groups, KD, KH, KW)
    w0 : ndarray, (F, 1)
    W_opt, w0_opt, trainable
        As `Conv2D`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SGD, Conv3D
    >>> layer = Conv3D(n_filters=4, filter_shape=3, input_shape=(1, 4, 6, 6), stride=(1, 2, 2), rng=0)
    >>> layer.initialize(SGD(0.01))
    >>> y = layer.forward_pass(np.zeros((1, 1, 4, 6, 6)))
    >>> y.shape, layer.parameters()
    ((1, 4, 4, 3, 3), 112)
    >>> layer.backward_pass(y).shape
    (1, 1, 4, 6, 6)
    """

    rank = 3
    __init__ = public_as("Conv3D")(_Conv.__init__)
