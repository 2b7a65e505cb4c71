"""Geometries for compiled callers: sizes and padding, and whether a call is one that Python would refuse.

Knows what `convjit.geometry` knows, for records of integers; knows no sentences, which Python writes (`refusals`).
Functions that check return first whether all is well; 64-bit arithmetic holds, since what comes in is checked before.
"""

from __future__ import annotations

from typing import Any

from ..algorithms.padding import PADDING_MODES
from ..geometry import Geometry
from ..parsing import LARGEST, PADDING_NAMES
from ..runtime.options import kernel
from .record import FIRST, FORM, MOST_BYTES, NAME, NONE, SECOND, of_value

# Names are their places in `parsing.PADDING_NAMES` and `algorithms.padding.PADDING_MODES`.
_VALID, _SAME, SAME_UPPER, SAME_LOWER, _FULL = range(5)
CONSTANT, EDGE, REFLECT, SYMMETRIC, WRAP = range(5)
assert PADDING_NAMES == ("valid", "same", "same_upper", "same_lower", "full")
assert PADDING_MODES == ("constant", "edge", "reflect", "symmetric", "wrap"), "`moving` has a branch for each mode here"


@kernel
def pair(r: Any, i: Any, least: Any) -> Any:
    """Whether both numbers of value `i` are in `least..LARGEST`, and they."""
    first, second = r[of_value(i) + FIRST], r[of_value(i) + SECOND]
    return min(first, second) >= least and max(first, second) <= LARGEST, first, second


@kernel
def _axis_padding(r: Any, at: Any, axis: Any, reach: Any, size: Any, stride: Any, transposed: Any) -> Any:
    """The padding before and after; `size` is the image's, or where `transposed` how much there is to cut off."""
    if r[at + FORM] != NAME:
        return r[at + FIRST + 2 * axis], r[at + FIRST + 2 * axis + 1]
    name = r[at + FIRST]
    if name == _VALID:
        return 0, 0
    if name == _FULL:
        return reach, reach
    if name == _SAME:
        return reach // 2, reach - reach // 2
    if transposed:
        total = max(0, size)
    else:
        total = max(0, ((size + stride - 1) // stride - 1) * stride + reach + 1 - size)
    less = total // 2
    return (less, total - less) if name == SAME_UPPER else (total - less, less)


@kernel
def pads_of(
    r: Any, i: Any, kernel_h: Any, kernel_w: Any, stride_h: Any, stride_w: Any, dilation_h: Any, dilation_w: Any,
    height: Any, width: Any, transposed: Any,
) -> Any:  # fmt: skip
    """Whether value `i` can be a padding, and what it means: top, bottom, left and right."""
    at = of_value(i)
    reach_h, reach_w = (kernel_h - 1) * dilation_h, (kernel_w - 1) * dilation_w
    top, bottom = _axis_padding(r, at, 0, reach_h, height, stride_h, transposed)
    left, right = _axis_padding(r, at, 1, reach_w, width, stride_w, transposed)
    largest = max(max(reach_h + 1, reach_w + 1), max(max(top, bottom), max(left, right)))
    ok = min(min(top, bottom), min(left, right)) >= 0 and largest <= LARGEST
    return ok, top, bottom, left, right


@kernel
def window_geometry(
    r: Any, batch: Any, channels: Any, height: Any, width: Any, out_channels: Any, kernel_h: Any, kernel_w: Any,
    groups: Any, stride_at: Any, padding_at: Any, dilation_at: Any, is_pool: Any,
) -> Any:  # fmt: skip
    """The record of a window over images; values are given by place.

    Of a pool the stride may be None, and where no window fits, its caller sees whether one may reach past the end.
    """
    ok, stride_h, stride_w = pair(r, stride_at, 1)
    if is_pool and r[of_value(stride_at) + FORM] == NONE:
        ok, stride_h, stride_w = True, kernel_h, kernel_w
    sound, dilation_h, dilation_w = pair(r, dilation_at, 1)
    ok = ok and sound and min(kernel_h, kernel_w) >= 1 and max(kernel_h, kernel_w) <= LARGEST
    top = bottom = left = right = out_h = out_w = 0
    if ok:
        ok, top, bottom, left, right = pads_of(
            r, padding_at, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, height, width, False
        )
    if ok:
        rows = height + top + bottom - (kernel_h - 1) * dilation_h - 1
        cols = width + left + right - (kernel_w - 1) * dilation_w - 1
        out_h, out_w = rows // stride_h + 1, cols // stride_w + 1
        ok = is_pool or min(out_h, out_w) >= 1
    g = Geometry(
        batch, channels, height, width, out_channels, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w,
        dilation_h, dilation_w, top, bottom, left, right, groups,
    )  # fmt: skip
    return ok, g


@kernel
def conv_geometry(
    r: Any, x_shape: Any, weight_shape: Any, stride_at: Any, padding_at: Any, dilation_at: Any, groups_at: Any
) -> Any:
    """The record of a convolution of images (N, C, H, W) with a weight."""
    batch, channels, height, width = x_shape
    out_channels, group_channels, kernel_h, kernel_w = weight_shape
    fine, groups, _ = pair(r, groups_at, 1)
    safe = max(groups, 1)
    fine = fine and out_channels >= 1 and channels % safe == 0 and out_channels % safe == 0
    fine = fine and group_channels * safe == channels
    ok, g = window_geometry(
        r, batch, channels, height, width, out_channels, kernel_h, kernel_w, safe, stride_at, padding_at, dilation_at,
        False,
    )  # fmt: skip
    return ok and fine, g


@kernel
def transposed_geometry(r: Any, x_shape: Any, weight_shape: Any) -> Any:
    """The record of the convolution that a transposed one transposes: its output is `x`, its input the result.

    Values are stride, padding, output_padding, groups, dilation and output_size.
    """
    batch, channels, height, width = x_shape
    in_channels, group_out, kernel_h, kernel_w = weight_shape
    fine, groups, _ = pair(r, 3, 1)
    ok, stride_h, stride_w = pair(r, 0, 1)
    sound, dilation_h, dilation_w = pair(r, 4, 1)
    fine = fine and ok and sound and min(group_out, min(kernel_h, kernel_w)) >= 1 and in_channels == channels
    fine = fine and channels % max(groups, 1) == 0 and min(height, width) > 0 and max(kernel_h, kernel_w) <= LARGEST
    has_size = r[of_value(5) + FORM] != NONE
    sound, wanted_h, wanted_w = pair(r, 5, 0)
    ok, extra_h, extra_w = pair(r, 2, 0)
    fine = fine and ok and (sound or not has_size)
    top = bottom = left = right = 0
    fine = fine and max(float(height) * float(stride_h), float(width) * float(stride_w)) < MOST_BYTES
    if fine:
        # What the named paddings cut off.
        full_h = (height - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
        full_w = (width - 1) * stride_w + (kernel_w - 1) * dilation_w + 1
        over_h = full_h - (wanted_h if has_size else height * stride_h)
        over_w = full_w - (wanted_w if has_size else width * stride_w)
        fine, top, bottom, left, right = pads_of(
            r, 1, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, over_h, over_w, True
        )
        least_h, least_w = full_h - top - bottom, full_w - left - right
        limit_h, limit_w = max(stride_h, dilation_h), max(stride_w, dilation_w)
        fine = fine and extra_h < limit_h and extra_w < limit_w
        if has_size:
            more_h, more_w = wanted_h - least_h, wanted_w - least_w
            fine = fine and 0 <= more_h < limit_h and 0 <= more_w < limit_w
            fine = fine and (max(extra_h, extra_w) == 0 or (more_h == extra_h and more_w == extra_w))
        else:
            wanted_h, wanted_w = least_h + extra_h, least_w + extra_w
            padding = of_value(1)
            if r[padding + FORM] == NAME and (r[padding + FIRST] == SAME_UPPER or r[padding + FIRST] == SAME_LOWER):
                wanted_h, wanted_w = max(wanted_h, height * stride_h), max(wanted_w, width * stride_w)
        fine = fine and min(wanted_h, wanted_w) >= 1
    g = Geometry(
        batch, group_out * max(groups, 1), wanted_h, wanted_w, channels, height, width, kernel_h, kernel_w, stride_h,
        stride_w, dilation_h, dilation_w, top, bottom, left, right, groups,
    )  # fmt: skip
    return fine, g


@kernel
def with_ceil_mode(g: Geometry) -> Any:
    """The last window, which may be the first one, may reach past the end padding, but not start in it."""
    past_h = (g.in_h + g.pad_top + g.pad_bottom - (g.kernel_h - 1) * g.dilation_h - 1) % g.stride_h != 0
    past_w = (g.in_w + g.pad_left + g.pad_right - (g.kernel_w - 1) * g.dilation_w - 1) % g.stride_w != 0
    more_h = 1 if past_h and g.out_h * g.stride_h < g.in_h + g.pad_top else 0
    more_w = 1 if past_w and g.out_w * g.stride_w < g.in_w + g.pad_left else 0
    return resized(g, g.in_h, g.in_w, g.out_h + more_h, g.out_w + more_w)


@kernel
def resized(g: Geometry, in_h: Any, in_w: Any, out_h: Any, out_w: Any) -> Any:
    """The same window and padding on other sizes."""
    return Geometry(
        g.batch, g.in_channels, in_h, in_w, g.out_channels, out_h, out_w, g.kernel_h, g.kernel_w, g.stride_h,
        g.stride_w, g.dilation_h, g.dilation_w, g.pad_top, g.pad_bottom, g.pad_left, g.pad_right, g.groups,
    )  # fmt: skip


@kernel
def without_padding(g: Geometry) -> Any:
    """The same convolution of images that are padded already."""
    return Geometry(
        g.batch, g.in_channels, g.in_h + g.pad_top + g.pad_bottom, g.in_w + g.pad_left + g.pad_right, g.out_channels,
        g.out_h, g.out_w, g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, 0, 0, 0, 0,
        g.groups,
    )  # fmt: skip


@kernel
def can_show(mode: Any, height: Any, width: Any, top: Any, bottom: Any, left: Any, right: Any) -> Any:
    """Whether a mode can fill so much padding of such an image."""
    vertical, horizontal = max(top, bottom), max(left, right)
    if mode != CONSTANT and ((height == 0 and vertical > 0) or (width == 0 and horizontal > 0)):
        return False
    shows_all = (vertical == 0 or vertical < height) and (horizontal == 0 or horizontal < width)
    return mode != REFLECT or shows_all
