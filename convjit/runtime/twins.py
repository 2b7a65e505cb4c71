"""A driver's loop over tasks as Numba compiles it: a serial and a parallel twin.

Knows Numba's options and why each is set. Serves what plain code does not take, see `loops`, and processes in which
nothing is compiled (`NUMBA_DISABLE_JIT=1`). Does not know what is compiled.
Source: Numba's documentation, "Automatic parallelization with @jit" and "Compiling code ahead of time or lazily".
"""

from __future__ import annotations

import textwrap
from functools import cache as once
from types import CellType, FunctionType, ModuleType
from typing import Any

import numba
from numba.core import types

from . import forks, status, team, threads
from .borrowing import borrowed
from .cache import DiskCache
from .options import COMPILED, KERNELS, OPTIONS

# Only explicit `prange` loops may run in parallel. Each of the other transformations turns an array expression into a
# parallel loop whose reduction order, hence its bits, depends on the number of threads.
PRANGE_ONLY: dict[str, bool] = {
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
_TEXTS = {
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

# Making a twin is Python code, and two threads may want the same one first.
_making = forks.Lock()


class Twins:
    """The twins of a body; `records` are the types of the parameters that are records, by name."""

    def __init__(self, body: FunctionType, parameters: list[str], records: dict[str, Any]) -> None:
        self._body, self._parameters, self._records = body, parameters, records
        self._made: dict[str, Any] = {}

    @property
    def serial(self) -> Any:
        """Called as `serial(first_task, stop_task, ...)`."""
        return self._made.get("serial") or self._make("serial", parallel=False)

    @property
    def parallel(self) -> Any:
        """Called as `parallel(board, workers, ...)`, with a board of `team`."""
        return self._made.get("parallel") or self._make("parallel", parallel=PRANGE_ONLY)

    def run(self, workers: int, first: int, stop: int, arguments: tuple[Any, ...]) -> None:
        """Run tasks `first <= task < stop`, on this thread or on a team of so many."""
        if workers == 1:
            self.serial(first, stop, *arguments)
        else:
            threads.run_parallel(workers, self.parallel, team.new_board(workers, first, stop), workers, *arguments)

    def made(self) -> dict[str, bool]:
        """What this process has of them, by name, and whether it was compiled here, not loaded from disk."""
        return {name: anew for twin in self._made.values() for name, anew in made_by_numba(twin).items()}

    def complete(self) -> None:
        """Compile the parallel twin for whatever the serial one was compiled for."""
        threads.launch_pool()  # compiling a parallel loop would start it otherwise, and not as it should be started
        for _, _, *parameters in map(tuple, getattr(self._made.get("serial"), "signatures", ())):
            self.parallel.compile((team.BOARD, types.int64, *parameters))

    def _make(self, twin: str, parallel: Any) -> Any:
        with _making:
            if twin not in self._made:
                self._made[twin] = dispatcher(self._source(twin), parallel)
        return self._made[twin]

    def _source(self, twin: str) -> FunctionType:
        body = self._body
        names = {"body": compiled(body), "take_tasks": compiled(team.take_tasks), "STOP": team.STOP}
        names |= {"GRAIN": team.GRAIN, "borrowed": borrowed, "prange": numba.prange} | status.TWIN_NAMES
        arguments = []
        for name in self._parameters:
            kind = self._records.get(name)
            if kind is None:
                arguments.append(name)
            else:
                entries = ", ".join(f"int({name}[{i}])" for i in range(len(kind._fields)))
                arguments.append(f"{kind.__name__}({entries})")
                names[kind.__name__] = kind
        text = _TEXTS[twin].format(
            parameters=", ".join(self._parameters),
            arguments=", ".join(arguments),
            borrowed="; ".join(f"{name} = borrowed({name})" for name in self._parameters if name not in self._records),
        )
        source = textwrap.dedent(text)
        exec(compile(source, f"<{twin} twin of {body.__module__}.{body.__qualname__}>", "exec"), names)
        function: FunctionType = names["twin"]
        # A twin has a name of its own: compile flags are not part of Numba's cache key.
        function.__name__ = f"{body.__name__}_{twin}"
        function.__qualname__ = f"{body.__qualname__}_{twin}"
        function.__module__ = body.__module__
        return function


@once
def compiled(function: FunctionType) -> Any:
    """A function as Numba compiles it, with the kernels that it names: those are Python functions until now."""
    if not COMPILED:
        return function
    code = function.__code__
    names = {n: _meaning(function.__globals__[n], code.co_names) for n in code.co_names if n in function.__globals__}
    enclosed = tuple(CellType(_meaning(cell.cell_contents, ())) for cell in function.__closure__ or ())
    copy = FunctionType(code, names, function.__name__, function.__defaults__, enclosed)
    copy.__module__ = function.__module__  # of which Numba makes a note in what is kept on disk, and imports it there
    return numba.njit(**OPTIONS)(copy)


def _meaning(thing: Any, attributes: tuple[str, ...]) -> Any:
    """What a name means to Numba; of a module's attributes some may be kernels."""
    if isinstance(thing, ModuleType):
        found = {name: getattr(thing, name) for name in attributes if hasattr(thing, name)}
        if not any(map(_is_kernel, found.values())):
            return thing
        stand_in = ModuleType(thing.__name__)
        stand_in.__dict__.update({name: _meaning(each, ()) for name, each in found.items()})
        return stand_in
    return compiled(thing) if _is_kernel(thing) else thing


def _is_kernel(thing: Any) -> bool:
    return isinstance(thing, FunctionType) and thing in KERNELS


def dispatcher(function: FunctionType, parallel: Any) -> Any:
    """A function that Numba compiles at its first call, and that is kept on disk."""
    made = numba.njit(parallel=parallel, **OPTIONS)(function)
    if made is not function:  # with NUMBA_DISABLE_JIT=1 it is the function itself
        made._cache = DiskCache(function)
    return made


def made_by_numba(made: Any) -> dict[str, bool]:
    """What this process has of a function, by name, and whether it was compiled here."""
    if not COMPILED:
        return {}
    name, misses = f"{made.py_func.__module__}.{made.py_func.__qualname__}", made.stats.cache_misses
    return {f"{name}{signature}": signature in misses for signature in made.signatures}
