"""Implicit matrix product: forward and input gradient are one product, the weight gradient is the same one turned.

Knows what rows, channels and planes of an operation are; does not know how a product is computed.
"""

from __future__ import annotations

from typing import Any

from ..gemm import micro
from ..gemm.blocked import scratch_elements
from ..gemm.planes import (
    backward_axes,
    forward_axes,
    grid_phases,
    horizontal_axis,
    horizontal_phase,
    list_phase_terms,
    phase_tables,
    term_offsets,
    vertical_axis,
    vertical_phase,
)
from ..gemm.product import Cut, cut_product, product
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import launch
from ..runtime.options import COMPILED
from ..typing import DType
from . import weight_product
from .algorithm import INDICES, Algorithm, Operation, Space, work_ns
from .filling import fill_planes, lists_space, planes_space, source_of_image

# --- forward --------------------------------------------------------------------------------------------------------


@driver
def _forward(
    task: Any, worker: Any, g: Geometry, cut: Cut, kernels: Any, weight: Any, offsets: Any, bias: Any, source: Any,
    y: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]

    `weight` is flat, `source` are the planes of all images, `y` is (N * O, OH, OW).
    """
    rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
    product(
        task, weight, offsets, 0, vertical_axis(g), horizontal_axis(g), source.ctypes.data, y, bias, g, rows, channels,
        cut, kernels, scratch[worker], lists[worker],
    )  # fmt: skip


@driver
def _forward_by_image(
    task: Any, worker: Any, g: Geometry, cut: Cut, kernels: Any, weight: Any, offsets: Any, bias: Any, x: Any, y: Any,
    scratch: Any, planes: Any, lists: Any,
) -> None:  # fmt: skip
    """The same for a whole image, whose planes are the worker's."""
    vertical, horizontal = vertical_axis(g), horizontal_axis(g)
    source = source_of_image(task, x, planes[worker], vertical, horizontal)
    rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
    for each in range(task * cut.tasks, (task + 1) * cut.tasks):
        product(
            each, weight, offsets, 0, vertical, horizontal, source, y, bias, g, rows, channels, cut, kernels,
            scratch[worker], lists[worker],
        )  # fmt: skip


def _forward_cut(g: Geometry, workers: int, dtype: DType) -> Cut:
    rows, channels = g.out_channels // g.groups, g.in_channels // g.groups
    return cut_product(forward_axes(g), rows, channels, g.in_channels, g.batch, g.groups, 1, workers, dtype)


def _forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    cut = _forward_cut(g, workers, dtype)
    scratch = Space((workers, scratch_elements(cut.chunk, terms)))
    return scratch, planes_space(g.in_channels, g.batch, forward_axes(g), cut, workers), lists_space(workers)


def _run_forward(
    workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, scratch: Any, planes: Any, lists: Any
) -> None:
    cut, kernels = _forward_cut(g, workers, y.dtype), micro.kernels(y.dtype)
    offsets = term_offsets(*forward_axes(g), g.in_channels // g.groups)
    results = y.reshape(g.batch * g.out_channels, g.out_h, g.out_w)
    ours = cut, kernels, weight.reshape(-1), offsets, bias
    if cut.by_image:
        launch(_forward_by_image, workers, g.batch, work_ns(g), g, *ours, x, results, scratch, planes, lists)
    else:
        source = fill_planes(workers, g, False, x, planes)
        launch(_forward, workers, g.batch * cut.tasks, work_ns(g), g, *ours, source, results, scratch, lists)


# --- input gradient -------------------------------------------------------------------------------------------------

# Input channels whose weights are transposed together: what is read of one filter fills some cache lines.
_ROWS_TOGETHER = 16


@kernel
def _taps_before(phase_h: Any, phase_w: Any, above: Any, before: Any) -> Any:
    """How many taps the phases before this one have, from the `phase_tables`."""
    return above[phase_h] * before[before.size - 1] + (above[phase_h + 1] - above[phase_h]) * before[phase_w]


@driver
def _pack_transposed(
    task: Any, worker: Any, g: Geometry, above: Any, before: Any, weight: Any, packed: Any, offsets: Any
) -> None:
    """For a phase and some input channels: rows of a matrix [(group, c), (o, kh, kw)] of weight[o, c, kh, kw].

    With the first channels, also where the terms (o, kh, kw) are met.
    """
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    shares = (g.in_channels + _ROWS_TOGETHER - 1) // _ROWS_TOGETHER
    phase, first = task // shares, task % shares * _ROWS_TOGETHER
    across = grid_phases(g.stride_w, g.in_w)
    vertical, horizontal = vertical_phase(g, phase // across), horizontal_phase(g, phase % across)
    taps_before = _taps_before(phase // across, phase % across, above, before)
    if first == 0:
        list_phase_terms(offsets, taps_before * group_out, vertical, horizontal, group_out)
    base = g.in_channels * group_out * taps_before
    taps = vertical.taps * horizontal.taps
    for o in range(group_out):
        for row in range(first, min(first + _ROWS_TOGETHER, g.in_channels)):
            filters = weight[row // group_in * group_out + o, row % group_in]
            at = base + (row * group_out + o) * taps
            for s in range(vertical.taps):
                line = filters[vertical.kernel_first + s * vertical.kernel_step]
                for t in range(horizontal.taps):
                    packed[at] = line[horizontal.kernel_first + t * horizontal.kernel_step]
                    at += 1


@kernel
def _product_of_phase(
    task: Any, g: Geometry, cut: Cut, above: Any, before: Any, kernels: Any, packed: Any, offsets: Any, source: Any,
    dx: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """A task of the products of all phases; `source` is the address of the planes."""
    across, tasks = grid_phases(g.stride_w, g.in_w), g.batch * cut.tasks
    phase_h, phase_w = task // tasks // across, task // tasks % across
    vertical, horizontal = vertical_phase(g, phase_h), horizontal_phase(g, phase_w)
    taps_before = _taps_before(phase_h, phase_w, above, before)
    rows, channels = g.in_channels // g.groups, g.out_channels // g.groups
    product(
        task % tasks, packed, offsets, taps_before, vertical, horizontal, source, dx, packed[:0], g, rows, channels,
        cut, kernels, scratch, lists,
    )  # fmt: skip


@driver
def _input_grad(
    task: Any, worker: Any, g: Geometry, cut: Cut, above: Any, before: Any, kernels: Any, packed: Any, offsets: Any,
    source: Any, dx: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    A product for each phase of `(h, w)` modulo the stride, whose taps are the same. `dx` is (N * C, H, W).
    """
    _product_of_phase(
        task, g, cut, above, before, kernels, packed, offsets, source.ctypes.data, dx, scratch[worker], lists[worker]
    )


@driver
def _input_grad_by_image(
    task: Any, worker: Any, g: Geometry, cut: Cut, above: Any, before: Any, kernels: Any, packed: Any, offsets: Any,
    dy: Any, dx: Any, scratch: Any, planes: Any, lists: Any,
) -> None:  # fmt: skip
    """The same for a whole image, whose planes are the worker's."""
    source = source_of_image(task, dy, planes[worker], vertical_phase(g, 0), horizontal_phase(g, 0))
    for phase in range(grid_phases(g.stride_h, g.in_h) * grid_phases(g.stride_w, g.in_w)):
        first = (phase * g.batch + task) * cut.tasks
        for each in range(first, first + cut.tasks):
            _product_of_phase(
                each, g, cut, above, before, kernels, packed, offsets, source, dx, scratch[worker], lists[worker]
            )


def _phases(g: Geometry) -> int:
    return min(g.stride_h, g.in_h) * min(g.stride_w, g.in_w)


def _input_grad_cut(g: Geometry, workers: int, dtype: DType) -> Cut:
    rows, channels = g.in_channels // g.groups, g.out_channels // g.groups
    return cut_product(
        backward_axes(g), rows, channels, g.out_channels, g.batch, g.groups, _phases(g), workers, dtype
    )  # fmt: skip


def _input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    cut = _input_grad_cut(g, workers, dtype)
    scratch = Space((workers, scratch_elements(cut.chunk, terms)))
    planes = planes_space(g.out_channels, g.batch, backward_axes(g), cut, workers)
    return scratch, planes, Space((g.in_channels * terms,)), Space((terms,), INDICES), lists_space(workers)


def _run_input_grad(
    workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, scratch: Any, planes: Any, packed: Any, offsets: Any,
    lists: Any,
) -> None:  # fmt: skip
    phases, tables = _phases(g), phase_tables(g)
    cut, kernels = _input_grad_cut(g, workers, dx.dtype), micro.kernels(dx.dtype)
    shares = -(-g.in_channels // _ROWS_TOGETHER)
    launch(_pack_transposed, workers, phases * shares, packed.size, g, *tables, weight, packed, offsets)
    results = dx.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    ours = cut, *tables, kernels, packed, offsets
    if cut.by_image:
        launch(_input_grad_by_image, workers, g.batch, work_ns(g), g, *ours, dy, results, scratch, planes, lists)
    else:
        source, tasks = fill_planes(workers, g, True, dy, planes), phases * g.batch * cut.tasks
        launch(_input_grad, workers, tasks, work_ns(g), g, *ours, source, results, scratch, lists)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return "kernels are not compiled (NUMBA_DISABLE_JIT=1)"
    return None


ALGORITHM = Algorithm(
    "implicit",
    _declines,
    Operation(_run_forward, _forward_workspace),
    Operation(_run_input_grad, _input_grad_workspace),
    Operation(weight_product.run, weight_product.workspace),
)
