"""Planes of volumes gathered into images, and planes of images put back into volumes.

Knows which slice of a volume each tap in depth meets; moves values without looking at them. Does not know what is
computed of the images.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..arrays import AS_BITS
from ..gemm.planes import backward_axis, grid_phases
from ..geometry import Depth, Geometry
from ..runtime.compile import Driver, driver, kernel
from ..runtime.copying import copy_run
from ..runtime.launch import Launch, launch, run_in_turn
from ..typing import DType


class Slices(NamedTuple):
    """How images are cut from volumes: image `(n, i)` has channels `(c, t)`, which are planes of volume n.

    Channel `(c, t)` is plane `(c, i*step + t*tap_step + first)`, and zero where there is no such plane; around it may
    be a margin of zeros, or it has every `step_h`-th row and `step_w`-th column alone.
    """

    channels: int  # of a volume
    size: int  # planes of a channel
    images: int  # of a volume
    step: int
    first: int
    taps: int
    tap_step: int
    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    step_h: int = 1
    step_w: int = 1

    @property
    def are_volumes(self) -> bool:
        """Whether images are volumes of one plane, as they lie: nothing is to be moved."""
        return self.size == self.images == self.taps == 1 and self.first == 0 and not self.by_row

    @property
    def by_row(self) -> bool:
        """Whether planes are not moved as they are."""
        return self.top + self.bottom + self.left + self.right > 0 or self.step_h * self.step_w > 1


def forward_slices(depth: Depth, channels: int) -> Slices:
    """What output slices meet in the input: tap `kd` of slice `od` is `od*stride + kd*dilation - pad_front`."""
    return Slices(
        channels, depth.in_size, depth.out_size, depth.stride, -depth.pad_front, depth.kernel, depth.dilation
    )  # fmt: skip


def output_slices(depth: Depth, channels: int) -> Slices:
    """The output, a slice an image."""
    return Slices(channels, depth.out_size, depth.out_size, 1, 0, 1, 0)


def input_slices(depth: Depth, channels: int) -> Slices:
    """The input, a slice an image."""
    return Slices(channels, depth.in_size, depth.in_size, 1, 0, 1, 0)


def as_volumes(channels: int) -> Slices:
    """Volumes, all of whose planes are seen as one."""
    return Slices(channels, 1, 1, 1, 0, 1, 0)


def every_stride(depth: Depth, plane: Geometry, channels: int) -> Slices:
    """Of volumes as large as the input the planes, rows and columns that strides meet: an image a volume."""
    return Slices(
        channels, depth.in_size, 1, 1, 0, depth.out_size, depth.stride, step_h=plane.stride_h, step_w=plane.stride_w
    )  # fmt: skip


class Phase(NamedTuple):
    """Input slices whose gradients see the same taps: every `stride`-th."""

    gradients: Slices  # what they meet in the output gradient, a channel for each tap
    weights: Slices  # those taps of the weight, a channel's (O, C // groups, KD) put as (O, taps, C // groups)
    landing: Slices  # the input slices themselves


def backward_phases(depth: Depth, plane: Geometry) -> tuple[Phase, ...]:
    """The adjoint of `d = od*stride + kd*dilation - pad_front`, gathered, for each phase of `d` modulo the stride."""
    phases = []
    for phase in range(grid_phases(depth.stride, depth.in_size)):
        axis = backward_axis(
            phase, depth.out_size, depth.kernel, depth.stride, depth.dilation, depth.pad_front, depth.in_size
        )  # fmt: skip
        met = Slices(
            plane.out_channels, depth.out_size, axis.grid, 1, axis.first + axis.shift, axis.taps, axis.tap_step
        )  # fmt: skip
        weights = Slices(
            plane.in_channels // plane.groups, depth.kernel, axis.taps, axis.kernel_step, axis.kernel_first, 1, 0
        )  # fmt: skip
        landing = Slices(plane.in_channels, depth.in_size, axis.grid, axis.out_step, axis.out_first, 1, 0)
        phases.append(Phase(met, weights, landing))
    return tuple(phases)


# Elements of a task: some planes where they are small, some rows of one where they are large; some microseconds.
_TOGETHER = 1 << 14


@kernel
def _place(s: Slices, row: Any, begin: Any) -> Any:
    """Of a plane of images from number `begin` on: volume, image of it, channel and tap."""
    image, channel = row // (s.channels * s.taps) + begin, row % (s.channels * s.taps)
    return image // s.images, image % s.images, channel // s.taps, channel % s.taps


@kernel
def _next_place(s: Slices, n: Any, i: Any, c: Any, t: Any) -> Any:
    """The same of the plane behind it, without a division."""
    t += 1
    if t == s.taps:
        t = 0
        c += 1
        if c == s.channels:
            c = 0
            i += 1
            if i == s.images:
                i = 0
                n += 1
    return n, i, c, t


@driver
def _gather(
    task: Any, worker: Any, s: Slices, planes: Any, rows: Any, begin: Any, volumes: Any, images: Any
) -> None:  # fmt: skip
    """images[(n,i) - begin, (c,t)] = volumes[n, (c, i*step + t*tap_step + first)], 0 outside and in the margin.

    Of planes that are not whole, every `step_h`-th row and `step_w`-th column.

    A task is so many planes, or so many rows of one; `images` (planes, height, width), `volumes` likewise.
    """
    height, width = volumes.shape[1], (volumes.shape[2] + s.step_w - 1) // s.step_w
    pieces = (images.shape[1] + rows - 1) // rows
    top, row = task % pieces * rows, task // pieces * planes
    bottom, stop = min(top + rows, images.shape[1]), min(row + planes, images.shape[0])
    n, i, c, t = _place(s, row, begin)
    while row < stop:
        plane = i * s.step + t * s.tap_step + s.first
        is_there = 0 <= plane < s.size
        source = (n * s.channels + c) * s.size + plane
        for r in range(top, bottom):
            line, met = images[row, r], (r - s.top) * s.step_h
            if is_there and 0 <= met < height:
                for q in range(s.left):
                    line[q] = 0
                if s.step_w == 1:
                    copy_run(line, s.left, volumes[source, met], 0, width)
                else:
                    of_plane = volumes[source, met]
                    for q in range(width):
                        line[s.left + q] = of_plane[q * s.step_w]
                for q in range(s.left + width, len(line)):
                    line[q] = 0
            else:
                for q in range(len(line)):
                    line[q] = 0
        row += 1
        n, i, c, t = _next_place(s, n, i, c, t)


@driver
def _put_back(
    task: Any, worker: Any, s: Slices, planes: Any, rows: Any, begin: Any, images: Any, volumes: Any
) -> None:  # fmt: skip
    """volumes[n, (c, i*step + t*tap_step + first)] = images[(n,i) - begin, (c,t)], where there is no margin.

    Into every `step_h`-th row and `step_w`-th column, where planes are not whole.
    """
    pieces = (images.shape[1] + rows - 1) // rows
    top, row = task % pieces * rows, task // pieces * planes
    bottom, stop = min(top + rows, images.shape[1]), min(row + planes, images.shape[0])
    n, i, c, t = _place(s, row, begin)
    while row < stop:
        target = (n * s.channels + c) * s.size + i * s.step + t * s.tap_step + s.first
        for r in range(top, bottom):
            if s.step_w == 1:
                copy_run(volumes[target, r * s.step_h], 0, images[row, r], 0, images.shape[2])
            else:
                line, of_plane = volumes[target, r * s.step_h], images[row, r]
                for q in range(images.shape[2]):
                    line[q * s.step_w] = of_plane[q]
        row += 1
        n, i, c, t = _next_place(s, n, i, c, t)


def gather(workers: int, s: Slices, begin: int, volumes: Any, images: Any) -> None:
    """Fill `images` (images, channels * taps, H, W) of the volumes (N, channels, size, H, W) from number `begin` on."""
    source, target = _planes(volumes, s.by_row), _planes(_as_met(s, images, volumes), s.by_row)
    _launch(_gather, workers, s, begin, target, source, target)


def put_back(workers: int, s: Slices, begin: int, images: Any, volumes: Any) -> None:
    """Write `images` (images, channels * taps, H, W) into the volumes, from number `begin` on."""
    source, target = _planes(_as_met(s, images, volumes), s.by_row), _planes(volumes, s.by_row)
    _launch(_put_back, workers, s, begin, source, source, target)


def _as_met(s: Slices, images: Any, volumes: Any) -> Any:
    """Images, also those that are seen as one row, as planes with their margins."""
    height, width = (-(-size // step) for size, step in zip(volumes.shape[3:], (s.step_h, s.step_w), strict=True))
    height, width = height + s.top + s.bottom, width + s.left + s.right
    return images.reshape(images.size // max(height * width, 1), height, width)


# Elements of a row of a plane that is seen as rows: pieces of a plane that is moved as it is.
_ROW = 1 << 12


def _planes(array: Any, by_row: bool) -> Any:
    """Planes as bits, so that one driver serves all dtypes of a size; as long rows unless rows are to be seen."""
    *_, height, width = array.shape
    if not by_row:
        pixels = height * width
        height, width = (pixels // _ROW, _ROW) if pixels % _ROW == 0 else (1, pixels)
    planes = array.size // max(height * width, 1)
    return array.reshape(planes, height, width).view(AS_BITS[array.itemsize])


def _launch(moved: Driver, workers: int, s: Slices, begin: int, tiled: Any, source: Any, target: Any) -> None:
    if tiled.size > 0:
        run_in_turn(workers, _moving(moved, tiled.dtype, s, *tiled.shape).on(begin, source, target))


@lru_cache(maxsize=256)
def _moving(moved: Driver, bits: DType, s: Slices, count: int, height: int, width: int) -> Launch:
    """What moves so many planes of this size; a launch is for arrays of one dtype."""
    rows = max(1, min(height, _TOGETHER // width))
    planes = max(1, _TOGETHER // (height * width))
    tasks = -(-count // planes) * -(-height // rows)
    return Launch(moved, tasks, count * (10 + height * (4 + width / 4)), s, planes, rows)


# Channels whose taps are turned together: squares of them, since rows of both arrays may lie far apart.
_SQUARE = 16


@driver
def _turn(task: Any, worker: Any, s: Slices, groups: Any, weight: Any, turned: Any) -> None:
    """turned[(g,c), (o,t), a] = weight[(g,o), (c, t*step + first), area-1-a]: what a backward read meets, forward.

    `weight` is (O, C // groups * KD, area), `turned` (C, O // groups * taps, area); `s` has the taps of a phase.
    """
    shares = (s.channels + _SQUARE - 1) // _SQUARE
    group, first = task // shares, task % shares * _SQUARE
    filters, area = weight.shape[0] // groups, weight.shape[2]
    for square in range(0, filters, _SQUARE):
        for c in range(first, min(first + _SQUARE, s.channels)):
            for o in range(square, min(square + _SQUARE, filters)):
                for t in range(s.images):
                    row = turned[group * s.channels + c, o * s.images + t]
                    taps = weight[group * filters + o, c * s.size + t * s.step + s.first]
                    for a in range(area):  # unsigned: not looked at for being negative
                        row[np.uint64(area - 1 - a)] = taps[np.uint64(a)]


def turn(workers: int, s: Slices, groups: int, weight: Any, turned: Any) -> None:
    """Fill `turned` (C, O // groups * taps, KH, KW) from `weight` (O, C // groups, KD, KH, KW), last taps first."""
    filters, _, _, kernel_h, kernel_w = weight.shape
    area, bits = kernel_h * kernel_w, AS_BITS[weight.itemsize]
    source = weight.reshape(filters, s.channels * s.size, area).view(bits)
    target = turned.reshape(groups * s.channels, filters // groups * s.images, area).view(bits)
    tasks = groups * -(-s.channels // _SQUARE)
    launch(_turn, workers, tasks, 2 * turned.size, s, groups, source, target)
