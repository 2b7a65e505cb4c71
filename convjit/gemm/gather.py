"""Where a convolution reads: the map from grid points and taps to pixels, and the copy that follows it.

Forward, input gradient and columns all read an image the same way: grid point `i` and tap `t` of an axis meet at pixel
`i*step + offset + t*tap_step`, and outside the image the value is zero. `Axis` is that map; `gather_row` copies it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..runtime.compile import kernel
from ..runtime.copying import copy_run


class Axis(NamedTuple):
    """One axis of a gather, in integers."""

    grid: int  # grid points
    taps: int  # taps that contribute
    step: int  # pixels from one grid point to the next
    offset: int  # the pixel where grid point 0 meets tap 0, negative in the padding
    tap_step: int  # pixels from one tap to the next
    size: int  # pixels of the source
    out_first: int  # where grid point 0 lands in the result
    out_step: int
    kernel_first: int  # which kernel index tap 0 is
    kernel_step: int


@kernel
def forward_axis(out_size: Any, kernel_size: Any, stride: Any, dilation: Any, pad: Any, in_size: Any) -> Any:
    """Output pixels read the input: tap `k` of output `i` meets input `i*stride + k*dilation - pad`."""
    return Axis(out_size, kernel_size, stride, -pad, dilation, in_size, 0, 1, 0, 1)


@kernel
def phases(stride: Any, in_size: Any) -> Any:
    """Input pixels fall into so many phases: those of one phase meet the same taps."""
    return min(stride, in_size)


@kernel
def phase_axis(
    phase: Any, out_size: Any, kernel_size: Any, stride: Any, dilation: Any, pad: Any, in_size: Any
) -> Any:
    """Input pixels `h = phase + i*stride` read the output gradient.

    The adjoint of `h = oh*stride + k*dilation - pad`: tap `k` contributes if `h + pad - k*dilation` is a multiple of
    `stride`, from `oh = (h + pad - k*dilation) / stride`. Such `k` are an arithmetic progression; they are taken
    downwards, so that `oh` grows: a correlation with the flipped kernel.
    """
    grid = (in_size - phase + stride - 1) // stride
    kernel_step = stride // math.gcd(stride, dilation)
    # One of any `kernel_step` neighbours contributes, or none does.
    last = kernel_size - 1
    lowest = max(-1, last - kernel_step)
    while last > lowest and (phase + pad - last * dilation) % stride != 0:
        last -= 1
    taps = last // kernel_step + 1 if last > lowest else 0
    offset = (phase + pad - last * dilation) // stride
    return Axis(
        grid, taps, 1, offset, kernel_step * dilation // stride, out_size, phase, stride, last, -kernel_step
    )  # fmt: skip


@kernel
def grid_range(shift: Any, step: Any, size: Any) -> Any:
    """The grid points `lowest <= i < highest` for which `0 <= i*step + shift < size`."""
    if step == 1:  # spares two divisions for each row that is gathered
        return max(0, -shift), max(0, size - shift)
    lowest = 0 if shift >= 0 else (step - 1 - shift) // step
    highest = 0 if shift >= size else (size - 1 - shift) // step + 1
    return lowest, highest


@kernel
def gather_row(
    row: Any, plane: Any, vertical: Axis, horizontal: Axis, kh: Any, kw: Any, i: Any, k: Any, count: Any
) -> None:
    """row[j] = the pixel of `plane` that the j-th grid point from (i, k) on meets at taps (kh, kw), or 0 outside.

    `plane` is (H, W), `kh` and `kw` count the contributing taps of each axis, grid points go row by row, j < count.
    The caller guarantees that `row` holds `count` elements and that the grid points exist.
    """
    shift_h = vertical.offset + kh * vertical.tap_step
    shift_w = horizontal.offset + kw * horizontal.tap_step
    step = horizontal.step
    lowest, highest = grid_range(shift_w, step, horizontal.size)
    j = 0
    while j < count:
        end = min(horizontal.grid, k + count - j)
        r = i * vertical.step + shift_h
        left, right = end, end
        if 0 <= r < vertical.size:
            left = min(max(lowest, k), end)
            right = max(min(highest, end), left)
            line = plane[r]
            source = left * step + shift_w
            target = j + left - k
            if step == 1:
                copy_run(row, target, line, source, right - left)
            else:
                for q in range(right - left):
                    row[target + q] = line[source + q * step]
        for q in range(left - k):
            row[j + q] = 0
        for q in range(end - right):
            row[j + right - k + q] = 0
        j += end - k
        k = 0
        i += 1
