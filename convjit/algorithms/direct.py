"""Direct convolution: lanes are channels of the result, pixels are read in place, weights are packed.

Outputs, and input gradients of stride 1: these are outputs of a convolution of the output gradient.

Knows when that pays, and workers and workspaces; does not know how a panel is computed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm.bands import band_count, band_rows
from ..gemm.direct import (
    MOST_POINTS,
    Direct,
    multiply_points,
    pack_weights,
    packed_elements,
    packing_terms,
    plan_direct,
)
from ..gemm.direct_kernels import kernels as direct_kernels
from ..gemm.estimate import direct_share
from ..gemm.micro import kernels as kernels_of
from ..gemm.planes import Axis, Planes, backward_axes, forward_axes, plane_elements, term_offsets
from ..gemm.summation import TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver, passed
from ..runtime.launch import launch
from ..runtime.options import COMPILED
from ..simd import isa
from ..typing import Array, DType
from . import implicit, input_product
from .algorithm import INDICES, PACKED_WEIGHT, Algorithm, Cut, Operation, Packing, Space, work_ns
from .filling import cut_into_bands, fill_planes, source_of_band


@driver
def _pack(task: Any, worker: Any, d: Direct, kernels: Any, weight: Any, packed: Any) -> None:
    """Pack a panel of the weights of a group; both arrays are flat."""
    pack_weights(d, kernels, task // d.panels, task % d.panels, weight, packed)


@driver
def _multiply(
    task: Any, worker: Any, d: Direct, kernels: Any, weight: Any, offsets: Any, bias: Any, source: Any, results: Any,
    totals: Any, positions: Any, space: Any,
) -> None:  # fmt: skip
    """result[o] at each grid point = bias[o] + sum over (channel, tap) of weight[o, term] * what the point meets."""
    multiply_points(
        d, task, 0, kernels, weight.ctypes.data, offsets, bias, source.ctypes.data, results.ctypes.data,
        totals[worker].ctypes.data, positions[worker], space[worker].ctypes.data,
    )  # fmt: skip


@driver
def _multiply_band(
    task: Any, worker: Any, d: Direct, f: Planes, inside: Any, fills: Any, kernels: Any, weight: Any, offsets: Any,
    bias: Any, images: Any, results: Any, totals: Any, positions: Any, space: Any, planes: Any,
) -> None:  # fmt: skip
    """The same for a band of rows of an image, whose planes are the worker's."""
    bands, tasks = band_count(d), d.groups * d.panels * d.chunks
    n, origin = task // bands, task % bands * d.grid_h
    source = source_of_band(n, origin, fills, f, inside, images, planes[worker])
    for each in range(n * tasks, (n + 1) * tasks):
        multiply_points(
            d, each, origin, kernels, weight.ctypes.data, offsets, bias, source, results.ctypes.data,
            totals[worker].ctypes.data, positions[worker], space[worker].ctypes.data,
        )  # fmt: skip


class _Setup(NamedTuple):
    """Everything that geometry, dtype and number of workers decide: made once, looked up after."""

    direct: Direct
    axes: tuple[Axis, Axis]  # of a band
    inside: Array
    offsets: Array
    by_band: bool
    tasks: int
    spaces: tuple[Space, ...]  # totals, positions, packed panels, planes
    records: tuple[Array, Array]  # as compiled code takes them


@lru_cache(maxsize=256)
def _set_up(g: Geometry, workers: int, dtype: DType, is_packed: bool, is_gradient: bool = False) -> _Setup:
    if is_gradient:
        axes, rows, channels, result_h = backward_axes(g), g.in_channels, g.out_channels, g.in_h
    else:
        axes, rows, channels, result_h = forward_axes(g), g.out_channels, g.in_channels, g.out_h
    terms = channels // g.groups * g.kernel_h * g.kernel_w
    each = 0  # where pixels are few: workers share the weights, of which each packs and reads its own part
    if workers == 1 or g.batch * axes[0].grid * axes[1].grid > MOST_POINTS:
        each = band_rows(axes, channels, g.batch, rows, terms, workers, dtype.itemsize)
    bands = cut_into_bands(axes, each, g.batch, channels, workers)
    d = plan_direct(
        bands.axes, g.batch, g.groups, rows // g.groups, channels // g.groups, result_h * axes[1].grid, bands.crew,
        dtype, result_h, is_packed=is_packed, is_gradient=is_gradient,
    )  # fmt: skip
    widest = -(-d.vectors // d.panels) * isa.here().vector_bytes // dtype.itemsize
    spaces = (
        Space((workers, d.points * widest), name="totals"),
        Space((workers, d.points), INDICES, "positions"),
        Space((workers, packing_terms(d) * widest), name="packed panel"),
        bands.space,
    )
    tasks = g.batch * (d.bands if bands.by_band else d.tasks)
    records = passed(d), passed(bands.record)
    offsets = term_offsets(*bands.axes, channels // g.groups)
    return _Setup(d, bands.axes, bands.inside, offsets, bands.by_band, tasks, spaces, records)


def _packed_space(g: Geometry, dtype: DType) -> Space:
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    return Space((packed_elements(g.groups, g.out_channels // g.groups, terms, dtype),), name=PACKED_WEIGHT)


def _packed_gradient_space(g: Geometry, dtype: DType) -> Space:
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    return Space((packed_elements(g.groups, g.in_channels // g.groups, terms, dtype),), name=PACKED_WEIGHT)


def _spaces(setup: _Setup, packed: Space) -> tuple[Space, ...]:
    """Those of a call that is given a weight as it is."""
    return packed if setup.direct.together == 0 else Space((0,), name=PACKED_WEIGHT), *setup.spaces


def _workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _spaces(_set_up(g, workers, dtype, False), _packed_space(g, dtype))


def _gradient_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _spaces(_set_up(g, workers, dtype, False, True), _packed_gradient_space(g, dtype))


def _packed_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return _set_up(g, workers, dtype, True).spaces


def _pack_all(workers: int, d: Direct, weight: Any, packed: Any) -> None:
    launch(_pack, workers, d.groups * d.panels, packed.size / 4, d, direct_kernels(packed.dtype), weight, packed)


def _pack_weight(workers: int, g: Geometry, weight: Any, packed: Any) -> None:
    _pack_all(workers, _set_up(g, 1, packed.dtype, True).direct, weight.reshape(-1), packed)


def _run(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, packed: Any, *spaces: Any) -> None:
    _run_given(workers, g, _set_up(g, workers, y.dtype, False), x, weight, bias, y, packed, *spaces)


def _run_gradient(workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, packed: Any, *spaces: Any) -> None:
    setup = _set_up(g, workers, dx.dtype, False, True)
    _run_given(workers, g, setup, dy, weight, weight.reshape(-1)[:0], dx, packed, *spaces)


def _run_given(
    workers: int, g: Geometry, setup: _Setup, images: Any, weight: Any, bias: Any, results: Any, packed: Any,
    *spaces: Any,
) -> None:  # fmt: skip
    """With a weight as it is, which is packed first unless tasks do that."""
    flat = weight.reshape(-1)
    if setup.direct.together == 0:
        _pack_all(workers, setup.direct, flat, packed)
        flat = packed.view()
        flat.flags.writeable = False  # as that of a plan: all run one compiled function
    _multiply_all(workers, g, setup, images, flat, bias, results, *spaces)


def _run_packed(workers: int, g: Geometry, x: Any, packed: Any, bias: Any, y: Any, *spaces: Any) -> None:
    _multiply_all(workers, g, _set_up(g, workers, y.dtype, True), x, packed, bias, y, *spaces)


def _multiply_all(
    workers: int, g: Geometry, s: _Setup, images: Any, weight: Any, bias: Any, results: Any, totals: Any,
    positions: Any, space: Any, planes: Any,
) -> None:  # fmt: skip
    ours = direct_kernels(results.dtype), weight, s.offsets, bias
    direct, f = s.records
    if s.by_band:
        launch(
            _multiply_band, workers, s.tasks, work_ns(g), direct, f, s.inside, kernels_of(results.dtype), *ours, images,
            results, totals, positions, space, planes,
        )  # fmt: skip
        return
    source = fill_planes(workers, s.axes, images, planes)
    launch(_multiply, workers, s.tasks, work_ns(g), direct, *ours, source, results, totals, positions, space)


def _declines(g: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return "kernels are not compiled (NUMBA_DISABLE_JIT=1)"
    if dtype.kind != "f":
        return f"it is for floating point, not {dtype}"
    if g.in_channels * g.out_channels == 0:
        return "there are no channels"
    return _too_long(g.in_channels // g.groups * g.kernel_h * g.kernel_w)


def _too_long(terms: int) -> str | None:
    return f"sums have more than {TERMS_A_TOTAL} terms" if terms > TERMS_A_TOTAL else None


def _gradient_declines(g: Geometry, dtype: DType) -> str | None:
    if (g.stride_h, g.stride_w) != (1, 1):
        return "its input gradients are of stride 1"
    return _too_long(g.out_channels // g.groups * g.kernel_h * g.kernel_w)


def _cut(g: Geometry, workers: int, dtype: DType) -> Cut:
    return _cut_of(_set_up(g, workers, dtype, False), workers, dtype)


def _gradient_cut(g: Geometry, workers: int, dtype: DType) -> Cut:
    return _cut_of(_set_up(g, workers, dtype, False, True), workers, dtype)


def _cut_of(s: _Setup, workers: int, dtype: DType) -> Cut:
    d = s.direct
    bands = f", bands of {d.grid_h} rows" if s.by_band else ""
    how = f"in place, panels of {-(-d.rows // d.panels)} channels, {d.points} pixels at once{bands}; tasks: {s.tasks}"
    filled = plane_elements(d.groups * d.channels, *s.axes)
    return Cut(how, direct_share(d, filled, s.tasks, workers, dtype))


# Elements: more than any memory holds, and little enough to count in 64 bits.
_LARGEST = 1 << 48


def _yields(g: Geometry, dtype: DType) -> str | None:
    planes = plane_elements(g.batch * g.in_channels, *forward_axes(g))
    return _slower(_cut, implicit.forward_cut, max(math.prod(g.y_shape), planes), g, dtype)


def _gradient_yields(g: Geometry, dtype: DType) -> str | None:
    planes = plane_elements(g.batch * g.out_channels, *backward_axes(g))
    return _slower(_gradient_cut, input_product.cut, max(math.prod(g.x_shape), planes), g, dtype)


def _slower(ours: Any, theirs: Any, elements: int, g: Geometry, dtype: DType) -> str | None:
    """Why pixels in lanes are better, if they are; of results or planes of so many elements."""
    if elements > _LARGEST:
        return "nothing can be expected of a problem that fits no memory"
    here, there = (cut(g, 1, dtype).share_of_peak for cut in (ours, theirs))
    if here > there:
        return None
    return f"pixels in lanes are expected to reach {there:.0%} of the peak, channels in lanes {here:.0%}"


_PACKING = Packing(_packed_space, _pack_weight, _run_packed, _packed_workspace)
ALGORITHM = Algorithm(
    "direct",
    _declines,
    Operation(_run, _workspace, _PACKING, _cut, yields=_yields),
    Operation(_run_gradient, _gradient_workspace, None, _gradient_cut, _gradient_declines, _gradient_yields),
    None,
)
