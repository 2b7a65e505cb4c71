"""Convolution of images and its gradients: signatures and what they mean; `convolving` does the rest."""

from __future__ import annotations

from ..layouts import as_layout
from ..typing import Array, ArrayLike, Gradients, IntOrPair, Padding
from .convolving import convolve, gradients, input_gradient, weight_gradient
from .front_door import public
from .options import ConvOptions


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
    layout: str = "NCHW",
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
        stride and groups of 1, dilated or not: several times fewer multiplications, where that pays if images share
        what is made of the weight, as those of a batch do; one image of few pixels alone may take longer. By name it
        also takes a stride of 2, which on the processors that were measured saves no time. Results have a larger error,
        in the L2 norm at most 2e-5 of normal results in float32 and 4e-14 in float64 (usually 1e-6 and 2e-15), integers
        are not exact, and a NaN or a huge value spoils pixels up to 3 times the dilation beside those that see it (of
        an input gradient with stride 2 up to 7), and of a weight gradient all taps of a channel. Weight gradients with
        a dilation or a stride are computed as with `"auto"`. Threads and other images still change no bit. Or a name:
        `"winograd"`, `"depthwise"` (one input channel a group), `"patches"` (input gradients of windows that do not
        overlap), `"direct"`, `"implicit"`, `"reference"`.
    out : ndarray, optional
        Where to put the result: C-contiguous and aligned, of the result's shape and dtype, sharing no memory with the
        arguments.
    layout : {"NCHW", "NHWC"}
        With `"NHWC"` images have their channels last: `x` is (N, H, W, C) or (H, W, C), the result and `out` are
        (N, OH, OW, O) or (OH, OW, O), C-contiguous, of the same bits. `weight` is (O, C // groups, KH, KW) all the
        same. Algorithms that cannot read images as they lie get them turned, some at a time.

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
    Callable in `@njit` code, for float32 and float64 arrays of one dtype, with the same bits; `padding`, if a name,
    `padding_mode` and `algorithm` are literals there, pairs are tuples, and `layout` is left alone. What is given by
    name alone in Python may be given by position, too. Whatever `algorithm` is named, sums are taken as with `"auto"`;
    `"winograd"` is refused. A call runs on the calling thread, also in a `prange` and without the GIL. It raises the
    same errors, but Numba drops exceptions in a `prange`, and what was not computed stays unwritten: check shapes
    before the loop. Where `groups` is not the constant 1, images of one channel a group may take the depthwise kernels.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> conv2d(image, np.ones((1, 1, 2, 2)))
    array([[[ 8., 12.],
            [20., 24.]]])
    >>> conv2d(image.reshape(3, 3, 1), np.ones((1, 1, 2, 2)), layout="NHWC").shape
    (2, 2, 1)
    """
    options = ConvOptions(stride, padding, dilation, groups)
    images = as_layout("conv2d", layout)
    return convolve("conv2d", 2, x, weight, bias, options, padding_mode, algorithm, out, images)


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
    layout: str = "NCHW",
) -> Gradients:
    """The gradients of `conv2d`: adjoints in the input, the weight and the bias.

    Parameters
    ----------
    grad_output : array_like, shape of `conv2d`'s result
        The gradient of a scalar with respect to that result.
    x, weight, stride, padding, dilation, groups, padding_mode, algorithm, layout
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
    Callable in `@njit` code as `conv2d` is, with `need` as a tuple of literal bools; in a `prange`, as a constant from
    outside of the function.

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
    options = ConvOptions(stride, padding, dilation, groups)
    images = as_layout("conv2d_backward", layout)
    return gradients("conv2d_backward", 2, grad_output, x, weight, options, padding_mode, algorithm, need, images)


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
    layout: str = "NCHW",
) -> Array:
    """The gradient of `conv2d` with respect to its input.

    Parameters
    ----------
    grad_output : array_like, (N, O, OH, OW) or (O, OH, OW)
    weight : array_like, (O, C // groups, KH, KW)
    input_size : int or (int, int)
        `(H, W)` of the input in pixels; with a stride several sizes lead to the same output size.
    stride, padding, dilation, groups, padding_mode, algorithm, layout
        As given to `conv2d`; `layout` is also that of `grad_output` and of a gradient of images.

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
    Callable in `@njit` code as `conv2d` is. Around the output gradient are zeros, so an infinity or a NaN in the weight
    may spoil any pixel of its input channel.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d_input_grad
    >>> conv2d_input_grad(np.ones((1, 2, 2)), np.ones((1, 1, 2, 2)), input_size=(3, 3))
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    name, images = "conv2d_input_grad", as_layout("conv2d_input_grad", layout)
    return input_gradient(name, 2, grad_output, weight, input_size, options, padding_mode, algorithm, images)


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
    layout: str = "NCHW",
) -> Array:
    """The gradient of `conv2d` with respect to its weight.

    Parameters
    ----------
    grad_output : array_like, (N, O, OH, OW) or (O, OH, OW)
    x : array_like, (N, C, H, W) or (C, H, W)
    kernel_size : int or (int, int)
        `(KH, KW)` in taps.
    stride, padding, dilation, groups, padding_mode, algorithm, layout
        As given to `conv2d`; `layout` is also that of `grad_output` and of a gradient of images.

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
    options = ConvOptions(stride, padding, dilation, groups)
    name, images = "conv2d_weight_grad", as_layout("conv2d_weight_grad", layout)
    return weight_gradient(name, 2, grad_output, x, kernel_size, options, padding_mode, algorithm, images)
