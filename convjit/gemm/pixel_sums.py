"""The product of a weight gradient: rows are (channel, tap), terms are pixels of the batch, lanes are output channels.

The tiles of `direct_kernels`, with terms and grid points in each other's place: what a tap meets is read where it lies,
and all that is packed is the output gradient, a block of pixels at a time. Where each pixel meets itself alone, input
and output gradient may change places. Knows how that is cut into tasks; does not know where totals of more than
`TERMS_A_TOTAL` pixels are kept.
Source: as `direct_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..runtime.compile import kernel
from ..simd import isa
from ..typing import DType
from .direct import first_vector
from .direct_kernels import ELEMENT, LANES, add_panel, add_rows, copy_panel, land, most_rows, pack_panel
from .pixels import pixel_steps, plane_steps
from .planes import AS_IN_IMAGE, Axis, Pixel
from .summation import TERM_BLOCK
from .tiles import FMAS_A_CYCLE


class PixelSums(NamedTuple):
    """A weight gradient, and how one of its totals is cut into tasks."""

    groups: int
    columns: int  # of the product: channels of a group that are lanes, output channels but where swapped
    channels: int  # of the planes of a group
    taps: int
    grid_h: int  # output pixels
    grid_w: int
    row_step: int  # elements of a plane from what an output pixel meets to what the one below it meets
    pixel_step: int  # and the one to its right
    group_step: int  # from the planes of a group to those of the next
    image_step: int
    vectors: int  # of columns
    panels: int  # that they are cut into
    chunk: int  # (channel, tap) a task
    is_swapped: int  # 1 where input and output gradient have changed places: channels are outputs', columns inputs'
    channels_last: int  # 1 where channels lie side by side, in planes and in the output gradient

    @property
    def rows(self) -> int:
        """Rows of the product: (channel, tap)."""
        return self.channels * self.taps

    @property
    def tasks(self) -> int:
        """Tasks a total."""
        return self.groups * self.panels * -(-self.rows // max(self.chunk, 1))

    @property
    def widest(self) -> int:
        """Vectors of the widest panel."""
        return -(-self.vectors // self.panels)


# (channel, tap) of a task at most: their totals, with 64 channels in float32, take 256 KiB of the second-level cache.
# Eleven gradients of 256 to 4608 took 0.91 to 1.05 of the time of tasks of 256 in tasks of all (AVX-512, one thread).
_MOST_ROWS = 1024
# Packing the output gradient once more takes as long as so many (channel, tap) of whole vectors. Cut into 1 to 12 tasks
# for 2 workers, r50 64, 128 and 256, 64-256 and 64-64 (112x112) took what this tells within 6 %.
_PACKING_ROWS = 20
# Tasks even out what workers do: rows are cut into so many a worker at most, if the gradient takes so much longer at
# most. Where rows that are worth a task would give fewer, several totals are summed at once.
_TASKS_A_WORKER, _EVENING, _LEAST_ROWS = 4, 1.05, 72
# Of an element that is packed, 16 rows of 16 pixels transposed at a time: 64 shuffles, one a cycle.
_SHUFFLE_CYCLES = 0.25


def plan_sums(
    axes: tuple[Axis, Axis], stride: tuple[int, int], groups: int, columns: int, channels: int, totals: int,
    workers: int, dtype: DType, *, is_pointwise: bool, channels_last: bool, pixel: Pixel = AS_IN_IMAGE,
) -> tuple[PixelSums, int]:  # fmt: skip
    """How a gradient is cut, and how many of its totals are summed at once.

    `axes` are `pixels.plane_axes`; where channels lie last, `axes` and `pixel` are `pixels.pixel_axes`.
    """
    lanes = isa.lanes(dtype)
    is_swapped = is_pointwise and _pixel_cycles(columns, channels, lanes) <= _pixel_cycles(channels, columns, lanes)
    if is_swapped:
        columns, channels = channels, columns
        if channels_last:  # the other images are as large, but for their channels
            axes = axes[0], axes[1]._replace(padded=axes[1].grid * groups * channels)
    vertical, horizontal = axes
    machine = isa.here()
    vectors = -(-columns // lanes)
    panels = max(1, -(-vectors // machine.channel_vectors))
    tile = most_rows(machine, max(1, -(-vectors // panels)))
    rows = channels * vertical.taps * horizontal.taps
    at_once = 1
    if workers > 1:
        others = max(groups * panels * max(-(-rows // _MOST_ROWS), rows // _LEAST_ROWS), 1)
        at_once = max(1, min(totals, -(-_TASKS_A_WORKER * workers // others)))
    chunks = _chunks(rows, tile, max(groups * panels * at_once, 1), workers)
    chunk = -(-rows // chunks)
    chunk = -(-chunk // tile) * tile
    steps = plane_steps(axes, groups, channels, stride)
    if channels_last:
        steps = pixel_steps(axes, groups, channels, stride, pixel)
    sums = PixelSums(
        groups=groups,
        columns=columns,
        channels=channels,
        taps=vertical.taps * horizontal.taps,
        grid_h=vertical.grid,
        grid_w=horizontal.grid,
        row_step=steps.row,
        pixel_step=steps.pixel,
        group_step=steps.group,
        image_step=steps.image,
        vectors=vectors,
        panels=panels,
        chunk=min(chunk, rows),
        is_swapped=int(is_swapped),
        channels_last=int(channels_last),
    )
    return sums, at_once


def _chunks(rows: int, tile: int, others: int, workers: int) -> int:
    """How many tasks the rows of each of so many `others` are: as many as even out, while packing costs little."""
    least = max(1, -(-rows // _MOST_ROWS))
    most = max(least, min(-(-rows // tile), _TASKS_A_WORKER * workers // others)) if workers > 1 else least
    longest = {  # rows of a worker, with those that packing takes the time of
        chunks: -(-others * chunks // workers) * (-(-rows // chunks) + _PACKING_ROWS)
        for chunks in range(least, most + 1)
    }
    affordable = _EVENING * min(longest.values())
    return max(chunks for chunks, taken in longest.items() if taken <= affordable)


def _pixel_cycles(rows: int, columns: int, lanes: int) -> float:
    """Cycles a pixel: of its products, lanes that are left empty among them, and of packing it for each chunk."""
    vectors, chunks = -(-columns // lanes), -(-rows // _MOST_ROWS)
    return rows * vectors / FMAS_A_CYCLE + chunks * vectors * lanes * _SHUFFLE_CYCLES


@kernel
def sum_pixels(
    s: PixelSums, task: Any, first: Any, stop: Any, kernels: Any, positions: Any, dy: Any, source: Any, target: Any,
    extend: Any, sums_of_dy: Any, totals: Any, panel: Any, offsets: Any,
) -> None:  # fmt: skip
    """target[o, c, tap] (+)= sum over pixels p of dy[o, p] * (what tap meets at p), for one task of one total.

    Pixels are counted through the batch, `first <= p < stop`. Tasks are (group, chunk, panel), the last one fastest, so
    that a worker reads the planes of few channels, which it may have filled.
    `positions` lists where each (channel, tap) meets pixel 0. Arrays are `dy` (N * O, pixels), or (N * pixels, O) where
    channels lie last, `target` (O, (c, tap)), which is added to with `extend`, and `totals`; addresses are `source`, of
    the planes of image 0, and `panel`, of room for whole vectors; `offsets` is a list. Of a sum that is swapped `dy` is
    the input, `source` the output gradient.

    Where `sums_of_dy` (O,) is not empty, sum over p of dy[o, p] is put there, by the tasks of the first chunk: `panel`
    has room for a row more then, and the sum is not swapped.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    rows, pixels = s.channels * s.taps, s.grid_h * s.grid_w
    chunks = (rows + s.chunk - 1) // s.chunk
    group, row, of_group = task // (chunks * s.panels), task // s.panels % chunks * s.chunk, task % s.panels
    here = min(s.chunk, rows - row)
    vector = first_vector(s, of_group)
    width = (first_vector(s, of_group + 1) - vector) * lanes
    first_lane = vector * lanes
    channel, channels = group * s.columns + first_lane, min(s.columns - first_lane, width)
    planes = source + group * s.group_step * size
    sums, pitch = totals.ctypes.data, width
    if s.is_swapped == 1:
        place = target.ctypes.data + ((group * rows + row) * s.columns + first_lane) * size
        if extend == 0 and channels == width:  # whole vectors are summed up where they belong
            sums, pitch = place, s.columns
    else:
        place = target.ctypes.data + (channel * rows + row) * size
    of_dy = panel + TERM_BLOCK * width * size
    sums_up = row == 0 and sums_of_dy.size > 0
    for block in range(first, stop, TERM_BLOCK):
        terms = min(TERM_BLOCK, stop - block)
        n, pixel = block // pixels, block % pixels
        t = 0
        while t < terms:
            run = min(pixels - pixel, terms - t)
            at = panel + t * width * size
            if s.channels_last == 0:
                begin = dy.ctypes.data + ((n * s.groups * s.columns + channel) * pixels + pixel) * size
                pack_panel(kernels, begin, pixels, channels, run, at, width)
            else:
                begin = dy.ctypes.data + ((n * pixels + pixel) * s.groups * s.columns + channel) * size
                copy_panel(kernels, begin, s.groups * s.columns, channels, run, at, width, width - channels)
            _list_pixels(offsets, t, n * s.image_step, pixel, run, s)
            t += run
            n += 1
            pixel = 0
        if sums_up:
            add_rows(kernels, panel, terms, width // lanes, of_dy, 1 if block > first else 0)
        add_panel(
            kernels, planes, positions.ctypes.data + 8 * row, here, offsets.ctypes.data, terms, panel, width // lanes,
            sums, pitch, 1 if block > first else 0, panel, 0, 1,
        )  # fmt: skip
    if sums_up:
        copy_panel(kernels, of_dy, width, channels, 1, sums_of_dy.ctypes.data + channel * size, channels, 0)
    if extend == 1:
        _add(s, group, row, here, first_lane, channels, totals, width, target)
    elif s.is_swapped == 0:
        land(kernels, sums, width // lanes, here, channels, place, rows, 0)
    elif sums != place:
        copy_panel(kernels, sums, width, channels, here, place, s.columns, 0)


@kernel
def _add(
    s: PixelSums, group: Any, row: Any, rows: Any, first_lane: Any, lanes: Any, totals: Any, pitch: Any, target: Any
) -> None:
    """Add so many totals, from `row` and `first_lane` of a group on, to the gradient."""
    for r in range(rows):
        for j in range(lanes):
            if s.is_swapped == 1:
                target[group * s.channels + row + r, first_lane + j] += totals[r * pitch + j]
            else:
                target[group * s.columns + first_lane + j, row + r] += totals[r * pitch + j]


@kernel
def _list_pixels(offsets: Any, at: Any, begin: Any, pixel: Any, count: Any, s: PixelSums) -> None:
    """offsets[at + q] = begin + what output pixel `pixel + q` meets in a plane, for pixels of one image."""
    i = pixel // s.grid_w
    k = pixel - i * s.grid_w
    q = 0
    while q < count:
        run = min(s.grid_w - k, count - q)
        for j in range(run):
            offsets[at + q + j] = begin + i * s.row_step + (k + j) * s.pixel_step
        q += run
        k = 0
        i += 1
