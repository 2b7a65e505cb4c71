"""What the strategies of arrays draw, and what they shrink to."""

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit.testing import (
    LAYOUTS,
    Problem,
    conv2d_cases,
    exact_arrays,
    layouts,
    real_arrays,
    reference_conv2d,
)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "complex64"])
@given(data=st.data())
def test_exact_arrays_hold_small_integers(data, dtype):
    array = data.draw(exact_arrays((2, 3), dtype))
    assert array.dtype == dtype
    assert array.shape == (2, 3)
    assert_array_equal(array, np.round(array.astype(complex)))
    assert (abs(array) <= 6).all()


def test_exact_arrays_differ_within_one_array():
    assert find(exact_arrays(8), lambda a: len(set(a.tolist())) >= 4).size == 8


@given(array=exact_arrays((2, 1000), "int8", largest=100))
def test_large_arrays_repeat_nothing(array):
    assert (abs(array.astype(int)) <= 100).all()
    blocks = array.ravel()[64 : 64 * 7].reshape(6, 64)
    full = (blocks != 0).all(axis=0)
    assert full.sum() < 8 or not (blocks[0, full] == blocks[1, full]).all()


@pytest.mark.parametrize("values", [exact_arrays, real_arrays])
def test_large_arrays_hold_many_numbers(values):
    assert find(values((3, 40, 40)), lambda a: np.count_nonzero(a) > 4000).shape == (3, 40, 40)
    assert np.count_nonzero(find(values((3, 40, 40)), lambda a: a.ravel()[100] != 0)) <= 75


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bool", "float32", "complex128"])
def test_layouts_hold_the_same_values(name, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    laid_out = LAYOUTS[name](array)
    assert_array_equal(laid_out, array)
    assert not np.shares_memory(laid_out, array)


def test_layouts_are_what_they_say():
    array = np.arange(24.0).reshape(2, 3, 4)
    made = {name: lay_out(array) for name, lay_out in LAYOUTS.items()}
    assert made["fortran"].flags.f_contiguous
    assert not made["strided"].flags.forc
    assert not made["transposed"].flags.forc
    assert min(made["reversed"].strides) < 0
    assert not made["read-only"].flags.writeable
    assert not made["unaligned"].flags.aligned
    assert not made["byte-swapped"].dtype.isnative
    assert find(layouts(array), lambda a: True).flags.c_contiguous


@given(array=real_arrays((3, 4), "float32", positive=True))
def test_positive_reals(array):
    assert array.dtype == np.float32
    assert (array > 0).all()
    assert (array <= 1).all()


@given(array=real_arrays((5, 6), distinct=True))
def test_distinct_reals(array):
    assert len(np.unique(array)) == 30


def test_most_reals_have_all_their_digits():
    array = find(real_arrays(40), lambda a: len(np.unique(a)) > 30)
    assert (array * 2**20 != np.round(array * 2**20)).sum() > 15


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: exact_arrays(3, "U3"), TypeError, "exact_arrays: dtype must be bool, .* or complex, got <U3"),
        (lambda: exact_arrays(3, object), TypeError, "exact_arrays: dtype must be .*, got object"),
        (lambda: exact_arrays(3, "int8", 128), ValueError, "exact_arrays: largest must be .* int8 holds, got 128"),
        (lambda: exact_arrays(3, "float16", 3000), ValueError, "exact_arrays: largest .* float16 holds, got 3000"),
        (lambda: exact_arrays(3, largest=0), ValueError, "exact_arrays: largest must be at least 1 .*, got 0"),
        (lambda: exact_arrays(3, largest=1.5), TypeError, "exact_arrays: largest must be an int, got float"),
        (lambda: real_arrays(3, "int32"), TypeError, "real_arrays: dtype must be floating or complex, got int32"),
    ],
)
def test_arrays_that_cannot_be_drawn(call, error, said):
    with pytest.raises(error, match=f"^{said}$"):
        call()


# --- shrinking: what is left of a failure ---------------------------------------------------------------------------

FEW = {"settings": settings(max_examples=500, database=None, derandomize=True)}


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32", "complex64"])
def test_exact_arrays_shrink_to_zeros_and_ones(dtype):
    assert_array_equal(find(exact_arrays((2, 2), dtype), lambda a: True), np.zeros((2, 2)))
    assert_array_equal(find(exact_arrays((2, 2), dtype), np.any), [[1, 0], [0, 0]])
    assert_array_equal(find(exact_arrays((3,), dtype), lambda a: a[1] != 0), [0, 1, 0])


def test_real_arrays_shrink_to_numbers_that_can_be_read():
    assert_array_equal(find(real_arrays((2, 2)), lambda a: True), np.zeros((2, 2)))
    assert_array_equal(find(real_arrays((2, 2), positive=True), lambda a: True), np.ones((2, 2)))
    assert_array_equal(find(real_arrays(3), lambda a: a.sum() < -1.5, **FEW), [-2, 0, 0])
    inexact = find(real_arrays(3), lambda a: (a[0] + a[1]) + a[2] != a[0] + (a[1] + a[2]), **FEW)
    assert set(inexact) <= {0.1, -0.1, 0.3, -0.3, 0.5, -0.5, 1, -1, 2, -2}


@pytest.mark.parametrize("values", [exact_arrays, real_arrays])
def test_arrays_do_not_keep_their_problem_large(values):
    case = find(conv2d_cases(values=values), lambda c: c.x.any() and c.weight.any() and c.grad_output.any(), **FEW)
    assert case.problem == Problem((1, 1, 1), (1, 1, 1, 1))
    assert case.x.item() == case.weight.item() == case.grad_output.item() == 1


def test_a_mistake_shrinks_to_an_example_of_a_few_ones():
    def is_wrong(case):
        """The stride of the height is taken for that of the width."""
        problem, x = case.problem, case.x.reshape(case.problem.batched_x_shape)
        options = problem.reference_options
        y = reference_conv2d(x, case.weight, **options)
        wrong = reference_conv2d(x, case.weight, **{**options, "stride": (problem.stride_pair[0],) * 2})
        return y.shape != wrong.shape or (y != wrong).any()

    case = find(conv2d_cases(max_batch=1), is_wrong, **FEW)
    assert case.problem.weight_shape == (1, 1, 1, 1)
    assert case.x.size <= 6
    assert {*case.x.ravel(), *case.weight.ravel(), *case.grad_output.ravel()} <= {0, 1}
