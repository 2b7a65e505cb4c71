"""Pooling windows over each channel by itself, forward and backward.

Padding never wins a maximum: windows are cut to the image. Source: PyTorch's `MaxPool2d` and `AvgPool2d`, whose
`ceil_mode` and `count_include_pad` these are.
"""

from __future__ import annotations

from typing import Any

from ..geometry import Geometry
from ..runtime.compile import driver, kernel, prange


@kernel
def taps_inside(first: Any, kernel_size: Any, dilation: Any, size: Any) -> Any:
    """The taps `low <= k < high` of a window from pixel `first` on that lie in `0 <= first + k*dilation < size`."""
    low = 0 if first >= 0 else (-first + dilation - 1) // dilation
    high = 0 if first >= size else (size - 1 - first) // dilation + 1
    return low, max(low, min(kernel_size, high))


@driver
def max_pool(g: Geometry, x: Any, lowest: Any, y: Any, indices: Any) -> None:
    """y[p,oh,ow] = max of x[p,h,w] over the window, indices[p,oh,ow] = h*W + w of the first maximum.

    NaN is larger than everything. A window without pixels gives `lowest[0]` and index -1. `x`, `y` and `indices` are
    (planes, height, width).
    """
    for plane in prange(x.shape[0]):
        for oh in range(g.out_h):
            top = oh * g.stride_h - g.pad_top
            low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
            for ow in range(g.out_w):
                left = ow * g.stride_w - g.pad_left
                low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
                best = lowest[0]
                where = -1
                for kh in range(low_h, high_h):
                    h = top + kh * g.dilation_h
                    for kw in range(low_w, high_w):
                        w = left + kw * g.dilation_w
                        pixel = x[plane, h, w]
                        # `not <=` is true for a NaN; the second half keeps the first one.
                        if where < 0 or (not pixel <= best and best == best):
                            best = pixel
                            where = h * g.in_w + w
                y[plane, oh, ow] = best
                indices[plane, oh, ow] = where


@driver
def max_pool_backward(dy: Any, indices: Any, dx: Any) -> None:
    """dx[p, indices[p,q]] += dy[p,q]: the adjoint of y[p,q] = x[p, indices[p,q]].

    `dy` and `indices` are (planes, outputs), `dx` is (planes, pixels). Each iteration owns a whole plane of `dx`.
    """
    for plane in prange(dx.shape[0]):
        for i in range(dx.shape[1]):
            dx[plane, i] = 0
        for q in range(dy.shape[1]):
            if indices[plane, q] >= 0:
                dx[plane, indices[plane, q]] += dy[plane, q]


@kernel
def divisor(g: Geometry, oh: Any, ow: Any, inside: Any, include_pad: Any) -> Any:
    """What a window's sum is divided by: its pixels, or its taps up to the end of the padding."""
    if not include_pad:
        return inside
    last_h = min(oh * g.stride_h + (g.kernel_h - 1) * g.dilation_h, g.in_h + g.pad_top + g.pad_bottom - 1)
    last_w = min(ow * g.stride_w + (g.kernel_w - 1) * g.dilation_w, g.in_w + g.pad_left + g.pad_right - 1)
    high = (last_h - oh * g.stride_h) // g.dilation_h + 1
    return high * ((last_w - ow * g.stride_w) // g.dilation_w + 1)


@driver
def avg_pool(g: Geometry, x: Any, include_pad: Any, y: Any) -> None:
    """y[p,oh,ow] = (sum of x[p,h,w] over the window) / divisor; a window that sees no pixel gives 0."""
    zero = x.dtype.type(0)
    for plane in prange(x.shape[0]):
        for oh in range(g.out_h):
            top = oh * g.stride_h - g.pad_top
            low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
            for ow in range(g.out_w):
                left = ow * g.stride_w - g.pad_left
                low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
                total = zero
                for kh in range(low_h, high_h):
                    line = x[plane, top + kh * g.dilation_h]
                    part = zero
                    for kw in range(low_w, high_w):
                        part += line[left + kw * g.dilation_w]
                    total += part
                inside = (high_h - low_h) * (high_w - low_w)
                y[plane, oh, ow] = total / x.dtype.type(divisor(g, oh, ow, inside, include_pad)) if inside > 0 else zero


@driver
def avg_pool_backward(g: Geometry, dy: Any, include_pad: Any, dx: Any) -> None:
    """dx[p,h,w] = sum over the windows (oh,ow) that see pixel (h,w) of dy[p,oh,ow] / divisor.

    Each iteration owns a whole plane of `dx` and adds windows in order.
    """
    for plane in prange(dx.shape[0]):
        image = dx[plane]
        for h in range(g.in_h):
            for w in range(g.in_w):
                image[h, w] = 0
        for oh in range(g.out_h):
            top = oh * g.stride_h - g.pad_top
            low_h, high_h = taps_inside(top, g.kernel_h, g.dilation_h, g.in_h)
            for ow in range(g.out_w):
                left = ow * g.stride_w - g.pad_left
                low_w, high_w = taps_inside(left, g.kernel_w, g.dilation_w, g.in_w)
                inside = (high_h - low_h) * (high_w - low_w)
                if inside > 0:
                    share = dy[plane, oh, ow] / dy.dtype.type(divisor(g, oh, ow, inside, include_pad))
                    for kh in range(low_h, high_h):
                        line = image[top + kh * g.dilation_h]
                        for kw in range(low_w, high_w):
                            line[left + kw * g.dilation_w] += share
