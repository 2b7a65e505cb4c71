"""Results that are not one run a row, or sums of more than one total: added up in scratch, then put where they belong.

Knows where grid points land (an `Axis`); does not know how a tile is multiplied.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from ..runtime.copying import copy_run
from .blocked import PANEL, PANEL_LANES, TOTALS, close_totals, results_at
from .planes import Axis
from .product import Product, Task, multiply_tile
from .summation import TERMS_A_TOTAL


@kernel
def multiply_and_store(
    p: Product, t: Task, vertical: Axis, horizontal: Axis, kernels: Any, a: Any, offsets: Any, source: Any,
    results: Any, bias: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """As `multiply_tile`, for all totals of a sum; `results` are (planes, height, width), `bias` is an array."""
    terms, size = p.channels * p.taps, scratch.itemsize
    panel, totals = scratch.ctypes.data + PANEL * PANEL_LANES * size, scratch.ctypes.data + TOTALS * PANEL_LANES * size
    for first in range(0, max(terms, 1), TERMS_A_TOTAL):
        stop = min(first + TERMS_A_TOTAL, terms)
        multiply_tile(p, t, kernels, a, offsets, source, totals, PANEL_LANES, 0, panel, lists, first, stop)
        close_totals(scratch, t.rows, stop, terms, t.lanes)
    at, plane = results_at(t.rows, terms), t.image * p.rows + t.row
    if bias.size > 0:
        _add_bias(scratch, at, t.rows, t.lanes, bias, plane % (p.groups * p.rows))
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
    step = horizontal.out_step
    i = position // horizontal.grid
    k = position - i * horizontal.grid
    j = 0
    while j < lanes:
        run = min(horizontal.grid - k, lanes - j)
        h, target = vertical.out_first + i * vertical.out_step, horizontal.out_first + k * step
        for r in range(rows):
            line, source = planes[plane + r, h], at + r * PANEL_LANES + j
            if step == 1:
                copy_run(line, target, scratch, source, run)
            else:
                for q in range(run):
                    line[target + q * step] = scratch[source + q]
        j += run
        k = 0
        i += 1
