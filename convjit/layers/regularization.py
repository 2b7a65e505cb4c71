"""Layers that behave differently in training: dropout and batch normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..arrays import converted, sums_dtype
from ..functional.front_door import public
from ..runtime.memory import allocate
from ..typing import Array, Updates
from .base import Layer, Shape, as_batch, check_grad, floating
from .initializers import as_rng
from .normalising import gradient_sums, input_gradient, normalised, scaled, statistics
from .optimizers import ANY, SHARE, Range
from .slices import check_result, in_slices


class Dropout(Layer):
    """Zeros a share `p` of the values in training and scales the others by `1 / (1 - p)`.

    The original text scales by `1 - p` at inference instead; expected values are the same in both.
    Source: N. Srivastava et al., "Dropout" (2014).

    Parameters
    ----------
    p : float
        0 <= p < 1.
    rng : numpy.random.Generator or int, optional
        NumPy's global state if not given.

    Raises
    ------
    TypeError, ValueError
        For a `p` of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Dropout
    >>> Dropout(0.5, rng=0).forward_pass(np.ones((1, 4)))
    array([[2., 0., 0., 0.]])
    """

    _ranges: ClassVar[dict[str, Range]] = {"p": SHARE}

    @public
    def __init__(self, p: float = 0.2, *, rng: np.random.Generator | int | None = None) -> None:
        self.p = p
        self.rng = as_rng("Dropout", rng)

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """`X` with values dropped; at inference, `X`."""
        x = floating("Dropout.forward_pass", "X", as_batch("Dropout.forward_pass", X))
        if not training:
            self._scale = None
            return x
        source: Any = np.random if self.rng is None else self.rng

        def drawn(x: Array) -> Array:
            kept: Array = source.random(x.shape) >= self.p
            scale: Array = kept.astype(x.dtype) / x.dtype.type(1 - self.p)
            return scale

        self._scale = in_slices("Dropout.forward_pass", drawn, x)
        return in_slices("Dropout.forward_pass", np.multiply, x, self._scale)

    def backward_pass(self, accum_grad: Array) -> Array:
        """The gradient of the values that were not dropped."""
        scale = self._kept("_scale")
        return in_slices("Dropout.backward_pass", np.multiply, check_grad("Dropout", accum_grad, scale.shape), scale)

    def output_shape(self) -> Shape:
        """The input's shape."""
        return self._needed_input_shape("output_shape")


class BatchNormalization(Layer):
    """Normalises each channel (of images) or feature (of rows) over the batch.

    A frozen one uses the running statistics, also in training. The original text's layer normalises every pixel by
    itself, with 0.01 added to the variance: its numbers are others.

    Source: S. Ioffe, C. Szegedy, "Batch Normalization" (2015), algorithm 1.

    Parameters
    ----------
    momentum : float
        Of the running mean and variance that inference uses: `running = momentum * running + (1 - momentum) * batch`.
        They begin with those of the first batch, and variances are the batch's own; PyTorch's begin with 0 and 1, and
        are of variances that are m / (m - 1) times as large, for m numbers a channel.
    eps : float
        Added to the variance.

    Attributes
    ----------
    gamma, beta : ndarray, (C,)
    running_mean, running_var : ndarray, (C,)
        None before the first training batch: inference then takes 0 and 1.

    Raises
    ------
    TypeError, ValueError
        For hyperparameters of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import BatchNormalization
    >>> layer = BatchNormalization()
    >>> layer.set_input_shape((2,))
    >>> layer.initialize(None)
    >>> layer.forward_pass(np.array([[1.0, 5.0], [3.0, 5.0]])).round(3)
    array([[-1.,  0.],
           [ 1.,  0.]])
    """

    weight_names: ClassVar[tuple[str, ...]] = ("gamma", "beta")
    buffer_names: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    frozen_names: ClassVar[tuple[str, ...]] = ("momentum", "eps", "running_mean", "running_var")
    _ranges: ClassVar[dict[str, Range]] = {"momentum": SHARE, "eps": ANY}

    gamma: Array
    beta: Array

    @public
    def __init__(self, momentum: float = 0.99, *, eps: float = 1e-5) -> None:
        self.momentum = momentum
        self.eps = eps
        self.running_mean: Array | None = None
        self.running_var: Array | None = None
        self.trainable = True

    def initialize(self, optimizer: Updates | None) -> None:
        """Start with scale 1 and shift 0, and give each a copy of the optimizer; None is fine for inference."""
        shape = self._needed_input_shape("initialize")
        if not shape:
            raise ValueError("BatchNormalization.initialize: input_shape must be (channels, ...), got ()")
        gamma, beta = (
            allocate("BatchNormalization.initialize", "a weight", shape[:1], np.dtype(np.float64))
            for _ in self.weight_names
        )
        gamma.fill(1)
        beta.fill(0)
        self._start(optimizer, gamma=gamma, beta=beta)

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """`gamma * (X - mean) / sqrt(var + eps) + beta`, with the batch's or the running statistics."""
        self._initialized("forward_pass")
        name = "BatchNormalization.forward_pass"
        given = floating(name, "X", as_batch(name, X))
        x = converted(name, "a copy of X", given, sums_dtype(given.dtype))  # squares of float16 leave its range
        if x.shape[1] != self.gamma.size:
            raise ValueError(f"{name}: the layer has {self.gamma.size} channels, but X has {x.shape[1]}: X {x.shape}")
        for each in (*self.weight_names, *self.buffer_names):
            held = getattr(self, each)
            if held is not None and np.shape(held) != x.shape[1:2]:
                raise ValueError(
                    f"{name}: {each} must have shape {x.shape[1:2]}, a number a channel of X {x.shape}, "
                    f"got {np.shape(held)}"
                )
        use_batch = training and self.trainable and not self.frozen
        if use_batch and (x.shape[0] == 0 or 0 in x.shape[2:]):
            raise ValueError(f"{name}: cannot train on an empty batch")
        changes: dict[str, Any] = {}  # of no statistics at inference: another thread may be loading some
        if use_batch:
            check_result(name, x)
            mean, var = statistics(x)
            changes["running_mean"], changes["running_var"] = self._running(mean, var)
        else:
            running = self.running_mean, self.running_var
            mean = np.zeros(x.shape[1], x.dtype) if running[0] is None else running[0]
            var = np.ones(x.shape[1], x.dtype) if running[1] is None else running[1]
        scale = 1 / np.sqrt(var + self.eps)
        y = normalised(x, mean, scale, self.gamma, self.beta)
        y = converted(name, "the result", y, given.dtype)
        kept = (x, mean, scale, self.gamma, use_batch) if training else None
        self.__dict__.update(changes, _kept_pass=kept)
        return y

    def _running(self, mean: Array, var: Array) -> tuple[Array, Array]:
        """The running mean and variance after a batch with these."""
        if self.running_mean is None or self.running_var is None:
            return mean, var
        keep, take = self.momentum, 1 - self.momentum
        return keep * self.running_mean + take * mean, keep * self.running_var + take * var

    def backward_pass(self, accum_grad: Array) -> Array:
        """The gradient with respect to the last input; then scale and shift are updated, if the layer is trainable."""
        if self.trainable:
            self._refuse_if_frozen("backward_pass", "its weights cannot be updated")
        x, center, scale, gamma, use_batch = self._kept("_kept_pass")
        name = "BatchNormalization.backward_pass"
        given = floating(name, "accum_grad", check_grad("BatchNormalization", accum_grad, x.shape))
        dy = converted(name, "a copy of accum_grad", given, sums_dtype(given.dtype))
        grad_beta, products = gradient_sums(dy, x, center)
        grad_gamma = products * scale
        if use_batch:
            count = dy.size // dy.shape[1]
            dx = input_gradient(dy, x, center, scale, gamma, grad_beta / count, grad_gamma / count)
        else:
            dx = scaled(dy, gamma * scale)
        dx = converted(name, "the gradient", dx, given.dtype)
        if self.trainable:
            self._update(gamma=grad_gamma, beta=grad_beta)
        return dx

    def output_shape(self) -> Shape:
        """The input's shape."""
        return self._needed_input_shape("output_shape")
