"""The blocked product: a worker's scratch, in which register tiles are folded into totals, in the order of `summation`.

Knows the layout of a worker's scratch; does not know what is packed into the panel or where results go.

A scratch is flat, rows of `PANEL_LANES` elements:

=======================  =====================================================================================
`PANEL`                  the panel, a row for each term of a block; a row more is written over, not read
`TOTALS`                 a row for each result row: the totals
`TOTALS + rows`          the same again where sums are longer than one total: the results
=======================  =====================================================================================

A worker's lists are flat 64-bit integers: `PANEL_OFFSETS`, where each row of the panel begins, and `PIECES`, see
`micro.pack`.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from .summation import TERM_BLOCK, TERMS_A_TOTAL
from .tasks import TASK_MULTIPLICATIONS

# Lanes of a panel: 128 terms of them, 72 KiB in float32 and 144 KiB in float64, stay in the second-level cache while
# rows pass by. A multiple of the lanes of every tallest register tile (48, 24, 16, 12, 8, 4). A row is 9 cache lines in
# float32, an odd number: were it a power of two, one register tile's part of the panel would fall into a few sets of
# the first-level cache.
PANEL_LANES = 144
# A multiple of the rows of every register tile (8, 6).
_TILE_ROWS = 24

PANEL = 0
TOTALS = TERM_BLOCK + 1

PANEL_OFFSETS = 0
PIECES = TERM_BLOCK
LIST_ENTRIES = PIECES + 3 * (PANEL_LANES + 1)


def scratch_elements(result_rows: int, terms: int) -> int:
    """Elements of a scratch for so many result rows, each a sum of so many terms."""
    return PANEL_LANES * (TOTALS + result_rows * (1 if terms <= TERMS_A_TOTAL else 2))


@kernel
def tile_count(lanes: Any) -> Any:
    """How many panels so many lanes are cut into."""
    return (lanes + PANEL_LANES - 1) // PANEL_LANES


@kernel
def tile_lanes(lanes: Any, step: Any) -> Any:
    """Lanes of each panel but the last: panels are of nearly equal width, in whole vectors of `step` lanes."""
    tiles = max(tile_count(lanes), 1)
    return ((lanes + tiles - 1) // tiles + step - 1) // step * step


def row_chunk(rows: int, tiles: int, terms: int, workers: int) -> int:
    """How many of `rows` a task takes: all, unless it would be long or `tiles` are too few for the workers.

    A chunk packs each panel anew, which many rows must pay for: chunks of fewer than 72 rows are made only where
    workers would have nothing to do, or where sums are very long.
    """
    longest = max(_TILE_ROWS, 2 * TASK_MULTIPLICATIONS // (PANEL_LANES * max(terms, 1)))
    chunks = max(1, -(-rows // longest))
    if workers > 1 and tiles > 0 and rows > _TILE_ROWS:
        busy = -(-workers // tiles)  # chunks that give each worker one
        even = min(-(-4 * workers // tiles), max(1, rows // (3 * _TILE_ROWS)))
        chunks = max(chunks, busy, even)
    each = -(-rows // chunks)
    return min(rows, -(-each // _TILE_ROWS) * _TILE_ROWS)


@kernel
def list_panel_offsets(lists: Any) -> None:
    """Where the rows of the panel begin."""
    for t in range(TERM_BLOCK):
        lists[PANEL_OFFSETS + t] = t * PANEL_LANES


@kernel
def close_totals(scratch: Any, rows: Any, terms_done: Any, terms_all: Any, lanes: Any) -> None:
    """After a block that ends with term `terms_done`: move a full total to the results, or add it to them."""
    if terms_all <= TERMS_A_TOTAL or (terms_done % TERMS_A_TOTAL != 0 and terms_done != terms_all):
        return
    is_first = terms_done <= TERMS_A_TOTAL
    for r in range(rows):
        total, result = (TOTALS + r) * PANEL_LANES, (TOTALS + rows + r) * PANEL_LANES
        for j in range(lanes):
            value = scratch[total + j]
            scratch[result + j] = value if is_first else scratch[result + j] + value


@kernel
def results_at(rows: Any, terms_all: Any) -> Any:
    """Where in the scratch the results begin once all blocks are folded, a row every `PANEL_LANES` elements."""
    return (TOTALS + rows if terms_all > TERMS_A_TOTAL else TOTALS) * PANEL_LANES
