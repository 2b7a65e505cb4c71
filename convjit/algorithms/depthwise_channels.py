"""Depthwise outputs and input gradients with channels as lanes: no lane is empty however narrow images are.

Knows how bands of rows of several channels are packed, summed and unpacked; does not know how a pixel is summed.
Strides and phases are displacements of whole pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm import channel_lanes
from ..gemm.channel_lanes import ELEMENT, LANES, pack, pack_row, sum_row, unpack
from ..gemm.estimate import channel_lanes_share
from ..gemm.planes import Axis, backward_axes, grid_phases, horizontal_phase, vertical_phase
from ..gemm.summation import TERM_BLOCK
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, run_in_turn
from ..runtime.memory import CACHE_LINE
from ..simd import isa
from ..typing import DType
from .algorithm import INDICES, Explained, Space, work_ns


class Bands(NamedTuple):
    """How images are cut into bands of grid rows, and where what is packed begins in a worker's scratch."""

    rows: int
    bands: int
    results_at: int  # behind the packed pixels
    weights_at: int
    bias_at: int
    elements: int


# Packed pixels and results stay in the second-level cache from packing to unpacking.
_PACKED_BYTES = 1 << 19


@lru_cache(maxsize=256)
def _bands(
    g: Geometry, rows: int, pixel_rows: tuple[int, int], width: int, results: int, workers: int, dtype: DType
) -> Bands:
    """Bands of `rows` grid rows in all, of which n meet `pixel_rows[0]*n + pixel_rows[1]` rows of `width` pixels.

    `results` are the pixels that a grid row results in.
    """
    lanes = isa.lanes(dtype)
    step, more = pixel_rows
    room = _PACKED_BYTES // (dtype.itemsize * lanes)
    here = min(rows, max(1, (room - more * width) // max(step * width + results, 1)))
    tasks = g.batch * -(-g.out_channels // lanes)
    if workers > 1 and tasks > 0:
        here = min(here, max(more, -(-rows // -(-4 * workers // tasks))))
    # Behind each packed part a square of lanes is written or read.
    results_at = lanes * ((step * here + more) * width + lanes)
    weights_at = results_at + lanes * (here * results + lanes)
    bias_at = weights_at + lanes * (g.kernel_h * g.kernel_w + lanes)
    return Bands(
        here, -(-rows // max(here, 1)), results_at, weights_at, bias_at, bias_at + lanes + CACHE_LINE // dtype.itemsize
    )


def _space(g: Geometry, bands: Bands, workers: int, dtype: DType) -> tuple[Space, ...]:
    lanes = isa.lanes(dtype)
    # Where channels lie, and where each tap is met.
    lists = 2 * lanes + 2 * g.kernel_h * g.kernel_w
    return Space((workers, bands.elements), name="bands"), Space((workers, lists), INDICES, "lists")


def _explained(
    bands: Bands, channels: int, g: Geometry, packed: int, unpacked: int, workers: int, dtype: DType
) -> Explained:
    """The cut of so many channels of images, of each of which so many pixels are packed and unpacked."""
    lanes = isa.lanes(dtype)
    vectors = -(-channels // lanes)
    tasks = g.batch * vectors * bands.bands
    filled = channels / max(1, vectors * lanes)
    products = g.kernel_h * g.kernel_w * g.out_h * g.out_w
    share = channel_lanes_share(products, packed, unpacked, filled, tasks, workers)
    return Explained(f"channels as lanes, bands of {bands.rows} rows; tasks: {tasks}", share)


# Rows of this many vectors and more are summed with pixels as lanes: nothing has to be packed and unpacked then. In
# float32 on AVX-512, a 3x3 filter with channels as lanes takes 0.8 of the time for rows of 1.75 vectors, and 1.15 times
# the time for rows of 3.5 (`bench.measure`). With a stride it takes 0.3 to 0.8 of the time.
_PIXEL_VECTORS = 2.5


def _fits(bands: Bands, pixel_rows: tuple[int, int], dtype: DType) -> bool:
    """Whether a cache holds bands so high that few rows are packed twice."""
    step, more = pixel_rows
    return bands.elements * dtype.itemsize <= 2 * _PACKED_BYTES and (
        bands.bands == 1 or 2 * (more - step) <= bands.rows * step
    )


def _pays(g: Geometry, row: int, stride: int, dtype: DType) -> bool:
    """Whether channels fill at least half of the lanes, and rows of so many pixels do not, or have a stride."""
    lanes = isa.lanes(dtype)
    is_short = g.kernel_h * g.kernel_w <= TERM_BLOCK
    return is_short and 2 * g.out_channels >= lanes and (stride > 1 or row < _PIXEL_VECTORS * lanes)


@lru_cache(maxsize=256)
def forward_pays(g: Geometry, dtype: DType) -> bool:
    """Whether the forward pass is faster with channels as lanes than with pixels."""
    return _pays(g, g.out_w, g.stride_w, dtype) and _fits(_forward_bands(g, 1, dtype), _forward_rows(g), dtype)


@lru_cache(maxsize=256)
def input_grad_pays(g: Geometry, dtype: DType) -> bool:
    """Whether the input gradient is; sums have the taps of one filter then."""
    if g.out_channels != g.groups or not _pays(g, g.in_w, g.stride_w, dtype):
        return False
    return _fits(_input_grad_bands(g, 1, dtype), _input_grad_rows(g), dtype)


# --- forward --------------------------------------------------------------------------------------------------------


@driver
def _forward(
    task: Any, worker: Any, g: Geometry, bands: Bands, kernels: Any, x: Any, weight: Any, bias: Any, y: Any,
    scratches: Any, lists: Any,
) -> None:  # fmt: skip
    """y[n,o,oh,ow] = bias[o] + sum over kh,kw of weight[o,0,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]

    Tasks are (image, vector of output channels, band of output rows).
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    vectors = (g.out_channels + lanes - 1) // lanes
    n, o = task // (vectors * bands.bands), task // bands.bands % vectors * lanes
    oh = task % bands.bands * bands.rows
    rows, taps = min(bands.rows, g.out_h - oh), g.kernel_h * g.kernel_w
    scratch, places = scratches[worker], lists[worker]
    base = -scratch.ctypes.data % CACHE_LINE // size
    here, table = scratch.ctypes.data + base * size, places.ctypes.data
    each = g.out_channels // g.groups
    for j in range(lanes):  # behind the last channel it is computed again
        places[j] = weight.ctypes.data + min(o + j, g.out_channels - 1) * taps * size
    pack(kernels, table, 0, taps, here + bands.weights_at * size)
    for j in range(lanes):
        channel = min(o + j, g.out_channels - 1)
        places[j] = x.ctypes.data + (n * g.in_channels + channel // each) * g.in_h * g.in_w * size
        places[lanes + j] = y.ctypes.data + (n * g.out_channels + channel) * g.out_h * g.out_w * size
        if bias.size > 0:
            scratch[base + bands.bias_at + j] = bias[channel]
    width = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1
    for r in range((rows - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h + 1):
        pack_row(
            kernels, table, 0, scratch, base + r * width * lanes, -g.pad_left, width,
            oh * g.stride_h - g.pad_top + r, g.in_h, g.in_w,
        )  # fmt: skip
    at = 2 * lanes
    for tap in range(taps):
        kh, kw = tap // g.kernel_w, tap % g.kernel_w
        places[at + 2 * tap] = (kh * g.dilation_h * width + kw * g.dilation_w) * lanes
        places[at + 2 * tap + 1] = tap * lanes
    for i in range(rows):
        sum_row(
            kernels, here + i * g.stride_h * width * lanes * size, g.stride_w * lanes, table + 8 * at, taps,
            here + bands.weights_at * size, here + (bands.results_at + i * g.out_w * lanes) * size, lanes, g.out_w,
            here + bands.bias_at * size if bias.size > 0 else 0,
        )  # fmt: skip
    unpack(kernels, table + 8 * lanes, oh * g.out_w, rows * g.out_w, here + bands.results_at * size)


def _forward_rows(g: Geometry) -> tuple[int, int]:
    return g.stride_h, (g.kernel_h - 1) * g.dilation_h + 1


def _forward_bands(g: Geometry, workers: int, dtype: DType) -> Bands:
    width = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1
    return _bands(g, g.out_h, _forward_rows(g), width, g.out_w, workers, dtype)


def forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Scratch and lists."""
    return _space(g, _forward_bands(g, workers, dtype), workers, dtype)


def forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    bands, (step, more) = _forward_bands(g, workers, dtype), _forward_rows(g)
    width = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1
    pixels = (g.out_h * step + bands.bands * more) * width
    return _explained(bands, g.out_channels, g, pixels, g.out_h * g.out_w, workers, dtype)


@lru_cache(maxsize=256)
def _forward_launch(g: Geometry, workers: int, dtype: DType) -> Launch:
    kernels, bands = channel_lanes.point_kernels(dtype), _forward_bands(g, workers, dtype)
    tasks = g.batch * -(-g.out_channels // isa.lanes(dtype)) * bands.bands
    return Launch(_forward, tasks, work_ns(g), g, bands, kernels)


def run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, scratches: Any, lists: Any) -> None:
    """Launch the driver."""
    run_in_turn(workers, _forward_launch(g, workers, y.dtype).on(x, weight, bias, y, scratches, lists))


# --- input gradient -------------------------------------------------------------------------------------------------


@kernel
def _list_phase(places: Any, at: Any, vertical: Axis, horizontal: Axis, width: Any, lanes: Any, kernel_w: Any) -> Any:
    """Where a phase's taps are met, and their weights; return how many."""
    found = at
    for s in range(vertical.taps):
        for t in range(horizontal.taps):
            row, col = vertical.shift + s * vertical.tap_step, horizontal.shift + t * horizontal.tap_step
            kh = vertical.kernel_first + s * vertical.kernel_step
            kw = horizontal.kernel_first + t * horizontal.kernel_step
            places[found], places[found + 1] = (row * width + col) * lanes, (kh * kernel_w + kw) * lanes
            found += 2
    return (found - at) // 2


@driver
def _input_grad(
    task: Any, worker: Any, g: Geometry, bands: Bands, kernels: Any, dy: Any, weight: Any, dx: Any, scratches: Any,
    lists: Any,
) -> None:  # fmt: skip
    """dx[n,c,h,w] = sum over kh,kw of weight[c,0,kh,kw] * dy[n,c,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    Tasks are (image, vector of channels, band of rows); a row of the grid is a row of each phase modulo the stride.
    """
    size, lanes = kernels[ELEMENT], kernels[LANES]
    vectors = (g.in_channels + lanes - 1) // lanes
    n, c = task // (vectors * bands.bands), task // bands.bands % vectors * lanes
    top = task % bands.bands * bands.rows
    taps = g.kernel_h * g.kernel_w
    scratch, places = scratches[worker], lists[worker]
    base = -scratch.ctypes.data % CACHE_LINE // size
    here, table = scratch.ctypes.data + base * size, places.ctypes.data
    for j in range(lanes):  # behind the last channel it is computed again
        places[j] = weight.ctypes.data + min(c + j, g.in_channels - 1) * taps * size
    pack(kernels, table, 0, taps, here + bands.weights_at * size)
    for j in range(lanes):
        channel = n * g.in_channels + min(c + j, g.in_channels - 1)
        places[j] = dy.ctypes.data + channel * g.out_h * g.out_w * size
        places[lanes + j] = dx.ctypes.data + channel * g.in_h * g.in_w * size
    first_h, first_w = vertical_phase(g, 0), horizontal_phase(g, 0)
    rows, width = min(bands.rows, first_h.grid - top), first_w.padded
    for r in range(min(rows + first_h.padded - first_h.grid + 1, first_h.padded - top)):
        pack_row(
            kernels, table, 0, scratch, base + r * width * lanes, first_w.first, width, first_h.first + top + r,
            g.out_h, g.out_w,
        )  # fmt: skip
    for p in range(grid_phases(g.stride_h, g.in_h)):
        vertical = vertical_phase(g, p)
        for q in range(grid_phases(g.stride_w, g.in_w)):
            horizontal = horizontal_phase(g, q)
            found = _list_phase(places, 2 * lanes, vertical, horizontal, width, lanes, g.kernel_w)
            for i in range(min(rows, vertical.grid - top)):
                target = bands.results_at + ((i * g.stride_h + p) * g.in_w + q) * lanes
                sum_row(
                    kernels, here + i * width * lanes * size, lanes, table + 16 * lanes, found,
                    here + bands.weights_at * size, here + target * size, g.stride_w * lanes, horizontal.grid, 0,
                )  # fmt: skip
    first = top * g.stride_h
    count = min(rows * g.stride_h, g.in_h - first) * g.in_w
    unpack(kernels, table + 8 * lanes, first * g.in_w, count, here + bands.results_at * size)


def _input_grad_rows(g: Geometry) -> tuple[int, int]:
    vertical, _ = backward_axes(g)
    return 1, vertical.padded - vertical.grid + 1


def _input_grad_bands(g: Geometry, workers: int, dtype: DType) -> Bands:
    vertical, horizontal = backward_axes(g)
    results = min(g.stride_h, g.in_h) * g.in_w
    return _bands(g, vertical.grid, _input_grad_rows(g), horizontal.padded, results, workers, dtype)


def input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Scratch and lists."""
    return _space(g, _input_grad_bands(g, workers, dtype), workers, dtype)


def input_grad_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    bands, (_, more) = _input_grad_bands(g, workers, dtype), _input_grad_rows(g)
    vertical, horizontal = backward_axes(g)
    pixels = (vertical.grid + bands.bands * more) * horizontal.padded
    return _explained(bands, g.in_channels, g, pixels, g.in_h * g.in_w, workers, dtype)


@lru_cache(maxsize=256)
def _input_grad_launch(g: Geometry, workers: int, dtype: DType) -> Launch:
    kernels, bands = channel_lanes.point_kernels(dtype), _input_grad_bands(g, workers, dtype)
    tasks = g.batch * -(-g.in_channels // isa.lanes(dtype)) * bands.bands
    return Launch(_input_grad, tasks, work_ns(g), g, bands, kernels)


def run_input_grad(workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, scratches: Any, lists: Any) -> None:
    """Launch the driver."""
    run_in_turn(workers, _input_grad_launch(g, workers, dx.dtype).on(dy, weight, dx, scratches, lists))
