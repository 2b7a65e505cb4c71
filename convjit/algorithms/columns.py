"""im2col and its adjoint, for users: the convolutions themselves never make a column matrix.

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing"
(2006), the unrolling of convolution.
"""

from __future__ import annotations

from typing import Any

from ..gemm.planes import clipped, copy_rows, inside
from ..geometry import Geometry
from ..runtime.compile import driver, prange


@driver
def im2col(g: Geometry, x: Any, columns: Any) -> None:
    """columns[n, (c,kh,kw), (oh,ow)] = x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...], 0 in the padding.

    Moves values without looking at them: `x` and `columns` hold unsigned integers of the values' size.
    """
    taps = g.kernel_h * g.kernel_w
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    rows = columns.reshape(g.batch * g.in_channels * taps, g.out_h * g.out_w)
    for row in prange(rows.shape[0]):
        image = images[row // taps]
        shift_h = row % taps // g.kernel_w * g.dilation_h - g.pad_top
        shift_w = row % g.kernel_w * g.dilation_w - g.pad_left
        top, bottom = clipped(shift_h, g.stride_h, g.in_h, g.out_h)
        left, right = clipped(shift_w, g.stride_w, g.in_w, g.out_w)
        rows[row] = 0
        copy_rows(
            rows[row], top * g.out_w + left, g.out_w, image, top * g.stride_h + shift_h, g.stride_h, bottom - top,
            left * g.stride_w + shift_w, g.stride_w, right - left,
        )  # fmt: skip


@driver
def col2im(g: Geometry, columns: Any, x: Any) -> None:
    """x[n,c,h,w] = sum over kh,kw of columns[n, (c,kh,kw), (oh,ow)] where h = oh*stride_h+kh*dilation_h-pad_top.

    The adjoint of im2col. Each iteration owns a whole plane of `x` and adds taps in order.
    """
    taps = g.kernel_h * g.kernel_w
    images = x.reshape(g.batch * g.in_channels, g.in_h, g.in_w)
    rows = columns.reshape(g.batch * g.in_channels * taps, g.out_h, g.out_w)
    for plane in prange(images.shape[0]):
        image = images[plane]
        for h in range(g.in_h):
            for w in range(g.in_w):
                image[h, w] = 0
        for tap in range(taps):
            row = rows[plane * taps + tap]
            shift_h = tap // g.kernel_w * g.dilation_h - g.pad_top
            shift_w = tap % g.kernel_w * g.dilation_w - g.pad_left
            lowest, highest = inside(shift_w, g.stride_w, g.in_w)
            for oh in range(g.out_h):
                h = oh * g.stride_h + shift_h
                if 0 <= h < g.in_h:
                    line = image[h]
                    for ow in range(lowest, min(highest, g.out_w)):
                        line[ow * g.stride_w + shift_w] += row[oh, ow]
