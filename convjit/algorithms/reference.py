"""The reference: every output is one scalar sum, as the definition says.

Slow, short and always able, also uncompiled (`NUMBA_DISABLE_JIT=1`). The other rows are tested against it, to the bit.
"""

from __future__ import annotations

from typing import Any

from ..gemm.planes import backward_axis
from ..gemm.summation import add_term, no_terms, value
from ..geometry import Geometry
from ..runtime.compile import driver, prange
from ..typing import DType
from .algorithm import Algorithm, Operation


@driver
def _forward(g: Geometry, x: Any, weight: Any, bias: Any, y: Any) -> None:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]"""
    zero = x.dtype.type(0)
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    for plane in prange(g.batch * g.out_channels):
        n, o = plane // g.out_channels, plane % g.out_channels
        first = o // group_out * group_in
        for oh in range(g.out_h):
            for ow in range(g.out_w):
                sums = no_terms(zero)
                for c in range(group_in):
                    for kh in range(g.kernel_h):
                        h = oh * g.stride_h + kh * g.dilation_h - g.pad_top
                        for kw in range(g.kernel_w):
                            w = ow * g.stride_w + kw * g.dilation_w - g.pad_left
                            inside = 0 <= h < g.in_h and 0 <= w < g.in_w
                            pixel = x[n, first + c, h, w] if inside else zero
                            sums = add_term(sums, weight[o, c, kh, kw], pixel, zero)
                result = value(sums)
                if bias.size > 0:
                    result += bias[o]
                y[n, o, oh, ow] = result


@driver
def _input_grad(g: Geometry, dy: Any, weight: Any, dx: Any) -> None:
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    Gathered: taps for which `oh` or `ow` is not a whole number are no terms; outside its extent `dy` counts as zero.
    """
    zero = dy.dtype.type(0)
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    for plane in prange(g.batch * g.in_channels):
        n, c = plane // g.in_channels, plane % g.in_channels
        first = c // group_in * group_out
        for h in range(g.in_h):
            rows = backward_axis(h % g.stride_h, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)
            for w in range(g.in_w):
                cols = backward_axis(w % g.stride_w, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)
                sums = no_terms(zero)
                for o in range(first, first + group_out):
                    for s in range(rows.taps):
                        oh = h // g.stride_h + rows.first + rows.shift + s * rows.tap_step
                        kh = rows.kernel_first + s * rows.kernel_step
                        for t in range(cols.taps):
                            ow = w // g.stride_w + cols.first + cols.shift + t * cols.tap_step
                            kw = cols.kernel_first + t * cols.kernel_step
                            inside = 0 <= oh < g.out_h and 0 <= ow < g.out_w
                            pixel = dy[n, o, oh, ow] if inside else zero
                            sums = add_term(sums, weight[o, c % group_in, kh, kw], pixel, zero)
                dx[n, c, h, w] = value(sums)


@driver
def _weight_grad(g: Geometry, dy: Any, x: Any, dw: Any) -> None:
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]"""
    zero = dy.dtype.type(0)
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    for plane in prange(g.out_channels * group_in):
        o, c = plane // group_in, plane % group_in
        channel = o // group_out * group_in + c
        for kh in range(g.kernel_h):
            for kw in range(g.kernel_w):
                sums = no_terms(zero)
                for n in range(g.batch):
                    for oh in range(g.out_h):
                        h = oh * g.stride_h + kh * g.dilation_h - g.pad_top
                        for ow in range(g.out_w):
                            w = ow * g.stride_w + kw * g.dilation_w - g.pad_left
                            inside = 0 <= h < g.in_h and 0 <= w < g.in_w
                            pixel = x[n, channel, h, w] if inside else zero
                            sums = add_term(sums, pixel, dy[n, o, oh, ow], zero)
                dw[o, c, kh, kw] = value(sums)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    return None


ALGORITHM = Algorithm("reference", _declines, Operation(_forward), Operation(_input_grad), Operation(_weight_grad))
