"""Bands: how many rows of the grid, of how many groups, a worker fills and reads at a time: they stay in its cache.

Knows sizes and numbers of workers; does not know what is computed of a band.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..runtime.compile import kernel
from .planes import Axis, plane_elements
from .tasks import TASK_MULTIPLICATIONS

# Planes of a band that stay in the second-level cache between filling and reading.
_CACHED_BYTES = 1 << 19
# Where a few bands a worker are to be weighed: more of them differ little.
_BANDS_A_WORKER = 4
# What multiplying a row costs where filling it costs 1: 9 for three channels, 32 filters of 3x3 and a stride of 2, the
# fewest multiplications for what is filled among usual layers.
_MULTIPLYING = 8
# Reading the weights of a term from beyond the second-level cache costs as much as multiplying so many grid points:
# half a cycle a weight, for two multiplications of a vector of 16 a cycle.
_READING_POINTS = 16
# How much longer than an equal share of the work the worker with the most bands may take. Where bands are filled before
# and their results dealt in smaller pieces, workers read what others wrote and meet twice: 8 to 18 % of the time of
# 128-128 (28x28), of 128-128 with stride 2 (56x56) and of 64-192 (5x5, 27x27) on two threads.
_MOST_OF_SHARE = 1.2


@kernel
def band_count(p: Any) -> Any:
    """Bands a part of an image, of a product or a direct convolution."""
    return (p.image_h + p.grid_h - 1) // max(p.grid_h, 1)


class BandSize(NamedTuple):
    """Rows of the grid in a band, and parts that the groups are cut into, each of which has bands of its own."""

    rows: int
    parts: int = 1


FILLED_BEFORE = BandSize(0)


def band_size(
    axes: tuple[Axis, Axis], planes: int, batch: int, rows: int, terms: int, workers: int, size: int, least: int = 1,
    step: int = 1, groups: int = 1,
) -> BandSize:  # fmt: skip
    """Bands whose planes stay in a worker's cache; `FILLED_BEFORE` where all planes are better filled first.

    That is where images are read in place, and where bands would be uneven, have less than `least` grid points, or
    consist of what they share. `planes` and `rows` of results are those of all `groups`, each has `size` bytes an
    element; rows of the grid lie `step` rows of a plane apart.
    """
    vertical, horizontal = axes
    grid, shared = vertical.grid, -(-vertical.padded // step) - vertical.grid
    if plane_elements(1, *axes) == 0 or batch * grid == 0:
        return FILLED_BEFORE
    line = planes * vertical.planes * horizontal.planes * horizontal.padded * step * size
    row = rows * terms * horizontal.grid

    def cost(band: BandSize) -> float:
        of_band = (_MULTIPLYING * band.rows + shared) * horizontal.grid + _MULTIPLYING * _READING_POINTS
        return -(-batch * band.parts * -(-grid // band.rows) // workers) * of_band / band.parts

    def bands_of(parts: int) -> Iterator[BandSize]:
        most = min(_CACHED_BYTES * parts // max(line, 1) - shared, TASK_MULTIPLICATIONS * parts // max(row, 1))
        if most < 1:
            return
        fewest = -(-grid // most)
        enough = -(-_BANDS_A_WORKER * workers // (batch * parts)) if workers > 1 else 1
        for count in range(fewest, max(fewest, enough) + 1):
            yield BandSize(-(-grid // count), parts)

    all_parts = (parts for parts in range(1, groups + 1) if groups % parts == 0)
    band = min((band for parts in all_parts for band in bands_of(parts)), key=cost, default=FILLED_BEFORE)
    if band.rows == 0 or (band.rows < grid and band.rows * horizontal.grid < least):
        return FILLED_BEFORE
    of_share = batch * (_MULTIPLYING * grid * horizontal.grid + _MULTIPLYING * _READING_POINTS) / workers
    return band if cost(band) <= _MOST_OF_SHARE * of_share else FILLED_BEFORE
