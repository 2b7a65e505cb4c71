"""A bias that is added to rows, and its gradient: the sum of the output gradient over images and pixels, in blocks.

Channels are lanes; one by one they are summed where no machine code is emitted, and for compiled callers.
"""

from __future__ import annotations

from functools import cache as once
from typing import Any

from ..gemm.channel_sums import ELEMENT, LANES, extend_chains
from ..gemm.channel_sums import kernels as kernels_of
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL, fold, value
from ..runtime.compile import driver
from ..runtime.launch import Launch, launch, run_in_turn
from ..runtime.options import COMPILED
from ..simd import isa
from ..typing import DType

# Channels summed side by side: as many chains in flight hide the latency of an addition.
_CHANNELS = 4
# Terms a launch: whole totals, and a few milliseconds for a task.
_TERMS_TOGETHER = 64 * TERMS_A_TOTAL

# Elements of rows a task, and what one takes to which a bias is added, in nanoseconds: it waits for memory.
_ELEMENTS_TOGETHER, ADDED_NS = 1 << 14, 0.2


@driver
def _bias_grad(task: Any, worker: Any, first: Any, stop: Any, dy: Any, db: Any) -> None:
    """db[o] = sum over n,p of dy[n,o,p]; `dy` is (N, O, pixels).

    Of the terms (n, p), those `first <= term < stop`, whole totals, which are added to `db` if they are not the first.
    """
    zero = dy.dtype.type(0)
    _, channels, pixels = dy.shape
    o0 = task * _CHANNELS
    # Past the last channel the last one is summed again, and stored first.
    o1, o2, o3 = min(o0 + 1, channels - 1), min(o0 + 2, channels - 1), min(o0 + 3, channels - 1)
    r0, r1, r2, r3 = zero, zero, zero, zero
    if first > 0:
        r0, r1, r2, r3 = db[o0], db[o1], db[o2], db[o3]
    b0, b1, b2, b3 = zero, zero, zero, zero
    t0, t1, t2, t3 = zero, zero, zero, zero
    count = first
    n, p = first // pixels, first % pixels
    while count < stop:
        if count > first and count % TERM_BLOCK == 0:
            t0, r0 = fold(count, b0, t0, r0)
            t1, r1 = fold(count, b1, t1, r1)
            t2, r2 = fold(count, b2, t2, r2)
            t3, r3 = fold(count, b3, t3, r3)
            b0, b1, b2, b3 = zero, zero, zero, zero
        run = min(pixels - p, TERM_BLOCK - count % TERM_BLOCK, stop - count)
        d0, d1, d2, d3 = dy[n, o0], dy[n, o1], dy[n, o2], dy[n, o3]
        for q in range(p, p + run):
            b0 += d0[q]
            b1 += d1[q]
            b2 += d2[q]
            b3 += d3[q]
        count += run
        p += run
        if p == pixels:
            p = 0
            n += 1
    db[o3] = value((count, b3, t3, r3))
    db[o2] = value((count, b2, t2, r2))
    db[o1] = value((count, b1, t1, r1))
    db[o0] = value((count, b0, t0, r0))


@driver
def _sum_channels(task: Any, worker: Any, kernels: Any, first: Any, stop: Any, dy: Any, db: Any, sums: Any) -> None:
    """The same for a vector of channels; `sums` (workers, 3, lanes) are room for their blocks, totals and results."""
    lanes, size = kernels[LANES], kernels[ELEMENT]
    _, channels, pixels = dy.shape
    o = task * lanes
    here = min(lanes, channels - o)
    block, total, result = sums[worker, 0], sums[worker, 1], sums[worker, 2]
    for j in range(lanes):  # one by one: what is assigned whole is copied first
        block[j] = 0
    for j in range(here if first > 0 else 0):
        result[j] = db[o + j]
    count = first
    n, p = first // pixels, first % pixels
    while count < stop:
        if count > first and count % TERM_BLOCK == 0:
            for j in range(here):
                total[j], result[j] = fold(count, block[j], total[j], result[j])
                block[j] = 0
        run = min(pixels - p, TERM_BLOCK - count % TERM_BLOCK, stop - count)
        at = dy.ctypes.data + ((n * channels + o) * pixels + p) * size
        extend_chains(kernels, at, pixels, here, run, block.ctypes.data)
        count += run
        p += run
        if p == pixels:
            p = 0
            n += 1
    for j in range(here):
        db[o + j] = value((count, block[j], total[j], result[j]))


@driver
def _sum_lanes(task: Any, worker: Any, first: Any, stop: Any, dy: Any, db: Any, sums: Any) -> None:
    """The same for a vector of channels that lie side by side: `dy` is (N, pixels, O)."""
    lanes = sums.shape[2]
    _, pixels, channels = dy.shape
    o = task * lanes
    here = min(lanes, channels - o)
    block, total, result = sums[worker, 0], sums[worker, 1], sums[worker, 2]
    for j in range(lanes):
        block[j] = 0
    for j in range(here if first > 0 else 0):
        result[j] = db[o + j]
    count = first
    n, p = first // pixels, first % pixels
    while count < stop:
        if count > first and count % TERM_BLOCK == 0:
            for j in range(here):
                total[j], result[j] = fold(count, block[j], total[j], result[j])
                block[j] = 0
        run = min(pixels - p, TERM_BLOCK - count % TERM_BLOCK, stop - count)
        for q in range(p, p + run):
            for j in range(here):
                block[j] += dy[n, q, o + j]
        count += run
        p += run
        if p == pixels:
            p = 0
            n += 1
    for j in range(here):
        db[o + j] = value((count, block[j], total[j], result[j]))


@driver
def _add_to_rows(task: Any, worker: Any, together: Any, bias: Any, y: Any) -> None:
    """y[r,i] += bias[i], of so many rows a task."""
    for r in range(task * together, min(len(y), (task + 1) * together)):
        row = y[r]
        for i in range(len(row)):
            row[i] = row[i] + bias[i]


def add_to_rows(workers: int, bias: Any, y: Any) -> None:
    """Add `bias` (columns,) to each row of `y` (rows, columns)."""
    rows, columns = y.shape
    together = max(1, _ELEMENTS_TOGETHER // max(columns, 1))
    tasks = -(-rows // together)
    run_in_turn(workers, _adding(y.dtype).part(tasks, y.size * ADDED_NS, together, bias, y))


@once
def _adding(dtype: DType) -> Launch:
    """Of as many tasks as there are rows."""
    return Launch(_add_to_rows, 0, 0)


def sums_shape(workers: int, dtype: DType) -> tuple[int, int, int]:
    """The room that `bias_grad` needs."""
    return workers, 3, isa.lanes(dtype)


def bias_grad(workers: int, dy: Any, db: Any, sums: Any, *, channels_last: bool = False) -> None:
    """Sum `dy` (N, O, pixels), or with `channels_last` (N, pixels, O), into `db` (O,)."""
    channels = len(db)
    terms = dy.size // max(channels, 1)
    if terms == 0:
        db[...] = 0
    for first in range(0, terms, _TERMS_TOGETHER):
        stop = min(terms, first + _TERMS_TOGETHER)
        elements, tasks = (stop - first) * channels, -(-channels // sums.shape[2])
        if channels_last or COMPILED:
            run_in_turn(workers, _summing(dy.dtype, channels_last).part(tasks, elements / 4, first, stop, dy, db, sums))
        else:
            launch(_bias_grad, workers, -(-channels // _CHANNELS), elements, first, stop, dy, db)


@once
def _summing(dtype: DType, channels_last: bool) -> Launch:
    """Of as many tasks as channels and terms need."""
    return Launch(_sum_lanes, 0, 0) if channels_last else Launch(_sum_channels, 0, 0, kernels_of(dtype))
