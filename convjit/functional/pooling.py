"""Maximum and average pooling, and their adjoints."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms.pooling import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from ..arrays import DTYPES, as_array, as_images, converted, ready, result_dtype, write
from ..geometry import (
    Geometry,
    as_flag,
    as_image_size,
    as_padding,
    as_window,
    check_pooling_padding,
    check_same_shape,
    pooling_geometry,
)
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, ArrayLike, DType, IntOrPair, Padding
from .front_door import public


def _geometry(function: str, x_shape: tuple[int, ...], options: tuple[Any, ...], ceil_mode: bool) -> Geometry:
    """`options` are kernel size, stride (None: the kernel's), padding and dilation."""
    kernel_size, stride, padding, dilation = options
    window = as_window(function, kernel_size, kernel_size if stride is None else stride, dilation)
    pads = as_padding(function, padding, window, (x_shape[2], x_shape[3]))
    check_pooling_padding(function, window, pads)
    return pooling_geometry(function, x_shape, window, pads, as_flag(function, "ceil_mode", ceil_mode))


def _work(g: Geometry) -> float:
    return float(g.batch * g.in_channels * g.out_h * g.out_w * g.kernel_h * g.kernel_w)


def _planes(array: Array) -> Array:
    n, c, h, w = array.shape
    return array.reshape(n * c, h, w)


def _comparable(function: str, dtype: DType) -> DType:
    """The dtype in which a maximum is taken; uint64 does not fit into int64."""
    if dtype.kind == "c":
        raise TypeError(f"{function}: x has dtype {dtype}, which has no order")
    return dtype if dtype == np.uint64 else DTYPES[dtype].compute


def _max_pool(function: str, images: Array, g: Geometry) -> tuple[Array, Array]:
    """Maxima in the dtype of the result and their flat positions, both (N, C, OH, OW)."""
    dtype = result_dtype(images)
    compute = _comparable(function, dtype)
    y = allocate(function, "the result", g.y_shape, compute)
    indices = allocate(function, "the indices", g.y_shape, np.int64)
    lowest = np.full(1, -np.inf if compute.kind == "f" else np.iinfo(dtype).min, compute)
    if y.size:
        source = _planes(ready(function, "x", images, compute))
        max_pool(workers(_work(g)), g, source, lowest, _planes(y), _planes(indices))
    return converted(function, "the result", y, dtype), indices


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
) -> Array | tuple[Array, Array]:
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

    Returns
    -------
    y : ndarray, (N, C, OH, OW) or (C, OH, OW)
        Of the dtype of `x`, bool gives int64. A NaN is larger than everything. A window that sees no pixel (it can
        with dilation) gives the least value of the dtype.
    indices : ndarray of int64, if asked for
        `h * W + w` of the first maximum in its plane, -1 for a window that sees no pixel.

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
    name = "max_pool2d"
    wanted = as_flag(name, "return_indices", return_indices)
    x = as_array(name, "x", x)
    images = as_images(name, "x", x)
    _comparable(name, result_dtype(images))
    g = _geometry(name, images.shape, (kernel_size, stride, padding, dilation), ceil_mode)
    y, indices = _max_pool(name, images, g)
    if x.ndim == 3:
        y, indices = y[0], indices[0]
    return (y, indices) if wanted else y


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
) -> Array:
    """The gradient of `max_pool2d`: each output's gradient goes to the pixel that was its first maximum.

    Parameters
    ----------
    grad_output : array_like, shape of `max_pool2d`'s result
    x, kernel_size, stride, padding, dilation, ceil_mode
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
    name = "max_pool2d_backward"
    dy, x = as_array(name, "grad_output", grad_output), as_array(name, "x", x)
    images = as_images(name, "x", x)
    _comparable(name, result_dtype(images))
    g = _geometry(name, images.shape, (kernel_size, stride, padding, dilation), ceil_mode)
    shape = g.y_shape if x.ndim == 4 else g.y_shape[1:]
    check_same_shape(name, "grad_output", dy.shape, shape, "the shape of the forward result")
    dtype = result_dtype(dy, x)
    if dtype.kind == "c":
        raise TypeError(f"{name}: grad_output has dtype {dy.dtype}, but a maximum is taken of real numbers")
    if indices is None:
        where = _max_pool(name, images, g)[1]
    else:
        where = _checked_indices(name, as_array(name, "indices", indices), shape, g)
    return scatter_to_maxima(name, dy, where, g.x_shape, dtype).reshape(x.shape)


def scatter_to_maxima(function: str, dy: Array, indices: Array, x_shape: tuple[int, ...], dtype: DType) -> Array:
    """The gradient (N, C, H, W) of maxima at `indices` (N, C, OH, OW), which are known to lie in the image."""
    compute = DTYPES[dtype].compute
    planes, pixels, outputs = x_shape[0] * x_shape[1], x_shape[2] * x_shape[3], indices.shape[-2] * indices.shape[-1]
    dx = allocate(function, "the gradient", (planes, pixels), compute)
    gradients = ready(function, "grad_output", dy, compute).reshape(planes, outputs)
    positions = ready(function, "indices", indices, np.dtype(np.int64)).reshape(planes, outputs)
    if dx.size:
        max_pool_backward(workers(float(dx.size)), gradients, positions, dx)
    return converted(function, "the gradient", dx, dtype).reshape(x_shape)


def _checked_indices(function: str, indices: Array, shape: tuple[int, ...], g: Geometry) -> Array:
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{function}: indices must be integers, got dtype {indices.dtype}")
    check_same_shape(function, "indices", indices.shape, shape, "the shape of the forward result")
    pixels = g.in_h * g.in_w
    if indices.size and not (indices.min() >= -1 and indices.max() < pixels):
        raise ValueError(f"{function}: indices must be -1..{pixels - 1}, got {indices.min()}..{indices.max()}")
    return indices


def _averaged_dtype(dtype: DType) -> DType:
    """The mean of integers is a float64, as NumPy's."""
    return dtype if dtype.kind in "fc" else np.dtype("float64")


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
) -> Array:
    """The mean of each window.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, dilation, ceil_mode
        As `max_pool2d`.
    count_include_pad : bool
        Whether padding counts as zeros of the window, up to its end, or not at all.

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
    name = "avg_pool2d"
    include_pad = as_flag(name, "count_include_pad", count_include_pad)
    x = as_array(name, "x", x)
    images = as_images(name, "x", x)
    g = _geometry(name, images.shape, (kernel_size, stride, padding, dilation), ceil_mode)
    y = _by_parts(name, images, g.y_shape, lambda source, target: avg_pool(
        workers(_work(g)), g, _planes(source), include_pad, _planes(target)))  # fmt: skip
    return y if x.ndim == 4 else y[0]


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
) -> Array:
    """The adjoint of `avg_pool2d`: each output's gradient is shared by the pixels of its window.

    Parameters
    ----------
    grad_output : array_like, (N, C, OH, OW) or (C, OH, OW)
    input_size : int or (int, int)
        `(H, W)` of the input in pixels.
    kernel_size, stride, padding, dilation, ceil_mode, count_include_pad
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
    name = "avg_pool2d_backward"
    include_pad = as_flag(name, "count_include_pad", count_include_pad)
    dy = as_array(name, "grad_output", grad_output)
    gradients = as_images(name, "grad_output", dy)
    size = as_image_size(name, "input_size", input_size)
    g = _geometry(name, (*gradients.shape[:2], *size), (kernel_size, stride, padding, dilation), ceil_mode)
    check_same_shape(name, "grad_output", gradients.shape, g.y_shape, f"the forward result of input_size {size}")

    def run(source: Array, target: Array) -> None:
        part = _planes(allocate(name, "a workspace", source.shape, source.dtype))
        avg_pool_backward(workers(_work(g)), g, _planes(source), include_pad, part, _planes(target))

    dx = _by_parts(name, gradients, g.x_shape, run)
    return dx if dy.ndim == 4 else dx[0]


def _by_parts(function: str, array: Array, shape: tuple[int, ...], run: Any) -> Array:
    """A linear operation in the averaged dtype, complex numbers by parts."""
    dtype = _averaged_dtype(array.dtype)
    compute, is_complex = DTYPES[dtype]
    result = allocate(function, "the result", shape, dtype)
    parts = [(array.real, result.real), (array.imag, result.imag)] if is_complex else [(array, result)]
    for source, target in parts:
        values = allocate(function, "the result", shape, compute)
        if values.size:
            run(ready(function, "x", source, compute), values)
        write(target, values)
    return result
