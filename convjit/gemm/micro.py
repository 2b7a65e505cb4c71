"""The micro-kernels: a register tile of chains of fused multiply-adds, and the packing of a panel.

Knows rows, lanes, terms and addresses; does not know what is convolved. A tile is rows x lanes chains held in
registers; for each term it loads the lanes of a row of `b`, from wherever the table of offsets says, and one element
of `a` for each row, into all lanes.
Source: F. Van Zee, R. van de Geijn, "BLIS" (2015), section 5, in BLIS's words; M. Dukhan, "The Indirect Convolution
Algorithm" (2019) for the table of offsets.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..runtime import emitting
from ..runtime.compile import kernel
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType

# What compiled code is told of a dtype's kernels, an int64 array: numbers, then addresses.
ELEMENT = 0  # bytes an element
LANES = 1  # lanes a vector
ROWS = 2  # rows of the largest tile
VECTORS = 3  # vectors of the widest tile
PACK_VECTORS = 4
PACK_RUNS = 5
TILES = 6  # for each number of rows and of vectors, from 1 on: the rows that are done at once, the tile's address


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    sizes, lanes = _tile_rows(row.rows), row.vector_bytes // dtype.itemsize
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions(dtype), row.features)
    table = [dtype.itemsize, lanes, row.rows, row.vectors, addresses["pack_vectors"], addresses["pack_runs"]]
    for rows in range(1, row.rows + 1):
        done = max(size for size in sizes if size <= rows)
        for vectors in range(1, row.vectors + 1):
            table += [done, addresses[f"tile_{done}_{vectors}"]]
    result = np.array(table, np.int64)
    result.flags.writeable = False
    return result


def functions(dtype: DType) -> dict[str, tuple[int, emitting.Body]]:
    """What is emitted for a dtype, by name: the number of arguments, and the body."""
    row = isa.here()
    lanes = row.vector_bytes // dtype.itemsize
    found = {"pack_vectors": (7, _pack_vectors(dtype, lanes)), "pack_runs": (7, _pack_runs(dtype, lanes))}
    for rows in _tile_rows(row.rows):
        for vectors in range(1, row.vectors + 1):
            found[f"tile_{rows}_{vectors}"] = (12, _tile(dtype, lanes, rows, vectors))
    return found


def _tile_rows(most: int) -> list[int]:
    """Heights that tiles are emitted for; what is left of a number of rows is put together from the smaller ones."""
    return sorted({most, *(size for size in (1, 2, 4, 8) if size < most)})


def _tile(dtype: DType, lanes: int, rows: int, vectors: int) -> emitting.Body:
    """A register tile, called as `multiply` calls it.

    target[r*target_stride + j] = sum over t of a[r*a_stride + t] * b[offsets[t] + j], r < rows, j < count, t in order,
    one fma a term; with `extend`, added to source[r*source_stride + j]; with a `bias` that is not address 0, bias[r] is
    added last. `count` fills all vectors but the last one. Of `b` whole vectors are read, of the others what counts.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        a, a_stride, b, offsets, terms, source, source_stride, target, target_stride, count, extend, bias = arguments
        chains = _chains(v, _rows(v, a, a_stride, rows), v.pointer(b), v.integers(offsets), terms, vectors)
        left = builder.sub(count, index((vectors - 1) * lanes))
        mask = v.first(left)
        cut = builder.zext(builder.icmp_signed("<", left, index(lanes)), count.type)

        def places(address: Any, stride: Any) -> list[Any]:
            return [v.offset(row, j * lanes) for row in _rows(v, address, stride, rows) for j in range(vectors)]

        def load(place: Any, i: int, is_cut: bool) -> Any:
            return v.load_masked(place, mask) if is_cut and i % vectors == vectors - 1 else v.load(place)

        def store(value: Any, place: Any, i: int, is_cut: bool) -> None:
            if is_cut and i % vectors == vectors - 1:
                v.store_masked(value, place, mask)
            else:
                v.store(value, place)

        def extended() -> list[Any]:  # loads beside additions, or registers would have to hold all totals, too
            at = list(enumerate(zip(places(source, source_stride), chains, strict=True)))

            def added(is_cut: bool) -> list[Any]:
                return [v.add(load(place, i, is_cut), chain) for i, (place, chain) in at]

            return v.either(cut, lambda: added(True), lambda: added(False))

        def shifted(values: list[Any]) -> list[Any]:
            shifts = [v.splat(v.offset(v.pointer(bias), r)) for r in range(rows)]
            return [v.add(value, shifts[i // vectors]) for i, value in enumerate(values)]

        sums = v.either(extend, extended, lambda: chains)
        results = v.either(bias, lambda: shifted(sums), lambda: sums)
        at = list(enumerate(zip(results, places(target, target_stride), strict=True)))

        def stored(is_cut: bool) -> list[Any]:
            for i, (result, place) in at:
                store(result, place, i, is_cut)
            return []

        v.either(cut, lambda: stored(True), lambda: stored(False))

    return body


def _rows(v: Vectors, address: Any, stride: Any, rows: int) -> list[Any]:
    """Pointers to so many rows."""
    pointers = [v.pointer(address)]
    for _ in range(1, rows):
        pointers.append(v.offset(pointers[-1], stride))
    return pointers


def _chains(v: Vectors, a: list[Any], b: Any, offsets: Any, terms: Any, vectors: int) -> list[Any]:
    """The sums of so many terms, row by row."""
    rows = len(a)

    def term(values: list[Any]) -> list[Any]:
        offset, pointers, chains = values[0], values[1 : rows + 1], values[rows + 1 :]
        met = v.offset(b, v.element(offset))
        panel = [v.load(v.offset(met, j * v.lanes)) for j in range(vectors)]
        extended = []
        for r, pointer in enumerate(pointers):
            weight = v.splat(pointer)
            extended += [v.fma(weight, panel[j], chains[r * vectors + j]) for j in range(vectors)]
        return [v.offset(offset, 1), *(v.offset(pointer, 1) for pointer in pointers), *extended]

    return v.loop(terms, [offsets, *a, *[v.zero] * (rows * vectors)], term)[rows + 1 :]


def _pack_vectors(dtype: DType, lanes: int) -> emitting.Body:
    """Pack a panel: panel[t*pitch + to + j] = source[offsets[t] + from + j] for vectors (from, to), in their order."""

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, offsets, terms, vectors, count, panel, pitch = arguments
        begin, first = v.pointer(source), v.integers(vectors)

        def pack_term(values: list[Any]) -> list[Any]:
            offset, place = values
            met = v.offset(begin, v.element(offset))

            def copy_vector(values: list[Any]) -> list[Any]:
                (vector,) = values
                v.store(v.load(v.offset(met, v.element(vector))), v.offset(place, v.element(v.offset(vector, 1))))
                return [v.offset(vector, 2)]

            v.loop(count, [first], copy_vector)
            return [v.offset(offset, 1), v.offset(place, pitch)]

        v.loop(terms, [v.integers(offsets), v.pointer(panel)], pack_term)

    return body


def _pack_runs(dtype: DType, lanes: int) -> emitting.Body:
    """Pack a panel without reading anything but its runs: (where it begins, how many) each, one after the other.

    Whole vectors are written, up to a vector behind the last run.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, offsets, terms, runs, run_count, panel, pitch = arguments
        begin, first_run = v.pointer(source), v.integers(runs)

        def copy_run(values: list[Any]) -> list[Any]:
            met, run, place = values
            start = v.offset(met, v.element(run))
            count = v.element(v.offset(run, 1))
            whole = builder.sdiv(count, index(lanes))

            def copy_vector(values: list[Any]) -> list[Any]:
                v.store(v.load(values[0]), values[1])
                return [v.offset(values[0], lanes), v.offset(values[1], lanes)]

            rest, to = v.loop(whole, [start, place], copy_vector)
            left = builder.srem(count, index(lanes))

            def copy_rest() -> list[Any]:
                v.store(v.load_masked(rest, v.first(left)), to)
                return []

            v.either(left, copy_rest, list)
            return [met, v.offset(run, 2), v.offset(place, count)]

        def pack_term(values: list[Any]) -> list[Any]:
            offset, place = values
            v.loop(run_count, [v.offset(begin, v.element(offset)), first_run, place], copy_run)
            return [v.offset(offset, 1), v.offset(place, pitch)]

        v.loop(terms, [v.integers(offsets), v.pointer(panel)], pack_term)

    return body


_call_tile = emitting.caller(12)
_call_pack = emitting.caller(7)


@kernel
def pack_vectors(
    kernels: Any, source: Any, offsets: Any, terms: Any, vectors: Any, count: Any, panel: Any, pitch: Any
) -> None:
    """Pack a panel, see `_pack_vectors`; all but the counts are addresses."""
    _call_pack(kernels[PACK_VECTORS], source, offsets, terms, vectors, count, panel, pitch)


@kernel
def pack_runs(
    kernels: Any, source: Any, offsets: Any, terms: Any, runs: Any, count: Any, panel: Any, pitch: Any
) -> None:
    """Pack a panel, see `_pack_runs`; all but the counts are addresses."""
    _call_pack(kernels[PACK_RUNS], source, offsets, terms, runs, count, panel, pitch)


@kernel
def multiply(
    kernels: Any, a: Any, a_stride: Any, rows: Any, b: Any, offsets: Any, terms: Any, count: Any, source: Any,
    source_stride: Any, target: Any, target_stride: Any, extend: Any, bias: Any,
) -> None:  # fmt: skip
    """Cover rows x count lanes with register tiles, see `_tile`.

    `a`, `b`, `offsets`, `source`, `target`, `bias` are addresses; of `b`, whole vectors are read beyond `count`.
    """
    size, lanes, most, widest = kernels[ELEMENT], kernels[LANES], kernels[ROWS], kernels[VECTORS]
    vectors = (count + lanes - 1) // lanes
    panels = (vectors + widest - 1) // widest
    j = 0
    # Panels of nearly equal width: four vectors are two and two, not three and one, whose tile has few chains. A panel
    # stays in the first-level cache while all rows of `a` pass by.
    while panels > 0:
        width = (vectors + panels - 1) // panels
        here = min(width * lanes, count - j)
        r = 0
        while r < rows:
            entry = TILES + 2 * ((min(rows - r, most) - 1) * widest + width - 1)
            _call_tile(
                kernels[entry + 1], a + r * a_stride * size, a_stride, b + j * size, offsets, terms,
                source + (r * source_stride + j) * size, source_stride, target + (r * target_stride + j) * size,
                target_stride, here, extend, bias + r * size if bias != 0 else 0,
            )  # fmt: skip
            r += kernels[entry]
        j += here
        vectors -= width
        panels -= 1
