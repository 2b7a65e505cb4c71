"""One input channel a group: the bits of the reference, whatever window, tile, vector or block an output falls into."""

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from same_bits import REFERENCE, assert_same_bits, results

from convjit import conv2d
from convjit.algorithms import depthwise, depthwise_channels, depthwise_pixels, depthwise_rows, weight_channels
from convjit.functional import batches
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem

pytestmark = pytest.mark.usefixtures("poisoned")

DTYPES = ["float32", "float64", "int64"]
NAME = depthwise.ALGORITHM.name


def of_channels(batch, channels, image, kernel, each=1, **options):
    """`each` filters for every channel."""
    return Problem(
        (batch, channels, *image), (channels * each, 1, *kernel), groups=channels, **options
    )  # fmt: skip


AWKWARD = {
    "one pixel": of_channels(1, 1, (1, 1), (1, 1)),
    "1x1": of_channels(2, 3, (5, 7), (1, 1)),
    "1x1 with a stride": of_channels(2, 3, (9, 9), (1, 1), stride=2),
    "1x1 padded": of_channels(1, 2, (3, 3), (1, 1), padding=2),
    "3x3": of_channels(2, 5, (14, 14), (3, 3), padding=1),
    "many channels": of_channels(1, 67, (7, 7), (3, 3), padding=1),
    "many channels with a stride": of_channels(1, 19, (30, 37), (3, 5), stride=2, padding=1),
    "many channels with a dilation": of_channels(2, 17, (15, 13), (3, 3), dilation=(2, 1), padding=2),
    "many channels, stride over kernel": of_channels(1, 20, (17, 18), (2, 2), stride=(3, 4), padding=((1, 0), (0, 1))),
    "many channels, large kernels": of_channels(1, 12, (19, 17), (11, 11), padding=5),
    "many channels, long rows": of_channels(1, 16, (5, 1500), (3, 3), stride=(1, 2), padding=1),
    "3 filters of many channels": of_channels(1, 11, (9, 10), (3, 3), each=3, padding=1),
    "8 filters each": of_channels(1, 3, (9, 11), (3, 3), each=8, stride=2),
    "7x7": of_channels(1, 2, (20, 21), (7, 7), padding=3),
    "7x7 with a stride": of_channels(1, 2, (31, 41), (7, 7), stride=2, padding=3),
    "13x11": of_channels(1, 2, (17, 40), (13, 9), padding="same"),
    "128 terms": of_channels(1, 2, (20, 40), (8, 16), padding="same"),
    "129 terms": of_channels(1, 2, (6, 150), (1, 129)),
    "400 terms": of_channels(1, 2, (25, 39), (20, 20), stride=(1, 2), padding=5),
    "long input gradients": of_channels(1, 2, (9, 19), (5, 7), each=5, padding=2),
    "9x1": of_channels(1, 3, (30, 5), (9, 1), padding="same"),
    "1x9": of_channels(1, 3, (5, 30), (1, 9), padding="same"),
    "stride of 2": of_channels(2, 3, (56, 57), (3, 3), stride=2, padding=1),
    "stride of 3": of_channels(1, 2, (22, 23), (3, 3), stride=3, padding=1),
    "stride over kernel": of_channels(2, 3, (13, 14), (2, 2), stride=(3, 5)),
    "stride over image": of_channels(1, 2, (3, 3), (2, 2), stride=7, padding=1),
    "5x5 with a stride": of_channels(1, 2, (20, 37), (5, 5), stride=2, padding=2),
    "dilation": of_channels(1, 2, (19, 35), (3, 3), dilation=(2, 3), padding=2),
    "dilation with a stride": of_channels(1, 2, (21, 37), (3, 3), stride=(2, 3), dilation=(3, 2), padding=3),
    "stride and dilation share a factor": of_channels(1, 2, (25, 33), (3, 3), stride=4, dilation=2, padding=3),
    "dilation over tiles": of_channels(1, 1, (64, 20), (3, 3), dilation=20, padding=20),
    "padding on one side": of_channels(1, 2, (5, 6), (3, 3), padding=((0, 50), (50, 0))),
    "kernel in the padding": of_channels(1, 1, (1, 1), (9, 9), padding="full"),
    "one row": of_channels(1, 2, (1, 3000), (1, 3)),
    "rows of many channels": of_channels(2, 19, (1, 130), (1, 9), padding=(0, 4)),
    "rows of several filters": of_channels(2, 5, (1, 197), (1, 9), each=3, padding=(0, 4)),
    "rows with a stride": of_channels(2, 1, (1, 197), (1, 9), stride=(1, 2), padding=(0, 4)),
    "rows that are sparse": of_channels(2, 1, (1, 60), (1, 5), stride=(1, 3), dilation=(1, 2), padding=(0, 5)),
    "rows with a dilation": of_channels(2, 3, (1, 90), (1, 5), dilation=(1, 7), padding=((0, 0), (20, 3))),
    "rows of 300 taps": of_channels(1, 3, (1, 401), (1, 300), padding=(0, 150)),
    "a row beside the image": of_channels(1, 2, (1, 9), (1, 3), stride=(2, 1), padding=((1, 0), (1, 1))),
    **{f"a row of {n}": of_channels(1, 3, (1, n), (1, 3), padding=(0, 1)) for n in (1, 8, 9, 95, 96, 97, 200)},
    "one column": of_channels(1, 2, (700, 1), (3, 1), padding=(1, 0)),
    "wide lines": of_channels(1, 1, (4, 9000), (3, 3), padding=1),
    "several tiles": of_channels(1, 1, (300, 290), (3, 3), padding=1, stride=(1, 2)),
    "more than a total of pixels": of_channels(1, 2, (130, 131), (2, 3)),
    "many images": of_channels(40, 2, (8, 8), (3, 3), padding="same"),
    **{f"{n} columns": of_channels(1, 2, (9, n + 2), (4, 3)) for n in (3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65)},
    **{f"{n} rows": of_channels(1, 1, (n, 6), (3, 3), padding=1) for n in (1, 2, 3, 4, 5, 6, 7)},
}


def arrays(problem, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    if dtype == "int64":
        return [rng.integers(-(1 << 62), 1 << 62, shape) for shape in shapes]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, monkeypatch):
    problem = AWKWARD[name]
    given_arrays = arrays(problem, dtype, len(name))
    wanted = results(problem, given_arrays, REFERENCE)
    for crew in (1, 2, 3):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        assert_same_bits(problem, given_arrays, NAME, wanted)


@st.composite
def problems(draw):
    """Any window on images around a vector wide."""
    kernel = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, dilation = (draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 5), st.integers(0, 5))] * 2))
    more = st.tuples(st.integers(0, 12), st.integers(0, 40))
    if draw(st.booleans()):  # one row, of more pixels
        kernel, pads, more = (1, kernel[1]), ((0, 0), pads[1]), st.tuples(st.just(0), st.integers(0, 300))
    least = [max(1, (k - 1) * d + 1 - sum(p)) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    image = tuple(size + extra for size, extra in zip(least, draw(more), strict=True))
    options = {"stride": stride, "dilation": dilation, "padding": pads}
    return of_channels(
        draw(st.integers(1, 2)), draw(st.integers(1, 4)), image, kernel, each=draw(st.integers(1, 3)), **options
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(problem=problems(), seed=st.integers(0, 1 << 20))
def test_drawn_problems(problem, seed, dtype):
    given_arrays = arrays(problem, dtype, seed)
    assert_same_bits(problem, given_arrays, NAME, results(problem, given_arrays, REFERENCE))


@pytest.mark.parametrize("tile", [1 << 8, 1 << 11])
@pytest.mark.parametrize(
    "name",
    [
        "several tiles", "many channels with a stride", "dilation with a stride", "400 terms", "stride of 2",
        "rows of several filters", "rows that are sparse", "one row",
    ],
)  # fmt: skip
def test_tiles_of_any_size_give_the_same_bits(name, tile, monkeypatch):
    problem = AWKWARD[name]
    given_arrays = arrays(problem, "float32")
    wanted = results(problem, given_arrays, NAME)
    monkeypatch.setattr(depthwise_pixels, "_TILE_BYTES", tile)
    monkeypatch.setattr(depthwise_pixels, "_COLUMNS", 16)
    monkeypatch.setattr(depthwise_rows, "_TILE_BYTES", tile)
    monkeypatch.setattr(depthwise_rows, "_COLUMNS", 16)
    monkeypatch.setattr(depthwise_channels, "_PACKED_BYTES", tile)
    monkeypatch.setattr(weight_channels, "_PACKED_BYTES", tile)
    forget()
    try:
        assert_same_bits(problem, given_arrays, NAME, wanted)
    finally:
        forget()


def test_special_values():
    """Padding is the value zero: a NaN or an infinite weight that meets it shows."""
    rng = np.random.default_rng(0)
    pool = np.array([0.0, -0.0, 1e-45, -1e-40, 3e38, -3e38, 1.0, -1.0, np.inf], np.float32)
    for problem in (AWKWARD["7x7"], AWKWARD["stride of 2"], AWKWARD["padding on one side"]):
        shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
        given_arrays = [rng.choice(pool, s, p=[0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.09, 0.1, 0.01]) for s in shapes]
        pairs = zip(results(problem, given_arrays, NAME), results(problem, given_arrays, REFERENCE), strict=True)
        for got, wanted in pairs:
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(wanted[~np.isnan(wanted)]))


def test_integers_are_exact():
    """Sums of 2^23 in float32, far from any rounding."""
    x, weight = np.full((1, 3, 30, 30), 256, np.float32), np.full((3, 1, 16, 16), 128, np.float32)
    assert (conv2d(x, weight, groups=3, algorithm=NAME) == 1 << 23).all()


def test_no_images():
    x, weight = np.ones((0, 2, 5, 5), np.float32), np.ones((2, 1, 3, 3), np.float32)
    assert conv2d(x, weight, groups=2, algorithm=NAME).shape == (0, 2, 3, 3)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "groups", "options", "reason"),
    [
        ((1, 4, 5, 5), (4, 2, 3, 3), 2, (1, 0, 1), "groups have 2 input channels, it takes one"),
        ((1, 1, 5, 5), (9, 1, 3, 3), 1, (1, 0, 1), "channels have 9 filters, it takes 8 at most"),
        ((1, 1, 130, 130), (1, 1, 129, 128), 1, (1, 0, 1), "sums have more than 16384 terms"),
        ((1, 1, 2100, 2100), (1, 1, 3, 3), 1, (1, 0, 1000), "taps lie too far apart for tiles of a cache"),
    ],
)
def test_it_says_what_it_declines(x_shape, weight_shape, groups, options, reason):
    stride, padding, dilation = options
    geometry = conv2d_geometry("test", x_shape, weight_shape, stride, padding, dilation, groups)
    assert depthwise.ALGORITHM.declines(geometry, np.dtype("float32")) == reason
