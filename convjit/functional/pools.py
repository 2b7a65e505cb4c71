"""What pooling of one, two and three dimensions shares: arguments in, maxima, means and their adjoints out.

Knows dtypes and windows; does not know how a window is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..algorithms import averaging, pixel_pooling, pooling, volume_pooling
from ..arrays import DTYPES, as_array, as_images, common_dtype, converted, ready, result_dtype, write
from ..geometry import Convolution, Volume, check_pooling_padding, check_same_shape, pooling_geometry
from ..layouts import CHANNELS_FIRST, Layout
from ..parsing import Sizes, as_divisor, as_flag, as_image_size, as_padding, as_window
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, ArrayLike, DType, MaybeArray
from .looking_up import LookedUp
from .options import WindowOptions

_INDICES = np.dtype(np.int64)


@LookedUp
def _geometry(function: str, x_shape: Sizes, options: WindowOptions, ceil_mode: bool) -> Convolution:
    kernel_size, stride, padding, dilation = options
    rank = len(x_shape) - 2
    window = as_window(function, kernel_size, kernel_size if stride is None else stride, dilation, rank)
    pads = as_padding(function, padding, window, x_shape[2:])
    check_pooling_padding(function, window, pads)
    return pooling_geometry(function, x_shape, window, pads, ceil_mode)


def _work(g: Convolution) -> float:
    return float(math.prod(g.y_shape) * math.prod(g.window.kernel))


_OF_IMAGES: dict[str, Callable[..., None]] = {
    "max_pool": pooling.max_pool,
    "avg_pool": averaging.avg_pool,
    "avg_pool_backward": averaging.avg_pool_backward,
}


@lru_cache(maxsize=256)
def _driven(g: Convolution, name: str, layout: Layout) -> tuple[Callable[..., None], Any]:
    """A function of the drivers' modules, and the record that it takes."""
    if layout.channels_last:
        return getattr(pixel_pooling, name), g.plane
    if g.rank == 3:
        return getattr(volume_pooling, name), Volume(g.depth, g.plane)
    return _OF_IMAGES[name], g.plane


def _planes(array: Array, layout: Layout) -> Array:
    """(N, C, L) as planes of one row, (N, C, H, W) as planes, (N, C, D, H, W) as volumes; (N, H, W, C) as it is."""
    if layout.channels_last:
        return array
    n, c, *size = array.shape
    return array.reshape(n * c, *((1, *size) if len(size) == 1 else size))


def _comparable(function: str, dtype: DType) -> DType:
    """The dtype in which a maximum is taken; uint64 does not fit into int64."""
    if dtype.kind == "c":
        raise TypeError(f"{function}: x has dtype {dtype}, which has no order")
    return dtype if dtype == np.uint64 else DTYPES[dtype].compute


class _Maxima(NamedTuple):
    """What shapes, dtypes and options decide of maxima."""

    geometry: Convolution
    layout: Layout
    dtype: DType
    compute: DType
    shape: Sizes  # of the result
    lowest: Array  # the least number of the dtype
    nanoseconds: float
    pool: Callable[..., None]
    of: Any  # what it takes


@LookedUp
def _maxima(
    function: str, x_shape: Sizes, x_dtype: DType, options: WindowOptions, ceil_mode: bool, layout: Layout
) -> _Maxima:
    dtype = common_dtype((x_dtype,))
    compute = _comparable(function, dtype)
    g = _geometry.anew(function, layout.told(x_shape), options, ceil_mode)
    lowest = np.full(1, -np.inf if compute.kind == "f" else np.iinfo(dtype).min, compute)
    lowest.flags.writeable = False
    return _Maxima(
        g, layout, dtype, compute, layout.lying(g.y_shape), lowest, _work(g), *_driven(g, "max_pool", layout)
    )


def _max_pool(function: str, images: Array, m: _Maxima) -> tuple[Array, Array]:
    """Maxima in the dtype of the result and their flat positions, both (N, C, OH, OW) or (N, OH, OW, C)."""
    y = allocate(function, "the result", m.shape, m.compute)
    indices = allocate(function, "the indices", m.shape, _INDICES)
    if y.size:
        source = _planes(ready(function, "x", images, m.compute), m.layout)
        m.pool(workers(m.nanoseconds), m.of, source, m.lowest, _planes(y, m.layout), _planes(indices, m.layout))
    return converted(function, "the result", y, m.dtype), indices


def max_pool(
    function: str, rank: int, x: ArrayLike, options: WindowOptions, ceil_mode: bool, return_indices: bool,
    layout: Layout = CHANNELS_FIRST,
) -> MaybeArray:  # fmt: skip
    """`max_pool2d`, in any number of dimensions."""
    wanted, is_ceil = as_flag(function, "return_indices", return_indices), as_flag(function, "ceil_mode", ceil_mode)
    x = as_array(function, "x", x, real=True)
    images = as_images(function, "x", x, rank, layout)
    maxima = _maxima.of(options)(function, images.shape, images.dtype, options, is_ceil, layout)
    y, indices = _max_pool(function, images, maxima)
    if x is not images:
        y, indices = y[0], indices[0]
    return (y, indices) if wanted else y


def max_pool_backward(
    function: str, rank: int, grad_output: ArrayLike, x: ArrayLike, options: WindowOptions, ceil_mode: bool,
    indices: ArrayLike | None, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`max_pool2d_backward`, in any number of dimensions."""
    dy, x = as_array(function, "grad_output", grad_output, real=True), as_array(function, "x", x, real=True)
    images, is_ceil = as_images(function, "x", x, rank, layout), as_flag(function, "ceil_mode", ceil_mode)
    maxima = _maxima.of(options)(function, images.shape, images.dtype, options, is_ceil, layout)
    shape = maxima.shape if x is images else maxima.shape[1:]
    check_same_shape(function, "grad_output", dy.shape, shape, "the shape of the forward result")
    dtype = result_dtype(dy, x)
    if dtype.kind == "c":
        raise TypeError(f"{function}: grad_output has dtype {dy.dtype}, but a maximum is taken of real numbers")
    if indices is None:
        where = _max_pool(function, images, maxima)[1]
    else:
        where = _checked_indices(function, as_array(function, "indices", indices), shape, maxima.geometry)
    scatter = _scatter_to_pixels if layout.channels_last else scatter_to_maxima
    return scatter(function, dy, where, images.shape, dtype).reshape(x.shape)


def _scatter_to_pixels(function: str, dy: Array, indices: Array, x_shape: Sizes, dtype: DType) -> Array:
    """As `scatter_to_maxima`, of images (N, H, W, C)."""
    compute = DTYPES[dtype].compute
    n, h, w, c = x_shape
    dx = allocate(function, "the gradient", (n, h * w, c), compute)
    gradients, positions = ready(function, "grad_output", dy, compute), ready(function, "indices", indices, _INDICES)
    if dx.size:
        outputs = math.prod(indices.shape[-3:-1])
        gradients, positions = gradients.reshape(n, outputs, c), positions.reshape(n, outputs, c)
        pixel_pooling.max_pool_backward(workers(float(dx.size)), gradients, positions, dx)
    return converted(function, "the gradient", dx, dtype).reshape(x_shape)


def scatter_to_maxima(
    function: str, dy: Array, indices: Array, x_shape: Sizes, dtype: DType, rectified: Array | None = None
) -> Array:  # fmt: skip
    """The gradient (N, C, H, W) of maxima at `indices` (N, C, OH, OW), which are known to lie in the image.

    Where a ReLU follows, `rectified` is its output, and `dy` the gradient in that.
    """
    compute = DTYPES[dtype].compute
    rank = len(x_shape) - 2
    planes, pixels, outputs = math.prod(x_shape[:2]), math.prod(x_shape[2:]), math.prod(indices.shape[-rank:])
    dx = allocate(function, "the gradient", (planes, pixels), compute)
    gradients = ready(function, "grad_output", dy, compute).reshape(planes, outputs)
    positions = ready(function, "indices", indices, _INDICES).reshape(planes, outputs)
    if dx.size:
        above = None if rectified is None else rectified.reshape(planes, outputs)
        pooling.max_pool_backward(workers(float(dx.size)), gradients, positions, dx, above)
    return converted(function, "the gradient", dx, dtype).reshape(x_shape)


def _checked_indices(function: str, indices: Array, shape: Sizes, g: Convolution) -> Array:
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{function}: indices must be integers, got dtype {indices.dtype}")
    check_same_shape(function, "indices", indices.shape, shape, "the shape of the forward result")
    pixels = math.prod(g.in_size)
    if indices.size and not (indices.min() >= -1 and indices.max() < pixels):
        raise ValueError(f"{function}: indices must be -1..{pixels - 1}, got {indices.min()}..{indices.max()}")
    return indices


def _averaged_dtype(dtype: DType) -> DType:
    """The mean of integers is a float64, as NumPy's."""
    return dtype if dtype.kind in "fc" else np.dtype("float64")


# What is given for `count_include_pad` and `divisor_override`.
Counting: TypeAlias = tuple[Any, Any]


def _divisor(function: str, include_pad: Any, override: Any) -> int:
    """What kernels divide the sum of a window by."""
    taps = averaging.PADDED if as_flag(function, "count_include_pad", include_pad) else averaging.INSIDE
    return taps if override is None else as_divisor(function, "divisor_override", override)


def avg_pool(
    function: str, rank: int, x: ArrayLike, options: WindowOptions, ceil_mode: bool, counting: Counting,
    layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`avg_pool2d`, in any number of dimensions."""
    divisor, is_ceil = _divisor(function, *counting), as_flag(function, "ceil_mode", ceil_mode)
    x = as_array(function, "x", x)
    images = as_images(function, "x", x, rank, layout)
    g = _geometry.of(options)(function, layout.told(images.shape), options, is_ceil)
    pool, of = _driven(g, "avg_pool", layout)

    def run(source: Array, target: Array) -> None:
        crew = workers(_work(g))
        shape = (crew, g.in_channels)
        room = [allocate(function, "a workspace", shape, source.dtype)] if layout.channels_last else []
        pool(crew, of, _planes(source, layout), divisor, _planes(target, layout), *room)

    y = _by_parts(function, images, layout.lying(g.y_shape), run)
    return y if x is images else y[0]


def avg_pool_backward(
    function: str, rank: int, grad_output: ArrayLike, input_size: Any, options: WindowOptions, ceil_mode: bool,
    counting: Counting, layout: Layout = CHANNELS_FIRST,
) -> Array:  # fmt: skip
    """`avg_pool2d_backward`, in any number of dimensions."""
    divisor, is_ceil = _divisor(function, *counting), as_flag(function, "ceil_mode", ceil_mode)
    dy = as_array(function, "grad_output", grad_output)
    gradients = as_images(function, "grad_output", dy, rank, layout)
    size = as_image_size(function, "input_size", input_size, rank)
    g = _geometry.of(options)(function, (*layout.told(gradients.shape)[:2], *size), options, is_ceil)
    needed = layout.lying(g.y_shape)
    needed = needed if dy is gradients else needed[1:]
    check_same_shape(function, "grad_output", dy.shape, needed, f"the forward result of input_size {size}")
    pool_backward, of = _driven(g, "avg_pool_backward", layout)

    def run(source: Array, target: Array) -> None:
        part = _planes(allocate(function, "a workspace", source.shape, source.dtype), layout)
        pool_backward(workers(_work(g)), of, _planes(source, layout), divisor, part, _planes(target, layout))

    dx = _by_parts(function, gradients, layout.lying(g.x_shape), run)
    return dx if dy is gradients else dx[0]


def _by_parts(function: str, array: Array, shape: tuple[int, ...], run: Any) -> Array:
    """A linear operation in the averaged dtype, complex numbers by parts."""
    dtype = _averaged_dtype(array.dtype)
    compute, is_complex = DTYPES[dtype]
    result = allocate(function, "the result", shape, dtype)
    if compute == dtype:
        if result.size:
            run(ready(function, "x", array, compute), result)
        return result
    parts = [(array.real, result.real), (array.imag, result.imag)] if is_complex else [(array, result)]
    for source, target in parts:
        values = allocate(function, "the result", shape, compute)
        if values.size:
            run(ready(function, "x", source, compute), values)
        write(target, values)
    return result
