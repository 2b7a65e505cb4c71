"""What share of the multiply-adds' peak a product can be expected to reach, from how it is cut.

Knows register tiles, packing and filling; measures nothing, and does not know caches, clocks or what else runs. Cycles
are those of a core that starts two multiply-adds and two loads a cycle, with a latency of four.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..simd import isa
from ..typing import Array, DType
from .direct import Direct
from .direct_kernels import cover_rows, rows_of_halves
from .direct_kernels import tile_rows as channel_tile_rows
from .pixel_sums import PixelSums
from .planes import Axis, plane_elements
from .product import RUN_CYCLES, VECTOR_CYCLES, Product
from .tiles import FMAS_A_CYCLE, TILE_CYCLES, lines_cycles, term_cycles, tile_cycles, tiles_cycles, widths

# Of filling planes: a load and a store a vector, much of it beyond the first-level cache; and where every second pixel
# is taken, by masked loads and shuffles: 256-256 (56x56, stride 2, 32 groups) with AVX2.
_FILL_CYCLES, _FILL_PARTED_CYCLES = 4, 16
# Of an element of a weight that is transposed alone, most of which is in no near cache.
_TRANSPOSE_CYCLES = 4

# The cycles below were fitted to calls with algorithm="direct" beside "implicit": which is faster they have to tell.
# Weights of more than so many bytes are read from beyond the second-level cache, a short run of each row at a time.
_CACHED_WEIGHTS, _FAR_WEIGHT_CYCLES = 1 << 19, 1
# Of direct convolution: a result that is transposed and put where it belongs, most of it in no near cache, which takes
# 5 to 8 cycles a vector in float32 with AVX2 and 16 with AVX-512; and an element of the weights that is packed.
_LAND_CYCLES, _PACKED_WEIGHT_CYCLES = 1, 0.5
# Of the cycles of other tiles, those of tiles of halves: so the chosen one of "direct" and "implicit" took 1.002 times
# as long as the better one, of 332 convolutions of 4 to 64 channels onto 8 to 16, in float32 on one thread with AVX-512
# (1.15 at most); with 0.85 it took 1.005.
_HALVES = 0.75
# A result of a product that is stored alone, as its neighbours belong to other phases, or with that of one other phase:
# of 22 input gradients with strides of 2 and 3 (AVX-512), none was left to the slower way by more than 7 %.
_SPREAD_CYCLES, _WOVEN_CYCLES = 3, 0.5
# Of depthwise operations, of a vector: a tap that is met, a result that is unpacked, a pixel that is packed, a product
# of a long sum and a pixel of one; with pixels as lanes, a tap and what is around a result's.
# Fitted to ten layers of 3x3 to 7x7 taps, 7x7 to 112x112 pixels and strides of 1 and 2, in float32 with AVX-512; those
# of long sums to nineteen of 2 to 8 filters a group, which of two ways is faster for their weight gradients; a pixel
# that lanes share is loaded, not transposed.
_CHANNEL_TAP_CYCLES, _UNPACK_CYCLES, _PIXEL_CYCLES = 1.3, 8, 11
_LONG_CYCLES, _LONG_PIXEL_CYCLES, _SHARED_PIXEL_CYCLES = 1.1, 7, 2
_PIXEL_TAP_CYCLES, _CORRELATED_CYCLES = 0.8, 10


def _panel_cycles(rows: int, width: int, terms: float, row: isa.InstructionSet, *, has_halves: bool) -> float:
    """Of a panel whose lanes are channels; `has_halves` where tiles of halves count."""
    heights = channel_tile_rows(row, width)
    cycles = sum(
        times * tile_cycles(terms, term_cycles(height, width, row.channel_speeds), TILE_CYCLES)
        for height, times in zip(heights, cover_rows(rows, heights), strict=True)
    )
    return cycles * _HALVES if has_halves and rows_of_halves(row, width) else cycles


def filling_cycles(channels: int, axes: tuple[Axis, Axis], dtype: DType) -> float:
    """Cycles of filling the planes of so many channels."""
    each = _FILL_PARTED_CYCLES if any(axis.step > 1 for axis in axes) else _FILL_CYCLES
    return plane_elements(channels, *axes) / isa.lanes(dtype) * each


def forward_share(
    p: Product, taps: float, filling: float, tasks: int, workers: int, dtype: DType, transposed: int = 0, *,
    columns: int = 0,
) -> float:  # fmt: skip
    """Of a forward product or an input gradient: sums of `taps` terms a channel.

    `filling` cycles a band, and `transposed` elements of the weight in all. Of several phases, neighbouring results
    belong to so many `columns` of them; 0 where there is one phase.
    """
    lanes, terms = isa.lanes(dtype), p.channels * taps
    pieces = _pieces(p, p.lanes, lanes)
    if p.line:
        panel = lines_cycles(p.chunk, max(1, p.lanes // p.grid_w), p.line, terms)
    elif p.in_place:
        panel = sum(tiles_cycles(p.chunk, piece, terms) for piece in pieces)
    else:
        packing = len(pieces) * RUN_CYCLES + sum(pieces) * VECTOR_CYCLES
        panel = tiles_cycles(p.chunk, -(-p.lanes // lanes), terms) + terms * packing
    chunks = -(-p.rows // max(p.chunk, 1))
    panels = p.grid_h * p.grid_w / max(p.lanes, 1)
    weights = p.groups * p.rows * terms
    far = _FAR_WEIGHT_CYCLES * weights if weights * dtype.itemsize > _CACHED_WEIGHTS else 0
    once = far + transposed * _TRANSPOSE_CYCLES / max(p.batch * p.bands, 1)
    each = 0 if columns == 0 else _WOVEN_CYCLES if columns <= 2 else _SPREAD_CYCLES
    spread = each * p.groups * p.rows * p.grid_h * p.grid_w
    cycles = p.groups * chunks * panels * panel + filling + once + spread
    useful = p.groups * p.rows * terms * p.grid_h * p.grid_w / lanes / FMAS_A_CYCLE
    return _dealt(useful, cycles, tasks, workers)


def direct_share(d: Direct, before: Array, filling: float, tasks: int, workers: int, dtype: DType) -> float:
    """Of direct convolution, as `forward_share`; `before` is that of `Phases`."""
    row, lanes, terms = isa.here(), isa.lanes(dtype), d.channels * d.taps
    points = min(d.points, d.grid_h * d.grid_w)
    # Of one row, whose halves lie alike, too, they are not counted: most are of 1x1 kernels, which wait for memory.
    # Counted, the chosen way of 181 such convolutions onto 8 to 16 channels took 1.012 times as long as the better one,
    # and not 1.004. (Of sequences, whose kernels are longer, nothing was measured.)
    has_halves = points % (2 * max(d.grid_w, 1)) == 0
    panels = sum(
        phases * count * _panel_cycles(points, width, d.channels * taps, row, has_halves=has_halves)
        for taps, phases in Counter(np.diff(before).tolist()).items()
        for width, count in widths(d.vectors, d.panels)
    )  # fmt: skip
    chunks = d.grid_h * d.grid_w / max(points, 1)
    phases = d.phases_h * d.phases_w
    each = d.groups * (chunks * panels + phases * d.grid_h * d.grid_w * d.vectors * lanes * _LAND_CYCLES)
    packing = _PACKED_WEIGHT_CYCLES * (lanes / min(d.taps, lanes) if d.is_gradient and d.taps > 1 else 1)
    times = d.chunks if d.together > 0 else 1 / max(d.batch * d.bands, 1)  # a band
    once = d.groups * d.rows * terms * packing * times
    useful = d.groups * d.rows * terms * d.grid_h * d.grid_w / lanes / FMAS_A_CYCLE
    return _dealt(useful, each + filling + once, tasks, workers)


def weight_share(s: PixelSums, batch: int, filling: float, tasks: int, workers: int, dtype: DType) -> float:
    """Of a weight gradient, `filling` cycles an image; so many tasks at once."""
    row, lanes, pixels = isa.here(), isa.lanes(dtype), batch * s.grid_h * s.grid_w
    sums = sum(
        # As many channels, with all their taps, in either half.
        count * _panel_cycles(s.chunk, width, pixels, row, has_halves=s.chunk % (2 * s.taps) == 0)
        for width, count in widths(s.vectors, s.panels)
    )
    packed = pixels * s.vectors * lanes * _PACKED_WEIGHT_CYCLES  # of the output gradient: charged as a weight's
    chunks = s.rows / max(s.chunk, 1)
    cycles = s.groups * chunks * (sums + packed) + batch * filling
    useful = s.groups * s.rows * s.columns * pixels / lanes / FMAS_A_CYCLE
    return _dealt(useful, cycles, tasks, workers)


def channel_lanes_share(
    products: float, packed: float, unpacked: float, filled: float, tasks: int, workers: int, *, is_long: bool = False,
    shared: float = 0, around: float = 0,
) -> float:  # fmt: skip
    """Of an operation with channels as lanes: of a vector of channels, `filled` of whose lanes count.

    So many pixels are packed before the products and unpacked after them; sums are `is_long` over pixels, else taps,
    and then some of the pixels may be `shared` by lanes; `around` are other cycles.
    """
    each, pixel = (_LONG_CYCLES, _LONG_PIXEL_CYCLES) if is_long else (_CHANNEL_TAP_CYCLES, _PIXEL_CYCLES)
    cycles = products * each + unpacked * _UNPACK_CYCLES + packed * pixel + shared * _SHARED_PIXEL_CYCLES
    cycles += around
    return _dealt(filled * products / FMAS_A_CYCLE, cycles, tasks, workers)


def pixel_lanes_share(taps: float, filling: float, vectors: float, filled: float, tasks: int, workers: int) -> float:
    """Of a depthwise operation with pixels as lanes: so many vectors of results, `filled` of whose lanes count.

    So many vectors of planes are filled before.
    """
    cycles = vectors * (taps * _PIXEL_TAP_CYCLES + _CORRELATED_CYCLES) + filling * _FILL_CYCLES
    return _dealt(filled * vectors * taps / FMAS_A_CYCLE, cycles, tasks, workers)


def with_turning(share: float, multiplications: int, moved: int, dtype: DType) -> float:
    """A share, where so many elements are transposed beside the multiplications."""
    if share <= 0 or multiplications == 0:
        return share
    useful = multiplications / isa.lanes(dtype) / FMAS_A_CYCLE
    return useful / (useful / share + moved * _LAND_CYCLES)


def _pieces(p: Product, count: int, lanes: int) -> list[int]:
    """Vectors of each run of neighbouring pixels that so many grid points meet."""
    if p.padded_w == p.grid_w and (p.grid_w == 1 or not p.in_place):
        return [-(-count // lanes)]
    whole, rest = divmod(count, max(p.grid_w, 1))
    return [-(-p.grid_w // lanes)] * whole + ([-(-rest // lanes)] if rest else [])


def _dealt(useful: float, cycles: float, tasks: int, workers: int) -> float:
    """The share, where so many tasks are dealt to the workers: some wait for the last one."""
    turns = -(-tasks // workers)
    return useful / cycles * (tasks / (workers * turns)) if cycles > 0 and turns > 0 else 0.0
