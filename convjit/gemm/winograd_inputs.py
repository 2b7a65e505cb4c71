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


def spread(dtype: DType, lanes: int, tile: Tile, phases: int) -> emitting.Body:
    """Transform along the rows, of pixels of as many `phases` in turn, which have windows of their own:
    V[f][window*r + s][tile] = sum over i of BT[s][i] * mixed[r*pitch + phases*(m*tile + i) + f].

    Here m is `tile.outputs`. The first phase has whole windows, others lack the last pixel, and the last product.
    `mixed` is what `mix_rows` left of `rows` rows, readable up to a vector behind the last tile's vector; products lie
    `product_pitch` apart, phases `phase_pitch`. Whole vectors are written, also behind the last tile.
    """
    bt, window, step = matrices(tile)[2], tile.window, tile.outputs * phases

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        mixed, pitch, rows, target, product_pitch, phase_pitch, tiles = arguments

        def some_tiles(values: list[Any]) -> list[Any]:
            source, to = values

            def row(values: list[Any]) -> list[Any]:
                place, at = values
                pixels = _windows(v, [v.load(v.offset(place, j * lanes)) for j in range(step + 1)])
                places = [at]
                for _ in range(1, window):
                    places.append(v.offset(places[-1], product_pitch))
                for phase in range(phases):
                    size = window if phase == 0 else window - 1
                    products = apply(v, [row[:size] for row in bt[:size]], pixels[phase::phases][:size])
                    shift = builder.mul(phase_pitch, index(phase))
                    for value, there in zip(products, places, strict=False):
                        v.store(value, v.offset(there, shift))
                return [v.offset(place, pitch), v.offset(places[-1], product_pitch)]

            v.loop(rows, [source, to], row)
            return [v.offset(source, step * lanes), v.offset(to, lanes)]

        groups = builder.sdiv(builder.add(tiles, index(lanes - 1)), index(lanes))
        v.loop(groups, [v.pointer(mixed), v.pointer(target)], some_tiles)

    return body


def _windows(v: Vectors, pixels: list[Any]) -> list[Any]:
    """The first pixels of windows that begin every n-th pixel, one a lane, from n vectors of pixels and one more.

    They are n and half as many again: those of a window and its neighbour's first. Here n is a power of 2.
    """
    *pixels, behind = pixels
    even, odd = range(0, 2 * v.lanes, 2), range(1, 2 * v.lanes, 2)
    found = [pixels]  # at last, a vector for each remainder
    while len(found) < len(pixels):
        pairs = [list(zip(same[::2], same[1::2], strict=True)) for same in found]
        found = [[v.shuffle(*pair, half) for pair in same] for half in (even, odd) for same in pairs]
    first = [same[0] for same in found]
    following = [*range(1, v.lanes)]
    behind_them = [v.shuffle(first[i], behind, [*following, v.lanes + i]) for i in range(len(pixels) // 2)]
    return first + behind_them
