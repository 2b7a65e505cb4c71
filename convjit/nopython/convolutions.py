"""Entries of convolution and its gradients: they check a record, then call those that compute.

The order is that of the front door in Python: geometry, shapes, padding, products.
"""

from __future__ import annotations

from typing import Any

from ..geometry import Geometry
from ..runtime.entries import clear
from ..runtime.options import kernel
from . import depthwise, moving, outputs, products
from .arguments import (
    call_of_size,
    checking,
    dense,
    has_array,
    mode_of,
    padded_images,
    room_for,
    room_for_padded,
    slots,
)
from .geometry import CONSTANT, can_show, conv_geometry, pair, transposed_geometry, without_padding
from .jobs import address_of, job_of
from .record import (
    CHECK,
    DIMENSIONS,
    FIRST,
    ITEM,
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

_FORWARD_32, _FORWARD_64 = slots(products.FORWARD)
_EACH_32, _EACH_64 = slots(depthwise.FORWARD)
_EACH_INPUT_32, _EACH_INPUT_64 = slots(depthwise.INPUT_GRAD)
_INPUT_32, _INPUT_64 = slots(products.INPUT_GRAD)
_WEIGHT_32, _WEIGHT_64 = slots(products.WEIGHT_GRAD)
_BIAS_32, _BIAS_64 = slots(products.BIAS_GRAD)
_UNPAD_32, _UNPAD_64 = slots(moving.PAD_BACKWARD)
_ADD_32, _ADD_64 = slots(moving.ADD_BIAS)


# --- the three products, of C-contiguous arrays ---------------------------------------------------------------------


@kernel
def _as_one_row(g: Geometry) -> Any:
    """A 1x1 kernel sees an image as one long row."""
    plain = g.kernel_h * g.kernel_w * g.stride_h * g.stride_w == 1
    plain = plain and g.pad_top + g.pad_bottom + g.pad_left + g.pad_right == 0
    if not plain or g.in_h != g.out_h or g.in_w != g.out_w:
        return g
    return Geometry(
        g.batch, g.in_channels, 1, g.in_h * g.in_w, g.out_channels, 1, g.out_h * g.out_w, 1, 1, 1, 1, g.dilation_h,
        g.dilation_w, 0, 0, 0, 0, g.groups,
    )  # fmt: skip


@kernel
def _forward(size: Any, g: Geometry, x: Any, weight: Any, bias: Any, y: Any) -> Any:
    if y == 0 or g.batch * g.out_channels * g.out_h * g.out_w == 0:
        return 0
    if depthwise.takes(g, size, _EACH_32 if size == 4 else _EACH_64):
        return call_of_size(size, _EACH_32, _EACH_64, job_of(g, x, weight, bias, y, 0, 0))
    return call_of_size(size, _FORWARD_32, _FORWARD_64, job_of(_as_one_row(g), x, weight, bias, y, 0, 0))


@kernel
def _input_grad(size: Any, g: Geometry, dy: Any, weight: Any, dx: Any) -> Any:
    if dx == 0 or g.batch * g.in_channels * g.in_h * g.in_w == 0:
        return 0
    if depthwise.takes(g, size, _EACH_INPUT_32 if size == 4 else _EACH_INPUT_64):
        return call_of_size(size, _EACH_INPUT_32, _EACH_INPUT_64, job_of(g, dy, weight, 0, dx, 0, 0))
    return call_of_size(size, _INPUT_32, _INPUT_64, job_of(_as_one_row(g), dy, weight, 0, dx, 0, 0))


@kernel
def _weight_grad(size: Any, g: Geometry, dy: Any, x: Any, dw: Any) -> Any:
    elements = g.out_channels * (g.in_channels // g.groups) * g.kernel_h * g.kernel_w
    if dw == 0 or elements == 0:
        return 0
    if g.batch * g.out_h * g.out_w == 0:
        clear(dw, elements * size)
        return 0
    return call_of_size(size, _WEIGHT_32, _WEIGHT_64, job_of(_as_one_row(g), dy, x, 0, dw, 0, 0))


@kernel
def _bias_grad(size: Any, g: Geometry, dy: Any, db: Any) -> Any:
    if db == 0 or g.out_channels == 0:
        return 0
    if g.batch * g.out_h * g.out_w == 0:
        clear(db, g.out_channels * size)
        return 0
    return call_of_size(size, _BIAS_32, _BIAS_64, job_of(g, dy, 0, 0, db, 0, 0))


@kernel
def _input_grad_padded(size: Any, g: Geometry, mode: Any, dy: Any, weight: Any, dx: Any, room: Any) -> Any:
    """The same through a padding mode's adjoint, with a place for the padded gradient."""
    if room.size == 0:
        if mode != CONSTANT:
            return 0
        return _input_grad(size, g, dy, weight, dx)
    status = _input_grad(size, without_padding(g), dy, weight, address_of(room))
    if status == 0 and dx != 0 and g.in_h * g.in_w > 0:
        status = call_of_size(size, _UNPAD_32, _UNPAD_64, job_of(g, address_of(room), 0, 0, dx, mode, 0))
    return status


# --- checks ---------------------------------------------------------------------------------------------------------


@kernel
def _shows(r: Any, g: Geometry, mode: Any) -> Any:
    """Whether the mode can fill the padding, and the padded images fit anywhere."""
    padded_h, padded_w = g.in_h + g.pad_top + g.pad_bottom, g.in_w + g.pad_left + g.pad_right
    shows = can_show(mode, g.in_h, g.in_w, g.pad_top, g.pad_bottom, g.pad_left, g.pad_right)
    return shows and (mode == CONSTANT or fits(g.batch, g.in_channels, padded_h, padded_w, r[ITEM]))


@kernel
def _is_output(r: Any, i: Any, g: Geometry) -> Any:
    """Whether array `i` has the shape of the convolution's result."""
    n, o, h, w = shape_of(r, i)
    return n == g.batch and o == g.out_channels and h == g.out_h and w == g.out_w


@kernel
def _is_input(r: Any, i: Any, g: Geometry) -> Any:
    n, c, h, w = shape_of(r, i)
    return n == g.batch and c == g.in_channels and h == g.in_h and w == g.in_w


@kernel
def _alike(r: Any, i: Any, j: Any) -> Any:
    """Whether both arrays are batches, or single images."""
    return r[of_array(i) + DIMENSIONS] == r[of_array(j) + DIMENSIONS]


# --- entries --------------------------------------------------------------------------------------------------------


def _conv2d(address: Any) -> Any:
    """x, weight, bias, out; stride, padding, dilation, groups, padding_mode."""
    r = record_at(address)
    ok, g = conv_geometry(r, shape_of(r, 0), shape_of(r, 1), 0, 1, 2, 3)
    mode = mode_of(r, 4, g) if ok else CONSTANT
    ok = set_result(r, 0, g.batch, g.out_channels, g.out_h, g.out_w) and ok and _shows(r, g, mode)
    if has_array(r, 2):
        ok = ok and shape_of(r, 2)[3] == g.out_channels
    if has_array(r, 3) and ok:
        ok = outputs.takes(r, 3, 0, g.batch, g.out_channels, g.out_h, g.out_w, r[ITEM])
        for i in range(3):
            ok = ok and not outputs.overlap(r, 3, i, r[ITEM])
    if not ok:
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    size = r[ITEM]
    of_x, of_weight, of_bias = room_for(r, 0, size), room_for(r, 1, size), room_for(r, 2, size)
    room = room_for_padded(r, g, mode)
    status, images = padded_images(r, g, mode, dense(r, 0, size, of_x), room)
    bias = dense(r, 2, size, of_bias) if has_array(r, 2) else 0
    inner = g if mode == CONSTANT else without_padding(g)
    if status == 0:
        status = _forward(size, inner, images, dense(r, 1, size, of_weight), bias, r[RESULTS])
    return status


def _conv2d_backward(address: Any) -> Any:
    """grad_output, x, weight; stride, padding, dilation, groups, padding_mode, need; three gradients."""
    r = record_at(address)
    ok, g = conv_geometry(r, shape_of(r, 1), shape_of(r, 2), 0, 1, 2, 3)
    mode = mode_of(r, 4, g) if ok else CONSTANT
    need = r[of_value(5) + FIRST]  # a bit for each gradient, the input's first
    if need & 3 == 0:
        mode = CONSTANT
    ok = set_result(r, 0, g.batch, g.in_channels, g.in_h, g.in_w) and ok and _shows(r, g, mode)
    n, c, h, w = shape_of(r, 2)
    ok = set_result(r, 1, n, c, h, w) and set_result(r, 2, 1, 1, 1, n) and ok
    if not (ok and _is_output(r, 0, g) and _alike(r, 0, 1)):
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    size = r[ITEM]
    of_dy, of_x, of_weight = room_for(r, 0, size), room_for(r, 1, size), room_for(r, 2, size)
    room = room_for_padded(r, g, mode)
    dy = dense(r, 0, size, of_dy)
    inner, status = g if mode == CONSTANT else without_padding(g), 0
    if r[RESULTS] != 0:
        status = _input_grad_padded(size, g, mode, dy, dense(r, 2, size, of_weight), r[RESULTS], room)
    if status == 0 and r[RESULTS + 1] != 0:
        status, images = padded_images(r, g, mode, dense(r, 1, size, of_x), room)
        if status == 0:
            status = _weight_grad(size, inner, dy, images, r[RESULTS + 1])
    if status == 0:
        status = _bias_grad(size, g, dy, r[RESULTS + 2])
    return status


def _conv2d_input_grad(address: Any) -> Any:
    """grad_output, weight; input_size, stride, padding, dilation, groups, padding_mode."""
    r = record_at(address)
    sound, height, width = pair(r, 0, 0)
    fine, groups, _ = pair(r, 4, 1)
    batch, channels = shape_of(r, 0)[0], shape_of(r, 1)[1]
    if not (sound and fine):
        return refuse(r)
    ok, g = conv_geometry(r, (batch, channels * groups, height, width), shape_of(r, 1), 1, 2, 3, 4)
    mode = mode_of(r, 5, g) if ok else CONSTANT
    ok = set_result(r, 0, g.batch, g.in_channels, g.in_h, g.in_w) and ok and _shows(r, g, mode)
    if not (ok and _is_output(r, 0, g)):
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    size = r[ITEM]
    of_dy, of_weight, room = room_for(r, 0, size), room_for(r, 1, size), room_for_padded(r, g, mode)
    dy, weight = dense(r, 0, size, of_dy), dense(r, 1, size, of_weight)
    return _input_grad_padded(size, g, mode, dy, weight, r[RESULTS], room)


def _conv2d_weight_grad(address: Any) -> Any:
    """grad_output, x; kernel_size, stride, padding, dilation, groups, padding_mode."""
    r = record_at(address)
    sound, kernel_h, kernel_w = pair(r, 0, 0)
    fine, groups, _ = pair(r, 4, 1)
    if not (sound and fine):
        return refuse(r)
    out_channels, channels = shape_of(r, 0)[1], shape_of(r, 1)[1] // groups
    ok, g = conv_geometry(r, shape_of(r, 1), (out_channels, channels, kernel_h, kernel_w), 1, 2, 3, 4)
    mode = mode_of(r, 5, g) if ok else CONSTANT
    ok = set_result(r, 0, out_channels, channels, kernel_h, kernel_w) and ok and _shows(r, g, mode)
    if not (ok and _is_output(r, 0, g) and _alike(r, 0, 1)):
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    size = r[ITEM]
    of_dy, of_x, room = room_for(r, 0, size), room_for(r, 1, size), room_for_padded(r, g, mode)
    status, images = padded_images(r, g, mode, dense(r, 1, size, of_x), room)
    inner = g if mode == CONSTANT else without_padding(g)
    if status == 0:
        status = _weight_grad(size, inner, dense(r, 0, size, of_dy), images, r[RESULTS])
    return status


def _conv_transpose2d(address: Any) -> Any:
    """x, weight, bias; stride, padding, output_padding, groups, dilation, output_size."""
    r = record_at(address)
    ok, g = transposed_geometry(r, shape_of(r, 0), shape_of(r, 1))
    ok = set_result(r, 0, g.batch, g.in_channels, g.in_h, g.in_w) and ok
    if has_array(r, 2):
        ok = ok and shape_of(r, 2)[3] == g.in_channels
    if not ok:
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    size = r[ITEM]
    of_x, of_weight, of_bias = room_for(r, 0, size), room_for(r, 1, size), room_for(r, 2, size)
    status = _input_grad(size, g, dense(r, 0, size, of_x), dense(r, 1, size, of_weight), r[RESULTS])
    if status == 0 and has_array(r, 2):
        job = job_of(g, 0, 0, dense(r, 2, size, of_bias), r[RESULTS], 0, 0)
        status = call_of_size(size, _ADD_32, _ADD_64, job)
    return status


def _conv_transpose2d_backward(address: Any) -> Any:
    """grad_output, x, weight; the same and need; three gradients."""
    r = record_at(address)
    ok, g = transposed_geometry(r, shape_of(r, 1), shape_of(r, 2))
    ok = set_result(r, 0, g.batch, g.out_channels, g.out_h, g.out_w) and ok
    n, c, h, w = shape_of(r, 2)
    ok = set_result(r, 1, n, c, h, w) and set_result(r, 2, 1, 1, 1, g.in_channels) and ok
    if not (ok and _is_input(r, 0, g) and _alike(r, 0, 1)):
        return refuse(r)
    if r[STAGE] == CHECK:
        return 0
    size = r[ITEM]
    of_dy, of_x, of_weight = room_for(r, 0, size), room_for(r, 1, size), room_for(r, 2, size)
    dy = dense(r, 0, size, of_dy)
    status = 0
    if r[RESULTS] != 0:
        status = _forward(size, g, dy, dense(r, 2, size, of_weight), 0, r[RESULTS])
    if status == 0 and r[RESULTS + 1] != 0:
        status = _weight_grad(size, g, dense(r, 1, size, of_x), dy, r[RESULTS + 1])
    if status == 0:
        of_results = Geometry(
            g.batch, g.in_channels, g.in_h, g.in_w, g.in_channels, g.in_h, g.in_w, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1
        )
        status = _bias_grad(size, of_results, dy, r[RESULTS + 2])
    return status


CONV2D = checking(_conv2d)
CONV2D_BACKWARD = checking(_conv2d_backward)
CONV2D_INPUT_GRAD = checking(_conv2d_input_grad)
CONV2D_WEIGHT_GRAD = checking(_conv2d_weight_grad)
CONV_TRANSPOSE2D = checking(_conv_transpose2d)
CONV_TRANSPOSE2D_BACKWARD = checking(_conv_transpose2d_backward)
