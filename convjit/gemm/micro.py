"""The micro-kernels: a register tile of chains of fused multiply-adds, and the packing of a panel.

Knows rows, lanes, terms and addresses; does not know what is convolved. A tile is rows x lanes chains held in
registers; for each term it loads the lanes of a row of `b`, from wherever the table of offsets says, and one element
of `a` for each row, into all lanes.
Source: F. Van Zee, R. van de Geijn, "BLIS" (2015), section 5, in BLIS's words; M. Dukhan, "The Indirect Convolution
Algorithm" (2019) for the table of offsets.
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
from .filling import fill, fill_listed, fill_many
from .tiles import tile_lines, tile_rows, tile_vectors
from .weaving import weave

# What compiled code is told of a dtype's kernels, an int64 array: numbers, then addresses.
ELEMENT = 0  # bytes an element
LANES = 1  # lanes a vector
MULTIPLY = 2
PACK = 3
FILL = 4
FILL_MANY = 5
FILL_LISTED = 6
WEAVE = 7
MULTIPLY_LINES = 8  # of `line_kernels`
MULTIPLY_ASKING = 8  # of `asking_kernels`

# Whole vectors that are packed together where so many lie side by side.
VECTORS_A_PIECE = 4


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    found = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions(dtype), row.features, passes(row))
    table = fills(dtype).tolist()
    table[MULTIPLY], table[PACK], table[WEAVE] = (found[name] for name in ("multiply", "pack", "weave"))
    return passed(tuple(table))


@cache
def fills(dtype: DType) -> Array:
    """Those alone that fill planes, in their places of the table: what products of other kernels need of this one.

    They are compiled in a fifth of the time or less.
    """
    row, functions = isa.here(), fill_functions(dtype)
    as_written = dict.fromkeys(functions, Passes.NONE)
    found = emitting.compiled(f"{__name__}.fills.{dtype}.{row.name}", functions, row.features, as_written)
    return passed((dtype.itemsize, isa.lanes(dtype), 0, 0, found["fill"], found["fill_many"], found["fill_listed"], 0))


def fill_functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for `fills`, by name."""
    lanes = isa.lanes(dtype)
    return {
        "fill": (9, fill(dtype, lanes)),
        "fill_many": (12, fill_many(dtype, lanes)),
        "fill_listed": (7, fill_listed(dtype, lanes)),
    }


def functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype beside them, by name: the number of arguments, and the body."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    found = {
        f"tile_{rows}_{vectors}": (10, _tile(dtype, lanes, rows, vectors))
        for rows in tile_rows(row)
        for vectors in range(1, tile_vectors(row, rows) + 1)
    }
    found["multiply"] = (11, _multiply(dtype, lanes, row))
    return found | {"pack": (7, _pack(dtype, lanes)), "weave": (7, weave(dtype, lanes))}


@cache
def line_kernels(dtype: DType, vectors: int) -> Array:
    """The same, and behind them the one that multiplies lines of so many vectors: they serve narrow images alone."""
    row = isa.here()
    name = f"{__name__}.lines_{vectors}.{dtype}.{row.name}"
    multiply = emitting.compiled(name, line_functions(dtype, vectors), row.features)["multiply"]
    return passed((*kernels(dtype).tolist(), multiply))


def line_functions(dtype: DType, vectors: int) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for lines of so many vectors, by name."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    found = {
        f"tile_{rows}_{lines}": (12, _tile(dtype, lanes, rows, vectors, lines))
        for rows in tile_rows(row)
        for lines in range(1, tile_lines(row, rows, vectors) + 1)
    }
    return found | {"multiply": (14, _multiply(dtype, lanes, row, vectors))}


@cache
def asking_kernels(dtype: DType) -> Array:
    """The same, and behind them the one that asks for what the next tile of lanes meets.

    Its tiles have no passes: with them, thirteen convolutions with kernels of one pixel, 3 to 48 filters on 16 to 384
    channels, took 0.97 to 1.04 of the time (float32, AVX-512).
    """
    row = isa.here()
    found = emitting.compiled(f"{__name__}.asking.{dtype}.{row.name}", asking_functions(dtype), row.features)
    return passed((*kernels(dtype).tolist(), found["multiply"]))


def asking_functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for it, by name."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    found = {
        f"tile_{rows}_{vectors}": (11, _tile(dtype, lanes, rows, vectors, asks=True))
        for rows in tile_rows(row)
        for vectors in range(1, tile_vectors(row, rows) + 1)
    }
    return found | {"multiply": (12, _multiply(dtype, lanes, row, asks=True))}


def passes(row: isa.InstructionSet) -> dict[str, Passes]:
    """Of the tile in which large products spend their time, and of what moves elements."""
    return {f"tile_{row.rows}_{row.vectors}": Passes.ALL, "pack": Passes.NONE, "weave": Passes.NONE}


def _tile(
    dtype: DType, lanes: int, rows: int, vectors: int, lines: int = 1, *, asks: bool = False
) -> emitting.Body:  # fmt: skip
    """A register tile, called as `multiply` calls it.

    target[r*pitch + j] = sum over t of a[r*a_stride + t] * b[offsets[t] + j], r < rows, j < count, t in order, one fma
    a term; with `extend`, added to what the target was; with a `bias` that is not address 0, bias[r] is added last.
    `count` fills all vectors but the last one. Of `b` whole vectors are read, of the others what counts.

    Several lines of so many vectors are called as `multiply_lines` calls them: those of `b` lie `b_step` apart, those
    of a row of the target `line_step`. One that `asks` is called with one more address, at which each term is
    asked for as it is met at `b`.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        a, a_stride, b, offsets, terms, target, pitch, count, extend, bias, *rest = arguments
        b_step, line_step = rest if len(rest) == 2 else (index(0), index(0))
        soon = v.pointer(rest[0]) if asks else None
        of_row = lines * vectors
        starts = _rows(v, target, pitch, rows)
        places = [place for start in starts for place in _places(v, start, vectors, lines, line_step)]
        for place in places:  # they arrive while the sums are taken
            v.prefetch(place)
        chains = _chains(
            v, _rows(v, a, a_stride, rows), v.pointer(b), v.integers(offsets), terms, vectors, lines, b_step, soon
        )
        left = builder.sub(count, index((vectors - 1) * lanes))
        mask = v.first(left)
        cut = v.flag("<", left, index(lanes))

        def load(place: Any, i: int, is_cut: bool) -> Any:
            return v.load_masked(place, mask) if is_cut and i % vectors == vectors - 1 else v.load(place)

        def extended() -> list[Any]:  # loads beside additions, or registers would have to hold all totals, too
            at = list(enumerate(zip(places, chains, strict=True)))

            def added(is_cut: bool) -> list[Any]:
                return [v.add(load(place, i, is_cut), chain) for i, (place, chain) in at]

            return v.either(cut, lambda: added(True), lambda: added(False))

        def shifted(values: list[Any]) -> list[Any]:
            shifts = [v.splat(v.offset(v.pointer(bias), r)) for r in range(rows)]
            return [v.add(value, shifts[i // of_row]) for i, value in enumerate(values)]

        sums = v.either(extend, extended, lambda: chains)
        results = v.either(bias, lambda: shifted(sums), lambda: sums)
        for i, (result, place) in enumerate(zip(results, places, strict=True)):
            if i % vectors < vectors - 1:
                v.store(result, place)
        v.store_first(results[vectors - 1 :: vectors], places[vectors - 1 :: vectors], left)

    return body


def _places(v: Vectors, start: Any, vectors: int, lines: int, step: Any) -> list[Any]:
    """Pointers to the vectors of lines which lie so many elements apart."""
    starts = [start]
    for _ in range(1, lines):
        starts.append(v.offset(starts[-1], step))
    return [v.offset(line, j * v.lanes) for line in starts for j in range(vectors)]


def _rows(v: Vectors, address: Any, stride: Any, rows: int) -> list[Any]:
    """Pointers to so many rows."""
    pointers = [v.pointer(address)]
    for _ in range(1, rows):
        pointers.append(v.offset(pointers[-1], stride))
    return pointers


def _chains(
    v: Vectors, a: list[Any], b: Any, offsets: Any, terms: Any, vectors: int, lines: int, step: Any, soon: Any
) -> list[Any]:
    """The sums of so many terms, row by row; each is asked for at `soon`, too, if that is not None.

    Rows are counted from pointers that LLVM knows nothing of: else it derives one from the other, anew for each term,
    and takes execution ports from multiply-adds.
    """
    rows, of_row = [v.opaque(pointer) for pointer in a], lines * vectors

    def add_term(t: Any, chains: list[Any]) -> list[Any]:
        at = v.element(v.offset(offsets, t))
        met = _places(v, v.offset(b, at), vectors, lines, step)
        if soon is not None:
            v.prefetch_ahead(v.offset(soon, at))
        extended = list(chains)
        if of_row > len(rows):  # the fewer ones are held, the others pass by
            weights = [v.splat(v.offset(row, t)) for row in rows]
            for j, place in enumerate(met):
                lanes = v.load(place)
                for r, weight in enumerate(weights):
                    extended[r * of_row + j] = v.fma(weight, lanes, chains[r * of_row + j])
            return extended
        panel = [v.load(place) for place in met]
        for r, row in enumerate(rows):
            weight = v.splat(v.offset(row, t))
            for j, lanes in enumerate(panel):
                extended[r * of_row + j] = v.fma(weight, lanes, chains[r * of_row + j])
        return extended

    return v.counted_loop(terms, [v.zero] * (len(rows) * of_row), add_term)


def _asking(v: Vectors, first: Any, size: int, times: Any) -> Callable[[Any], Any]:
    """Where a tile asks, from where the one above it did: so many of them ask for a panel of `size` bytes a term.

    Of fewer tiles than lines of the cache each asks for the first of some: processors read their neighbours, too.
    """
    builder, lines = v.builder, -(-size // CACHE_LINE)
    some = builder.sdiv(builder.add(times, index(lines - 1)), times)
    step = builder.mul(some, index(CACHE_LINE))
    last = builder.add(first, index((lines - 1) * CACHE_LINE))
    return lambda at: v.least(builder.add(at, step), last)


def _multiply(
    dtype: DType, lanes: int, row: isa.InstructionSet, line: int = 0, *, asks: bool = False
) -> emitting.Body:  # fmt: skip
    """Cover any number of rows and lanes with register tiles; the arguments are those of `multiply` and its siblings.

    Rows are taken by the height of tiles, the tallest first, and lanes in panels that are as wide as tiles of that
    height: of vectors, or of lines of so many vectors. Panels are of nearly equal width: four vectors are two and two,
    not three and one, whose tile has few chains. A panel stays in the first-level cache while rows of `a` pass by.

    One that `asks` does so for the lanes so many bytes further on: the first tiles of a panel for a cache line of each
    term, those below them for the lines beside it.
    """

    def widest_of(height: int) -> int:
        return tile_lines(row, height, max(line, 1))

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        a, a_stride, rows, b, offsets, terms, count, target, pitch, extend, bias, *rest = arguments
        size = index(dtype.itemsize)
        if line > 0:
            units, *steps = rest
        else:
            units, steps = builder.sdiv(builder.add(count, index(lanes - 1)), index(lanes)), []

        def run_rows(height: int, times: Any, values: list[Any]) -> list[Any]:
            """All lanes of so many tiles one below the other, from where `values` say; where what is below them is."""
            widest = widest_of(height)
            from_a, to, shift = values

            def run_tiles(width: int, met: Any, to: Any, here: Any) -> None:
                down = builder.mul(index(height), size)
                further = [builder.add(met, rest[0])] if asks else []
                follow = [_asking(v, at, width * lanes * dtype.itemsize, times) for at in further]

                def run_tile(values: list[Any]) -> list[Any]:
                    from_a, to, shift, *soon = values
                    v.call(
                        f"tile_{height}_{width}", from_a, a_stride, met, offsets, terms, to, pitch, here, extend, shift,
                        *steps, *soon,
                    )  # fmt: skip
                    next_shift = builder.add(shift, builder.select(v.is_set(bias), down, index(0)))
                    next_a = builder.add(from_a, builder.mul(a_stride, down))
                    next_soon = [after(at) for after, at in zip(follow, soon, strict=True)]
                    return [next_a, builder.add(to, builder.mul(pitch, down)), next_shift, *next_soon]

                v.loop(times, [from_a, to, shift, *further], run_tile)

            def run_panel(values: list[Any]) -> list[Any]:
                met, to, units, panels, left = values
                width = builder.sdiv(builder.add(units, builder.sub(panels, index(1))), panels)
                here = count if line > 0 else v.least(builder.mul(width, index(lanes)), left)
                for tile_width in range(1, widest + 1):
                    is_width = v.flag("==", width, index(tile_width))

                    def run(tile_width: int = tile_width) -> list[Any]:
                        run_tiles(tile_width, met, to, here)
                        return []

                    v.either(is_width, run, list)
                along = [builder.mul(width, step) for step in steps] or [here, here]
                met, to = (builder.add(at, builder.mul(by, size)) for at, by in zip((met, to), along, strict=True))
                return [
                    met, to, builder.sub(units, width), builder.sub(panels, index(1)), builder.sub(left, here)
                ]  # fmt: skip

            panels = builder.sdiv(builder.add(units, index(widest - 1)), index(widest))
            v.loop(panels, [b, to, units, panels, count], run_panel)
            done = builder.mul(builder.mul(times, index(height)), size)
            next_shift = builder.add(shift, builder.select(v.is_set(bias), done, index(0)))
            return [
                builder.add(from_a, builder.mul(a_stride, done)), builder.add(to, builder.mul(pitch, done)), next_shift
            ]  # fmt: skip

        at, left = [a, target, bias], rows
        for height in tile_rows(row):
            times = builder.sdiv(left, index(height))
            at = v.either(times, partial(run_rows, height, times, at), partial(list, at))
            left = builder.srem(left, index(height))

    return body


def _pack(dtype: DType, lanes: int) -> emitting.Body:
    """Pack a panel: panel[t*pitch + to + j] = source[offsets[t] + from + j], j < count, for pieces (from, to, count).

    A piece is `VECTORS_A_PIECE` whole vectors, or one vector, the rest of which is zero: nothing is read but what
    counts, and what lies behind a piece is written over by the next one.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, offsets, terms, pieces, count, panel, pitch = arguments
        begin, first = v.pointer(source), v.integers(pieces)

        def copy_whole(at: Any, to: Any) -> list[Any]:
            for value, i in [(v.load(v.offset(at, i * lanes)), i) for i in range(VECTORS_A_PIECE)]:
                v.store(value, v.offset(to, i * lanes))
            return []

        def copy_one(at: Any, to: Any, of_piece: Any) -> list[Any]:
            is_cut = v.flag("<", of_piece, index(lanes))
            (value,) = v.either(is_cut, lambda: [v.load_masked(at, v.first(of_piece))], lambda: [v.load(at)])
            v.store(value, to)
            return []

        def pack_term(values: list[Any]) -> list[Any]:
            offset, place = values
            met = v.offset(begin, v.element(offset))

            def copy_piece(values: list[Any]) -> list[Any]:
                (piece,) = values
                at, of_piece = v.offset(met, v.element(piece)), v.element(v.offset(piece, 2))
                to = v.offset(place, v.element(v.offset(piece, 1)))
                are_several = v.flag(">", of_piece, index(lanes))
                v.either(are_several, lambda: copy_whole(at, to), lambda: copy_one(at, to, of_piece))
                return [v.offset(piece, 3)]

            v.loop(count, [first], copy_piece)
            return [v.offset(offset, 1), v.offset(place, pitch)]

        v.loop(terms, [v.integers(offsets), v.pointer(panel)], pack_term)

    return body


_call_multiply = emitting.caller(11)
_call_multiply_lines = emitting.caller(14)
_call_multiply_asking = emitting.caller(12)
_call_pack = emitting.caller(7)
_call_fill = emitting.caller(9)
_call_fill_many = emitting.caller(12)
_call_fill_listed = emitting.caller(7)
_call_weave = emitting.caller(7)


@kernel
def pack(kernels: Any, source: Any, offsets: Any, terms: Any, pieces: Any, count: Any, panel: Any, pitch: Any) -> None:
    """Pack a panel, see `_pack`; all but the counts are addresses."""
    _call_pack(kernels[PACK], source, offsets, terms, pieces, count, panel, pitch)


@kernel
def multiply(
    kernels: Any, a: Any, a_stride: Any, rows: Any, b: Any, offsets: Any, terms: Any, count: Any, target: Any,
    pitch: Any, extend: Any, bias: Any,
) -> None:  # fmt: skip
    """Multiply rows with `count` lanes, in place in `target` where it extends a sum; see `_tile`, `_multiply`.

    `a`, `b`, `offsets`, `target`, `bias` are addresses; of `b`, whole vectors are read beyond `count`.
    """
    _call_multiply(kernels[MULTIPLY], a, a_stride, rows, b, offsets, terms, count, target, pitch, extend, bias)


@kernel
def multiply_lines(
    kernels: Any, a: Any, a_stride: Any, rows: Any, b: Any, offsets: Any, terms: Any, count: Any, target: Any,
    pitch: Any, extend: Any, bias: Any, lines: Any, b_step: Any, line_step: Any,
) -> None:  # fmt: skip
    """The same of so many lines of `count` lanes, with the kernels of `line_kernels`; see `_tile`."""
    _call_multiply_lines(
        kernels[MULTIPLY_LINES], a, a_stride, rows, b, offsets, terms, count, target, pitch, extend, bias, lines,
        b_step, line_step,
    )  # fmt: skip


@kernel
def multiply_asking(
    kernels: Any, a: Any, a_stride: Any, rows: Any, b: Any, offsets: Any, terms: Any, count: Any, target: Any,
    pitch: Any, extend: Any, bias: Any, further: Any,
) -> None:  # fmt: skip
    """As `multiply`, with the kernel of `asking_kernels`: meanwhile what lies so many bytes further is asked for.

    Rows of `b` that lie in more pages than a processor reads ahead in are waited for otherwise, where they come from
    beyond the second-level cache.
    """
    _call_multiply_asking(
        kernels[MULTIPLY_ASKING], a, a_stride, rows, b, offsets, terms, count, target, pitch, extend, bias, further
    )  # fmt: skip


@kernel
def fill_rows(
    kernels: Any, target: Any, pitch: Any, source: Any, source_pitch: Any, rows: Any, before: Any, count: Any,
    after: Any, step: Any,
) -> None:  # fmt: skip
    """Fill rows of a plane, see `gemm.filling`; `target` and `source` are addresses."""
    _call_fill(kernels[FILL], target, pitch, source, source_pitch, rows, before, count, after, step)


@kernel
def fill_many_planes(
    kernels: Any, target: Any, each: Any, source: Any, image: Any, planes: Any, top: Any, rows: Any, before: Any,
    count: Any, width: Any, source_pitch: Any, bottom: Any,
) -> None:  # fmt: skip
    """Fill planes one behind another, see `gemm.filling`; `target` and `source` are addresses."""
    _call_fill_many(
        kernels[FILL_MANY], target, each, source, image, planes, top, rows, before, count, width, source_pitch, bottom
    )  # fmt: skip


@kernel
def fill_listed_planes(
    kernels: Any, target: Any, each: Any, source: Any, image: Any, channels: Any, pixels: Any, count: Any
) -> None:  # fmt: skip
    """Fill all planes of channels from a list of pixels, see `gemm.filling`; `target`, `source` and `pixels` are
    addresses."""
    _call_fill_listed(kernels[FILL_LISTED], target, each, source, image, channels, pixels, count)


@kernel
def weave_rows(
    kernels: Any, source: Any, source_pitch: Any, apart: Any, rows: Any, count: Any, target: Any, pitch: Any
) -> None:
    """Put results of two phases beside one another, see `gemm.weaving`; `source` and `target` are addresses."""
    _call_weave(kernels[WEAVE], source, source_pitch, apart, rows, count, target, pitch)
