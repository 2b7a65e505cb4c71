"""The syntax of plain code, see `plain`: a Python function as a part of the function that calls it.

Kernels that Python's drivers call become parts like other functions, and records are never passed in memory. What is
known when code is made is computed then, and branches that are not taken are left out. Knows statements and
expressions of a few kinds: assignments, `if`, `for` over a `range` or an array, `while`, `continue`, `return`;
arithmetic, comparisons, calls, attributes, subscripts. Anything else is an error when code is made, never when it runs.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache as once
from typing import Any

from . import cache
from .instructions import Variable
from .plain import VOCABULARY, Array, is_known


def source_of(module: str) -> str | None:
    """The text of a module; None where there is none, as in programs that were frozen without it."""
    try:
        return cache.text_of(module) or inspect.getsource(sys.modules[module])
    except OSError:
        return None


@once
def _functions(module: str) -> dict[int, ast.FunctionDef]:
    """The functions of a module by their first lines, as they were written when it was imported."""
    text = source_of(module)
    if text is None:
        raise RuntimeError(f"{module}: its source is needed to compile calls from compiled code")
    nodes = [node for node in _statements(ast.parse(text).body) if isinstance(node, ast.FunctionDef)]
    return {min([node.lineno, *(each.lineno for each in node.decorator_list)]): node for node in nodes}


def _statements(block: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a block and of all blocks within; `ast.walk` would look at every expression, too."""
    for statement in block:
        yield statement
        for within in ("body", "orelse", "finalbody", "handlers"):
            yield from _statements(getattr(statement, within, ()))


def _node(function: Any) -> ast.FunctionDef:
    return _functions(function.__module__)[function.__code__.co_firstlineno]


@once
def _assigned_once(function: Callable[..., Any]) -> frozenset[str]:
    """Names that keep their first value: parameters that are never assigned, others by the outermost statements."""
    node = _node(function)
    counts: dict[str, int] = {}
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            counts[each.id] = counts.get(each.id, 0) + 1
    outermost = {
        name.id for statement in node.body if isinstance(statement, ast.Assign) for target in statement.targets
        for name in ast.walk(target) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }  # fmt: skip
    parameters = {argument.arg for argument in node.args.args}
    return frozenset(
        {name for name in parameters if name not in counts} | {n for n in outermost - parameters if counts[n] == 1}
    )


_HARMLESS = (
    ast.Name, ast.Constant, ast.Attribute, ast.Compare, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Add, ast.Sub, ast.Mult,
    ast.BitAnd, ast.BitOr, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip


def _is_harmless(node: ast.expr) -> bool:
    """Whether an expression may be computed where it is not needed: it reads no memory, and divides nothing."""
    return all(isinstance(each, _HARMLESS) for each in ast.walk(node))


class Call:
    """A function that becomes a part of its caller: its names, and where it returns to."""

    def __init__(self, to: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._to = to
        self._function: Any = function
        self._node = _node(function)
        enclosed = zip(self._function.__code__.co_freevars, self._function.__closure__ or (), strict=True)
        self._enclosed = {name: cell.cell_contents for name, cell in enclosed}
        self._fixed = _assigned_once(self._function)
        self._names: dict[str, Any] = {}
        self._result: Variable | None = None
        self._next: Any = None  # where `continue` goes to
        for argument, value in zip(self._node.args.args, arguments, strict=True):
            self._bind(argument.arg, value)

    def run(self) -> Any:
        """Emit it; what it returns."""
        *before, last = self._node.body
        if isinstance(last, ast.Return) and not any(isinstance(each, ast.Return) for each in _statements(before)):
            self._block(before)
            return None if last.value is None else self._value(last.value)
        builder = self._to.builder
        self._behind = builder.append_basic_block("returned")
        self._block(self._node.body)
        if not self._to.has_ended:
            builder.branch(self._behind)
        builder.position_at_end(self._behind)
        return self._result and self._result.get()

    def _bind(self, name: str, value: Any) -> None:
        if name in self._fixed:
            self._names[name] = value
        elif name in self._names:
            self._names[name].set(value)
        else:
            self._names[name] = Variable(self._to, value)

    # --- statements -------------------------------------------------------------------------------------------------

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self._to.has_ended:
                return
            getattr(self, f"_do_{type(statement).__name__}")(statement)

    def _do_Expr(self, node: ast.Expr) -> None:
        self._value(node.value)

    def _do_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            value = self._value(node.value)
            if self._result is None:
                self._result = Variable(self._to, value)
            else:
                self._result.set(value)
        self._to.builder.branch(self._behind)

    def _do_Assign(self, node: ast.Assign) -> None:
        value = self._value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _do_AugAssign(self, node: ast.AugAssign) -> None:
        target = ast.parse(ast.unparse(node.target), mode="eval").body  # the same, to be read
        self._assign(node.target, self._to.computed(type(node.op), self._value(target), self._value(node.value)))

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple):
            for entry, each in zip(target.elts, value, strict=True):
                self._assign(entry, each)
        elif isinstance(target, ast.Name):
            self._bind(target.id, value)
        else:
            assert isinstance(target, ast.Subscript), ast.unparse(target)
            array, index = self._value(target.value), self._index(target.slice)
            part = self._to.part(array, index)
            if part.shape:
                assert (value, len(part.shape), part.strides) == (0, 1, None), ast.unparse(target)
                self._to.clear(part.address, self._to.computed(ast.Mult, part.shape[0], part.itemsize))
            else:
                self._to.store(array, index, value)

    def _do_If(self, node: ast.If) -> None:
        condition = self._bit(node.test)
        if is_known(condition):
            self._block(node.body if condition else node.orelse)
            return
        ended = []
        with self._to.builder.if_else(condition) as branches:
            for branch, statements in zip(branches, (node.body, node.orelse), strict=True):
                with branch:
                    self._block(statements)
                    ended.append(self._to.has_ended)
        if all(ended):
            self._to.builder.unreachable()

    def _do_While(self, node: ast.While) -> None:
        with self._to.loop(lambda: self._bit(node.test)) as next_one:
            self._repeated(node.body, next_one)

    def _do_For(self, node: ast.For) -> None:
        to, over = self._to, node.iter
        if isinstance(over, ast.Call) and self._value(over.func) is range:
            bounds = [self._value(argument) for argument in over.args]
            start, stop, step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
            array = None
        else:
            array = self._value(over)
            start, stop, step = 0, array.shape[0], 1

        def body(i: Any, next_one: Any) -> None:
            self._assign(node.target, i if array is None else to.load(array, i))
            self._repeated(node.body, next_one)

        to.count(start, stop, step, body)

    def _repeated(self, statements: list[ast.stmt], next_one: Any) -> None:
        outer, self._next = self._next, next_one
        self._block(statements)
        self._next = outer

    def _do_Continue(self, node: ast.Continue) -> None:
        self._to.builder.branch(self._next)

    # --- expressions ------------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        return getattr(self, f"_of_{type(node).__name__}")(node)

    def _bit(self, node: ast.expr) -> Any:
        return self._to.bit(self._value(node))

    def _of_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def _of_Name(self, node: ast.Name) -> Any:
        if node.id in self._names:
            value = self._names[node.id]
            return value.get() if isinstance(value, Variable) else value
        for names in (self._enclosed, self._function.__globals__):
            if node.id in names:
                return names[node.id]
        return getattr(builtins, node.id)

    def _of_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(map(self._value, node.elts))

    def _of_Attribute(self, node: ast.Attribute) -> Any:
        value = self._value(node.value)
        if isinstance(value, Array):
            if node.attr == "size":
                return self._to.product(value.shape)
            return value if node.attr == "ctypes" else getattr(value, {"data": "address"}.get(node.attr, node.attr))
        return getattr(value, node.attr)

    def _of_Subscript(self, node: ast.Subscript) -> Any:
        value = self._value(node.value)
        if not isinstance(value, Array):
            return value[self._value(node.slice)]
        index = self._index(node.slice)
        is_element = len(index) == len(value.shape) and not any(isinstance(entry, tuple) for entry in index)
        return self._to.load(value, index) if is_element else self._to.part(value, index)

    def _index(self, node: ast.expr) -> tuple[Any, ...]:
        """An index as `part` takes it."""
        found: list[Any] = []
        for entry in node.elts if isinstance(node, ast.Tuple) else [node]:
            if isinstance(entry, ast.Slice):
                found.append(tuple(None if e is None else self._value(e) for e in (entry.lower, entry.upper)))
            else:
                found.append(self._value(entry))
        return tuple(found)

    def _of_BinOp(self, node: ast.BinOp) -> Any:
        return self._to.computed(type(node.op), self._value(node.left), self._value(node.right))

    def _of_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            return self._to.inverted(self._bit(node.operand))
        return self._to.negated(self._value(node.operand))

    def _of_BoolOp(self, node: ast.BoolOp) -> Any:
        is_and, to = isinstance(node.op, ast.And), self._to
        join = to.both_bits if is_and else to.either_bit

        def joined(first: Any, others: list[ast.expr]) -> Any:
            if not others:
                return first
            if is_known(first):
                return joined(self._bit(others[0]), others[1:]) if first == is_and else first
            if _is_harmless(others[0]):
                return joined(join(first, self._bit(others[0])), others[1:])
            after, at_once = (lambda: joined(self._bit(others[0]), others[1:])), (lambda: not is_and)
            return to.either(first, after, at_once) if is_and else to.either(first, at_once, after)

        return joined(self._bit(node.values[0]), node.values[1:])

    def _of_Compare(self, node: ast.Compare) -> Any:
        left, result = self._value(node.left), None
        for operation, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._value(right_node)
            if isinstance(operation, ast.In):
                bit: Any = False
                for entry in right:
                    bit = self._to.either_bit(bit, self._to.compared(ast.Eq, left, entry))
            else:
                bit = self._to.compared(type(operation), left, right)
            result = bit if result is None else self._to.both_bits(result, bit)
            left = right
        return result

    def _of_IfExp(self, node: ast.IfExp) -> Any:
        condition = self._bit(node.test)
        if not is_known(condition) and _is_harmless(node.body) and _is_harmless(node.orelse):
            both = self._value(node.body), self._value(node.orelse)
            if not any(isinstance(value, tuple | Array) for value in both):
                return self._to.selected(condition, *both)
            return self._to.either(condition, lambda: both[0], lambda: both[1])
        return self._to.either(condition, lambda: self._value(node.body), lambda: self._value(node.orelse))

    def _of_Call(self, node: ast.Call) -> Any:
        function, arguments = self._value(node.func), tuple(map(self._value, node.args))
        assert not node.keywords, ast.unparse(node)
        emit = VOCABULARY.get(function)
        if emit is not None:
            return emit(self._to, *arguments)
        if hasattr(function, "_fields"):
            return function(*arguments)
        return self._to.call(function, arguments)
