"""Convolution and its gradients.

Knows arguments and their order; does not know how sums are computed. With a padding mode other than `"constant"` the
image is padded first and the padding's adjoint applied last.
Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..algorithms import check_name
from ..arrays import as_array, as_images, as_out, converted, result_dtype, sums_dtype
from ..geometry import (
    Geometry,
    as_flag,
    as_image_size,
    as_pair,
    check_same_shape,
    conv2d_geometry,
    shown,
)
from ..typing import Array, ArrayLike, IntOrPair, Padding
from . import bilinear
from .front_door import public
from .padding import check_mode, pad_planes, pad_planes_backward


class Problem(NamedTuple):
    """A convolution with its padding mode taken apart: `inner` is what is convolved, after `pads` were added."""

    geometry: Geometry
    inner: Geometry
    mode: str


def _problem(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: tuple[Any, ...], mode: str
) -> Problem:
    """`options` are stride, padding, dilation and groups."""
    # Ints and names are what most calls have; True equals 1 and is refused, so types are looked at, not values.
    if all(type(option) in _PLAIN for option in options) and type(mode) is str:
        return _kept_problem(function, x_shape, weight_shape, options, mode)
    return new_problem(function, x_shape, weight_shape, options, mode)


_PLAIN = (int, str)


def new_problem(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: tuple[Any, ...], mode: str
) -> Problem:
    check_mode(function, mode, "padding_mode")
    geometry = conv2d_geometry(function, x_shape, weight_shape, *options)
    if mode == "constant" or geometry.pads == ((0, 0), (0, 0)):
        return Problem(geometry, geometry, "constant")
    (top, bottom), (left, right) = geometry.pads
    inner = geometry._replace(
        in_h=geometry.in_h + top + bottom, in_w=geometry.in_w + left + right, pad_top=0, pad_bottom=0, pad_left=0,
        pad_right=0,
    )  # fmt: skip
    return Problem(geometry, inner, mode)


_kept_problem = lru_cache(maxsize=512)(new_problem)


def padded_images(function: str, problem: Problem, x: Array) -> Array:
    if problem.mode == "constant":
        return x
    return pad_planes(function, x, problem.geometry.pads, problem.mode, 0)


@public
def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array:
    """Two-dimensional convolution of images with weights, as neural networks have it.

    The operation is cross-correlation, weights are not flipped::

        y[n, o, i, j] = bias[o] + sum over c, kh, kw of
            weight[o, c, kh, kw] * x[n, c, i*stride + kh*dilation - pad, j*stride + kw*dilation - pad]

    where `c` runs over the channels of the group of `o`, and `x` is zero outside the image.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
        Images, or one unbatched image.
    weight : array_like, (O, C // groups, KH, KW)
    bias : array_like, (O,), optional
    stride, dilation : int or (int, int)
        In pixels, height before width. `dilation=1` is dense.
    padding : str, int, (int, int) or ((int, int), (int, int))
        `"valid"` (none), `"same"` (`dilation*(k-1)` in all, the odd one after, whatever the stride), `"same_upper"` and
        `"same_lower"` (the least for `ceil(size / stride)` outputs, the odd one after or before), `"full"`
        (`dilation*(k-1)` on both sides), or pixels: everywhere, `(height, width)`, `((top, bottom), (left, right))`.
    groups : int
        Channels are cut into so many groups, each convolved with its own part of `weight`.
    padding_mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        What the padding shows, in NumPy's names; `"constant"` is zero.
    algorithm : str
        `"auto"` keeps every promise of this library. `"fastest"` may also pick `"winograd"`, for 3x3 kernels with
        stride and groups of 1, dilated or not, where that pays: several times fewer multiplications, for results whose
        error is larger, in the L2 norm at most 2e-5 of normal results in float32 and 4e-14 in float64 (usually 1e-6
        and 2e-15), integers are not exact, and a NaN or a huge value spoils pixels up to 3 times the dilation beside
        those that see it. Threads and other images still change no bit. Or a name: `"winograd"`, `"depthwise"` (one
        input channel a group), `"implicit"`, `"reference"`.
    out : ndarray, optional
        Where the result is written: its exact shape and dtype, C-contiguous, and no memory shared with the inputs.

    Returns
    -------
    ndarray, (N, O, OH, OW) or (O, OH, OW)
        Of dtype `np.result_type(x, weight, bias)`; float16 is computed in float32, integers wrap as NumPy's do, bool
        counts as 0 and 1 and gives int64. `OH = (H + pads - dilation*(KH-1) - 1) // stride + 1`.

    Raises
    ------
    TypeError
        For an argument of the wrong kind, or a dtype that is not supported.
    ValueError
        For shapes or values that do not fit together.
    MemoryError
        If the result cannot fit into memory.

    Notes
    -----
    Callable in `@njit` code, for float32 and float64 arrays of one dtype; `padding`, if a name, and `padding_mode` are
    literals there, and `algorithm` and `out` are left alone. A call runs on the calling thread, also in a `prange` and
    without the GIL, and gives the same bits. It raises the same errors, but Numba drops exceptions in a `prange`, and
    what was not computed stays unwritten: check shapes before the loop. Where `groups` is named, images of one channel
    a group take the depthwise kernels, too.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> conv2d(image, np.ones((1, 1, 2, 2)))
    array([[[ 8., 12.],
            [20., 24.]]])
    """
    name = "conv2d"
    x, weight = as_array(name, "x", x), as_array(name, "weight", weight)
    bias = None if bias is None else as_array(name, "bias", bias)
    images = as_images(name, "x", x)
    problem = _problem(name, images.shape, weight.shape, (stride, padding, dilation, groups), padding_mode)
    inner = problem.inner
    if bias is not None:
        check_same_shape(name, "bias", bias.shape, (inner.out_channels,), "one value an output channel")
    dtype = result_dtype(x, weight) if bias is None else result_dtype(x, weight, bias)
    check_name(name, algorithm)
    shape = inner.y_shape if x.ndim == 4 else inner.y_shape[1:]
    if out is not None:
        as_out(name, out, shape, dtype, x=x, weight=weight, bias=bias)
    padded = padded_images(name, problem, images)
    target = None if out is None else out.reshape(inner.y_shape)
    y = bilinear.forward(name, algorithm, inner, padded, weight, bias, dtype, target)
    return y.reshape(shape) if out is None else out


@public
def conv2d_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
    need: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of `conv2d`: adjoints in the input, the weight and the bias.

    Parameters
    ----------
    grad_output : array_like, shape of `conv2d`'s result
        The gradient of a scalar with respect to that result.
    x, weight, stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv2d`.
    need : (bool, bool, bool)
        Which of the three gradients to compute.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray or None
        Shapes of `x`, `weight` and `(O,)`; None where not needed. Of dtype `np.result_type(grad_output, x, weight)`.
        For complex arrays these are the adjoints: `weight` and `x` enter conjugated.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; and `ValueError` if `grad_output` is not of the shape that `conv2d` returns.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is, with `need` as a tuple of literal bools.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d_backward
    >>> x, weight = np.arange(9.0).reshape(1, 3, 3), np.ones((1, 1, 2, 2))
    >>> grad_input, grad_weight, grad_bias = conv2d_backward(np.ones((1, 2, 2)), x, weight)
    >>> grad_input
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    >>> grad_weight
    array([[[[ 8., 12.],
             [20., 24.]]]])
    >>> grad_bias
    array([4.])
    """
    name = "conv2d_backward"
    dy, x, weight = (
        as_array(name, "grad_output", grad_output), as_array(name, "x", x), as_array(name, "weight", weight)
    )  # fmt: skip
    images = as_images(name, "x", x)
    problem = _problem(name, images.shape, weight.shape, (stride, padding, dilation, groups), padding_mode)
    inner = problem.inner
    shape = inner.y_shape if x.ndim == 4 else inner.y_shape[1:]
    check_same_shape(name, "grad_output", dy.shape, shape, "the shape of the forward result")
    wanted = check_need(name, need)
    dtype = result_dtype(dy, x, weight)
    check_name(name, algorithm)
    dy = dy.reshape(inner.y_shape)
    dx = dw = db = None
    if wanted[0]:
        dx = _input_grad(name, algorithm, problem, dy, weight, dtype).reshape(x.shape)
    if wanted[1]:
        dw = bilinear.weight_grad(name, algorithm, inner, dy, padded_images(name, problem, images), dtype)
    if wanted[2]:
        db = bilinear.bias_grad(name, dy, dtype)
    return dx, dw, db


def check_need(function: str, need: Any) -> tuple[bool, bool, bool]:
    """`need` as three bools."""
    try:
        first, second, third = need
    except (TypeError, ValueError):
        raise ValueError(
            f"{function}: need must be three bools, for (input, weight, bias), got {shown(need)}"
        ) from None
    return as_flag(function, "need", first), as_flag(function, "need", second), as_flag(function, "need", third)


def _input_grad(function: str, algorithm: str, problem: Problem, dy: Array, weight: Array, dtype: Any) -> Array:
    if problem.mode == "constant":
        return bilinear.input_grad(function, algorithm, problem.inner, dy, weight, dtype)
    # Rounded once, after the padding's adjoint has added up: float16 is float32 until then.
    dx = bilinear.input_grad(function, algorithm, problem.inner, dy, weight, sums_dtype(dtype))
    dx = pad_planes_backward(function, dx, problem.geometry.pads, problem.mode)
    return converted(function, "the gradient", dx, dtype)


@public
def conv2d_input_grad(
    grad_output: ArrayLike,
    weight: ArrayLike,
    input_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
) -> Array:
    """The gradient of `conv2d` with respect to its input.

    Parameters
    ----------
    grad_output : array_like, (N, O, OH, OW) or (O, OH, OW)
    weight : array_like, (O, C // groups, KH, KW)
    input_size : int or (int, int)
        `(H, W)` of the input in pixels; with a stride several sizes lead to the same output size.
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv2d`.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)
        `dx[n, c, h, w] = sum of weight[o, c, kh, kw] * grad_output[n, o, i, j]` over all `o, i, j, kh, kw` with
        `h = i*stride + kh*dilation - pad` and `w` likewise, of dtype `np.result_type(grad_output, weight)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; and `ValueError` if no such input gives an output of this size.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d_input_grad
    >>> conv2d_input_grad(np.ones((1, 2, 2)), np.ones((1, 1, 2, 2)), input_size=(3, 3))
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    name = "conv2d_input_grad"
    dy, weight = as_array(name, "grad_output", grad_output), as_array(name, "weight", weight)
    gradients = as_images(name, "grad_output", dy)
    height, width = as_image_size(name, "input_size", input_size)
    channels = input_channels(name, weight.shape, groups)
    x_shape = (gradients.shape[0], channels, height, width)
    problem = _problem(name, x_shape, weight.shape, (stride, padding, dilation, groups), padding_mode)
    _check_output_shape(name, gradients.shape, problem.geometry)
    dtype = result_dtype(dy, weight)
    check_name(name, algorithm)
    dx = _input_grad(name, algorithm, problem, gradients, weight, dtype)
    return dx if dy.ndim == 4 else dx[0]


def input_channels(function: str, weight_shape: tuple[int, ...], groups: Any) -> int:
    if len(weight_shape) != 4:
        raise ValueError(f"{function}: expected weight of shape (O, C/groups, KH, KW), got {weight_shape}")
    return weight_shape[1] * as_pair(function, "groups", groups, 1)[0]


def _check_output_shape(function: str, got: tuple[int, ...], g: Geometry) -> None:
    """Refuse a gradient that no input of this size leads to, and say which sizes would."""
    if got == g.y_shape:
        return
    if got[1] != g.out_channels:
        raise ValueError(
            f"{function}: grad_output must have {g.out_channels} channels, as weight {g.weight_shape} has, got {got}"
        )
    ranges = []
    for out, kernel, stride, dilation, pads in (
        (got[2], g.kernel_h, g.stride_h, g.dilation_h, g.pad_top + g.pad_bottom),
        (got[3], g.kernel_w, g.stride_w, g.dilation_w, g.pad_left + g.pad_right),
    ):
        least = (out - 1) * stride + (kernel - 1) * dilation + 1 - pads
        ranges.append(f"{least}" if stride == 1 else f"{least}..{least + stride - 1}")
    raise ValueError(
        f"{function}: input_size ({g.in_h}, {g.in_w}) gives an output of ({g.out_h}, {g.out_w}), but grad_output {got} "
        f"is of ({got[2]}, {got[3]}), which comes from heights {ranges[0]} and widths {ranges[1]}"
    )


@public
def conv2d_weight_grad(
    grad_output: ArrayLike,
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
) -> Array:
    """The gradient of `conv2d` with respect to its weight.

    Parameters
    ----------
    grad_output : array_like, (N, O, OH, OW) or (O, OH, OW)
    x : array_like, (N, C, H, W) or (C, H, W)
    kernel_size : int or (int, int)
        `(KH, KW)` in taps.
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv2d`.

    Returns
    -------
    ndarray, (O, C // groups, KH, KW)
        `dw[o, c, kh, kw] = sum over n, i, j of grad_output[n, o, i, j] * x[n, c, i*stride + kh*dilation - pad, ...]`,
        of dtype `np.result_type(grad_output, x)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; and `ValueError` if `grad_output` is not of the shape that `conv2d` returns.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d_weight_grad
    >>> conv2d_weight_grad(np.ones((1, 2, 2)), np.arange(9.0).reshape(1, 3, 3), kernel_size=2)
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    name = "conv2d_weight_grad"
    dy, x = as_array(name, "grad_output", grad_output), as_array(name, "x", x)
    images, gradients = as_images(name, "x", x), as_images(name, "grad_output", dy)
    kernel = as_pair(name, "kernel_size", kernel_size, 0)
    channels = images.shape[1] // as_pair(name, "groups", groups, 1)[0]
    weight_shape = (gradients.shape[1], channels, *kernel)
    problem = _problem(name, images.shape, weight_shape, (stride, padding, dilation, groups), padding_mode)
    inner = problem.inner
    shape = inner.y_shape if x.ndim == 4 else inner.y_shape[1:]
    check_same_shape(name, "grad_output", dy.shape, shape, "the shape of the forward result")
    dtype = result_dtype(dy, x)
    check_name(name, algorithm)
    return bilinear.weight_grad(name, algorithm, inner, gradients, padded_images(name, problem, images), dtype)
