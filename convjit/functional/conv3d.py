"""Convolution of volumes, its gradients and its transpose: signatures and what they mean."""

from __future__ import annotations

from ..typing import Array, ArrayLike, Gradients, IntOrPair, Padding
from .convolving import convolve, gradients, input_gradient, weight_gradient
from .front_door import public
from .options import ConvOptions, TransposeOptions
from .transpose import transpose, transposed_gradients


@public
def conv3d(
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
    """Convolution of volumes with weights: `conv2d` in three dimensions.

    The operation is cross-correlation, weights are not flipped::

        y[n, o, i, j, l] = bias[o] + sum over c, kd, kh, kw of
            weight[o, c, kd, kh, kw] * x[n, c, i*stride + kd*dilation - pad, j*stride + kh*dilation - pad, ...]

    where `c` runs over the channels of the group of `o`, and `x` is zero outside.

    Parameters
    ----------
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
        Volumes, or one unbatched volume.
    weight : array_like, (O, C // groups, KD, KH, KW)
    bias : array_like, (O,), optional
    stride, dilation : int or (int, int, int)
        In voxels. `dilation=1` is dense.
    padding : str, int, (int, int, int) or ((int, int), (int, int), (int, int))
        `"valid"`, `"same"`, `"same_upper"`, `"same_lower"` and `"full"` as `conv2d` has them, or voxels: everywhere,
        `(depth, height, width)`, or `((front, back), (top, bottom), (left, right))`.
    groups, padding_mode, algorithm
        As `conv2d` takes them.
    out : ndarray, optional
        Where to put the result: C-contiguous and aligned, of the result's shape and dtype, sharing no memory with the
        arguments.

    Returns
    -------
    ndarray, (N, O, OD, OH, OW) or (O, OD, OH, OW)
        `OD = (D + pads - dilation*(KD-1) - 1) // stride + 1`, `OH` and `OW` likewise. Of dtype
        `np.result_type(x, weight, bias)`, as `conv2d` has it.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    Notes
    -----
    Every slice of the result is a convolution of images whose channels are the planes that its taps in depth meet, so
    that all that is promised of `conv2d` holds. Volumes of many channels are read as they lie, or padded once. For
    others those planes are copied, some slices at a time, which costs one move of a value, or less, for every
    `O // groups * KH * KW` multiplications: with one channel a group that is felt.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv3d
    >>> volume = np.arange(8.0).reshape(1, 2, 2, 2)
    >>> conv3d(volume, np.ones((1, 1, 2, 1, 1)))
    array([[[[ 4.,  6.],
             [ 8., 10.]]]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return convolve("conv3d", 3, x, weight, bias, options, padding_mode, algorithm, out)


@public
def conv3d_backward(
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
) -> Gradients:
    """The gradients of `conv3d`: adjoints in the input, the weight and the bias.

    Parameters
    ----------
    grad_output : array_like, shape of `conv3d`'s result
        The gradient of a scalar with respect to that result.
    x, weight, stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv3d`.
    need : (bool, bool, bool)
        Which of the three gradients to compute.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray or None
        Shapes of `x`, `weight` and `(O,)`; None where not needed. Of dtype `np.result_type(grad_output, x, weight)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv3d_backward
    >>> volume, weight = np.arange(8.0).reshape(1, 2, 2, 2), np.ones((1, 1, 2, 1, 1))
    >>> grad_input, grad_weight, grad_bias = conv3d_backward(np.ones((1, 1, 2, 2)), volume, weight)
    >>> grad_input.ravel()
    array([1., 1., 1., 1., 1., 1., 1., 1.])
    >>> grad_weight.ravel()
    array([ 6., 22.])
    >>> grad_bias
    array([4.])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return gradients("conv3d_backward", 3, grad_output, x, weight, options, padding_mode, algorithm, need)


@public
def conv3d_input_grad(
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
    """The gradient of `conv3d` with respect to its input.

    Parameters
    ----------
    grad_output : array_like, (N, O, OD, OH, OW) or (O, OD, OH, OW)
    weight : array_like, (O, C // groups, KD, KH, KW)
    input_size : int or (int, int, int)
        `(D, H, W)` of the input; with a stride several sizes lead to the same output size.
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv3d`.

    Returns
    -------
    ndarray, (N, C, D, H, W) or (C, D, H, W)
        `dx[n, c, d, h, w] = sum of weight[o, c, kd, kh, kw] * grad_output[n, o, i, j, l]` over all
        `o, i, j, l, kd, kh, kw` with `d = i*stride + kd*dilation - pad`, `h` and `w` likewise,
        of dtype `np.result_type(grad_output, weight)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_input_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv3d_input_grad
    >>> conv3d_input_grad(np.ones((1, 1, 1, 1)), np.ones((1, 1, 2, 1, 1)), input_size=(2, 1, 1)).ravel()
    array([1., 1.])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return input_gradient("conv3d_input_grad", 3, grad_output, weight, input_size, options, padding_mode, algorithm)


@public
def conv3d_weight_grad(
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
    """The gradient of `conv3d` with respect to its weight.

    Parameters
    ----------
    grad_output : array_like, (N, O, OD, OH, OW) or (O, OD, OH, OW)
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
    kernel_size : int or (int, int, int)
        `(KD, KH, KW)` in taps.
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv3d`.

    Returns
    -------
    ndarray, (O, C // groups, KD, KH, KW)
        `dw[o, c, kd, ...] = sum over n, i, j, l of grad_output[n, o, i, j, l] * x[n, c, i*stride + kd*dilation - pad,
        ...]`,
        of dtype `np.result_type(grad_output, x)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_weight_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv3d_weight_grad
    >>> conv3d_weight_grad(np.ones((1, 1, 2, 2)), np.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1)).ravel()
    array([ 6., 22.])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return weight_gradient("conv3d_weight_grad", 3, grad_output, x, kernel_size, options, padding_mode, algorithm)


@public
def conv_transpose3d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    output_size: IntOrPair | None = None,
) -> Array:
    """Transposed convolution of volumes: the adjoint of `conv3d` in its input, with a bias.

    Parameters
    ----------
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
    weight : array_like, (C, O // groups, KD, KH, KW)
    bias : array_like, (O,), optional
    stride, dilation, output_padding : int or (int, int, int)
    padding
        What `conv3d` would pad and so is cut off here, in any of its forms; the rest as `conv_transpose2d`.
    groups : int
    output_size : int or (int, int, int), optional
        `(D, H, W)` of the result, instead of `output_padding`, or beside one that agrees.

    Returns
    -------
    ndarray, (N, O, OD, OH, OW) or (O, OD, OH, OW)
        `y[n, o, d, h, w] = bias[o] + sum of weight[c, o, kd, kh, kw] * x[n, c, i, j, l]` over all `c`, taps and voxels
        with `d = i*stride + kd*dilation - pad`, `h` and `w` likewise,
        of dtype `np.result_type(x, weight, bias)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose3d
    >>> conv_transpose3d(np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 1, 1, 2)), stride=2)
    array([[[[1., 1., 2., 2.]]]])
    """
    options = TransposeOptions(stride, padding, output_padding, groups, dilation)
    return transpose("conv_transpose3d", 3, x, weight, bias, options, output_size)


@public
def conv_transpose3d_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    output_size: IntOrPair | None = None,
    need: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """The gradients of `conv_transpose3d`.

    Parameters
    ----------
    grad_output : array_like, shape of `conv_transpose3d`'s result
    x, weight, stride, padding, output_padding, groups, dilation, output_size
        As given to `conv_transpose3d`.
    need : (bool, bool, bool)
        Which of the three gradients to compute.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray or None
        Shapes of `x`, `weight` and `(O,)`; None where not needed.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv_transpose2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose3d_backward
    >>> x, weight = np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 1, 1, 2))
    >>> [g.ravel().tolist() for g in conv_transpose3d_backward(np.ones((1, 1, 1, 3)), x, weight)]
    [[2.0, 2.0], [3.0, 3.0], [3.0]]
    """
    name = "conv_transpose3d_backward"
    options = TransposeOptions(stride, padding, output_padding, groups, dilation)
    return transposed_gradients(name, 3, grad_output, x, weight, options, output_size, need)
