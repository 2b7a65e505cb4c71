"""Every dtype: which one results, and that integers wrap, halves go through float32 and complex is linear."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rows import UNLIMITED

from convjit import (
    col2im,
    conv2d,
    conv2d_backward,
    conv2d_input_grad,
    conv2d_weight_grad,
    conv_transpose2d,
    pad2d_backward,
)
from convjit.testing import (
    conv2d_cases,
    conv2d_problems,
    exact_arrays,
    real_arrays,
    reference_conv2d,
    reference_conv2d_backward,
)

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = ["bool", *INTEGERS, "float16", "float32", "float64", "complex64", "complex128"]


def result_of(*dtypes):
    """NumPy's promotion, with bool counted as 0 and 1."""
    dtype = np.result_type(*dtypes)
    return np.dtype("int64") if dtype.kind == "b" else dtype


@pytest.mark.parametrize(("left", "right"), list(itertools.product(DTYPES, DTYPES)))
def test_result_dtypes(left, right):
    x, weight = np.ones((1, 2, 2), left), np.ones((1, 1, 1, 2), right)
    wanted = result_of(left, right)
    y = conv2d(x, weight)
    assert_array_equal(y, np.full((1, 2, 1), 2, wanted), strict=True)
    for gradient in conv2d_backward(np.ones_like(y), x, weight):
        assert gradient.dtype == wanted
    assert conv2d_input_grad(x, weight, (2, 3)).dtype == wanted
    assert conv2d_weight_grad(x, np.ones((1, 2, 3), right), (1, 2)).dtype == wanted
    assert_array_equal(conv_transpose2d(x, weight), np.array([[[1, 2, 1]] * 2]).reshape(1, 2, 3).astype(wanted),
                       strict=True)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bias_has_a_say(dtype):
    x, weight = np.full((1, 1, 1), 2, np.int8), np.full((1, 1, 1, 1), 3, np.int8)
    y = conv2d(x, weight, np.ones(1, dtype))
    assert_array_equal(y, np.full((1, 1, 1), 7, result_of("int8", dtype)), strict=True)


def wrapped(numbers, dtype):
    """Python integers modulo the dtype's range."""
    bits = 8 * np.dtype(dtype).itemsize
    flat = np.array([int(n) % (1 << bits) for n in numbers.ravel()], np.uint64)
    return flat.astype(f"uint{bits}").view(dtype).reshape(numbers.shape)


def draw_integers(data, shape, dtype):
    """Integers over the whole range of the dtype."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)


@pytest.mark.parametrize("algorithm", UNLIMITED)
@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_integers_wrap_as_numpys(data, dtype, algorithm):
    problem = data.draw(conv2d_problems())
    x, weight, dy = (
        draw_integers(data, shape, dtype) for shape in (problem.x_shape, problem.weight_shape, problem.y_shape)
    )
    # Python integers never overflow: the true sums, reduced once.
    batched = x.reshape(problem.batched_x_shape).astype(object), weight.astype(object)
    wanted = reference_conv2d(*batched, **problem.reference_options)
    got = conv2d(x, weight, **problem.options, algorithm=algorithm)
    assert_array_equal(got, wrapped(wanted, dtype).reshape(problem.y_shape), strict=True)
    gradients = conv2d_backward(dy, x, weight, **problem.options, algorithm=algorithm)
    true = reference_conv2d_backward(
        dy.reshape(problem.batched_y_shape).astype(object), *batched, **problem.reference_options
    )
    for gradient, numbers in zip(gradients, true, strict=True):
        assert_array_equal(gradient, wrapped(numbers, dtype).reshape(gradient.shape), strict=True)


def test_integers_wrap_in_the_other_sums():
    ones = np.full((1, 4, 4), 100, np.int8)
    assert_array_equal(col2im(np.full((4, 4), 100, np.int8), 3, 2)[0, 1], np.array([200, 400, 200]).astype(np.int8))
    assert pad2d_backward(ones, 1, mode="wrap").dtype == np.int8


@given(data=st.data())
def test_halves_go_through_float32(data):
    case = data.draw(conv2d_cases("float16", real_arrays))
    wide = [a.astype(np.float32) for a in (case.x, case.weight)]
    bias = None if case.bias is None else case.bias.astype(np.float32)
    y = conv2d(*wide, bias, **case.problem.options).astype(np.float16)
    assert_array_equal(conv2d(case.x, case.weight, case.bias, **case.problem.options), y, strict=True)
    got = conv2d_backward(case.grad_output, case.x, case.weight, **case.problem.options)
    wanted = conv2d_backward(case.grad_output.astype(np.float32), *wide, **case.problem.options)
    for gradient, other in zip(got, wanted, strict=True):
        assert_array_equal(gradient, other.astype(np.float16), strict=True)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@given(data=st.data())
def test_complex_is_exact_with_adjoint_gradients(data, dtype):
    case = data.draw(conv2d_cases(dtype))
    problem = case.problem
    x = case.x.reshape(problem.batched_x_shape)
    y = conv2d(case.x, case.weight, case.bias, **problem.options)
    wanted = reference_conv2d(x, case.weight, case.bias, **problem.reference_options)
    assert_array_equal(y, wanted.reshape(problem.y_shape), strict=True)
    dx, dw, db = conv2d_backward(case.grad_output, case.x, case.weight, **problem.options)
    gradients = reference_conv2d_backward(
        case.grad_output.reshape(problem.batched_y_shape), x, case.weight, **problem.reference_options
    )
    for got, gradient in zip((dx, dw, db), gradients, strict=True):
        assert_array_equal(got, gradient.reshape(got.shape), strict=True)
    no_bias = conv2d(case.x, case.weight, **problem.options)
    assert np.vdot(case.grad_output, no_bias) == np.vdot(dx, case.x) == np.vdot(dw, case.weight)


@given(data=st.data())
def test_real_images_with_complex_weights(data):
    problem = data.draw(conv2d_problems())
    x, weight = data.draw(exact_arrays(problem.x_shape)), data.draw(exact_arrays(problem.weight_shape, "complex128"))
    by_parts = conv2d(x, weight.real, **problem.options) + 1j * conv2d(x, weight.imag, **problem.options)
    assert_array_equal(conv2d(x, weight, **problem.options), by_parts)


def test_uint8_images_with_float64_weights():
    x = np.array([[[250, 251]]], np.uint8)
    assert_array_equal(conv2d(x, np.full((1, 1, 1, 2), 0.5)), np.array([[[250.5]]]), strict=True)


def test_lists_and_array_likes():
    class Picture:
        def __array__(self, dtype=None, copy=None):
            return np.array([[[1.0, 2.0]]])

    assert_array_equal(conv2d([[[1, 2]]], [[[[3]]]]), np.array([[[3, 6]]]), strict=True)
    assert_array_equal(conv2d(Picture(), [[[[3.0]]]]), [[[3, 6]]])


def test_subclasses_give_plain_arrays(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(1, 2, 2))
    x[...] = 1
    y = conv2d(x, np.ones((1, 1, 1, 1), np.float32))
    assert type(y) is np.ndarray
    assert_array_equal(y, np.ones((1, 2, 2)))
