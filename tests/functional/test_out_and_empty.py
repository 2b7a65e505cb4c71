"""Results written into `out`, and problems with nothing in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rows import UNLIMITED

from convjit import (
    avg_pool2d,
    avg_pool2d_backward,
    col2im,
    conv2d,
    conv2d_backward,
    conv2d_input_grad,
    conv2d_weight_grad,
    conv_transpose2d,
    conv_transpose2d_backward,
    im2col,
    max_pool2d,
    max_pool2d_backward,
    pad2d,
    pad2d_backward,
)
from convjit.testing import conv2d_cases, real_arrays, reference_conv2d, reference_conv2d_backward


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64", "int16", "uint64"])
@given(data=st.data())
def test_out_gets_every_element_and_is_returned(data, dtype):
    case = data.draw(conv2d_cases(dtype))
    wanted = conv2d(case.x, case.weight, case.bias, **case.problem.options)
    # A guard on either side shows a write outside, a junk value an element that was left out.
    room = np.full(wanted.size + 32, 77, dtype)
    out = room[16:-16].reshape(wanted.shape)
    assert conv2d(case.x, case.weight, case.bias, **case.problem.options, out=out) is out
    assert_array_equal(out, wanted)
    assert (room[:16] == 77).all()
    assert (room[-16:] == 77).all()


@given(case=conv2d_cases(values=real_arrays))
def test_out_full_of_nan(case):
    wanted = conv2d(case.x, case.weight, case.bias, **case.problem.options)
    out = np.full(wanted.shape, np.nan)
    conv2d(case.x, case.weight, case.bias, **case.problem.options, out=out)
    assert out.tobytes() == wanted.tobytes()


def test_out_beside_its_inputs_in_one_buffer():
    room = np.zeros(9 + 1 + 9)
    x, weight, out = room[:9].reshape(1, 3, 3), room[9:10].reshape(1, 1, 1, 1), room[10:].reshape(1, 3, 3)
    x[...], weight[...] = 2, 3
    conv2d(x, weight, out=out)
    assert (out == 6).all()


@given(case=conv2d_cases(empty=True))
def test_nothing_in_any_place_is_exact(case):
    problem = case.problem
    x, dy = case.x.reshape(problem.batched_x_shape), case.grad_output.reshape(problem.batched_y_shape)
    wanted = reference_conv2d(x, case.weight, case.bias, **problem.reference_options)
    y = conv2d(case.x, case.weight, case.bias, **problem.options)
    assert_array_equal(y, wanted.reshape(problem.y_shape), strict=True)
    gradients = conv2d_backward(case.grad_output, case.x, case.weight, **problem.options)
    exact = reference_conv2d_backward(dy, x, case.weight, **problem.reference_options)
    for got, wanted in zip(gradients, exact, strict=True):
        assert_array_equal(got, wanted.reshape(got.shape), strict=True)


@pytest.mark.parametrize("dtype", ["float32", "int8", "complex64", "bool"])
@pytest.mark.parametrize("algorithm", UNLIMITED)
def test_an_empty_batch(algorithm, dtype):
    x, weight = np.ones((0, 2, 5, 5), dtype), np.ones((3, 2, 3, 3), dtype)
    y = conv2d(x, weight, np.ones(3, dtype), algorithm=algorithm)
    assert y.shape == (0, 3, 3, 3)
    dx, dw, db = conv2d_backward(y, x, weight, algorithm=algorithm)
    assert dx.shape == x.shape
    assert_array_equal(dw, np.zeros(weight.shape, dw.dtype), strict=True)
    assert_array_equal(db, np.zeros(3, db.dtype), strict=True)


@pytest.mark.parametrize("padding_mode", ["constant", "edge"])
@pytest.mark.parametrize("algorithm", UNLIMITED)
def test_no_channels_give_the_bias(algorithm, padding_mode):
    x, weight = np.ones((2, 0, 4, 4)), np.ones((3, 0, 3, 3))
    options = {"padding": 1, "algorithm": algorithm, "padding_mode": padding_mode}
    y = conv2d(x, weight, np.arange(3.0), **options)
    assert_array_equal(y, np.broadcast_to(np.arange(3.0)[:, None, None], (2, 3, 4, 4)))
    assert_array_equal(conv2d(x, weight, **options), np.zeros((2, 3, 4, 4)))
    dx, dw, db = conv2d_backward(y, x, weight, **options)
    assert dx.shape == x.shape
    assert dw.shape == weight.shape
    assert_array_equal(db, y.sum((0, 2, 3)))


@pytest.mark.parametrize("algorithm", UNLIMITED)
def test_an_image_of_padding_alone(algorithm):
    x, weight = np.ones((2, 1, 0, 3)), np.ones((1, 1, 3, 3))
    options = {"padding": ((2, 1), (0, 0)), "algorithm": algorithm}
    y = conv2d(x, weight, np.ones(1), **options)
    assert_array_equal(y, np.ones((2, 1, 1, 1)))
    dx, dw, db = conv2d_backward(y, x, weight, **options)
    assert dx.shape == x.shape
    assert_array_equal(dw, np.zeros(weight.shape))
    assert_array_equal(db, [2])


def test_groups_of_no_channels():
    assert_array_equal(conv2d(np.ones((1, 0, 2, 2)), np.ones((4, 0, 1, 1)), groups=2), np.zeros((1, 4, 2, 2)))


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 0, 4, 4), (0, 4, 4)])
def test_empty_images_everywhere_else(shape):
    batch, channels = shape[:-3], shape[-3]
    x = np.ones(shape)
    assert im2col(x, 3).shape == (*batch, channels * 9, 4)
    assert col2im(im2col(x, 3), 4, 3).shape == shape
    assert pad2d(x, 1).shape == (*batch, channels, 6, 6)
    assert pad2d(x, 1, mode="wrap").shape == (*batch, channels, 6, 6)
    assert pad2d_backward(x, 1, mode="wrap").shape == (*batch, channels, 2, 2)
    y, indices = max_pool2d(x, 2, return_indices=True)
    assert y.shape == indices.shape == (*batch, channels, 2, 2)
    assert max_pool2d_backward(y, x, 2).shape == shape
    assert avg_pool2d(x, 2).shape == y.shape
    assert avg_pool2d_backward(y, 4, 2).shape == shape


def test_an_empty_transposed_batch():
    x, weight = np.ones((0, 2, 3, 3)), np.ones((2, 4, 3, 3))
    y = conv_transpose2d(x, weight, np.ones(4))
    assert y.shape == (0, 4, 5, 5)
    dx, dw, db = conv_transpose2d_backward(y, x, weight)
    assert dx.shape == x.shape
    assert_array_equal(dw, np.zeros(weight.shape))
    assert_array_equal(db, np.zeros(4))


def test_no_channels_in_a_transposed_convolution():
    y = conv_transpose2d(np.ones((1, 0, 2, 2)), np.ones((0, 3, 2, 2)), np.arange(3.0))
    assert_array_equal(y, np.broadcast_to(np.arange(3.0)[:, None, None], (1, 3, 3, 3)))


def test_single_gradients_of_nothing():
    assert conv2d_input_grad(np.ones((0, 3, 2, 2)), np.ones((3, 2, 3, 3)), 4).shape == (0, 2, 4, 4)
    assert_array_equal(conv2d_weight_grad(np.ones((0, 3, 2, 2)), np.ones((0, 2, 4, 4)), 3), np.zeros((3, 2, 3, 3)))


def test_padding_an_image_without_rows():
    assert_array_equal(pad2d(np.ones((1, 0, 2)), ((1, 1), (0, 0)), value=7), np.full((1, 2, 2), 7.0))


def test_pixels_that_no_output_sees_have_no_gradient():
    dx = conv2d_input_grad(np.ones((1, 1, 1)), np.ones((1, 1, 1, 1)), (3, 3), stride=3)
    assert_array_equal(dx, [[[1, 0, 0], [0, 0, 0], [0, 0, 0]]])
