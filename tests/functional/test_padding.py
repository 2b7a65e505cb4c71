"""pad2d is np.pad, and pad2d_backward its adjoint in every mode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit import pad2d, pad2d_backward, parsing, testing
from convjit.algorithms import padding as kernels
from convjit.testing import (
    PADDING_MODES,
    check_adjoint,
    check_gradients,
    exact_arrays,
    reference_pad2d,
    reference_pad2d_backward,
)


@st.composite
def padded_images(draw, mode, dtype="float64", most=5):
    """An image, a padding, and a gradient for the padded image."""
    sizes = [draw(st.integers(1, 5)) for _ in range(2)]
    limits = [min(most, size - 1) if mode == "reflect" else most for size in sizes]
    pads = tuple((draw(st.integers(0, limit)), draw(st.integers(0, limit))) for limit in limits)
    planes = draw(st.sampled_from([(1,), (2,), (2, 2)]))
    padded = [size + sum(pad) for size, pad in zip(sizes, pads, strict=True)]
    return draw(exact_arrays((*planes, *sizes), dtype)), pads, draw(exact_arrays((*planes, *padded), dtype))


@pytest.mark.parametrize("pads", [((0, 0), (3, 2)), ((2, 1), (1, 0)), ((9, 12), (70, 90)), ((0, 3), (0, 41))], ids=str)
@pytest.mark.parametrize("size", [(5, 40), (2, 33), (1, 70), (4, 2)])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_rows_as_long_as_several_vectors(mode, size, pads):
    """With pixels that are shown once beside such that are shown often, and none that are."""
    if mode == "reflect":
        pads = tuple(tuple(min(pad, n - 1) for pad in sides) for n, sides in zip(size, pads, strict=True))
    x = np.random.default_rng(0).integers(-9, 10, (2, *size)).astype("f4")
    y = pad2d(x[None], pads, mode=mode)
    assert_array_equal(y[0], np.pad(x, [(0, 0), *pads], mode), strict=True)
    # Each pixel gets what its places get.
    at = np.pad(
        np.arange(x[0].size).reshape(size), pads, mode, **({"constant_values": -1} if mode == "constant" else {})
    )
    dy = np.random.default_rng(1).integers(-9, 10, y.shape).astype("f4")
    wanted = [np.bincount(at[at >= 0], plane[at >= 0], x[0].size).reshape(size) for plane in dy[0]]
    assert_array_equal(pad2d_backward(dy, pads, mode=mode)[0], wanted)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool", "complex64", "complex128", "float16"])
@pytest.mark.parametrize("mode", PADDING_MODES)
@given(data=st.data())
def test_pad_is_numpys(data, mode, dtype):
    x, pads, _ = data.draw(padded_images(mode, dtype))
    assert_array_equal(pad2d(x, pads, mode=mode), reference_pad2d(x, pads, mode), strict=True)


@pytest.mark.parametrize("mode", PADDING_MODES)
@given(data=st.data())
def test_backward_is_exact_and_adjoint(data, mode):
    x, pads, dy = data.draw(padded_images(mode))
    assert_array_equal(pad2d_backward(dy, pads, mode=mode), reference_pad2d_backward(dy, pads, mode), strict=True)
    check_adjoint(lambda a: pad2d(a, pads, mode=mode), lambda a: pad2d_backward(a, pads, mode=mode), x, dy)
    check_gradients(lambda a: pad2d(a, pads, mode=mode), lambda g, a: (pad2d_backward(g, pads, mode=mode),), [x], dy)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("dtype", ["int32", "float32", "complex64", "bool"])
def test_backward_dtypes(mode, dtype):
    dy = np.ones((1, 2, 6, 7), dtype)
    got = pad2d_backward(dy, ((1, 2), (2, 1)), mode=mode)
    wanted = reference_pad2d_backward(dy.astype("int64") if dtype == "bool" else dy, ((1, 2), (2, 1)), mode)
    assert_array_equal(got, wanted, strict=True)


@given(data=st.data(), value=st.integers(-3, 3))
def test_constant_value(data, value):
    x, pads, _ = data.draw(padded_images("constant"))
    assert_array_equal(pad2d(x, pads, value=value), reference_pad2d(x, pads, "constant", value), strict=True)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", np.nan), ("float64", -np.inf), ("complex64", 1 + 2j), ("complex128", 3j), ("uint8", 255),
     ("int8", -128), ("uint64", 2**64 - 1), ("bool", True), ("float16", 0.1)],
)  # fmt: skip
def test_constant_values_of_every_kind(dtype, value):
    x = np.ones((1, 2, 2), dtype)
    assert_array_equal(pad2d(x, 1, value=value), reference_pad2d(x, ((1, 1), (1, 1)), "constant", value), strict=True)


@given(x=exact_arrays((1, 3, 4)))
def test_paddings_may_be_larger_than_the_image(x):
    for mode in ("edge", "symmetric", "wrap", "constant"):
        pads = ((7, 8), (10, 9))
        assert_array_equal(pad2d(x, pads, mode=mode), reference_pad2d(x, pads, mode), err_msg=mode)


def test_forms_of_padding():
    x = np.arange(6.0).reshape(1, 2, 3)
    for form, counts in [(1, ((1, 1), (1, 1))), ((0, 2), ((0, 0), (2, 2))), ([[1, 0], [0, 2]], ((1, 0), (0, 2)))]:
        assert_array_equal(pad2d(x, form), reference_pad2d(x, counts))


def test_names_that_are_kept_in_two_places_are_the_same():
    """`convjit.testing` imports nothing of the rest."""
    assert testing.PADDING_MODES == kernels.PADDING_MODES
    assert testing.PADDING_NAMES == parsing.PADDING_NAMES


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_a_value_beyond_64_bits_is_a_number(dtype):
    assert pad2d(np.zeros((1, 1, 1), dtype), 1, value=2**64)[0, 0, 0] == 2.0**64
    with pytest.raises(ValueError, match=r"^pad2d: value 18446744073709551616 cannot be held in dtype int64$"):
        pad2d(np.zeros((1, 1, 1), np.int64), 1, value=2**64)
