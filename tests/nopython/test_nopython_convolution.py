"""Convolution from compiled code: the bits that Python gets, on drawn problems, in every layout."""

import numpy as np
import pytest
from callers import called
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import convjit
from convjit.testing import LAYOUTS, conv2d_cases, real_arrays

DTYPES = ["float32", "float64"]


def plain(options):
    """Options as few compiled callers take them: pairs, and padding in counts."""
    return options


def as_pairs(problem):
    """The options of a problem, each in one form, so that few callers are compiled."""
    return {
        "stride": problem.stride_pair, "padding": problem.pads, "dilation": problem.dilation_pair,
        "groups": problem.groups, "padding_mode": problem.padding_mode,
    }  # fmt: skip


def assert_same(got, wanted):
    """The same bits, shapes and dtypes; also of tuples with None."""
    if isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            assert_same(a, b)
    elif wanted is None:
        assert got is None
    else:
        assert got.flags.c_contiguous
        assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=150)
def test_all_of_conv2d_gives_pythons_bits(data, dtype):
    case = data.draw(conv2d_cases(dtype, real_arrays, max_kernel=4, max_extra=12, max_stride=4, max_dilation=3))
    problem, options = case.problem, as_pairs(case.problem)
    arrays = (case.x, case.weight, case.bias)
    assert_same(called("conv2d", *arrays, **options), convjit.conv2d(*arrays, **options))
    back = (case.grad_output, case.x, case.weight)
    assert_same(called("conv2d_backward", *back, **options), convjit.conv2d_backward(*back, **options))
    sized = {"input_size": problem.image, **options}
    assert_same(
        called("conv2d_input_grad", case.grad_output, case.weight, **sized),
        convjit.conv2d_input_grad(case.grad_output, case.weight, **sized),
    )
    sized = {"kernel_size": problem.kernel, **options}
    assert_same(
        called("conv2d_weight_grad", case.grad_output, case.x, **sized),
        convjit.conv2d_weight_grad(case.grad_output, case.x, **sized),
    )
