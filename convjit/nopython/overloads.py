"""The public functions for compiled callers: the few instructions that land in their code.

A call writes its arguments into a record on the stack, asks the function's entry for the shapes of the results,
allocates them, and has them filled. Knows rows and LLVM's words for records; does not know what is computed.
Source: Numba's documentation, "Extending Numba" (`overload`, `intrinsic`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, ir_utils
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array

from .. import functional
from ..functional.front_door import unknown_keyword
from ..parsing import PADDING_NAMES
from ..runtime.entries import DIGEST, Entry, Stamp, emit_entry, emit_preparation, emit_row
from ..runtime.memory import CACHE_LINE
from . import record, refusals
from .checks import checked, constant_of, entries_of
from .refusals import Refused
from .rows import IMAGES, REAL, ROWS, Row, Value

_INT64 = ir.IntType(64)
_LARGEST = (1 << 63) - 1


# --- the instructions -----------------------------------------------------------------------------------------------


class _Writer:
    """Writes a record on the stack."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder
        self._record = cgutils.alloca_once(builder, _INT64, size=record.ENTRIES)

    @property
    def address(self) -> Any:
        return self.builder.ptrtoint(self._record, _INT64)

    def place(self, at: int) -> Any:
        return self.builder.gep(self._record, [ir.Constant(_INT64, at)])

    def write(self, at: int, number: Any) -> None:
        self.builder.store(ir.Constant(_INT64, number) if isinstance(number, int) else number, self.place(at))

    def array(self, i: int, kind: Any, value: Any) -> None:
        """The dimensions, address, shape and strides of an array, or 0 dimensions."""
        at = record.ARRAYS + record.OF_ARRAY * i
        if not isinstance(kind, types.Array):
            self.write(at, 0)
            return
        array = self.context.make_array(kind)(self.context, self.builder, value)
        self.write(at + record.DIMENSIONS, kind.ndim)
        self.write(at + record.ADDRESS, self.builder.ptrtoint(array.data, _INT64))
        for start, numbers, missing in ((record.SHAPE, array.shape, 1), (record.STRIDES, array.strides, 0)):
            filled = [missing] * (4 - kind.ndim) + cgutils.unpack_tuple(self.builder, numbers, kind.ndim)
            for axis, number in enumerate(filled):
                self.write(at + start + axis, number)

    def value(self, i: int, kind: Any, value: Any, wanted: Value, dtype: Any) -> None:
        """A form and four numbers."""
        at = record.VALUES + record.OF_VALUE * i
        known, constant = constant_of(kind)
        if known and constant is None:
            form, numbers = record.NONE, [0] * 4
        elif wanted.choices:
            form, numbers = record.NAME, [constant] * 4
        elif known and isinstance(constant, str):
            form, numbers = record.NAME, [PADDING_NAMES.index(constant)] * 4
        elif wanted.kind == REAL:
            form, numbers = record.NUMBERS, [self._bits(kind, value, dtype)] * 4
        elif wanted.kind == IMAGES:
            form, numbers = record.FOUR, [self._int(*each) for each in self._entries(kind, value) or []]
        else:
            form, numbers = self._numbers(kind, value)
        self.write(at + record.FORM, form)
        for k, number in enumerate(numbers):
            self.write(at + record.FIRST + k, number)

    def _numbers(self, kind: Any, value: Any) -> tuple[int, list[Any]]:
        """The form of ints, pairs and pairs of pairs, and four numbers."""
        entries = self._entries(kind, value)
        if entries is None:
            return record.form_of(None), [self._int(kind, value)] * 4
        sides, numbers = [], []
        nested = any(entries_of(each) is not None for each, _ in entries)
        for side in (entries[0], entries[-1]):
            inner = self._entries(*side)
            sides.append(0 if inner is None else len(inner))
            pair = [self._int(*each) for each in (inner or [side])]
            numbers += [pair[0], pair[-1]]
        assert nested or sides == [0, 0]
        return record.form_of(sides[: len(entries)]), numbers

    def _entries(self, kind: Any, value: Any) -> list[tuple[Any, Any]] | None:
        """Types and values of the entries of a tuple."""
        entries = entries_of(kind)
        if entries is None:
            return None
        if isinstance(kind, types.BaseTuple):
            return list(zip(entries, cgutils.unpack_tuple(self.builder, value, len(entries)), strict=True))
        return [(entry, None) for entry in entries]

    def _int(self, kind: Any, value: Any) -> Any:
        """A signed number of 64 bits; the largest for what is larger, which is refused for that."""
        known, constant = constant_of(kind)
        if known:
            return max(-_LARGEST - 1, min(int(constant), _LARGEST))
        number = self.context.cast(self.builder, value, kind, types.int64)
        if kind != types.uint64:
            return number
        is_larger = self.builder.icmp_signed("<", number, ir.Constant(_INT64, 0))
        return self.builder.select(is_larger, ir.Constant(_INT64, _LARGEST), number)

    def _bits(self, kind: Any, value: Any, dtype: Any) -> Any:
        """The bits of a real number in the dtype."""
        known, constant = constant_of(kind)
        real = getattr(types, dtype.name)
        if known:
            return int(dtype.type(constant).view(f"int{8 * dtype.itemsize}"))
        bits = self.builder.bitcast(self.context.cast(self.builder, value, kind, real), ir.IntType(8 * dtype.itemsize))
        return self.builder.sext(bits, _INT64) if dtype.itemsize < 8 else bits


def _emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any], row: Row, call: _Call) -> Any:
    """Write the record, ask for shapes, allocate, compute: the place of a refusal or 0, and the results."""
    writer = _Writer(context, builder)
    kinds = dict(zip(call.names, signature.args, strict=True))
    values = dict(zip(call.names, arguments, strict=True))
    writer.write(record.FUNCTION, ROWS.index(row))
    writer.write(record.STAGE, record.CHECK)
    writer.write(record.ITEM, call.dtype.itemsize)
    for i, name in enumerate(row.arrays):
        writer.array(i, kinds[name], values[name])
    for i, (name, value) in enumerate(row.values.items()):
        writer.value(i, kinds[name], values[name], value, call.dtype)
    for i in range(record.MOST_RESULTS):
        writer.write(record.RESULTS + i, 0)
    status = cgutils.alloca_once_value(builder, ir.Constant(_INT64, refusals.STALE))
    results = [
        cgutils.alloca_once_value(builder, context.get_constant_null(kind)) if kind is not types.none else None
        for kind in call.results
    ]

    def goes_well() -> Any:
        return builder.if_then(builder.icmp_signed("==", builder.load(status), ir.Constant(_INT64, 0)))

    digest = emit_row(builder, DIGEST)
    with builder.if_then(builder.icmp_signed("==", digest, ir.Constant(_INT64, call.stamp.digest))):
        builder.store(ir.Constant(_INT64, refusals.UNREADY), status)
        with builder.if_then(emit_preparation(builder, call.stamp.slots)):
            entry = emit_row(builder, row.entry.slot)
            _ask(builder, writer, entry, status)
            for i, (kind, result) in enumerate(zip(call.results, results, strict=True)):
                if result is None:
                    continue
                with goes_well():
                    if call.out is not None:
                        context.nrt.incref(builder, kind, values[call.out])
                        builder.store(values[call.out], result)
                    else:
                        first = record.SHAPES + 4 * i + 4 - kind.ndim
                        shape = [builder.load(writer.place(first + axis)) for axis in range(kind.ndim)]
                        _allocate(context, builder, kind, shape, result, status)
                    given = context.make_array(kind)(context, builder, builder.load(result))
                    writer.write(record.RESULTS + i, builder.ptrtoint(given.data, _INT64))
            with goes_well():
                writer.write(record.STAGE, record.RUN)
                _ask(builder, writer, entry, status)
    # The caller raises then, which would leave them behind.
    with builder.if_then(builder.icmp_signed("!=", builder.load(status), ir.Constant(_INT64, 0)), likely=False):
        for kind, result in zip(call.results, results, strict=True):
            if result is not None:
                context.nrt.decref(builder, kind, builder.load(result))
                builder.store(context.get_constant_null(kind), result)
    loaded = [context.get_dummy_value() if result is None else builder.load(result) for result in results]
    pair = [builder.load(status), _returned(context, builder, signature.return_type[1], loaded)]
    context.active_code_library._reload_init.add(call.stamp)
    return context.make_tuple(builder, signature.return_type, pair)


def _allocate(context: Any, builder: Any, kind: Any, shape: list[Any], result: Any, status: Any) -> None:
    """A C-contiguous array into the place of a result, or into that of the status minus the bytes that there were not.

    What Numba's own `empty` does, but that one leaves the function where there is no memory, and its arrays need not
    begin with a cache line. Entries have seen to it that the number of bytes is one.
    """
    item = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides = [ir.Constant(_INT64, item)]
    for extent in reversed(shape):
        strides.insert(0, builder.mul(extent, strides[0]))
    size, *strides = strides
    memory = context.nrt.meminfo_alloc_aligned_unchecked(builder, size, ir.Constant(ir.IntType(32), CACHE_LINE))
    with builder.if_else(cgutils.is_null(builder, memory), likely=False) as (failed, succeeded):
        with failed:
            builder.store(builder.sub(ir.Constant(_INT64, -_LEAST_BYTES), size), status)
        with succeeded:
            array = context.make_array(kind)(context, builder)
            data = context.nrt.meminfo_data(builder, memory)
            populate_array(
                array, data=builder.bitcast(data, array.data.type), shape=shape, strides=strides,
                itemsize=ir.Constant(_INT64, item), meminfo=memory,
            )  # fmt: skip
            builder.store(array._getvalue(), result)


# So that minus the bytes is no other status.
_LEAST_BYTES = 64


def _returned(context: Any, builder: Any, kind: Any, results: list[Any]) -> Any:
    return context.make_tuple(builder, kind, results) if isinstance(kind, types.BaseTuple) else results[0]


def _ask(builder: Any, writer: _Writer, entry: Any, status: Any) -> None:
    builder.store(emit_entry(builder, entry, writer.address), status)


class _Call:
    """A call that is compiled: dtype, types of the results, entries that must be ready."""

    def __init__(self, row: Row, kinds: dict[str, Any]) -> None:
        self.names = list(kinds)
        # What is chosen arrives as its place, a literal.
        self.chosen = {name: kinds[name].literal_value for name, value in row.values.items() if value.choices}
        words = {name: row.values[name].choices[place] for name, place in self.chosen.items()}
        given, self.dtype = checked(row, {**kinds, **words})
        real = types.float64 if row.widens else getattr(types, self.dtype.name)
        self.results = [
            types.Array(types.int64 if i in row.integers else real, n, "C") if n else types.none
            for i, n in enumerate(row.results(given))
        ]
        # The array that is given for the result, by name.
        self.out = next((name for name, array in row.arrays.items() if array.is_out and given.dimensions[name]), None)
        if self.out is not None:
            self.results = [kinds[self.out]]
        self.returned = self.results[0] if len(self.results) == 1 else types.Tuple(self.results)
        entries: list[Entry] = [row.entry, *(family[self.dtype] for family in row.computing(given))]
        self.stamp = Stamp(entry.slot for entry in entries)


# --- overloads ------------------------------------------------------------------------------------------------------

_TEXT = """
def typed(typing_context, {names}):
    call = make_call(row, dict({pairs}))
    call.stamp()
    signature = types.Tuple((types.int64, call.returned))({names})
    return signature, lambda context, builder, signature, arguments: emit(
        context, builder, signature, arguments, row, call)

def {function}({parameters}):
    chosen = choose(row, dict({pairs}))
    {chosen}
    def {function}({parameters}):
        refused, results = instructions({given})
        if refused != 0:
            raise Refused(refused, "{function}")
        return {returned}
    return {function}
"""


def _choose(row: Row, kinds: dict[str, Any]) -> dict[str, int]:
    """Places of what is chosen among the choices; all arguments are checked."""
    given, _ = checked(row, kinds)
    return {name: value.choices.index(given.chosen[name]) for name, value in row.values.items() if value.choices}


def _register(row: Row) -> None:
    """Make a public function callable in compiled code; its parameters are spelled out, as Numba wants them."""
    parameters = inspect.signature(row.function).parameters.values()
    names = [parameter.name for parameter in parameters]
    written = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    known: dict[str, Any] = {
        "__name__": __name__, "row": row, "types": types, "make_call": _Call, "emit": _emit, "choose": _choose,
        "Refused": Refused,
    }  # fmt: skip
    choices = [name for name in names if name in row.values and row.values[name].choices]
    text = _TEXT.format(
        function=row.function.__name__, names=", ".join(names), parameters=", ".join(written),
        chosen="; ".join(f"place_of_{name} = chosen[{name!r}]" for name in choices),
        given=", ".join(f"place_of_{name}" if name in choices else name for name in names),
        pairs=", ".join(f"{name}={name}" for name in names), returned=row.returned,
    )  # fmt: skip
    exec(compile(text, f"<convjit.{row.function.__name__} in compiled code>", "exec"), known)
    _check_arguments(row.function)
    if any(array.is_out for array in row.arrays.values()):
        _tell_that_results_are_not_new(row.function)
    known["instructions"] = intrinsic(prefer_literal=True)(known["typed"])
    overload(row.function, prefer_literal=True, strict=False)(known[row.function.__name__])
    values = tuple((name, value.choices or PADDING_NAMES) for name, value in row.values.items())
    refusals.ASKED.append((row.function, tuple(row.arrays), values))


def _refuse(function: Callable[..., Any], complaint: Callable[[Any, Any], str | None]) -> None:
    """Have calls refused in one sentence before any way to compile them is tried: Numba would fill a page."""

    class Refusing(AbstractTemplate):  # type: ignore[misc]  # numba is untyped
        key = function

        def apply(self, args: Any, kws: Any) -> None:
            # Not `generic`, which Numba would ask again without what may be None, and not beside keywords.
            sentence = complaint(args, kws)
            if sentence is not None:
                raise TypeError(sentence)

    infer_global(function, types.Function(Refusing))


def _check_arguments(function: Callable[..., Any]) -> None:
    """Refuse unknown keywords, and arguments that are missing or too many; those behind `*` may come by position."""
    name, parameters = function.__name__, inspect.signature(function).parameters
    signature = inspect.Signature([p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in parameters.values()])

    def complaint(args: Any, kws: Any) -> str | None:
        unknown = next((keyword for keyword in kws if keyword not in parameters), None)
        if unknown is not None:
            return unknown_keyword(name, list(parameters), unknown)
        try:
            signature.bind(*args, **kws)
        except TypeError as error:
            return f"{name}: {error}"
        return None

    _refuse(function, complaint)


def _tell_that_results_are_not_new(function: Callable[..., Any]) -> None:
    """Have Numba know that a result may be an argument: it leaves out stores that it takes for dead otherwise."""

    def may_be_any(result: Any, arguments: Any, aliases: Any, of_arguments: Any) -> None:
        aliases.setdefault(result, set()).add(result)  # so that nobody counts on there being none
        if isinstance(of_arguments, set):  # Numba has a dict there once it lowers a parallel loop
            of_arguments.add(result)

    for at, letter in enumerate(f"{function.__module__}."):
        if letter == ".":  # a module from which a caller may have it
            ir_utils.alias_func_extensions[function.__name__, function.__module__[:at]] = may_be_any


def _refuse_others() -> None:
    """The public functions that compiled code does not have."""
    known = [row.function.__name__ for row in ROWS]
    for name in functional.__all__:
        function = getattr(functional, name)
        if name not in known and inspect.isfunction(function):
            _refuse(function, partial(_told, f"{name}: compiled code has no {name}; it has {', '.join(known)}"))


def _told(sentence: str, args: Any, kws: Any) -> str:
    return sentence


for _row in ROWS:
    _register(_row)
_refuse_others()
