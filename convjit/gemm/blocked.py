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
def row_chunk(rows: Any, tasks: Any, workers: Any) -> Any:
    """How many of `rows` a task takes, where `tasks` tiles alone would be too few for the workers."""
    wanted = (4 * workers + tasks - 1) // max(tasks, 1) if workers > 1 else 1
    each = (rows + wanted - 1) // wanted
    return min(rows, (each + ROWS - 1) // ROWS * ROWS)


@kernel
def accumulate(chain: Any, totals: Any, results: Any, first: Any, last: Any, level: Any, lanes: Any) -> None:
    """Fold one row's finished block into its total: `first` starts a total, `last` closes it.

    `level` is 0 where one total is the whole sum, else which total this is, from 1.
    """
    if first:
        for j in range(lanes):
            totals[j] = chain[j]
    else:
        for j in range(lanes):
            totals[j] += chain[j]
    if last and level == 1:
        for j in range(lanes):
            results[j] = totals[j]
    elif last and level > 1:
        for j in range(lanes):
            results[j] += totals[j]


@kernel
def multiply_block(
    a: Any, base: Any, stride: Any, rows: Any, terms_done: Any, terms_here: Any, terms_all: Any, scratch: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """Multiply `rows` rows of `a` with the packed panel and fold the blocks into the totals.

    totals[r, j] += sum over t < terms_here of a[base + r*stride + t] * panel[t, j]
    """
    panel = scratch[PANEL : PANEL + TERM_BLOCK]
    chains = scratch[CHAINS : CHAINS + ROWS]
    results = TOTALS + rows if terms_all > TERMS_A_TOTAL else TOTALS
    done = terms_done + terms_here
    first = terms_done % TERMS_A_TOTAL == 0
    last = done % TERMS_A_TOTAL == 0 or done == terms_all
    level = terms_done // TERMS_A_TOTAL + 1 if terms_all > TERMS_A_TOTAL else 0
    r = 0
    while r + ROWS <= rows:
        four_chains(a, base + r * stride, stride, terms_here, panel, chains, lanes)
        for i in range(ROWS):
            accumulate(chains[i], scratch[TOTALS + r + i], scratch[results + r + i], first, last, level, lanes)
        r += ROWS
    while r < rows:
        one_chain(a, base + r * stride, terms_here, panel, chains[0], lanes)
        accumulate(chains[0], scratch[TOTALS + r], scratch[results + r], first, last, level, lanes)
        r += 1


@kernel
def results_row(rows: Any, terms_all: Any) -> Any:
    """The scratch row where the results of `multiply_block` begin."""
    return TOTALS + rows if terms_all > TERMS_A_TOTAL else TOTALS
