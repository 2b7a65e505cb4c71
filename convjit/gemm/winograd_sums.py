"""Products of transformed inputs with transformed weights, and the transform of their sums into results, AT * M * A.

Knows register tiles and rows of results, which may lie apart; does not know images, panels or phases.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
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


def results(dtype: DType, lanes: int, tile: Tile, begin_outside: bool) -> emitting.Body:
    """y[o][i][m*tile + j] = bias[o] + sum over r, s of AT[i][r] * AT[j][s] * M[tile][window*r + s], tiles in a row.

    Here m is `tile.outputs`. `target` is the address of the first tile's first pixel in the first channel; planes lie
    `plane` apart, rows `row_pitch`, columns `col_step`. Pixels `i < rows` and `j < cols` from there on are written, and
    where they `begin_outside`, those alone with `first_row <= i` and `first_col <= j`, if columns are no neighbours;
    `channels` says how many lanes count. `bias` may be address 0. The sums are overwritten, and may be read up to a
    vector of pixels behind the last tile.
    """

    def body(builder: Any, arguments: Any) -> None:
        out = _Results(Vectors(builder, dtype, lanes), tile, *arguments)
        if not begin_outside:  # which takes a sixth longer
            out.first_row = out.first_col = index(0)
        out.transform()
        out.store()

    return body


@dataclass
class _Results:
    """The arguments of `results`, and its two steps."""

    v: Vectors
    tile: Tile
    sums: Any
    tile_pitch: Any
    tiles: Any
    bias: Any
    target: Any
    plane: Any
    row_pitch: Any
    col_step: Any
    first_row: Any
    rows: Any
    first_col: Any
    cols: Any
    channels: Any

    def __post_init__(self) -> None:
        builder, each = self.v.builder, range(self.v.lanes)
        self.exist = [builder.icmp_signed("<", index(o), self.channels) for o in each]
        self.planes = [builder.mul(self.plane, index(o)) for o in each]

    def transform(self) -> None:
        """The pixels of each tile in place of its sums, lanes = output channels."""
        v, window, step, lanes = self.v, self.tile.window, self.tile.outputs, self.v.lanes
        at = matrices(self.tile)[0]
        shift = v.either(
            self.bias, lambda: [v.load_masked(v.pointer(self.bias), v.first(self.channels))], lambda: [v.zero]
        )[0]

        def pixels(values: list[Any]) -> list[Any]:
            place = values[0]
            columns = [
                apply(v, at, [v.load(v.offset(place, (window * r + s) * lanes)) for r in range(window)])
                for s in range(window)
            ]
            for i in range(step):
                for j, value in enumerate(apply(v, at, [column[i] for column in columns])):
                    v.store(v.add(value, shift), v.offset(place, (step * i + j) * lanes))
            return [v.offset(place, self.tile_pitch)]

        v.loop(self.tiles, [v.pointer(self.sums)], pixels)

    def store(self) -> None:
        """Pixels of a row, in as many or more vectors with lanes = channels, transposed and put where they belong."""
        v, builder, step = self.v, self.v.builder, self.tile.outputs
        run = max(v.lanes, step)
        of_run = run // step  # tiles
        are_neighbours = builder.and_(
            builder.icmp_signed("==", self.col_step, index(1)),
            builder.icmp_signed(">=", self.channels, index(v.lanes)),
        )
        top = v.greatest(self.first_row, index(0))
        lines = builder.sub(v.least(self.rows, index(step)), top)
        first = v.offset(v.pointer(self.sums), builder.mul(top, index(step * v.lanes)))
        line_of_first = v.offset(v.pointer(self.target), builder.mul(top, self.row_pitch))

        def store_run(values: list[Any]) -> list[Any]:
            place, to, skipped, left = values
            is_whole = builder.and_(are_neighbours, builder.icmp_signed(">=", left, index(run)))

            def store_row(values: list[Any]) -> list[Any]:
                source, line = values
                for first in range(0, run, v.lanes):
                    self._store_vectors(source, line, first, skipped, left, builder.zext(is_whole, left.type))
                return [v.offset(source, step * v.lanes), v.offset(line, self.row_pitch)]

            v.loop(lines, [place, to], store_row)
            behind = v.offset(place, builder.mul(self.tile_pitch, index(of_run)))
            return [
                behind, v.offset(to, builder.mul(self.col_step, index(run))), builder.sub(skipped, index(run)),
                builder.sub(left, index(run)),
            ]  # fmt: skip

        runs = builder.sdiv(builder.add(self.tiles, index(of_run - 1)), index(of_run))
        v.loop(runs, [first, line_of_first, self.first_col, self.cols], store_run)

    def _store_vectors(self, source: Any, line: Any, first: int, skipped: Any, left: Any, is_whole: Any) -> None:
        """A vector of pixels of a row, from pixel `first` of a run on, for each channel; `skipped <= j < left` exist in
        the run."""
        v, builder, step = self.v, self.v.builder, self.tile.outputs
        loaded = []
        for k in range(first, first + v.lanes):
            of_tile = v.offset(source, builder.mul(self.tile_pitch, index(k // step)))
            loaded.append(v.load(v.offset(of_tile, k % step * v.lanes)))
        turned = v.transposed(loaded)
        skipped, left = builder.sub(skipped, index(first)), builder.sub(left, index(first))

        def whole() -> list[Any]:
            for value, place in zip(turned, self._places(v.offset(line, index(first))), strict=True):
                v.store(value, place)
            return []

        def cut_off() -> list[Any]:
            v.store_corner(turned, self._places(v.offset(line, index(first))), left, self.channels)
            return []

        def apart() -> list[Any]:
            at = v.offset(line, builder.mul(self.col_step, index(first)))
            return self._store_apart(turned, self._places(at), skipped, left)

        def some() -> list[Any]:
            return v.either(builder.sub(self.col_step, index(1)), apart, cut_off)

        v.either(is_whole, whole, some)

    def _store_apart(self, turned: list[Any], places: list[Any], skipped: Any, left: Any) -> list[Any]:
        """Pixels that are no neighbours: every second one, or farther apart."""
        v = self.v

        def second() -> list[Any]:
            masks = v.every_second(skipped, left)
            for value, place, here in zip(turned, places, self.exist, strict=True):
                v.store_second(value, place, tuple(v.only_if(here, each) for each in masks))
            return []

        def spaced() -> list[Any]:
            mask = v.between(skipped, left)
            for value, place, here in zip(turned, places, self.exist, strict=True):
                v.store_spaced(value, place, self.col_step, v.only_if(here, mask))
            return []

        return v.either(v.builder.sub(self.col_step, index(2)), spaced, second)

    def _places(self, at: Any) -> list[Any]:
        """Of a pixel, in the plane of each channel."""
        return [self.v.offset(at, plane) for plane in self.planes]
