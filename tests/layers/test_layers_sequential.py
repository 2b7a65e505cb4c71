"""Losses and the network: gradients, training, what is shown and what is kept on disk."""

import copy
import os
import pickle
import re
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit import (
    SGD,
    Activation,
    Adam,
    BatchNormalization,
    Conv2D,
    CrossEntropy,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Loss,
    MaxPooling2D,
    Sequential,
    SquareLoss,
)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def softmax(z):
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


def rows_of_the_plane(n=120):
    """Points of a plane and which of three sectors they are in."""
    points = numbers(n, 2, seed=5)
    return points, (np.arctan2(points[:, 1], points[:, 0]) // (2 * np.pi / 3) + 2).astype(int) % 3


def network(optimizer=None, loss="cross_entropy", seed=0, dtype=np.float64):
    """A small network of rows, with running means."""
    layers = [
        Dense(8, input_shape=(2,), rng=seed, dtype=dtype),
        BatchNormalization(),
        Activation("tanh"),
        Dense(3, rng=seed + 1, dtype=dtype),
        Activation("softmax"),
    ]
    return Sequential(layers, optimizer=optimizer or Adam(0.05), loss=loss)


def image_network(seed=0):
    return Sequential(
        [
            Conv2D(4, (3, 3), input_shape=(1, 6, 6), rng=seed, initializer="he"),
            Activation("relu"),
            MaxPooling2D((2, 2), stride=2),
            Flatten(),
            Dropout(0.1, rng=seed),
            Dense(2, rng=seed),
            Activation("softmax"),
        ],
        optimizer=Adam(0.02),
    )


def weights_of(model):
    """Every weight and running mean, copied."""
    names = [(i, n) for i, layer in enumerate(model.layers) for n in (*layer.weight_names, *layer.buffer_names)]
    return {f"{i}.{name}": copy.deepcopy(getattr(model.layers[i], name)) for i, name in names}


def assert_same_weights(model, wanted):
    got = weights_of(model)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_array_equal(got[name], value, err_msg=name, strict=True)


def central_differences(function, x, step=1e-6):
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(function(moved))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


# --- what nobody needs ------------------------------------------------------------------------------------------------


FIRST = {
    "Conv2D": (lambda: Conv2D(3, (3, 3), input_shape=(2, 5, 5), rng=0), (4, 2, 5, 5)),
    "Dense": (lambda: Dense(3, input_shape=(6,), rng=0), (4, 6)),
}


@pytest.mark.parametrize("kind", FIRST)
def test_a_layer_that_is_spared_its_input_gradient_learns_the_same(kind):
    make, shape = FIRST[kind]
    steps = []
    for need in (True, False):
        layer = make()
        layer.initialize(SGD(0.1))
        dy = layer.forward_pass(numbers(*shape))
        dx = layer.backward_pass(dy, need_input=need)
        assert (dx is not None) == need
        steps.append((layer.W, layer.w0))
    for spared, whole in zip(*steps, strict=True):
        assert_array_equal(spared, whole)


@pytest.mark.parametrize("kind", FIRST)
def test_the_first_layer_alone_is_spared_its_input_gradient(kind, monkeypatch):
    make, shape = FIRST[kind]
    second = Dense(2, rng=1)
    model = Sequential([make(), Flatten(), second], optimizer=SGD(0.1), loss="square")
    asked = []

    def watched(layer):
        original = type(layer).backward_pass

        def backward_pass(self, accum_grad, need_input=True):
            asked.append((layer is self, need_input))
            return original(self, accum_grad, need_input)

        return backward_pass

    for layer in (model.layers[0], second):
        monkeypatch.setattr(layer, "backward_pass", watched(layer).__get__(layer))
    model.train_on_batch(numbers(*shape), numbers(4, 2))
    assert asked == [(True, True), (True, False)]


def test_a_first_layer_of_somebody_else_is_asked_as_ever():
    seen = []

    class Clipped(Dense):
        def backward_pass(self, accum_grad):
            dx = super().backward_pass(np.clip(accum_grad, -1, 1))
            seen.append(dx.shape)
            return dx

    model = Sequential([Clipped(2, input_shape=(3,), rng=0)], optimizer=SGD(0.1), loss="square")
    model.train_on_batch(numbers(5, 3), numbers(5, 2))
    assert seen == [(5, 3)]


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_are_means_over_the_batch():
    p, y = softmax(numbers(4, 3)), np.array([0, 2, 1, 2])
    assert CrossEntropy().loss(y, p) == pytest.approx(-np.mean([np.log(p[n, y[n]]) for n in range(4)]), rel=1e-12)
    t = numbers(4, 3, seed=1)
    assert SquareLoss().loss(t, p) == pytest.approx(np.mean([0.5 * ((t[n] - p[n]) ** 2).sum() for n in range(4)]))
    assert CrossEntropy().accuracy(y, np.eye(3)[[0, 2, 0, 0]]) == 0.5


@pytest.mark.parametrize("loss", [CrossEntropy(), SquareLoss()])
@pytest.mark.parametrize("y", [np.array([0, 2, 1, 2]), softmax(numbers(4, 3, seed=2)), np.abs(numbers(4, 3, seed=3))])
def test_gradients_of_losses(loss, y):
    p = softmax(numbers(4, 3))
    assert_allclose(loss.gradient(y, p), central_differences(lambda q: loss.loss(y, q), p), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("y", [np.array([0, 2, 1, 2]), softmax(numbers(4, 3, seed=2)), np.abs(numbers(4, 3, seed=3))])
def test_cross_entropy_through_softmax(y):
    loss, layer, z = CrossEntropy(), Activation("softmax"), numbers(4, 3)
    p = layer.forward_pass(z)
    fused = loss.fused_gradient(y, p)
    assert_allclose(fused, central_differences(lambda moved: loss.loss(y, softmax(moved)), z), rtol=1e-6, atol=1e-9)
    assert_allclose(fused, layer.backward_pass(loss.gradient(y, p)), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_where_probabilities_vanish(dtype):
    p = Activation("softmax").forward_pass(np.array([[1000, -1000, 0], [0, 0, 1000]], dtype))
    y = np.array([1, 2])
    loss = CrossEntropy()
    assert np.isfinite(loss.loss(y, p))
    assert np.isfinite(loss.gradient(y, p)).all()
    fused = loss.fused_gradient(y, p)
    assert fused.dtype == loss.gradient(y, p).dtype == dtype
    assert_allclose(fused, [[0.5, -0.5, 0], [0, 0, 0]], atol=1e-7)


@pytest.mark.parametrize("loss", [CrossEntropy(), SquareLoss()])
def test_classes_are_rows_with_a_one(loss):
    p, classes = softmax(numbers(5, 3)), np.array([0, 1, 2, 2, 1])
    for y in (classes, classes[:, None], classes.astype(np.uint8), classes.tolist(), np.eye(3, dtype=int)[classes]):
        assert loss.loss(y, p) == loss.loss(np.eye(3)[classes], p)
        assert_array_equal(loss.gradient(y, p), loss.gradient(np.eye(3)[classes], p))
        assert loss.accuracy(y, p) == loss.accuracy(np.eye(3)[classes], p)
    assert_array_equal(CrossEntropy().fused_gradient(classes, p), CrossEntropy().fused_gradient(np.eye(3)[classes], p))


def test_one_column_is_a_number_a_row():
    p = np.array([[0.2], [0.8], [0.6]])
    assert SquareLoss().loss(np.array([0.2, 0.8, 1.6]), p) == pytest.approx(0.5 / 3)
    assert_allclose(SquareLoss().gradient(np.array([0, 1, 1]), p), (p - [[0], [1], [1]]) / 3)
    assert SquareLoss().accuracy(np.array([0, 1, 0]), p) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"^CrossEntropy: predicted needs a column .* got \(3, 1\)"):
        CrossEntropy().loss(np.array([0, 1, 0]), p)


@pytest.mark.parametrize(
    ("y", "error", "said"),
    [
        ([0, 3], ValueError, "classes must be 0..2, got 0..3"),
        ([-1, 0], ValueError, "classes must be 0..2, got -1..0"),
        ([0.0, 1.0], TypeError, "classes must be integers, got dtype float64"),
        ([0, 1, 2], ValueError, "y must have shape (2, 3), or (2,) with integer classes, got (3,)"),
        (np.ones((2, 4)), ValueError, "got (2, 4)"),
        (["cat", "dog"], TypeError, "y must be a real numeric array, got list"),
        (np.ma.array([0, 1]), TypeError, "y is a masked array"),
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", [CrossEntropy(), SquareLoss()])
def test_targets_that_do_not_fit(loss, y, error, said):
    for call in (loss.loss, loss.gradient, loss.accuracy):
        with pytest.raises(error, match=rf"^{type(loss).__name__}: {re.escape(said)}" if said[0] != "g" else "got"):
            call(y, softmax(numbers(2, 3)))


def test_classes_are_not_offered_for_images():
    with pytest.raises(ValueError, match=r"^SquareLoss: y must have shape \(2, 3, 4\), got \(2,\)$"):
        SquareLoss().loss([0, 1], numbers(2, 3, 4))


def test_a_bare_loss():
    for call in (Loss().loss, Loss().gradient):
        with pytest.raises(NotImplementedError, match=r"^Loss has no "):
            call([0], np.ones((1, 2)))


# --- training ---------------------------------------------------------------------------------------------------------


def test_one_step_is_the_layers_steps():
    points, classes = rows_of_the_plane(6)
    model, twin = network(SGD(0.1)), network(SGD(0.1))
    p = points
    for layer in twin.layers:
        p = layer.forward_pass(p)
    assert model.train_on_batch(points, classes) == (
        CrossEntropy().loss(classes, p),
        CrossEntropy().accuracy(classes, p),
    )
    gradient = (p - np.eye(3)[classes]) / 6
    for layer in reversed(twin.layers[:-1]):
        gradient = layer.backward_pass(gradient)
    assert_same_weights(model, weights_of(twin))


def test_the_unfused_path_makes_the_same_step():
    class Unfused(Loss):
        loss, gradient = CrossEntropy.loss, CrossEntropy.gradient
        _probabilities = CrossEntropy._probabilities

    points, classes = rows_of_the_plane(20)
    fused, unfused = network(SGD(0.1)), network(SGD(0.1), loss=Unfused())
    for _ in range(3):
        losses = [model.train_on_batch(points, classes)[0] for model in (fused, unfused)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    for name, value in weights_of(fused).items():
        assert_allclose(weights_of(unfused)[name], value, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_whole_network():
    x, classes = numbers(3, 1, 6, 6), np.array([0, 1, 1])
    model = image_network()
    model.layers[4].p = 0
    layer = model.layers[0]
    for each in model.layers:
        if each.weight_names:
            each.initialize(SGD(1.0))
    before = layer.W

    def loss_of(weights):
        layer.W = weights
        return model.test_on_batch(x, classes)[0]

    wanted = central_differences(loss_of, before)
    layer.W = before
    model.train_on_batch(x, classes)
    assert_allclose(before - layer.W, wanted, rtol=1e-5, atol=1e-8)


def test_fit_learns_and_repeats_itself():
    points, classes = rows_of_the_plane()
    histories, models = [], []
    for _ in range(2):
        model = network()
        histories.append(model.fit(points, classes, epochs=30, batch_size=16, rng=3))
        models.append(model)
    assert histories[0] == histories[1]
    assert_same_weights(models[0], weights_of(models[1]))
    assert sorted(histories[0]) == ["accuracy", "loss"]
    assert len(histories[0]["loss"]) == 30
    assert histories[0]["loss"][-1] < 0.5 * histories[0]["loss"][0]
    loss, accuracy = models[0].evaluate(points, classes)
    assert accuracy > 0.9
    p = models[0].predict(points)
    assert loss == CrossEntropy().loss(classes, p)
    assert accuracy == np.mean(p.argmax(axis=1) == classes)
    other = network()
    other.fit(points, classes, epochs=30, batch_size=16, rng=4)
    assert not np.array_equal(other.layers[0].W, models[0].layers[0].W)


def test_fit_on_images():
    bright = np.random.default_rng(0).integers(0, 2, 60)
    images = np.random.default_rng(1).random((60, 1, 6, 6))
    images[bright == 1, :, :3] += 0.8
    model = image_network()
    history = model.fit(images, bright, epochs=15, batch_size=20, rng=0, validation_data=(images[:20], bright[:20]))
    assert history["accuracy"][-1] > 0.9
    assert model.evaluate(images[:20], bright[:20]) == (history["val_loss"][-1], history["val_accuracy"][-1])


def test_a_regression():
    x = numbers(50, 3)
    y = x @ [1.0, -2.0, 0.5] + 3
    model = Sequential([Dense(1, input_shape=(3,), rng=0)], optimizer=SGD(0.3), loss="square")
    history = model.fit(x, y, epochs=40, batch_size=25, rng=0)
    assert history["loss"][-1] < 1e-6
    assert_allclose(model.layers[0].W[:, 0], [1, -2, 0.5], atol=1e-2)


def test_shuffling():
    points, classes = rows_of_the_plane(30)

    class Records(Layer):
        def forward_pass(self, X, training=True):
            if training:
                seen.append(X)
            return X

        def backward_pass(self, accum_grad):
            return accum_grad

        def output_shape(self):
            return self.input_shape

    def orders(**options):
        seen.clear()
        first = Records()
        first.set_input_shape((2,))
        Sequential([first, Dense(3, rng=0)], loss="square").fit(points, classes, 2, 8, **options)
        assert [len(batch) for batch in seen] == [8, 8, 8, 6] * 2
        return np.array_split(np.concatenate(seen), 2)

    seen = []
    for epoch in orders(shuffle=False):
        assert_array_equal(epoch, points)
    shuffled = orders(rng=1)
    for epoch in shuffled:
        assert not np.array_equal(epoch, points)
        assert_array_equal(np.sort(epoch, axis=0), np.sort(points, axis=0))
    assert not np.array_equal(*shuffled)
    assert_array_equal(orders(rng=np.random.default_rng(1)), shuffled)
    drawn = []
    for _ in range(2):
        np.random.seed(8)
        drawn.append(orders())
    assert_array_equal(*drawn)


def test_history_is_weighted_by_the_size_of_a_batch():
    points, classes = rows_of_the_plane(10)
    model = network(SGD(0.0))
    twin = copy.deepcopy(model)
    history = model.fit(points, classes, batch_size=8, shuffle=False)
    parts = [twin.train_on_batch(points[:8], classes[:8]), twin.train_on_batch(points[8:], classes[8:])]
    assert history["loss"] == [pytest.approx((8 * parts[0][0] + 2 * parts[1][0]) / 10, rel=1e-12)]
    assert history["accuracy"] == [pytest.approx((8 * parts[0][1] + 2 * parts[1][1]) / 10, rel=1e-12)]


def test_prediction_in_batches():
    points, classes = rows_of_the_plane(10)
    model = network()
    model.fit(points, classes, rng=0)
    whole = model.predict(points)
    for size in (1, 3, 10, 99):
        assert_allclose(model.predict(points, batch_size=size), whole, rtol=1e-12)
    assert model.predict(points[:0]).shape == (0, 3)
    assert_allclose(model.test_on_batch(points, classes), model.evaluate(points, classes))


def test_float32_all_the_way():
    points, classes = rows_of_the_plane(20)
    model = network(dtype=np.float32)
    model.fit(points.astype(np.float32), classes, rng=0)
    assert model.predict(points.astype(np.float32)).dtype == np.float32
    assert model.layers[0].W.dtype == np.float32


def test_an_interrupt_leaves_whole_steps(monkeypatch):
    points, classes = rows_of_the_plane(40)
    model, twin = network(), network()
    twin.fit(points[:16], classes[:16], batch_size=8, shuffle=False)
    wanted, after = weights_of(twin), [0]
    step = Dense.backward_pass

    def interrupted(layer, accum_grad):
        after[0] += 1
        if after[0] == 6:
            raise KeyboardInterrupt
        return step(layer, accum_grad)

    monkeypatch.setattr(Dense, "backward_pass", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(points, classes, batch_size=8, shuffle=False)
    monkeypatch.undo()
    for name, weight in weights_of(model).items():
        assert_array_equal(weight, wanted[name])
    for layer in (model.layers[0], model.layers[3]):
        assert layer.W_opt._steps == layer.w0_opt._steps == 2
    history = model.fit(points, classes, epochs=20, batch_size=8, rng=0)
    assert history["loss"][-1] < history["loss"][0]


class Scale(Layer):
    """As somebody else may write a layer: its weights are written in place, and have no names."""

    def __init__(self, n):
        self.W = np.ones(n)

    def parameters(self):
        return self.W.size

    def forward_pass(self, X, training=True):
        self.X = X
        return X * self.W

    def backward_pass(self, accum_grad):
        gradient = accum_grad * self.W
        self.W -= 0.1 * (accum_grad * self.X).sum(axis=0)
        return gradient

    def output_shape(self):
        return self.input_shape


def test_an_interrupt_restores_layers_that_write_in_place(monkeypatch):
    model = Sequential([Dense(4, input_shape=(3,), rng=0), Scale(4)], optimizer=SGD(), loss="square")
    monkeypatch.setattr(Dense, "backward_pass", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        model.train_on_batch(numbers(5, 3), numbers(5, 4))
    assert_array_equal(model.layers[1].W, np.ones(4))


def test_weights_without_names_are_not_left_out_of_files(tmp_path):
    model = Sequential([Dense(4, input_shape=(3,), rng=0), Scale(4)], optimizer=SGD(), loss="square")
    for call in (model.save, model.load):
        said = rf"^Sequential\.{call.__name__}: layer 1 \(Scale\) has 4 parameters, but no weight_names"
        with pytest.raises(TypeError, match=said):
            call(tmp_path / "weights.npz")
    assert not list(tmp_path.iterdir())


class Unchanging:
    """What layers that change nothing do."""

    __slots__ = ()

    def forward_pass(self, X, training=True):
        return X

    def backward_pass(self, accum_grad):
        return accum_grad

    def output_shape(self):
        return self.input_shape


class Unset(Unchanging, Layer):
    weight_names = ("s",)


class Statistics(Unchanging, Layer):
    buffer_names = ("mean",)
    mean = np.ones(4)


@pytest.mark.parametrize("call", ["save", "load"])
@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        (Unset, RuntimeError, "(Unset) has no s yet; call initialize first"),
        (
            Statistics,
            TypeError,
            "(Statistics) has buffer_names, but no weight_names; buffers have the shape of the fir",
        ),
    ],
)
def test_weights_that_are_named_and_not_there(tmp_path, kind, error, said, call):
    path = tmp_path / "weights.npz"
    np.savez(path, **{"0.W": np.ones((3, 4)), "0.w0": np.ones((1, 4)), "1.s": np.ones(4), "1.mean": np.ones(4)})
    before = path.read_bytes()
    model = Sequential([Dense(4, input_shape=(3,), rng=0), kind()])
    with pytest.raises(error, match=rf"^Sequential\.{call}: layer 1 {re.escape(said)}"):
        getattr(model, call)(path)
    assert path.read_bytes() == before


def test_a_layer_without_weights_may_say_so_with_none(tmp_path):
    class Nothing(Slotted):
        __slots__ = ()
        weight_names = buffer_names = None
        frozen = trainable = True

    model = Sequential([Dense(4, input_shape=(3,), rng=0), Nothing(), Slotted()])
    weights = model.layers[0].W
    model.save(tmp_path / "weights.npz")
    model.layers[0].W = np.zeros((3, 4))
    model.load(tmp_path / "weights.npz")
    assert_array_equal(model.layers[0].W, weights)


class Tripled(CrossEntropy):
    """A loss of somebody else."""

    def loss(self, y, predicted):
        return 3 * super().loss(y, predicted)

    def gradient(self, y, predicted):
        return 3 * super().gradient(y, predicted)


class TripledAtOnce(Tripled):
    def fused_gradient(self, y, predicted):
        return 3 * super().fused_gradient(y, predicted)


@pytest.mark.parametrize("loss", [Tripled, TripledAtOnce])
def test_a_loss_that_is_derived_trains_with_its_own_gradient(loss):
    steps = []
    for each in (CrossEntropy(), loss()):
        model = Sequential([Dense(3, input_shape=(4,), rng=0), Activation("softmax")], optimizer=SGD(0.1), loss=each)
        before = model.layers[0].W
        model.train_on_batch(numbers(5, 4), np.array([0, 1, 2, 0, 1]))
        steps.append(model.layers[0].W - before)
    assert_allclose(steps[1], 3 * steps[0], rtol=1e-12)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Sequential([Dense(3)]), ValueError, "Sequential.add: the first layer, Dense, needs an input_shape"),
        (lambda: Sequential([3]), TypeError, "Sequential.add: layer must be a Layer, got int 3"),
        (lambda: Sequential([Dense]), TypeError, "Sequential.add: layer must be a Layer, got type"),
        (
            lambda: Sequential(loss="l1"),
            ValueError,
            "Sequential: loss must be one of 'cross_entropy', 'square' or a Loss, g",
        ),
        (lambda: Sequential(loss=3), TypeError, "Sequential: loss must be one of"),
        (lambda: Sequential(epochs=3), TypeError, "Sequential: unknown keyword 'epochs'"),
        (
            lambda: Sequential([Dense(3, input_shape=(2,))], optimizer="adam"),
            TypeError,
            "Sequential: optimizer must be an object with update(w, grad), got str 'adam'",
        ),
        (
            lambda: Sequential([Conv2D(2, (3, 3), input_shape=(1, 6, 6)), Dense(3)]),
            ValueError,
            "Dense: input_shape must be (features,), got (2, 6, 6); add a Flatten before it",
        ),
        (
            lambda: Sequential([Conv2D(2, (3, 3), (1, 2, 2), padding="valid")]),
            ValueError,
            "Conv2D.output_shape: kernel 3x3",
        ),
        (lambda: Sequential().predict([[1.0]]), RuntimeError, "Sequential: there are no layers; add some first"),
        (lambda: Sequential().output_shape(), RuntimeError, "Sequential.output_shape: there are no layers"),
        (
            lambda: network().fit(numbers(3, 2), [0, 1]),
            ValueError,
            "Sequential.fit: X and y must have as many rows, got",
        ),
        (
            lambda: network().fit(numbers(0, 2), []),
            ValueError,
            "Sequential.fit: X needs a batch axis and at least one row",
        ),
        (lambda: network().fit(numbers(2), [0, 1]), ValueError, "Sequential.fit: X needs a batch axis"),
        (lambda: network().fit(np.ma.ones((2, 2)), [0, 1]), TypeError, "Sequential.fit: X is a masked array"),
        (lambda: network().fit(numbers(2, 2), ["a", "b"]), TypeError, "Sequential.fit: y must be a real numeric array"),
        (
            lambda: network().fit(numbers(2, 2), [0, 1], epochs=0),
            ValueError,
            "Sequential.fit: epochs must be a positive",
        ),
        (lambda: network().fit(numbers(2, 2), [0, 1], batch_size=1.5), TypeError, "Sequential.fit: batch_size must be"),
        (lambda: network().fit(numbers(2, 2), [0, 1], n_epochs=1), TypeError, "it is called 'epochs' here"),
        (lambda: network().fit(numbers(2, 2), [0, 1], rng="x"), TypeError, "Sequential.fit: rng must be"),
        (
            lambda: network().fit(numbers(2, 2), [0, 1], validation_data=numbers(3)),
            ValueError,
            "Sequential.fit: validation_data must be a pair (X, y), got ndarray",
        ),
        (lambda: network().fit(numbers(2, 2), [0, 5]), ValueError, "CrossEntropy: classes must be 0..2, got 0..5"),
        (
            lambda: network().fit(numbers(2, 4), [0, 1]),
            ValueError,
            "Dense.forward_pass: the layer has weights for 2 feat",
        ),
        (lambda: network().train_on_batch(numbers(0, 2), []), ValueError, "Sequential.train_on_batch: X needs a batch"),
        (lambda: network().predict(3.0), ValueError, "Sequential.predict: expected X of shape (N, ...), got shape ()"),
        (lambda: network().predict(numbers(2, 2), batch_size=0), ValueError, "Sequential.predict: batch_size must be"),
    ],
)
def test_what_a_network_refuses(call, error, said):
    with pytest.raises(error, match=re.escape(said)):
        call()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda p: (p - 1) ** 2, "ndarray"), (lambda p: None, "NoneType"), (lambda p: np.array([1.0]), "ndarray"),
        (lambda p: 1j, "complex 1j"), (lambda p: "low", "str 'low'"), (lambda p: [[1], [1, 2]], "list [[1], [1, 2]]"),
    ],
    ids=["values", "None", "an array of one", "complex", "a word", "lists"],
)  # fmt: skip
def test_a_loss_that_is_no_number_changes_nothing(returned, said):
    class Own(SquareLoss):
        def loss(self, y, predicted):
            return returned(predicted)

    model = Sequential([Dense(2, input_shape=(3,), rng=0)], loss=Own())
    before = model.layers[0].W
    with pytest.raises(TypeError, match=rf"^Own\.loss must return a number, got {re.escape(said)}$"):
        model.train_on_batch(np.eye(3), np.ones((3, 2)))
    assert model.layers[0].W is before


def test_a_loss_may_return_a_number_of_numpys():
    class Own(SquareLoss):
        def loss(self, y, predicted):
            return np.array(super().loss(y, predicted), np.float32)

    model = Sequential([Dense(2, input_shape=(3,), rng=0)], loss=Own())
    loss, _ = model.train_on_batch(np.eye(3), np.ones((3, 2)))
    assert type(loss) is float


WEIGHTS = {
    "Conv2D W": (
        lambda: Conv2D(2, (3, 3), input_shape=(1, 8, 8)), "W", np.ones(4),
        "Conv2D.forward_pass: W must have 4 dimensions, got shape (4,)",
    ),
    "Dense W": (
        lambda: Dense(2, input_shape=(3,)), "W", 5.0,
        "Dense.forward_pass: W must have shape (features, units), got ()",
    ),
    "Dense w0": (
        lambda: Dense(2, input_shape=(3,)), "w0", np.ones((8, 2)),
        "Dense.forward_pass: w0 must have shape (1, 2), got (8, 2)",
    ),
    "Dense w0 of three axes": (
        lambda: Dense(2, input_shape=(3,)), "w0", np.ones((1, 1, 2)),
        "Dense.forward_pass: w0 must have shape (1, 2), got (1, 1, 2)",
    ),
}  # fmt: skip


def dense():
    layer = Dense(2, input_shape=(3,), rng=0)
    layer.initialize(None)
    layer.forward_pass(np.ones((1, 3)))
    return layer


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("abc", "must be a real numeric array, got str 'abc'"),
        (["a"], "must be a real numeric array, got list ['a']"),
        (
            np.array(["2020"], "M8[D]"),
            "has dtype datetime64[D], which is not supported; bool, integers, float16, float32 and float64 are",
        ),
        ([None], "has dtype object, which is not supported; bool, integers, float16, float32 and float64 are"),
    ],
    ids=["str", "list of str", "dates", "objects"],
)
@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda value: setattr(dense(), "w0", value), "Dense: w0"),
        (lambda value: dense().forward_pass(value), "Dense.forward_pass: X"),
        (lambda value: dense().backward_pass(value), "Dense.backward_pass: accum_grad"),
        (lambda value: network().predict(value), "Sequential.predict: X"),
        (lambda value: network().fit(value, [0]), "Sequential.fit: X"),
        (lambda value: SquareLoss().loss([[0]], value), "SquareLoss: predicted"),
        (lambda value: SquareLoss().gradient(value, [[0]]), "SquareLoss: y"),
    ],
    ids=["w0", "X", "accum_grad", "predict", "fit", "predicted", "y"],
)
def test_what_is_no_real_array_is_not_told_of_complex_ones(call, where, value, said):
    with pytest.raises(TypeError, match=f"^{re.escape(f'{where} {said}')}$"):
        call(value)


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
def test_complex_weights_are_refused(kind):
    layer = Conv2D(2, (3, 3), input_shape=(1, 8, 8), rng=0)
    layer.initialize(None)
    before = layer.W
    said = rf"^Conv2D: W must be real, as inputs are, got dtype {np.dtype(kind)}$"
    with pytest.raises(TypeError, match=said):
        layer.W = before.astype(kind)
    assert layer.W is before


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_another_shape(name):
    make, attribute, value, said = WEIGHTS[name]
    layer = make()
    layer.initialize(None)
    setattr(layer, attribute, value)
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        layer.forward_pass(np.ones((8, *layer.input_shape)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: model.save(None), "Sequential.save: path must be a string or a path, got NoneType"),
        (lambda model: model.load(5), "Sequential.load: path must be a string or a path, got int 5"),
        (lambda model: Sequential(model.layers[0]), "Sequential: layers must be a list of layers, got Dense"),
        (lambda model: Sequential(None), "Sequential: layers must be a list of layers, got NoneType"),
        (lambda model: Sequential(np.array(1)), "Sequential: layers must be a list of layers, got ndarray"),
    ],
)
def test_what_is_of_another_kind(call, said):
    with pytest.raises(TypeError, match=f"^{re.escape(said)}"):
        call(Sequential([Dense(2, input_shape=(3,), rng=0)]))


def test_layers_that_lack_a_method():
    class Half:
        input_shape = (3,)
        forward_pass = backward_pass = staticmethod(lambda X, training=True: X)

    with pytest.raises(TypeError, match=r"^Sequential\.add: layer Half needs the method set_input_shape, as of Layer$"):
        Sequential([Half()])


class Slotted(Unchanging):
    """A layer that is no `Layer`, and has no dictionary; without weights but for those of a subclass."""

    __slots__ = ("input_shape",)

    def set_input_shape(self, shape):
        self.input_shape = shape


class SlottedScale(Slotted):
    __slots__ = ("s", "s_opt", "x")
    weight_names = ("s",)

    def initialize(self, optimizer):
        self.s, self.s_opt = np.ones(self.input_shape), copy.copy(optimizer)

    def layer_name(self):
        return "Scale"

    def parameters(self):
        return self.s.size

    def forward_pass(self, X, training=True):
        self.x = X
        return X * self.s

    def backward_pass(self, accum_grad):
        s, self.s = self.s, self.s_opt.update(self.s, (accum_grad * self.x).sum(axis=0))
        return accum_grad * s


def test_layers_of_somebody_elses_need_no_dictionary(tmp_path):
    model = Sequential([Dense(3, input_shape=(2,), rng=0), Slotted(), SlottedScale(), Activation("softmax")])
    scale, (points, classes) = model.layers[2], rows_of_the_plane(20)
    model.fit(points, classes, epochs=2, rng=0)
    trained = scale.s
    assert (trained != 1).all()
    with pytest.raises(ValueError, match="classes must be"):
        model.train_on_batch(points, classes + 7)
    assert scale.s is trained
    assert model.parameters() == 12
    assert [line.split()[0] for line in model.summary().splitlines()[2:4]] == ["Slotted", "Scale"]
    model.save(tmp_path / "weights.npz")
    scale.s = np.ones(3)
    model.load(tmp_path / "weights.npz")
    assert_array_equal(scale.s, trained)
    with pytest.raises(ValueError, match=r"^Sequential\.add: Slotted is in the network already"):
        model.add(model.layers[1])
    with pytest.raises(ValueError, match=r"^Sequential\.add: the first layer, Slotted, needs an input_shape$"):
        Sequential([Slotted()])


def test_a_layer_that_returns_nothing_is_named():
    class Forgetful(Flatten):
        def forward_pass(self, X, training=True):
            super().forward_pass(X, training)

    model = Sequential([Forgetful(input_shape=(3,)), Dense(2, rng=0)])
    for call in (model.predict, lambda X: model.train_on_batch(X, np.ones((3, 2)))):
        with pytest.raises(TypeError, match=r"^Sequential: forward_pass of layer 0, Forgetful, returned None$"):
            call(np.eye(3))


def test_a_file_of_one_array(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    model = Sequential([Dense(2, input_shape=(3,), rng=0)])
    with pytest.raises(ValueError, match=r"one\.npy is not a file of weights: it holds one array without a name$"):
        model.load(tmp_path / "one.npy")


def test_evaluation_names_its_own_argument():
    model = Sequential([Dense(2, input_shape=(3,), rng=0)])
    with pytest.raises(ValueError, match=r"^Sequential\.evaluate: batch_size must be"):
        model.evaluate(np.eye(3), np.ones((3, 2)), batch_size=0)


def test_a_layer_is_in_a_network_once():
    layer = Dense(2, input_shape=(2,))
    model = Sequential([layer])
    weights = layer.W
    with pytest.raises(ValueError, match=r"^Sequential\.add: Dense is in the network already"):
        model.add(layer)
    assert layer.W is weights
    assert len(model.layers) == 1


def test_validation_data_is_looked_at_before_training():
    model = network()
    before = weights_of(model)
    with pytest.raises(ValueError, match="as many rows"):
        model.fit(numbers(2, 2), [0, 1], validation_data=(numbers(2, 2), [0]))
    assert_same_weights(model, before)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_summary():
    lines = image_network().summary().splitlines()
    assert lines[0].split() == ["layer", "output", "shape", "parameters"]
    assert lines[1].split() == ["Conv2D", "(4,", "6,", "6)", "40"]
    assert lines[3].split() == ["MaxPooling2D", "(4,", "3,", "3)", "0"]
    assert lines[-1].split() == ["total", "114"]
    assert len({len(line) for line in lines}) == 1
    assert image_network().parameters() == 114
    assert image_network().output_shape() == (2,)


PROGRAM = """
import numpy as np
from convjit import Dense, Sequential
model = Sequential([Dense(2, input_shape=(3,), rng=0)], loss="square")
model.fit(np.eye(3), np.ones((3, 2)), epochs=2, batch_size=2, rng=0{options})
"""


def run(options):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(options=options)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


def test_training_is_quiet_in_a_pipe():
    assert run("") == ("", "")
    assert run(", progress=False") == ("", "")


def test_training_shows_a_bar_where_it_is_wanted(capfd):
    pytest.importorskip("rich", reason="without rich there is no bar; that training goes on is tested beside this")
    model = network()
    points, classes = rows_of_the_plane(20)
    model.fit(points, classes, epochs=2, batch_size=8, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "epoch 2/2" in shown.err
    assert "6/6" in shown.err
    assert "loss" in shown.err


def test_training_without_rich(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    points, classes = rows_of_the_plane(20)
    assert len(network().fit(points, classes, epochs=2, progress=True)["loss"]) == 2
    assert capfd.readouterr() == ("", "")


# --- what is kept -----------------------------------------------------------------------------------------------------


def trained(**options):
    model = network(**options)
    model.fit(*rows_of_the_plane(40), rng=0)
    return model


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_save_and_load(tmp_path, dtype):
    model, other = trained(dtype=dtype), network(seed=7, dtype=dtype)
    model.save(tmp_path / "weights.npz")
    other.load(str(tmp_path / "weights.npz"))
    assert_same_weights(other, weights_of(model))
    points, classes = rows_of_the_plane()
    assert_array_equal(other.predict(points), model.predict(points))
    other.fit(points, classes, rng=0)  # and goes on from there
    assert os.listdir(tmp_path) == ["weights.npz"]


def test_a_network_that_was_never_trained(tmp_path):
    path = tmp_path / "weights"
    network().save(path)
    model = trained()
    model.load(path)
    assert_same_weights(model, weights_of(network()))
    assert model.layers[1].running_mean is None


def test_the_file_is_arrays_without_pickle(tmp_path):
    path = tmp_path / "weights.npz"
    trained().save(path)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == [
            "0.W", "0.w0", "1.beta", "1.gamma", "1.running_mean", "1.running_var", "3.W", "3.w0",
        ]  # fmt: skip
        assert all(file[name].dtype == np.float64 for name in file.files)


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_the_file_can_be_read_by_those_who_may_read_new_files(tmp_path):
    (tmp_path / "other").touch()
    network().save(tmp_path / "weights.npz")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "weights.npz")]
    assert modes[0] == modes[1]


@pytest.mark.skipif(os.name == "nt", reason="links and permissions are those of POSIX")
def test_saving_again_keeps_links_and_modes(tmp_path):
    path, link = tmp_path / "private.npz", tmp_path / "link.npz"
    network().save(path)
    path.chmod(0o600)
    link.symlink_to(path)
    model = trained()
    model.save(link)
    other = network(seed=7)
    other.load(path)
    assert_same_weights(other, weights_of(model))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert link.is_symlink()


@pytest.mark.parametrize("path", ["", "/", "a\0b", "\ud800.npz"])
def test_paths_that_name_no_file(path):
    for name in ("save", "load"):
        with pytest.raises(ValueError, match=rf"^Sequential\.{name}: path must be the name of a file, got "):
            getattr(network(), name)(path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("where", ["savez", "replace"])
def test_saving_that_fails_leaves_the_old_file(tmp_path, monkeypatch, error, where):
    path = tmp_path / "weights.npz"
    network().save(path)
    before = path.read_bytes()

    def fails(file, *args, **kwargs):
        if where == "savez":
            file.write(b"PK half a file")
        raise error

    monkeypatch.setattr(*{"savez": (np, "savez"), "replace": (os, "replace")}[where], fails)
    with pytest.raises(type(error)):
        trained().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["weights.npz"]


def test_places_that_are_not_there(tmp_path):
    model = network()
    before = weights_of(model)
    for call in (model.save, model.load):
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "nowhere" / "weights.npz")
    with pytest.raises(OSError):
        model.save(tmp_path)
    assert_same_weights(model, before)
    assert os.listdir(tmp_path) == []


class Explodes:
    def __reduce__(self):
        return (os.mkdir, ("a-pickle-was-run",))


def foreign_files():
    """Contents that are no weights of `network()`, by name."""
    good = {name: value for name, value in weights_of(trained()).items() if value is not None}
    changed = {
        "a weight missing": {k: v for k, v in good.items() if k != "3.w0"},
        "a weight too many": good | {"3.W2": np.ones(1)},
        "another shape": good | {"3.W": np.ones((8, 4))},
        "one of two statistics": {k: v for k, v in good.items() if k != "1.running_var"},
        "another shape of running means": good | {"1.running_mean": np.ones(5)},
        "integers": good | {"3.W": np.ones((8, 3), int)},
        "complex numbers": good | {"3.W": np.ones((8, 3), complex)},
        "words": good | {"3.W": np.full((8, 3), "a")},
        "a pickle": good | {"3.W": np.array([Explodes()] * 24, object).reshape(8, 3)},
        "nothing": {},
    }
    return {name: ("savez", arrays) for name, arrays in changed.items()} | {
        "text": ("bytes", b"weights, weights, weights"),
        "an empty file": ("bytes", b""),
        "a bare pickle": ("bytes", pickle.dumps(Explodes())),
        "one array": ("save", np.ones(3)),
    }


@pytest.mark.parametrize("name", foreign_files())
def test_loading_what_does_not_fit_changes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    how, content = foreign_files()[name]
    path = tmp_path / "weights.npz"
    with path.open("wb") as file:
        if how == "bytes":
            file.write(content)
        elif how == "save":
            np.save(file, content)
        else:
            np.savez(file, **content)
    model = network(seed=3)
    before = weights_of(model)
    with pytest.raises(ValueError, match=rf"^Sequential\.load: {re.escape(str(path))} "):
        model.load(path)
    assert_same_weights(model, before)
    assert os.listdir(tmp_path) == ["weights.npz"]


def test_weights_that_are_too_large_for_their_dtype(tmp_path):
    path, models = tmp_path / "weights.npz", [network(dtype=dtype) for dtype in (np.float64, np.float32)]
    models[0].layers[0].W = np.full_like(models[0].layers[0].W, 1e300)
    models[0].save(path)
    before = weights_of(models[1])
    with pytest.raises(ValueError, match=r"holds 0\.W with numbers that are too large for float32$"):
        models[1].load(path)
    assert_same_weights(models[1], before)


def test_damaged_files_are_refused_or_right(tmp_path):
    path = tmp_path / "weights.npz"
    saved = trained()
    saved.save(path)
    whole, right = path.read_bytes(), weights_of(saved)
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(400):
        damaged = bytearray(whole)
        if trial % 4 == 0:
            del damaged[rng.integers(len(whole)) :]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        model = network(seed=3)
        before = weights_of(model)
        try:
            model.load(path)
        except ValueError:
            refused += 1
            assert_same_weights(model, before)
        else:
            assert_same_weights(model, right)
    assert refused > 200
    path.write_bytes(whole)
    assert zipfile.ZipFile(path).testzip() is None


def test_networks_are_copied_and_pickled():
    model = trained()
    points, classes = rows_of_the_plane(40)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.predict(points), model.predict(points))
        twin = copy.deepcopy(model)
        assert other.fit(points, classes, 2, rng=0) == twin.fit(points, classes, 2, rng=0)
        assert_same_weights(other, weights_of(twin))


def test_a_layer_that_is_refused_stays_as_it_is():
    layer = Conv2D(2, (3, 3), input_shape=(1, 8, 8))
    first = Sequential([layer])
    first.freeze()
    second = Sequential([Conv2D(1, (1, 1), input_shape=(7, 20, 20))])
    with pytest.raises(RuntimeError, match="frozen"):
        second.add(layer)
    assert (layer.input_shape, first.output_shape()) == ((1, 8, 8), (2, 8, 8))


def test_a_step_that_fails_draws_nothing():
    model = Sequential([Dense(3, input_shape=(4,), rng=0), Dropout(0.5, rng=1), Activation("softmax")])
    before = copy.deepcopy(model.layers[1].rng.bit_generator.state)
    with pytest.raises(ValueError, match="classes must be"):
        model.train_on_batch(np.ones((2, 4)), [0, 7])
    assert model.layers[1].rng.bit_generator.state == before


@pytest.mark.parametrize("loss", [SquareLoss(), CrossEntropy()])
def test_losses_are_of_real_predictions(loss):
    with pytest.raises(ValueError, match="predicted must be real"):
        loss.loss([[1.0, 1.0]], np.array([[1 + 5j, 1]]))


def test_statistics_of_another_dtype_become_float32_or_float64(tmp_path):
    layer = BatchNormalization()
    layer.input_shape = (1,)
    model = Sequential([layer])
    layer.running_mean, layer.running_var = np.zeros(1), np.full(1, 1e-6)
    model.save(tmp_path / "weights.npz")
    stored = dict(np.load(tmp_path / "weights.npz"))
    for kind in (np.float16, ">f4", ">f8", np.longdouble):
        np.savez(tmp_path / "weights.npz", **{name: array.astype(kind) for name, array in stored.items()})
        model.load(tmp_path / "weights.npz")
        assert layer.running_var.dtype in (np.dtype("float32"), np.dtype("float64"))
        assert layer.running_var.dtype.isnative
        assert_allclose(layer.running_var, 1e-6, rtol=0.05)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nowhere" / "weights.npz"
    with pytest.raises(FileNotFoundError) as caught:
        Sequential([Dense(2, input_shape=(3,))]).save(path)
    assert caught.value.filename == str(path)


def test_a_loss_of_somebody_elses_is_given_the_targets_as_they_came():
    """convjit's own are given rows of classes, made once for all that a step asks of them."""
    seen = []

    class Mine(CrossEntropy):
        def loss(self, y, predicted):
            seen.append(np.asarray(y))
            return super().loss(y, predicted)

    x, y = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 1, 1, 0])
    scores, patched = [], CrossEntropy()
    patched.accuracy = lambda y, predicted: seen.append(y) or CrossEntropy.accuracy(patched, y, predicted)
    for loss in (Mine(), patched, "cross_entropy"):
        model = Sequential([Dense(2, input_shape=(3,), rng=0), Activation("softmax")], optimizer=SGD(0.1), loss=loss)
        scores.append([model.train_on_batch(x, y) for _ in range(3)])
    assert scores[0] == scores[1] == scores[2]
    assert len(seen) == 6
    for given in seen:
        assert_array_equal(given, y)


def test_gradients_of_a_layer_of_somebody_elses_may_be_lists():
    class Scale(Layer):
        weight_names = ("s",)

        def __init__(self):
            self.input_shape = (3,)

        def initialize(self, optimizer):
            self._start(optimizer, s=np.ones(3))

        def forward_pass(self, X, training=True):
            self.x = X
            return X * self.s

        def backward_pass(self, accum_grad):
            self._update(s=(accum_grad * self.x).sum(axis=0).tolist())
            return accum_grad

        def output_shape(self):
            return self.input_shape

    model = Sequential([Scale(), Dense(2, rng=0), Activation("softmax")], optimizer=SGD(0.1))
    model.train_on_batch(np.eye(3), np.array([0, 1, 1]))
    assert (model.layers[0].s != 1).all()
