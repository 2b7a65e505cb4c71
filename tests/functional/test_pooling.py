"""Pooling and its adjoints against the definition, with ties, NaN and windows that see no pixel."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from convjit import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward, pad2d, pad2d_backward
from convjit.algorithms import pooling
from convjit.gemm import maxima, means
from convjit.runtime import tiles
from convjit.testing import (
    check_adjoint,
    exact_arrays,
    real_arrays,
    reference_avg_pool2d,
    reference_max_pool2d,
    reference_max_pool2d_backward,
)
from convjit.testing.spatial import windows


@dataclass(frozen=True)
class Pooling:
    """A valid pooling: the shape of the images and the window."""

    shape: tuple
    kernel: tuple
    stride: tuple
    pads: tuple
    dilation: tuple
    ceil_mode: bool

    @property
    def arguments(self):
        return {"kernel_size": self.kernel, "stride": self.stride, "padding": self.pads, "dilation": self.dilation,
                "ceil_mode": self.ceil_mode}  # fmt: skip

    @property
    def reference(self):
        return {"kernel": self.kernel, "stride": self.stride, "pads": self.pads, "dilation": self.dilation,
                "ceil_mode": self.ceil_mode}  # fmt: skip


@st.composite
def poolings(draw, planes=((1, 1), (2, 3))):
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (3, 4, 2))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = tuple((draw(st.integers(0, e - 1)), draw(st.integers(0, e - 1))) for e in extents)
    # Long rows are computed tap by tap, short ones window by window.
    beyond = draw(st.integers(0, 4)), draw(st.integers(0, 4) | st.integers(16, 80))
    sizes = [max(1, e - sum(p)) + more for e, p, more in zip(extents, pads, beyond, strict=True)]
    return Pooling((*draw(st.sampled_from(planes)), *sizes), kernel, stride, pads, dilation, draw(st.booleans()))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int64", "uint64", "float16"])
@given(data=st.data())
def test_maximum_and_where(data, dtype):
    problem = data.draw(poolings())
    x = data.draw(exact_arrays(problem.shape, dtype))  # few values, so many ties
    y, indices = max_pool2d(x, **problem.arguments, return_indices=True)
    wanted, where = reference_max_pool2d(x, **problem.reference)
    assert_array_equal(y, wanted, strict=True)
    assert_array_equal(indices, where, strict=True)
    assert_array_equal(max_pool2d(x, **problem.arguments), wanted, strict=True)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint8"])
def test_maximum_of_extreme_integers(dtype):
    limits = np.iinfo(dtype)
    x = np.array([limits.min, limits.max, limits.max - 1, limits.min], dtype).reshape(1, 2, 2)
    y, where = max_pool2d(x, 2, 1, 1, return_indices=True)
    wanted, indices = reference_max_pool2d(x[None], (2, 2), (1, 1), ((1, 1), (1, 1)))
    assert_array_equal(y, wanted[0], strict=True)
    assert_array_equal(where, indices[0])


@given(data=st.data())
def test_maximum_with_nan_and_infinities(data):
    problem = data.draw(poolings())
    x = data.draw(exact_arrays(problem.shape, largest=2))
    x[x == 2] = np.nan
    x[x == -2] = -np.inf
    x[x == 1] = np.inf
    y, indices = max_pool2d(x, **problem.arguments, return_indices=True)
    wanted, where = reference_max_pool2d(x, **problem.reference)
    assert_array_equal(y, wanted)
    assert_array_equal(indices, where)


@given(data=st.data())
def test_maximum_backward(data):
    problem = data.draw(poolings())
    x = data.draw(exact_arrays(problem.shape))
    y, indices = reference_max_pool2d(x, **problem.reference)
    dy = data.draw(exact_arrays(y.shape))
    wanted = reference_max_pool2d_backward(dy, indices, x.shape[2:])
    assert_array_equal(max_pool2d_backward(dy, x, **problem.arguments), wanted, strict=True)
    assert_array_equal(max_pool2d_backward(dy, x, **problem.arguments, indices=indices), wanted, strict=True)


@given(data=st.data())
def test_maximum_backward_is_the_adjoint_of_selecting(data):
    problem = data.draw(poolings())
    x = data.draw(real_arrays(problem.shape, distinct=True))  # no ties: near x the maximum is a selection, linear
    y = max_pool2d(x, **problem.arguments)
    dy = data.draw(exact_arrays(y.shape))
    dy[np.isneginf(y)] = 0
    y[np.isneginf(y)] = 0
    check_adjoint(lambda _: y, lambda g: max_pool2d_backward(g, x, **problem.arguments), x, dy, tolerance=1e-15)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "complex64", "complex128"])
@given(data=st.data())
def test_mean(data, dtype, count_include_pad):
    problem = data.draw(poolings())
    x = data.draw(exact_arrays(problem.shape, dtype))
    got = avg_pool2d(x, **problem.arguments, count_include_pad=count_include_pad)
    wanted = reference_avg_pool2d(x, **problem.reference, count_include_pad=count_include_pad)
    if x.dtype.kind == "c":
        assert_allclose(got, wanted, rtol=1e-6)
        assert got.dtype == x.dtype
    else:  # exact sums, one division each
        assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("count_include_pad", [True, False])
@given(data=st.data())
def test_mean_backward_is_the_adjoint(data, count_include_pad):
    problem = data.draw(poolings())
    x = data.draw(exact_arrays(problem.shape))
    options = {**problem.arguments, "count_include_pad": count_include_pad}
    y = avg_pool2d(x, **options)
    dy = 36.0 * 25 * data.draw(exact_arrays(y.shape))
    check_adjoint(
        lambda a: avg_pool2d(a, **options),
        lambda g: avg_pool2d_backward(g, problem.shape[2:], **options),
        x,
        dy,
        tolerance=1e-14,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@given(data=st.data())
def test_windows_of_two_by_two(data, dtype):
    """Four pixels at once where no window reaches over an edge."""
    planes, rows, cols = (data.draw(st.integers(1, most)) for most in (3, 7, 40))
    shape = (1, planes, rows + 1, cols + 1)
    x = data.draw(exact_arrays(shape, dtype, largest=2))
    if dtype != "int64":
        x[x == 2] = np.nan
        x[x == -2] = -np.inf
    options = data.draw(st.sampled_from([{}, {"ceil_mode": True}, {"padding": ((0, 1), (0, 1))}, {"padding": 1}]))
    y, indices = max_pool2d(x, 2, **options, return_indices=True)
    pads = {0: ((0, 0), (0, 0)), 1: ((1, 1), (1, 1))}.get(options.get("padding", 0), options.get("padding"))
    wanted, where = reference_max_pool2d(x, (2, 2), (2, 2), pads, (1, 1), ceil_mode=options.get("ceil_mode", False))
    assert_array_equal(y, wanted, strict=True)
    assert_array_equal(indices, where, strict=True)
    dy = np.arange(1, y.size + 1, dtype=float).reshape(y.shape)
    gradient = reference_max_pool2d_backward(dy, where, x.shape[2:])
    assert_array_equal(max_pool2d_backward(dy, np.zeros(shape), 2, **options, indices=indices), gradient)


@given(x=exact_arrays((2, 4, 6)))
def test_mean_without_overlap_is_a_reshape(x):
    assert_array_equal(avg_pool2d(x, 2), x.reshape(2, 2, 2, 3, 2).mean((2, 4)))
    assert_array_equal(max_pool2d(x, 2), x.reshape(2, 2, 2, 3, 2).max((2, 4)))


@given(x=real_arrays((2, 3, 5, 5)))
def test_unbatched_is_a_batch_of_one(x):
    for pool in (max_pool2d, avg_pool2d):
        assert_array_equal(pool(x[0], 2), pool(x[:1], 2)[0], strict=True)
    dy = np.ones((3, 2, 2))
    assert_array_equal(max_pool2d_backward(dy, x[0], 2), max_pool2d_backward(dy[None], x[:1], 2)[0])
    assert_array_equal(avg_pool2d_backward(dy, 5, 2), avg_pool2d_backward(dy[None], 5, 2)[0])


def test_bool_counts_as_integers():
    x = np.array([[[True, False], [False, False]]])
    assert_array_equal(max_pool2d(x, 2), np.array([[[1]]]), strict=True)
    assert_array_equal(avg_pool2d(x, 2), np.array([[[0.25]]]), strict=True)


@pytest.mark.parametrize("padding", ["valid", "same", "same_upper", "same_lower", ((0, 1), (1, 0)), (1, 0), 1])
def test_every_form_of_padding(padding):
    x = np.random.default_rng(3).standard_normal((1, 2, 7, 6))
    pads = {"valid": ((0, 0), (0, 0)), "same": ((1, 1), (1, 1)), "same_upper": ((1, 1), (0, 1)),
            "same_lower": ((1, 1), (1, 0)), ((0, 1), (1, 0)): ((0, 1), (1, 0)), (1, 0): ((1, 1), (0, 0)),
            1: ((1, 1), (1, 1))}[padding]  # fmt: skip
    wanted = reference_max_pool2d(x, (3, 3), (2, 2), pads)[0]
    assert_array_equal(max_pool2d(x, 3, 2, padding), wanted)


# (kernel, stride, padding, dilation)
WINDOWS = (
    (2, 2, 0, 1), (2, 1, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), ((1, 5), (3, 2), (0, 2), 1), ((4, 2), 2, 1, (1, 2)),
    ((7, 1), (1, 2), (3, 0), 1), (5, 2, 2, 3), (2, 3, 0, 1), (5, 3, 2, 1), ((2, 3), (2, 7), (0, 1), (3, 1)),
)  # fmt: skip


def shapes_and_windows():
    """Images as narrow and as wide as vectors of any kind, and windows for them; then planes with one window each."""
    for width in (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 18, 31, 33, 34, 70):
        for window in WINDOWS:
            yield (2, 3, 7, width), window
    for planes in (1, 2, 7, 8, 9, 23):
        for window in (((4, 5), 1, 0, 1), ((4, 5), 4, (1, 2), 1), ((2, 3), 9, 0, (3, 2)), ((3, 2), 9, (2, 1), (2, 3))):
            yield (planes, 1, 4, 5), window


def by_both(monkeypatch, kernels, pool):
    """What a pool gives by vectors of windows, and one by one; None where the window is larger than the image."""
    try:
        got = pool()
    except ValueError:
        return None
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "DTYPES", ())
        return got, pool()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16", "int8"])
@pytest.mark.parametrize("kind", ["drawn", "few values", "NaN"])
def test_windows_by_vectors_have_the_maxima_of_those_one_by_one(dtype, kind, monkeypatch):
    """And the same places: the first of equal pixels, and of NaN."""
    rng, compared = np.random.default_rng(len(dtype)), 0
    for shape, window in shapes_and_windows():
        x = (rng.standard_normal(shape) * (1 if kind == "few values" else 50)).astype(dtype)
        if kind == "NaN" and x.dtype.kind == "f":
            x[rng.random(x.shape) < 0.2] = np.nan
        both = by_both(monkeypatch, maxima, lambda: max_pool2d(x, *window, return_indices=True))  # noqa: B023
        if both is not None:
            compared += 1
            for one, other in zip(*both, strict=True):
                assert_array_equal(one, other, strict=True)
    assert compared > 130


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "complex64"])
@pytest.mark.parametrize(
    "counting", [{}, {"count_include_pad": False}, {"divisor_override": -3}], ids=["padded", "inside", "given"]
)
def test_windows_by_vectors_have_the_means_of_those_one_by_one(dtype, counting, monkeypatch):
    """To the bit, of numbers whose sums are rounded, and of zeros of either sign."""
    rng, compared = np.random.default_rng(len(dtype)), 0
    for shape, window in shapes_and_windows():
        x = np.where(rng.random(shape) < 0.2, -0.0, rng.standard_normal(shape) * 50).astype(dtype)
        both = by_both(monkeypatch, means, lambda: avg_pool2d(x, *window, **counting))  # noqa: B023
        if both is not None:
            compared += 1
            assert both[0].tobytes() == both[1].tobytes()
    assert compared > 130


@pytest.mark.parametrize("counting", [{}, {"count_include_pad": False}, {"divisor_override": -3}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_each_pixel_adds_up_the_shares_of_its_windows_in_order(dtype, counting, data):
    assert_shares(data.draw(poolings()), dtype, counting)


@pytest.mark.parametrize(
    "problem",
    [
        Pooling((1, 2, 7, 36), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),
        Pooling((1, 2, 8, 19), (2, 2), (2, 2), ((1, 0), (0, 1)), (1, 1), True),
        Pooling((2, 9, 4, 5), (4, 5), (4, 5), ((0, 0), (0, 0)), (1, 1), False),
        Pooling((1, 1, 9, 40), (5, 5), (3, 3), ((2, 1), (1, 2)), (1, 1), False),
        Pooling((1, 1, 9, 33), (4, 1), (1, 1), ((3, 3), (0, 0)), (2, 1), False),
        Pooling((1, 1, 1, 2), (1, 4), (1, 1), ((0, 0), (3, 0)), (1, 1), False),
        Pooling((1, 1, 3, 3), (6, 6), (1, 1), ((5, 5), (5, 5)), (1, 1), False),
    ],
    ids=str,
)
@pytest.mark.parametrize("counting", [{}, {"count_include_pad": False}, {"divisor_override": -3}])
def test_each_pixel_adds_up_the_shares_of_windows_that_are_a_case_of_their_own(problem, counting):
    assert_shares(problem, np.float32, counting)


def assert_shares(problem, dtype, counting):
    """Numbers whose sums are rounded, and zeros of either sign."""
    x = np.zeros(problem.shape, dtype)
    dy = np.random.default_rng(0).standard_normal(avg_pool2d(x, **problem.arguments).shape)
    dy = np.where(dy > 1.5, -0.0, dy).astype(dtype)
    for (oh, ow), pixels, taps in windows(problem.shape[2:], **problem.reference):
        seen = taps if counting.get("count_include_pad", True) else len(pixels)
        for h, w in pixels:
            x[:, :, h, w] += dy[:, :, oh, ow] / dtype(counting.get("divisor_override", seen))
    got = avg_pool2d_backward(dy, problem.shape[2:], **problem.arguments, **counting)
    assert got.tobytes() == x.tobytes()


@pytest.mark.parametrize("cost", [1, 40, 500])
def test_pieces_of_planes_have_the_bits_of_the_whole(cost, monkeypatch):
    """Rows and columns that begin anywhere."""

    def everything():
        results = []
        for shape, window in (((2, 3, 13, 33), window) for window in WINDOWS):
            x = np.random.default_rng(0).standard_normal(shape).astype("f4")
            y, indices = max_pool2d(x, *window, return_indices=True)
            mean = avg_pool2d(x, *window)
            gradient = avg_pool2d_backward(mean, shape[2:], *window)
            results += [y, indices, mean, gradient, max_pool2d_backward(y, x, *window)]
        for mode in ("constant", "edge", "reflect", "symmetric", "wrap"):
            padded = pad2d(x, ((2, 3), (4, 1)), mode=mode)
            results += [padded, pad2d_backward(padded, ((2, 3), (4, 1)), mode=mode)]
        return results

    wanted = everything()
    monkeypatch.setattr(tiles, "TILE_COST", cost)
    pooling._launch.cache_clear()
    try:
        for got, whole in zip(everything(), wanted, strict=True):
            assert got.tobytes() == whole.tobytes()
    finally:
        pooling._launch.cache_clear()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_only_window_may_reach_past_the_end(layout):
    """As PyTorch and ONNX have it: `ceil((3 - 4) / 3) + 1 = 1` windows."""
    image = np.arange(9.0).reshape(1, 1, 3, 3)
    x, window = (
        image.reshape(1, 3, 3, 1) if layout == "NHWC" else image,
        {"stride": 3, "ceil_mode": True, "layout": layout},
    )
    assert max_pool2d(x, 4, **window).ravel() == [8]
    assert avg_pool2d(x, 4, **window).ravel() == [4]
    dy = np.ones((1, 1, 1, 1))
    assert_allclose(avg_pool2d_backward(dy, 3, 4, **window), np.full(x.shape, 1 / 9))
    assert max_pool2d_backward(dy, x, 4, **window).ravel().tolist() == [0] * 8 + [1]
    with pytest.raises(ValueError, match=r"kernel 4x4 .* is larger than the padded input 3x3"):
        max_pool2d(x, 4, stride=1, ceil_mode=True, layout=layout)
