"""The registry is the matrix: every row gives the bits of the reference, on drawn and on awkward problems."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rows import GENERAL, UNLIMITED
from same_bits import REFERENCE, assert_same_bits, results

from convjit import conv2d
from convjit.algorithms import ALGORITHMS, choose
from convjit.algorithms.algorithm import OPERATIONS
from convjit.functional import batches
from convjit.gemm.summation import TERMS_A_TOTAL
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem, conv2d_cases, real_arrays

pytestmark = pytest.mark.usefixtures("poisoned")

DTYPES = ["float32", "float64"]
OTHERS = [name for name in GENERAL if name != REFERENCE]

# What breaks blocked kernels: long sums, many lanes, rows that fill no micro-tile, strange strides.
AWKWARD = {
    "129 terms": Problem((1, 129, 1, 1), (1, 129, 1, 1)),
    "128 terms": Problem((1, 128, 2, 2), (3, 128, 1, 1)),
    "256 terms": Problem((1, 256, 2, 3), (3, 256, 1, 1)),
    "18000 terms": Problem((2000, 3, 3), (5, 2000, 3, 3), padding=1),
    "16384 terms": Problem((16384, 1, 2), (2, 16384, 1, 1)),
    "16385 terms": Problem((16385, 1, 2), (2, 16385, 1, 1)),
    "33000 terms": Problem((33000, 1, 2), (1, 33000, 1, 1)),
    "gradient of 17000 pixels": Problem((1, 1, 130, 131), (2, 1, 2, 2)),
    "gradient of 16384 pixels": Problem((1, 1, 128, 128), (2, 1, 1, 1)),
    "many images": Problem((300, 2, 8, 8), (3, 2, 3, 3), padding="same"),
    "many filters": Problem((1, 1, 3, 3), (700, 1, 2, 2)),
    "2000 filters": Problem((1, 2, 2, 2), (2000, 2, 1, 1)),
    "wide lines": Problem((1, 2, 3, 700), (3, 2, 3, 3), padding=1),
    "tall images": Problem((1, 2, 700, 3), (3, 2, 3, 3), padding=1),
    "129 lanes": Problem((1, 3, 3, 43), (2, 3, 1, 1)),
    "127 lanes": Problem((1, 3, 1, 127), (2, 3, 1, 1)),
    "one lane": Problem((1, 3, 3, 3), (5, 3, 3, 3)),
    "7 filters": Problem((1, 5, 9, 9), (7, 5, 3, 3)),
    "stride over kernel": Problem((2, 3, 11, 12), (4, 3, 2, 2), stride=(3, 4)),
    "stride over 1x1": Problem((2, 3, 9, 9), (4, 3, 1, 1), stride=2),
    "pixels that no output sees": Problem((1, 1, 1), (2, 1, 3, 1), stride=3, padding=1),
    "rows and columns that no output sees": Problem((2, 2, 4, 4), (3, 2, 1, 1), stride=3, padding=1),
    "dilation with stride": Problem((1, 3, 17, 19), (4, 3, 3, 3), stride=(2, 3), dilation=(3, 2), padding="full"),
    "stride and dilation share a factor": Problem((1, 2, 15, 15), (3, 2, 3, 3), stride=4, dilation=2, padding=3),
    "1x1": Problem((2, 9, 7, 7), (6, 9, 1, 1)),
    "1x1 padded": Problem((2, 3, 5, 5), (2, 3, 1, 1), padding=2),
    "7x7": Problem((1, 3, 20, 21), (5, 3, 7, 7), stride=2, padding=3),
    "1x9": Problem((1, 3, 5, 21), (5, 3, 1, 9), padding="same"),
    "huge padding": Problem((1, 2, 3, 3), (2, 2, 3, 3), padding=40),
    "padding on one side": Problem((1, 2, 3, 3), (2, 2, 3, 3), padding=((0, 50), (50, 0))),
    "kernel in the padding": Problem((1, 1, 1, 1), (1, 1, 9, 9), padding="full"),
    "one row of a stride of 2": Problem(
        (2, 20, 1, 39), (3, 20, 1, 5), stride=(2, 1), padding=((1, 1), (3, 0)), dilation=(2, 4)
    ),
    "depthwise": Problem((2, 12, 9, 9), (12, 1, 3, 3), groups=12, padding=1),
    "depthwise, 3 each": Problem((1, 5, 9, 9), (15, 1, 3, 3), groups=5, stride=2),
    "grouped": Problem((2, 12, 9, 9), (18, 4, 3, 3), groups=3, padding=1),
    "wrapped edges": Problem((1, 2, 5, 5), (3, 2, 3, 3), padding=7, padding_mode="wrap"),
}


@pytest.mark.parametrize("algorithm", OTHERS)
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_drawn_problems(data, dtype, algorithm):
    case = data.draw(conv2d_cases(dtype, real_arrays, max_channels=5, max_kernel=4, max_stride=4, max_dilation=3))
    arrays = (case.x, case.weight, case.bias, case.grad_output)
    assert_same_bits(case.problem, arrays, algorithm, results(case.problem, arrays, REFERENCE))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, monkeypatch):
    problem = AWKWARD[name]
    rng = np.random.default_rng(len(name))
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    wanted = results(problem, arrays, REFERENCE)
    is_long = np.prod(problem.weight_shape[1:]) > TERMS_A_TOTAL
    for algorithm in set(OTHERS) & set(UNLIMITED) if is_long else OTHERS:
        for crew in (1, 2, 3):  # the serial twin, and the parallel one with more workers than threads
            monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
            assert_same_bits(problem, arrays, algorithm, wanted)


@pytest.mark.parametrize("algorithm", OTHERS)
def test_special_values(algorithm):
    """Zeros of either sign, infinities, denormals and huge numbers travel through every row alike."""
    rng = np.random.default_rng(0)
    problem = Problem((2, 3, 9, 9), (5, 3, 3, 3), padding=2, stride=2)
    pool = np.array([0.0, -0.0, 1e-45, -1e-40, 3e38, -3e38, 1.0, -1.0, np.inf], np.float32)
    arrays = [
        rng.choice(pool, shape, p=[0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.09, 0.1, 0.01])
        for shape in (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    ]
    pairs = zip(results(problem, arrays, algorithm), results(problem, arrays, REFERENCE), strict=True)
    for got, wanted in pairs:
        assert_array_equal(got, wanted)
        assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(wanted[~np.isnan(wanted)]))


def test_the_last_row_always_takes_the_problem():
    geometry = conv2d_geometry("test", (1, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1, 1)
    for dtype in ("float32", "float64", "int64"):
        assert ALGORITHMS[-1].declines(geometry, np.dtype(dtype)) is None


def test_rows_that_decline_most_problems_have_tests_of_their_own():
    for row in ALGORITHMS:
        assert row.name in GENERAL or (Path(__file__).parent / f"test_{row.name}.py").exists()


def test_rows_have_names_of_their_own():
    names = [row.name for row in ALGORITHMS]
    assert len(set(names)) == len(names)
    assert not {"auto", "fastest"} & set(names)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (64, 1), (64, 64)])
def test_auto_is_the_first_row_that_neither_declines_nor_yields(channels, filters, operation):
    shapes, dtype = ((1, channels, 56, 56), (filters, channels, 3, 3)), np.dtype("float32")
    geometry = conv2d_geometry("test", *shapes, 1, 0, 1, 1)
    keeping = [row for row in ALGORITHMS if row.keeps_promises and row.declines(geometry, dtype) is None]
    taking = [row.operation(operation) for row in keeping if row.operation(operation) is not None]
    first = next(each for each in taking if each.passes_over(geometry, dtype) is None)
    assert choose("test", "auto", geometry, dtype, operation) is first
    if (channels, filters, operation) == (64, 1, "forward"):
        assert first is not taking[0], "no row yields, so that this shows nothing"


def test_auto_leaves_out_what_breaks_promises(monkeypatch):
    from convjit import algorithms

    geometry = conv2d_geometry("test", (1, 1, 4, 4), (1, 1, 3, 3), 1, 0, 1, 1)
    row = ALGORITHMS[-1]._replace(name="rough", keeps_promises=False, weight_grad=None)
    keeping = next(row for row in ALGORITHMS if row.name == "implicit")
    monkeypatch.setattr(algorithms, "ALGORITHMS", (row, keeping, ALGORITHMS[-1]))
    picked = {name: choose("test", name, geometry, np.dtype("float32"), "forward") for name in ("auto", "fastest")}
    assert picked == {"auto": keeping.forward, "fastest": row.forward}
    for name in ("auto", "fastest", "rough"):  # what a row does not have is done as "auto" does it
        assert choose("test", name, geometry, np.dtype("float32"), "weight_grad") is keeping.weight_grad


def test_a_named_row_that_declines_says_why(monkeypatch):
    from convjit import algorithms

    row = ALGORITHMS[0]._replace(declines=lambda geometry, dtype: "it is raining")
    monkeypatch.setattr(algorithms, "ALGORITHMS", (row, ALGORITHMS[-1]))
    x = np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match=f"^conv2d: algorithm '{row.name}' cannot run here: it is raining$"):
        conv2d(x, x, algorithm=row.name)
    assert conv2d(x, x) == 9
