"""How arguments are read and results expected: by rules of its own, in wider types than the package computes in.

Sums are taken in int64 modulo 2^64 or in longdouble. Does not know any function.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from convjit.testing import reference_pads

# More elements than this are not computed again: the oracle takes microseconds for each.
LARGEST = 20_000


class TooLargeToCheck(Exception):  # noqa: N818 - no mistake
    """The oracle would take too long."""


class Expected(NamedTuple):
    """One array of an answer: equal to `exact` in `dtype`, or within `units` roundings of `magnitude`."""

    exact: Any
    dtype: np.dtype
    magnitude: Any = None
    units: int = 0
    open: Any = False  # entries about which nothing is promised


# --- reading arguments ----------------------------------------------------------------------------------------------


def as_entries(value: Any, rank: int) -> tuple[int, ...]:
    """An int, or a sequence of one or of `rank`, as an int for each dimension."""
    entries = [operator.index(entry) for entry in ([value] if np.ndim(value) == 0 else value)]
    return tuple(entries * (rank if len(entries) == 1 else 1))


def as_pads(
    padding: Any, rank: int, image: Any = None, kernel: Any = None, stride: Any = None, dilation: Any = None
) -> Any:
    """Any form of padding as counts; names need the rest."""
    if isinstance(padding, str):
        axes = zip(image, kernel, stride or (1,) * rank, dilation or (1,) * rank, strict=True)
        return tuple(reference_pads(padding, *((n, n) for n in axis))[0] for axis in axes)
    is_count = not isinstance(padding, list | tuple | range) and np.ndim(padding) == 0
    if is_count or all(np.ndim(side) == 0 for side in padding):
        return tuple((count, count) for count in as_entries(padding, rank))
    sides = [as_entries(side, 2) for side in padding]
    return tuple(sides * (rank if len(sides) == 1 else 1))


def window_options(a: dict, image: Any, kernel: Any) -> dict[str, Any]:
    rank = len(kernel)
    stride, dilation = (as_entries(a.get(name, 1), rank) for name in ("stride", "dilation"))
    pads = as_pads(a.get("padding", 0), rank, image, kernel, stride, dilation)
    if math.prod(size + sum(pad) for size, pad in zip(image, pads, strict=True)) > LARGEST:
        raise TooLargeToCheck
    return {"stride": stride, "pads": pads, "dilation": dilation}


def conv_options(a: dict, image: Any, kernel: Any) -> dict[str, Any]:
    mode, groups = a.get("padding_mode", "constant"), operator.index(a.get("groups", 1))
    return {**window_options(a, image, kernel), "groups": groups, "padding_mode": mode}


def given_arrays(a: dict, *names: str) -> list[Any]:
    arrays = [None if a.get(name) is None else np.asarray(a[name]) for name in names]
    if any(array is not None and math.prod(max(n, 1) for n in array.shape) > LARGEST for array in arrays):
        raise TooLargeToCheck
    return arrays


def batched(array: Any, ndim: int) -> Any:
    return array if array.ndim == ndim else array[None]


def result_dtype(*arrays: Any) -> np.dtype:
    dtype = np.result_type(*(array.dtype for array in arrays if array is not None)).newbyteorder("=")
    return np.dtype("int64") if dtype.kind == "b" else dtype


# --- wide arithmetic ------------------------------------------------------------------------------------------------


def _wide(array: Any, dtype: np.dtype) -> Any:
    kinds = {"f": np.longdouble, "c": np.clongdouble}
    return None if array is None else array.astype(kinds.get(dtype.kind, np.int64))


def magnitudes(array: Any, dtype: np.dtype) -> Any:
    """Magnitudes: of complex numbers the sum of both parts'."""
    wide = _wide(array, dtype)
    if wide is None or wide.dtype.kind != "c":
        return None if wide is None else abs(wide)
    return (abs(wide.real) + abs(wide.imag)).astype(wide.dtype)


def _is_whole(array: Any) -> bool:
    with np.errstate(all="ignore"):
        return array is None or bool((array == np.rint(array)).all())


def sums(function: Callable[..., Any], arrays: Any, dtype: np.dtype, units: int = 40) -> tuple[Expected, ...]:
    """The answers of a function that is linear in each array; partial sums round, if not whole and small."""
    if any(array is not None and array.size == 0 for array in arrays):
        # Nothing is summed that would round much, and of empty longdoubles NumPy has been seen to spoil the heap.
        narrow = {"f": np.float64, "c": np.complex128}.get(dtype.kind, np.int64)
        values = function(*(None if array is None else array.astype(narrow) for array in arrays))
        sizes = [abs(value) for value in values]
        return tuple(
            Expected(v, dtype, None if dtype.kind not in "fc" else n, units) for v, n in zip(values, sizes, strict=True)
        )
    values = function(*(_wide(array, dtype) for array in arrays))
    if dtype.kind not in "fc":
        return tuple(Expected(value.astype(dtype), dtype) for value in values)
    sizes = [abs(size) for size in function(*(magnitudes(array, dtype) for array in arrays))]
    small = 2.0**24 if dtype in (np.float16, np.float32, np.complex64) else 2.0**53
    whole = all(map(_is_whole, arrays))
    return tuple(
        Expected(value, dtype, None if whole and (size < small).all() else size, units)
        for value, size in zip(values, sizes, strict=True)
    )


def as_given(expected: Expected, like: Any, ndim: int) -> Expected:
    """Without the batch, if the array that decides it had none."""
    if np.ndim(like) == ndim:
        return expected
    return expected._replace(
        exact=expected.exact[0], magnitude=None if expected.magnitude is None else expected.magnitude[0]
    )
