"""Sums of runs of numbers, in lanes that are added pairwise, chunk by chunk: the order depends on the length alone.

Lanes are chains of additions that do not wait for each other, and become a vector. Does not know what is summed.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel

# Numbers that are summed in lanes before these are added up: chains of 64 additions.
CHUNK = 512


@kernel
def pairwise(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """The sum of eight lanes."""
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel
def summed(a: Any) -> Any:
    """The sum of a[i]."""
    zero = a.dtype.type(0)
    total = zero
    for first in range(0, len(a), CHUNK):
        u = a[first : first + CHUNK]
        l0, l1, l2, l3, l4, l5, l6, l7 = zero, zero, zero, zero, zero, zero, zero, zero
        whole = len(u) // 8 * 8
        for i in range(0, whole, 8):
            l0 += u[i]
            l1 += u[i + 1]
            l2 += u[i + 2]
            l3 += u[i + 3]
            l4 += u[i + 4]
            l5 += u[i + 5]
            l6 += u[i + 6]
            l7 += u[i + 7]
        for i in range(whole, len(u)):
            l0 += u[i]
        total += pairwise(l0, l1, l2, l3, l4, l5, l6, l7)
    return total


@kernel
def summed_products(a: Any, a_center: Any, b: Any, b_center: Any) -> Any:
    """The sum of (a[i] - a_center) * (b[i] - b_center)."""
    zero = a.dtype.type(0)
    total = zero
    for first in range(0, len(a), CHUNK):
        u, v = a[first : first + CHUNK], b[first : first + CHUNK]
        l0, l1, l2, l3, l4, l5, l6, l7 = zero, zero, zero, zero, zero, zero, zero, zero
        whole = len(u) // 8 * 8
        for i in range(0, whole, 8):
            l0 += (u[i] - a_center) * (v[i] - b_center)
            l1 += (u[i + 1] - a_center) * (v[i + 1] - b_center)
            l2 += (u[i + 2] - a_center) * (v[i + 2] - b_center)
            l3 += (u[i + 3] - a_center) * (v[i + 3] - b_center)
            l4 += (u[i + 4] - a_center) * (v[i + 4] - b_center)
            l5 += (u[i + 5] - a_center) * (v[i + 5] - b_center)
            l6 += (u[i + 6] - a_center) * (v[i + 6] - b_center)
            l7 += (u[i + 7] - a_center) * (v[i + 7] - b_center)
        for i in range(whole, len(u)):
            l0 += (u[i] - a_center) * (v[i] - b_center)
        total += pairwise(l0, l1, l2, l3, l4, l5, l6, l7)
    return total
