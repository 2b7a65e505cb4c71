"""Entries of padding, pooling and columns: they check a record, then call those that compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms.averaging import INSIDE, PADDED
from ..geometry import Geometry
from ..parsing import LARGEST
from ..runtime.entries import Entry
from ..runtime.options import kernel
from . import moving
from .arguments import _COPY_32, _COPY_64, call_of_size, checking, dense, has_array, room_for, size_of, slots
from .geometry import CONSTANT, can_show, pair, window_geometry, with_ceil_mode
from .jobs import address_of, job_of
from .record import (
    ADDRESS,
    CHECK,
    DIMENSIONS,
    FIRST,
    FORM,
    ITEM,
    MOST_BYTES,
    NONE,
    RESULTS,
    STAGE,
    fits,
    of_array,
    of_value,
    record_at,
    set_result,
    shape_of,
)
from .refusals import refuse

_PAD_32, _PAD_64 = slots(moving.PAD)
_UNPAD_32, _UNPAD_64 = slots(moving.PAD_BACKWARD)
_IM2COL_32, _IM2COL_64 = slots(moving.IM2COL)
_COL2IM_32, _COL2IM_64 = slots(moving.COL2IM)
_MAX_32, _MAX_64 = slots(moving.MAX_POOL)
_SCATTER_32, _SCATTER_64 = slots(moving.MAX_POOL_BACKWARD)
_MEAN_32, _MEAN_64 = slots(moving.AVG_POOL)
_UNMEAN_32, _UNMEAN_64 = slots(moving.AVG_POOL_BACKWARD)


# --- padding --------------------------------------------------------------------------------------------------------


@kernel
def _counts(r: Any, i: Any) -> Any:
    """Whether the counts of value `i` can be, and top, bottom, left and right."""
    at = of_value(i) + FIRST
    top, bottom, left, right = r[at], r[at + 1], r[at + 2], r[at + 3]
    least, largest = min(min(top, bottom), min(left, right)), max(max(top, bottom), max(left, right))
    return least >= 0 and largest <= LARGEST, top, bottom, left, right


@kernel
def _padding(batch: Any, channels: Any, height: Any, width: Any, top: Any, bottom: Any, left: Any, right: Any) -> Any:
    """The geometry of padding an image of height and width."""
    return Geometry(
        batch, channels, height, width, channels, 0, 0, 1, 1, 1, 1, 1, 1, top, bottom, left, right, max(channels, 1)
    )


@kernel
def _tables_fit(g: Geometry) -> Any:
    """Whether the tables of positions fit anywhere."""
    longest = max(g.in_h + g.pad_top + g.pad_bottom, g.in_w + g.pad_left + g.pad_right)
    return fits(4, longest, 1, 1, 8)


def _pad2d(address: Any) -> Any:
    """x; padding, mode, value (its bits)."""
    r = record_at(address)
    ok, top, bottom, left, right = _counts(r, 0)
    if not ok:
        return refuse(r)
    batch, channels, height, width = shape_of(r, 0)
    g, mode = _padding(batch, channels, height, width, top, bottom, left, right), r[of_value(1) + FIRST]
    ok = can_show(mode, height, width, top, bottom, left, right) and _tables_fit(g)
    if not (set_result(r, 0, batch, channels, height + top + bottom, width + left + right) and ok):
        return refuse(r)
    if r[STAGE] == CHECK or batch * channels * (height + top + bottom) * (width + left + right) == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    job = job_of(g, dense(r, 0, size, room), 0, 0, r[RESULTS], mode, r[of_value(2) + FIRST])
    return call_of_size(size, _PAD_32, _PAD_64, job)


def _pad2d_backward(address: Any) -> Any:
    """grad_output; padding, mode."""
    r = record_at(address)
    ok, top, bottom, left, right = _counts(r, 0)
    batch, channels, padded_h, padded_w = shape_of(r, 0)
    if not ok or top + bottom > padded_h or left + right > padded_w:
        return refuse(r)
    height, width = padded_h - top - bottom, padded_w - left - right
    g, mode = _padding(batch, channels, height, width, top, bottom, left, right), r[of_value(1) + FIRST]
    ok = can_show(mode, height, width, top, bottom, left, right) and _tables_fit(g)
    if not (set_result(r, 0, batch, channels, height, width) and ok):
        return refuse(r)
    if r[STAGE] == CHECK or batch * channels * height * width == 0:
        return 0
    size, at = r[ITEM], of_array(0)
    if mode == CONSTANT:  # what lies inside
        inside = r[at + ADDRESS] + top * r[at + 8] + left * r[at + 9]
        copied = np.array((
            inside, batch, channels, height, width, r[at + 6], r[at + 7], r[at + 8], r[at + 9], r[RESULTS]
        ), np.int64)  # fmt: skip
        return call_of_size(size, _COPY_32, _COPY_64, copied)
    room = room_for(r, 0, size)
    job = job_of(g, dense(r, 0, size, room), 0, 0, r[RESULTS], mode, 0)
    return call_of_size(size, _UNPAD_32, _UNPAD_64, job)


# --- pooling --------------------------------------------------------------------------------------------------------


@kernel
def _pooling(r: Any, first: Any, batch: Any, channels: Any, height: Any, width: Any) -> Any:
    """The geometry of pooling; from value `first` on kernel size, stride, padding, dilation, ceil_mode."""
    sound, kernel_h, kernel_w = pair(r, first, 1)
    ok, g = window_geometry(
        r, batch, channels, height, width, channels, kernel_h, kernel_w, max(channels, 1), first + 1, first + 2,
        first + 3, True,
    )  # fmt: skip
    ok = ok and sound and max(g.pad_top, g.pad_bottom) <= (kernel_h - 1) * g.dilation_h
    ok = ok and max(g.pad_left, g.pad_right) <= (kernel_w - 1) * g.dilation_w
    if ok and r[of_value(first + 4) + FIRST] != 0:
        g = with_ceil_mode(g)
    return ok and min(g.out_h, g.out_w) >= 1, g


@kernel
def _outputs(g: Geometry) -> Any:
    return g.batch * g.in_channels * g.out_h * g.out_w


def _max_pool2d(address: Any) -> Any:
    """x; kernel_size, stride, padding, dilation, ceil_mode, return_indices; maxima and, if asked for, indices."""
    r = record_at(address)
    batch, channels, height, width = shape_of(r, 0)
    ok, g = _pooling(r, 0, batch, channels, height, width)
    ok = set_result(r, 0, batch, channels, g.out_h, g.out_w) and ok
    if not (set_result(r, 1, batch, channels, g.out_h, g.out_w) and ok):
        return refuse(r)
    if r[STAGE] == CHECK or _outputs(g) == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    own = np.empty(_outputs(g) if r[RESULTS + 1] == 0 else 0, np.int64)
    indices = address_of(own) if r[RESULTS + 1] == 0 else r[RESULTS + 1]
    job = job_of(g, dense(r, 0, size, room), indices, 0, r[RESULTS], 0, 0)
    return call_of_size(size, _MAX_32, _MAX_64, job)


@kernel
def _has_outputs(r: Any, i: Any, g: Geometry) -> Any:
    n, c, h, w = shape_of(r, i)
    return n == g.batch and c == g.in_channels and h == g.out_h and w == g.out_w


def _max_pool2d_backward(address: Any) -> Any:
    """grad_output, x, indices; kernel_size, stride, padding, dilation, ceil_mode."""
    r = record_at(address)
    batch, channels, height, width = shape_of(r, 1)
    ok, g = _pooling(r, 0, batch, channels, height, width)
    ok = ok and r[of_array(0) + DIMENSIONS] == r[of_array(1) + DIMENSIONS] and _has_outputs(r, 0, g)
    if has_array(r, 2):
        ok = ok and r[of_array(2) + DIMENSIONS] == r[of_array(0) + DIMENSIONS] and _has_outputs(r, 2, g)
    if not (set_result(r, 0, batch, channels, height, width) and ok):
        return refuse(r)
    if r[STAGE] == CHECK or size_of(r, 1) == 0:
        return 0
    size = r[ITEM]
    of_dy, of_x, of_indices = room_for(r, 0, size), room_for(r, 1, size), room_for(r, 2, 8)
    own = np.empty(0 if has_array(r, 2) else _outputs(g), np.int64)
    best = np.empty(0 if has_array(r, 2) else (_outputs(g) * size + 7) // 8, np.int64)
    status = 0
    if has_array(r, 2):
        indices = dense(r, 2, 8, of_indices)
        least, largest = moving.extremes(indices, _outputs(g))
        if least < -1 or largest >= height * width:
            r[RESULTS], r[RESULTS + 1], r[of_array(2) + ADDRESS] = least, largest, 0
            return refuse(r)
    else:
        indices = address_of(own)
        if own.size > 0:
            job = job_of(g, dense(r, 1, size, of_x), indices, 0, address_of(best), 0, 0)
            status = call_of_size(size, _MAX_32, _MAX_64, job)
    if status == 0:
        job = job_of(g, dense(r, 0, size, of_dy), indices, 0, r[RESULTS], 0, 0)
        status = call_of_size(size, _SCATTER_32, _SCATTER_64, job)
    return status


@kernel
def _divisor(r: Any, i: Any) -> Any:
    """Whether values `i` and `i + 1`, count_include_pad and divisor_override, can be, and what sums are divided by."""
    at = of_value(i + 1)
    if r[at + FORM] == NONE:
        return True, PADDED if r[of_value(i) + FIRST] != 0 else INSIDE
    divisor = r[at + FIRST]
    return divisor != 0 and -LARGEST <= divisor <= LARGEST, divisor


def _avg_pool2d(address: Any) -> Any:
    """x; kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override."""
    r = record_at(address)
    batch, channels, height, width = shape_of(r, 0)
    ok, g = _pooling(r, 0, batch, channels, height, width)
    sound, divisor = _divisor(r, 5)
    if not (set_result(r, 0, batch, channels, g.out_h, g.out_w) and ok and sound):
        return refuse(r)
    if r[STAGE] == CHECK or _outputs(g) == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    job = job_of(g, dense(r, 0, size, room), 0, 0, r[RESULTS], divisor, 0)
    return call_of_size(size, _MEAN_32, _MEAN_64, job)


def _avg_pool2d_backward(address: Any) -> Any:
    """grad_output; input_size, and what `_avg_pool2d` takes."""
    r = record_at(address)
    sound, height, width = pair(r, 0, 0)
    fine, divisor = _divisor(r, 6)
    if not (sound and fine):
        return refuse(r)
    batch, channels, _, _ = shape_of(r, 0)
    ok, g = _pooling(r, 1, batch, channels, height, width)
    if not (set_result(r, 0, batch, channels, height, width) and ok and _has_outputs(r, 0, g)):
        return refuse(r)
    if r[STAGE] == CHECK or batch * channels * height * width == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    job = job_of(g, dense(r, 0, size, room), 0, 0, r[RESULTS], divisor, 0)
    return call_of_size(size, _UNMEAN_32, _UNMEAN_64, job)


# --- columns --------------------------------------------------------------------------------------------------------


@kernel
def _columns(r: Any, first: Any, batch: Any, channels: Any, height: Any, width: Any) -> Any:
    """The geometry of columns; from value `first` on kernel size, stride, padding, dilation."""
    sound, kernel_h, kernel_w = pair(r, first, 1)
    ok, g = window_geometry(
        r, batch, channels, height, width, channels, kernel_h, kernel_w, max(channels, 1), first + 1, first + 2,
        first + 3, False,
    )  # fmt: skip
    return ok and sound, g


def _im2col(address: Any) -> Any:
    """x; kernel_size, stride, padding, dilation."""
    r = record_at(address)
    batch, channels, height, width = shape_of(r, 0)
    ok, g = _columns(r, 0, batch, channels, height, width)
    taps = float(g.kernel_h) * float(g.kernel_w)
    ok = ok and taps * float(g.out_h) * float(g.out_w) * float(max(batch * channels, 1)) < MOST_BYTES
    if not ok:
        return refuse(r)
    rows = channels * g.kernel_h * g.kernel_w
    if not set_result(r, 0, 1, batch, rows, g.out_h * g.out_w):
        return refuse(r)
    if r[STAGE] == CHECK or batch * rows * g.out_h * g.out_w == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    job = job_of(g, dense(r, 0, size, room), 0, 0, r[RESULTS], 0, 0)
    return call_of_size(size, _IM2COL_32, _IM2COL_64, job)


def _col2im(address: Any) -> Any:
    """columns; image_size, kernel_size, stride, padding, dilation."""
    r = record_at(address)
    sound, height, width = pair(r, 0, 0)
    fine, kernel_h, kernel_w = pair(r, 1, 1)
    _, batch, rows, positions = shape_of(r, 0)
    if not (sound and fine) or rows % (kernel_h * kernel_w) != 0:
        return refuse(r)
    channels = rows // (kernel_h * kernel_w)
    ok, g = _columns(r, 1, batch, channels, height, width)
    ok = ok and float(g.out_h) * float(g.out_w) < MOST_BYTES and positions == g.out_h * g.out_w
    if not (set_result(r, 0, batch, channels, height, width) and ok):
        return refuse(r)
    if r[STAGE] == CHECK or batch * channels * height * width == 0:
        return 0
    size = r[ITEM]
    room = room_for(r, 0, size)
    job = job_of(g, dense(r, 0, size, room), 0, 0, r[RESULTS], 0, 0)
    return call_of_size(size, _COL2IM_32, _COL2IM_64, job)


PAD2D = checking(_pad2d)
PAD2D_BACKWARD = checking(_pad2d_backward)
MAX_POOL2D = checking(_max_pool2d)
MAX_POOL2D_BACKWARD = Entry(_max_pool2d_backward)  # which looks at all indices
AVG_POOL2D = checking(_avg_pool2d)
AVG_POOL2D_BACKWARD = checking(_avg_pool2d_backward)
IM2COL = checking(_im2col)
COL2IM = checking(_col2im)
