"""Padding, columns and pools in one dimension and three, against their definitions, NumPy and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from spatial import MODES, RANKS, function, spatials
from test_pooling import by_both

from convjit import avg_pool3d, max_pool3d
from convjit.gemm import maxima as maximum_kernels
from convjit.gemm import means as mean_kernels
from convjit.testing import check_adjoint, exact_arrays, real_arrays
from convjit.testing.spatial import reference_columns, windows

# Of another library's sums, in another order.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
# What sums of windows may be divided by; kernels once took -1 for no divisor at all.
DIVISORS = (1, 2, 3, 9, -1, -2, -9, 2**31 - 1, 1 - 2**31)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_padding_is_numpy_s(data, rank, mode):
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * (2 + rank)))
    most = [3 if mode != "reflect" else n - 1 for n in shape[2:]]
    pads = tuple((data.draw(st.integers(0, m)), data.draw(st.integers(0, m))) for m in most)
    x = data.draw(exact_arrays(shape))
    padded = function("pad2d", rank)(x, pads, mode=mode)
    assert_array_equal(padded, np.pad(x, [(0, 0), (0, 0), *pads], mode), strict=True)
    assert_array_equal(function("pad2d", rank)(x[0], pads, mode=mode), padded[0], strict=True)
    check_adjoint(
        lambda x: function("pad2d", rank)(x, pads, mode=mode),
        lambda dy: function("pad2d_backward", rank)(dy, pads, mode=mode), x, data.draw(exact_arrays(padded.shape)),
    )  # fmt: skip


@pytest.mark.parametrize("rank", RANKS)
def test_padding_with_a_value_and_of_halves(rank):
    x = np.ones((1, 1, *(2,) * rank), np.float16)
    padded = function("pad2d", rank)(x, 1, value=7)
    assert padded.dtype == np.float16
    assert padded.sum() == 7 * 4**rank - 6 * 2**rank
    # Rounded once, after all axes: 2049 ones are not a float16, 2048 + 4 are.
    dy = np.ones((1, 1, *(3,) * rank), np.float16)
    dy[(0, 0, *(0,) * rank)] = 2048
    dx = function("pad2d_backward", rank)(dy, 1, mode="edge")
    assert dx.ravel() == np.float16(2048 + 3**rank - 1)


@pytest.mark.parametrize("dtype", ["float32", "int8", "complex128"])
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_columns_are_windows(data, rank, dtype):
    problem = data.draw(spatials(rank))
    x = data.draw(exact_arrays(problem.x_shape)).astype(dtype)
    columns = function("im2col", rank)(x, problem.kernel, **problem.window)
    wanted = reference_columns(x, problem.kernel, problem.stride, problem.pads, problem.dilation)
    assert_array_equal(columns, wanted, strict=True)
    assert_array_equal(function("im2col", rank)(x[0], problem.kernel, **problem.window), columns[0], strict=True)


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_folding_is_the_adjoint_of_unfolding(data, rank):
    problem = data.draw(spatials(rank))
    x = data.draw(exact_arrays(problem.x_shape))
    columns = function("im2col", rank)(x, problem.kernel, **problem.window)
    check_adjoint(
        lambda x: function("im2col", rank)(x, problem.kernel, **problem.window),
        lambda c: function("col2im", rank)(c, problem.x_shape[2:], problem.kernel, **problem.window), x,
        data.draw(exact_arrays(columns.shape)),
    )  # fmt: skip


# --- pools ----------------------------------------------------------------------------------------------------------


@st.composite
def pools(draw, rank):
    """The shape of images and the arguments of a pool; long rows are computed tap by tap."""
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (3, 4, 2))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = tuple((draw(st.integers(0, e - 1)), draw(st.integers(0, e - 1))) for e in extents)
    beyond = [*(draw(st.integers(0, 3)) for _ in range(rank - 1)), draw(st.integers(0, 4) | st.integers(16, 80))]
    ceil_mode = draw(st.booleans())
    # A window may reach past the end by less than a stride, also if it is the only one.
    short = [draw(st.integers(0, s - 1)) if ceil_mode else 0 for s in stride]
    sizes = [max(1, e - sum(p) - less) + more for e, p, less, more in zip(extents, pads, short, beyond, strict=True)]
    window = {"kernel": kernel, "stride": stride, "pads": pads, "dilation": dilation, "ceil_mode": ceil_mode}
    return (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes), window


def test_the_oracle_lists_no_taps_behind_the_padding():
    """Of which a kernel may have more than anybody can wait for."""
    huge = 2**31 - 1
    assert list(windows((2,), (huge,), (huge,), ((0, 1),), (1,), True)) == [((0,), [(0,), (1,)], 3)]


def called(window):
    """As the functions take it."""
    return {
        "kernel_size": window["kernel"], "stride": window["stride"], "padding": window["pads"],
        "dilation": window["dilation"], "ceil_mode": window["ceil_mode"],
    }  # fmt: skip


def maxima(x, window):
    """By the definition: the first maximum or NaN of each window, and its place."""
    seen = list(windows(x.shape[2:], **window))
    out = (*x.shape[:2], *(n + 1 for n in seen[-1][0]))
    y = np.full(out, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
    where = np.full(out, -1)
    for position, pixels, _ in seen:
        if pixels:
            values = np.stack([x[:, :, *pixel] for pixel in pixels])
            first = values.argmax(0)
            y[:, :, *position] = np.take_along_axis(values, first[None], 0)[0]
            where[:, :, *position] = np.array([np.ravel_multi_index(pixel, x.shape[2:]) for pixel in pixels])[first]
    return y, where


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint64", "float16"])
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_maximum_and_where(data, rank, dtype):
    shape, window = data.draw(pools(rank))
    x = data.draw(exact_arrays(shape, dtype))  # few values, so many ties
    if dtype == "float32":
        x[x == 3] = np.nan
    y, indices = function("max_pool2d", rank)(x, **called(window), return_indices=True)
    wanted, where = maxima(x, window)
    assert_array_equal(y, wanted, strict=True)
    assert_array_equal(indices, where)
    assert_array_equal(function("max_pool2d", rank)(x[0], **called(window)), wanted[0], strict=True)


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_gradient_of_the_maximum(data, rank):
    shape, window = data.draw(pools(rank))
    x = data.draw(exact_arrays(shape))
    wanted, where = maxima(x, window)
    dy = data.draw(exact_arrays(wanted.shape))
    dx = np.zeros((*shape[:2], int(np.prod(shape[2:]))))
    for at in np.ndindex(*where.shape):
        if where[at] >= 0:
            dx[at[0], at[1], where[at]] += dy[at]
    got = function("max_pool2d_backward", rank)(dy, x, **called(window))
    assert_array_equal(got, dx.reshape(shape), strict=True)
    assert_array_equal(function("max_pool2d_backward", rank)(dy, x, **called(window), indices=where), got)


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_mean_and_its_adjoint(data, rank, include_pad):
    shape, window = data.draw(pools(rank))
    x = data.draw(exact_arrays(shape))
    pool, arguments = function("avg_pool2d", rank), {**called(window), "count_include_pad": include_pad}
    y = pool(x, **arguments)
    for position, pixels, taps in windows(shape[2:], **window):
        total = sum((x[:, :, *pixel] for pixel in pixels), np.zeros(shape[:2]))
        counted = taps if include_pad else max(len(pixels), 1)
        assert_array_equal(y[:, :, *position], total / counted if pixels else 0 * total)
    dy = data.draw(real_arrays(y.shape))
    dx = function("avg_pool2d_backward", rank)(dy, shape[2:], **arguments)
    assert_allclose(np.vdot(dx, x), np.vdot(dy, y), rtol=1e-12, atol=1e-9)
    assert_array_equal(function("avg_pool2d_backward", rank)(dy[0], shape[2:], **arguments), dx[0])
    assert pool(x.astype(int), **arguments).dtype == np.float64
    assert_array_equal(pool(x + 1j, **arguments).real, y)


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
@given(data=st.data(), divisor=st.sampled_from(DIVISORS))
def test_a_divisor_that_is_given(data, rank, include_pad, divisor):
    shape, window = data.draw(pools(rank))
    x = data.draw(exact_arrays(shape))
    pool, back = function("avg_pool2d", rank), function("avg_pool2d_backward", rank)
    arguments = {**called(window), "count_include_pad": include_pad, "divisor_override": divisor}
    y = pool(x, **arguments)
    for position, pixels, _ in windows(shape[2:], **window):
        total = sum((x[:, :, *pixel] for pixel in pixels), np.zeros(shape[:2]))
        assert_array_equal(y[:, :, *position], total / divisor)
    dy = divisor * data.draw(exact_arrays(y.shape))
    dx = back(dy, shape[2:], **arguments)
    assert np.vdot(dx, x) == np.vdot(dy // divisor, pool(x, **{**arguments, "divisor_override": 1}))
    if rank == 2:
        last = {**arguments, "layout": "NHWC"}
        assert_array_equal(np.moveaxis(pool(np.moveaxis(x, 1, -1), **last), -1, 1), y)
        assert_array_equal(np.moveaxis(back(np.moveaxis(dy, 1, -1), shape[2:], **last), -1, 1), dx)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("divisor", "error", "said"),
    [
        (0, ValueError, "must be an integer other than 0, got 0"),
        (2.0, TypeError, "must be an integer other than 0, got float 2.0"),
        (True, TypeError, "must be an integer other than 0, got bool True"),
        (2**70, ValueError, f"must be at most 2147483647, got {2**70}"),
        (-(2**31), ValueError, "must be at least -2147483647, got -2147483648"),
    ],
)
def test_divisors_that_are_refused(rank, divisor, error, said):
    x = np.ones((1, 1, *[4] * rank))
    for name, rest in (("avg_pool2d", (2,)), ("avg_pool2d_backward", (8, 2))):
        called_by = function(name, rank)
        with pytest.raises(error, match=rf"^{called_by.__name__}: divisor_override {said}$"):
            called_by(x, *rest, divisor_override=divisor)


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_pytorch_agrees(data, rank):
    torch = pytest.importorskip("torch")
    kernel, stride, dilation = (tuple(data.draw(st.integers(1, most)) for _ in range(rank)) for most in (3, 3, 2))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    x = data.draw(real_arrays((2, 2, *(data.draw(st.integers(5, 9)) for _ in range(rank)))))
    ceil_mode = data.draw(st.booleans())
    arguments = (kernel, stride, padding)
    y, where = function("max_pool2d", rank)(x, *arguments, dilation, ceil_mode=ceil_mode, return_indices=True)
    theirs = getattr(torch.nn.functional, f"max_pool{rank}d")(
        torch.tensor(x), *arguments, dilation, ceil_mode=ceil_mode, return_indices=True
    )
    assert_array_equal(y, theirs[0].numpy())
    assert_array_equal(where, theirs[1].numpy())
    leaf = torch.tensor(x, requires_grad=True)
    # PyTorch has no divisor in one dimension.
    given = {"divisor_override": data.draw(st.none() | st.sampled_from(DIVISORS))} if rank > 1 else {}
    options = {"ceil_mode": ceil_mode, **given}
    mean = getattr(torch.nn.functional, f"avg_pool{rank}d")(leaf, *arguments, **options)
    assert_allclose(function("avg_pool2d", rank)(x, *arguments, **options), mean.detach().numpy(), **CLOSE)
    mean.backward(torch.ones_like(mean))
    dx = function("avg_pool2d_backward", rank)(np.ones(mean.shape), x.shape[2:], *arguments, **options)
    assert_allclose(dx, leaf.grad.numpy(), **CLOSE)


# Of volumes (2, 2, 4, 5, width): (kernel, stride, padding, dilation)
DEEP_WINDOWS = (
    (2, 2, 0, 1), (3, 1, 1, 1), ((1, 2, 5), (2, 1, 2), (0, 1, 2), 1), ((2, 3, 1), (3, 2, 1), (1, 1, 0), (2, 1, 1)),
    (3, (2, 1, 3), 1, (1, 2, 1)), ((4, 5, 2), 1, 0, 1),
)  # fmt: skip


@pytest.mark.parametrize("window", DEEP_WINDOWS, ids=str)
def test_windows_of_volumes_by_vectors_are_those_one_by_one(window, monkeypatch):
    """Maxima with their places, of ties and NaN, and means to the bit."""
    rng = np.random.default_rng(0)
    for dtype, width in ((dtype, width) for dtype in ("float32", "float64", "int64") for width in (5, 9, 18, 35)):
        x = rng.standard_normal((2, 2, 4, 5, width)) * 3
        if dtype != "int64":
            x[rng.random(x.shape) < 0.1] = np.nan
        x = x.astype(dtype)
        largest, wanted = by_both(monkeypatch, maximum_kernels, lambda: max_pool3d(x, *window, return_indices=True))  # noqa: B023
        for one, other in zip(largest, wanted, strict=True):
            assert_array_equal(one, other, strict=True)
        x = np.where(rng.random(x.shape) < 0.2, -0.0, rng.standard_normal(x.shape)).astype(dtype)
        for counting in ({}, {"count_include_pad": False}, {"divisor_override": -3}):
            both = by_both(monkeypatch, mean_kernels, lambda: avg_pool3d(x, *window, **counting))  # noqa: B023
            assert both[0].tobytes() == both[1].tobytes()
