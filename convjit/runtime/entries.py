"""Entry points: compiled functions that other compiled code reaches through one table in memory, without the GIL.

Knows how an entry is compiled, kept on disk and called, and the words of plain code for that; does not know what it
computes. An entry takes the address of a record, and that of a 64-bit integer for what it returns. Compiled callers
read its address from the table, whose own address is a symbol registered here: nothing is compiled for that, and a
user's function on disk holds no copy of an entry, so it cannot run a stale one. `TABLE[DIGEST]` is a number of this
package's sources: who was compiled for others must not call. Where memory runs out, what an entry returns is minus the
bytes that there were not.

Source: Numba's developer manual, "Caching"; llvmlite's documentation, "Symbols".
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python as _nrt

from . import cache, emitting, forks
from .emitting import Passes
from .plain import VOCABULARY, Array, word
from .status import read_status, write_status
from .translating import Allocator, Translation

# The one name that outlives a process, in users' cached functions.
_SYMBOL = "convjit_entries"
# Rows of the table: a number of the sources, then what `new_slot` gives away.
DIGEST, _PREPARE = 0, 1
_SLOTS = 256
TABLE = np.zeros(_SLOTS, np.int64)
llvm.add_symbol(_SYMBOL, TABLE.ctypes.data)
TABLE[DIGEST] = int(hashlib.sha256(repr(cache.SOURCES).encode()).hexdigest()[:15], 16)

_given = _PREPARE
_making = forks.Lock()
_INT64 = ir.IntType(64)


def new_slot() -> int:
    """A row of the table that nobody else has."""
    global _given
    _given += 1
    assert _given < _SLOTS
    return _given


def set_row(slot: int, number: int) -> None:
    """Write a row of the table."""
    TABLE[slot] = number


# --- entries --------------------------------------------------------------------------------------------------------

_ENTRIES: dict[int, Entry] = {}


class Entry:
    """An entry point: `body(address)`, or `body(address, zero)` for a dtype, whose zero it is given.

    `needs` are functions that fill other rows of the table: called with it. For one without long loops of its own
    `Passes.FEW` do.
    """

    def __init__(
        self, body: Callable[..., Any], needs: tuple[Callable[[], object], ...] = (), dtype: Any = None,
        passes: Passes = Passes.ALL,
    ) -> None:  # fmt: skip
        self.slot = new_slot()
        self.name = f"{body.__module__}.{body.__qualname__}{'' if dtype is None else f'_{dtype}'}"
        self._body = body
        self._needs = needs
        self._dtype = dtype
        self._passes = passes
        _ENTRIES[self.slot] = self

    @property
    def is_ready(self) -> bool:
        return bool(TABLE[self.slot] != 0)

    def serves(self, item: int) -> bool:
        """Whether calls on arrays of so many bytes an element may need it."""
        return self._dtype is None or self._dtype.itemsize == item

    def __call__(self) -> None:
        """Make it callable: compiled or loaded, its address in the table. Nothing happens the second time."""
        if not self.is_ready:
            for need in self._needs:
                need()
            with global_compiler_lock, _making:  # in this order, as whoever compiles a caller has the first one
                if not self.is_ready:
                    passes = {"entry": self._passes}
                    made = emitting.compiled(self.name, {"entry": (2, self._emit)}, passes=passes)
                    TABLE[self.slot] = made["entry"]

    def _emit(self, builder: Any, arguments: Any) -> None:
        address, status = arguments
        given = (address,) if self._dtype is None else (address, self._dtype.type(0))
        translation = Translation(builder, NUMBAS_MEMORY)
        result = translation.run(self._body, given)
        builder.store(result, builder.inttoptr(status, _INT64.as_pointer()))


def entries() -> list[Entry]:
    """All entries."""
    return list(_ENTRIES.values())


# Workspaces are Numba's memory, as arrays in users' functions are.
_ALLOCATE, _RELEASE = new_slot(), new_slot()
set_row(_ALLOCATE, _nrt.c_helpers["Allocate"])
set_row(_RELEASE, _nrt.c_helpers["Free"])


def _allocate(builder: Any, size: Any) -> Any:
    """Emit: the address of so many bytes, or 0."""
    kind = ir.FunctionType(cgutils.voidptr_t, [_INT64])
    allocate = builder.inttoptr(emit_row(builder, _ALLOCATE), kind.as_pointer())
    return builder.ptrtoint(builder.call(allocate, [size]), _INT64)


def _release(builder: Any, address: Any) -> None:
    """Emit: give it back."""
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t])
    release = builder.inttoptr(emit_row(builder, _RELEASE), kind.as_pointer())
    builder.call(release, [builder.inttoptr(address, cgutils.voidptr_t)])


NUMBAS_MEMORY = Allocator(_allocate, _release)


# --- what compiled code calls ---------------------------------------------------------------------------------------


def emit_row(builder: Any, slot: Any) -> Any:
    """Emit: read a row of the table."""
    table = cpu_target.target_context.get_c_value(builder, _INT64, _SYMBOL)
    return builder.load(builder.gep(table, [ir.Constant(_INT64, slot) if isinstance(slot, int) else slot]))


def emit_entry(builder: Any, entry: Any, record: Any) -> Any:
    """Emit: call an entry by its address, with that of a record; what it returns."""
    status = cgutils.alloca_once(builder, _INT64)
    emitting.emit_call(builder, entry, record, builder.ptrtoint(status, _INT64))
    return builder.load(status)


def emit_preparation(builder: Any, slots: Iterable[int]) -> Any:
    """Emit: whether the entries of these rows are ready; those that are not are made so, by Python.

    That is needed where Numba loads code from its cache and leaves out its `Stamp`: `cfunc` does.
    """
    slots = tuple(slots)
    ready = _emit_are_ready(builder, slots)
    with builder.if_then(builder.not_(ready), likely=False):
        numbers = ir.Constant(ir.ArrayType(_INT64, len(slots)), slots)
        listed = cgutils.global_constant(builder, "convjit_slots", numbers)
        kind = ir.FunctionType(ir.VoidType(), [_INT64, _INT64])
        prepare = builder.inttoptr(emit_row(builder, _PREPARE), kind.as_pointer())
        builder.call(prepare, [builder.ptrtoint(listed, _INT64), ir.Constant(_INT64, len(slots))])
    return _emit_are_ready(builder, slots)


def _emit_are_ready(builder: Any, slots: tuple[int, ...]) -> Any:
    rows = [emit_row(builder, slot) for slot in slots]
    return functools.reduce(builder.and_, [builder.icmp_signed("!=", row, ir.Constant(_INT64, 0)) for row in rows])


@ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
def _prepare(address: int, count: int) -> None:
    """Make entries ready whose slots are listed at an address; takes the GIL. Python prints what goes wrong."""
    for slot in (ctypes.c_int64 * count).from_address(address):
        _ENTRIES[slot]()


set_row(_PREPARE, ctypes.cast(_prepare, ctypes.c_void_p).value or 0)


@word
def row_of_table(to: Any, slot: Any) -> Any:
    """`row_of_table(slot)`: what stands in a row."""
    return emit_row(to.builder, slot)


@word
def call_entry(to: Any, slot: Any, record: Any) -> Any:
    """`call_entry(slot, record)`: call the entry of a row with a record, an array of int64; what it returns."""
    return emit_entry(to.builder, emit_row(to.builder, slot), to.lifted(record.address))


@word
def run_tasks(to: Any, driver: Any, tasks: Any, *arguments: Any) -> None:
    """`run_tasks(driver, tasks, ...)`: what the serial twin of a driver does, for so many tasks from 0 on."""
    flags = VOCABULARY[read_status](to)
    to.count(0, tasks, 1, lambda task, _: to.call(driver.body, (task, 0, *arguments)))
    VOCABULARY[write_status](to, flags)


@word
def next_number(to: Any, address: Any) -> Any:
    """`next_number(address)`: add 1 to a counter that threads share; what it was."""
    counter = to.builder.inttoptr(to.lifted(address), _INT64.as_pointer())
    return to.builder.atomic_rmw("add", counter, ir.Constant(_INT64, 1), "monotonic")


@word
def array_at(to: Any, address: Any, shape: tuple[Any, ...], zero: Any) -> Array:
    """`array_at(address, shape, zero)`: the C-contiguous array of `zero`'s dtype at an address."""
    return Array(address, shape, np.asarray(zero).dtype)


@word
def strided_at(to: Any, address: Any, shape: tuple[Any, ...], strides: tuple[Any, ...], zero: Any) -> Array:
    """`strided_at(address, shape, strides, zero)`: the same with strides, in bytes."""
    return Array(address, shape, np.asarray(zero).dtype, strides)


@word
def clear(to: Any, address: Any, size: Any) -> None:
    """`clear(address, size)`: write zeros over so many bytes."""
    to.clear(address, size)


# --- users' cached functions ----------------------------------------------------------------------------------------


class Stamp:
    """What a user's function needs, kept with it on disk: called when it is compiled or loaded, in Python.

    One of another version of this package cannot be loaded: it is an `OSError`, for which Numba compiles the function
    anew, as if the file were missing.
    """

    def __init__(self, slots: Iterable[int]) -> None:
        self.digest = int(TABLE[DIGEST])
        self.slots = tuple(sorted(set(slots)))

    def __call__(self) -> None:
        for slot in self.slots:
            _ENTRIES[slot]()

    def __reduce__(self) -> tuple[Any, ...]:
        return _stamp, (self.digest, self.slots)


def _stamp(digest: int, slots: tuple[int, ...]) -> Stamp:
    if digest != TABLE[DIGEST]:
        raise OSError("compiled for another version of convjit")
    return Stamp(slots)
