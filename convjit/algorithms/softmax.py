"""Softmax of rows and its gradient: all but the exponential, which is NumPy's, in one pass over each row.

Knows rows (rows, columns); which axis they lie along is the layer's.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import Driver, driver, kernel
from ..runtime.launch import launch
from .lane_sums import summed, summed_products

# What an entry takes that is read and written in a cache, in nanoseconds.
ENTRY_NS = 0.3
# Entries of a row up to which a task takes some milliseconds at most, and those that a task has of short rows.
MOST, _TOGETHER = 1 << 22, 1 << 14


@kernel
def _largest(row: Any) -> Any:
    """Its largest entry; any, where one is a NaN."""
    l0, l1, l2, l3, l4, l5, l6, l7 = row[0], row[0], row[0], row[0], row[0], row[0], row[0], row[0]
    whole = len(row) // 8 * 8
    for i in range(0, whole, 8):
        l0 = row[i] if row[i] > l0 else l0
        l1 = row[i + 1] if row[i + 1] > l1 else l1
        l2 = row[i + 2] if row[i + 2] > l2 else l2
        l3 = row[i + 3] if row[i + 3] > l3 else l3
        l4 = row[i + 4] if row[i + 4] > l4 else l4
        l5 = row[i + 5] if row[i + 5] > l5 else l5
        l6 = row[i + 6] if row[i + 6] > l6 else l6
        l7 = row[i + 7] if row[i + 7] > l7 else l7
    for i in range(whole, len(row)):
        l0 = row[i] if row[i] > l0 else l0
    l0, l1, l2, l3 = max(l0, l4), max(l1, l5), max(l2, l6), max(l3, l7)
    return max(max(l0, l2), max(l1, l3))


@driver
def _shift(task: Any, worker: Any, together: Any, x: Any, z: Any) -> None:
    """z[r,i] = x[r,i] - max of x[r], of so many rows a task: none is above 0, and one is 0."""
    for r in range(task * together, min(len(x), (task + 1) * together)):
        source, target = x[r], z[r]
        largest = _largest(source)
        for i in range(len(target)):
            target[i] = source[i] - largest


@driver
def _divide(task: Any, worker: Any, together: Any, z: Any) -> None:
    """z[r,i] /= sum of z[r], of so many rows a task."""
    for r in range(task * together, min(len(z), (task + 1) * together)):
        row = z[r]
        total = summed(row)
        for i in range(len(row)):
            row[i] = row[i] / total


@driver
def _gradient(task: Any, worker: Any, together: Any, y: Any, dy: Any, dx: Any) -> None:
    """dx[r,i] = y[r,i] * (dy[r,i] - sum of y[r] * dy[r]), of so many rows a task."""
    for r in range(task * together, min(len(y), (task + 1) * together)):
        shares, above, target = y[r], dy[r], dx[r]
        zero = y.dtype.type(0)
        mean = summed_products(shares, zero, above, zero)
        for i in range(len(target)):
            target[i] = shares[i] * (above[i] - mean)


def shift(workers: int, x: Any, z: Any) -> None:
    """Fill `z` (rows, columns)."""
    _over_rows(_shift, workers, x, z)


def divide(workers: int, z: Any) -> None:
    """Divide each row of `z` by its sum."""
    _over_rows(_divide, workers, z)


def gradient(workers: int, y: Any, dy: Any, dx: Any) -> None:
    """Fill `dx`."""
    _over_rows(_gradient, workers, y, dy, dx)


def _over_rows(made: Driver, workers: int, *arrays: Any) -> None:
    rows, columns = arrays[0].shape
    together = max(1, _TOGETHER // columns)
    launch(made, workers, -(-rows // together), arrays[0].size * ENTRY_NS, together, *arrays)
