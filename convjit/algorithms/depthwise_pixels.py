"""Depthwise outputs and input gradients with neighbouring pixels as lanes, one channel at a time.

Knows how images are cut into tiles, and which planes and filters meet; does not know how they are correlated.
Source: as `gemm.correlation`; the input gradient is the correlation with the flipped filter, a phase of the stride at a
time (V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016), section 4).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm import correlation, micro
from ..gemm.correlation import correlate, fill, weave
from ..gemm.estimate import pixel_lanes_share
from ..gemm.planes import (
    BEHIND,
    Axis,
    backward_axes,
    forward_axes,
    grid_phases,
    horizontal_phase,
    vertical_phase,
)
from ..gemm.tasks import ONE_CHANNEL_TASK_MULTIPLICATIONS
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, run_in_turn
from ..simd import isa
from ..typing import DType
from .algorithm import INDICES, Explained, Space, work_ns

# --- tiles of grid points -------------------------------------------------------------------------------------------


class Tiles(NamedTuple):
    """Tiles of `rows` x `cols` grid points, `down` x `across` of them, and how many pixels more a plane has."""

    rows: int
    cols: int
    down: int
    across: int
    reach_h: int
    reach_w: int


# Planes of a tile stay in the second-level cache between filling and reading.
_TILE_BYTES = 1 << 18
# Columns of a tile that is cut: some vectors, of 16 elements.
_COLUMNS = 64


@lru_cache(maxsize=256)
def _cut(
    axes: tuple[Axis, Axis], extra: tuple[int, int], channels: int, outputs: int, images: int, workers: int, size: int
) -> Tiles:
    """The tiles of `images` planes, each read with the planes of `channels`, for so many results a grid point.

    A tile fills at most about twice the pixels that it has grid points.
    """
    vertical, horizontal = axes
    reach_h, reach_w = (axis.padded - axis.grid + more for axis, more in zip(axes, extra, strict=True))
    room = _TILE_BYTES // (size * channels * vertical.planes * horizontal.planes)
    rows, cols = max(vertical.grid, 1), max(horizontal.grid, 1)
    least = max(4, reach_h)
    if (rows + reach_h) * (cols + reach_w) > room:
        rows = min(rows, max(least, room // (cols + reach_w) - reach_h))
        wide = max(room // (rows + reach_h) - reach_w, reach_w) // _COLUMNS * _COLUMNS
        cols = min(cols, max(_COLUMNS, wide))
    # A phase's axes say how many taps it has; another phase may have one more in either direction.
    cost = outputs * (vertical.taps + extra[0]) * (horizontal.taps + extra[1])
    if rows * cols * cost > ONE_CHANNEL_TASK_MULTIPLICATIONS:
        rows = max(1, ONE_CHANNEL_TASK_MULTIPLICATIONS // (cols * cost))
        if rows * cols * cost > ONE_CHANNEL_TASK_MULTIPLICATIONS:
            cols = min(cols, max(_COLUMNS, ONE_CHANNEL_TASK_MULTIPLICATIONS // cost // _COLUMNS * _COLUMNS))
    if workers > 1 and images > 0:
        bands = -(-4 * workers // (images * -(-horizontal.grid // cols)))
        rows = min(rows, max(least, -(-vertical.grid // bands)))
    down, across = -(-vertical.grid // rows), -(-horizontal.grid // cols)
    return Tiles(rows, cols, down, across, reach_h, reach_w)


def _planes(cut: Tiles, axes: tuple[Axis, Axis], channels: int) -> int:
    """Elements of the planes of a tile."""
    pixels = (cut.rows + cut.reach_h) * (cut.cols + cut.reach_w)
    return channels * axes[0].planes * axes[1].planes * pixels + BEHIND


def _explained(
    g: Geometry, cut: Tiles, axes: tuple[Axis, Axis], planes: int, results: int, workers: int, dtype: DType
) -> Explained:
    """The cut of images of which so many planes are filled, for so many results a grid point."""
    vertical, horizontal = axes
    lanes, tasks = isa.lanes(dtype), g.batch * g.in_channels * cut.down * cut.across
    filling = g.batch * planes * cut.down * cut.across * (_planes(cut, axes, 1) - BEHIND) / lanes
    vectors = g.batch * results * vertical.grid * cut.across * -(-cut.cols // lanes)
    filled = g.batch * results * vertical.grid * horizontal.grid / max(1, vectors * lanes)
    taps = g.kernel_h * g.kernel_w * g.batch * g.out_channels * g.out_h * g.out_w / max(1.0, filled * vectors * lanes)
    share = pixel_lanes_share(taps, filling, vectors, filled, tasks, workers)
    return Explained(f"pixels as lanes, tiles of {cut.rows}x{cut.cols}; tasks: {tasks}", share)


@kernel
def window(axis: Axis, first: Any, count: Any, padded: Any) -> Any:
    """The axis from grid point `first` on, cut to `count` grid points at most, with planes of `padded` pixels."""
    grid = max(0, min(count, axis.grid - first))
    return Axis(
        axis.size, padded, axis.planes, axis.step, axis.plane_step, axis.first + first * axis.step, grid, axis.taps,
        axis.shift, axis.tap_step, axis.out_first + first * axis.out_step, axis.out_step, axis.kernel_first,
        axis.kernel_step,
    )  # fmt: skip


# --- forward --------------------------------------------------------------------------------------------------------


@driver
def _forward(
    task: Any, worker: Any, g: Geometry, cut: Tiles, down: Axis, along: Axis, kernels: Any, tiles: Any, weight: Any,
    bias: Any, x: Any, y: Any, planes: Any, lists: Any,
) -> None:  # fmt: skip
    """y[n,o,oh,ow] = bias[o] + sum over kh,kw of weight[o,0,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]

    A tile of all outputs of one input channel; `weight` is flat.
    """
    channel = task // (cut.down * cut.across)
    top, left = task // cut.across % cut.down * cut.rows, task % cut.across * cut.cols
    n, c = channel // g.in_channels, channel % g.in_channels
    rows, cols = min(cut.rows, g.out_h - top), min(cut.cols, g.out_w - left)
    vertical = window(down, top, rows, rows + cut.reach_h)
    horizontal = window(along, left, cols, cols + cut.reach_w)
    image = x.ctypes.data + (n * g.in_channels + c) * g.in_h * g.in_w * x.itemsize
    fill(tiles, planes[worker].ctypes.data, image, vertical, horizontal)
    each = g.out_channels // g.groups
    for o in range(c * each, (c + 1) * each):
        correlate(
            kernels, tiles, lists[worker], planes[worker].ctypes.data, 1,
            weight.ctypes.data + o * g.kernel_h * g.kernel_w * weight.itemsize, vertical, horizontal,
            y.ctypes.data + (((n * g.out_channels + o) * g.out_h + top) * g.out_w + left) * y.itemsize, g.out_w,
            bias.ctypes.data + o * bias.itemsize if bias.size > 0 else 0,
        )  # fmt: skip


def _forward_tiles(g: Geometry, workers: int, dtype: DType) -> Tiles:
    images = g.batch * g.in_channels
    return _cut(forward_axes(g), (0, 0), 1, g.out_channels // g.groups, images, workers, dtype.itemsize)


def forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Planes and lists."""
    axes, cut = forward_axes(g), _forward_tiles(g, workers, dtype)
    lists = correlation.list_entries(*axes, 1)
    return Space((workers, _planes(cut, axes, 1)), name="planes"), Space((workers, lists), INDICES, "lists")


def forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    cut = _forward_tiles(g, workers, dtype)
    return _explained(g, cut, forward_axes(g), g.in_channels, g.out_channels, workers, dtype)


@lru_cache(maxsize=256)
def _forward_launch(g: Geometry, workers: int, dtype: DType) -> Launch:
    cut = _forward_tiles(g, workers, dtype)
    tasks = g.batch * g.in_channels * cut.down * cut.across
    kernels = correlation.kernels(dtype), micro.kernels(dtype)
    return Launch(_forward, tasks, work_ns(g), g, cut, *forward_axes(g), *kernels)


def run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, planes: Any, lists: Any) -> None:
    """Launch the driver."""
    how = _forward_launch(g, workers, y.dtype)
    run_in_turn(workers, how.on(weight.reshape(-1), bias, x, y, planes, lists))


# --- input gradient -------------------------------------------------------------------------------------------------


@kernel
def _pack_phase(packed: Any, weight: Any, first: Any, channels: Any, vertical: Axis, horizontal: Axis) -> None:
    """The taps of a phase, (o, kh, kw) in its order, of `channels` filters."""
    at = 0
    for o in range(first, first + channels):
        for s in range(vertical.taps):
            line = weight[o, 0, vertical.kernel_first + s * vertical.kernel_step]
            for t in range(horizontal.taps):
                packed[at] = line[horizontal.kernel_first + t * horizontal.kernel_step]
                at += 1


@kernel
def _interleave(kernels: Any, phased: Any, apart: Any, phases: Any, row: Any, first: Any, count: Any) -> None:
    """row[first + k*phases + p] = phased[p*apart + k], up to `count` elements of the row."""
    if phases == 2:
        size = phased.itemsize
        weave(
            kernels, phased.ctypes.data, phased.ctypes.data + apart * size, row.ctypes.data + first * size, count
        )  # fmt: skip
        return
    for p in range(phases):
        for k in range((count - p + phases - 1) // phases):
            row[first + k * phases + p] = phased[p * apart + k]


@driver
def _input_grad(
    task: Any, worker: Any, g: Geometry, cut: Tiles, kernels: Any, tiles: Any, weight: Any, dy: Any, dx: Any,
    planes: Any, packed: Any, phased: Any, lists: Any,
) -> None:  # fmt: skip
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,0,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    A tile of all phases of `(h, w)` modulo the stride. Phases of a row are put together from `phased`.
    """
    channel = task // (cut.down * cut.across)
    top, left = task // cut.across % cut.down * cut.rows, task % cut.across * cut.cols
    n, c = channel // g.in_channels, channel % g.in_channels
    each = g.out_channels // g.groups
    first_h, first_w = vertical_phase(g, 0), horizontal_phase(g, 0)
    rows, cols = min(cut.rows, first_h.grid - top), min(cut.cols, first_w.grid - left)
    padded_h, padded_w = rows + cut.reach_h, cols + cut.reach_w
    here, size = planes[worker], dx.itemsize
    for o in range(each):
        fill(
            tiles, here.ctypes.data + o * padded_h * padded_w * size,
            dy.ctypes.data + (n * g.out_channels + c * each + o) * g.out_h * g.out_w * size,
            window(first_h, top, rows, padded_h), window(first_w, left, cols, padded_w),
        )  # fmt: skip
    phases = grid_phases(g.stride_w, g.in_w)
    direct = dx.ctypes.data + ((n * g.in_channels + c) * g.in_h * g.in_w + left) * size
    for p in range(grid_phases(g.stride_h, g.in_h)):
        vertical = window(vertical_phase(g, p), top, rows, padded_h)
        for q in range(phases):
            horizontal = window(horizontal_phase(g, q), left, cols, padded_w)
            _pack_phase(packed[worker], weight, c * each, each, vertical, horizontal)
            target, pitch = direct + vertical.out_first * g.in_w * size, vertical.out_step * g.in_w
            if phases > 1:
                target, pitch = phased[worker].ctypes.data + q * rows * cols * size, cols
            correlate(
                kernels, tiles, lists[worker], here.ctypes.data, each, packed[worker].ctypes.data, vertical,
                horizontal, target, pitch, 0,
            )  # fmt: skip
        if phases > 1:
            first = left * g.stride_w
            count = min(cols * g.stride_w, g.in_w - first)
            for i in range(vertical.grid):
                _interleave(
                    kernels, phased[worker, i * cols :], rows * cols, phases,
                    dx[n, c, vertical.out_first + i * vertical.out_step], first, count,
                )  # fmt: skip


def _input_grad_tiles(g: Geometry, workers: int, dtype: DType) -> Tiles:
    extra = (int(g.stride_h > 1), int(g.stride_w > 1))
    # A result of a grid point for each phase.
    outputs = g.out_channels // g.groups * min(g.stride_h, g.in_h) * min(g.stride_w, g.in_w)
    images = g.batch * g.in_channels
    return _cut(
        backward_axes(g), extra, g.out_channels // g.groups, outputs, images, workers, dtype.itemsize
    )  # fmt: skip


def _lines(g: Geometry, cut: Tiles) -> int:
    """Elements of the results of a tile's rows before phases are put together."""
    phases = min(g.stride_w, g.in_w)
    return phases * cut.rows * cut.cols + BEHIND if phases > 1 else 0


def input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Planes, packed weights, lines and lists."""
    axes, cut, each = backward_axes(g), _input_grad_tiles(g, workers, dtype), g.out_channels // g.groups
    terms = each * g.kernel_h * g.kernel_w
    return (
        Space((workers, _planes(cut, axes, each)), name="planes"), Space((workers, terms), name="turned taps"),
        Space((workers, _lines(g, cut)), name="lines"),
        Space((workers, max(terms, 2 * g.kernel_h + g.kernel_w)), INDICES, "lists"),
    )  # fmt: skip


def input_grad_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    cut, phases = _input_grad_tiles(g, workers, dtype), min(g.stride_h, g.in_h) * min(g.stride_w, g.in_w)
    return _explained(g, cut, backward_axes(g), g.out_channels, g.in_channels * phases, workers, dtype)


@lru_cache(maxsize=256)
def _input_grad_launch(g: Geometry, workers: int, dtype: DType) -> Launch:
    cut = _input_grad_tiles(g, workers, dtype)
    tasks = g.batch * g.in_channels * cut.down * cut.across
    return Launch(_input_grad, tasks, work_ns(g), g, cut, correlation.kernels(dtype), micro.kernels(dtype))


def run_input_grad(
    workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, planes: Any, packed: Any, phased: Any, lists: Any
) -> None:
    """Launch the driver."""
    how = _input_grad_launch(g, workers, dx.dtype)
    run_in_turn(workers, how.on(weight, dy, dx, planes, packed, phased, lists))
