"""The public functions for compiled callers: checks of types, and the few instructions that land in their code.

A call writes its arguments into a record on the stack, asks the function's entry for the shapes of the results,
allocates them, and has them filled. Knows Numba's types and rows; does not know what is computed.
Source: Numba's documentation, "Extending Numba" (`overload`, `intrinsic`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import _empty_nd_impl

from ..geometry import describe
from ..runtime.entries import DIGEST, Entry, Stamp, emit_call, emit_row
from . import record, refusals
from .jobs import DTYPES
from .refusals import Refused
from .rows import COUNTS, FLAG, INT, PADDING, PAIR, REAL, ROWS, Array, Given, Row, Value

_INT64 = ir.IntType(64)
_PADDING_NAMES = ("valid", "same", "same_upper", "same_lower", "full")
_DTYPES = {getattr(types, dtype.name): dtype for dtype in DTYPES}


# --- what types say, and what is wrong with them --------------------------------------------------------------------


def _constant(kind: Any) -> tuple[bool, Any]:
    """Whether a type stands for one value, and that value."""
    if isinstance(kind, types.Omitted):
        return True, kind.value
    if isinstance(kind, types.Literal):
        return True, kind.literal_value
    if isinstance(kind, types.NoneType):
        return True, None
    if isinstance(kind, types.BaseTuple) and len(kind):
        found = [_constant(each) for each in kind]
        return all(known for known, _ in found), tuple(value for _, value in found)
    return not isinstance(kind, types.Type), kind


def _shown(kind: Any) -> str:
    known, value = _constant(kind)
    return describe(value) if known else str(types.unliteral(kind))


def _check_array(function: str, name: str, kind: Any, wanted: Array) -> int:
    """The dimensions of an array, 0 for None, or an error in one sentence."""
    if wanted.optional and _constant(kind) == (True, None):
        return 0
    if isinstance(kind, types.Optional):
        raise TypeError(f"{function}: {name} may be None or not when this runs; compiled code must know which")
    if not isinstance(kind, types.Array):
        raise TypeError(f"{function}: {name} must be an array in compiled code, got {_shown(kind)}")
    needed = "int64 is" if wanted.integers else "float32 and float64 are"
    if kind.dtype != types.int64 if wanted.integers else kind.dtype not in _DTYPES:
        raise TypeError(
            f"{function}: {name} has dtype {kind.dtype}, which compiled code cannot pass; {needed} supported there"
        )
    if kind.ndim not in wanted.dimensions:
        raise ValueError(
            f"{function}: expected {name} of shape {wanted.shapes}, got an array of {kind.ndim} dimensions"
        )
    return int(kind.ndim)


def _check_numbers(function: str, name: str, kind: Any, value: Value) -> None:
    """Refuse what is not the ints, pairs, or pairs of pairs that a value may be."""
    needs = PAIR if value.kind != INT else INT
    if value.kind in (COUNTS, PADDING):
        needs = "a literal name, an int, a pair, or ((top, bottom), (left, right))"
        needs = needs if value.kind == PADDING else needs.removeprefix("a literal name, ")
    entries = _entries(kind)
    if entries is None:
        sound = _is_int(kind)
    else:
        sound = value.kind != INT and len(entries) in (1, 2)
        for entry in entries:
            inner = _entries(entry)
            if inner is None:
                sound = sound and _is_int(entry)
            else:
                nested = len(inner) in (1, 2) and all(map(_is_int, inner))
                sound = sound and nested and value.kind in (COUNTS, PADDING)
    if not sound:
        raise TypeError(f"{function}: {name} must be {needs} in compiled code, got {_shown(kind)}")


def _entries(kind: Any) -> list[Any] | None:
    """The entries of a tuple."""
    if isinstance(kind, types.Omitted):
        kind = kind.value
    if isinstance(kind, types.BaseTuple | tuple):
        return list(kind)
    return None


def _is_int(kind: Any) -> bool:
    known, value = _constant(kind)
    if known:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, types.Integer)


def _check_value(function: str, name: str, kind: Any, value: Value) -> Any:
    """What is chosen, where there is a choice."""
    known, constant = _constant(kind)
    if value.optional and known and constant is None:
        return None
    if value.choices:
        if not known or constant not in value.choices:
            listed = "one of " + ", ".join(map(repr, value.choices)) if len(value.choices) < 8 else "three bools"
            raise (ValueError if known else TypeError)(
                f"{function}: {name} must be {listed}, written as a literal in compiled code, got {_shown(kind)}"
            )
        return constant
    if value.kind == PADDING and isinstance(constant if known else None, str):
        if constant not in _PADDING_NAMES:
            names = ", ".join(map(repr, _PADDING_NAMES))
            raise ValueError(
                f"{function}: padding must be {names}, an int, a pair, or ((top, bottom), (left, right)), "
                f"got {constant!r}"
            )
    elif value.kind == FLAG:
        if not (isinstance(kind, types.Boolean | types.Integer) or (known and isinstance(constant, bool | int))):
            raise TypeError(f"{function}: {name} must be a bool, got {_shown(kind)}")
    elif value.kind == REAL:
        if not (isinstance(kind, types.Float | types.Integer) or (known and isinstance(constant, int | float))):
            raise TypeError(f"{function}: {name} must be a real number in compiled code, got {_shown(kind)}")
    else:
        _check_numbers(function, name, kind, value)
    return None


def _check(row: Row, kinds: dict[str, Any]) -> tuple[Given, Any]:
    """What is known of a call, and its dtype; or a `TypeError` or `ValueError` in one sentence."""
    function = row.function.__name__
    dimensions = {name: _check_array(function, name, kinds[name], array) for name, array in row.arrays.items()}
    found = {name: kinds[name].dtype for name, array in row.arrays.items() if dimensions[name] and not array.integers}
    if len(set(found.values())) != 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
        raise TypeError(f"{function}: arrays must have one dtype in compiled code, got {listed}")
    chosen = {name: _check_value(function, name, kinds[name], value) for name, value in row.values.items()}
    for name, parameter in inspect.signature(row.function).parameters.items():
        if name not in row.arrays and name not in row.values and _constant(kinds[name]) != (True, parameter.default):
            raise TypeError(
                f"{function}: {name} must be {parameter.default!r} in compiled code, got {_shown(kinds[name])}"
            )
    grouped = "groups" in kinds and _constant(kinds["groups"]) != (True, 1)
    return Given(dimensions, chosen, grouped), _DTYPES[next(iter(found.values()))]


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
        known, constant = _constant(kind)
        if known and constant is None:
            form, numbers = record.NONE, [0] * 4
        elif wanted.choices:
            form, numbers = record.NAME, [constant] * 4
        elif known and isinstance(constant, str):
            form, numbers = record.NAME, [_PADDING_NAMES.index(constant)] * 4
        elif wanted.kind == REAL:
            form, numbers = record.NUMBERS, [self._bits(kind, value, dtype)] * 4
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
        nested = any(_entries(each) is not None for each, _ in entries)
        for side in (entries[0], entries[-1]):
            inner = self._entries(*side)
            sides.append(0 if inner is None else len(inner))
            pair = [self._int(*each) for each in (inner or [side])]
            numbers += [pair[0], pair[-1]]
        assert nested or sides == [0, 0]
        return record.form_of(sides[: len(entries)]), numbers

    def _entries(self, kind: Any, value: Any) -> list[tuple[Any, Any]] | None:
        """Types and values of the entries of a tuple."""
        entries = _entries(kind)
        if entries is None:
            return None
        if isinstance(kind, types.BaseTuple):
            return list(zip(entries, cgutils.unpack_tuple(self.builder, value, len(entries)), strict=True))
        return [(entry, None) for entry in entries]

    def _int(self, kind: Any, value: Any) -> Any:
        known, constant = _constant(kind)
        return int(constant) if known else self.context.cast(self.builder, value, kind, types.int64)

    def _bits(self, kind: Any, value: Any, dtype: Any) -> Any:
        """The bits of a real number in the dtype."""
        known, constant = _constant(kind)
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
    writer.write(record.PHASE, record.PLAN)
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
    entry = emit_row(context, builder, ir.Constant(_INT64, row.entry.slot))
    digest = emit_row(context, builder, ir.Constant(_INT64, DIGEST))
    current = builder.icmp_signed("==", digest, ir.Constant(_INT64, call.stamp.digest))
    usable = builder.and_(current, builder.icmp_signed("!=", entry, ir.Constant(_INT64, 0)))
    with builder.if_then(usable):
        _ask(builder, writer, entry, status)
        with builder.if_then(builder.icmp_signed("==", builder.load(status), ir.Constant(_INT64, 0))):
            for i, (kind, result) in enumerate(zip(call.results, results, strict=True)):
                if result is not None:
                    first = record.SHAPES + 4 * i + 4 - kind.ndim
                    shape = [builder.load(writer.place(first + axis)) for axis in range(kind.ndim)]
                    array = _empty_nd_impl(context, builder, kind, shape)
                    builder.store(array._getvalue(), result)
                    writer.write(record.RESULTS + i, builder.ptrtoint(array.data, _INT64))
            writer.write(record.PHASE, record.RUN)
            _ask(builder, writer, entry, status)
    loaded = [context.get_dummy_value() if result is None else builder.load(result) for result in results]
    pair = [builder.load(status), _returned(context, builder, signature.return_type[1], loaded)]
    context.active_code_library._reload_init.add(call.stamp)
    return context.make_tuple(builder, signature.return_type, pair)


def _returned(context: Any, builder: Any, kind: Any, results: list[Any]) -> Any:
    return context.make_tuple(builder, kind, results) if isinstance(kind, types.BaseTuple) else results[0]


def _ask(builder: Any, writer: _Writer, entry: Any, status: Any) -> None:
    result, failed = emit_call(builder, entry, writer.address)
    builder.store(builder.select(failed, ir.Constant(_INT64, refusals.NO_MEMORY), result), status)


class _Call:
    """A call that is compiled: dtype, types of the results, entries that must be ready."""

    def __init__(self, row: Row, kinds: dict[str, Any]) -> None:
        self.names = list(kinds)
        # What is chosen arrives as its place, a literal.
        self.chosen = {name: kinds[name].literal_value for name, value in row.values.items() if value.choices}
        words = {name: row.values[name].choices[place] for name, place in self.chosen.items()}
        given, self.dtype = _check(row, {**kinds, **words})
        real = getattr(types, self.dtype.name)
        self.results = [
            types.Array(types.int64 if i in row.integers else real, n, "C") if n else types.none
            for i, n in enumerate(row.results(given))
        ]
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
        return results
    return {function}
"""


def _choose(row: Row, kinds: dict[str, Any]) -> dict[str, int]:
    """Places of what is chosen among the choices; all arguments are checked."""
    given, _ = _check(row, kinds)
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
        pairs=", ".join(f"{name}={name}" for name in names),
    )  # fmt: skip
    exec(compile(text, f"<convjit.{row.function.__name__} in compiled code>", "exec"), known)
    known["instructions"] = intrinsic(prefer_literal=True)(known["typed"])
    overload(row.function, prefer_literal=True, strict=False)(known[row.function.__name__])
    values = tuple((name, value.choices or _PADDING_NAMES) for name, value in row.values.items())
    refusals.ASKED.append((row.function, tuple(row.arrays), values))


for _row in ROWS:
    _register(_row)
