"""Padding, pooling and columns from compiled code: the bits that Python gets."""

import re

import numba
import numpy as np
import pytest
from callers import assert_same, called, caller
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import convjit
from convjit.testing import PADDING_MODES, conv2d_cases, real_arrays

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("pads", [((2, 1), (0, 3)), ((0, 0), (1, 0))], ids=str)
def test_padding_and_its_adjoint(mode, pads):
    x = RNG.normal(size=(2, 3, 4, 5))
    x[0, 0, 1, 1], x[0, 0, 2, 2] = -0.0, np.nan
    y = convjit.pad2d(x, pads, mode=mode)
    assert_same(called("pad2d", x, padding=pads, mode=mode), y)
    assert_same(called("pad2d_backward", y, padding=pads, mode=mode), convjit.pad2d_backward(y, pads, mode=mode))


@pytest.mark.parametrize("mode", ["edge", "symmetric", "wrap"])
def test_padding_many_times_the_image(mode):
    x = RNG.normal(size=(1, 2, 3)).astype("float32")
    assert_same(called("pad2d", x, padding=7, mode=mode), convjit.pad2d(x, 7, mode=mode))


@pytest.mark.parametrize("value", [0, -1, 2.5, 0.1, float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_constant(dtype, value):
    x = np.ones((1, 2, 2), dtype)
    for got in (
        called("pad2d", x, padding=1, value=value),
        called("pad2d", x, padding=1, mode="constant", value=value),
    ):
        assert_array_equal(got, convjit.pad2d(x, 1, value=value), strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@settings(max_examples=60)
def test_pooling_and_columns_give_pythons_bits(data, dtype):
    case = data.draw(conv2d_cases(dtype, real_arrays, max_groups=1, max_dilation=3, padding_modes=("constant",)))
    problem, x = case.problem, case.x.reshape(case.problem.batched_x_shape)
    window = {"stride": problem.stride_pair, "padding": problem.pads, "dilation": problem.dilation_pair}
    columns = convjit.im2col(x, problem.kernel, **window)
    sized = {"kernel_size": problem.kernel, **window}
    assert_same(called("im2col", x, **sized), columns)
    fold = {"image_size": problem.image, **sized}
    assert_same(called("col2im", columns, **fold), convjit.col2im(columns, **fold))

    extent = [(k - 1) * d + 1 for k, d in zip(problem.kernel, problem.dilation_pair, strict=True)]
    sized["padding"] = tuple(tuple(min(p, e - 1) for p in pad) for pad, e in zip(problem.pads, extent, strict=True))
    if any(n + sum(p) < e for n, p, e in zip(problem.image, sized["padding"], extent, strict=True)):
        return
    sized["ceil_mode"] = data.draw(st.integers(0, 1))
    y, indices = convjit.max_pool2d(x, **sized, return_indices=True)
    assert_same(called("max_pool2d", x, **sized, return_indices=True), (y, indices))
    assert_same(called("max_pool2d", x, **sized), y)
    assert_same(called("max_pool2d_backward", y, x, **sized), convjit.max_pool2d_backward(y, x, **sized))
    counted = {**sized, "count_include_pad": data.draw(st.integers(0, 1))}
    counted |= data.draw(st.sampled_from([{}, *({"divisor_override": divisor} for divisor in (None, 3, -1, -3))]))
    y = convjit.avg_pool2d(x, **counted)
    assert_same(called("avg_pool2d", x, **counted), y)
    back = {"input_size": problem.image, **counted}
    assert_same(called("avg_pool2d_backward", y, **back), convjit.avg_pool2d_backward(y, **back))


def test_indices_are_taken_or_looked_for():
    x = RNG.normal(size=(2, 4, 5))
    y, indices = convjit.max_pool2d(x, 2, return_indices=True)
    wanted = convjit.max_pool2d_backward(y, x, 2)
    assert_same(called("max_pool2d_backward", y, x, kernel_size=2), wanted)
    call = caller("max_pool2d_backward", 2, ("kernel_size", "indices"))
    assert_same(call(y, x, 2, indices), wanted)
    strided = np.repeat(indices, 2, axis=2)[:, :, ::2]
    assert_same(call(y, x, 2, strided), wanted)
    indices[0, 0, 0], indices[1, 1, 1] = -2, 99
    with pytest.raises(ValueError, match=r"^max_pool2d_backward: indices must be -1\.\.19, got -2\.\.99$"):
        call(y, x, 2, indices)


def test_strides_default_to_the_kernel_and_single_images():
    x = RNG.normal(size=(3, 6, 7)).astype("float32")
    for name in ("max_pool2d", "avg_pool2d", "im2col"):
        assert_same(called(name, x, kernel_size=(2, 3)), getattr(convjit, name)(x, (2, 3)))
    assert_same(
        called("max_pool2d", x, kernel_size=2, stride=None, ceil_mode=True), convjit.max_pool2d(x, 2, ceil_mode=True)
    )
    short = {"kernel_size": 4, "stride": 3, "ceil_mode": True}  # whose only window reaches past the end
    assert_same(called("avg_pool2d", x[:, :3, :2], **short), convjit.avg_pool2d(x[:, :3, :2], 4, 3, ceil_mode=True))
    with pytest.raises(ValueError, match=r"kernel 4x4 .* is larger than the padded input 2x2"):
        called("max_pool2d", x[:, :2, :2], kernel_size=4, stride=1, ceil_mode=True)
    columns = convjit.im2col(x, 2)
    assert_same(called("col2im", columns, image_size=(6, 7), kernel_size=2), convjit.col2im(columns, (6, 7), 2))
    assert_same(called("max_pool2d", x[:, ::-1, ::2], kernel_size=2), convjit.max_pool2d(x[:, ::-1, ::2], 2))


@pytest.mark.parametrize("divisor", [0, 1 << 31, -(1 << 31), 1 << 62, -(1 << 63)])
def test_divisors_that_are_refused(divisor):
    x = np.ones((1, 2, 4, 4))
    for name, arguments in (("avg_pool2d", {}), ("avg_pool2d_backward", {"input_size": (8, 8)})):
        arguments = {**arguments, "kernel_size": 2, "divisor_override": divisor}
        with pytest.raises(ValueError) as python:
            getattr(convjit, name)(x, **arguments)
        with pytest.raises(ValueError, match=rf"^{re.escape(str(python.value))}$"):
            called(name, x, **arguments)


@pytest.mark.parametrize("divisor", [2.0, True, np.float64(2), np.bool_(True)])
def test_divisors_of_other_types(divisor):
    def call(x, divisor):
        return convjit.avg_pool2d(x, 2, divisor_override=divisor)

    said = r"^avg_pool2d: divisor_override must be an int in compiled code, got (float64|bool)$"
    with pytest.raises(TypeError, match=said):
        numba.njit(call)(np.ones((1, 2, 4, 4)), divisor)


def test_empty_batches():
    x = np.ones((0, 2, 4, 4))
    assert called("pad2d", x, padding=1).shape == (0, 2, 6, 6)
    assert called("max_pool2d", x, kernel_size=2).shape == (0, 2, 2, 2)
    assert called("im2col", x, kernel_size=2).shape == (0, 8, 9)
