"""Depthwise outputs and input gradients of images of one row: sequences, and kernels of one pixel.

Rows of several channels are computed together, since one of them is little work. Knows how rows are cut into tasks;
does not know how they are correlated. Input gradients are those of stride 1, one filter a channel: then they are a
correlation with the flipped filter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm import lines
from ..gemm.estimate import pixel_lanes_share
from ..gemm.lines import correlate_lines, fill_lines
from ..gemm.micro import fills
from ..gemm.planes import BEHIND, Axis, backward_axes, forward_axes
from ..gemm.tasks import ONE_CHANNEL_TASK_MULTIPLICATIONS
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.launch import Launch, run_in_turn
from ..simd import isa
from ..typing import DType
from .algorithm import INDICES, Explained, Space, work_ns
from .depthwise_pixels import window


class Rows(NamedTuple):
    """What is correlated, and tasks of `rows` channels x `cols` grid points, `down` x `across` of them an image."""

    channels: int
    each: int  # results of a channel
    first_tap: int  # which element of a filter tap 0 is
    tap_step: int
    rows: int
    cols: int
    down: int
    across: int
    reach: int  # how many pixels more a plane has


# Planes of a task stay in the second-level cache from filling to reading, beside what is read and written.
_TILE_BYTES = 1 << 16
# Grid points of a row that is cut: some tiles of 12 vectors of 16 elements; and the least for a worker of several.
_COLUMNS, _LEAST_COLUMNS = 192, 1536


@lru_cache(maxsize=256)
def _rows(g: Geometry, is_gradient: bool, workers: int, dtype: DType) -> tuple[Rows, Axis]:
    """How rows are cut, and their axis."""
    _, along = backward_axes(g) if is_gradient else forward_axes(g)
    each, reach = g.out_channels // g.groups, along.padded - along.grid
    room = _TILE_BYTES // (dtype.itemsize * along.planes)
    cols = max(along.grid, 1)
    if cols + reach > room:
        cols = min(cols, max(_COLUMNS, (room - reach) // _COLUMNS * _COLUMNS))
    most = ONE_CHANNEL_TASK_MULTIPLICATIONS // (each * along.taps)
    cols = min(cols, max(_COLUMNS, most // _COLUMNS * _COLUMNS))
    rows = max(1, min(g.in_channels, room // (cols + reach), most // cols))
    if workers > 1:
        tasks = 4 * workers
        rows = min(rows, -(-g.batch * g.in_channels // tasks))
        pieces = -(-tasks // max(1, g.batch * g.in_channels))
        cols = min(cols, max(_LEAST_COLUMNS, -(-along.grid // pieces)))
    first, step = (along.kernel_first, along.kernel_step) if is_gradient else (0, 1)
    down, across = -(-g.in_channels // rows), -(-along.grid // cols)
    return Rows(g.in_channels, each, first, step, rows, cols, down, across, reach), along


@driver
def _correlate_rows(
    task: Any, worker: Any, s: Rows, axis: Axis, kernels: Any, of_planes: Any, images: Any, weight: Any, bias: Any,
    results: Any, planes: Any, lists: Any,
) -> None:  # fmt: skip
    """y[n,o,0,ow] = bias[o] + sum over kw of weight[o,0,0,kw] * x[n, c, 0, ow*stride_w+kw*dilation_w-pad_left]

    Or dx[n,c,0,w] = sum over kw of weight[c,0,0,kw] * dy[n,c,0,ow] where w = ow+kw*dilation_w-pad_left. Tasks are
    (image, some channels, piece of a row); `weight` is flat.
    """
    image, left = task // s.across, task % s.across * s.cols
    first = image % s.down * s.rows
    rows, cols = min(s.rows, s.channels - first), min(s.cols, axis.grid - left)
    along, size = window(axis, left, cols, cols + s.reach), images.itemsize
    source, row = planes[worker].ctypes.data, image // s.down * s.channels + first
    fill_lines(of_planes, source, images.ctypes.data + row * axis.size * size, rows, along)
    for e in range(s.each):
        o = first * s.each + e
        correlate_lines(
            kernels, lists[worker], source, along, rows, weight.ctypes.data + (o * axis.taps + s.first_tap) * size,
            s.each * axis.taps, s.tap_step, results.ctypes.data + ((row * s.each + e) * axis.grid + left) * size,
            s.each * axis.grid, bias.ctypes.data + o * size if bias.size > 0 else 0, s.each,
        )  # fmt: skip


def _are_rows(g: Geometry) -> bool:
    return g.in_h == g.out_h == g.kernel_h == 1 and g.pad_top == 0


def forward_pays(g: Geometry, dtype: DType) -> bool:
    """Whether images have one row."""
    return _are_rows(g)


def input_grad_pays(g: Geometry, dtype: DType) -> bool:
    """Whether images have one row, and every pixel of them meets all taps of one filter."""
    return _are_rows(g) and g.stride_w == 1 and g.out_channels == g.groups


def _workspace(g: Geometry, is_gradient: bool, workers: int, dtype: DType) -> tuple[Space, ...]:
    s, along = _rows(g, is_gradient, workers, dtype)
    planes = s.rows * along.planes * (s.cols + s.reach) + BEHIND
    return Space((workers, planes), name="planes"), Space((workers, along.taps), INDICES, "lists")


def forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Planes and lists."""
    return _workspace(g, False, workers, dtype)


def input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    """Planes and lists."""
    return _workspace(g, True, workers, dtype)


def _explained(g: Geometry, is_gradient: bool, workers: int, dtype: DType) -> Explained:
    s, along = _rows(g, is_gradient, workers, dtype)
    lanes, images = isa.lanes(dtype), g.batch * g.in_channels
    tasks = g.batch * s.down * s.across
    vectors = images * s.each * s.across * -(-min(s.cols, along.grid) // lanes)
    filled = images * s.each * along.grid / max(1, vectors * lanes)
    filling = images * s.across * along.planes * (s.cols + s.reach) / lanes
    share = pixel_lanes_share(along.taps, filling, vectors, filled, tasks, workers)
    return Explained(f"pixels as lanes, rows of {s.rows} channels, {s.cols} pixels of each; tasks: {tasks}", share)


def forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    return _explained(g, False, workers, dtype)


def input_grad_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    """How it is cut, for people to read."""
    return _explained(g, True, workers, dtype)


@lru_cache(maxsize=256)
def _launch(g: Geometry, is_gradient: bool, workers: int, dtype: DType) -> Launch:
    s, along = _rows(g, is_gradient, workers, dtype)
    tasks = g.batch * s.down * s.across
    return Launch(_correlate_rows, tasks, work_ns(g), s, along, lines.kernels(dtype), fills(dtype))


def _run(
    workers: int, g: Geometry, is_gradient: bool, images: Any, weight: Any, bias: Any, results: Any, planes: Any,
    lists: Any,
) -> None:  # fmt: skip
    how = _launch(g, is_gradient, workers, results.dtype)
    run_in_turn(workers, how.on(images, weight.reshape(-1), bias, results, planes, lists))


def run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, planes: Any, lists: Any) -> None:
    """Launch the driver."""
    _run(workers, g, False, x, weight, bias, y, planes, lists)


def run_input_grad(workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, planes: Any, lists: Any) -> None:
    """Launch the driver."""
    _run(workers, g, True, dy, weight, weight.reshape(-1)[:0], dx, planes, lists)
