"""Compiled callers of the public functions, one for each function and choice of words; made when they are asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.testing import assert_array_equal

import convjit


@cache
def caller(name: str, arrays: int, values: tuple[str, ...], **chosen: Any) -> Any:
    """`call(*arrays, *values)` of a function, with literal keywords; values are keywords in this order."""
    given = [f"a{i}" for i in range(arrays)]
    words = [f"{word}={word}" for word in values] + [f"{word}={value!r}" for word, value in chosen.items()]
    text = f"def call({', '.join([*given, *values])}):\n    return convjit.{name}({', '.join([*given, *words])})\n"
    scope: dict[str, Any] = {"convjit": convjit}
    exec(text, scope)
    return numba.njit(scope["call"])


def called(name: str, *arrays: Any, **options: Any) -> Any:
    """What a compiled caller gets: strings, bools and None are written as literals, numbers passed as values."""
    numbers = {word: value for word, value in options.items() if _is_number(value)}
    words = {word: value for word, value in options.items() if word not in numbers}
    return caller(name, len(arrays), tuple(numbers), **words)(*arrays, *numbers.values())


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_pairs(problem: Any) -> dict[str, Any]:
    """The options of a drawn problem, each in one form, so that few callers are compiled."""
    return {
        "stride": problem.stride_pair, "padding": problem.pads, "dilation": problem.dilation_pair,
        "groups": problem.groups, "padding_mode": problem.padding_mode,
    }  # fmt: skip


def assert_same(got: Any, wanted: Any) -> None:
    """The same bits, shapes and dtypes; also of tuples with None."""
    if isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            assert_same(a, b)
    elif wanted is None:
        assert got is None
    else:
        assert got.flags.c_contiguous
        assert got.flags.writeable
        assert_array_equal(got, wanted, strict=True)
        if got.dtype.kind == "f":
            assert_array_equal(np.signbit(got), np.signbit(wanted))
