"""Maximum and average pooling of images, and their adjoints: signatures and what they mean; `pools` does the rest."""

from __future__ import annotations

from ..layouts import as_layout
from ..typing import Array, ArrayLike, IntOrPair, MaybeArray, Padding
from .front_door import public
from .options import WindowOptions
from .pools import avg_pool, avg_pool_backward, max_pool, max_pool_backward


@public
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    return_indices: bool = False,
    layout: str = "NCHW",
) -> MaybeArray:
    """The largest value in each window.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
        Real.
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        The kernel size if not given.
    padding
        In any form that `conv2d` takes, smaller than the kernel's extent. It never wins a maximum.
    dilation : int or (int, int)
    ceil_mode : bool
        Whether a last window may reach past the end; it may not start in the end padding.
    return_indices : bool
        Whether to return where the maxima are, too.
    layout : {"NCHW", "NHWC"}
        With `"NHWC"`, `x` and what is returned have their channels last, as `conv2d` has it.

    Returns
    -------
    y : ndarray, (N, C, OH, OW) or (C, OH, OW)
        Of the dtype of `x`, bool gives int64. A NaN is larger than everything. A window that sees no pixel (it can
        with dilation) gives the least value of the dtype.
    indices : ndarray of int64, if asked for
        `h * W + w` of the first maximum in its channel, -1 for a window that sees no pixel.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; `TypeError` for complex `x`, `ValueError` for a padding as large as the kernel.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is, with `return_indices` as a literal.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import max_pool2d
    >>> max_pool2d(np.arange(16).reshape(1, 4, 4), 2)
    array([[[ 5,  7],
            [13, 15]]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    images = as_layout("max_pool2d", layout)
    return max_pool("max_pool2d", 2, x, options, ceil_mode, return_indices, images)


@public
def max_pool2d_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    indices: ArrayLike | None = None,
    layout: str = "NCHW",
) -> Array:
    """The gradient of `max_pool2d`: each output's gradient goes to the pixel that was its first maximum.

    Parameters
    ----------
    grad_output : array_like, shape of `max_pool2d`'s result
    x, kernel_size, stride, padding, dilation, ceil_mode, layout
        As given to `max_pool2d`.
    indices : array_like of int, optional
        What `max_pool2d(..., return_indices=True)` returned; the maxima are looked for again if not given.

    Returns
    -------
    ndarray, shape of `x`
        Of dtype `np.result_type(grad_output, x)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`; `ValueError` for shapes that do not fit and indices outside the image.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is, with `indices` of int64.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import max_pool2d_backward
    >>> max_pool2d_backward(np.ones((1, 1, 1)), np.array([[[1.0, 3.0], [2.0, 0.0]]]), 2)
    array([[[0., 1.],
            [0., 0.]]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    images = as_layout("max_pool2d_backward", layout)
    return max_pool_backward("max_pool2d_backward", 2, grad_output, x, options, ceil_mode, indices, images)


@public
def avg_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    layout: str = "NCHW",
) -> Array:
    """The mean of each window.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As `max_pool2d`.
    count_include_pad : bool
        Whether padding counts as zeros of the window, up to its end, or not at all.
    divisor_override : int, optional
        What the sum of each window is divided by, instead of how many pixels count: any int but 0, 1 for sums.

    Returns
    -------
    ndarray, (N, C, OH, OW) or (C, OH, OW)
        Of the dtype of `x`; integers and bool give float64, as `np.mean` does. A window that sees no pixel gives 0.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; `ValueError` for a padding as large as the kernel.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import avg_pool2d
    >>> avg_pool2d(np.arange(16).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    images = as_layout("avg_pool2d", layout)
    return avg_pool("avg_pool2d", 2, x, options, ceil_mode, (count_include_pad, divisor_override), images)


@public
def avg_pool2d_backward(
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
    layout: str = "NCHW",
) -> Array:
    """The adjoint of `avg_pool2d`: each output's gradient is shared by the pixels of its window.

    Parameters
    ----------
    grad_output : array_like, (N, C, OH, OW) or (C, OH, OW)
    input_size : int or (int, int)
        `(H, W)` of the input in pixels.
    kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override, layout
        As given to `avg_pool2d`.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)
        Of the dtype of `grad_output`; integers and bool give float64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d`; `ValueError` if no such input gives an output of this size.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import avg_pool2d_backward
    >>> avg_pool2d_backward(np.ones((1, 1, 1)), (2, 2), 2)
    array([[[0.25, 0.25],
            [0.25, 0.25]]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    name, counting = "avg_pool2d_backward", (count_include_pad, divisor_override)
    return avg_pool_backward(
        name, 2, grad_output, input_size, options, ceil_mode, counting, as_layout(name, layout)
    )  # fmt: skip
