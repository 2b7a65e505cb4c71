"""The instructions of plain code, see `plain`: arithmetic, memory, and what it calls of Python and NumPy.

Arithmetic is that of Numba's compiled code: integers wrap, `//` and `%` round down, and give 0 for a divisor of 0; real
numbers are rounded after each operation. Knows LLVM; does not know control flow.
Source: llvmlite's documentation, "IR builders".
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from .plain import BIT, DOUBLE, INT, VOCABULARY, ZERO, Array, element_kind, leaves, rebuilt

_COMPUTED: dict[type, tuple[Callable[[Any, Any], Any], str, str]] = {
    ast.Add: (operator.add, "add", "fadd"), ast.Sub: (operator.sub, "sub", "fsub"),
    ast.Mult: (operator.mul, "mul", "fmul"), ast.Div: (operator.truediv, "", "fdiv"),
    ast.BitAnd: (operator.and_, "and_", ""), ast.BitOr: (operator.or_, "or_", ""),
    ast.FloorDiv: (operator.floordiv, "", ""), ast.Mod: (operator.mod, "", ""),
}  # fmt: skip
_COMPARED: dict[type, tuple[Callable[[Any, Any], Any], str]] = {
    ast.Eq: (operator.eq, "=="), ast.NotEq: (operator.ne, "!="), ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="), ast.Gt: (operator.gt, ">"), ast.GtE: (operator.ge, ">="),
}  # fmt: skip


class Instructions:
    """Emits instructions of one function."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def variable(self, value: Any) -> Variable:
        """A place whose value changes."""
        return Variable(self, value)

    # --- numbers ----------------------------------------------------------------------------------------------------

    def lifted(self, value: Any) -> Any:
        """A number as an LLVM value."""
        if isinstance(value, ir.Value):
            return value
        if isinstance(value, bool | np.bool_):
            return ir.Constant(BIT, int(value))
        if isinstance(value, np.float32):
            return ir.Constant(ir.FloatType(), float(value))
        if isinstance(value, float | np.floating):
            return ir.Constant(DOUBLE, float(value))
        assert isinstance(value, int | np.integer), value
        return ir.Constant(INT, int(value))

    def cast(self, value: Any, kind: Any) -> Any:
        """A number as one of another type."""
        if not isinstance(value, ir.Value) and not isinstance(kind, ir.IntType):
            return ir.Constant(kind, float(value))
        value, builder = self.lifted(value), self.builder
        if value.type == kind:
            return value
        if value.type == BIT:
            return self.cast(builder.zext(value, INT), kind)
        if isinstance(kind, ir.IntType):
            assert isinstance(value.type, ir.IntType), (value.type, kind)
            return builder.trunc(value, kind)  # of an element: what is stored fits
        if isinstance(value.type, ir.IntType):
            return builder.sitofp(value, kind)
        return builder.fpext(value, kind) if kind == DOUBLE else builder.fptrunc(value, kind)

    def bit(self, value: Any) -> Any:
        """Whether a number is not 0."""
        if not isinstance(value, ir.Value):
            return bool(value)
        return value if value.type == BIT else self.builder.icmp_signed("!=", value, value.type(0))

    def _together(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Both as numbers of one type."""
        a, b = self.lifted(a), self.lifted(b)
        if a.type == b.type:
            return a, b
        kinds = a.type, b.type
        kind = INT if all(isinstance(k, ir.IntType) for k in kinds) else DOUBLE  # of one of them and a float, too
        return self.cast(a, kind), self.cast(b, kind)

    def computed(self, operation: type, a: Any, b: Any) -> Any:
        """`a` and `b` joined by an operator of Python's grammar."""
        known, of_ints, of_reals = _COMPUTED[operation]
        if not isinstance(a, ir.Value) and not isinstance(b, ir.Value):
            return known(a, b)
        a, b = self._together(a, b)
        if a.type == BIT and operation not in (ast.BitAnd, ast.BitOr):
            a, b = self.cast(a, INT), self.cast(b, INT)
        if operation in (ast.FloorDiv, ast.Mod):
            quotient, rest = self._divided(a, b)
            return quotient if operation is ast.FloorDiv else rest
        return getattr(self.builder, of_ints if isinstance(a.type, ir.IntType) else of_reals)(a, b)

    def _divided(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Quotient and rest, rounded down; both 0 where `b` is."""
        builder, one = self.builder, ir.Constant(INT, 1)
        is_zero = builder.icmp_signed("==", b, ZERO)
        is_minus_one = builder.icmp_signed("==", b, ir.Constant(INT, -1))  # which overflows for the least number
        divisor = builder.select(builder.or_(is_zero, is_minus_one), one, b)
        quotient, rest = builder.sdiv(a, divisor), builder.srem(a, divisor)
        opposite = builder.icmp_signed("<", builder.xor(rest, divisor), ZERO)
        down = builder.and_(opposite, builder.icmp_signed("!=", rest, ZERO))
        quotient = builder.select(down, builder.sub(quotient, one), quotient)
        rest = builder.select(down, builder.add(rest, divisor), rest)
        quotient = builder.select(is_minus_one, builder.neg(a), quotient)
        return builder.select(is_zero, ZERO, quotient), builder.select(is_zero, ZERO, rest)

    def compared(self, operation: type, a: Any, b: Any) -> Any:
        """The bit of a comparison."""
        known, sign = _COMPARED[operation]
        if not isinstance(a, ir.Value) and not isinstance(b, ir.Value):
            return known(a, b)
        a, b = self._together(a, b)
        if isinstance(a.type, ir.IntType):
            compare = self.builder.icmp_unsigned if a.type == BIT else self.builder.icmp_signed
        else:
            compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return compare(sign, a, b)

    def both_bits(self, a: Any, b: Any) -> Any:
        return self.builder.and_(self.lifted(a), self.lifted(b))

    def either_bit(self, a: Any, b: Any) -> Any:
        return self.builder.or_(self.lifted(a), self.lifted(b))

    def selected(self, condition: Any, a: Any, b: Any) -> Any:
        return self.builder.select(condition, *self._together(a, b))

    def extreme(self, operation: type, numbers: tuple[Any, ...]) -> Any:
        """The least or the largest of some numbers."""
        best = numbers[0]
        for number in numbers[1:]:
            better = self.compared(operation, number, best)
            if isinstance(better, ir.Value):
                best = self.selected(better, number, best)
            elif better:
                best = number
        return best

    def root(self, value: Any) -> Any:
        return self._of_real("sqrt", value)

    def absolute(self, value: Any) -> Any:
        return self._of_real("fabs", value)

    def _of_real(self, function: str, value: Any) -> Any:
        kind = ir.FunctionType(value.type, [value.type])
        name = f"llvm.{function}.{'f32' if value.type == ir.FloatType() else 'f64'}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [value])

    def negated(self, value: Any) -> Any:
        return self.computed(ast.Sub, 0, value) if isinstance(value, ir.Value) else -value

    def inverted(self, bit: Any) -> Any:
        return self.builder.not_(bit) if isinstance(bit, ir.Value) else not bit

    # --- memory -----------------------------------------------------------------------------------------------------

    def product(self, numbers: tuple[Any, ...]) -> Any:
        result: Any = 1
        for number in numbers:
            result = self.computed(ast.Mult, result, number)
        return result

    def part(self, array: Array, index: tuple[Any, ...]) -> Array:
        """What an index leaves of an array: numbers, the last of which may be a slice (start, stop).

        Numbers count from the beginning; a slice begins within the array, and ends there at the latest.
        """
        address, shape, strides = array.address, array.shape[len(index) :], array.strides or self._dense(array)
        for entry, extent, stride in zip(index, array.shape, strides, strict=False):
            start = entry
            if isinstance(entry, tuple):
                start = 0 if entry[0] is None else entry[0]
                stop = extent if entry[1] is None else self.extreme(ast.Lt, (entry[1], extent))
                shape = (self.computed(ast.Sub, stop, start), *shape)
            address = self.computed(ast.Add, address, self.computed(ast.Mult, start, stride))
        assert not any(isinstance(entry, tuple) for entry in index[:-1]), index
        return Array(address, shape, array.dtype, array.strides and array.strides[len(array.shape) - len(shape) :])

    def _dense(self, array: Array) -> tuple[Any, ...]:
        strides: list[Any] = [array.itemsize]
        for extent in array.shape[:0:-1]:
            strides.insert(0, self.computed(ast.Mult, strides[0], extent))
        return tuple(strides)

    def place(self, array: Array, index: Any) -> Any:
        """A pointer to an element; `index` is a number or a tuple of them."""
        index, builder = index if isinstance(index, tuple) else (index,), self.builder
        assert len(index) == len(array.shape), (index, array.shape)
        kind = element_kind(array.dtype)
        # One pointer and how far from it, of which LLVM knows in loops whether elements lie side by side.
        first = builder.inttoptr(self.lifted(array.address), kind.as_pointer())
        at: Any = 0
        if array.strides is None:
            for i, extent in zip(index, array.shape, strict=True):
                at = self.computed(ast.Add, self.computed(ast.Mult, at, extent), i)
            return builder.gep(first, [self.lifted(at)], inbounds=True)
        for i, stride in zip(index, array.strides, strict=True):
            at = self.computed(ast.Add, at, self.computed(ast.Mult, i, stride))
        place = builder.gep(builder.bitcast(first, cgutils.voidptr_t), [self.lifted(at)], inbounds=True)
        return builder.bitcast(place, kind.as_pointer())

    def load(self, array: Array, index: Any) -> Any:
        """An element, as a number: integers of any size are 64-bit ones."""
        value = self.builder.load(self.place(array, index), align=array.itemsize)
        if isinstance(value.type, ir.IntType) and value.type != INT:
            return self.builder.zext(value, INT)  # bits that are only moved
        return value

    def store(self, array: Array, index: Any, value: Any) -> None:
        kind = element_kind(array.dtype)
        self.builder.store(self.cast(value, kind), self.place(array, index), align=array.itemsize)

    def clear(self, address: Any, size: Any) -> None:
        """Write zeros over so many bytes."""
        pointer = self.builder.inttoptr(self.lifted(address), cgutils.voidptr_t)
        cgutils.memset(self.builder, pointer, self.lifted(size), 0)

    def on_stack(self, count: int, dtype: Any) -> Any:
        """The address of so many elements, which lie where they are for the whole function."""
        pointer = cgutils.alloca_once(self.builder, element_kind(dtype), size=max(count, 1))
        return self.builder.ptrtoint(pointer, INT)


class Variable:
    """A name whose value changes: a place on the stack for each number of it."""

    def __init__(self, instructions: Instructions, value: Any) -> None:
        self._instructions, self._like = instructions, value
        kinds = [instructions.lifted(leaf).type for leaf in leaves(value)]
        self._places = [cgutils.alloca_once(instructions.builder, kind) for kind in kinds]
        self.set(value)

    def set(self, value: Any) -> None:
        numbers = leaves(value)
        assert len(numbers) == len(self._places), (value, self._like)
        for number, place in zip(numbers, self._places, strict=True):
            self._instructions.builder.store(self._instructions.cast(number, place.type.pointee), place)

    def get(self) -> Any:
        return rebuilt(self._like, map(self._instructions.builder.load, self._places))


def _filled(to: Instructions, shape: Any, value: Any, dtype: Any) -> Array:
    made = _empty(to, shape, dtype)
    assert made.shape == (1,), made.shape
    to.store(made, (0,), value)
    return made


def _empty(to: Any, shape: Any, dtype: Any) -> Array:
    shape = shape if isinstance(shape, tuple) else (shape,)
    return Array(to.allocate(to.product(shape), np.dtype(dtype)), shape, dtype)


def _zeros(to: Any, shape: Any, dtype: Any) -> Array:
    made = _empty(to, shape, dtype)
    to.clear(made.address, to.computed(ast.Mult, to.product(made.shape), made.itemsize))
    return made


def _listed(to: Instructions, numbers: tuple[Any, ...], dtype: Any) -> Array:
    made = Array(to.on_stack(len(numbers), np.dtype(dtype)), (len(numbers),), dtype)
    for i, number in enumerate(numbers):
        to.store(made, i, number)
    return made


def _as(dtype: Any) -> Callable[..., Any]:
    return lambda to, value: to.cast(value, element_kind(np.dtype(dtype)))


VOCABULARY |= {
    np.empty: _empty, np.zeros: _zeros, np.full: _filled, np.array: _listed,
    np.int64: lambda to, value: value, np.uint64: lambda to, value: value,
    np.float32: _as("float32"), np.float64: _as("float64"), float: _as("float64"),
    np.sqrt: lambda to, value: to.root(value), np.abs: lambda to, value: to.absolute(value),
    len: lambda to, array: array.shape[0],
    min: lambda to, *numbers: to.extreme(ast.Lt, numbers), max: lambda to, *numbers: to.extreme(ast.Gt, numbers),
}  # fmt: skip
