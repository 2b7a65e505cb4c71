"""Compiled callers of the public functions, one for each function and choice of words; made when they are asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba

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
