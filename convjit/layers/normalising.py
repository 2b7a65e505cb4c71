"""What batch normalisation does to arrays: in compiled passes over planes, or by NumPy.

Knows arrays (N, C, ...) and numbers a channel (C,); statistics over batches are the layer's. Rows, tiny and giant
planes, and dtypes without kernels are NumPy's.
"""

from __future__ import annotations

import math

import numpy as np

from ..algorithms import normalising as of_planes
from ..algorithms.normalising import FEWEST, MOST, PIXEL_NS
from ..arrays import ready
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, DType
from .passes import compiled
from .slices import channel_sums, in_slices

_NAME = "BatchNormalization"


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel, around the mean."""
    count = max(1, x.size // max(1, x.shape[1]))
    mean: Array = sums(x) / count
    return mean, product_sums(x, mean, x, mean) / count


def product_sums(a: Array, a_center: Array, x: Array, center: Array) -> Array:
    """Of each channel, the sum of `(a - a_center) * (x - center)`."""
    if not _has_planes(a, x):
        u, v = _along(a_center, x), _along(center, x)
        return channel_sums(lambda a, x: (a - u) * (x - v), a, x)
    sums = allocate(_NAME, "a workspace", x.shape[:2], x.dtype)
    of_planes.products(
        workers(x.size * PIXEL_NS), _planes(a), _numbers(a_center, x.dtype), _planes(x), _numbers(center, x.dtype), sums
    )  # fmt: skip
    return np.asarray(sums.sum(axis=0))


def gradient_sums(dy: Array, x: Array, center: Array) -> tuple[Array, Array]:
    """Of each channel, the sums of `dy` and of `dy * (x - center)`."""
    if not _has_planes(dy, x):
        return sums(dy), product_sums(dy, np.zeros_like(center), x, center)
    parts, products = (allocate(_NAME, "a workspace", x.shape[:2], x.dtype) for _ in range(2))
    crew = workers(x.size * PIXEL_NS)
    of_planes.gradient_sums(crew, _planes(dy), _planes(x), _numbers(center, x.dtype), parts, products)
    return np.asarray(parts.sum(axis=0)), np.asarray(products.sum(axis=0))


def normalised(x: Array, center: Array, scale: Array, gamma: Array, beta: Array) -> Array:
    """`(x - center) * scale * gamma + beta`."""
    if not _has_planes(x):
        u, v, slope, shift = (_along(values, x) for values in (center, scale, gamma, beta))
        return in_slices(_NAME, lambda x: (x - u) * v * slope + shift, x, keep=1)
    y = allocate(_NAME, "the result", x.shape, x.dtype)
    channels = tuple(_numbers(values, x.dtype) for values in (center, scale, gamma, beta))
    of_planes.normalise(
        workers(x.size * PIXEL_NS), _planes(x), channels, y.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    )
    return y


def input_gradient(dy: Array, x: Array, center: Array, scale: Array, gamma: Array, shift: Array, slope: Array) -> Array:
    """`(dy - (shift + z * slope)) * gamma * scale`, where `z = (x - center) * scale`."""
    if not _has_planes(dy, x):
        u, v, factor, first, second = (_along(values, dy) for values in (center, scale, gamma, shift, slope))
        return in_slices(_NAME, lambda dy, x: (dy - (first + (x - u) * v * second)) * factor * v, dy, x, keep=1)
    dx = allocate(_NAME, "the gradient", x.shape, x.dtype)
    channels = tuple(_numbers(values, x.dtype) for values in (center, scale, gamma, shift, slope))
    of_planes.gradient(
        workers(x.size * PIXEL_NS), _planes(dy), _planes(x), channels,
        dx.reshape(*x.shape[:2], math.prod(x.shape[2:])),
    )  # fmt: skip
    return dx


def scaled(dy: Array, factor: Array) -> Array:
    """`dy * factor`."""
    along = _along(factor, dy)
    return in_slices(_NAME, lambda dy: dy * along, dy, keep=1)


def sums(x: Array) -> Array:
    """Of each channel."""
    if not _has_planes(x):
        return channel_sums(_itself, x)
    parts = allocate(_NAME, "a workspace", x.shape[:2], x.dtype)
    of_planes.plane_sums(workers(x.size * PIXEL_NS), _planes(x), parts)
    return np.asarray(parts.sum(axis=0))


def _has_planes(*arrays: Array) -> bool:
    return compiled(*arrays) and FEWEST <= math.prod(arrays[0].shape[2:]) <= MOST


def _planes(x: Array) -> Array:
    return ready(_NAME, "an array", x, x.dtype).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _numbers(values: Array, dtype: DType) -> Array:
    return ready(_NAME, "numbers", values, dtype)


def _itself(x: Array) -> Array:
    return x


def _along(values: Array, x: Array) -> Array:
    """One value a channel, shaped to go along axis 1 of `x`, in its dtype."""
    return values.reshape(1, -1, *(1,) * (x.ndim - 2)).astype(x.dtype, copy=False)
