"""The transform of inputs, BT * d * B: down the columns, then along the rows.

Knows rows of pixels, which may lie apart, and vectors of tiles; does not know images, channels or phases.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1.
"""

from __future__ import annotations

from typing import Any

from ..runtime import emitting
from ..simd.vectors import Vectors, index
from ..typing import DType
from .cook_toom import Tile, apply, matrices

# What `_windows` knows: shuffles halve a row of pixels twice.
_STEP = 4


def mix_rows(dtype: DType, lanes: int, tile: Tile) -> emitting.Body:
    """Transform down the columns: target[r*pitch + j] = sum over i of BT[r][i] * image[i*row_pitch + j*col_step].

    A window's rows of an image of which `first_row <= i < stop_row` exist, whole vectors from column `col` on, `width`
    columns of which exist; the others are zero. `image` is the address of column `col` in row 0, whether that exists or
    not.
    """
    bt, window = matrices(tile)[2], tile.window

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        image, row_pitch, col_step, first_row, stop_row, col, width, target, pitch, vectors = arguments
        exists = [
            builder.and_(
                builder.icmp_signed("<=", first_row, index(i)), builder.icmp_signed("<", index(i), stop_row)
            )
            for i in range(window)
        ]  # fmt: skip
        all_rows = builder.and_(exists[0], exists[-1])
        apart, farther = builder.sub(col_step, index(1)), builder.sub(col_step, index(2))

        def mix(values: list[Any]) -> list[Any]:
            source, to, at = values
            places = [source]
            for _ in range(1, window):
                places.append(v.offset(places[-1], row_pitch))
            left = builder.sub(width, at)
            inside = builder.and_(
                builder.icmp_signed(">=", at, index(0)), builder.icmp_signed(">=", left, index(lanes))
            )  # fmt: skip

            def masked() -> list[Any]:
                columns = v.between(builder.neg(at), left)
                return [
                    v.load_masked(place, v.only_if(here, columns)) for place, here in zip(places, exists, strict=True)
                ]

            whole = builder.zext(builder.and_(inside, all_rows), at.type)

            def second() -> list[Any]:
                columns = v.every_second(builder.neg(at), left)
                return [
                    v.load_second(place, tuple(v.only_if(here, mask) for mask in columns))
                    for place, here in zip(places, exists, strict=True)
                ]

            def spaced() -> list[Any]:
                columns = v.between(builder.neg(at), left)
                return [
                    v.load_spaced(place, col_step, v.only_if(here, columns))
                    for place, here in zip(places, exists, strict=True)
                ]

            def together() -> list[Any]:
                return v.either(whole, lambda: [v.load(place) for place in places], masked)

            rows = v.either(apart, lambda: v.either(farther, spaced, second), together)
            for r, mixed in enumerate(apply(v, bt, rows)):
                v.store(mixed, v.offset(to, builder.mul(pitch, index(r))))
            behind = v.offset(source, builder.mul(col_step, index(lanes)))
            return [behind, v.offset(to, lanes), builder.add(at, index(lanes))]

        v.loop(vectors, [v.pointer(image), v.pointer(target), col], mix)

    return body


def spread(dtype: DType, lanes: int, tile: Tile) -> emitting.Body:
    """Transform along the rows: V[window*r + s][tile] = sum over i of BT[s][i] * mixed[r*pitch + 4*tile + i].

    `mixed` is what `mix_rows` left, readable up to a vector behind the last tile's vector; products lie
    `product_pitch` apart. Whole vectors are written, also behind the last tile.
    """
    bt, window, step = matrices(tile)[2], tile.window, tile.outputs

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        mixed, pitch, target, product_pitch, tiles = arguments

        def some_tiles(values: list[Any]) -> list[Any]:
            source, to = values

            def row(values: list[Any]) -> list[Any]:
                place, at = values
                pixels = [v.load(v.offset(place, j * lanes)) for j in range(step + 1)]
                spread = apply(v, bt, _windows(v, pixels, window))
                places = [at]
                for _ in range(1, window):
                    places.append(v.offset(places[-1], product_pitch))

                for value, there in zip(spread, places, strict=True):
                    v.store(value, there)
                return [v.offset(place, pitch), v.offset(places[-1], product_pitch)]

            v.loop(index(window), [source, to], row)
            return [v.offset(source, step * lanes), v.offset(to, lanes)]

        groups = builder.sdiv(builder.add(tiles, index(lanes - 1)), index(lanes))
        v.loop(groups, [v.pointer(mixed), v.pointer(target)], some_tiles)

    return body


def _windows(v: Vectors, pixels: list[Any], window: int) -> list[Any]:
    """The first pixels of tiles that begin every fourth pixel, one a lane, from 4 vectors of pixels and one more."""
    *pixels, behind = pixels
    even, odd = range(0, 2 * v.lanes, 2), range(1, 2 * v.lanes, 2)
    halves = [[v.shuffle(pixels[i], pixels[i + 1], half) for i in (0, 2)] for half in (even, odd)]
    found = [v.shuffle(halves[i % 2][0], halves[i % 2][1], even if i < 2 else odd) for i in range(_STEP)]
    following = [*range(1, v.lanes)]
    return found + [v.shuffle(found[i], behind, [*following, v.lanes + i]) for i in range(window - _STEP)]
