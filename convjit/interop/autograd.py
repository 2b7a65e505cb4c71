"""Convolution and pooling for HIPS `autograd`, differentiable as often as one likes.

Knows which of convjit's functions are derivatives of which: the three operations of a convolution are linear in each of
two arguments, and each is the derivative of the two others. Does not know how sums are computed.
Source: D. Maclaurin, D. Duvenaud, R. P. Adams, "Autograd" (2015); package `autograd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import convjit

from ..extras import needed
from ..typing import Array, IntOrPair, Padding

with needed("convjit.interop.autograd"):
    import autograd.numpy as anp
    from autograd.extend import defjvp, defvjp, primitive
    from autograd.tracer import getval, isbox

__all__ = ["avg_pool2d", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "max_pool2d"]

Options = dict[str, Any]


# --- convolutions ---------------------------------------------------------------------------------------------------


class Operations(NamedTuple):
    """A convolution and its derivatives, as primitives.

    `forward(x, weight, bias, options)`, `input_grad(dy, weight, size, options)`, `weight_grad(dy, x, size, options)`,
    where `size` are the last two extents of what is returned.
    """

    forward: Any
    input_grad: Any
    weight_grad: Any


def _operations(
    forward: Callable[..., Array], input_grad: Callable[..., Array], weight_grad: Callable[..., Array]
) -> Operations:
    """Primitives that know each other as derivatives.

    In complex numbers the two gradients conjugate what they are given beside `dy`, and autograd's derivatives conjugate
    nothing, which explains every `_conj` below.
    """
    ops = Operations(primitive(forward), primitive(input_grad), primitive(weight_grad))

    def to_input(dy: Any, x: Any, weight: Any, options: Options) -> Any:
        return _like(x, ops.input_grad(dy, _conj(weight), anp.shape(x)[-2:], options))

    def to_weight(dy: Any, x: Any, weight: Any, options: Options) -> Any:
        return _like(weight, ops.weight_grad(dy, _conj(x), anp.shape(weight)[-2:], options))

    defvjp(
        ops.forward,
        lambda y, x, weight, bias, options: lambda g: to_input(g, x, weight, options),
        lambda y, x, weight, bias, options: lambda g: to_weight(g, x, weight, options),
        lambda y, x, weight, bias, options: lambda g: _like(bias, anp.sum(g, axis=_all_but_channels(g))),
    )
    defvjp(
        ops.input_grad,
        lambda dx, dy, weight, size, options: lambda g: _like(dy, ops.forward(g, _conj(weight), None, options)),
        lambda dx, dy, weight, size, options: lambda g: _conj(to_weight(dy, g, weight, options)),
    )
    defvjp(
        ops.weight_grad,
        lambda dw, dy, x, size, options: lambda g: _like(dy, ops.forward(_conj(x), g, None, options)),
        lambda dw, dy, x, size, options: lambda g: _conj(to_input(dy, x, g, options)),
    )
    defjvp(
        ops.forward,
        lambda t, y, x, weight, bias, options: ops.forward(t, weight, None, options),
        lambda t, y, x, weight, bias, options: ops.forward(x, t, None, options),
        lambda t, y, x, weight, bias, options: _over_pixels(t, anp.shape(y)),
    )
    for gradient in (ops.input_grad, ops.weight_grad):
        defjvp(
            gradient,
            lambda t, result, dy, other, size, options, gradient=gradient: gradient(t, other, size, options),
            lambda t, result, dy, other, size, options, gradient=gradient: gradient(dy, t, size, options),
        )
    return ops


def _all_but_channels(y: Any) -> tuple[int, ...]:
    return (0, 2, 3) if anp.ndim(y) == 4 else (1, 2)


def _over_pixels(bias: Any, shape: tuple[int, ...]) -> Any:
    return anp.broadcast_to(anp.reshape(bias, (*(1,) * (len(shape) - 3), -1, 1, 1)), shape)


def _conj(array: Any) -> Any:
    return anp.conj(array) if anp.iscomplexobj(array) else array


def _like(argument: Any, gradient: Any) -> Any:
    """The gradient of a real argument is real."""
    return anp.real(gradient) if anp.iscomplexobj(gradient) and not anp.iscomplexobj(argument) else gradient


def _placeholder(*shape: int) -> Array:
    """An array of which nothing but the shape will be read, and which adds nothing to a result's dtype."""
    return np.broadcast_to(np.False_, shape)


def _transposed_input_grad(dy: Array, weight: Array, size: tuple[int, int], options: Options) -> Array:
    x = _placeholder(*dy.shape[:-3], weight.shape[0], *size)
    gradient = convjit.conv_transpose2d_backward(dy, x, weight, **options, need=(True, False, False))[0]
    assert gradient is not None
    return gradient


def _transposed_weight_grad(dy: Array, x: Array, size: tuple[int, int], options: Options) -> Array:
    weight = _placeholder(x.shape[-3], dy.shape[-3] // options["groups"], *size)
    gradient = convjit.conv_transpose2d_backward(dy, x, weight, **options, need=(False, True, False))[1]
    assert gradient is not None
    return gradient


_convolution = _operations(
    lambda x, weight, bias, options: convjit.conv2d(x, weight, bias, **options),
    lambda dy, weight, size, options: convjit.conv2d_input_grad(dy, weight, size, **options),
    lambda dy, x, size, options: convjit.conv2d_weight_grad(dy, x, size, **options),
)
_transposed = _operations(
    lambda x, weight, bias, options: convjit.conv_transpose2d(x, weight, bias, **options),
    _transposed_input_grad,
    _transposed_weight_grad,
)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
) -> Any:
    """`convjit.conv2d`, differentiable by autograd in `x`, `weight` and `bias`, forwards and backwards.

    Parameters, results and errors are those of `convjit.conv2d`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from convjit.interop.autograd import conv2d
    >>> grad(lambda x: np.sum(conv2d(x, np.ones((1, 1, 2, 2))) ** 2))(np.eye(3)[None])
    array([[[ 4.,  6.,  2.],
            [ 6., 12.,  6.],
            [ 2.,  6.,  4.]]])
    """
    return _convolution.forward(x, weight, bias, _options(stride, padding, dilation, groups, padding_mode))


def conv2d_input_grad(
    grad_output: Any,
    weight: Any,
    input_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
) -> Any:
    """`convjit.conv2d_input_grad`, differentiable by autograd in `grad_output` and `weight`.

    Parameters, results and errors are those of `convjit.conv2d_input_grad`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from convjit.interop.autograd import conv2d_input_grad
    >>> grad(lambda dy: np.sum(conv2d_input_grad(dy, np.ones((1, 1, 2, 2)), 3)))(np.eye(2)[None])
    array([[[4., 4.],
            [4., 4.]]])
    """
    options = _options(stride, padding, dilation, groups, padding_mode)
    return _convolution.input_grad(grad_output, weight, input_size, options)


def conv2d_weight_grad(
    grad_output: Any,
    x: Any,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
) -> Any:
    """`convjit.conv2d_weight_grad`, differentiable by autograd in `grad_output` and `x`.

    Parameters, results and errors are those of `convjit.conv2d_weight_grad`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from convjit.interop.autograd import conv2d_weight_grad
    >>> grad(lambda x: np.sum(conv2d_weight_grad(np.ones((1, 2, 2)), x, 2)))(np.eye(3)[None])
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    options = _options(stride, padding, dilation, groups, padding_mode)
    return _convolution.weight_grad(grad_output, x, kernel_size, options)


def _options(stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any) -> Options:
    return {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
    }  # fmt: skip


def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    output_size: IntOrPair | None = None,
) -> Any:
    """`convjit.conv_transpose2d`, differentiable by autograd in `x`, `weight` and `bias`, forwards and backwards.

    Parameters, results and errors are those of `convjit.conv_transpose2d`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from convjit.interop.autograd import conv_transpose2d
    >>> grad(lambda x: np.sum(conv_transpose2d(x, np.ones((1, 1, 2, 2)), stride=2)))(np.eye(2)[None])
    array([[[4., 4.],
            [4., 4.]]])
    """
    options = {
        "stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups, "dilation": dilation,
        "output_size": output_size,
    }  # fmt: skip
    return _transposed.forward(x, weight, bias, options)


# --- pools ----------------------------------------------------------------------------------------------------------


def _linear_pair(forward: Callable[..., Array], adjoint: Callable[..., Array]) -> tuple[Any, Any]:
    """Primitives that are linear in their first argument, and each other's adjoint.

    `forward(x, options)`, `adjoint(dy, size, options)` with `size` the last two extents of `x`.
    """
    there, back = primitive(forward), primitive(adjoint)
    defvjp(there, lambda y, x, options: lambda g: back(g, anp.shape(x)[-2:], options))
    defvjp(back, lambda dx, dy, size, options: lambda g: there(g, options))
    defjvp(there, lambda t, y, x, options: there(t, options))
    defjvp(back, lambda t, dx, dy, size, options: back(t, size, options))
    return there, back


def _taken(x: Array, options: Options) -> Array:
    """What is at the indices; where they are -1, anything, which `max_pool2d` leaves out."""
    indices = options["indices"]
    flat = indices.reshape(*indices.shape[:-2], -1)
    return np.take_along_axis(x.reshape(*x.shape[:-2], -1), flat, axis=-1).reshape(indices.shape)


def _put(dy: Array, size: tuple[int, int], options: Options) -> Array:
    return convjit.max_pool2d_backward(dy, _placeholder(*dy.shape[:-2], *size), **options)


_average, _ = _linear_pair(
    lambda x, options: convjit.avg_pool2d(x, **options),
    lambda dy, size, options: convjit.avg_pool2d_backward(dy, size, **options),
)
_at_maxima, _ = _linear_pair(_taken, _put)


def max_pool2d(
    x: Any,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
) -> Any:
    """`convjit.max_pool2d`, differentiable by autograd in `x`, forwards and backwards.

    Parameters, results and errors are those of `convjit.max_pool2d`; of equal maxima the first has the gradient.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from convjit.interop.autograd import max_pool2d
    >>> grad(lambda x: np.sum(max_pool2d(x, 2)))(np.array([[[1.0, 3.0], [2.0, 0.0]]]))
    array([[[0., 1.],
            [0., 0.]]])
    """
    options: Options = {
        "kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode,
    }  # fmt: skip
    value = x
    while isbox(value):
        value = getval(value)
    y, indices = convjit.max_pool2d(value, **options, return_indices=True)
    if not isbox(x):
        return y
    at_maxima = _at_maxima(x, {**options, "indices": indices})
    return anp.where(indices < 0, y, at_maxima) if (indices < 0).any() else at_maxima


def avg_pool2d(
    x: Any,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """`convjit.avg_pool2d`, differentiable by autograd in `x`, forwards and backwards.

    Parameters, results and errors are those of `convjit.avg_pool2d`.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> from convjit.interop.autograd import avg_pool2d
    >>> grad(lambda x: np.sum(avg_pool2d(x, 2)))(np.eye(2)[None])
    array([[[0.25, 0.25],
            [0.25, 0.25]]])
    """
    options = {
        "kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad, "divisor_override": divisor_override,
    }  # fmt: skip
    return _average(x, options)
