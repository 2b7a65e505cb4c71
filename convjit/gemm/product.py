"""Convolution as a product: rows of `a` times what grid points meet in planes, tile by tile.

Rows are channels of the result, terms are (channel, tap), lanes are neighbouring grid points. A tile of lanes is packed
into a panel, or read where it lies: im2col happens on the way, no column matrix exists. Knows planes and tiles; does
not know whether it computes outputs or an input gradient.
Source: S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3 (lowering while packing);
M. Dukhan, "The Indirect Convolution Algorithm" (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..runtime.compile import kernel
from ..runtime.memory import CACHE_LINE
from ..simd import isa
from ..typing import Array, DType
from .bands import band_count
from .blocked import (
    PANEL_LANES,
    PANEL_OFFSETS,
    PIECES,
    list_panel_offsets,
    row_chunk,
    tile_count,
    tile_lanes,
)
from .micro import (
    ELEMENT,
    LANES,
    VECTORS_A_PIECE,
    asking_kernels,
    line_kernels,
    multiply,
    multiply_asking,
    multiply_lines,
    pack,
)
from .micro import kernels as kernels_of
from .planes import Axis, add_piece, elements_a_channel, list_pieces, plane_elements
from .summation import TERM_BLOCK, TERMS_A_TOTAL
from .tiles import lines_cycles, tile_lines, tiles_cycles

# Whether tiles of lanes are packed into panels; read from filled planes, behind which may be read; or read from images
# as they lie, but for tiles that would read behind the last of them, which are packed.
PACKED, FROM_PLANES, FROM_IMAGES = 0, 1, 2


class Product(NamedTuple):
    """A product, how it is cut into tasks, and how lanes meet the planes: all that compiled code is told."""

    batch: int
    groups: int
    rows: int  # of a group
    channels: int  # of a group
    taps: int
    grid_h: int  # of a band
    grid_w: int
    image_h: int  # rows of the grid in all
    padded_w: int  # pixels from a row of a plane to the next
    each: int  # elements of all planes of a channel
    result: int  # elements of a plane of the results
    lanes: int  # of a tile
    tiles: int  # a band
    chunk: int  # rows a task
    in_place: int  # PACKED, or one of the ways that read planes in place, row by row of the grid
    line: int  # vectors of a row of the grid, several of which share register tiles in place; 0 where each is alone
    parts: int  # that the groups are cut into, each of which has bands of its own
    asks: int  # 1 where what the next tile meets, in images, is asked for meanwhile

    @property
    def tasks(self) -> int:
        """Tasks a band: of each of its groups, chunk of rows and tile."""
        return int(task_count(self))

    @property
    def bands(self) -> int:
        """Bands of each part, which one worker fills and multiplies; one if planes are filled first."""
        return int(band_count(self))

    @property
    def is_short(self) -> bool:
        """Whether sums have one total, so that they can be added up where they belong."""
        return self.channels * self.taps <= TERMS_A_TOTAL


@kernel
def task_count(p: Product) -> Any:
    """Tasks a band: of each of its groups, chunk of rows and tile."""
    return p.groups // p.parts * ((p.rows + p.chunk - 1) // max(p.chunk, 1)) * p.tiles


# Cycles on AVX-512 that packing takes for a run of neighbouring pixels, and for each of its vectors.
RUN_CYCLES, VECTOR_CYCLES = 6, 3


def plan_product(
    axes: tuple[Axis, Axis], batch: int, groups: int, rows: int, channels: int, result: int, phases: int, workers: int,
    dtype: DType, image_h: int | None = None, *, dense: bool = True, parts: int = 1,
) -> Product:  # fmt: skip
    """The product of a phase, one of so many; `rows` and `channels` are those of a group.

    Where `axes` are those of a band, the grid has `image_h` rows in all, and groups are cut into so many `parts`.
    `dense` where neighbouring grid points land beside one another: a stride of 1.
    """
    vertical, horizontal = axes
    taps, extent = vertical.taps * horizontal.taps, vertical.grid * horizontal.grid
    # Grid points that meet neighbours, of a row, or of a column without padding beside it.
    run = extent if horizontal.padded == horizontal.grid == 1 else horizontal.grid
    tiles = int(tile_count(extent))
    lanes = int(tile_lanes(extent, isa.lanes(dtype)))
    chunk = row_chunk(rows, batch * groups * phases * tiles, channels * taps, workers)
    each = elements_a_channel(vertical, horizontal)
    vectors, terms = -(-run // isa.lanes(dtype)), max(channels * taps, 1)
    alone, lined = tiles_cycles(chunk, vectors, terms), math.inf  # of a row of the grid
    if dense and run < extent and 0 < vectors <= _LONGEST_LINE:  # rows of several phases differ in length
        lined = lines_cycles(chunk, vertical.grid, vectors, terms) / vertical.grid
    if not dense:
        lanes, tiles = (int(size) for size in phase_tiles(vertical.grid, horizontal.grid))
    way, asks = PACKED, 0
    if extent > 0 and plane_elements(1, *axes) > 0:
        panels = tiles * tiles_cycles(chunk, -(-lanes // isa.lanes(dtype)), terms)
        if _pays_in_place(axes, run, terms, min(alone, lined), panels * run / extent, dtype):
            way = FROM_PLANES
    elif extent > 0 and dense and taps == vertical.grid == 1:
        apart = each * dtype.itemsize
        is_far = batch * groups * channels * apart > _FAR_BYTES
        if _stays_near(apart, chunk, terms, is_far=is_far):
            way, asks = FROM_IMAGES, int(is_far)
    elif extent > 0 and dense and run >= isa.lanes(dtype):
        of_images, each_tile = _image_tile(run, extent, isa.lanes(dtype))
        in_place = tiles_cycles(chunk, math.ceil(each_tile), terms) * run / of_images
        panels = tiles * tiles_cycles(chunk, -(-lanes // isa.lanes(dtype)), terms)
        if _pays_in_place(axes, run, terms, in_place, panels * run / extent, dtype):
            way, lanes, tiles = FROM_IMAGES, of_images, -(-extent // of_images)
    line = vectors if way == FROM_PLANES and lined < alone else 0
    lands_alone = dense and channels * taps <= TERMS_A_TOTAL  # in no scratch, whose rows are those of a panel
    if dense and way == FROM_PLANES and (lands_alone or run <= PANEL_LANES):  # whole rows of the grid
        lanes, tiles = _whole_rows(run, extent, line)
    return Product(
        batch=batch,
        groups=groups,
        rows=rows,
        channels=channels,
        taps=taps,
        grid_h=vertical.grid,
        grid_w=horizontal.grid,
        image_h=image_h or vertical.grid,
        padded_w=horizontal.padded,
        each=each,
        result=result,
        lanes=lanes,
        tiles=tiles,
        chunk=chunk,
        in_place=way,
        line=line,
        parts=parts,
        asks=asks,
    )


def _whole_rows(run: int, extent: int, line: int) -> tuple[int, int]:
    """Lanes of a tile of whole rows of the grid, of so many lanes each, and how many tiles there are."""
    together = max(1, min(PANEL_LANES, extent) // run)
    if line > 0:  # whole tiles of the tallest ones
        largest = tile_lines(isa.here(), isa.here().rows, line)
        together = max(together // largest * largest, min(together, largest))
    return run * together, -(-extent // (run * together))


@kernel
def _phase_tile_size(height: Any, width: Any) -> Any:
    """Rows and columns of the grid in a tile that phases share, where the first one, the largest, has so many."""
    most = max(PANEL_LANES // max(width, 1), 1)
    down, across = max((height + most - 1) // most, 1), max((width + PANEL_LANES - 1) // PANEL_LANES, 1)
    return (height + down - 1) // down, (width + across - 1) // across


@kernel
def phase_tiles(height: Any, width: Any) -> Any:
    """Lanes of such a tile, and how many tiles there are."""
    rows, cols = _phase_tile_size(height, width)
    return rows * cols, ((height + rows - 1) // max(rows, 1)) * ((width + cols - 1) // max(cols, 1))


class PhaseTile(NamedTuple):
    """Grid points of a phase: `height` rows from `row` on, and columns `col .. stop` as far as there are."""

    row: int
    height: int
    col: int
    stop: int


@kernel
def phase_tile(p: Product, task: Any, grid_h: Any) -> Any:
    """Those of a task of `task_of`, in phases of `grid_h` rows; `p` is the product of the first phase."""
    rows, cols = _phase_tile_size(p.grid_h, p.grid_w)
    tile, across = task % p.tiles, (p.grid_w + cols - 1) // cols
    row, col = tile // across * rows, tile % across * cols
    return PhaseTile(row, max(0, min(rows, grid_h - row)), col, col + cols)


# Vectors of a row of the grid up to which several rows share register tiles.
_LONGEST_LINE = 2


def _pays_in_place(
    axes: tuple[Axis, Axis], run: int, terms: int, in_place: float, panels: float, dtype: DType
) -> bool:  # fmt: skip
    """Whether a run takes fewer cycles in place, with lanes that it leaves empty, than packed, its part of panels."""
    vertical, horizontal = axes
    lanes = isa.lanes(dtype)
    planes = elements_a_channel(vertical, horizontal)
    # Planes that lie a multiple of a few hundred bytes apart fall into few sets of the first-level cache. Rows of more
    # than a few panels would make long tasks.
    set_stride = math.gcd(planes * dtype.itemsize, 4096)
    if set_stride > 256 * vertical.taps * horizontal.taps or run > 4 * PANEL_LANES:
        return False
    return in_place < panels + terms * (RUN_CYCLES + VECTOR_CYCLES * -(-run // lanes))


def _image_tile(run: int, extent: int, step: int) -> tuple[int, float]:
    """Lanes of a tile that is read from rows of images, and how many vectors of `step` lanes these are on average.

    They are whole rows, parts of one, or as many as would be packed together, wherever rows end.
    """
    found: dict[int, float] = {}
    if run <= PANEL_LANES:
        together = min(PANEL_LANES, extent) // run
        found[together * run] = together * -(-run // step)
    for parts in range(2, _MOST_PARTS + 1):
        if run % parts == 0 and run // parts <= PANEL_LANES:
            found[run // parts] = -(-run // parts // step)
    lanes = int(tile_lanes(extent, step))
    found.setdefault(lanes, lanes / step + lanes / run)  # they end where rows do not
    return min(found.items(), key=lambda each: each[1] / each[0])


# Parts of a row that are looked at.
_MOST_PARTS = 4


# Rows that share what packing costs: of 40 convolutions of one pixel, 3 to 2048 filters on 3 to 2048 channels of 49 to
# 50,000 pixels (AVX-512), those of up to 48 took 0.73 to 1.01 of the time from images, and others up to 1.19, since
# whole vectors of images cross lines of the cache.
_FEW_ROWS = 48
# Images of more bytes come from beyond the second-level cache. Asked for a tile before, 192-32 (8 of 28x28), 96-24 (4
# of 56x56) and 256-32 (1 of 56x56) took 13 to 18 % less in float32 with AVX-512, smaller ones up to 4 % more.
_FAR_BYTES = 1 << 20
# Rows that pay for packing what is far, where planes are whole lines of the cache: 192-64 and 240-72 (8 of 28x28) and
# 72-96 (4 of 56x56) took 6 to 10 % less from images, 256-128 (1 of 56x56) up to 5 % more, likewise.
_FEW_FAR_ROWS = 96
# Of the first-level cache, 8 ways on the smallest; a way is as large as a page.
_WAYS, _WAY_BYTES = 8, 4096


def _stays_near(apart: int, rows: int, terms: int, *, is_far: bool) -> bool:
    """Whether a few rows are multiplied with pixels of images while these stay in the first-level cache.

    Channels lie so many bytes apart: those a multiple of a page apart all fall into a few sets. One tile of rows reads
    them once, and needs no cache.
    """
    sets = _WAY_BYTES // math.gcd(apart, _WAY_BYTES)
    few = _FEW_FAR_ROWS if is_far and apart % CACHE_LINE == 0 else _FEW_ROWS
    return rows <= isa.here().rows or (rows <= few and min(terms, TERM_BLOCK) <= _WAYS * sets)


@kernel
def of_phase(p: Product, vertical: Axis, horizontal: Axis) -> Any:
    """The same product on the grid and with the taps of another phase."""
    taps = vertical.taps * horizontal.taps
    return Product(
        p.batch, p.groups, p.rows, p.channels, taps, vertical.grid, horizontal.grid, vertical.grid, p.padded_w, p.each,
        p.result, p.lanes, p.tiles, p.chunk, p.in_place, p.line, p.parts, p.asks,
    )  # fmt: skip


class Task(NamedTuple):
    """What a task computes: rows `row .. row + rows` of an image and group, at grid points from `position` on."""

    image: int  # and group
    row: int
    rows: int
    position: int
    lanes: int


@kernel
def task_of(p: Product, task: Any, grid_h: Any) -> Any:
    """Tasks are (image, group, chunk of rows, tile of grid points), the last one fastest; `grid_h` rows have points."""
    chunks = (p.rows + p.chunk - 1) // p.chunk
    position = task % p.tiles * p.lanes
    row = task // p.tiles % chunks * p.chunk
    lanes = max(0, min(p.lanes, grid_h * p.grid_w - position))
    return Task(task // (p.tiles * chunks), row, min(p.chunk, p.rows - row), position, lanes)


def kernels_for(p: Product, dtype: DType) -> Callable[[], Array]:
    """The kernels that `multiply_tile` calls, made when they are wanted."""
    if p.line > 0:
        return partial(line_kernels, dtype, p.line)
    return partial(asking_kernels if p.asks == 1 else kernels_of, dtype)


@kernel
def multiply_tile(
    p: Product, t: Task, kernels: Any, a: Any, offsets: Any, source: Any, target: Any, pitch: Any, bias: Any,
    panel: Any, lists: Any, first: Any, stop: Any,
) -> None:  # fmt: skip
    """target[r*pitch + j] = sum of a[r*terms + term] * what lane j meets at `term`, first <= term < stop, + bias[r].

    One total. All but `lists` are addresses: `a` of the task's first row, `offsets` of where terms are met, `source` of
    the planes of image 0, `bias` 0 where none is to be added.
    """
    size, terms = kernels[ELEMENT], p.channels * p.taps
    planes = source + t.image * p.channels * p.each * size
    pieces = lists.ctypes.data + 8 * PIECES
    count = _list_lanes(p, t, kernels, lists)
    term = first
    while term < stop or term == first:
        here = min(TERM_BLOCK, stop - term)
        met, extend = offsets + 8 * term, 1 if term > first else 0
        shift = bias if term + here >= stop else 0
        if p.line > 0:
            multiply_lines(
                kernels, a + term * size, terms, t.rows, planes + t.position // p.grid_w * p.padded_w * size, met, here,
                p.grid_w, target, pitch, extend, shift, t.lanes // p.grid_w, p.padded_w, p.grid_w,
            )  # fmt: skip
        elif _reads_in_place(p, t, kernels):
            for i in range(PIECES, PIECES + 3 * count, 3):
                source_at, to = planes + lists[i] * size, target + lists[i + 1] * size
                if p.asks == 1:
                    multiply_asking(
                        kernels, a + term * size, terms, t.rows, source_at, met, here, lists[i + 2], to, pitch, extend,
                        shift, p.lanes * size,
                    )  # fmt: skip
                else:
                    multiply(
                        kernels, a + term * size, terms, t.rows, source_at, met, here, lists[i + 2], to, pitch, extend,
                        shift,
                    )  # fmt: skip
        else:
            pack(kernels, planes, met, here, pieces, count, panel, PANEL_LANES)
            multiply(
                kernels, a + term * size, terms, t.rows, panel, lists.ctypes.data + 8 * PANEL_OFFSETS, here, t.lanes,
                target, pitch, extend, shift,
            )  # fmt: skip
        term += TERM_BLOCK


@kernel
def _reads_in_place(p: Product, t: Task, kernels: Any) -> Any:
    """Whether a tile is not packed: of images, one whose whole vectors end within them."""
    lanes, first, row = kernels[LANES], t.position, 0  # of its last piece
    count, columns = t.lanes, p.grid_h * p.grid_w
    if p.padded_w > p.grid_w:
        row, columns = (t.position + t.lanes - 1) // p.grid_w, p.grid_w
        first = max(t.position - row * p.grid_w, 0)
        count = t.position + t.lanes - row * p.grid_w - first
    stop = first + (count + lanes - 1) // lanes * lanes
    behind = (p.batch * p.groups - 1 - t.image) * p.channels * p.each  # of images
    if p.padded_w > p.grid_w:
        behind += (p.grid_h - 1 - row) * p.padded_w
    return p.in_place == FROM_PLANES or (p.in_place == FROM_IMAGES and stop - columns <= behind)


@kernel
def _list_lanes(p: Product, t: Task, kernels: Any, lists: Any) -> Any:
    """List the rows of the panel, and what the tile's lanes meet: rows of the grid, or vectors; return how many."""
    pieces, lanes = lists[PIECES:], kernels[LANES]
    if _reads_in_place(p, t, kernels):
        return list_pieces(pieces, p.grid_w, p.padded_w, t.position, t.lanes, PANEL_LANES, 1)
    list_panel_offsets(lists)
    count = list_pieces(pieces, p.grid_w, p.padded_w, t.position, t.lanes, lanes, VECTORS_A_PIECE)
    # Lanes that only fill up the last vector are zero: what lies there could be slow (denormal).
    return add_piece(pieces, count, 0, t.lanes, 0) if t.lanes % lanes != 0 else count
