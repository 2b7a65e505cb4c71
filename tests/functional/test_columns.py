"""im2col and col2im: exact, adjoint, and the algebra that ties them to convolution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit import col2im, conv2d, im2col
from convjit.testing import (
    check_adjoint,
    check_gradients,
    conv2d_cases,
    exact_arrays,
    reference_col2im,
    reference_im2col,
)

LIMITS = {"max_groups": 1, "padding_modes": ["constant"]}


def columns_shape(problem):
    """The shape of im2col's result."""
    rows = problem.x_shape[-3] * problem.kernel[0] * problem.kernel[1]
    return (*problem.x_shape[:-3], rows, problem.out_size[0] * problem.out_size[1])


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "uint8", "int16", "complex64", "complex128", "bool", "float16"]
)
@given(data=st.data())
def test_im2col_moves_values(data, dtype):
    case = data.draw(conv2d_cases(dtype, **LIMITS))
    problem = case.problem
    wanted = reference_im2col(case.x.reshape(problem.batched_x_shape), problem.kernel, **problem.reference_window)
    got = im2col(case.x, problem.kernel, **problem.window)
    assert_array_equal(got, wanted.reshape(columns_shape(problem)), strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "complex64"])
@given(data=st.data())
def test_col2im_adds_exactly(data, dtype):
    problem = data.draw(conv2d_cases(dtype, **LIMITS)).problem
    columns = data.draw(exact_arrays(columns_shape(problem), dtype))
    batched = columns if columns.ndim == 3 else columns[None]
    wanted = reference_col2im(batched, problem.image, problem.kernel, **problem.reference_window)
    got = col2im(columns, problem.image, problem.kernel, **problem.window)
    assert_array_equal(got, wanted.reshape(problem.x_shape), strict=True)


@given(data=st.data())
def test_col2im_is_the_adjoint(data):
    case = data.draw(conv2d_cases(**LIMITS))
    problem = case.problem

    def unfold(x):
        return im2col(x, problem.kernel, **problem.window)

    def fold(columns):
        return col2im(columns, problem.image, problem.kernel, **problem.window)

    columns = data.draw(exact_arrays(columns_shape(problem)))
    check_adjoint(unfold, fold, case.x, columns)
    check_gradients(unfold, lambda dy, x: (fold(dy),), [case.x], columns)
    check_gradients(fold, lambda dy, c: (unfold(dy),), [columns], case.x)


@given(case=conv2d_cases(**LIMITS))
def test_folding_unfolded_ones_counts_visits(case):
    problem = case.problem
    ones = np.ones(case.x.shape)
    visits = col2im(im2col(ones, problem.kernel, **problem.window), problem.image, problem.kernel, **problem.window)
    rows, cols = np.zeros(problem.image[0]), np.zeros(problem.image[1])
    for axis, counts in enumerate((rows, cols)):
        for out in range(problem.out_size[axis]):
            for tap in range(problem.kernel[axis]):
                at = out * problem.stride_pair[axis] + tap * problem.dilation_pair[axis] - problem.pads[axis][0]
                if 0 <= at < len(counts):
                    counts[at] += 1
    assert_array_equal(visits, np.broadcast_to(np.outer(rows, cols), visits.shape))


@given(case=conv2d_cases(**LIMITS))
def test_convolution_is_a_product_with_columns(case):
    problem = case.problem
    columns = im2col(case.x, problem.kernel, **problem.window)
    product = case.weight.reshape(len(case.weight), -1) @ columns
    assert_array_equal(conv2d(case.x, case.weight, **problem.options), product.reshape(problem.y_shape))


def test_im2col_keeps_every_bit():
    payload = np.array([0x7FF8_0000_0000_1234, 0xFFF0_0000_0000_0001, 0x8000_0000_0000_0000], np.uint64)
    columns = im2col(payload.view(np.float64).reshape(1, 1, 3), 1)
    assert_array_equal(columns.view(np.uint64).ravel(), payload)
