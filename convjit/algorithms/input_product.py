"""The input gradient as a product: rows are input channels, terms are (output channel, tap), planes show gradients.

A product for each phase of the pixels modulo the stride, whose taps are the same: dx[n,c,h,w] = sum over o,kh,kw of
weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h + kh*dilation_h - pad_top. Knows how weights are transposed for
it; does not know how a product is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm.landing import multiply_totals, store_pair, store_phase
from ..gemm.micro import ELEMENT
from ..gemm.planes import (
    Axis,
    backward_axes,
    grid_phases,
    horizontal_phase,
    list_phase_terms,
    phase_tables,
    term_offsets,
    vertical_phase,
)
from ..gemm.product import PhaseTile, Product, Task, of_phase, phase_tile, task_of
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, run_in_turn
from ..typing import Array, DType
from .algorithm import INDICES, PACKED_WEIGHT, Explained, Space, work_ns
from .filling import filled_by
from .running import Setup, as_column, explained_product, in_bands, product_runs, set_up

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

    With the first channels, also where the terms (o, kh, kw) are met; with a stride of 1, that depends on bands, which
    are not known here. `weight` is flat.
    """
    group_in, group_out, area = g.in_channels // g.groups, g.out_channels // g.groups, g.kernel_h * g.kernel_w
    shares = (group_in + _ROWS_TOGETHER - 1) // _ROWS_TOGETHER
    phase, group, first = task // (shares * g.groups), task // shares % g.groups, task % shares * _ROWS_TOGETHER
    across = grid_phases(g.stride_w, g.in_w)
    vertical, horizontal = vertical_phase(g, phase // across), horizontal_phase(g, phase % across)
    taps_before = _taps_before(phase // across, phase % across, above, before)
    if group == 0 and first == 0 and g.stride_h * g.stride_w > 1:
        list_phase_terms(offsets, taps_before * group_out, vertical, horizontal, group_out)
    taps = vertical.taps * horizontal.taps
    kernel_first = vertical.kernel_first * g.kernel_w + horizontal.kernel_first
    of_rows = (g.in_channels * taps_before + (group * group_in + first) * taps) * group_out
    # Squares of weights: rows of both matrices lie multiples of 4096 bytes apart, and few of them fit a cache set.
    for first_o in range(0, group_out, _ROWS_TOGETHER):
        for row in range(min(_ROWS_TOGETHER, group_in - first)):
            at = of_rows + (row * group_out + first_o) * taps
            for o in range(first_o, min(first_o + _ROWS_TOGETHER, group_out)):
                filters = ((group * group_out + o) * group_in + first + row) * area + kernel_first
                for s in range(vertical.taps):
                    line = filters + s * vertical.kernel_step * g.kernel_w
                    for t in range(horizontal.taps):
                        packed[at] = weight[line + t * horizontal.kernel_step]
                        at += 1


@kernel
def _multiply_phase(
    g: Geometry, of_phase_0: Product, t: Task, tile: PhaseTile, vertical: Axis, horizontal: Axis, taps_before: Any,
    kernels: Any, packed: Any, offsets: Any, source: Any, scratch: Any, lists: Any,
) -> Any:  # fmt: skip
    """A task's results of one phase: how many a row of the grid has, and where they begin in the scratch."""
    width = max(0, min(tile.stop, horizontal.grid) - tile.col)
    if width == 0:
        return 0, 0
    p, row = of_phase(of_phase_0, vertical, horizontal), t.image % of_phase_0.groups * of_phase_0.rows + t.row
    base = (taps_before * g.in_channels + row * p.taps) * p.channels
    return width, multiply_totals(
        p, Task(t.image, t.row, t.rows, tile.row * horizontal.grid + tile.col, tile.height * width), kernels,
        packed.ctypes.data + base * kernels[ELEMENT], offsets.ctypes.data + taps_before * p.channels * 8,
        source.ctypes.data, 0, scratch, lists,
    )  # fmt: skip


@driver
def _multiply_phases(
    task: Any, worker: Any, g: Geometry, of_phase_0: Product, above: Any, before: Any, kernels: Any, packed: Any,
    offsets: Any, source: Any, dx: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """A task of the products of a row phase and a pair of column phases; `dx` is (N * C, H, W).

    Tasks are those of a phase, for each of them the row phases, for each of these the pairs: what they write lies
    together. Of a stride of 2, results of the pair are neighbours, and stored together.
    """
    across = grid_phases(g.stride_w, g.in_w)
    pairs, down = (across + 1) // 2, grid_phases(g.stride_h, g.in_h)
    phase_w, phase_h, place = task % pairs * 2, task // pairs % down, task // (pairs * down)
    vertical, horizontal = vertical_phase(g, phase_h), horizontal_phase(g, phase_w)
    tile, t = phase_tile(of_phase_0, place, vertical.grid), task_of(of_phase_0, place, of_phase_0.grid_h)
    if tile.height == 0:
        return
    plane, room = t.image * of_phase_0.rows + t.row, scratch.shape[1] // 2
    width, at = _multiply_phase(
        g, of_phase_0, t, tile, vertical, horizontal, _taps_before(phase_h, phase_w, above, before), kernels, packed,
        offsets, source, scratch[worker], lists[worker],
    )  # fmt: skip
    if across != 2:
        store_phase(dx, plane, scratch[worker], at, t.rows, vertical, horizontal, tile, width)
    if phase_w + 1 == across:
        return
    horizontal = horizontal_phase(g, phase_w + 1)
    second_width, second = _multiply_phase(
        g, of_phase_0, t, tile, vertical, horizontal, _taps_before(phase_h, phase_w + 1, above, before), kernels,
        packed, offsets, source, scratch[worker, room:], lists[worker],
    )  # fmt: skip
    if across == 2:
        store_pair(
            dx, plane, kernels, scratch[worker], t.rows, vertical, tile, width, at, second_width, room + second
        )  # fmt: skip
    else:
        store_phase(dx, plane, scratch[worker, room:], second, t.rows, vertical, horizontal, tile, second_width)


def _phases(g: Geometry) -> tuple[int, int]:
    """Down and across."""
    return min(g.stride_h, g.in_h), min(g.stride_w, g.in_w)


def _tasks_together(g: Geometry) -> int:
    """Tasks for each one of the first phase: row phases, and pairs of column phases."""
    down, across = _phases(g)
    return down * -(-across // 2)


def _input_grad(g: Geometry, workers: int, dtype: DType) -> Setup:
    axes, rows, channels = backward_axes(g), g.in_channels // g.groups, g.out_channels // g.groups
    terms, dense = channels * g.kernel_h * g.kernel_w, g.stride_h == g.stride_w == 1
    return set_up(
        axes, g.batch, g.groups, rows, channels, g.in_h * g.in_w, workers, dtype, work_ns(g), terms,
        _tasks_together(g), dense=dense,
    )  # fmt: skip


def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Packed weights, where their terms are met, and the product's spaces."""
    g, terms = in_bands(g), g.out_channels // g.groups * g.kernel_h * g.kernel_w
    packed = Space((g.in_channels * terms,), name=PACKED_WEIGHT)
    return packed, Space((terms,), INDICES, "offsets"), *_input_grad(g, workers, dtype).spaces


def explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """That of the first phase, with as many taps as a phase has on average."""
    g = in_bands(g)
    taps = g.kernel_h * g.kernel_w / max(math.prod(_phases(g)), 1)
    transposed = g.in_channels * g.out_channels // g.groups * g.kernel_h * g.kernel_w
    return explained_product(_input_grad(g, workers, dtype), taps, workers, dtype, _phases(g), transposed)


class _Setup(NamedTuple):
    """Everything about a gradient that its geometry, dtype and number of workers decide: looked up once a call."""

    setup: Setup
    pack: Launch
    met: Array | None  # where terms are met, if there is no stride
    multiply: Launch | None  # else
    is_row: bool


@lru_cache(maxsize=256)
def _set_up(g: Geometry, workers: int, dtype: DType) -> _Setup:
    is_row, g = g.is_row, in_bands(g)
    setup, channels, tables = _input_grad(g, workers, dtype), g.out_channels // g.groups, phase_tables(g)
    packings = math.prod(_phases(g)) * g.groups * -(-(g.in_channels // g.groups) // _ROWS_TOGETHER)
    pack = Launch(_pack_transposed, packings, g.in_channels * channels * g.kernel_h * g.kernel_w, g, *tables)
    if g.stride_h == g.stride_w == 1:
        return _Setup(setup, pack, term_offsets(*setup.axes, channels), None, is_row)
    tasks = _tasks_together(g) * g.batch * setup.product.tasks
    multiply = Launch(_multiply_phases, tasks, work_ns(g), g, setup.product, *tables, setup.kernels)
    return _Setup(setup, pack, None, multiply, is_row)


def bind(
    workers: int, g: Geometry, dtype: DType, packed: Any, offsets: Any, scratch: Any, lists: Any, planes: Any
) -> Callable[..., None]:
    """`run(dy, weight, dx)` in these workspaces."""
    setup, pack, met, multiply, is_row = _set_up(g, workers, dtype)
    channels, no_bias = g.batch * g.out_channels, packed[:0]
    if met is not None:
        runs = product_runs(setup, channels, met, scratch, lists, planes)

        def run_dense(dy: Any, weight: Any, dx: Any) -> None:
            if is_row:
                dy, dx = as_column(dy), as_column(dx)
            first = pack.on(weight.reshape(-1), packed, offsets)
            run_in_turn(workers, first, *runs(dy, packed, no_bias, dx))

        return run_dense
    assert multiply is not None
    fill, shape = filled_by(setup.axes, channels, planes), (g.batch * g.in_channels, g.in_h, g.in_w)

    def run_phases(dy: Any, weight: Any, dx: Any) -> None:
        first = pack.on(weight.reshape(-1), packed, offsets)
        source, before = fill(dy)
        run_in_turn(workers, first, *before, multiply.on(packed, offsets, source, dx.reshape(shape), scratch, lists))

    return run_phases
