"""Convolution of sequences, its gradients and its transpose: signatures and what they mean."""

from __future__ import annotations

from ..typing import Array, ArrayLike, Gradients, IntOrPair, Padding
from .convolving import convolve, gradients, input_gradient, weight_gradient
from .front_door import public
from .options import ConvOptions, TransposeOptions
from .transpose import transpose, transposed_gradients


@public
def conv1d(
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
    """Convolution of sequences with weights: `conv2d` in one dimension.

    The operation is cross-correlation, weights are not flipped::

        y[n, o, i] = bias[o] + sum over c, k of weight[o, c, k] * x[n, c, i*stride + k*dilation - pad]

    where `c` runs over the channels of the group of `o`, and `x` is zero outside.

    Parameters
    ----------
    x : array_like, (N, C, L) or (C, L)
        Sequences, or one unbatched sequence.
    weight : array_like, (O, C // groups, K)
    bias : array_like, (O,), optional
    stride, dilation : int
        In elements. `dilation=1` is dense.
    padding : str, int or ((int, int),)
        `"valid"`, `"same"`, `"same_upper"`, `"same_lower"` and `"full"` as `conv2d` has them, or elements: at both
        ends, or `((start, end),)`.
    groups, padding_mode, algorithm
        As `conv2d` takes them.
    out : ndarray, optional
        Where to put the result: C-contiguous and aligned, of the result's shape and dtype, sharing no memory with the
        arguments.

    Returns
    -------
    ndarray, (N, O, OL) or (O, OL)
        `OL = (L + pads - dilation*(K-1) - 1) // stride + 1`. Of dtype
        `np.result_type(x, weight, bias)`, as `conv2d` has it.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    Notes
    -----
    Computed as images of height 1, to the bit.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv1d
    >>> conv1d(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([[[-1.0, 1.0]]]))
    array([[1., 2., 4.]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return convolve("conv1d", 1, x, weight, bias, options, padding_mode, algorithm, out)


@public
def conv1d_backward(
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
    """The gradients of `conv1d`: adjoints in the input, the weight and the bias.

    Parameters
    ----------
    grad_output : array_like, shape of `conv1d`'s result
        The gradient of a scalar with respect to that result.
    x, weight, stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv1d`.
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
    >>> from convjit import conv1d_backward
    >>> x, weight = np.array([[1.0, 2.0, 4.0]]), np.array([[[-1.0, 1.0]]])
    >>> grad_input, grad_weight, grad_bias = conv1d_backward(np.ones((1, 2)), x, weight)
    >>> grad_input
    array([[-1.,  0.,  1.]])
    >>> grad_weight
    array([[[3., 6.]]])
    >>> grad_bias
    array([2.])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return gradients("conv1d_backward", 1, grad_output, x, weight, options, padding_mode, algorithm, need)


@public
def conv1d_input_grad(
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
    """The gradient of `conv1d` with respect to its input.

    Parameters
    ----------
    grad_output : array_like, (N, O, OL) or (O, OL)
    weight : array_like, (O, C // groups, K)
    input_size : int
        `L` of the input; with a stride several sizes lead to the same output size.
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv1d`.

    Returns
    -------
    ndarray, (N, C, L) or (C, L)
        `dx[n, c, j] = sum of weight[o, c, k] * grad_output[n, o, i]` over all `o, i, k` with
        `j = i*stride + k*dilation - pad`,
        of dtype `np.result_type(grad_output, weight)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_input_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv1d_input_grad
    >>> conv1d_input_grad(np.ones((1, 2)), np.array([[[-1.0, 1.0]]]), input_size=3)
    array([[-1.,  0.,  1.]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return input_gradient("conv1d_input_grad", 1, grad_output, weight, input_size, options, padding_mode, algorithm)


@public
def conv1d_weight_grad(
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
    """The gradient of `conv1d` with respect to its weight.

    Parameters
    ----------
    grad_output : array_like, (N, O, OL) or (O, OL)
    x : array_like, (N, C, L) or (C, L)
    kernel_size : int
        `K` in taps.
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv1d`.

    Returns
    -------
    ndarray, (O, C // groups, K)
        `dw[o, c, k] = sum over n, i of grad_output[n, o, i] * x[n, c, i*stride + k*dilation - pad]`,
        of dtype `np.result_type(grad_output, x)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_weight_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv1d_weight_grad
    >>> conv1d_weight_grad(np.ones((1, 2)), np.array([[1.0, 2.0, 4.0]]), kernel_size=2)
    array([[[3., 6.]]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return weight_gradient("conv1d_weight_grad", 1, grad_output, x, kernel_size, options, padding_mode, algorithm)


@public
def conv_transpose1d(
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
    """Transposed convolution of sequences: the adjoint of `conv1d` in its input, with a bias.

    Parameters
    ----------
    x : array_like, (N, C, L) or (C, L)
    weight : array_like, (C, O // groups, K)
    bias : array_like, (O,), optional
    stride, dilation, output_padding : int
    padding
        What `conv1d` would pad and so is cut off here, in any of its forms; the rest as `conv_transpose2d`.
    groups : int
    output_size : int, optional
        `L` of the result, instead of `output_padding`, or beside one that agrees.

    Returns
    -------
    ndarray, (N, O, OL) or (O, OL)
        `y[n, o, j] = bias[o] + sum of weight[c, o, k] * x[n, c, i]` over all `c, i, k` with
        `j = i*stride + k*dilation - pad`,
        of dtype `np.result_type(x, weight, bias)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose1d
    >>> conv_transpose1d(np.array([[1.0, 2.0]]), np.ones((1, 1, 2)), stride=2)
    array([[1., 1., 2., 2.]])
    """
    options = TransposeOptions(stride, padding, output_padding, groups, dilation)
    return transpose("conv_transpose1d", 1, x, weight, bias, options, output_size)


@public
def conv_transpose1d_backward(
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
    """The gradients of `conv_transpose1d`.

    Parameters
    ----------
    grad_output : array_like, shape of `conv_transpose1d`'s result
    x, weight, stride, padding, output_padding, groups, dilation, output_size
        As given to `conv_transpose1d`.
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
    >>> from convjit import conv_transpose1d_backward
    >>> gradients = conv_transpose1d_backward(np.ones((1, 3)), np.array([[1.0, 2.0]]), np.ones((1, 1, 2)))
    >>> [g.ravel().tolist() for g in gradients]
    [[2.0, 2.0], [3.0, 3.0], [3.0]]
    """
    name = "conv_transpose1d_backward"
    options = TransposeOptions(stride, padding, output_padding, groups, dilation)
    return transposed_gradients(name, 1, grad_output, x, weight, options, output_size, need)
