"""How the direct convolution is cut: tiles of pixels, and weights that are asked for before they are read."""

import random

import numpy as np
import pytest

from convjit.algorithms import direct
from convjit.gemm import direct_kernels, direct_points
from convjit.gemm.planes import BEHIND
from convjit.gemm.summation import TERM_BLOCK
from convjit.geometry import conv2d_geometry

F32 = np.dtype("float32")
WEIGHT, OF_BLOCK = 1 << 40, 1 << 30


def cut(channels, filters, kernel, *, workers=1, is_packed=False, is_gradient=False):
    geometry = conv2d_geometry("test", (1, channels, 7, 7), (filters, channels, kernel, kernel), 1, kernel // 2, 1, 1)
    return direct._set_up(geometry, workers, F32, is_packed, is_gradient).direct


def asked(d, row, vectors, term, here=TERM_BLOCK):
    kernels = direct_kernels.kernels(F32)
    return direct_points._read_next(d, kernels, 0, row, vectors, WEIGHT, OF_BLOCK, term, here)


def test_packed_weights_are_those_of_the_next_block():
    d = cut(512, 512, 3, is_packed=True)
    of_vector = TERM_BLOCK * direct_kernels.kernels(F32)[direct_kernels.LANES] * 4
    assert asked(d, 0, 4, 0) == (OF_BLOCK + 4 * of_vector, of_vector, 4)


def test_weights_as_they_are_are_a_share_of_each_channel_that_is_packed_next():
    d = cut(512, 512, 3)
    terms, width = 512 * 9, 4 * direct_kernels.kernels(F32)[direct_kernels.LANES]
    assert d.together > TERM_BLOCK
    found = []
    for term in range(0, d.together, TERM_BLOCK):
        ahead, apart, runs = asked(d, 64, 4, term)
        found += [ahead + run * apart for run in range(runs)]
    assert found[:width] == [WEIGHT + 4 * ((64 + row) * terms + d.together) for row in range(width)]


def test_weights_of_a_gradient_are_a_share_of_each_filter_that_is_packed_next():
    d = cut(512, 512, 3, is_gradient=True)
    found = []
    for term in range(0, d.together, TERM_BLOCK):
        ahead, apart, runs = asked(d, 64, 4, term)
        found += [ahead + run * apart for run in range(runs)]
    first, filters = d.together // 9, d.together // 9
    wanted = [WEIGHT + 4 * ((first + o) * 512 * 9 + 64 * 9) for o in range(filters)]
    assert found[:filters] == wanted


def test_after_the_last_terms_come_those_of_the_next_panel_for_one_worker():
    alone, of_two = cut(512, 2048, 1), cut(512, 2048, 1, workers=2)
    assert asked(alone, 0, 4, 0)[0] == WEIGHT + 4 * 4 * direct_kernels.kernels(F32)[direct_kernels.LANES] * 512
    assert asked(of_two, 0, 4, 0) == (OF_BLOCK, 0, 1)


@pytest.mark.parametrize("is_packed", [False, True])
def test_weights_that_are_near_are_not_asked_for(is_packed):
    assert asked(cut(64, 64, 3, is_packed=is_packed), 0, 4, 0) == (OF_BLOCK, 0, 1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_whatever_phases_read_lies_in_the_planes(channels_last):
    """Also of columns that a phase has less than the first: they are computed, and not kept."""
    rng = random.Random(0)
    for _ in range(300):
        size, kernel = (rng.randint(1, 14), rng.randint(1, 14)), (rng.randint(1, 4), rng.randint(1, 4))
        stride, dilation = (rng.randint(1, 4), rng.randint(2, 4)), (rng.randint(1, 3), rng.randint(1, 3))
        pads = tuple((rng.randint(0, 3), rng.randint(0, 3)) for _ in range(2))
        if any(n + sum(p) < (k - 1) * d + 1 for n, p, k, d in zip(size, pads, kernel, dilation, strict=True)):
            continue
        g = conv2d_geometry("test", (1, 2, *size), (3, 2, *kernel), stride, pads, dilation, 1)
        s = direct._set_up(g, 1, F32, False, True, channels_last)
        d, before = s.direct, s.phases.before * s.direct.channels
        *_, space = s.spaces
        extent = 3 * g.out_h * g.out_w if space.shape[-1] == 0 else space.shape[-1] - BEHIND
        for phase in range(d.phases_h * d.phases_w):
            rows = len(range(phase // d.phases_w, g.in_h, d.phases_h))
            positions = np.empty(rows * d.grid_w, np.int64)
            direct_points._list_points(positions, 0, positions.size, d)
            offsets = s.offsets[before[phase] : before[phase + 1]]
            if offsets.size > 0:
                assert positions.min() + offsets.min() >= 0, g
                assert positions.max() + offsets.max() < extent, g


def test_tiles_cover_pixels_evenly():
    for heights in ([6, 5, 4, 2, 1], [4, 3, 2, 1], [8, 4, 2, 1]):
        for count in range(1, 300):
            times = direct_kernels.cover_rows(count, heights)
            assert sum(n * height for n, height in zip(times, heights, strict=True)) == count
            assert min(times) >= 0
    assert direct_kernels.cover_rows(49, [4, 3, 2, 1]) == [10, 3, 0, 0]
    assert direct_kernels.cover_rows(49, [6, 5, 4, 2, 1]) == [4, 5, 0, 0, 0]
    assert direct_kernels.cover_rows(13, [6, 5, 4, 2, 1]) == [2, 0, 0, 0, 1]  # three tiles of at least 5 would be more
    assert direct_kernels.cover_rows(49, [8, 4, 2, 1]) == [6, 0, 0, 1]
