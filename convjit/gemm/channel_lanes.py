"""Channels as lanes: sums over pixels, a chain for each tap, and sums over taps, a chain for each grid point.

Knows how images of several channels are packed, all channels of a pixel side by side, and register tiles of taps; does
not know which pixels are summed, or in what blocks.
Source: the transposition is the perfect shuffle of H. Stone, "Parallel Processing with the Perfect Shuffle" (1971).
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType

# What compiled code is told of the kernels for a dtype and a filter's size, an int64 array: numbers, then addresses.
ELEMENT = 0  # bytes an element
LANES = 1  # lanes a vector: channels that are done at once
ROW_PIECES = 2  # pieces that a filter's rows are cut into
COL_PIECES = 3
PACK = 4
REPEAT = 5
TILES = 6  # for each height, the lesser first, and each width of a piece

# Columns of a piece at most: as many offsets from one address are kept in registers.
_PIECE_COLS = 8


@cache
def pieces(kernel_h: int, kernel_w: int) -> tuple[int, int]:
    """Into how many pieces a filter's rows and columns are cut."""
    # Live are a piece's chains, the output gradient and a pixel: 24 + 2 of 32 registers, 12 + 2 of 16.
    chains = 24 if isa.here().registers >= 32 else 12
    col_pieces = -(-kernel_w // _PIECE_COLS)
    return -(-kernel_h // min(kernel_h, chains // -(-kernel_w // col_pieces))), col_pieces


@cache
def kernels(dtype: DType, kernel_h: int, kernel_w: int) -> Array:
    """The kernels for filters of one size, compiled or loaded on the first call."""
    row, lanes = isa.here(), isa.lanes(dtype)
    row_pieces, col_pieces = pieces(kernel_h, kernel_w)
    functions = {"pack": (4, _pack(dtype, lanes)), "repeat": (5, _repeat(dtype, lanes))}
    tiles: list[str] = []
    for rows in (kernel_h // row_pieces, -(-kernel_h // row_pieces)):
        for cols in (kernel_w // col_pieces, -(-kernel_w // col_pieces)):
            tiles.append(f"tile_{rows}_{cols}")
            functions[tiles[-1]] = (9, _tile(dtype, lanes, rows, cols))
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions, row.features)
    found = [addresses[name] for name in ("pack", "repeat", *tiles)]
    return passed((dtype.itemsize, lanes, row_pieces, col_pieces, *found))


# What compiled code is told of a dtype's kernels for results, after ELEMENT and LANES.
UNPACK = 3
POINTS = 5  # for each number of pixels, from 1 on

# Pixels whose chains are in registers: enough to hide a multiply-add's latency of 4 cycles, 2 a cycle.
_POINTS = 8


@cache
def point_kernels(dtype: DType) -> Array:
    """The kernels that sum over taps; `PACK` means the same as in the others."""
    row, lanes = isa.here(), isa.lanes(dtype)
    functions = {"pack": (4, _pack(dtype, lanes)), "unpack": (4, _unpack(dtype, lanes))}
    for points in range(1, _POINTS + 1):
        functions[f"points_{points}"] = (8, _points(dtype, lanes, points))
    addresses = emitting.compiled(f"{__name__}.points.{dtype}.{row.name}", functions, row.features)
    pack, *others = (addresses[name] for name in functions)
    return passed((dtype.itemsize, lanes, 0, others[0], pack, *others[1:]))


def _pack(dtype: DType, lanes: int) -> emitting.Body:
    """target[q*lanes + j] = (what lies at address sources[j])[first + q] for q < count and each lane j.

    Written are whole squares of lanes x lanes elements.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        sources, first, count, target = arguments
        table = v.integers(sources)

        def square(at: Any, place: Any, load: Any) -> None:
            rows = [load(v.offset(v.pointer(v.element(v.offset(table, j))), at)) for j in range(lanes)]
            for j, row in enumerate(v.transposed(rows)):
                v.store(row, v.offset(place, j * lanes))

        def whole(values: list[Any]) -> list[Any]:
            at, place = values
            square(at, place, v.load)
            return [builder.add(at, index(lanes)), v.offset(place, lanes * lanes)]

        at, place = v.loop(builder.sdiv(count, index(lanes)), [first, v.pointer(target)], whole)
        rest = builder.srem(count, index(lanes))
        mask = v.first(rest)

        def cut() -> list[Any]:
            square(at, place, lambda pointer: v.load_masked(pointer, mask))
            return []

        v.either(rest, cut, list)

    return body


# Images of which a vector repeats pixels, at most: each is a load, where a transposition takes four shuffles for a
# vector of sixteen lanes.
MOST_REPEATED = 4


@kernel
def most_repeated(lanes: Any) -> Any:
    """Images of which a vector of so many lanes is better filled by repeating than by transposing."""
    return min(MOST_REPEATED, max(lanes // 4, 1))


def _repeat(dtype: DType, lanes: int) -> emitting.Body:
    """target[q*lanes + j] = (what lies at address table[i])[first + q] for q < count, where lane j is of image i.

    Of image i < `images` are the lanes from table[MOST_REPEATED + i] on, up to those of the next one.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        table, images, first, count, target = arguments
        entries = v.integers(table)

        def repeat(number: int) -> list[Any]:
            begins = [v.offset(v.pointer(v.element(v.offset(entries, i))), first) for i in range(number)]
            lane = [v.element(v.offset(entries, MOST_REPEATED + i)) for i in range(1, number)]
            masks = [v.between(each, index(lanes)) for each in lane]

            def pixel(values: list[Any]) -> list[Any]:
                to, *places = values
                pixels = v.splat(places[0])
                for place, mask in zip(places[1:], masks, strict=True):
                    pixels = v.chosen(mask, v.splat(place), pixels)
                v.store(pixels, to)
                return [v.offset(to, lanes), *(v.offset(place, 1) for place in places)]

            v.loop(count, [v.pointer(target), *begins], pixel)
            return []

        for number in range(1, most_repeated(lanes) + 1):
            v.either(v.flag("==", images, index(number)), partial(repeat, number), list)

    return body


def _tile(dtype: DType, lanes: int, rows: int, cols: int) -> emitting.Body:
    """The chains of rows x cols taps, called as `extend_chains` calls it.

    sums[i*sums_row + k*lanes + j] += sum over q < count of x[q*x_step + i*x_row + k*x_col + j] * dy[q*lanes + j], q in
    order, one fma a term, for lanes j; from zero where `extend` is 0.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        x, x_row, x_col, x_step, dy, count, sums, sums_row, extend = arguments
        first, begin = v.pointer(x), v.pointer(sums)
        starts = [v.offset(first, builder.mul(x_row, index(i))) for i in range(rows)]
        across = [builder.mul(x_col, index(k)) for k in range(cols)]
        places = [
            v.offset(begin, builder.add(builder.mul(sums_row, index(i)), index(k * lanes)))
            for i in range(rows)
            for k in range(cols)
        ]
        chains = v.either(extend, lambda: [v.load(place) for place in places], lambda: [v.zero] * len(places))

        def pixel(values: list[Any]) -> list[Any]:
            gradient, pointers, chains = values[0], values[1 : rows + 1], values[rows + 1 :]
            factor = v.load(gradient)
            taps = [(pointer, offset) for pointer in pointers for offset in across]
            chains = [v.fma(v.load(v.offset(p, o)), factor, chain) for (p, o), chain in zip(taps, chains, strict=True)]
            return [v.offset(gradient, lanes), *(v.offset(pointer, x_step) for pointer in pointers), *chains]

        results = v.loop(count, [v.pointer(dy), *starts, *chains], pixel)[rows + 1 :]
        for place, result in zip(places, results, strict=True):
            v.store(result, place)

    return body


def _unpack(dtype: DType, lanes: int) -> emitting.Body:
    """(what lies at address targets[j])[first + q] = source[q*lanes + j] for q < count and each lane j, in order.

    Read are whole squares of lanes x lanes elements.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        targets, first, count, source = arguments
        table = v.integers(targets)

        def square(at: Any, place: Any, left: Any) -> None:
            columns = v.transposed([v.load(v.offset(place, j * lanes)) for j in range(lanes)])
            places = [v.offset(v.pointer(v.element(v.offset(table, j))), at) for j in range(lanes)]
            v.store_first(columns, places, left)

        def whole(values: list[Any]) -> list[Any]:
            at, place = values
            square(at, place, index(lanes))
            return [builder.add(at, index(lanes)), v.offset(place, lanes * lanes)]

        at, place = v.loop(builder.sdiv(count, index(lanes)), [first, v.pointer(source)], whole)
        rest = builder.srem(count, index(lanes))

        def cut() -> list[Any]:
            square(at, place, rest)
            return []

        v.either(rest, cut, list)

    return body


def _points(dtype: DType, lanes: int, points: int) -> emitting.Body:
    """Results of neighbouring grid points, called as `sum_row` calls it.

    target[p*target_step + j] = sum over t < taps of weight[places[2*t+1] + j] * x[places[2*t] + p*x_step + j], t in
    order, one fma a term, for lanes j; with a `bias` that is not address 0, bias[j] is added last.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        x, x_step, places, taps, weight, target, target_step, bias = arguments
        first, filters = v.pointer(x), v.pointer(weight)
        steps = [builder.mul(x_step, index(p)) for p in range(points)]

        def tap(values: list[Any]) -> list[Any]:
            place, *chains = values
            met, factor = v.offset(first, v.element(place)), v.load(v.offset(filters, v.element(v.offset(place, 1))))
            pairs = zip(steps, chains, strict=True)
            return [v.offset(place, 2), *(v.fma(factor, v.load(v.offset(met, step)), chain) for step, chain in pairs)]

        _, *chains = v.loop(taps, [v.integers(places), *[v.zero] * points], tap)

        def shifted() -> list[Any]:
            shift = v.load(v.pointer(bias))
            return [v.add(chain, shift) for chain in chains]

        to = v.pointer(target)
        for result in v.either(bias, shifted, lambda: chains):
            v.store(result, to)
            to = v.offset(to, target_step)

    return body


_call_points = emitting.caller(8)
_call_pack = emitting.caller(4)
_call_tile = emitting.caller(9)
_call_repeat = emitting.caller(5)


@kernel
def pack(kernels: Any, sources: Any, first: Any, count: Any, target: Any) -> None:
    """Pixels of several channels side by side, see `_pack`; `sources` and `target` are addresses."""
    _call_pack(kernels[PACK], sources, first, count, target)


@kernel
def repeat(kernels: Any, table: Any, first: Any, count: Any, target: Any) -> None:
    """Pixels of the one image in a table of `_repeat`, each in all lanes; `table` and `target` are addresses."""
    _call_repeat(kernels[REPEAT], table, 1, first, count, target)


@kernel
def unpack(kernels: Any, targets: Any, first: Any, count: Any, source: Any) -> None:
    """The reverse of `pack`, see `_unpack`."""
    _call_pack(kernels[UNPACK], targets, first, count, source)


@kernel
def pack_row(
    kernels: Any, sources: Any, repeated: Any, scratch: Any, at: Any, first: Any, width: Any, in_row: Any, in_h: Any,
    in_w: Any,
) -> None:  # fmt: skip
    """Pixels `first .. first + width` of a row of images in_h x in_w, zeros outside of it, to `scratch` from `at` on.

    A square of lanes may be written behind them. `sources` is the table of `_repeat` for so many `repeated` images, or
    that of `_pack` where there are none.
    """
    lanes = kernels[LANES]
    left, right = min(max(0, -first), width), min(max(0, in_w - first), width)
    if in_row < 0 or in_row >= in_h or right <= left:
        left = right = width
    for i in range(at, at + left * lanes):
        scratch[i] = 0
    begin, target = in_row * in_w + first + left, scratch.ctypes.data + (at + left * lanes) * kernels[ELEMENT]
    if repeated > 0:
        _call_repeat(kernels[REPEAT], sources, repeated, begin, right - left, target)
    else:
        pack(kernels, sources, begin, right - left, target)
    for i in range(at + right * lanes, at + width * lanes):
        scratch[i] = 0


@kernel
def sum_row(
    kernels: Any, x: Any, x_step: Any, places: Any, taps: Any, weight: Any, target: Any, target_step: Any, count: Any,
    bias: Any,
) -> None:  # fmt: skip
    """A row of `count` grid points, see `_points`; addresses and steps in elements."""
    size = kernels[ELEMENT]
    runs = (count + _POINTS - 1) // _POINTS
    for run in range(runs):
        first, stop = run * count // runs, (run + 1) * count // runs
        _call_points(
            kernels[POINTS + stop - first - 1], x + first * x_step * size, x_step, places, taps, weight,
            target + first * target_step * size, target_step, bias,
        )  # fmt: skip


@kernel
def extend_chains(
    kernels: Any, kernel_h: Any, kernel_w: Any, first_piece: Any, stop_piece: Any, x: Any, x_row: Any, x_col: Any,
    x_step: Any, dy: Any, count: Any, sums: Any, extend: Any,
) -> None:  # fmt: skip
    """The chains of the filter's rows in pieces `first_piece .. stop_piece`, see `_tile`; x, dy, sums are addresses.

    `x` and `sums` are where the first of these rows is.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    row_pieces, col_pieces = kernels[ROW_PIECES], kernels[COL_PIECES]
    top = first_piece * kernel_h // row_pieces
    for p in range(first_piece, stop_piece):
        row, next_row = p * kernel_h // row_pieces, (p + 1) * kernel_h // row_pieces
        tall = 0 if next_row - row == kernel_h // row_pieces else 2
        for q in range(col_pieces):
            col, next_col = q * kernel_w // col_pieces, (q + 1) * kernel_w // col_pieces
            wide = 0 if next_col - col == kernel_w // col_pieces else 1
            _call_tile(
                kernels[TILES + tall + wide], x + ((row - top) * x_row + col * x_col) * size, x_row, x_col, x_step, dy,
                count, sums + ((row - top) * kernel_w + col) * lanes * size, kernel_w * lanes, extend,
            )  # fmt: skip
