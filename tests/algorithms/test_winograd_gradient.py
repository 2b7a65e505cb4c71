"""Winograd's weight gradient: its bound, the same bits however tasks are dealt, and what it leaves to others."""

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit import conv2d_weight_grad, explain
from convjit.algorithms import winograd_gradient
from convjit.functional import batches
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem

pytestmark = pytest.mark.usefixtures("poisoned")

BOUND = {"float32": 2e-5, "float64": 4e-14}
DTYPES = list(BOUND)

LAYERS = {
    "64 channels": Problem((1, 64, 56, 56), (64, 64, 3, 3), padding=1),
    "256 channels, 16 images": Problem((16, 256, 14, 14), (256, 256, 3, 3), padding=1),
    "512 channels": Problem((1, 512, 28, 28), (512, 512, 3, 3), padding=1),
    "a large map": Problem((1, 16, 224, 224), (16, 16, 3, 3), padding=1),
    "few channels": Problem((8, 16, 56, 56), (64, 16, 3, 3), padding=1),
}

# Around tiles (4 pixels), windows (6), vectors (4, 8, 16 lanes), panels (2 or 3 vectors), channels of a task (8, 64).
AWKWARD = {
    "one pixel": Problem((1, 9, 3, 3), (40, 9, 3, 3)),
    "padding only": Problem((1, 3, 1, 1), (5, 3, 3, 3), padding=3),
    "odd everything": Problem((3, 5, 7, 11), (7, 5, 3, 3)),
    "no batch": Problem((5, 9, 13), (3, 5, 3, 3), padding=1),
    "full": Problem((2, 3, 6, 5), (4, 3, 3, 3), padding="full"),
    "padding beyond the kernel": Problem((1, 2, 9, 6), (3, 2, 3, 3), padding=((5, 0), (4, 7))),
    "129 channels": Problem((1, 129, 8, 8), (33, 129, 3, 3), padding=1),
    "65 filters": Problem((2, 9, 8, 8), (65, 9, 3, 3), padding=1),
    "a line": Problem((1, 4, 3, 2300), (5, 4, 3, 3)),
    "a column": Problem((1, 4, 200, 3), (5, 4, 3, 3), padding=((0, 0), (1, 0))),
    "wrapped edges": Problem((1, 2, 8, 9), (3, 2, 3, 3), padding=2, padding_mode="wrap"),
    "many images": Problem((70, 4, 4, 4), (8, 4, 3, 3), padding=1),
    **{f"{n} wide": Problem((1, 3, 6, n), (2, 3, 3, 3)) for n in (5, 6, 7, 8, 9, 10, 11, 17, 18, 34, 67, 130)},
}

# How blocks are cut, which decides bits, and tasks, which does not.
BLOCKS = {
    "as they are": {},
    "of three tiles": {"_MOST_TILES": 3},
    "of some rows": {"_MOST_TILES": 60},
}
TASKS = {
    "as they are": {},
    "of few channels": {"_TRANSFORMED": 1, "_SUMMED": 3},
    "of all channels": {"_TRANSFORMED": 1000, "_SUMMED": 1000},
    "of all workers in each block": {"_has_room": lambda *_: False},
}
SETTINGS = ("_MOST_TILES", "_TRANSFORMED", "_SUMMED", "_has_room")
DEFAULTS = {name: getattr(winograd_gradient, name) for name in SETTINGS}


@pytest.fixture
def cut(monkeypatch):
    """`cut(settings, workers)` sets how work is cut."""

    def set_cut(settings, workers):
        for name in SETTINGS:
            monkeypatch.setattr(winograd_gradient, name, settings.get(name, DEFAULTS[name]))
        monkeypatch.setattr(batches, "workers", lambda nanoseconds: workers)
        forget()

    yield set_cut
    forget()


def numbers(problem, dtype, seed=0):
    """x and grad_output, normal."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in (problem.x_shape, problem.y_shape)]


def gradient(problem, arrays, algorithm="winograd"):
    x, dy = arrays
    return conv2d_weight_grad(dy, x, 3, **problem.options, algorithm=algorithm)


def error(problem, arrays, got):
    """The L2 norm of the error, relative to what normal numbers give where no pixel is outside."""
    x, dy = (array.astype("float64") for array in arrays)
    wanted = gradient(problem, (x, dy), "implicit")
    pixels = dy.size // len(got)
    typical = np.sqrt(pixels * np.mean(x**2) * np.mean(dy**2)) * np.sqrt(wanted.size)
    return np.linalg.norm(got - wanted) / typical


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_real_layers_keep_the_bound(name, dtype):
    problem = LAYERS[name]
    for arrays in (numbers(problem, dtype), [abs(array) for array in numbers(problem, dtype)]):
        got, plain = gradient(problem, arrays), gradient(problem, arrays, "auto")
        wanted = gradient(problem, [array.astype("float64") for array in arrays], "implicit")
        assert got.dtype == dtype
        assert got.tobytes() != plain.tobytes()
        assert np.linalg.norm(got - wanted) <= BOUND[dtype] * np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems_are_right_and_the_same_however_tasks_are_dealt(name, dtype, cut):
    problem = AWKWARD[name]
    arrays = numbers(problem, dtype, len(name))
    for blocks in BLOCKS.values():
        cut(blocks, 1)
        first = gradient(problem, arrays)
        assert error(problem, arrays, first) <= BOUND[dtype]
        for tasks in TASKS.values():
            for workers in (1, 2, 3):
                cut(blocks | tasks, workers)
                assert_array_equal(gradient(problem, arrays), first, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_drawn_problems(data, dtype):
    sizes, pads, channels = st.integers(1, 40), st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(1, 40)
    image, padding = (data.draw(sizes), data.draw(sizes)), (data.draw(pads), data.draw(pads))
    c, o = data.draw(channels), data.draw(channels)
    image = tuple(max(n, 3 - sum(p)) for n, p in zip(image, padding, strict=True))
    problem = Problem((data.draw(st.integers(1, 3)), c, *image), (o, c, 3, 3), padding=padding)
    arrays = numbers(problem, dtype)
    assert error(problem, arrays, gradient(problem, arrays)) <= BOUND[dtype]


def test_no_task_writes_what_is_another_ones(cut, monkeypatch):
    """Tasks from the last to the first: what one writes too much is not put right by those behind it."""

    def backwards(workers, *runs):
        for way, tasks, _, arguments in runs:
            for task in reversed(range(tasks)):
                way.run(1, task, task + 1, arguments)

    for problem in (AWKWARD["129 channels"], AWKWARD["65 filters"], AWKWARD["odd everything"]):
        for settings in (BLOCKS["of three tiles"], TASKS["of few channels"]):
            arrays = numbers(problem, "float32")
            cut(settings, 1)
            wanted = gradient(problem, arrays)
            for workers in (1, 2):
                cut(settings, workers)
                with monkeypatch.context() as patch:
                    patch.setattr(winograd_gradient, "run_in_turn", backwards)
                    assert_array_equal(gradient(problem, arrays), wanted)


def test_images_with_channels_last_have_the_same_bits():
    problem = LAYERS["few channels"]
    x, dy = numbers(problem, "float32")
    got = conv2d_weight_grad(
        np.moveaxis(dy, 1, -1), np.moveaxis(x, 1, -1), 3, padding=1, algorithm="winograd", layout="NHWC"
    )
    assert_array_equal(got, gradient(problem, (x, dy)))


def test_no_images_give_zeros():
    got = conv2d_weight_grad(np.ones((0, 16, 8, 8)), np.ones((0, 16, 8, 8)), 3, padding=1, algorithm="winograd")
    assert_array_equal(got, np.zeros((16, 16, 3, 3)))


def test_a_bad_channel_spoils_its_taps_only():
    problem = Problem((2, 20, 13, 14), (24, 20, 3, 3), padding=1)
    x, dy = numbers(problem, "float32")
    wanted = gradient(problem, (x, dy))
    x[1, 7, 5, 5] = np.inf
    got = gradient(problem, (x, dy))
    others = np.arange(20) != 7
    assert_array_equal(got[:, others], wanted[:, others])
    assert not np.isfinite(got[:, 7]).any()
    x, dy = numbers(problem, "float32")
    dy[0, 23, 2, 3] = np.nan
    got = gradient(problem, (x, dy))
    assert_array_equal(got[:23], wanted[:23])
    assert np.isnan(got[23]).all()


@pytest.mark.parametrize("options", [{"padding": 2, "dilation": 2}, {"padding": 1, "stride": 2}])
def test_dilated_and_strided_gradients_are_left_to_auto(options):
    problem = Problem((1, 64, 28, 28), (64, 64, 3, 3), **options)
    arrays = numbers(problem, "float32")
    assert_array_equal(gradient(problem, arrays), gradient(problem, arrays, "auto"))


def test_fastest_picks_it_where_it_pays():
    def picked(x_shape, weight_shape):
        return explain(x_shape, weight_shape, padding=1, algorithm="fastest").weight_grad.algorithm

    assert picked((1, 64, 56, 56), (64, 64, 3, 3)) == "winograd"
    assert picked((1, 512, 7, 7), (512, 512, 3, 3)) != "winograd"  # four tiles
    assert picked((16, 3, 32, 32), (16, 3, 3, 3)) != "winograd"  # few channels


@pytest.mark.parametrize(
    "shape", [(16, 64, 56, 56), (1, 512, 28, 28), (1, 64, 1024, 1024), (1, 2048, 64, 64), (64, 32, 32, 32)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_workspaces_are_small(shape, dtype):
    geometry = conv2d_geometry("test", shape, (shape[1], shape[1], 3, 3), 1, 1, 1, 1)
    if winograd_gradient.OPERATION.declines(geometry, np.dtype(dtype)) is not None:
        assert shape[1] == 2048  # whose taps alone are 150 MB
        return
    for workers in (1, 2, 8):
        spaces = winograd_gradient.OPERATION.workspace(geometry, workers, np.dtype(dtype))
        taken = sum(np.prod(space.shape) * np.dtype(space.dtype or dtype).itemsize for space in spaces)
        assert taken <= max(32 << 20, 2 * np.prod(shape) * np.dtype(dtype).itemsize)
