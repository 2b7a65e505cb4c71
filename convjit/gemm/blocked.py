"""The blocked product: micro-kernel results folded into totals, in the order of `summation`.

Knows the layout of a worker's scratch; does not know what is packed into the panel or where results go.

A scratch is (rows, LANES):

=======================  ===================================================================
`PANEL ..`               `TERM_BLOCK` rows: the packed panel, a term a row
`CHAINS ..`              `ROWS` rows: the micro-kernel's chains
`TOTALS ..`              a row for each result row: the totals
`TOTALS + rows ..`       the same again where sums are longer than one total: the results
=======================  ===================================================================
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from .micro import LANE_STEP, LANES, ROWS, four_chains, one_chain
from .summation import TERM_BLOCK, TERMS_A_TOTAL

PANEL = 0
CHAINS = TERM_BLOCK
TOTALS = CHAINS + ROWS


def scratch_rows(result_rows: int, terms: int) -> int:
    """Rows of a scratch for so many result rows, each a sum of so many terms."""
    return TOTALS + result_rows * (1 if terms <= TERMS_A_TOTAL else 2)


@kernel
def tile_count(lanes: Any) -> Any:
    """How many tiles so many lanes are cut into."""
    return (lanes + LANES - 1) // LANES


@kernel
def tile_lanes(lanes: Any) -> Any:
    """Lanes of each tile but the last: tiles are of nearly equal width."""
    tiles = tile_count(lanes)
    return lanes if tiles <= 1 else rounded_lanes((lanes + tiles - 1) // tiles)


@kernel
def rounded_lanes(lanes: Any) -> Any:
    """Lanes with those that only fill up the last vector."""
    return (lanes + LANE_STEP - 1) // LANE_STEP * LANE_STEP


@kernel
def row_chunk(rows: Any, tiles: Any, workers: Any) -> Any:
    """How many of `rows` a task takes: all, unless `tiles` alone are too few tasks to keep the workers busy.

    A chunk packs each panel anew, which costs as much as some 20 rows of products: chunks of fewer than 64 rows are
    made only where workers would have nothing to do.
    """
    if workers == 1 or tiles == 0 or rows <= ROWS:
        return rows
    least = (rows + (workers + tiles - 1) // tiles - 1) // ((workers + tiles - 1) // tiles)
    even = (rows + (4 * workers + tiles - 1) // tiles - 1) // ((4 * workers + tiles - 1) // tiles)
    each = min(least, max(even, 64))
    return min(rows, (each + ROWS - 1) // ROWS * ROWS)


@kernel
def _add_rows(scratch: Any, source: Any, target: Any, rows: Any, lanes: Any) -> None:
    """Add `rows` rows of the scratch from `source` on to those from `target` on."""
    for r in range(rows):
        addend, total = scratch[source + r], scratch[target + r]
        for j in range(lanes):
            total[j] += addend[j]


@kernel
def multiply_block(
    a: Any, base: Any, stride: Any, rows: Any, terms_done: Any, terms_here: Any, terms_all: Any, scratch: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """Multiply `rows` rows of `a` with the packed panel and fold the blocks into the totals.

    totals[r, j] += sum over t < terms_here of a[base + r*stride + t] * panel[t, j]
    """
    panel = scratch[PANEL : PANEL + TERM_BLOCK]
    # The first block of a total is the total; the others are chains that are added to it.
    starts_total = terms_done % TERMS_A_TOTAL == 0
    r = 0
    while r < rows:
        here = ROWS if r + ROWS <= rows else 1
        target = TOTALS + r if starts_total else CHAINS
        if here == ROWS:
            four_chains(a, base + r * stride, stride, terms_here, panel, scratch[target : target + ROWS], lanes)
        else:
            one_chain(a, base + r * stride, terms_here, panel, scratch[target], lanes)
        if not starts_total:
            _add_rows(scratch, CHAINS, TOTALS + r, here, lanes)
        r += here
    done = terms_done + terms_here
    if terms_all > TERMS_A_TOTAL and (done % TERMS_A_TOTAL == 0 or done == terms_all):
        _close_total(scratch, rows, terms_done < TERMS_A_TOTAL, lanes)


@kernel
def _close_total(scratch: Any, rows: Any, is_first: Any, lanes: Any) -> None:
    """Move the first total to the results, or add another one."""
    if not is_first:
        _add_rows(scratch, TOTALS, TOTALS + rows, rows, lanes)
        return
    for r in range(rows):
        total, result = scratch[TOTALS + r], scratch[TOTALS + rows + r]
        for j in range(lanes):
            result[j] = total[j]


@kernel
def results_row(rows: Any, terms_all: Any) -> Any:
    """The scratch row where the results of `multiply_block` begin."""
    return TOTALS + rows if terms_all > TERMS_A_TOTAL else TOTALS
