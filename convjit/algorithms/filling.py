"""Filling the planes that products read: of all images before, or of a band by the worker that reads it.

Knows images and planes; does not know what is read from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ..gemm.micro import kernels as kernels_of
from ..gemm.planes import AS_IN_IMAGE, BEHIND, Axis, Pixel, Planes, fill_tile, filling, plane_elements
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, Run
from ..runtime.memory import read_only
from ..runtime.tiles import Tiling, tile, tiling
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
    axes: tuple[Axis, Axis], rows: int, batch: int, channels: int, workers: int, step: int = 1,
    pixel: Pixel = AS_IN_IMAGE,
) -> Bands:  # fmt: skip
    """Bands of so many rows of the grid, none of them for 0; `channels` are those of all groups.

    Rows of the grid lie `step` rows of a plane apart.
    """
    vertical, horizontal = axes
    record, inside = filling(axes, pixel)  # what lies inside the image is counted in its own rows
    if rows == 0:
        planes = Space((plane_elements(batch * channels, *axes),), name="planes")
        return Bands(axes, False, record, inside, planes, workers)
    axes = vertical._replace(grid=rows, padded=vertical.padded - (vertical.grid - rows) * step), horizontal
    planes = Space((workers, plane_elements(channels, *axes)), name="planes")
    return Bands(axes, True, filling(axes, pixel)[0], inside, planes, 1)


def as_planes(images: Array) -> Array:
    """Images (N, H, W, C) as planes (N, 1, H, W*C)."""
    n, h, w, c = images.shape
    return images.reshape(n, 1, h, w * c)


@kernel
def source_of_band(n: Any, origin: Any, kernels: Any, p: Planes, inside: Any, images: Any, planes: Any) -> Any:
    """Fill a band of the planes of image n, from row `origin` on; return the address at which image 0 would be."""
    channels, size = images.shape[1], images.itemsize
    each, image = p.phases_h * p.phases_w * p.padded_h * p.padded_w * size, p.image_h * p.image_w * size
    for c in range(channels):
        fill_tile(
            kernels, planes.ctypes.data + c * each, images.ctypes.data + (n * channels + c) * image, p, inside, origin,
            origin, origin + p.padded_h, 0, p.padded_w,
        )  # fmt: skip
    planes[planes.size - BEHIND :] = 0
    return planes.ctypes.data - n * channels * each


@driver
def _fill(
    task: Any, worker: Any, p: Planes, rows: Any, cols: Any, kernels: Any, inside: Any, images: Any, planes: Any
) -> None:
    """Fill a tile of the planes of a channel of `images` (N, C, H, W)."""
    channel, top, bottom, left, right = tile(task, p.padded_h, p.padded_w, rows, cols)
    size = images.itemsize
    each = p.phases_h * p.phases_w * p.padded_h * p.padded_w
    fill_tile(
        kernels, planes.ctypes.data + channel * each * size,
        images.ctypes.data + channel * p.image_h * p.image_w * size, p, inside, 0, top, bottom, left, right,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _filling(axes: tuple[Axis, Axis], pixel: Pixel, planes: int, size: int, dtype: DType) -> Launch:
    """For so many planes, of so many elements in all."""
    p, inside = filling(axes, pixel)
    tiles = tiling(p.padded_h, p.padded_w, p.phases_h * p.phases_w)
    if p.pitch > 0:  # whole rows
        tiles = Tiling(tiles.rows, p.padded_w, -(-p.padded_h // tiles.rows))
    return Launch(_fill, planes * tiles.a_plane, size / 4, p, tiles.rows, tiles.cols, kernels_of(dtype), inside)


def filled(
    axes: tuple[Axis, Axis], images: Array, planes: Array, pixel: Pixel = AS_IN_IMAGE
) -> tuple[Array, tuple[Run, ...]]:
    """What products read, and what is run before: planes that are filled, or images that are read in place."""
    if planes.size == 0:
        return images.reshape(images.size), ()
    planes[planes.size - BEHIND :] = 0
    how = _filling(axes, pixel, images.shape[0] * images.shape[1], planes.size, images.dtype)
    # Read-only as images are: whichever of the two is read, the kernels have one signature.
    return read_only(planes), (how.on(images, planes),)
