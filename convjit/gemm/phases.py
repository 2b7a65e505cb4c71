"""Phases of an input gradient: pixels of the image modulo the stride, of which those of one phase meet the same taps.

A tap contributes to one phase in each direction, so the taps of all phases are those of the kernel. A result without a
stride is of one phase. Knows which taps a phase has, in which order, and where they are met; does not know how they are
multiplied.
Source: as `planes`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..geometry import Geometry
from ..typing import Array
from .planes import Axis, phase_tables, term_offsets


class Phases(NamedTuple):
    """The phases of a result, and its size."""

    rows: int
    columns: int
    height: int
    width: int
    before: Array  # how many taps the phases before each have, row by row; at last all of them
    # Of each tap of the kernel: how many taps lie before its phase, its place there, how many are there. Empty without
    # a stride, where one phase has all taps.
    places: Array


def one_phase(taps: int, height: int, width: int) -> Phases:
    """A result whose pixels all meet the same taps."""
    return Phases(1, 1, height, width, _kept([0, taps]), _NO_PLACES)


@lru_cache(maxsize=64)
def gradient_phases(g: Geometry) -> Phases:
    """Those of an input gradient."""
    if g.stride_h == g.stride_w == 1 or g.in_h * g.in_w == 0:
        return one_phase(g.kernel_h * g.kernel_w, g.in_h, g.in_w)
    above, left = phase_tables(g)
    rows, columns = np.diff(above), np.diff(left)
    counts = (rows[:, None] * columns).ravel()
    before = np.concatenate(([0], np.cumsum(counts)))
    places = []
    for phase_h, place_h in _places(g.kernel_h, g.stride_h, g.dilation_h, g.pad_top):
        for phase_w, place_w in _places(g.kernel_w, g.stride_w, g.dilation_w, g.pad_left):
            if phase_h < len(rows) and phase_w < len(columns):
                phase = phase_h * len(columns) + phase_w
                places.append((before[phase], place_h * columns[phase_w] + place_w, counts[phase]))
            else:  # a small image has no such pixels
                places.append((0, 0, 0))
    return Phases(len(rows), len(columns), g.in_h, g.in_w, _kept(before), _kept(places))


def _places(kernel_size: int, stride: int, dilation: int, pad: int) -> list[tuple[int, int]]:
    """For each tap of an axis its phase, and its place among the taps there, which are read from the last one on."""
    period = stride // math.gcd(stride, dilation)
    return [((k * dilation - pad) % stride, (kernel_size - 1 - k) // period) for k in range(kernel_size)]


def phase_offsets(
    phases: tuple[tuple[Axis, ...], tuple[Axis, ...]], axes: tuple[Axis, Axis], channels: int, apart: int, pixel: int
) -> Array:
    """Where grid point (0, 0) meets the terms of each phase, phase by phase; `axes` say how large planes are.

    Channels lie `apart`, pixels of a row `pixel` elements.
    """
    found = []
    for row in phases[0]:
        vertical = row._replace(padded=axes[0].padded)
        for column in phases[1]:
            horizontal = column._replace(
                padded=axes[1].padded, shift=column.shift * pixel, tap_step=column.tap_step * pixel
            )
            if row.taps * column.taps > 0:
                found.append(term_offsets(vertical, horizontal, channels, apart))
    return _kept(np.concatenate(found) if found else [])


def _kept(numbers: object) -> Array:
    table = np.array(numbers, np.int64)
    table.flags.writeable = False
    return table


_NO_PLACES = np.empty((0, 3), np.int64)
_NO_PLACES.flags.writeable = False
