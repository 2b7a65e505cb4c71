"""The options of every compiled function, and the decorator of those that only compiled functions call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# `error_model="numpy"`: a division inside a kernel never raises, so no exception path stands in the way of
# vectorisation. `nogil`: other Python threads go on while a kernel runs. No `fastmath`: it breaks NaN.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

# False under NUMBA_DISABLE_JIT=1, where kernels are Python functions and intrinsics do not work.
COMPILED = not numba.config.DISABLE_JIT


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only other compiled functions call; it travels in their cache entries."""
    return numba.njit(**OPTIONS)(function)
