"""What convolutions of one, two and three dimensions share: arguments in, gradients out.

Knows arguments and their order; does not know how sums are computed. With a padding mode other than `"constant"` the
image is padded first and the padding's adjoint applied last.
Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..algorithms import check_name
from ..arrays import (
    DTYPES,
    as_array,
    as_images,
    as_out,
    common_dtype,
    converted,
    result_dtype,
    shaped,
    sums_dtype,
)
from ..geometry import (
    Convolution,
    Geometry,
    Volume,
    check_led_to,
    check_same_shape,
    check_weight_rank,
    conv_geometry,
)
from ..layouts import CHANNELS_FIRST, Layout
from ..parsing import are_plain, as_entries, as_flag, as_image_size, as_pair, shown
from ..typing import Array, ArrayLike, DType
from . import bilinear
from .padding import check_mode, pad_images, pad_images_backward

Gradients = tuple[Array | None, Array | None, Array | None]


class Problem(NamedTuple):
    """A convolution with its padding mode taken apart: `inner` is what is computed, after padding was added."""

    geometry: Convolution
    inner: Geometry | Volume
    mode: str


def problem_of(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: tuple[Any, ...], mode: str,
    layout: Layout = CHANNELS_FIRST,
) -> Problem:  # fmt: skip
    """`x_shape` is (N, C, H, W), which errors show in `layout`; `options` are stride, padding, dilation and groups."""
    of = _kept_problem if are_plain(options) and type(mode) is str else new_problem
    return of(function, x_shape, weight_shape, options, mode, layout)


def new_problem(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: tuple[Any, ...], mode: str,
    layout: Layout = CHANNELS_FIRST,
) -> Problem:  # fmt: skip
    check_mode(function, mode, "padding_mode")
    stride, padding, dilation, groups = options
    geometry = conv_geometry(function, x_shape, weight_shape, stride, padding, dilation, groups, layout)
    if mode == "constant" or not any(map(any, geometry.pads)):
        return Problem(geometry, geometry.as_run(), "constant")
    return Problem(geometry, geometry.of_padded().as_run(), mode)


_kept_problem = lru_cache(maxsize=512)(new_problem)


def padded_images(function: str, problem: Problem, x: Array, layout: Layout = CHANNELS_FIRST) -> Array:
    """Images that lie as `layout` says, with their padding, as what computes takes them."""
    if problem.mode != "constant":
        x = pad_images(function, x, problem.geometry.pads, problem.mode, 0, layout)
    return shaped(function, "x", x, layout.lying(problem.inner.x_shape))


class _Decision(NamedTuple):
    """What shapes, dtypes and options decide of a convolution."""

    problem: Problem
    call: bilinear.AnyCall
    dtype: DType
    shape: tuple[int, ...]  # of the result, with a batch
    lying: tuple[int, ...]  # as it is computed


def _decide(
    name: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], bias_shape: tuple[int, ...] | None,
    dtypes: tuple[DType, ...], options: tuple[Any, ...], mode: str, algorithm: str, layout: Layout,
) -> _Decision:  # fmt: skip
    problem = new_problem(name, x_shape, weight_shape, options, mode, layout)
    geometry, inner = problem.geometry, problem.inner
    if bias_shape is not None:
        check_same_shape(name, "bias", bias_shape, (geometry.out_channels,), "one value an output channel")
    dtype = common_dtype(dtypes)
    check_name(name, algorithm)
    call = bilinear.decide_any(name, algorithm, inner, DTYPES[dtype].compute, "forward", layout)
    return _Decision(problem, call, dtype, layout.lying(geometry.y_shape), layout.lying(inner.y_shape))


_kept_decision = lru_cache(maxsize=512)(_decide)


def convolve(
    name: str, rank: int, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, options: tuple[Any, ...],
    padding_mode: str, algorithm: str, out: Array | None, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv2d`, in any number of dimensions; `options` are stride, padding, dilation and groups."""
    x, weight = as_array(name, "x", x), as_array(name, "weight", weight)
    bias = None if bias is None else as_array(name, "bias", bias)
    images = as_images(name, "x", x, rank, layout)
    decide = _kept_decision if are_plain((*options, padding_mode, algorithm)) else _decide
    dtypes = (x.dtype, weight.dtype) if bias is None else (x.dtype, weight.dtype, bias.dtype)
    problem, call, dtype, shape, lying = decide(
        name, layout.told(images.shape), weight.shape, None if bias is None else bias.shape, dtypes, options,
        padding_mode, algorithm, layout,
    )  # fmt: skip
    shape = shape if x is images else shape[1:]
    if out is not None:
        as_out(name, out, shape, dtype, x=x, weight=weight, bias=bias)
    padded = padded_images(name, problem, images, layout)
    weight = shaped(name, "weight", weight, problem.inner.weight_shape)
    target = None if out is None else out.reshape(lying)
    y = bilinear.run_forward(name, call, lying, padded, bilinear.parts(weight), bias, dtype, target)
    return y.reshape(shape) if out is None else out


def gradients(
    name: str, rank: int, grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, options: tuple[Any, ...],
    padding_mode: str, algorithm: str, need: Any, layout: Layout = CHANNELS_FIRST,
) -> Gradients:  # fmt: skip
    """`conv2d_backward`, in any number of dimensions."""
    dy, x, weight = (
        as_array(name, "grad_output", grad_output), as_array(name, "x", x), as_array(name, "weight", weight)
    )  # fmt: skip
    images = as_images(name, "x", x, rank, layout)
    problem = problem_of(name, layout.told(images.shape), weight.shape, options, padding_mode, layout)
    _check_gradient(name, dy, problem, layout, x is images)
    wanted = check_need(name, need)
    dtype = result_dtype(dy, x, weight)
    check_name(name, algorithm)
    how = _Way(name, algorithm, problem, layout)
    dy = shaped(name, "grad_output", dy, layout.lying(problem.inner.y_shape))
    dx = dw = db = None
    if wanted[0]:
        dx = _input_grad(how, dy, weight, dtype).reshape(x.shape)
    if wanted[1]:
        dw = _weight_grad(how, dy, images, dtype)
    if wanted[2]:
        db = bilinear.bias_grad(name, dy, dtype, layout)
    return dx, dw, db


def _check_gradient(function: str, dy: Array, problem: Problem, layout: Layout, is_batch: bool) -> None:
    shape = layout.lying(problem.geometry.y_shape)
    needed = shape if is_batch else shape[1:]
    check_same_shape(function, "grad_output", dy.shape, needed, "the shape of the forward result")


def check_need(function: str, need: Any) -> tuple[bool, bool, bool]:
    """`need` as three bools."""
    try:
        first, second, third = need
    except (TypeError, ValueError):
        raise ValueError(
            f"{function}: need must be three bools, for (input, weight, bias), got {shown(need)}"
        ) from None
    return as_flag(function, "need", first), as_flag(function, "need", second), as_flag(function, "need", third)


class _Way(NamedTuple):
    """Who asks for gradients of what, how computed, and how images lie."""

    function: str
    algorithm: str
    problem: Problem
    layout: Layout


def _input_grad(how: _Way, dy: Array, weight: Array, dtype: Any) -> Array:
    function, algorithm, problem, layout = how
    inner, geometry = problem.inner, problem.geometry
    weight = shaped(function, "weight", weight, inner.weight_shape)
    if problem.mode == "constant":
        dx = bilinear.input_grad(function, algorithm, inner, dy, weight, dtype, layout)
        return dx.reshape(layout.lying(geometry.x_shape))
    # Rounded once, after the padding's adjoint has added up: float16 is float32 until then.
    dx = bilinear.input_grad(function, algorithm, inner, dy, weight, sums_dtype(dtype), layout)
    dx = dx.reshape(layout.lying(geometry.of_padded().x_shape))
    dx = pad_images_backward(function, dx, geometry.pads, problem.mode, sums_dtype(dtype), layout)
    return converted(function, "the gradient", dx, dtype)


def _weight_grad(how: _Way, dy: Array, x: Array, dtype: Any) -> Array:
    function, algorithm, problem, layout = how
    images = padded_images(function, problem, x, layout)
    dw = bilinear.weight_grad(function, algorithm, problem.inner, dy, images, dtype, layout)
    return dw.reshape(problem.geometry.weight_shape)


def input_gradient(
    name: str, rank: int, grad_output: ArrayLike, weight: ArrayLike, input_size: Any, options: tuple[Any, ...],
    padding_mode: str, algorithm: str, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv2d_input_grad`, in any number of dimensions."""
    dy, weight = as_array(name, "grad_output", grad_output), as_array(name, "weight", weight)
    batch = as_images(name, "grad_output", dy, rank, layout)
    image = as_image_size(name, "input_size", input_size, rank)
    channels = input_channels(name, weight.shape, options[-1], rank)
    problem = problem_of(name, (batch.shape[0], channels, *image), weight.shape, options, padding_mode, layout)
    check_led_to(name, layout.told(batch.shape), problem.geometry, layout)
    dtype = result_dtype(dy, weight)
    check_name(name, algorithm)
    batch = shaped(name, "grad_output", batch, layout.lying(problem.inner.y_shape))
    dx = _input_grad(_Way(name, algorithm, problem, layout), batch, weight, dtype)
    return dx if dy.ndim == rank + 2 else dx[0]


def input_channels(function: str, weight_shape: tuple[int, ...], groups: Any, rank: int = 2) -> int:
    check_weight_rank(function, weight_shape, rank)
    return weight_shape[1] * as_pair(function, "groups", groups, 1)[0]


def weight_gradient(
    name: str, rank: int, grad_output: ArrayLike, x: ArrayLike, kernel_size: Any, options: tuple[Any, ...],
    padding_mode: str, algorithm: str, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`conv2d_weight_grad`, in any number of dimensions."""
    dy, x = as_array(name, "grad_output", grad_output), as_array(name, "x", x)
    images, batch = as_images(name, "x", x, rank, layout), as_images(name, "grad_output", dy, rank, layout)
    kernel = as_entries(name, "kernel_size", kernel_size, 0, rank)
    x_shape, filters = layout.told(images.shape), layout.told(batch.shape)[1]
    channels = x_shape[1] // as_pair(name, "groups", options[-1], 1)[0]
    problem = problem_of(name, x_shape, (filters, channels, *kernel), options, padding_mode, layout)
    _check_gradient(name, dy, problem, layout, x is images)
    dtype = result_dtype(dy, x)
    check_name(name, algorithm)
    dy = shaped(name, "grad_output", batch, layout.lying(problem.inner.y_shape))
    return _weight_grad(_Way(name, algorithm, problem, layout), dy, images, dtype)
