"""A fixed set of problems and a digest of each result, to compare processes, threads and machines bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import convjit
from convjit.testing import Problem

Array = npt.NDArray[Any]
LayOut = Callable[[Array], Array]

DTYPES = ("float32", "float64", "int64")
SMALL = {
    "grouped": Problem((2, 4, 9, 8), (6, 2, 3, 2), (6,), stride=(2, 1), padding="same", dilation=(1, 2), groups=2),
    "depthwise": Problem((2, 5, 9, 19), (10, 1, 3, 4), (10,), stride=(1, 2), padding="same", groups=5),
    "reflected": Problem((1, 3, 6, 7), (5, 3, 3, 3), (5,), padding=2, padding_mode="reflect"),
    "strided": Problem((2, 3, 11, 9), (4, 3, 3, 4), (4,), stride=(3, 2), padding=((0, 1), (2, 1))),
}
# Each is work for several threads, forward and backward.
LARGE = {
    "images": Problem((10, 6, 40, 41), (10, 6, 3, 3), (10,), padding=1),
    "many groups": Problem((8, 12, 37, 33), (24, 3, 5, 3), (24,), stride=(1, 2), dilation=(2, 1), groups=4),
    "strided": Problem((8, 8, 45, 50), (24, 8, 3, 3), (24,), stride=2, padding="same_upper"),
    "depthwise": Problem((8, 40, 41, 37), (40, 1, 5, 5), (40,), stride=(1, 2), padding=2, groups=40),
    "pointwise": Problem((5, 50, 21, 23), (40, 50, 1, 1), (40,)),
    # 18,000 terms an output, an input gradient and a weight gradient: more than one total of 128 blocks of 128 terms.
    "long sums": Problem((1, 2000, 6, 6), (8, 2000, 3, 3), (8,)),
    "long input gradients": Problem((1, 8, 6, 6), (2000, 8, 3, 3), (2000,)),
    "long weight gradients": Problem((13, 2, 62, 62), (3, 2, 3, 3), (3,)),
}


def numbers(shape: Sequence[int], dtype: str, seed: int) -> Array:
    """Normal random numbers; any integers that wrap for integers."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "i":
        return rng.integers(-(1 << 62), 1 << 62, shape, dtype)
    return rng.standard_normal(shape).astype(dtype)


def arrays(problem: Problem, dtype: str) -> list[Array]:
    """`x`, `weight`, `bias` and `grad_output` of a problem."""
    shapes = (problem.x_shape, problem.weight_shape, problem.bias_shape, problem.y_shape)
    return [numbers(shape, dtype, seed) for seed, shape in enumerate(shapes)]


def convolution(
    problem: Problem, dtype: str, lay_out: LayOut = np.asarray, algorithm: str = "auto"
) -> Iterator[tuple[str, Array]]:
    """`conv2d` and its gradients, by name."""
    x, weight, bias, dy = map(lay_out, arrays(problem, dtype))
    options = {**problem.options, "algorithm": algorithm}
    yield "y", convjit.conv2d(x, weight, bias, **options)
    yield from zip(("dx", "dw", "db"), convjit.conv2d_backward(dy, x, weight, **options), strict=True)


def other_operations(shape: Sequence[int], dtype: str, lay_out: LayOut = np.asarray) -> Iterator[tuple[str, Array]]:
    """What is not `conv2d` or its gradients, on images of one shape, by name."""
    x, weight = lay_out(numbers(shape, dtype, 1)), lay_out(numbers((shape[1], 2, 3, 3), dtype, 2))
    height, width = shape[2:]
    turned = convjit.conv_transpose2d(x, weight, stride=2, padding=1)
    yield "transposed", turned
    gradients = convjit.conv_transpose2d_backward(lay_out(turned), x, weight, stride=2, padding=1)
    yield from zip(("transposed dx", "transposed dw", "transposed db"), gradients, strict=True)
    columns = convjit.im2col(x, 3, 1, 2, 2)
    yield "im2col", columns
    yield "col2im", convjit.col2im(lay_out(columns), (height, width), 3, 1, 2, 2)
    for mode in ("constant", "wrap", "symmetric"):
        yield f"pad2d {mode}", convjit.pad2d(x, (2, 3), mode=mode)
        yield f"pad2d_backward {mode}", convjit.pad2d_backward(x, 1, mode=mode)
    best, where = convjit.max_pool2d(x, 3, 1, 1, return_indices=True)
    yield "max_pool2d", best
    yield "max_pool2d indices", where
    yield "max_pool2d_backward", convjit.max_pool2d_backward(lay_out(best), x, 3, 1, 1)
    yield "avg_pool2d", convjit.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    yield "avg_pool2d_backward", convjit.avg_pool2d_backward(x, (height, width), 3, 1, 1, count_include_pad=False)


def training(dtype: str) -> Iterator[tuple[str, Array]]:
    """Weights and gradients of a `Conv2D` after each of five steps."""
    layer = convjit.Conv2D(12, (3, 3), input_shape=(3, 24, 24), dtype=dtype, rng=0)
    layer.initialize(convjit.Adam(0.01))
    x = numbers((8, 3, 24, 24), dtype, 1)
    for step in range(5):
        dx = layer.backward_pass(layer.forward_pass(x))
        for name, array in (("dx", dx), ("W", layer.W), ("w0", layer.w0)):
            yield f"training {dtype} {name} of step {step}", array


def results(dtype: str, lay_out: LayOut = np.asarray) -> Iterator[tuple[str, Array]]:
    """Every operation on every problem, by name."""
    for size, problems, shape in (("small", SMALL, (2, 3, 7, 6)), ("large", LARGE, (8, 8, 56, 59))):
        for name, problem in problems.items():
            yield from ((f"{size} {name} {dtype} {part}", a) for part, a in convolution(problem, dtype, lay_out))
        yield from ((f"{size} {dtype} {part}", a) for part, a in other_operations(shape, dtype, lay_out))


def digests(named: Iterator[tuple[str, Array]]) -> dict[str, str]:
    """A digest of dtype, shape and bits of each array."""
    return {
        name: hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()[:16]
        for name, array in named
    }


def everything(dtypes: Sequence[str] = DTYPES) -> dict[str, str]:
    """The digest of every result in these dtypes, and of training."""
    got: dict[str, str] = {}
    for dtype in dtypes:
        got |= digests(results(dtype))
        got |= digests(training(dtype)) if dtype[0] == "f" else {}
    return got
