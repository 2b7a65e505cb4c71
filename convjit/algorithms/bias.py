"""The gradient of the bias: the sum of the output gradient over images and pixels, in blocks."""

from __future__ import annotations

from typing import Any

from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL, fold, value
from ..runtime.compile import driver
from ..runtime.launch import launch

# Channels summed side by side: as many chains in flight hide the latency of an addition.
_CHANNELS = 4
# Terms a launch: whole totals, and a few milliseconds for a task.
_TERMS_TOGETHER = 64 * TERMS_A_TOTAL


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


def bias_grad(workers: int, dy: Any, db: Any) -> None:
    """Sum `dy` (N, O, pixels) into `db` (O,)."""
    batch, channels, pixels = dy.shape
    terms = batch * pixels
    if terms == 0:
        db[...] = 0
    for first in range(0, terms, _TERMS_TOGETHER):
        stop = min(terms, first + _TERMS_TOGETHER)
        launch(_bias_grad, workers, -(-channels // _CHANNELS), (stop - first) * channels, first, stop, dy, db)
