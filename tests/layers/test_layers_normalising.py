"""Batch normalisation of planes: exact sums, the results of NumPy's way, the same bits on any number of threads."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit import SGD, BatchNormalization
from convjit.algorithms.normalising import FEWEST
from convjit.layers import normalising, regularization

SHAPES = [(3, 2, FEWEST), (2, 3, 4, 5), (4, 2, 31, 33), (1, 1, 1025), (2, 5, 3, 7, 9)]


def numbers(shape, dtype, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) + 1).astype(dtype)


def trained(shape, dtype):
    """Output, gradient, weights and running statistics of a step, and the output and gradient of inference."""
    layer = BatchNormalization(momentum=0.5)
    layer.set_input_shape(shape[1:])
    layer.initialize(SGD(0.5))
    layer.gamma, layer.beta = 1 + np.arange(shape[1]) / 4, np.arange(shape[1]) / 8
    x, dy = numbers(shape, dtype), numbers(shape, dtype, seed=1)
    results = [layer.forward_pass(x), layer.backward_pass(dy), layer.gamma, layer.beta, layer.running_mean]
    results += [layer.running_var, layer.forward_pass(x, training=False)]
    layer.trainable = False
    return [*results, layer.forward_pass(x), layer.backward_pass(dy)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_of_integers_are_exact(shape, dtype):
    rng = np.random.default_rng(0)
    a, x = (rng.integers(-4, 5, shape).astype(dtype) for _ in range(2))
    q, m = (rng.integers(-2, 3, shape[1]).astype(dtype) for _ in range(2))
    axes = (0, *range(2, len(shape)))
    along = [np.expand_dims(values, tuple(range(1, len(shape) - 1))) for values in (q, m)]
    wanted = ((a - along[0]) * (x - along[1])).sum(axis=axes)
    assert_array_equal(normalising.product_sums(a, q, x, m), wanted)
    assert_array_equal(normalising.normalised(x, m, q, q, m), (x - along[1]) * along[0] * along[0] + along[1])
    dx = (a - (along[0] + (x - along[1]) * along[0] * along[1])) * along[1] * along[0]
    assert_array_equal(normalising.input_gradient(a, x, m, q, m, q, m), dx)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_planes_are_normalised_as_numpy_does(shape, dtype, monkeypatch):
    got = trained(shape, dtype)
    monkeypatch.setattr(normalising, "compiled", lambda *arrays: False)
    tolerance = {np.float32: 2e-5, np.float64: 1e-13}[dtype]
    for one, other in zip(got, trained(shape, dtype), strict=True):
        assert one.dtype == other.dtype
        assert_allclose(one, other, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_planes_have_the_same_bits_on_two_threads(dtype, monkeypatch):
    results = []
    for crew in (1, 2):
        monkeypatch.setattr(normalising, "workers", lambda nanoseconds, crew=crew: crew)
        results.append(trained((4, 3, 33, 31), dtype))
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)


def test_sums_err_no_more_than_blocks_do():
    x = np.random.default_rng(0).random((1, 1, 1 << 20)).astype(np.float32)
    zero = np.zeros(1, np.float32)
    wanted = np.square(x, dtype=np.float64).sum()
    got = normalising.product_sums(x, zero, x, zero)[0]
    # Chains of 64 in lanes, and a chain of 2048 chunks.
    assert abs(got - wanted) <= 40 * 2.0**-24 * wanted


def test_float16_is_computed_in_float32():
    x = (np.random.default_rng(0).standard_normal((64, 3)) * 500).astype(
        np.float16
    )  # whose squares float16 cannot hold
    layer, wide = BatchNormalization(), BatchNormalization()
    for each in (layer, wide):
        each.set_input_shape((3,))
        each.initialize(None)
    y, wanted = layer.forward_pass(x), wide.forward_pass(x.astype(np.float32))
    assert y.dtype == np.float16
    assert_array_equal(y, wanted.astype(np.float16))
    assert_array_equal(layer.running_var, wide.running_var)


def started(channels=3):
    layer = BatchNormalization(momentum=0.5)
    layer.set_input_shape((channels,))
    layer.initialize(SGD(0.1))
    return layer


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize("shape", [(2,), (1,), (3, 1), (4,), ()])
@pytest.mark.parametrize("pixels", [(), (2, 2), (8, 8)])
def test_numbers_for_other_channels_are_refused(name, shape, pixels):
    """Kernels read as many as there are channels."""
    layer = started()
    x = np.ones((2, 3, *pixels))
    layer.forward_pass(x)
    setattr(layer, name, np.ones(shape))
    for training in (True, False):
        with pytest.raises(ValueError, match=rf"^BatchNormalization.forward_pass: ({name} must|the layer has)"):
            layer.forward_pass(x, training)


def test_statistics_end_with_the_weights():
    layer = started(2)
    layer.forward_pass(np.full((4, 2, 8, 8), 5.0))
    layer.set_input_shape((6,))
    layer.initialize(SGD(0.1))
    assert layer.running_mean is layer.running_var is None
    assert layer.forward_pass(np.ones((1, 6, 8, 8)), training=False).shape == (1, 6, 8, 8)


def test_images_without_pixels_train_nothing():
    layer = started(2)
    layer.forward_pass(np.full((8, 2, 4), 9.0))
    with pytest.raises(ValueError, match="cannot train on an empty batch"):
        layer.forward_pass(np.zeros((3, 2, 0)))
    assert_array_equal(layer.running_mean, [9, 9])
    assert layer.forward_pass(np.zeros((3, 2, 0)), training=False).shape == (3, 2, 0)


def test_inference_writes_no_statistics(monkeypatch):
    """What another thread loads meanwhile stays."""
    layer, x = started(2), np.ones((4, 2, 8, 8))
    layer.forward_pass(x)
    loaded = np.full(2, 7.0), np.full(2, 9.0)
    run = regularization.normalised

    def loading(*arrays):
        layer.running_mean, layer.running_var = loaded
        return run(*arrays)

    monkeypatch.setattr(regularization, "normalised", loading)
    layer.forward_pass(x, training=False)
    layer.trainable = False
    assert (layer.running_mean is loaded[0], layer.running_var is loaded[1]) == (True, True)
    layer.forward_pass(x)
    assert (layer.running_mean is loaded[0], layer.running_var is loaded[1]) == (True, True)


@pytest.mark.parametrize(("name", "wanted"), [("running_mean", -3 / 4), ("running_var", 1 / 8)])
def test_one_statistic_alone_is_used_and_stays(name, wanted):
    layer = BatchNormalization(eps=0)
    layer.set_input_shape((2,))
    layer.initialize(None)
    given = np.full(2, 1.75 if name == "running_mean" else 64.0)
    setattr(layer, name, given)
    assert_array_equal(layer.forward_pass(np.ones((1, 2)), training=False), np.full((1, 2), wanted))
    assert getattr(layer, name) is given
