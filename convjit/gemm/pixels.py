"""Where a convolution reads images (N, H, W, C): pixels with all their channels side by side, and zeros around them.

An image is a plane of one channel whose rows have W*C elements, so that what fills planes fills it too. Nothing is
taken apart for a stride: grid points lie that many pixels apart. Where there is no padding images are read in place.
Knows how far things lie apart, in planes of either layout; does not know what is read from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..geometry import Geometry
from .planes import Axis, backward_axes


class Steps(NamedTuple):
    """How far things lie apart in the planes, in elements."""

    row: int  # from what a grid point meets to what the one below it meets
    pixel: int  # and the one to its right
    channel: int
    group: int
    image: int
    rows: int  # rows of a plane from one row of the grid to the next


def plane_steps(axes: tuple[Axis, Axis], groups: int, channels: int) -> Steps:
    """Those of planes that are filled by `axes`, of so many channels a group."""
    vertical, horizontal = axes
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    return Steps(horizontal.padded, 1, each, channels * each, groups * channels * each, 1)


def pixel_steps(axes: tuple[Axis, Axis], groups: int, channels: int, stride: tuple[int, int]) -> Steps:
    """Those of images that are filled by `pixel_axes`, whose grid points lie `stride` pixels apart."""
    vertical, horizontal = axes
    down, right = stride
    row = horizontal.padded
    return Steps(down * row, right * groups * channels, 1, channels, vertical.padded * row, down)


def _forward_axis(out_size: int, kernel_size: int, stride: int, dilation: int, pad: int, in_size: int) -> Axis:
    """Every pixel of the source: tap `k` of output `i` meets pixel `i*stride + k*dilation`."""
    padded = (out_size - 1) * stride + (kernel_size - 1) * dilation + 1
    return Axis(in_size, padded, 1, 1, 0, -pad, out_size, kernel_size, 0, dilation, 0, 1, 0, 1)


@lru_cache(maxsize=64)
def pixel_axes(g: Geometry, is_gradient: bool = False) -> tuple[Axis, Axis]:
    """Both axes of a read of pixels, forward or for an input gradient of stride 1; the horizontal one counts elements.

    Its `grid` and `taps` are still those of pixels.
    """
    if is_gradient:
        vertical, horizontal = backward_axes(g)
        channels = g.out_channels
    else:
        vertical = _forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)
        horizontal = _forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)
        channels = g.in_channels
    if all(axis.first == 0 and axis.padded <= axis.size for axis in (vertical, horizontal)):  # read in place
        vertical, horizontal = (axis._replace(padded=axis.size) for axis in (vertical, horizontal))
    return vertical, horizontal._replace(
        size=horizontal.size * channels, padded=horizontal.padded * channels, first=horizontal.first * channels,
        shift=horizontal.shift * channels, tap_step=horizontal.tap_step * channels,
    )  # fmt: skip
