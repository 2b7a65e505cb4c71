"""Numbers, arrays and other things that callers pass: the odd but fine ones, and those that no call can use.

Knows nothing of what they are passed to.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from convjit.testing import LAYOUTS

DTYPES = (
    *("float32", "float64") * 4, *("int64", "float16", "complex64", "complex128") * 2, "bool", "int8", "int16",
    "int32", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
REAL = tuple(name for name in DTYPES if "complex" not in name)
# Arrays of more elements than this take no memory: one element, shown everywhere.
GIANT = 1_000_000

NUMBERS: tuple[Any, ...] = (
    0, -1, 4, 9, 10**6, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64, -(2**31), -(2**62), -(2**64), 1.5,
    np.float64(2), np.nan, np.inf, 1j, None, True, np.bool_(True), "2", "same", "", b"2", (), [], (1, 2, 3), "NHWC",
    (1, None), (1, 2.0), ("a", "b"), (2**62, 1), (1, -1), (0, 0), ((1, 2), (3,)), [[1], [2, 3]], (((1, 2), (3,)), 1),
    ((-1, 0), (0, 0)), ((1, 2), 3), ((1, 2),), {}, {1, 2}, {"a": 1}, object, np.array(2), np.array([1, 2, 3]),
    np.array([[1, 2], [3, 4]]), np.array(1.5), np.array([]), np.int8(-1), np.uint64(2**64 - 1), slice(None), ...,
    np.datetime64(1, "s"), range(2), range(2**40), "full", "same_lower", b"same", "\n", "valid\n", (1, 10**6),
    np.zeros((3, 3), np.int64), [np.array([1, 2]), 3], np.ma.masked, float, lambda: 1, (1, 2, -1), (2**62, 1, 1),
    (1, None, 2), ((1, 2), (3,), (0, 0)), ((-1, 0),), (10**6,), ((0, 10**6),), (1, 1, 10**6),
)  # fmt: skip


class _WithArray:
    """An array-like of the oldest protocol."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._array, dtype)


class _Failing:
    """An array-like that cannot be read."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("this array is on strike\nuntil Monday")


class _Subclass(np.ndarray):
    """A subclass that changes nothing."""


class Values:
    """Things drawn from one number; `of`, `chance` and `below` draw choices."""

    def __init__(self, seed: int) -> None:
        self._choices = random.Random(seed)
        self._rng = np.random.default_rng(seed)

    def of(self, options: Any) -> Any:
        return self._choices.choice(options)

    def chance(self, probability: float) -> bool:
        return self._choices.random() < probability

    def between(self, low: int, high: int) -> int:
        return self._choices.randint(low, high)

    def subset(self, options: Any, count: int) -> list[Any]:
        return self._choices.sample(list(options), min(count, len(options)))

    # --- what is fine -----------------------------------------------------------------------------------------------

    def entries(self, low: int, high: int, rank: int) -> Any:
        """An int for each of so many dimensions, in any of its forms."""
        each = tuple(self.between(low, high) for _ in range(rank))
        a = each[0]
        forms = (a, a, each, each, list(each), (a,), np.int64(a), np.uint8(a), np.array(each), np.array(a))
        return self.of(forms)

    def padding(self, most: int, rank: int) -> Any:
        """Counts of padding in any of their forms."""
        if self.chance(0.4):
            return 0
        sides = tuple((self.between(0, most), self.between(0, most)) for _ in range(rank))
        forms = (sides, [list(side) for side in sides], np.array(sides), self.entries(0, most, rank), (sides[0],))
        return self.of(forms)

    def divisor(self) -> Any:
        """An int other than 0 in any of its forms, or None."""
        a = self.of((1, 2, 3, 7, -1, -2, -5, 10**6, 2**31 - 1, 1 - 2**31))
        return self.of((a, a, np.int64(a), np.int32(a), np.array(a), np.uint64(abs(a)), np.int8(-3), None))

    def array(self, shape: tuple[int, ...], dtypes: Any = DTYPES) -> Any:
        """An array of numbers, in any layout, or something that can be read as one."""
        dtype = np.dtype(self.of(dtypes))
        if math.prod(max(n, 1) for n in shape) > GIANT:
            return np.broadcast_to(np.ones((), dtype), shape)
        return self._laid_out(np.asarray(self._numbers(shape, dtype)))

    def _numbers(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        if dtype.kind in "iu" and self.chance(0.2):
            limits = np.iinfo(dtype)
            return self._rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        if dtype.kind in "biu" or self.chance(0.7):
            parts = self._rng.integers(0 if dtype.kind in "bu" else -4, 2 if dtype.kind == "b" else 5, (2, *shape))
        else:
            parts = 3 * self._rng.standard_normal((2, *shape))
            if parts.size and self.chance(0.3):
                parts.flat[self._rng.integers(parts.size, size=2)] = self.of((np.nan, np.inf, -np.inf))
        if dtype.kind != "c":
            return parts[0].astype(dtype)
        array = np.empty(shape, dtype)
        array.real, array.imag = parts
        return array

    def _laid_out(self, array: Any) -> Any:
        if self.chance(0.5) or array.ndim == 0:
            return array
        if self.chance(0.6):
            return self.of(list(LAYOUTS.values()))(array)
        kind = self.of(("zero stride", "huge stride", "list", "memory", "protocol", "subclass"))
        if kind == "zero stride" and array.size:
            axis = self.between(0, array.ndim - 1)
            return np.broadcast_to(array.take([0], axis), array.shape)
        if kind == "huge stride":  # harmless along axes of one element
            strides = tuple(2**40 if n < 2 else s for n, s in zip(array.shape, array.strides, strict=True))
            return np.lib.stride_tricks.as_strided(array, strides=strides)
        if kind == "list" and array.size and array.dtype in (np.float64, np.int64, np.bool_, np.complex128):
            return array.tolist()
        if kind == "memory" and array.size:
            return memoryview(array)
        return _WithArray(array) if kind == "protocol" else array.view(_Subclass)

    # --- what is not ------------------------------------------------------------------------------------------------

    def bad_number(self) -> Any:
        return self.of(NUMBERS)

    def bad_array(self, array: Any) -> Any:
        """Something in the place of an array; some of it may still be usable."""
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc" or array.size > GIANT:
            array = np.ones((2, 3, 4, 5), np.float32)
        make = self.of(
            (self._other_shape, self._other_shape, self._other_axis, self._other_axis, self._giant, self._other_type,
             self._other_type, self._no_array, self._no_array)
        )  # fmt: skip
        return make(array)

    def _other_shape(self, array: Any) -> Any:
        return self.array(tuple(self.between(0, 9) for _ in range(self.between(0, 5))))

    def _other_axis(self, array: Any) -> Any:
        shape = list(array.shape)
        for axis in self.subset(range(array.ndim), 1):
            shape[axis] = self.of((0, 1, shape[axis] + 1, max(shape[axis] - 1, 0), self.between(0, 9)))
        return self.array(tuple(shape))

    def _giant(self, array: Any) -> Any:
        # Giant along both of the last axes: along one alone a kernel fits into memory, and takes minutes to apply.
        one = array[(slice(0, 1),) * array.ndim] if array.size else np.ones((1,) * array.ndim)
        return np.broadcast_to(one, (*array.shape[:-2], *(10**6,) * min(array.ndim, 2)))

    def _other_type(self, array: Any) -> Any:
        with np.errstate(all="ignore"):
            real = array.real
            return self.of((
                lambda: np.ma.array(array), lambda: np.ma.array(array, mask=array == 0), lambda: array.astype(object),
                lambda: array.astype(str), lambda: array.astype("S8"), lambda: array.astype(np.clongdouble),
                lambda: real.astype(np.longdouble), lambda: real.astype("int64").view("datetime64[s]"),
                lambda: real.astype("int64").view("timedelta64[s]"), lambda: np.zeros(array.shape, "f4,i4"),
                lambda: np.zeros(array.shape, "V4"), lambda: real.astype(np.longdouble).astype(">g"),
                lambda: np.rec.array(np.zeros(array.shape, "f4,i4")),
            ))()  # fmt: skip

    def _no_array(self, array: Any) -> Any:
        return self.of((
            None, "abc", b"abc", 1, 1.5, object(), [[1, 2], [3]], [[[[1, 2], [3]]]], {}, {1, 2}, {"a": 1}, [], [[]],
            [None], [[["a"]]], (i for i in range(3)), np.ma.masked, _Failing(), np.float64(1), np.array(3), type, ...,
            memoryview(b"abc"), range(3), float, [array, None], [object()],
        ))  # fmt: skip
