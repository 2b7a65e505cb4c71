"""One call of a public function, drawn from a number: a valid problem, which is then spoiled or not.

Knows every function's arguments; does not know what the calls must answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hostile_answers import RANKS, of_rank, transposed
from hostile_reading import as_entries, as_pads
from hostile_values import REAL, Values

from convjit.testing import PADDING_MODES, PADDING_NAMES

Arguments = dict[str, Any]


class Call(NamedTuple):
    """A function's name and arguments. A call that is not `spoiled` is valid, and must be answered."""

    name: str
    arguments: Arguments
    spoiled: bool

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={_shown(value)}" for name, value in self.arguments.items())
        return f"{self.name}({arguments})" + ("  # spoiled" if self.spoiled else "")


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim and (value.size > 8 or value.size == 0):
        kind = "" if type(value) is np.ndarray else f" {type(value).__name__}"
        return f"<{value.dtype}{kind} {value.shape} strides {value.strides}>"
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."


ARRAYS = frozenset({"x", "weight", "bias", "grad_output", "columns", "cols", "images", "indices", "out", "X", "grad"})


# --- problems -------------------------------------------------------------------------------------------------------


class _Window(NamedTuple):
    """A kernel over an image, with the options as they are passed and as ints for each dimension."""

    kernel: tuple[int, ...]
    options: Arguments  # stride, padding, dilation
    image: tuple[int, ...]
    out: tuple[int, ...]


# The largest image that is drawn, so that the oracle takes about as long for each; and a size along every dimension
# that no memory has room for.
_MOST = {1: 12, 2: 9, 3: 6}
_GIANT = {1: 2 * 10**9, 2: 3 * 10**6, 3: 3 * 10**4}


def _kernel(v: Values, rank: int, most: int = 3) -> tuple[int, ...]:
    return tuple(v.between(1, most) for _ in range(rank))


def _window(v: Values, rank: int, mode: str = "constant", dilated: bool = True) -> _Window:
    kernel = _kernel(v, rank)
    options = {
        "stride": v.entries(1, 3, rank),
        "padding": v.of(PADDING_NAMES) if v.chance(0.3) else v.padding(3, rank),
        "dilation": v.entries(1, 3, rank) if dilated else 1,
    }
    stride, dilation = as_entries(options["stride"], rank), as_entries(options["dilation"], rank)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    image = tuple(_image_size(v, options["padding"], extent, mode, axis) for axis in range(rank))
    if v.chance(0.02):
        image = (_GIANT[rank],) * rank
    pads = as_pads(options["padding"], rank, image, kernel, stride, dilation)
    out = tuple((n + sum(p) - e) // s + 1 for n, p, e, s in zip(image, pads, extent, stride, strict=True))
    return _Window(kernel, options, image, out)


def _image_size(v: Values, padding: Any, extent: list[int], mode: str, axis: int) -> int:
    rank = len(extent)
    if isinstance(padding, str):
        least = extent[axis] if padding == "valid" or mode == "reflect" else 1
    else:
        pad = as_pads(padding, rank)[axis]
        inside = {"constant": 0, "reflect": max(pad) + 1}.get(mode, 1) if any(pad) else 0
        least = max(extent[axis] - sum(pad), inside)
    return max(least, min(_MOST[rank], least + v.between(0, 5)))


class _Convolution(NamedTuple):
    """Shapes and options of a valid convolution; images lie as `layout` among the options says."""

    batch: tuple[int, ...]
    channels: int
    filters: int
    groups: int
    window: _Window
    options: Arguments

    @property
    def x_shape(self) -> tuple[int, ...]:
        return _lying(self.options, (*self.batch, self.channels, *self.window.image))

    @property
    def y_shape(self) -> tuple[int, ...]:
        return _lying(self.options, (*self.batch, self.filters, *self.window.out))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.filters, self.channels // self.groups, *self.window.kernel)


def _layout(v: Values, rank: int) -> Arguments:
    """Channels last, at times, for images; nothing else has a layout."""
    if rank != 2 or v.chance(0.6):
        return {}
    return {"layout": v.of(("NHWC", "NHWC", "NCHW"))}


def _lying(options: Arguments, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How a shape lies, with a batch or without."""
    return (*shape[:-3], *shape[-2:], shape[-3]) if options.get("layout") == "NHWC" else shape


def _convolution(v: Values, rank: int) -> _Convolution:
    mode = v.of(("constant",) * 4 + PADDING_MODES)
    window, groups = _window(v, rank, mode), v.of((1, 1, 1, 2, 3))
    options = {**window.options, "groups": v.of((groups, np.int32(groups))), **_layout(v, rank)}
    if mode != "constant" or v.chance(0.2):
        options["padding_mode"] = mode
    if v.chance(0.5):
        options["algorithm"] = v.of(("auto", "implicit", "reference", "fastest"))
    batch = () if v.chance(0.3) else (v.of((0, 1, 1, 2, 3)),)
    return _Convolution(batch, v.of((0, 1, 1, 2, 2, 3)) * groups, v.between(1, 3) * groups, groups, window, options)


# --- a valid call of each function ----------------------------------------------------------------------------------


def _conv(v: Values, rank: int) -> Arguments:
    c = _convolution(v, rank)
    a = {"x": v.array(c.x_shape), "weight": v.array(c.weight_shape), **c.options}
    if v.chance(0.4):
        a["bias"] = v.array((c.filters,))
    arrays = [np.asarray(a[name]) for name in ("x", "weight", "bias") if name in a]
    if v.chance(0.3) and math.prod(c.y_shape) < 1000:
        dtype = np.result_type(*(array.dtype for array in arrays)).newbyteorder("=")
        a["out"] = np.ones(c.y_shape, "int64" if dtype.kind == "b" else dtype)
    return a


def _explain(v: Values) -> Arguments:
    a = {name: value for name, value in _conv(v, v.of(RANKS)).items() if name != "out"}
    if v.chance(0.5):
        a["x"] = np.shape(a["x"])
        a["dtype"] = v.of(("float32", np.float64, "complex64", "int8", np.dtype("bool")))
    return a


def _need(v: Values) -> Arguments:
    return {"need": v.of(((1, 1, 1), (True, False, True), [0, 1, 0], np.array([1, 0, 0])))} if v.chance(0.3) else {}


def _conv_backward(v: Values, rank: int) -> Arguments:
    c = _convolution(v, rank)
    arrays = {"grad_output": v.array(c.y_shape), "x": v.array(c.x_shape), "weight": v.array(c.weight_shape)}
    return {**arrays, **c.options, **_need(v)}


def _conv_input_grad(v: Values, rank: int) -> Arguments:
    c = _convolution(v, rank)
    arrays = {"grad_output": v.array(c.y_shape), "weight": v.array(c.weight_shape)}
    return {**arrays, "input_size": c.window.image, **c.options}


def _conv_weight_grad(v: Values, rank: int) -> Arguments:
    c = _convolution(v, rank)
    return {"grad_output": v.array(c.y_shape), "x": v.array(c.x_shape), "kernel_size": c.window.kernel, **c.options}


def _transposed(v: Values, rank: int) -> tuple[Arguments, dict[str, tuple[int, ...]]]:
    """Options, and shapes of x, weight, bias and result."""
    groups, kernel = v.of((1, 1, 1, 2, 3)), _kernel(v, rank)
    image = tuple(v.between(1, 5 if rank < 3 else 3) for _ in range(rank))
    options = {"stride": v.entries(1, 3, rank), "dilation": v.entries(1, 3, rank), "groups": groups}
    options |= {"padding": v.of(PADDING_NAMES) if v.chance(0.3) else v.padding(2, rank), **_layout(v, rank)}
    entries = zip(as_entries(options["stride"], rank), as_entries(options["dilation"], rank), strict=True)
    extra = tuple(v.between(0, max(pair) - 1) for pair in entries)
    if v.chance(0.5):
        options["output_padding"] = extra
    if min(transposed(options, image, kernel).size) < 1:
        options["padding"] = 0
    size = transposed(options, image, kernel).size
    if v.chance(0.2) and not isinstance(options["padding"], str):
        options["output_size"] = size
        options.pop("output_padding", None)
    batch = () if v.chance(0.3) else (v.of((0, 1, 1, 2, 3)),)
    channels, filters = v.of((0, 1, 1, 2, 2)) * groups, v.between(1, 2)
    if v.chance(0.01):
        batch = (10**12,)
    return options, {
        "x": _lying(options, (*batch, channels, *image)), "weight": (channels, filters, *kernel),
        "bias": (filters * groups,), "y": _lying(options, (*batch, filters * groups, *size)),
    }  # fmt: skip


def _conv_transpose(v: Values, rank: int) -> Arguments:
    options, shapes = _transposed(v, rank)
    a = {"x": v.array(shapes["x"]), "weight": v.array(shapes["weight"]), **options}
    return {**a, "bias": v.array(shapes["bias"])} if v.chance(0.4) else a


def _conv_transpose_backward(v: Values, rank: int) -> Arguments:
    options, shapes = _transposed(v, rank)
    arrays = {"grad_output": v.array(shapes["y"]), "x": v.array(shapes["x"]), "weight": v.array(shapes["weight"])}
    return {**arrays, **options, **_need(v)}


def _lead(v: Values) -> tuple[int, ...]:
    """Batch, if any, and channels."""
    return (v.between(0, 4),) if v.chance(0.3) else (v.between(0, 3), v.between(0, 4))


def _im2col(v: Values, rank: int) -> Arguments:
    w = _window(v, rank)
    return {"x": v.array((*_lead(v), *w.image)), "kernel_size": w.kernel, **w.options}


def _col2im(v: Values, rank: int) -> Arguments:
    w, lead = _window(v, rank), _lead(v)
    shape = (*lead[:-1], lead[-1] * math.prod(w.kernel), math.prod(w.out))
    return {"columns": v.array(shape), "image_size": w.image, "kernel_size": w.kernel, **w.options}


def _padded(v: Values, rank: int) -> tuple[Arguments, tuple[int, ...], tuple[int, ...]]:
    """Options, and the shapes before and after."""
    options = {"padding": v.padding(4, rank), "mode": v.of(PADDING_MODES)}
    image, pads = [v.between(0, _MOST[rank]) for _ in range(rank)], as_pads(options["padding"], rank)
    for axis in range(rank):
        if any(pads[axis]) and options["mode"] != "constant":
            image[axis] = max(image[axis], max(pads[axis]) + 1 if options["mode"] == "reflect" else 1)
    if v.chance(0.02):
        image = [_GIANT[rank]] * rank
    lead = _lead(v)
    return options, (*lead, *image), (*lead, *(n + sum(p) for n, p in zip(image, pads, strict=True)))


def _pad(v: Values, rank: int) -> Arguments:
    options, before, _ = _padded(v, rank)
    x = v.array(before)
    values = {"f": (-1, 2.5, np.nan), "c": (1j, -2.5), "i": (-1, 3), "u": (1, 2)}.get(np.asarray(x).dtype.kind, (1,))
    return {"x": x, **options, **({"value": v.of((0, *values))} if v.chance(0.4) else {})}


def _pad_backward(v: Values, rank: int) -> Arguments:
    options, _, after = _padded(v, rank)
    return {"grad_output": v.array(after), **options}


class _Pool(NamedTuple):
    """A valid pooling: shapes of images and results, as they lie, and sizes of images."""

    options: Arguments
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    image: tuple[int, ...]


def _pool(v: Values, rank: int) -> _Pool:
    kernel, dilation, lead = _kernel(v, rank, 4 if rank < 3 else 3), v.entries(1, 2, rank), _lead(v)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, as_entries(dilation, rank), strict=True)]
    pads = tuple((v.between(0, min(e - 1, 3)), v.between(0, min(e - 1, 3))) for e in extent)
    image = tuple(max(0, e - sum(p)) + v.between(0, 5 if rank < 3 else 2) for e, p in zip(extent, pads, strict=True))
    if v.chance(0.02):
        image = (_GIANT[rank],) * rank
    options = {"kernel_size": kernel, "padding": v.of((pads, np.array(pads))), "dilation": dilation, **_layout(v, rank)}
    if v.chance(0.7):
        options["stride"] = v.entries(1, 4, rank)
    if v.chance(0.4):
        options["ceil_mode"] = True
    out = []
    for n, p, e, s in zip(image, pads, extent, as_entries(options.get("stride", kernel), rank), strict=True):
        size, rest = divmod(n + sum(p) - e, s)
        out.append(size + 1 + ("ceil_mode" in options and rest > 0 and (size + 1) * s < n + p[0]))
    return _Pool(options, _lying(options, (*lead, *image)), _lying(options, (*lead, *out)), image)


def _max_pool(v: Values, rank: int) -> Arguments:
    p = _pool(v, rank)
    return {"x": v.array(p.x_shape, REAL), **p.options, **({"return_indices": True} if v.chance(0.5) else {})}


def _max_pool_backward(v: Values, rank: int) -> Arguments:
    p = _pool(v, rank)
    a = {"grad_output": v.array(p.y_shape, REAL), "x": v.array(p.x_shape, REAL), **p.options}
    if v.chance(0.3) and math.prod(p.y_shape) < 1000:
        low, high = (-1, 0) if 0 in p.image else (v.of((-1, 0)), math.prod(p.image))
        a["indices"] = np.array([v.between(low, high - 1) for _ in range(math.prod(p.y_shape))], int).reshape(p.y_shape)
    return a


def _counting(v: Values) -> Arguments:
    """What sums of windows are divided by: pixels, in two ways, or a number."""
    counting: Arguments = {"count_include_pad": False} if v.chance(0.5) else {}
    if v.chance(0.4):
        counting["divisor_override"] = v.divisor()
    return counting


def _avg_pool(v: Values, rank: int) -> Arguments:
    p = _pool(v, rank)
    return {"x": v.array(p.x_shape), **p.options, **_counting(v)}


def _avg_pool_backward(v: Values, rank: int) -> Arguments:
    p = _pool(v, rank)
    return {"grad_output": v.array(p.y_shape), "input_size": p.image, **p.options, **_counting(v)}


def _determine_padding(v: Values) -> Arguments:
    a = {"filter_shape": v.entries(1, 9, 2)}
    return {**a, "output_shape": v.of(("same", "valid", "full"))} if v.chance(0.8) else a


def _get_im2col_indices(v: Values) -> Arguments:
    w = _window(v, 2, dilated=False)
    return {"images_shape": (v.between(0, 3), v.between(0, 3), *w.image), "filter_shape": w.kernel,
            "padding": w.options["padding"], "stride": w.options["stride"]}  # fmt: skip


def _image_to_column(v: Values) -> Arguments:
    w = _window(v, 2, dilated=False)
    images = v.array((v.between(0, 3), v.between(0, 3), *w.image))
    return {"images": images, "filter_shape": w.kernel, "stride": w.options["stride"],
            "output_shape": w.options["padding"]}  # fmt: skip


def _column_to_image(v: Values) -> Arguments:
    w, batch, channels = _window(v, 2, dilated=False), v.between(0, 3), v.between(0, 3)
    cols = v.array((channels * w.kernel[0] * w.kernel[1], w.out[0] * w.out[1] * batch))
    return {"cols": cols, "images_shape": (batch, channels, *w.image), "filter_shape": w.kernel,
            "stride": w.options["stride"], "output_shape": w.options["padding"]}  # fmt: skip


def _layer(v: Values, rank: int) -> Arguments:
    c = _convolution(v, rank)
    batch, options = c.batch or (1,), {name: value for name, value in c.options.items() if name != "layout"}
    return {
        "n_filters": c.filters, "filter_shape": c.window.kernel, "input_shape": (c.channels, *c.window.image),
        "dtype": v.of((np.float32, np.float64, "float32")), "rng": v.between(0, 99), **options,
        "X": v.array((*batch, c.channels, *c.window.image), REAL),
        "grad": v.array((*batch, c.filters, *c.window.out), REAL),
    }  # fmt: skip


_OF_IMAGES: dict[str, Callable[..., Arguments]] = {
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

VALID: dict[str, Callable[[Values], Arguments]] = {
    **{of_rank(name, rank): partial(valid, rank=rank) for name, valid in _OF_IMAGES.items() for rank in RANKS},
    "determine_padding": _determine_padding,
    "get_im2col_indices": _get_im2col_indices,
    "image_to_column": _image_to_column,
    "column_to_image": _column_to_image,
    "explain": _explain,
}


# --- spoiling -------------------------------------------------------------------------------------------------------


# What a call is given besides, whether its function takes it or not.
_ADDED = ("out", "bias", "indices", "need", "output_size", "stride", "algorithm", "layout", "divisor_override")


def _spoil(v: Values, a: Arguments) -> None:
    """Change one argument for the worse; by luck the call may stay valid."""
    name = v.of(list(a))
    arrays = [other for other in a if other in ARRAYS and other != name and isinstance(a[other], np.ndarray)]
    how = v.between(0, 19)
    if how == 0:
        a[v.of(("strides", "data_format", "kernel", "units", "", "x "))] = 1
    elif how == 1:
        del a[name]
    elif how == 2 and "mode" not in name:
        a[v.of(_ADDED)] = v.bad_number()
    elif name in ARRAYS and arrays and how < 7:
        a[name] = a[v.of(arrays)]  # the same object twice; with `out`, where the result would go
    elif name in ARRAYS:
        a[name] = v.bad_array(a[name])
    elif how == 3 and isinstance(a[name], tuple):
        a[name] = tuple(v.bad_number() if v.chance(0.5) else entry for entry in a[name])
    else:
        a[name] = v.bad_number()


def draw(seed: int) -> Call:
    """The call of this number; every other one is valid."""
    v = Values(seed)
    name = v.of(list(VALID))
    arguments = VALID[name](v)
    spoils = v.of((0, 0, 0, 0, 1, 1, 1, 2))
    for _ in range(spoils):
        if arguments:
            _spoil(v, arguments)
    if _is_long(arguments.get("filter_shape")):
        arguments.pop("padding_mode", None)
    return Call(name, arguments, spoils > 0)


def _is_long(size: Any) -> bool:
    """Whether a filter is of so many taps that the gradient of a padded image, which all of them meet, takes hours."""
    return any(isinstance(n, int) and n >= 10**5 for n in (size if isinstance(size, tuple) else (size,)))
