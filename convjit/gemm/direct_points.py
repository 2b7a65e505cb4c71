"""Direct convolution: grid points times the weights of panels of output channels, with pixels read where they lie.

Results are transposed when they are complete, or copied where their channels lie side by side. An input gradient is
computed for each phase of its pixels modulo the stride; those of all column phases of some grid points lie among the
totals as in a row of the image, so that they are transposed together.
Knows planes, panels and phases; knows no workers, and not how weights are packed.
Source: as `direct_kernels`.
"""

from __future__ import annotations

from typing import Any

from ..runtime.compile import kernel
from .direct import Direct, first_vector, pack_terms, panel_sets
from .direct_kernels import ELEMENT, LANES, add_panel, clear_panel, land, lay
from .summation import TERM_BLOCK


@kernel
def multiply_points(
    d: Direct, task: Any, origin: Any, kernels: Any, weight: Any, offsets: Any, before: Any, bias: Any, source: Any,
    results: Any, totals: Any, positions: Any, space: Any,
) -> None:  # fmt: skip
    """One task of a band that begins with row `origin`: grid points of an image, and some panels of channels.

    Tasks are (image, group, set of panels, row phase, chunk of grid points), the last one fastest. `weight` is packed,
    unless the task packs it into `space`. These, `source`, `results` and `totals` are addresses, `source` of the planes
    of image 0; `positions` and `before` of `Phases` are lists, `bias` an array, which may be empty.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    first, phase = task % d.chunks * d.points, task // d.chunks % d.phases_h
    rows = (d.result_h - phase + d.phases_h - 1) // d.phases_h if d.phases_h > 1 else d.image_h
    points = min(d.points, min(d.grid_h, rows - origin) * d.grid_w - first)
    if points <= 0:
        return
    place = task // (d.chunks * d.phases_h)
    panel, image = place % panel_sets(d) * d.abreast, place // panel_sets(d)  # and group
    group, stop = image % d.groups, min(panel + d.abreast, d.panels)
    if before[phase * d.phases_w] == before[(phase + 1) * d.phases_w]:
        if first == 0:
            row = first_vector(d, panel) * lanes
            _clear_rows(
                d, kernels, origin, min(d.grid_h, rows - origin), phase, image // d.groups, group * d.rows + row,
                min(d.rows, first_vector(d, stop) * lanes) - row, results,
            )  # fmt: skip
        return
    _list_points(positions, first, points, d)
    planes = source + (image // d.groups * d.image_step + group * d.group_step) * size
    for column in range(d.phases_w):
        at = phase * d.phases_w + column
        _add_terms(
            d, kernels, group, panel, stop, weight, before[at], before[at + 1] - before[at], planes,
            positions.ctypes.data, points, offsets.ctypes.data, totals, column, space,
        )  # fmt: skip
    at = origin * d.grid_w + first
    for p in range(panel, stop):
        _land_points(
            d, kernels, totals + _totals_before(d, kernels, panel, p), group, p, at, points, phase, image // d.groups,
            results, bias,
        )  # fmt: skip


@kernel
def _totals_before(d: Direct, kernels: Any, first: Any, panel: Any) -> Any:
    """Bytes of the totals of panels from `first` on that lie before those of a panel."""
    vectors = first_vector(d, panel) - first_vector(d, first)
    return vectors * kernels[LANES] * d.points * d.phases_w * kernels[ELEMENT]


@kernel
def _add_terms(
    d: Direct, kernels: Any, group: Any, panel: Any, stop: Any, weight: Any, before: Any, taps: Any, planes: Any,
    positions: Any, points: Any, offsets: Any, totals: Any, column: Any, space: Any,
) -> None:  # fmt: skip
    """The totals of a column phase that has so many taps, and so many `before` it, for panels from `panel` on.

    Each block of terms is multiplied with all of these panels, while its pixels are near. Totals lie as many rows apart
    as there are column phases.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    first, terms = before * d.channels, taps * d.channels
    for term in range(0, max(terms, 1), TERM_BLOCK):
        here = min(TERM_BLOCK, terms - term)
        for p in range(panel, stop):
            vector = first_vector(d, p)
            vectors = first_vector(d, p + 1) - vector
            width = vectors * lanes
            before_panel = (group * d.vectors + vector) * d.channels * d.taps
            of_block = weight + (before_panel + (first + term) * vectors) * lanes * size
            if d.together > 0:
                of_block = _packed_block(d, kernels, group, vector * lanes, vectors, weight, term, terms, space)
            ahead, apart, runs = _read_next(d, kernels, group, vector * lanes, vectors, weight, of_block, term, here)
            add_panel(
                kernels, planes, positions, points, offsets + 8 * (first + term), here, of_block, vectors,
                totals + _totals_before(d, kernels, panel, p) + column * width * size, width * d.phases_w,
                1 if term > 0 else 0, ahead, apart, runs,
            )  # fmt: skip


@kernel
def _packed_block(
    d: Direct, kernels: Any, group: Any, row: Any, vectors: Any, weight: Any, term: Any, terms: Any, space: Any
) -> Any:
    """Where the weights of a block of terms are, packed with those of the blocks that follow when it is the first."""
    width, done = vectors * kernels[LANES] * kernels[ELEMENT], term % d.together
    # Of a gradient, taps of the filter that a packing begins in lie before it.
    space += d.is_gradient * d.taps * width
    if done == 0:
        pack_terms(d, kernels, group, row, vectors, weight, term, min(d.together, terms - term), space)
    return space + done * width


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
    d: Direct, kernels: Any, totals: Any, group: Any, panel: Any, first: Any, points: Any, phase: Any, n: Any,
    results: Any, biases: Any,
) -> None:  # fmt: skip
    """Put a panel's totals of grid points from `first` on where they belong: those of all column phases, row by row."""
    size, lanes, vector = kernels[ELEMENT], kernels[LANES], first_vector(d, panel)
    vectors = first_vector(d, panel + 1) - vector
    channel, channels = group * d.rows + vector * lanes, min(d.rows - vector * lanes, vectors * lanes)
    bias = biases.ctypes.data + channel * size if biases.size > 0 else 0
    if d.phases_h == 1 and d.grid_w * d.phases_w == d.result_w:  # neighbours all of them
        _put(
            d, kernels, totals, vectors, points * d.phases_w, first * d.phases_w, n, channel, channels, results, bias
        )  # fmt: skip
        return
    each = d.phases_w * vectors * lanes * size
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
