"""The promises about numbers: accuracy, containment, and the same bits from any threads, slice or layout."""

import hashlib
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rows import GENERAL

from convjit import (
    avg_pool2d,
    avg_pool2d_backward,
    col2im,
    conv2d,
    conv2d_backward,
    conv2d_weight_grad,
    conv_transpose2d,
    conv_transpose2d_backward,
    im2col,
    max_pool2d,
    max_pool2d_backward,
    pad2d,
    pad2d_backward,
)
from convjit.functional import batches, bilinear, columns, padding, pools, slicing
from convjit.testing import Problem, assert_within_rounding, conv2d_cases, real_arrays

DTYPES = ["float32", "float64"]
WIDER = {"float32": np.float64, "float64": np.longdouble}
UNITS = {"normal": 8, "positive": 16}


def numbers(kind, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) if kind == "normal" else rng.random(shape)).astype(dtype)


def wide_convolution(x, weight, stride=1, pad=0):
    """conv2d of one group by shifted products, in the dtype of its arguments."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    kh, kw = weight.shape[2:]
    high, wide = (padded.shape[2] - kh) // stride + 1, (padded.shape[3] - kw) // stride + 1
    y = np.zeros((len(x), len(weight), high, wide), x.dtype)
    for i in range(kh):
        for j in range(kw):
            shifted = padded[:, :, i : i + (high - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride]
            y += np.einsum("oc,nchw->nohw", weight[:, :, i, j], shifted)
    return y


def wide_gradients(dy, x, weight, stride=1, pad=0):
    """Its input and weight gradients."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(weight)
    high, wide = dy.shape[2:]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            where = (..., slice(i, i + (high - 1) * stride + 1, stride), slice(j, j + (wide - 1) * stride + 1, stride))
            dpadded[where] += np.einsum("oc,nohw->nchw", weight[:, :, i, j], dy)
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, padded[where])
    return dpadded[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "stride"),
    [((2, 64, 12, 12), (8, 64, 3, 3), 1), ((4, 3, 30, 30), (16, 3, 7, 7), 2), ((8, 40, 6, 6), (200, 40, 1, 1), 1)],
)
def test_accuracy(x_shape, weight_shape, stride, dtype, kind):
    pad = weight_shape[2] // 2
    x, weight = numbers(kind, x_shape, dtype, 1), numbers(kind, weight_shape, dtype, 2)
    wide = [a.astype(WIDER[dtype]) for a in (x, weight)]
    y = conv2d(x, weight, stride=stride, padding=pad)
    magnitude = wide_convolution(*map(abs, wide), stride, pad)
    assert_within_rounding(y, wide_convolution(*wide, stride, pad), magnitude, UNITS[kind])
    dy = numbers(kind, y.shape, dtype, 3)
    wide.insert(0, dy.astype(WIDER[dtype]))
    dx, dw, db = conv2d_backward(dy, x, weight, stride=stride, padding=pad)
    exact, magnitudes = wide_gradients(*wide, stride, pad), wide_gradients(*map(abs, wide), stride, pad)
    assert_within_rounding(dx, exact[0], magnitudes[0], UNITS[kind])
    assert_within_rounding(dw, exact[1], magnitudes[1], UNITS[kind])
    assert_within_rounding(db, wide[0].sum((0, 2, 3)), abs(wide[0]).sum((0, 2, 3)), UNITS[kind])


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_of_a_million_terms(dtype, kind):
    x, dy = (numbers(kind, (1, 1, 1024, 1024), dtype, seed) for seed in (1, 2))
    _, dw, db = conv2d_backward(dy, x, np.ones((1, 1, 1, 1), dtype), need=(False, True, True))
    wide_x, wide_dy = x.astype(WIDER[dtype]), dy.astype(WIDER[dtype])
    products = wide_x * wide_dy
    assert_within_rounding(dw.ravel(), [products.sum()], [abs(products).sum()], UNITS[kind])
    assert_within_rounding(db, [wide_dy.sum()], [abs(wide_dy).sum()], UNITS[kind])


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_of_many_channels(dtype, kind):
    x, weight = numbers(kind, (1, 100_000, 1, 1), dtype, 1), numbers(kind, (1, 100_000, 1, 1), dtype, 2)
    products = x.astype(WIDER[dtype]) * weight.astype(WIDER[dtype])
    y = conv2d(x, weight)
    assert_within_rounding(y.ravel(), [products.sum()], [abs(products).sum()], UNITS[kind])
    # Many output channels: the input gradient sums over them.
    dx = conv2d_backward(x, np.ones((1, 1, 1, 1), dtype), weight.reshape(-1, 1, 1, 1), need=(True, False, False))[0]
    assert_within_rounding(dx.ravel(), [products.sum()], [abs(products).sum()], UNITS[kind])


# --- containment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", GENERAL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@given(data=st.data())
def test_a_bad_pixel_stays_in_its_receptive_field(data, bad, algorithm):
    case = data.draw(conv2d_cases("float32", real_arrays))
    options = {**case.problem.options, "algorithm": algorithm}
    pixel = tuple(data.draw(st.integers(0, n - 1)) for n in case.x.shape)
    marked, spoilt = np.zeros_like(case.x), case.x.copy()
    marked[pixel], spoilt[pixel] = 1, bad
    field = conv2d(marked, np.ones_like(case.weight), **options) > 0
    before, after = (conv2d(x, case.weight, **options) for x in (case.x, spoilt))
    assert after[~field].tobytes() == before[~field].tobytes()
    if not np.isfinite(bad):
        assert not np.isfinite(after[field]).any()
    hits = conv2d_weight_grad(np.ones_like(before), marked, case.problem.kernel, **options) > 0
    before, after = (conv2d_weight_grad(case.grad_output, x, case.problem.kernel, **options) for x in (case.x, spoilt))
    assert after[~hits].tobytes() == before[~hits].tobytes()


@pytest.mark.parametrize("algorithm", GENERAL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@given(data=st.data())
def test_a_bad_gradient_stays_where_its_pixels_are(data, bad, algorithm):
    case = data.draw(conv2d_cases("float32", real_arrays))
    options = {**case.problem.options, "algorithm": algorithm}
    pixel = tuple(data.draw(st.integers(0, n - 1)) for n in case.grad_output.shape)
    marked, spoilt = np.zeros_like(case.grad_output), case.grad_output.copy()
    marked[pixel], spoilt[pixel] = 1, bad
    seen = conv2d_backward(marked, np.ones_like(case.x), np.ones_like(case.weight), **options)[0] > 0
    before, after = (conv2d_backward(dy, case.x, case.weight, **options) for dy in (case.grad_output, spoilt))
    assert after[0][~seen].tobytes() == before[0][~seen].tobytes()
    others = np.arange(len(case.weight)) != pixel[-3]
    for index in (1, 2):  # only the gradients of its own output channel
        assert after[index][others].tobytes() == before[index][others].tobytes()


@pytest.mark.parametrize("algorithm", GENERAL)
@given(data=st.data())
def test_a_bad_weight_stays_in_its_channels(data, algorithm):
    case = data.draw(conv2d_cases("float32", real_arrays))
    options = {**case.problem.options, "algorithm": algorithm}
    tap = tuple(data.draw(st.integers(0, n - 1)) for n in case.weight.shape)
    spoilt = case.weight.copy()
    spoilt[tap] = np.nan
    before, after = (conv2d(case.x, w, **options) for w in (case.weight, spoilt))
    others = np.arange(len(case.weight)) != tap[0]
    assert after[..., others, :, :].tobytes() == before[..., others, :, :].tobytes()
    before, after = (
        conv2d_backward(case.grad_output, case.x, w, **options, need=(True, False, False))[0]
        for w in (case.weight, spoilt)
    )
    group = tap[0] // (len(case.weight) // case.problem.groups)
    others = np.arange(case.x.shape[-3]) != group * case.weight.shape[1] + tap[1]
    assert after[..., others, :, :].tobytes() == before[..., others, :, :].tobytes()


# --- determinism ----------------------------------------------------------------------------------------------------


def digest(*arrays):
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def everything(dtype="float32"):
    """A digest of every operation, on problems large enough for more than one thread."""
    x, weight = numbers("normal", (4, 6, 40, 41), dtype, 1), numbers("normal", (10, 6, 3, 3), dtype, 2)
    y = conv2d(x, weight, padding=1)
    gradients = conv2d_backward(y, x, weight, padding=1)
    strided = conv2d_backward(y[..., ::2, ::2], x, weight, stride=2, padding=1)
    taps = im2col(x, 3)
    turned = conv_transpose2d(y, weight)
    return digest(
        y, *gradients, *strided, taps, col2im(taps, (40, 41), 3), turned,
        *conv_transpose2d_backward(turned, y, weight), pad2d(x, 3, mode="reflect"), pad2d_backward(x, 3, mode="wrap"),
        max_pool2d(x, 3, 1), max_pool2d_backward(x[..., 2:, 2:], x, 3, 1), avg_pool2d(x, 3, 1),
        avg_pool2d_backward(x, (42, 43), 3, 1),
    )  # fmt: skip


@pytest.fixture
def crews(monkeypatch):
    """Sets how many workers every operation gets."""

    def set_crew(count):
        for module in (batches, bilinear, columns, padding, pools, slicing):
            monkeypatch.setattr(module, "workers", lambda _: count)

    return set_crew


def test_any_number_of_workers_gives_the_same_bits(crews):
    crews(1)
    serial = everything()
    for count in (2, 3, 7):
        crews(count)
        assert everything() == serial, f"{count} workers"


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread: the test of workers runs both twins")
def test_any_number_of_threads_gives_the_same_bits():
    before = numba.get_num_threads()
    try:
        digests = set()
        for threads in range(1, min(4, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(threads)
            digests.add(everything())
            assert numba.get_num_threads() == threads
    finally:
        numba.set_num_threads(before)
    assert len(digests) == 1


def test_another_process_gives_the_same_bits():
    here = os.path.dirname(__file__)
    code = (
        f"import sys; sys.path[:0] = {[here, os.path.dirname(here)]}; import test_promises as t; print(t.everything())"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == everything(), done.stderr


@given(case=conv2d_cases("float32", real_arrays))
def test_a_slice_of_the_batch_gives_the_same_bits(case):
    problem = case.problem
    x = np.concatenate([case.x.reshape(problem.batched_x_shape)] * 2 + [np.ones(problem.batched_x_shape, np.float32)])
    y = conv2d(x, case.weight, case.bias, **problem.options)
    dx = conv2d_backward(y, x, case.weight, **problem.options)[0]
    for n in range(len(x)):
        alone = slice(n, n + 1)
        assert conv2d(x[alone], case.weight, case.bias, **problem.options).tobytes() == y[alone].tobytes()
        got = conv2d_backward(y[alone], x[alone], case.weight, **problem.options, need=(True, False, False))[0]
        assert got.tobytes() == dx[alone].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slice_of_a_large_batch_gives_the_same_bits(dtype):
    x, weight = numbers("normal", (17, 5, 19, 23), dtype, 1), numbers("normal", (9, 5, 3, 3), dtype, 2)
    y = conv2d(x, weight, padding="same")
    for part in (slice(0, 1), slice(3, 9), slice(16, 17)):
        assert_array_equal(conv2d(x[part], weight, padding="same"), y[part])


def test_repeated_calls_give_the_same_bits():
    assert len({everything() for _ in range(3)}) == 1


@given(case=conv2d_cases("float64", real_arrays, max_groups=1))
def test_channels_alone_give_the_same_bits(case):
    """An output channel does not depend on which others are computed with it."""
    y = conv2d(case.x, case.weight, **case.problem.options)
    for o in range(len(case.weight)):
        assert_array_equal(conv2d(case.x, case.weight[o : o + 1], **case.problem.options), y[..., o : o + 1, :, :])


def test_exact_far_beyond_one_block():
    """Sums of 2^23 in float32 and 2^52 in float64, reached in every block and level."""
    for dtype, largest in (("float32", 1 << 23), ("float64", 1 << 52)):
        terms = 1 << 16
        x = np.full((1, terms, 1, 1), largest // terms, dtype)
        assert conv2d(x, np.ones((1, terms, 1, 1), dtype)) == largest
        problem = Problem((1, 1, 256, 256), (1, 1, 1, 1))
        planes = x.reshape(problem.x_shape)
        _, dw, db = conv2d_backward(planes, np.ones_like(planes), np.ones((1, 1, 1, 1), dtype))
        assert dw == db == largest
