"""The micro-kernels of Winograd's convolution, and the table that leads to them.

Knows the layouts below and which register tile is used; does not know images, blocks of tiles or threads. A tile is 4x4
outputs; its inputs, `window` rows and columns, overlap those of its neighbours. `p = window*r + s` counts its products:
36 of `F4X3`, for kernels of 3x3 taps, and 25 of `F4X2`, for 2x2.

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
from ..runtime.emitting import Passes
from ..simd import isa
from ..typing import Array, DType
from . import winograd_inputs, winograd_sums, winograd_weights
from .cook_toom import F4X2, F4X3

# The tile for a stride, and how many phases of pixels, along an axis, are transformed in turn at most.
_OF_STRIDE = {1: (F4X3, 1), 2: (F4X2, 2)}
STEP = F4X3.outputs  # of every tile

# What compiled code is told of the kernels of a dtype and tile, an int64 array: numbers, then addresses.
ELEMENT, LANES, VECTORS = 0, 1, 2
ROWS = 3  # tiles of the largest register tile
WINDOW, PRODUCTS = 4, 5
MIX_ROWS, TURN, WEIGHTS, RESULTS = 6, 7, 8, 9
SPREAD = 10  # for each number of phases
TILES = 12  # for each number of vectors and of tiles, from 1 on

# Vectors of output channels in a register tile: with two, both multiply-add units are busy from 4 tiles on.
_VECTORS = 2


@cache
def kernels(dtype: DType, stride: int = 1) -> Array:
    """The kernels of a dtype and a stride for this machine, compiled or loaded on the first call."""
    row = isa.here()
    hottest = {f"tile_{_most_rows(row)}_{_VECTORS}": Passes.ALL}
    name = f"{__name__}.{dtype}.stride_{stride}.{row.name}"
    found = emitting.compiled(name, functions(dtype, stride), row.features, hottest)
    others = ("mix_rows", "turn", "weights", "results", "spread_1", "spread_2")  # of the last, there may be none
    tiles = [address for symbol, address in found.items() if symbol.startswith(emitting.TILE)]
    return passed((*numbers(dtype, stride), *(found.get(symbol, 0) for symbol in others), *tiles))


@cache
def numbers(dtype: DType, stride: int = 1) -> tuple[int, ...]:
    """What `kernels` begins with, from which work is planned: nothing is compiled."""
    row, window = isa.here(), _OF_STRIDE[stride][0].window
    return dtype.itemsize, isa.lanes(dtype), _VECTORS, _most_rows(row), window, window**2


def functions(dtype: DType, stride: int = 1) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype and a stride, by name: the number of arguments, and the body."""
    row = isa.here()
    tile, phases = _OF_STRIDE[stride]
    lanes = isa.lanes(dtype)
    found: dict[str, tuple[int, emitting.Body]] = {
        "mix_rows": (10, winograd_inputs.mix_rows(dtype, lanes, tile)),
        "turn": (5, winograd_weights.turn(dtype, lanes)),
        "weights": (10, winograd_weights.weights(dtype, lanes, tile)),
        "results": (13, winograd_sums.results(dtype, lanes, tile, stride > 1)),
    }
    for count in range(1, phases + 1):
        found[f"spread_{count}"] = (7, winograd_inputs.spread(dtype, lanes, tile, count))
    for vectors in range(1, _VECTORS + 1):
        for rows in range(1, _most_rows(row) + 1):
            found[f"tile_{rows}_{vectors}"] = (7, winograd_sums.register_tile(dtype, lanes, tile, rows, vectors))
    return found


def _most_rows(row: isa.InstructionSet) -> int:
    """Tiles whose chains fill the registers, beside the panel's vectors and one element in all lanes."""
    return (row.registers - _VECTORS - 1) // _VECTORS


_call_5, _call_7, _call_10, _call_13 = (emitting.caller(count) for count in (5, 7, 10, 13))


@kernel
def mix_rows(
    kernels: Any, image: Any, row_pitch: Any, col_step: Any, first_row: Any, stop_row: Any, col: Any, width: Any,
    target: Any, pitch: Any, vectors: Any,
) -> None:  # fmt: skip
    """See `winograd_inputs.mix_rows`."""
    _call_10(kernels[MIX_ROWS], image, row_pitch, col_step, first_row, stop_row, col, width, target, pitch, vectors)


@kernel
def spread(
    kernels: Any, phases: Any, mixed: Any, pitch: Any, rows: Any, target: Any, product_pitch: Any, phase_pitch: Any,
    tiles: Any,
) -> None:  # fmt: skip
    """See `winograd_inputs.spread`."""
    _call_7(kernels[SPREAD + phases - 1], mixed, pitch, rows, target, product_pitch, phase_pitch, tiles)


@kernel
def turn(kernels: Any, source: Any, row_pitch: Any, rows: Any, columns: Any, target: Any) -> None:
    """See `winograd_weights.turn`."""
    _call_5(kernels[TURN], source, row_pitch, rows, columns, target)


@kernel
def weights(
    kernels: Any, taps: Any, row_step: Any, col_step: Any, rows: Any, cols: Any, channel_pitch: Any, channels: Any,
    target: Any, product_pitch: Any, pitch: Any,
) -> None:  # fmt: skip
    """See `winograd_weights.weights`."""
    _call_10(
        kernels[WEIGHTS], taps, row_step, col_step, rows, cols, channel_pitch, channels, target, product_pitch, pitch
    )  # fmt: skip


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
    col_step: Any, first_row: Any, rows: Any, first_col: Any, cols: Any, channels: Any,
) -> None:  # fmt: skip
    """See `winograd_sums.results`."""
    _call_13(
        kernels[RESULTS], sums, tile_pitch, tiles, bias, target, plane, row_pitch, col_step, first_row, rows, first_col,
        cols, channels,
    )  # fmt: skip
