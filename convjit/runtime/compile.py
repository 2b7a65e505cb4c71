"""How convjit's functions are compiled: two decorators and nothing else.

Knows Numba's options and why each is set, and the two loops over tasks, which are the only loops that are not kernels'.
Does not know what is compiled.
Source: Numba's documentation, "Automatic parallelization with @jit" and "Compiling code ahead of time or lazily".
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, get_type_hints

import numba
import numpy as np
from numba.core import types

from . import forks, status, team, threads
from .borrowing import borrowed
from .cache import DiskCache
from .options import OPTIONS, kernel

__all__ = ["DRIVERS", "Driver", "driver", "kernel", "passed", "uncompiled"]

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

# The twins, with each body's own parameters filled in. A record (a NamedTuple of integers) is passed as an array, and
# built anew inside: Numba's dispatcher takes 0.1 us for each of a record's entries, and 0.2 us for an array.
_TWINS = {
    "serial": """
        def twin(first_task, stop_task, {parameters}):
            flags = read_status()
            {borrowed}
            for task in range(first_task, stop_task):
                body(task, 0, {arguments})
            write_status(flags)
    """,
    "parallel": """
        def twin(board, workers, {parameters}):
            flags = read_status()
            for worker in prange(workers):
                next_task = take_tasks(board)
                while next_task < board[STOP]:
                    for task in range(next_task, min(next_task + board[GRAIN], board[STOP])):
                        body(task, worker, {arguments})
                    next_task = take_tasks(board)
            write_status(flags)
    """,
}

DRIVERS: list[Driver] = []

# Making a twin is Python code, and two threads may want the same one first.
_making = forks.Lock()


def uncompiled(compiled: Any) -> Any:
    """The Python function behind a kernel, for callers in Python that would otherwise compile it for themselves."""
    return getattr(compiled, "py_func", compiled)


class Driver:
    """A loop over tasks in two twins, serial and parallel, made from what one task does.

    `body(task, worker, ...)` writes what no other task writes, whichever worker runs it and when: so the twins, any
    number of workers and any way of cutting the tasks into pieces give the same bits. Scratch space is per worker;
    `worker` is 0 in the serial twin. Nothing is compiled before the first call, and only the twin that is called.
    """

    def __init__(self, body: FunctionType) -> None:
        self.body = body
        self._kernel = kernel(body)
        self._parameters = list(inspect.signature(body).parameters)[2:]
        self._kinds: dict[str, Any] = get_type_hints(body)
        # Which arguments are records.
        self.records = [
            i for i, name in enumerate(self._parameters) if hasattr(self._kinds.get(name, object), "_fields")
        ]
        self._twins: dict[str, Any] = {}
        self.used = False  # set by every launch; a warm-up clears it, to see which drivers a function calls
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__
        self.__module__ = body.__module__

    @property
    def serial(self) -> Any:
        """Called as `serial(first_task, stop_task, ...)`."""
        return self._twins.get("serial") or self._make("serial", parallel=False)

    @property
    def parallel(self) -> Any:
        """Called as `parallel(board, workers, ...)`, with a board of `team`."""
        return self._twins.get("parallel") or self._make("parallel", parallel=_PRANGE_ONLY)

    def complete(self) -> int:
        """Compile the parallel twin for whatever the serial one was compiled for; the number of signatures."""
        threads.launch_pool()  # compiling a parallel loop would start it otherwise, and not as it should be started
        signatures = [tuple(signature) for signature in getattr(self.serial, "signatures", ())]
        for _, _, *parameters in signatures:
            self.parallel.compile((team.BOARD, types.int64, *parameters))
        return len(signatures)

    def _make(self, twin: str, parallel: Any) -> Any:
        with _making:
            if twin not in self._twins:
                function = self._source(twin)
                dispatcher = numba.njit(parallel=parallel, **OPTIONS)(function)
                if dispatcher is not function:  # with NUMBA_DISABLE_JIT=1 it is the function itself
                    dispatcher._cache = DiskCache(function)
                self._twins[twin] = dispatcher
        return self._twins[twin]

    def _source(self, twin: str) -> FunctionType:
        body = self.body
        names = {"body": self._kernel, "borrowed": borrowed, "prange": numba.prange}
        names |= team.VOCABULARY | status.VOCABULARY
        arguments = []
        for name in self._parameters:
            kind = self._kinds.get(name, object)
            if hasattr(kind, "_fields"):
                entries = ", ".join(f"int({name}[{i}])" for i in range(len(kind._fields)))
                arguments.append(f"{kind.__name__}({entries})")
                names[kind.__name__] = kind
            else:
                arguments.append(name)
        arrays = [name for name in self._parameters if not hasattr(self._kinds.get(name, object), "_fields")]
        text = _TWINS[twin].format(
            parameters=", ".join(self._parameters),
            arguments=", ".join(arguments),
            borrowed="; ".join(f"{name} = borrowed({name})" for name in arrays),
        )
        source = textwrap.dedent(text)
        exec(compile(source, f"<{twin} twin of {body.__module__}.{body.__qualname__}>", "exec"), names)
        function: FunctionType = names["twin"]
        # A twin has a name of its own: compile flags are not part of Numba's cache key.
        function.__name__ = f"{body.__name__}_{twin}"
        function.__qualname__ = f"{body.__qualname__}_{twin}"
        function.__module__ = body.__module__
        return function


def passed(argument: Any) -> Any:
    """An argument as twins take it: a record, or any tuple of integers, as a read-only array of them."""
    return _numbers(argument) if isinstance(argument, tuple) else argument


@lru_cache(maxsize=1024)
def _numbers(record: tuple[int, ...]) -> Any:
    numbers = np.array(record, np.int64)
    numbers.flags.writeable = False
    return numbers


def driver(body: Callable[..., None]) -> Driver:
    """Make a driver of what one task does."""
    assert isinstance(body, FunctionType)
    DRIVERS.append(Driver(body))
    return DRIVERS[-1]
