"""Vectors of one element type, over an LLVM builder.

Source: LLVM Language Reference Manual, "Vector Type" and "Standard C/C++ Library Intrinsics" (`llvm.fma`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

INDEX = ir.IntType(64)


class Vectors:
    """Emits operations on vectors of `lanes` elements of a scalar type."""

    def __init__(self, builder: Any, scalar: Any, lanes: int) -> None:
        self._builder = builder
        self._scalar = scalar
        self._vector = ir.VectorType(scalar, lanes)
        self._lanes = lanes
        self._is_float = isinstance(scalar, ir.FloatType | ir.DoubleType)
        # Arrays are aligned to their elements, not to vectors.
        self._align = 8 if isinstance(scalar, ir.DoubleType) or scalar == INDEX else 4

    @property
    def zero(self) -> Any:
        """A vector of zeros."""
        return ir.Constant(self._vector, None)

    def offset(self, pointer: Any, elements: Any) -> Any:
        """The pointer so many elements on."""
        if isinstance(elements, int):
            elements = ir.Constant(INDEX, elements)
        return self._builder.gep(pointer, [elements])

    def load(self, pointer: Any) -> Any:
        """A vector of neighbouring elements."""
        value = self._builder.load(self._builder.bitcast(pointer, self._vector.as_pointer()))
        value.align = self._align
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Neighbouring elements from a vector."""
        stored = self._builder.store(value, self._builder.bitcast(pointer, self._vector.as_pointer()))
        stored.align = self._align

    def splat(self, pointer: Any) -> Any:
        """A vector with the element at `pointer` in every lane."""
        undefined = ir.Constant(self._vector, ir.Undefined)
        first = self._builder.insert_element(undefined, self._builder.load(pointer), ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self._lanes), [0] * self._lanes)
        return self._builder.shuffle_vector(first, undefined, everywhere)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """`a * b + c`, rounded once; integers wrap."""
        if self._is_float:
            name = f"llvm.fma.v{self._lanes}f{8 * self._align}"
            module = self._builder.module
            function = module.globals.get(name)
            if function is None:
                function = ir.Function(module, ir.FunctionType(self._vector, [self._vector] * 3), name)
            return self._builder.call(function, [a, b, c])
        return self._builder.add(self._builder.mul(a, b), c)

    def add(self, a: Any, b: Any) -> Any:
        """`a + b`"""
        return self._builder.fadd(a, b) if self._is_float else self._builder.add(a, b)

    def either(self, condition: Any, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Emit `then` for a condition that is not 0, else `otherwise`."""
        is_true = self._builder.icmp_signed("!=", condition, ir.Constant(INDEX, 0))
        with self._builder.if_else(is_true) as (yes, no):
            with yes:
                then()
            with no:
                otherwise()

    def loop(self, count: Any, carried: Sequence[Any], body: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """What `carried` has become after `body` was applied `count` times."""
        builder = self._builder
        before = builder.block
        head, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
        zero, one = ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        builder.cbranch(builder.icmp_signed(">", count, zero), head, end)
        builder.position_at_end(head)
        step = builder.phi(INDEX)
        step.add_incoming(zero, before)
        values = [builder.phi(value.type) for value in carried]
        for phi, value in zip(values, carried, strict=True):
            phi.add_incoming(value, before)
        changed = body(values)
        following = builder.add(step, one)
        last = builder.block
        for phi, value in zip([step, *values], [following, *changed], strict=True):
            phi.add_incoming(value, last)
        builder.cbranch(builder.icmp_signed("<", following, count), head, end)
        builder.position_at_end(end)
        results = [builder.phi(value.type) for value in carried]
        for phi, value, result in zip(results, carried, changed, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(result, last)
        return results
