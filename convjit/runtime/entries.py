"""Entry points: compiled functions that other compiled code reaches through one table in memory, without the GIL.

Knows how an entry is compiled, kept on disk and called; does not know what it computes. An entry takes one 64-bit
integer, the address of a record, and returns another. Compiled callers read its address from the table, whose own
address is a symbol registered here: nothing is compiled for that, and a user's function on disk holds no copy of an
entry, so it cannot run a stale one. `TABLE[DIGEST]` is a number of this package's sources: who was compiled for others
must not call.

Source: Numba's developer manual, "Architecture" (a native function returns a status, and its result by a pointer) and
"Caching"; llvmlite's documentation, "Symbols".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from . import cache, forks
from .cache import DiskCache
from .options import OPTIONS

# The one name that outlives a process, in users' cached functions.
_SYMBOL = "convjit_entries"
# Rows of the table: a number of the sources, then what `new_slot` gives away.
DIGEST = 0
_SLOTS = 256
TABLE = np.zeros(_SLOTS, np.int64)
llvm.add_symbol(_SYMBOL, TABLE.ctypes.data)
TABLE[DIGEST] = int(hashlib.sha256(repr(cache.SOURCES).encode()).hexdigest()[:15], 16)

_given = DIGEST
_making = forks.Lock()
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


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

    `needs` are entries that it calls, and functions that fill other rows of the table: all made ready with it.
    """

    def __init__(self, body: Callable[..., Any], needs: tuple[Callable[[], object], ...], dtype: Any = None) -> None:
        self.slot = new_slot()
        self._body = body
        self._needs = needs
        self._dtype = dtype
        _ENTRIES[self.slot] = self

    def __call__(self) -> None:
        """Make it callable: compiled or loaded, its address in the table. Nothing happens the second time."""
        if TABLE[self.slot] == 0:
            for need in self._needs:
                need()
            with _making:
                if TABLE[self.slot] == 0:
                    TABLE[self.slot] = self._address()

    def _address(self) -> int:
        function = self._function()
        dispatcher = numba.njit(**OPTIONS)(function)
        dispatcher._cache = DiskCache(function)
        dispatcher.compile((types.int64,))
        _alive.append(dispatcher)
        return _address(dispatcher, (types.int64,))

    def _function(self) -> Callable[..., Any]:
        body = self._body
        if self._dtype is None:
            return body
        compiled, zero = numba.njit(**OPTIONS)(body), self._dtype.type(0)

        def entry(address: Any) -> Any:
            return compiled(address, zero)

        # Entries of several dtypes have different names: closures are not part of the cache's key.
        entry.__qualname__ = f"{body.__qualname__}_{self._dtype}"
        entry.__module__ = body.__module__
        return entry


# Compiled code lives as long as its dispatcher.
_alive: list[Any] = []


# --- twins of drivers, by address -----------------------------------------------------------------------------------

_ROWS_OF_TWINS: list[Twins] = []


class Twins:
    """The serial twins of a driver, one a dtype: the machine code that calls from Python run, called by address.

    `kinds` are those of the arguments after the tasks, as Python passes them: `n` an integer, `b` a bool, `r1` or `w1`
    an array of one axis, read or written, `ri1` one of int64, `ru1` one of unsigned integers of the dtype's size.
    """

    def __init__(self, driver: Any, kinds: str) -> None:
        self._driver = driver
        self._kinds = kinds.split()
        self._slots: dict[Any, int] = {}
        _ROWS_OF_TWINS.append(self)

    def slot(self, item: int) -> int:
        """The row of the table of a dtype of so many bytes."""
        return self._slots.setdefault(item, new_slot())

    def parameters(self, item: int) -> list[Any]:
        """Types of all arguments, for a dtype of so many bytes."""
        dtypes = {
            "": types.Float(f"float{8 * item}"),
            "i": types.int64,
            "u": types.Integer.from_bitwidth(8 * item, False),
        }
        found: list[Any] = [types.int64, types.int64]
        for kind in self._kinds:
            if kind in "nb":
                found.append(types.int64 if kind == "n" else types.boolean)
            else:
                found.append(types.Array(dtypes[kind[1:-1]], int(kind[-1]), "C", readonly=kind[0] == "r"))
        return found

    def make(self, item: int) -> None:
        """Make the twin of a dtype of so many bytes callable."""
        slot = self.slot(item)
        if TABLE[slot] == 0:
            with _making:
                twin, signature = self._driver.serial, tuple(self.parameters(item))
                twin.compile(signature)
                TABLE[slot] = _address(twin, signature)


def twins(driver: Any, kinds: str) -> int:
    """The number by which compiled code calls the twins of a driver, see `Twins`; slots are given in order."""
    made = Twins(driver, kinds)
    for item in (4, 8):
        made.slot(item)
    return len(_ROWS_OF_TWINS) - 1


def twin_for(number: int, item: int) -> Callable[[], None]:
    """What makes a twin ready, for `Entry`."""
    return lambda: _ROWS_OF_TWINS[number].make(item)


def _address(dispatcher: Any, signature: tuple[Any, ...]) -> int:
    result = dispatcher.overloads[signature]
    address = int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
    assert address != 0
    return address


@intrinsic(prefer_literal=True)
def call_twin(typing_context: Any, number: Any, zero: Any, arguments: Any) -> Any:
    """Call the serial twin of a driver for `zero`'s dtype: `number` of `twins`, arguments from the first task on."""
    item = zero.bitwidth // 8
    made = _ROWS_OF_TWINS[number.literal_value]
    wanted = made.parameters(item)
    given = [types.unliteral(kind) for kind in arguments]
    assert len(given) == len(wanted), (made._driver.__name__, given)
    for got, needed in zip(given, wanted, strict=True):
        if isinstance(needed, types.Array):
            alike = isinstance(got, types.Array) and (got.dtype, got.ndim, got.layout) == (
                needed.dtype,
                needed.ndim,
                "C",
            )
            assert alike, (made._driver.__name__, got, needed)
        else:
            assert got == needed, (made._driver.__name__, got, needed)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        convention, slot = context.call_conv, ir.Constant(_INT64, made.slot(item))
        numbers = [
            context.cast(builder, value, kind, needed) if isinstance(kind, types.Literal) else value
            for value, kind, needed in zip(
                cgutils.unpack_tuple(builder, values[2], len(wanted)), signature.args[2], wanted, strict=True
            )
        ]
        kind = convention.get_function_type(types.none, wanted)
        packed = convention._get_arg_packer(wanted).as_arguments(builder, numbers)
        nothing = cgutils.alloca_once(builder, convention.get_return_type(types.none).pointee)
        raised = cgutils.alloca_once_value(builder, ir.Constant(cgutils.voidptr_t, None))
        raised = builder.bitcast(raised, kind.args[1])
        twin = builder.inttoptr(emit_row(context, builder, slot), kind.as_pointer())
        builder.call(twin, [nothing, raised, *packed])  # drivers raise nothing
        return context.get_dummy_value()

    return types.void(number, zero, arguments), emit


# --- what compiled code calls ---------------------------------------------------------------------------------------


def emit_row(context: Any, builder: Any, slot: Any) -> Any:
    """Emit: read a row of the table."""
    table = context.get_c_value(builder, _INT64, _SYMBOL)
    return builder.load(builder.gep(table, [slot]))


def emit_call(builder: Any, entry: Any, record: Any) -> tuple[Any, Any]:
    """Emit: call an entry by its address; what it returns, and whether it failed (memory ran out)."""
    result = cgutils.alloca_once_value(builder, ir.Constant(_INT64, 0))
    raised = cgutils.alloca_once_value(builder, ir.Constant(cgutils.voidptr_t, None))
    kind = ir.FunctionType(_INT32, [result.type, raised.type, _INT64])
    status = builder.call(builder.inttoptr(entry, kind.as_pointer()), [result, raised, record])
    return builder.load(result), builder.icmp_signed("!=", status, ir.Constant(_INT32, 0))


@intrinsic
def row_of_table(typing_context: Any, slot: Any) -> Any:
    """`TABLE[slot]`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_row(context, builder, arguments[0])

    return types.int64(types.int64), emit


@intrinsic
def call_entry(typing_context: Any, slot: Any, record: Any) -> Any:
    """Call the entry of a row of the table with a record, an array of int64: 0, or -1 where memory ran out."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[1])(context, builder, arguments[1])
        address = builder.ptrtoint(array.data, _INT64)
        result, failed = emit_call(builder, emit_row(context, builder, arguments[0]), address)
        return builder.select(failed, ir.Constant(_INT64, -1), result)

    return types.int64(types.int64, record), emit


@intrinsic
def strided_at(typing_context: Any, address: Any, shape: Any, strides: Any, zero: Any) -> Any:
    """The array of `zero`'s dtype at an address; `strides` in bytes. It keeps nothing alive."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _view(context, builder, signature.return_type, arguments[0], *(
            cgutils.unpack_tuple(builder, arguments[i], len(shape)) for i in (1, 2)))  # fmt: skip

    counts = types.UniTuple(types.int64, len(shape))
    return types.Array(zero, len(shape), "A")(types.int64, counts, counts, zero), emit


@intrinsic
def array_at(typing_context: Any, address: Any, shape: Any, zero: Any) -> Any:
    """The C-contiguous array of `zero`'s dtype at an address. It keeps nothing alive."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.return_type
        sizes = cgutils.unpack_tuple(builder, arguments[1], kind.ndim)
        strides = [context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))]
        for size in reversed(sizes[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        return _view(context, builder, kind, arguments[0], sizes, strides)

    counts = types.UniTuple(types.int64, len(shape))
    return types.Array(zero, len(shape), "C")(types.int64, counts, zero), emit


def _view(context: Any, builder: Any, kind: Any, address: Any, shape: Any, strides: Any) -> Any:
    array = context.make_array(kind)(context, builder)
    item = context.get_data_type(kind.dtype)
    populate_array(
        array, data=builder.inttoptr(address, item.as_pointer()), shape=shape, strides=strides,
        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(item)), meminfo=None,
    )  # fmt: skip
    return array._getvalue()


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
