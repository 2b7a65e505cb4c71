"""im2col and its adjoint, for users: the convolutions themselves never make a column matrix.

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing"
(2006), the unrolling of convolution.
"""

from __future__ import annotations

from typing import Any

from ..gemm.planes import clipped, copy_rows, inside
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling


@driver
def _im2col(task: Any, worker: Any, g: Geometry, tile_rows: Any, tile_cols: Any, images: Any, columns: Any) -> None:
    """columns[(n,c,kh,kw), (oh,ow)] = images[(n,c), oh*stride_h+kh*dilation_h-pad_top, ...], 0 in the padding.

    Moves values without looking at them: `images` (N * C, H, W) and `columns` (N * C * KH * KW, OH * OW) hold unsigned
    integers of the values' size.
    """
    row, top, bottom, left, right = tile(task, g.out_h, g.out_w, tile_rows, tile_cols)
    image = images[row // (g.kernel_h * g.kernel_w)]
    shift_h = row % (g.kernel_h * g.kernel_w) // g.kernel_w * g.dilation_h - g.pad_top
    shift_w = row % g.kernel_w * g.dilation_w - g.pad_left
    first_row, last_row = clipped(shift_h, g.stride_h, g.in_h, bottom)
    first_col, last_col = clipped(shift_w, g.stride_w, g.in_w, right)
    first_row, first_col = max(first_row, top), max(first_col, left)
    target = columns[row]
    for oh in range(top, bottom):
        target[oh * g.out_w + left : oh * g.out_w + right] = 0
    copy_rows(
        target, first_row * g.out_w + first_col, g.out_w, image, first_row * g.stride_h + shift_h, g.stride_h,
        max(0, last_row - first_row), first_col * g.stride_w + shift_w, g.stride_w, max(0, last_col - first_col),
    )  # fmt: skip


def im2col(workers: int, g: Geometry, x: Any, columns: Any) -> None:
    """`columns` (N, C * KH * KW, OH * OW) from `x` (N, C, H, W)."""
    tiles = tiling(g.out_h, g.out_w)
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    rows = columns.reshape(g.batch * g.in_channels * g.kernel_h * g.kernel_w, g.out_h * g.out_w)
    launch(_im2col, workers, len(rows) * tiles.a_plane, columns.size, g, tiles.rows, tiles.cols, images, rows)


@driver
def _col2im(task: Any, worker: Any, g: Geometry, tile_rows: Any, tile_cols: Any, columns: Any, images: Any) -> None:
    """images[(n,c),h,w] = sum over kh,kw of columns[(n,c,kh,kw), oh, ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    The adjoint of im2col, gathered a row at a time: each pixel adds taps in order.
    """
    plane, top, bottom, left, right = tile(task, g.in_h, g.in_w, tile_rows, tile_cols)
    taps = g.kernel_h * g.kernel_w
    for h in range(top, bottom):
        line = images[plane, h]
        for w in range(left, right):
            line[w] = 0
        for kh in range(g.kernel_h):
            offset = h + g.pad_top - kh * g.dilation_h
            if offset < 0 or offset % g.stride_h != 0 or offset // g.stride_h >= g.out_h:
                continue
            for kw in range(g.kernel_w):
                row = columns[plane * taps + kh * g.kernel_w + kw, offset // g.stride_h]
                shift = kw * g.dilation_w - g.pad_left
                # The outputs that lie in columns left..right of the image.
                lowest, _ = inside(shift - left, g.stride_w, g.in_w)
                _, highest = inside(shift, g.stride_w, right)
                for ow in range(lowest, min(highest, g.out_w)):
                    line[ow * g.stride_w + shift] += row[ow]


def col2im(workers: int, g: Geometry, columns: Any, x: Any) -> None:
    """`x` (N, C, H, W) from `columns` (N, C * KH * KW, OH * OW)."""
    taps = g.kernel_h * g.kernel_w
    tiles = tiling(g.in_h, g.in_w, taps)
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    rows = columns.reshape(g.batch * g.in_channels * taps, g.out_h, g.out_w)
    launch(_col2im, workers, len(images) * tiles.a_plane, columns.size, g, tiles.rows, tiles.cols, rows, images)
