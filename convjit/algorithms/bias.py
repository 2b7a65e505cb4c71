"""The gradient of the bias: the sum of the output gradient over images and pixels, in blocks."""

from __future__ import annotations

from typing import Any

from ..gemm.summation import TERM_BLOCK, fold, no_terms, value
from ..runtime.compile import driver, prange

# Channels summed side by side: as many chains in flight hide the latency of an addition.
_CHANNELS = 4


@driver
def bias_grad(dy: Any, db: Any) -> None:
    """db[o] = sum over n,p of dy[n,o,p]; `dy` is (N, O, pixels)."""
    zero = dy.dtype.type(0)
    batch, channels, pixels = dy.shape
    for task in prange((channels + _CHANNELS - 1) // _CHANNELS):
        o0 = task * _CHANNELS
        # Past the last channel the last one is summed again.
        o1, o2, o3 = min(o0 + 1, channels - 1), min(o0 + 2, channels - 1), min(o0 + 3, channels - 1)
        count, block, total, result = no_terms(zero)
        b0, b1, b2, b3 = block, block, block, block
        t0, t1, t2, t3 = total, total, total, total
        r0, r1, r2, r3 = result, result, result, result
        for n in range(batch):
            d0, d1, d2, d3 = dy[n, o0], dy[n, o1], dy[n, o2], dy[n, o3]
            p = 0
            while p < pixels:
                if count > 0 and count % TERM_BLOCK == 0:
                    t0, r0 = fold(count, b0, t0, r0)
                    t1, r1 = fold(count, b1, t1, r1)
                    t2, r2 = fold(count, b2, t2, r2)
                    t3, r3 = fold(count, b3, t3, r3)
                    b0, b1, b2, b3 = zero, zero, zero, zero
                run = min(pixels - p, TERM_BLOCK - count % TERM_BLOCK)
                for q in range(p, p + run):
                    b0 += d0[q]
                    b1 += d1[q]
                    b2 += d2[q]
                    b3 += d3[q]
                p += run
                count += run
        db[o3] = value((count, b3, t3, r3))
        db[o2] = value((count, b2, t2, r2))
        db[o1] = value((count, b1, t1, r1))
        db[o0] = value((count, b0, t0, r0))
