"""Maximum and average pooling of volumes, and their adjoints: signatures; `pools` does the rest."""

from __future__ import annotations

from ..typing import Array, ArrayLike, IntOrPair, MaybeArray, Padding
from .front_door import public
from .options import WindowOptions
from .pools import avg_pool, avg_pool_backward, max_pool, max_pool_backward


@public
def max_pool3d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    *,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> MaybeArray:
    """The largest value in each window: `max_pool2d` in three dimensions.

    Parameters
    ----------
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
        Real.
    kernel_size, dilation : int or (int, int, int)
    stride : int or (int, int, int), optional
        The kernel size if not given.
    padding
        In any form that `conv3d` takes, smaller than the kernel's extent. It never wins a maximum.
    ceil_mode, return_indices : bool
        As `max_pool2d` takes them.

    Returns
    -------
    y : ndarray, (N, C, OD, OH, OW) or (C, OD, OH, OW)
        Of the dtype of `x`, bool gives int64. A NaN is larger than everything.
    indices : ndarray of int64, if asked for
        `(d * H + h) * W + w` of the first maximum, -1 for a window that sees no voxel.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import max_pool3d
    >>> max_pool3d(np.arange(8).reshape(1, 2, 2, 2), (2, 1, 2))
    array([[[[5],
             [7]]]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return max_pool("max_pool3d", 3, x, options, ceil_mode, return_indices)


@public
def max_pool3d_backward(
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
    """The gradient of `max_pool3d`: each output's gradient goes to the voxel that was its first maximum.

    Parameters
    ----------
    grad_output : array_like, shape of `max_pool3d`'s result
    x, kernel_size, stride, padding, dilation, ceil_mode
        As given to `max_pool3d`.
    indices : array_like of int, optional
        What `max_pool3d(..., return_indices=True)` returned; the maxima are looked for again if not given.

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
    >>> from convjit import max_pool3d_backward
    >>> max_pool3d_backward(np.ones((1, 1, 1, 1)), np.array([[[[1.0, 3.0]], [[2.0, 0.0]]]]), (2, 1, 2)).ravel()
    array([0., 1., 0., 0.])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return max_pool_backward("max_pool3d_backward", 3, grad_output, x, options, ceil_mode, indices)


@public
def avg_pool3d(
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
    """The mean of each window: `avg_pool2d` in three dimensions.

    Parameters
    ----------
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
    kernel_size, stride, padding, dilation, ceil_mode
        As `max_pool3d`.
    count_include_pad : bool
        Whether padding counts as zeros of the window, up to its end, or not at all.
    divisor_override : int, optional
        What the sum of each window is divided by, instead of how many voxels count: any int but 0, 1 for sums.

    Returns
    -------
    ndarray, (N, C, OD, OH, OW) or (C, OD, OH, OW)
        Of the dtype of `x`; integers and bool give float64, as `np.mean` does.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import avg_pool3d
    >>> avg_pool3d(np.arange(8).reshape(1, 2, 2, 2), 2)
    array([[[[3.5]]]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return avg_pool("avg_pool3d", 3, x, options, ceil_mode, (count_include_pad, divisor_override))


@public
def avg_pool3d_backward(
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
    """The adjoint of `avg_pool3d`: each output's gradient is shared by the voxels of its window.

    Parameters
    ----------
    grad_output : array_like, (N, C, OD, OH, OW) or (C, OD, OH, OW)
    input_size : int or (int, int, int)
        `(D, H, W)` of the input.
    kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
        As given to `avg_pool3d`.

    Returns
    -------
    ndarray, (N, C, D, H, W) or (C, D, H, W)
        Of the dtype of `grad_output`; integers and bool give float64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import avg_pool3d_backward
    >>> avg_pool3d_backward(np.ones((1, 1, 1, 1)), (2, 1, 2), (2, 1, 2)).ravel()
    array([0.25, 0.25, 0.25, 0.25])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    counting = (count_include_pad, divisor_override)
    return avg_pool_backward("avg_pool3d_backward", 3, grad_output, input_size, options, ceil_mode, counting)
