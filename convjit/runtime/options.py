"""The options of every function that Numba compiles, and the mark of functions that become a part of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# `error_model="numpy"`: a division inside a kernel never raises, so no exception path stands in the way of
# vectorisation. `nogil`: other Python threads go on while a kernel runs. No `fastmath`: it breaks NaN.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

# False under NUMBA_DISABLE_JIT=1, where kernels are Python functions and intrinsics do not work.
COMPILED = not numba.config.DISABLE_JIT
NOT_COMPILED = "kernels are not compiled (NUMBA_DISABLE_JIT=1)"

KERNELS: set[Callable[..., Any]] = set()


def kernel(function: Callable[..., Any]) -> Any:
    """Mark a function that compiled functions call: a copy of it becomes a part of them. Python may call it, too."""
    KERNELS.add(function)
    return function
