"""What convolutions of one, two and three dimensions share: arguments in, gradients out.

Knows arguments and their order; does not know how sums are computed. With a padding mode other than `"constant"` the
image is padded first and the padding's adjoint applied last.
Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..algorithms import check_algorithm
from ..arrays import (
    DTYPES,
    as_array,
    as_images,
    as_out,
    batch_shape,
    common_dtype,
    converted,
    shaped,
    sums_dtype,
)
from ..geometry import (
    Convolution,
    Geometry,
    Volume,
    check_bias,
    check_led_to,
    check_same_shape,
    check_weight_rank,
    conv_geometry,
)
from ..layouts import CHANNELS_FIRST, Layout
from ..parsing import Sizes, as_entries, as_flag, as_image_size, as_positive, shown
from ..typing import Array, ArrayLike, DType, Gradients
from . import bilinear
from .looking_up import LookedUp
from .options import ConvOptions
from .padding import check_mode, pad_images, pad_images_backward


class Problem(NamedTuple):
    """A convolution with its padding mode taken apart: `inner` is what is computed, after padding was added.

    Shapes are those of a batch, as images lie: `x_shape` and `y_shape` as the caller sees them, `inner_*` as they are
    computed, with padding added.
    """

    geometry: Convolution
    inner: Geometry | Volume
    mode: str
    layout: Layout
    x_shape: Sizes
    y_shape: Sizes
    inner_x_shape: Sizes
    inner_weight_shape: Sizes
    inner_y_shape: Sizes


def new_problem(
    function: str, x_shape: Sizes, weight_shape: Sizes, options: ConvOptions, mode: str,
    layout: Layout = CHANNELS_FIRST,
) -> Problem:  # fmt: skip
    """Check shapes and options; `x_shape` is (N, C, H, W), which errors show in `layout`."""
    check_mode(function, "padding_mode", mode)
    stride, padding, dilation, groups = options
    geometry = conv_geometry(function, x_shape, weight_shape, stride, padding, dilation, groups, layout)
    if not any(map(any, geometry.pads)):
        mode = "constant"
    inner = (geometry if mode == "constant" else geometry.of_padded()).as_run()
    shapes = geometry.x_shape, geometry.y_shape, inner.x_shape, inner.y_shape
    outer_x, outer_y, images, results = map(layout.lying, shapes)
    return Problem(geometry, inner, mode, layout, outer_x, outer_y, images, inner.weight_shape, results)


def padded_images(function: str, problem: Problem, x: Array) -> Array:
    """Images with their padding, as what computes takes them."""
    if problem.mode != "constant":
        x = pad_images(function, x, problem.geometry.pads, problem.mode, 0, problem.layout)
    return shaped(function, "x", x, problem.inner_x_shape)


def _is_straight(problem: Problem, x_shape: Sizes, weight_shape: Sizes, y_shape: Sizes, dtype: DType) -> bool:
    """Whether arrays of these shapes are computed as they are, into a result of this dtype."""
    shapes = problem.inner_x_shape, problem.inner_weight_shape, problem.inner_y_shape
    return problem.mode == "constant" and (x_shape, weight_shape, y_shape) == shapes and DTYPES[dtype].compute == dtype


class _Forward(NamedTuple):
    """What shapes, dtypes and options decide of a convolution."""

    problem: Problem
    call: bilinear.AnyCall
    dtype: DType
    shape: Sizes  # of the result, as it is returned
    is_straight: bool


@LookedUp
def _decide_forward(
    function: str, rank: int, x_shape: Sizes, weight_shape: Sizes, bias_shape: Sizes | None,
    dtypes: tuple[DType, ...], options: ConvOptions, mode: str, algorithm: str, layout: Layout,
) -> _Forward:  # fmt: skip
    images = layout.told(batch_shape(function, "x", x_shape, rank, layout))
    problem = new_problem(function, images, weight_shape, options, mode, layout)
    if bias_shape is not None:
        check_bias(function, bias_shape, problem.geometry.out_channels)
    dtype = common_dtype(dtypes)
    check_algorithm(function, algorithm)
    call = bilinear.decide_any(function, algorithm, problem.inner, DTYPES[dtype].compute, "forward", layout)
    shape = problem.y_shape if len(x_shape) == rank + 2 else problem.y_shape[1:]
    return _Forward(problem, call, dtype, shape, _is_straight(problem, x_shape, weight_shape, shape, dtype))


def convolve(
    function: str, rank: int, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, options: ConvOptions,
    padding_mode: str, algorithm: str, out: Array | None, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv2d`, in any number of dimensions."""
    x, weight = as_array(function, "x", x), as_array(function, "weight", weight)
    bias = None if bias is None else as_array(function, "bias", bias)
    decide = _decide_forward.of((*options, padding_mode, algorithm))
    dtypes = (x.dtype, weight.dtype) if bias is None else (x.dtype, weight.dtype, bias.dtype)
    problem, call, dtype, shape, is_straight = decide(
        function, rank, x.shape, weight.shape, None if bias is None else bias.shape, dtypes, options, padding_mode,
        algorithm, layout,
    )  # fmt: skip
    if out is not None:
        as_out(function, out, shape, dtype, x=x, weight=weight, bias=bias)
    if is_straight:  # as most calls are
        added = bilinear.no_bias(call.compute) if bias is None else bias
        return bilinear.computed(function, call, (x, weight, added), shape, out)
    padded = padded_images(function, problem, as_images(function, "x", x, rank, layout))
    weight = shaped(function, "weight", weight, problem.inner_weight_shape)
    target = None if out is None else out.reshape(problem.inner_y_shape)
    y = bilinear.run_forward(function, call, problem.inner_y_shape, padded, bilinear.parts(weight), bias, dtype, target)
    return y.reshape(shape) if out is None else out


class _Gradients(NamedTuple):
    """What shapes, dtypes and options decide of gradients; a call is None where its gradient is not needed."""

    problem: Problem
    of_input: bilinear.AnyCall | None
    of_weight: bilinear.AnyCall | None
    dtype: DType
    is_straight: bool


@LookedUp
def _decide_gradients(
    function: str, rank: int, x_shape: Sizes, weight_shape: Sizes, dy_shape: Sizes, dtypes: tuple[DType, ...],
    options: ConvOptions, mode: str, algorithm: str, need: tuple[bool, bool, bool], layout: Layout,
) -> _Gradients:  # fmt: skip
    images = layout.told(batch_shape(function, "x", x_shape, rank, layout))
    problem = new_problem(function, images, weight_shape, options, mode, layout)
    _check_gradient(function, dy_shape, problem, len(x_shape) == rank + 2)
    dtype = common_dtype(dtypes)
    check_algorithm(function, algorithm)
    of_input = _gradient_call(function, algorithm, problem, "input_grad", dtype) if need[0] else None
    of_weight = _gradient_call(function, algorithm, problem, "weight_grad", dtype) if need[1] else None
    is_straight = _is_straight(problem, x_shape, weight_shape, dy_shape, dtype)
    return _Gradients(problem, of_input, of_weight, dtype, is_straight)


def _gradient_call(function: str, algorithm: str, problem: Problem, what: str, dtype: DType) -> bilinear.AnyCall:
    return bilinear.decide_any(function, algorithm, problem.inner, DTYPES[dtype].compute, what, problem.layout)


def gradients(
    function: str, rank: int, grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, options: ConvOptions,
    padding_mode: str, algorithm: str, need: Any, layout: Layout = CHANNELS_FIRST,
) -> Gradients:  # fmt: skip
    """`conv2d_backward`, in any number of dimensions."""
    dy, x, weight = (
        as_array(function, "grad_output", grad_output), as_array(function, "x", x), as_array(function, "weight", weight)
    )  # fmt: skip
    wanted = check_need(function, need)
    decide = _decide_gradients.of((*options, padding_mode, algorithm))
    problem, of_input, of_weight, dtype, is_straight = decide(
        function, rank, x.shape, weight.shape, dy.shape, (dy.dtype, x.dtype, weight.dtype), options, padding_mode,
        algorithm, wanted, layout,
    )  # fmt: skip
    dx = dw = db = None
    if is_straight:  # as most calls are
        if of_input is not None:
            dx = bilinear.computed(function, of_input, (dy, weight), x.shape)
        if of_weight is not None:
            dw, db = bilinear.run_weight_gradient(function, of_weight, weight.shape, dy, x, dtype, with_bias=wanted[2])
    else:
        dy = shaped(function, "grad_output", dy, problem.inner_y_shape)
        if of_input is not None:
            dx = _run_input_gradient(function, problem, of_input, dy, weight, dtype).reshape(x.shape)
        if of_weight is not None:
            images = as_images(function, "x", x, rank, layout)
            dw, db = _run_weight_gradient(function, problem, of_weight, dy, images, dtype, with_bias=wanted[2])
    if wanted[2] and db is None:
        db = bilinear.bias_grad(function, dy, dtype, layout)
    return dx, dw, db


def _check_gradient(function: str, dy_shape: Sizes, problem: Problem, is_batch: bool) -> None:
    needed = problem.y_shape if is_batch else problem.y_shape[1:]
    check_same_shape(function, "grad_output", dy_shape, needed, "the shape of the forward result")


_BOOLS = [bool] * 3


def check_need(function: str, need: Any) -> tuple[bool, bool, bool]:
    """`need` as three bools."""
    if type(need) is tuple and [*map(type, need)] == _BOOLS:
        return need
    try:
        first, second, third = need
    except (TypeError, ValueError) as error:
        sentence = f"{function}: need must be three bools, for (input, weight, bias), got {shown(need)}"
        raise type(error)(sentence) from None
    return as_flag(function, "need", first), as_flag(function, "need", second), as_flag(function, "need", third)


def _run_input_gradient(
    function: str, problem: Problem, call: bilinear.AnyCall, dy: Array, weight: Array, dtype: Any
) -> Array:
    weight = shaped(function, "weight", weight, problem.inner_weight_shape)
    if problem.mode == "constant":
        return bilinear.run_gradient(function, call, problem.inner_x_shape, dy, weight, dtype).reshape(problem.x_shape)
    # Rounded once, after the padding's adjoint has added up: float16 is float32 until then.
    geometry, layout = problem.geometry, problem.layout
    dx = bilinear.run_gradient(function, call, problem.inner_x_shape, dy, weight, sums_dtype(dtype))
    dx = dx.reshape(layout.lying(geometry.of_padded().x_shape))
    dx = pad_images_backward(function, dx, geometry.pads, problem.mode, sums_dtype(dtype), layout)
    return converted(function, "the gradient", dx, dtype)


def _run_weight_gradient(
    function: str, problem: Problem, call: bilinear.AnyCall, dy: Array, x: Array, dtype: Any, *, with_bias: bool
) -> tuple[Array, Array | None]:  # fmt: skip
    """As `bilinear.run_weight_gradient`, of images without their padding."""
    images, shape = padded_images(function, problem, x), problem.inner_weight_shape
    dw, db = bilinear.run_weight_gradient(function, call, shape, dy, images, dtype, with_bias=with_bias)
    return dw.reshape(problem.geometry.weight_shape), db


class _Gradient(NamedTuple):
    """What shapes, dtypes and options decide of one gradient."""

    problem: Problem
    call: bilinear.AnyCall
    dtype: DType
    is_straight: bool


@LookedUp
def _decide_input_gradient(
    function: str, rank: int, dy_shape: Sizes, weight_shape: Sizes, input_size: Any, dtypes: tuple[DType, ...],
    options: ConvOptions, mode: str, algorithm: str, layout: Layout,
) -> _Gradient:  # fmt: skip
    batch = batch_shape(function, "grad_output", dy_shape, rank, layout)
    image = as_image_size(function, "input_size", input_size, rank)
    channels = input_channels(function, weight_shape, options.groups, rank)
    problem = new_problem(function, (batch[0], channels, *image), weight_shape, options, mode, layout)
    check_led_to(function, layout.told(batch), problem.geometry, dy_shape)
    dtype = common_dtype(dtypes)
    check_algorithm(function, algorithm)
    call = _gradient_call(function, algorithm, problem, "input_grad", dtype)
    return _Gradient(problem, call, dtype, _is_straight(problem, problem.x_shape, weight_shape, dy_shape, dtype))


@LookedUp
def _decide_weight_gradient(
    function: str, rank: int, dy_shape: Sizes, x_shape: Sizes, kernel_size: Any, dtypes: tuple[DType, ...],
    options: ConvOptions, mode: str, algorithm: str, layout: Layout,
) -> _Gradient:  # fmt: skip
    batch = layout.told(batch_shape(function, "x", x_shape, rank, layout))
    filters = layout.told(batch_shape(function, "grad_output", dy_shape, rank, layout))[1]
    kernel = as_entries(function, "kernel_size", kernel_size, 1, rank)
    channels = batch[1] // as_positive(function, "groups", options.groups)
    problem = new_problem(function, batch, (filters, channels, *kernel), options, mode, layout)
    _check_gradient(function, dy_shape, problem, len(x_shape) == rank + 2)
    dtype = common_dtype(dtypes)
    check_algorithm(function, algorithm)
    call, shape = _gradient_call(function, algorithm, problem, "weight_grad", dtype), problem.geometry.weight_shape
    return _Gradient(problem, call, dtype, _is_straight(problem, x_shape, shape, dy_shape, dtype))


def input_gradient(
    function: str, rank: int, grad_output: ArrayLike, weight: ArrayLike, input_size: Any, options: ConvOptions,
    padding_mode: str, algorithm: str, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv2d_input_grad`, in any number of dimensions."""
    dy, weight = as_array(function, "grad_output", grad_output), as_array(function, "weight", weight)
    decide = _decide_input_gradient.of((*options, padding_mode, algorithm, input_size))
    problem, call, dtype, is_straight = decide(
        function, rank, dy.shape, weight.shape, input_size, (dy.dtype, weight.dtype), options, padding_mode, algorithm,
        layout,
    )  # fmt: skip
    if is_straight:  # as most calls are
        return bilinear.computed(function, call, (dy, weight), problem.x_shape)
    batch = shaped(function, "grad_output", dy, problem.inner_y_shape)
    dx = _run_input_gradient(function, problem, call, batch, weight, dtype)
    return dx if dy.ndim == rank + 2 else dx[0]


def input_channels(function: str, weight_shape: tuple[int, ...], groups: Any, rank: int = 2) -> int:
    check_weight_rank(function, weight_shape, rank)
    return weight_shape[1] * as_positive(function, "groups", groups)


def weight_gradient(
    function: str, rank: int, grad_output: ArrayLike, x: ArrayLike, kernel_size: Any, options: ConvOptions,
    padding_mode: str, algorithm: str, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv2d_weight_grad`, in any number of dimensions."""
    dy, x = as_array(function, "grad_output", grad_output), as_array(function, "x", x)
    decide = _decide_weight_gradient.of((*options, padding_mode, algorithm, kernel_size))
    problem, call, dtype, is_straight = decide(
        function, rank, dy.shape, x.shape, kernel_size, (dy.dtype, x.dtype), options, padding_mode, algorithm, layout
    )
    if is_straight:  # as most calls are
        return bilinear.computed(function, call, (dy, x), problem.geometry.weight_shape)
    images, dy = as_images(function, "x", x, rank, layout), shaped(function, "grad_output", dy, problem.inner_y_shape)
    return _run_weight_gradient(function, problem, call, dy, images, dtype, with_bias=False)[0]
