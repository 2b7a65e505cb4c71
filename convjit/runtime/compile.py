"""How convjit's functions are compiled: two decorators and nothing else.

Knows Numba's options and why each is set. Does not know what is compiled.
Source: Numba's documentation, "Automatic parallelization with @jit" and "Compiling code ahead of time or lazily".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import FunctionType
from typing import Any

import numba
from numba import prange

from .cache import DiskCache

__all__ = ["Driver", "driver", "kernel", "prange", "uncompiled"]

# `error_model="numpy"`: a division inside a kernel never raises, so no exception path stands in the way of
# vectorisation. `nogil`: other Python threads go on while a kernel runs. No `fastmath`: it breaks NaN.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

# Only explicit `prange` loops may run in parallel. Each of the other transformations turns an array expression into a
# parallel loop whose reduction order, hence its bits, depends on the number of threads.
_PRANGE_ONLY: dict[str, bool] = {
    "prange": True,
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only other compiled functions call; it travels in their cache entries."""
    return numba.njit(**_OPTIONS)(function)


def uncompiled(compiled: Any) -> Any:
    """The Python function behind a kernel, for callers in Python that would otherwise compile it for themselves."""
    return getattr(compiled, "py_func", compiled)


class Driver:
    """A compiled entry point in two twins, serial and parallel, made from one source.

    The twins give the same bits: a driver has one `prange` a phase, over disjoint outputs. Nothing is compiled before
    the first call, and only the twin that is called.

    Numba rebuilds a record (a NamedTuple) inside a parallel loop, and can do so only for arguments of the driver: other
    records are made inside the loop.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __call__(self, workers: int, *arguments: Any) -> None:
        """Run the parallel twin if there is more than one worker, else the serial one."""
        (self.parallel if workers > 1 else self.serial)(*arguments)

    @cached_property
    def serial(self) -> Any:
        return self._compile("serial", parallel=False)

    @cached_property
    def parallel(self) -> Any:
        return self._compile("parallel", parallel=_PRANGE_ONLY)

    def _compile(self, twin: str, parallel: Any) -> Any:
        # A twin has a name of its own: compile flags are not part of Numba's cache key.
        source = self._function
        function = FunctionType(source.__code__, source.__globals__, f"{source.__name__}_{twin}", source.__defaults__)
        function.__qualname__ = f"{source.__qualname__}_{twin}"
        function.__module__ = source.__module__
        dispatcher = numba.njit(parallel=parallel, **_OPTIONS)(function)
        if dispatcher is not function:  # with NUMBA_DISABLE_JIT=1 it is the function itself
            dispatcher._cache = DiskCache(function)
        return dispatcher


def driver(function: Callable[..., None]) -> Driver:
    """Make the serial and the parallel twin of a function that Python calls."""
    assert isinstance(function, FunctionType)
    return Driver(function)
