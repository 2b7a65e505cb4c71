"""One row's results against the reference's, bit for bit."""

from __future__ import annotations

import numpy as np

from convjit import conv2d, conv2d_backward
from convjit.algorithms import ALGORITHMS

REFERENCE = ALGORITHMS[-1].name


def results(problem, arrays, algorithm):
    """Forward and all gradients by one named row."""
    x, weight, bias, dy = arrays
    options = {**problem.options, "algorithm": algorithm}
    return conv2d(x, weight, bias, **options), *conv2d_backward(dy, x, weight, **options)


def assert_same_bits(problem, arrays, algorithm, wanted):
    names = ("y", "grad_input", "grad_weight", "grad_bias")
    for name, got, reference in zip(names, results(problem, arrays, algorithm), wanted, strict=True):
        if got.tobytes() != reference.tobytes():
            where = np.argwhere(got.view(f"u{got.itemsize}") != reference.view(f"u{got.itemsize}"))
            raise AssertionError(
                f"{name} of {algorithm} differs from {REFERENCE} in {len(where)} of {got.size} elements, first at "
                f"{where[0].tolist()}: {got[tuple(where[0])]!r}, wanted {reference[tuple(where[0])]!r}, {problem}"
            )
