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
from ..runtime.memory import CACHE_LINE
from .planes import (
    AS_IN_IMAGE,
    Axis,
    Pixel,
    backward_axis,
    elements_a_channel,
    forward_axes,
    grid_phases,
    plane_elements,
)


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
    each = elements_a_channel(vertical, horizontal)
    return Steps(down * horizontal.padded, right, each, channels * each, groups * channels * each, down)


def pixel_steps(
    axes: tuple[Axis, Axis], groups: int, channels: int, stride: tuple[int, int], pixel: Pixel = AS_IN_IMAGE
) -> Steps:
    """Those of images that are filled by `pixel_axes`."""
    vertical, horizontal = axes
    down, right = stride
    row = horizontal.padded
    return Steps(down * row, right * (pixel.pitch or groups * channels), 1, channels, vertical.padded * row, down)


def _dense_axis(out_size: int, kernel_size: int, stride: int, dilation: int, pad: int, in_size: int) -> Axis:
    """Every pixel of the source: tap `k` of output `i` meets pixel `i*stride + k*dilation`."""
    padded = (out_size - 1) * stride + (kernel_size - 1) * dilation + 1
    return Axis(in_size, padded, 1, 1, 0, -pad, out_size, kernel_size, 0, dilation, 0, 1, 0, 1)


# Pixels that lie multiples of so many bytes apart meet in few places of the first-level cache, and push one another
# out: those that a few taps meet are then read from the second level for each channel. In planes they are moved apart
# by a cache line. 512-512 (7x7) took 1.96 times as long as with channels first before, on one thread.
_ALIASED = 256


@lru_cache(maxsize=64)
def plane_axes(g: Geometry, is_gradient: bool = False) -> tuple[Axis, Axis]:
    """Both axes of a read of planes, forward or for an input gradient: the planes and the grid of all its phases.

    Rows and columns that no tap meets are left out: 256-512 (1x1, stride 2) took 20 % longer with them.
    """
    if is_gradient:
        return _gradient_axes(g)
    parted, dense = forward_axes(g), _dense_axes(g)
    vertical = parted[0] if parted[0].planes < g.stride_h else dense[0]
    horizontal = parted[1] if parted[1].planes < g.stride_w else dense[1]
    return _in_place((vertical, horizontal))


@lru_cache(maxsize=64)
def pixel_axes(g: Geometry, itemsize: int, is_gradient: bool = False) -> tuple[tuple[Axis, Axis], Pixel]:
    """The same of images with channels last, and how pixels lie in a plane.

    The horizontal axis counts elements of the plane; its `grid` and `taps` are still those of pixels.
    """
    vertical, horizontal = _gradient_axes(g) if is_gradient else _in_place(_dense_axes(g))
    channels = g.out_channels if is_gradient else g.in_channels
    pixel, is_copied = AS_IN_IMAGE, plane_elements(1, vertical, horizontal) > 0
    if is_copied and channels > 0 and channels * itemsize % _ALIASED == 0:
        pixel = Pixel(channels, channels + CACHE_LINE // itemsize)
    pitch = pixel.pitch or channels
    return (
        vertical,
        horizontal._replace(
            size=horizontal.size * pitch, padded=horizontal.padded * pitch, first=horizontal.first * pitch,
            shift=horizontal.shift * pitch, tap_step=horizontal.tap_step * pitch,
        ),
    ), pixel  # fmt: skip


@lru_cache(maxsize=64)
def phase_axes(g: Geometry) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """The axes of each row phase and of each column phase of an input gradient, which share planes and grid.

    That of the first phase: another one may have a pixel less, at the end, which is read all the same, as all phases
    have as many rows in a band.
    """
    return (
        _phase_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h),
        _phase_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w),
    )


def _phase_axis(
    out_size: int, kernel_size: int, stride: int, dilation: int, pad: int, in_size: int
) -> tuple[Axis, ...]:
    phases = range(max(grid_phases(stride, in_size), 1))
    found = [backward_axis(phase, out_size, kernel_size, stride, dilation, pad, in_size) for phase in phases]
    grid = found[0].grid
    read = [grid + each.shift + (each.taps - 1) * each.tap_step for each in found if each.taps > 0]
    padded = max(found[0].padded, *read, 0)
    return tuple(each._replace(grid=grid, padded=padded) for each in found)


def _gradient_axes(g: Geometry) -> tuple[Axis, Axis]:
    """Those of the first phase, with the taps of all phases."""
    (vertical, *_), (horizontal, *_) = phase_axes(g)
    return _in_place((vertical._replace(taps=g.kernel_h), horizontal._replace(taps=g.kernel_w)))


def _dense_axes(g: Geometry) -> tuple[Axis, Axis]:
    return (
        _dense_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h),
        _dense_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w),
    )


def _in_place(axes: tuple[Axis, Axis]) -> tuple[Axis, Axis]:
    """The same axes, or those of the image itself where it shows all that is read."""
    vertical, horizontal = axes
    if all(axis.first == 0 and axis.step == 1 and axis.padded <= axis.size for axis in axes):
        return vertical._replace(padded=vertical.size), horizontal._replace(padded=horizontal.size)
    return axes
