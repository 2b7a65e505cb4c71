"""What types say of a call, and what is wrong with them, when a compiled caller is compiled.

Knows Numba's types and rows; errors are Python's own, one sentence each, which Numba passes on.
"""

from __future__ import annotations

import inspect
from typing import Any

from numba import types

from ..parsing import PADDING_NAMES, describe
from .jobs import DTYPES
from .rows import COUNTS, FLAG, IMAGES, INT, PADDING, PAIR, REAL, Array, Given, Row, Value

_DTYPES = {getattr(types, dtype.name): dtype for dtype in DTYPES}


def constant_of(kind: Any) -> tuple[bool, Any]:
    """Whether a type stands for one value, and that value."""
    if isinstance(kind, types.Omitted):
        return True, kind.value
    if isinstance(kind, types.Literal):
        return True, kind.literal_value
    if isinstance(kind, types.NoneType):
        return True, None
    if isinstance(kind, types.BaseTuple) and len(kind):
        found = [constant_of(each) for each in kind]
        return all(known for known, _ in found), tuple(value for _, value in found)
    return not isinstance(kind, types.Type), kind


def _shown(kind: Any) -> str:
    if isinstance(kind, types.List | types.ListType | types.LiteralList):
        return "a list, whose length is not known: write a tuple"
    known, value = constant_of(kind)
    return describe(value) if known else str(types.unliteral(kind))


def _check_array(function: str, name: str, kind: Any, wanted: Array) -> int:
    """The dimensions of an array, 0 for None, or an error in one sentence."""
    if wanted.optional and constant_of(kind) == (True, None):
        return 0
    if not isinstance(kind, types.Array):
        raise TypeError(f"{function}: {name} must be an array in compiled code, got {_shown(kind)}")
    needed = "int64 is" if wanted.integers else "float32 and float64 are"
    if kind.dtype != types.int64 if wanted.integers else kind.dtype not in _DTYPES:
        raise TypeError(
            f"{function}: {name} has dtype {kind.dtype}, which compiled code cannot pass; {needed} supported there"
        )
    if wanted.is_out and not kind.mutable:
        raise ValueError(f"{function}: {name} is read-only")
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
    entries = entries_of(kind)
    if value.kind == IMAGES:
        needs, sound = IMAGES, entries is not None and len(entries) == 4 and all(map(_is_int, entries))
    elif entries is None:
        sound = _is_int(kind)
    else:
        sound = value.kind != INT and len(entries) in (1, 2)
        for entry in entries:
            inner = entries_of(entry)
            if inner is None:
                sound = sound and _is_int(entry)
            else:
                nested = len(inner) in (1, 2) and all(map(_is_int, inner))
                sound = sound and nested and value.kind in (COUNTS, PADDING)
    if not sound:
        raise TypeError(f"{function}: {name} must be {needs} in compiled code, got {_shown(kind)}")


def entries_of(kind: Any) -> list[Any] | None:
    """The entries of a tuple."""
    if isinstance(kind, types.Omitted):
        kind = kind.value
    if isinstance(kind, types.BaseTuple | tuple):
        return list(kind)
    return None


def _is_int(kind: Any) -> bool:
    known, value = constant_of(kind)
    if known:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, types.Integer)


def _check_value(function: str, name: str, kind: Any, value: Value) -> Any:
    """What is chosen, where there is a choice."""
    known, constant = constant_of(kind)
    if value.optional and known and constant is None:
        return None
    if value.choices:
        if known:
            value.check(function, name, constant)
        if not known or constant not in value.choices:
            listed = value.listed or "one of " + ", ".join(map(repr, value.choices))
            # Numba moves a tuple that is written inside of a prange out of it, where it is no literal any more.
            is_tuple = isinstance(kind, types.BaseTuple)
            moved = "; in a prange, a constant of the module or of an enclosing function" if is_tuple else ""
            raise (ValueError if known else TypeError)(
                f"{function}: {name} must be {listed}, written as a literal in compiled code{moved}, got {_shown(kind)}"
            )
        return constant
    if value.kind == PADDING and isinstance(constant if known else None, str):
        if constant not in PADDING_NAMES:
            names = ", ".join(map(repr, PADDING_NAMES))
            raise ValueError(
                f"{function}: {name} must be {names}, an int, a pair, or ((top, bottom), (left, right)), "
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


def checked(row: Row, kinds: dict[str, Any]) -> tuple[Given, Any]:
    """What is known of a call, and its dtype; or a `TypeError` or `ValueError` in one sentence."""
    function = row.function.__name__
    for name, kind in kinds.items():
        if isinstance(kind, types.Optional):
            raise TypeError(f"{function}: {name} may be None or not when this runs; compiled code must know which")
    dimensions = {name: _check_array(function, name, kinds[name], array) for name, array in row.arrays.items()}
    found = {name: kinds[name].dtype for name, array in row.arrays.items() if dimensions[name] and not array.integers}
    if row.arrays and len(set(found.values())) != 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
        raise TypeError(f"{function}: arrays must have one dtype in compiled code, got {listed}")
    chosen = {name: _check_value(function, name, kinds[name], value) for name, value in row.values.items()}
    for name, parameter in inspect.signature(row.function).parameters.items():
        if name not in row.arrays and name not in row.values and constant_of(kinds[name]) != (True, parameter.default):
            raise TypeError(
                f"{function}: {name} must be {parameter.default!r} in compiled code, got {_shown(kinds[name])}"
            )
    grouped = "groups" in kinds and constant_of(kinds["groups"]) != (True, 1)
    return Given(dimensions, chosen, grouped), _DTYPES[next(iter(found.values()), types.float64)]
