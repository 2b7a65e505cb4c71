"""im2col of volumes and its adjoint: as `columns` has images, with taps in depth before those in height.

Knows windows over volumes; does not know dtypes, nor who wants columns.
"""

from __future__ import annotations

from typing import Any

from ..gemm.planes import clipped, copy_rows, inside
from ..geometry import Depth, Geometry, Volume
from ..runtime.compile import driver
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling


@driver
def _im2col(
    task: Any, worker: Any, d: Depth, g: Geometry, tile_rows: Any, tile_cols: Any, volumes: Any, columns: Any
) -> None:
    """columns[(n,c,kd,kh,kw), od, (oh,ow)] = volumes[(n,c), od*stride+kd*dilation-pad_front, ...], 0 in the padding.

    Moves values without looking at them: `volumes` (N * C, D, H, W) and `columns` (N * C * KD * KH * KW, OD, OH * OW)
    hold unsigned integers of the values' size.
    """
    image, top, bottom, left, right = tile(task, g.out_h, g.out_w, tile_rows, tile_cols)
    row, od = image // d.out_size, image % d.out_size
    area = g.kernel_h * g.kernel_w
    z = od * d.stride + row % (d.kernel * area) // area * d.dilation - d.pad_front
    target = columns[row, od]
    for oh in range(top, bottom):
        target[oh * g.out_w + left : oh * g.out_w + right] = 0
    if z < 0 or z >= d.in_size:
        return
    shift_h = row % area // g.kernel_w * g.dilation_h - g.pad_top
    shift_w = row % g.kernel_w * g.dilation_w - g.pad_left
    first_row, last_row = clipped(shift_h, g.stride_h, g.in_h, bottom)
    first_col, last_col = clipped(shift_w, g.stride_w, g.in_w, right)
    first_row, first_col = max(first_row, top), max(first_col, left)
    copy_rows(
        target, first_row * g.out_w + first_col, g.out_w, volumes[row // (d.kernel * area), z],
        first_row * g.stride_h + shift_h, g.stride_h, max(0, last_row - first_row), first_col * g.stride_w + shift_w,
        g.stride_w, max(0, last_col - first_col),
    )  # fmt: skip


def im2col(workers: int, v: Volume, x: Any, columns: Any) -> None:
    """`columns` (N, C * KD * KH * KW, OD * OH * OW) from `x` (N, C, D, H, W)."""
    d, g = v
    tiles, rows = tiling(g.out_h, g.out_w), g.batch * g.in_channels * d.kernel * g.kernel_h * g.kernel_w
    volumes = x.reshape(g.batch * g.in_channels, d.in_size, g.in_h, g.in_w)
    target = columns.reshape(rows, d.out_size, g.out_h * g.out_w)
    tasks = rows * d.out_size * tiles.a_plane
    launch(_im2col, workers, tasks, columns.size, d, g, tiles.rows, tiles.cols, volumes, target)


@driver
def _col2im(
    task: Any, worker: Any, d: Depth, g: Geometry, tile_rows: Any, tile_cols: Any, columns: Any, volumes: Any
) -> None:
    """volumes[(n,c),z,h,w] = sum over kd,kh,kw of columns[(n,c,kd,kh,kw), od, oh, ow] that im2col writes.

    Its adjoint: z = od*stride+kd*dilation-pad_front, gathered a row at a time; each voxel adds taps in order.
    """
    image, top, bottom, left, right = tile(task, g.in_h, g.in_w, tile_rows, tile_cols)
    plane, z = image // d.in_size, image % d.in_size
    for h in range(top, bottom):
        line = volumes[plane, z, h]
        for w in range(left, right):
            line[w] = 0
        for kd in range(d.kernel):
            offset_d = z + d.pad_front - kd * d.dilation
            if offset_d < 0 or offset_d % d.stride != 0 or offset_d // d.stride >= d.out_size:
                continue
            for kh in range(g.kernel_h):
                offset = h + g.pad_top - kh * g.dilation_h
                if offset < 0 or offset % g.stride_h != 0 or offset // g.stride_h >= g.out_h:
                    continue
                for kw in range(g.kernel_w):
                    tap = ((plane * d.kernel + kd) * g.kernel_h + kh) * g.kernel_w + kw
                    row = columns[tap, offset_d // d.stride, offset // g.stride_h]
                    shift = kw * g.dilation_w - g.pad_left
                    # The outputs that lie in columns left..right of the image.
                    lowest, _ = inside(shift - left, g.stride_w, g.in_w)
                    _, highest = inside(shift, g.stride_w, right)
                    for ow in range(lowest, min(highest, g.out_w)):
                        line[ow * g.stride_w + shift] += row[ow]


def col2im(workers: int, v: Volume, columns: Any, x: Any) -> None:
    """`x` (N, C, D, H, W) from `columns` (N, C * KD * KH * KW, OD * OH * OW)."""
    d, g = v
    taps = d.kernel * g.kernel_h * g.kernel_w
    tiles, channels = tiling(g.in_h, g.in_w, taps), g.batch * g.in_channels
    volumes = x.reshape(channels, d.in_size, g.in_h, g.in_w)
    rows = columns.reshape(channels * taps, d.out_size, g.out_h, g.out_w)
    tasks = channels * d.in_size * tiles.a_plane
    launch(_col2im, workers, tasks, columns.size, d, g, tiles.rows, tiles.cols, rows, volumes)
