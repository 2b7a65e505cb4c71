"""The micro-kernels of Winograd's convolution F(4x4, 3x3): transforms of images, weights and results, and a product.

Knows vectors, rows of pixels and the layouts below; does not know images, blocks of tiles or threads. A tile is 4x4
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
from ..simd.vectors import Vectors, index
from ..typing import Array, DType
from .cook_toom import F4X3, apply, matrices

AT, G, BT = matrices(F4X3)
STEP, TAPS, WINDOW = 4, 3, 6
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
    found = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions(dtype), row.features)
    table = [dtype.itemsize, row.vector_bytes // dtype.itemsize, _VECTORS, _most_rows(row), *found.values()]
    return passed(tuple(table))


def functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype, by name: the number of arguments, and the body."""
    row = isa.here()
    lanes = row.vector_bytes // dtype.itemsize
    found: dict[str, tuple[int, emitting.Body]] = {
        "mix_rows": (9, _mix_rows(dtype, lanes)),
        "spread": (5, _spread(dtype, lanes)),
        "turn": (5, _turn(dtype, lanes)),
        "weights": (6, _weights(dtype, lanes)),
        "results": (10, _results(dtype, lanes)),
    }
    for vectors in range(1, _VECTORS + 1):
        for rows in range(1, _most_rows(row) + 1):
            found[f"tile_{rows}_{vectors}"] = (7, _tile(dtype, lanes, rows, vectors))
    return found


def _most_rows(row: isa.InstructionSet) -> int:
    """Tiles whose chains fill the registers, beside the panel's vectors and one element in all lanes."""
    return (row.registers - _VECTORS - 1) // _VECTORS


# --- inputs ---------------------------------------------------------------------------------------------------------


def _mix_rows(dtype: DType, lanes: int) -> emitting.Body:
    """Transform down the columns: target[r*pitch + j] = sum over i of BT[r][i] * image[i*row_pitch + j].

    Six rows of an image of which `first_row <= i < stop_row` exist, whole vectors from column `col` on, `width` columns
    of which exist; the others are zero. `image` is the address of column `col` in row 0, whether that exists or not.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        image, row_pitch, first_row, stop_row, col, width, target, pitch, vectors = arguments
        exists = [
            builder.and_(
                builder.icmp_signed("<=", first_row, index(i)), builder.icmp_signed("<", index(i), stop_row)
            )
            for i in range(WINDOW)
        ]  # fmt: skip
        all_rows = builder.and_(exists[0], exists[-1])

        def mix(values: list[Any]) -> list[Any]:
            source, to, at = values
            places = [source]
            for _ in range(1, WINDOW):
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
            rows = v.either(whole, lambda: [v.load(place) for place in places], masked)
            for r, mixed in enumerate(apply(v, BT, rows)):
                v.store(mixed, v.offset(to, builder.mul(pitch, index(r))))
            return [v.offset(source, lanes), v.offset(to, lanes), builder.add(at, index(lanes))]

        v.loop(vectors, [v.pointer(image), v.pointer(target), col], mix)

    return body


def _spread(dtype: DType, lanes: int) -> emitting.Body:
    """Transform along the rows: V[6*r + s][tile] = sum over i of BT[s][i] * mixed[r*pitch + 4*tile + i].

    `mixed` is what `_mix_rows` left, readable up to a vector behind the last tile's vector; products lie
    `product_pitch` apart.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        mixed, pitch, target, product_pitch, tiles = arguments

        def some_tiles(values: list[Any]) -> list[Any]:
            source, to, left = values
            cut = builder.zext(builder.icmp_signed("<", left, index(lanes)), left.type)
            mask = v.first(left)

            def row(values: list[Any]) -> list[Any]:
                place, at = values
                pixels = [v.load(v.offset(place, j * lanes)) for j in range(STEP + 1)]
                spread = apply(v, BT, _windows(v, pixels))
                places = [at]
                for _ in range(1, WINDOW):
                    places.append(v.offset(places[-1], product_pitch))

                def cut_off() -> list[Any]:
                    for value, there in zip(spread, places, strict=True):
                        v.store_masked(value, there, mask)
                    return []

                def whole() -> list[Any]:
                    for value, there in zip(spread, places, strict=True):
                        v.store(value, there)
                    return []

                v.either(cut, cut_off, whole)
                return [v.offset(place, pitch), v.offset(places[-1], product_pitch)]

            v.loop(index(WINDOW), [source, to], row)
            return [v.offset(source, STEP * lanes), v.offset(to, lanes), builder.sub(left, index(lanes))]

        groups = builder.sdiv(builder.add(tiles, index(lanes - 1)), index(lanes))
        v.loop(groups, [v.pointer(mixed), v.pointer(target), tiles], some_tiles)

    return body


def _windows(v: Vectors, pixels: list[Any]) -> list[Any]:
    """Pixels 0 to 5 of each of `lanes` tiles that begin every fourth pixel, from 4 vectors of pixels and one more."""
    *pixels, behind = pixels
    even, odd = range(0, 2 * v.lanes, 2), range(1, 2 * v.lanes, 2)
    halves = [[v.shuffle(pixels[i], pixels[i + 1], half) for i in (0, 2)] for half in (even, odd)]
    found = [v.shuffle(halves[i % 2][0], halves[i % 2][1], even if i < 2 else odd) for i in range(STEP)]
    following = [*range(1, v.lanes)]
    return found + [v.shuffle(found[i], behind, [*following, v.lanes + i]) for i in range(WINDOW - STEP)]


# --- weights --------------------------------------------------------------------------------------------------------


def _turn(dtype: DType, lanes: int) -> emitting.Body:
    """Transpose: target[column*lanes + row] = source[row*row_pitch + column]; rows from `rows` on are zero.

    Whole vectors of columns are written.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, row_pitch, rows, columns, target = arguments
        starts = [builder.mul(row_pitch, index(r)) for r in range(lanes)]
        all_rows = builder.icmp_signed(">=", rows, index(lanes))

        def block(values: list[Any]) -> list[Any]:
            place, to, left = values
            places = [v.offset(place, start) for start in starts]

            def masked() -> list[Any]:
                mask = v.first(left)
                exists = [builder.icmp_signed("<", index(r), rows) for r in range(lanes)]
                return [v.load_masked(at, v.only_if(here, mask)) for at, here in zip(places, exists, strict=True)]

            whole = builder.and_(all_rows, builder.icmp_signed(">=", left, index(lanes)))
            loaded = v.either(builder.zext(whole, left.type), lambda: [v.load(at) for at in places], masked)
            for i, column in enumerate(v.transposed(loaded)):
                v.store(column, v.offset(to, i * lanes))
            return [v.offset(place, lanes), v.offset(to, lanes * lanes), builder.sub(left, index(lanes))]

        blocks = builder.sdiv(builder.add(columns, index(lanes - 1)), index(lanes))
        v.loop(blocks, [v.pointer(source), v.pointer(target), columns], block)

    return body


def _weights(dtype: DType, lanes: int) -> emitting.Body:
    """U[6*r + s][c] = sum over i, j of G[r][i] * G[s][j] * tap[3*i + j] of channel c, lanes = output channels.

    Taps of a channel are vectors `tap_step` elements apart, which may be negative; those of the next channel follow
    after nine vectors. Products lie `product_pitch` apart, channels `pitch`.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        taps, tap_step, channels, target, product_pitch, pitch = arguments

        def channel(values: list[Any]) -> list[Any]:
            source, to = values
            loaded, place = [], source
            for _ in range(TAPS * TAPS):
                loaded.append(v.load(place))
                place = v.offset(place, tap_step)
            mixed = [apply(v, G, loaded[s::TAPS]) for s in range(TAPS)]
            place = to
            for r in range(WINDOW):
                for value in apply(v, G, [mixed[s][r] for s in range(TAPS)]):
                    v.store(value, place)
                    place = v.offset(place, product_pitch)
            return [v.offset(source, TAPS * TAPS * lanes), v.offset(to, pitch)]

        v.loop(channels, [v.pointer(taps), v.pointer(target)], channel)

    return body


# --- products -------------------------------------------------------------------------------------------------------


def _tile(dtype: DType, lanes: int, rows: int, vectors: int) -> emitting.Body:
    """M[tile][vector][p] = sum over c of V[p][c][tile] * U[p][c][vector], c in order, for one p and some tiles.

    One fma a term. With `extend`, the sum is added to what is there.
    """

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
        places, tile = [], v.pointer(sums)
        for _ in range(rows):
            places += [v.offset(tile, j * PRODUCTS * lanes) for j in range(vectors)]
            tile = v.offset(tile, tile_pitch)

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


# --- results --------------------------------------------------------------------------------------------------------


def _results(dtype: DType, lanes: int) -> emitting.Body:
    """y[o][i][4*tile + j] = bias[o] + sum over r, s of AT[i][r] * AT[j][s] * M[tile][6*r + s], for tiles in a row.

    `target` is the address of the first tile's first pixel in the first channel; planes lie `plane` apart, rows
    `row_pitch`. `rows` and `cols` say how many pixels are written from there on, `channels` how many lanes count.
    `bias` may be address 0. The sums are overwritten, and may be read up to a vector of pixels behind the last tile.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        sums, tile_pitch, tiles, bias, target, plane, row_pitch, rows, cols, channels = arguments
        shift = v.either(bias, lambda: [v.load_masked(v.pointer(bias), v.first(channels))], lambda: [v.zero])[0]

        def pixels(values: list[Any]) -> list[Any]:
            place = values[0]
            columns = [
                apply(v, AT, [v.load(v.offset(place, (WINDOW * r + s) * lanes)) for r in range(WINDOW)])
                for s in range(WINDOW)
            ]
            for i in range(STEP):
                for j, value in enumerate(apply(v, AT, [column[i] for column in columns])):
                    v.store(v.add(value, shift), v.offset(place, (STEP * i + j) * lanes))
            return [v.offset(place, tile_pitch)]

        v.loop(tiles, [v.pointer(sums)], pixels)
        run = max(lanes, STEP)  # pixels of a row, in as many or more vectors with lanes = channels
        all_channels = builder.icmp_signed(">=", channels, index(lanes))

        def store_run(values: list[Any]) -> list[Any]:
            place, to, left = values
            whole = builder.and_(all_channels, builder.icmp_signed(">=", left, index(run)))

            def row(values: list[Any]) -> list[Any]:
                source, line = values
                for first in range(0, run, lanes):
                    loaded = []
                    for k in range(first, first + lanes):
                        of_tile = v.offset(source, builder.mul(tile_pitch, index(k // STEP)))
                        loaded.append(v.load(v.offset(of_tile, k % STEP * lanes)))
                    turned = v.transposed(loaded)
                    mask = v.first(builder.sub(left, index(first)))

                    def stored(turned: list[Any] = turned, first: int = first) -> list[Any]:
                        for o, value in enumerate(turned):
                            v.store(value, v.offset(line, builder.add(builder.mul(plane, index(o)), index(first))))
                        return []

                    def cut_off(turned: list[Any] = turned, first: int = first, mask: Any = mask) -> list[Any]:
                        for o, value in enumerate(turned):
                            exists = v.only_if(builder.icmp_signed("<", index(o), channels), mask)
                            at = v.offset(line, builder.add(builder.mul(plane, index(o)), index(first)))
                            v.store_masked(value, at, exists)
                        return []

                    v.either(builder.zext(whole, left.type), stored, cut_off)
                return [v.offset(source, STEP * lanes), v.offset(line, row_pitch)]

            lines = builder.select(builder.icmp_signed("<", rows, index(STEP)), rows, index(STEP))
            v.loop(lines, [place, to], row)
            behind = v.offset(place, builder.mul(tile_pitch, index(run // STEP)))
            return [behind, v.offset(to, run), builder.sub(left, index(run))]

        runs = builder.sdiv(builder.add(tiles, index(run // STEP - 1)), index(run // STEP))
        v.loop(runs, [v.pointer(sums), v.pointer(target), cols], store_run)

    return body


_call_5, _call_6, _call_7, _call_9, _call_10 = (emitting.caller(count) for count in (5, 6, 7, 9, 10))


@kernel
def mix_rows(
    kernels: Any, image: Any, row_pitch: Any, first_row: Any, stop_row: Any, col: Any, width: Any, target: Any,
    pitch: Any, vectors: Any,
) -> None:  # fmt: skip
    """See `_mix_rows`."""
    _call_9(kernels[MIX_ROWS], image, row_pitch, first_row, stop_row, col, width, target, pitch, vectors)


@kernel
def spread(kernels: Any, mixed: Any, pitch: Any, target: Any, product_pitch: Any, tiles: Any) -> None:
    """See `_spread`."""
    _call_5(kernels[SPREAD], mixed, pitch, target, product_pitch, tiles)


@kernel
def turn(kernels: Any, source: Any, row_pitch: Any, rows: Any, columns: Any, target: Any) -> None:
    """See `_turn`."""
    _call_5(kernels[TURN], source, row_pitch, rows, columns, target)


@kernel
def weights(kernels: Any, taps: Any, tap_step: Any, channels: Any, target: Any, product_pitch: Any, pitch: Any) -> None:
    """See `_weights`."""
    _call_6(kernels[WEIGHTS], taps, tap_step, channels, target, product_pitch, pitch)


@kernel
def multiply(
    kernels: Any, vectors: Any, data: Any, data_pitch: Any, tiles: Any, weights: Any, channels: Any, sums: Any,
    tile_pitch: Any, extend: Any,
) -> None:  # fmt: skip
    """Cover tiles x vectors with register tiles of nearly equal height, see `_tile`."""
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
    rows: Any, cols: Any, channels: Any,
) -> None:  # fmt: skip
    """See `_results`."""
    _call_10(kernels[RESULTS], sums, tile_pitch, tiles, bias, target, plane, row_pitch, rows, cols, channels)
