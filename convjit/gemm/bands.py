"""Bands: how many rows of the grid a worker fills and reads at a time, so that their planes stay in its cache.

Knows sizes and numbers of workers; does not know what is computed of a band.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from .planes import Axis, plane_elements

# Planes of a band that stay in the second-level cache between filling and reading.
_CACHED_BYTES = 1 << 19
# A band takes 10 ms at most: at 25 multiplications a nanosecond, what float64 reaches.
_BAND_MULTIPLICATIONS = 1 << 28
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
    """Bands an image, of a product or a direct convolution."""
    return (p.image_h + p.grid_h - 1) // max(p.grid_h, 1)


def band_rows(
    axes: tuple[Axis, Axis], planes: int, batch: int, rows: int, terms: int, workers: int, size: int, least: int = 1,
    step: int = 1,
) -> int:  # fmt: skip
    """Rows of the grid in a band, whose planes stay in a worker's cache; 0 where all planes are better filled first.

    That is where images are read in place, and where bands would be uneven, have less than `least` grid points, or
    consist of what they share. `rows` of results, and `size` bytes an element; rows of the grid lie `step` rows of a
    plane apart.
    """
    vertical, horizontal = axes
    grid, shared = vertical.grid, -(-vertical.padded // step) - vertical.grid
    if plane_elements(1, *axes) == 0 or batch * grid == 0:
        return 0
    line = planes * vertical.phases * horizontal.phases * horizontal.padded * step * size
    most = min(_CACHED_BYTES // max(line, 1) - shared, _BAND_MULTIPLICATIONS // max(rows * terms * horizontal.grid, 1))
    if most < 1:
        return 0

    def cost(each: int) -> int:
        of_band = (_MULTIPLYING * each + shared) * horizontal.grid + _MULTIPLYING * _READING_POINTS
        return -(-batch * -(-grid // each) // workers) * of_band

    fewest = -(-grid // most)
    counts = range(fewest, max(fewest, -(-_BANDS_A_WORKER * workers // batch) if workers > 1 else 1) + 1)
    each = min((-(-grid // count) for count in counts), key=cost)
    if each < grid and each * horizontal.grid < least:
        return 0
    of_share = batch * (_MULTIPLYING * grid * horizontal.grid + _MULTIPLYING * _READING_POINTS) / workers
    return each if cost(each) <= _MOST_OF_SHARE * of_share else 0
