"""The micro-kernels of Winograd's convolution F(4x4, 3x3), and the table that leads to them.

Knows the layouts below and which register tile is used; does not know images, blocks of tiles or threads. A tile is 4x4
outputs; its 6x6 inputs overlap those of its neighbours by two. `p = 6*r + s` counts the 36 products of a tile.

======  ==========================  ======================================================================
data    V[p][c][tile]               inputs transformed, lanes = tiles
U       U[p][c][o]                  weights transformed, lanes = output channels, some vectors of them
sums    M[tile][vector][p][lane]    sum over c of V[p][c][tile] * U[p][c][o], lanes = output channels
======  ==========================  ======================================================================

Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..typing import Array, DType
from . import winograd_inputs, winograd_sums, winograd_weights
from .cook_toom import F4X3

STEP, TAPS, WINDOW = F4X3.outputs, F4X3.taps, F4X3.window
PRODUCTS = WINDOW * WINDOW

# What compiled code is told of a dtype's kernels, an int64 array: numbers, then addresses.
ELEMENT, LANES, VECTORS = 0, 1, 2
ROWS = 3  # tiles of the largest register tile
MIX_ROWS, SPREAD, TURN, WEIGHTS, RESULTS = 4, 5, 6, 7, 8
TILES = 9  # for each number of vectors and of tiles, from 1 on

# Vectors of output channels in a register tile: with two, both multiply-add units are busy from 4 tiles on.
_VECTORS = 2


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    hottest = (f"tile_{_most_rows(row)}_{_VECTORS}",)
    found = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions(dtype), row.features, hottest)
    table = [dtype.itemsize, isa.lanes(dtype), _VECTORS, _most_rows(row), *found.values()]
    return passed(tuple(table))


def functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype, by name: the number of arguments, and the body."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    found: dict[str, tuple[int, emitting.Body]] = {
        "mix_rows": (10, winograd_inputs.mix_rows(dtype, lanes, F4X3)),
        "spread": (5, winograd_inputs.spread(dtype, lanes, F4X3)),
        "turn": (5, winograd_weights.turn(dtype, lanes)),
        "weights": (6, winograd_weights.weights(dtype, lanes, F4X3)),
        "results": (11, winograd_sums.results(dtype, lanes, F4X3)),
    }
    for vectors in range(1, _VECTORS + 1):
        for rows in range(1, _most_rows(row) + 1):
            found[f"tile_{rows}_{vectors}"] = (7, winograd_sums.register_tile(dtype, lanes, F4X3, rows, vectors))
    return found


def _most_rows(row: isa.InstructionSet) -> int:
    """Tiles whose chains fill the registers, beside the panel's vectors and one element in all lanes."""
    return (row.registers - _VECTORS - 1) // _VECTORS


_call_5, _call_6, _call_7, _call_10, _call_11 = (emitting.caller(count) for count in (5, 6, 7, 10, 11))


@kernel
def mix_rows(
    kernels: Any, image: Any, row_pitch: Any, col_step: Any, first_row: Any, stop_row: Any, col: Any, width: Any,
    target: Any, pitch: Any, vectors: Any,
) -> None:  # fmt: skip
    """See `winograd_inputs.mix_rows`."""
    _call_10(kernels[MIX_ROWS], image, row_pitch, col_step, first_row, stop_row, col, width, target, pitch, vectors)


@kernel
def spread(kernels: Any, mixed: Any, pitch: Any, target: Any, product_pitch: Any, tiles: Any) -> None:
    """See `winograd_inputs.spread`."""
    _call_5(kernels[SPREAD], mixed, pitch, target, product_pitch, tiles)


@kernel
def turn(kernels: Any, source: Any, row_pitch: Any, rows: Any, columns: Any, target: Any) -> None:
    """See `winograd_weights.turn`."""
    _call_5(kernels[TURN], source, row_pitch, rows, columns, target)


@kernel
def weights(kernels: Any, taps: Any, tap_step: Any, channels: Any, target: Any, product_pitch: Any, pitch: Any) -> None:
    """See `winograd_weights.weights`."""
    _call_6(kernels[WEIGHTS], taps, tap_step, channels, target, product_pitch, pitch)


@kernel
def multiply(
    kernels: Any, vectors: Any, data: Any, data_pitch: Any, tiles: Any, weights: Any, channels: Any, sums: Any,
    tile_pitch: Any, extend: Any,
) -> None:  # fmt: skip
    """Cover tiles x vectors with register tiles of nearly equal height, see `winograd_sums.register_tile`."""
    most, size = kernels[ROWS], kernels[ELEMENT]
    left = (tiles + most - 1) // most
    t = 0
    while left > 0:
        rows = (tiles - t + left - 1) // left
        _call_7(
            kernels[TILES + (vectors - 1) * most + rows - 1], data + t * size, data_pitch, weights, channels,
            sums + t * tile_pitch * size, tile_pitch, extend,
        )  # fmt: skip
        t += rows
        left -= 1


@kernel
def results(
    kernels: Any, sums: Any, tile_pitch: Any, tiles: Any, bias: Any, target: Any, plane: Any, row_pitch: Any,
    col_step: Any, rows: Any, cols: Any, channels: Any,
) -> None:  # fmt: skip
    """See `winograd_sums.results`."""
    _call_11(
        kernels[RESULTS], sums, tile_pitch, tiles, bias, target, plane, row_pitch, col_step, rows, cols, channels
    )  # fmt: skip
