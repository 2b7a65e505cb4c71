"""The one order in which every sum is taken, in its scalar form.

A sum of products is cut into blocks of `TERM_BLOCK` terms, each a chain of fused multiply-adds that starts at zero.
Blocks are added in order into a total, at most `BLOCKS_A_TOTAL` of them; totals are added in order into the result.
The error of a chain grows with its length, that of the whole with the length of the longest level, 128 here, so a sum
of a million terms is about as exact as one of a hundred (N. Higham, "Accuracy and Stability of Numerical Algorithms",
2nd ed., section 4.2, blocked summation). Vector kernels follow the same order a lane, and so give the same bits.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from ..runtime.fma import fma

# Terms a chain. 128 keeps both a chain's error and the number of blocks of a million terms small.
TERM_BLOCK = 128
# Blocks a total: two levels of 128 blocks cover 2 million terms.
BLOCKS_A_TOTAL = 128
TERMS_A_TOTAL = TERM_BLOCK * BLOCKS_A_TOTAL


@kernel
def no_terms(zero: Any) -> Any:
    """The empty sum; `zero` decides the dtype."""
    return 0, zero, zero, zero


@kernel
def fold(count: Any, block: Any, total: Any, result: Any) -> Any:
    """Add the block that ends with term `count` to its total, and a full total to the result."""
    total = block if (count - 1) % TERMS_A_TOTAL < TERM_BLOCK else total + block
    if count % TERMS_A_TOTAL == 0:
        result = total if count == TERMS_A_TOTAL else result + total
    return total, result


@kernel
def add_term(sums: Any, a: Any, b: Any, zero: Any) -> Any:
    """The sums after one more product `a * b`."""
    count, block, total, result = sums
    if count > 0 and count % TERM_BLOCK == 0:
        total, result = fold(count, block, total, result)
        block = zero
    return count + 1, fma(a, b, block), total, result


@kernel
def value(sums: Any) -> Any:
    """What the terms so far add up to."""
    count, block, total, result = sums
    if count <= TERM_BLOCK:
        return block
    total, result = fold(count, block, total, result)
    if count <= TERMS_A_TOTAL:
        return total
    return result if count % TERMS_A_TOTAL == 0 else result + total
