"""Drawn problems in one and three dimensions, and how they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import convjit
from convjit.testing import PADDING_MODES, PADDING_NAMES, exact_arrays
from convjit.testing.spatial import reference_conv, reference_conv_backward

RANKS = (1, 3)


def function(name, rank):
    """The function of a rank: `conv2d_backward` of 1 is `conv1d_backward`."""
    flat = {"im2col": f"im2col{rank}d", "col2im": f"col2im{rank}d"}
    return getattr(convjit, flat.get(name, name.replace("2d", f"{rank}d")))


@dataclass(frozen=True)
class Spatial:
    """A valid convolution: shapes, and options as functions and the oracle take them."""

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str = "constant"

    @property
    def rank(self):
        return len(self.stride)

    @property
    def options(self):
        return {**self.window, "groups": self.groups, "padding_mode": self.padding_mode}

    @property
    def window(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def kernel(self):
        return self.weight_shape[2:]

    @property
    def out_size(self):
        sizes = zip(self.x_shape[2:], self.pads, self.kernel, self.dilation, self.stride, strict=True)
        return tuple((n + sum(p) - (k - 1) * d - 1) // s + 1 for n, p, k, d, s in sizes)

    @property
    def y_shape(self):
        return (self.x_shape[0], self.weight_shape[0], *self.out_size)

    def forward(self, x, weight, bias):
        """By the oracle."""
        how = (self.stride, self.pads, self.dilation, self.groups, self.padding_mode)
        return reference_conv(x, weight, bias, *how)

    def backward(self, dy, x, weight):
        return reference_conv_backward(dy, x, weight, self.stride, self.pads, self.dilation, self.groups)


def named_pads(name, size, kernel, stride, dilation):
    """A padding by its name, in counts."""
    reach = dilation * (kernel - 1)
    total = {"valid": 0, "same": reach, "full": 2 * reach}.get(name)
    if total is None:
        total = max(0, (-(-size // stride) - 1) * stride + reach + 1 - size)
    return (total - total // 2, total // 2) if name == "same_lower" else (total // 2, total - total // 2)


@st.composite
def spatials(draw, rank, modes=("constant",), most=3):
    """Shrinks to small kernels, dense, without padding."""

    def entries(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    groups = draw(st.integers(1, 2))
    ins, outs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, dilation = entries(1, most), entries(1, 3), entries(1, 2)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    mode = draw(st.sampled_from(modes))
    padding = draw(st.sampled_from(PADDING_NAMES) | st.just(None))
    if padding is not None:
        size = tuple(e + more for e, more in zip(extent, entries(0, 4), strict=True))
        pads = tuple(named_pads(padding, *axis) for axis in zip(size, kernel, stride, dilation, strict=True))
    else:
        padding = pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank))
        size = tuple(max(1, e - sum(p)) + n for e, p, n in zip(extent, pads, entries(0, 4), strict=True))
    if mode == "reflect":  # more of an image than it is padded with
        size = tuple(max(n, max(p) + 1, e + 1) for n, p, e in zip(size, pads, extent, strict=True))
        if isinstance(padding, str):
            padding = pads = tuple((reach // 2, reach // 2) for reach in (e - 1 for e in extent))
    return Spatial(
        (draw(st.integers(1, 3)), ins, *size), (outs, ins // groups, *kernel), stride, padding, pads, dilation, groups,
        mode,
    )  # fmt: skip


@st.composite
def arrays_of(draw, problem, dtype="float64", values=exact_arrays):
    """x, weight, bias or None, and a gradient of the result."""
    bias = draw(st.booleans())
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    x, weight, b, dy = (draw(values(shape, dtype)) for shape in shapes)
    return x, weight, b if bias else None, dy


MODES = PADDING_MODES


def real(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
