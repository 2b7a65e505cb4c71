"""Results that are not one run a row, or sums of more than one total: added up in scratch, then put where they belong.

Knows where grid points land (an `Axis`); does not know how a tile is multiplied.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from ..runtime.copying import copy_run
from .blocked import PANEL, PANEL_LANES, TOTALS, close_totals, results_at
from .micro import weave_rows
from .planes import Axis
from .product import PhaseTile, Product, Task, multiply_tile
from .summation import TERMS_A_TOTAL


@kernel
def multiply_totals(
    p: Product, t: Task, kernels: Any, a: Any, offsets: Any, source: Any, bias: Any, scratch: Any, lists: Any
) -> Any:  # fmt: skip
    """As `multiply_tile`, for all totals of a sum; return where in the scratch the results begin.

    Only a sum of one total takes a `bias`.
    """
    terms, size = p.channels * p.taps, scratch.itemsize
    panel, totals = scratch.ctypes.data + PANEL * PANEL_LANES * size, scratch.ctypes.data + TOTALS * PANEL_LANES * size
    for first in range(0, max(terms, 1), TERMS_A_TOTAL):
        stop = min(first + TERMS_A_TOTAL, terms)
        multiply_tile(p, t, kernels, a, offsets, source, totals, PANEL_LANES, bias, panel, lists, first, stop)
        close_totals(scratch, t.rows, stop, terms, t.lanes)
    return results_at(t.rows, terms)


@kernel
def multiply_and_store(
    p: Product, t: Task, vertical: Axis, horizontal: Axis, kernels: Any, a: Any, offsets: Any, source: Any,
    results: Any, bias: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """As `multiply_totals`, of neighbours, and put them into `results` (planes, height, width); `bias` is an array."""
    plane = t.image * p.rows + t.row
    o, adds, at_once = plane % (p.groups * p.rows), bias.size > 0, p.channels * p.taps <= TERMS_A_TOTAL
    shift = bias.ctypes.data + o * bias.itemsize if adds and at_once else 0
    at = multiply_totals(p, t, kernels, a, offsets, source, shift, scratch, lists)
    if adds and not at_once:
        _add_bias(scratch, at, t.rows, t.lanes, bias, o)
    _store(results, plane, scratch, at, t.rows, vertical, horizontal, t.position, t.lanes)


@kernel
def _add_bias(scratch: Any, at: Any, rows: Any, lanes: Any, bias: Any, o: Any) -> None:
    """Add bias[o + r] to row r of the results."""
    for r in range(rows):
        for j in range(at + r * PANEL_LANES, at + r * PANEL_LANES + lanes):
            scratch[j] += bias[o + r]


@kernel
def _store(
    planes: Any, plane: Any, scratch: Any, at: Any, rows: Any, vertical: Axis, horizontal: Axis, position: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """planes[plane + r, where position + j lands] = row r, lane j of the results."""
    i = position // horizontal.grid
    k = position - i * horizontal.grid
    j = 0
    while j < lanes:
        run = min(horizontal.grid - k, lanes - j)
        _store_line(planes, plane, scratch, at + j, rows, vertical, horizontal, i, k, run)
        j += run
        k = 0
        i += 1


@kernel
def _store_line(
    planes: Any, plane: Any, scratch: Any, at: Any, rows: Any, vertical: Axis, horizontal: Axis, i: Any, k: Any,
    run: Any,
) -> None:  # fmt: skip
    """The same of so many results of one row of the grid, from grid point (i, k) on."""
    step = horizontal.out_step
    h, target = vertical.out_first + i * vertical.out_step, horizontal.out_first + k * step
    for r in range(rows):
        line, source = planes[plane + r, h], at + r * PANEL_LANES
        if step == 1:
            copy_run(line, target, scratch, source, run)
        else:
            for q in range(run):
                line[target + q * step] = scratch[source + q]


@kernel
def store_phase(
    planes: Any, plane: Any, scratch: Any, at: Any, rows: Any, vertical: Axis, horizontal: Axis, tile: PhaseTile,
    width: Any,
) -> None:  # fmt: skip
    """Put the results of one phase into planes: `width` of each row of a tile."""
    for i in range(tile.height):
        _store_line(
            planes, plane, scratch, at + i * width, rows, vertical, horizontal, tile.row + i, tile.col, width
        )  # fmt: skip


@kernel
def store_pair(
    planes: Any, plane: Any, kernels: Any, scratch: Any, rows: Any, vertical: Axis, tile: PhaseTile, width: Any,
    at: Any, second_width: Any, second: Any,
) -> None:  # fmt: skip
    """The same of both column phases of a stride of 2, whose results are neighbours in turn."""
    size, (_, image_h, image_w) = scratch.itemsize, planes.shape
    for i in range(tile.height):
        h, source = vertical.out_first + (tile.row + i) * vertical.out_step, at + i * width
        target = (plane * image_h + h) * image_w + 2 * tile.col
        weave_rows(
            kernels, scratch.ctypes.data + source * size, PANEL_LANES, second + i * second_width - source, rows,
            width + second_width, planes.ctypes.data + target * size, image_h * image_w,
        )  # fmt: skip
