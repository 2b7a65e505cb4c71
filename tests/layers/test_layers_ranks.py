"""Layers of sequences and volumes: those of images, in another number of dimensions."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from spatial import RANKS, function

import convjit
from convjit import SGD, Activation, Adam, Dense, Flatten, Sequential
from convjit.interop import weights

SIZES = {1: (12,), 3: (4, 6, 5)}
COPIES = [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]


def whole(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def layer_of(kind, rank, **options):
    """A layer of 4 filters of two taps a dimension, with integers for weights."""
    options = {"input_shape": (2, *SIZES[rank]), "groups": 2, "padding": ((1, 0),) * rank, "stride": 2} | options
    layer = getattr(convjit, kind.replace("2D", f"{rank}D"))(4, (2,) * rank, **options)
    layer.initialize(SGD(1.0))
    layer.W, layer.w0 = whole(*layer.W.shape, seed=1), whole(*layer.w0.shape, seed=2)
    return layer


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", ["Conv2D", "Conv2DTranspose"])
def test_a_step_is_that_of_the_functions(kind, rank):
    layer, x = layer_of(kind, rank, dilation=2), whole(3, 2, *SIZES[rank], seed=3)
    name = {"Conv2D": "conv2d", "Conv2DTranspose": "conv_transpose2d"}[kind]
    options = {"stride": 2, "padding": ((1, 0),) * rank, "groups": 2, "dilation": 2}
    W, w0 = layer.W, layer.w0
    y = layer.forward_pass(x)
    assert_array_equal(y, function(name, rank)(x, W, w0.ravel(), **options))
    assert y.shape[1:] == layer.output_shape()
    dy = whole(*y.shape, seed=4)
    dx = layer.backward_pass(dy)
    wanted = function(f"{name}_backward", rank)(dy, x, W, **options)
    for got, exact in zip((dx, W - layer.W, (w0 - layer.w0).ravel()), wanted, strict=True):
        assert_array_equal(got, exact)
    assert layer.parameters() == W.size + 4
    assert layer.layer_name() == type(layer).__name__


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", ["MaxPooling2D", "AveragePooling2D"])
def test_pools_are_those_of_the_functions(kind, rank):
    layer, x = getattr(convjit, kind.replace("2D", f"{rank}D"))(2, stride=2, padding=1), whole(3, 2, *SIZES[rank])
    layer.set_input_shape(x.shape[1:])
    name = {"MaxPooling2D": "max_pool2d", "AveragePooling2D": "avg_pool2d"}[kind]
    y = layer.forward_pass(x)
    assert_array_equal(y, function(name, rank)(x, 2, 2, 1))
    assert y.shape[1:] == layer.output_shape()
    dy = whole(*y.shape, seed=4)
    given = x if kind == "MaxPooling2D" else SIZES[rank]
    assert_array_equal(layer.backward_pass(dy), function(f"{name}_backward", rank)(dy, given, 2, 2, 1))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_means_over_another_divisor(rank):
    kind, size = getattr(convjit, f"AveragePooling{rank}D"), {2: (5, 6), **SIZES}[rank]
    layer, x = kind(2, stride=2, padding=1, divisor_override=-4), whole(3, 2, *size)
    y = layer.forward_pass(x)
    assert_array_equal(y, function("avg_pool2d", rank)(x, 2, 2, 1, divisor_override=-4))
    assert_array_equal(
        layer.backward_pass(y), function("avg_pool2d_backward", rank)(y, size, 2, 2, 1, divisor_override=-4)
    )
    for divisor, error, said in (
        (0, ValueError, "must be an integer other than 0, got 0"),
        (2.0, TypeError, "must be an integer other than 0, got float 2.0"),
        (True, TypeError, "must be an integer other than 0, got bool True"),
        (2**70, ValueError, f"must be at most 2147483647, got {2**70}"),
    ):
        with pytest.raises(error, match=rf"^{kind.__name__}: divisor_override {said}$"):
            kind(divisor_override=divisor)


def network(rank, seed=0):
    """Every kind of layer that has this rank, for sequences or volumes of 2 channels."""

    def kind(name):
        return getattr(convjit, f"{name}{rank}D")

    options = {"dtype": np.float32, "rng": seed}
    transposed = getattr(convjit, f"Conv{rank}DTranspose")
    return Sequential(
        [
            kind("Conv")(4, 3, input_shape=(2, *SIZES[rank]), **options), Activation("relu"),
            kind("MaxPooling")(2, 2), transposed(3, 2, stride=2, padding="valid", **options),
            kind("AveragePooling")(2), convjit.BatchNormalization(), Flatten(), Dense(2, **options),
            Activation("softmax"),
        ],
        optimizer=Adam(0.02),
    )  # fmt: skip


def data(rank):
    x = np.random.default_rng(0).standard_normal((24, 2, *SIZES[rank])).astype(np.float32)
    return x, (x.mean(axis=tuple(range(1, x.ndim))) > 0).astype(int)


@pytest.mark.parametrize("rank", RANKS)
def test_a_network_is_trained_frozen_copied_and_saved(rank, tmp_path):
    (x, labels), model = data(rank), network(rank)
    history = model.fit(x, labels, epochs=25, batch_size=8, rng=0)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    predicted = model.predict(x)
    model.freeze()
    for again in [lambda thing: thing, *COPIES]:
        assert_array_equal(again(model).predict(x), predicted)
    assert type(model.layers[0]._plan).__name__ == f"Conv{rank}DPlan"
    for path, save, load in (
        ("own.npz", Sequential.save, Sequential.load),
        ("torch.npz", weights.save_weights, weights.load_weights),
    ):
        save(model, tmp_path / path)
        other = network(rank, seed=9)
        other.fit(x, labels, epochs=1, rng=1)  # which makes running means
        assert (other.predict(x) != predicted).any()
        load(other, tmp_path / path)
        assert_array_equal(other.predict(x), predicted)
    assert list(weights.state_dict(model))[:2] == ["0.weight", "0.bias"]


ERRORS = {
    "shape": (lambda: convjit.Conv1D(2, 3, input_shape=(1, 2, 3)), r"Conv1D: input_shape must be \(channels, length\)"),
    "filter": (lambda: convjit.Conv3D(2, (3, 3)), "Conv3D: filter_shape must have 1 or 3 entries, got 2"),
    "padding": (lambda: convjit.Conv3DTranspose(2, 3, padding=(1, 2)), "Conv3DTranspose: padding must have 1 or 3"),
    "pool": (lambda: convjit.MaxPooling1D((2, 2)), "MaxPooling1D: pool_shape must have 1 entry, got 2"),
    "batch": (
        lambda: convjit.AveragePooling3D().forward_pass(np.ones((1, 1, 4, 4))),
        r"AveragePooling3D.forward_pass: expected X of shape \(N, C, D, H, W\)",
    ),
    "sizes": (lambda: convjit.Conv3D(2, 3, input_shape=(1, 2, 3, -1)), "Conv3D: input_shape must be four ints >= 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, said = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


@pytest.mark.parametrize("kind", ["Conv1D", "Conv3D", "Conv1DTranspose", "Conv3DTranspose", "MaxPooling1D"])
def test_unknown_and_missing_arguments_name_the_layer(kind):
    with pytest.raises(TypeError, match=rf"^{kind}: unknown keyword 'strides'; it is called 'stride' here"):
        getattr(convjit, kind)(2, 3, strides=1)
    if "Conv" in kind:
        with pytest.raises(TypeError, match=rf"^{kind}: missing 1 required positional argument: 'filter_shape'"):
            getattr(convjit, kind)(2)


def test_beside_pytorch():
    torch = pytest.importorskip("torch")
    for rank in RANKS:
        for name, theirs in (
            ("Conv2D", f"Conv{rank}d"), ("Conv2DTranspose", f"ConvTranspose{rank}d")
        ):  # fmt: skip
            ours = layer_of(name, rank, padding=1)
            module = getattr(torch.nn, theirs)(2, 4, 2, stride=2, padding=1, groups=2, dtype=torch.float64)
            module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.state_dict(ours).items()})
            x = whole(2, 2, *SIZES[rank])
            assert_array_equal(ours.forward_pass(x), module(torch.from_numpy(x)).detach().numpy())
