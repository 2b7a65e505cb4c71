"""Transposed convolution: stamped by the oracle, the adjoint of conv2d, and its own gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit import conv2d, conv2d_input_grad, conv_transpose2d, conv_transpose2d_backward
from convjit.testing import check_gradients, conv2d_cases, reference_conv_transpose2d

# A drawn convolution read backwards: its output gradient is the transposed one's input, its input size the output's.
TURNED = {"padding_modes": ["constant"]}


def turned(case):
    """Input, weight, bias and options of the transposed convolution, and the oracle's counts."""
    problem = case.problem
    options = {"stride": problem.stride, "padding": problem.pads, "groups": problem.groups,
               "dilation": problem.dilation, "output_size": problem.image}  # fmt: skip
    reference = {"stride": problem.stride_pair, "pads": problem.pads, "dilation": problem.dilation_pair,
                 "groups": problem.groups, "output_size": problem.image}  # fmt: skip
    channels = problem.weight_shape[1] * problem.groups
    bias = None if case.bias is None else np.resize(case.bias, channels)
    return case.grad_output, bias, options, reference


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "complex64"])
@given(data=st.data())
def test_stamps_exactly(data, dtype):
    case = data.draw(conv2d_cases(dtype, **TURNED))
    x, bias, options, reference = turned(case)
    wanted = reference_conv_transpose2d(x.reshape(case.problem.batched_y_shape), case.weight, bias, **reference)
    got = conv_transpose2d(x, case.weight, bias, **options)
    assert_array_equal(got, wanted.reshape(case.x.shape), strict=True)


@given(case=conv2d_cases(**TURNED))
def test_is_the_input_gradient_of_conv2d(case):
    x, _, options, _ = turned(case)
    wanted = conv2d_input_grad(x, case.weight, case.problem.image, **case.problem.options)
    assert_array_equal(conv_transpose2d(x, case.weight, **options), wanted)


@given(case=conv2d_cases(max_batch=2, max_channels=2, max_groups=2, max_extra=2, **TURNED))
def test_gradients_are_difference_quotients_exactly(case):
    x, bias, options, _ = turned(case)

    def gradients(dy, x, weight, bias=None):
        return conv_transpose2d_backward(dy, x, weight, **options)[: 2 if bias is None else 3]

    arrays = [x, case.weight] if bias is None else [x, case.weight, bias]
    check_gradients(lambda *a: conv_transpose2d(*a, **options), gradients, arrays, case.x)


@given(case=conv2d_cases("complex128", **TURNED))
def test_complex_gradients_are_adjoints(case):
    x, _, options, _ = turned(case)
    dx, dw, db = conv_transpose2d_backward(case.x, x, case.weight, **options)
    y = conv_transpose2d(x, case.weight, **options)
    assert np.vdot(case.x, y) == np.vdot(dx, x) == np.vdot(dw, case.weight)
    assert_array_equal(db, case.x.reshape(case.problem.batched_x_shape).sum((0, 2, 3)))


@given(case=conv2d_cases(**TURNED), need=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_need_picks_gradients(case, need):
    x, _, options, _ = turned(case)
    everything = conv_transpose2d_backward(case.x, x, case.weight, **options)
    picked = conv_transpose2d_backward(case.x, x, case.weight, **options, need=need)
    for wanted, got, gradient in zip(need, picked, everything, strict=True):
        if wanted:
            assert_array_equal(got, gradient)
        else:
            assert got is None


@pytest.mark.parametrize("extra", [(0, 0), (1, 0), (1, 2)])
def test_output_padding_and_output_size_agree(extra):
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((3, 2, 3, 3))
    size = (3 * 2 + 3 - 2 + extra[0], 4 * 3 + 3 - 2 + extra[1])
    by_padding = conv_transpose2d(x, weight, stride=(2, 3), padding=1, output_padding=extra)
    assert by_padding.shape == (2, 2, *size)
    by_size = conv_transpose2d(x, weight, stride=(2, 3), padding=1, output_size=size)
    both = conv_transpose2d(x, weight, stride=(2, 3), padding=1, output_padding=extra, output_size=size)
    assert_array_equal(by_padding, by_size)
    assert_array_equal(by_padding, both)


@pytest.mark.parametrize("padding", ["same_upper", "same_lower"])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 4), (3, 3), ((2, 3), 5), (2, 1), ((4, 3), 2)])
def test_least_padding_gives_size_times_stride(padding, stride, kernel):
    x, weight = np.ones((1, 1, 4, 5)), np.ones((1, 1, kernel, kernel))
    pair = stride if isinstance(stride, tuple) else (stride, stride)
    y = conv_transpose2d(x, weight, stride=stride, padding=padding)
    assert y.shape == (1, 1, 4 * pair[0], 5 * pair[1])
    back = conv2d(y, weight, stride=stride, padding=padding)
    assert back.shape == x.shape
    if kernel < min(pair):  # nothing is cut, and the end is filled
        whole = conv_transpose2d(x, weight, stride=stride)
        assert_array_equal(y[..., : whole.shape[2], : whole.shape[3]], whole)
        assert y.sum() == whole.sum()


def test_it_undoes_the_shape_of_a_convolution():
    x, weight = np.ones((1, 2, 9, 9)), np.ones((4, 2, 3, 3))
    y = conv2d(x, weight, stride=2, padding="same")
    assert conv_transpose2d(y, weight, stride=2, padding="same").shape == x.shape


def test_float32_with_a_float64_bias():
    x, weight = np.full((1, 1, 1), 3, np.float32), np.full((1, 1, 1, 1), 5, np.float32)
    assert_array_equal(conv_transpose2d(x, weight, np.array([0.1])), np.array([[[15.1]]]), strict=True)
