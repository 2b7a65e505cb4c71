"""The matrices of Winograd's convolution are exact, and each of its micro-kernels is what its equation says."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit.gemm import winograd
from convjit.gemm.cook_toom import F3X4, F4X2, F4X3, ONE, ZERO, Surd, Tile, matrices
from convjit.gemm.winograd import LANES, STEP
from convjit.runtime.twins import compiled

DTYPES = [np.float32, np.float64]
ROUNDING = {np.float32: 2e-6, np.float64: 4e-15}
STRIDES = {1: F4X3, 2: F4X2}  # and the tile for each


def whole(*numbers):
    return tuple(Surd(Fraction(n)) for n in numbers)


TILES = {
    "F(4, 3)": F4X3,
    "F(4, 2)": F4X2,
    "F(3, 4)": F3X4,
    "F(2, 3)": Tile(2, 3, whole(0, 1, -1)),
    "F(4, 2) in integers": Tile(4, 2, whole(1, -1, 2, -2)),
    "F(4, 3) in integers": Tile(4, 3, whole(0, 1, -1, 2, -2)),
}


@pytest.mark.parametrize("name", TILES)
def test_the_identity_holds_exactly(name):
    """Convolution is bilinear: it is enough that each tap and each input give what they should."""
    tile = TILES[name]
    at, g, bt = matrices(tile)
    size = tile.outputs + tile.taps - 1
    for i, tap, position in product(range(tile.outputs), range(tile.taps), range(size)):
        total = ZERO
        for j in range(size):
            total = total.plus(at[i][j].times(g[j][tap]).times(bt[j][position]))
        assert total == (ONE if position == i + tap else ZERO), (i, tap, position)


def test_surds_are_numbers():
    a, b = Surd(Fraction(1, 3), Fraction(-2)), Surd(Fraction(5), Fraction(1, 7))
    assert_allclose(float(a.times(b)), float(a) * float(b), rtol=1e-15)
    assert_allclose(float(a.plus(b)), float(a) + float(b), rtol=1e-15)
    assert a.times(a.inverse()) == ONE
    assert a.plus(a.negative()) == ZERO


@pytest.mark.parametrize("tile", [F4X3, F4X2])
def test_the_point_at_infinity_has_the_last_tap_and_all_inputs(tile):
    """Which a phase of one tap, and one input less, does without."""
    _, g, bt = matrices(tile)
    assert [entry == ZERO for entry in g[-1]] == [True] * (tile.taps - 1) + [False]
    assert [row[-1] == ZERO for row in bt] == [True] * (tile.window - 1) + [False]


# --- kernels --------------------------------------------------------------------------------------------------------


def floats(tile):
    """The matrices AT, G and BT."""
    return [np.array([[float(entry) for entry in row] for row in matrix]) for matrix in matrices(tile)]


def guarded(shape, dtype):
    """An array full of NaN, and itself with as much room before and behind it."""
    size = int(np.prod(shape))
    room = np.full(3 * size, np.nan, dtype)
    return room[size : 2 * size].reshape(shape), room


def unharmed(room):
    return np.isnan(room[: room.size // 3]).all() and np.isnan(room[-(room.size // 3) :]).all()


def numbers(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@compiled
def _mix_rows(kernels, image, row_pitch, step, first_row, stop_row, col, width, target, pitch, vectors):
    address = image.ctypes.data + col * step * kernels[0]
    winograd.mix_rows(
        kernels, address, row_pitch, step, first_row, stop_row, col, width, target.ctypes.data, pitch, vectors
    )  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 3, 11])
@pytest.mark.parametrize("width", [1, 3, 8, 17, 40])
@pytest.mark.parametrize("rows", [(0, 6), (1, 6), (0, 5), (1, 4), (2, 3), (4, 4), (-3, 9)])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_mixed_and_what_is_outside_is_zero(dtype, stride, rows, width, step):
    """Pixels between those that lie `step` apart are NaN: they are not looked at."""
    kernels, bt = winograd.kernels(np.dtype(dtype), stride), floats(STRIDES[stride])[2]
    lanes, (first, stop) = int(kernels[LANES]), rows
    window = len(bt)
    for left in (-lanes - 1, -1, 0, 2):
        image, room = guarded((window, (width - 1) * step + 1), dtype)
        first_row, stop_row = max(first, 0), min(stop, window)
        image[first_row:stop_row, ::step] = numbers((stop_row - first_row, width), dtype)
        vectors = (width - left + lanes) // lanes
        target, canary = guarded((window, vectors * lanes + 3), dtype)
        before = room.copy()
        pitches = image.shape[1], target.shape[1]
        _mix_rows(kernels, image, pitches[0], step, first, stop, left, width, target, pitches[1], vectors)
        wanted = np.zeros((window, vectors * lanes))
        for row, j in product(range(first_row, stop_row), range(vectors * lanes)):
            if 0 <= left + j < width:
                wanted[row, j] = image[row, (left + j) * step]
        assert_allclose(target[:, : vectors * lanes], bt @ wanted, atol=10 * ROUNDING[dtype])
        assert np.isnan(target[:, vectors * lanes :]).all()
        assert unharmed(canary)
        assert_array_equal(room, before)


@compiled
def _spread(kernels, phases, mixed, pitch, rows, target, product_pitch, phase_pitch, tiles):
    winograd.spread(
        kernels, phases, mixed.ctypes.data, pitch, rows, target.ctypes.data, product_pitch, phase_pitch, tiles
    )  # fmt: skip


@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 7, 8, 15, 16, 17, 40])
@pytest.mark.parametrize(("stride", "phases"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_spread_to_tiles(dtype, stride, phases, tiles):
    """A row less than there are is left out; a phase but the first has a pixel less, and a product less."""
    kernels, bt = winograd.kernels(np.dtype(dtype), stride), floats(STRIDES[stride])[2]
    lanes, window = int(kernels[LANES]), len(bt)
    mixed = numbers((window, (-(-tiles // lanes) * STEP * phases + 1) * lanes), dtype)
    written = -(-tiles // lanes) * lanes  # whole vectors
    for rows in (window, window - 1):
        target, canary = guarded((phases, window, window, written + 2), dtype)
        _spread(kernels, phases, mixed, mixed.shape[1], rows, target, written + 2, target[0].size, tiles)
        for phase, t in product(range(phases), range(tiles)):
            size = window - (phase > 0)
            pixels = mixed[:rows, STEP * phases * t + phase :: phases][:, :size]
            wanted = pixels.astype(float) @ bt[:size, :size].T
            assert_allclose(target[phase, :rows, :size, t], wanted, atol=10 * ROUNDING[dtype])
            assert np.isnan(target[phase, rows:]).all()
            assert np.isnan(target[phase, :, size:]).all()
        assert np.isnan(target[..., written:]).all()
        assert unharmed(canary)


@compiled
def _weights(kernels, source, row_pitch, rows, channels, taps, first, step, down, across, target, product_pitch, pitch):
    lanes, size = kernels[LANES], kernels[0]
    winograd.turn(kernels, source.ctypes.data, row_pitch, rows, 9 * channels, taps.ctypes.data)
    winograd.weights(
        kernels, taps.ctypes.data + first * lanes * size, 3 * step * lanes, step * lanes, down, across, 9 * lanes,
        channels, target.ctypes.data, product_pitch, pitch,
    )  # fmt: skip


@pytest.mark.parametrize("which", ["all", "all, flipped", "phase 00", "phase 01", "phase 10", "phase 11", "flipped 00"])
@pytest.mark.parametrize("channels", [1, 2, 5, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_turned_and_transformed(dtype, channels, which):
    """All nine taps, or with stride 2 those of a phase: 0 and 2, or 1, of each axis."""
    stride = 1 if which.startswith("all") else 2
    kernels, g = winograd.kernels(np.dtype(dtype), stride), floats(STRIDES[stride])[1]
    lanes, phase = int(kernels[LANES]), tuple(map(int, which[-2:])) if stride == 2 else (0, 0)
    step = -stride if "flipped" in which else stride
    chosen = [[1] if p else [0, 1, 2][::step] for p in phase]
    for rows in sorted({1, lanes - 1, lanes, lanes + 1}):
        source = numbers((rows, channels, 3, 3), dtype)
        taps, taps_room = guarded((-(-9 * channels // lanes) * lanes, lanes), dtype)
        target, canary = guarded((len(g) ** 2, channels, lanes), dtype)
        _weights(
            kernels, source, 9 * channels, rows, channels, taps, 3 * chosen[0][0] + chosen[1][0], step,
            len(chosen[0]), len(chosen[1]), target, channels * lanes, lanes,
        )  # fmt: skip
        seen = source[:lanes][:, :, chosen[0]][..., chosen[1]]
        down, across = (g[:, : len(each)] for each in chosen)
        wanted = np.einsum("ri,ocij,sj->rsco", down, seen, across).reshape(len(g) ** 2, channels, -1)
        assert_allclose(target[:, :, :rows], wanted, atol=4 * ROUNDING[dtype])
        assert (target[:, :, rows:] == 0).all()
        assert unharmed(canary)
        assert unharmed(taps_room)


@compiled
def _multiply(kernels, vectors, data, data_pitch, tiles, weights, channels, sums, tile_pitch, extend):
    winograd.multiply(
        kernels, vectors, data.ctypes.data, data_pitch, tiles, weights.ctypes.data, channels, sums.ctypes.data,
        tile_pitch, extend,
    )  # fmt: skip


@pytest.mark.parametrize("extend", [0, 128])
@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_add_channels(dtype, stride, vectors, extend):
    kernels, products = winograd.kernels(np.dtype(dtype), stride), STRIDES[stride].window ** 2
    lanes = int(kernels[LANES])
    for tiles in (*range(1, 17), 29):
        data, weights = numbers((7, tiles), dtype), numbers((7, vectors, lanes), dtype, 1)
        sums, canary = guarded((tiles, vectors, products, lanes), dtype)
        before = numbers((tiles, vectors, lanes), dtype, 2) if extend else np.zeros((tiles, vectors, lanes))
        if extend:
            sums[:, :, 0] = before
        _multiply(kernels, vectors, data, tiles, tiles, weights, 7, sums, vectors * products * lanes, extend)
        assert_allclose(sums[:, :, 0], before + np.einsum("ct,cvl->tvl", data, weights), atol=10 * ROUNDING[dtype])
        assert np.isnan(sums[:, :, 1:]).all()
        assert unharmed(canary)


def test_no_channels_are_zeros():
    """What a phase leaves out is stored so."""
    kernels = winograd.kernels(np.dtype("float32"), 2)
    lanes = int(kernels[LANES])
    sums, canary = guarded((3, 1, 25, lanes), "float32")
    _multiply(kernels, 1, numbers((1, 3), "float32"), 3, 3, numbers((1, lanes), "float32"), 0, sums, 25 * lanes, 0)
    assert (sums[:, :, 0] == 0).all()
    assert np.isnan(sums[:, :, 1:]).all()
    assert unharmed(canary)


@compiled
def _results(
    kernels, sums, tile_pitch, tiles, bias, target, plane, row_pitch, step, first_row, rows, first_col, cols, channels
):
    winograd.results(
        kernels, sums.ctypes.data, tile_pitch, tiles, bias.ctypes.data if bias.size else 0, target.ctypes.data, plane,
        row_pitch, step, first_row, rows, first_col, cols, channels,
    )  # fmt: skip


# A stride; from pixel to pixel of a row; and the first row and column that exist, in whole rows where pixels are
# neighbours.
BEGINNINGS = [
    *((1, step, (0, 0)) for step in (1, 2, 5)),
    *((2, 1, first) for first in ((0, 0), (-7, -9), (1, 0))),
    *((2, step, first) for step in (2, 5) for first in ((0, 1), (1, 0), (2, 3))),
]


@pytest.mark.parametrize(("stride", "step", "first"), BEGINNINGS)
@pytest.mark.parametrize("cols", [1, 3, 4, 6, 15, 16, 21, 32, 50])
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_written_where_the_image_is(dtype, rows, cols, stride, step, first):
    kernels, at = winograd.kernels(np.dtype(dtype), stride), floats(STRIDES[stride])[0]
    lanes, tiles, window = int(kernels[LANES]), -(-cols // STEP), at.shape[1]
    for channels in sorted({1, lanes - 1, lanes, lanes + 2}):
        sums = numbers((tiles + lanes // STEP, window**2, lanes), dtype)
        given = sums.copy()
        bias = numbers(channels if cols % 2 else 0, dtype, 1)
        target, canary = guarded((min(channels, lanes), rows + 1, (cols + 1) * step), dtype)
        plane, pitch = target[0].size, target.shape[2]
        _results(
            kernels, sums, window**2 * lanes, tiles, bias, target, plane, pitch, step, first[0], rows, first[1], cols,
            channels,
        )  # fmt: skip
        products = given[:tiles].reshape(tiles, window, window, lanes)
        wanted = np.einsum("ir,trsl,js->litj", at, products, at).reshape(lanes, STEP, STEP * tiles)[: len(target)]
        wanted = wanted + (bias[:lanes, None, None] if bias.size else 0)
        top, left = max(first[0], 0), max(first[1], 0)
        bottom = max(min(rows, STEP), top)
        written = np.zeros(target.shape, bool)
        written[:, top:bottom, left * step : cols * step : step] = True
        assert_allclose(target[written], wanted[:, top:bottom, left:cols].ravel(), atol=40 * ROUNDING[dtype])
        assert np.isnan(target[~written]).all()
        assert unharmed(canary)
