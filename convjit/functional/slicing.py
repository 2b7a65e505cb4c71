"""Running an operation on volumes: whole ones, or slices gathered into images, those computed, results put back.

Knows how many slices are gathered at once; does not know how images are computed, nor complex numbers.
"""

from __future__ import annotations

import math

import numpy as np

from .. import arrays
from ..algorithms.slices import Slices, gather, put_back
from ..algorithms.slices import turn as turn_weight
from ..runtime.memory import ALIGNED_FROM, allocate
from ..runtime.threads import workers
from ..typing import Array
from . import kept
from .batches import run_images
from .calls import Call
from .volumes import Turn, VolumeCall, Whole


def run_volumes(function: str, call: VolumeCall, inputs: tuple[Array, ...], result: Array) -> None:
    """Run an operation on volumes; the result has the dtype that it is computed in."""
    if call.whole is not None and _run_whole(function, call.whole, inputs, result):
        return
    run_as = _run_weight_grad if call.operation_name == "weight_grad" else _run_turns
    run_as(function, call, inputs, result)


def _run_whole(function: str, whole: Whole, inputs: tuple[Array, ...], result: Array) -> bool:
    """Volumes as they are; False, and nothing done, where tasks would pack a weight that is packed already."""
    crew = workers(whole.job.nanoseconds)
    if whole.packs_anew(crew):
        return False
    volumes, weight, *rest = [arrays.ready(function, "an input", array, result.dtype) for array in inputs]
    bias = rest[0] if rest else weight.reshape(-1)[:0]
    source, workspaces = kept.take(function, whole, crew)
    whole.way.run(crew, whole.job, volumes, weight, bias, result, *workspaces)
    kept.put_back(whole, crew, source, workspaces)
    return True


def packed(function: str, call: Call | VolumeCall, weight: Array) -> Array:
    """The weight in the form of a call that packs it."""
    images_of = call if isinstance(call, Call) else call.of_images
    assert images_of is not None
    assert images_of.packing is not None
    geometry, packing = images_of.geometry, images_of.packing
    space = packing.space(geometry, call.compute)
    form = allocate(function, "the packed weight", space.shape, space.dtype or call.compute, ALIGNED_FROM)
    packing.pack(workers(form.size), geometry, weight.reshape(geometry.weight_shape), form)
    form.flags.writeable = False
    return form


def _run_turns(function: str, call: VolumeCall, inputs: tuple[Array, ...], result: Array) -> None:
    """A result of one slice after the other: planes gathered into images, images computed, results put back."""
    volumes, weight, *rest = [arrays.ready(function, "an input", array, call.compute) for array in inputs]
    bias = rest or [np.empty(0, call.compute)]
    for turn in call.turns:
        if turn.call is None:
            _clear(turn, result)
            continue
        images_of = turn.call
        part = weight if call.is_packed else _turned(function, turn, call.volume.plane.groups, weight)
        if images_of.packing is not None and turn.together < images_of.geometry.batch:
            images_of, part = images_of.packed(), packed(function, images_of, part)
        assert turn.copies is not None
        source, copies = kept.take(function, turn.copies, 1)
        planes, results = copies
        for first in range(0, images_of.geometry.batch, turn.together):
            here = images_of.of_batch(min(turn.together, images_of.geometry.batch - first))
            images = _gathered(turn.met, first, _images_shape(here), volumes, planes)
            made = _room(turn.landing, first, _result_shape(here), result, results)
            run_images(function, here, (images, part, *(bias if here.operation_name == "forward" else [])), made)
            if not turn.landing.are_volumes:
                put_back(workers(float(made.size)), turn.landing, first, made, result)
        kept.put_back(turn.copies, 1, source, copies)


def _room(s: Slices, first: int, shape: tuple[int, ...], volumes: Array, copies: Array) -> Array:
    """Where images of this shape are, number `first` and those behind it: volumes as they lie, or room for copies."""
    if s.are_volumes:
        return volumes[first : first + shape[0]].reshape(shape)
    return copies[: math.prod(shape)].reshape(shape)


def _gathered(s: Slices, first: int, shape: tuple[int, ...], volumes: Array, copies: Array) -> Array:
    """Images of this shape, copied unless they are volumes as they lie."""
    images = _room(s, first, shape, volumes, copies)
    if not s.are_volumes:
        gather(workers(float(images.size)), s, first, volumes, images)
    return images


def _images_shape(call: Call) -> tuple[int, ...]:
    return call.geometry.y_shape if call.operation_name == "input_grad" else call.geometry.x_shape


def _result_shape(call: Call) -> tuple[int, ...]:
    return call.geometry.x_shape if call.operation_name == "input_grad" else call.geometry.y_shape


def _turned(function: str, turn: Turn, groups: int, weight: Array) -> Array:
    """The weight as the images of a turn meet it: all taps in depth are channels."""
    assert turn.call is not None
    g = turn.call.geometry
    if turn.taps is None:
        return weight.reshape(g.weight_shape)
    part = allocate(function, "the weight of a phase", g.weight_shape, weight.dtype)
    crew = workers(2.0 * part.size)
    if turn.call.operation_name == "forward":  # as a convolution of the gradient
        turn_weight(crew, turn.taps, groups, weight, part)
    else:
        of_taps = part.reshape(len(weight) * turn.taps.images, turn.taps.channels, *g.weight_shape[2:])
        gather(crew, turn.taps, 0, weight, of_taps)
    return part


def _clear(turn: Turn, result: Array) -> None:
    """Slices that meet no tap."""
    s = turn.landing
    target = result[:, :, s.first : s.first + (s.images - 1) * s.step + 1 : s.step]
    arrays.write(target, 0)


def _run_weight_grad(function: str, call: VolumeCall, inputs: tuple[Array, ...], result: Array) -> None:
    """The sum over chunks of slices, which depend on the problem alone; every chunk is a problem of images."""
    dy, x = (arrays.ready(function, "an input", array, call.compute) for array in inputs)
    (turn,) = call.turns
    assert turn.call is not None
    batch = turn.call.geometry.batch
    if batch == 0:
        arrays.write(result, 0)
    assert turn.copies is not None
    source, copies = kept.take(function, turn.copies, 1)
    planes, others = copies
    for first in range(0, batch, turn.together):
        here = turn.call.of_batch(min(turn.together, batch - first))
        images = _gathered(turn.met, first, here.geometry.x_shape, x, planes)
        gradients = _gathered(turn.landing, first, here.geometry.y_shape, dy, others)
        part = result if first == 0 else allocate(function, "a part of the gradient", result.shape, call.compute)
        run_images(function, here, (gradients, images), part.reshape(here.geometry.weight_shape))
        if first > 0:
            arrays.add(result, part)
    kept.put_back(turn.copies, 1, source, copies)
