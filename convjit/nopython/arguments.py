"""Arrays of a record as the computing entries take them: C-contiguous, padded; entries that check, and the choice of
one that computes, by dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..geometry import Geometry
from ..runtime.emitting import Passes
from ..runtime.entries import Entry, call_entry
from ..runtime.options import kernel
from ..runtime.plain import shared
from . import moving
from .geometry import CONSTANT
from .jobs import DTYPES, address_of, job_of
from .record import ADDRESS, DIMENSIONS, FIRST, ITEM, OF_ARRAY, SHAPE, STRIDES, of_array, of_value

_32, _64 = DTYPES


def checking(body: Callable[[Any], Any]) -> Entry:
    """An entry that checks a record and calls those that compute: it has no long loops of its own."""
    return Entry(body, passes=Passes.FEW)


def slots(entries: dict[Any, Any]) -> tuple[int, int]:
    """The rows of the table of a family of entries, for 4 and 8 bytes an element."""
    return entries[_32].slot, entries[_64].slot


_COPY_32, _COPY_64 = slots(moving.COPY)
_PAD_32, _PAD_64 = slots(moving.PAD)


@kernel
def call_of_size(size: Any, slot_32: Any, slot_64: Any, job: Any) -> Any:
    """Call the entry of a dtype."""
    return call_entry(slot_32 if size == 4 else slot_64, job)


@kernel
def has_array(r: Any, i: Any) -> Any:
    """Whether array `i` is not None."""
    return r[of_array(i) + DIMENSIONS] != 0


@kernel
def size_of(r: Any, i: Any) -> Any:
    """Elements of array `i`."""
    at = of_array(i) + SHAPE
    return r[at] * r[at + 1] * r[at + 2] * r[at + 3]


@shared
def is_dense(r: Any, i: Any, size: Any) -> Any:
    """Whether array `i` is C-contiguous and aligned, with so many bytes an element."""
    at, step = of_array(i), size
    dense = r[at + ADDRESS] % size == 0
    for axis in range(3, -1, -1):
        extent = r[at + SHAPE + axis]
        if extent != 1 and r[at + STRIDES + axis] != step:
            dense = False
        step *= extent
    return dense


@kernel
def room_for(r: Any, i: Any, size: Any) -> Any:
    """A place for a C-contiguous copy of array `i`, of so many bytes an element; empty where none is needed."""
    needed = size_of(r, i) * size if has_array(r, i) and not is_dense(r, i, size) else 0
    return np.empty((needed + 7) // 8, np.int64)


@shared
def dense(r: Any, i: Any, size: Any, room: Any) -> Any:
    """The address of array `i`, C-contiguous: its own, or that of a copy in `room_for` it."""
    at = of_array(i)
    if room.size == 0:
        return r[at + ADDRESS]
    job = np.empty(OF_ARRAY, np.int64)
    for k in range(9):
        job[k] = r[at + ADDRESS + k]
    job[9] = address_of(room)
    call_of_size(size, _COPY_32, _COPY_64, job)
    return address_of(room)


@kernel
def mode_of(r: Any, i: Any, g: Geometry) -> Any:
    """The mode of value `i`, constant where there is nothing to pad."""
    padded = max(max(g.pad_top, g.pad_bottom), max(g.pad_left, g.pad_right)) > 0
    return r[of_value(i) + FIRST] if padded else CONSTANT


@kernel
def room_for_padded(r: Any, g: Geometry, mode: Any) -> Any:
    """A place for the padded images; empty where kernels see the padding as zeros."""
    pixels = (g.in_h + g.pad_top + g.pad_bottom) * (g.in_w + g.pad_left + g.pad_right)
    needed = g.batch * g.in_channels * pixels * r[ITEM] if mode != CONSTANT else 0
    return np.empty((needed + 7) // 8, np.int64)


@kernel
def padded_images(r: Any, g: Geometry, mode: Any, images: Any, room: Any) -> Any:
    """The status, and the address of the images, padded where a mode says so."""
    if room.size == 0:
        return 0, images
    status = call_of_size(r[ITEM], _PAD_32, _PAD_64, job_of(g, images, 0, 0, address_of(room), mode, 0))
    return status, address_of(room)
