"""Compiling ahead: what first calls would wait for, done before them.

Knows a small problem for each public function, optimizer and layer that is compiled, and calls it; what is compiled
for it is their own affair, but for the ways through kernels that `_ways` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
import numpy as np

from . import arrays
from .arrays import as_dtype
from .functional import (
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool3d,
    avg_pool3d_backward,
    col2im,
    col2im3d,
    column_to_image,
    conv2d,
    conv2d_backward,
    conv2d_input_grad,
    conv2d_plan,
    conv2d_weight_grad,
    conv3d,
    conv3d_backward,
    conv3d_input_grad,
    conv3d_plan,
    conv3d_weight_grad,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose3d,
    conv_transpose3d_backward,
    im2col,
    im2col3d,
    image_to_column,
    max_pool2d,
    max_pool2d_backward,
    max_pool3d,
    max_pool3d_backward,
    pad2d,
    pad2d_backward,
)
from .functional.front_door import public
from .layers import (
    SGD,
    Activation,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    BatchNormalization,
    Dense,
    Layer,
    MaxPooling2D,
    RMSprop,
)
from .layers.activation import ACTIVATIONS
from .layers.order import MaximaFirst
from .parsing import describe, is_iterable
from .progress import progress_bar
from .runtime import emitting
from .runtime.compile import DRIVERS, made
from .runtime.entries import entries
from .simd import isa
from .typing import Array, DType, DTypeLike

DTYPES = ("float32", "float64")

# Zeros are filled in by one kernel and other modes by another: padding is the one option that decides about kernels.
_PADDED: tuple[dict[str, Any], ...] = ({"padding": 1}, {"padding": 1, "padding_mode": "edge"})


# An input gradient with a stride, which "auto" computes in one product for each phase, or directly.
_SEVERAL_PRODUCTS: dict[str, Any] = {"padding": 1, "stride": 2, "algorithm": "implicit"}
# And one whose windows do not overlap; floating point alone goes this way.
_PATCHES: dict[str, Any] = {"stride": 3, "algorithm": "patches"}

Way = tuple[Array, Array, dict[str, Any]]


def _ways(x: Array, weight: Array) -> list[Way]:
    """Small problems (x, weight, options) that take every way through the kernels that "auto" may pick."""
    many, long = np.ones((1, 5000, 4, 8), x.dtype), np.ones((1, 1 << 15, 1, 1), x.dtype)
    lanes = isa.lanes(arrays.DTYPES[arrays.result_dtype(x)].compute)
    one, two = (np.ones((1, 2, 2, vectors * lanes), x.dtype) for vectors in (1, 2))
    few, far = np.ones((1, 64, 16, 32), x.dtype), np.ones((1, 2, 512, 512), x.dtype)
    return [
        *((x, weight, padded) for padded in _PADDED),
        *((rows, weight, {"padding": 1, "algorithm": "implicit"}) for rows in (one, two)),  # vectors, that share tiles
        (x, weight[:, :, :1, :1], {}),  # read where it lies
        (far, weight[:, :, :1, :1], {"algorithm": "implicit"}),  # from beyond the second-level cache
        (x, weight, _SEVERAL_PRODUCTS),
        (many, np.ones((1, 5000, 3, 1), x.dtype), {"padding": 1}),  # planes too large for bands
        (long, long, {}),  # sums of more than one total
        (x[:1, :1, :1, :1], np.ones((1 << 15, 1, 1, 1), x.dtype), {}),  # and those of its input gradient
        (few, np.ones((1, 64, 3, 3), x.dtype), {"padding": 1}),  # one filter, whose gradient has channels as lanes
        # Lanes of output channels, which "auto" picks for wider ones: weights packed by the way, or before.
        *(_direct_ways(x, weight) if x.dtype.kind in "fc" else []),
        # Few channels of one a group are computed otherwise than many, whose rows are short.
        *(
            (np.tile(np.repeat(x, n, 1), wider), np.repeat(weight[:, :1], n, 0), {"padding": 1, "groups": 2 * n})
            for n, wider in ((1, 4), (8, 1))
        ),
        (np.tile(x[:, :, :1], 16), weight[:, :1, :1], {"groups": 2}),  # and of one long row
    ]  # fmt: skip


def _direct_ways(x: Array, weight: Array) -> list[Way]:
    return [
        (x, weight, {"padding": 1, "algorithm": "direct"}),
        (np.repeat(x, 2, 0), weight[:, :, :1, :1], {"algorithm": "direct"}),
        (x, weight, _PATCHES),
    ]


# Of channels last: images are turned by one kernel, and padded by another than of channels first.
_LAST: dict[str, Any] = {"padding": 1, "padding_mode": "edge", "algorithm": "implicit", "layout": "NHWC"}
# And with a group a channel, of kernels (2, 1, 3, 3).
_EACH_LAST: dict[str, Any] = {**_LAST, "algorithm": "auto", "groups": 2}


def _last(images: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _input_grad(x: Array, weight: Array, options: dict[str, Any]) -> Array:
    return conv2d_input_grad(_output(x, weight, options), weight, x.shape[2:], **options)


def _weight_grad(x: Array, weight: Array, options: dict[str, Any]) -> Array:
    return conv2d_weight_grad(_output(x, weight, options), x, weight.shape[2:], **options)


def _output(x: Array, weight: Array, options: dict[str, Any]) -> Array:
    """Ones, shaped as the forward result."""
    sizes = [
        (size + 2 * options.get("padding", 0) - kernel) // options.get("stride", 1) + 1
        for size, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)
    ]
    return np.ones((len(x), len(weight), *sizes), x.dtype)


def _normalisation(x: Array) -> Layer:
    layer = BatchNormalization()
    layer.set_input_shape(x.shape[1:])
    layer.initialize(SGD())
    return layer


def _dense(x: Array) -> Layer:
    layer = Dense(2, (x[0].size,), dtype="float64" if x.dtype.itemsize > 4 else "float32", rng=0)
    layer.initialize(SGD())
    return layer


def _both_passes(layer: Layer | MaximaFirst, x: Array) -> Array:
    return layer.backward_pass(layer.forward_pass(x))


# Called with images (1, 2, 4, 4), weights (2, 2, 3, 3) and a bias (2,).
_CALLS: dict[str, Callable[[Array, Array, Array], object]] = {
    "conv2d": lambda x, weight, bias: [
        *(conv2d(x, weight, **options) for x, weight, options in _ways(x, weight)),
        conv2d(_last(x), weight, **_LAST),
        conv2d(_last(x), weight[:, :1], **_EACH_LAST),
    ],
    "conv2d_backward": lambda x, weight, bias: [
        *(
            conv2d_backward(_output(x, weight, options), x, weight, **options)
            for x, weight, options in _ways(x, weight)
        ),
        conv2d_backward(_last(x), _last(x), weight, **_LAST),
        conv2d_backward(_last(x), _last(x), weight[:, :1], **_EACH_LAST),
    ],
    "conv2d_input_grad": lambda x, weight, bias: [
        *(_input_grad(*way) for way in _ways(x, weight)),
        conv2d_input_grad(_last(x), weight, 4, **_LAST),
        conv2d_input_grad(_last(x), weight[:, :1], 4, **_EACH_LAST),
    ],
    "conv2d_weight_grad": lambda x, weight, bias: [
        *(_weight_grad(*way) for way in _ways(x, weight)),
        conv2d_weight_grad(_last(x), _last(x), 3, **_EACH_LAST),
    ],
    "conv2d_plan": lambda x, weight, bias: [
        *(conv2d_plan(weight, **options)(x) for x, weight, options in _ways(x, weight)),
        conv2d_plan(weight, **_LAST)(_last(x)),
        conv2d_plan(weight[:, :1], **_EACH_LAST)(_last(x)),
    ],
    "conv_transpose2d": lambda x, weight, bias: [
        *(conv_transpose2d(x, weight, bias, stride=stride) for stride in (1, 2)),
        _CALLS["conv2d_input_grad"](x, weight, bias),  # which it is
        conv_transpose2d(_last(x), weight, bias, stride=2, layout="NHWC"),
        conv_transpose2d(_last(x), weight[:, :1], bias, groups=2, layout="NHWC"),
    ],
    "conv_transpose2d_backward": lambda x, weight, bias: [
        *(
            conv_transpose2d_backward(np.ones((1, 2, size, size), x.dtype), x, weight, stride=stride)
            for stride, size in ((1, 6), (2, 9))
        ),
        *(_CALLS[name](x, weight, bias) for name in ("conv2d", "conv2d_weight_grad")),  # which are its gradients
        conv_transpose2d_backward(np.ones((1, 6, 6, 2), x.dtype), _last(x), weight[:, :1], groups=2, layout="NHWC"),
    ],
    "im2col": lambda x, weight, bias: im2col(x, 1),
    "col2im": lambda x, weight, bias: col2im(x.reshape(1, 2, 16), 4, 1),
    "pad2d": lambda x, weight, bias: pad2d(x, 1),
    "pad2d_backward": lambda x, weight, bias: pad2d_backward(x, 1, mode="edge"),
    "max_pool2d": lambda x, weight, bias: (max_pool2d(x, 1), max_pool2d(x, 4), max_pool2d(_last(x), 1, layout="NHWC")),
    "max_pool2d_backward": lambda x, weight, bias: (
        max_pool2d_backward(x, x, 1),
        max_pool2d_backward(x[:, :, :1, :1], x, 4),
        max_pool2d_backward(_last(x), _last(x), 1, layout="NHWC"),
    ),
    "avg_pool2d": lambda x, weight, bias: (avg_pool2d(x, 1), avg_pool2d(x, 4), avg_pool2d(_last(x), 1, layout="NHWC")),
    "avg_pool2d_backward": lambda x, weight, bias: (
        avg_pool2d_backward(x, 4, 1),
        avg_pool2d_backward(x[:, :, :1, :1], 4, 4),
        avg_pool2d_backward(_last(x), 4, 1, layout="NHWC"),
    ),
    "im2col3d": lambda x, weight, bias: im2col3d(_deep(x), 1),
    "col2im3d": lambda x, weight, bias: col2im3d(x.reshape(1, 2, 16), (1, 4, 4), 1),
    "max_pool3d": lambda x, weight, bias: max_pool3d(_deep(x), 1),
    "max_pool3d_backward": lambda x, weight, bias: max_pool3d_backward(_deep(x), _deep(x), 1),
    "avg_pool3d": lambda x, weight, bias: avg_pool3d(_deep(x), 1),
    "avg_pool3d_backward": lambda x, weight, bias: avg_pool3d_backward(_deep(x), (2, 4, 4), 1),
    "image_to_column": lambda x, weight, bias: image_to_column(x, (1, 1), 1),
    "column_to_image": lambda x, weight, bias: column_to_image(x.reshape(2, 16), x.shape, (1, 1), 1),
    "Activation": lambda x, weight, bias: [
        *(_both_passes(Activation(name), x) for name in ACTIVATIONS),
        _both_passes(MaximaFirst(Activation("relu"), MaxPooling2D()), x),
    ],
    "BatchNormalization": lambda x, weight, bias: _both_passes(_normalisation(x), x),
    "Dense": lambda x, weight, bias: _both_passes(_dense(x), x.reshape(len(x), -1)),
    "SGD": lambda x, weight, bias: [
        optimizer.update(bias, bias) for optimizer in (SGD(), SGD(0.1, 0.5), SGD(0.1, 0.5, nesterov=True))
    ],
    "Adagrad": lambda x, weight, bias: Adagrad().update(bias, bias),
    "Adadelta": lambda x, weight, bias: Adadelta().update(bias, bias),
    "RMSprop": lambda x, weight, bias: RMSprop().update(bias, bias),
    "Adam": lambda x, weight, bias: Adam().update(bias, bias),
    "AdamW": lambda x, weight, bias: AdamW().update(bias, bias),
}

# Volumes whose slices are gathered into images, and those that are read as they lie; what is compiled for images, their
# sibling of two dimensions calls.
_VOLUMES: dict[str, Callable[[Array, Array, Array], object]] = {
    "conv3d": lambda x, weight, bias: _volume_outputs(x, weight),
    "conv3d_backward": lambda x, weight, bias: [
        conv3d_backward(volumes, volumes, filters, **options) for volumes, filters, options in _volume_ways(x, weight)
    ],
    "conv3d_input_grad": lambda x, weight, bias: _volume_gradients(x, weight),
    "conv3d_plan": lambda x, weight, bias: [
        conv3d_plan(filters, **options)(volumes) for volumes, filters, options in _volume_ways(x, weight)
    ],
    "conv3d_weight_grad": lambda x, weight, bias: conv3d_weight_grad(_deep(x), _deep(x), 3, padding=1),
    "conv_transpose3d": lambda x, weight, bias: [
        conv_transpose3d(_deep(x), _deep(weight), bias, padding=1), *_volume_gradients(x, weight)
    ],
    "conv_transpose3d_backward": lambda x, weight, bias: [
        conv_transpose3d_backward(_deep(x), _deep(x), _deep(weight), padding=1), *_volume_outputs(x, weight)
    ],
}  # fmt: skip
# What calls the drivers of another function, and no others: one dimension is an image of height 1.
_ALIKE = {
    "conv1d": "conv2d",
    "conv1d_backward": "conv2d_backward",
    "conv1d_input_grad": "conv2d_input_grad",
    "conv1d_plan": "conv2d_plan",
    "conv1d_weight_grad": "conv2d_weight_grad",
    "conv_transpose1d": "conv_transpose2d",
    "conv_transpose1d_backward": "conv_transpose2d_backward",
    "im2col1d": "im2col",
    "col2im1d": "col2im",
    "pad1d": "pad2d",
    "pad1d_backward": "pad2d_backward",
    "pad3d": "pad2d",
    "pad3d_backward": "pad2d_backward",
    "max_pool1d": "max_pool2d",
    "max_pool1d_backward": "max_pool2d_backward",
    "avg_pool1d": "avg_pool2d",
    "avg_pool1d_backward": "avg_pool2d_backward",
}


def _volume_ways(x: Array, weight: Array) -> list[Way]:
    """Volumes with the size of their output: of gathered slices, as they lie where a dtype has that, and depthwise."""
    volumes, filters = _deep(np.repeat(x, 2, 0)), _deep(weight)  # two: of one, tasks pack weights themselves
    rows = ("implicit", "direct") if x.dtype.kind in "fc" else ("auto",)
    return [
        *((volumes, filters, {"padding": 1, "algorithm": row}) for row in rows),
        (volumes, filters[:, :1], {"padding": 1, "groups": volumes.shape[1]}),
    ]


def _volume_outputs(x: Array, weight: Array) -> list[Array]:
    return [conv3d(volumes, filters, **options) for volumes, filters, options in _volume_ways(x, weight)]


def _volume_gradients(x: Array, weight: Array) -> list[Array]:
    return [
        conv3d_input_grad(volumes, filters, volumes.shape[2:], **options)
        for volumes, filters, options in _volume_ways(x, weight)
    ]


def _deep(array: Array) -> Array:
    """Images as volumes of two slices, and a weight (O, C, 3, 3) as (O, C, 3, 3, 3)."""
    return np.repeat(array[:, :, None], 3 if array.shape[2] == 3 else 2, 2)


# Input gradients of volumes without a stride are convolutions of images.
_BY_CONVOLUTION = ("conv3d_backward", "conv3d_input_grad", "conv_transpose3d")


def _of_slices(name: str) -> Callable[[Array, Array, Array], object]:
    siblings = [name.replace("3d", "2d"), *(["conv2d"] if name in _BY_CONVOLUTION else [])]
    return lambda x, weight, bias: (
        [_CALLS[each](x, weight, bias) for each in siblings],
        _VOLUMES[name](x, weight, bias),
    )


_CALLS.update({name: _CALLS[alike] for name, alike in _ALIKE.items()})
_CALLS.update({name: _of_slices(name) for name in _VOLUMES})
# What users' compiled functions call of all of these; asked for by name.
_NOPYTHON = "nopython"
_NOPYTHON_DTYPES = tuple(np.dtype(name) for name in DTYPES)

_NOT_FOR_COMPLEX = (
    *(f"max_pool{rank}d{end}" for rank in (1, 2, 3) for end in ("", "_backward")), "Activation", "BatchNormalization",
    "Dense",
)  # fmt: skip


class Warmed(NamedTuple):
    """What a warm-up did: how many kernels it compiled, and how many it found on disk."""

    compiled: int
    loaded: int


@public
def warmup(
    functions: str | Iterable[str] | None = None,
    dtypes: DTypeLike | Iterable[DTypeLike] = DTYPES,
    *,
    progress: bool | None = None,
) -> Warmed:
    """Compile ahead, for this process and, through the cache on disk, for later ones.

    Containers and CI start warm after `python -m convjit warmup`, which does the same.

    Parameters
    ----------
    functions : str or iterable of str, optional
        Names of public functions, such as `"conv2d"`, of optimizers, `"Activation"`, `"BatchNormalization"` and
        `"Dense"`; all that are compiled if not given. Other layers need what they are made of: `Conv2D` needs
        `"conv2d"` and `"conv2d_backward"`, and so does a large `Dense`. `"nopython"` is what functions need that are
        called in users' `@njit` code, of float32 and float64; it has to be asked for.
    dtypes : dtype or iterable of dtypes
        Dtypes of the arrays that will come. Several share kernels: float16 is computed as float32, integers as int64.
    progress : bool, optional
        Whether to show a bar; on a terminal if not given.

    Returns
    -------
    compiled, loaded : int
        Kernels that were compiled, and kernels that were found on disk; what this process had already counts as
        neither. Both the serial and the parallel form of each are made, whatever the number of threads here. With
        `NUMBA_DISABLE_JIT=1` there are none.

    Raises
    ------
    TypeError, ValueError
        For names of functions that are not compiled, and dtypes that are not supported.

    Notes
    -----
    All functions in both dtypes take about a minute. What is kept serves processes with the same versions of convjit,
    Python, NumPy, Numba and llvmlite on the same model of processor; with `NUMBA_CPU_NAME` (and
    `NUMBA_CPU_FEATURES`) set to the same for all, on any that can run it.

    Examples
    --------
    >>> from convjit import warmup
    >>> first = warmup("pad2d", ["float32", "float64"])
    >>> warmup("pad2d", "float32")  # nothing is left to do
    Warmed(compiled=0, loaded=0)
    """
    wanted = plan(functions, dtypes)
    if numba.config.DISABLE_JIT:
        return Warmed(0, 0)
    compiled, loaded = _counts()
    with progress_bar(len(wanted), progress) as advance:
        for name, dtype in wanted:
            _compile(name, dtype)
            advance(f"{name} {dtype}")
    now = _counts()
    return Warmed(now.compiled - compiled, now.loaded - loaded)


def _compile(name: str, dtype: DType) -> None:
    """What a small call takes, then what a large one needs besides."""
    if name == _NOPYTHON:
        for entry in entries():
            if entry.serves(dtype.itemsize):
                entry()
        return
    for driver in DRIVERS:
        driver.used = False
    _CALLS[name](np.ones((1, 2, 4, 4), dtype), np.ones((2, 2, 3, 3), dtype), np.ones(2, dtype))
    for driver in DRIVERS:
        if driver.used:
            driver.complete()


def plan(functions: Any, dtypes: Any) -> list[tuple[str, DType]]:
    """What a warm-up with these arguments calls: names and dtypes, checked."""
    names = _names(functions)
    kinds = [as_dtype("warmup", "an entry of dtypes", kind) for kind in _listed(dtypes)]
    return [(name, kind) for kind in kinds for name in names if _has(name, kind)]


def is_function(word: str) -> bool:
    """Whether it is the name of something that can be compiled ahead."""
    return word in (*_CALLS, _NOPYTHON)


def _has(name: str, kind: DType) -> bool:
    """Whether there is something to compile for a dtype."""
    return kind in _NOPYTHON_DTYPES if name == _NOPYTHON else not (kind.kind == "c" and name in _NOT_FOR_COMPLEX)


def _names(functions: Any) -> list[str]:
    if functions is None:
        return list(_CALLS)
    names = _listed(functions)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"warmup: functions must be names of functions, got {describe(name)}")
        if not is_function(name):
            known = ", ".join(map(repr, (*_CALLS, _NOPYTHON)))
            raise ValueError(f"warmup: functions must be among {known}, got {name!r}")
    return names


def _listed(value: Any) -> list[Any]:
    """One value, or those that an iterable gives, which an array without an axis is not."""
    return list(value) if is_iterable(value) and not isinstance(value, str) else [value]


def _counts() -> Warmed:
    """Kernels that this process has compiled and loaded so far."""
    anew = [*made().values(), *(entry.name in emitting.anew for entry in entries() if entry.is_ready)]
    return Warmed(sum(anew), len(anew) - sum(anew))
