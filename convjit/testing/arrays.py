"""Hypothesis strategies for arrays: integers on which sums are exact, and real numbers on which they round.

Knows shapes and dtypes; does not know what the arrays are for. An array is drawn as bytes, a byte an entry, the smaller
the simpler the number: Hypothesis makes bytes small, so it makes arrays simple, entry by entry. There are equally many
bytes for every shape, and the last one is the first entry's: so what is left of an array when Hypothesis has made its
bytes small, at the end of them, is still there when it makes the shape smaller.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from .oracle import Array

# Bytes an array. Hypothesis gives an example 8 KiB in all, and needs time to make each of them zero.
_BYTES = 64
# A longer row of simple numbers would leave too few bytes for the others.
_SIMPLE = 32

# From a random number Hypothesis tries the next, the one after it, and those at halves and quarters of its place.
_REALS = np.array([0, 1, -1, 0.5, -0.5, 0.1, -0.1, 0.3, -0.3, 2, -2])
_POSITIVE_REALS = np.array([1, 0.5, 0.3, 0.1])


def exact_arrays(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64, largest: int = 4
) -> st.SearchStrategy[Array]:
    """Integers of magnitude at most `largest`, stored in `dtype`: sums and products of them are exact.

    They are as long as every partial sum stays below 2^24 in float32 and 2^53 in float64: a test needs no tolerance.

    Parameters
    ----------
    shape : int or tuple of int
        Of the arrays; entries may be 0.
    dtype : dtype
        bool, integer, floating or complex. Unsigned and bool arrays hold no negative numbers; complex ones have both
        parts.
    largest : int
        At least 1, and held exactly by `dtype`.

    Returns
    -------
    strategy of ndarray
        Shrinks to zeros; what cannot be zero to 1, -1, 2, -2 and so on, whichever will do first, and to the start of
        the array. Entries beyond the 64th shrink to zeros only, together with those 64 before and after them.

    Raises
    ------
    TypeError, ValueError
        When it is called, for a dtype or a `largest` of another kind.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(exact_arrays((1, 3), "float32"), lambda a: a[0, 1] > 1)
    array([[0., 2., 0.]], dtype=float32)
    """
    kind = _numeric("exact_arrays", dtype, "biufc")
    try:
        largest = operator.index(largest)
    except TypeError:
        raise TypeError(f"exact_arrays: largest must be an int, got {type(largest).__name__}") from None
    unsigned = kind.kind in "ub"
    if largest < 1 or (kind.kind != "b" and not _holds(kind, largest)):
        raise ValueError(f"exact_arrays: largest must be at least 1 and an integer that {kind} holds, got {largest}")

    def at_random(rng: np.random.Generator, size: int) -> Array:
        return np.asarray(rng.integers(0 if unsigned else -largest, largest, size, endpoint=True))

    # 0, 1, -1, 2, -2, ...
    ladder = [0, *(number for n in range(1, min(largest, _SIMPLE) + 1) for number in ((n,) if unsigned else (n, -n)))]
    # Where these are all there are, the bytes go round.
    simple = np.resize(ladder, 256) if len(ladder) <= _SIMPLE and largest < _SIMPLE else np.array(ladder[:_SIMPLE])
    return _drawn(shape, kind, simple, at_random)


def real_arrays(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64, positive: bool = False, distinct: bool = False
) -> st.SearchStrategy[Array]:
    """Normal random numbers, or uniform ones in (0, 1] if `positive`, rounded to `dtype`; here and there a simple one.

    Sums of them round, so a test needs a bound: `assert_within_rounding`.

    Parameters
    ----------
    shape : int or tuple of int
        Of the arrays; entries may be 0.
    dtype : dtype
        Floating or complex, which has both parts.
    positive : bool
        Sums of positive numbers have no terms that cancel: the largest rounding errors.
    distinct : bool
        Without the simple numbers, so that no two entries are alike, as a maximum without ties needs it.

    Returns
    -------
    strategy of ndarray
        Entries shrink to 0, 1 and -1, halves, tenths, 2 and -2; positive ones to 1, 0.5, 0.3, 0.1.
        Entries beyond the 64th shrink to 0, positive ones to 1, together with those 64 before and after them.
        `distinct` arrays are drawn by a seed, which shrinks to 0: the problem around them gets simpler, their numbers
        do not.

    Raises
    ------
    TypeError
        When it is called, for a dtype of another kind.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(real_arrays((2, 2)), lambda a: a.any())
    array([[1., 0.],
           [0., 0.]])
    >>> bool((find(real_arrays((2, 2), positive=True), lambda a: True) == 1).all())
    True
    """
    kind = _numeric("real_arrays", dtype, "fc")

    def at_random(rng: np.random.Generator, size: int) -> Array:
        return 1 - rng.random(size) if positive else rng.standard_normal(size)

    if distinct:
        return st.integers(0, 2**32 - 1).map(
            lambda seed: _stored(at_random(np.random.default_rng(seed), _length(shape, kind)), shape, kind)
        )
    return _drawn(shape, kind, _POSITIVE_REALS if positive else _REALS, at_random)


def _numeric(function: str, dtype: npt.DTypeLike, kinds: str) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.kind not in kinds:
        needed = "bool, integer, floating or complex" if "b" in kinds else "floating or complex"
        raise TypeError(f"{function}: dtype must be {needed}, got {kind}")
    return kind


def _holds(kind: np.dtype[Any], number: int) -> bool:
    most: int = np.iinfo(kind.name).max if kind.kind in "ui" else 2 ** (np.finfo(kind).nmant + 1)
    return number <= most


def _length(shape: int | tuple[int, ...], kind: np.dtype[Any]) -> int:
    """How many real numbers an array holds."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    return math.prod(sizes) * (2 if kind.kind == "c" else 1)


def _stored(numbers: Array, shape: int | tuple[int, ...], kind: np.dtype[Any]) -> Array:
    if kind.kind == "c":
        numbers = numbers[::2] + 1j * numbers[1::2]
    array: Array = numbers.astype(kind).reshape(shape)
    return array


def _drawn(
    shape: int | tuple[int, ...], kind: np.dtype[Any], simple: Array,
    at_random: Callable[[np.random.Generator, int], Array],
) -> st.SearchStrategy[Array]:  # fmt: skip
    """Arrays whose entries are `simple[byte]`, or random where the byte is none of those."""
    size = _length(shape, kind)

    def build(drawn: tuple[bytes, int]) -> Array:
        codes = np.resize(np.frombuffer(drawn[0], np.uint8)[::-1], size)
        known = codes < len(simple)
        # An entry that shares its byte is zero or random, so that none repeats another.
        known[_BYTES:] = codes[_BYTES:] == 0
        if known.all():
            return _stored(simple[codes], shape, kind)
        numbers = at_random(np.random.default_rng(drawn[1]), size)
        return _stored(np.where(known, simple[np.where(known, codes, 0)], numbers), shape, kind)

    return st.tuples(st.binary(min_size=_BYTES, max_size=_BYTES), st.integers(0, 2**32 - 1)).map(build)
