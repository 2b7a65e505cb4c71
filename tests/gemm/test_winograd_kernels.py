"""The matrices of Winograd's convolution are exact, and each of its micro-kernels is what its equation says."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit.gemm import winograd
from convjit.gemm.cook_toom import F3X4, F4X3, ONE, ZERO, Surd, Tile, matrices
from convjit.gemm.winograd import LANES, PRODUCTS, STEP, WINDOW
from convjit.runtime.twins import compiled

DTYPES = [np.float32, np.float64]
ROUNDING = {np.float32: 2e-6, np.float64: 4e-15}
AT, G, BT = ([[float(entry) for entry in row] for row in matrix] for matrix in matrices(F4X3))


def whole(*numbers):
    return tuple(Surd(Fraction(n)) for n in numbers)


TILES = {
    "F(4, 3)": F4X3,
    "F(3, 4)": F3X4,
    "F(2, 3)": Tile(2, 3, whole(0, 1, -1)),
    "F(4, 2)": Tile(4, 2, whole(1, -1, 2, -2)),
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


# --- kernels --------------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("rows", [(0, 6), (1, 6), (0, 5), (2, 3), (4, 4), (-3, 9)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_mixed_and_what_is_outside_is_zero(dtype, rows, width, step):
    """Pixels between those that lie `step` apart are NaN: they are not looked at."""
    kernels = winograd.kernels(np.dtype(dtype))
    lanes, (first, stop) = int(kernels[LANES]), rows
    for left in (-lanes - 1, -1, 0, 2):
        image, room = guarded((WINDOW, (width - 1) * step + 1), dtype)
        first_row, stop_row = max(first, 0), min(stop, WINDOW)
        image[first_row:stop_row, ::step] = numbers((stop_row - first_row, width), dtype)
        vectors = (width - left + lanes) // lanes
        target, canary = guarded((WINDOW, vectors * lanes + 3), dtype)
        before = room.copy()
        pitches = image.shape[1], target.shape[1]
        _mix_rows(kernels, image, pitches[0], step, first, stop, left, width, target, pitches[1], vectors)
        wanted = np.zeros((WINDOW, vectors * lanes))
        for row, j in product(range(first_row, stop_row), range(vectors * lanes)):
            if 0 <= left + j < width:
                wanted[row, j] = image[row, (left + j) * step]
        assert_allclose(target[:, : vectors * lanes], np.array(BT) @ wanted, atol=10 * ROUNDING[dtype])
        assert np.isnan(target[:, vectors * lanes :]).all()
        assert unharmed(canary)
        assert_array_equal(room, before)


@compiled
def _spread(kernels, mixed, pitch, target, product_pitch, tiles):
    winograd.spread(kernels, mixed.ctypes.data, pitch, target.ctypes.data, product_pitch, tiles)


@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 7, 8, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_spread_to_tiles(dtype, tiles):
    kernels = winograd.kernels(np.dtype(dtype))
    lanes = int(kernels[LANES])
    mixed = numbers((WINDOW, (-(-tiles // lanes) * STEP + 1) * lanes), dtype)
    written = -(-tiles // lanes) * lanes  # whole vectors
    target, canary = guarded((PRODUCTS, written + 2), dtype)
    _spread(kernels, mixed, mixed.shape[1], target, target.shape[1], tiles)
    for t in range(tiles):
        wanted = mixed[:, STEP * t : STEP * t + WINDOW].astype(float) @ np.array(BT).T
        assert_allclose(target[:, t], wanted.ravel(), atol=10 * ROUNDING[dtype])
    assert np.isnan(target[:, written:]).all()
    assert unharmed(canary)


@compiled
def _weights(kernels, source, row_pitch, rows, channels, taps, flipped, target, product_pitch, pitch):
    lanes, size = kernels[LANES], kernels[0]
    winograd.turn(kernels, source.ctypes.data, row_pitch, rows, 9 * channels, taps.ctypes.data)
    step = -lanes if flipped else lanes
    first = taps.ctypes.data + (8 * lanes * size if flipped else 0)
    winograd.weights(kernels, first, step, channels, target.ctypes.data, product_pitch, pitch)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 5, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_turned_and_transformed(dtype, channels, flipped):
    kernels = winograd.kernels(np.dtype(dtype))
    lanes = int(kernels[LANES])
    for rows in sorted({1, lanes - 1, lanes, lanes + 1}):
        source = numbers((rows, channels, 3, 3), dtype)
        taps, taps_room = guarded((-(-9 * channels // lanes) * lanes, lanes), dtype)
        target, canary = guarded((PRODUCTS, channels, lanes), dtype)
        _weights(
            kernels, source, 9 * channels, rows, channels, taps, flipped, target, channels * lanes, lanes
        )  # fmt: skip
        seen = source[:lanes, :, ::-1, ::-1] if flipped else source[:lanes]
        wanted = np.einsum("ri,ocij,sj->rsco", G, seen, G).reshape(PRODUCTS, channels, -1)
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
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_add_channels(dtype, vectors, extend):
    kernels = winograd.kernels(np.dtype(dtype))
    lanes = int(kernels[LANES])
    for tiles in (*range(1, 17), 29):
        data, weights = numbers((7, tiles), dtype), numbers((7, vectors, lanes), dtype, 1)
        sums, canary = guarded((tiles, vectors, PRODUCTS, lanes), dtype)
        before = numbers((tiles, vectors, lanes), dtype, 2) if extend else np.zeros((tiles, vectors, lanes))
        if extend:
            sums[:, :, 0] = before
        _multiply(kernels, vectors, data, tiles, tiles, weights, 7, sums, vectors * PRODUCTS * lanes, extend)
        assert_allclose(sums[:, :, 0], before + np.einsum("ct,cvl->tvl", data, weights), atol=10 * ROUNDING[dtype])
        assert np.isnan(sums[:, :, 1:]).all()
        assert unharmed(canary)


@compiled
def _results(kernels, sums, tile_pitch, tiles, bias, target, plane, row_pitch, step, rows, cols, channels):
    winograd.results(
        kernels, sums.ctypes.data, tile_pitch, tiles, bias.ctypes.data if bias.size else 0, target.ctypes.data, plane,
        row_pitch, step, rows, cols, channels,
    )  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("cols", [1, 3, 4, 6, 15, 16, 21, 32, 50])
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_written_where_the_image_is(dtype, rows, cols, step):
    kernels = winograd.kernels(np.dtype(dtype))
    lanes, tiles = int(kernels[LANES]), -(-cols // STEP)
    for channels in sorted({1, lanes - 1, lanes, lanes + 2}):
        sums = numbers((tiles + lanes // STEP, PRODUCTS, lanes), dtype)
        given = sums.copy()
        bias = numbers(channels if cols % 2 else 0, dtype, 1)
        target, canary = guarded((min(channels, lanes), rows + 1, (cols + 1) * step), dtype)
        plane, pitch = target[0].size, target.shape[2]
        _results(kernels, sums, PRODUCTS * lanes, tiles, bias, target, plane, pitch, step, rows, cols, channels)
        products = given[:tiles].reshape(tiles, WINDOW, WINDOW, lanes)
        wanted = np.einsum("ir,trsl,js->litj", AT, products, AT).reshape(lanes, STEP, STEP * tiles)[: len(target)]
        wanted = wanted + (bias[:lanes, None, None] if bias.size else 0)
        here = min(rows, STEP)
        written = np.zeros(target.shape, bool)
        written[:, :here, : cols * step : step] = True
        assert_allclose(target[written], wanted[:, :here, :cols].ravel(), atol=40 * ROUNDING[dtype])
        assert np.isnan(target[~written]).all()
        assert unharmed(canary)
