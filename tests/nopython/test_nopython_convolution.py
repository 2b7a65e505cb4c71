"""Convolution from compiled code: the bits that Python gets, on drawn problems, in every layout."""

import numpy as np
import pytest
from callers import as_pairs, assert_same, called
from hypothesis import given, settings
from hypothesis import strategies as st

import convjit
from convjit.testing import LAYOUTS, PADDING_NAMES, conv2d_cases, real_arrays

# Modes are compiled in: two stand for those that pad images first, whose tables are compared in `test_padding`.
LIMITS = {
    "max_kernel": 4,
    "max_extra": 12,
    "max_stride": 4,
    "max_dilation": 3,
    "padding_modes": ("constant", "reflect"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@settings(max_examples=60)
def test_convolution_and_its_gradients_give_pythons_bits(data, dtype):
    case = data.draw(conv2d_cases(dtype, real_arrays, **LIMITS))
    problem, options = case.problem, as_pairs(case.problem)
    x, weight, dy = (a.reshape(s) for a, s in (
        (case.x, problem.batched_x_shape), (case.weight, case.weight.shape), (case.grad_output, problem.batched_y_shape)
    ))  # fmt: skip
    bias = np.zeros(len(weight), dtype) if case.bias is None else case.bias
    for name, arrays, more in (
        ("conv2d", (x, weight, bias), {}),
        ("conv2d_backward", (dy, x, weight), {}),
        ("conv2d_input_grad", (dy, weight), {"input_size": problem.image}),
        ("conv2d_weight_grad", (dy, x), {"kernel_size": problem.kernel}),
    ):
        assert_same(called(name, *arrays, **more, **options), getattr(convjit, name)(*arrays, **more, **options))


@given(case=conv2d_cases(values=real_arrays, max_kernel=4, max_stride=4, max_dilation=3, padding_modes=("constant",)))
@settings(max_examples=60)
def test_transposed_convolution_gives_pythons_bits(case):
    problem = case.problem
    options = {name: value for name, value in as_pairs(problem).items() if name != "padding_mode"}
    dy, x = case.grad_output.reshape(problem.batched_y_shape), case.x.reshape(problem.batched_x_shape)
    sized = {**options, "output_size": problem.image}
    bias = np.linspace(-1, 1, x.shape[1])
    arrays = (dy, case.weight, bias)
    assert_same(called("conv_transpose2d", *arrays, **sized), convjit.conv_transpose2d(*arrays, **sized))
    arrays = (x, dy, case.weight)
    back = convjit.conv_transpose2d_backward(*arrays, **sized)
    assert_same(called("conv_transpose2d_backward", *arrays, **sized), back)


def test_results_begin_with_a_cache_line():
    kept = [called("conv2d", np.ones((1, 1, size, size)), np.ones((1, 1, 1, 1))) for size in range(3, 15)]
    assert [y.ctypes.data % 64 for y in kept] == [0] * len(kept)


def test_output_padding_and_no_bias():
    x, weight = np.random.default_rng(0).normal(size=(2, 2, 3, 4)), np.ones((2, 3, 2, 2))
    options = {"stride": (3, 2), "output_padding": (2, 1), "padding": 1}
    assert_same(called("conv_transpose2d", x, weight, **options), convjit.conv_transpose2d(x, weight, **options))
    for padding in ("same_upper", "same_lower"):
        options = {"stride": 2, "padding": padding}
        assert_same(called("conv_transpose2d", x, weight, **options), convjit.conv_transpose2d(x, weight, **options))


@pytest.mark.parametrize("shapes", [
    ((1, 2, 300, 7), (3, 2, 3, 3)),  # more than one panel
    ((1, 9000, 2, 2), (2, 9000, 2, 1)),  # sums of more than one total
    ((40, 1, 21, 22), (2, 1, 3, 3)),  # totals that end within an image
    ((1, 1, 5, 5), (500, 1, 2, 2)),  # more filters than share a panel
    ((2, 600, 3, 3), (2, 600, 1, 1)),  # read in place
], ids=str)  # fmt: skip
def test_large_problems_give_pythons_bits(shapes):
    rng = np.random.default_rng(1)
    x, weight = (rng.normal(size=shape).astype("float32") for shape in shapes)
    y = called("conv2d", x, weight)
    assert_same(y, convjit.conv2d(x, weight))
    assert_same(called("conv2d_backward", y, x, weight), convjit.conv2d_backward(y, x, weight))


@pytest.mark.parametrize(("shapes", "options"), [
    (((1, 2, 70, 900), (4, 1, 3, 3)), {"padding": 1}),  # tiles that are cut both ways
    (((2, 3, 13, 17), (6, 1, 3, 2)), {"stride": 3, "padding": 1, "dilation": 2}),
    (((1, 2, 600, 70), (2, 1, 7, 5)), {"stride": (1, 2), "padding": (3, 0)}),
    (((1, 2, 150, 150), (2, 1, 3, 3)), {"dilation": (70, 2)}),  # taps too far apart
    (((1, 2, 9, 9), (18, 1, 2, 2)), {}),  # too many filters
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_depthwise_problems_give_pythons_bits(shapes, options, dtype):
    rng = np.random.default_rng(6)
    x, weight = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    bias, options = np.linspace(-1, 1, len(weight)).astype(dtype), {**options, "groups": x.shape[1]}
    y = called("conv2d", x, weight, bias, **options)
    assert_same(y, convjit.conv2d(x, weight, bias, **options))
    assert_same(called("conv2d_backward", y, x, weight, **options), convjit.conv2d_backward(y, x, weight, **options))


def test_weight_gradients_of_planes_that_are_filled_in_turn():
    """Many images: those that fit, whole totals at a time."""
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(130, 1, 270, 270)).astype("float32"), rng.normal(size=(130, 1, 272, 272)).astype("float32")
    options = {"kernel_size": (3, 3), "padding": 2}
    assert_same(called("conv2d_weight_grad", dy, x, **options), convjit.conv2d_weight_grad(dy, x, **options))


@pytest.mark.parametrize("padding", [*PADDING_NAMES, 1, (2,), (1, 2), ((1, 0), (2, 1)), ((1,), 2), ((1, 2),)], ids=str)
def test_every_form_of_padding(padding):
    x, weight = np.random.default_rng(3).normal(size=(3, 7, 8)), np.ones((2, 3, 2, 3))
    for stride in (2, (3,)):
        options = {"stride": stride, "padding": padding}
        assert_same(called("conv2d", x, weight, **options), convjit.conv2d(x, weight, **options))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "byte-swapped"])
def test_every_layout(layout):
    rng, lay_out = np.random.default_rng(4), LAYOUTS[layout]
    x, weight, bias = (rng.normal(size=shape) for shape in ((2, 3, 6, 7), (4, 3, 2, 3), (4,)))
    wanted = convjit.conv2d(x, weight, bias)
    assert_same(called("conv2d", lay_out(x), lay_out(weight), lay_out(bias)), wanted)
    back = convjit.conv2d_backward(wanted, x, weight)
    assert_same(called("conv2d_backward", lay_out(wanted), lay_out(x), lay_out(weight)), back)


@pytest.mark.parametrize("need", [(True, False, False), (False, True, True), (False, False, False)])
def test_gradients_that_are_not_needed_are_none(need):
    rng = np.random.default_rng(5)
    dy, x, weight = rng.normal(size=(2, 2, 2)), rng.normal(size=(1, 3, 3)), rng.normal(size=(2, 1, 2, 2))
    assert_same(called("conv2d_backward", dy, x, weight, need=need), convjit.conv2d_backward(dy, x, weight, need=need))


@pytest.mark.parametrize("algorithm", ["fastest", "implicit", "direct", "depthwise", "reference"])
def test_named_algorithms_give_the_bits_of_auto(algorithm):
    rng = np.random.default_rng(7)
    x, weight = rng.normal(size=(2, 4, 9, 10)), rng.normal(size=(4, 1, 3, 3))
    options = {"padding": 1, "groups": 4}
    y = called("conv2d", x, weight, algorithm=algorithm, **options)
    assert_same(y, convjit.conv2d(x, weight, algorithm=algorithm, **options))
    back = called("conv2d_backward", y, x, weight, algorithm=algorithm, **options)
    assert_same(back, convjit.conv2d_backward(y, x, weight, **options))


def test_empty_batches_and_no_channels():
    for x, weight in (
        (np.ones((0, 2, 4, 4)), np.ones((3, 2, 3, 3))), (np.ones((2, 0, 4, 4)), np.ones((3, 0, 3, 3)))
    ):  # fmt: skip
        bias = np.arange(3.0)
        y = convjit.conv2d(x, weight, bias)
        assert_same(called("conv2d", x, weight, bias), y)
        assert_same(called("conv2d_backward", y, x, weight), convjit.conv2d_backward(y, x, weight))
