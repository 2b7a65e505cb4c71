"""Register tiles whose lanes are pixels: which there are, how they cover a product, and how long a term of one takes.

Knows registers and ports; does not know what is multiplied, nor how a tile is emitted.
"""

from __future__ import annotations

from ..simd import isa
from .summation import TERM_BLOCK

FMAS_A_CYCLE, _FMA_LATENCY = 2, 4
# Of a register tile: the call, where its rows and lanes lie, and the results. Of several lines, each result is cut: 8x8
# maps, packed and in lines, forward of 1-16 and 16-32 channels (3x3), took as long as this lets expect with AVX-512.
TILE_CYCLES, LINED_TILE_CYCLES = 60, 120
# Chains that hide the latency of a multiply-add and, of few rows, leave loads half of the ports.
ENOUGH_CHAINS, _MOST_VECTORS = 12, 8


def tile_rows(row: isa.InstructionSet) -> list[int]:
    """Heights that tiles are emitted for, the tallest first: any number of rows is put together from them.

    Three rows are the colours of an image: those of its gradient, and of what many networks end with.
    """
    return sorted({row.rows, *(size for size in (1, 2, 3, 4) if size < row.rows)}, reverse=True)


def tile_vectors(row: isa.InstructionSet, rows: int) -> int:
    """Vectors of the widest tile of so many rows: the fewer rows, the more, as far as registers hold them."""
    return tile_lines(row, rows, 1)


def tile_lines(row: isa.InstructionSet, rows: int, vectors: int) -> int:
    """The same in lines of so many vectors, which need not lie side by side."""
    if rows == row.rows:
        return max(1, row.vectors // vectors)
    # Live beside the chains are an element of `a` for each row and one vector of `b`, or one element and all vectors.
    fits = max((row.registers - 1 - rows) // rows, (row.registers - 1) // (rows + 1))
    enough = -(-ENOUGH_CHAINS // (rows * vectors)) * vectors
    return max(1, min(fits, enough, _MOST_VECTORS) // vectors)


def cover(rows: int, lines: int, vectors: int) -> list[tuple[int, int, int]]:
    """The tiles that cover so many rows and lines of vectors: rows, lines, and how many there are of such."""
    row, found = isa.here(), []
    for height in tile_rows(row):
        times, rows = divmod(rows, height)
        if times > 0:
            panels = -(-lines // tile_lines(row, height, vectors))
            found += [(height, each, times * count) for each, count in widths(lines, panels)]
    return found


def widths(vectors: int, panels: int) -> list[tuple[int, int]]:
    """The widths of panels, nearly equal ones, and how many have each: there may be a hundred million."""
    width, wider = divmod(vectors, max(panels, 1))
    return [(each, count) for each, count in ((width, panels - wider), (width + 1, wider)) if each * count > 0]


def term_cycles(rows: int, vectors: int, speeds: tuple[float, ...]) -> float:
    """Cycles that a tile takes for a term; it reaches `speeds[vectors - 1]` of the peak where latency allows."""
    busy = rows * vectors / FMAS_A_CYCLE / speeds[min(vectors, len(speeds)) - 1]
    return max(busy, _FMA_LATENCY)


def tile_cycles(terms: float, of_term: float, around: int) -> float:
    """Cycles that a tile takes for so many terms, and `around` each of their blocks."""
    return terms * of_term + -(-terms // TERM_BLOCK) * around


def tiles_cycles(rows: int, vectors: int, terms: float) -> float:
    """Cycles of so many rows, vectors and terms, covered with register tiles as `micro` covers them."""
    return _cycles(cover(rows, vectors, 1), 1, terms, TILE_CYCLES)


def lines_cycles(rows: int, lines: int, vectors: int, terms: float) -> float:
    """The same of so many lines of `vectors` each that share register tiles."""
    return _cycles(cover(rows, lines, vectors), vectors, terms, LINED_TILE_CYCLES)


def _cycles(tiles: list[tuple[int, int, int]], vectors: int, terms: float, around: int) -> float:
    speeds = isa.here().speeds
    return sum(
        count * tile_cycles(terms, term_cycles(height, lines * vectors, speeds), around)
        for height, lines, count in tiles
    )
