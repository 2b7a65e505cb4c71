"""The micro-kernels of direct convolution: a register tile of pixels x output channels, and transposition.

Knows pixels, lanes, terms and addresses; does not know what is convolved. A tile is rows x lanes chains held in
registers, where rows are grid points and lanes are channels of the result: for each term it loads the weights of all
its channels and, for each row, the one pixel that it meets into all lanes. Pixels are read where they lie, so that
nothing is packed but the weights.
Source: E. Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures" (2018);
J. Zhang, F. Franchetti, T. Low, "High Performance Zero-Memory Overhead Direct Convolutions" (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..runtime.emitting import Passes
from ..runtime.memory import CACHE_LINE
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType
from . import micro
from .tiles import ENOUGH_CHAINS

# What compiled code is told of a dtype's kernels, an int64 array: numbers, then addresses.
ELEMENT = 0  # bytes an element
LANES = 1  # lanes a vector
WIDEST = 2  # vectors a panel
PANEL = 3
LAND = 4
PACK = 5
FILL = 6
LAY = 7
ADD_ROWS = 8

# Terms of a round of the loop in the hottest tiles: what is counted once a round is shared by more multiply-adds,
# and a cache line is asked for once.
_TERMS_A_ROUND = 4

# Kernels that move elements, or add them up.
_MOVING = ("land", "pack", "lay", "add_rows")

# A pointer for each row, and four that a loop needs: more rows would not leave the sixteen general registers.
_MOST_ROWS = 8


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    found = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions(dtype), row.features, passes(row))
    addresses = found | {"fill": int(micro.fills(dtype)[micro.FILL])}
    entries = (addresses[name] for name in ("panel", "land", "pack", "fill", "lay", "add_rows"))
    return passed((dtype.itemsize, isa.lanes(dtype), row.channel_vectors, *entries))


def functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype, by name: the number of arguments, and the body."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    found = {
        f"tile_{rows}_{vectors}": (9, _tile(dtype, lanes, rows, vectors, row))
        for vectors in range(1, row.channel_vectors + 1)
        for rows in tile_rows(row, vectors)
    }
    found |= {
        f"tile_{rows}_{vectors}_of_halves": (9, _tile(dtype, lanes, rows, vectors, row, of_halves=True))
        for vectors in range(1, row.channel_vectors + 1)
        for rows in rows_of_halves(row, vectors)
    }
    found["panel"] = (13, _panel(dtype, lanes, row))
    return found | {
        "land": (7, _transpose(dtype, lanes, is_result=True)),
        "pack": (6, _transpose(dtype, lanes, is_result=False)),
        "lay": (7, _copy_rows(dtype, lanes)),
        "add_rows": (5, _add_rows(dtype, lanes, row)),
    }


def passes(row: isa.InstructionSet) -> dict[str, Passes]:
    """Of the tiles in which large products spend their time, and of what moves elements or adds them up."""
    hottest = (f"tile_{most_rows(row, vectors)}_{vectors}" for vectors in _usual_widths(row))
    return dict.fromkeys(hottest, Passes.ALL) | dict.fromkeys(_MOVING, Passes.NONE)


def _usual_widths(row: isa.InstructionSet) -> tuple[int, ...]:
    """Vectors of the panels that many channels are cut into, which are of nearly equal width."""
    return row.channel_vectors - 1, row.channel_vectors


def most_rows(row: isa.InstructionSet, vectors: int) -> int:
    """Rows of the tile of so many vectors: chains, the vectors of a term and a pixel fill the registers."""
    return min(_MOST_ROWS, (row.registers - 1) // vectors - 1)


def tile_rows(row: isa.InstructionSet, vectors: int) -> list[int]:
    """Heights that tiles are emitted for, the tallest first; see `cover_rows`."""
    most = most_rows(row, vectors)
    small = {size for size in (1, 2, 4) if size < most}
    return sorted({most, *small, *([most - 1] if vectors in _usual_widths(row) else [])}, reverse=True)


def rows_of_halves(row: isa.InstructionSet, vectors: int) -> list[int]:
    """Heights of tiles that take as many rows from each half of the pixels, the tallest first: none if that is useless.

    Where chains are too few and registers are left for twice as many. In float32 with AVX-512, 6-16 (64 of 14x14, 5x5),
    16-16 and the input gradient of 16-32 (32 of 8x8, 3x3) took 6 to 11 % less so, their weight gradients 9 to 16 %.
    """
    most = most_rows(row, vectors)
    fits = 2 * most * vectors + vectors + 1 <= row.registers
    return tile_rows(row, vectors) if most * vectors < ENOUGH_CHAINS and fits else []


def cover_rows(count: int, heights: list[int]) -> list[int]:
    """How many tiles of each height cover so many rows.

    Tiles of the usual widths are even, of the two tallest heights, if that takes no more of them: beside 12 of 4 rows
    one of a single row waits for each multiply-add, 49 rows (7x7) are 10 of 4 and 3 of 3.
    """
    tallest, second = heights[:2]
    even = count - -(-count // tallest) * second
    times = [even if tallest - second == 1 and even >= 0 else count // tallest]
    left = count - times[0] * tallest
    for height in heights[1:]:
        times.append(left // height)
        left %= height
    return times


def _tile(
    dtype: DType, lanes: int, rows: int, vectors: int, row: isa.InstructionSet, *, of_halves: bool = False
) -> emitting.Body:  # fmt: skip
    """A register tile.

    totals[r*pitch + j] = sum over t of source[positions[r] + offsets[t]] * weights[t, j], r < rows, j in all vectors,
    t in order, one fma a term; with `extend`, added to what the total was. Tiles of the usual widths ask for what will
    be read later: for each term a vector on from the last one at `ahead`, and the pixels a cache line behind the last
    row's. Each channel has a plane of its own, so that no processor foresees them: of 1x1 kernels, which meet a pixel
    once, 1024-256 (16 of 14x14) took 15 % less on one thread and 22 % less on two (AVX-512), others the same.

    A tile `of_halves` is given `half` in place of `ahead`, and takes rows `half + r`, too: all as far from rows r as
    the first one, so that they need a distance in a register, and no pointers.
    """
    asks = vectors in _usual_widths(row) and not of_halves
    together = _TERMS_A_ROUND if asks and rows == most_rows(row, vectors) else 1

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, positions, offsets, terms, weights, totals, pitch, extend, last = arguments
        ahead, halves = (weights, [last]) if of_halves else (last, [])
        begin, where = v.pointer(source), v.integers(positions)
        distances = [builder.sub(v.element(v.offset(where, half)), v.element(where)) for half in halves]
        # Pointers of which LLVM knows nothing: else it derives one from another, anew for each term.
        pixels = [v.opaque(v.offset(begin, v.element(v.offset(where, r)))) for r in range(rows)]

        def add_terms(count: int, values: list[Any]) -> list[Any]:
            offset, met, soon, *chains = values
            for t in range(count):
                if asks and t * lanes * dtype.itemsize % CACHE_LINE == 0:
                    v.prefetch_ahead(v.offset(soon, t * lanes))
                at = v.element(v.offset(offset, t))
                if asks:
                    v.prefetch_ahead(v.offset(pixels[-1], builder.add(at, index(CACHE_LINE // dtype.itemsize))))
                of_term = [v.load(v.offset(met, (t * vectors + j) * lanes)) for j in range(vectors)]
                places = [at, *[builder.add(at, distance) for distance in distances]]
                for r, met_pixel in enumerate([v.offset(pixel, place) for place in places for pixel in pixels]):
                    value = v.splat(met_pixel)
                    for j in range(vectors):
                        chains[r * vectors + j] = v.fma(value, of_term[j], chains[r * vectors + j])
            return [
                v.offset(offset, count),
                v.offset(met, count * vectors * lanes),
                v.offset(soon, count * lanes),
                *chains,
            ]

        chains = [v.zero] * (rows * vectors * (1 + len(distances)))
        carried = [v.integers(offsets), v.pointer(weights), v.pointer(ahead), *chains]
        if together > 1:
            carried = v.loop(builder.sdiv(terms, index(together)), carried, lambda values: add_terms(together, values))
            terms = builder.srem(terms, index(together))
        chains = v.loop(terms, carried, lambda values: add_terms(1, values))[3:]
        place = v.pointer(totals)
        begins = [place, *[v.offset(place, builder.mul(pitch, half)) for half in halves]]
        rows_of = [v.offset(begin, builder.mul(pitch, index(r))) for begin in begins for r in range(rows)]
        places = [v.offset(row, j * lanes) for row in rows_of for j in range(vectors)]
        sums = v.either(
            extend, lambda: [v.add(v.load(at), chain) for at, chain in zip(places, chains, strict=True)], lambda: chains
        )
        for total, at in zip(sums, places, strict=True):
            v.store(total, at)

    return body


def _panel(dtype: DType, lanes: int, row: isa.InstructionSet) -> emitting.Body:
    """Cover any number of pixels with register tiles, for a panel of so many vectors.

    Of few vectors by tiles of both halves of the pixels, where these lie alike: as those of an even number of rows do.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, positions, pixels, offsets, terms, weights, vectors, totals, pitch, extend, *later = arguments
        ahead, apart, last = later
        size, half = index(dtype.itemsize), builder.sdiv(pixels, index(2))

        def run_tile(width: int, height: int, values: list[Any]) -> list[Any]:
            where, to, soon = values
            v.call(f"tile_{height}_{width}", source, where, offsets, terms, weights, to, pitch, extend, soon)
            # When all runs are asked for, tiles ask for what they read themselves, which costs nothing: asking again
            # for what the near cache has lost took 9 % of 512-2048 (7x7, 1x1).
            asked = builder.or_(builder.icmp_signed("==", soon, last), builder.icmp_signed("==", soon, weights))
            return [*below(height, where, to), builder.select(asked, weights, builder.add(soon, apart))]

        def run_halves(width: int, height: int, values: list[Any]) -> list[Any]:
            where, to = values
            v.call(f"tile_{height}_{width}_of_halves", source, where, offsets, terms, weights, to, pitch, extend, half)
            return below(height, where, to)

        def below(height: int, where: Any, to: Any) -> list[Any]:
            down = builder.mul(builder.mul(pitch, size), index(height))
            return [builder.add(where, index(8 * height)), builder.add(to, down)]

        def run_panel(width: int) -> list[Any]:
            heights, halves = tile_rows(row, width), rows_of_halves(row, width)

            def run_rows() -> list[Any]:
                return _cover(v, pixels, heights, [positions, totals, ahead], partial(run_tile, width))

            def run_both() -> list[Any]:
                return _cover(v, half, halves, [positions, totals], partial(run_halves, width))

            return v.either(_are_apart(v, positions, pixels, half), run_rows, run_both) if halves else run_rows()

        for width in range(1, row.channel_vectors + 1):
            v.either(v.flag("==", vectors, index(width)), partial(run_panel, width), list)

    return body


def _cover(
    v: Vectors, count: Any, heights: list[int], at: list[Any], run: Callable[[int, list[Any]], list[Any]]
) -> list[Any]:  # fmt: skip
    """Run so many tiles of each height as `cover_rows` has it, one behind another from what `at` says."""
    builder, (tallest, second) = v.builder, heights[:2]
    times, left = builder.sdiv(count, index(tallest)), count
    if tallest - second == 1:
        tiles = builder.sdiv(builder.add(count, index(second)), index(tallest))
        even = builder.sub(count, builder.mul(tiles, index(second)))
        times = builder.select(builder.icmp_signed(">=", even, index(0)), even, times)
    for height in heights:
        times = times if height == tallest else builder.sdiv(left, index(height))
        at = v.loop(times, at, partial(run, height))
        left = builder.sub(left, builder.mul(times, index(height)))
    return []


def _are_apart(v: Vectors, positions: Any, pixels: Any, half: Any) -> Any:
    """Not 0 where some pixel of the second half is not as far from its fellow of the first as the first one."""
    builder, where = v.builder, v.integers(positions)

    def distance(i: Any) -> Any:
        return builder.sub(v.element(v.offset(where, builder.add(half, i))), v.element(v.offset(where, i)))

    def look(i: Any, found: list[Any]) -> list[Any]:
        return [builder.or_(found[0], builder.xor(distance(i), distance(index(0))))]

    odd = builder.and_(pixels, index(1))
    return v.counted_loop(builder.select(v.is_set(odd), index(0), half), [odd], look)[0]


def _transpose(dtype: DType, lanes: int, *, is_result: bool) -> emitting.Body:
    """Transpose a matrix in squares of as many rows and columns as a vector has lanes.

    target[c*target_pitch + r] = source[r*source_pitch + c], r < rows, c < columns. To results bias[c] is added, if
    `bias` is not address 0. Of weights, whole vectors are written, with zeros for rows that are not there.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, source_pitch, rows, columns, target, target_pitch, *rest = arguments

        def transpose(bias: Any) -> list[Any]:
            # Square by square along a channel, whose elements lie beside one another where the array is large.
            channels, along = (columns, rows) if is_result else (rows, columns)

            def move_channels(first: Any, _: list[Any]) -> list[Any]:
                def move_along(second: Any, _: list[Any]) -> list[Any]:
                    r, c = (second, first) if is_result else (first, second)
                    return move(builder.mul(r, index(lanes)), builder.mul(c, index(lanes)), bias)

                return v.counted_loop(squares(along), [], move_along)

            return v.counted_loop(squares(channels), [], move_channels)

        def squares(count: Any) -> Any:
            return builder.sdiv(builder.add(count, index(lanes - 1)), index(lanes))

        def move(r: Any, c: Any, bias: Any) -> list[Any]:
            rows_left, columns_left = builder.sub(rows, r), builder.sub(columns, c)
            in_columns = v.first(columns_left)
            from_row = _pointers(
                v, v.offset(v.offset(v.pointer(source), builder.mul(r, source_pitch)), c), source_pitch
            )
            to_row = _pointers(v, v.offset(v.offset(v.pointer(target), builder.mul(c, target_pitch)), r), target_pitch)
            shift = None if bias is None else v.load_masked(v.offset(v.pointer(bias), c), in_columns)

            def turned(values: list[Any]) -> list[Any]:
                return v.transposed(values if shift is None else [v.add(value, shift) for value in values])

            def whole() -> list[Any]:
                for value, at in zip(turned([v.load(at) for at in from_row]), to_row, strict=True):
                    v.store(value, at)
                return []

            def cut() -> list[Any]:
                masks = [v.only_if(builder.icmp_signed(">", rows_left, index(i)), in_columns) for i in range(lanes)]
                found = turned([v.load_masked(at, mask) for at, mask in zip(from_row, masks, strict=True)])
                if is_result:
                    v.store_corner(found, to_row, rows_left, columns_left)
                    return []
                for i, (value, at) in enumerate(zip(found, to_row, strict=True)):
                    with builder.if_then(builder.icmp_signed(">", columns_left, index(i))):
                        v.store(value, at)  # whole, behind which nothing stands yet
                return []

            least = v.least(rows_left, columns_left)
            v.either(v.flag(">=", least, index(lanes)), whole, cut)
            return []

        if is_result:
            v.either(rest[0], lambda: transpose(rest[0]), lambda: transpose(None))
        else:
            transpose(None)

    return body


def _copy_rows(dtype: DType, lanes: int) -> emitting.Body:
    """target[r*target_pitch + c] = source[r*source_pitch + c] + bias[c], r < rows, c < columns; `bias` may be 0."""

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, source_pitch, rows, columns, target, target_pitch, bias = arguments
        whole, rest = builder.sdiv(columns, index(lanes)), builder.srem(columns, index(lanes))

        def copy(shift: Any) -> list[Any]:
            def copy_row(values: list[Any]) -> list[Any]:
                begin, to = values

                def copy_vector(values: list[Any]) -> list[Any]:
                    at, place, more = values
                    value = v.load(at)
                    v.store(value if shift is None else v.add(value, v.load(more)), place)
                    return [v.offset(pointer, lanes) for pointer in values]

                at, place, more = v.loop(whole, [begin, to, begin if shift is None else shift], copy_vector)

                def copy_rest() -> list[Any]:
                    mask = v.first(rest)
                    value = v.load_masked(at, mask)
                    value = value if shift is None else v.add(value, v.load_masked(more, mask))
                    v.store_first([value], [place], rest)
                    return []

                v.either(rest, copy_rest, list)
                return [v.offset(begin, source_pitch), v.offset(to, target_pitch)]

            v.loop(rows, [v.pointer(source), v.pointer(target)], copy_row)
            return []

        v.either(bias, lambda: copy(v.pointer(bias)), lambda: copy(None))

    return body


def _add_rows(dtype: DType, lanes: int, row: isa.InstructionSet) -> emitting.Body:
    """target[j] = sum over t of panel[t, j], t < rows in order, j in all vectors; with `extend`, added to what was."""

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        panel, rows, vectors, target, extend = arguments

        def add(width: int) -> list[Any]:
            def add_row(values: list[Any]) -> list[Any]:
                at, *chains = values
                added = [v.add(chain, v.load(v.offset(at, j * lanes))) for j, chain in enumerate(chains)]
                return [v.offset(at, width * lanes), *added]

            chains = v.loop(rows, [v.pointer(panel), *[v.zero] * width], add_row)[1:]
            places = [v.offset(v.pointer(target), j * lanes) for j in range(width)]
            extended = zip(places, chains, strict=True)
            sums = v.either(extend, lambda: [v.add(v.load(at), chain) for at, chain in extended], lambda: chains)
            for total, at in zip(sums, places, strict=True):
                v.store(total, at)
            return []

        for width in range(1, row.channel_vectors + 1):
            v.either(v.flag("==", vectors, index(width)), partial(add, width), list)

    return body


def _pointers(v: Vectors, first: Any, pitch: Any) -> list[Any]:
    """Pointers to as many rows as a vector has lanes."""
    found = [first]
    for _ in range(1, v.lanes):
        found.append(v.offset(found[-1], pitch))
    return found


_call_panel = emitting.caller(13)
_call_land = emitting.caller(7)
_call_pack = emitting.caller(6)
_call_fill = emitting.caller(9)
_call_lay = emitting.caller(7)
_call_add_rows = emitting.caller(5)


@kernel
def add_panel(
    kernels: Any, source: Any, positions: Any, pixels: Any, offsets: Any, terms: Any, weights: Any, vectors: Any,
    totals: Any, pitch: Any, extend: Any, ahead: Any, apart: Any, runs: Any,
) -> None:  # fmt: skip
    """totals[p*pitch + j] (+)= sum over t of source[positions[p] + offsets[t]] * weights[t, j], see `_tile`.

    A panel of so many vectors: weights are rows of them, totals are whole vectors. All but the counts are addresses.
    Meanwhile the processor is asked for what is read after, from beyond the second-level cache: `runs` runs that begin
    `apart` bytes from one another at `ahead`, a tile a run, and in a run a vector a term.
    """
    _call_panel(
        kernels[PANEL], source, positions, pixels, offsets, terms, weights, vectors, totals, pitch, extend, ahead,
        apart, ahead + (runs - 1) * apart,
    )  # fmt: skip


@kernel
def land(
    kernels: Any, totals: Any, vectors: Any, pixels: Any, channels: Any, target: Any, pitch: Any, bias: Any
) -> None:
    """target[c*pitch + p] = totals[p, c] + bias[c] for a panel of so many vectors; `bias` may be 0."""
    _call_land(kernels[LAND], totals, vectors * kernels[LANES], pixels, channels, target, pitch, bias)


@kernel
def lay(
    kernels: Any, totals: Any, vectors: Any, pixels: Any, channels: Any, target: Any, pitch: Any, bias: Any
) -> None:
    """target[p*pitch + c] = totals[p, c] + bias[c], as `land` where channels lie side by side."""
    _call_lay(kernels[LAY], totals, vectors * kernels[LANES], pixels, channels, target, pitch, bias)


@kernel
def turn_panel(kernels: Any, source: Any, pitch: Any, rows: Any, columns: Any, target: Any, target_pitch: Any) -> None:
    """target[c*target_pitch + r] = source[r*pitch + c], bit by bit."""
    _call_land(kernels[LAND], source, pitch, rows, columns, target, target_pitch, 0)


@kernel
def pack_panel(
    kernels: Any, weight: Any, pitch: Any, channels: Any, terms: Any, target: Any, target_pitch: Any
) -> None:
    """target[t*target_pitch + c] = weight[c*pitch + t], whole vectors of c: zero for channels that are not there."""
    _call_pack(kernels[PACK], weight, pitch, channels, terms, target, target_pitch)


@kernel
def add_rows(kernels: Any, panel: Any, rows: Any, vectors: Any, target: Any, extend: Any) -> None:
    """target[j] (+)= sum over t of panel[t, j], for a panel of so many vectors, see `_add_rows`; both are addresses."""
    _call_add_rows(kernels[ADD_ROWS], panel, rows, vectors, target, extend)


@kernel
def copy_panel(
    kernels: Any, source: Any, pitch: Any, channels: Any, rows: Any, target: Any, target_pitch: Any, after: Any
) -> None:
    """target[r*target_pitch + c] = source[r*pitch + c], and so many zeros after them."""
    _call_fill(kernels[FILL], target, target_pitch, source, pitch, rows, 0, channels, after, 1)


@kernel
def clear_panel(kernels: Any, target: Any, rows: Any, columns: Any, pitch: Any) -> None:
    """target[r*pitch + c] = 0"""
    _call_fill(kernels[FILL], target, pitch, target, 0, rows, 0, 0, columns, 1)


@kernel
def spread_panel(
    kernels: Any, source: Any, pitch: Any, rows: Any, columns: Any, target: Any, target_pitch: Any
) -> None:  # fmt: skip
    """target[r*target_pitch + c] = source[r*pitch + c], bit by bit."""
    _call_lay(kernels[LAY], source, pitch, rows, columns, target, target_pitch, 0)
