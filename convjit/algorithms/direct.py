"""Direct convolution: lanes are channels of the result, pixels are read in place, weights are packed.

Outputs, and input gradients: of each phase of the pixels modulo the stride, these are outputs of a convolution of the
output gradient. Images may have their channels first or last: they are read by strides, and results of either layout
are written as they lie.

Knows when that pays, and workers and workspaces; does not know how a panel is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

from ..gemm.bands import FILLED_BEFORE, band_count, band_size
from ..gemm.direct import (
    Direct,
    pack_weights,
    packed_elements,
    packing_tasks,
    packing_terms,
    plan_direct,
    task_count,
)
from ..gemm.direct_kernels import kernels as direct_kernels
from ..gemm.direct_points import multiply_points
from ..gemm.estimate import direct_share, filling_cycles
from ..gemm.micro import fills
from ..gemm.phases import Phases, gradient_phases, one_phase, phase_offsets
from ..gemm.pixels import phase_axes, pixel_axes, pixel_steps, plane_axes, plane_steps
from ..gemm.planes import AS_IN_IMAGE, Axis, Pixel, Planes, plane_elements, term_offsets
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.launch import Launch, Run, run_in_turn
from ..simd import isa
from ..typing import Array, DType
from . import implicit
from .algorithm import (
    INDICES,
    PACKED_WEIGHT,
    Algorithm,
    Explained,
    Operation,
    Packing,
    Space,
    not_for,
    too_long,
    work_ns,
)
from .filling import as_planes, cut_into_bands, filled_by, in_parts, of_groups, source_of_band
from .turning import turned


@driver
def _pack(task: Any, worker: Any, d: Direct, kernels: Any, places: Any, weight: Any, packed: Any, space: Any) -> None:
    """Pack some of the weights; `weight` and `packed` are flat."""
    pack_weights(d, task, kernels, places, weight, packed, space[worker])


@driver
def _multiply(
    task: Any, worker: Any, d: Direct, kernels: Any, offsets: Any, before: Any, weight: Any, bias: Any, source: Any,
    results: Any, totals: Any, positions: Any, space: Any,
) -> None:  # fmt: skip
    """result[o] at each grid point = bias[o] + sum over (channel, tap) of weight[o, term] * what the point meets.

    `weight` is flat: packed, or as it is where a task packs what it reads.
    """
    multiply_points(
        d, task, 0, kernels, weight.ctypes.data, offsets, before, bias, source.ctypes.data, results.ctypes.data,
        totals[worker].ctypes.data, positions[worker], space[worker].ctypes.data,
    )  # fmt: skip


@driver
def _multiply_band(
    task: Any, worker: Any, d: Direct, f: Planes, inside: Any, of_planes: Any, kernels: Any, offsets: Any, before: Any,
    weight: Any, bias: Any, images: Any, results: Any, totals: Any, positions: Any, space: Any, planes: Any,
) -> None:  # fmt: skip
    """The same for a band of rows of a part of an image, whose planes are the worker's."""
    bands, tasks = band_count(d), task_count(d)
    n, origin = task // bands, task % bands * d.grid_h
    source = source_of_band(n, origin * d.origin_step, of_planes, f, inside, images, planes[worker])
    for each in range(n * tasks, (n + 1) * tasks):
        multiply_points(
            d, each, origin, kernels, weight.ctypes.data, offsets, before, bias, source, results.ctypes.data,
            totals[worker].ctypes.data, positions[worker], space[worker].ctypes.data,
        )  # fmt: skip


# Pixels of which workers share the weights: each packs and reads its own part, and there are too few for bands.
_FEW_POINTS = 256


class _Setup(NamedTuple):
    """Everything that geometry, dtype and number of workers decide: made once, looked up after."""

    direct: Direct
    phases: Phases
    axes: tuple[Axis, Axis]  # of a band
    pixel: Pixel
    offsets: Array
    by_band: bool
    tasks: int
    spaces: tuple[Space, ...]  # totals, positions, packed panels, planes
    pack: Launch
    multiply: Launch


@lru_cache(maxsize=256)
def _set_up(
    g: Geometry, workers: int, dtype: DType, is_packed: bool, is_gradient: bool = False, channels_last: bool = False
) -> _Setup:
    rows, channels, stride = g.out_channels, g.in_channels, (g.stride_h, g.stride_w)
    phases = one_phase(g.kernel_h * g.kernel_w, g.out_h, g.out_w)
    if is_gradient:
        rows, channels, stride, phases = channels, rows, (1, 1), gradient_phases(g)
    axes, planes, pixel = plane_axes(g, is_gradient), channels, AS_IN_IMAGE
    if channels_last:
        (axes, pixel), planes = pixel_axes(g, dtype.itemsize, is_gradient), 1
    of_group, step = channels // g.groups, stride[0] // axes[0].step
    terms = of_group * g.kernel_h * g.kernel_w
    band = FILLED_BEFORE
    if workers == 1 or g.batch * phases.height * phases.width > _FEW_POINTS:
        groups = 1 if channels_last else g.groups
        band = band_size(axes, planes, g.batch, rows, terms, workers, dtype.itemsize, step=step, groups=groups)
    bands = cut_into_bands(axes, band, g.batch, planes, workers, step, pixel)
    steps = plane_steps(bands.axes, g.groups, of_group, stride)
    if channels_last:
        steps = pixel_steps(bands.axes, g.groups, of_group, stride, pixel)
    d = plan_direct(
        bands.axes, steps, g.batch, g.groups, rows // g.groups, of_group,
        0 if channels_last else phases.height * phases.width, bands.crew, dtype, axes[0].grid, phases,
        is_packed=is_packed, is_gradient=is_gradient, parts=band.parts, packers=workers,
    )  # fmt: skip
    widest = d.widest * isa.lanes(dtype)
    spaces = (
        Space((workers, d.points * phases.columns * d.abreast * widest), name="totals"),
        Space((workers, d.points), INDICES, "positions"),
        Space((workers, packing_terms(d) * widest), name="packed panel"),
        bands.space,
    )
    tasks = g.batch * d.parts * (d.bands if bands.by_band else d.tasks)
    offsets = term_offsets(*bands.axes, of_group, steps.channel)
    if d.is_parted:
        offsets = phase_offsets(phase_axes(g), bands.axes, of_group, steps.channel, steps.pixel)
    ours = partial(direct_kernels, dtype), offsets, phases.before
    if bands.by_band:
        multiply = Launch(
            _multiply_band, tasks, work_ns(g), d, bands.record, bands.inside, partial(fills, dtype), *ours
        )
    else:
        multiply = Launch(_multiply, tasks, work_ns(g), d, *ours)
    return _Setup(
        d, phases, bands.axes, pixel, offsets, bands.by_band, tasks, spaces, packing(d, phases, dtype), multiply
    )


class _Way(NamedTuple):
    """One of four ways: outputs or input gradients, of images with their channels first or last."""

    is_gradient: bool
    channels_last: bool

    def set_up(self, g: Geometry, workers: int, dtype: DType, is_packed: bool) -> _Setup:
        return _set_up(g, workers, dtype, is_packed, *self)

    def packed_space(self, g: Geometry, dtype: DType) -> Space:
        """Of the weight that is packed."""
        rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
        if self.is_gradient:
            rows, channels = channels, rows
        terms = channels * g.kernel_h * g.kernel_w
        return Space((packed_elements(g.groups, rows, terms, dtype),), name=PACKED_WEIGHT)

    def workspace(self, g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
        """Those of a call that is given a weight as it is."""
        setup, packed = self.set_up(g, workers, dtype, False), self.packed_space(g, dtype)
        return packed if setup.direct.together == 0 else Space((0,), name=PACKED_WEIGHT), *setup.spaces

    def packed_workspace(self, g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
        """Those of a call that is given a packed weight."""
        return self.set_up(g, workers, dtype, True).spaces

    def bind(
        self, workers: int, g: Geometry, dtype: DType, packed: Any, totals: Any, positions: Any, space: Any, planes: Any
    ) -> Callable[..., None]:
        """Outputs of a weight as it is, `run(images, weight, bias, results)`: packed first unless tasks do that."""
        setup = self.set_up(g, workers, dtype, False)
        runs = self._runs(setup, g, totals, positions, space, planes)

        def run_alone(images: Any, weight: Any, bias: Any, results: Any) -> None:
            run_in_turn(workers, *runs(images, weight.reshape(-1), bias, results))

        def run_packing(images: Any, weight: Any, bias: Any, results: Any) -> None:
            first = setup.pack.on(weight.reshape(-1), packed, space)
            run_in_turn(workers, first, *runs(images, packed, bias, results))

        return run_alone if setup.direct.together > 0 else run_packing

    def bind_gradient(self, workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
        """The same of an input gradient, `run(dy, weight, dx)`."""
        run, no_bias = self.bind(workers, g, dtype, *workspaces), workspaces[0][:0]
        return lambda dy, weight, dx: run(dy, weight, no_bias, dx)

    def bind_packed(self, workers: int, g: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
        """Outputs of a packed weight, `run(x, packed, bias, y)`."""
        runs = self._runs(self.set_up(g, workers, dtype, True), g, *workspaces)
        return lambda x, packed, bias, y: run_in_turn(workers, *runs(x, packed, bias, y))

    def _runs(
        self, s: _Setup, g: Geometry, totals: Any, positions: Any, space: Any, planes: Any
    ) -> Callable[..., tuple[Run, ...]]:
        """What is run in turn for a weight as tasks take it, packed or not, as a function of a call's arrays."""
        if s.by_band:

            def of_bands(images: Any, weight: Any, bias: Any, results: Any) -> tuple[Run, ...]:
                images = in_parts(as_planes(images) if self.channels_last else images, s.direct.parts)
                return (s.multiply.on(weight, bias, images, results, totals, positions, space, planes),)

            return of_bands
        channels = 1 if self.channels_last else g.out_channels if self.is_gradient else g.in_channels
        fill = filled_by(s.axes, g.batch * channels, planes, s.pixel)

        def of_all(images: Any, weight: Any, bias: Any, results: Any) -> tuple[Run, ...]:
            source, before = fill(as_planes(images) if self.channels_last else images)
            return *before, s.multiply.on(weight, bias, source, results, totals, positions, space)

        return of_all

    def explained(self, g: Geometry, workers: int, dtype: DType) -> Explained:
        """Panels of channels, grid points and bands."""
        s = self.set_up(g, workers, dtype, False)
        d = s.direct
        bands = f", bands of {d.grid_h} rows{of_groups(d.groups, d.parts)}" if s.by_band else ""
        if d.phases_h * d.phases_w > 1:
            bands = f", {d.phases_h * d.phases_w} phases{bands}"
        widest = d.widest * isa.lanes(dtype)
        panels = f"panels of up to {min(d.rows, widest)} channels, {d.points} pixels at once"
        if d.abreast > 1:
            panels = f"{d.abreast} {panels}"
        filling = filling_cycles(1 if self.channels_last else d.groups * d.channels, s.axes, dtype)
        share = direct_share(d, s.phases.before, filling, s.tasks, workers, dtype)
        return Explained(f"in place, {panels}{bands}; tasks: {s.tasks}", share)

    def yields(self, g: Geometry, dtype: DType) -> str | None:
        """Why pixels in lanes are better, if they are."""
        name, axes, planes, results = "forward", plane_axes(g, self.is_gradient), g.in_channels, g.y_shape
        if self.is_gradient:
            name, planes, results = "input_grad", g.out_channels, g.x_shape
        if max(math.prod(results), plane_elements(g.batch * planes, *axes)) > _LARGEST:
            return "nothing can be expected of a problem that fits no memory"
        theirs = implicit.ALGORITHM.operation(name)
        assert theirs is not None
        if self.channels_last:
            theirs = turned(name, theirs)
        assert theirs.explained is not None
        here, there = self.explained(g, 1, dtype).share_of_peak, theirs.explained(g, 1, dtype).share_of_peak
        if here > there:
            return None
        return f"pixels in lanes are expected to reach {there:.0%} of the peak, channels in lanes {here:.0%}"


def packing(d: Direct, phases: Phases, dtype: DType) -> Launch:
    """Packing all weights: of the flat weight, the packed one, and a workspace which only several phases need."""
    tasks, elements = int(packing_tasks(d)), packed_elements(d.groups, d.rows, d.channels * d.taps, dtype)
    return Launch(_pack, tasks, elements / 4, d, partial(direct_kernels, dtype), phases.places)


def _pack_weight(workers: int, g: Geometry, weight: Any, packed: Any) -> None:
    pack = _set_up(g, 1, packed.dtype, True).pack
    run_in_turn(workers, pack.on(weight.reshape(-1), packed, packed[:0].reshape(workers, 0)))


def _declines(g: Geometry, dtype: DType) -> str | None:
    return not_for(g, dtype) or too_long(g.in_channels // g.groups * g.kernel_h * g.kernel_w)


def _gradient_declines(g: Geometry, dtype: DType) -> str | None:
    if max(min(g.stride_h, g.in_h), min(g.stride_w, g.in_w)) > _MOST_PHASES:
        return f"its input gradients are of strides up to {_MOST_PHASES}"
    return too_long(g.out_channels // g.groups * g.kernel_h * g.kernel_w)


# In each direction: a task has totals of all column phases.
_MOST_PHASES = 32
# Elements: more than any memory holds, and little enough to count in 64 bits.
_LARGEST = 1 << 48


def _forward_of(way: _Way, channels_last: Operation | None = None) -> Operation:
    packing = Packing(way.packed_space, _pack_weight, way.bind_packed, way.packed_workspace)
    return Operation(way.bind, way.workspace, packing, way.explained, yields=way.yields, channels_last=channels_last)


def _gradient_of(way: _Way, channels_last: Operation | None = None) -> Operation:
    return Operation(
        way.bind_gradient,
        way.workspace,
        explained=way.explained,
        declines=_gradient_declines,
        yields=way.yields,
        channels_last=channels_last,
    )


_OUTPUTS, _GRADIENTS = _Way(is_gradient=False, channels_last=False), _Way(is_gradient=True, channels_last=False)

ALGORITHM = Algorithm(
    "direct",
    _declines,
    _forward_of(_OUTPUTS, _forward_of(_OUTPUTS._replace(channels_last=True))),
    _gradient_of(_GRADIENTS, _gradient_of(_GRADIENTS._replace(channels_last=True))),
    None,
)
