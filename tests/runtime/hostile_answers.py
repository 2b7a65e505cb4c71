"""What every public function must answer, from the plain oracle or a short statement in NumPy.

Does not know how calls are drawn.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hostile_reading import (
    LARGEST,
    Expected,
    TooLargeToCheck,
    as_given,
    as_pads,
    as_pair,
    batched,
    conv_options,
    given_arrays,
    magnitudes,
    result_dtype,
    sums,
    window_options,
)

from convjit.testing import (
    reference_avg_pool2d,
    reference_col2im,
    reference_conv2d,
    reference_conv2d_backward,
    reference_conv_transpose2d,
    reference_im2col,
    reference_max_pool2d,
    reference_max_pool2d_backward,
    reference_pad2d,
    reference_pad2d_backward,
    reference_pads,
)

LEARNING_RATE = 0.5

# --- convolution ----------------------------------------------------------------------------------------------------


def _conv2d(a: dict, got: Any = None) -> tuple[Expected, ...]:
    x, weight, bias = given_arrays(a, "x", "weight", "bias")
    x = batched(x)
    o = conv_options(a, x.shape[2:], weight.shape[2:])
    (y,) = sums(lambda *arrays: (reference_conv2d(*arrays, **o),), (x, weight, bias), result_dtype(x, weight, bias))
    return (as_given(y, a["x"], 4),)


def _spread(expected: Expected, weight: Any, groups: int) -> Expected:
    """Weights that are no numbers meet the zeros around a gradient, so they may spread over their channel.

    The second axis of `weight` counts the result's channels of one group.
    """
    bad = ~np.isfinite(weight)
    if not bad.any():
        return expected
    channels = bad.reshape(groups, -1, *bad.shape[1:]).any((1, 3, 4)).ravel()
    return expected._replace(open=np.broadcast_to(channels[:, None, None], expected.exact.shape))


def _conv2d_backward(a: dict, got: Any = None) -> tuple[Expected | None, ...]:
    dy, x, weight = given_arrays(a, "grad_output", "x", "weight")
    o = conv_options(a, x.shape[-2:], weight.shape[2:])
    arrays = (batched(dy), batched(x), weight)
    dx, dw, db = sums(lambda *v: reference_conv2d_backward(*v, **o), arrays, result_dtype(dy, x, weight), 200)
    dx = _spread(as_given(dx, x, 4), weight, o["groups"])
    need = tuple(bool(wanted) for wanted in a.get("need", (True, True, True)))
    return tuple(e if wanted else None for e, wanted in zip((dx, dw, db), need, strict=True))


def _conv2d_input_grad(a: dict, got: Any = None) -> tuple[Expected, ...]:
    dy, weight = given_arrays(a, "grad_output", "weight")
    size, groups = as_pair(a["input_size"]), operator.index(a.get("groups", 1))
    dtype = result_dtype(dy, weight)
    shape = (batched(dy).shape[0], weight.shape[1] * groups, *size)
    if np.prod(shape) > LARGEST:
        raise TooLargeToCheck
    o = conv_options(a, size, weight.shape[2:])

    def gradient(dy: Any, weight: Any) -> Any:
        return (reference_conv2d_backward(dy, np.zeros(shape, dy.dtype), weight, **o)[0],)

    (dx,) = sums(gradient, (batched(dy), weight), dtype, 200)
    return (_spread(as_given(dx, dy, 4), weight, groups),)


def _conv2d_weight_grad(a: dict, got: Any = None) -> tuple[Expected, ...]:
    dy, x = given_arrays(a, "grad_output", "x")
    kernel, groups = as_pair(a["kernel_size"]), operator.index(a.get("groups", 1))
    o = conv_options(a, x.shape[-2:], kernel)
    shape = (dy.shape[-3], x.shape[-3] // groups, *kernel)

    def gradient(dy: Any, x: Any) -> Any:
        return (reference_conv2d_backward(dy, x, np.zeros(shape, dy.dtype), **o)[1],)

    return sums(gradient, (batched(dy), batched(x)), result_dtype(dy, x))


class _Transposed(NamedTuple):
    """A transposed convolution: options, the size of its result, and the rows and columns that its stamps cover."""

    options: dict[str, Any]
    size: tuple[int, int]
    reach: tuple[int, int]


def transposed(a: dict, image: Any, kernel: Any) -> _Transposed:
    stride, dilation = as_pair(a.get("stride", 1)), as_pair(a.get("dilation", 1))
    reach = tuple((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(image, stride, kernel, dilation, strict=True))
    wanted = None if a.get("output_size") is None else as_pair(a["output_size"])
    padding = a.get("padding", 0)
    if isinstance(padding, str) and padding in ("same_upper", "same_lower"):
        goal = wanted or (image[0] * stride[0], image[1] * stride[1])
        cut = [max(0, r - g) for r, g in zip(reach, goal, strict=True)]
        sides = [(n // 2, n - n // 2) for n in cut]
        pads = tuple(sides if padding == "same_upper" else [side[::-1] for side in sides])
    else:
        pads = as_pads(padding, image, kernel, stride, dilation)
    extra = as_pair(a.get("output_padding", 0))
    size = wanted or tuple(r - sum(p) + e for r, p, e in zip(reach, pads, extra, strict=True))
    options = {"stride": stride, "pads": pads, "dilation": dilation, "groups": operator.index(a.get("groups", 1))}
    return _Transposed(options, size, reach)


def _conv_transpose2d(a: dict, got: Any = None) -> tuple[Expected, ...]:
    x, weight, bias = given_arrays(a, "x", "weight", "bias")
    x = batched(x)
    t = transposed(a, x.shape[2:], weight.shape[2:])
    if np.prod(t.size) > LARGEST:
        raise TooLargeToCheck
    dtype = result_dtype(x, weight, bias)
    (y,) = sums(lambda *v: (reference_conv_transpose2d(*v, t.size, **t.options),), (x, weight, bias), dtype, 200)
    return (_spread(as_given(y, a["x"], 4), weight, t.options["groups"]),)


def _conv_transpose2d_backward(a: dict, got: Any = None) -> tuple[Expected | None, ...]:
    dy, x, weight = given_arrays(a, "grad_output", "x", "weight")
    t = transposed(a, x.shape[-2:], weight.shape[2:])
    o = {name: t.options[name] for name in ("stride", "dilation", "groups")}

    def gradients(dy: Any, x: Any, weight: Any) -> Any:
        # What the stamps of `x` cover, padding included, is what the convolution back reads.
        seen = reference_pad2d(dy, t.options["pads"])[:, :, : t.reach[0], : t.reach[1]]
        dx = reference_conv2d(seen, np.conj(weight), **o)
        dw = reference_conv2d_backward(np.conj(x), np.conj(seen), weight, **o)[1]
        return dx, dw, dy.sum((0, 2, 3), dtype=dy.dtype)

    dx, dw, db = sums(gradients, (batched(dy), batched(x), weight), result_dtype(dy, x, weight), 200)
    need = tuple(bool(wanted) for wanted in a.get("need", (True, True, True)))
    return tuple(e if wanted else None for e, wanted in zip((as_given(dx, x, 4), dw, db), need, strict=True))


def _layer(a: dict, got: Any) -> tuple[Expected, ...]:
    """Output, input gradient and updated weights of a training step; `got` ends with the weights before it."""
    before, shift = got[-2:]
    call = {name: a[name] for name in ("stride", "dilation", "groups", "padding_mode") if name in a}
    call |= {"padding": a.get("padding", "same"), "x": a["X"], "weight": before}
    (y,) = _conv2d({**call, "bias": shift.ravel()})
    dx, dw, db = _conv2d_backward({**call, "grad_output": a["grad"]})

    def updated(weight: Any, gradient: Expected) -> Expected:
        step = LEARNING_RATE * np.asarray(gradient.exact, np.longdouble).reshape(weight.shape)
        size = abs(weight) + abs(step) if gradient.magnitude is None else gradient.magnitude.reshape(weight.shape)
        return Expected(weight - step, weight.dtype, abs(weight) + abs(size), 200)

    return y, dx, updated(before, dw), updated(shift, db)


# --- columns, padding, pools ----------------------------------------------------------------------------------------


def _native(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder("="))


def _im2col(a: dict, got: Any = None) -> tuple[Expected, ...]:
    x = _native(given_arrays(a, "x")[0])
    kernel = as_pair(a["kernel_size"])
    columns = reference_im2col(batched(x), kernel, **window_options(a, x.shape[-2:], kernel))
    return (as_given(Expected(columns, x.dtype), x, 4),)


def _col2im(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (columns,) = given_arrays(a, "columns")
    size, kernel = as_pair(a["image_size"]), as_pair(a["kernel_size"])
    if size[0] * size[1] > LARGEST:
        raise TooLargeToCheck
    o = window_options(a, size, kernel)
    (x,) = sums(lambda c: (reference_col2im(c, size, kernel, **o),), (batched(columns, 3),), result_dtype(columns))
    return (as_given(x, columns, 3),)


def _pad2d(a: dict, got: Any = None) -> tuple[Expected, ...]:
    x = _native(given_arrays(a, "x")[0])
    pads, value = as_pads(a["padding"], None, None), np.asarray(a.get("value", 0)).astype(x.dtype)
    if sum(map(sum, pads)) > LARGEST:
        raise TooLargeToCheck
    return (Expected(reference_pad2d(x, pads, a.get("mode", "constant"), value), x.dtype),)


def _pad2d_backward(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (dy,) = given_arrays(a, "grad_output")
    pads, mode = as_pads(a["padding"], None, None), a.get("mode", "constant")
    return sums(lambda dy: (reference_pad2d_backward(dy, pads, mode),), (dy,), result_dtype(dy), 200)


def _pool(a: dict, image: Any) -> dict[str, Any]:
    kernel, stride = as_pair(a["kernel_size"]), a.get("stride")
    window = window_options({**a, "stride": a["kernel_size"] if stride is None else stride}, image, kernel)
    return {"kernel": kernel, **window, "ceil_mode": bool(a.get("ceil_mode", False))}


def _max_pool2d(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (x,) = given_arrays(a, "x")
    dtype = result_dtype(x)
    y, indices = reference_max_pool2d(batched(x).astype(dtype), **_pool(a, x.shape[-2:]))
    answers = as_given(Expected(y, dtype), x, 4), as_given(Expected(indices, np.dtype("int64")), x, 4)
    return answers if a.get("return_indices", False) else answers[:1]


def _max_pool2d_backward(a: dict, got: Any = None) -> tuple[Expected, ...]:
    dy, x, indices = given_arrays(a, "grad_output", "x", "indices")
    if indices is None:
        indices = reference_max_pool2d(batched(x).astype(result_dtype(x)), **_pool(a, x.shape[-2:]))[1]
    where = batched(indices)
    (dx,) = sums(
        lambda dy: (reference_max_pool2d_backward(dy, where, x.shape[-2:]),), (batched(dy),), result_dtype(dy, x), 200
    )
    return (as_given(dx, x, 4),)


def _averaged_dtype(array: Any) -> np.dtype:
    return array.dtype.newbyteorder("=") if array.dtype.kind in "fc" else np.dtype("float64")


def _avg_pool2d(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (x,) = given_arrays(a, "x")
    dtype = _averaged_dtype(x)
    o = {**_pool(a, x.shape[-2:]), "count_include_pad": bool(a.get("count_include_pad", True))}
    (y,) = sums(lambda x: (reference_avg_pool2d(x, **o),), (batched(x),), dtype)
    if y.magnitude is None and dtype.kind == "f":  # the sum is exact and the quotient is rounded once, in this dtype
        narrow = np.float32 if dtype == np.float16 else dtype
        y = Expected(reference_avg_pool2d(batched(x).astype(narrow), **o), dtype)
    elif y.magnitude is None:
        y = y._replace(magnitude=abs(y.exact.real) + abs(y.exact.imag))
    return (as_given(y, x, 4),)


def _avg_pool2d_backward(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (dy,) = given_arrays(a, "grad_output")
    size, dtype = as_pair(a["input_size"]), _averaged_dtype(dy)
    if size[0] * size[1] > 400:
        raise TooLargeToCheck
    o = {**_pool(a, size), "count_include_pad": bool(a.get("count_include_pad", True))}
    # Column q of row p: what pixel p alone would give output q.
    count = size[0] * size[1]
    pixels = np.eye(count, dtype=np.longdouble).reshape(count, 1, *size)
    matrix = reference_avg_pool2d(pixels, **o)
    matrix = matrix.reshape(len(pixels), matrix.shape[2] * matrix.shape[3])

    def gradient(dy: Any) -> Any:
        flat = dy.reshape(*dy.shape[:-2], 1, matrix.shape[1])
        shares = np.where(matrix > 0, flat * matrix, np.zeros((), dy.dtype))  # a NaN beside a window is not in it
        return (shares.sum(-1).reshape(*dy.shape[:-2], *size),)

    (dx,) = sums(gradient, (dy,), dtype, 200)
    return (dx if dx.magnitude is not None else dx._replace(magnitude=gradient(magnitudes(dy, dtype))[0]),)


# --- the functions of the text --------------------------------------------------------------------------------------

_INT = np.dtype("int64")


def _determine_padding(a: dict, got: Any = None) -> tuple[Expected, ...]:
    pads = reference_pads(a.get("output_shape", "same"), (9, 9), as_pair(a["filter_shape"]))
    return tuple(Expected(np.array(side), _INT) for side in pads)


def _get_im2col_indices(a: dict, got: Any) -> tuple[Expected, ...]:
    """Flat positions in the padded image, from channel, row and column."""
    _, channels, *image = (operator.index(size) for size in a["images_shape"])
    kernel = as_pair(a["filter_shape"])
    o = window_options(a, image, kernel)
    padded = [size + sum(pad) for size, pad in zip(image, o["pads"], strict=True)]
    if channels * padded[0] * padded[1] > LARGEST:
        raise TooLargeToCheck
    flat = np.arange(channels * padded[0] * padded[1]).reshape(1, channels, *padded)
    return (Expected(reference_im2col(flat, kernel, o["stride"])[0], _INT),)


def _image_to_column(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (columns,) = _im2col({"x": a["images"], "kernel_size": a["filter_shape"], "stride": a["stride"],
                          "padding": a.get("output_shape", "same")})  # fmt: skip
    batch, rows, positions = columns.exact.shape
    return (columns._replace(exact=columns.exact.transpose(1, 2, 0).reshape(rows, positions * batch)),)


def _column_to_image(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (cols,) = given_arrays(a, "cols")
    batch, _, height, width = (operator.index(size) for size in a["images_shape"])
    dtype = np.dtype("complex128" if cols.dtype.kind == "c" else "float64")
    if cols.size == 0:
        return (Expected(np.zeros(a["images_shape"], dtype), dtype),)
    columns = cols.astype(dtype).reshape(cols.shape[0], -1, batch).transpose(2, 0, 1)
    return _col2im({"columns": columns,
                    "image_size": (height, width), "kernel_size": a["filter_shape"], "stride": a["stride"],
                    "padding": a.get("output_shape", "same")})  # fmt: skip


ANSWERS: dict[str, Callable[..., tuple[Expected | None, ...]]] = {
    "conv2d": _conv2d,
    "conv2d_plan": _conv2d,
    "conv2d_backward": _conv2d_backward,
    "conv2d_input_grad": _conv2d_input_grad,
    "conv2d_weight_grad": _conv2d_weight_grad,
    "conv_transpose2d": _conv_transpose2d,
    "conv_transpose2d_backward": _conv_transpose2d_backward,
    "im2col": _im2col,
    "col2im": _col2im,
    "pad2d": _pad2d,
    "pad2d_backward": _pad2d_backward,
    "max_pool2d": _max_pool2d,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d": _avg_pool2d,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "determine_padding": _determine_padding,
    "get_im2col_indices": _get_im2col_indices,
    "image_to_column": _image_to_column,
    "column_to_image": _column_to_image,
    "Conv2D": _layer,
}
