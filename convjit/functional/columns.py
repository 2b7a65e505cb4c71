"""im2col and col2im: images as columns of patches, and back."""

from __future__ import annotations

import math
from typing import Any

from ..algorithms.columns import col2im as add_columns
from ..algorithms.columns import im2col as fill_columns
from ..arrays import DTYPES, as_array, as_images, ready, result_dtype, write
from ..geometry import Geometry, as_image_size, as_padding, as_window, pooling_geometry
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, ArrayLike, IntOrPair, Padding
from .bits import move
from .front_door import public


def _geometry(function: str, x_shape: tuple[int, ...], options: tuple[Any, ...]) -> Geometry:
    """`options` are kernel size, stride, padding and dilation."""
    kernel_size, stride, padding, dilation = options
    window = as_window(function, kernel_size, stride, dilation)
    return pooling_geometry(function, x_shape, window, as_padding(function, padding, window, (x_shape[2], x_shape[3])))


def _columns_shape(g: Geometry) -> tuple[int, int, int]:
    return g.batch, g.in_channels * g.kernel_h * g.kernel_w, g.out_h * g.out_w


@public
def im2col(
    x: ArrayLike, kernel_size: IntOrPair, stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1
) -> Array:
    """Unfold images into columns: each column is what the kernel sees at one output position.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
    kernel_size, stride, dilation : int or (int, int)
    padding
        In any form that `conv2d` takes; the padding is zero.

    Returns
    -------
    ndarray, (N, C*KH*KW, OH*OW) or (C*KH*KW, OH*OW)
        `columns[n, (c*KH + kh)*KW + kw, oh*OW + ow] = x[n, c, oh*stride + kh*dilation - pad, ...]`, dtype of `x`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import im2col
    >>> im2col(np.arange(9).reshape(1, 3, 3), kernel_size=2)
    array([[0, 1, 3, 4],
           [1, 2, 4, 5],
           [3, 4, 6, 7],
           [4, 5, 7, 8]])
    """
    name = "im2col"
    x = as_array(name, "x", x)
    images = as_images(name, "x", x)
    columns = unfold(name, images, (kernel_size, stride, padding, dilation))
    return columns if x.ndim == 4 else columns[0]


def unfold(function: str, images: Array, options: tuple[Any, ...]) -> Array:
    """The columns of a batch; `options` are kernel size, stride, padding and dilation."""
    g = _geometry(function, images.shape, options)

    def run(source: Array, target: Array) -> None:
        fill_columns(workers(float(target.size)), g, source, target)

    return move(function, (images,), _columns_shape(g), run)


@public
def col2im(
    columns: ArrayLike,
    image_size: IntOrPair,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
) -> Array:
    """Fold columns into images, adding where patches overlap: the adjoint of `im2col`.

    Parameters
    ----------
    columns : array_like, (N, C*KH*KW, OH*OW) or (C*KH*KW, OH*OW)
    image_size : int or (int, int)
        `(H, W)` of the images in pixels.
    kernel_size, stride, padding, dilation
        As given to `im2col`.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)
        The sum, at each pixel, of the column entries that `im2col` reads from it; dtype of `columns`, bool gives int64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; and `ValueError` if the columns do not fit the image size and the kernel.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import col2im
    >>> col2im(np.ones((4, 4), int), image_size=3, kernel_size=2)
    array([[[1, 2, 1],
            [2, 4, 2],
            [1, 2, 1]]])
    """
    name = "col2im"
    columns = as_array(name, "columns", columns)
    batched = as_column_batch(name, columns)
    height, width = as_image_size(name, "image_size", image_size)
    images = fold(name, batched, (height, width), (kernel_size, stride, padding, dilation))
    return images if columns.ndim == 3 else images[0]


def as_column_batch(function: str, columns: Array) -> Array:
    """One unbatched matrix of columns becomes a batch of one."""
    if columns.ndim == 3:
        return columns
    if columns.ndim == 2:
        return columns[None]
    raise ValueError(
        f"{function}: expected columns of shape (N, C*KH*KW, OH*OW) or (C*KH*KW, OH*OW), got shape {columns.shape}"
    )


def fold(function: str, columns: Array, image_size: tuple[int, int], options: tuple[Any, ...]) -> Array:
    """The images that columns (N, C*KH*KW, OH*OW) add up to."""
    batch, rows, positions = columns.shape
    kernel_h, kernel_w = as_window(function, *(options[i] for i in (0, 1, 3))).kernel
    if rows % (kernel_h * kernel_w):
        raise ValueError(
            f"{function}: columns has {rows} rows, which {kernel_h * kernel_w} taps ({kernel_h}x{kernel_w}) do not "
            "divide into channels"
        )
    g = _geometry(function, (batch, rows // (kernel_h * kernel_w), *image_size), options)
    if positions != g.out_h * g.out_w:
        raise ValueError(
            f"{function}: columns has {positions} positions, but a {kernel_h}x{kernel_w} kernel takes "
            f"{g.out_h} * {g.out_w} = {g.out_h * g.out_w} over an image of {image_size}: columns {columns.shape}"
        )
    dtype = result_dtype(columns)
    compute, is_complex = DTYPES[dtype]
    result = allocate(function, "the images", g.x_shape, dtype)
    parts = [(columns.real, result.real), (columns.imag, result.imag)] if is_complex else [(columns, result)]
    for source, target in parts:
        sums = allocate(function, "the images", g.x_shape, compute)
        if sums.size:
            crew = workers(float(math.prod(source.shape)))
            add_columns(crew, g, ready(function, "columns", source, compute), sums)
        write(target, sums)
    return result
