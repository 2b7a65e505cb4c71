"""The fused multiply-add: `fma(a, b, c)` is `a * b + c`, rounded once.

Every sum in convjit is a chain of these, so that no compiler, vector width or instruction set can round differently.
Compiled it is LLVM's `llvm.fma` (one instruction on x86 with FMA3 and on Arm, a call of libm elsewhere); with
`NUMBA_DISABLE_JIT=1` it is computed exactly in rationals. On integers it wraps, as NumPy does.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from .plain import word_for

__all__ = ["fma"]


def _fma_in_python(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c` rounded once, for NumPy scalars of one dtype."""
    kind = type(c)
    if issubclass(kind, np.integer):
        bits = 8 * np.dtype(kind).itemsize
        wrapped = (int(a) * int(b) + int(c)) % (1 << bits)
        return kind(wrapped - (1 << bits) if wrapped >> (bits - 1) and issubclass(kind, np.signedinteger) else wrapped)
    x, y, z = float(a), float(b), float(c)
    exact = Fraction(x) * Fraction(y) + Fraction(z) if all(map(math.isfinite, (x, y, z))) else Fraction(0)
    if exact == 0:  # not finite, or an exact zero, whose sign plain arithmetic knows
        return kind(x * y + z)
    try:
        nearest = exact.numerator / exact.denominator  # Python rounds an integer quotient correctly
    except OverflowError:
        return kind(math.inf if exact > 0 else -math.inf)
    if kind is np.float32 and Fraction(nearest) != exact and not np.float64(nearest).view(np.uint64) & np.uint64(1):
        # Rounding to odd first makes the second rounding, to float32, the only one that counts.
        nearest = math.nextafter(nearest, math.inf if exact > Fraction(nearest) else -math.inf)
    with np.errstate(over="ignore", under="ignore"):
        return kind(nearest)


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    if isinstance(signature.return_type, types.Float):
        return builder.fma(*arguments)
    return builder.add(builder.mul(arguments[0], arguments[1]), arguments[2])


def _typed_fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    if a == b == c and isinstance(a, types.Float | types.Integer):
        return a(a, a, a), _emit
    return None


fma: Any = _fma_in_python if config.DISABLE_JIT else intrinsic(_typed_fma)


@word_for(fma)
def _fma_in_plain_code(to: Any, a: Any, b: Any, c: Any) -> Any:
    a, b, c = map(to.lifted, (a, b, c))
    assert a.type == b.type == c.type, (a, b, c)
    return to.builder.add(to.builder.mul(a, b), c) if isinstance(a.type, ir.IntType) else to.builder.fma(a, b, c)
