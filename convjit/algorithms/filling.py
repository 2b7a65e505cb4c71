"""Filling the planes that products read: of all images before, or of a band by the worker that reads it.

Knows images and planes; does not know what is read from them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ..gemm.bands import FILLED_BEFORE, BandSize
from ..gemm.micro import fills
from ..gemm.planes import AS_IN_IMAGE, BEHIND, Axis, Pixel, Planes, fill_planes, fill_tile, filling, plane_elements
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, Run
from ..runtime.tiles import TILE_COST, Tiling, tile, tiling
from ..typing import Array, DType
from .algorithm import Space


class Bands(NamedTuple):
    """How planes are filled: those of all images before, or those of a band of rows by the worker that reads it."""

    axes: tuple[Axis, Axis]  # of a band
    by_band: bool
    record: Planes
    inside: Array
    space: Space  # of the planes
    crew: int  # workers among whom the channels of a band may be cut: a band is one worker's


def cut_into_bands(
    axes: tuple[Axis, Axis], band: BandSize, batch: int, channels: int, workers: int, step: int = 1,
    pixel: Pixel = AS_IN_IMAGE,
) -> Bands:  # fmt: skip
    """Bands of this size; `channels` are those of all groups.

    Rows of the grid lie `step` rows of a plane apart.
    """
    vertical, horizontal = axes
    record, inside = filling(axes, pixel)  # what lies inside the image is counted in its own rows
    if band == FILLED_BEFORE:
        planes = Space((plane_elements(batch * channels, *axes),), name="planes")
        return Bands(axes, False, record, inside, planes, workers)
    padded = vertical.padded - (vertical.grid - band.rows) * step
    axes = vertical._replace(grid=band.rows, padded=padded), horizontal
    planes = Space((workers, plane_elements(channels // band.parts, *axes)), name="planes")
    if padded == vertical.padded:  # pixels are listed of whole planes
        return Bands(axes, True, record, inside, planes, 1)
    return Bands(axes, True, filling(axes, pixel)[0]._replace(listed=0), inside, planes, 1)


def as_planes(images: Array) -> Array:
    """Images (N, H, W, C) as planes (N, 1, H, W*C)."""
    n, h, w, c = images.shape
    return images.reshape(n, 1, h, w * c)


def in_parts(images: Array, parts: int) -> Array:
    """Images (N, C, H, W) as (N * parts, C / parts, H, W)."""
    if parts == 1:
        return images
    n, c, h, w = images.shape
    return images.reshape(n * parts, c // parts, h, w)


def of_groups(groups: int, parts: int) -> str:
    """How groups are cut into parts, for people to read."""
    return f" of {groups // parts} groups" if parts > 1 else ""


@kernel
def source_of_band(n: Any, origin: Any, kernels: Any, p: Planes, inside: Any, images: Any, planes: Any) -> Any:
    """Fill a band of the planes of part n, from row `origin` on; return the address at which part 0 would be."""
    channels, size = images.shape[1], images.itemsize
    each, image = p.planes_h * p.planes_w * p.padded_h * p.padded_w * size, p.image_h * p.image_w * size
    fill_planes(
        kernels, planes.ctypes.data, images.ctypes.data + n * channels * image, channels, p, inside, origin, origin,
        origin + p.padded_h,
    )  # fmt: skip
    planes[planes.size - BEHIND :] = 0
    return planes.ctypes.data - n * channels * each


@driver
def _fill(
    task: Any, worker: Any, p: Planes, together: Any, rows: Any, cols: Any, kernels: Any, inside: Any, images: Any,
    planes: Any,
) -> None:  # fmt: skip
    """Fill the planes of so many channels of `images` (N, C, H, W); with 0, a tile of those of one channel."""
    size = images.itemsize
    each, image = p.planes_h * p.planes_w * p.padded_h * p.padded_w * size, p.image_h * p.image_w * size
    if together > 0:
        first = task * together
        count = min(together, images.shape[0] * images.shape[1] - first)
        fill_planes(
            kernels, planes.ctypes.data + first * each, images.ctypes.data + first * image, count, p, inside, 0, 0,
            p.padded_h,
        )  # fmt: skip
        return
    channel, top, bottom, left, right = tile(task, p.padded_h, p.padded_w, rows, cols)
    fill_tile(
        kernels, planes.ctypes.data + channel * each, images.ctypes.data + channel * image, p, inside, 0, top, bottom,
        left, right,
    )  # fmt: skip


# Planes of a task at most: the last of them is filled apart from the others.
_TOGETHER = 32


@lru_cache(maxsize=256)
def _filling(axes: tuple[Axis, Axis], pixel: Pixel, planes: int, size: int, dtype: DType) -> Launch:
    """For so many planes, of so many elements in all."""
    p, inside = filling(axes, pixel)
    tiles = tiling(p.padded_h, p.padded_w, p.planes_h * p.planes_w)
    if p.pitch > 0:  # whole rows
        tiles = Tiling(tiles.rows, p.padded_w, -(-p.padded_h // tiles.rows))
    together, tasks = 0, planes * tiles.a_plane
    if tiles.a_plane == 1:
        together = max(1, min(_TOGETHER, planes // _TOGETHER, TILE_COST // max(p.each, 1)))
        tasks = -(-planes // together)
    return Launch(_fill, tasks, size / 4, p, together, tiles.rows, tiles.cols, fills(dtype), inside)


Source: TypeAlias = tuple[Array, tuple[Run, ...]]


def filled(axes: tuple[Axis, Axis], images: Array, planes: Array, pixel: Pixel = AS_IN_IMAGE) -> Source:
    """What products read, and what is run before: planes that are filled, or images that are read in place."""
    return filled_by(axes, images.shape[0] * images.shape[1], planes, pixel)(images)


def filled_by(
    axes: tuple[Axis, Axis], channels: int, planes: Array, pixel: Pixel = AS_IN_IMAGE
) -> Callable[[Array], Source]:  # fmt: skip
    """The same of images of so many channels in all, as a function of them."""
    if planes.size == 0:
        return _in_place
    how, behind = _filling(axes, pixel, channels, planes.size, planes.dtype), planes[planes.size - BEHIND :]

    def fill(images: Array) -> Source:
        behind.fill(0)
        return planes, (how.on(images, planes),)

    return fill


def _in_place(images: Array) -> Source:
    return images.reshape(images.size), ()
