"""Dask arrays: the numbers of the whole, whatever the chunks, exactly, and on two processes."""

import os
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import convjit

pytest.importorskip("dask.array", reason="Dask is not installed; tests/functional tests what it would call")

import dask
import dask.array as da

from convjit.interop import dask as bridge


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


# Shapes of x and weight, chunks, options.
CASES = {
    "batch": ((7, 2, 5, 6), (3, 2, 3, 3), (2, 2, 5, 6), {"padding": 1}),
    "rows": ((2, 2, 17, 6), (3, 2, 3, 2), (2, 2, 5, 6), {}),
    "both": ((3, 2, 17, 13), (3, 2, 3, 4), (2, 2, 5, 4), {"padding": "same"}),
    "one image": ((2, 17, 13), (3, 2, 3, 4), (1, 6, 5), {"padding": ((2, 0), (1, 3))}),
    "stride": ((2, 2, 23, 20), (2, 2, 3, 2), (1, 2, 7, 5), {"stride": (2, 3), "padding": 1}),
    "stride over pixels": ((1, 2, 23, 20), (2, 2, 1, 2), (1, 2, 4, 3), {"stride": (3, 4)}),
    "dilation": ((1, 4, 19, 20), (4, 2, 3, 3), (1, 4, 6, 7), {"groups": 2, "dilation": (2, 3), "padding": "same"}),
    "channels": ((1, 4, 9, 9), (4, 4, 3, 3), (1, 3, 5, 9), {}),
    "tiny chunks": ((1, 1, 11, 12), (1, 1, 4, 5), (1, 1, 1, 2), {"padding": 2, "stride": 2}),
    "wide window": ((1, 1, 6, 12), (1, 1, 6, 9), (1, 1, 2, 3), {}),
    "unseen pixels": ((1, 1, 12, 12), (1, 1, 2, 2), (1, 1, 5, 5), {"stride": 5}),
}


def drawn(case, dtype=np.float64):
    x_shape, weight_shape, chunks, options = CASES[case]
    x, weight, bias = (
        integers(*x_shape).astype(dtype),
        integers(*weight_shape, seed=1).astype(dtype),
        integers(weight_shape[0]),
    )
    return x, weight, bias.astype(dtype), da.from_array(x, chunks=chunks), options


def assert_lazily(got, wanted):
    """The announced shape, dtype and chunks are what is computed."""
    assert isinstance(got, da.Array)
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    assert_array_equal(got.compute(), wanted, strict=True)
    for index in np.ndindex(got.numblocks):
        assert got.blocks[index].compute().shape == tuple(sizes[i] for sizes, i in zip(got.chunks, index, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.bool_])
@pytest.mark.parametrize("case", CASES)
def test_forward(case, dtype):
    x, weight, bias, chunked, options = drawn(case, dtype)
    assert_lazily(bridge.conv2d(chunked, weight, bias, **options), convjit.conv2d(x, weight, bias, **options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_gradients(case, dtype):
    x, weight, _, chunked, options = drawn(case, dtype)
    dy = integers(*convjit.conv2d(x, weight, **options).shape, seed=2).astype(dtype)
    wanted = convjit.conv2d_backward(dy, x, weight, **options)
    got = bridge.conv2d_backward(da.from_array(dy, chunks=4), chunked, weight, **options)
    for ours, whole in zip(got, wanted, strict=True):
        assert_lazily(ours, whole)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_padding_modes(mode):
    x, weight, bias, chunked, _ = drawn("both")
    options = {"padding": ((2, 1), (1, 2)), "padding_mode": mode, "stride": 2}
    assert_lazily(bridge.conv2d(chunked, weight, bias, **options), convjit.conv2d(x, weight, bias, **options))


@pytest.mark.parametrize("mode", ["edge", "symmetric", "wrap"])
def test_padding_that_shows_an_image_more_than_once(mode):
    x, weight, _, chunked, _ = drawn("both")
    options = {"padding": ((2 * x.shape[2] + 1, 0), (1, 3 * x.shape[3])), "padding_mode": mode}
    assert_lazily(bridge.conv2d(chunked, weight, **options), convjit.conv2d(x, weight, **options))


@pytest.mark.parametrize("mode", ["edge", "wrap", "constant"])
@pytest.mark.parametrize(
    "chunks", [((1,), (1,), (4,), (0, 0, 0, 2)), ((0, 1), (1,), (4,), (2,)), ((), (1,), (4,), (2,))]
)
def test_chunks_without_pixels(chunks, mode):
    x = integers(sum(chunks[0]), 1, 4, 2)
    options = {"padding": ((1, 0), (3, 3)), "padding_mode": mode}
    y = bridge.conv2d(da.from_array(x, chunks=chunks) if len(x) else da.ones(x.shape), np.ones((1, 1, 1, 1)), **options)
    assert_array_equal(y.compute(), convjit.conv2d(x, np.ones((1, 1, 1, 1)), **options))


def test_large_images_stay_in_chunks():
    """No task holds the image, or much more than a chunk with its neighbours' rows."""
    chunked = da.ones((1, 400, 400), chunks=(1, 100, 100), dtype=np.float32)
    weight = np.ones((1, 1, 5, 5), np.float32)
    y = bridge.conv2d(chunked, weight, padding="same")
    assert y.numblocks == (1, 4, 4)
    assert max(max(sizes) for sizes in y.chunks) <= 104
    dx, _, _ = bridge.conv2d_backward(y, chunked, weight, padding="same")
    assert max(max(sizes) for sizes in dx.chunks) <= 108


def test_gradients_that_are_not_needed():
    x, weight, _, chunked, options = drawn("both")
    dy = da.ones(convjit.conv2d(x, weight, **options).shape)
    for need in [(True, False, False), (False, True, False), (False, False, True)]:
        got = bridge.conv2d_backward(dy, chunked, weight, **options, need=need)
        assert [gradient is not None for gradient in got] == list(need)
        got = bridge.conv2d_backward(dy, chunked, weight, **options, need=(wanted for wanted in need))
        assert [gradient is not None for gradient in got] == list(need)


def test_two_processes(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed; other schedulers are tested")
    x, weight, bias, chunked, options = drawn("both")
    dy = integers(*convjit.conv2d(x, weight, **options).shape, seed=2)
    wanted = convjit.conv2d(x, weight, bias, **options), *convjit.conv2d_backward(dy, x, weight, **options)
    monkeypatch.chdir(tmp_path)  # workers keep files where they start
    with (
        mock.patch.dict(os.environ),  # in which the workers' numbers of threads would stay
        dask.config.set({"distributed.admin.tick.limit": "1h", "distributed.comm.timeouts.connect": "120s"}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        distributed.Client(cluster, timeout="120s") as client,
    ):
        client.wait_for_workers(2)
        lazily = bridge.conv2d(chunked, weight, bias, **options), *bridge.conv2d_backward(
            da.from_array(dy, chunks=4), chunked, weight, **options)  # fmt: skip
        got = client.gather(client.compute(list(lazily)))
    for ours, whole in zip(got, wanted, strict=True):
        assert_array_equal(ours, whole, strict=True)


X, W = da.ones((1, 2, 9, 9), chunks=(1, 2, 5, 5)), np.ones((3, 2, 3, 3))
REFUSED = {
    "array": (lambda: bridge.conv2d(np.ones((1, 2, 9, 9)), W), TypeError, "conv2d: x must be a dask.array.Array, got"),
    "weight": (lambda: bridge.conv2d(X, da.ones(W.shape)), TypeError, "conv2d: weight must be in memory, got a dask"),
    "ndim": (lambda: bridge.conv2d(X[0, 0], W), ValueError, r"conv2d: expected x of shape \(N, C, H, W\) or"),
    "channels": (lambda: bridge.conv2d(X[:, :1], W), ValueError, "conv2d: weight expects 2 input channels"),
    "bias": (lambda: bridge.conv2d(X, W, np.ones(2)), ValueError, r"conv2d: bias must have shape \(3,\) \(one value"),
    "kernel": (lambda: bridge.conv2d(X, np.ones((3, 2, 10, 3))), ValueError, "conv2d: kernel 10x3"),
    "mode": (lambda: bridge.conv2d(X, W, padding_mode="zeros"), ValueError, "conv2d: padding_mode must be one of"),
    "unknown": (lambda: bridge.conv2d(X[X[:, 0, 0, 0] > 0], W), ValueError, "conv2d: x has chunks of unknown size"),
    "gradient mode": (lambda: bridge.conv2d_backward(X, X, W, padding_mode="wrap"), ValueError,
                      "conv2d_backward: padding_mode must be 'constant' for gradients of Dask arrays, got 'wrap'"),
    "gradient": (lambda: bridge.conv2d_backward(X, X, W, padding_mode="constant"), ValueError,
                 "conv2d_backward: grad_output must have shape"),
    "gradient array": (lambda: bridge.conv2d_backward(W, X, W), TypeError, "conv2d_backward: grad_output must be a d"),
    "reflect": (lambda: bridge.conv2d(X, W, padding=9, padding_mode="reflect"), ValueError, "conv2d: padding with"),
    "mask": (lambda: bridge.conv2d(X, np.ma.array(W)), TypeError, "conv2d: weight is a masked array"),
    "dtype": (lambda: bridge.conv2d(X.astype("U3"), W), TypeError, "conv2d: x has dtype <U3"),
    "a need": (lambda: bridge.conv2d_backward(da.ones((1, 3, 7, 7)), X, W, need=5), TypeError,
               "conv2d_backward: need must be three bools"),
    "need": (lambda: bridge.conv2d_backward(da.ones((1, 3, 7, 7)), X, W, need=(True,)), ValueError,
             "conv2d_backward: need must be three bools"),
    "ragged": (lambda: bridge.conv2d(X, [[1], [1, 2]]), ValueError, "conv2d: weight is not a regular array: "),
    "ragged of a gradient": (lambda: bridge.conv2d_backward(X, X, [[1], [1, 2]]), ValueError,
                             "conv2d_backward: weight is not a regular array: "),
    "a keyword": (lambda: bridge.conv2d(X, W, strides=2), TypeError,
                  "conv2d: unknown keyword 'strides'; it is called 'stride' here$"),
    "a gradient's keyword": (lambda: bridge.conv2d_backward(X, X, W, dilations=2), TypeError,
                             "conv2d_backward: unknown keyword 'dilations'; it is called 'dilation' here$"),
    "padding": (lambda: bridge.conv2d(X, W, padding=2**28), ValueError,
                "conv2d: padding adds 11,529,[0-9,]* chunks to the 4 of x, 262,144 are the most; chunks of x that"),
    "padding of a mode": (lambda: bridge.conv2d(X, W, padding=2**28, padding_mode="edge"), ValueError,
                          "conv2d: padding adds"),
    "padding of a gradient": (lambda: bridge.conv2d_backward(X, X, W, padding=2**28), ValueError,
                              "conv2d_backward: padding adds"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    call, error, said = REFUSED[case]
    with pytest.raises(error, match=rf"^{said}"):
        call()
