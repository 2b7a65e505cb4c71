"""One row's results against the reference's, bit for bit; and windows to draw problems of."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from convjit import conv2d, conv2d_backward, conv2d_weight_grad
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


def weight_gradient(problem, dtype, algorithm, seed=0, layout="NCHW"):
    """That of drawn arrays, by one named row."""
    rng = np.random.default_rng(seed)
    x = (9 * rng.standard_normal(problem.x_shape)).astype(dtype)
    shape = conv2d(x, np.zeros(problem.weight_shape, dtype), **problem.options).shape
    dy = (9 * rng.standard_normal(shape)).astype(dtype)
    if layout == "NHWC":
        dy, x = np.moveaxis(dy, -3, -1), np.moveaxis(x, -3, -1)
    return conv2d_weight_grad(
        dy, x, problem.weight_shape[2:], **problem.options, algorithm=algorithm, layout=layout
    )  # fmt: skip


@st.composite
def windows(draw, most=4):
    """A kernel of up to so many rows and columns, an image that has room for it, and options."""
    kernel = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    stride, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2))
    least = [max(1, (k - 1) * d + 1 - sum(p)) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    image = draw(st.integers(0, 9)) + least[0], draw(st.integers(0, 20)) + least[1]
    return kernel, image, {"stride": stride, "dilation": dilation, "padding": pads}
