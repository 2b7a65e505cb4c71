"""Direct convolution of volumes: the tiles of images, with the rows of some slices as rows of one grid.

The planes of a channel that these slices meet lie one behind the other, each filled once, so that a tap in depth is one
more offset, and so is a slice of the result: terms are (channel, kd, kh, kw) as they are of the images that slices are
else gathered into. Outputs, and input gradients of stride 1. Knows where planes lie, and how many slices are computed
together; does not know who asks for them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..gemm.direct import Direct, packed_elements, packing_terms, plan_direct
from ..gemm.direct_kernels import kernels as direct_kernels
from ..gemm.direct_kernels import most_rows
from ..gemm.micro import fills
from ..gemm.phases import one_phase
from ..gemm.pixels import plane_axes, plane_steps
from ..gemm.planes import (
    BEHIND,
    Axis,
    Planes,
    elements_a_channel,
    fill_tile,
    filling,
    plane_elements,
    term_offsets,
)
from ..geometry import Volume
from ..runtime.compile import driver
from ..runtime.launch import Launch, Run, run_in_turn
from ..runtime.tiles import tile, tiling
from ..simd import isa
from ..typing import Array, DType
from . import direct
from .algorithm import INDICES, PACKED_WEIGHT, Space, volume_work_ns
from .slices import Slices


class Job(NamedTuple):
    """An operation on volumes; `met` says which planes a slice of the result meets."""

    volume: Volume
    met: Slices
    is_gradient: bool

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Of a plane."""
        return plane_axes(self.volume.plane, self.is_gradient)

    @property
    def stride(self) -> tuple[int, int]:
        """In height and width; an input gradient's is 1."""
        return self.volume.plane.stride_h, self.volume.plane.stride_w

    @property
    def results(self) -> int:
        """Channels of the result."""
        return self.volume.plane.in_channels if self.is_gradient else self.volume.plane.out_channels

    @property
    def nanoseconds(self) -> float:
        """As `volume_work_ns`."""
        return volume_work_ns(self.volume)

    def planes(self, slices: int) -> int:
        """Planes of a channel that so many slices meet."""
        return (slices - 1) * self.met.step + (self.met.taps - 1) * self.met.tap_step + 1

    def is_in_place(self) -> bool:
        """Whether volumes are read as they lie: no padding."""
        met = self.met
        return plane_elements(1, *self.axes) == 0 and met.first >= 0 and met.first + self.planes(met.images) <= met.size


class Setup(NamedTuple):
    """What a job, its dtype and the number of workers decide of some slices: made once, looked up after."""

    direct: Direct
    plane: int  # elements from a plane of a channel to the next
    tasks: int
    pack: Launch
    multiply: Launch


# Planes that are filled at once, so that some cache still has them when the next panel of channels reads them: with all
# 15.5 MB of 64 channels of 16x56x56 filled before, that layer took 12 % longer than from gathered slices (AVX2). Cut
# so, 11 layers of 3 to 512 channels with strides took 0.70 to 0.95 of what gathered slices take with AVX-512, on one
# and on two threads, and 0.65 to 1.03 with AVX2.
_PIECE_BYTES = 4 << 20


@lru_cache(maxsize=256)
def piece(job: Job, dtype: DType) -> tuple[int, int]:
    """How many volumes, or how many slices of one, are computed together."""
    vertical, horizontal = job.axes
    plane = elements_a_channel(vertical, horizontal)
    room = _PIECE_BYTES // max(1, job.met.channels * plane * dtype.itemsize)  # planes of a channel
    batch, slices = max(1, job.volume.plane.batch), job.met.images
    if job.is_in_place():
        return batch, slices
    if room >= job.planes(slices):
        return -(-batch // -(-batch // max(1, room // job.planes(slices)))), slices
    most = max(1, (room - job.planes(1)) // job.met.step + 1)
    return 1, -(-slices // -(-slices // most))


@lru_cache(maxsize=256)
def _set_up(job: Job, volumes: int, slices: int, workers: int, dtype: DType) -> Setup:
    g, met, axes = job.volume.plane, job.met, job.axes
    vertical, horizontal = axes
    plane = elements_a_channel(vertical, horizontal)
    of_channel = met.size if job.is_in_place() else job.planes(slices)
    stacked = vertical._replace(
        grid=slices * vertical.grid, taps=met.taps * vertical.taps, padded=of_channel * vertical.padded
    )
    phases = one_phase(stacked.taps * horizontal.taps, stacked.grid, horizontal.grid)
    steps = plane_steps((stacked, horizontal), g.groups, met.channels // g.groups, job.stride)
    d = plan_direct(
        (stacked, horizontal), steps, volumes, g.groups, job.results // g.groups, met.channels // g.groups,
        met.images * vertical.grid * horizontal.grid, workers, dtype, stacked.grid,
        phases, is_packed=(volumes, slices) != (g.batch, met.images), is_gradient=job.is_gradient,
    )  # fmt: skip
    d = _by_slices(d, vertical.grid * horizontal.grid)._replace(slice_h=vertical.grid, slice_pitch=met.step * plane)
    in_depth = np.arange(met.taps, dtype=np.int64) * (met.tap_step * plane)
    of_channels = np.arange(d.channels, dtype=np.int64) * steps.channel
    offsets = (of_channels[:, None, None] + in_depth[:, None] + term_offsets(*axes, 1)).ravel()
    offsets.flags.writeable = False
    tasks, ours = volumes * d.tasks, (direct_kernels(dtype), offsets, phases.before)
    multiply = Launch(direct._multiply, tasks, job.nanoseconds, d, *ours)
    return Setup(d, plane, tasks, direct.packing(d, phases, dtype), multiply)


def _by_slices(d: Direct, points: int) -> Direct:
    """The same, with chunks that end where slices of so many points do, if that is near.

    Chunks are whole register tiles, and a few points of the next slice meet planes of their own: with two of them in
    each chunk, 256 filters on 128 channels of 8x28x28 with a stride of 2 took 11.8 ms, without 10.1.
    """
    slices = round(d.points / max(points, 1))
    if d.chunks == 1 or slices == 0 or abs(d.points - slices * points) >= most_rows(isa.here(), d.widest):
        return d
    return d._replace(points=slices * points, chunks=-(-d.grid_h * d.grid_w // (slices * points)))


def _kinds(job: Job, workers: int, dtype: DType) -> list[Setup]:
    """Of whole pieces, and of what is left at the end."""
    volumes, slices = piece(job, dtype)
    rest = job.volume.plane.batch % volumes or volumes, job.met.images % slices or slices
    return [_set_up(job, *sizes, workers, dtype) for sizes in dict.fromkeys([(volumes, slices), rest])]


def workspace(job: Job, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Packed weight, totals, positions, packed panels and planes."""
    setups, (volumes, slices) = _kinds(job, workers, dtype), piece(job, dtype)
    d = setups[0].direct
    lanes = d.widest * isa.lanes(dtype)
    points, groups = max(s.direct.points for s in setups), d.groups
    packed = packed_elements(groups, d.rows, d.channels * d.taps, dtype) if d.together == 0 else 0
    planes = volumes * job.met.channels * job.planes(slices) * setups[0].plane + BEHIND
    return (
        Space((packed,), dtype, PACKED_WEIGHT),
        Space((workers, points * max(s.direct.abreast for s in setups) * lanes), dtype, "totals"),
        Space((workers, points), INDICES, "positions"),
        Space((workers, packing_terms(d) * lanes), dtype, "packed panel"),
        Space((0 if job.is_in_place() else planes,), dtype, "planes"),
    )


def explained(job: Job, workers: int, dtype: DType) -> tuple[str, int]:
    """How it is cut, for people to read, and how many volumes are computed together."""
    volumes, slices = piece(job, dtype)
    how = "as they lie" if job.is_in_place() else f"planes filled once, {slices} slices at a time"
    return f"volumes {how}", volumes


@driver
def _fill(
    task: Any, worker: Any, p: Planes, s: Slices, of_channel: Any, rows: Any, cols: Any, kernels: Any, inside: Any,
    blank: Any, first: Any, volumes: Any, planes: Any,
) -> None:  # fmt: skip
    """Fill a tile of one of the planes of a channel of `volumes` (N, C, D, H, W), of which there are `of_channel`.

    The first one shows plane `first` of the volume; `blank` says that nothing of a plane lies inside.
    """
    plane, top, bottom, left, right = tile(task, p.padded_h, p.padded_w, rows, cols)
    channel, met, size = plane // of_channel, plane % of_channel + first, volumes.itemsize
    is_there = 0 <= met < s.size
    source = channel * s.size + met if is_there else 0
    fill_tile(
        kernels, planes.ctypes.data + plane * p.planes_h * p.planes_w * p.padded_h * p.padded_w * size,
        volumes.ctypes.data + source * p.image_h * p.image_w * size, p, inside if is_there else blank, 0, top, bottom,
        left, right,
    )  # fmt: skip


def _filled(job: Job, first: int, slices: int, volumes: Array, planes: Array) -> Run:
    """Filling the planes that slices from number `first` on meet."""
    planes[planes.size - BEHIND :] = 0
    how = _filling(job, slices, volumes.shape[0] * volumes.shape[1], volumes.dtype)
    return how.on(job.met.first + first * job.met.step, volumes, planes)


@lru_cache(maxsize=256)
def _filling(job: Job, slices: int, channels: int, dtype: DType) -> Launch:
    p, inside = filling(job.axes)
    tiles, of_channel = tiling(p.padded_h, p.padded_w, p.planes_h * p.planes_w), job.planes(slices)
    count = channels * of_channel
    return Launch(
        _fill, count * tiles.a_plane, count * p.each / 4, p, job.met, of_channel, tiles.rows, tiles.cols,
        fills(dtype), inside, _blank(len(inside)),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _blank(phases: int) -> Array:
    """A table of `filling` in which nothing lies inside."""
    table = np.zeros((phases, 3), np.int64)
    table.flags.writeable = False
    return table


def run(
    workers: int, job: Job, volumes: Array, weight: Array, bias: Array, results: Array, packed: Array, totals: Array,
    positions: Array, space: Array, planes: Array,
) -> None:  # fmt: skip
    """Launch the drivers, piece by piece; inputs and results are those of the whole batch."""
    together, slices = piece(job, results.dtype)
    flat, y = weight.reshape(-1), results.reshape(-1)
    if packed.size > 0:
        run_in_turn(workers, _kinds(job, workers, results.dtype)[0].pack.on(flat, packed, space))
        flat = packed
    source = planes
    for n in range(0, len(volumes), together):
        part = volumes[n : n + together]
        for first in range(0, job.met.images, slices):
            here = min(slices, job.met.images - first)
            s = _set_up(job, len(part), here, workers, results.dtype)
            before: tuple[Run, ...] = ()
            if planes.size > 0:
                before = (_filled(job, first, here, part, planes),)
            else:
                source = part.reshape(-1)[(job.met.first + first * job.met.step) * s.plane :]
            d = s.direct
            target = y[n * job.results * d.result + first * d.slice_h * d.grid_w :].reshape(1, 1, 1, -1)
            share = job.nanoseconds * len(part) * here / (len(volumes) * job.met.images)
            multiplied = s.multiply.part(s.tasks, share, flat, bias, source, target, totals, positions, space)
            run_in_turn(workers, *before, multiplied)
