"""Direct convolution: how it is cut into tasks, and how the weights of a panel of output channels are packed for them.

Rows are grid points, terms are (channel, tap), lanes are channels of the result: the product of `product`, turned. So
maps of any width fill all lanes, and nothing is packed but the weights.
Knows planes, panels, phases, and how weights lie for outputs and for an input gradient; knows no workers. What a task
computes is in `direct_points`.
Source: as `direct_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..runtime.compile import kernel
from ..simd import isa
from ..typing import DType
from .bands import band_count
from .direct_kernels import ELEMENT, LANES, copy_panel, most_rows, pack_panel, spread_panel
from .phases import Phases
from .pixels import Steps
from .planes import Axis
from .summation import TERM_BLOCK


class Direct(NamedTuple):
    """A convolution, how it is cut into tasks, and how grid points meet the planes: all that compiled code is told."""

    batch: int
    groups: int
    rows: int  # channels of the result of a group
    channels: int  # of the planes of a group
    taps: int  # of all phases
    grid_h: int  # of a band, and of the first phase: others may have a row or a column less
    grid_w: int
    image_h: int  # rows of the grid in all
    row_step: int  # elements of a plane from what a grid point meets to what the one below it meets
    pixel_step: int  # and the one to its right
    group_step: int  # from the planes of a group to those of the next
    image_step: int
    origin_step: int  # rows of a plane from one row of the grid to the next
    result: int  # elements of a plane of the results; 0 where their channels lie side by side
    result_h: int
    result_w: int
    phases_h: int  # of the result: grid point i of phase p is row or column i * phases + p
    phases_w: int
    is_parted: int  # 1 where taps are those of phases, even of one: a small image may lack the others
    vectors: int  # of channels of the result of a group
    panels: int  # that they are cut into
    abreast: int  # panels of a task, which multiply the same pixels in turn, block of terms by block
    points: int  # grid points a task
    chunks: int  # of grid points a band
    together: int  # terms of weights that a task packs for itself at once; 0 where all are packed before
    reach: int  # of asking for weights ahead: 0 not at all, 1 for those of the panel, 2 also for those of the next one
    is_gradient: int  # 1 where results are an input gradient: weights lie by term and tap, taps backwards
    slice_h: int  # rows of the grid that lie in one slice of a volume: all of an image's
    slice_pitch: int  # elements from what a row meets to what the same row of the next slice meets
    parts: int  # that the groups are cut into, each of which has bands of its own

    @property
    def bands(self) -> int:
        """Bands of each part, which one worker fills and multiplies; one if planes are filled first."""
        return int(band_count(self))

    @property
    def tasks(self) -> int:
        """Tasks a band."""
        return int(task_count(self))

    @property
    def widest(self) -> int:
        """Vectors of the widest panel."""
        return -(-self.vectors // self.panels)


@kernel
def task_count(d: Direct) -> Any:
    """Tasks a band: of each of its groups, set of panels, row phase and chunk of grid points."""
    return d.groups // d.parts * panel_sets(d) * d.phases_h * d.chunks


@kernel
def panel_sets(d: Direct) -> Any:
    """Sets of panels that tasks take."""
    return (d.panels + d.abreast - 1) // max(d.abreast, 1)


# Totals of a task at most, for each channel: these, beside the weights of a block of terms, stay in the second-level
# cache.
_MOST_POINTS = 512
# Where a panel's weights serve one task only, the task packs them, so many terms at a time: 256 KiB in float32 stay in
# the second-level cache, and what is read of each channel is long enough for the processor to read ahead.
_TERMS_TOGETHER = 8 * TERM_BLOCK
# So does each of as many tasks as there are workers, if it has so many grid points: packing takes up to a cycle a
# weight, and multiplying four. What another core has just written comes slowly: packed by all and then read by all,
# weights of 128-128 (28x28) and 64-192 (5x5, 27x27) took 4 to 6 % more of the time of a call, on two threads.
_PACKING_POINTS = 128
# Terms of some filters whose weights are packed together for all panels.
_PACKED_TERMS = 72
# Weights of more bytes come from beyond the second-level cache each time that they are read, and are asked for a block
# of terms before. On one thread 512-512 (7x7) took 17 % less of a plan so and 5 % less of a call, 512-2048 (1x1) 16 and
# 4 %; 64-64, whose weights are near, 2 % longer.
_NEAR_BYTES = 1 << 20
# Vectors of all panels of a task, whose totals lie in the second-level cache and pass by while the pixels of a block of
# terms stay: with 8 instead of 2, 1024-256 (16 of 14x14, 1x1) took 7 % less on one thread and 13 % on two, 256-256
# (28x28, dilation 2) 6 and 11 %, 64-64 (56x56) none and 9 %; with 16 and 32 the same on one thread, more on two
# (AVX2, panels of two vectors).
_VECTORS_ABREAST = 8
# Tasks a worker, to even out; and the fewest grid points that pay for reading a panel's weights again.
_TASKS_A_WORKER, _LEAST_POINTS = 4, 48
# Where panels of a task are what is left to give workers.
_LEAST_TASKS_A_WORKER = 2


def plan_direct(
    axes: tuple[Axis, Axis], steps: Steps, batch: int, groups: int, rows: int, channels: int, result: int, workers: int,
    dtype: DType, image_h: int, phases: Phases, *, is_packed: bool, is_gradient: bool, parts: int = 1, packers: int = 1,
) -> Direct:  # fmt: skip
    """How a band of `axes` is cut; `rows` and `channels` are those of a group, the grid has `image_h` rows in all.

    A plane of the results has `result` elements, 0 where channels lie side by side. With `is_packed`, weights are
    packed before in any case; with `is_gradient` they are those of an input gradient. Groups are cut into `parts`.
    """
    vertical, horizontal = axes
    machine = isa.here()
    vectors = -(-rows // isa.lanes(dtype))
    panels = -(-vectors // machine.channel_vectors)
    points = vertical.grid * horizontal.grid
    chunks = -(-points // max(_MOST_POINTS // phases.columns, 1))
    if workers > 1:
        tasks = batch * groups * panels * phases.rows
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
    uses = batch * chunks * -(-image_h // max(vertical.grid, 1))
    # What phases have of a filter does not lie together.
    is_parted = phases.places.size > 0
    is_by_task = not is_packed and not is_parted and (uses == 1 or (uses <= packers and each >= _PACKING_POINTS))
    abreast = 1 if is_by_task else _panels_abreast(machine, panels, batch * groups * phases.rows * chunks, workers)
    return Direct(
        batch=batch,
        groups=groups,
        rows=rows,
        channels=channels,
        taps=vertical.taps * horizontal.taps,
        grid_h=vertical.grid,
        grid_w=horizontal.grid,
        image_h=image_h,
        row_step=steps.row,
        pixel_step=steps.pixel,
        group_step=steps.group,
        image_step=steps.image,
        origin_step=steps.rows,
        result=result,
        result_h=phases.height,
        result_w=phases.width,
        phases_h=phases.rows,
        phases_w=phases.columns,
        is_parted=int(is_parted),
        vectors=vectors,
        panels=panels,
        abreast=abreast,
        points=each,
        chunks=chunks,
        together=min(_TERMS_TOGETHER, terms) if is_by_task else 0,
        reach=reach,
        is_gradient=int(is_gradient),
        slice_h=image_h,
        slice_pitch=0,
        parts=parts,
    )


def _panels_abreast(machine: isa.InstructionSet, panels: int, others: int, workers: int) -> int:
    """Panels of a task: of each there are so many tasks beside one another, of which every worker is to have some."""
    most = max(1, _VECTORS_ABREAST // machine.channel_vectors)
    if workers > 1:
        most = max(1, min(most, panels * others // (_LEAST_TASKS_A_WORKER * workers)))
    return -(-panels // -(-panels // most))


@kernel
def first_vector(d: Direct, panel: Any) -> Any:
    """The first vector of a panel: panels are of nearly equal width, the wider ones first."""
    return panel * (d.vectors // d.panels) + min(panel, d.vectors % d.panels)


def packed_elements(groups: int, rows: int, terms: int, dtype: DType) -> int:
    """Elements of the packed weights: whole vectors of channels."""
    lanes = isa.lanes(dtype)
    return groups * -(-rows // lanes) * lanes * terms


def packing_terms(d: Direct) -> int:
    """Terms that a task has room for where it packs weights for itself: those of a gradient come by whole filters.

    Or a packing of all weights, before they are put where their phases lie.
    """
    if d.together == 0:
        return _filters_together(d) * d.taps if d.is_parted else 0
    return d.together + (2 * d.taps if d.is_gradient else 0)


@kernel
def _filters_together(d: Direct) -> Any:
    """Filters that a task packs where those of all panels are packed, few enough for the first-level cache."""
    return max(_PACKED_TERMS // d.taps, 1)


@kernel
def packing_tasks(d: Direct) -> Any:
    """Tasks of packing all weights: panels, or of an input gradient some filters, which are read from end to end."""
    together = _filters_together(d)
    return d.groups * (d.panels if d.is_gradient == 0 else (d.channels + together - 1) // together)


@kernel
def pack_weights(
    d: Direct, task: Any, kernels: Any, places: Any, weight: Any, packed: Any, space: Any
) -> None:  # fmt: skip
    """One task of packing all weights: each panel of a group as (terms, lanes), phase by phase; the arrays are flat."""
    shares, together = packing_tasks(d) // d.groups, _filters_together(d)
    group, share = task // shares, task % shares
    if d.is_gradient == 0:
        _pack_part(d, kernels, group, share, 0, d.channels, places, weight, packed, space)
        return
    first = share * together
    for panel in range(d.panels):
        _pack_part(
            d, kernels, group, panel, first, min(together, d.channels - first), places, weight, packed, space
        )  # fmt: skip


@kernel
def _pack_part(
    d: Direct, kernels: Any, group: Any, panel: Any, first: Any, channels: Any, places: Any, weight: Any, packed: Any,
    space: Any,
) -> None:  # fmt: skip
    """The weights of a panel for so many channels of the planes: filters, of an input gradient."""
    lanes, size = kernels[LANES], kernels[ELEMENT]
    vector = first_vector(d, panel)
    vectors, row = first_vector(d, panel + 1) - vector, vector * lanes
    target = packed.ctypes.data + (group * d.vectors + vector) * lanes * d.channels * d.taps * size
    if d.is_parted == 1 and d.taps > 1:
        _pack_phases(
            d, kernels, group, row, vectors, first, channels, places, weight.ctypes.data, space.ctypes.data, target
        )  # fmt: skip
    else:
        term = first * d.taps
        pack_terms(
            d, kernels, group, row, vectors, weight.ctypes.data, term, channels * d.taps,
            target + term * vectors * lanes * size,
        )  # fmt: skip


@kernel
def _pack_phases(
    d: Direct, kernels: Any, group: Any, row: Any, vectors: Any, first: Any, count: Any, places: Any, weight: Any,
    space: Any, target: Any,
) -> None:  # fmt: skip
    """As `pack_terms`, for some filters of an input gradient of several phases, whose `places` are those of `Phases`.

    They are packed as they lie, then put where their taps belong.
    """
    size, width = kernels[ELEMENT], vectors * kernels[LANES]
    channels, each, of_filter = min(d.rows - row, width), d.rows * d.taps * size, d.taps * width * size
    source = weight + ((group * d.channels + first) * d.rows + row) * d.taps * size
    for c in range(count):
        pack_panel(kernels, source + c * each, d.taps, channels, d.taps, space + c * of_filter, width)
    for tap in range(d.taps):
        taps = places[tap, 2]
        if taps > 0:
            to = places[tap, 0] * d.channels + first * taps + places[tap, 1]
            spread_panel(
                kernels, space + tap * width * size, d.taps * width, count, width, target + to * width * size,
                taps * width,
            )  # fmt: skip


@kernel
def pack_terms(
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
