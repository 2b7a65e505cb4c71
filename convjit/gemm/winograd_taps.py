"""The micro-kernels of Winograd's weight gradient, F(3x3, 4x4), beside those that transform inputs.

The taps of a filter are the results, 4x4 pixels of the output gradient what is convolved with the 6x6 inputs of a tile:
dw = AT * (sum over tiles of (G * dy * GT) x (BT * x * B)) * A. The points are those of the forward pass, and so the
transform of inputs is the same.
Knows vectors of output channels; does not know images, panels or blocks of tiles.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors
from ..typing import Array, DType
from .cook_toom import F3X4, Tile, apply, matrices, store_products

# What compiled code is told of a dtype's kernels, an int64 array of addresses.
PIXELS, TAPS = 0, 1


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    found = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions(dtype), row.features)
    return passed(tuple(found.values()))


def functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype, by name: the number of arguments, and the body."""
    lanes = isa.lanes(dtype)
    return {"pixels": (6, _pixels(dtype, lanes, F3X4)), "taps": (6, _taps(dtype, lanes, F3X4))}


def _pixels(dtype: DType, lanes: int, tile: Tile) -> emitting.Body:
    """U[window*r + s][t] = sum over i, j of G[r][i] * G[s][j] * pixel (i, 4t + j), lanes = output channels.

    Pixels of a row are vectors side by side, rows lie `pitch` elements apart; products lie `product_pitch` apart, those
    of the next tile `tile_pitch`.
    """
    g, size = matrices(tile)[1], tile.taps

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        pixels, pitch, tiles, target, product_pitch, tile_pitch = arguments

        def transform(values: list[Any]) -> list[Any]:
            source, to = values
            rows = [source]
            for _ in range(1, size):
                rows.append(v.offset(rows[-1], pitch))
            columns = [[v.load(v.offset(row, j * lanes)) for row in rows] for j in range(size)]
            store_products(v, g, columns, to, product_pitch)
            return [v.offset(source, size * lanes), v.offset(to, tile_pitch)]

        v.loop(tiles, [v.pointer(pixels), v.pointer(target)], transform)

    return body


def _taps(dtype: DType, lanes: int, tile: Tile) -> emitting.Body:
    """dw[c][3*i + j] = sum over r, s of AT[i][r] * AT[j][s] * M[window*r + s][c], lanes = output channels.

    Products lie `product_pitch` elements apart, channels of them and taps of the target `pitch`, channels of the target
    one behind the other. With `extend`, added to what the target was.
    """
    at, window, across = matrices(tile)[0], tile.window, tile.outputs

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        sums, product_pitch, channels, pitch, target, extend = arguments

        def transform(values: list[Any]) -> list[Any]:
            source, to = values
            places = [source]
            for _ in range(1, window**2):
                places.append(v.offset(places[-1], product_pitch))
            mixed = [apply(v, at, [v.load(place) for place in places[s::window]]) for s in range(window)]
            found = [value for i in range(across) for value in apply(v, at, [column[i] for column in mixed])]
            targets = [to]
            for _ in found:
                targets.append(v.offset(targets[-1], pitch))

            def added() -> list[Any]:
                return [v.add(v.load(place), value) for place, value in zip(targets, found, strict=False)]

            for value, place in zip(v.either(extend, added, lambda: found), targets, strict=False):
                v.store(value, place)
            return [v.offset(source, pitch), targets[-1]]

        v.loop(channels, [v.pointer(sums), v.pointer(target)], transform)

    return body


_call = emitting.caller(6)


@kernel
def transform_pixels(
    kernels: Any, pixels: Any, pitch: Any, tiles: Any, target: Any, product_pitch: Any, tile_pitch: Any
) -> None:
    """See `_pixels`; `pixels` and `target` are addresses."""
    _call(kernels[PIXELS], pixels, pitch, tiles, target, product_pitch, tile_pitch)


@kernel
def transform_taps(
    kernels: Any, sums: Any, product_pitch: Any, channels: Any, pitch: Any, target: Any, extend: Any
) -> None:
    """See `_taps`; `sums` and `target` are addresses."""
    _call(kernels[TAPS], sums, product_pitch, channels, pitch, target, extend)
