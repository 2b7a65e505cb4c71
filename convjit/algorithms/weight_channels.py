"""A weight gradient with output channels as lanes, whose chains are independent: depthwise, or of few filters a group.

A lane sees a channel of its own group, so that lanes of several groups are summed at once; of groups of several
channels, one after the other. Knows how the pixels of a batch are walked in order, some rows or a part of a row at a
time, and folds blocks as `gemm.summation` says; does not know how a run of pixels is summed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm import channel_lanes
from ..gemm.channel_lanes import ELEMENT, LANES, MOST_REPEATED, extend_chains, most_repeated, pack, pack_row
from ..gemm.estimate import channel_lanes_share
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..gemm.tasks import ONE_CHANNEL_TASK_MULTIPLICATIONS
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, run_in_turn
from ..runtime.memory import CACHE_LINE
from ..simd import isa
from ..typing import DType
from .algorithm import INDICES, Explained, Space, work_ns


class Walk(NamedTuple):
    """How a task walks over pixels: `rows` whole output rows at a time, or `cols` pixels of one row."""

    rows: int
    cols: int
    chunk: int  # pieces of a task: of the rows of a filter's channels, one channel after the other
    chunks: int
    # Where packed gradients, chains and totals begin in a worker's scratch, behind the packed pixels.
    gradients_at: int
    chains_at: int
    totals_at: int
    elements: int


# Packed pixels and gradients stay in the second-level cache between packing and reading; where pixels are repeated, and
# packing takes little time, in the first level, if so many rows of outputs find room there: 256-256 (56x56, stride 2,
# 32 groups) took 0.81 ms, and 1.35 ms in the second level.
_PACKED_BYTES, _NEAR_BYTES, _FEWEST_ROWS = 1 << 19, 1 << 15, 3
# A task of long rows takes up to so many times as long as others.
_LONGEST_TASKS = 8


def declines(g: Geometry, dtype: DType) -> str | None:
    """Why a filter's rows are too long: a task has whole rows of a total, and may take a few times 10 ms at most."""
    taps = _LONGEST_TASKS * ONE_CHANNEL_TASK_MULTIPLICATIONS // (TERMS_A_TOTAL * isa.lanes(dtype))
    return f"rows of filters have {g.kernel_w} taps, it takes {taps} at most" if g.kernel_w > taps else None


def _are_repeated(g: Geometry, lanes: int) -> bool:
    """Whether most vectors are of so few groups that pixels are repeated."""
    return bool(lanes <= most_repeated(lanes) * (g.out_channels // g.groups))


@lru_cache(maxsize=256)
def walk_of(g: Geometry, workers: int, dtype: DType, summed: int = 1) -> Walk:
    """How the gradient is walked, where each lane has so many sums of a tap at once."""
    lanes, (pieces, _) = isa.lanes(dtype), channel_lanes.pieces(g.kernel_h, g.kernel_w)
    vectors, all_pieces = -(-g.out_channels // lanes), g.in_channels // g.groups * pieces
    # A total of a task stays short, and there are tasks for all workers.
    longest = ONE_CHANNEL_TASK_MULTIPLICATIONS // (TERMS_A_TOTAL * lanes * g.kernel_w * summed) * pieces // g.kernel_h
    chunk = min(all_pieces, max(1, longest))
    if workers > 1:
        chunk = min(chunk, max(1, vectors * all_pieces // (2 * workers)))
    chunks = -(-all_pieces // chunk)
    kernel_rows = min(g.kernel_h, chunk * -(-g.kernel_h // pieces))
    width = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1
    reach = (kernel_rows - 1) * g.dilation_h + 1
    for size in (_NEAR_BYTES, _PACKED_BYTES) if _are_repeated(g, lanes) else (_PACKED_BYTES,):
        room = size // (dtype.itemsize * lanes)
        rows = min(g.out_h, 1 + (room - reach * width - g.out_w) // (g.stride_h * width + g.out_w))
        if rows >= min(_FEWEST_ROWS, g.out_h):
            break
    cols = g.out_w
    if rows <= 1:
        rows = 1
        reach = kernel_rows  # only the rows that are met
        cols = max(lanes, (room // reach - (g.kernel_w - 1) * g.dilation_w) // (g.stride_w + 1))
        cols = min(g.out_w, cols)
        width = (cols - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1
    # Behind each packed part a square of lanes is written.
    gradients_at = lanes * (((rows - 1) * g.stride_h + reach) * width + lanes)
    chains_at = gradients_at + lanes * (rows * cols + lanes)
    taps = summed * chunk * -(-g.kernel_h // pieces) * g.kernel_w * lanes
    elements = chains_at + 2 * taps + CACHE_LINE // dtype.itemsize
    return Walk(rows, cols, chunk, chunks, gradients_at, chains_at, chains_at + taps, elements)


@driver
def _weight_grad(
    task: Any, worker: Any, g: Geometry, walk: Walk, kernels: Any, first: Any, stop: Any, dy: Any, x: Any, dw: Any,
    scratches: Any, lists: Any,
) -> None:  # fmt: skip
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, whole totals, which are added to `dw` if they are not the
    first. Tasks are (vector of output channels, chunk of the rows of a filter's channels).
    """
    size, lanes, pieces = kernels[ELEMENT], kernels[LANES], kernels[channel_lanes.ROW_PIECES]
    each, channels, pixels = g.out_channels // g.groups, g.in_channels // g.groups, g.out_h * g.out_w
    of_filter = channels * g.kernel_h * g.kernel_w
    o, first_piece = task // walk.chunks * lanes, task % walk.chunks * walk.chunk
    stop_piece = min(channels * pieces, first_piece + walk.chunk)
    scratch, sources = scratches[worker], lists[worker]
    base = -scratch.ctypes.data % CACHE_LINE // size
    here = scratch.ctypes.data + base * size
    gradients, plane = sources.ctypes.data + 8 * lanes, g.in_h * g.in_w * size
    # Images that the lanes of `each` filters share are repeated, where they are few.
    group, table = o // each, 2 * lanes
    repeated = min(o + lanes - 1, g.out_channels - 1) // each - group + 1
    for i in range(min(repeated, MOST_REPEATED)):
        sources[table + MOST_REPEATED + i] = (group + i) * each - o
    met = sources.ctypes.data + 8 * table
    if repeated > most_repeated(lanes):
        repeated, met = 0, sources.ctypes.data
    term = first
    while term < stop:
        n, oh, ow, rows, cols = band_at(g, walk, term, stop)
        for j in range(lanes):  # behind the last channel it is summed again
            channel = min(o + j, g.out_channels - 1)
            sources[lanes + j] = dy.ctypes.data + (n * g.out_channels + channel) * pixels * size
        pack(kernels, gradients, oh * g.out_w + ow, rows * cols, here + walk.gradients_at * size)
        of_channel = 0  # chains of the channels before
        for c in range(first_piece // pieces, (stop_piece + pieces - 1) // pieces):
            piece, end = max(first_piece - c * pieces, 0), min(stop_piece - c * pieces, pieces)
            kh, stop_kh = piece * g.kernel_h // pieces, end * g.kernel_h // pieces
            planes = x.ctypes.data + (n * g.in_channels + c) * plane
            if repeated > 0:
                for i in range(repeated):
                    sources[table + i] = planes + (group + i) * channels * plane
            else:
                for j in range(lanes):
                    sources[j] = planes + min(o + j, g.out_channels - 1) // each * channels * plane
            pack_band(g, walk, kernels, met, repeated, scratch, base, kh, stop_kh, oh, ow, rows, cols)
            taps = (stop_kh - kh) * g.kernel_w
            chains, totals = base + walk.chains_at + of_channel, base + walk.totals_at + of_channel
            walk_band(
                g, walk, kernels, piece, end, here, rows, cols, term, stop, scratch, chains, totals, taps, dw,
                o * of_filter + (c * g.kernel_h + kh) * g.kernel_w, of_filter, min(lanes, g.out_channels - o),
            )  # fmt: skip
            of_channel += taps * lanes
        term += rows * cols


@kernel
def _width(g: Geometry, cols: Any) -> Any:
    """Pixels of a row that so many output pixels meet, from the first to the last."""
    return (cols - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1


@kernel
def _packed_rows(g: Geometry, walk: Walk, rows: Any, kernel_rows: Any) -> Any:
    """Rows that are packed of a channel: those that lie side by side, or those that one output row meets."""
    return (rows - 1) * g.stride_h + (kernel_rows - 1) * g.dilation_h + 1 if walk.rows > 1 else kernel_rows


def packed_pixels(g: Geometry, walk: Walk) -> tuple[int, int]:
    """Rows, and pixels of one, that are packed of a channel for a whole band and a chunk of a filter's rows."""
    reach = min(g.kernel_h, walk.chunk * -(-g.kernel_h // channel_lanes.pieces(g.kernel_h, g.kernel_w)[0]))
    return int(_packed_rows(g, walk, walk.rows, reach)), int(_width(g, walk.cols))


@kernel
def band_at(g: Geometry, walk: Walk, term: Any, stop: Any) -> Any:
    """The image, row and pixel of an output term, and how many rows and pixels from there on are walked together."""
    oh, ow = term // g.out_w % g.out_h, term % g.out_w
    rows, cols = 1, min(walk.cols, g.out_w - ow, stop - term)
    if cols == g.out_w:
        rows = min(walk.rows, g.out_h - oh, (stop - term) // g.out_w)
    return term // (g.out_h * g.out_w), oh, ow, rows, cols


@kernel
def pack_band(
    g: Geometry, walk: Walk, kernels: Any, met: Any, repeated: Any, scratch: Any, base: Any, kh: Any, stop_kh: Any,
    oh: Any, ow: Any, rows: Any, cols: Any,
) -> None:  # fmt: skip
    """What a band meets at rows `kh .. stop_kh` of the filter, to `scratch` from `base` on; `met` as of `pack_row`."""
    width, apart = _width(g, cols), g.dilation_h if walk.rows == 1 else 1
    in_row, in_col = oh * g.stride_h + kh * g.dilation_h - g.pad_top, ow * g.stride_w - g.pad_left
    for r in range(_packed_rows(g, walk, rows, stop_kh - kh)):
        pack_row(
            kernels, met, repeated, scratch, base + r * width * kernels[LANES], in_col, width, in_row + r * apart,
            g.in_h, g.in_w,
        )  # fmt: skip


@kernel
def walk_band(
    g: Geometry, walk: Walk, kernels: Any, piece: Any, stop_piece: Any, here: Any, rows: Any, cols: Any, first: Any,
    stop: Any, scratch: Any, chains: Any, totals: Any, taps: Any, dw: Any, place: Any, apart: Any, count: Any,
) -> None:  # fmt: skip
    """Extend the sums of `taps` taps of one channel by rows x cols packed terms, from `first` on.

    Whole totals, and the last one, are put into `dw`: those of `count` lanes that count, the first one at `place`, each
    so far `apart` from the next.
    """
    size, lanes, width = kernels[ELEMENT], kernels[LANES], _width(g, cols)
    x_row = width * lanes * (1 if walk.rows == 1 else g.dilation_h)
    term = first
    for r in range(rows):
        q = 0
        while q < cols:
            run = min(cols - q, TERM_BLOCK - term % TERM_BLOCK)
            extend_chains(
                kernels, g.kernel_h, g.kernel_w, piece, stop_piece,
                here + (r * g.stride_h * width + q * g.stride_w) * lanes * size, x_row,
                g.dilation_w * lanes, g.stride_w * lanes,
                here + (walk.gradients_at + (r * cols + q) * lanes) * size, run,
                scratch.ctypes.data + chains * size, term % TERM_BLOCK,
            )  # fmt: skip
            q += run
            term += run
            if term % TERM_BLOCK != 0 and term != stop:
                continue
            if (term - 1) % TERMS_A_TOTAL < TERM_BLOCK:
                for i in range(taps * lanes):
                    scratch[totals + i] = scratch[chains + i]
            else:
                for i in range(taps * lanes):
                    scratch[totals + i] += scratch[chains + i]
            if term % TERMS_A_TOTAL != 0 and term != stop:
                continue
            for j in range(count):
                at = place + j * apart
                for t in range(taps):
                    value = scratch[totals + t * lanes + j]
                    dw[at + t] = value if term <= TERMS_A_TOTAL else dw[at + t] + value


def workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Scratch, and where channels lie."""
    scratch, lists = walk_of(g, workers, dtype).elements, 2 * (isa.lanes(dtype) + MOST_REPEATED)
    return Space((workers, scratch), name="bands"), Space((workers, lists), INDICES, "lists")


def explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    walk, lanes = walk_of(g, workers, dtype), isa.lanes(dtype)
    vectors, results = -(-g.out_channels // lanes), g.batch * g.out_h * g.out_w
    tasks = vectors * walk.chunks
    channels, (rows, width) = g.in_channels // g.groups, packed_pixels(g, walk)
    # Of each channel, and of each chunk of one, the rows that its taps meet.
    pixels = max(walk.chunks, channels) * results * rows * width / max(1, walk.rows * walk.cols)
    filled = g.out_channels / max(1, vectors * lanes)
    products, gradients = results * channels * g.kernel_h * g.kernel_w, walk.chunks * results
    packed, shared = (gradients, pixels) if _are_repeated(g, lanes) else (gradients + pixels, 0)
    share = channel_lanes_share(products, packed, 0, filled, tasks, workers, is_long=True, shared=shared)
    piece = f"{walk.rows} rows" if walk.rows > 1 else f"{walk.cols} pixels of a row"
    return Explained(f"channels as lanes, {piece} at once; tasks: {tasks}", share)


class Totals(NamedTuple):
    """A launch, its tasks, and how many terms it sums at once."""

    launch: Launch
    tasks: int
    terms: int

    def run(self, workers: int, g: Geometry, dy: Any, x: Any, dw: Any, *spaces: Any) -> None:
        """Launch after launch."""
        terms, flat = g.batch * g.out_h * g.out_w, dw.reshape(-1)
        if terms == 0:
            dw[...] = 0
        for first in range(0, terms, self.terms):
            stop = min(terms, first + self.terms)
            share = work_ns(g) * (stop - first) / terms
            run_in_turn(workers, self.launch.part(self.tasks, share, first, stop, dy, x, flat, *spaces))


def totals_of(summed: Any, g: Geometry, walk: Walk, vectors: int, rows: int, dtype: DType) -> Totals:
    """How a driver is launched that sums so many rows of taps for each of so many vectors.

    As many totals at once as keep a task short: they follow one another, so each launch waits for the last one.
    """
    taps = -(-rows // walk.chunks) * g.kernel_w * isa.lanes(dtype)
    together = TERMS_A_TOTAL * max(1, ONE_CHANNEL_TASK_MULTIPLICATIONS // (TERMS_A_TOTAL * taps))
    kernels = channel_lanes.kernels(dtype, g.kernel_h, g.kernel_w)
    return Totals(Launch(summed, vectors * walk.chunks, work_ns(g), g, walk, kernels), vectors * walk.chunks, together)


@lru_cache(maxsize=256)
def _totals(g: Geometry, workers: int, dtype: DType) -> Totals:
    vectors, rows = -(-g.out_channels // isa.lanes(dtype)), g.in_channels // g.groups * g.kernel_h
    return totals_of(_weight_grad, g, walk_of(g, workers, dtype), vectors, rows, dtype)


def bind(workers: int, g: Geometry, dtype: DType, scratches: Any, lists: Any) -> Callable[..., None]:
    """`run(dy, x, dw)` in these workspaces."""
    totals = _totals(g, workers, dtype)
    return lambda dy, x, dw: totals.run(workers, g, dy, x, dw, scratches, lists)
