"""One plane correlated with one filter: lanes are neighbouring grid points of a row, a sum has one channel's taps.

Knows tiles of grid rows x vectors in which a row of the plane that is loaded once serves every grid row that meets it;
does not know which operation of a convolution it computes.
Source: P. Zhang, E. Lo, B. Lu, "High Performance Depthwise and Pointwise Convolutions on Mobile Devices" (2020),
section 3, reuse of input rows in registers.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType
from . import micro
from .planes import Axis, clipped
from .summation import TERM_BLOCK

# What compiled code is told of a dtype's kernels, an int64 array: numbers, then addresses.
ELEMENT = 0  # bytes an element
LANES = 1  # lanes a vector
VECTORS = 2  # vectors of the widest tile
WEAVE = 3
TILES = 4  # for each number of rows of `_ROWS` and of vectors, from 1 on

# Grid rows of a tile. Of a 3x3 filter, four rows load 6 rows of the plane for 12 products; three would load 5 for 9.
_ROWS = (1, 2, 4)


@cache
def kernels(dtype: DType) -> Array:
    """The kernels of a dtype for this machine, compiled or loaded on the first call."""
    row, lanes = isa.here(), isa.lanes(dtype)
    # Live are `4 * vectors` chains, `vectors` of the plane and up to 4 weights: 24 of 32 registers, 14 of 16.
    most = 4 if row.registers >= 32 else 2
    functions = {"weave": (4, _weave(dtype, lanes))}
    for rows in _ROWS:
        for vectors in range(1, most + 1):
            functions[f"tile_{rows}_{vectors}"] = (11, _tile(dtype, lanes, rows, vectors))
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions, row.features)
    return passed((dtype.itemsize, lanes, most, *(addresses[name] for name in functions)))


def _tile(dtype: DType, lanes: int, rows: int, vectors: int) -> emitting.Body:
    """A register tile, called as `correlate` calls it.

    target[r*pitch + j] = sum over kh,kw of weight[kh*taps + kw] * source[row_offsets[r*step + kh] + offsets[kw] + j],
    (kh, kw) in order, one fma a term; with a `bias` that is not address 0, it is added last. `full` is how many rows of
    the plane all grid rows meet: the filter has `full + (rows - 1)*step` rows. `count` lanes fill all vectors but the
    last one; whole vectors are read.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, row_offsets, offsets, taps, full, step, weight, target, pitch, count, bias = arguments
        begin, first_tap = v.pointer(source), v.integers(offsets)
        # A row of the plane that grid row 0 meets at filter row kh is met by grid row r at filter row kh - r*step.
        behind = [builder.mul(builder.mul(step, taps), index(-r)) for r in range(rows)]

        def walk(count: Any, active: range, state: list[Any]) -> list[Any]:
            def row(values: list[Any]) -> list[Any]:
                row_offset, weights, *chains = values
                met = v.offset(begin, v.element(row_offset))

                def tap(values: list[Any]) -> list[Any]:
                    offset, weights, *chains = values
                    at = v.offset(met, v.element(offset))
                    pixels = [v.load(v.offset(at, j * lanes)) for j in range(vectors)]
                    for r in active:
                        each = v.splat(v.offset(weights, behind[r]))
                        for j in range(vectors):
                            chains[r * vectors + j] = v.fma(each, pixels[j], chains[r * vectors + j])
                    return [v.offset(offset, 1), v.offset(weights, 1), *chains]

                return [v.offset(row_offset, 1), *v.loop(taps, [first_tap, weights, *chains], tap)[1:]]

            return v.loop(count, state, row)

        state = [v.integers(row_offsets), v.pointer(weight), *[v.zero] * (rows * vectors)]
        for r in range(1, rows):
            state = walk(step, range(r), state)
        state = walk(full, range(rows), state)
        for r in range(1, rows):
            state = walk(step, range(r, rows), state)
        chains = state[2:]

        def shifted() -> list[Any]:
            shift = v.splat(v.pointer(bias))
            return [v.add(chain, shift) for chain in chains]

        results = v.either(bias, shifted, lambda: chains)
        left = builder.sub(count, index((vectors - 1) * lanes))

        last, place = [], v.pointer(target)
        for r in range(rows):
            for j in range(vectors - 1):
                v.store(results[r * vectors + j], v.offset(place, j * lanes))
            last.append(v.offset(place, (vectors - 1) * lanes))
            place = v.offset(place, pitch)
        v.store_first(results[vectors - 1 :: vectors], last, left)

    return body


_call_tile = emitting.caller(11)


@kernel
def _ratio(axis: Axis) -> Any:
    """(taps, points): so many taps on, a grid point meets what the point so many points on meets."""
    common = math.gcd(axis.step, axis.tap_step)
    return axis.step // common, axis.tap_step // common


def list_entries(vertical: Axis, horizontal: Axis, channels: int) -> int:
    """Entries of the lists of a correlation with so many channels."""
    terms = channels * vertical.taps * horizontal.taps
    return terms if is_long(channels, terms) else 2 * vertical.taps + horizontal.taps


@kernel
def is_long(channels: Any, terms: Any) -> Any:
    """Whether sums are more than the chain of one channel's taps."""
    return channels > 1 or terms > TERM_BLOCK


@kernel
def _list_axis(lists: Any, at: Any, axis: Axis, taps: Any, plane: Any, pixel: Any) -> None:
    """Where grid point 0 meets each tap, for planes and pixels that lie so many elements apart."""
    for t in range(taps):
        lists[at + t] = t % axis.planes * plane + (axis.shift + t * axis.tap_step) // axis.step * pixel


@kernel
def correlate(
    kernels: Any, tiles: Any, lists: Any, source: Any, channels: Any, weight: Any, vertical: Axis, horizontal: Axis,
    target: Any, pitch: Any, bias: Any,
) -> None:  # fmt: skip
    """target[i*pitch + k] = bias + sum over (channel, tap) of weight[term] * what grid point (i, k) meets.

    Planes of `channels` channels lie at the address `source`; weights, target and bias are addresses, too, the last one
    0 without a bias. Whole vectors are read behind the last plane. `kernels` are this module's, `tiles` those of
    `micro`. Sums are of `TERMS_A_TOTAL` terms at most.
    """
    size, pixel = kernels[ELEMENT], horizontal.padded
    plane = vertical.padded * horizontal.padded
    each = vertical.planes * horizontal.planes * plane
    terms = channels * vertical.taps * horizontal.taps
    if is_long(channels, terms):
        at = 0
        for c in range(channels):
            for s in range(vertical.taps):
                row = s % vertical.planes * horizontal.planes * plane
                row += c * each + (vertical.shift + s * vertical.tap_step) // vertical.step * pixel
                _list_axis(lists, at, horizontal, horizontal.taps, plane, 1)
                for t in range(at, at + horizontal.taps):
                    lists[t] += row
                at += horizontal.taps
        for i in range(vertical.grid):
            row_target = target + i * pitch * size
            for term in range(0, max(terms, 1), TERM_BLOCK):
                here = min(TERM_BLOCK, terms - term)
                micro.multiply(
                    tiles, weight + term * size, terms, 1, source + i * pixel * size, lists.ctypes.data + 8 * term,
                    here, horizontal.grid, row_target, 0, 1 if term > 0 else 0, bias if term + here == terms else 0,
                )  # fmt: skip
        return
    _list_axis(lists, 0, vertical, 2 * vertical.taps, horizontal.planes * plane, pixel)
    _list_axis(lists, 2 * vertical.taps, horizontal, horizontal.taps, plane, 1)
    step, apart = _ratio(vertical)
    for first in range(min(apart, vertical.grid)):
        i = first
        while i < vertical.grid:
            rows = _tile_of(vertical.taps, step, (vertical.grid - i + apart - 1) // apart)
            _row_of_tiles(
                kernels, rows, lists, source + i * pixel * size, weight, vertical.taps - (rows - 1) * step, step,
                vertical.taps, horizontal, horizontal.taps, target + i * pitch * size, apart * pitch, bias,
            )  # fmt: skip
            i += rows * apart


@kernel
def _tile_of(taps: Any, step: Any, left: Any) -> Any:
    """Grid rows of a tile, of those that are left: neighbours meet what is `step` of so many taps further."""
    most = 4 if taps >= 3 * step else 2 if taps >= step else 1
    return 4 if min(left, most) >= 4 else 2 if min(left, most) >= 2 else 1


def list_slice_entries(depth: Axis, vertical: Axis, horizontal: Axis) -> int:
    """Entries of the lists of a correlation of slices."""
    return 2 * depth.taps + vertical.taps * horizontal.taps


@kernel
def correlate_slices(
    kernels: Any, lists: Any, source: Any, weight: Any, depth: Axis, vertical: Axis, horizontal: Axis, target: Any,
    bias: Any,
) -> None:  # fmt: skip
    """target[(d, i, k)] = bias + sum over taps of weight[tap] * what grid point (i, k) of slice d meets.

    As `correlate` of one channel with short sums: a slice is a row of the grid, a plane of the volume a row of the
    plane, and all its taps are in one list. Planes of the volume lie one behind another, those of a stride in height
    and width within each; the axis in depth has no planes of its own.
    """
    size, pixel = kernels[ELEMENT], horizontal.padded
    plane = vertical.padded * horizontal.padded
    each = vertical.planes * horizontal.planes * plane
    for t in range(2 * depth.taps):
        lists[t] = t * depth.tap_step * each
    at, taps = 2 * depth.taps, vertical.taps * horizontal.taps
    for s in range(vertical.taps):
        row = s % vertical.planes * horizontal.planes * plane
        row += (vertical.shift + s * vertical.tap_step) // vertical.step * pixel
        _list_axis(lists, at, horizontal, horizontal.taps, plane, 1)
        for t in range(at, at + horizontal.taps):
            lists[t] += row
        at += horizontal.taps
    step, apart = _ratio(depth)
    pixels = vertical.grid * horizontal.grid
    for first in range(min(apart, depth.grid)):
        d = first
        while d < depth.grid:
            slices = _tile_of(depth.taps, step, (depth.grid - d + apart - 1) // apart)
            for i in range(vertical.grid):
                _row_of_tiles(
                    kernels, slices, lists, source + (d * depth.step * each + i * pixel) * size, weight,
                    depth.taps - (slices - 1) * step, step, depth.taps, horizontal, taps,
                    target + (d * pixels + i * horizontal.grid) * size, apart * pixels, bias,
                )  # fmt: skip
            d += slices * apart


@kernel
def _row_of_tiles(
    kernels: Any, rows: Any, lists: Any, source: Any, weight: Any, full: Any, step: Any, taps: Any, horizontal: Axis,
    of_row: Any, target: Any, pitch: Any, bias: Any,
) -> None:  # fmt: skip
    """So many grid rows, `pitch` apart in the target, in tiles of nearly equal width; filters have `taps` rows of
    `of_row`."""
    size, lanes, widest = kernels[ELEMENT], kernels[LANES], kernels[VECTORS]
    vectors = (horizontal.grid + lanes - 1) // lanes
    panels = (vectors + widest - 1) // widest
    j = 0
    while panels > 0:
        width = (vectors + panels - 1) // panels
        here = min(width * lanes, horizontal.grid - j)
        _call_tile(
            kernels[TILES + rows // 2 * widest + width - 1], source + j * size, lists.ctypes.data,
            lists.ctypes.data + 16 * taps, of_row, full, step, weight, target + j * size, pitch, here, bias,
        )  # fmt: skip
        j += here
        vectors -= width
        panels -= 1


# --- filling, and putting together ----------------------------------------------------------------------------------


@kernel
def fill(tiles: Any, planes: Any, image: Any, vertical: Axis, horizontal: Axis) -> None:
    """Fill all planes of one channel from an image, see `Axis`; both are addresses, `tiles` the kernels of `micro`."""
    step, pitch, size = horizontal.step, horizontal.padded, tiles[ELEMENT]
    for p in range(vertical.planes):
        shift_h = p * vertical.plane_step % vertical.step + vertical.first
        top, bottom = clipped(shift_h, vertical.step, vertical.size, vertical.padded)
        source_row = image + (top * vertical.step + shift_h) * horizontal.size * size
        for q in range(horizontal.planes):
            shift_w = q * horizontal.plane_step % step + horizontal.first
            left, right = clipped(shift_w, step, horizontal.size, pitch)
            source, behind = source_row + (left * step + shift_w) * size, planes + bottom * pitch * size
            micro.fill_rows(tiles, planes, pitch, source, 0, top, pitch, 0, 0, 1)
            micro.fill_rows(
                tiles, planes + top * pitch * size, pitch, source, vertical.step * horizontal.size, bottom - top, left,
                right - left, pitch - right, step,
            )  # fmt: skip
            micro.fill_rows(tiles, behind, pitch, source, 0, vertical.padded - bottom, pitch, 0, 0, 1)
            planes += vertical.padded * pitch * size


def _weave(dtype: DType, lanes: int) -> emitting.Body:
    """target[2*k] = even[k], target[2*k + 1] = odd[k], `count` elements in all; of both whole vectors are read."""

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        even, odd, target, count = arguments
        whole, rest = builder.sdiv(count, index(2 * lanes)), builder.srem(count, index(2 * lanes))

        def weave(values: list[Any]) -> list[Any]:
            a, b, place = values
            first, second = v.zipped(v.load(a), v.load(b))
            v.store(first, place)
            v.store(second, v.offset(place, lanes))
            return [v.offset(a, lanes), v.offset(b, lanes), v.offset(place, 2 * lanes)]

        a, b, place = v.loop(whole, [v.pointer(even), v.pointer(odd), v.pointer(target)], weave)

        def weave_rest() -> list[Any]:
            for i, part in enumerate(v.zipped(v.load(a), v.load(b))):
                v.store_first([part], [v.offset(place, i * lanes)], builder.sub(rest, index(i * lanes)))
            return []

        v.either(rest, weave_rest, list)

    return body


_call_weave = emitting.caller(4)


@kernel
def weave(kernels: Any, even: Any, odd: Any, target: Any, count: Any) -> None:
    """Two rows into every second element of one, see `_weave`; addresses all but `count`."""
    _call_weave(kernels[WEAVE], even, odd, target, count)
