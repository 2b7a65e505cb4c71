"""The right answers, computed tap by tap in float64 NumPy.

Knows the equation of `convjit.conv2d`, in any number of dimensions, and nothing of any contender: for each tap of the
kernel, a strided slice of the padded image is multiplied by that tap's weights. The gradients are the adjoints of those
products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from convjit.typing import Array

from .problems import Inputs, Problem

# Of the largest element. Rounding of a sum of a million normal terms stays a factor of ten below; a pixel of the edge
# that was lost in such a sum changes it by more.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}

PARTS = ("output", "input gradient", "weight gradient", "bias gradient")


class Answers(NamedTuple):
    """Forward result and the three gradients, in float64."""

    y: Array
    grad_input: Array
    grad_weight: Array
    grad_bias: Array

    def of(self, passed: str) -> dict[str, Array]:
        """What a pass must return, by name of the part."""
        parts = dict(zip(PARTS, self, strict=True))
        first, last = {"backward": (1, 4), "backward-fastest": (1, 4), "layer": (0, 4)}.get(passed, (0, 1))
        return {name: parts[name] for name in PARTS[first:last]}


def _taps(problem: Problem) -> Iterator[tuple[Any, Any]]:
    """Each tap with the pixels of the padded image that it meets."""
    for tap in np.ndindex(problem.weight_shape[2:]):
        starts = [at * problem.dilation for at in tap]
        extents = [(size - 1) * problem.stride + 1 for size in problem.out_sizes]
        yield tap, tuple(slice(b, b + e, problem.stride) for b, e in zip(starts, extents, strict=True))


def solve(problem: Problem, inputs: Inputs) -> Answers:
    """Forward and all gradients of one problem."""
    p, g, n = problem.padding, problem.groups, problem.batch
    x, weight, bias, dy = (array.astype(np.float64) for array in inputs)
    padded = np.pad(x, ((0, 0), (0, 0), *[(p, p)] * problem.rank))
    pixels = math.prod(problem.out_sizes)
    by_group = weight.reshape(g, problem.out_channels // g, problem.in_channels // g, *weight.shape[2:])
    dy_by_group = dy.reshape(n, g, problem.out_channels // g, pixels)
    y = np.zeros(dy_by_group.shape)
    dx, dw = np.zeros(padded.shape), np.zeros(by_group.shape)
    for at, met in _taps(problem):
        seen = padded[:, :, *met].reshape(n, g, problem.in_channels // g, pixels)
        tap = by_group[:, :, :, *at]
        y += tap @ seen
        back = tap.transpose(0, 2, 1) @ dy_by_group
        dx[:, :, *met] += back.reshape(n, problem.in_channels, *problem.out_sizes)
        dw[:, :, :, *at] = (dy_by_group @ seen.transpose(0, 1, 3, 2)).sum(axis=0)
    inner = [slice(p, p + size) for size in problem.in_size]
    forward = y.reshape(problem.y_shape) + bias.reshape(-1, *[1] * problem.rank)
    db = dy.sum(axis=(0, *range(2, dy.ndim)))
    return Answers(forward, dx[:, :, *inner], dw.reshape(weight.shape), db)


def faults(got: dict[str, Array], wanted: dict[str, Array], dtype: str) -> list[str]:
    """One sentence for each part that is not the right answer."""
    found = []
    for part, right in wanted.items():
        array = got[part]
        if array.shape != right.shape:
            found.append(f"{part} has shape {array.shape}, not {right.shape}")
            continue
        error = float(np.max(np.abs(array - right), initial=0.0) / (np.max(np.abs(right), initial=0.0) or 1.0))
        if not error <= TOLERANCE[dtype]:  # NaN is a fault
            found.append(f"{part} is off by {error:.1e} of its largest element, {TOLERANCE[dtype]:.0e} is allowed")
    return found
