"""Convolution and its gradients: exact on integers, adjoint, differentiated exactly, and the algebra."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rows import GENERAL

from convjit import conv2d, conv2d_backward, conv2d_input_grad, conv2d_weight_grad, pad2d
from convjit.testing import (
    PADDING_NAMES,
    check_adjoint,
    check_gradients,
    conv2d_cases,
    exact_arrays,
    real_arrays,
    reference_conv2d,
    reference_conv2d_backward,
)

DTYPES = ["float32", "float64"]
SMALL = {"max_batch": 2, "max_channels": 2, "max_groups": 2, "max_extra": 2, "max_padding": 2}


def expected_backward(case):
    problem = case.problem
    dx, dw, db = reference_conv2d_backward(
        case.grad_output.reshape(problem.batched_y_shape), case.x.reshape(problem.batched_x_shape), case.weight,
        **problem.reference_options,
    )  # fmt: skip
    return dx.reshape(case.x.shape), dw, db


@pytest.mark.parametrize("algorithm", GENERAL)
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_forward_is_exact_on_integers(data, dtype, algorithm):
    case = data.draw(conv2d_cases(dtype))
    problem = case.problem
    y = conv2d(case.x, case.weight, case.bias, **problem.options, algorithm=algorithm)
    wanted = reference_conv2d(
        case.x.reshape(problem.batched_x_shape), case.weight, case.bias, **problem.reference_options
    )
    assert_array_equal(y, wanted.reshape(problem.y_shape), strict=True)


@pytest.mark.parametrize("algorithm", GENERAL)
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_gradients_are_exact_on_integers(data, dtype, algorithm):
    case = data.draw(conv2d_cases(dtype))
    got = conv2d_backward(case.grad_output, case.x, case.weight, **case.problem.options, algorithm=algorithm)
    for gradient, wanted in zip(got, expected_backward(case), strict=True):
        assert_array_equal(gradient, wanted, strict=True)


@given(case=conv2d_cases(values=real_arrays))
def test_single_gradients_are_those_of_backward(case):
    problem = case.problem
    dx, dw, _ = conv2d_backward(case.grad_output, case.x, case.weight, **problem.options)
    assert_array_equal(conv2d_input_grad(case.grad_output, case.weight, problem.image, **problem.options), dx)
    assert_array_equal(conv2d_weight_grad(case.grad_output, case.x, problem.kernel, **problem.options), dw)


@pytest.mark.parametrize("need", [(a, b, c) for a in (True, False) for b in (True, False) for c in (True, False)])
@given(case=conv2d_cases(values=real_arrays))
def test_need_picks_gradients(case, need):
    arguments = (case.grad_output, case.x, case.weight)
    everything = conv2d_backward(*arguments, **case.problem.options)
    picked = conv2d_backward(*arguments, **case.problem.options, need=need)
    for wanted, got, gradient in zip(need, picked, everything, strict=True):
        if wanted:
            assert_array_equal(got, gradient)
        else:
            assert got is None


@given(case=conv2d_cases())
def test_input_gradient_is_the_adjoint(case):
    problem = case.problem
    check_adjoint(
        lambda x: conv2d(x, case.weight, **problem.options),
        lambda dy: conv2d_input_grad(dy, case.weight, problem.image, **problem.options),
        case.x,
        case.grad_output,
    )


@given(case=conv2d_cases())
def test_weight_gradient_is_the_adjoint(case):
    problem = case.problem
    check_adjoint(
        lambda weight: conv2d(case.x, weight, **problem.options),
        lambda dy: conv2d_weight_grad(dy, case.x, problem.kernel, **problem.options),
        case.weight,
        case.grad_output,
    )


def differentiated(case):
    """Function, gradients and arguments for `check_gradients`."""
    options = case.problem.options

    def function(x, weight, bias=None):
        return conv2d(x, weight, bias, **options)

    def gradients(dy, x, weight, bias=None):
        return conv2d_backward(dy, x, weight, **options)[: 2 if bias is None else 3]

    arrays = [case.x, case.weight] if case.bias is None else [case.x, case.weight, case.bias]
    return function, gradients, arrays, case.grad_output


@given(case=conv2d_cases(**SMALL))
def test_gradients_are_difference_quotients_exactly(case):
    check_gradients(*differentiated(case))


@given(case=conv2d_cases(values=real_arrays, **SMALL))
def test_gradients_are_central_differences(case):
    # A convolution is linear in each argument: rounding is the only error, whatever the step. 16u is what the values
    # and the sums of the comparison may be off by.
    check_gradients(*differentiated(case), central=True, step=0.5, units=64, truncation=1e-12)


@given(case=conv2d_cases(), data=st.data())
def test_linear_in_the_image(case, data):
    other = data.draw(exact_arrays(case.x.shape))
    options = case.problem.options
    together = conv2d(case.x + 3 * other, case.weight, **options)
    assert_array_equal(together, conv2d(case.x, case.weight, **options) + 3 * conv2d(other, case.weight, **options))


@given(case=conv2d_cases(), data=st.data())
def test_linear_in_the_weight(case, data):
    other = data.draw(exact_arrays(case.weight.shape))
    options = case.problem.options
    together = conv2d(case.x, case.weight - 2 * other, **options)
    assert_array_equal(together, conv2d(case.x, case.weight, **options) - 2 * conv2d(case.x, other, **options))


@given(case=conv2d_cases(values=real_arrays))
def test_groups_are_convolutions_side_by_side(case):
    options = {**case.problem.options, "groups": 1}
    groups = case.problem.groups
    images = np.split(case.x, groups, axis=-3)
    weights = np.split(case.weight, groups)
    side_by_side = [conv2d(x, w, **options) for x, w in zip(images, weights, strict=True)]
    assert_array_equal(conv2d(case.x, case.weight, **case.problem.options), np.concatenate(side_by_side, axis=-3))


@given(case=conv2d_cases(values=real_arrays))
def test_stride_is_subsampling(case):
    options = {**case.problem.options, "padding": case.problem.pads}
    (sh, sw), (high, wide) = case.problem.stride_pair, case.problem.out_size
    dense = conv2d(case.x, case.weight, **{**options, "stride": 1})
    assert_array_equal(conv2d(case.x, case.weight, **options), dense[..., ::sh, ::sw][..., :high, :wide])


@given(case=conv2d_cases(max_dilation=3))
def test_dilation_is_a_zero_stuffed_weight(case):
    (kh, kw), (dh, dw) = case.problem.kernel, case.problem.dilation_pair
    stuffed = np.zeros((*case.weight.shape[:2], (kh - 1) * dh + 1, (kw - 1) * dw + 1))
    stuffed[:, :, ::dh, ::dw] = case.weight
    options = {**case.problem.options, "padding": case.problem.pads}
    dense = conv2d(case.x, stuffed, **{**options, "dilation": 1})
    assert_array_equal(conv2d(case.x, case.weight, **options), dense)


@given(case=conv2d_cases(values=real_arrays))
def test_padding_is_pad2d(case):
    options = case.problem.options
    padded = pad2d(case.x, case.problem.pads, mode=case.problem.padding_mode)
    inside = {**options, "padding": 0, "padding_mode": "constant"}
    y = conv2d(case.x, case.weight, case.bias, **options)
    assert_array_equal(y, conv2d(padded, case.weight, case.bias, **inside))
    dw = conv2d_weight_grad(case.grad_output, case.x, case.problem.kernel, **options)
    assert_array_equal(dw, conv2d_weight_grad(case.grad_output, padded, case.problem.kernel, **inside))


@given(
    case=conv2d_cases(values=real_arrays, padding_modes=["constant"]), down=st.integers(0, 3), right=st.integers(0, 3)
)
def test_a_shifted_image_gives_a_shifted_result(case, down, right):
    problem = case.problem
    sh, sw = problem.stride_pair
    options = {**problem.options, "padding": 0}
    # Room for the kernel at every place of either image.
    x = pad2d(case.x, (12, 12))
    shifted = np.roll(x, (down * sh, right * sw), (-2, -1))
    y, moved = conv2d(x, case.weight, **options), conv2d(shifted, case.weight, **options)
    high, wide = y.shape[-2] - down, y.shape[-1] - right
    assert_array_equal(moved[..., down:, right:][..., 1:, 1:], y[..., :high, :wide][..., 1:, 1:])


def test_the_kernel_is_not_flipped():
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    weight = np.array([[1.0, 0], [0, 0]])[None, None]
    assert_array_equal(conv2d(x, weight), [[[[1, 2], [4, 5]]]])


@pytest.mark.parametrize("padding", PADDING_NAMES)
@given(data=st.data())
def test_named_padding_is_its_counts(data, padding):
    case = data.draw(conv2d_cases(values=real_arrays))
    problem = case.problem
    named = conv2d(pad2d(case.x, (6, 6)), case.weight, **{**problem.options, "padding": padding})
    size = (problem.image[0] + 12, problem.image[1] + 12)
    reach = [(k - 1) * d for k, d in zip(problem.kernel, problem.dilation_pair, strict=True)]
    stride = problem.stride_pair
    wanted = {
        "valid": [-(-(n - r) // s) for n, r, s in zip(size, reach, stride, strict=True)],
        "same": [-(-n // s) for n, s in zip(size, stride, strict=True)],
        "same_upper": [-(-n // s) for n, s in zip(size, stride, strict=True)],
        "same_lower": [-(-n // s) for n, s in zip(size, stride, strict=True)],
        "full": [-(-(n + r) // s) for n, r, s in zip(size, reach, stride, strict=True)],
    }[padding]
    assert named.shape[-2:] == tuple(wanted)


@pytest.mark.parametrize(
    ("padding", "counts"),
    [
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 2), (2, 2))),  # kernel 4x3, dilation (1, 2)
        ("same_upper", ((1, 1), (1, 2))),
        ("same_lower", ((1, 1), (2, 1))),
        ("full", ((3, 3), (4, 4))),
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        ([3], ((3, 3), (3, 3))),
        (np.array([[0, 1], [2, 3]]), ((0, 1), (2, 3))),
        ([(1, 2)], ((1, 2), (1, 2))),
    ],
)
def test_padding_forms_by_hand(padding, counts):
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((1, 2, 8, 8)), rng.standard_normal((3, 2, 4, 3))
    options = {"stride": 2, "dilation": (1, 2)}
    assert_array_equal(conv2d(x, weight, padding=padding, **options), conv2d(x, weight, padding=counts, **options))


@given(case=conv2d_cases(values=real_arrays))
def test_an_unbatched_image_is_a_batch_of_one(case):
    problem = case.problem
    image = case.x if case.x.ndim == 3 else case.x[0]
    y = conv2d(image, case.weight, case.bias, **problem.options)
    assert_array_equal(y, conv2d(image[None], case.weight, case.bias, **problem.options)[0], strict=True)
    for alone, batched in zip(
        conv2d_backward(y, image, case.weight, **problem.options),
        conv2d_backward(y[None], image[None], case.weight, **problem.options),
        strict=True,
    ):
        assert_array_equal(alone, batched.reshape(alone.shape), strict=True)


@given(case=conv2d_cases())
def test_arguments_are_left_alone(case):
    before = [a.tobytes() for a in (case.x, case.weight, case.grad_output)]
    y = conv2d(case.x, case.weight, case.bias, **case.problem.options)
    gradients = conv2d_backward(case.grad_output, case.x, case.weight, **case.problem.options)
    assert before == [a.tobytes() for a in (case.x, case.weight, case.grad_output)]
    for result in (y, *gradients):
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert type(result) is np.ndarray
        assert not np.shares_memory(result, case.x)
        assert not np.shares_memory(result, case.weight)


def test_a_real_gradient_beside_complex_images_has_a_real_bias_gradient():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, 5, 5)) * (1 + 2j), rng.standard_normal((2, 4, 3, 3))
    weight = rng.standard_normal((4, 3, 3, 3))
    db = conv2d_backward(dy, x, weight)[2]
    assert db.dtype == np.complex128
    assert_allclose(db, dy.sum((0, 2, 3)), rtol=1e-12)
    assert_array_equal(db.imag, np.zeros(4))
