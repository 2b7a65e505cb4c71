"""The drop-ins against the same steps in plain NumPy, and the original's order of columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit import column_to_image, determine_padding, get_im2col_indices, im2col, image_to_column
from convjit.testing import exact_arrays
from convjit.testing.seed import columns_to_images, images_to_columns, padding_of, patch_indices


@st.composite
def seed_problems(draw):
    """Images, filter shape, stride and the name of the padding, as the original takes them."""
    filter_shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    output_shape = draw(st.sampled_from(["valid", "same"]))
    least = filter_shape if output_shape == "valid" else (1, 1)
    sizes = [n + draw(st.integers(0, 4)) for n in least]
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *sizes)
    return draw(exact_arrays(shape)), filter_shape, draw(st.integers(1, 3)), output_shape


@given(filter_shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), name=st.sampled_from(["same", "valid"]))
def test_determine_padding(filter_shape, name):
    assert determine_padding(filter_shape, name) == padding_of(filter_shape, name)
    assert determine_padding(filter_shape) == padding_of(filter_shape, "same")


@given(problem=seed_problems())
def test_indices(problem):
    images, filter_shape, stride, output_shape = problem
    padding = padding_of(filter_shape, output_shape)
    got = get_im2col_indices(images.shape, filter_shape, padding, stride)
    for index, wanted in zip(got, patch_indices(images.shape, filter_shape, padding, stride), strict=True):
        assert_array_equal(index, wanted, strict=True)


@given(problem=seed_problems())
def test_image_to_column(problem):
    got = image_to_column(*problem)
    assert_array_equal(got, images_to_columns(*problem), strict=True)
    assert got.shape[0] == problem[0].shape[1] * problem[1][0] * problem[1][1]


@given(problem=seed_problems(), data=st.data())
def test_column_to_image(problem, data):
    images, filter_shape, stride, output_shape = problem
    columns = data.draw(exact_arrays(image_to_column(*problem).shape))
    options = (images.shape, filter_shape, stride, output_shape)
    assert_array_equal(column_to_image(columns, *options), columns_to_images(columns, *options), strict=True)


@given(problem=seed_problems())
def test_the_batch_is_fastest(problem):
    images, filter_shape, stride, output_shape = problem
    columns = im2col(images, filter_shape, stride, output_shape)
    interleaved = image_to_column(*problem).reshape(columns.shape[1], columns.shape[2], len(images))
    assert_array_equal(interleaved, columns.transpose(1, 2, 0))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_columns_keep_the_dtype_and_images_are_float64(dtype):
    images = np.arange(24).reshape(2, 1, 3, 4).astype(dtype)
    columns = image_to_column(images, (2, 2), 1, "valid")
    assert columns.dtype == dtype
    assert column_to_image(columns, images.shape, (2, 2), 1, "valid").dtype == np.float64


def test_the_calls_of_the_original_text():
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 32, 32), dtype=np.uint8)
    assert image_to_column(image, (3, 3), stride=1, output_shape="same").shape == (27, 1024)
    assert image_to_column(image, (3, 3), 2, "valid").shape == (27, 225)
    k, i, j = get_im2col_indices(image.shape, (3, 3), ((1, 1), (1, 1)), 1)
    assert k.shape == (27, 1)
    assert i.shape == j.shape == (27, 1024)


def test_gathering_by_the_indices_is_image_to_column():
    images = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    padding = determine_padding((3, 2), "same")
    k, i, j = get_im2col_indices(images.shape, (3, 2), padding, 2)
    gathered = np.pad(images, ((0, 0), (0, 0), *padding))[:, k, i, j]
    assert_array_equal(image_to_column(images, (3, 2), 2), gathered.transpose(1, 2, 0).reshape(18, -1))
