"""The reference: every output is one scalar sum, as the definition says.

Slow, short and always able, also uncompiled (`NUMBA_DISABLE_JIT=1`). The other rows are tested against it, to the bit.
"""

from __future__ import annotations

from typing import Any

from ..gemm.planes import backward_axis
from ..gemm.summation import TERMS_A_TOTAL, add_term, no_terms, value
from ..geometry import Geometry
from ..runtime.compile import driver
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling
from ..typing import DType
from .algorithm import Algorithm, Operation, each_call


@driver
def _forward(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, x: Any, weight: Any, bias: Any, y: Any) -> None:
    """y[n,o,oh,ow] = bias[o] + sum over c,kh,kw of weight[o,c,kh,kw] * x[n, c, oh*stride+kh*dilation-pad, ...]"""
    zero = x.dtype.type(0)
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    plane, top, bottom, left, right = tile(task, g.out_h, g.out_w, rows, cols)
    n, o = plane // g.out_channels, plane % g.out_channels
    first = o // group_out * group_in
    for oh in range(top, bottom):
        for ow in range(left, right):
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
def _input_grad(task: Any, worker: Any, g: Geometry, rows: Any, cols: Any, dy: Any, weight: Any, dx: Any) -> None:
    """dx[n,c,h,w] = sum over o,kh,kw of weight[o,c,kh,kw] * dy[n,o,oh,ow] where h = oh*stride_h+kh*dilation_h-pad_top.

    Gathered: taps for which `oh` or `ow` is not a whole number are no terms; outside its extent `dy` counts as zero.
    """
    zero = dy.dtype.type(0)
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    plane, top, bottom, left, right = tile(task, g.in_h, g.in_w, rows, cols)
    n, c = plane // g.in_channels, plane % g.in_channels
    first = c // group_in * group_out
    for h in range(top, bottom):
        down = backward_axis(h % g.stride_h, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.in_h)
        for w in range(left, right):
            across = backward_axis(w % g.stride_w, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.in_w)
            sums = no_terms(zero)
            for o in range(first, first + group_out):
                for s in range(down.taps):
                    oh = h // g.stride_h + down.first + down.shift + s * down.tap_step
                    kh = down.kernel_first + s * down.kernel_step
                    for t in range(across.taps):
                        ow = w // g.stride_w + across.first + across.shift + t * across.tap_step
                        kw = across.kernel_first + t * across.kernel_step
                        inside = 0 <= oh < g.out_h and 0 <= ow < g.out_w
                        pixel = dy[n, o, oh, ow] if inside else zero
                        sums = add_term(sums, weight[o, c % group_in, kh, kw], pixel, zero)
            dx[n, c, h, w] = value(sums)


@driver
def _weight_grad(task: Any, worker: Any, g: Geometry, first: Any, stop: Any, dy: Any, x: Any, dw: Any) -> None:
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, one total, which is added to `dw` if it is not the first.
    """
    zero = dy.dtype.type(0)
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    taps = g.kernel_h * g.kernel_w
    o, c, kh, kw = task // (group_in * taps), task // taps % group_in, task % taps // g.kernel_w, task % g.kernel_w
    channel = o // group_out * group_in + c
    sums = no_terms(zero)
    for term in range(first, stop):
        n, oh, ow = term // (g.out_h * g.out_w), term // g.out_w % g.out_h, term % g.out_w
        h = oh * g.stride_h + kh * g.dilation_h - g.pad_top
        w = ow * g.stride_w + kw * g.dilation_w - g.pad_left
        inside = 0 <= h < g.in_h and 0 <= w < g.in_w
        pixel = x[n, channel, h, w] if inside else zero
        sums = add_term(sums, pixel, dy[n, o, oh, ow], zero)
    dw[o, c, kh, kw] = value(sums) if first == 0 else dw[o, c, kh, kw] + value(sums)


def _run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any) -> None:
    terms = g.in_channels // g.groups * g.kernel_h * g.kernel_w
    tiles = tiling(g.out_h, g.out_w, terms)
    tasks = g.batch * g.out_channels * tiles.a_plane
    launch(_forward, workers, tasks, g.multiplications, g, tiles.rows, tiles.cols, x, weight, bias, y)


def _run_input_grad(workers: int, g: Geometry, dy: Any, weight: Any, dx: Any) -> None:
    terms = g.out_channels // g.groups * g.kernel_h * g.kernel_w
    tiles = tiling(g.in_h, g.in_w, terms)
    tasks = g.batch * g.in_channels * tiles.a_plane
    launch(_input_grad, workers, tasks, g.multiplications, g, tiles.rows, tiles.cols, dy, weight, dx)


def _run_weight_grad(workers: int, g: Geometry, dy: Any, x: Any, dw: Any) -> None:
    terms = g.batch * g.out_h * g.out_w
    for first in range(0, max(terms, 1), TERMS_A_TOTAL):
        stop = min(terms, first + TERMS_A_TOTAL)
        launch(_weight_grad, workers, dw.size, (stop - first) * dw.size, g, first, stop, dy, x, dw)


def _declines(geometry: Geometry, dtype: DType) -> str | None:
    return None


ALGORITHM = Algorithm(
    "reference",
    _declines,
    Operation(each_call(_run_forward)),
    Operation(each_call(_run_input_grad)),
    Operation(each_call(_run_weight_grad)),
)
