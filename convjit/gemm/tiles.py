"""Register tiles whose lanes are pixels: which there are, how they cover a product, and how long a term of one takes.

Knows registers and ports; does not know what is multiplied, nor how a tile is emitted.
"""

from __future__ import annotations

from ..simd import isa

FMAS_A_CYCLE, _FMA_LATENCY = 2, 4
# Of a register tile: the call, where its rows and lanes lie, and the results; of several lines, each result is cut.
TILE_CYCLES, LINED_TILE_CYCLES = 60, 120
# Chains that hide the latency of a multiply-add and, of few rows, leave loads half of the ports.
_CHAINS, _MOST_VECTORS = 12, 8


def tile_rows(row: isa.InstructionSet) -> list[int]:
    """Heights that tiles are emitted for, the tallest first: any number of rows is put together from them.

    Three rows are the colours of an image: those of its gradient, and of what many networks end with.
    """
    return sorted({row.rows, *(size for size in (1, 2, 3, 4) if size < row.rows)}, reverse=True)


def tile_vectors(row: isa.InstructionSet, rows: int) -> int:
    """Vectors of the widest tile of so many rows: the fewer rows, the more, as far as registers hold them."""
    if rows == row.rows:
        return row.vectors
    # Live beside the chains are an element of `a` for each row and one vector of `b`, or one element and all vectors.
    fits = max((row.registers - 1 - rows) // rows, (row.registers - 1) // (rows + 1))
    return min(fits, -(-_CHAINS // rows), _MOST_VECTORS)


def tile_lines(row: isa.InstructionSet, rows: int, vectors: int) -> int:
    """Lines of so many vectors each of the largest tile of so many rows, whose vectors need not lie side by side."""
    if rows == row.rows:
        return max(1, row.vectors // vectors)
    fits = max((row.registers - 1 - rows) // rows, (row.registers - 1) // (rows + 1))
    enough = -(-_CHAINS // (rows * vectors)) * vectors
    return max(1, min(fits, enough, _MOST_VECTORS) // vectors)


def cover_lines(rows: int, vectors: int, lines: int) -> list[tuple[int, int, int]]:
    """The same for so many lines of `vectors` each: rows, lines, and how many tiles there are of such."""
    row, found = isa.here(), []
    for height in tile_rows(row):
        times, rows = divmod(rows, height)
        if times > 0:
            panels = -(-lines // tile_lines(row, height, vectors))
            found += [(height, each, times * count) for each, count in widths(lines, panels)]
    return found


def cover(rows: int, vectors: int) -> list[tuple[int, int, int]]:
    """The tiles that so many rows and vectors are covered with: rows, vectors, and how many there are of such."""
    row, found = isa.here(), []
    for height in tile_rows(row):
        times, rows = divmod(rows, height)
        if times > 0:
            panels = -(-vectors // tile_vectors(row, height))
            found += [(height, width, times * count) for width, count in widths(vectors, panels)]
    return found


def widths(vectors: int, panels: int) -> list[tuple[int, int]]:
    """The widths of panels, nearly equal ones, and how many have each: there may be a hundred million."""
    width, wider = divmod(vectors, max(panels, 1))
    return [(each, count) for each, count in ((width, panels - wider), (width + 1, wider)) if each * count > 0]


def term_cycles(rows: int, vectors: int, speeds: tuple[float, ...]) -> float:
    """Cycles that a tile takes for a term; it reaches `speeds[vectors - 1]` of the peak where latency allows."""
    busy = rows * vectors / FMAS_A_CYCLE / speeds[min(vectors, len(speeds)) - 1]
    return max(busy, _FMA_LATENCY)
