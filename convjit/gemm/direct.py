"""Direct convolution: grid points times the weights of a panel of output channels, with pixels read where they lie.

Rows are grid points, terms are (channel, tap), lanes are channels of the result: the product of `product`, turned. So
maps of any width fill all lanes, nothing is packed but the weights, and results are transposed when they are complete,
or copied where their channels lie side by side.
Knows planes, panels, and how weights lie for outputs and for an input gradient of stride 1; knows no workers.
Source: as `direct_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..runtime.compile import kernel
from ..simd import isa
from ..typing import DType
from .bands import band_count
from .direct_kernels import ELEMENT, LANES, add_panel, copy_panel, land, lay, most_rows, pack_panel
from .pixels import Steps
from .planes import Axis
from .summation import TERM_BLOCK


class Direct(NamedTuple):
    """A convolution, how it is cut into tasks, and how grid points meet the planes: all that compiled code is told."""

    batch: int
    groups: int
    rows: int  # channels of the result of a group
    channels: int  # of the planes of a group
    taps: int
    grid_h: int  # of a band
    grid_w: int
    image_h: int  # rows of the grid in all
    row_step: int  # elements of a plane from what a grid point meets to what the one below it meets
    pixel_step: int  # and the one to its right
    group_step: int  # from the planes of a group to those of the next
    image_step: int
    origin_step: int  # rows of a plane from one row of the grid to the next
    result: int  # elements of a plane of the results; 0 where their channels lie side by side
    vectors: int  # of channels of the result of a group
    panels: int  # that they are cut into
    points: int  # grid points a task
    chunks: int  # of grid points a band
    together: int  # terms of weights that a task packs for itself at once; 0 where all are packed before
    reach: int  # of asking for weights ahead: 0 not at all, 1 for those of the panel, 2 also for those of the next one
    is_gradient: int  # 1 where results are an input gradient: weights lie by term and tap, taps backwards
    slice_h: int  # rows of the grid that lie in one slice of a volume: all of an image's
    slice_pitch: int  # elements from what a row meets to what the same row of the next slice meets

    @property
    def bands(self) -> int:
        """Bands of rows of the grid, each filled and multiplied by one worker; one if planes are filled first."""
        return int(band_count(self))

    @property
    def tasks(self) -> int:
        """Tasks a band of an image."""
        return self.groups * self.panels * self.chunks


# Grid points a task at most: their totals, beside the weights of a block of terms, stay in the second-level cache.
MOST_POINTS = 256
# Where a panel's weights serve one task only, the task packs them, so many terms at a time: 256 KiB in float32 stay in
# the second-level cache, and what is read of each channel is long enough for the processor to read ahead.
_TERMS_TOGETHER = 8 * TERM_BLOCK
# Weights of more bytes come from beyond the second-level cache each time that they are read, and are asked for a block
# of terms before. On one thread 512-512 (7x7) took 17 % less of a plan so and 5 % less of a call, 512-2048 (1x1) 16 and
# 4 %; 64-64, whose weights are near, 2 % longer.
_NEAR_BYTES = 1 << 20
# Tasks a worker, to even out; and the fewest grid points that pay for reading a panel's weights again.
_TASKS_A_WORKER, _LEAST_POINTS = 4, 48


def plan_direct(
    axes: tuple[Axis, Axis], steps: Steps, batch: int, groups: int, rows: int, channels: int, result: int, workers: int,
    dtype: DType, image_h: int, *, is_packed: bool, is_gradient: bool,
) -> Direct:  # fmt: skip
    """How a band of `axes` is cut; `rows` and `channels` are those of a group, the grid has `image_h` rows in all.

    A plane of the results has `result` elements, 0 where channels lie side by side. With `is_packed`, weights are
    packed before in any case; with `is_gradient` they are those of an input gradient.
    """
    vertical, horizontal = axes
    machine = isa.here()
    vectors = -(-rows * dtype.itemsize // machine.vector_bytes)
    panels = -(-vectors // machine.channel_vectors)
    points = vertical.grid * horizontal.grid
    chunks = -(-points // MOST_POINTS)
    if workers > 1:
        tasks = batch * groups * panels
        if tasks * chunks % workers != 0:
            chunks = max(chunks, min(-(-_TASKS_A_WORKER * workers // tasks), points // _LEAST_POINTS))
    tile = most_rows(machine, -(-vectors // panels))
    each = -(-points // max(chunks, 1))
    if chunks > 1:
        each = -(-each // tile) * tile
    chunks = -(-points // max(each, 1))
    terms = channels * vertical.taps * horizontal.taps
    # Of several workers another one may take the next panel.
    reach = 0 if rows * terms * dtype.itemsize <= _NEAR_BYTES else 1 if workers > 1 else 2
    is_used_once = batch * chunks == 1 and image_h == vertical.grid
    return Direct(
        batch, groups, rows, channels, vertical.taps * horizontal.taps, vertical.grid, horizontal.grid, image_h,
        steps.row, steps.pixel, steps.group, steps.image, steps.rows, result, vectors, panels, each, chunks,
        min(_TERMS_TOGETHER, terms) if is_used_once and not is_packed else 0, reach, int(is_gradient), image_h, 0,
    )  # fmt: skip


@kernel
def first_vector(d: Direct, panel: Any) -> Any:
    """The first vector of a panel: panels are of nearly equal width, the wider ones first."""
    return panel * (d.vectors // d.panels) + min(panel, d.vectors % d.panels)


def packed_elements(groups: int, rows: int, terms: int, dtype: DType) -> int:
    """Elements of the packed weights: whole vectors of channels."""
    lanes = isa.here().vector_bytes // dtype.itemsize
    return groups * -(-rows // lanes) * lanes * terms


def packing_terms(d: Direct) -> int:
    """Terms that a task has room for where it packs weights for itself: those of a gradient come by whole filters."""
    return 0 if d.together == 0 else d.together + (2 * d.taps if d.is_gradient else 0)


@kernel
def pack_weights(d: Direct, kernels: Any, group: Any, panel: Any, weight: Any, packed: Any) -> None:
    """All weights of a panel of a group as (terms, lanes); both arrays are flat."""
    lanes, terms, size = kernels[LANES], d.channels * d.taps, kernels[ELEMENT]
    first = first_vector(d, panel)
    vectors = first_vector(d, panel + 1) - first
    target = packed.ctypes.data + (group * d.vectors + first) * lanes * terms * size
    _pack_terms(d, kernels, group, first * lanes, vectors, weight.ctypes.data, 0, terms, target)


@kernel
def _pack_terms(
    d: Direct, kernels: Any, group: Any, row: Any, vectors: Any, weight: Any, first: Any, count: Any, target: Any
) -> None:
    """target[t, c] = the weight of term `first + t` for channel `row + c` of a group, in so many vectors of channels.

    Of outputs, weights are [group, row, (channel, tap)]; of an input gradient [group, channel, row, tap], with terms
    (channel, tap) whose taps count backwards: all of a channel are packed, also those beside the terms.
    """
    lanes, size, terms = kernels[LANES], kernels[ELEMENT], d.channels * d.taps
    channels, width = min(d.rows - row, vectors * lanes), vectors * lanes
    if d.is_gradient == 0:
        source = weight + ((group * d.rows + row) * terms + first) * size
        pack_panel(kernels, source, terms, channels, count, target, width)
        return
    source, each = weight + (group * d.channels * d.rows + row) * d.taps * size, d.rows * d.taps
    if d.taps == 1:
        copy_panel(kernels, source + first * each * size, each, channels, count, target, width, width - channels)
        return
    for c in range(first // d.taps, (first + count + d.taps - 1) // d.taps):
        last = target + ((c + 1) * d.taps - 1 - first) * width * size
        pack_panel(kernels, source + c * each * size, d.taps, channels, d.taps, last, -width)


@kernel
def multiply_points(
    d: Direct, task: Any, origin: Any, kernels: Any, weight: Any, offsets: Any, bias: Any, source: Any, results: Any,
    totals: Any, positions: Any, space: Any,
) -> None:  # fmt: skip
    """One task of a band that begins with row `origin`: grid points of an image, and a panel of channels.

    Tasks are (image, group, panel, chunk of grid points), the last one fastest. `weight` is packed, unless the task
    packs it into `space`. These, `source`, `results` and `totals` are addresses, `source` of the planes of image 0;
    `positions` is a list, `bias` an array, which may be empty.
    """
    size, lanes, terms = kernels[ELEMENT], kernels[LANES], d.channels * d.taps
    first = task % d.chunks * d.points
    points = min(d.points, min(d.grid_h, d.image_h - origin) * d.grid_w - first)
    if points <= 0:
        return
    panel, image = task // d.chunks % d.panels, task // (d.chunks * d.panels)  # and group
    group = image % d.groups
    vector = first_vector(d, panel)
    vectors, row = first_vector(d, panel + 1) - vector, vector * lanes
    # Of a gradient, taps of the filter that a packing begins in lie before it.
    space += d.is_gradient * d.taps * vectors * lanes * size
    _list_points(positions, first, points, d)
    channel, channels = group * d.rows + row, min(d.rows - row, vectors * lanes)
    of_panel = weight + (group * d.vectors + vector) * lanes * terms * size
    n = image // d.groups
    planes = source + (n * d.image_step + group * d.group_step) * size
    for term in range(0, terms, TERM_BLOCK):
        here = min(TERM_BLOCK, terms - term)
        of_block = of_panel + term * vectors * lanes * size
        if d.together > 0:
            done = term % d.together
            if done == 0:
                together = min(d.together, terms - term)
                _pack_terms(d, kernels, group, row, vectors, weight, term, together, space)
            of_block = space + done * vectors * lanes * size
        ahead, apart, runs = _read_next(d, kernels, group, row, vectors, weight, of_block, term, here)
        add_panel(
            kernels, planes, positions.ctypes.data, points, offsets.ctypes.data + 8 * term, here, of_block, vectors,
            totals, vectors * lanes, 1 if term > 0 else 0, ahead, apart, runs,
        )  # fmt: skip
    of_bias = bias.ctypes.data + channel * size if bias.size > 0 else 0
    if d.result > 0:
        target = (image * d.rows + row) * d.result + origin * d.grid_w + first
        land(kernels, totals, vectors, points, channels, results + target * size, d.result, of_bias)
    else:
        pitch = d.groups * d.rows
        target = ((n * d.image_h + origin) * d.grid_w + first) * pitch + channel
        lay(kernels, totals, vectors, points, channels, results + target * size, pitch, of_bias)


@kernel
def _read_next(
    d: Direct, kernels: Any, group: Any, row: Any, vectors: Any, weight: Any, of_block: Any, term: Any, here: Any
) -> Any:
    """Weights to ask for while the block that begins with `term` is multiplied.

    An address, the bytes from one run of weights to the next, and how many runs. Packed weights are those of the next
    block; weights as they are a share, one for each block, of those that are packed together next.
    """
    size, terms, width = kernels[ELEMENT], d.channels * d.taps, vectors * kernels[LANES]
    first = term + here if d.together == 0 else term - term % d.together + d.together
    if d.reach == 0 or (d.reach == 1 and first >= terms):
        return of_block, 0, 1  # what is near costs nothing
    if d.together == 0:
        return of_block + here * width * size, here * kernels[LANES] * size, vectors
    if first >= terms:
        first = 0
        row += width
    block, blocks = term % d.together // TERM_BLOCK, (d.together + TERM_BLOCK - 1) // TERM_BLOCK
    if d.is_gradient == 0:  # a run is of one channel of the result
        runs = (width + blocks - 1) // blocks
        return weight + ((group * d.rows + row + block * runs) * terms + first) * size, terms * size, runs
    # Or of one channel of the planes.
    runs, apart = max((d.together // d.taps + blocks - 1) // blocks, 1), d.rows * d.taps
    channel = group * d.channels + first // d.taps + block * runs
    return weight + (channel * apart + row * d.taps) * size, apart * size, runs


@kernel
def _list_points(positions: Any, first: Any, points: Any, d: Direct) -> None:
    """positions[p] = what grid point `first + p` meets, counted from what grid point (0, 0) meets at the same tap."""
    i = first // d.grid_w
    k = first - i * d.grid_w
    behind = i // d.slice_h  # slices
    i -= behind * d.slice_h
    p = 0
    while p < points:
        run, row = min(d.grid_w - k, points - p), behind * d.slice_pitch + i * d.row_step
        for q in range(run):
            positions[p + q] = row + (k + q) * d.pixel_step
        p += run
        k = 0
        i += 1
        if i == d.slice_h:
            i = 0
            behind += 1
