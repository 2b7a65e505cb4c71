"""Lanes of output channels: the bits of the reference, whatever tile, panel, block or chunk an output falls into."""

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from same_bits import REFERENCE, windows

from convjit import conv2d, conv2d_input_grad, conv2d_plan
from convjit.algorithms import ALGORITHMS, choose, direct
from convjit.functional import batches
from convjit.gemm import direct as cutting
from convjit.geometry import conv2d_geometry
from convjit.simd import isa
from convjit.testing import Problem

pytestmark = pytest.mark.usefixtures("poisoned")

NAME = direct.ALGORITHM.name
DTYPES = ["float32", "float64"]


def problem(batch, channels, image, filters, kernel, groups=1, **options):
    return Problem((batch, channels, *image), (filters, channels // groups, *kernel), groups=groups, **options)


AWKWARD = {
    "one pixel": problem(1, 1, (1, 1), 1, (1, 1)),
    "one filter": problem(2, 3, (9, 7), 1, (3, 3), padding=1),
    "one channel": problem(1, 1, (17, 18), 40, (5, 5), padding=2),
    "1x1": problem(2, 70, (7, 7), 65, (1, 1)),
    "1x1 with a stride": problem(2, 20, (15, 13), 33, (1, 1), stride=2),
    "1x1 padded": problem(1, 20, (5, 5), 17, (1, 1), padding=2),
    "128 terms": problem(1, 128, (6, 6), 16, (1, 1)),
    "129 terms": problem(1, 129, (6, 6), 16, (1, 1)),
    "weights of several packings": problem(1, 130, (5, 5), 70, (3, 3), padding=1),
    "a last packing of one term": problem(1, 1025, (3, 3), 18, (1, 1)),
    "rows of a tile": problem(1, 4, (1, 8 * 7 + 7), 100, (3, 3), padding=1),
    "chunks of points": problem(1, 5, (23, 29), 50, (3, 3), padding=1),
    "points of several images": problem(5, 6, (7, 7), 30, (3, 3), padding=1),
    "stride of 2": problem(2, 9, (21, 20), 35, (3, 3), stride=2, padding=1),
    "stride over kernel": problem(1, 9, (21, 20), 20, (2, 2), stride=(3, 4)),
    "dilation": problem(1, 9, (14, 15), 20, (3, 3), dilation=(2, 3), padding=2),
    "dilation with a stride": problem(1, 9, (21, 20), 20, (3, 3), stride=2, dilation=(3, 2), padding=3),
    "groups": problem(2, 12, (9, 10), 60, (3, 3), groups=3, padding=1),
    "groups of one filter": problem(1, 12, (9, 10), 6, (3, 3), groups=6, padding=1),
    "padding on one side": problem(1, 3, (5, 6), 20, (3, 3), padding=((0, 20), (20, 0))),
    "kernel in the padding": problem(1, 2, (1, 1), 20, (9, 9), padding="full"),
    "bands": problem(1, 40, (150, 90), 20, (3, 3), padding=1),
    "bands that pack their weights": problem(1, 40, (20, 21), 70, (3, 3), padding=1),
    "bands with a stride": problem(2, 30, (150, 190), 10, (3, 3), stride=2, padding=1),
    # With channels last, pixels that lie a multiple of 256 bytes apart are moved apart in planes.
    "64 channels and filters": problem(2, 64, (9, 8), 64, (3, 3), padding=((1, 3), (2, 0))),
    "64 channels in bands": problem(1, 64, (70, 60), 64, (3, 2), stride=2, padding=1),
    "longest sums": problem(1, 1 << 14, (2, 1), 3, (1, 1)),
    **{f"{n} filters": problem(1, 3, (4, 5), n, (3, 3), padding=1) for n in (2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 49)},
    **{f"{n} filters": problem(1, 2, (3, 5), n, (2, 2)) for n in (63, 64, 65, 79, 81, 96, 97, 112, 128, 129, 145, 161)},
    **{f"{n} points": problem(1, 2, (1, n), 18, (1, 1)) for n in (*range(2, 32), 47, 49, 255, 256, 257, 513)},
    **{f"{n} points of wide panels": problem(1, 2, (1, n), 64, (1, 1)) for n in range(2, 32)},
}  # fmt: skip


def arrays(problem, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1])
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_same(problem, given_arrays, wanted):
    """By the function and by a plan, whose weights are packed before; of images of either layout."""
    x, weight, bias = given_arrays
    for layout, images in (("NCHW", x), ("NHWC", np.ascontiguousarray(np.moveaxis(x, -3, -1)))):
        options = {**problem.options, "algorithm": NAME, "layout": layout}
        for y in (conv2d(images, weight, bias, **options), conv2d_plan(weight, bias, **options)(images)):
            y = y if layout == "NCHW" else np.moveaxis(y, -1, -3)
            assert y.tobytes() == wanted.tobytes(), (problem, layout, np.argwhere(y != wanted)[:3].tolist())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, monkeypatch):
    given_arrays = arrays(AWKWARD[name], dtype, len(name))
    wanted = conv2d(*given_arrays, **AWKWARD[name].options, algorithm=REFERENCE)
    for crew in (1, 2, 3):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        assert_same(AWKWARD[name], given_arrays, wanted)


@pytest.mark.parametrize("crew", [2, 3])
def test_workers_pack_their_weights_where_pixels_pay_for_it(crew):
    each, dtype = AWKWARD["bands that pack their weights"], np.dtype("float32")
    smaller = problem(1, 40, (18, 18), 70, (3, 3), padding=1)  # 162 pixels for each of two, 108 of three
    for layer, packs in ((each, True), (smaller, crew == 2)):
        g = conv2d_geometry("test", layer.x_shape, layer.weight_shape, 1, 1, 1, 1)
        for is_gradient in (False, True):
            setup = direct._set_up(g, crew, dtype, False, is_gradient)
            assert setup.by_band
            assert setup.direct.bands == crew
            assert (setup.direct.together > 0) == packs


# Input gradients that fill panels, packings and blocks, and phases of the pixels modulo a stride.
GRADIENTS = {
    **AWKWARD,
    "gradient of many filters": problem(1, 20, (7, 7), 130, (3, 3), padding=1),
    "gradient packed by whole filters": problem(1, 65, (5, 5), 210, (5, 1), padding=(2, 0)),
    "gradient of 1x1, packed once": problem(1, 50, (5, 5), 1100, (1, 1)),
    "gradient of 1x1, whole vectors": problem(1, 64, (5, 5), 300, (1, 1)),
    "gradient of more taps than a packing": problem(1, 14, (3, 2), 2, (37, 31), padding="full"),
    "gradient of groups": problem(2, 60, (9, 10), 12, (3, 2), groups=3, padding=1),
    "gradient of many images": problem(9, 33, (7, 7), 40, (3, 3), padding=2),
    "gradient with dilation": problem(2, 18, (14, 15), 20, (3, 3), dilation=(2, 3), padding=2),
    "gradient by bands": problem(1, 30, (150, 90), 40, (3, 3), padding=1),
    "phases of unlike taps": problem(2, 3, (22, 21), 70, (7, 7), stride=2, padding=3),
    "phases of one row each": problem(1, 20, (2, 40), 18, (3, 5), stride=(2, 3), padding=2),
    "phases that an image does not have": problem(3, 5, (1, 2), 9, (4, 6), stride=(3, 5), padding=((2, 4), (3, 2))),
    "one phase of some taps": problem(2, 3, (1, 1), 5, (3, 2), stride=2, padding=((1, 1), (0, 1))),
    "phases that no tap reaches": problem(2, 20, (13, 14), 9, (2, 3), stride=(2, 3), dilation=(4, 3), padding=1),
    "phases read beyond the last column": problem(1, 18, (9, 3), 3, (1, 2), stride=(1, 2), padding=((0, 0), (1, 1))),
    "phases of sums of several blocks": problem(1, 17, (9, 8), 150, (3, 3), stride=2, padding=1),
    "phases of many chunks": problem(1, 3, (40, 64), 5, (4, 4), stride=(2, 4), padding=1),
    "phases in groups": problem(2, 60, (13, 14), 63, (3, 3), stride=2, groups=3, padding=((0, 1), (2, 0))),
    "phases by bands": problem(1, 18, (301, 190), 40, (3, 3), stride=2, padding=1),
    "most phases": problem(1, 3, (40, 70), 9, (33, 2), stride=32, padding=((9, 0), (0, 0))),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GRADIENTS)
def test_awkward_input_gradients(name, dtype, monkeypatch):
    each = GRADIENTS[name]
    _, weight, _ = arrays(each, dtype, len(name))
    shape = conv2d(np.zeros(each.x_shape, dtype), weight, **each.options).shape
    dy = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    wanted = conv2d_input_grad(dy, weight, each.image, **each.options, algorithm=REFERENCE)
    for crew in (1, 2, 3):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        options = {**each.options, "algorithm": NAME}
        got = conv2d_input_grad(dy, weight, each.image, **options)
        assert got.tobytes() == wanted.tobytes(), np.argwhere(got != wanted)[:3].tolist()
        got = conv2d_input_grad(np.moveaxis(dy, -3, -1), weight, each.image, **options, layout="NHWC")
        got = np.moveaxis(got, -1, -3)
        assert got.tobytes() == wanted.tobytes(), np.argwhere(got != wanted)[:3].tolist()


@st.composite
def problems(draw):
    """Any window, and channels around a vector and a panel."""
    kernel, image, options = draw(windows(5))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    channels, filters = draw(st.integers(1, 12)), draw(st.integers(1, 20) | st.integers(30, 70))
    return problem(draw(st.integers(1, 3)), channels * groups, image, filters * groups, kernel, groups, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@given(problem=problems(), seed=st.integers(0, 1 << 20))
def test_drawn_problems(problem, seed, dtype):
    given_arrays = arrays(problem, dtype, seed)
    wanted = conv2d(*given_arrays, **problem.options, algorithm=REFERENCE)
    assert_same(problem, given_arrays, wanted)
    rows = (NAME, REFERENCE)
    dx = [conv2d_input_grad(wanted, given_arrays[1], problem.image, **problem.options, algorithm=row) for row in rows]
    assert dx[0].tobytes() == dx[1].tobytes()


@pytest.mark.parametrize("name", GRADIENTS)
def test_asking_for_weights_before_they_are_read_changes_no_bits(name, monkeypatch):
    each = GRADIENTS[name]
    given_arrays = arrays(each, "float32")
    wanted = conv2d(*given_arrays, **each.options, algorithm=REFERENCE)
    of_gradient = conv2d_input_grad(wanted, given_arrays[1], each.image, **each.options, algorithm=REFERENCE)
    monkeypatch.setattr(cutting, "_NEAR_BYTES", 0)
    forget()
    try:
        assert_same(each, given_arrays, wanted)
        dx = conv2d_input_grad(wanted, given_arrays[1], each.image, **each.options, algorithm=NAME)
    finally:
        forget()
    assert dx.tobytes() == of_gradient.tobytes()


@pytest.mark.parametrize("points", [1, 5, 48])
@pytest.mark.parametrize("name", ["chunks of points", "bands", "stride of 2", "weights of several packings", "groups"])
def test_chunks_of_any_size_give_the_same_bits(name, points, monkeypatch):
    given_arrays = arrays(AWKWARD[name], "float32")
    wanted = conv2d(*given_arrays, **AWKWARD[name].options, algorithm=NAME)
    options = {**AWKWARD[name].options, "algorithm": NAME}
    dx = conv2d_input_grad(wanted, given_arrays[1], AWKWARD[name].image, **options)
    monkeypatch.setattr(cutting, "_MOST_POINTS", points)
    forget()
    try:
        assert_same(AWKWARD[name], given_arrays, wanted)
        assert conv2d_input_grad(wanted, given_arrays[1], AWKWARD[name].image, **options).tobytes() == dx.tobytes()
    finally:
        forget()


@pytest.mark.parametrize("panels", [1, 3, 16])
@pytest.mark.parametrize("name", ["128 filters", "161 filters", "phases of sums of several blocks", "phases by bands"])
def test_sets_of_any_number_of_panels_give_the_same_bits(name, panels, monkeypatch):
    each = GRADIENTS[name]
    given_arrays = arrays(each, "float32")
    wanted = conv2d(*given_arrays, **each.options, algorithm=REFERENCE)
    of_gradient = conv2d_input_grad(wanted, given_arrays[1], each.image, **each.options, algorithm=REFERENCE)
    monkeypatch.setattr(cutting, "_VECTORS_ABREAST", panels * isa.here().channel_vectors)
    forget()
    try:
        for crew in (1, 2):
            monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
            assert_same(each, given_arrays, wanted)
            dx = conv2d_input_grad(wanted, given_arrays[1], each.image, **each.options, algorithm=NAME)
            assert dx.tobytes() == of_gradient.tobytes()
    finally:
        forget()


@pytest.mark.parametrize(
    ("batch", "filters", "workers"), [(16, 256, 1), (16, 256, 2), (1, 160, 2), (1, 160, 7), (1, 8, 3)]
)
def test_sets_of_panels_leave_tasks_for_every_worker(batch, filters, workers):
    """And are of nearly equal size, not of more vectors than lie in the cache."""
    geometry = conv2d_geometry("test", (batch, 64, 14, 14), (filters, 64, 3, 3), 1, 1, 1, 1)
    for is_gradient in (False, True):
        d = direct._set_up(geometry, workers, np.dtype("float32"), True, is_gradient).direct
        most = max(1, cutting._VECTORS_ABREAST // isa.here().channel_vectors)
        assert 1 <= d.abreast <= most
        sets = cutting.panel_sets(d)
        assert (sets - 1) * d.abreast < d.panels <= sets * d.abreast
        assert d.abreast == 1 or batch * d.tasks >= min(cutting._LEAST_TASKS_A_WORKER * workers, batch * d.chunks)


def test_special_values():
    """Padding is the value zero: a NaN or an infinite weight that meets it shows."""
    rng = np.random.default_rng(0)
    pool = np.array([0.0, -0.0, 1e-45, -1e-40, 3e38, -3e38, 1.0, -1.0, np.inf], np.float32)
    for name in ("stride of 2", "padding on one side", "weights of several packings"):
        shapes = (AWKWARD[name].x_shape, AWKWARD[name].weight_shape, AWKWARD[name].weight_shape[:1])
        given_arrays = [rng.choice(pool, s, p=[0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.09, 0.1, 0.01]) for s in shapes]
        got, wanted = (conv2d(*given_arrays, **AWKWARD[name].options, algorithm=row) for row in (NAME, REFERENCE))
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(wanted[~np.isnan(wanted)]))


def test_a_sum_of_nothing_but_negative_zeros_stays_negative():
    """No bias is nothing, not a zero that is added."""
    x, weight = np.full((1, 1, 1, 20), -1.0, np.float32), np.full((20, 1, 1, 1), 0.0, np.float32)
    wanted = conv2d(x, weight, algorithm=REFERENCE)
    assert conv2d(x, weight, algorithm=NAME).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_are_exact(dtype):
    x, weight = np.full((1, 128, 4, 4), 256, dtype), np.full((20, 128, 1, 1), 128, dtype)
    assert (conv2d(x, weight, algorithm=NAME) == 1 << 22).all()


def test_no_images():
    x, weight = np.ones((0, 2, 5, 5), np.float32), np.ones((20, 2, 3, 3), np.float32)
    assert conv2d(x, weight, algorithm=NAME).shape == (0, 20, 3, 3)
    for size in ((0, 0), (0, 3), (3, 0)):  # all of them padding
        dy = np.ones((1, 20, *((n + 3) // 2 for n in size)), np.float32)
        options = {"stride": 2, "padding": 2, "algorithm": NAME}
        assert conv2d_input_grad(dy, weight, size, **options).shape == (1, 2, *size)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "dtype", "reason"),
    [
        ((1, 0, 5, 5), (4, 0, 3, 3), "float32", "there are no channels"),
        ((1, 1, 130, 130), (1, 1, 129, 128), "float32", "sums have more than 16384 terms"),
        ((1, 4, 5, 5), (4, 4, 3, 3), "int64", "it is for floating point, and this is computed in int64"),
    ],
)
def test_it_says_what_it_declines(x_shape, weight_shape, dtype, reason):
    geometry = conv2d_geometry("test", x_shape, weight_shape, 1, 0, 1, 1)
    assert direct.ALGORITHM.declines(geometry, np.dtype(dtype)) == reason


def test_a_gradient_that_it_declines_is_left_to_auto():
    strided = conv2d_geometry("test", (1, 4, 40, 9), (40, 4, 3, 3), 33, 0, 1, 1)
    long = conv2d_geometry("test", (1, 1, 130, 130), (2, 1, 100, 100), 1, 0, 1, 1)
    dense = conv2d_geometry("test", (1, 4, 9, 9), (40, 4, 3, 3), 1, 0, 1, 1)
    dtype, ours = np.dtype("float32"), direct.ALGORITHM.input_grad
    assert ours.declines(strided, dtype) == "its input gradients are of strides up to 32"
    assert ours.declines(long, dtype) == "sums have more than 16384 terms"
    tall = conv2d_geometry("test", (1, 4, 9, 32), (40, 4, 3, 3), 33, 0, 1, 1)  # one row and 32 columns a phase
    assert choose("test", NAME, dense, dtype, "input_grad") is ours
    assert choose("test", NAME, tall, dtype, "input_grad") is ours
    for geometry in (strided, long):
        auto = choose("test", "auto", geometry, dtype, "input_grad")
        assert auto is not ours
        assert choose("test", NAME, geometry, dtype, "input_grad") is auto


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_gradient_keeps_to_what_its_phases_meet(layout):
    """What is not a number shows in the pixels that meet it, and nowhere else; those that meet nothing are zero."""
    each = GRADIENTS["phases that no tap reaches"]
    weight = np.ones(each.weight_shape, np.float32)
    dy = conv2d(np.zeros(each.x_shape, np.float32), weight, **each.options)
    dy[:, 4, 1, -1] = np.nan
    wanted = conv2d_input_grad(dy, weight, each.image, **each.options, algorithm=REFERENCE)
    assert 0 < np.isnan(wanted).sum() < wanted.size / 4
    given_dy = dy if layout == "NCHW" else np.moveaxis(dy, -3, -1)
    got = conv2d_input_grad(given_dy, weight, each.image, **each.options, algorithm=NAME, layout=layout)
    np.testing.assert_array_equal(got if layout == "NCHW" else np.moveaxis(got, -1, -3), wanted)


def test_a_gradient_with_a_stride_yields_where_channels_fill_few_lanes():
    """Its results are transposed, those of pixels in lanes stored one by one."""
    dtype, ours = np.dtype("float32"), direct.ALGORITHM.input_grad
    wide = conv2d_geometry("test", (1, 128, 56, 56), (128, 128, 3, 3), 2, 1, 1, 1)
    pairs = conv2d_geometry("test", (1, 64, 56, 56), (64, 2, 3, 3), 2, 1, 1, 32)
    assert ours.yields(wide, dtype) is ours.channels_last.yields(wide, dtype) is None
    assert "pixels in lanes are expected to reach" in ours.yields(pairs, dtype)


def test_it_yields_where_pixels_fill_lanes_better():
    """Few terms a result, and few filters: what is transposed in the end is not paid for."""
    few = conv2d_geometry("test", (1, 3, 224, 224), (8, 3, 3, 3), 1, 1, 1, 1)
    narrow = conv2d_geometry("test", (1, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1)
    assert "pixels in lanes are expected to reach" in direct.ALGORITHM.forward.yields(few, np.dtype("float32"))
    assert direct.ALGORITHM.forward.yields(narrow, np.dtype("float32")) is None


@pytest.mark.parametrize("name", ["winograd", "direct"])
def test_a_row_that_yields_runs_when_it_is_named(name):
    geometry, dtype = conv2d_geometry("test", (1, 3, 16, 16), (8, 3, 3, 3), 1, 1, 1, 1), np.dtype("float32")
    row = next(row for row in ALGORITHMS if row.name == name)
    assert row.declines(geometry, dtype) is None
    assert row.forward.yields(geometry, dtype) is not None
    assert choose("test", name, geometry, dtype, "forward") is row.forward
