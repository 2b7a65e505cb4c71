"""Register tiles whose lanes are channels, on integers: any number of pixels, wherever they lie."""

from __future__ import annotations

import numpy as np
import pytest

from convjit.gemm import direct_kernels
from convjit.gemm.direct_kernels import LANES, PANEL, add_panel
from convjit.runtime import emitting
from convjit.runtime.twins import compiled
from convjit.simd import isa

TERMS, CHANNEL = 21, 340

# Of so many pixels, halves that lie alike; others by one pixel do not, the last one or the first.
PLACES = {
    "alike": lambda count: np.arange(count // 2 * 2).reshape(2, -1) + np.array([[3], [200]]),
    "but for the last": lambda count: np.append(np.arange(count - 1), 250),
    "but for the first": lambda count: np.append(250, np.arange(1, count)),
    "backwards": lambda count: np.arange(count)[::-1] + 5,
}


@compiled
def _add(kernels, source, positions, offsets, weights, vectors, totals, extend):
    add_panel(
        kernels, source.ctypes.data, positions.ctypes.data, positions.size, offsets.ctypes.data, offsets.size,
        weights.ctypes.data, vectors, totals.ctypes.data, totals.shape[1], extend, weights.ctypes.data, 0, 1,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PLACES)
def test_a_panel_adds_up_what_its_pixels_meet(name, dtype):
    rng, table = np.random.default_rng(0), direct_kernels.kernels(np.dtype(dtype))
    source = rng.integers(-9, 10, 8 * CHANNEL).astype(dtype)
    offsets = np.array([c * CHANNEL + k for c in range(7) for k in range(3)])
    for vectors in range(1, isa.here().channel_vectors + 1):
        width = vectors * int(table[LANES])
        weights = rng.integers(-9, 10, (TERMS, width)).astype(dtype)
        for count in (*range(1, 20), 32, 49, 50, 60):
            positions = np.ascontiguousarray(PLACES[name](count).ravel())
            wanted = source[positions[:, None] + offsets] @ weights
            for extend in (0, 1):
                totals = np.full((len(positions) + 2, width + 3), np.nan, dtype)
                totals[1:-1, :width] = 1000
                _add(table, source, positions, offsets, weights, vectors, totals[1:-1], extend)
                assert (totals[1:-1, :width] == wanted + 1000 * extend).all(), (vectors, count)
                totals[1:-1, :width] = np.nan
                assert np.isnan(totals).all()


@pytest.mark.parametrize("name", PLACES)
def test_tiles_of_halves_are_for_those_that_lie_alike(name):
    """They do nothing here."""
    row, dtype = isa.here(), np.dtype("float32")
    widths = [n for n in range(1, row.channel_vectors + 1) if direct_kernels.rows_of_halves(row, n)]
    if not widths:
        pytest.skip(f"{row.title} has no tiles of halves: the test above runs the others")
    functions = {
        symbol: (count, (lambda builder, arguments: None) if symbol.endswith("_of_halves") else body)
        for symbol, (count, body) in direct_kernels.functions(dtype).items()
    }
    table = direct_kernels.kernels(dtype).copy()
    table[PANEL] = emitting.compiled(f"{__name__}.halves", functions, row.features)["panel"]
    for vectors in widths:
        width = vectors * int(table[LANES])
        source, weights, offsets = np.ones(400, dtype), np.ones((1, width), dtype), np.zeros(1, np.int64)
        for count in (10, 11, 32):
            totals = np.zeros((count, width), dtype)
            positions = np.ascontiguousarray(PLACES[name](count).ravel())
            _add(table, source, positions, offsets, weights, vectors, totals, 0)
            is_alike = name == "alike" or (name == "backwards" and count % 2 == 0)
            assert (totals[: len(positions)] == (0 if is_alike else 1)).all(), count
