"""The micro-kernel: chains of fused multiply-adds, lanes side by side.

Knows rows, terms and lanes. Written so that LLVM turns the innermost loop into vectors: four terms by four rows are 16
multiply-adds for 4 loads of the panel, 4 loads and 4 stores of the chains. On one AVX-512 core 128 lanes reach
91 GFLOP/s in float32 where two rows by four terms reach 60 and one row by four 41.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from ..runtime.fma import fma

# Lanes of a panel. A float32 panel of 128 terms is 64 KiB and stays in the second-level cache while rows pass by.
LANES = 128
# Lanes are filled up to a multiple of this with zeros, so that no scalar loop is left at the end of a vector loop.
LANE_STEP = 16
# Rows that share each load of the panel.
ROWS = 4


@kernel
def four_chains(a: Any, base: Any, stride: Any, terms: Any, panel: Any, chains: Any, lanes: Any) -> None:
    """chains[r, j] = sum over t of a[base + r*stride + t] * panel[t, j], r < 4, t in order, one fma a term.

    `a` is flat; `panel` is (>= terms, >= lanes), `chains` (4, >= lanes).
    """
    c0, c1, c2, c3 = chains[0], chains[1], chains[2], chains[3]
    for j in range(lanes):
        c0[j] = 0
        c1[j] = 0
        c2[j] = 0
        c3[j] = 0
    r0, r1, r2, r3 = base, base + stride, base + 2 * stride, base + 3 * stride
    t = 0
    while t + 4 <= terms:
        p0, p1, p2, p3 = panel[t], panel[t + 1], panel[t + 2], panel[t + 3]
        a00, a01, a02, a03 = a[r0 + t], a[r0 + t + 1], a[r0 + t + 2], a[r0 + t + 3]
        a10, a11, a12, a13 = a[r1 + t], a[r1 + t + 1], a[r1 + t + 2], a[r1 + t + 3]
        a20, a21, a22, a23 = a[r2 + t], a[r2 + t + 1], a[r2 + t + 2], a[r2 + t + 3]
        a30, a31, a32, a33 = a[r3 + t], a[r3 + t + 1], a[r3 + t + 2], a[r3 + t + 3]
        for j in range(lanes):
            x0, x1, x2, x3 = p0[j], p1[j], p2[j], p3[j]
            s0 = fma(a03, x3, fma(a02, x2, fma(a01, x1, fma(a00, x0, c0[j]))))
            s1 = fma(a13, x3, fma(a12, x2, fma(a11, x1, fma(a10, x0, c1[j]))))
            s2 = fma(a23, x3, fma(a22, x2, fma(a21, x1, fma(a20, x0, c2[j]))))
            s3 = fma(a33, x3, fma(a32, x2, fma(a31, x1, fma(a30, x0, c3[j]))))
            c0[j] = s0
            c1[j] = s1
            c2[j] = s2
            c3[j] = s3
        t += 4
    while t < terms:
        p0 = panel[t]
        a00, a10, a20, a30 = a[r0 + t], a[r1 + t], a[r2 + t], a[r3 + t]
        for j in range(lanes):
            x0 = p0[j]
            s0 = fma(a00, x0, c0[j])
            s1 = fma(a10, x0, c1[j])
            s2 = fma(a20, x0, c2[j])
            s3 = fma(a30, x0, c3[j])
            c0[j] = s0
            c1[j] = s1
            c2[j] = s2
            c3[j] = s3
        t += 1


@kernel
def one_chain(a: Any, base: Any, terms: Any, panel: Any, chain: Any, lanes: Any) -> None:
    """chain[j] = sum over t of a[base + t] * panel[t, j], as `four_chains`, for the rows that are left over."""
    for j in range(lanes):
        chain[j] = 0
    t = 0
    while t + 4 <= terms:
        p0, p1, p2, p3 = panel[t], panel[t + 1], panel[t + 2], panel[t + 3]
        a0, a1, a2, a3 = a[base + t], a[base + t + 1], a[base + t + 2], a[base + t + 3]
        for j in range(lanes):
            chain[j] = fma(a3, p3[j], fma(a2, p2[j], fma(a1, p1[j], fma(a0, p0[j], chain[j]))))
        t += 4
    while t < terms:
        p0 = panel[t]
        a0 = a[base + t]
        for j in range(lanes):
            chain[j] = fma(a0, p0[j], chain[j])
        t += 1
