"""Windows that do not overlap: the bits of the reference, wherever a pixel belongs, and which problems take the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from same_bits import REFERENCE, assert_same_bits, results

from convjit import conv_transpose2d, explain
from convjit.algorithms import patches
from convjit.functional import batches
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem

pytestmark = pytest.mark.usefixtures("poisoned")

NAME = patches.ALGORITHM.name
DTYPES = ["float32", "float64"]

AWKWARD = {
    "tiles": Problem((2, 3, 8, 12), (5, 3, 4, 4), stride=4),
    "pixels behind the last tile": Problem((1, 3, 11, 14), (5, 3, 4, 4), stride=4),
    "gaps": Problem((2, 2, 13, 17), (3, 2, 2, 3), stride=(5, 4)),
    "padding": Problem((1, 2, 9, 10), (3, 2, 3, 4), stride=4, padding=((2, 1), (3, 0))),
    "taps in the padding alone": Problem((1, 1, 2, 2), (2, 1, 3, 3), stride=3, padding=((1, 3), (3, 1))),
    "padding over the stride": Problem((1, 2, 5, 5), (3, 2, 2, 2), stride=2, padding=5),
    "one window": Problem((1, 2, 3, 3), (4, 2, 3, 3), stride=7),
    "rows": Problem((2, 3, 1, 41), (4, 3, 1, 5), stride=(1, 6), padding=(0, 2)),
    "columns": Problem((2, 3, 23, 1), (4, 3, 4, 1), stride=(4, 1)),
    "groups": Problem((2, 6, 9, 8), (8, 3, 2, 2), stride=2, groups=2),
    "many filters": Problem((1, 3, 32, 32), (300, 3, 8, 8), stride=8),
    "many images": Problem((33, 2, 6, 6), (4, 2, 3, 3), stride=3),
    "a dilation of one tap": Problem((1, 2, 9, 9), (3, 2, 1, 2), stride=2, dilation=(3, 1)),
}


def drawn(problem, dtype):
    rng = np.random.default_rng(3)
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("crew", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, crew, monkeypatch):
    monkeypatch.setattr(batches, "workers", lambda _: crew)
    problem = AWKWARD[name]
    arrays = drawn(problem, dtype)
    assert_same_bits(problem, arrays, NAME, results(problem, arrays, REFERENCE))


@given(data=st.data())
def test_drawn_problems(data):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = tuple(data.draw(st.integers(max(k, 2), 6)) for k in kernel)
    pads = data.draw(st.tuples(*[st.tuples(st.integers(0, 7), st.integers(0, 7))] * 2))
    least = [max(1, k - sum(p)) for k, p in zip(kernel, pads, strict=True)]
    image = data.draw(st.integers(0, 12)) + least[0], data.draw(st.integers(0, 12)) + least[1]
    groups, channels, filters = (data.draw(st.integers(1, 3)) for _ in range(3))
    if kernel == (1, 1):
        kernel, image = (1, 2), (image[0], image[1] + 1)
    shape = (data.draw(st.integers(1, 3)), channels * groups, *image)
    problem = Problem(shape, (filters * groups, channels, *kernel), stride=stride, padding=pads, groups=groups)
    arrays = drawn(problem, "float32")
    assert_same_bits(problem, arrays, NAME, results(problem, arrays, REFERENCE))


@pytest.mark.parametrize(
    ("kernel", "options", "reason"),
    [
        (3, {"stride": 2}, "overlap"), (2, {"stride": 2, "dilation": 2}, "overlap"),
        ((2, 3), {"stride": (2, 1)}, "overlap"), (1, {"stride": 2}, "several pixels"),
        (2, {"stride": 1}, "with a stride"),
    ],
)  # fmt: skip
def test_what_it_declines(kernel, options, reason):
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **options}
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    geometry = conv2d_geometry("test", (1, 2, 9, 9), (3, 2, *kernel), *options.values())
    assert reason in patches.ALGORITHM.declines(geometry, np.dtype("float32"))


def test_few_channels_take_it_and_many_do_not():
    few, many = ((1, 3, 224, 224), (768, 3, 16, 16)), ((1, 256, 28, 28), (512, 256, 2, 2))
    assert explain(*few, stride=16).input_grad.algorithm == NAME
    assert explain(*many, stride=2).input_grad.algorithm != NAME


def test_columns_that_are_too_large():
    found = explain((1, 3, 8192, 8192), (64, 3, 16, 16), stride=16).input_grad
    assert found.algorithm != NAME
    assert found.others[NAME] == "columns of one image are too large"


def test_images_are_enlarged():
    """A transposed convolution puts tiles side by side."""
    x, weight = np.arange(1.0, 5.0).reshape(1, 4, 1, 1), np.ones((4, 1, 8, 8))
    y = conv_transpose2d(np.tile(x, (1, 1, 2, 2)), weight, stride=8)
    assert np.array_equal(y, np.full((1, 1, 16, 16), 10.0))
