"""How an operation on volumes is one on images: slices of the result are images whose channels are planes.

Output slice `od` of volume n is a convolution in two dimensions, of an image whose channels `(c, kd)` are the planes
that its taps in depth meet, with the weight seen as (O, C*KD, KH, KW): terms are those of the definition, in order.
So everything that holds of images holds of volumes. Where such images would be convolved directly, volumes may be read
as they lie, see `algorithms.direct_volumes`, and those of one channel a group are, see `algorithms.depthwise_volumes`;
else the planes are copied, one move of a value for every O // groups * KH * KW multiplications of it. Of a kernel of
one voxel with strides, those voxels alone are copied that it meets, as one row of an image.
Knows geometries, dtypes and limits; does not know arrays.
"""

from __future__ import annotations

import math
from copy import copy
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

from ..algorithms import Packing, Space, depthwise_volumes, direct, direct_volumes, is_choice, why_not
from ..algorithms.algorithm import PACKED_WEIGHT, workspace_limit
from ..algorithms.slices import (
    Slices,
    as_volumes,
    backward_phases,
    every_stride,
    forward_slices,
    input_slices,
    output_slices,
)
from ..geometry import Geometry, Volume
from ..layouts import CHANNELS_FIRST
from ..typing import DType
from .calls import Call, counted_bytes, decide, space_bytes


class Copies:
    """Room for as many images as are gathered at once, and for what is made of them: kept as workspaces are."""

    def __init__(self, call: Call, together: int, met: Slices, landing: Slices) -> None:
        g = call.geometry._replace(batch=min(together, call.geometry.batch))
        read, made = (g.y_shape, g.x_shape) if call.operation_name == "input_grad" else (g.x_shape, g.y_shape)
        other = "gradients of slices" if call.operation_name == "weight_grad" else "results of slices"
        self._spaces = (
            Space((0 if met.are_volumes else math.prod(read),), call.compute, "planes of slices"),
            Space((0 if landing.are_volumes else math.prod(made),), call.compute, other),
        )

    def spaces(self, workers: int) -> tuple[Space, ...]:
        """Both, for any number of workers."""
        return self._spaces

    def bytes(self, workers: int) -> int:
        """Of both."""
        return sum(map(space_bytes, self._spaces))


class Turn(NamedTuple):
    """Slices that are computed alike, in one convolution of images; None where no tap is met."""

    call: Call | None
    met: Slices  # gathered into the images' channels
    landing: Slices  # results, or the gradients that go with the images
    taps: Slices | None  # of the weight; None where it is all of it, as it lies
    together: int  # images that are gathered at once
    copies: Copies | None
    is_row: bool = False  # whether an image is what a kernel of one voxel meets of a volume

    @property
    def multiplications(self) -> int:
        """Of the direct method."""
        return 0 if self.call is None else self.call.geometry.multiplications

    @property
    def gathered(self) -> Call | None:
        """The call of as many slices as are gathered at once."""
        return None if self.call is None else self.call.of_batch(min(self.together, self.call.geometry.batch))


class Whole:
    """A way that takes volumes as they are, and what is to be done; its workspaces are kept as those of images."""

    def __init__(
        self, way: ModuleType, job: direct_volumes.Job | depthwise_volumes.Job, compute: DType, is_packed: bool = False
    ) -> None:  # fmt: skip
        self.way, self.job = way, job  # of `direct_volumes` or `depthwise_volumes`
        self._compute, self._is_packed = compute, is_packed
        self._spaces: dict[int, tuple[Space, ...]] = {}

    def packed(self) -> Whole:
        """The same on a packed weight."""
        return Whole(self.way, self.job, self._compute, is_packed=True)

    def packs_anew(self, workers: int) -> bool:
        """Whether tasks would pack a weight that is packed already."""
        return self._is_packed and any(
            space.name == PACKED_WEIGHT and space_bytes(space) == 0 for space in self._needed(workers)
        )

    def spaces(self, workers: int) -> tuple[Space, ...]:
        """The workspaces for so many workers, with their dtypes."""
        needed = self._needed(workers)
        if not self._is_packed:
            return needed
        # The weight that the plan has packed stands in its place.
        return tuple(space._replace(shape=(0,)) if space.name == PACKED_WEIGHT else space for space in needed)

    def bytes(self, workers: int) -> int:
        """Of all of them."""
        return sum(map(space_bytes, self.spaces(workers)))

    def _needed(self, workers: int) -> tuple[Space, ...]:
        if workers not in self._spaces:
            spaces = self.way.workspace(self.job, workers, self._compute)
            self._spaces[workers] = tuple(space._replace(dtype=space.dtype or self._compute) for space in spaces)
        return self._spaces[workers]


class VolumeCall:
    """An operation on volumes in a dtype, as `Call` is one on images."""

    layout = CHANNELS_FIRST
    is_packed = False

    def __init__(self, function: str, algorithm: str, volume: Volume, compute: DType, operation_name: str) -> None:
        self.operation_name = operation_name
        self.volume = volume
        self.compute = compute
        how = _Choice(function, algorithm, compute, operation_name)
        if algorithm == depthwise_volumes.NAME and depthwise_volumes.job_of(volume, compute, is_gradient=False):
            how = how._replace(algorithm="auto")  # images of their slices have several channels a group
        self.turns = (
            tuple(_backward_turns(how, volume)) if operation_name == "input_grad" else (_forward_turn(how, volume),)
        )
        self.whole = _as_whole(how, volume, self.turns)

    @property
    def main(self) -> Turn | None:
        """The turn that multiplies most, of those that meet a tap."""
        turns = [turn for turn in self.turns if turn.call is not None]
        return max(turns, key=lambda turn: turn.multiplications, default=None)

    @property
    def of_images(self) -> Call | None:
        """What computes the images of that turn."""
        return None if self.main is None else self.main.call

    @property
    def packing(self) -> Packing | None:
        """How the weight of a forward operation is packed, where it is: for volumes as for images of their slices."""
        reads_it_so = self.whole is None or self.whole.way is direct_volumes
        return self.of_images.packing if self.of_images is not None and reads_it_so else None

    def packed(self) -> VolumeCall:
        """The same on a packed weight."""
        call = copy(self)
        call.is_packed = True
        call.whole = None if self.whole is None else self.whole.packed()
        call.turns = tuple(turn._replace(call=turn.call.packed()) for turn in self.turns if turn.call is not None)
        return call


class _Choice(NamedTuple):
    """Who asks for what."""

    function: str
    algorithm: str
    compute: DType
    operation_name: str


def _as_whole(how: _Choice, volume: Volume, turns: tuple[Turn, ...]) -> Whole | None:
    """The operation on whole volumes, where a way takes them and its workspaces fit."""
    is_gradient = how.operation_name == "input_grad"
    limit = _limit(volume.y_shape if is_gradient else volume.x_shape, how)
    for way, job in ((depthwise_volumes, _depthwise(how, volume)), (direct_volumes, _direct(how, volume, turns))):
        if job is not None and counted_bytes(way.workspace(job, 1, how.compute)) <= limit:
            return Whole(way, job, how.compute)
    return None


def _depthwise(how: _Choice, volume: Volume) -> depthwise_volumes.Job | None:
    """The job of one channel a group; weight gradients have none."""
    if how.operation_name == "weight_grad" or not is_choice(how.algorithm):
        return None
    return depthwise_volumes.job_of(volume, how.compute, how.operation_name == "input_grad")


def _direct(how: _Choice, volume: Volume, turns: tuple[Turn, ...]) -> direct_volumes.Job | None:
    """The job where images of slices would be convolved directly."""
    depth, plane = volume
    is_gradient, row = how.operation_name == "input_grad", direct.ALGORITHM
    call = turns[0].call if turns else None
    if call is None or call.operation not in (row.forward, row.input_grad) or turns[0].is_row:
        return None
    if is_gradient and (depth.stride, plane.stride_h, plane.stride_w) != (1, 1, 1):
        return None
    met = backward_phases(depth, plane)[0].gradients if is_gradient else forward_slices(depth, plane.in_channels)
    return direct_volumes.Job(volume, met, is_gradient)


# Of volumes whose voxels were copied whole, of 6 and 8 MB, passes took 0.80 to 1.05 of the time that slices take, of
# 64 MB 1.1 to 1.4.
_ROW_BYTES = 8 << 20


def _as_one_row(volume: Volume, compute: DType) -> Geometry | None:
    """What a kernel of one voxel meets with its strides, as images of one row; None of other kernels.

    None, too, of volumes so large that their slices had better be copied some at a time.
    Of a transposed convolution with output padding, voxels behind the last one that is met may lie further on.
    """
    depth, plane = volume
    kernel, strides = (depth.kernel, plane.kernel_h, plane.kernel_w), (depth.stride, plane.stride_h, plane.stride_w)
    sizes, results = (depth.in_size, plane.in_h, plane.in_w), (depth.out_size, plane.out_h, plane.out_w)
    if kernel != (1, 1, 1) or any(map(any, (*plane.pads, (depth.pad_front, depth.pad_back)))):
        return None
    if results != tuple(-(-size // stride) for size, stride in zip(sizes, strides, strict=True)):
        return None
    voxels = math.prod(results)
    if plane.in_channels * voxels * compute.itemsize > _ROW_BYTES:
        return None
    return plane._replace(in_h=1, in_w=voxels, out_h=1, out_w=voxels, stride_h=1, stride_w=1)


def _forward_turn(how: _Choice, volume: Volume) -> Turn:
    depth, plane = volume
    row = _as_one_row(volume, how.compute)
    if row is not None:
        call = decide(how.function, how.algorithm, row, how.compute, how.operation_name)
        met, landing = every_stride(depth, plane, plane.in_channels), as_volumes(plane.out_channels)
        return _turn(call, met, landing, None, _limit(volume.x_shape, how))._replace(is_row=True)
    g = plane._replace(batch=plane.batch * depth.out_size, in_channels=plane.in_channels * depth.kernel)
    met, landing = forward_slices(depth, plane.in_channels), output_slices(depth, plane.out_channels)
    g, met = _as_read(g, met)
    call = decide(how.function, how.algorithm, g, how.compute, how.operation_name)
    return _turn(call, met, landing, None, _limit(volume.x_shape, how))


def _turn(call: Call, met: Slices, landing: Slices, taps: Slices | None, limit: int) -> Turn:
    together = _together(call, limit)
    return Turn(call, met, landing, taps, together, Copies(call, together, met, landing))


def _as_read(g: Geometry, met: Slices) -> tuple[Geometry, Slices]:
    """Planes gathered so that they are read as they lie then: with their padding, where there is no stride; of taps
    that are one pixel, those alone that are met.
    """
    (top, bottom), (left, right) = g.pads
    if g.stride_h * g.stride_w > 1:
        # Of a transposed convolution with output padding, pixels behind the last one that is met may lie further on.
        met_h, met_w = -(-g.in_h // g.stride_h), -(-g.in_w // g.stride_w)
        is_thin = g.kernel_h * g.kernel_w == 1 and top + bottom + left + right == 0
        if not is_thin or (g.out_h, g.out_w) != (met_h, met_w):
            return g, met
        met = met._replace(step_h=g.stride_h, step_w=g.stride_w)
        return g._replace(in_h=g.out_h, in_w=g.out_w, stride_h=1, stride_w=1), met
    padded = g._replace(
        in_h=g.in_h + top + bottom, in_w=g.in_w + left + right, pad_top=0, pad_bottom=0, pad_left=0, pad_right=0
    )
    return padded, met._replace(top=top, bottom=bottom, left=left, right=right)


def _backward_turns(how: _Choice, volume: Volume) -> list[Turn]:
    depth, plane = volume
    limit, turns = _limit(volume.y_shape, how), []
    row, phases = _as_one_row(volume, how.compute), backward_phases(depth, plane)
    if row is not None:
        # Every voxel is zero but for those that are met.
        everywhere, landing = input_slices(depth, plane.in_channels), every_stride(depth, plane, plane.in_channels)
        row = row._replace(in_channels=row.out_channels, out_channels=row.in_channels)
        call = decide(how.function, _named(how, row), row, how.compute, "forward")
        zeros = Turn(None, everywhere, everywhere, None, 0, None)
        of_row = _turn(call, as_volumes(plane.out_channels), landing, phases[0].weights, limit)
        return [zeros, of_row._replace(is_row=True)]
    for phase in phases:
        taps = phase.weights.images
        if taps == 0:
            turns.append(Turn(None, phase.gradients, phase.landing, None, 0, None))
            continue
        g = plane._replace(batch=plane.batch * phase.landing.images, out_channels=plane.out_channels * taps)
        forward = _as_forward(g)
        if forward is None:
            call, met = decide(how.function, how.algorithm, g, how.compute, "input_grad"), phase.gradients
        else:
            forward, met = _as_read(forward, phase.gradients)
            call = decide(how.function, _named(how, forward), forward, how.compute, "forward")
        turns.append(_turn(call, met, phase.landing, phase.weights, limit))
    return turns


def _named(how: _Choice, forward: Geometry) -> str:
    """The algorithm for another problem than the one that it was named for: it may not take it."""
    return "auto" if why_not(how.algorithm, forward, how.compute) else how.algorithm


def _as_forward(g: Geometry) -> Geometry | None:
    """The input gradient as a convolution of the output gradient with the taps from last to first.

    Its sums have the same terms in the same order. Without a stride only, and where no padding is cut off.
    """
    reach_h, reach_w = (g.kernel_h - 1) * g.dilation_h, (g.kernel_w - 1) * g.dilation_w
    if g.stride_h * g.stride_w > 1 or g.pad_top > reach_h or g.pad_left > reach_w:
        return None
    top, left = reach_h - g.pad_top, reach_w - g.pad_left
    bottom, right = g.in_h + reach_h - top - g.out_h, g.in_w + reach_w - left - g.out_w
    if min(bottom, right) < 0:
        return None
    return g._replace(
        in_channels=g.out_channels, in_h=g.out_h, in_w=g.out_w, out_channels=g.in_channels, out_h=g.in_h, out_w=g.in_w,
        pad_top=top, pad_bottom=bottom, pad_left=left, pad_right=right,
    )  # fmt: skip


def _limit(shape: tuple[int, ...], how: _Choice) -> int:
    return workspace_limit(math.prod(shape), how.compute)


# So much that a cache of the second level still has planes when they are read.
_GATHERED_BYTES = 3 << 19


def _together(call: Call, limit: int) -> int:
    """How many images are gathered at once: as many as stay within the limit with what one worker needs for them.

    One image may need more. It depends on the problem alone, so weight gradients do not depend on threads. Their parts
    are added up and input gradients bring the weight into another form each time, so those are as few as can be.
    """
    batch, slices, images = call.geometry.batch, 1, call.geometry.batch
    if call.operation_name == "forward":
        limit = min(limit, _GATHERED_BYTES)
    while images > 1:
        part = call.of_batch(images)
        g = part.geometry
        taken = (math.prod(g.x_shape) + math.prod(g.y_shape)) * call.compute.itemsize
        if taken <= limit:
            taken += counted_bytes(part.spaces(1))
        if taken <= limit:
            break
        slices = max(slices + 1, min(batch, slices * taken // limit))
        images = -(-batch // slices)
    return max(images, 1)


def _decide(function: str, algorithm: str, volume: Volume, compute: DType, operation_name: str) -> VolumeCall:
    return VolumeCall(function, algorithm, volume, compute, operation_name)


decide_volume = lru_cache(maxsize=256)(_decide)
