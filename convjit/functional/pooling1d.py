"""Maximum and average pooling of sequences, and their adjoints: signatures; `pools` does the rest."""

from __future__ import annotations

from ..typing import Array, ArrayLike, IntOrPair, MaybeArray, Padding
from .front_door import public
from .options import WindowOptions
from .pools import avg_pool, avg_pool_backward, max_pool, max_pool_backward


@public
def max_pool1d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> MaybeArray:
    """The largest value in each window: `max_pool2d` in one dimension.

    Parameters
    ----------
    x : array_like, (N, C, L) or (C, L)
        Real.
    kernel_size, dilation : int
    stride : int, optional
        The kernel size if not given.
    padding
        In any form that `conv1d` takes, smaller than the kernel's extent. It never wins a maximum.
    ceil_mode, return_indices : bool
        As `max_pool2d` takes them.

    Returns
    -------
    y : ndarray, (N, C, OL) or (C, OL)
        Of the dtype of `x`, bool gives int64. A NaN is larger than everything.
    indices : ndarray of int64, if asked for
        The place in its sequence of the first maximum, -1 for a window that sees no element.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import max_pool1d
    >>> max_pool1d(np.array([[3, 1, 4, 1]]), 2)
    array([[3, 4]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return max_pool("max_pool1d", 1, x, options, ceil_mode, return_indices)


@public
def max_pool1d_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    indices: ArrayLike | None = None,
) -> Array:
    """The gradient of `max_pool1d`: each output's gradient goes to the element that was its first maximum.

    Parameters
    ----------
    grad_output : array_like, shape of `max_pool1d`'s result
    x, kernel_size, stride, padding, dilation, ceil_mode
        As given to `max_pool1d`.
    indices : array_like of int, optional
        What `max_pool1d(..., return_indices=True)` returned; the maxima are looked for again if not given.

    Returns
    -------
    ndarray, shape of `x`
        Of dtype `np.result_type(grad_output, x)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import max_pool1d_backward
    >>> max_pool1d_backward(np.ones((1, 2)), np.array([[3.0, 1.0, 1.0, 4.0]]), 2)
    array([[1., 0., 0., 1.]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return max_pool_backward("max_pool1d_backward", 1, grad_output, x, options, ceil_mode, indices)


@public
def avg_pool1d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The mean of each window: `avg_pool2d` in one dimension.

    Parameters
    ----------
    x : array_like, (N, C, L) or (C, L)
    kernel_size, stride, padding, dilation, ceil_mode
        As `max_pool1d`.
    count_include_pad : bool
        Whether padding counts as zeros of the window, up to its end, or not at all.
    divisor_override : int, optional
        What the sum of each window is divided by, instead of how many elements count: any int but 0, 1 for sums.

    Returns
    -------
    ndarray, (N, C, OL) or (C, OL)
        Of the dtype of `x`; integers and bool give float64, as `np.mean` does.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import avg_pool1d
    >>> avg_pool1d(np.array([[3, 1, 4, 1]]), 2)
    array([[2. , 2.5]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return avg_pool("avg_pool1d", 1, x, options, ceil_mode, (count_include_pad, divisor_override))


@public
def avg_pool1d_backward(
    grad_output: ArrayLike,
    input_size: IntOrPair,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The adjoint of `avg_pool1d`: each output's gradient is shared by the elements of its window.

    Parameters
    ----------
    grad_output : array_like, (N, C, OL) or (C, OL)
    input_size : int
        `L` of the input.
    kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
        As given to `avg_pool1d`.

    Returns
    -------
    ndarray, (N, C, L) or (C, L)
        Of the dtype of `grad_output`; integers and bool give float64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import avg_pool1d_backward
    >>> avg_pool1d_backward(np.ones((1, 2)), 4, 2)
    array([[0.5, 0.5, 0.5, 0.5]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    counting = (count_include_pad, divisor_override)
    return avg_pool_backward("avg_pool1d_backward", 1, grad_output, input_size, options, ceil_mode, counting)
