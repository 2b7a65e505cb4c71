"""Products of transformed inputs with transformed weights, and the transform of their sums into results, AT * M * A.

Knows register tiles and rows of results, which may lie apart; does not know images, panels or phases.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1.
"""

from __future__ import annotations

from typing import Any

from ..runtime import emitting
from ..simd.vectors import Vectors, index
from ..typing import DType
from .cook_toom import Tile, apply, matrices


def register_tile(dtype: DType, lanes: int, tile: Tile, rows: int, vectors: int) -> emitting.Body:
    """M[tile][vector][p] = sum over c of V[p][c][tile] * U[p][c][vector], c in order, for one p and some tiles.

    One fma a term. With `extend`, the sum is added to what is there.
    """
    products = tile.window**2

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        data, data_pitch, weights, channels, sums, tile_pitch, extend = arguments

        def term(values: list[Any]) -> list[Any]:
            a, b, *chains = values
            panel = [v.load(v.offset(b, j * lanes)) for j in range(vectors)]
            extended = []
            for r in range(rows):
                element = v.splat(v.offset(a, r))
                extended += [v.fma(element, panel[j], chains[r * vectors + j]) for j in range(vectors)]
            return [v.offset(a, data_pitch), v.offset(b, vectors * lanes), *extended]

        carried = [v.pointer(data), v.pointer(weights), *[v.zero] * (rows * vectors)]
        chains = v.loop(channels, carried, term)[2:]
        places, of_tile = [], v.pointer(sums)
        for _ in range(rows):
            places += [v.offset(of_tile, j * products * lanes) for j in range(vectors)]
            of_tile = v.offset(of_tile, tile_pitch)

        def added() -> list[Any]:
            for place, chain in zip(places, chains, strict=True):
                v.store(v.add(v.load(place), chain), place)
            return []

        def stored() -> list[Any]:
            for place, chain in zip(places, chains, strict=True):
                v.store(chain, place)
            return []

        v.either(extend, added, stored)

    return body


def results(dtype: DType, lanes: int, tile: Tile) -> emitting.Body:
    """y[o][i][m*tile + j] = bias[o] + sum over r, s of AT[i][r] * AT[j][s] * M[tile][window*r + s], tiles in a row.

    Here m is `tile.outputs`. `target` is the address of the first tile's first pixel in the first channel; planes lie
    `plane` apart, rows `row_pitch`, columns `col_step`. `rows` and `cols` say how many pixels are written from there
    on, `channels` how many lanes count. `bias` may be address 0. The sums are overwritten, and may be read up to a
    vector of pixels behind the last tile.
    """
    at, window, step = matrices(tile)[0], tile.window, tile.outputs

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        sums, tile_pitch, tiles, bias, target, plane, row_pitch, col_step, rows, cols, channels = arguments
        shift = v.either(bias, lambda: [v.load_masked(v.pointer(bias), v.first(channels))], lambda: [v.zero])[0]

        def pixels(values: list[Any]) -> list[Any]:
            place = values[0]
            columns = [
                apply(v, at, [v.load(v.offset(place, (window * r + s) * lanes)) for r in range(window)])
                for s in range(window)
            ]
            for i in range(step):
                for j, value in enumerate(apply(v, at, [column[i] for column in columns])):
                    v.store(v.add(value, shift), v.offset(place, (step * i + j) * lanes))
            return [v.offset(place, tile_pitch)]

        v.loop(tiles, [v.pointer(sums)], pixels)
        run = max(lanes, step)  # pixels of a row, in as many or more vectors with lanes = channels
        are_apart = builder.sub(col_step, index(1))
        neighbours = builder.and_(
            builder.icmp_signed("==", col_step, index(1)), builder.icmp_signed(">=", channels, index(lanes))
        )  # fmt: skip
        counts = [builder.icmp_signed("<", index(o), channels) for o in range(lanes)]

        def store_run(values: list[Any]) -> list[Any]:
            place, to, left = values
            whole = builder.and_(neighbours, builder.icmp_signed(">=", left, index(run)))

            def row(values: list[Any]) -> list[Any]:
                source, line = values
                for first in range(0, run, lanes):
                    loaded = []
                    for k in range(first, first + lanes):
                        of_tile = v.offset(source, builder.mul(tile_pitch, index(k // step)))
                        loaded.append(v.load(v.offset(of_tile, k % step * lanes)))
                    turned = v.transposed(loaded)
                    mask = v.first(builder.sub(left, index(first)))

                    def stored(turned: list[Any] = turned, first: int = first) -> list[Any]:
                        for o, value in enumerate(turned):
                            v.store(value, v.offset(line, builder.add(builder.mul(plane, index(o)), index(first))))
                        return []

                    def cut_off(turned: list[Any] = turned, first: int = first) -> list[Any]:
                        places = [
                            v.offset(line, builder.add(builder.mul(plane, index(o)), index(first)))
                            for o in range(lanes)
                        ]
                        v.store_corner(turned, places, builder.sub(left, index(first)), channels)
                        return []

                    def apart(turned: list[Any] = turned, first: int = first, mask: Any = mask) -> list[Any]:
                        masks = v.every_second(index(0), builder.sub(left, index(first)))
                        at = v.offset(line, builder.mul(col_step, index(first)))
                        places = [v.offset(at, builder.mul(plane, index(o))) for o in range(lanes)]

                        def second() -> list[Any]:
                            for value, place, here in zip(turned, places, counts, strict=True):
                                v.store_second(value, place, tuple(v.only_if(here, each) for each in masks))
                            return []

                        def spaced() -> list[Any]:
                            for value, place, here in zip(turned, places, counts, strict=True):
                                v.store_spaced(value, place, col_step, v.only_if(here, mask))
                            return []

                        return v.either(builder.sub(col_step, index(2)), spaced, second)

                    def some(cut_off: Any = cut_off, apart: Any = apart) -> list[Any]:
                        return v.either(are_apart, apart, cut_off)

                    v.either(builder.zext(whole, left.type), stored, some)
                return [v.offset(source, step * lanes), v.offset(line, row_pitch)]

            lines = builder.select(builder.icmp_signed("<", rows, index(step)), rows, index(step))
            v.loop(lines, [place, to], row)
            behind = v.offset(place, builder.mul(tile_pitch, index(run // step)))
            following = v.offset(to, builder.mul(col_step, index(run)))
            return [behind, following, builder.sub(left, index(run))]

        runs = builder.sdiv(builder.add(tiles, index(run // step - 1)), index(run // step))
        v.loop(runs, [v.pointer(sums), v.pointer(target), cols], store_run)

    return body
