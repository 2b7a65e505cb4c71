"""The results of a block of tiles: its inputs transformed, multiplied with weights, and the sums transformed back.

A task computes some panels of output channels of a block. A worker that comes to a block for the first time transforms
all its inputs for itself: that is cheaper than to start workers once more after it was done together.
Knows blocks, panels and scratch; does not know how tiles are cut into blocks, nor how a transform is computed.
"""

from __future__ import annotations

from typing import Any

from ..gemm import winograd
from ..gemm.winograd import ELEMENT, LANES, PRODUCTS, STEP, VECTORS, WINDOW
from ..runtime.compile import driver, kernel
from .winograd_tiles import (
    Blocks,
    Problem,
    apart,
    block_of,
    in_stride,
    out_stride,
    place_of,
    sinks,
)
from .winograd_weights import (
    aligned,
    channel_blocks,
    channels_of,
    filters_of,
    has_product,
    line_of,
    panels,
    transform_weights,
    weights_at,
)

# A worker's list: the block whose transformed inputs it has, then for each row of tiles where its pixels lie, in each
# sink and then in each phase of rows of inputs, `_PLACE` numbers. That takes more cycles to find than a transform: it
# is found once a block, not once a channel.
_PLACE = 5


@kernel
def sums_elements(kernels: Any, tiles: Any) -> Any:
    """Elements of a panel's sums, and those read behind the last tile."""
    return (tiles + kernels[LANES] // STEP) * kernels[VECTORS] * kernels[LANES] * kernels[PRODUCTS]


@kernel
def row_entries(p: Problem) -> Any:
    """Entries of a row of tiles in a worker's list."""
    return (sinks(p) + in_stride(p)) * _PLACE


@kernel
def list_entries(p: Problem, tile_rows: Any) -> Any:
    """Entries of a worker's list, for blocks of so many rows of tiles."""
    return 1 + tile_rows * row_entries(p)


@kernel
def list_rows(p: Problem, blocks: Blocks, block: Any, places: Any) -> None:
    """List where a block's rows of tiles lie, in each sink and in each phase of rows of inputs.

    Of the first pixel, which may lie outside: its place, in elements from the first of the first channel, its row, how
    many rows there are, its column, and how many columns.
    """
    row_first, row_stop, col_first, _ = block_of(p, blocks, block)
    high_out, wide_out = p.dilation_h * out_stride(p), p.dilation_w * out_stride(p)
    high_in, wide_in = p.dilation_h * in_stride(p), p.dilation_w
    at = 1
    for row in range(row_first, row_stop):
        n, phase_h, phase_w, tile_row = place_of(p, row)
        top, left = tile_row * STEP, col_first * STEP
        for sink in range(sinks(p)):
            _list_place(
                places[at : at + _PLACE], n * p.filters * p.out_h * p.out_w, top, left,
                apart(high_out, phase_h + p.first_h - sink // p.stride, p.out_h),
                apart(wide_out, phase_w + p.first_w - sink % p.stride, p.out_w), high_out, wide_out, p.out_w,
            )  # fmt: skip
            at += _PLACE
        for of_rows in range(in_stride(p)):
            _list_place(
                places[at : at + _PLACE], n * p.channels * p.in_h * p.in_w, top, left * in_stride(p),
                apart(high_in, phase_h + of_rows - p.pad_top, p.in_h), apart(wide_in, phase_w - p.pad_left, p.in_w),
                high_in, wide_in, p.in_w,
            )  # fmt: skip
            at += _PLACE


@kernel
def _list_place(
    place: Any, image: Any, top: Any, left: Any, down: Any, across: Any, high: Any, wide: Any, width: Any
) -> None:
    """The entries of row `top` and column `left` of a phase, of which `down` and `across` are what `apart` says."""
    (first_h, rows, behind_h), (first_w, cols, behind_w) = down, across
    row, col = top + behind_h, left + behind_w
    place[0] = image + (first_h + row * high) * width + first_w + col * wide
    place[1], place[2], place[3], place[4] = row, rows, col, cols


@kernel
def transform_inputs(
    p: Problem, blocks: Blocks, kernels: Any, block: Any, first: Any, stop: Any, x: Any, places: Any, lines: Any,
    data: Any,
) -> None:  # fmt: skip
    """Transform a block's inputs, of channels `first <= c < stop`; `lines` is scratch, an array, `data` an address.

    Phases of columns, which lie among one another, are transformed in turn.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    row_first, row_stop, col_first, col_stop = block_of(p, blocks, block)
    tiles = col_stop - col_first
    lines[:] = 0  # lanes beside a row's tiles are computed, too, and denormals are slow
    mixed = aligned(lines.ctypes.data)
    stride, entries, of_source = in_stride(p), row_entries(p), p.channels * blocks.data_pitch
    vectors = (stride * (STEP * tiles + kernels[WINDOW] - STEP) + lanes - 1) // lanes
    for c in range(first, stop):
        plane = x + c * p.in_h * p.in_w * size
        for of_rows in range(stride):
            target = data + (of_rows * stride * of_source + c * blocks.data_pitch) * size
            first_place = 1 + (sinks(p) + of_rows) * _PLACE
            for at in range(first_place, first_place + (row_stop - row_first) * entries, entries):
                row, rows, col, cols = places[at + 1], places[at + 2], places[at + 3], places[at + 4]
                winograd.mix_rows(
                    kernels, plane + places[at] * size, p.dilation_h * stride * p.in_w, p.dilation_w, -row, rows - row,
                    col, cols, mixed, blocks.line_pitch, vectors,
                )  # fmt: skip
                winograd.spread(
                    kernels, stride, mixed, blocks.line_pitch, kernels[WINDOW] - of_rows, target, blocks.product_pitch,
                    of_source, tiles,
                )  # fmt: skip
                target += tiles * size


@kernel
def _multiply_product(
    p: Problem, blocks: Blocks, kernels: Any, tiles: Any, product: Any, block: Any, panel: Any, data: Any, weights: Any,
    sums: Any,
) -> None:  # fmt: skip
    """Multiply tiles' data of one product and a block of channels with a panel's weights into its sums. Addresses.

    A product that a sink does not have is zero.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    _, _, vectors = filters_of(p, kernels, panel)
    source, channel, channels = channels_of(p, block)
    of_product, summed = channels * vectors * lanes + line_of(kernels), channels
    if not has_product(p, kernels, panel, block, product):
        if block > 0:
            return
        summed = 0
    first = source * p.channels + channel
    winograd.multiply(
        kernels, vectors, data + (first * blocks.data_pitch + product * blocks.product_pitch) * size,
        blocks.data_pitch, tiles, weights + product * of_product * size, summed, sums + product * lanes * size,
        vectors * kernels[PRODUCTS] * lanes, block,
    )  # fmt: skip


@kernel
def _multiply_together(
    p: Problem, blocks: Blocks, kernels: Any, tiles: Any, first: Any, stop: Any, data: Any, transformed: Any, sums: Any
) -> None:
    """Multiply so many tiles' data with the weights of panels `first <= panel < stop`, of all that are transformed.

    A product's data are read once and stay in a near cache while its weights pass by. Addresses all.
    """
    for product in range(kernels[PRODUCTS]):
        for block in range(channel_blocks(p)):
            for panel in range(first, stop):
                _multiply_product(
                    p, blocks, kernels, tiles, product, block, panel, data,
                    transformed + weights_at(p, kernels, panel, block) * kernels[ELEMENT],
                    sums + (panel - first) * sums_elements(kernels, tiles) * kernels[ELEMENT],
                )  # fmt: skip


@kernel
def _multiply_panel(
    p: Problem, blocks: Blocks, kernels: Any, tiles: Any, panel: Any, data: Any, weight: Any, taps: Any,
    transformed: Any, sums: Any,
) -> None:  # fmt: skip
    """The same for one panel, whose weights are transformed into scratch. Addresses all."""
    for block in range(channel_blocks(p)):
        transform_weights(p, kernels, weight, panel, block, taps, transformed)
        for product in range(kernels[PRODUCTS]):
            _multiply_product(p, blocks, kernels, tiles, product, block, panel, data, transformed, sums)


@kernel
def _store_panel(
    p: Problem, kernels: Any, rows: Any, across: Any, panel: Any, bias: Any, y: Any, places: Any, sums: Any
) -> None:
    """Transform a panel's sums of rows of tiles, `across` in each, into results. `bias` may be 0; addresses all."""
    size, lanes, products = kernels[ELEMENT], kernels[LANES], kernels[PRODUCTS]
    sink, filters, vectors = filters_of(p, kernels, panel)
    tile_pitch, entries = vectors * products * lanes, row_entries(p)
    high, wide = p.dilation_h * out_stride(p), p.dilation_w * out_stride(p)
    for j in range(vectors):
        o = filters + j * lanes
        shift = bias + o * size if bias != 0 else 0
        source = sums + j * products * lanes * size
        of_channel = y + o * p.out_h * p.out_w * size
        first_place = 1 + sink * _PLACE
        for at in range(first_place, first_place + rows * entries, entries):
            row, col = places[at + 1], places[at + 3]
            winograd.results(
                kernels, source, tile_pitch, across, shift, of_channel + places[at] * size, p.out_h * p.out_w,
                high * p.out_w, wide, -row, places[at + 2] - row, -col, min(places[at + 4] - col, across * STEP),
                p.filters - o,
            )  # fmt: skip
            source += across * tile_pitch * size


@driver
def some_panels(
    task: Any, worker: Any, p: Problem, blocks: Blocks, shares: Any, together: Any, lasting: Any, kernels: Any,
    x: Any, weight: Any, bias: Any, y: Any, taps: Any, transformed: Any, lines: Any, data: Any, sums: Any, places: Any,
) -> None:  # fmt: skip
    """The results of a share of the panels in a block of tiles; a block's shares follow one another.

    Where all weights are transformed (`lasting`), so many panels are multiplied `together`; else it is 1.
    """
    block, share = task // shares, task % shares
    own, mine = aligned(data[worker].ctypes.data), places[worker]
    if mine[0] != block:
        list_rows(p, blocks, block, mine)
        transform_inputs(p, blocks, kernels, block, 0, p.channels, x.ctypes.data, mine, lines[worker], own)
        mine[0] = block
    row_first, row_stop, col_first, col_stop = block_of(p, blocks, block)
    rows, across = row_stop - row_first, col_stop - col_first
    tiles, count = rows * across, panels(p, kernels)
    weights = transformed[0].ctypes.data if lasting == 1 else transformed[worker].ctypes.data
    shift = bias.ctypes.data if bias.size > 0 else 0
    results, scratch = aligned(sums[worker].ctypes.data), aligned(taps[worker].ctypes.data)
    behind = count * (share + 1) // shares
    for first in range(count * share // shares, behind, together):
        stop = min(first + together, behind)
        if lasting == 1:
            _multiply_together(p, blocks, kernels, tiles, first, stop, own, aligned(weights), results)
        else:
            _multiply_panel(
                p, blocks, kernels, tiles, first, own, weight.ctypes.data, scratch, aligned(weights), results
            )  # fmt: skip
        for panel in range(first, stop):
            of_panel = results + (panel - first) * sums_elements(kernels, tiles) * kernels[ELEMENT]
            _store_panel(p, kernels, rows, across, panel, shift, y.ctypes.data, mine, of_panel)
