"""A weight gradient with input channels as lanes: of few filters a group, whose lanes would be empty in a product.

Pixels of the input are brought side by side once for all filters and taps; each pixel of the output gradient is
repeated for all lanes. They are walked and their blocks folded as in `weight_channels`, whose gradient this would be,
were each filter alone: of a channel a group.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..gemm import channel_lanes
from ..gemm.channel_lanes import ELEMENT, LANES, MOST_REPEATED, repeat
from ..gemm.estimate import channel_lanes_share
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.memory import CACHE_LINE
from ..simd import isa
from ..typing import DType
from . import weight_channels
from .algorithm import INDICES, Explained, Space
from .weight_channels import Totals, Walk, band_at, pack_band, packed_pixels, totals_of, walk_band, walk_of

# Filters of a group: their sums are in the first-level cache beside one another.
_MOST_FILTERS = 16


def declines(g: Geometry, dtype: DType) -> str | None:
    """Why it is not for these filters."""
    each = g.out_channels // g.groups
    if each > _MOST_FILTERS:
        return f"groups have {each} filters, it takes {_MOST_FILTERS} at most"
    return weight_channels.declines(g, dtype)


def _alike(g: Geometry) -> Geometry:
    """The problem of one of its filters a group."""
    return g._replace(out_channels=g.in_channels, groups=g.in_channels)


def _walk(g: Geometry, workers: int, dtype: DType) -> Walk:
    found: Walk = walk_of(_alike(g), workers, dtype, g.out_channels // g.groups)
    return found


def _vectors(g: Geometry, dtype: DType) -> int:
    """Vectors of channels, which are of one group each."""
    return g.groups * -(-(g.in_channels // g.groups) // isa.lanes(dtype))


@driver
def _weight_grad(
    task: Any, worker: Any, g: Geometry, walk: Walk, kernels: Any, first: Any, stop: Any, dy: Any, x: Any, dw: Any,
    scratches: Any, lists: Any,
) -> None:  # fmt: skip
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, whole totals, which are added to `dw` if they are not the
    first. Tasks are (vector of channels of a group, chunk of the rows of its filters).
    """
    size, lanes, pieces = kernels[ELEMENT], kernels[LANES], kernels[channel_lanes.ROW_PIECES]
    each, channels, pixels = g.out_channels // g.groups, g.in_channels // g.groups, g.out_h * g.out_w
    vectors, all_taps = (channels + lanes - 1) // lanes, g.kernel_h * g.kernel_w
    vector, piece = task // walk.chunks, task % walk.chunks * walk.chunk
    end = min(pieces, piece + walk.chunk)
    group, c = vector // vectors, vector % vectors * lanes
    scratch, sources = scratches[worker], lists[worker]
    base = -scratch.ctypes.data % CACHE_LINE // size
    here = scratch.ctypes.data + base * size
    met, plane = sources.ctypes.data, g.in_h * g.in_w * size
    table = sources.ctypes.data + 8 * lanes
    sources[lanes + MOST_REPEATED] = 0
    kh, stop_kh = piece * g.kernel_h // pieces, end * g.kernel_h // pieces
    taps = (stop_kh - kh) * g.kernel_w
    term = first
    while term < stop:
        n, oh, ow, rows, cols = band_at(g, walk, term, stop)
        for j in range(lanes):  # behind the last channel it is summed again
            channel = group * channels + min(c + j, channels - 1)
            sources[j] = x.ctypes.data + (n * g.in_channels + channel) * plane
        pack_band(g, walk, kernels, met, 0, scratch, base, kh, stop_kh, oh, ow, rows, cols)
        for e in range(each):
            o = group * each + e
            sources[lanes] = dy.ctypes.data + (n * g.out_channels + o) * pixels * size
            repeat(kernels, table, oh * g.out_w + ow, rows * cols, here + walk.gradients_at * size)
            sums = e * taps * lanes
            walk_band(
                g, walk, kernels, piece, end, here, rows, cols, term, stop, scratch, base + walk.chains_at + sums,
                base + walk.totals_at + sums, taps, dw, (o * channels + c) * all_taps + kh * g.kernel_w, all_taps,
                min(lanes, channels - c),
            )  # fmt: skip
        term += rows * cols


def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Scratch, and where channels and the output gradient lie."""
    lists = isa.lanes(dtype) + 2 * MOST_REPEATED
    return Space((workers, _walk(g, workers, dtype).elements), name="bands"), Space((workers, lists), INDICES, "lists")


# Cycles of a run of pixels, to and from its chains; and of an element of a total that is put where it belongs.
# With them, of 56 gradients of 1 to 12 filters, AVX-512 and AVX2, 25 are taken, in 0.11 to 1.06 of the product's time,
# and one in 1.25; those of few pixels are left to it, which takes up to 1.9 times as long.
_RUN_CYCLES, _LAND_CYCLES = 60, 3


def explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    walk, lanes, results = _walk(g, workers, dtype), isa.lanes(dtype), g.batch * g.out_h * g.out_w
    vectors, each, taps = _vectors(g, dtype), g.out_channels // g.groups, g.kernel_h * g.kernel_w
    row_pieces, col_pieces = channel_lanes.pieces(g.kernel_h, g.kernel_w)
    tasks = vectors * walk.chunks
    rows, width = packed_pixels(g, walk)
    # Whole squares of pixels are transposed.
    packed = walk.chunks * results * rows * -(-width // lanes) * lanes / max(1, walk.rows * walk.cols)
    filled = g.in_channels / max(1, vectors * lanes)
    runs = each * (results / max(1, min(walk.cols, TERM_BLOCK)) + results / TERM_BLOCK) * row_pieces * col_pieces
    landed = -(-results // TERMS_A_TOTAL) * each * taps * lanes
    share = channel_lanes_share(
        results * each * taps, packed, 0, filled, tasks, workers, is_long=True, shared=walk.chunks * results * each,
        around=runs * _RUN_CYCLES + landed * _LAND_CYCLES,
    )  # fmt: skip
    piece = f"{walk.rows} rows" if walk.rows > 1 else f"{walk.cols} pixels of a row"
    return Explained(f"input channels as lanes, {piece} at once; tasks: {tasks}", share)


@lru_cache(maxsize=256)
def _totals(g: Geometry, workers: int, dtype: DType) -> Totals:
    rows = g.out_channels // g.groups * g.kernel_h
    return totals_of(_weight_grad, g, _walk(g, workers, dtype), _vectors(g, dtype), rows, dtype)


def bind(workers: int, g: Geometry, dtype: DType, scratches: Any, lists: Any) -> Callable[..., None]:
    """`run(dy, x, dw)` in these workspaces."""
    totals = _totals(g, workers, dtype)
    return lambda dy, x, dw: totals.run(workers, g, dy, x, dw, scratches, lists)
