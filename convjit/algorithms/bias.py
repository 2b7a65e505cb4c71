"""The gradient of the bias: the sum of the output gradient over images and pixels, in blocks."""

from __future__ import annotations

from typing import Any

from ..gemm.summation import TERM_BLOCK, fold, no_terms, value
from ..runtime.compile import driver, kernel, prange


@kernel
def _sum_blocks(plane: Any, start: Any, zero: Any) -> Any:
    """The sums of four neighbouring blocks: four chains in flight hide the latency of an addition."""
    s0, s1, s2, s3 = zero, zero, zero, zero
    for q in range(start, start + TERM_BLOCK):
        s0 += plane[q]
        s1 += plane[q + TERM_BLOCK]
        s2 += plane[q + 2 * TERM_BLOCK]
        s3 += plane[q + 3 * TERM_BLOCK]
    return s0, s1, s2, s3


@driver
def bias_grad(dy: Any, db: Any) -> None:
    """db[o] = sum over n,p of dy[n,o,p]; `dy` is (N, O, pixels)."""
    zero = dy.dtype.type(0)
    batch, pixels = dy.shape[0], dy.shape[2]
    for o in prange(dy.shape[1]):
        count, block, total, result = no_terms(zero)
        for n in range(batch):
            plane = dy[n, o]
            p = 0
            while p < pixels:
                if count > 0 and count % TERM_BLOCK == 0:
                    total, result = fold(count, block, total, result)
                    block = zero
                    while p + 4 * TERM_BLOCK < pixels:  # whole blocks, with one more value to come
                        for four in _sum_blocks(plane, p, zero):
                            count += TERM_BLOCK
                            total, result = fold(count, four, total, result)
                        p += 4 * TERM_BLOCK
                run = min(pixels - p, TERM_BLOCK - count % TERM_BLOCK)
                for q in range(run):
                    block += plane[p + q]
                p += run
                count += run
        db[o] = value((count, block, total, result))
