"""Where a convolution reads that takes one pixel at a time: images with zeros around them, in either layout.

For a stride nothing is taken apart, as `planes.forward_axes` does for whoever reads vectors of pixels: grid points lie
that many pixels apart, unless some pixels are not read at all. Where there is no padding images are read in place. An
image (H, W, C) is a plane of one channel whose rows have W*C elements, so that what fills planes fills it too.
Knows how far things lie apart; does not know what is read from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..geometry import Geometry
from .planes import Axis, backward_axes, forward_axes


class Steps(NamedTuple):
    """How far things lie apart in the planes, in elements."""

    row: int  # from what a grid point meets to what the one below it meets
    pixel: int  # and the one to its right
    channel: int
    group: int
    image: int
    rows: int  # rows of a plane from one row of the grid to the next


def plane_steps(axes: tuple[Axis, Axis], groups: int, channels: int, stride: tuple[int, int]) -> Steps:
    """Those of planes that are filled by `plane_axes`, of so many channels a group, for a stride."""
    vertical, horizontal = axes
    down, right = stride[0] // vertical.step, stride[1] // horizontal.step
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    return Steps(down * horizontal.padded, right, each, channels * each, groups * channels * each, down)


def pixel_steps(axes: tuple[Axis, Axis], groups: int, channels: int, stride: tuple[int, int]) -> Steps:
    """Those of images that are filled by `pixel_axes`."""
    vertical, horizontal = axes
    down, right = stride
    row = horizontal.padded
    return Steps(down * row, right * groups * channels, 1, channels, vertical.padded * row, down)


def _dense_axis(out_size: int, kernel_size: int, stride: int, dilation: int, pad: int, in_size: int) -> Axis:
    """Every pixel of the source: tap `k` of output `i` meets pixel `i*stride + k*dilation`."""
    padded = (out_size - 1) * stride + (kernel_size - 1) * dilation + 1
    return Axis(in_size, padded, 1, 1, 0, -pad, out_size, kernel_size, 0, dilation, 0, 1, 0, 1)


def _axes(g: Geometry, is_gradient: bool, *, all_dense: bool) -> tuple[Axis, Axis]:
    if is_gradient:
        vertical, horizontal = backward_axes(g)
    else:
        vertical, horizontal = (
            parted if parted.phases < stride and not all_dense else dense
            for parted, dense, stride in zip(forward_axes(g), _dense_axes(g), (g.stride_h, g.stride_w), strict=True)
        )
    if all(axis.first == 0 and axis.step == 1 and axis.padded <= axis.size for axis in (vertical, horizontal)):
        vertical, horizontal = (axis._replace(padded=axis.size) for axis in (vertical, horizontal))  # read in place
    return vertical, horizontal


def _dense_axes(g: Geometry) -> tuple[Axis, Axis]:
    return (
        _dense_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h),
        _dense_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w),
    )


@lru_cache(maxsize=64)
def plane_axes(g: Geometry, is_gradient: bool = False) -> tuple[Axis, Axis]:
    """Both axes of a read of planes, forward or for an input gradient of stride 1.

    Rows and columns that no tap meets are left out: 256-512 (1x1, stride 2) took 20 % longer with them.
    """
    return _axes(g, is_gradient, all_dense=False)


@lru_cache(maxsize=64)
def pixel_axes(g: Geometry, is_gradient: bool = False) -> tuple[Axis, Axis]:
    """The same of images with channels last: the horizontal axis counts elements, its `grid` and `taps` pixels."""
    vertical, horizontal = _axes(g, is_gradient, all_dense=True)
    channels = g.out_channels if is_gradient else g.in_channels
    return vertical, horizontal._replace(
        size=horizontal.size * channels, padded=horizontal.padded * channels, first=horizontal.first * channels,
        shift=horizontal.shift * channels, tap_step=horizontal.tap_step * channels,
    )  # fmt: skip
