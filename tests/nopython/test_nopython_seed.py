"""The seed's four functions from compiled code: what Python gets, to the bit."""

import numpy as np
import pytest
from callers import assert_same, called, caller
from hypothesis import given, settings
from hypothesis import strategies as st

import convjit
from convjit.testing import conv2d_cases, real_arrays

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["same", "valid", "full"])
@pytest.mark.parametrize("filter_shape", [(3, 4), (1, 1), 2, (6,)])
def test_paddings(name, filter_shape):
    wanted = convjit.determine_padding(filter_shape, name)
    assert called("determine_padding", filter_shape=filter_shape, output_shape=name) == wanted


def test_the_padding_is_same_where_none_is_named():
    assert called("determine_padding", filter_shape=(3, 2)) == ((1, 1), (0, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@settings(max_examples=60)
def test_columns_and_images(data, dtype):
    case = data.draw(conv2d_cases(dtype, real_arrays, max_groups=1, max_dilation=1, padding_modes=("constant",)))
    problem, x = case.problem, case.x.reshape(case.problem.batched_x_shape)
    window = {"filter_shape": problem.kernel, "stride": problem.stride_pair, "output_shape": problem.pads}
    cols = convjit.image_to_column(x, **window)
    assert_same(called("image_to_column", x, **window), cols)
    x_shape = tuple(map(int, x.shape))
    images = convjit.column_to_image(cols, x_shape, **window)
    assert images.dtype == np.float64
    assert_same(called("column_to_image", cols, images_shape=x_shape, **window), images)
    at = {"images_shape": x_shape, "filter_shape": problem.kernel, "padding": problem.pads}
    indices = convjit.get_im2col_indices(**at, stride=problem.stride_pair)
    assert_same(called("get_im2col_indices", **at, stride=problem.stride_pair), indices)


@pytest.mark.parametrize("name", ["same", "valid", "full", "same_upper", "same_lower"])
def test_named_paddings(name):
    x = RNG.normal(size=(2, 3, 5, 6)).astype("float32")
    cols = convjit.image_to_column(x, (2, 3), 2, name)
    assert_same(called("image_to_column", x, filter_shape=(2, 3), stride=2, output_shape=name), cols)
    back = convjit.column_to_image(cols, x.shape, (2, 3), 2, name)
    sized = {"images_shape": x.shape, "filter_shape": (2, 3), "stride": 2}
    assert_same(called("column_to_image", cols, **sized, output_shape=name), back)
    indices = convjit.get_im2col_indices(x.shape, (2, 3), name, 2)
    assert_same(called("get_im2col_indices", **sized, padding=name), indices)


def test_the_defaults():
    x = RNG.normal(size=(2, 1, 4, 4))
    cols = convjit.image_to_column(x, (3, 3), 1)
    assert_same(called("image_to_column", x, filter_shape=(3, 3), stride=1), cols)
    sized = {"images_shape": x.shape, "filter_shape": 3}
    assert_same(called("column_to_image", cols, **sized, stride=1), convjit.column_to_image(cols, x.shape, 3, 1))
    assert_same(called("get_im2col_indices", **sized, padding=1), convjit.get_im2col_indices(x.shape, 3, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_any_layout(dtype):
    x = RNG.normal(size=(4, 2, 10, 6)).astype(dtype)[::2, :, ::-2].transpose(0, 1, 3, 2)
    window = {"filter_shape": (2, 2), "stride": 1, "output_shape": "valid"}
    cols = convjit.image_to_column(x, **window)
    assert_same(called("image_to_column", x, **window), cols)
    wide = np.repeat(np.repeat(cols, 2, axis=1), 3, axis=0)[::3, ::2][:, ::-1]
    for given_cols in (wide, np.asfortranarray(cols)):
        wanted = convjit.column_to_image(given_cols, x.shape, **window)
        assert_same(called("column_to_image", given_cols, images_shape=x.shape, **window), wanted)


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 0, 4, 4)])
def test_nothing(shape):
    x = np.ones(shape)
    window = {"filter_shape": (2, 2), "stride": 1, "output_shape": "valid"}
    cols = convjit.image_to_column(x, **window)
    assert_same(called("image_to_column", x, **window), cols)
    wanted = convjit.column_to_image(cols, shape, **window)
    assert_same(called("column_to_image", cols, images_shape=shape, **window), wanted)
    at = {"images_shape": shape, "filter_shape": 2, "padding": 0}
    assert_same(called("get_im2col_indices", **at), convjit.get_im2col_indices(**at))


def test_indices_do_not_depend_on_the_batch():
    at = {"images_shape": (1 << 30, 64, 40, 40), "filter_shape": 3, "padding": 1}
    assert_same(called("get_im2col_indices", **at), convjit.get_im2col_indices(**at))


COLS, SHAPE = np.ones((4, 9)), (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("name", "arrays", "options"),
    [
        ("determine_padding", (), {"filter_shape": 0}),
        ("determine_padding", (), {"filter_shape": (3, -1), "output_shape": "full"}),
        ("determine_padding", (), {"filter_shape": 3, "output_shape": "same_upper"}),
        ("determine_padding", (), {"filter_shape": 3, "output_shape": 1}),
        ("get_im2col_indices", (), {"images_shape": SHAPE, "filter_shape": 9, "padding": 0}),
        ("get_im2col_indices", (), {"images_shape": SHAPE, "filter_shape": 2, "padding": -1}),
        ("get_im2col_indices", (), {"images_shape": SHAPE, "filter_shape": 2, "padding": 0, "stride": 0}),
        ("get_im2col_indices", (), {"images_shape": (1, -1, 4, 4), "filter_shape": 2, "padding": 0}),
        ("get_im2col_indices", (), {"images_shape": (1, 1 << 40, 4, 4), "filter_shape": 2, "padding": 0}),
        ("get_im2col_indices", (), {"images_shape": (1, 1, 1 << 30, 1 << 30), "filter_shape": 2, "padding": 0}),
        ("image_to_column", (np.ones(SHAPE),), {"filter_shape": 0, "stride": 1}),
        ("image_to_column", (np.ones(SHAPE),), {"filter_shape": 5, "stride": 1, "output_shape": "valid"}),
        ("image_to_column", (np.ones(SHAPE),), {"filter_shape": 2, "stride": (1, 0)}),
        ("column_to_image", (COLS,), {"images_shape": SHAPE, "filter_shape": 2, "stride": 1}),
        ("column_to_image", (COLS,), {"images_shape": (2, 1, 4, 4), "filter_shape": 2, "stride": 1}),
        ("column_to_image", (COLS,), {"images_shape": (1, 1, 4, -4), "filter_shape": 2, "stride": 1}),
        ("column_to_image", (COLS,), {"images_shape": SHAPE, "filter_shape": 2, "stride": 1, "output_shape": -1}),
    ],
    ids=str,
)  # fmt: skip
def test_pythons_own_sentences(name, arrays, options):
    with pytest.raises((TypeError, ValueError, MemoryError)) as wanted:
        getattr(convjit, name)(*arrays, **options)
    with pytest.raises(type(wanted.value)) as got:
        called(name, *arrays, **options)
    assert str(got.value) == str(wanted.value)


@pytest.mark.parametrize("name", ["image_to_column", "column_to_image"])
def test_names_that_are_not_known_are_of_output_shape(name):
    arrays, options = {
        "image_to_column": ((np.ones(SHAPE),), {"filter_shape": 2, "stride": 1, "output_shape": "samee"}),
        "column_to_image": (
            (COLS,), {"images_shape": SHAPE, "filter_shape": 2, "stride": 1, "output_shape": "samee"}
        ),
    }[name]  # fmt: skip
    with pytest.raises(Exception, match=rf"{name}: output_shape must be 'valid', .*, got 'samee'"):
        called(name, *arrays, **options)


@pytest.mark.parametrize("shape", [4, (1, 2, 3), (1.0, 1, 4, 4)], ids=str)
def test_the_shape_of_images_is_four_ints(shape):
    with pytest.raises(
        Exception, match=r"column_to_image: images_shape must be \(N, C, H, W\), four ints, in compiled"
    ):
        caller("column_to_image", 1, ("images_shape", "filter_shape", "stride"))(COLS, shape, 2, 1)
