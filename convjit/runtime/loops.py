"""A driver's loop over tasks as plain code, see `plain`.

Numba's compiler takes seconds for a driver and the kernels that it calls, plain code some tenths of one. A loop is an
emitted function of integers, see `emitting`, `tasks(arguments, numbers, first, stop, worker)`: the workers of a team
run those that they take by it, see `turns`, and the calling thread all of them by `alone(block)`, whose words are what
`tasks` is given: ctypes takes 0.4 us for each argument.
`arguments` is the address of the tuple of the driver's arguments: arrays are read from it, so that a call costs little,
while `numbers` is that of those which are none, 64 bits each. Knows which arguments plain code takes; does not know
what is computed.

Source: Python's C-API, "Tuple Objects"; NumPy's, "Python types and C-structures", `PyArrayObject`: what is read of both
is compiled into every extension.
"""

from __future__ import annotations

import ast
import ctypes
import struct
from collections.abc import Callable
from functools import cache as once
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types

from . import emitting, threads
from .options import COMPILED
from .plain import DOUBLE, VOCABULARY, Array
from .status import read_status, write_status
from .syntax import source_of
from .translating import Translation
from .turns import Step, run_steps, work_in_team

# Plain code computes in the first three, and moves bits of the others. (Not uint64: it would compare them as int64.)
_NAMES = ("float32", "float64", "int64", "bool", "uint8", "uint16", "uint32")
DTYPES = {np.dtype(name).num: np.dtype(name) for name in _NAMES}

# Where a tuple's items begin; where an array keeps the address of its elements, and those of its shape and strides.
_ITEMS = tuple.__basicsize__
_DATA = object.__basicsize__
_SHAPE, _STRIDES = _DATA + 16, _DATA + 24
# Where the numbers of a block begin, behind three words.
_NUMBERS_AT = 24


class Kind(NamedTuple):
    """What a loop is compiled for, of one argument: a number of a type, or an array."""

    type: Any  # int, bool, float or np.float32; the dtype of an array
    rank: int = -1  # of an array
    is_contiguous: bool = True

    @property
    def is_array(self) -> bool:
        """Or else a number."""
        return self.rank >= 0

    @property
    def is_real(self) -> bool:
        """Whether it is a number that is passed as a float64."""
        return not self.is_array and self.type in (float, np.float32)

    def __str__(self) -> str:
        if not self.is_array:
            return str(self.type.__name__)
        return f"{self.type.str[1:]}x{self.rank}{'' if self.is_contiguous else 's'}"


# How numbers are passed, by what they are; the first that fits.
_NUMBERS: tuple[tuple[Any, Any], ...] = (
    (bool, bool), ((int, np.integer), int), (np.float32, np.float32), ((float, np.floating), float),
)  # fmt: skip


def key_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What tells the kinds of arguments apart, found at every call."""
    return tuple([(a.dtype, a.ndim, a.flags.c_contiguous) if type(a) is np.ndarray else type(a) for a in arguments])


def kinds_of(body: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Kind, ...] | None:
    """The kinds of a driver's arguments; None where it cannot be plain code, or does not take them all."""
    if not (COMPILED and _reads_arrays() and source_of(body.__module__)):
        return None
    kinds = []
    for argument in arguments:
        if type(argument) is np.ndarray and DTYPES.get(argument.dtype.num) == argument.dtype:  # in this byte order
            kinds.append(Kind(argument.dtype, argument.ndim, argument.flags.c_contiguous))
        elif (number := next((to for of, to in _NUMBERS if isinstance(argument, of)), None)) is not None:
            kinds.append(Kind(number))
        else:
            return None
    return tuple(kinds)


@once
def _reads_arrays() -> bool:
    """Whether tuples and arrays are in memory as they are expected to be, which this interpreter and NumPy decide."""
    array = np.zeros((2, 3), np.int8)
    arguments = (array,)

    def word(address: int) -> int:
        return ctypes.c_int64.from_address(address).value

    if word(id(arguments) + _ITEMS) != id(array) or word(id(array) + _DATA) != array.ctypes.data:
        return False
    shape, strides = word(id(array) + _SHAPE), word(id(array) + _STRIDES)
    # They lie in one piece of memory, as NumPy allocates it: so these are addresses, and may be followed.
    return strides == shape + 16 and [word(shape + 8 * i) for i in range(4)] == [2, 3, 3, 1]


class Loop:
    """A driver's loop for arguments of such kinds; `records` are types of records by place."""

    def __init__(self, body: Callable[..., Any], records: dict[int, Any], kinds: tuple[Kind, ...]) -> None:
        self._body, self._records, self._kinds = body, records, kinds
        self._numbers = [i for i, kind in enumerate(kinds) if not kind.is_array]
        self.name = f"{body.__module__}.{body.__qualname__}.{'_'.join(map(str, kinds))}"
        made = emitting.compiled(self.name, {"tasks": (5, self._emit_tasks), "alone": (1, _emit_alone)})
        self._address = made["tasks"]
        self._alone = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(made["alone"])  # called without the GIL
        self._format = "".join("d" if kinds[i].is_real else "q" for i in self._numbers)
        self._pack = struct.Struct(f"qqq{self._format}").pack

    def run(self, workers: int, first: int, stop: int, arguments: tuple[Any, ...]) -> None:
        """Run tasks `first <= task < stop`, on this thread or on a team of so many."""
        if workers == 1:
            numbers = map(arguments.__getitem__, self._numbers) if self._numbers else ()
            self._alone(self._pack(id(arguments), first, stop, *numbers))
        else:
            run_steps(workers, [self.step(first, stop, arguments)])

    def step(self, first: int, stop: int, arguments: tuple[Any, ...]) -> Step:
        """Tasks `first <= task < stop` as a team takes them in turn with others."""
        numbers = tuple([arguments[i] for i in self._numbers]) if self._numbers else ()
        return self._address, first, stop, self._format, arguments, numbers

    def made(self) -> dict[str, bool]:
        """Its name, and whether it was compiled here, not loaded from disk."""
        return {self.name: self.name in emitting.anew}

    def complete(self) -> None:
        """Compile what teams need beside it, the same for all loops."""
        threads.launch_pool()  # compiling a parallel loop would start it otherwise, and not as it should be started
        work_in_team().compile((types.int64,) * 5)

    # --- what is emitted --------------------------------------------------------------------------------------------

    def _emit_tasks(self, builder: Any, parameters: Any) -> None:
        items, numbers, first, stop, worker = parameters
        to = Translation(builder)
        items = to.computed(ast.Add, items, _ITEMS)
        arguments = []
        for i, kind in enumerate(self._kinds):
            if kind.is_array:
                arguments.append(self._emit_array(to, kind, _words(to, items, i)[0], self._records.get(i)))
            else:
                arguments.append(_emit_number(to, kind, numbers, self._numbers.index(i)))
        flags = VOCABULARY[read_status](to)
        to.count(first, stop, 1, lambda task, _: to.call(self._body, (task, worker, *arguments)))
        VOCABULARY[write_status](to, flags)

    def _emit_array(self, to: Translation, kind: Kind, item: Any, record: Any) -> Any:
        address, shape, strides = (_words(to, item, at // 8)[0] for at in (_DATA, _SHAPE, _STRIDES))
        if record is not None:
            return record(*_words(to, address, 0, len(record._fields)))
        apart = None if kind.is_contiguous else _words(to, strides, 0, kind.rank)
        return Array(address, _words(to, shape, 0, kind.rank), kind.type, apart)


def _emit_alone(builder: Any, parameters: Any) -> None:
    """Run tasks as worker 0."""
    (block,) = parameters
    to = Translation(builder)
    arguments, first, stop = _words(to, block, 0, 3)
    worker = ir.Constant(emitting.INTEGER, 0)
    tasks = builder.module.get_global("tasks")
    builder.call(tasks, (arguments, to.computed(ast.Add, block, _NUMBERS_AT), first, stop, worker))


def _emit_number(to: Translation, kind: Kind, numbers: Any, at: int) -> Any:
    if kind.is_real:
        return to.cast(_words(to, numbers, at, 1, np.float64)[0], DOUBLE if kind.type is float else ir.FloatType())
    (number,) = _words(to, numbers, at)
    return to.bit(number) if kind.type is bool else number


def _words(to: Translation, address: Any, first: int, count: int = 1, dtype: Any = np.int64) -> tuple[Any, ...]:
    """Words of 64 bits at an address, from one of them on."""
    words = Array(address, (first + count,), dtype)
    return tuple(to.load(words, first + i) for i in range(count))
