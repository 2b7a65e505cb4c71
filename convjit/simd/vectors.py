"""The vocabulary in which micro-kernels are emitted: vectors of one element type, over an LLVM builder.

Knows LLVM's instructions; does not know how wide vectors are or what is computed. Addresses and counts are 64-bit
integers, offsets are in elements.
Source: LLVM Language Reference Manual, "Vector Type", "llvm.fma" and "Masked Vector Load and Store Intrinsics".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir

from ..typing import DType

INDEX = ir.IntType(64)
_INT32 = ir.IntType(32)
# Vectors of so many bytes are AVX-512's, whose masks have registers of their own.
_MASKED_BYTES = 64
_SCALARS = {
    np.dtype("float32"): (ir.FloatType(), "f32"),
    np.dtype("float64"): (ir.DoubleType(), "f64"),
    np.dtype("int64"): (INDEX, "i64"),
}


class Vectors:
    """Emits operations on vectors of `lanes` elements of a dtype: float32, float64 or int64."""

    def __init__(self, builder: Any, dtype: DType, lanes: int) -> None:
        self.builder = builder
        self._scalar, suffix = _SCALARS[dtype]
        self._vector = ir.VectorType(self._scalar, lanes)
        self._mask = ir.VectorType(ir.IntType(1), lanes)
        self._counter = ir.VectorType(INDEX if dtype.itemsize == 8 else _INT32, lanes)
        self._suffix = f"v{lanes}{suffix}"
        self._is_float = dtype.kind == "f"
        self._rounded: Callable[[float], Any] = lambda value: dtype.type(value).item()
        # Arrays are aligned to their elements, not to vectors.
        self._align = dtype.itemsize
        self.lanes = lanes

    @property
    def zero(self) -> Any:
        """A vector of zeros."""
        return ir.Constant(self._vector, None)

    def constant(self, value: float) -> Any:
        """A vector with one number in every lane, rounded to the dtype."""
        return ir.Constant(self._vector, [self._rounded(value)] * self.lanes)

    # --- addresses ----------------------------------------------------------------------------------------------

    def pointer(self, address: Any) -> Any:
        """The elements at an address."""
        return self.builder.inttoptr(address, self._scalar.as_pointer())

    def integers(self, address: Any) -> Any:
        """The 64-bit integers at an address."""
        return self.builder.inttoptr(address, INDEX.as_pointer())

    def offset(self, pointer: Any, elements: Any) -> Any:
        """The pointer so many elements on."""
        return self.builder.gep(pointer, [index(elements)])

    def opaque(self, pointer: Any) -> Any:
        """The same pointer, of which LLVM knows nothing: an empty piece of assembly."""
        kind = ir.FunctionType(pointer.type, [pointer.type])
        return self.builder.asm(kind, "", "=r,0", [pointer], side_effect=False)

    def element(self, pointer: Any) -> Any:
        """One element, or one integer."""
        return self.builder.load(pointer)

    # --- vectors ------------------------------------------------------------------------------------------------

    def load(self, pointer: Any) -> Any:
        """A vector of neighbouring elements."""
        value = self.builder.load(self.builder.bitcast(pointer, self._vector.as_pointer()))
        value.align = self._align
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Neighbouring elements from a vector."""
        stored = self.builder.store(value, self.builder.bitcast(pointer, self._vector.as_pointer()))
        stored.align = self._align

    def prefetch(self, pointer: Any) -> None:
        """Ask for the cache line of an element that will be read and written soon."""
        self._prefetch(pointer, is_written=1, locality=3)

    def prefetch_ahead(self, pointer: Any) -> None:
        """Ask for the cache line of an element that will be read later, into the second-level cache."""
        self._prefetch(pointer, is_written=0, locality=2)

    def _prefetch(self, pointer: Any, is_written: int, locality: int) -> None:
        void = ir.VoidType()
        place = self.builder.bitcast(pointer, self._vector.as_pointer())
        prefetch = self._function("llvm.prefetch.p0", void, [place.type, _INT32, _INT32, _INT32])
        self.builder.call(prefetch, [place, *(ir.Constant(_INT32, n) for n in (is_written, locality, 1))])

    def first(self, count: Any) -> Any:
        """A mask of the lanes below `count`, which may be negative or beyond the last lane."""
        return self.builder.icmp_unsigned("<", self._lane, self._clamped(count))

    def between(self, start: Any, stop: Any) -> Any:
        """A mask of the lanes `start <= lane < stop`, which may be negative or beyond the last lane."""
        from_start = self.builder.icmp_unsigned(">=", self._lane, self._clamped(start))
        return self.builder.and_(from_start, self.first(stop))

    def only_if(self, condition: Any, mask: Any) -> Any:
        """A mask where a condition (one bit) holds, else no lanes."""
        return self.builder.select(condition, mask, ir.Constant(self._mask, None))

    @property
    def all(self) -> Any:
        """A mask of all lanes."""
        return ir.Constant(self._mask, [True] * self.lanes)

    @property
    def _lane(self) -> Any:
        return ir.Constant(self._counter, list(range(self.lanes)))

    def _clamped(self, count: Any) -> Any:
        """A number of lanes, none or all of them where it is beyond, in every lane."""
        builder = self.builder
        count = self.least(count, index(self.lanes))
        count = builder.select(builder.icmp_signed(">", count, index(0)), count, index(0))
        if self._counter.element != INDEX:
            count = builder.trunc(count, self._counter.element)
        return self._everywhere(count, self._counter)

    def load_masked(self, pointer: Any, mask: Any) -> Any:
        """As `load`; lanes outside the mask are zero, and not read."""
        place = self.builder.bitcast(pointer, self._vector.as_pointer())
        load = self._function(
            f"llvm.masked.load.{self._suffix}.p0", self._vector, [place.type, _INT32, self._mask, self._vector]
        )
        return self.builder.call(load, [place, ir.Constant(_INT32, self._align), mask, self.zero])

    def store_masked(self, value: Any, pointer: Any, mask: Any) -> None:
        """As `store`; lanes outside the mask are not written."""
        place = self.builder.bitcast(pointer, self._vector.as_pointer())
        store = self._function(
            f"llvm.masked.store.{self._suffix}.p0", ir.VoidType(), [self._vector, place.type, _INT32, self._mask]
        )
        self.builder.call(store, [value, place, ir.Constant(_INT32, self._align), mask])

    def store_first(self, values: Sequence[Any], pointers: Sequence[Any], count: Any) -> None:
        """Store the lanes below `count` of each vector; it may be negative or beyond the last lane.

        Where masks have registers of their own, by one. Else a masked store takes 12 cycles on some processors (AMD Zen
        3), and this stores halves, quarters and so on, which are chosen once for all vectors.
        """
        if self.lanes * self._align == _MASKED_BYTES:
            for value, pointer in zip(values, pointers, strict=True):
                self.store_masked(value, pointer, self.first(count))
            return
        number = len(values)

        def whole() -> list[Any]:
            for value, pointer in zip(values, pointers, strict=True):
                self.store(value, pointer)
            return []

        def in_parts() -> list[Any]:
            left, width, found = self.greatest(count, index(0)), self.lanes, [*values, *pointers]
            while width > 1:
                width //= 2
                is_there = self.builder.and_(left, index(width))
                found = self.either(
                    is_there, partial(stored, found, width), partial(list, found)
                )  # fmt: skip
            return []

        def stored(found: list[Any], width: int) -> list[Any]:
            """Store the first lanes; the others in their places, and the pointers behind."""
            others = [*range(width, 2 * width), *range(width, self.lanes)][: self.lanes]
            moved = []
            for value, pointer in zip(found[:number], found[number:], strict=True):
                self._store_lanes(value, pointer, width)
                moved.append(self.shuffle(value, value, others))
            return [*moved, *(self.offset(pointer, width) for pointer in found[number:])]

        self.either(self.flag(">=", count, index(self.lanes)), whole, in_parts)

    def store_corner(self, values: Sequence[Any], pointers: Sequence[Any], count: Any, number: Any) -> None:
        """Store the lanes below `count` of the first `number` vectors; either may be beyond the last."""

        def one_by_one() -> list[Any]:
            for i, (value, pointer) in enumerate(zip(values, pointers, strict=True)):
                is_there = self.builder.icmp_signed(">", number, index(i))
                self.store_masked(value, pointer, self.only_if(is_there, self.first(count)))
            return []

        def at_once() -> list[Any]:
            self.store_first(values, pointers, count)
            return []

        self.either(self.flag("<", number, index(len(values))), one_by_one, at_once)

    def _store_lanes(self, value: Any, pointer: Any, width: int) -> None:
        """Store so many of the first lanes."""
        builder = self.builder
        if width == 1:
            builder.store(builder.extract_element(value, ir.Constant(_INT32, 0)), pointer)
            return
        chosen = ir.Constant(ir.VectorType(_INT32, width), list(range(width)))
        part = builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), chosen)
        store = builder.store(part, builder.bitcast(pointer, part.type.as_pointer()))
        store.align = self._align

    def load_spaced(self, pointer: Any, step: Any, mask: Any) -> Any:
        """Elements `step` apart; lanes outside the mask are zero, and not read."""
        places = self._spaced(pointer, step)
        gather = self._function(
            f"llvm.masked.gather.{self._suffix}.v{self.lanes}p0", self._vector,
            [places.type, _INT32, self._mask, self._vector],
        )  # fmt: skip
        return self.builder.call(gather, [places, ir.Constant(_INT32, self._align), mask, self.zero])

    def store_spaced(self, value: Any, pointer: Any, step: Any, mask: Any) -> None:
        """Elements `step` apart from a vector; lanes outside the mask are not written."""
        places = self._spaced(pointer, step)
        scatter = self._function(
            f"llvm.masked.scatter.{self._suffix}.v{self.lanes}p0", ir.VoidType(),
            [self._vector, places.type, _INT32, self._mask],
        )  # fmt: skip
        self.builder.call(scatter, [value, places, ir.Constant(_INT32, self._align), mask])

    def every_second(self, start: Any, stop: Any) -> tuple[Any, Any]:
        """Masks of two vectors beside one another: elements 0, 2, 4 and so on, of which those counted from `start` to
        `stop`."""
        builder, lanes = self.builder, index(self.lanes)
        even = ir.Constant(self._mask, [lane % 2 == 0 for lane in range(self.lanes)])
        first, last = builder.mul(start, index(2)), builder.mul(stop, index(2))
        here, behind = self.between(first, last), self.between(builder.sub(first, lanes), builder.sub(last, lanes))
        return builder.and_(here, even), builder.and_(behind, even)

    def load_every(self, pointer: Any, step: int) -> Any:
        """Elements `step` apart, which is 1 or 2, none behind the last one."""
        near = self.load(pointer)
        if step == 1 or self.lanes == 1:
            return near
        far = self.load(self.offset(pointer, self.lanes - 1))  # the last of which is the last one that counts
        half = self.lanes // 2
        return self.shuffle(
            near, far, [2 * i if i < half else self.lanes + 2 * (i - half) + 1 for i in range(self.lanes)]
        )

    def load_second(self, pointer: Any, masks: tuple[Any, Any]) -> Any:
        """As `load_spaced` with a step of 2, in far less time; the masks are of `every_second`."""
        here, behind = (self.load_masked(self.offset(pointer, i * self.lanes), masks[i]) for i in (0, 1))
        return self.shuffle(here, behind, range(0, 2 * self.lanes, 2))

    def store_second(self, value: Any, pointer: Any, masks: tuple[Any, Any]) -> None:
        """As `store_spaced` with a step of 2, in far less time; the masks are of `every_second`."""
        for i, (half, mask) in enumerate(zip(self.zipped(value, value), masks, strict=True)):
            self.store_masked(half, self.offset(pointer, i * self.lanes), mask)

    def _spaced(self, pointer: Any, step: Any) -> Any:
        """The addresses of elements `step` apart, as many as there are lanes."""
        builder, counts = self.builder, ir.VectorType(INDEX, self.lanes)
        apart = self._everywhere(builder.mul(index(step), index(self._align)), counts)
        behind = builder.mul(apart, ir.Constant(counts, list(range(self.lanes))))
        first = self._everywhere(builder.ptrtoint(pointer, INDEX), counts)
        return builder.inttoptr(builder.add(first, behind), ir.VectorType(pointer.type, self.lanes))

    def splat(self, pointer: Any) -> Any:
        """A vector with the element at `pointer` in every lane."""
        return self._everywhere(self.builder.load(pointer), self._vector)

    def number(self, integer: Any) -> Any:
        """A 64-bit integer as an element, rounded, in every lane."""
        return self._everywhere(self.builder.sitofp(integer, self._scalar), self._vector)

    def ramp(self, first: Any, step: Any) -> Any:
        """The numbers `first`, `first + step`, ...; of integers."""
        lanes = ir.Constant(self._vector, list(range(self.lanes)))
        steps = self.builder.mul(self._everywhere(index(step), self._vector), lanes)
        return self.builder.add(self._everywhere(first, self._vector), steps)

    def counter(self, number: Any) -> Any:
        """A number in every lane, in as many bits as an element has."""
        kind = self._counter.element
        return self._everywhere(number if kind == INDEX else self.builder.trunc(number, kind), self._counter)

    def widened(self, counter: Any) -> Any:
        """A counter as 64-bit integers."""
        kind = ir.VectorType(INDEX, self.lanes)
        return counter if counter.type == kind else self.builder.sext(counter, kind)

    def _everywhere(self, scalar: Any, vector: Any) -> Any:
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
        lanes = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def zipped(self, a: Any, b: Any) -> tuple[Any, Any]:
        """The lanes of two vectors in turn, `a[0], b[0], a[1], ...`, as two vectors."""
        order = [lane + which * self.lanes for lane in range(self.lanes) for which in (0, 1)]
        return self.shuffle(a, b, order[: self.lanes]), self.shuffle(a, b, order[self.lanes :])

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """`a * b + c`, rounded once; integers wrap."""
        if not self._is_float:
            return self.builder.add(self.builder.mul(a, b), c)
        fma = self._function(f"llvm.fma.{self._suffix}", self._vector, [self._vector] * 3)
        return self.builder.call(fma, [a, b, c])

    def add(self, a: Any, b: Any) -> Any:
        """`a + b`"""
        return self.builder.fadd(a, b) if self._is_float else self.builder.add(a, b)

    def beats(self, a: Any, b: Any) -> Any:
        """A mask of the lanes where `a` is a new maximum beside `b`: a NaN is one, unless `b` is a NaN already."""
        if not self._is_float:
            return self.builder.icmp_signed(">", a, b)
        return self.builder.and_(self.builder.fcmp_unordered(">", a, b), self.builder.fcmp_ordered("ord", b, b))

    def chosen(self, mask: Any, a: Any, b: Any) -> Any:
        """The lanes of `a` in the mask, those of `b` outside."""
        return self.builder.select(mask, a, b)

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """The given lanes of `a` and, counted on, of `b`."""
        chosen = ir.Constant(ir.VectorType(_INT32, self.lanes), list(lanes))
        return self.builder.shuffle_vector(a, b, chosen)

    def transposed(self, rows: Sequence[Any]) -> list[Any]:
        """The columns of as many rows as a vector has lanes."""
        rows, block = list(rows), 1
        while block < self.lanes:  # swap the blocks beside the diagonal of each 2x2 of blocks
            upper = [lane if lane & block == 0 else self.lanes + lane - block for lane in range(self.lanes)]
            lower = [lane + block if lane & block == 0 else self.lanes + lane for lane in range(self.lanes)]
            for i in range(self.lanes):
                if i & block == 0:
                    a, b = rows[i], rows[i + block]
                    rows[i], rows[i + block] = self.shuffle(a, b, upper), self.shuffle(a, b, lower)
            block *= 2
        return rows

    def subtract(self, a: Any, b: Any) -> Any:
        """`a - b`"""
        return self.builder.fsub(a, b) if self._is_float else self.builder.sub(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        """`a * b`"""
        return self.builder.fmul(a, b) if self._is_float else self.builder.mul(a, b)

    def divide(self, a: Any, b: Any) -> Any:
        """`a / b`, of floating-point numbers."""
        return self.builder.fdiv(a, b)

    def _function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        module = self.builder.module
        found = module.globals.get(name)
        return found if found is not None else ir.Function(module, ir.FunctionType(result, arguments), name)

    # --- integers -----------------------------------------------------------------------------------------------

    def is_set(self, value: Any) -> Any:
        """Whether an integer is not 0."""
        return self.builder.icmp_signed("!=", value, index(0))

    def least(self, a: Any, b: Any) -> Any:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def greatest(self, a: Any, b: Any) -> Any:
        """The larger of two integers."""
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def flag(self, comparison: str, a: Any, b: Any) -> Any:
        """1 where two integers compare as told, else 0."""
        return self.builder.zext(self.builder.icmp_signed(comparison, a, b), INDEX)

    def call(self, name: str, *arguments: Any) -> None:
        """Call another function of the module."""
        self.builder.call(self.builder.module.globals[name], arguments)

    # --- control flow -------------------------------------------------------------------------------------------

    def either(
        self, condition: Any, then: Callable[[], Sequence[Any]], otherwise: Callable[[], Sequence[Any]]
    ) -> list[Any]:
        """What `then` gives for a condition that is not 0, else what `otherwise` gives: as many values each."""
        builder = self.builder
        with builder.if_else(self.is_set(condition)) as (yes, no):
            with yes:
                taken, after_then = then(), builder.block
            with no:
                other, after_otherwise = otherwise(), builder.block
        results = []
        for value, alternative in zip(taken, other, strict=True):
            result = builder.phi(value.type)
            result.add_incoming(value, after_then)
            result.add_incoming(alternative, after_otherwise)
            results.append(result)
        return results

    def loop(self, count: Any, carried: Sequence[Any], body: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """What `carried` has become after `body` was applied `count` times."""
        return self.counted_loop(count, carried, lambda _, values: body(values))

    def counted_loop(
        self, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """As `loop`, for a body that takes the number of the turn, too."""
        builder = self.builder
        before = builder.block
        head, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed(">", count, index(0)), head, end)
        builder.position_at_end(head)
        step = builder.phi(INDEX)
        step.add_incoming(index(0), before)
        values = [builder.phi(value.type) for value in carried]
        for phi, value in zip(values, carried, strict=True):
            phi.add_incoming(value, before)
        changed = body(step, values)
        following = builder.add(step, index(1))
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


def index(value: Any) -> Any:
    """A count: a Python int as a constant, an LLVM value as it is."""
    return ir.Constant(INDEX, value) if isinstance(value, int) else value
