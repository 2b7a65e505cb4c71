"""The micro-kernel: a register tile of chains of fused multiply-adds.

Knows MR rows, NR lanes and terms. A tile is MR x NR chains held in registers; for each term it loads NR lanes of the
packed panel and MR elements of `a`, one for each row, into all lanes.
Source: F. Van Zee, R. van de Geijn, "BLIS" (2015), section 5, in BLIS's words.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from ..runtime.copying import element_size
from ..runtime.emitting import emitted
from ..simd.vectors import Vectors

# A register tile of 6 x 2 vectors of 256 bits: 12 chains, 2 vectors of the panel and 1 of `a` fill 15 of AVX2's 16
# registers, and 12 chains hide the latency of 2 multiply-adds a cycle (4 cycles on Intel and AMD).
MR = 6
VECTORS = 2
VECTOR_BYTES = 32
# Row counts that tiles are emitted for; what is left of a number of rows is put together from the smaller ones.
TILE_ROWS = (6, 4, 2, 1)


@kernel
def micro_lanes(array: Any) -> Any:
    """NR, the lanes of a tile, for the dtype of an array."""
    return VECTORS * VECTOR_BYTES // element_size(array)


def _tile(rows: int) -> Any:
    """Emit the tile of so many rows.

    result[r*result_stride + j] = sum over t of a[r*a_stride + t] * panel[t*NR + j], r < rows, j < NR, t in order, one
    fma a term; with `extend`, that is added to what the result was. Pointers are counted from `at` elements on; the
    caller guarantees that all of it lies in the arrays.
    """

    def body(builder: Any, scalar: Any, arguments: list[Any]) -> None:
        a, a_at, a_stride, terms, panel, panel_at, result, result_at, result_stride, extend = arguments
        lanes = VECTOR_BYTES // (4 if str(scalar) == "float" else 8)
        v = Vectors(builder, scalar, lanes)
        first_row = v.offset(a, a_at)
        a_rows = [first_row]
        for _ in range(1, rows):
            a_rows.append(v.offset(a_rows[-1], a_stride))

        def term(values: list[Any]) -> list[Any]:
            pointers, packed, chains = values[:rows], values[rows], values[rows + 1 :]
            lanes_of_panel = [v.load(v.offset(packed, i * lanes)) for i in range(VECTORS)]
            extended = []
            for r in range(rows):
                weight = v.splat(pointers[r])
                extended += [v.fma(weight, lanes_of_panel[i], chains[r * VECTORS + i]) for i in range(VECTORS)]
            return [*(v.offset(p, 1) for p in pointers), v.offset(packed, VECTORS * lanes), *extended]

        start = [*a_rows, v.offset(panel, panel_at), *[v.zero] * (rows * VECTORS)]
        chains = v.loop(terms, start, term)[rows + 1 :]
        targets = [v.offset(result, result_at)]
        for _ in range(1, rows):
            targets.append(v.offset(targets[-1], result_stride))
        places = [v.offset(target, i * lanes) for target in targets for i in range(VECTORS)]

        def set_result() -> None:
            for chain, place in zip(chains, places, strict=True):
                v.store(chain, place)

        def extend_result() -> None:
            for chain, place in zip(chains, places, strict=True):
                v.store(v.add(v.load(place), chain), place)

        v.either(extend, extend_result, set_result)

    return emitted(f"tile_{rows}", 10, body)


_tile_6, _tile_4, _tile_2, _tile_1 = (_tile(rows) for rows in TILE_ROWS)


@kernel
def micro_kernel(
    rows: Any, a: Any, a_at: Any, a_stride: Any, terms: Any, panel: Any, panel_at: Any, result: Any, result_at: Any,
    result_stride: Any, extend: Any,
) -> Any:  # fmt: skip
    """Run the largest tile of at most `rows` rows, and return how many it has."""
    if rows >= 6:
        _tile_6(a, a_at, a_stride, terms, panel, panel_at, result, result_at, result_stride, extend)
        return 6
    if rows >= 4:
        _tile_4(a, a_at, a_stride, terms, panel, panel_at, result, result_at, result_stride, extend)
        return 4
    if rows >= 2:
        _tile_2(a, a_at, a_stride, terms, panel, panel_at, result, result_at, result_stride, extend)
        return 2
    _tile_1(a, a_at, a_stride, terms, panel, panel_at, result, result_at, result_stride, extend)
    return 1
