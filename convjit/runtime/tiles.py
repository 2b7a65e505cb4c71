"""Cutting planes into tiles, so that no task of a loop over planes is long, however large a plane is.

Knows heights, widths and what a pixel costs; does not know what is done to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .options import kernel

# What a tile may cost, in units of about a nanosecond: a few milliseconds where a unit takes a hundred times as long
# as it should, and far more than dealing a task takes.
TILE_COST = 1 << 16


class Tiling(NamedTuple):
    """Tiles of `rows` x `cols` pixels, `a_plane` to a plane; those at the end may be smaller."""

    rows: int
    cols: int
    a_plane: int


def tiling(height: int, width: int, cost: float = 1) -> Tiling:
    """Tiles for planes of a height and width, whole rows where they are short; `cost` is that of a pixel."""
    pixels = max(1, int(TILE_COST / max(cost, 1)))
    rows, cols = max(1, min(height, pixels // max(width, 1))), max(1, min(width, pixels))
    return Tiling(rows, cols, -(-height // rows) * -(-width // cols))


@kernel
def tile(task: Any, height: Any, width: Any, rows: Any, cols: Any) -> Any:
    """The tile of a task: its plane and `top, bottom, left, right` in it."""
    if rows >= height and cols >= width:  # spares the divisions, which take as long as a plane of 10x10 pixels
        return task, 0, height, 0, width
    across = (width + cols - 1) // cols
    down = (height + rows - 1) // rows
    plane, place = task // (down * across), task % (down * across)
    top, left = place // across * rows, place % across * cols
    return plane, top, min(top + rows, height), left, min(left + cols, width)
