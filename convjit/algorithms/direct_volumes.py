"""Direct convolution of whole volumes: the tiles of images, with rows of all slices as rows of one grid.

The planes of a channel lie one behind the other, filled once, so that a tap in depth is one more offset, and so is a
slice of the result: terms are (channel, kd, kh, kw) as they are of the images that slices are else gathered into.
Outputs, and input gradients of stride 1. Knows where planes lie; does not know when that pays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..gemm.direct import Direct, packed_elements, packing_terms, plan_direct
from ..gemm.direct_kernels import kernels as direct_kernels
from ..gemm.micro import kernels as kernels_of
from ..gemm.planes import (
    BEHIND,
    Axis,
    Planes,
    backward_axes,
    backward_axis,
    fill_tile,
    filling,
    forward_axes,
    plane_elements,
    term_offsets,
)
from ..geometry import Volume
from ..runtime.compile import driver, passed, uncompiled
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling
from ..simd import isa
from ..typing import Array, DType
from . import direct
from .algorithm import INDICES, PACKED_WEIGHT, Space, work_ns


class Stack(NamedTuple):
    """The planes of a channel: plane `i` shows that of the volume with number `i + first`, zeros where there is none.

    Slice `i` of the result meets tap `t` in plane `i*step + t*tap_step + shift`.
    """

    size: int  # planes of a channel of the volume
    first: int  # negative in the padding
    planes: int
    slices: int
    step: int
    taps: int
    tap_step: int
    shift: int


class Setup(NamedTuple):
    """What a problem, its dtype and the number of workers decide: made once, looked up after."""

    direct: Direct
    axes: tuple[Axis, Axis]  # of one plane
    stack: Stack
    offsets: Array  # where each term is met
    tasks: int
    spaces: tuple[Space, ...]  # packed weight, totals, positions, packed panels, planes


def _stack_of(volume: Volume, is_gradient: bool) -> Stack:
    d = volume.depth
    if not is_gradient:
        planes = (d.out_size - 1) * d.stride + (d.kernel - 1) * d.dilation + 1
        return Stack(d.in_size, -d.pad_front, planes, d.out_size, d.stride, d.kernel, d.dilation, 0)
    axis = uncompiled(backward_axis)(0, d.out_size, d.kernel, 1, d.dilation, d.pad_front, d.in_size)
    return Stack(axis.size, axis.first, axis.padded, axis.grid, 1, axis.taps, axis.tap_step, axis.shift)


@lru_cache(maxsize=64)
def set_up(volume: Volume, is_gradient: bool, workers: int, dtype: DType) -> Setup:
    """How outputs are computed, or an input gradient."""
    g, stack = volume.plane, _stack_of(volume, is_gradient)
    axes = backward_axes(g) if is_gradient else forward_axes(g)
    rows, channels = (g.in_channels, g.out_channels) if is_gradient else (g.out_channels, g.in_channels)
    vertical, horizontal = axes
    plane = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    stacked = vertical._replace(
        grid=stack.slices * vertical.grid, taps=stack.taps * vertical.taps, padded=stack.planes * vertical.padded
    )
    d = plan_direct(
        (stacked, horizontal), g.batch, g.groups, rows // g.groups, channels // g.groups,
        stacked.grid * horizontal.grid, workers, dtype, stacked.grid, is_packed=False, is_gradient=is_gradient,
    )  # fmt: skip
    d = d._replace(slice_h=vertical.grid, slice_pitch=stack.step * plane)
    in_depth = (stack.shift + np.arange(stack.taps, dtype=np.int64) * stack.tap_step) * plane
    of_channels = np.arange(d.channels, dtype=np.int64) * d.each
    offsets = (of_channels[:, None, None] + in_depth[:, None] + term_offsets(*axes, 1)).ravel()
    offsets.flags.writeable = False
    widest = -(-d.vectors // d.panels) * isa.here().vector_bytes // dtype.itemsize
    in_place = plane_elements(1, *axes) == 0 and (stack.first, stack.planes) == (0, stack.size)
    terms = d.channels * d.taps
    spaces = (
        Space((packed_elements(g.groups, d.rows, terms, dtype) if d.together == 0 else 0,), name=PACKED_WEIGHT),
        Space((workers, d.points * widest), name="totals"),
        Space((workers, d.points), INDICES, "positions"),
        Space((workers, packing_terms(d) * widest), name="packed panel"),
        Space((0 if in_place else g.batch * channels * d.each + BEHIND,), name="planes"),
    )
    return Setup(d, axes, stack, offsets, g.batch * d.tasks, spaces)


@driver
def _fill(
    task: Any, worker: Any, p: Planes, stack: Stack, rows: Any, cols: Any, kernels: Any, inside: Any, blank: Any,
    volumes: Any, planes: Any,
) -> None:  # fmt: skip
    """Fill a tile of a plane of a channel of `volumes` (N, C, D, H, W); `blank` says of each phase that all is zero."""
    plane, top, bottom, left, right = tile(task, p.padded_h, p.padded_w, rows, cols)
    channel, met, size = plane // stack.planes, plane % stack.planes + stack.first, volumes.itemsize
    is_there = 0 <= met < stack.size
    source = channel * stack.size + met if is_there else 0
    fill_tile(
        kernels, planes.ctypes.data + plane * p.phases_h * p.phases_w * p.padded_h * p.padded_w * size,
        volumes.ctypes.data + source * p.image_h * p.image_w * size, p, inside if is_there else blank, 0, top, bottom,
        left, right,
    )  # fmt: skip


def _filled(workers: int, s: Setup, volumes: Array, planes: Array) -> Array:
    """The planes, or the volumes where those are read in place, read-only."""
    if planes.size == 0:
        return volumes.reshape(volumes.size)
    planes[planes.size - BEHIND :] = 0
    p, inside = filling(s.axes)
    tiles = tiling(p.padded_h, p.padded_w, p.phases_h * p.phases_w)
    tasks = volumes.shape[0] * volumes.shape[1] * s.stack.planes * tiles.a_plane
    blank = _blank(len(inside))
    launch(
        _fill, workers, tasks, planes.size / 4, p, s.stack, tiles.rows, tiles.cols, kernels_of(volumes.dtype), inside,
        blank, volumes, planes,
    )  # fmt: skip
    source = planes.view()
    source.flags.writeable = False  # as volumes are
    return source


@lru_cache(maxsize=64)
def _blank(phases: int) -> Array:
    """A table of `filling` in which nothing lies inside."""
    table = np.zeros((phases, 3), np.int64)
    table.flags.writeable = False
    return table


def run(
    workers: int, volume: Volume, is_gradient: bool, volumes: Array, weight: Array, bias: Array, results: Array,
    packed: Array, totals: Array, positions: Array, space: Array, planes: Array,
) -> None:  # fmt: skip
    """Launch the drivers."""
    s = set_up(volume, is_gradient, workers, results.dtype)
    flat = weight.reshape(-1)
    if s.direct.together == 0:
        direct._pack_all(workers, s.direct, flat, packed)
        flat = packed.view()
        flat.flags.writeable = False
    source = _filled(workers, s, volumes, planes)
    nanoseconds = work_ns(volume.plane) * volume.depth.out_size * volume.depth.kernel
    as_images = results.reshape(*results.shape[:2], s.direct.image_h, s.direct.grid_w)
    launch(
        direct._multiply, workers, s.tasks, nanoseconds, passed(s.direct), direct_kernels(results.dtype), flat,
        s.offsets, bias, source, as_images, totals, positions, space,
    )  # fmt: skip
