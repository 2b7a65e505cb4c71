"""What each public function must answer: from the plain oracle or a short statement in NumPy, in any dimensions.

Answers are those of images with their channels first. Does not know how calls are drawn.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hostile_reading import (
    LARGEST,
    Expected,
    TooLargeToCheck,
    as_entries,
    as_given,
    as_pads,
    batched,
    conv_options,
    given_arrays,
    magnitudes,
    result_dtype,
    sums,
    window_options,
)

from convjit.testing import reference_im2col, reference_pads
from convjit.testing.spatial import reference_columns, reference_conv, reference_conv_backward, windows

LEARNING_RATE = 0.5
RANKS = (1, 2, 3)


def of_rank(name: str, rank: int) -> str:
    """What a function of images is called for sequences and volumes."""
    if rank != 2 and name in ("im2col", "col2im"):
        return f"{name}{rank}d"
    return name.replace("2d", f"{rank}d").replace("2D", f"{rank}D")


# --- padding --------------------------------------------------------------------------------------------------------


def _padded(x: Any, pads: Any, mode: str = "constant", value: Any = 0) -> Any:
    """The last dimensions padded, as many as there are pads."""
    widths = [(0, 0)] * (x.ndim - len(pads)) + list(pads)
    return np.pad(x, widths, mode, **({"constant_values": value} if mode == "constant" else {}))


def _add_up(totals: Any, where: Any, values: Any) -> None:
    """Add each value to the total at its place, -1 is none."""
    for place, value in zip(where.tolist(), values, strict=True):
        if place >= 0:
            totals[place] += value


def _unpadded(dy: Any, pads: Any, mode: str) -> Any:
    """The adjoint: every padded position added to the pixel that it shows."""
    rank = len(pads)
    size = tuple(n - sum(p) for n, p in zip(dy.shape[-rank:], pads, strict=True))
    shown = _padded(np.arange(math.prod(size)).reshape(size), pads, mode, -1).ravel()
    dx, flat = np.zeros((math.prod(size), *dy.shape[:-rank]), dy.dtype), dy.reshape(*dy.shape[:-rank], shown.size)
    _add_up(dx, shown, np.moveaxis(flat, -1, 0))
    return np.moveaxis(dx, 0, -1).reshape(*dy.shape[:-rank], *size)


def _pad(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    x = _native(given_arrays(a, "x")[0])
    pads, value = as_pads(a["padding"], rank), np.asarray(a.get("value", 0)).astype(x.dtype)
    if math.prod(n + sum(p) for n, p in zip(x.shape[-rank:], pads, strict=True)) > LARGEST:
        raise TooLargeToCheck
    return (Expected(_padded(x, pads, a.get("mode", "constant"), value), x.dtype),)


def _pad_backward(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    (dy,) = given_arrays(a, "grad_output")
    pads, mode = as_pads(a["padding"], rank), a.get("mode", "constant")
    return sums(lambda dy: (_unpadded(dy, pads, mode),), (dy,), result_dtype(dy), 200)


# --- convolution ----------------------------------------------------------------------------------------------------


def _conv(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    x, weight, bias = given_arrays(a, "x", "weight", "bias")
    x = batched(x, rank + 2)
    o = conv_options(a, x.shape[2:], weight.shape[2:])

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return (reference_conv(x, weight, bias, **o),)

    (y,) = sums(forward, (x, weight, bias), result_dtype(x, weight, bias))
    return (as_given(y, a["x"], rank + 2),)


def _backward(dy: Any, x: Any, weight: Any, o: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The three gradients, of images that are padded in any mode."""
    window = {name: o[name] for name in ("stride", "dilation", "groups")}
    seen = _padded(x, o["pads"], o["padding_mode"])
    dx, dw, db = reference_conv_backward(dy, seen, weight, pads=((0, 0),) * len(o["pads"]), **window)
    return _unpadded(dx, o["pads"], o["padding_mode"]), dw, db


def _spread(expected: Expected, weight: Any, groups: int) -> Expected:
    """Weights that are no numbers meet the zeros around a gradient, so they may spread over their channel.

    The second axis of `weight` counts the result's channels of one group.
    """
    bad = ~np.isfinite(weight)
    if not bad.any():
        return expected
    channels = bad.reshape(groups, -1, *bad.shape[1:]).any((1, *range(3, bad.ndim + 1))).ravel()
    by_channel = channels.reshape(-1, *(1,) * (weight.ndim - 2))
    return expected._replace(open=np.broadcast_to(by_channel, expected.exact.shape))


def _conv_backward(a: dict, got: Any = None, *, rank: int) -> tuple[Expected | None, ...]:
    dy, x, weight = given_arrays(a, "grad_output", "x", "weight")
    o = conv_options(a, x.shape[-rank:], weight.shape[2:])
    arrays = (batched(dy, rank + 2), batched(x, rank + 2), weight)
    dx, dw, db = sums(lambda *v: _backward(*v, o), arrays, result_dtype(dy, x, weight), 200)
    dx = _spread(as_given(dx, x, rank + 2), weight, o["groups"])
    return _needed(a, dx, dw, db)


def _needed(a: dict, *gradients: Expected) -> tuple[Expected | None, ...]:
    need = tuple(bool(wanted) for wanted in a.get("need", (True, True, True)))
    return tuple(e if wanted else None for e, wanted in zip(gradients, need, strict=True))


def _conv_input_grad(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    dy, weight = given_arrays(a, "grad_output", "weight")
    size, groups = as_entries(a["input_size"], rank), operator.index(a.get("groups", 1))
    shape = (batched(dy, rank + 2).shape[0], weight.shape[1] * groups, *size)
    if math.prod(shape) > LARGEST:
        raise TooLargeToCheck
    o = conv_options(a, size, weight.shape[2:])

    def gradient(dy: Any, weight: Any) -> Any:
        return (_backward(dy, np.zeros(shape, dy.dtype), weight, o)[0],)

    (dx,) = sums(gradient, (batched(dy, rank + 2), weight), result_dtype(dy, weight), 200)
    return (_spread(as_given(dx, dy, rank + 2), weight, groups),)


def _conv_weight_grad(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    dy, x = (batched(array, rank + 2) for array in given_arrays(a, "grad_output", "x"))
    kernel, groups = as_entries(a["kernel_size"], rank), operator.index(a.get("groups", 1))
    o = conv_options(a, x.shape[2:], kernel)
    shape = (dy.shape[1], x.shape[1] // groups, *kernel)

    def gradient(dy: Any, x: Any) -> Any:
        return (_backward(dy, x, np.zeros(shape, dy.dtype), o)[1],)

    return sums(gradient, (dy, x), result_dtype(dy, x))


class _Transposed(NamedTuple):
    """A transposed convolution: options, the size of its result, and what its stamps cover of each dimension."""

    options: dict[str, Any]
    size: tuple[int, ...]
    reach: tuple[int, ...]


def transposed(a: dict, image: Any, kernel: Any) -> _Transposed:
    rank = len(kernel)
    stride, dilation = (as_entries(a.get(name, 1), rank) for name in ("stride", "dilation"))
    reach = tuple((n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(image, stride, kernel, dilation, strict=True))
    wanted = None if a.get("output_size") is None else as_entries(a["output_size"], rank)
    padding, goal = a.get("padding", 0), (0,) * rank
    if isinstance(padding, str) and padding in ("same_upper", "same_lower"):
        goal = wanted or tuple(n * s for n, s in zip(image, stride, strict=True))
        cut = [max(0, r - g) for r, g in zip(reach, goal, strict=True)]
        sides = [(n // 2, n - n // 2) for n in cut]
        pads = tuple(sides if padding == "same_upper" else [side[::-1] for side in sides])
    else:
        pads = as_pads(padding, rank, image, kernel, stride, dilation)
    extra = as_entries(a.get("output_padding", 0), rank)
    size = wanted or tuple(max(r - sum(p) + e, g) for r, p, e, g in zip(reach, pads, extra, goal, strict=True))
    options = {"stride": stride, "pads": pads, "dilation": dilation, "groups": operator.index(a.get("groups", 1))}
    return _Transposed(options, size, reach)


def _conv_transpose(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    x, weight, bias = given_arrays(a, "x", "weight", "bias")
    x = batched(x, rank + 2)
    t = transposed(a, x.shape[2:], weight.shape[2:])
    if math.prod(t.size) > LARGEST:
        raise TooLargeToCheck
    dtype = result_dtype(x, weight, bias)
    (y,) = sums(lambda *v: (_stamped(*v, t),), (x, weight, bias), dtype, 200)
    return (_spread(as_given(y, a["x"], rank + 2), weight, t.options["groups"]),)


def _stamped(x: Any, weight: Any, bias: Any, t: _Transposed) -> Any:
    """The weights, scaled by each pixel of `x`, added onto a canvas, of which the result is cut out."""
    stride, pads, dilation, groups = t.options.values()
    ends = [max(r, p[0] + n) for r, p, n in zip(t.reach, pads, t.size, strict=True)]
    ins, outs = x.shape[1] // groups, weight.shape[1]
    y = np.zeros((len(x), outs * groups, *ends), x.dtype)
    for tap in np.ndindex(*weight.shape[2:]):
        starts = [k * d for k, d in zip(tap, dilation, strict=True)]
        axes = zip(starts, x.shape[2:], stride, strict=True)
        here = tuple(slice(start, start + (n - 1) * s + 1, s) for start, n, s in axes)
        for g in range(groups):
            of_group = slice(g * ins, (g + 1) * ins)
            stamp = np.einsum("co,nc...->no...", weight[(of_group, slice(None), *tap)], x[:, of_group])
            y[(slice(None), slice(g * outs, (g + 1) * outs), *here)] += stamp
    y = y[(..., *(slice(p[0], p[0] + n) for p, n in zip(pads, t.size, strict=True)))]
    return y if bias is None else y + bias.reshape(-1, *(1,) * len(t.size))


def _conv_transpose_backward(a: dict, got: Any = None, *, rank: int) -> tuple[Expected | None, ...]:
    dy, x, weight = given_arrays(a, "grad_output", "x", "weight")
    t = transposed(a, x.shape[-rank:], weight.shape[2:])
    o = {**{name: t.options[name] for name in ("stride", "dilation", "groups")}, "pads": ((0, 0),) * rank}

    def gradients(dy: Any, x: Any, weight: Any) -> Any:
        # What the stamps of `x` cover, padding included, is what the convolution back reads.
        seen = _padded(dy, t.options["pads"])[(..., *map(slice, t.reach))]
        dx = reference_conv(seen, np.conj(weight), None, **o)
        dw = reference_conv_backward(np.conj(x), np.conj(seen), weight, **o)[1]
        return dx, dw, dy.sum((0, *range(2, dy.ndim)), dtype=dy.dtype)

    arrays = (batched(dy, rank + 2), batched(x, rank + 2), weight)
    dx, dw, db = sums(gradients, arrays, result_dtype(dy, x, weight), 200)
    return _needed(a, as_given(dx, x, rank + 2), dw, db)


def _layer(a: dict, got: Any, *, rank: int) -> tuple[Expected, ...]:
    """Output, input gradient and updated weights of a training step; `got` ends with the weights before it."""
    before, shift = got[-2:]
    call = {name: a[name] for name in ("stride", "dilation", "groups", "padding_mode") if name in a}
    call |= {"padding": a.get("padding", "same"), "x": a["X"], "weight": before}
    (y,) = _conv({**call, "bias": shift.ravel()}, rank=rank)
    dx, dw, db = _conv_backward({**call, "grad_output": a["grad"]}, rank=rank)

    def updated(weight: Any, gradient: Expected) -> Expected:
        step = LEARNING_RATE * np.asarray(gradient.exact, np.longdouble).reshape(weight.shape)
        size = abs(weight) + abs(step) if gradient.magnitude is None else gradient.magnitude.reshape(weight.shape)
        return Expected(weight - step, weight.dtype, abs(weight) + abs(size), 200)

    return y, dx, updated(before, dw), updated(shift, db)


# --- columns and pools ----------------------------------------------------------------------------------------------


def _native(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder("="))


def _im2col(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    x = _native(given_arrays(a, "x")[0])
    kernel = as_entries(a["kernel_size"], rank)
    columns = reference_columns(batched(x, rank + 2), kernel, **window_options(a, x.shape[-rank:], kernel))
    return (as_given(Expected(columns, x.dtype), x, rank + 2),)


def _col2im(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    (columns,) = given_arrays(a, "columns")
    size, kernel = as_entries(a["image_size"], rank), as_entries(a["kernel_size"], rank)
    if math.prod(size) > LARGEST:
        raise TooLargeToCheck
    o = window_options(a, size, kernel)
    # Column p of row q shows, of one channel, this pixel; -1 is padding.
    shown = _padded(np.arange(math.prod(size)).reshape(1, 1, *size), o["pads"], value=-1)
    shown = reference_columns(shown, kernel, o["stride"], ((0, 0),) * rank, o["dilation"])[0].ravel()

    def images(columns: Any) -> Any:
        flat = columns.reshape(len(columns), columns.shape[1] // math.prod(kernel), shown.size)
        x = np.zeros((math.prod(size), *flat.shape[:2]), columns.dtype)
        _add_up(x, shown, np.moveaxis(flat, -1, 0))
        return (np.moveaxis(x, 0, -1).reshape(*flat.shape[:2], *size),)

    (x,) = sums(images, (batched(columns, 3),), result_dtype(columns))
    return (as_given(x, columns, 3),)


class _Seen(NamedTuple):
    """Output sizes of a pool; each output's pixels, as flat positions, and its taps up to the end of the padding."""

    out: tuple[int, ...]
    windows: list[tuple[Any, int]]


def _seen(a: dict, image: Any, rank: int) -> _Seen:
    kernel, stride = as_entries(a["kernel_size"], rank), a.get("stride")
    o = window_options({**a, "stride": kernel if stride is None else stride}, image, kernel)
    found = list(windows(tuple(image), kernel, o["stride"], o["pads"], o["dilation"], bool(a.get("ceil_mode", False))))
    flat = np.arange(math.prod(image)).reshape(image)
    pixels = [(np.array([flat[at] for at in seen], int), taps) for _, seen, taps in found]
    return _Seen(tuple(n + 1 for n in max(position for position, _, _ in found)), pixels)


def _max_pool(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    (x,) = given_arrays(a, "x")
    y, indices = _maxima(x.astype(result_dtype(x)), _seen(a, x.shape[-rank:], rank))
    answers = Expected(y, y.dtype), Expected(indices, _INT)
    return answers if a.get("return_indices", False) else answers[:1]


def _maxima(x: Any, seen: _Seen) -> tuple[Any, Any]:
    """The maxima and where they are: the first one, or the first NaN; nothing is least, at -1."""
    rank = len(seen.out)
    flat = x.reshape(*x.shape[:-rank], math.prod(x.shape[-rank:]))
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    y = np.full((*flat.shape[:-1], len(seen.windows)), least, x.dtype)
    indices = np.full(y.shape, -1)
    for i, (pixels, _) in enumerate(seen.windows):
        if pixels.size:
            indices[..., i] = pixels[flat[..., pixels].argmax(-1)]
            y[..., i] = np.take_along_axis(flat, indices[..., i, None], -1)[..., 0]
    return y.reshape(*x.shape[:-rank], *seen.out), indices.reshape(*x.shape[:-rank], *seen.out)


def _max_pool_backward(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    dy, x, indices = given_arrays(a, "grad_output", "x", "indices")
    if indices is None:
        indices = _maxima(x.astype(result_dtype(x)), _seen(a, x.shape[-rank:], rank))[1]
    lead, size = x.shape[:-rank], x.shape[-rank:]
    planes, outputs = math.prod(lead), math.prod(dy.shape[-rank:])
    where = indices.reshape(planes, outputs).astype(np.int64)

    def gradient(dy: Any) -> Any:
        dx, flat = np.zeros((planes, math.prod(size)), dy.dtype), dy.reshape(planes, outputs)
        for plane in range(planes):
            _add_up(dx[plane], where[plane], flat[plane])
        return (dx.reshape(x.shape),)

    return sums(gradient, (dy,), result_dtype(dy, x), 200)


def _averaged_dtype(array: Any) -> np.dtype:
    return array.dtype.newbyteorder("=") if array.dtype.kind in "fc" else np.dtype("float64")


def _divisors(a: dict, seen: _Seen) -> list[int]:
    if a.get("divisor_override") is not None:
        return [operator.index(a["divisor_override"])] * len(seen.windows)
    include_pad = bool(a.get("count_include_pad", True))
    return [taps if include_pad else max(pixels.size, 1) for pixels, taps in seen.windows]


def _avg_pool(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    (x,) = given_arrays(a, "x")
    dtype, seen = _averaged_dtype(x), _seen(a, x.shape[-rank:], rank)
    divisors = _divisors(a, seen)

    def means(x: Any) -> Any:
        flat = x.reshape(*x.shape[:-rank], math.prod(x.shape[-rank:]))
        totals = [flat[..., pixels].sum(-1, dtype=x.dtype) for pixels, _ in seen.windows]
        return (
            np.stack([t / n for t, n in zip(totals, divisors, strict=True)], -1).reshape(*x.shape[:-rank], *seen.out),
        )

    (y,) = sums(means, (x,), dtype)
    if y.magnitude is None and dtype.kind == "f":  # the sum is exact and the quotient is rounded once, in this dtype
        y = Expected(means(x.astype(np.float32 if dtype == np.float16 else dtype))[0], dtype)
    elif y.magnitude is None:
        y = y._replace(magnitude=abs(y.exact.real) + abs(y.exact.imag))
    return (y,)


def _avg_pool_backward(a: dict, got: Any = None, *, rank: int) -> tuple[Expected, ...]:
    (dy,) = given_arrays(a, "grad_output")
    size, dtype = as_entries(a["input_size"], rank), _averaged_dtype(dy)
    if math.prod(size) > LARGEST:
        raise TooLargeToCheck
    seen = _seen(a, size, rank)
    divisors, lead = _divisors(a, seen), dy.shape[:-rank]

    def gradient(dy: Any) -> Any:
        flat, dx = dy.reshape(*lead, len(divisors)), np.zeros((*lead, math.prod(size)), dy.dtype)
        for i, (pixels, _) in enumerate(seen.windows):
            dx[..., pixels] += flat[..., i, None] / divisors[i]
        return (dx.reshape(*lead, *size),)

    (dx,) = sums(gradient, (dy,), dtype, 200)
    return (dx if dx.magnitude is not None else dx._replace(magnitude=abs(gradient(magnitudes(dy, dtype))[0])),)


# --- the functions of the text --------------------------------------------------------------------------------------

_INT = np.dtype("int64")


def _determine_padding(a: dict, got: Any = None) -> tuple[Expected, ...]:
    pads = reference_pads(a.get("output_shape", "same"), (9, 9), as_entries(a["filter_shape"], 2))
    return tuple(Expected(np.array(side), _INT) for side in pads)


def _get_im2col_indices(a: dict, got: Any) -> tuple[Expected, ...]:
    """Flat positions in the padded image, from channel, row and column."""
    _, channels, *image = (operator.index(size) for size in a["images_shape"])
    kernel = as_entries(a["filter_shape"], 2)
    o = window_options(a, image, kernel)
    padded = [size + sum(pad) for size, pad in zip(image, o["pads"], strict=True)]
    if channels * padded[0] * padded[1] > LARGEST:
        raise TooLargeToCheck
    flat = np.arange(channels * padded[0] * padded[1]).reshape(1, channels, *padded)
    return (Expected(reference_im2col(flat, kernel, o["stride"])[0], _INT),)


def _image_to_column(a: dict, got: Any = None) -> tuple[Expected, ...]:
    call = {"x": a["images"], "kernel_size": a["filter_shape"], "stride": a["stride"]}
    (columns,) = _im2col({**call, "padding": a.get("output_shape", "same")}, rank=2)
    batch, rows, positions = columns.exact.shape
    return (columns._replace(exact=columns.exact.transpose(1, 2, 0).reshape(rows, positions * batch)),)


def _column_to_image(a: dict, got: Any = None) -> tuple[Expected, ...]:
    (cols,) = given_arrays(a, "cols")
    batch, _, height, width = (operator.index(size) for size in a["images_shape"])
    dtype = np.dtype("complex128" if cols.dtype.kind == "c" else "float64")
    if cols.size == 0:
        return (Expected(np.zeros(a["images_shape"], dtype), dtype),)
    columns = cols.astype(dtype).reshape(cols.shape[0], -1, batch).transpose(2, 0, 1)
    call = {"columns": columns, "image_size": (height, width), "kernel_size": a["filter_shape"], "stride": a["stride"]}
    return _col2im({**call, "padding": a.get("output_shape", "same")}, rank=2)


Answer = Callable[..., tuple[Expected | None, ...]]

# By the function of images; those of sequences and volumes are the same in their number of dimensions.
_OF_IMAGES: dict[str, Answer] = {
    "conv2d": _conv,
    "conv2d_plan": _conv,
    "conv2d_backward": _conv_backward,
    "conv2d_input_grad": _conv_input_grad,
    "conv2d_weight_grad": _conv_weight_grad,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose2d_backward": _conv_transpose_backward,
    "im2col": _im2col,
    "col2im": _col2im,
    "pad2d": _pad,
    "pad2d_backward": _pad_backward,
    "max_pool2d": _max_pool,
    "max_pool2d_backward": _max_pool_backward,
    "avg_pool2d": _avg_pool,
    "avg_pool2d_backward": _avg_pool_backward,
    "Conv2D": _layer,
}

ANSWERS: dict[str, Answer] = {
    **{of_rank(name, rank): partial(answer, rank=rank) for rank in RANKS for name, answer in _OF_IMAGES.items()},
    "determine_padding": _determine_padding,
    "get_im2col_indices": _get_im2col_indices,
    "image_to_column": _image_to_column,
    "column_to_image": _column_to_image,
}

# --- channels last --------------------------------------------------------------------------------------------------

IMAGES = frozenset({"x", "grad_output", "indices", "out"})
# How many of the first results are images; of other functions, all are.
_IMAGES_OUT = {"conv2d_weight_grad": 0, "conv2d_backward": 1, "conv_transpose2d_backward": 1}


def answers(name: str, a: dict, got: Any) -> tuple[Expected | None, ...]:
    """What a call must answer, where its images lie."""
    if a.get("layout", "NCHW") != "NHWC":
        return ANSWERS[name](a, got)
    first = {key: np.moveaxis(np.asarray(a[key]), -1, -3) for key in IMAGES & a.keys() if a[key] is not None}
    found = ANSWERS[name]({**a, **first}, got)
    return tuple(_lying(e) if i < _IMAGES_OUT.get(name, len(found)) else e for i, e in enumerate(found))


def _lying(expected: Expected | None) -> Expected | None:
    if expected is None:
        return None
    exact, dtype, magnitude, units, is_open = expected
    exact, magnitude, is_open = (np.moveaxis(v, -3, -1) if np.ndim(v) else v for v in (exact, magnitude, is_open))
    return Expected(exact, dtype, magnitude, units, is_open)
