"""Images of one row, each correlated with a filter of its own: lanes are neighbouring pixels, rows follow one another.

Knows tiles of a row that are as wide as registers allow, since no other row shares what it loads or its weights, and
walks over many rows in one call; does not know which operation of a convolution it computes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType
from .micro import fill_rows
from .planes import Axis, clipped
from .summation import TERM_BLOCK

# What compiled code is told of a dtype's kernels, an int64 array: numbers, then addresses.
ELEMENT = 0  # bytes an element
LANES = 1  # lanes a vector
WIDEST = 2  # vectors of the widest tile
TILES = 3  # for each number of vectors, from 1 on

# Vectors of a tile: their chains hide a multiply-add's latency (4 cycles, 2 a cycle: 8 chains), and with a weight in
# all lanes they fit into 16 registers.
_VECTORS = 12


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row = isa.here()
    lanes = isa.lanes(dtype)
    functions = {f"tile_{vectors}": (14, _tile(dtype, lanes, vectors)) for vectors in range(1, _VECTORS + 1)}
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions, row.features)
    return passed((dtype.itemsize, lanes, _VECTORS, *(addresses[name] for name in functions)))


def _tile(dtype: DType, lanes: int, vectors: int) -> emitting.Body:
    """So many vectors of each of some rows, called as `correlate_lines` calls it.

    target[r*target_pitch + j] = sum over t of weight[r*weight_pitch + t*tap_step] * source[r*pitch + offsets[t] + j],
    r < rows, j < count, t in order, one fma a term; with `extend`, added to what the target was; with a `bias` that is
    not address 0, bias[r*bias_step] is added last. `count` fills all vectors but the last one; of the source whole
    vectors are read.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, pitch, offsets, taps, weight, weight_pitch, tap_step, target, target_pitch, rows = arguments[:10]
        count, extend, bias, bias_step = arguments[10:]
        first_tap, left = v.integers(offsets), builder.sub(count, index((vectors - 1) * lanes))
        mask, is_cut = v.first(left), v.flag("<", left, index(lanes))
        shift_step = builder.select(v.is_set(bias), builder.mul(bias_step, index(dtype.itemsize)), index(0))

        def row(values: list[Any]) -> list[Any]:
            met, weights, place, shift = values
            places = [v.offset(place, j * lanes) for j in range(vectors)]

            def tap(values: list[Any]) -> list[Any]:
                offset, each, *chains = values
                at, factor = v.offset(met, v.element(offset)), v.splat(each)
                pixels = [v.load(v.offset(at, j * lanes)) for j in range(vectors)]
                chains = [v.fma(factor, *pair) for pair in zip(pixels, chains, strict=True)]
                return [v.offset(offset, 1), v.offset(each, tap_step), *chains]

            chains = v.loop(taps, [first_tap, weights, *[v.zero] * vectors], tap)[2:]

            def added(last: Any) -> list[Any]:
                before = [*(v.load(place) for place in places[:-1]), last(places[-1])]
                return [v.add(*pair) for pair in zip(before, chains, strict=True)]

            def extended() -> list[Any]:
                return v.either(
                    is_cut, lambda: added(lambda place: v.load_masked(place, mask)), lambda: added(v.load)
                )  # fmt: skip

            def shifted(sums: list[Any]) -> list[Any]:
                same = v.splat(v.pointer(shift))
                return [v.add(value, same) for value in sums]

            sums = v.either(extend, extended, lambda: chains)
            results = v.either(bias, lambda: shifted(sums), lambda: sums)
            for result, to in zip(results[:-1], places[:-1], strict=True):
                v.store(result, to)

            v.store_first(results[-1:], places[-1:], left)
            return [
                v.offset(met, pitch), v.offset(weights, weight_pitch), v.offset(place, target_pitch),
                builder.add(shift, shift_step),
            ]  # fmt: skip

        v.loop(rows, [v.pointer(source), v.pointer(weight), v.pointer(target), bias], row)

    return body


_call_tile = emitting.caller(14)


@kernel
def correlate_lines(
    kernels: Any, lists: Any, source: Any, along: Axis, rows: Any, weight: Any, weight_pitch: Any, tap_step: Any,
    target: Any, pitch: Any, bias: Any, bias_step: Any,
) -> None:  # fmt: skip
    """target[r*pitch + k] = bias[r*bias_step] + sum over taps of weight[r*weight_pitch + tap*tap_step] * what grid
    point k of row r meets.

    Planes of the rows lie at the address `source`, as `fill_lines` filled them; weights, target and bias are addresses,
    too, the last one 0 without a bias. Whole vectors are read behind the last plane.
    """
    size, lanes, widest = kernels[ELEMENT], kernels[LANES], kernels[WIDEST]
    for t in range(along.taps):
        lists[t] = t % along.planes * along.padded + (along.shift + t * along.tap_step) // along.step
    for tap in range(0, max(along.taps, 1), TERM_BLOCK):
        taps = min(TERM_BLOCK, along.taps - tap)
        is_last = tap + taps == along.taps
        vectors, k = (along.grid + lanes - 1) // lanes, 0
        panels = (vectors + widest - 1) // widest
        while panels > 0:  # of nearly equal width
            width = (vectors + panels - 1) // panels
            here = min(width * lanes, along.grid - k)
            _call_tile(
                kernels[TILES + width - 1], source + k * size, along.planes * along.padded,
                lists.ctypes.data + 8 * tap, taps, weight + tap * tap_step * size, weight_pitch, tap_step,
                target + k * size, pitch, rows, here, 1 if tap > 0 else 0, bias if is_last else 0, bias_step,
            )  # fmt: skip
            k += here
            vectors -= width
            panels -= 1


@kernel
def fill_lines(tiles: Any, planes: Any, images: Any, rows: Any, along: Axis) -> None:
    """Fill the planes of so many images of one row, see `Axis`, those of a row side by side.

    Both are addresses, `tiles` the kernels of `micro`.
    """
    size, step, padded = tiles[ELEMENT], along.step, along.padded
    for q in range(along.planes):
        shift = q * along.plane_step % step + along.first
        left, right = clipped(shift, step, along.size, padded)
        fill_rows(
            tiles, planes + q * padded * size, along.planes * padded, images + (left * step + shift) * size, along.size,
            rows, left, right - left, padded - right, step,
        )  # fmt: skip
