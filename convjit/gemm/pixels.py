"""Where a convolution reads images (N, H, W, C): pixels with all their channels side by side, and zeros around them.

An image is a plane of one channel whose rows have W*C elements, so that what fills planes fills it too. Nothing is
taken apart for a stride: grid points lie that many pixels apart. Where there is no padding images are read in place.
Knows how far things lie apart, in planes of either layout; does not know what is read from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..geometry import Geometry
from .planes import AS_IN_IMAGE, Axis, Pixel, backward_axes


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


def pixel_steps(
    axes: tuple[Axis, Axis], groups: int, channels: int, stride: tuple[int, int], pixel: Pixel = AS_IN_IMAGE
) -> Steps:
    """Those of images that are filled by `pixel_axes`, whose grid points lie `stride` pixels apart."""
    vertical, horizontal = axes
    down, right = stride
    row = horizontal.padded
    return Steps(down * row, right * (pixel.pitch or groups * channels), 1, channels, vertical.padded * row, down)


def _forward_axis(out_size: int, kernel_size: int, stride: int, dilation: int, pad: int, in_size: int) -> Axis:
    """Every pixel of the source: tap `k` of output `i` meets pixel `i*stride + k*dilation`."""
    padded = (out_size - 1) * stride + (kernel_size - 1) * dilation + 1
    return Axis(in_size, padded, 1, 1, 0, -pad, out_size, kernel_size, 0, dilation, 0, 1, 0, 1)


# Pixels that lie multiples of so many bytes apart meet in few places of the first-level cache, and push one another
# out: those that a few taps meet are then read from the second level for each channel. In planes they are moved apart
# by a cache line. 512-512 (7x7) took 1.96 times as long as with channels first before, on one thread.
_ALIASED, _LINE = 256, 64


@lru_cache(maxsize=64)
def pixel_axes(g: Geometry, itemsize: int, is_gradient: bool = False) -> tuple[tuple[Axis, Axis], Pixel]:
    """Both axes of a read of pixels, forward or for an input gradient of stride 1, and how pixels lie in a plane.

    The horizontal axis counts elements of the plane; its `grid` and `taps` are still those of pixels.
    """
    if is_gradient:
        vertical, horizontal = backward_axes(g)
        channels = g.out_channels
    else:
        vertical = _forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)
        horizontal = _forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)
        channels = g.in_channels
    pixel = AS_IN_IMAGE
    if all(axis.first == 0 and axis.padded <= axis.size for axis in (vertical, horizontal)):  # read in place
        vertical, horizontal = (axis._replace(padded=axis.size) for axis in (vertical, horizontal))
    elif channels > 0 and channels * itemsize % _ALIASED == 0:
        pixel = Pixel(channels, channels + _LINE // itemsize)
    pitch = pixel.pitch or channels
    return (
        vertical,
        horizontal._replace(
            size=horizontal.size * pitch, padded=horizontal.padded * pitch, first=horizontal.first * pitch,
            shift=horizontal.shift * pitch, tap_step=horizontal.tap_step * pitch,
        ),
    ), pixel  # fmt: skip
