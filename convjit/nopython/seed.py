"""Entries of the seed's functions: paddings, indices, and columns with the batch fastest."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..parsing import LARGEST
from ..runtime.entries import Entry, array_at
from ..runtime.options import kernel
from . import moving
from .arguments import _COPY_32, _COPY_64, call_of_size, checking, dense, room_for, slots
from .geometry import SAME_LOWER, SAME_UPPER, pads_of, pair, window_geometry
from .jobs import DTYPES, address_of, job_of
from .record import (
    ADDRESS,
    CHECK,
    FIRST,
    FORM,
    ITEM,
    MOST_VALUES,
    NAME,
    RESULTS,
    SECOND,
    STAGE,
    STRIDES,
    fits,
    of_array,
    of_value,
    record_at,
    set_result,
    shape_of,
)
from .refusals import refuse

_IM2COL_32, _IM2COL_64 = slots(moving.IM2COL)
_WIDEN_32, _WIDEN_64 = slots(moving.WIDEN)
_, _COL2IM_64 = slots(moving.COL2IM)

# Images are folded in float64, whatever the columns are.
FOLDED = dict.fromkeys(DTYPES, moving.COL2IM[DTYPES[1]])

# A value that none of the functions has: their dilation.
_ONE = MOST_VALUES - 1


@kernel
def _window(r: Any, filter_at: Any, stride_at: Any, padding_at: Any, n: Any, c: Any, h: Any, w: Any) -> Any:
    """Whether all is well, and the geometry of a filter over images (n, c, h, w)."""
    r[of_value(_ONE) + FIRST] = r[of_value(_ONE) + SECOND] = 1
    sound, kernel_h, kernel_w = pair(r, filter_at, 1)
    sound = sound and min(min(n, c), min(h, w)) >= 0 and max(max(n, c), max(h, w)) <= LARGEST
    ok, g = window_geometry(r, n, c, h, w, c, kernel_h, kernel_w, max(c, 1), stride_at, padding_at, _ONE, False)
    return ok and sound and fits(c * kernel_h, kernel_w, g.out_h, g.out_w, 8), g


@kernel
def _shape(r: Any, i: Any) -> Any:
    """The four numbers of value `i`."""
    at = of_value(i) + FIRST
    return r[at], r[at + 1], r[at + 2], r[at + 3]


def _determine_padding(address: Any) -> Any:
    """filter_shape, output_shape; one result, ((top, bottom), (left, right))."""
    r = record_at(address)
    sound, kernel_h, kernel_w = pair(r, 0, 1)
    if (
        not sound or r[of_value(1) + FORM] != NAME or r[of_value(1) + FIRST] in (SAME_UPPER, SAME_LOWER)
    ):  # which need an image's size
        return refuse(r)
    ok, top, bottom, left, right = pads_of(r, 1, kernel_h, kernel_w, 1, 1, 1, 1, 0, 0, False)
    if not (set_result(r, 0, 1, 1, 2, 2) and ok):
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    pads = array_at(r[RESULTS], (4,), 0)
    pads[0], pads[1], pads[2], pads[3] = top, bottom, left, right
    return 0


def _get_im2col_indices(address: Any) -> Any:
    """images_shape, filter_shape, padding, stride; channels, rows and columns of pixels."""
    r = record_at(address)
    n, c, h, w = _shape(r, 0)
    ok, g = _window(r, 1, 3, 2, n, c, h, w)
    if not ok:
        return refuse(r)
    taps, positions = g.kernel_h * g.kernel_w, g.out_h * g.out_w
    rows = c * taps
    of_channels, of_rows = set_result(r, 0, 1, 1, rows, 1), set_result(r, 1, 1, 1, rows, positions)
    if not (set_result(r, 2, 1, 1, rows, positions) and of_channels and of_rows):
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    k = array_at(r[RESULTS], (rows,), 0)
    i, j = array_at(r[RESULTS + 1], (rows, positions), 0), array_at(r[RESULTS + 2], (rows, positions), 0)
    for row in range(rows):
        k[row] = row // taps
        kh, kw = row // g.kernel_w % g.kernel_h, row % g.kernel_w
        for position in range(positions):
            i[row, position] = kh + position // g.out_w * g.stride_h
            j[row, position] = kw + position % g.out_w * g.stride_w
    return 0


def _image_to_column(address: Any) -> Any:
    """images; filter_shape, stride, output_shape."""
    r = record_at(address)
    n, c, h, w = shape_of(r, 0)
    ok, g = _window(r, 0, 1, 2, n, c, h, w)
    if not ok:
        return refuse(r)
    rows, positions = c * g.kernel_h * g.kernel_w, g.out_h * g.out_w
    if not (fits(n, rows, positions, 1, 8) and set_result(r, 0, 1, 1, rows, positions * n)):
        return refuse(r)
    if r[STAGE] == CHECK or n * rows * positions == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    columns = np.empty((n * rows * positions * size + 7) // 8, np.int64)
    job = job_of(g, dense(r, 0, size, room), 0, 0, address_of(columns), 0, 0)
    status = call_of_size(size, _IM2COL_32, _IM2COL_64, job)
    if status == 0:
        turned = np.array((
            address_of(columns), 1, rows, positions, n, 0, positions * size, size, rows * positions * size, r[RESULTS]
        ), np.int64)  # fmt: skip
        status = call_of_size(size, _COPY_32, _COPY_64, turned)
    return status


def _column_to_image(address: Any) -> Any:
    """cols; images_shape, filter_shape, stride, output_shape; the result is of float64."""
    r = record_at(address)
    n, c, h, w = _shape(r, 0)
    ok, g = _window(r, 1, 2, 3, n, c, h, w)
    if not ok:
        return refuse(r)
    rows, positions = c * g.kernel_h * g.kernel_w, g.out_h * g.out_w
    _, _, height, width = shape_of(r, 0)
    ok = fits(n, rows, positions, 1, 8) and height == rows and width == positions * n
    if not (set_result(r, 0, n, c, h, w) and ok):
        return refuse(r)
    if r[STAGE] == CHECK or n * c * h * w == 0:
        return 0
    size, at = r[ITEM], of_array(0)
    of_row, of_col = r[at + STRIDES + 2], r[at + STRIDES + 3]
    batched = np.empty(n * rows * positions, np.int64)
    widened = np.array((
        r[at + ADDRESS], 1, n, rows, positions, 0, of_col, of_row, n * of_col, address_of(batched)
    ), np.int64)  # fmt: skip
    status = call_of_size(size, _WIDEN_32, _WIDEN_64, widened)
    if status == 0:
        job = job_of(g, address_of(batched), 0, 0, r[RESULTS], 0, 0)
        status = call_of_size(8, _COL2IM_64, _COL2IM_64, job)
    return status


DETERMINE_PADDING = checking(_determine_padding)
GET_IM2COL_INDICES = Entry(_get_im2col_indices)
IMAGE_TO_COLUMN = checking(_image_to_column)
COLUMN_TO_IMAGE = checking(_column_to_image)
