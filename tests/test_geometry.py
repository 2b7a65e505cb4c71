"""Sizes and padding rules against counting, and every form that an argument can take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjit.geometry import Geometry, conv2d_geometry, output_size
from convjit.parsing import LARGEST, Window, as_padding, as_pair

sizes = st.integers(1, 12)
small = st.integers(1, 4)


def counted(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Output positions, counted by placing the kernel."""
    last_start = size + before + after - ((kernel - 1) * dilation + 1)
    return len(range(0, last_start + 1, stride))


@given(sizes, small, small, small, st.integers(0, 4), st.integers(0, 4))
def test_output_sizes_are_counted(size, kernel, stride, dilation, before, after):
    window = Window((kernel, kernel), (stride, stride), (dilation, dilation))
    pads = ((before, after), (after, before))
    wanted = counted(size, kernel, stride, dilation, before, after)
    if wanted == 0:
        with pytest.raises(ValueError, match="larger than the padded input"):
            output_size("f", (size, size), window, pads)
    else:
        assert output_size("f", (size, size), window, pads) == (wanted, wanted)


@given(sizes, small, small, small)
def test_same_upper_and_lower_are_the_least_padding_for_their_size(size, kernel, stride, dilation):
    window = Window((kernel, kernel), (stride, stride), (dilation, dilation))
    upper, lower = (as_padding("f", name, window, (size, size))[0] for name in ("same_upper", "same_lower"))
    assert upper == lower[::-1]
    assert 0 <= upper[1] - upper[0] <= 1
    wanted = -(-size // stride)
    extent = window.extent[0]
    if sum(upper):
        assert output_size("f", (size, size), window, (upper, upper))[0] == wanted
        assert size + sum(upper) - 1 < extent or (size + sum(upper) - 1 - extent) // stride + 1 < wanted
    else:
        assert (size - extent) // stride + 1 >= wanted or size < extent


@given(small, small, small)
def test_same_is_the_text_s_rule_whatever_the_stride(kernel, stride, dilation):
    window = Window((kernel, kernel), (stride, stride), (dilation, dilation))
    reach = dilation * (kernel - 1)
    assert as_padding("f", "same", window)[0] == (reach // 2, -(-reach // 2))
    assert as_padding("f", "full", window)[1] == (reach, reach)
    assert as_padding("f", "valid", window) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("given_padding", "pads"),
    [
        (2, ((2, 2), (2, 2))),
        (np.int8(2), ((2, 2), (2, 2))),
        ([3], ((3, 3), (3, 3))),
        ((1, 2), ((1, 1), (2, 2))),
        (np.array([1, 2]), ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        (((1, 2),), ((1, 2), (1, 2))),
    ],
)
def test_every_form_of_padding(given_padding, pads):
    assert as_padding("f", given_padding) == pads


@pytest.mark.parametrize("value", [3, [3], (3,), (3, 3), np.int64(3), np.array(3), np.array([3, 3]), np.uint8(3)])
def test_every_form_of_a_pair(value):
    pair = as_pair("f", "stride", value, 1)
    assert pair == (3, 3)
    assert all(type(entry) is int for entry in pair)


def test_sizes_never_leave_64_bits():
    largest = LARGEST
    with pytest.raises(ValueError, match="at most"):
        as_pair("f", "stride", largest + 1, 1)
    with pytest.raises(ValueError, match="too large"):
        conv2d_geometry("f", (1, 1, 9, 9), (1, 1, 3, 3), 1, largest, largest, 1)


def test_a_pointwise_problem_is_one_row():
    g = conv2d_geometry("f", (2, 3, 4, 5), (6, 3, 1, 1), 1, 0, 7, 1)
    assert g.is_pointwise
    assert g.as_one_row().x_shape == (2, 3, 1, 20)
    assert g.as_one_row().multiplications == g.multiplications == 2 * 6 * 20 * 3
    assert not conv2d_geometry("f", (2, 3, 4, 5), (6, 3, 1, 1), 1, 1, 1, 1).is_pointwise


def test_the_record_is_integers():
    g = conv2d_geometry("f", (2, 4, 9, 8), (6, 2, 3, 2), (2, 1), "same", (1, 2), 2)
    assert isinstance(g, Geometry)
    assert all(type(value) is int for value in g)
    assert (g.x_shape, g.weight_shape, g.y_shape) == ((2, 4, 9, 8), (6, 2, 3, 2), (2, 6, 5, 8))
