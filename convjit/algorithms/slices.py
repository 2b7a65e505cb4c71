"""Planes of volumes gathered into images, and planes of images put back into volumes.

Knows which slice of a volume each tap in depth meets; moves values without looking at them. Does not know what is
computed of the images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..gemm.planes import backward_axis, grid_phases
from ..geometry import Depth
from ..runtime.compile import driver, uncompiled
from ..runtime.copying import copy_run
from ..runtime.launch import launch


class Slices(NamedTuple):
    """How images are cut from volumes: image `(n, i)` has channels `(c, t)`, which are planes of volume n.

    Channel `(c, t)` is plane `(c, i*step + t*tap_step + first)`, and zero where there is no such plane.
    """

    channels: int  # of a volume
    size: int  # planes of a channel
    images: int  # of a volume
    step: int
    first: int
    taps: int
    tap_step: int


def forward_slices(depth: Depth, channels: int) -> Slices:
    """What output slices meet in the input: tap `kd` of slice `od` is `od*stride + kd*dilation - pad_front`."""
    return Slices(
        channels, depth.in_size, depth.out_size, depth.stride, -depth.pad_front, depth.kernel, depth.dilation
    )  # fmt: skip


def output_slices(depth: Depth, channels: int) -> Slices:
    """The output, a slice an image."""
    return Slices(channels, depth.out_size, depth.out_size, 1, 0, 1, 0)


class Phase(NamedTuple):
    """Input slices whose gradients see the same taps: every `stride`-th."""

    gradients: Slices  # what they meet in the output gradient, a channel for each tap
    weights: Slices  # those taps of the weight, a channel's (O, C // groups, KD) put as (O, taps, C // groups)
    landing: Slices  # the input slices themselves


def backward_phases(depth: Depth, channels: int, out_channels: int, group_channels: int) -> tuple[Phase, ...]:
    """The adjoint of `d = od*stride + kd*dilation - pad_front`, gathered, for each phase of `d` modulo the stride."""
    axis_of, phases = uncompiled(backward_axis), []
    for phase in range(uncompiled(grid_phases)(depth.stride, depth.in_size)):
        axis = axis_of(
            phase, depth.out_size, depth.kernel, depth.stride, depth.dilation, depth.pad_front, depth.in_size
        )  # fmt: skip
        phases.append(
            Phase(
                Slices(
                    out_channels, depth.out_size, axis.grid, 1, axis.first + axis.shift, axis.taps, axis.tap_step
                ),
                Slices(group_channels, depth.kernel, axis.taps, axis.kernel_step, axis.kernel_first, 1, 0),
                Slices(channels, depth.in_size, axis.grid, axis.out_step, axis.out_first, 1, 0),
            )
        )  # fmt: skip
    return tuple(phases)


# Elements of a task's piece of a plane: whole planes where they are small, some microseconds where they are not.
_TOGETHER = 1 << 16


@driver
def _gather(
    task: Any, worker: Any, s: Slices, begin: Any, pieces: Any, piece: Any, volumes: Any, images: Any
) -> None:  # fmt: skip
    """images[(n,i) - begin, (c,t)] = volumes[n, (c, i*step + t*tap_step + first)], 0 outside; a plane a row."""
    row, start = task // pieces, task % pieces * piece
    image, channel = row // (s.channels * s.taps) + begin, row % (s.channels * s.taps)
    plane = image % s.images * s.step + channel % s.taps * s.tap_step + s.first
    target = images[row]
    count = min(piece, len(target) - start)
    if 0 <= plane < s.size:
        at = (image // s.images * s.channels + channel // s.taps) * s.size + plane
        copy_run(target, start, volumes[at], start, count)
    else:
        for i in range(start, start + count):
            target[i] = 0


@driver
def _put_back(
    task: Any, worker: Any, s: Slices, begin: Any, pieces: Any, piece: Any, images: Any, volumes: Any
) -> None:  # fmt: skip
    """volumes[n, (c, i*step + first)] = images[(n,i) - begin, c], where there is one tap."""
    row, start = task // pieces, task % pieces * piece
    image, channel = row // s.channels + begin, row % s.channels
    target = volumes[(image // s.images * s.channels + channel) * s.size + image % s.images * s.step + s.first]
    copy_run(target, start, images[row], start, min(piece, len(target) - start))


def gather(workers: int, s: Slices, begin: int, volumes: Any, images: Any) -> None:
    """Fill `images` (images, channels * taps, ...) of the volumes (N, channels, size, ...) from number `begin` on."""
    _launch(_gather, workers, s, begin, images.shape[0] * images.shape[1], _rows(volumes, 3), _rows(images, 2))


def put_back(workers: int, s: Slices, begin: int, images: Any, volumes: Any) -> None:
    """Write `images` (images, channels, ...) into the volumes, from number `begin` on."""
    _launch(_put_back, workers, s, begin, images.shape[0] * images.shape[1], _rows(images, 2), _rows(volumes, 3))


def _rows(array: Any, axes: int) -> Any:
    """A row for each index of the first axes, as bits: one driver serves all dtypes of a size."""
    rows = 1
    for size in array.shape[:axes]:
        rows *= size
    return array.reshape(rows, -1 if rows else 0).view(f"uint{8 * array.itemsize}")


def _launch(moved: Any, workers: int, s: Slices, begin: int, planes: int, source: Any, target: Any) -> None:
    source.flags.writeable = False  # one signature, whoever may write it
    elements = source.shape[1]
    if planes * elements == 0:
        return
    piece = min(elements, _TOGETHER)
    pieces = -(-elements // piece)
    launch(moved, workers, planes * pieces, planes * (10 + elements), s, begin, pieces, piece, source, target)
