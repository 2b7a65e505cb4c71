"""The record of a call: what a compiled caller writes down, and entries and error messages read.

A flat array of 64-bit integers:

=============  =====================================================================================
`FUNCTION`     which public function, an index of `rows.ROWS`
`STAGE`        `CHECK`: check and fill in `SHAPES`; `RUN`: compute into `RESULTS`
`ITEM`         bytes an element
`RESULTS`      addresses of the results, 0 for one that is not needed
`SHAPES`       their shapes, four numbers each, the last axes last
`ARRAYS`       for each array its dimensions (0: None), its address, four extents and four strides
`VALUES`       for each value its form, and four numbers
=============  =====================================================================================

Arrays of fewer than four dimensions have leading axes of one. A value of one number has it four times, a pair of
numbers (a, b) is (a, a, b, b), and two pairs are what they are: so a pair's numbers are at `FIRST` and `SECOND`.
"""

from __future__ import annotations

from typing import Any

from ..runtime.entries import array_at
from ..runtime.options import kernel

FUNCTION = 0
STAGE = 1
CHECK, RUN = 0, 1
ITEM = 2
RESULTS = 3
MOST_RESULTS = 3
SHAPES = RESULTS + MOST_RESULTS
ARRAYS = SHAPES + 4 * MOST_RESULTS
MOST_ARRAYS = 4
OF_ARRAY = 10  # entries an array
DIMENSIONS, ADDRESS, SHAPE, STRIDES = 0, 1, 2, 6  # of an array
VALUES = ARRAYS + OF_ARRAY * MOST_ARRAYS
MOST_VALUES = 10
OF_VALUE = 5
FORM, FIRST, SECOND = 0, 1, 3  # of a value
ENTRIES = VALUES + OF_VALUE * MOST_VALUES

# Forms of a value; those from `NUMBERS` on say how numbers were nested, for messages.
NONE, NAME, NUMBERS = 0, 1, 2
# Four numbers in a row.
FOUR = 99

# Results and workspaces of more bytes than this fit nowhere.
MOST_BYTES = 1 << 46


@kernel
def record_at(address: Any) -> Any:
    """The record at an address."""
    return array_at(address, (ENTRIES,), 0)


@kernel
def of_array(i: Any) -> Any:
    """Where array `i` begins."""
    return ARRAYS + OF_ARRAY * i


@kernel
def of_value(i: Any) -> Any:
    """Where value `i` begins."""
    return VALUES + OF_VALUE * i


@kernel
def shape_of(r: Any, i: Any) -> Any:
    """The shape of array `i`, with leading axes of one."""
    at = ARRAYS + OF_ARRAY * i + SHAPE
    return r[at], r[at + 1], r[at + 2], r[at + 3]


@kernel
def set_result(r: Any, i: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Write the shape of result `i`; whether it can fit anywhere."""
    at = SHAPES + 4 * i
    r[at], r[at + 1], r[at + 2], r[at + 3] = a, b, c, d
    return fits(a, b, c, d, 8)


@kernel
def fits(a: Any, b: Any, c: Any, d: Any, size: Any) -> Any:
    """Whether so many elements of `size` bytes fit anywhere."""
    return float(a) * float(b) * float(c) * float(d) * float(size) < MOST_BYTES


# --- forms, in Python -----------------------------------------------------------------------------------------------


def form_of(sides: list[int] | None) -> int:
    """The form of a number (None), or of a sequence whose entries are numbers (0) or sequences of 1 or 2 numbers."""
    if sides is None:
        return NUMBERS
    return NUMBERS + 1 + 9 * (len(sides) - 1) + 3 * sides[0] + sides[-1]


def value_of(form: int, numbers: list[int]) -> Any:
    """The value as the caller wrote it."""
    if form == NUMBERS:
        return numbers[0]
    if form == FOUR:
        return tuple(numbers)
    code = form - NUMBERS - 1
    sides = [code % 9 // 3, code % 3][-1 - code // 9 :]
    return tuple(numbers[2 * i] if side == 0 else tuple(numbers[2 * i : 2 * i + side]) for i, side in enumerate(sides))
