"""How convjit's functions are compiled: two decorators and nothing else.

A driver is made of what one task does; its kernels are functions like any other. Its loop over tasks is compiled at the
first call for a kind of arguments, as plain code where that takes them (`loops`), by Numba's compiler where it does not
(`twins`), to the same bits. Does not know what is compiled.
"""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, get_type_hints

import numpy as np
from numba.core.compiler_lock import global_compiler_lock

from . import ending, forks, loops
from .loops import Loop
from .options import kernel
from .turns import work_in_team
from .twins import Twins, made_by_numba

__all__ = ["DRIVERS", "Driver", "driver", "kernel", "passed"]

DRIVERS: list[Driver] = []

# Two threads may want the same loop first.
_making = forks.Lock()
atexit.register(ending.wait_for_compiles)


class Driver:
    """A loop over tasks, on the calling thread or on a team of them, made from what one task does.

    `body(task, worker, ...)` writes what no other task writes, whichever worker runs it and when: so any number of
    workers and any way of cutting the tasks into pieces give the same bits. Scratch space is per worker; `worker` is 0
    on the calling thread alone. Nothing is compiled before the first call.
    """

    def __init__(self, body: FunctionType) -> None:
        self.body = body
        parameters = list(inspect.signature(body).parameters)[2:]
        kinds: dict[str, Any] = get_type_hints(body)
        records = {name: kinds[name] for name in parameters if hasattr(kinds.get(name), "_fields")}
        self.records = {parameters.index(name): kind for name, kind in records.items()}  # by place among the arguments
        self.twins = Twins(body, parameters, records)
        # By what `loops.key_of` says of arguments, and by `loops.kinds_of` them, None for the twins.
        self._ways: dict[Any, Loop | Twins] = {}
        self.used = False  # set by every launch; a warm-up clears it, to see which drivers a function calls
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__
        self.__module__ = body.__module__

    def way(self, arguments: tuple[Any, ...]) -> Loop | Twins:
        """What runs tasks with such arguments, `run(workers, first, stop, arguments)`; records are as of `passed`."""
        key = loops.key_of(arguments)
        try:
            return self._ways[key]
        except KeyError:
            return self._new_way(key, arguments)

    def _new_way(self, key: Any, arguments: tuple[Any, ...]) -> Loop | Twins:
        kinds = loops.kinds_of(self.body, arguments)
        with global_compiler_lock, _making:  # in this order, as whoever compiles a caller has the first one
            if kinds not in self._ways:
                self._ways[kinds] = self.twins if kinds is None else Loop(self.body, self.records, kinds)
            self._ways[key] = self._ways[kinds]
        return self._ways[key]

    def complete(self) -> None:
        """Compile for teams whatever was compiled for one thread."""
        for way in set(self._ways.values()):
            way.complete()

    def made(self) -> dict[str, bool]:
        """What this process has of it, by name, and whether it was compiled here, not loaded from disk."""
        return {name: anew for way in (*self._ways.values(), self.twins) for name, anew in way.made().items()}


def made() -> dict[str, bool]:
    """What this process has compiled and loaded of all drivers, by name: whether it was compiled here."""
    found = made_by_numba(work_in_team())
    for each in DRIVERS:
        found |= each.made()
    return found


def passed(argument: Any) -> Any:
    """An argument as loops take it: a record, or any tuple of integers, as a read-only array of them."""
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
