"""Transposed convolution: the input gradient of `conv2d` as a forward operation.

Knows output sizes; the sums are those of `conv2d`'s gradients, so no zero-stuffed image exists.
Source: PyTorch's `ConvTranspose2d`; ONNX operator ConvTranspose for `same_upper` and `same_lower`.
"""

from __future__ import annotations

from typing import Any

from ..arrays import DTYPES, add, as_array, as_images, converted, result_dtype, shaped, sums_dtype
from ..geometry import Convolution, Geometry, Volume, check_bias, check_counts_fit, check_same_shape, check_weight_rank
from ..layouts import CHANNELS_FIRST, Layout, as_layout
from ..parsing import (
    Pads,
    Sizes,
    Window,
    as_entries,
    as_image_size,
    as_positive,
    as_window,
    by,
    is_for_size,
    transposed_padding,
)
from ..typing import Array, ArrayLike, Gradients, IntOrPair, Padding
from . import bilinear
from .convolving import check_need
from .front_door import public
from .looking_up import LookedUp
from .options import TransposeOptions


@LookedUp
def _problem(
    function: str, x_shape: Sizes, weight_shape: Sizes, options: TransposeOptions, output_size: Any, layout: Layout
) -> tuple[Convolution, Geometry | Volume]:
    """`_geometry`, and how it is computed."""
    g = _geometry(function, x_shape, weight_shape, options, output_size, layout)
    return g, g.as_run()


def _geometry(
    function: str, x_shape: Sizes, weight_shape: Sizes, options: TransposeOptions, output_size: Any,
    layout: Layout = CHANNELS_FIRST,
) -> Convolution:  # fmt: skip
    """The record of the convolution that this one transposes: its output is `x`, its input the result.

    `x_shape` is (N, C, ...), which errors show in `layout`.
    """
    stride, padding, output_padding, groups, dilation = options
    rank = len(x_shape) - 2
    check_weight_rank(function, weight_shape, rank, "C, O/groups")
    groups = as_positive(function, "groups", groups)
    channels, group_out, *kernel = weight_shape
    if min(group_out, *kernel) < 1:
        raise ValueError(
            f"{function}: weight needs at least one output channel and a kernel of at least {by((1,) * rank)}, "
            f"got {weight_shape}"
        )
    if channels != x_shape[1]:
        raise ValueError(
            f"{function}: weight expects {channels} input channels, but x has {x_shape[1]}: x "
            f"{layout.lying(x_shape)}, weight {weight_shape}"
        )
    if channels % groups:
        raise ValueError(f"{function}: groups={groups} must divide the input channels ({channels})")
    window = as_window(function, tuple(kernel), stride, dilation, rank)
    image = x_shape[2:]
    if 0 in image:
        raise ValueError(f"{function}: x needs at least one pixel, got shape {layout.lying(x_shape)}")
    wanted = None if output_size is None else as_image_size(function, "output_size", output_size, rank)
    pads = transposed_padding(function, padding, window, image, wanted)
    check_counts_fit(function, window, pads)
    extra = as_entries(function, "output_padding", output_padding, 0, rank)
    sizes = _output_sizes(function, image, window, pads, extra, wanted)
    if wanted is None and is_for_size(padding):  # kernels shorter than the stride leave pixels at the end
        sizes = tuple(max(size, n * stride) for size, n, stride in zip(sizes, image, window.stride, strict=True))
    return Convolution(x_shape[0], group_out * groups, sizes, channels, image, window, pads, groups)


def _output_sizes(function: str, image: Sizes, window: Window, pads: Pads, extra: Sizes, wanted: Sizes | None) -> Sizes:
    least = tuple(
        (size - 1) * stride + extent - sum(pad)
        for size, stride, extent, pad in zip(image, window.stride, window.extent, pads, strict=True)
    )
    limit = tuple(max(pair) for pair in zip(window.stride, window.dilation, strict=True))
    if any(more >= most for more, most in zip(extra, limit, strict=True)):
        raise ValueError(
            f"{function}: output_padding must be smaller than stride or dilation, got {extra} with stride "
            f"{window.stride} and dilation {window.dilation}"
        )
    sizes = tuple(size + more for size, more in zip(least, extra, strict=True))
    if wanted is not None:
        for axis, size in enumerate(wanted):
            added = size - least[axis]
            if not 0 <= added < limit[axis] or (any(extra) and added != extra[axis]):
                raise ValueError(
                    f"{function}: output_size {wanted} cannot be reached: x {image} gives {least} and up to "
                    f"{tuple(n - 1 for n in limit)} more, with output_padding {extra}"
                )
        sizes = wanted
    if min(sizes) < 1:
        raise ValueError(f"{function}: padding {pads} leaves no output: its size would be {sizes}")
    return sizes


def transpose(
    function: str, rank: int, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, options: TransposeOptions,
    output_size: Any, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv_transpose2d`, in any number of dimensions."""
    x, weight = as_array(function, "x", x), as_array(function, "weight", weight)
    bias = None if bias is None else as_array(function, "bias", bias)
    images = as_images(function, "x", x, rank, layout)
    g, inner = _problem.of((*options, output_size))(
        function, layout.told(images.shape), weight.shape, options, output_size, layout
    )
    if bias is not None:
        check_bias(function, bias.shape, g.in_channels)
    dtype = result_dtype(x, weight) if bias is None else result_dtype(x, weight, bias)
    sums = sums_dtype(dtype)
    weight = shaped(function, "weight", bilinear.conjugate(weight), inner.weight_shape)
    dy = shaped(function, "x", images, layout.lying(inner.y_shape))
    call = bilinear.decide_any(function, "auto", inner, DTYPES[sums].compute, "input_grad", layout)
    y = bilinear.run_gradient(function, call, layout.lying(inner.x_shape), dy, weight, sums)
    y = y.reshape(layout.lying(g.x_shape))
    if bias is not None:
        add(y, bilinear.as_channels(bias, rank + 2, layout))
    y = converted(function, "the result", y, dtype)
    return y if x is images else y[0]


def transposed_gradients(
    function: str, rank: int, grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, options: TransposeOptions,
    output_size: Any, need: Any, layout: Layout = CHANNELS_FIRST,
) -> Gradients:  # fmt: skip
    """`conv_transpose2d_backward`, in any number of dimensions."""
    dy, x, weight = (
        as_array(function, "grad_output", grad_output), as_array(function, "x", x), as_array(function, "weight", weight)
    )  # fmt: skip
    images = as_images(function, "x", x, rank, layout)
    g, inner = _problem.of((*options, output_size))(
        function, layout.told(images.shape), weight.shape, options, output_size, layout
    )
    shape = layout.lying(g.x_shape)
    shape = shape if x is images else shape[1:]
    check_same_shape(function, "grad_output", dy.shape, shape, "the shape of the forward result")
    wanted = check_need(function, need)
    dtype = result_dtype(dy, x, weight)
    compute = DTYPES[dtype].compute
    dy = shaped(function, "grad_output", dy, layout.lying(inner.x_shape))
    dx = dw = db = None
    if wanted[0]:
        transposed = shaped(function, "weight", bilinear.conjugate(weight), inner.weight_shape)
        call, parts = (
            bilinear.decide_any(function, "auto", inner, compute, "forward", layout),
            bilinear.parts(transposed),
        )
        dx = bilinear.run_forward(function, call, layout.lying(inner.y_shape), dy, parts, None, dtype).reshape(x.shape)
    if wanted[1]:
        images = shaped(function, "x", bilinear.conjugate(images), layout.lying(inner.y_shape))
        call = bilinear.decide_any(function, "auto", inner, compute, "weight_grad", layout)
        dw = bilinear.run_gradient(function, call, inner.weight_shape, images, bilinear.conjugate(dy), dtype)
        dw = dw.reshape(weight.shape)
    if wanted[2]:
        db = bilinear.bias_grad(function, dy, dtype, layout)
    return dx, dw, db


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
    layout: str = "NCHW",
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
        output of `size * stride`, or of `output_size`, the odd pixel cut at the end or at the start; where kernels are
        shorter than the stride, zeros and the bias fill the end.
    output_padding : int or (int, int)
        Pixels added at the end, fewer than stride or dilation; those that fill the end of `size * stride` count.
    groups : int
    output_size : int or (int, int), optional
        `(H, W)` of the result, instead of `output_padding`, or beside one that agrees.
    layout : {"NCHW", "NHWC"}
        With `"NHWC"`, `x` and the result have their channels last, as `conv2d` has it; `weight` is the same.

    Returns
    -------
    ndarray, (N, O, OH, OW) or (O, OH, OW)
        `y[n, o, h, w] = bias[o] + sum of weight[c, o, kh, kw] * x[n, c, i, j]` over all `c, i, j, kh, kw` with
        `h = i*stride + kh*dilation - pad` and `w` likewise; `OH = (H-1)*stride - pads + dilation*(KH-1) + 1 +
        output_padding`, or what `padding` or `output_size` say. Of dtype `np.result_type(x, weight, bias)`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`; `ValueError` for an output size that cannot be reached.

    Notes
    -----
    Callable in `@njit` code as `conv2d` is. Around `x` are zeros, so an infinity or a NaN in the weight may spoil any
    pixel of its output channel.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose2d
    >>> conv_transpose2d(np.array([[[1.0, 2.0]]]), np.ones((1, 1, 1, 2)), stride=2)
    array([[[1., 1., 2., 2.]]])
    """
    options = TransposeOptions(stride, padding, output_padding, groups, dilation)
    images = as_layout("conv_transpose2d", layout)
    return transpose("conv_transpose2d", 2, x, weight, bias, options, output_size, images)


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
    layout: str = "NCHW",
) -> Gradients:
    """The gradients of `conv_transpose2d`.

    Parameters
    ----------
    grad_output : array_like, shape of `conv_transpose2d`'s result
    x, weight, stride, padding, output_padding, groups, dilation, output_size, layout
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
    Callable in `@njit` code as `conv2d` is, with `need` as a tuple of literal bools; in a `prange`, as a constant from
    outside of the function.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv_transpose2d_backward
    >>> gradients = conv_transpose2d_backward(np.ones((1, 1, 3)), np.array([[[1.0, 2.0]]]), np.ones((1, 1, 1, 2)))
    >>> [g.ravel().tolist() for g in gradients]
    [[2.0, 2.0], [3.0, 3.0], [3.0]]
    """
    options = TransposeOptions(stride, padding, output_padding, groups, dilation)
    function, images = "conv_transpose2d_backward", as_layout("conv_transpose2d_backward", layout)
    return transposed_gradients(function, 2, grad_output, x, weight, options, output_size, need, images)


def transposed_shape(function: str, x_shape: Sizes, weight_shape: Sizes, options: TransposeOptions) -> Sizes:
    """The shape of the result, (N, O, OH, OW), or an error that names what does not fit."""
    return _geometry(function, x_shape, weight_shape, options, None).x_shape
