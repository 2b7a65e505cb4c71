"""Activations: a row is a name, a function and its gradient.

All are stable: no overflow, no warning, for any finite input. float32 stays float32.
Source: the text's `activation_functions`; D.-A. Clevert et al. (2016) for elu, G. Klambauer et al. (2017) for selu.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..algorithms.activations import ELU, LEAKY_RELU, NUMPYS, RELU, SIGMOID, SOFTPLUS, TANH, Passes
from ..functional.front_door import public
from ..parsing import describe
from ..typing import Array
from .base import Layer, Shape, as_batch, check_grad, floating
from .passes import compiled, has_rows, pointwise, softmax_gradient_of_rows, softmax_of_rows
from .slices import in_slices

LEAK = 0.2
ELU_ALPHA = 0.1
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


class RowPasses(NamedTuple):
    """The compiled passes of a function of whole rows: `forward(name, x)` and `backward(name, y, dy)`."""

    forward: Callable[[str, Array], Array]
    backward: Callable[[str, Array, Array], Array]


class Row(NamedTuple):
    """An activation: `gradient(x, y, dy)` is the gradient in `x` where `y = function(x)`.

    The functions are NumPy's way; `passes` are compiled, with the same `constants`. `inner` is a function of `x` that
    is always NumPy's; what it gives is the second argument of `function` and of the compiled pass. Where `by_output` is
    set, the gradient does not need `x` and is given `y` twice: so inputs need not be kept, and their memory serves the
    layers behind.
    """

    title: str
    function: Callable[..., Array]
    gradient: Callable[[Array, Array, Array], Array]
    passes: Passes = NUMPYS
    constants: tuple[float, ...] = ()
    by_output: bool = False
    inner: Callable[[Array], Array] | None = None
    of_rows: RowPasses | None = None


def _exp_of_negative(x: Array) -> Array:
    """exp(-|x|), which cannot overflow."""
    z = np.abs(x)
    return np.exp(np.negative(z, out=z), out=z)


def _expm1_below_zero(x: Array) -> Array:
    """exp(min(x, 0)) - 1."""
    z = np.minimum(x, 0)
    return np.expm1(z, out=z)


def _log1p_exp_of_negative(x: Array) -> Array:
    """log(1 + exp(-|x|))."""
    z = _exp_of_negative(x)
    return np.log1p(z, out=z)


def _softplus_gradient(x: Array, y: Array, dy: Array) -> Array:
    """dy / (1 + exp(-x)), which is dy * (1 - exp(-y)), right for small `y`, too."""
    slope = np.negative(y)
    np.negative(np.expm1(slope, out=slope), out=slope)
    return slope * dy


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis, shifted so that the largest exponent is 0."""
    with np.errstate(over="ignore"):  # of the largest numbers of either sign, whose exponential is 0 all the same
        z = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))  # also of rows without entries
    y: Array = z / z.sum(axis=-1, keepdims=True)
    return y


def _softmax_gradient(x: Array, y: Array, dy: Array) -> Array:
    dx: Array = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return dx


def _elu(x: Array, z: Array, scale: float, slope: float) -> Array:
    return np.where(x >= 0, scale * x, slope * z)


ACTIVATIONS: dict[str, Row] = {
    "relu": Row("ReLU", lambda x: np.maximum(x, 0), lambda x, y, dy: np.where(x > 0, dy, 0), RELU, by_output=True),
    "leaky_relu": Row(
        "LeakyReLU",
        lambda x: np.where(x >= 0, x, LEAK * x),
        lambda x, y, dy: np.where(x >= 0, dy, LEAK * dy),
        LEAKY_RELU,
        (LEAK,),
    ),
    "sigmoid": Row(
        "Sigmoid",
        lambda x, z: np.where(x >= 0, 1, z) / (1 + z),
        lambda x, y, dy: dy * y * (1 - y),
        SIGMOID,
        by_output=True,
        inner=_exp_of_negative,
    ),
    "tanh": Row("TanH", np.tanh, lambda x, y, dy: dy * (1 - y * y), TANH, by_output=True),
    "softmax": Row(
        "Softmax",
        softmax,
        _softmax_gradient,
        by_output=True,
        of_rows=RowPasses(softmax_of_rows, softmax_gradient_of_rows),
    ),
    "elu": Row(
        "ELU",
        lambda x, z: _elu(x, z, 1.0, ELU_ALPHA),
        lambda x, y, dy: np.where(x >= 0, dy, dy * (y + ELU_ALPHA)),
        ELU,
        (1.0, ELU_ALPHA),
        inner=_expm1_below_zero,
    ),
    "selu": Row(
        "SELU",
        lambda x, z: _elu(x, z, SELU_SCALE, SELU_SCALE * SELU_ALPHA),
        lambda x, y, dy: np.where(x >= 0, SELU_SCALE * dy, dy * (y + SELU_SCALE * SELU_ALPHA)),
        ELU,
        (SELU_SCALE, SELU_SCALE * SELU_ALPHA),
        inner=_expm1_below_zero,
    ),
    "softplus": Row(
        "SoftPlus",
        lambda x, z: np.maximum(x, 0) + z,
        _softplus_gradient,
        SOFTPLUS,
        by_output=True,
        inner=_log1p_exp_of_negative,
    ),
}


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"Activation: name must be a string, got {describe(name)}")
    if name not in ACTIVATIONS:
        raise ValueError(f"Activation: name must be one of {', '.join(map(repr, ACTIVATIONS))}, got {name!r}")


class Activation(Layer):
    """A function of each value; for softmax, of each row.

    Parameters
    ----------
    name : str
        `"relu"`, `"leaky_relu"` (slope 0.2), `"sigmoid"`, `"tanh"`, `"softmax"` (over the last axis), `"elu"`
        (alpha 0.1, the original text's), `"selu"` or `"softplus"`.

    Raises
    ------
    ValueError, TypeError
        For a name that is not known.

    Notes
    -----
    The gradient of softmax is the product with its Jacobian. Before a cross-entropy the `Sequential` goes around it,
    see `CrossEntropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Activation
    >>> Activation("relu").forward_pass(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    @public
    def __init__(self, name: str) -> None:
        self.activation_name = name

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "activation_name":
            _check_name(value)
        super().__setattr__(name, value)

    def layer_name(self) -> str:
        """The name in a summary."""
        return f"Activation ({ACTIVATIONS[self.activation_name].title})"

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The function of `X`, in its dtype; integers become float64."""
        x = floating("Activation.forward_pass", "X", as_batch("Activation.forward_pass", X))
        name, here = self.activation_name, "Activation.forward_pass"
        row = ACTIVATIONS[name]
        inputs = (x,) if row.inner is None else (x, in_slices(here, row.inner, x))
        if row.of_rows is not None and has_rows(x):
            y = row.of_rows.forward(here, x)
        elif row.passes.forward is not None and compiled(x):
            y = pointwise(here, row.passes.forward, row.constants, *inputs)
        else:  # some need whole rows
            y = in_slices(here, lambda *inputs: np.asarray(row.function(*inputs), x.dtype), *inputs, keep=x.ndim - 1)
        kept = (y if row.by_output else x, y) if training else None
        self.__dict__.update(_kept_pass=kept, _name_used=name)
        return y

    def backward_pass(self, accum_grad: Array) -> Array:
        """The gradient with respect to the last input."""
        x, y = self._kept("_kept_pass")
        dy = floating("Activation.backward_pass", "accum_grad", check_grad("Activation", accum_grad, y.shape))
        row = ACTIVATIONS[self._kept("_name_used")]
        if row.of_rows is not None and has_rows(y, dy):
            return row.of_rows.backward("Activation.backward_pass", y, dy)
        if row.passes.backward is not None and compiled(x, y, dy):
            return pointwise("Activation.backward_pass", row.passes.backward, row.constants, x, y, dy)
        return in_slices("Activation.backward_pass", row.gradient, x, y, dy, keep=x.ndim - 1)

    def output_shape(self) -> Shape:
        """The input's shape."""
        return self._needed_input_shape("output_shape")
