"""How an operation on volumes is one on images: slices of the result are images whose channels are planes.

Output slice `od` of volume n is a convolution in two dimensions, of an image whose channels `(c, kd)` are the planes
that its taps in depth meet, with the weight seen as (O, C*KD, KH, KW): terms are those of the definition, in order.
So everything that holds of images holds of volumes. Copying costs one move of a value for every O*KH*KW
multiplications of it. Knows geometries, dtypes and limits; does not know arrays.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from ..algorithms.algorithm import workspace_limit
from ..algorithms.slices import Slices, backward_phases, forward_slices, output_slices
from ..geometry import Volume
from ..typing import DType
from .calls import Call, counted_bytes, decide


class Turn(NamedTuple):
    """Slices that are computed alike, in one convolution of images; None where no tap is met."""

    call: Call | None
    met: Slices  # gathered into the images' channels
    landing: Slices  # results, or the gradients that go with the images
    taps: Slices | None  # of the weight; None where it is all of it, as it lies
    together: int  # images that are gathered at once


class VolumeCall:
    """An operation on volumes in a dtype, as `Call` is one on images."""

    def __init__(self, function: str, algorithm: str, volume: Volume, compute: DType, name: str) -> None:
        self.name = name
        self.volume = volume
        self.compute = compute
        limit = workspace_limit(math.prod(volume.y_shape if name == "input_grad" else volume.x_shape), compute)
        if name == "input_grad":
            self.turns = tuple(_backward_turns(function, algorithm, volume, compute, limit))
        else:
            self.turns = (_forward_turn(function, algorithm, volume, compute, name, limit),)


def _forward_turn(
    function: str, algorithm: str, volume: Volume, compute: DType, name: str, limit: int
) -> Turn:  # fmt: skip
    depth, plane = volume
    g = plane._replace(batch=plane.batch * depth.out_size, in_channels=plane.in_channels * depth.kernel)
    call = decide(function, algorithm, g, compute, name)
    met, landing = forward_slices(depth, plane.in_channels), output_slices(depth, plane.out_channels)
    return Turn(call, met, landing, None, _together(call, limit))


def _backward_turns(function: str, algorithm: str, volume: Volume, compute: DType, limit: int) -> list[Turn]:
    depth, plane = volume
    turns = []
    for phase in backward_phases(
        depth, plane.in_channels, plane.out_channels, plane.in_channels // plane.groups
    ):  # fmt: skip
        taps = phase.weights.images
        call = None
        if taps > 0:
            g = plane._replace(batch=plane.batch * phase.landing.images, out_channels=plane.out_channels * taps)
            call = decide(function, algorithm, g, compute, "input_grad")
        together = 0 if call is None else _together(call, limit)
        turns.append(Turn(call, phase.gradients, phase.landing, phase.weights, together))
    return turns


# Planes that are gathered at once stay in a cache of the second or third level until they are read.
_GATHERED_BYTES = 4 << 20


def _together(call: Call, limit: int) -> int:
    """How many images are gathered at once: as many as stay within the limit with what one worker needs for them.

    One image may need more. It depends on the problem alone, so weight gradients do not depend on threads.
    """
    batch, slices, images = call.geometry.batch, 1, call.geometry.batch
    while images > 1:
        part = call.of_batch(images)
        g = part.geometry
        gathered = (math.prod(g.x_shape) + math.prod(g.y_shape)) * call.compute.itemsize
        taken = gathered + counted_bytes(part.spaces(1))
        if taken <= limit:
            break
        slices = max(slices + 1, min(batch, slices * taken // limit))
        images = -(-batch // slices)
    return max(images, 1)


def _decide(function: str, algorithm: str, volume: Volume, compute: DType, name: str) -> VolumeCall:
    return VolumeCall(function, algorithm, volume, compute, name)


decide_volume = lru_cache(maxsize=256)(_decide)
