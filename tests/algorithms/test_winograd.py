"""Winograd's row: its bound, the same bits however it is cut, and what it declines."""

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit import conv2d, conv2d_backward, conv2d_input_grad, conv2d_plan
from convjit.algorithms import ALGORITHMS, choose, winograd, winograd_cut
from convjit.algorithms.algorithm import PACKED_WEIGHT
from convjit.functional import batches
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem

pytestmark = pytest.mark.usefixtures("poisoned")

BOUND = {"float32": 2e-5, "float64": 4e-14}
DTYPES = list(BOUND)
NAMED = {row.name: row for row in ALGORITHMS}

LAYERS = {
    "64 channels": Problem((1, 64, 56, 56), (64, 64, 3, 3), padding=1),
    "128 channels": Problem((2, 128, 28, 28), (128, 128, 3, 3), padding=1),
    "256 channels": Problem((1, 256, 14, 14), (256, 256, 3, 3), padding=1),
    "512 channels": Problem((1, 512, 14, 14), (512, 512, 3, 3), padding=1),
    "a large map": Problem((1, 16, 224, 224), (16, 16, 3, 3), padding=1),
    "few filters": Problem((1, 128, 28, 28), (32, 128, 3, 3), padding=1),
    "dilated": Problem((1, 256, 28, 28), (256, 256, 3, 3), padding=2, dilation=2),
    "far dilated": Problem((1, 128, 36, 36), (64, 128, 3, 3), padding=3, dilation=3),
    "strided": Problem((1, 128, 56, 56), (128, 128, 3, 3), stride=2, padding=1),
    "a large map with a stride": Problem((1, 16, 224, 224), (32, 16, 3, 3), stride=2, padding=((0, 1), (0, 1))),
}

# Around tiles (4 pixels), windows (6), vectors (4, 8, 16 lanes), panels (2 vectors), blocks of channels (128).
AWKWARD = {
    "one pixel": Problem((1, 9, 3, 3), (40, 9, 3, 3)),
    "a padded pixel": Problem((1, 40, 1, 1), (40, 40, 3, 3), padding=1),
    "padding only": Problem((1, 3, 1, 1), (5, 3, 3, 3), padding=3),
    "odd everything": Problem((3, 5, 7, 11), (7, 5, 3, 3)),
    "no batch": Problem((5, 9, 13), (3, 5, 3, 3), padding=1),
    "full": Problem((2, 3, 6, 5), (4, 3, 3, 3), padding="full"),
    "padding on one side": Problem((2, 3, 5, 9), (17, 3, 3, 3), padding=((0, 3), (2, 0))),
    "padding beyond the kernel": Problem((1, 2, 9, 6), (3, 2, 3, 3), padding=((5, 0), (4, 7))),
    "129 channels": Problem((1, 129, 8, 8), (33, 129, 3, 3), padding=1),
    "300 channels": Problem((1, 300, 5, 5), (31, 300, 3, 3), padding=1),
    "a line": Problem((1, 4, 3, 300), (5, 4, 3, 3)),
    "a padded line": Problem((1, 4, 1, 270), (5, 4, 3, 3), padding=1),
    "a column": Problem((1, 4, 200, 3), (5, 4, 3, 3), padding=((0, 0), (1, 0))),
    "wrapped edges": Problem((1, 2, 8, 9), (3, 2, 3, 3), padding=2, padding_mode="wrap"),
    "many images": Problem((70, 4, 4, 4), (8, 4, 3, 3), padding=1),
    "phases of different sizes": Problem((2, 5, 19, 45), (7, 5, 3, 3), padding=2, dilation=(3, 2)),
    "dilated along rows": Problem((2, 5, 9, 23), (7, 5, 3, 3), dilation=(1, 4)),
    "dilated down columns": Problem((2, 17, 23, 40), (33, 17, 3, 3), padding=((4, 0), (0, 2)), dilation=(5, 1)),
    "more phases than pixels": Problem((2, 3, 5, 4), (4, 3, 3, 3), padding=(9, 11), dilation=(9, 11)),
    "a far dilation": Problem((1, 3, 4, 5), (4, 3, 3, 3), padding=700, dilation=700),
    "dilated beyond the padding": Problem((1, 3, 70, 131), (4, 3, 3, 3), padding=((7, 3), (0, 9)), dilation=2),
    "dilated 200 channels": Problem((1, 200, 13, 12), (18, 200, 3, 3), padding="same", dilation=3),
    "a strided pixel": Problem((1, 9, 3, 3), (40, 9, 3, 3), stride=2),
    "a strided padded pixel": Problem((1, 40, 1, 1), (40, 40, 3, 3), stride=2, padding=1),
    "strided padding only": Problem((1, 3, 1, 1), (5, 3, 3, 3), stride=2, padding=3),
    "strided odd everything": Problem((3, 5, 7, 11), (7, 5, 3, 3), stride=2),
    "strided pixels that no tap meets": Problem((2, 5, 8, 12), (7, 5, 3, 3), stride=2),
    "strided padding on one side": Problem((2, 3, 5, 9), (17, 3, 3, 3), stride=2, padding=((0, 3), (2, 0))),
    "strided padding beyond the kernel": Problem((1, 2, 9, 6), (3, 2, 3, 3), stride=2, padding=((5, 0), (4, 7))),
    "strided 129 channels": Problem((1, 129, 16, 16), (33, 129, 3, 3), stride=2, padding=1),
    "strided 300 filters": Problem((1, 33, 9, 9), (300, 33, 3, 3), stride=2, padding=1),
    "a strided line": Problem((1, 4, 3, 300), (5, 4, 3, 3), stride=2, padding=((0, 0), (1, 0))),
    "strided many images": Problem((70, 4, 8, 8), (8, 4, 3, 3), stride=2, padding=1),
    "strided wrapped edges": Problem((1, 2, 8, 9), (3, 2, 3, 3), stride=2, padding=2, padding_mode="wrap"),
    **{
        f"strided {n} wide": Problem((1, 3, 12, n), (2, 3, 3, 3), stride=2, padding=((0, 0), (n % 3, 0)))
        for n in (9, 10, 16, 17, 18, 33, 34, 64, 67, 131)
    },
    **{f"{n} wide": Problem((1, 3, 6, n), (2, 3, 3, 3)) for n in (5, 6, 7, 17, 18, 19, 33, 34, 35, 66, 67, 130)},
}

# Settings of the row by name: how tiles are cut into blocks and tasks, and when weights are transformed.
CUTS = {
    "as it is": {},
    "small blocks": {"_MOST_TILES": 3, "_FEWEST_TILES": 3},
    "small blocks without lasting weights": {"_MOST_TILES": 5, "_FEWEST_TILES": 5, "_LASTING_BYTES": -1},
    "a task for each panel": {"TASK_MULTIPLICATIONS": 1, "_MOST_TILES": 6, "_FEWEST_TILES": 6},
    "and weights of its own": {"TASK_MULTIPLICATIONS": 1, "_MOST_TILES": 20, "_LASTING_BYTES": -1},
    "panels together": {"_NEAR_BYTES": -1, "_LASTING_BYTES": 1 << 40, "_MOST_TILES": 9},
}


@pytest.fixture
def cut(monkeypatch):
    """`cut(name, workers)` sets how work is cut, by a name from `CUTS`."""

    def set_cut(name, workers):
        for setting in {key for settings in CUTS.values() for key in settings}:
            monkeypatch.setattr(winograd_cut, setting, CUTS[name].get(setting, DEFAULTS[setting]))
        monkeypatch.setattr(batches, "workers", lambda nanoseconds: workers)
        forget()

    yield set_cut
    forget()


DEFAULTS = {key: getattr(winograd_cut, key) for settings in CUTS.values() for key in settings}


def numbers(problem, dtype, seed=0):
    """x, weight, bias and grad_output, normal."""
    rng = np.random.default_rng(seed)
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def results(problem, arrays, algorithm):
    """y and grad_input."""
    x, weight, bias, dy = arrays
    options = {**problem.options, "algorithm": algorithm}
    return conv2d(x, weight, bias, **options), conv2d_input_grad(dy, weight, x.shape[-2:], **options)


def errors(problem, arrays, got):
    """The L2 norm of the errors of y and grad_input, relative to what normal numbers give inside an image.

    Exact results are computed in float64: those of float64 err ten times less than Winograd's.
    """
    x, weight, _, dy = arrays
    exact = results(problem, [a.astype("float64") for a in arrays], "implicit")
    found = []
    for values, wanted, channels, source in zip(got, exact, (x.shape[-3], len(weight)), (x, dy), strict=True):
        a_result = np.sqrt(9 * channels * np.mean(source.astype(float) ** 2) * np.mean(weight.astype(float) ** 2))
        found.append(np.linalg.norm(values - wanted) / max(a_result * np.sqrt(wanted.size), np.finfo(float).tiny))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_real_layers_keep_the_bound(name, dtype):
    problem = LAYERS[name]
    arrays = numbers(problem, dtype)
    got = results(problem, arrays, "winograd")
    exact = results(problem, [a.astype("float64") for a in arrays], "implicit")
    for values, wanted in zip(got, exact, strict=True):
        assert values.dtype == dtype
        assert np.linalg.norm(values - wanted) <= BOUND[dtype] * np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems_are_right_and_the_same_however_they_are_cut(name, dtype, cut):
    problem = AWKWARD[name]
    arrays = numbers(problem, dtype, len(name))
    cut("as it is", 1)
    first = results(problem, arrays, "winograd")
    assert max(errors(problem, arrays, first)) <= BOUND[dtype]
    for way in CUTS:
        for workers in (1, 2, 3, 4):
            cut(way, workers)
            for got, wanted in zip(results(problem, arrays, "winograd"), first, strict=True):
                assert_array_equal(got, wanted, err_msg=f"{way}, {workers} workers", strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_drawn_problems(data, dtype):
    sizes, pads = st.integers(1, 40), st.tuples(st.integers(0, 4), st.integers(0, 4))
    channels = st.integers(1, 20)
    image, padding = (data.draw(sizes), data.draw(sizes)), (data.draw(pads), data.draw(pads))
    c, o = data.draw(channels), data.draw(channels)
    stride = data.draw(st.integers(1, 2))
    dilation = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5))) if stride == 1 else (1, 1)
    image = tuple(max(n, 2 * d + 1 - sum(p)) for n, d, p in zip(image, dilation, padding, strict=True))
    x_shape, options = (data.draw(st.integers(1, 3)), c, *image), {"padding": padding, "dilation": dilation}
    problem = Problem(x_shape, (o, c, 3, 3), stride=stride, **options)
    arrays = numbers(problem, dtype)
    assert max(errors(problem, arrays, results(problem, arrays, "winograd"))) <= BOUND[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_has_the_same_bits_in_any_batch(dtype):
    for stride in (1, 2):
        problem = Problem((5, 20, 9, 23), (24, 20, 3, 3), stride=stride, padding=1)
        arrays = numbers(problem, dtype)
        whole = results(problem, arrays, "winograd")
        x, weight, bias, dy = arrays
        for part in (slice(0, 1), slice(1, 3), slice(4, 5), slice(0, 5, 2)):
            got = results(problem, [x[part], weight, bias, dy[part]], "winograd")
            for values, wanted in zip(got, whole, strict=True):
                assert_array_equal(values, wanted[part], strict=True)


@pytest.mark.parametrize("way", CUTS)
def test_no_task_writes_what_is_another_ones(way, cut, monkeypatch):
    """Tasks from the last to the first: what one writes too much is not put right by those behind it."""

    def backwards(workers, *runs):
        for way, tasks, _, arguments in runs:
            for task in reversed(range(tasks)):
                way.run(1, task, task + 1, arguments)

    names = "35 wide", "phases of different sizes", "odd everything", "strided 67 wide", "strided odd everything"
    for problem in map(AWKWARD.get, names):
        arrays = numbers(problem, "float32")
        cut(way, 1)
        wanted = results(problem, arrays, "winograd")
        with monkeypatch.context() as patch:
            patch.setattr(winograd, "run_in_turn", backwards)
            for got, values in zip(results(problem, arrays, "winograd"), wanted, strict=True):
                assert_array_equal(got, values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_real_layers_keep_the_bound_on_positive_numbers(name, dtype):
    """Which add up: the sums are large, and so are their errors."""
    problem = LAYERS[name]
    arrays = [abs(array) for array in numbers(problem, dtype)]
    exact = results(problem, [a.astype("float64") for a in arrays], "implicit")
    for values, wanted in zip(results(problem, arrays, "winograd"), exact, strict=True):
        assert np.linalg.norm(values - wanted) <= BOUND[dtype] * np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name",
    [
        "odd everything",
        "phases of different sizes",
        "more phases than pixels",
        "full",
        "strided odd everything",
        "strided pixels that no tap meets",
        "strided padding beyond the kernel",
    ],
)
def test_the_input_gradient_is_the_adjoint(name, dtype):
    """<y, dy> = <x, dx>, with small integers, of which the true values are known exactly."""
    problem, rng = AWKWARD[name], np.random.default_rng(0)
    shapes = (problem.x_shape, problem.weight_shape, problem.y_shape)
    x, weight, dy = (rng.integers(-3, 4, shape).astype(dtype) for shape in shapes)
    y, dx = results(problem, [x, weight, np.zeros(len(weight), dtype), dy], "winograd")
    assert_array_equal(np.rint(y), conv2d(x, weight, **problem.options))
    assert_array_equal(np.rint(dx), conv2d_input_grad(dy, weight, x.shape[-2:], **problem.options))
    assert np.vdot(np.rint(y), dy) == np.vdot(x, np.rint(dx))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dilated_convolution_is_a_dense_one_in_each_phase(dtype):
    """To the bit: the same tiles, multiplied in the same order."""
    x, weight, bias, _ = numbers(Problem((2, 6, 24, 36), (9, 6, 3, 3), padding=1), dtype)
    y = conv2d(x, weight, bias, padding=(2, 3), dilation=(2, 3), algorithm="winograd")
    for row, col in np.ndindex(2, 3):
        phase = conv2d(x[:, :, row::2, col::3], weight, bias, padding=1, algorithm="winograd")
        assert_array_equal(y[:, :, row::2, col::3], phase)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pixel_of_a_strided_image_has_its_taps(dtype):
    """Of an image with one pixel, outputs are the taps that meet it: each phase has its own, and no other's."""
    weight = np.arange(1, 10, dtype=dtype).reshape(1, 1, 3, 3)
    for row, col in np.ndindex(4, 4):
        x = np.zeros((1, 1, 13, 13), dtype)
        x[0, 0, 4 + row, 4 + col] = 1
        y = conv2d(x, weight, stride=2, padding=1, algorithm="winograd")
        assert_array_equal(np.rint(y), conv2d(x, weight, stride=2, padding=1))


def test_a_bad_pixel_stays_in_its_image():
    x, weight, bias, _ = numbers(Problem((2, 32, 20, 20), (32, 32, 3, 3), padding=1), "float32")
    y = conv2d(x, weight, bias, padding=1, algorithm="winograd")
    x[0, 3, 11, 2] = np.nan
    spoilt = conv2d(x, weight, bias, padding=1, algorithm="winograd")
    assert np.isnan(spoilt[0, :, 10:13, 1:4]).all()
    assert_array_equal(spoilt[0, :, :, 12:], y[0, :, :, 12:])
    assert_array_equal(spoilt[1], y[1])


def test_it_takes_any_dtype_that_is_computed_in_floats():
    x, weight, *_ = numbers(Problem((1, 4, 9, 9), (4, 4, 3, 3)), "float64")
    for dtype in ("float16", "complex64", "complex128"):
        got = conv2d(x.astype(dtype), weight.astype(dtype), algorithm="winograd")
        assert got.dtype == dtype
        assert np.linalg.norm(got - conv2d(x, weight)) <= 2e-3 * np.linalg.norm(got)


def test_workspaces_are_small():
    """Transformed weights are not counted; 4 workers, forward."""
    for problem in (*LAYERS.values(), Problem((1, 2048, 64, 64), (64, 2048, 3, 3), padding=1)):
        for dtype in map(np.dtype, DTYPES):
            g = conv2d_geometry("test", problem.batched_x_shape, problem.weight_shape, 1, 1, 1, 1)
            spaces = NAMED["winograd"].forward.workspace(g, 4, dtype)
            bytes_of = {s.name: int(np.prod(s.shape)) * (s.dtype or dtype).itemsize for s in spaces}
            size = sum(bytes_of.values()) - bytes_of[PACKED_WEIGHT]
            assert size <= max(2 * np.prod(g.x_shape) * dtype.itemsize, 32 << 20), problem


# --- the choice -----------------------------------------------------------------------------------------------------

X, W = (1, 64, 28, 28), (64, 64, 3, 3)
DECLINED = {
    "5x5": ((X, (64, 64, 5, 5), 1, 2, 1, 1), "3x3 kernels, not 5x5"),
    "3x1": ((X, (64, 64, 3, 1), 1, 0, 1, 1), "3x3 kernels, not 3x1"),
    "different strides": ((X, W, (1, 2), 1, 1, 1), "strides 1 and 2 of both axes, not 1x2"),
    "stride 3": ((X, W, 3, 1, 1, 1), "strides 1 and 2 of both axes, not 3x3"),
    "stride and dilation": ((X, W, 2, 1, (1, 2), 1), "with stride 2 it is for dilation 1, not 1x2"),
    "groups": ((X, (64, 32, 3, 3), 1, 1, 1, 2), "one group, not 2"),
    "too many channels": (((1, 9000, 28, 28), (64, 9000, 3, 3), 1, 1, 1, 1), "at most 8192 channels"),
    "no channels": (((1, 0, 28, 28), (64, 0, 3, 3), 1, 1, 1, 1), "no channels"),
}
# What it leaves to others unless it is named.
YIELDED = {
    "far apart": (X, W, 1, 14, 14, 1),
    "three channels": ((1, 3, 224, 224), (64, 3, 3, 3), 1, 1, 1, 1),
    "one filter": (X, (1, 64, 3, 3), 1, 1, 1, 1),
    "one tile": ((1, 512, 4, 4), (512, 512, 3, 3), 1, 1, 1, 1),
    "four tiles": ((32, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_it_declines_it_says(name):
    shapes, says = DECLINED[name]
    geometry = conv2d_geometry("test", *shapes)
    for dtype in map(np.dtype, DTYPES):
        assert says in NAMED["winograd"].declines(geometry, dtype)
        picked = choose("test", "auto", geometry, dtype, "forward")
        assert choose("test", "fastest", geometry, dtype, "forward") is picked is not NAMED["winograd"].forward
        with pytest.raises(ValueError, match=f"^test: algorithm 'winograd' cannot run here: .*{says}"):
            choose("test", "winograd", geometry, dtype, "forward")


def test_a_stride_of_2_is_for_those_who_name_it():
    geometry, dtype = conv2d_geometry("test", (1, 256, 112, 112), (256, 256, 3, 3), 2, 1, 1, 1), np.dtype("float32")
    for operation in ("forward", "input_grad"):
        row = NAMED["winograd"].operation(operation)
        assert "with a stride" in row.yields(geometry, dtype)
        assert choose("test", "fastest", geometry, dtype, operation) is not row
        assert choose("test", "winograd", geometry, dtype, operation) is row


@pytest.mark.parametrize("name", YIELDED)
def test_where_transforms_take_longer_it_is_for_those_who_name_it(name):
    geometry, dtype = conv2d_geometry("test", *YIELDED[name]), np.dtype("float32")
    row = NAMED["winograd"]
    assert row.declines(geometry, dtype) is None
    assert "take longer" in row.forward.yields(geometry, dtype)
    assert choose("test", "fastest", geometry, dtype, "forward") is choose("test", "auto", geometry, dtype, "forward")
    assert choose("test", "winograd", geometry, dtype, "forward") is row.forward


def test_integers_are_declined():
    geometry = conv2d_geometry("test", X, W, 1, 1, 1, 1)
    assert "int64" in NAMED["winograd"].declines(geometry, np.dtype("int64"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fastest_picks_it_and_auto_does_not(dtype):
    geometry = conv2d_geometry("test", X, W, 1, 1, 1, 1)
    for operation in ("forward", "input_grad", "weight_grad"):
        picked = {name: choose("test", name, geometry, np.dtype(dtype), operation) for name in ("auto", "fastest")}
        assert picked["fastest"] is NAMED["winograd"].operation(operation)
        assert picked["auto"] in [row.operation(operation) for row in ALGORITHMS if row.keeps_promises]


def test_the_batch_decides_nothing():
    for size, channels in ((4, 64), (7, 64), (8, 64), (14, 16), (28, 8)):
        for operation in ("forward", "input_grad"):
            reasons = {
                NAMED["winograd"]
                .operation(operation)
                .passes_over(
                    conv2d_geometry("test", (n, channels, size, size), (channels, channels, 3, 3), 1, 1, 1, 1),
                    np.dtype("float32"),
                )
                for n in (0, 1, 2, 1000)
            }
            assert len(reasons) == 1


def test_gradients_of_both_kinds_come_with_one_name():
    problem = Problem((2, 32, 20, 20), (32, 32, 3, 3), padding=1)
    x, weight, _, dy = numbers(problem, "float32")
    fast = conv2d_backward(dy, x, weight, padding=1, algorithm="winograd")
    plain = conv2d_backward(dy, x, weight, padding=1)
    assert_array_equal(fast[2], plain[2])
    for got, wanted in zip(fast[:2], plain[:2], strict=True):
        assert got.tobytes() != wanted.tobytes()
        assert np.linalg.norm(got - wanted) <= BOUND["float32"] * np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plan_transforms_weights_once(dtype, monkeypatch):
    """Whether a call would let them last or not, a plan's are all there, and give the call's bits."""
    transformed = []
    transform = winograd.all_transformed

    def counted(*arguments):
        transformed.append(1)
        return transform(*arguments)

    monkeypatch.setattr(winograd, "all_transformed", counted)
    for problem in (
        Problem((2, 20, 19, 23), (40, 20, 3, 3), padding=1),
        Problem((1, 300, 4, 4), (33, 300, 3, 3)),
        Problem((2, 20, 19, 23), (40, 20, 3, 3), padding=3, dilation=2),
        Problem((2, 150, 19, 23), (40, 150, 3, 3), stride=2, padding=1),
    ):
        rng = np.random.default_rng(0)
        x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (problem.x_shape, problem.weight_shape))
        images = (x, x[:1], np.concatenate([x, x], axis=2))
        wanted = [conv2d(image, weight, **problem.options, algorithm="winograd") for image in images]
        plan = conv2d_plan(weight, **problem.options, algorithm="winograd")
        transformed.clear()
        for image, right in zip(images, wanted, strict=True):
            assert_array_equal(plan(image), right)
        assert len(transformed) == 1
