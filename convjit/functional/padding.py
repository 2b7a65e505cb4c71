"""Padding in NumPy's modes, and its adjoint."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from ..algorithms.padding import (
    PADDING_MODES,
    pad_backward,
    pad_pixels,
    pad_pixels_backward,
    positions_of_pixels,
    source_indices,
)
from ..algorithms.padding import pad as pad_driver
from ..arrays import DTYPES, as_array, as_images, locked, ready, result_dtype, shaped, sums_dtype, write
from ..layouts import CHANNELS_FIRST, Layout
from ..parsing import AXES, Pads, Pair, Sizes, as_padding, describe, is_sequence
from ..runtime.memory import allocate, check_fits
from ..runtime.threads import workers
from ..typing import Array, ArrayLike, DType, Padding
from .bits import move
from .front_door import public

# Other libraries' names of the same modes.
_MODES_ELSEWHERE = {"zeros": "constant", "zero": "constant", "replicate": "edge", "circular": "wrap", "nearest": "edge"}


def check_mode(function: str, name: str, mode: Any) -> None:
    """Refuse a padding mode that is not one of NumPy's names."""
    if not isinstance(mode, str):
        raise TypeError(f"{function}: {name} must be a string, got {describe(mode)}")
    if mode not in PADDING_MODES:
        hint = f"; {_MODES_ELSEWHERE[mode]!r} is what that is called here" if mode in _MODES_ELSEWHERE else ""
        known = ", ".join(repr(m) for m in PADDING_MODES)
        raise ValueError(f"{function}: {name} must be one of {known}, got {mode!r}{hint}")


def _check_pads(function: str, size: Sizes, pads: Pads, mode: str) -> None:
    """Refuse what the mode cannot show."""
    for name, extent, pad in zip(AXES[len(size)], size, pads, strict=True):
        if mode != "constant" and extent == 0 and any(pad):
            raise ValueError(f"{function}: cannot pad an image of {name} 0 with mode {mode!r}, got padding {pad}")
        if mode == "reflect" and max(pad) >= extent and any(pad):
            raise ValueError(
                f"{function}: padding with mode 'reflect' must be smaller than the {name} {extent}, got {pad}"
            )
        check_fits(function, "a table of positions", (4, extent + sum(pad)), np.dtype(np.int64))


# Positions of an axis up to which its tables are kept: a small call of 33 us took 8 to make them.
_KEPT = 1 << 10


def _tables(size: Sizes, pads: Pads, mode: str) -> list[Array]:
    """For each axis, the pixel that each padded position shows."""
    return [
        (_kept_indices if n + sum(pad) <= _KEPT else source_indices)(mode, n, *pad)
        for n, pad in zip(size, pads, strict=True)
    ]


def _inverse_tables(size: Pair, pads: Pads, mode: str) -> tuple[Array, Array, Array, Array]:
    """For rows and columns, where the positions that show each of them begin among all positions, and these."""
    (row_starts, rows), (col_starts, cols) = (
        (_kept_positions if n + sum(pad) <= _KEPT else _positions)(mode, n, *pad)
        for n, pad in zip(size, pads, strict=True)
    )
    return row_starts, rows, col_starts, cols


@lru_cache(maxsize=128)
def _kept_indices(mode: str, size: int, before: int, after: int) -> Array:
    return locked(source_indices(mode, size, before, after))


@lru_cache(maxsize=128)
def _kept_positions(mode: str, size: int, before: int, after: int) -> tuple[Array, Array]:
    starts, positions = _positions(mode, size, before, after)
    return locked(starts), locked(positions)


def _positions(mode: str, size: int, before: int, after: int) -> tuple[Array, Array]:
    return positions_of_pixels(source_indices(mode, size, before, after), size)


# A mode pads one axis after the other, so that axes without padding may be seen as one: a volume is padded as planes
# that are as high as it is deep, and as planes of height and width.
_NO_PAD = (0, 0)


def pad_images(function: str, x: Array, pads: Pads, mode: str, value: Any, layout: Layout = CHANNELS_FIRST) -> Array:
    """Pad all axes of `x` (N, C, H, W) but the first two, or those of another rank; any dtype, moved bit for bit.

    Of images with channels last, the two in the middle, in a mode other than `"constant"`.
    """
    n, c, *size = layout.told(x.shape)
    shape = layout.lying((n, c, *(extent + sum(pad) for extent, pad in zip(size, pads, strict=True))))
    check_fits(function, "the padded image", shape, x.dtype)
    _check_pads(function, tuple(size), pads, mode)
    if 0 in shape:
        return allocate(function, "the padded image", shape, x.dtype)
    if layout.channels_last:
        rows, cols = _tables(tuple(size), pads, mode)
        return move(function, (x,), shape, lambda source, target: pad_pixels(
            workers(float(target.size)), source, rows, cols, target))  # fmt: skip
    if x.ndim == 3:
        return _pad_planes(function, x[:, :, None], (_NO_PAD, *pads), mode, value).reshape(shape)
    if x.ndim == 4:
        return _pad_planes(function, x, pads, mode, value)
    n, c, d, h, w = x.shape
    if any(pads[0]):
        x = _pad_planes(function, shaped(function, "x", x, (n, c, d, h * w)), (pads[0], _NO_PAD), mode, value)
    planes = shaped(function, "x", x, (n, c * shape[2], h, w))
    return _pad_planes(function, planes, pads[1:], mode, value).reshape(shape)


def _pad_planes(function: str, x: Array, pads: Pads, mode: str, value: Any) -> Array:
    n, c, h, w = x.shape
    shape = (n, c, h + sum(pads[0]), w + sum(pads[1]))
    rows, cols = _tables((h, w), pads, mode)

    def run(source: Array, constant: Array, target: Array) -> None:
        planes = target.reshape(n * c, *shape[2:])
        pad_driver(workers(float(target.size)), source.reshape(n * c, h, w), rows, cols, constant, planes)

    return move(function, (x, np.full(1, value, x.dtype)), shape, run)


def pad_images_backward(
    function: str, dy: Array, pads: Pads, mode: str, dtype: DType, layout: Layout = CHANNELS_FIRST
) -> Array:
    """The adjoint of `pad_images`, in this dtype."""
    n, c, *padded = layout.told(dy.shape)
    shape = (n, c, *(size - sum(pad) for size, pad in zip(padded, pads, strict=True)))
    _check_pads(function, shape[2:], pads, mode)
    if layout.channels_last:
        return _pad_pixels_backward(function, dy, layout.lying(shape), pads, mode, dtype)
    if dy.ndim == 3:
        dx = _pad_planes_backward(function, dy[:, :, None], (_NO_PAD, *pads), mode, dtype)
        return dx.reshape(shape)
    if dy.ndim == 4:
        return _pad_planes_backward(function, dy, pads, mode, dtype)
    d, h, w = padded
    planes = shaped(function, "grad_output", dy, (n, c * d, h, w))
    if not any(pads[0]):
        return _pad_planes_backward(function, planes, pads[1:], mode, dtype).reshape(shape)
    # Rounded once: float16 is float32 until both are done.
    dx = _pad_planes_backward(function, planes, pads[1:], mode, sums_dtype(dtype))
    rows = dx.reshape(n, c, d, shape[3] * shape[4])
    return _pad_planes_backward(function, rows, (pads[0], _NO_PAD), mode, dtype).reshape(shape)


def _pad_planes_backward(function: str, dy: Array, pads: Pads, mode: str, dtype: DType) -> Array:
    n, c, padded_h, padded_w = dy.shape
    (top, bottom), (left, right) = pads
    h, w = padded_h - top - bottom, padded_w - left - right
    compute, is_complex = DTYPES[dtype]
    dx = allocate(function, "the gradient", (n, c, h, w), dtype)
    if dx.size == 0:
        return dx
    if mode == "constant":
        write(dx, dy[:, :, top : top + h, left : left + w])
        return dx
    tables = _inverse_tables((h, w), pads, mode)
    parts = [(dy.real, dx.real), (dy.imag, dx.imag)] if is_complex else [(dy, dx)]
    for source, target in parts:
        planes = ready(function, "grad_output", source, compute).reshape(n * c, padded_h, padded_w)
        sums = target if compute == dtype else allocate(function, "the gradient", dx.shape, compute)
        pad_backward(workers(float(planes.size)), planes, *tables, sums.reshape(n * c, h, w))
        if sums is not target:
            write(target, sums)
    return dx


def _pad_pixels_backward(
    function: str, dy: Array, shape: Sizes, pads: Pads, mode: str, dtype: DType
) -> Array:  # fmt: skip
    """The same of images (N, H, W, C), of this shape, in a mode other than `"constant"`."""
    compute, is_complex = DTYPES[dtype]
    dx = allocate(function, "the gradient", shape, dtype)
    if dx.size == 0:
        return dx
    _, h, w, c = shape
    tables = _inverse_tables((h, w), pads, mode)
    parts = [(dy.real, dx.real), (dy.imag, dx.imag)] if is_complex else [(dy, dx)]
    for source, target in parts:
        sums = target if compute == dtype else allocate(function, "the gradient", shape, compute)
        crew = workers(float(dy.size))
        rest = allocate(function, "sums", (crew, c), compute)
        pad_pixels_backward(crew, ready(function, "grad_output", source, compute), *tables, sums, rest)
        if sums is not target:
            write(target, sums)
    return dx


def pad(function: str, rank: int, x: ArrayLike, padding: Any, mode: Any, value: Any) -> Array:
    """`pad2d`, in any number of dimensions."""
    x = as_array(function, "x", x)
    images = as_images(function, "x", x, rank)
    pads = as_padding(function, padding, rank=rank)
    check_mode(function, "mode", mode)
    y = pad_images(function, images, pads, mode, _constant(function, value, x.dtype))
    return y if x is images else y[0]


def pad_backward_of(function: str, rank: int, grad_output: ArrayLike, padding: Any, mode: Any) -> Array:
    """`pad2d_backward`, in any number of dimensions."""
    dy = as_array(function, "grad_output", grad_output)
    gradients = as_images(function, "grad_output", dy, rank)
    pads = as_padding(function, padding, rank=rank)
    check_mode(function, "mode", mode)
    for axis, size, sides in zip(AXES[rank], gradients.shape[2:], pads, strict=True):
        if sum(sides) > size:
            raise ValueError(f"{function}: padding {sides} is larger than the {axis} of grad_output, {size}")
    dx = pad_images_backward(function, gradients, pads, mode, result_dtype(dy))
    return dx if dy is gradients else dx[0]


@public
def pad2d(x: ArrayLike, padding: Padding, *, mode: str = "constant", value: complex = 0) -> Array:
    """Pad images with rows and columns.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
    padding : int, (int, int) or ((int, int), (int, int))
        Pixels: everywhere, `(height, width)`, or `((top, bottom), (left, right))`.
    mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        NumPy's names: for pixels `1 2 3 4` and two more on the left they show `0 0`, `1 1`, `3 2`, `2 1` and `3 4`.
    value : scalar
        What `"constant"` shows, rounded to the dtype of floating and complex `x`, where it may become infinite;
        integers must hold it as it is.

    Returns
    -------
    ndarray, (N, C, top + H + bottom, left + W + right) or without N
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        For a padding, mode or value that cannot be used, and a result that cannot fit; with `"reflect"` the padding
        must be smaller than the image.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is, with a real `value`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import pad2d
    >>> pad2d(np.array([[[1, 2, 3]]]), (0, 2), mode="reflect")
    array([[[3, 2, 1, 2, 3, 2, 1]]])
    """
    return pad("pad2d", 2, x, padding, mode, value)


def _constant(function: str, value: Any, dtype: Any) -> Any:
    """The padding value in the image's dtype, if it can be held."""
    scalar = np.asarray(None if is_sequence(value) else value)
    if isinstance(value, int) and scalar.dtype.kind == "O":  # beyond 64 bits
        with suppress(OverflowError):
            scalar = np.asarray(float(value))
    if scalar.ndim != 0 or scalar.dtype.kind not in "biufc":
        raise TypeError(f"{function}: value must be a scalar number, got {describe(value)}")
    held = None
    if scalar.dtype.kind != "c" or dtype.kind == "c":
        with np.errstate(all="ignore"), suppress(OverflowError):
            held = scalar.astype(dtype)
    if held is None or (dtype.kind not in "fc" and not bool(held == scalar)):
        raise ValueError(f"{function}: value {value!r} cannot be held in dtype {dtype}")
    return held


@public
def pad2d_backward(grad_output: ArrayLike, padding: Padding, *, mode: str = "constant") -> Array:
    """The adjoint of `pad2d`: what each pixel receives from all the positions that show it.

    Parameters
    ----------
    grad_output : array_like, (N, C, HP, WP) or (C, HP, WP)
        The gradient with respect to the padded images.
    padding, mode
        As given to `pad2d`.

    Returns
    -------
    ndarray, (N, C, HP - top - bottom, WP - left - right) or without N
        `dx[h, w] = sum of grad_output[i, j]` over the positions that show pixel `(h, w)`; dtype of `grad_output`, bool
        gives int64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `pad2d`; and `ValueError` if the padding is larger than `grad_output`.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import pad2d_backward
    >>> pad2d_backward(np.ones((1, 1, 7)), (0, 2), mode="edge")
    array([[[3., 1., 3.]]])
    """
    return pad_backward_of("pad2d_backward", 2, grad_output, padding, mode)


@public
def pad1d(x: ArrayLike, padding: Padding, *, mode: str = "constant", value: complex = 0) -> Array:
    """Pad sequences: `pad2d` in one dimension.

    Parameters
    ----------
    x : array_like, (N, C, L) or (C, L)
    padding : int or ((int, int),)
        Elements: at both ends, or `((start, end),)`.
    mode, value
        As `pad2d` takes them.

    Returns
    -------
    ndarray, (N, C, start + L + end) or without N
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `pad2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import pad1d
    >>> pad1d(np.array([[1, 2, 3]]), ((0, 2),), mode="edge")
    array([[1, 2, 3, 3, 3]])
    """
    return pad("pad1d", 1, x, padding, mode, value)


@public
def pad1d_backward(grad_output: ArrayLike, padding: Padding, *, mode: str = "constant") -> Array:
    """The adjoint of `pad1d`: what each element receives from all the positions that show it.

    Parameters
    ----------
    grad_output : array_like, (N, C, LP) or (C, LP)
    padding, mode
        As given to `pad1d`.

    Returns
    -------
    ndarray, (N, C, LP - start - end) or without N
        Of the dtype of `grad_output`, bool gives int64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `pad2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import pad1d_backward
    >>> pad1d_backward(np.ones((1, 5)), ((0, 2),), mode="edge")
    array([[1., 1., 3.]])
    """
    return pad_backward_of("pad1d_backward", 1, grad_output, padding, mode)


@public
def pad3d(x: ArrayLike, padding: Padding, *, mode: str = "constant", value: complex = 0) -> Array:
    """Pad volumes: `pad2d` in three dimensions.

    Parameters
    ----------
    x : array_like, (N, C, D, H, W) or (C, D, H, W)
    padding : int, (int, int, int) or ((int, int), (int, int), (int, int))
        Voxels: everywhere, `(depth, height, width)`, or `((front, back), (top, bottom), (left, right))`.
    mode, value
        As `pad2d` takes them.

    Returns
    -------
    ndarray, (N, C, front + D + back, top + H + bottom, left + W + right) or without N
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `pad2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import pad3d
    >>> pad3d(np.array([[[[1]], [[2]]]]), (1, 0, 0), mode="wrap").ravel()
    array([2, 1, 2, 1])
    """
    return pad("pad3d", 3, x, padding, mode, value)


@public
def pad3d_backward(grad_output: ArrayLike, padding: Padding, *, mode: str = "constant") -> Array:
    """The adjoint of `pad3d`: what each voxel receives from all the positions that show it.

    Parameters
    ----------
    grad_output : array_like, (N, C, DP, HP, WP) or (C, DP, HP, WP)
    padding, mode
        As given to `pad3d`.

    Returns
    -------
    ndarray, (N, C, DP - front - back, HP - top - bottom, WP - left - right) or without N
        Of the dtype of `grad_output`, bool gives int64.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `pad2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import pad3d_backward
    >>> pad3d_backward(np.ones((1, 4, 1, 1)), (1, 0, 0), mode="edge").ravel()
    array([2., 2.])
    """
    return pad_backward_of("pad3d_backward", 3, grad_output, padding, mode)
