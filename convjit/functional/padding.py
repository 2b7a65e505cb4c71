"""Padding in NumPy's modes, and its adjoint."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from ..algorithms.padding import PADDING_MODES, pad_backward, positions_of_pixels, source_indices
from ..algorithms.padding import pad as pad_driver
from ..arrays import DTYPES, as_array, as_images, ready, result_dtype, write
from ..geometry import Pads, as_padding, describe, is_sequence
from ..runtime.memory import allocate, check_fits
from ..runtime.threads import workers
from ..typing import Array, ArrayLike, Padding
from .bits import move
from .front_door import public

# Other libraries' names of the same modes.
_MODES_ELSEWHERE = {"zeros": "constant", "zero": "constant", "replicate": "edge", "circular": "wrap", "nearest": "edge"}


def check_mode(function: str, mode: Any, argument: str = "mode") -> None:
    """Refuse a padding mode that is not one of NumPy's names."""
    if not isinstance(mode, str):
        raise TypeError(f"{function}: {argument} must be a string, got {describe(mode)}")
    if mode not in PADDING_MODES:
        hint = f"; {_MODES_ELSEWHERE[mode]!r} is what that is called here" if mode in _MODES_ELSEWHERE else ""
        known = ", ".join(repr(m) for m in PADDING_MODES)
        raise ValueError(f"{function}: {argument} must be one of {known}, got {mode!r}{hint}")


def _check_pads(function: str, size: tuple[int, int], pads: Pads, mode: str) -> None:
    """Refuse what the mode cannot show."""
    for name, extent, pad in zip(("height", "width"), size, pads, strict=True):
        if mode != "constant" and extent == 0 and any(pad):
            raise ValueError(f"{function}: cannot pad an image of {name} 0 with mode {mode!r}, got padding {pad}")
        if mode == "reflect" and max(pad) >= extent and any(pad):
            raise ValueError(
                f"{function}: padding with mode 'reflect' must be smaller than the {name} {extent}, got {pad}"
            )
        check_fits(function, "a table of positions", (4, extent + sum(pad)), np.dtype(np.int64))


def _tables(size: tuple[int, int], pads: Pads, mode: str) -> tuple[Array, Array]:
    """For each axis, the pixel that each padded position shows."""
    rows, cols = (source_indices(mode, n, *pad) for n, pad in zip(size, pads, strict=True))
    return rows, cols


def pad_planes(function: str, x: Array, pads: Pads, mode: str, value: Any) -> Array:
    """Pad the last two axes of `x` (N, C, H, W); any dtype, moved bit for bit."""
    n, c, h, w = x.shape
    (top, bottom), (left, right) = pads
    shape = (n, c, h + top + bottom, w + left + right)
    check_fits(function, "the padded image", shape, x.dtype)
    _check_pads(function, (h, w), pads, mode)
    if 0 in shape:
        return np.empty(shape, x.dtype)
    rows, cols = _tables((h, w), pads, mode)

    def run(source: Array, constant: Array, target: Array) -> None:
        planes = target.reshape(n * c, *shape[2:])
        pad_driver(workers(float(target.size)), source.reshape(n * c, h, w), rows, cols, constant, planes)

    return move(function, (x, np.full(1, value, x.dtype)), shape, run)


def pad_planes_backward(function: str, dy: Array, pads: Pads, mode: str) -> Array:
    """The adjoint of `pad_planes`."""
    n, c, padded_h, padded_w = dy.shape
    (top, bottom), (left, right) = pads
    h, w = padded_h - top - bottom, padded_w - left - right
    dtype = result_dtype(dy)
    compute, is_complex = DTYPES[dtype]
    _check_pads(function, (h, w), pads, mode)
    dx = allocate(function, "the gradient", (n, c, h, w), dtype)
    if dx.size == 0:
        return dx
    rows, cols = _tables((h, w), pads, mode)
    if mode == "constant":
        write(dx, dy[:, :, top : top + h, left : left + w])
        return dx
    tables = (*positions_of_pixels(rows, h), *positions_of_pixels(cols, w))
    parts = [(dy.real, dx.real), (dy.imag, dx.imag)] if is_complex else [(dy, dx)]
    for source, target in parts:
        planes = ready(function, "grad_output", source, compute).reshape(n * c, padded_h, padded_w)
        sums = allocate(function, "the gradient", (n * c, h, w), compute)
        pad_backward(workers(float(planes.size)), planes, *tables, sums)
        write(target, sums.reshape(n, c, h, w))
    return dx


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
        What `"constant"` shows; it must be representable in the dtype of `x`.

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
    name = "pad2d"
    x = as_array(name, "x", x)
    images = as_images(name, "x", x)
    pads = as_padding(name, padding)
    check_mode(name, mode)
    y = pad_planes(name, images, pads, mode, _constant(name, value, x.dtype))
    return y if x.ndim == 4 else y[0]


def _constant(function: str, value: Any, dtype: Any) -> Any:
    """The padding value in the image's dtype, if it can be held."""
    scalar = np.asarray(None if is_sequence(value) else value)
    if scalar.ndim != 0 or scalar.dtype.kind not in "biufc":
        raise ValueError(f"{function}: value must be a scalar number, got {describe(value)}")
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
    name = "pad2d_backward"
    dy = as_array(name, "grad_output", grad_output)
    gradients = as_images(name, "grad_output", dy)
    pads = as_padding(name, padding)
    check_mode(name, mode)
    for axis, size in zip(("height", "width"), gradients.shape[2:], strict=True):
        pad = pads[axis == "width"]
        if sum(pad) > size:
            raise ValueError(f"{name}: padding {pad} is larger than the {axis} of grad_output, {size}")
    dx = pad_planes_backward(name, gradients, pads, mode)
    return dx if dy.ndim == 4 else dx[0]
