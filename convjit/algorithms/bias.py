"""The gradient of the bias: the sum of the output gradient over images and pixels, in blocks."""

from __future__ import annotations

from typing import Any

from ..gemm.summation import TERM_BLOCK, fold, no_terms, value
from ..runtime.compile import driver, prange


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
                run = min(pixels - p, TERM_BLOCK - count % TERM_BLOCK)
                for q in range(run):
                    block += plane[p + q]
                p += run
                count += run
        db[o] = value((count, block, total, result))
