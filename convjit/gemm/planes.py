"""Where a convolution reads: zero-padded planes in which every tap is a shift.

A plane holds every `step`-th row and column of an image, with the padding as zeros, so that neighbouring grid points
(output pixels forward, input pixels of one phase backward) read neighbouring pixels. What a row of the grid
meets at one tap is then one contiguous run: grid point (i, k) meets pixel `i * padded + k`, counted from where grid
point (0, 0) meets it.

Source: the polyphase decomposition, P. Vaidyanathan, "Multirate Systems and Filter Banks" (1993), section 4.3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..geometry import Geometry
from ..runtime.compile import kernel
from ..runtime.copying import copy_run
from ..typing import Array
from .micro import ELEMENT, LANES, fill_listed_planes, fill_many_planes, fill_rows

# Elements behind the last plane that may be read: the rest of the widest vector, of 16 elements.
BEHIND = 16


class Axis(NamedTuple):
    """One axis: how planes are filled, how they are read, and where results land.

    Pixel `r` of plane `p` shows source pixel `r*step + (p*plane_step) % step + first`, zero outside. Grid point `i`
    meets tap `t` in plane `t % planes`, pixel `i + (shift + t*tap_step) // step`. Axes that `pixels` makes skip pixels
    between grid points, too; where channels lie last, all but `grid` and `taps` count elements there.
    """

    size: int  # pixels of the source
    padded: int  # pixels of a plane
    planes: int
    step: int  # source pixels from one plane pixel to the next
    plane_step: int
    first: int  # negative in the padding
    grid: int  # grid points
    taps: int  # taps that contribute
    shift: int
    tap_step: int
    out_first: int  # where grid point 0 lands in the result
    out_step: int
    kernel_first: int  # which kernel index tap 0 is
    kernel_step: int


@kernel
def forward_axis(out_size: Any, kernel_size: Any, stride: Any, dilation: Any, pad: Any, in_size: Any) -> Any:
    """Output pixels read the input: tap `k` of output `i` meets input `i*stride + k*dilation - pad`."""
    padded = out_size + (kernel_size - 1) * dilation // stride
    phases = min(kernel_size, stride // math.gcd(stride, dilation))
    return Axis(
        in_size, padded, phases, stride, dilation, -pad, out_size, kernel_size, 0, dilation, 0, 1, 0, 1
    )  # fmt: skip


@kernel
def grid_phases(stride: Any, in_size: Any) -> Any:
    """Input pixels fall into so many phases: those of one phase meet the same taps."""
    return min(stride, in_size)


@kernel
def backward_axis(
    phase: Any, out_size: Any, kernel_size: Any, stride: Any, dilation: Any, pad: Any, in_size: Any
) -> Any:
    """Input pixels `h = phase + i*stride` read the output gradient, from one plane that all phases share.

    The adjoint of `h = oh*stride + k*dilation - pad`: tap `k` contributes if `h + pad - k*dilation` is a multiple of
    `stride`, from `oh = (h + pad - k*dilation) / stride`. Such `k` are an arithmetic progression; they are taken
    downwards, so that `oh` grows: a correlation with the flipped kernel.
    """
    lowest_oh = -(((kernel_size - 1) * dilation - pad) // stride)
    highest_oh = (in_size - 1 + pad) // stride
    grid = (in_size - phase + stride - 1) // stride
    # Rows of a plane are rows of the grid, too, also of a phase that no output sees.
    padded = max(highest_oh - lowest_oh + 1, (in_size + stride - 1) // stride)
    kernel_step = stride // math.gcd(stride, dilation)
    # One of any `kernel_step` neighbours contributes, or none does.
    last = kernel_size - 1
    stop = max(-1, last - kernel_step)
    while last > stop and (phase + pad - last * dilation) % stride != 0:
        last -= 1
    taps = last // kernel_step + 1 if last > stop else 0
    shift = (phase + pad - last * dilation) // stride - lowest_oh
    return Axis(
        out_size, padded, 1, 1, 0, lowest_oh, grid, taps, shift, kernel_step * dilation // stride, phase, stride, last,
        -kernel_step,
    )  # fmt: skip


@kernel
def vertical_phase(g: Geometry, phase: Any) -> Any:
    """Rows of a backward read of one phase."""
    return backward_axis(phase, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)


@kernel
def horizontal_phase(g: Geometry, phase: Any) -> Any:
    """Columns of a backward read of one phase."""
    return backward_axis(phase, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)


@kernel
def shows_image(axis: Axis) -> Any:
    """Whether a plane is the image as it lies: no padding, no stride."""
    whole = axis.first == 0 and axis.padded == axis.size and axis.planes == 1
    return whole and (axis.step == 1 or axis.size == 1)


@kernel
def elements_a_channel(vertical: Axis, horizontal: Axis) -> Any:
    """Elements of all planes of a channel."""
    return vertical.planes * horizontal.planes * vertical.padded * horizontal.padded


def plane_elements(channels: int, vertical: Axis, horizontal: Axis) -> int:
    """Elements of all planes of so many channels; none where the images are read in place."""
    if shows_image(vertical) and shows_image(horizontal):
        return 0
    return channels * elements_a_channel(vertical, horizontal) + BEHIND


@lru_cache(maxsize=64)
def forward_axes(g: Geometry) -> tuple[Axis, Axis]:
    """Both axes of a forward read, in Python."""
    return (
        forward_axis(g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h),
        forward_axis(g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w),
    )


@lru_cache(maxsize=64)
def backward_axes(g: Geometry) -> tuple[Axis, Axis]:
    """Both axes of a backward read of phase 0, in Python; the planes are those of all phases."""
    return (
        backward_axis(0, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h),
        backward_axis(0, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w),
    )


@lru_cache(maxsize=64)
def taps_before_phases(phases: int, kernel_size: int, stride: int, dilation: int, pad: int) -> Array:
    """How many taps contribute to the phases before each of `phases`, and to all of them.

    A tap contributes to one phase: that of the pixels `k*dilation - pad`, modulo the stride.
    """
    period = stride // math.gcd(stride, dilation)
    k = np.arange(min(kernel_size, period), dtype=np.int64)
    phase, alike = (k * dilation - pad) % stride, (kernel_size - 1 - k) // period + 1
    counts = np.zeros(phases + 1, np.int64)
    np.add.at(counts, phase[phase < phases] + 1, alike[phase < phases])
    before = np.cumsum(counts)
    before.flags.writeable = False
    return before


def phase_tables(g: Geometry) -> tuple[Array, Array]:
    """`taps_before_phases` of both axes."""
    return (
        taps_before_phases(min(g.stride_h, g.in_h), g.kernel_h, g.stride_h, g.dilation_h, g.pad_top),
        taps_before_phases(min(g.stride_w, g.in_w), g.kernel_w, g.stride_w, g.dilation_w, g.pad_left),
    )


@kernel
def inside(shift: Any, step: Any, size: Any) -> Any:
    """The points `lowest <= i < highest` for which `0 <= i*step + shift < size`."""
    if step == 1:  # spares two divisions a row
        return max(0, -shift), max(0, size - shift)
    lowest = 0 if shift >= 0 else (step - 1 - shift) // step
    highest = 0 if shift >= size else (size - 1 - shift) // step + 1
    return lowest, highest


@kernel
def clipped(shift: Any, step: Any, size: Any, count: Any) -> Any:
    """The points `left <= q < right` of `count` that lie inside, as `inside`, in bounds and in order."""
    lowest, highest = inside(shift, step, size)
    left = min(lowest, count)
    return left, max(left, min(highest, count))


@kernel
def copy_rows(
    target: Any, at: Any, pitch: Any, image: Any, first_row: Any, row_step: Any, rows: Any, first: Any, step: Any,
    count: Any,
) -> None:  # fmt: skip
    """target[at + r*pitch + q] = image[first_row + r*row_step, first + q*step] for r < rows, q < count."""
    if step == 1:
        for r in range(rows):
            copy_run(target, at + r * pitch, image[first_row + r * row_step], first, count)
    else:
        for r in range(rows):
            row, line = target[at + r * pitch : at + r * pitch + count], image[first_row + r * row_step]
            for q in range(count):
                row[q] = line[first + q * step]


class Planes(NamedTuple):
    """How compiled code fills the planes of a channel, beside the table of `filling`."""

    planes_h: int
    planes_w: int
    padded_h: int
    padded_w: int
    step_h: int
    step_w: int
    image_h: int
    image_w: int
    pixel: int  # of images that are seen as one plane: elements of a pixel
    pitch: int  # and in the plane, elements from a pixel to the next; 0 where they lie as in the image
    listed: int  # pixels that are listed behind the table, where whole planes are filled pixel by pixel

    @property
    def each(self) -> int:
        """Elements of all planes of a channel."""
        return self.planes_h * self.planes_w * self.padded_h * self.padded_w


class Pixel(NamedTuple):
    """The elements of a pixel, and from one to the next in a plane; zeros where a pixel is one element, or they lie as
    in the image.
    """

    elements: int = 0
    pitch: int = 0


AS_IN_IMAGE = Pixel()


@lru_cache(maxsize=64)
def filling(axes: tuple[Axis, Axis], pixel: Pixel = AS_IN_IMAGE) -> tuple[Planes, Array]:
    """How planes are filled, and for each plane down, then each across, what its pixels show.

    That is (shift, lowest, highest): pixel `r` shows source pixel `r*step + shift` for `lowest <= r < highest`. With a
    pitch, the horizontal axis counts as if pixels lay as far apart in the image. Behind it are listed, where planes are
    small, pixels of a channel's planes that show one, and which one of the image: (pixel, source pixel, 0).
    """
    vertical, horizontal = axes
    entries = []
    for axis in axes:
        for phase in range(axis.planes):
            shift = phase * axis.plane_step % axis.step + axis.first
            entries.append((shift, *clipped(shift, axis.step, axis.size, axis.padded)))
    table = np.array(entries, np.int64)
    listed = 0 if pixel.pitch > 0 else listed_pixels(table, vertical, horizontal)
    table = np.concatenate([table, np.zeros((listed, 3), np.int64)])
    if listed > 0:
        list_pixels(table, vertical, horizontal)
    table.flags.writeable = False
    planes = Planes(
        vertical.planes, horizontal.planes, vertical.padded, horizontal.padded, vertical.step, horizontal.step,
        vertical.size, horizontal.size if pixel.pitch == 0 else horizontal.size // pixel.pitch * pixel.elements, *pixel,
        listed,
    )  # fmt: skip
    return planes, table


# Elements of all planes of a channel up to which their pixels are listed: the list stays in the first-level cache.
_LISTED = 1024


@kernel
def most_listed(vertical: Axis, horizontal: Axis) -> Any:
    """How many pixels are listed behind the table of `filling` at most: none where rows are copied by vectors."""
    elements = elements_a_channel(vertical, horizontal)
    is_tiny = min(vertical.size * horizontal.size, vertical.padded * horizontal.padded) < BEHIND
    return elements if (is_tiny or horizontal.step > 1) and elements <= _LISTED else 0


@kernel
def listed_pixels(table: Any, vertical: Axis, horizontal: Axis) -> Any:
    """How many they are."""
    if most_listed(vertical, horizontal) == 0:
        return 0
    rows = cols = 0
    for phase_h in range(vertical.planes):
        rows += table[phase_h, 2] - table[phase_h, 1]
    for phase_w in range(vertical.planes, vertical.planes + horizontal.planes):
        cols += table[phase_w, 2] - table[phase_w, 1]
    return rows * cols


@kernel
def list_pixels(table: Any, vertical: Axis, horizontal: Axis) -> None:
    """List them behind the table, which has room for them."""
    at, plane = vertical.planes + horizontal.planes, 0
    for phase_h in range(vertical.planes):
        for phase_w in range(vertical.planes, vertical.planes + horizontal.planes):
            for row in range(table[phase_h, 1], table[phase_h, 2]):
                line = (row * vertical.step + table[phase_h, 0]) * horizontal.size + table[phase_w, 0]
                for col in range(table[phase_w, 1], table[phase_w, 2]):
                    table[at, 0] = plane + row * horizontal.padded + col
                    table[at, 1] = line + col * horizontal.step
                    table[at, 2] = 0
                    at += 1
            plane += vertical.padded * horizontal.padded


@kernel
def fill_tile(
    kernels: Any, target: Any, image: Any, p: Planes, inside: Any, origin: Any, top: Any, bottom: Any, left: Any,
    right: Any,
) -> None:  # fmt: skip
    """Fill rows `top..bottom`, columns `left..right` of all planes of a channel from an image; both are addresses.

    The planes in memory begin with row `origin`, and have `padded_h` rows of it on.
    """
    size = kernels[ELEMENT]
    if p.pitch > 0:
        _fill_pixels(kernels, target, image, p, inside, origin, top, bottom)
        return
    target -= origin * p.padded_w * size
    for phase_h in range(p.planes_h):
        first_row = min(max(inside[phase_h, 1], top), bottom)
        last_row = min(max(inside[phase_h, 2], first_row), bottom)
        source_row = image + (first_row * p.step_h + inside[phase_h, 0]) * p.image_w * size
        for phase_w in range(p.planes_w):
            # Number by number: a row of the table would be counted as in use, atomically, for each plane.
            col = p.planes_h + phase_w
            shift, lowest, highest = inside[col, 0], inside[col, 1], inside[col, 2]
            first = min(max(lowest, left), right)
            count = min(max(highest, first), right) - first
            at, rows = target + left * size, last_row - first_row
            width, source = right - left, source_row + (first * p.step_w + shift) * size
            fill_rows(kernels, at + top * p.padded_w * size, p.padded_w, source, 0, first_row - top, width, 0, 0, 1)
            if count == p.padded_w and _are_one_run(p):
                fill_rows(
                    kernels, at + first_row * count * size, 0, source, 0, min(rows, 1), 0, rows * count, 0, 1
                )  # fmt: skip
            else:
                fill_rows(
                    kernels, at + first_row * p.padded_w * size, p.padded_w, source, p.step_h * p.image_w, rows,
                    first - left, count, right - first - count, p.step_w,
                )  # fmt: skip
            fill_rows(
                kernels, at + last_row * p.padded_w * size, p.padded_w, source, 0, bottom - last_row, width, 0, 0, 1
            )
            target += p.padded_h * p.padded_w * size


@kernel
def _are_one_run(p: Planes) -> Any:
    """Whether rows of a plane that show whole rows lie one behind another, there and in the image."""
    return p.padded_w == p.image_w and p.step_h == 1 and p.step_w == 1


@kernel
def fill_planes(
    kernels: Any, target: Any, images: Any, channels: Any, p: Planes, inside: Any, origin: Any, top: Any, bottom: Any
) -> None:  # fmt: skip
    """As `fill_tile`, whole rows of the planes of neighbouring channels, one behind another."""
    size, each, image = kernels[ELEMENT], p.planes_h * p.planes_w * p.padded_h * p.padded_w, p.image_h * p.image_w
    if p.listed > 0:
        pixels = inside.ctypes.data + 24 * (p.planes_h + p.planes_w)
        fill_listed_planes(kernels, target, each, images, image, channels, pixels, p.listed)
        return
    done = _fill_many(kernels, target, images, channels, p, inside, origin, top, bottom)
    for c in range(done, channels):
        fill_tile(
            kernels, target + c * each * size, images + c * image * size, p, inside, origin, top, bottom, 0, p.padded_w
        )  # fmt: skip


@kernel
def _fill_many(
    kernels: Any, target: Any, images: Any, channels: Any, p: Planes, inside: Any, origin: Any, top: Any, bottom: Any
) -> Any:
    """All but the last of these channels at once, where planes are simple; how many."""
    if channels < 2:
        return 0
    size, lanes, width = kernels[ELEMENT], kernels[LANES], p.padded_w
    first_row = min(max(inside[0, 1], top), bottom)
    last_row = min(max(inside[0, 2], first_row), bottom)
    before, stop = inside[p.planes_h, 1], inside[p.planes_h, 2]
    if p.planes_h * p.planes_w > 1 or p.step_w > 1 or p.pitch > 0 or stop <= before or last_row <= first_row:
        return 0
    # What is spoiled and read behind a plane is the next one's.
    if max(before, width - stop) > lanes or min((bottom - top) * width, p.image_h * p.image_w) < lanes:
        return 0
    source = images + ((first_row * p.step_h + inside[0, 0]) * p.image_w + before + inside[p.planes_h, 0]) * size
    target += (top - origin) * width * size
    rows, count, each = last_row - first_row, stop - before, width
    if count == width and _are_one_run(p):
        rows, count, each = 1, rows * width, rows * width
    fill_many_planes(
        kernels, target, p.padded_h * width, source, p.image_h * p.image_w, channels - 1, (first_row - top) * width,
        rows, before, count, each, p.step_h * p.image_w, (bottom - last_row) * width,
    )  # fmt: skip
    return channels - 1


@kernel
def _fill_pixels(
    kernels: Any, target: Any, image: Any, p: Planes, inside: Any, origin: Any, top: Any, bottom: Any
) -> None:
    """The same of whole rows, pixel by pixel: behind each lie zeros."""
    size, width = kernels[ELEMENT], p.padded_w
    shift_h, shift_w, left, right = inside[0, 0], inside[1, 0], inside[1, 1], inside[1, 2]
    column = (left + shift_w) // p.pitch * p.pixel
    for row in range(top, bottom):
        at = target + (row - origin) * width * size
        if row < inside[0, 1] or row >= inside[0, 2]:
            fill_rows(kernels, at, width, image, 0, 1, width, 0, 0, 1)
            continue
        source = image + ((row + shift_h) * p.image_w + column) * size
        fill_rows(kernels, at, width, image, 0, 1, left, 0, 0, 1)
        fill_rows(
            kernels, at + left * size, p.pitch, source, p.pixel, (right - left) // p.pitch, 0, p.pixel,
            p.pitch - p.pixel, 1,
        )  # fmt: skip
        fill_rows(kernels, at + right * size, width, image, 0, 1, width - right, 0, 0, 1)


def _axis_offsets(axis: Axis) -> tuple[Array, Array]:
    """For each tap, the plane and the pixel of it that grid point 0 meets."""
    tap = np.arange(axis.taps, dtype=np.int64)
    return tap % axis.planes, (axis.shift + tap * axis.tap_step) // axis.step


def _term_offsets(vertical: Axis, horizontal: Axis, channels: int, apart: int) -> Array:
    (plane_h, row), (plane_w, col) = _axis_offsets(vertical), _axis_offsets(horizontal)
    plane = plane_h[:, None] * horizontal.planes + plane_w
    taps = (plane * vertical.padded + row[:, None]) * horizontal.padded + col
    offsets = (np.arange(channels, dtype=np.int64)[:, None] * apart + taps.ravel()).ravel()
    offsets.flags.writeable = False
    return offsets


# Longer tables, of megabytes, are made anew for each call.
_KEPT_TERMS = 1 << 16
_kept_term_offsets = lru_cache(maxsize=64)(_term_offsets)


def term_offsets(vertical: Axis, horizontal: Axis, channels: int, apart: int | None = None) -> Array:
    """Where grid point (0, 0) of a forward read meets each term (c, kh, kw), counted from the first plane.

    Channels lie `apart`, the elements of all planes of one if that is not given.
    """
    if apart is None:
        apart = elements_a_channel(vertical, horizontal)
    terms = channels * vertical.taps * horizontal.taps
    make = _kept_term_offsets if terms <= _KEPT_TERMS else _term_offsets
    return make(vertical, horizontal, channels, apart)


@kernel
def list_phase_terms(offsets: Any, at: Any, vertical: Axis, horizontal: Axis, channels: Any) -> None:
    """offsets[at + term] = where grid point (0, 0) of a backward read meets the term (c, kh, kw)."""
    for c in range(channels):
        for kh in range(vertical.taps):
            row = c * vertical.padded + vertical.shift + kh * vertical.tap_step
            for kw in range(horizontal.taps):
                offsets[at] = row * horizontal.padded + horizontal.shift + kw * horizontal.tap_step
                at += 1


@kernel
def list_pieces(pieces: Any, grid_w: Any, padded_w: Any, position: Any, count: Any, lanes: Any, several: Any) -> Any:
    """List the neighbouring pixels that grid points `position .. position + count` meet; return how many pieces.

    A piece is (where it begins, its first lane, how many lanes), counted from where grid point (0, 0) meets a tap:
    `several` times as many as `lanes`, or at most so many.
    """
    i = position // grid_w
    k = position - i * grid_w
    found = lane = 0
    while lane < count:
        run = count - lane if padded_w == grid_w else min(grid_w - k, count - lane)
        start = i * padded_w + k
        j = 0
        while j < run:
            here = lanes * several if run - j >= lanes * several else min(lanes, run - j)
            found = add_piece(pieces, found, start + j, lane + j, here)
            j += here
        lane += run
        k = 0
        i += 1
    return found


@kernel
def add_piece(pieces: Any, found: Any, begin: Any, lane: Any, count: Any) -> Any:
    """Write a piece behind those found so far; return how many there are then."""
    pieces[3 * found], pieces[3 * found + 1], pieces[3 * found + 2] = begin, lane, count
    return found + 1
