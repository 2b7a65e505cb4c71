"""The convolution layer: weights and optimizer state around `conv2d`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..algorithms import check_name
from ..functional import conv2d, conv2d_backward, conv2d_plan
from ..functional.front_door import public
from ..functional.padding import check_mode
from ..functional.plan import Conv2DPlan
from ..geometry import conv2d_geometry
from ..parsing import as_index, as_padding, as_pair, as_positive, as_window, shown
from ..typing import Array, DTypeLike, IntOrPair, Padding
from .base import Layer, Shape, as_batch, check_grad
from .initializers import LIMITS, as_rng, as_weight_dtype, check_initializer, draw


class Conv2D(Layer):
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
    to that input, computed with the weights of the forward pass, then updates. One layer serves many threads for
    inference; training it is one thread's business.

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

    weight_names: ClassVar[tuple[str, ...]] = ("W", "w0")
    frozen_names: ClassVar[tuple[str, ...]] = (
        "stride", "padding", "dilation", "groups", "padding_mode", "algorithm"
    )  # fmt: skip

    W: Array
    w0: Array
    _plan: Conv2DPlan | None = None

    @public
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
        name = "Conv2D"
        self.n_filters = as_positive(name, "n_filters", n_filters)
        self.filter_shape = as_pair(name, "filter_shape", filter_shape, 1)
        window = as_window(name, self.filter_shape, stride, dilation)
        # With an image as large as any, all names of paddings are known.
        as_padding(name, padding, window, (1 << 20, 1 << 20))
        check_mode(name, padding_mode, "padding_mode")
        check_name(name, algorithm)
        self.padding = padding
        self.stride = stride
        self.dilation = dilation
        self.groups = as_positive(name, "groups", groups)
        if self.n_filters % self.groups:
            raise ValueError(f"{name}: groups={self.groups} must divide n_filters={self.n_filters}")
        self.padding_mode = padding_mode
        self.algorithm = algorithm
        self.dtype = as_weight_dtype(name, dtype)
        self.rng = as_rng(name, rng)
        self.initializer = check_initializer(name, initializer)
        self.input_shape = None if input_shape is None else _image_shape(input_shape)
        self.trainable = True

    def set_input_shape(self, shape: Shape) -> None:
        """Set channels, height and width of one input."""
        self.input_shape = _image_shape(shape)

    def initialize(self, optimizer: Any) -> None:
        """Draw the weights, and give each a copy of the optimizer; None is fine for inference."""
        channels = self._needed_input_shape("initialize")[0]
        if channels % self.groups:
            raise ValueError(
                f"Conv2D.initialize: groups={self.groups} must divide the channels of input_shape {self.input_shape}"
            )
        taps = self.filter_shape[0] * self.filter_shape[1]
        group_in = channels // self.groups
        limit = LIMITS[self.initializer](max(group_in * taps, 1), self.n_filters // self.groups * taps, taps)
        weights = draw("Conv2D.initialize", limit, (self.n_filters, group_in, *self.filter_shape), self.rng, self.dtype)
        self._start(optimizer, W=weights, w0=np.zeros((self.n_filters, 1), self.dtype))

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """`conv2d` of the images `X` (N, C, H, W) with the layer's weights."""
        self._initialized("forward_pass")
        images = as_batch("Conv2D.forward_pass", X, 4)
        channels = self.W.shape[1] * self.groups
        if images.shape[1] != channels:
            raise ValueError(
                f"Conv2D.forward_pass: the layer has weights for {channels} input channels, but X has "
                f"{images.shape[1]}: X {images.shape}, W {self.W.shape}"
            )
        weight, plan = self.W, None if training else self._plan
        y = conv2d(images, weight, self.w0.reshape(-1), **self._options()) if plan is None else plan(images)
        # Committed together: an interrupt between input and weights would mix two passes.
        self.__dict__.update(
            layer_input=images if training else None,
            _weight_used=weight if training else None,
            _output_shape=y.shape,
        )
        return y

    def backward_pass(self, accum_grad: Array, need_input: bool = True) -> Any:
        """The gradient with respect to the last input; then the weights are updated, if the layer is trainable.

        Without `need_input` that gradient is not computed, and None returned.
        """
        if self.trainable:
            self._refuse_if_frozen("backward_pass", "its weights cannot be updated")
        images, weight = self._kept("layer_input"), self._kept("_weight_used")
        gradient = check_grad("Conv2D", accum_grad, self.__dict__["_output_shape"])
        need = (need_input, self.trainable, self.trainable)
        dx, dw, db = conv2d_backward(gradient, images, weight, **self._options(), need=need)
        if dw is not None and db is not None:
            self._update(W=dw, w0=db.reshape(-1, 1))
        return dx

    def output_shape(self) -> Shape:
        """Filters, height and width of one output, for inputs of `input_shape`."""
        channels, height, width = self._needed_input_shape("output_shape")
        weight_shape = (self.n_filters, channels // self.groups, *self.filter_shape)
        options = (self.stride, self.padding, self.dilation, self.groups)
        return conv2d_geometry("Conv2D.output_shape", (1, channels, height, width), weight_shape, *options).y_shape[1:]

    def _as_frozen(self) -> dict[str, Any]:
        plan = conv2d_plan(self.W, self.w0.reshape(-1), **self._options())
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


def _image_shape(shape: Any) -> Shape:
    try:
        channels, height, width = shape
    except (TypeError, ValueError):
        raise ValueError(f"Conv2D: input_shape must be (channels, height, width), got {shown(shape)}") from None
    sizes = tuple(as_index("Conv2D", "input_shape", size, "three ints") for size in (channels, height, width))
    if min(sizes) < 0:
        raise ValueError(f"Conv2D: input_shape must be three ints >= 0, got {shown(shape)}")
    return sizes
