"""Batch normalisation of planes: sums over each, and what is done to each pixel, one pass each.

The sums of a channel's planes are added by the caller: the order depends on the shape alone. Knows planes (N, C,
pixels) and numbers a channel (C,); statistics are the layer's.
Source: S. Ioffe, C. Szegedy, "Batch Normalization" (2015), algorithm 1 and the gradients of section 3.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import driver
from ..runtime.launch import launch
from .lane_sums import summed, summed_products

# What a pixel takes that is read from memory and perhaps written back, in nanoseconds.
PIXEL_NS = 0.3
# Pixels of a plane from which on it is worth a task, and up to which a task takes some milliseconds at most.
FEWEST, MOST = 16, 1 << 22


@driver
def _sums(task: Any, worker: Any, x: Any, sums: Any) -> None:
    """sums[n,c] = sum over p of x[n,c,p]."""
    n, c = task // x.shape[1], task % x.shape[1]
    sums[n, c] = summed(x[n, c])


@driver
def _products(task: Any, worker: Any, a: Any, a_center: Any, x: Any, center: Any, sums: Any) -> None:
    """sums[n,c] = sum over p of (a[n,c,p] - a_center[c]) * (x[n,c,p] - center[c])."""
    n, c = task // x.shape[1], task % x.shape[1]
    sums[n, c] = summed_products(a[n, c], a_center[c], x[n, c], center[c])


@driver
def _gradient_sums(task: Any, worker: Any, dy: Any, x: Any, center: Any, sums: Any, products: Any) -> None:
    """sums[n,c] = sum over p of dy[n,c,p], products[n,c] = sum over p of dy[n,c,p] * (x[n,c,p] - center[c])."""
    n, c = task // x.shape[1], task % x.shape[1]
    gradients, zero = dy[n, c], x.dtype.type(0)
    sums[n, c] = summed(gradients)
    products[n, c] = summed_products(gradients, zero, x[n, c], center[c])


@driver
def _normalise(task: Any, worker: Any, x: Any, center: Any, scale: Any, gamma: Any, beta: Any, y: Any) -> None:
    """y[n,c,p] = (x[n,c,p] - center[c]) * scale[c] * gamma[c] + beta[c]."""
    channels = x.shape[1]
    n, c = task // channels, task % channels
    source, target = x[n, c], y[n, c]
    middle, wide, slope, shift = center[c], scale[c], gamma[c], beta[c]
    for i in range(len(target)):
        target[i] = (source[i] - middle) * wide * slope + shift


@driver
def _gradient(
    task: Any, worker: Any, dy: Any, x: Any, center: Any, scale: Any, gamma: Any, shift: Any, slope: Any, dx: Any
) -> None:
    """dx[n,c,p] = (dy[n,c,p] - (shift[c] + z * slope[c])) * gamma[c] * scale[c], z = (x[n,c,p] - center[c]) * scale[c].

    The forward line is y = z * gamma + beta, where center and scale are the batch's.
    """
    channels = x.shape[1]
    n, c = task // channels, task % channels
    above, source, target = dy[n, c], x[n, c], dx[n, c]
    middle, wide, factor, first, second = center[c], scale[c], gamma[c], shift[c], slope[c]
    for i in range(len(target)):
        z = (source[i] - middle) * wide
        target[i] = (above[i] - (first + z * second)) * factor * wide


def plane_sums(workers: int, x: Any, sums: Any) -> None:
    """Fill `sums` (N, C)."""
    launch(_sums, workers, sums.size, x.size * PIXEL_NS, x, sums)


def products(workers: int, a: Any, a_center: Any, x: Any, center: Any, sums: Any) -> None:
    """Fill `sums` (N, C)."""
    launch(_products, workers, sums.size, x.size * PIXEL_NS, a, a_center, x, center, sums)


def gradient_sums(workers: int, dy: Any, x: Any, center: Any, sums: Any, products: Any) -> None:
    """Fill `sums` and `products` (N, C)."""
    launch(_gradient_sums, workers, sums.size, x.size * PIXEL_NS, dy, x, center, sums, products)


def normalise(workers: int, x: Any, channels: tuple[Any, ...], y: Any) -> None:
    """Fill `y`; `channels` are center, scale, gamma and beta."""
    launch(_normalise, workers, x.shape[0] * x.shape[1], x.size * PIXEL_NS, x, *channels, y)


def gradient(workers: int, dy: Any, x: Any, channels: tuple[Any, ...], dx: Any) -> None:
    """Fill `dx`; `channels` are center, scale, gamma, shift and slope."""
    launch(_gradient, workers, x.shape[0] * x.shape[1], x.size * PIXEL_NS, dy, x, *channels, dx)
