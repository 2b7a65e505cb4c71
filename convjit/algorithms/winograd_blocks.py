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
from .winograd_tiles import Blocks, Problem, apart, block_of, place_of
from .winograd_weights import (
    CHANNEL_BLOCK,
    aligned,
    line_of,
    panel_vectors,
    panels,
    transform_weights,
    weights_at,
)

# A worker's list: the block whose transformed inputs it has, then for each row of tiles `ROW_ENTRIES` numbers. Where
# a row lies takes more cycles to find than its transform: it is found once a block, not once a channel.
ROW_ENTRIES = 8


@kernel
def sums_elements(kernels: Any, tiles: Any) -> Any:
    """Elements of a panel's sums, and those read behind the last tile."""
    return (tiles + kernels[LANES] // STEP) * kernels[VECTORS] * kernels[LANES] * PRODUCTS


@kernel
def list_entries(tile_rows: Any) -> Any:
    """Entries of a worker's list, for blocks of so many rows of tiles."""
    return 1 + tile_rows * ROW_ENTRIES


@kernel
def list_rows(p: Problem, blocks: Blocks, block: Any, places: Any) -> None:
    """List where a block's rows of tiles lie.

    Of results: the place of the first, and how many rows and columns there are from it on. Of inputs: the place of the
    first, which may lie outside, its row and column, and how many of both there are. Places are in elements from the
    first of the first channel.
    """
    row_first, row_stop, col_first, _ = block_of(p, blocks, block)
    at = 1
    for row in range(row_first, row_stop):
        n, phase_h, phase_w, tile_row = place_of(p, row)
        top, left = tile_row * STEP, col_first * STEP
        _, rows, _ = apart(p.dilation_h, phase_h, p.out_h)
        _, cols, _ = apart(p.dilation_w, phase_w, p.out_w)
        pixel = (phase_h + top * p.dilation_h) * p.out_w + phase_w + left * p.dilation_w
        places[at] = n * p.filters * p.out_h * p.out_w + pixel
        places[at + 1], places[at + 2] = rows - top, cols - left
        first_h, rows, behind_h = apart(p.dilation_h, phase_h - p.pad_top, p.in_h)
        first_w, cols, behind_w = apart(p.dilation_w, phase_w - p.pad_left, p.in_w)
        top, left = top + behind_h, left + behind_w
        pixel = (first_h + top * p.dilation_h) * p.in_w + first_w + left * p.dilation_w
        places[at + 3] = n * p.channels * p.in_h * p.in_w + pixel
        places[at + 4], places[at + 5], places[at + 6], places[at + 7] = top, rows, left, cols
        at += ROW_ENTRIES


@kernel
def transform_inputs(
    p: Problem, blocks: Blocks, kernels: Any, block: Any, first: Any, stop: Any, x: Any, places: Any, lines: Any,
    data: Any,
) -> None:  # fmt: skip
    """Transform a block's inputs, of channels `first <= c < stop`; `lines` is scratch, an array, `data` an address."""
    size, lanes = kernels[ELEMENT], kernels[LANES]
    row_first, row_stop, col_first, col_stop = block_of(p, blocks, block)
    tiles = col_stop - col_first
    lines[:] = 0  # lanes beside a row's tiles are computed, too, and denormals are slow
    mixed = aligned(lines.ctypes.data)
    vectors = (STEP * tiles + WINDOW - STEP + lanes - 1) // lanes
    for c in range(first, stop):
        plane = x + c * p.in_h * p.in_w * size
        target = data + c * blocks.data_pitch * size
        for at in range(1, 1 + (row_stop - row_first) * ROW_ENTRIES, ROW_ENTRIES):
            row, rows, col, cols = places[at + 4], places[at + 5], places[at + 6], places[at + 7]
            winograd.mix_rows(
                kernels, plane + places[at + 3] * size, p.dilation_h * p.in_w, p.dilation_w, -row, rows - row, col,
                cols, mixed, blocks.line_pitch, vectors,
            )  # fmt: skip
            winograd.spread(kernels, mixed, blocks.line_pitch, target, blocks.product_pitch, tiles)
            target += tiles * size


@kernel
def _multiply_product(
    p: Problem, blocks: Blocks, kernels: Any, tiles: Any, product: Any, channel: Any, panel: Any, data: Any,
    weights: Any, sums: Any,
) -> None:  # fmt: skip
    """Multiply tiles' data of one product and a block of channels with a panel's weights into its sums. Addresses."""
    size, lanes = kernels[ELEMENT], kernels[LANES]
    vectors, channels = panel_vectors(p, kernels, panel), min(CHANNEL_BLOCK, p.channels - channel)
    of_product = channels * vectors * lanes + line_of(kernels)
    winograd.multiply(
        kernels, vectors, data + (channel * blocks.data_pitch + product * blocks.product_pitch) * size,
        blocks.data_pitch, tiles, weights + product * of_product * size, channels, sums + product * lanes * size,
        vectors * PRODUCTS * lanes, channel,
    )  # fmt: skip


@kernel
def _multiply_together(
    p: Problem, blocks: Blocks, kernels: Any, tiles: Any, first: Any, stop: Any, data: Any, transformed: Any, sums: Any
) -> None:
    """Multiply so many tiles' data with the weights of panels `first <= panel < stop`, of all that are transformed.

    A product's data are read once and stay in a near cache while its weights pass by. Addresses all.
    """
    for product in range(PRODUCTS):
        for channel in range(0, p.channels, CHANNEL_BLOCK):
            for panel in range(first, stop):
                _multiply_product(
                    p, blocks, kernels, tiles, product, channel, panel, data,
                    transformed + weights_at(p, kernels, panel, channel) * kernels[ELEMENT],
                    sums + (panel - first) * sums_elements(kernels, tiles) * kernels[ELEMENT],
                )  # fmt: skip


@kernel
def _multiply_panel(
    p: Problem, blocks: Blocks, kernels: Any, tiles: Any, panel: Any, data: Any, weight: Any, taps: Any,
    transformed: Any, sums: Any,
) -> None:  # fmt: skip
    """The same for one panel, whose weights are transformed into scratch. Addresses all."""
    for channel in range(0, p.channels, CHANNEL_BLOCK):
        transform_weights(p, kernels, weight, panel, channel, taps, transformed)
        for product in range(PRODUCTS):
            _multiply_product(p, blocks, kernels, tiles, product, channel, panel, data, transformed, sums)


@kernel
def _store_panel(
    p: Problem, kernels: Any, rows: Any, across: Any, panel: Any, bias: Any, y: Any, places: Any, sums: Any
) -> None:
    """Transform a panel's sums of rows of tiles, `across` in each, into results. `bias` may be 0; addresses all."""
    size, lanes = kernels[ELEMENT], kernels[LANES]
    vectors = panel_vectors(p, kernels, panel)
    tile_pitch = vectors * PRODUCTS * lanes
    for j in range(vectors):
        o = (panel * kernels[VECTORS] + j) * lanes
        shift = bias + o * size if bias != 0 else 0
        source = sums + j * PRODUCTS * lanes * size
        of_channel = y + o * p.out_h * p.out_w * size
        for at in range(1, 1 + rows * ROW_ENTRIES, ROW_ENTRIES):
            winograd.results(
                kernels, source, tile_pitch, across, shift, of_channel + places[at] * size, p.out_h * p.out_w,
                p.dilation_h * p.out_w, p.dilation_w, places[at + 1], min(places[at + 2], across * STEP),
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
