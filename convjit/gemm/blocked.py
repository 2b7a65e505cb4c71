"""The blocked product: register tiles folded into totals, in the order of `summation`.

Knows the layout of a worker's scratch; does not know what is packed into the panel or where results go.

A scratch is flat, rows of `LANES` elements:

=======================  =====================================================================================
`PANEL`                  the panel, as micro-panels of NR lanes, each (TERM_BLOCK, NR) and a gap of NR
`TOTALS`                 a row for each result row: the totals
`TOTALS + rows`          the same again where sums are longer than one total: the results
=======================  =====================================================================================
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from .micro import MR, micro_kernel, micro_lanes
from .summation import TERM_BLOCK, TERMS_A_TOTAL

# Lanes of a panel: 128 terms of them, 64 KiB in float32 and 128 KiB in float64, stay in the second-level cache while
# rows pass by.
LANES = 128

# The gap behind each micro-panel takes a row in all. Without it the micro-panels lie a multiple of 4096 bytes apart,
# and what is packed for one term falls into one set of the first-level cache.
PANEL = 0
TOTALS = TERM_BLOCK + 1


def scratch_elements(result_rows: int, terms: int) -> int:
    """Elements of a scratch for so many result rows, each a sum of so many terms."""
    return LANES * (TOTALS + result_rows * (1 if terms <= TERMS_A_TOTAL else 2))


# A task takes 20 ms at most: at 25 multiplications a nanosecond, what float64 reaches.
_TASK_MULTIPLICATIONS = 1 << 29


@kernel
def tile_count(lanes: Any) -> Any:
    """How many panels so many lanes are cut into."""
    return (lanes + LANES - 1) // LANES


@kernel
def rounded_lanes(lanes: Any, step: Any) -> Any:
    """Lanes with those that only fill up the last register tile."""
    return (lanes + step - 1) // step * step


@kernel
def tile_lanes(lanes: Any, step: Any) -> Any:
    """Lanes of each panel but the last: panels are of nearly equal width, in whole register tiles."""
    tiles = max(tile_count(lanes), 1)
    return rounded_lanes((lanes + tiles - 1) // tiles, step)


def row_chunk(rows: int, tiles: int, terms: int, workers: int) -> int:
    """How many of `rows` a task takes: all, unless it would be long or `tiles` are too few for the workers.

    A chunk packs each panel anew, which many rows must pay for: chunks of fewer than 60 rows are made only where
    workers would have nothing to do, or where sums are very long.
    """
    longest = max(MR, _TASK_MULTIPLICATIONS // (LANES * max(terms, 1)))
    chunks = max(1, -(-rows // longest))
    if workers > 1 and tiles > 0 and rows > MR:
        busy = -(-workers // tiles)  # chunks that give each worker one
        even = min(-(-4 * workers // tiles), max(1, rows // (10 * MR)))
        chunks = max(chunks, busy, even)
    each = -(-rows // chunks)
    return min(rows, -(-each // MR) * MR)


@kernel
def panel_at(lane: Any, term: Any, step: Any) -> Any:
    """Where the panel holds a lane, the first of a register tile, of a term."""
    return PANEL * LANES + (lane // step * (TERM_BLOCK + 1) + term) * step


@kernel
def _add_rows(scratch: Any, source: Any, target: Any, rows: Any, lanes: Any) -> None:
    """Add `rows` rows of the scratch from `source` on to those from `target` on."""
    for r in range(rows):
        addend = scratch[(source + r) * LANES : (source + r) * LANES + lanes]
        total = scratch[(target + r) * LANES : (target + r) * LANES + lanes]
        for j in range(lanes):
            total[j] += addend[j]


@kernel
def multiply_block(
    a: Any, base: Any, stride: Any, rows: Any, terms_done: Any, terms_here: Any, terms_all: Any, scratch: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """Multiply `rows` rows of `a` with the packed panel and fold the blocks into the totals.

    totals[r, j] += sum over t < terms_here of a[base + r*stride + t] * panel[t, j], j < lanes, a multiple of NR.
    """
    step = micro_lanes(scratch)
    extend = 0 if terms_done % TERMS_A_TOTAL == 0 else 1
    # A micro-panel stays in the first-level cache while all rows of `a` pass by.
    for lane in range(0, lanes, step):
        packed = panel_at(lane, 0, step)
        r = 0
        while r < rows:
            r += micro_kernel(
                rows - r, a, base + r * stride, stride, terms_here, scratch, packed, scratch,
                (TOTALS + r) * LANES + lane, LANES, extend,
            )  # fmt: skip
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
        total, result = (TOTALS + r) * LANES, (TOTALS + rows + r) * LANES
        for j in range(lanes):
            scratch[result + j] = scratch[total + j]


@kernel
def results_at(rows: Any, terms_all: Any) -> Any:
    """Where in the scratch the results of `multiply_block` begin, a row every `LANES` elements."""
    return (TOTALS + rows if terms_all > TERMS_A_TOTAL else TOTALS) * LANES
