"""Depthwise outputs and input gradients of volumes: lanes are neighbours in a row, slices share a register tile.

A plane of a channel is to a slice what a row is to a row of an image: one that is loaded serves all slices of a tile
that meet it, and where the taps of a plane lie is one list. So tiles are those of `gemm.correlation`, and sums have the
order of the images that slices are else gathered into: (kd, kh, kw). An input gradient, of stride 1 and one filter a
channel, is the correlation with the filter from its last tap to its first. Knows how slices are cut into tasks; does
not know how they are correlated.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm import correlation, micro
from ..gemm.correlation import correlate_slices, list_slice_entries
from ..gemm.planes import (
    BEHIND,
    Axis,
    Planes,
    backward_axes,
    backward_axis,
    elements_a_channel,
    fill_planes,
    filling,
    forward_axes,
    forward_axis,
)
from ..gemm.summation import TERM_BLOCK
from ..gemm.tasks import ONE_CHANNEL_TASK_MULTIPLICATIONS
from ..geometry import Depth, Volume
from ..runtime.compile import driver
from ..runtime.launch import Launch, run_in_turn
from ..runtime.options import COMPILED
from ..typing import Array, DType
from . import depthwise_pixels
from .algorithm import INDICES, Space, volume_work_ns
from .depthwise import MOST_FILTERS
from .depthwise_pixels import window

NAME = "depthwise"


class Job(NamedTuple):
    """An operation on volumes with one channel a group."""

    volume: Volume
    is_gradient: bool

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """In depth, height and width."""
        depth, plane = self.volume
        if self.is_gradient:
            return _backward_depth(depth), *backward_axes(plane)
        return _forward_depth(depth), *forward_axes(plane)

    @property
    def each(self) -> int:
        """Filters a channel."""
        return self.volume.plane.out_channels // self.volume.plane.groups

    @property
    def nanoseconds(self) -> float:
        """As `volume_work_ns`."""
        return volume_work_ns(self.volume)


def _forward_depth(depth: Depth) -> Axis:
    axis: Axis = forward_axis(
        depth.out_size, depth.kernel, depth.stride, depth.dilation, depth.pad_front, depth.in_size
    )  # fmt: skip
    return axis


def _backward_depth(depth: Depth) -> Axis:
    axis: Axis = backward_axis(
        0, depth.out_size, depth.kernel, depth.stride, depth.dilation, depth.pad_front, depth.in_size
    )  # fmt: skip
    return axis


# Planes that the taps of one slice meet take so much at most: 16 workers stay within 32 MiB.
_LARGEST_BYTES = 1 << 20
_TILE_BYTES = depthwise_pixels._TILE_BYTES


def job_of(volume: Volume, dtype: DType, is_gradient: bool) -> Job | None:
    """What is to be done, where volumes are taken: outputs, or input gradients."""
    depth, g = volume
    job = Job(volume, is_gradient)
    if not COMPILED or g.in_channels != g.groups or g.in_channels * g.out_channels == 0 or job.each > MOST_FILTERS:
        return None
    if depth.kernel * g.kernel_h * g.kernel_w > TERM_BLOCK or g.batch * depth.out_size * g.out_h * g.out_w == 0:
        return None
    if is_gradient and (job.each, depth.stride, g.stride_h, g.stride_w) != (1, 1, 1, 1):
        return None
    if depth.in_size * g.in_h * g.in_w == 0 or _planes(job, 1) * dtype.itemsize > _LARGEST_BYTES:
        return None
    return job


def _met(job: Job, slices: int) -> int:
    """Planes of the volume that so many slices meet, from the first to the last."""
    depth = job.axes[0]
    return (slices - 1) * depth.step + (depth.taps - 1) * depth.tap_step + 1


def _planes(job: Job, slices: int) -> int:
    """Elements of the planes that so many slices meet."""
    _, vertical, horizontal = job.axes
    return _met(job, slices) * int(elements_a_channel(vertical, horizontal))


class Slabs(NamedTuple):
    """Tasks of so many slices of a channel, `deep` of them a channel."""

    channels: int
    each: int  # filters a channel
    taps: int  # of a filter
    slices: int
    deep: int
    met: int  # planes that the slices of a task meet
    first_tap: int  # which tap of a filter comes first
    tap_step: int


@lru_cache(maxsize=256)
def _slabs(job: Job, workers: int, dtype: DType) -> Slabs:
    depth, vertical, horizontal = job.axes
    taps = depth.taps * vertical.taps * horizontal.taps
    one, two = (_planes(job, slices) * dtype.itemsize for slices in (1, 2))
    room = 1 + max(0, _TILE_BYTES - one) // max(1, two - one)
    most = ONE_CHANNEL_TASK_MULTIPLICATIONS // (vertical.grid * horizontal.grid * taps * job.each)
    slices = max(1, min(depth.grid, room, most))
    channels, batch = job.volume.plane.in_channels, job.volume.plane.batch
    if workers > 1:
        slices = min(slices, -(-depth.grid // -(-4 * workers // (batch * channels))))
    slices = -(-depth.grid // -(-depth.grid // slices))
    first, step = (taps - 1, -1) if job.is_gradient else (0, 1)
    return Slabs(channels, job.each, taps, slices, -(-depth.grid // slices), _met(job, slices), first, step)


@driver
def _correlate_slabs(
    task: Any, worker: Any, s: Slabs, depth: Axis, vertical: Axis, horizontal: Axis, p: Planes, inside: Any,
    kernels: Any, tiles: Any, weight: Any, bias: Any, volumes: Any, results: Any, planes: Any, turned: Any, lists: Any,
) -> None:  # fmt: skip
    """y[n,o,od,oh,ow] = bias[o] + sum over kd,kh,kw of weight[o,0,kd,kh,kw] * x[n, c, od*stride+kd*dilation-pad, ...]

    Or dx[n,c,d,h,w] = sum over kd,kh,kw of weight[c,0,kd,kh,kw] * dy[n,c,od,oh,ow] where d = od+kd*dilation-pad and so
    on. All arrays but the workspaces are flat.
    """
    channel, first = task // s.deep, task % s.deep * s.slices
    c, slab = channel % s.channels, window(depth, first, s.slices, s.met)
    size, source = volumes.itemsize, planes[worker].ctypes.data
    each = p.planes_h * p.planes_w * p.padded_h * p.padded_w
    met = (slab.grid - 1) * slab.step + (slab.taps - 1) * slab.tap_step + 1
    lowest = min(max(0, -slab.first), met)
    stop = max(lowest, min(met, slab.size - slab.first))
    image = volumes.ctypes.data + (channel * slab.size + slab.first + lowest) * p.image_h * p.image_w * size
    micro.fill_rows(tiles, source, lowest * each, source, 0, 1, lowest * each, 0, 0, 1)
    fill_planes(tiles, source + lowest * each * size, image, stop - lowest, p, inside, 0, 0, p.padded_h)
    behind = (met - stop) * each
    micro.fill_rows(tiles, source + stop * each * size, behind, source, 0, 1, behind, 0, 0, 1)
    pixels = vertical.grid * horizontal.grid
    for e in range(s.each):
        o = c * s.each + e
        taps = turned[worker]
        for t in range(s.taps):
            taps[t] = weight[o * s.taps + s.first_tap + t * s.tap_step]
        correlate_slices(
            kernels, lists[worker], source, taps.ctypes.data, slab, vertical, horizontal,
            results.ctypes.data + ((channel * s.each + e) * depth.grid + first) * pixels * size,
            bias.ctypes.data + o * size if bias.size > 0 else 0,
        )  # fmt: skip


def workspace(job: Job, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Planes, taps in the order in which they are met, and lists."""
    s = _slabs(job, workers, dtype)
    return (
        Space((workers, _planes(job, s.slices) + BEHIND), dtype, "planes"),
        Space((workers, s.taps), dtype, "turned taps"),
        Space((workers, list_slice_entries(*job.axes)), INDICES, "lists"),
    )


def explained(job: Job, workers: int, dtype: DType) -> tuple[str, int]:
    """How it is cut, for people to read, and how many volumes are computed together."""
    s, batch = _slabs(job, workers, dtype), job.volume.plane.batch
    tasks = batch * s.channels * s.deep
    return f"volumes, pixels as lanes, {s.slices} slices of a channel at a time; tasks: {tasks}", batch


@lru_cache(maxsize=256)
def _launch(job: Job, workers: int, dtype: DType) -> Launch:
    s = _slabs(job, workers, dtype)
    tasks = job.volume.plane.batch * s.channels * s.deep
    kernels = correlation.kernels(dtype), micro.fills(dtype)
    return Launch(_correlate_slabs, tasks, job.nanoseconds, s, *job.axes, *filling(job.axes[1:]), *kernels)


def run(
    workers: int, job: Job, volumes: Array, weight: Array, bias: Array, results: Array, planes: Array, turned: Array,
    lists: Array,
) -> None:  # fmt: skip
    """Launch the driver; inputs and results are those of the whole batch."""
    how = _launch(job, workers, results.dtype)
    flat = (array.reshape(-1) for array in (weight, bias, volumes, results))
    run_in_turn(workers, how.on(*flat, planes, turned, lists))
