"""Filling the planes that products read.

Knows images and planes; does not know what is read from them.
"""

from __future__ import annotations

from typing import Any

from ..gemm.blocked import LIST_ENTRIES
from ..gemm.planes import (
    BEHIND,
    Axis,
    backward_axes,
    fill_tile,
    forward_axes,
    horizontal_axis,
    horizontal_phase,
    plane_elements,
    vertical_axis,
    vertical_phase,
)
from ..gemm.product import Cut
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling
from .algorithm import INDICES, Space


@kernel
def source_of_image(n: Any, images: Any, planes: Any, vertical: Axis, horizontal: Axis) -> Any:
    """Fill the planes of image n, or leave it where it lies, and return the address at which image 0 would be."""
    if planes.size == 0:
        return images.ctypes.data
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    channels = images.shape[1]
    for c in range(channels):
        fill_tile(planes, c * each, images[n, c], vertical, horizontal, 0, vertical.padded, 0, horizontal.padded)
    planes[channels * each :] = 0
    return planes.ctypes.data - n * channels * each * planes.itemsize


def planes_space(channels: int, batch: int, axes: tuple[Axis, Axis], cut: Cut, workers: int) -> Space:
    """The planes of all images, or of an image for each worker."""
    if cut.by_image:
        return Space((workers, plane_elements(channels, *axes)))
    return Space((plane_elements(batch * channels, *axes),))


def lists_space(workers: int) -> Space:
    """A product's lists."""
    return Space((workers, LIST_ENTRIES), INDICES)


@driver
def _fill(task: Any, worker: Any, g: Geometry, backward: Any, rows: Any, cols: Any, images: Any, planes: Any) -> None:
    """Fill a tile of the planes of a channel of `images` (N, C, H, W), for a forward or a backward read."""
    vertical = vertical_phase(g, 0) if backward else vertical_axis(g)
    horizontal = horizontal_phase(g, 0) if backward else horizontal_axis(g)
    channel, top, bottom, left, right = tile(task, vertical.padded, horizontal.padded, rows, cols)
    n, c = channel // images.shape[1], channel % images.shape[1]
    each = vertical.phases * horizontal.phases * vertical.padded * horizontal.padded
    fill_tile(planes, channel * each, images[n, c], vertical, horizontal, top, bottom, left, right)


def fill_planes(workers: int, g: Geometry, backward: bool, images: Any, planes: Any) -> Any:
    """Fill the planes; they, or the images where those are read in place, as flat elements."""
    if planes.size == 0:
        return images.reshape(images.size)
    planes[planes.size - BEHIND :] = 0
    vertical, horizontal = backward_axes(g) if backward else forward_axes(g)
    phases = vertical.phases * horizontal.phases
    tiles = tiling(vertical.padded, horizontal.padded, phases)
    tasks = images.shape[0] * images.shape[1] * tiles.a_plane
    launch(_fill, workers, tasks, planes.size, g, backward, tiles.rows, tiles.cols, images, planes)
    # Read-only as images are: whichever of the two is read, the kernels have one signature.
    source = planes.view()
    source.flags.writeable = False
    return source
