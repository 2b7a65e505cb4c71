"""The four functions of the text that this library grew out of, with its signatures and its order of columns.

Columns are `(C*KH*KW, OH*OW*N)`, the batch fastest. Source: E. Linder-Norén, "ML-From-Scratch" (MIT licence),
`deep_learning/layers.py`, itself after Stanford's CS231n. New code is better served by `im2col` and `col2im`.
Callable in `@njit` code, `output_shape` a literal where it is a name, `images_shape` a tuple, `cols` of two dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import as_array, converted, write
from ..geometry import pooling_geometry
from ..parsing import Pads, Window, as_image_size, as_padding, as_pair, as_window, describe, shown
from ..runtime.memory import allocate, check_fits
from ..typing import Array, ArrayLike, IntOrPair, Padding
from .columns import fold, unfold
from .front_door import public
from .options import WindowOptions


@public
def determine_padding(filter_shape: IntOrPair, output_shape: str = "same") -> Pads:
    """The padding that gives an output of a named shape.

    Parameters
    ----------
    filter_shape : (int, int)
    output_shape : {"same", "valid", "full"}

    Returns
    -------
    ((int, int), (int, int))
        `((top, bottom), (left, right))`; `"same"` is `k - 1` in all, the odd pixel after, for any stride.

    Raises
    ------
    ValueError, TypeError
        For a name that is not known; for a filter shape that is not two positive ints.

    Examples
    --------
    >>> from convjit import determine_padding
    >>> determine_padding((3, 4), "same")
    ((1, 1), (1, 2))
    """
    name = "determine_padding"
    window = _filter_window(name, filter_shape, 1)
    if not isinstance(output_shape, str):
        raise TypeError(f"{name}: output_shape must be a string, got {describe(output_shape)}")
    if output_shape not in ("same", "valid", "full"):  # others depend on the image
        raise ValueError(f"{name}: output_shape must be 'same', 'valid' or 'full', got {output_shape!r}")
    return as_padding(name, output_shape, window)


def _filter_window(function: str, filter_shape: Any, stride: Any) -> Window:
    if min(as_pair(function, "filter_shape", filter_shape, 0)) < 1:
        raise ValueError(f"{function}: filter_shape must be at least 1x1, got {shown(filter_shape)}")
    return as_window(function, filter_shape, stride, 1)


def _images_shape(function: str, shape: Any) -> tuple[int, int, int, int]:
    try:
        n, c, h, w = shape
    except (TypeError, ValueError) as error:
        raise type(error)(f"{function}: images_shape must be (N, C, H, W), got {shown(shape)}") from None
    batch, channels = (as_pair(function, "images_shape", size, 0)[0] for size in (n, c))
    height, width = as_image_size(function, "images_shape", (h, w))
    return batch, channels, height, width


@public
def get_im2col_indices(
    images_shape: tuple[int, int, int, int], filter_shape: IntOrPair, padding: Padding, stride: IntOrPair = 1
) -> tuple[Array, Array, Array]:
    """Indices that gather patches from padded images: `padded[:, k, i, j]`.

    Parameters
    ----------
    images_shape : (N, C, H, W)
        Before padding.
    filter_shape : (int, int)
    padding : ((int, int), (int, int))
        `((top, bottom), (left, right))`, or any other form that `conv2d` takes.
    stride : int or (int, int)

    Returns
    -------
    k, i, j : ndarray of int
        Channel `(C*KH*KW, 1)`, row and column `(C*KH*KW, OH*OW)`.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong kind, and a filter larger than the padded image.

    Examples
    --------
    >>> from convjit import get_im2col_indices
    >>> k, i, j = get_im2col_indices((1, 1, 2, 3), (2, 2), ((0, 0), (0, 0)))
    >>> i
    array([[0, 0],
           [0, 0],
           [1, 1],
           [1, 1]])
    >>> j
    array([[0, 1],
           [1, 2],
           [0, 1],
           [1, 2]])
    """
    name = "get_im2col_indices"
    shape = _images_shape(name, images_shape)
    window = _filter_window(name, filter_shape, stride)
    g = pooling_geometry(name, shape, window, as_padding(name, padding, window, shape[2:])).plane
    taps = (g.in_channels, g.kernel_h, g.kernel_w)
    rows, positions = math.prod(taps), g.out_h * g.out_w
    for what in ((3, rows), (2, positions), (2, rows, positions)):
        check_fits(name, "an array of indices", what, np.dtype(np.int64))
    row, position = np.arange(rows)[:, None], np.arange(positions)[None]
    k, kh, kw = row // (g.kernel_h * g.kernel_w), row // g.kernel_w % g.kernel_h, row % g.kernel_w
    return k, kh + position // g.out_w * g.stride_h, kw + position % g.out_w * g.stride_w


@public
def image_to_column(
    images: ArrayLike, filter_shape: IntOrPair, stride: IntOrPair, output_shape: Padding = "same"
) -> Array:
    """Unfold images into columns, the batch fastest.

    Parameters
    ----------
    images : array_like, (N, C, H, W)
    filter_shape : (int, int)
    stride : int or (int, int)
    output_shape : {"same", "valid"}
        Or any other form of padding that `conv2d` takes.

    Returns
    -------
    ndarray, (C*KH*KW, OH*OW*N)
        Of the dtype of `images`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `im2col`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import image_to_column
    >>> image_to_column(np.arange(6).reshape(1, 1, 2, 3), (2, 2), stride=1, output_shape="valid")
    array([[0, 1],
           [1, 2],
           [3, 4],
           [4, 5]])
    """
    name = "image_to_column"
    array = as_array(name, "images", images)
    if array.ndim != 4:
        raise ValueError(f"{name}: expected images of shape (N, C, H, W), got shape {array.shape}")
    window = _filter_window(name, filter_shape, stride)
    pads = as_padding(name, output_shape, window, array.shape[2:], argument="output_shape")
    columns = unfold(name, array, WindowOptions(window.kernel, stride, pads, 1))
    rows = columns.shape[1]
    result = allocate(name, "the columns", (rows, columns.shape[2], columns.shape[0]), columns.dtype)
    write(result, columns.transpose(1, 2, 0))
    return result.reshape(rows, columns.shape[0] * columns.shape[2])


@public
def column_to_image(
    cols: ArrayLike,
    images_shape: tuple[int, int, int, int],
    filter_shape: IntOrPair,
    stride: IntOrPair,
    output_shape: Padding = "same",
) -> Array:
    """Fold columns into images, adding where patches overlap: the adjoint of `image_to_column`.

    Parameters
    ----------
    cols : array_like, (C*KH*KW, OH*OW*N)
        The batch fastest.
    images_shape : (N, C, H, W)
    filter_shape, stride, output_shape
        As given to `image_to_column`.

    Returns
    -------
    ndarray, (N, C, H, W)
        Of float64, as in the original (complex128 for complex columns).

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `col2im`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import column_to_image
    >>> column_to_image(np.ones((4, 2)), (1, 1, 2, 3), (2, 2), stride=1, output_shape="valid")
    array([[[[1., 2., 1.],
             [1., 2., 1.]]]])
    """
    name = "column_to_image"
    array = as_array(name, "cols", cols)
    batch, channels, height, width = _images_shape(name, images_shape)
    window = _filter_window(name, filter_shape, stride)
    pads = as_padding(name, output_shape, window, (height, width), argument="output_shape")
    g = pooling_geometry(name, (batch, channels, height, width), window, pads)
    rows, positions = channels * window.kernel[0] * window.kernel[1], math.prod(g.out_size)
    if array.size != rows * positions * batch or array.ndim == 0 or array.shape[0] != rows:
        raise ValueError(
            f"{name}: cols must have shape ({rows}, {positions * batch}) for images {tuple(images_shape)}, "
            f"got {array.shape}"
        )
    check_fits(name, "a copy of cols", (rows, positions), array.dtype)
    batched = array.reshape(rows, positions, batch).transpose(2, 0, 1)
    exact = converted(name, "a copy of cols", batched, np.dtype("complex128" if array.dtype.kind == "c" else "float64"))
    return fold(name, exact, (height, width), WindowOptions(window.kernel, stride, pads, 1))
