"""Direct convolution: grid points times the weights of a panel of output channels, with pixels read where they lie.

Results are transposed when they are complete, or copied where their channels lie side by side. An input gradient is
computed for each phase of its pixels modulo the stride; those of all column phases of some grid points lie among the
totals as in a row of the image, so that they are transposed together.
Knows planes, panels and phases; knows no workers, and not how weights are packed.
Source: as `direct_kernels`.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from .direct import Direct, first_vector, pack_terms
from .direct_kernels import ELEMENT, LANES, add_panel, clear_panel, land, lay
from .summation import TERM_BLOCK


@kernel
def multiply_points(
    d: Direct, task: Any, origin: Any, kernels: Any, weight: Any, offsets: Any, before: Any, bias: Any, source: Any,
    results: Any, totals: Any, positions: Any, space: Any,
) -> None:  # fmt: skip
    """One task of a band that begins with row `origin`: grid points of an image, and a panel of channels.

    Tasks are (image, group, panel, row phase, chunk of grid points), the last one fastest. `weight` is packed, unless
    the task packs it into `space`. These, `source`, `results` and `totals` are addresses, `source` of the planes of
    image 0; `positions` and `before` of `Phases` are lists, `bias` an array, which may be empty.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    first, phase = task % d.chunks * d.points, task // d.chunks % d.phases_h
    rows = (d.result_h - phase + d.phases_h - 1) // d.phases_h if d.phases_h > 1 else d.image_h
    points = min(d.points, min(d.grid_h, rows - origin) * d.grid_w - first)
    if points <= 0:
        return
    place = task // (d.chunks * d.phases_h)
    panel, image = place % d.panels, place // d.panels  # and group
    group = image % d.groups
    vector = first_vector(d, panel)
    vectors, row = first_vector(d, panel + 1) - vector, vector * lanes
    width = vectors * lanes
    channel, channels = group * d.rows + row, min(d.rows - row, width)
    if before[phase * d.phases_w] == before[(phase + 1) * d.phases_w]:
        if first == 0:
            _clear_rows(
                d, kernels, origin, min(d.grid_h, rows - origin), phase, image // d.groups, channel, channels, results
            )  # fmt: skip
        return
    _list_points(positions, first, points, d)
    of_panel = weight + (group * d.vectors + vector) * lanes * d.channels * d.taps * size
    planes = source + (image // d.groups * d.image_step + group * d.group_step) * size
    for column in range(d.phases_w):
        at = phase * d.phases_w + column
        _add_terms(
            d, kernels, group, row, vectors, weight, of_panel + before[at] * d.channels * width * size,
            (before[at + 1] - before[at]) * d.channels, planes, positions.ctypes.data, points,
            offsets.ctypes.data + before[at] * d.channels * 8, totals + column * width * size, space,
        )  # fmt: skip
    of_bias = bias.ctypes.data + channel * size if bias.size > 0 else 0
    _land_points(
        d, kernels, totals, vectors, origin * d.grid_w + first, points, phase, image // d.groups, channel, channels,
        results, of_bias,
    )  # fmt: skip


@kernel
def _add_terms(
    d: Direct, kernels: Any, group: Any, row: Any, vectors: Any, weight: Any, of_phase: Any, terms: Any, planes: Any,
    positions: Any, points: Any, offsets: Any, totals: Any, space: Any,
) -> None:  # fmt: skip
    """The totals of a phase, of so many terms; they lie as many rows apart as there are column phases.

    `of_phase` is where its packed weights are, if they are.
    """
    size, width = kernels[ELEMENT], vectors * kernels[LANES]
    pitch = width * d.phases_w
    if terms == 0:
        add_panel(
            kernels, planes, positions, points, offsets, 0, weight, vectors, totals, pitch, 0, weight, 0, 1
        )  # fmt: skip
    # Of a gradient, taps of the filter that a packing begins in lie before it.
    space += d.is_gradient * d.taps * width * size
    for term in range(0, terms, TERM_BLOCK):
        here = min(TERM_BLOCK, terms - term)
        of_block = of_phase + term * width * size
        if d.together > 0:
            done = term % d.together
            if done == 0:
                together = min(d.together, terms - term)
                pack_terms(d, kernels, group, row, vectors, weight, term, together, space)
            of_block = space + done * width * size
        ahead, apart, runs = _read_next(d, kernels, group, row, vectors, weight, of_block, term, here)
        add_panel(
            kernels, planes, positions, points, offsets + 8 * term, here, of_block, vectors, totals, pitch,
            1 if term > 0 else 0, ahead, apart, runs,
        )  # fmt: skip


@kernel
def _clear_rows(
    d: Direct, kernels: Any, origin: Any, rows: Any, phase: Any, n: Any, channel: Any, channels: Any, results: Any
) -> None:
    """Zeros for the rows of a phase that no tap reaches, in so many channels of image n."""
    size, pitch, first = kernels[ELEMENT], d.groups * d.rows, (origin * d.phases_h + phase) * d.result_w
    if d.result > 0:
        for c in range(channel, channel + channels):
            target = (n * pitch + c) * d.result + first
            clear_panel(kernels, results + target * size, rows, d.result_w, d.phases_h * d.result_w)
    else:
        for i in range(rows):
            target = (n * d.result_h * d.result_w + first + i * d.phases_h * d.result_w) * pitch + channel
            clear_panel(kernels, results + target * size, d.result_w, channels, pitch)


@kernel
def _land_points(
    d: Direct, kernels: Any, totals: Any, vectors: Any, first: Any, points: Any, phase: Any, n: Any, channel: Any,
    channels: Any, results: Any, bias: Any,
) -> None:  # fmt: skip
    """Put the totals of grid points from `first` on where they belong: those of all column phases, row by row."""
    if d.phases_h == 1 and d.grid_w * d.phases_w == d.result_w:  # neighbours all of them
        _put(
            d, kernels, totals, vectors, points * d.phases_w, first * d.phases_w, n, channel, channels, results, bias
        )  # fmt: skip
        return
    each = d.phases_w * vectors * kernels[LANES] * kernels[ELEMENT]
    i = first // d.grid_w
    k = first - i * d.grid_w
    p = 0
    while p < points:
        run, column = min(d.grid_w - k, points - p), k * d.phases_w
        _put(
            d, kernels, totals + p * each, vectors, min(run * d.phases_w, d.result_w - column),
            (i * d.phases_h + phase) * d.result_w + column, n, channel, channels, results, bias,
        )  # fmt: skip
        p += run
        k = 0
        i += 1


@kernel
def _put(
    d: Direct, kernels: Any, totals: Any, vectors: Any, count: Any, at: Any, n: Any, channel: Any, channels: Any,
    results: Any, bias: Any,
) -> None:  # fmt: skip
    """Put totals of neighbouring pixels from number `at` on into image n."""
    size, pitch = kernels[ELEMENT], d.groups * d.rows
    if d.result > 0:
        target = (n * pitch + channel) * d.result + at
        land(kernels, totals, vectors, count, channels, results + target * size, d.result, bias)
    else:
        target = (n * d.result_h * d.result_w + at) * pitch + channel
        lay(kernels, totals, vectors, count, channels, results + target * size, pitch, bias)


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
