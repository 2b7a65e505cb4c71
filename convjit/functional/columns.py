"""im2col and col2im: images as columns of patches, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..algorithms import columns as image_columns
from ..algorithms import volume_columns
from ..arrays import DTYPES, as_array, as_images, ready, result_dtype, write
from ..geometry import Convolution, Volume, pooling_geometry
from ..parsing import Sizes, as_image_size, as_padding, as_window, by
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, ArrayLike, IntOrPair, Padding
from .bits import move
from .front_door import public
from .looking_up import LookedUp
from .options import WindowOptions


@LookedUp
def _geometry(function: str, x_shape: Sizes, options: WindowOptions) -> Convolution:
    kernel_size, stride, padding, dilation = options
    window = as_window(function, kernel_size, stride, dilation, len(x_shape) - 2)
    return pooling_geometry(function, x_shape, window, as_padding(function, padding, window, x_shape[2:]))


def _columns_shape(g: Convolution) -> tuple[int, int, int]:
    return g.batch, g.in_channels * math.prod(g.window.kernel), math.prod(g.out_size)


def unfold_images(function: str, rank: int, x: ArrayLike, options: WindowOptions) -> Array:
    """`im2col`, in any number of dimensions."""
    x = as_array(function, "x", x)
    images = as_images(function, "x", x, rank)
    columns = unfold(function, images, options)
    return columns if x is images else columns[0]


def unfold(function: str, images: Array, options: WindowOptions) -> Array:
    """The columns of a batch."""
    g = _geometry.of(options)(function, images.shape, options)
    fill, of = _driven(g, "im2col")

    def run(source: Array, target: Array) -> None:
        fill(workers(float(target.size)), of, source, target)

    return move(function, (images,), _columns_shape(g), run)


def _driven(g: Convolution, name: str) -> tuple[Callable[..., None], Any]:
    """A function of the drivers' modules, and the record that it takes."""
    if g.rank == 3:
        return getattr(volume_columns, name), Volume(g.depth, g.plane)
    return getattr(image_columns, name), g.plane


def fold_columns(function: str, rank: int, columns: ArrayLike, image_size: Any, options: WindowOptions) -> Array:
    """`col2im`, in any number of dimensions."""
    columns = as_array(function, "columns", columns)
    batched = as_column_batch(function, columns, rank)
    images = fold(function, batched, as_image_size(function, "image_size", image_size, rank), options)
    return images if columns is batched else images[0]


def as_column_batch(function: str, columns: Array, rank: int = 2) -> Array:
    """One unbatched matrix of columns becomes a batch of one."""
    if columns.ndim == 3:
        return columns
    if columns.ndim == 2:
        return columns[None]
    shape = _COLUMNS[rank]
    raise ValueError(f"{function}: expected columns of shape (N, {shape}) or ({shape}), got shape {columns.shape}")


_COLUMNS = {1: "C*K, OL", 2: "C*KH*KW, OH*OW", 3: "C*KD*KH*KW, OD*OH*OW"}


def fold(function: str, columns: Array, image_size: Sizes, options: WindowOptions) -> Array:
    """The images that columns (N, C*KH*KW, OH*OW) add up to."""
    batch, rows, positions = columns.shape
    kernel = as_window(function, options[0], options[1], options[3], len(image_size)).kernel
    taps = math.prod(kernel)
    if rows % taps:
        raise ValueError(
            f"{function}: columns has {rows} rows, which {taps} taps ({by(kernel)}) do not divide into channels"
        )
    g = _geometry.of(options)(function, (batch, rows // taps, *image_size), options)
    if positions != math.prod(g.out_size):
        raise ValueError(
            f"{function}: columns has {positions} positions, but a {by(kernel)} kernel takes "
            f"{' * '.join(map(str, g.out_size))} = {math.prod(g.out_size)} over an image of {image_size}: "
            f"columns {columns.shape}"
        )
    dtype = result_dtype(columns)
    compute, is_complex = DTYPES[dtype]
    result = allocate(function, "the images", g.x_shape, dtype)
    add, of = _driven(g, "col2im")
    parts = [(columns.real, result.real), (columns.imag, result.imag)] if is_complex else [(columns, result)]
    for source, target in parts:
        sums = allocate(function, "the images", g.x_shape, compute)
        if sums.size:
            crew = workers(float(math.prod(source.shape)))
            add(crew, of, ready(function, "columns", source, compute), sums)
        write(target, sums)
    return result


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
    return unfold_images("im2col", 2, x, WindowOptions(kernel_size, stride, padding, dilation))


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
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return fold_columns("col2im", 2, columns, image_size, options)


@public
def im2col1d(
    x: ArrayLike, kernel_size: IntOrPair, stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1
) -> Array:
    """`im2col` in one dimension: each column is what the kernel sees at one output position.

    Parameters
    ----------
    x : array_like, (N, C, L) or (C, L)
    kernel_size, stride, dilation : int
    padding
        In any form that `conv1d` takes; the padding is zero.

    Returns
    -------
    ndarray, (N, C*K, OL) or without N
        `columns[n, c*K + k, i] = x[n, c, i*stride + k*dilation - pad]`,
        dtype of `x`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import im2col1d
    >>> im2col1d(np.arange(4).reshape(1, 4), kernel_size=2)
    array([[0, 1, 2],
           [1, 2, 3]])
    """
    return unfold_images("im2col1d", 1, x, WindowOptions(kernel_size, stride, padding, dilation))


@public
def col2im1d(
    columns: ArrayLike,
    image_size: IntOrPair,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
) -> Array:
    """`col2im` in one dimension, adding where patches overlap: the adjoint of `im2col1d`.

    Parameters
    ----------
    columns : array_like, (N, C*K, OL) or without N
    image_size : int
        `L`.
    kernel_size, stride, padding, dilation
        As given to `im2col1d`.

    Returns
    -------
    ndarray, (N, C, L) or (C, L)
        Of the dtype of `columns`, bool gives int64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `col2im`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import col2im1d
    >>> col2im1d(np.ones((2, 3), int), image_size=4, kernel_size=2)
    array([[1, 2, 2, 1]])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return fold_columns("col2im1d", 1, columns, image_size, options)


@public
def im2col3d(
    x: ArrayLike, kernel_size: IntOrPair, stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1
) -> Array:
    """`im2col` in three dimensions: each column is what the kernel sees at one output position.

    Parameters
    ----------
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
    kernel_size, stride, dilation : int or (int, int, int)
    padding
        In any form that `conv3d` takes; the padding is zero.

    Returns
    -------
    ndarray, (N, C*KD*KH*KW, OD*OH*OW) or without N
        `columns[n, ((c*KD + kd)*KH + kh)*KW + kw, (od*OH + oh)*OW + ow] = x[n, c, od*stride + kd*dilation - pad, ...]`,
        dtype of `x`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv3d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import im2col3d
    >>> im2col3d(np.arange(8).reshape(1, 2, 2, 2), kernel_size=(2, 1, 2))
    array([[0, 2],
           [1, 3],
           [4, 6],
           [5, 7]])
    """
    return unfold_images("im2col3d", 3, x, WindowOptions(kernel_size, stride, padding, dilation))


@public
def col2im3d(
    columns: ArrayLike,
    image_size: IntOrPair,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
) -> Array:
    """`col2im` in three dimensions, adding where patches overlap: the adjoint of `im2col3d`.

    Parameters
    ----------
    columns : array_like, (N, C*KD*KH*KW, OD*OH*OW) or without N
    image_size : int or (int, int, int)
        `(D, H, W)`.
    kernel_size, stride, padding, dilation
        As given to `im2col3d`.

    Returns
    -------
    ndarray, (N, C, D, H, W) or (C, D, H, W)
        Of the dtype of `columns`, bool gives int64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `col2im`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import col2im3d
    >>> col2im3d(np.ones((4, 2), int), image_size=2, kernel_size=(2, 1, 2)).ravel()
    array([1, 1, 1, 1, 1, 1, 1, 1])
    """
    options = WindowOptions(kernel_size, stride, padding, dilation)
    return fold_columns("col2im3d", 3, columns, image_size, options)
