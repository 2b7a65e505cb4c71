"""Batch normalisation of planes: a sum of products over each, and what is done to each pixel, one pass each.

A plane is summed in chunks, a chunk in lanes that are added pairwise, and the planes of a channel by the caller: the
order depends on the shape alone. Knows planes (N, C, pixels) and numbers a channel (C,); statistics are the layer's.
Source: S. Ioffe, C. Szegedy, "Batch Normalization" (2015), algorithm 1 and the gradients of section 3.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import driver, kernel
from ..runtime.launch import launch

# Pixels of a plane that are summed in lanes before these are added up: chains of 64 additions.
_CHUNK = 512
# What a pixel takes that is read from memory and perhaps written back, in nanoseconds.
PIXEL_NS = 0.3
# Pixels of a plane from which on it is worth a task, and up to which a task takes some milliseconds at most.
FEWEST, MOST = 16, 1 << 22


@kernel
def _pairwise(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@driver
def _products(task: Any, worker: Any, a: Any, a_center: Any, x: Any, center: Any, sums: Any) -> None:
    """sums[n,c] = sum over p of (a[n,c,p] - a_center[c]) * (x[n,c,p] - center[c])."""
    zero = x.dtype.type(0)
    channels = x.shape[1]
    n, c = task // channels, task % channels
    q, m, total = a_center[c], center[c], zero
    for first in range(0, x.shape[2], _CHUNK):
        u, v = a[n, c, first : first + _CHUNK], x[n, c, first : first + _CHUNK]
        l0, l1, l2, l3, l4, l5, l6, l7 = zero, zero, zero, zero, zero, zero, zero, zero
        whole = len(v) // 8 * 8
        for i in range(0, whole, 8):
            l0 += (u[i] - q) * (v[i] - m)
            l1 += (u[i + 1] - q) * (v[i + 1] - m)
            l2 += (u[i + 2] - q) * (v[i + 2] - m)
            l3 += (u[i + 3] - q) * (v[i + 3] - m)
            l4 += (u[i + 4] - q) * (v[i + 4] - m)
            l5 += (u[i + 5] - q) * (v[i + 5] - m)
            l6 += (u[i + 6] - q) * (v[i + 6] - m)
            l7 += (u[i + 7] - q) * (v[i + 7] - m)
        for i in range(whole, len(v)):
            l0 += (u[i] - q) * (v[i] - m)
        total += _pairwise(l0, l1, l2, l3, l4, l5, l6, l7)
    sums[n, c] = total


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


def products(workers: int, a: Any, a_center: Any, x: Any, center: Any, sums: Any) -> None:
    """Fill `sums` (N, C)."""
    launch(_products, workers, sums.size, x.size * PIXEL_NS, a, a_center, x, center, sums)


def normalise(workers: int, x: Any, channels: tuple[Any, ...], y: Any) -> None:
    """Fill `y`; `channels` are center, scale, gamma and beta."""
    launch(_normalise, workers, x.shape[0] * x.shape[1], x.size * PIXEL_NS, x, *channels, y)


def gradient(workers: int, dy: Any, x: Any, channels: tuple[Any, ...], dx: Any) -> None:
    """Fill `dx`; `channels` are center, scale, gamma, shift and slope."""
    launch(_gradient, workers, x.shape[0] * x.shape[1], x.size * PIXEL_NS, dy, x, *channels, dx)
