"""Weight gradients of few filters: lanes of channels, of either side, give the bits of the product, and are chosen."""

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from same_bits import REFERENCE, windows
from same_bits import weight_gradient as gradient

from convjit import conv2d_backward, conv2d_weight_grad, explain
from convjit.algorithms import weight_channels, weight_gradient, weight_input_lanes, weight_product
from convjit.functional import batches
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem

DTYPES = ["float32", "float64", "int64"]


def problem(batch, groups, channels, image, filters, kernel, **options):
    shapes = (batch, channels * groups, *image), (filters * groups, channels, *kernel)
    return Problem(*shapes, groups=groups, **options)


AWKWARD = {
    "one filter a group": problem(2, 5, 3, (6, 7), 1, (3, 3), padding=1),
    "lanes of many groups": problem(2, 20, 2, (6, 7), 2, (3, 3), padding=1),
    "lanes that cut a group": problem(1, 7, 2, (5, 6), 3, (3, 2), padding=1),
    "more filters than lanes": problem(1, 2, 3, (5, 6), 20, (3, 3), padding=1),
    "lanes of two groups": problem(2, 5, 3, (6, 7), 8, (3, 3), padding=1),
    "lanes of four groups": problem(2, 9, 2, (9, 7), 4, (3, 3), padding=1),
    "lanes of up to four groups": problem(1, 8, 2, (9, 7), 5, (3, 3), padding=((1, 0), (0, 2))),
    "shared pixels with a stride": problem(3, 4, 3, (11, 10), 8, (3, 3), stride=2, padding=1),
    "shared pixels, several totals": problem(5, 2, 2, (90, 91), 8, (3, 3), padding=1),
    "one group": problem(2, 1, 3, (5, 6), 4, (3, 3), padding=1),
    "1x1": problem(2, 6, 4, (7, 9), 3, (1, 1)),
    "stride of 2": problem(3, 4, 3, (11, 10), 4, (3, 3), stride=2, padding=1),
    "dilation with a stride": problem(2, 3, 2, (25, 24), 5, (3, 2), stride=(2, 3), dilation=(3, 2), padding=3),
    "filters of several pieces": problem(1, 3, 2, (14, 15), 4, (9, 10), padding=((3, 0), (1, 4))),
    "rows wider than a band": problem(1, 2, 2, (5, 3000), 3, (3, 3), padding=1),
    "vectors of a group, the last one cut": problem(2, 2, 37, (6, 7), 3, (3, 3), padding=1),
    "one total": problem(4, 2, 2, (64, 64), 3, (1, 1)),
    "one total and a pixel": problem(1, 2, 2, (5, 3277), 2, (1, 1)),
    "totals that end in images": problem(5, 2, 2, (90, 91), 3, (3, 3), padding=1),
}


@pytest.fixture(params=[weight_channels, weight_input_lanes], ids=lambda way: way.__name__.rpartition(".")[2])
def channel_lanes(request, monkeypatch):
    """Every gradient with channels as lanes, outputs' or inputs', whatever is expected to be faster."""
    monkeypatch.setattr(weight_gradient, "_way", lambda g, dtype: request.param)
    forget()
    yield
    forget()


@pytest.mark.usefixtures("channel_lanes", "poisoned")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, monkeypatch):
    wanted = gradient(AWKWARD[name], dtype, REFERENCE)
    for crew in (1, 2, 5, 40):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        assert gradient(AWKWARD[name], dtype, "implicit").tobytes() == wanted.tobytes()


@pytest.mark.usefixtures("channel_lanes", "poisoned")
@pytest.mark.parametrize("tile", [1 << 8, 1 << 11])
@pytest.mark.parametrize(
    "name",
    [
        "lanes of many groups", "stride of 2", "dilation with a stride", "one total", "shared pixels with a stride",
        "lanes of up to four groups", "vectors of a group, the last one cut",
    ],
)  # fmt: skip
def test_bands_of_any_size_give_the_same_bits(name, tile, monkeypatch):
    wanted = gradient(AWKWARD[name], "float32", REFERENCE)
    monkeypatch.setattr(weight_channels, "_PACKED_BYTES", tile)
    monkeypatch.setattr(weight_channels, "_NEAR_BYTES", tile)
    forget()
    assert gradient(AWKWARD[name], "float32", "implicit").tobytes() == wanted.tobytes()


@st.composite
def problems(draw):
    kernel, image, options = draw(windows())
    groups, channels, filters = draw(st.integers(1, 20)), draw(st.integers(1, 6)), draw(st.integers(1, 9))
    return problem(draw(st.integers(1, 4)), groups, channels, image, filters, kernel, **options)


@pytest.mark.usefixtures("channel_lanes")
@pytest.mark.parametrize("dtype", DTYPES)
@given(each=problems(), seed=st.integers(0, 1 << 20))
def test_drawn_problems(each, seed, dtype):
    assert gradient(each, dtype, "implicit", seed).tobytes() == gradient(each, dtype, REFERENCE, seed).tobytes()


@pytest.mark.usefixtures("channel_lanes")
def test_the_bias_gradient_is_a_pass_of_its_own():
    each, rng = AWKWARD["lanes of many groups"], np.random.default_rng(1)
    x, dy = (rng.integers(-9, 9, shape).astype("f4") for shape in (each.x_shape, each.y_shape))
    _, dw, db = conv2d_backward(dy, x, np.zeros(each.weight_shape, "f4"), **each.options, algorithm="implicit")
    assert (db == dy.sum(axis=(0, 2, 3))).all()
    assert dw.tobytes() == conv2d_weight_grad(dy, x, 3, **each.options).tobytes()


def chosen(x_shape, weight_shape, groups, dilation=1):
    g = conv2d_geometry("test", x_shape, weight_shape, 1, 0, dilation, groups)
    return weight_gradient._way(g, np.dtype("float32")) is weight_channels


def test_few_filters_of_many_channels_have_the_channels_as_lanes():
    def way(x_shape, weight_shape, groups=1, dtype="float32"):
        g = conv2d_geometry("test", x_shape, weight_shape, 1, 0, 1, groups)
        return weight_gradient._way(g, np.dtype(dtype))

    assert way((2, 256, 42, 42), (3, 256, 3, 3)) is weight_input_lanes
    assert way((2, 256, 42, 42), (1, 256, 3, 3), dtype="float64") is weight_input_lanes
    assert way((2, 256, 42, 42), (8, 64, 3, 3), 4) is weight_input_lanes
    assert way((2, 256, 42, 42), (64, 256, 3, 3)) is weight_product
    assert way((2, 256, 42, 42), (17, 256, 1, 3)) is weight_product  # more than it takes
    assert way((2, 256, 42, 42), (1, 256, 1, 1)) is weight_product  # which puts channels into lanes itself
    assert way((2, 4, 42, 42), (3, 4, 3, 3)) is weight_product  # lanes would be as empty
    assert way((0, 256, 42, 42), (3, 256, 3, 3)) is weight_product


def test_few_filters_a_group_are_chosen():
    assert chosen((1, 128, 58, 58), (128, 2, 3, 3), 64)
    assert not chosen((1, 128, 58, 58), (128, 16, 3, 3), 8)
    assert not chosen((1, 2, 58, 58), (2, 2, 3, 3), 1)
    assert not chosen((0, 128, 58, 58), (128, 2, 3, 3), 64)


def test_taps_that_lie_far_apart_are_not():
    """Whatever lies between them would be packed, too."""
    assert chosen((1, 64, 9, 2100), (64, 2, 3, 3), 32, (1, 9))
    assert not chosen((1, 64, 9, 40000), (64, 2, 3, 3), 32, (1, 19000))


def test_rows_of_taps_that_make_tasks_long_are_not():
    """A Ctrl-C would wait for them; the product cuts them."""
    assert chosen((1, 64, 1, 2100), (64, 2, 1, 1000), 32)
    assert not chosen((1, 64, 1, 9100), (64, 2, 1, 8200), 32)
    for taps, algorithm in ((1000, "depthwise"), (8200, "implicit")):
        assert explain((1, 64, 1, taps + 1000), (64, 1, 1, taps), groups=64).weight_grad.algorithm == algorithm


def test_explain_says_so():
    assert "channels as lanes" in str(explain((1, 128, 58, 58), (128, 2, 3, 3), groups=64).weight_grad)
    assert "channels as lanes" not in str(explain((1, 128, 58, 58), (128, 16, 3, 3), groups=8).weight_grad)
