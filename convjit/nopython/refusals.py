"""What compiled code refuses, in Python's own sentences.

An entry that refuses keeps the call's record and returns its place; the user's function raises `Refused(place)`, whose
making, by then under the GIL, asks the public function about arrays of the same shapes, and raises what that raises. So
sentences are written in one place, and cost the user's function no compile time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime.entries import array_at, new_slot, next_number, row_of_table, set_row
from ..runtime.memory import readable_size
from ..runtime.options import kernel
from .record import (
    ADDRESS,
    ARRAYS,
    ENTRIES,
    FIRST,
    FORM,
    FUNCTION,
    ITEM,
    NAME,
    NONE,
    OF_ARRAY,
    OF_VALUE,
    RESULTS,
    SHAPE,
    STRIDES,
    VALUES,
    value_of,
)

# What is returned instead of a place: the caller was compiled for another version, or what it needs is not ready.
# Less means that memory ran out: minus the bytes that there were not.
STALE, UNREADY = -1, -2

# Records of calls that were refused, until Python asks: a thread waits for the GIL in between, while others refuse
# more. Behind each record stands its place, so that one that was written over is known.
_PLACES = 4096
_refused = np.zeros((_PLACES, ENTRIES + 1), np.int64)
_count = np.zeros(1, np.int64)
_REFUSED, _COUNT = new_slot(), new_slot()
set_row(_REFUSED, _refused.ctypes.data)
set_row(_COUNT, _count.ctypes.data)

# Public functions by their number in a record: filled by `overloads`.
ASKED: list[tuple[Callable[..., object], tuple[str, ...], tuple[tuple[str, tuple[Any, ...]], ...]]] = []


@kernel
def refuse(r: Any) -> Any:
    """Keep the record of a call that Python would refuse; its place, counted from 1."""
    place = next_number(row_of_table(_COUNT)) + 1
    kept = array_at(row_of_table(_REFUSED), (_PLACES, ENTRIES + 1), 0)
    for i in range(ENTRIES):
        kept[place % _PLACES, i] = r[i]
    kept[place % _PLACES, ENTRIES] = place
    return place


class Refused(Exception):  # noqa: N818  # nobody catches it: what is raised is another one
    """Raised by compiled code; making one raises what it stands for."""

    def __new__(cls, place: int, name: str) -> Refused:
        raise _error(place, name).with_traceback(None) from None


def _error(place: int, name: str) -> Exception:
    if place == STALE:
        return RuntimeError(
            f"{name}: the calling function was compiled for another version of convjit; compile it anew, or delete the "
            "cached files of its module in __pycache__"
        )
    if place == UNREADY:
        return RuntimeError(f"{name}: its kernels could not be made ready; what Python printed before says why")
    if place < 0:
        return MemoryError(f"{name}: an array of {readable_size(-place)} does not fit into memory")
    *record, kept = _refused[place % _PLACES].tolist()
    if kept != place:
        return ValueError(
            f"{name}: shapes or values do not fit; {_PLACES} later errors took the place of this one's words"
        )
    function, arguments = _call(record)
    try:
        function(**arguments)
    except Exception as error:
        return error
    return RuntimeError(f"{name}: compiled code refused a call that Python accepts; please report it: {arguments}")


class _Placed:
    """An array where the caller's is, of which only the place is looked at."""

    def __init__(self, address: int, shape: list[int], strides: list[int], dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "version": 3, "data": (address, False), "shape": tuple(shape), "strides": tuple(strides),
            "typestr": dtype.str,
        }  # fmt: skip


def _call(record: list[int]) -> tuple[Callable[..., object], dict[str, Any]]:
    """The public function, and arguments as the compiled caller gave them: arrays of zeros of the same shapes."""
    function, arrays, values = ASKED[record[FUNCTION]]
    dtype = np.dtype(f"float{8 * record[ITEM]}")
    arguments: dict[str, Any] = {}
    for i, name in enumerate(arrays):
        at = ARRAYS + OF_ARRAY * i
        dimensions = record[at]
        shape = record[at + SHAPE + 4 - dimensions : at + SHAPE + 4]
        if dimensions == 0:
            arguments[name] = None
        elif arrays[-1] == "out" and record[ARRAYS + OF_ARRAY * (len(arrays) - 1)] != 0:  # places matter
            strides = record[at + STRIDES + 4 - dimensions : at + STRIDES + 4]
            arguments[name] = np.asarray(_Placed(record[at + ADDRESS], shape, strides, dtype))
        elif name == "indices":  # their least and largest are what is wrong with them, if anything is
            indices = np.zeros(shape, np.int64)
            if record[at + ADDRESS] == 0:
                indices.flat[0], indices.flat[-1] = record[RESULTS], record[RESULTS + 1]
            arguments[name] = indices
        else:
            arguments[name] = np.broadcast_to(np.zeros((), dtype), shape)
    for i, (name, choices) in enumerate(values):
        at = VALUES + OF_VALUE * i
        form = record[at + FORM]
        if form == NONE:
            arguments[name] = None
        elif form == NAME:
            arguments[name] = choices[record[at + FIRST]]
        else:
            arguments[name] = value_of(form, record[at + FIRST : at + OF_VALUE])
    return function, arguments
