"""Transposed convolution: the input gradient of `conv2d` as a forward operation.

Knows output sizes; the sums are those of `conv2d`'s gradients, so no zero-stuffed image exists.
Source: PyTorch's `ConvTranspose2d`; ONNX operator ConvTranspose for `same_upper` and `same_lower`.
"""

from __future__ import annotations

from typing import Any

from ..arrays import add, as_array, as_images, converted, result_dtype, sums_dtype
from ..geometry import (
    Geometry,
    Pads,
    Window,
    as_image_size,
    as_pair,
    as_positive,
    as_window,
    check_counts_fit,
    check_same_shape,
    transposed_padding,
)
from ..typing import Array, ArrayLike, IntOrPair, Padding
from . import bilinear
from .conv import check_need
from .front_door import public


def _geometry(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: tuple[Any, ...], output_size: Any
) -> Geometry:
    """The record of the convolution that this one transposes: its output is `x`, its input the result.

    `options` are stride, padding, output_padding, groups and dilation.
    """
    stride, padding, output_padding, groups, dilation = options
    if len(weight_shape) != 4:
        raise ValueError(f"{function}: expected weight of shape (C, O/groups, KH, KW), got {weight_shape}")
    groups = as_positive(function, "groups", groups)
    channels, group_out, kernel_h, kernel_w = weight_shape
    if min(group_out, kernel_h, kernel_w) < 1:
        raise ValueError(
            f"{function}: weight needs at least one output channel and a kernel of at least 1x1, got {weight_shape}"
        )
    if channels != x_shape[1]:
        raise ValueError(
            f"{function}: weight expects {channels} input channels, but x has {x_shape[1]}: x {x_shape}, "
            f"weight {weight_shape}"
        )
    if channels % groups:
        raise ValueError(f"{function}: groups={groups} must divide the input channels ({channels})")
    window = as_window(function, (kernel_h, kernel_w), stride, dilation)
    image = (x_shape[2], x_shape[3])
    if 0 in image:
        raise ValueError(f"{function}: x needs at least one pixel, got shape {x_shape}")
    wanted = None if output_size is None else as_image_size(function, "output_size", output_size)
    pads = transposed_padding(function, padding, window, image, wanted)
    check_counts_fit(function, window, pads)
    extra = as_pair(function, "output_padding", output_padding, 0)
    sizes = _output_sizes(function, image, window, pads, extra, wanted)
    return Geometry(
        x_shape[0], group_out * groups, *sizes, channels, *image, *window.kernel, *window.stride, *window.dilation,
        *pads[0], *pads[1], groups,
    )  # fmt: skip


def _output_sizes(
    function: str, image: tuple[int, int], window: Window, pads: Pads, extra: tuple[int, int],
    wanted: tuple[int, int] | None,
) -> tuple[int, int]:  # fmt: skip
    least = tuple(
        (size - 1) * stride + extent - sum(pad)
        for size, stride, extent, pad in zip(image, window.stride, window.extent, pads, strict=True)
    )
    limit = tuple(max(pair) for pair in zip(window.stride, window.dilation, strict=True))
    if extra[0] >= limit[0] or extra[1] >= limit[1]:
        raise ValueError(
            f"{function}: output_padding must be smaller than stride or dilation, got {extra} with stride "
            f"{window.stride} and dilation {window.dilation}"
        )
    sizes = (least[0] + extra[0], least[1] + extra[1])
    if wanted is not None:
        for axis in (0, 1):
            added = wanted[axis] - least[axis]
            if not 0 <= added < limit[axis] or (any(extra) and added != extra[axis]):
                raise ValueError(
                    f"{function}: output_size {wanted} cannot be reached: x {image} gives {least} and up to "
                    f"{tuple(n - 1 for n in limit)} more, with output_padding {extra}"
                )
        sizes = wanted
    if min(sizes) < 1:
        raise ValueError(f"{function}: padding {pads} leaves no output: its size would be {sizes}")
    return sizes


@public
def conv_transpose2d(
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
    """Transposed convolution: the adjoint of `conv2d` in its input, with a bias.

    Parameters
    ----------
    x : array_like, (N, C, H, W) or (C, H, W)
    weight : array_like, (C, O // groups, KH, KW)
    bias : array_like, (O,), optional
    stride, dilation : int or (int, int)
    padding
        What `conv2d` would pad and so is cut off here, in any of its forms. `"same_upper"` and `"same_lower"` give an
        output of `size * stride`, or of `output_size`, the odd pixel cut at the end or at the start.
    output_padding : int or (int, int)
        Pixels added at the end, fewer than stride or dilation.
    groups : int
    output_size : int or (int, int), optional
        `(H, W)` of the result, instead of `output_padding`, or beside one that agrees.

    Returns
    -------
    ndarray, (N, O, OH, OW) or (O, OH, OW)
        `y[n, o, h, w] = bias[o] + sum of weight[c, o, kh, kw] * x[n, c, i, j]` over all `c, i, j, kh, kw` with
        `h = i*stride + kh*dilation - pad` and `w` likewise; `OH = (H-1)*stride - pads + dilation*(KH-1) + 1 +
        output_padding`. Of dtype `np.result_type(x, weight, bias)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; `ValueError` for an output size that cannot be reached.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose2d
    >>> conv_transpose2d(np.array([[[1.0, 2.0]]]), np.ones((1, 1, 1, 2)), stride=2)
    array([[[1., 1., 2., 2.]]])
    """
    name = "conv_transpose2d"
    x, weight = as_array(name, "x", x), as_array(name, "weight", weight)
    bias = None if bias is None else as_array(name, "bias", bias)
    images = as_images(name, "x", x)
    options = (stride, padding, output_padding, groups, dilation)
    g = _geometry(name, images.shape, weight.shape, options, output_size)
    if bias is not None:
        check_same_shape(name, "bias", bias.shape, (g.in_channels,), "one value an output channel")
    dtype = result_dtype(x, weight) if bias is None else result_dtype(x, weight, bias)
    sums = sums_dtype(dtype)
    y = bilinear.input_grad(name, "auto", g, images, bilinear.conjugate(weight), sums)
    if bias is not None:
        add(y, bias[:, None, None])
    y = converted(name, "the result", y, dtype)
    return y if x.ndim == 4 else y[0]


@public
def conv_transpose2d_backward(
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
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of `conv_transpose2d`.

    Parameters
    ----------
    grad_output : array_like, shape of `conv_transpose2d`'s result
    x, weight, stride, padding, output_padding, groups, dilation, output_size
        As given to `conv_transpose2d`.
    need : (bool, bool, bool)
        Which of the three gradients to compute.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray or None
        Shapes of `x`, `weight` and `(O,)`; None where not needed.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv_transpose2d`; and `ValueError` if `grad_output` is not of the shape that it returns.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is, with `need` as a tuple of literal bools.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose2d_backward
    >>> gradients = conv_transpose2d_backward(np.ones((1, 1, 3)), np.array([[[1.0, 2.0]]]), np.ones((1, 1, 1, 2)))
    >>> [g.ravel().tolist() for g in gradients]
    [[2.0, 2.0], [3.0, 3.0], [3.0]]
    """
    name = "conv_transpose2d_backward"
    dy, x, weight = (
        as_array(name, "grad_output", grad_output), as_array(name, "x", x), as_array(name, "weight", weight)
    )  # fmt: skip
    images = as_images(name, "x", x)
    options = (stride, padding, output_padding, groups, dilation)
    g = _geometry(name, images.shape, weight.shape, options, output_size)
    shape = g.x_shape if x.ndim == 4 else g.x_shape[1:]
    check_same_shape(name, "grad_output", dy.shape, shape, "the shape of the forward result")
    wanted = check_need(name, need)
    dtype = result_dtype(dy, x, weight)
    dy = dy.reshape(g.x_shape)
    dx = dw = db = None
    if wanted[0]:
        dx = bilinear.forward(name, "auto", g, dy, bilinear.conjugate(weight), None, dtype).reshape(x.shape)
    if wanted[1]:
        dw = bilinear.weight_grad(name, "auto", g, bilinear.conjugate(images), bilinear.conjugate(dy), dtype)
    if wanted[2]:
        db = bilinear.bias_grad(name, dy, dtype)
    return dx, dw, db


def transposed_shape(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: tuple[Any, ...]
) -> tuple[int, ...]:
    """The shape of the result, (N, O, OH, OW), or an error that names what does not fit.

    `options` are stride, padding, output_padding, groups and dilation.
    """
    return _geometry(function, x_shape, weight_shape, options, None).x_shape
