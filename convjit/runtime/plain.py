"""Plain code: Python functions that become machine code without Numba's compiler; its values, and its vocabulary.

Plain code is all that is not emitted by hand: what a task does, and, for compiled callers, sizes, checks, addresses,
written as Python functions of 64-bit integers, bools, real numbers, records (tuples) of them and arrays. `translating`
makes machine code of it in some tenths of a second, where Numba's compiler takes seconds: first calls wait for it.
Knows what values are; does not know how they are computed, see `instructions`, nor syntax, see `syntax`.

A value that is known when code is made is a Python object (so is a tuple, whose entries may be unknown); one that is
not is an LLVM value.
Source: llvmlite's documentation, "IR builders".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir

INT, BIT = ir.IntType(64), ir.IntType(1)
DOUBLE = ir.DoubleType()
ZERO = ir.Constant(INT, 0)


class Array:
    """An array at an address; it keeps nothing alive. Strides are in bytes, None where it is C-contiguous."""

    def __init__(
        self, address: Any, shape: tuple[Any, ...], dtype: Any, strides: tuple[Any, ...] | None = None
    ) -> None:
        self.address, self.shape, self.strides = address, shape, strides
        self.dtype = np.dtype(dtype)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize


def leaves(value: Any) -> list[Any]:
    """The numbers that a value is made of."""
    if isinstance(value, Array):
        return leaves((value.address, value.shape, value.strides or ()))
    if isinstance(value, tuple):
        return [leaf for entry in value for leaf in leaves(entry)]
    return [value]


def rebuilt(like: Any, numbers: Iterator[Any]) -> Any:
    """A value of the same kind, of other numbers."""
    if isinstance(like, Array):
        address, shape = next(numbers), rebuilt(like.shape, numbers)
        return Array(address, shape, like.dtype, rebuilt(like.strides, numbers) if like.strides else None)
    if isinstance(like, tuple):
        entries = [rebuilt(entry, numbers) for entry in like]
        return type(like)(*entries) if hasattr(like, "_fields") else tuple(entries)
    return next(numbers)


def is_known(value: Any) -> bool:
    return not any(isinstance(leaf, ir.Value) for leaf in leaves(value))


def element_kind(dtype: Any) -> Any:
    """LLVM's type of an element in memory."""
    if dtype.kind == "f":
        return ir.FloatType() if dtype.itemsize == 4 else DOUBLE
    return ir.IntType(8 * dtype.itemsize)


# Functions that an entry holds once, however often it calls them.
SHARED: set[Any] = set()


def shared(function: Any) -> Any:
    """Mark plain code that is long and called often: it becomes a function of its own, of integers."""
    SHARED.add(function)
    return function


# What plain code may call that is not plain code: emit(instructions, *values) for each Python object.
VOCABULARY: dict[Any, Callable[..., Any]] = {}


def word(emit: Callable[..., Any]) -> Any:
    """Make a word of plain code of what emits it; it is called without the instructions."""
    VOCABULARY[emit] = emit
    return emit


def word_for(function: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What emits, in plain code, a function that Numba compiles otherwise."""
    return lambda emit: VOCABULARY.setdefault(function, emit)
