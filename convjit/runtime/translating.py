"""A whole function of plain code, see `plain`: its control flow, its memory, and what it returns.

Memory of `np.empty` and `np.zeros` lies on the stack where its size is known and small, or else comes from Numba's
allocator and is given back when the entry returns, so not within loops; if there is none, the entry returns what it is
told to. Does not know syntax.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from .instructions import Instructions, Variable
from .plain import INT, SHARED, VOCABULARY, ZERO, is_known, leaves, rebuilt
from .syntax import Call

# Workspaces begin with a cache line.
_ALIGNED = 64
# Bytes of an array on the stack: on Windows a function with pages of them would call another one that is not there.
_ON_STACK = 1024


class Allocator(NamedTuple):
    """How memory is had that is not on the stack."""

    allocate: Callable[[Any, Any], Any]  # emits: the address of so many bytes, or 0
    release: Callable[[Any, Any], None]  # emits: give it back


class Translation(Instructions):
    """The instructions of one entry, made of Python functions.

    Without an allocator nothing is allocated: it might fail in a parallel loop, where nobody would know.
    """

    def __init__(self, builder: Any, allocator: Allocator | None = None) -> None:
        super().__init__(builder)
        self._allocator = allocator
        self._owned: list[Any] = []  # places of the addresses of what is to be given back
        self._loops = 0
        self._shared: dict[Any, tuple[Any, Any]] = {}

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Emit a call of a function as the whole of the entry; its result, an integer.

        Where memory runs out the result is minus the bytes that there were not, `_ALIGNED` at least.
        """
        self._status, self._end = Variable(self, 0), self.builder.append_basic_block("end")
        self._status.set(self.call(function, arguments))
        self.builder.branch(self._end)
        self.builder.position_at_end(self._end)
        for owned in self._owned:
            address = owned.get()
            with self.builder.if_then(self.builder.icmp_signed("!=", address, ZERO)):
                assert self._allocator is not None
                self._allocator.release(self.builder, address)
        return self._status.get()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Emit a Python function here; what it returns."""
        if function in SHARED:
            return self._call_shared(function, arguments)
        return Call(self, function, arguments).run()

    def _call_shared(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if function not in self._shared:
            self._shared[function] = self._function(function, arguments)
        made, like = self._shared[function]
        results = cgutils.alloca_once(self.builder, INT, size=len(leaves(like)))
        self.builder.call(made, [*(self.cast(number, INT) for number in leaves(arguments)), results])
        places = (self.builder.gep(results, [ir.Constant(INT, i)]) for i in range(len(leaves(like))))
        return rebuilt(like, map(self.builder.load, places))

    def _function(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """A function of the numbers of its arguments, and of a place for those it returns; and a value like those."""
        count = len(leaves(arguments))
        kind = ir.FunctionType(ir.VoidType(), [INT] * count + [INT.as_pointer()])
        made = ir.Function(self.builder.module, kind, f"shared_{function.__name__}")
        made.linkage = "internal"
        for attribute in ("noinline", "nounwind"):
            made.attributes.add(attribute)
        inner = Translation(ir.IRBuilder(made.append_basic_block("entry")), self._allocator)
        inner._shared = self._shared
        like = Call(inner, function, rebuilt(arguments, iter(made.args))).run()
        for i, number in enumerate(leaves(like)):
            place = inner.builder.gep(made.args[count], [ir.Constant(INT, i)])
            inner.builder.store(inner.cast(number, INT), place)
        inner.builder.ret_void()
        return made, like

    # --- memory -----------------------------------------------------------------------------------------------------

    def allocate(self, count: Any, dtype: Any) -> Any:
        """The address of so many elements."""
        if is_known(count) and count * dtype.itemsize <= _ON_STACK:
            return self.on_stack(int(count), dtype)
        assert self._allocator is not None, "memory that is not on the stack, in a task"
        assert not self._loops, "memory that is not on the stack, within a loop"
        size = self.computed(ast.Add, self.computed(ast.Mult, count, dtype.itemsize), _ALIGNED)
        address = self._allocator.allocate(self.builder, self.lifted(size))
        with self.builder.if_then(self.builder.icmp_signed("==", address, ZERO)):
            self._status.set(self.computed(ast.Sub, 0, size))
            self.builder.branch(self._end)
        self._owned.append(Variable(self, address))  # 0 where this is never reached
        return self.computed(ast.BitAnd, self.computed(ast.Add, address, _ALIGNED - 1), -_ALIGNED)

    # --- control flow -----------------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether nothing can follow here."""
        return bool(self.builder.block.is_terminated)

    @contextmanager
    def loop(self, condition: Callable[[], Any], after: Callable[[], None] = lambda: None) -> Iterator[Any]:
        """What runs as long as a bit is set, then `after` each time; where `continue` goes to."""
        builder = self.builder
        test, body, next_one, end = (builder.append_basic_block(name) for name in ("test", "body", "next", "behind"))
        builder.branch(test)
        builder.position_at_end(test)
        builder.cbranch(self.lifted(condition()), body, end)
        builder.position_at_end(body)
        self._loops += 1
        yield next_one
        self._loops -= 1
        if not self.has_ended:
            builder.branch(next_one)
        builder.position_at_end(next_one)
        after()
        builder.branch(test)
        builder.position_at_end(end)

    def count(self, start: Any, stop: Any, step: Any, body: Callable[[Any, Any], None]) -> None:
        """Emit body(number, where `continue` goes to) for the numbers of a range."""
        counter = Variable(self, self.lifted(start))
        before = ast.Gt if is_known(step) and step < 0 else ast.Lt
        with self.loop(
            lambda: self.compared(before, counter.get(), stop),
            lambda: counter.set(self.computed(ast.Add, counter.get(), step)),
        ) as next_one:
            body(counter.get(), next_one)

    def either(self, condition: Any, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
        """The value of one of two, of which the other is not computed."""
        if is_known(condition):
            return first() if condition else second()
        result: list[Variable] = []
        with self.builder.if_else(condition) as (then, otherwise):
            with then:
                result.append(Variable(self, first()))
            with otherwise:
                result[0].set(second())
        return result[0].get()


def _gcd(a: Any, b: Any) -> Any:
    while b != 0:
        a, b = b, a % b
    return a


VOCABULARY[math.gcd] = lambda to, a, b: to.call(_gcd, (a, b))
