"""Frozen layers: the same bits, weights that nothing can change, and none of it left after `unfreeze`."""

import copy
import pickle
import threading

import numpy as np
import pytest

from convjit import (
    SGD,
    Activation,
    Adam,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPooling2D,
    Sequential,
)
from convjit.functional.plan import Conv2DPlan


def images(*shape, dtype="float64"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def convolution(optimizer=None, n_filters=6, **options):
    layer = Conv2D(n_filters, (3, 2), input_shape=(4, 9, 8), rng=0, **options)
    layer.initialize(optimizer)
    layer.w0 = np.arange(float(n_filters)).reshape(-1, 1).astype(layer.W.dtype)
    return layer


def network():
    model = Sequential(optimizer=Adam(0.01))
    for layer in (
        Conv2D(4, (3, 3), input_shape=(1, 8, 8), rng=0), BatchNormalization(), Activation("relu"),
        MaxPooling2D((2, 2), stride=2), Flatten(), Dropout(0.5, rng=1), Dense(3, rng=2), Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    model.train_on_batch(*DATA)
    return model


DATA = images(12, 1, 8, 8), np.arange(12) % 3
COPIES = [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]


@pytest.fixture
def calls(monkeypatch):
    """How often a plan is called."""
    seen = []
    run = Conv2DPlan.__call__
    monkeypatch.setattr(Conv2DPlan, "__call__", lambda self, *args: (seen.append(1), run(self, *args))[1])
    return seen


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"dtype": np.float32}, {"stride": 2, "padding": 1, "groups": 2}, {"padding_mode": "wrap", "dilation": 2},
        {"algorithm": "reference", "padding": [0, 1]},
    ],
)  # fmt: skip
def test_the_bits_are_those_of_the_unfrozen_layer(options, dtype, calls):
    layer, x = convolution(**options), images(2, 4, 9, 8, dtype=dtype)
    wanted = layer.forward_pass(x, training=False)
    assert not calls
    layer.freeze()
    got = layer.forward_pass(x, training=False)
    assert len(calls) == 1
    assert (got.dtype, got.tobytes()) == (wanted.dtype, wanted.tobytes())
    assert layer.forward_pass(x, training=True).tobytes() == wanted.tobytes()
    assert len(calls) == 1  # training goes the usual way
    layer.unfreeze()
    assert layer.forward_pass(x, training=False).tobytes() == wanted.tobytes()
    assert len(calls) == 1


@pytest.mark.parametrize("filters", [6, 6000])  # of few bytes and of many
def test_weights_are_read_only_until_unfreeze(filters):
    layer = convolution(n_filters=filters)
    before = layer.W.copy()
    held = layer.W
    layer.freeze()
    assert layer.frozen
    assert layer.W.shape == before.shape
    assert layer.w0.shape == (filters, 1)
    for weight in (layer.W, layer.w0):
        with pytest.raises(ValueError, match="read-only"):
            weight += 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            weight.flags.writeable = True
    held[...] = 0  # the caller's from before, which the layer has left
    assert (before == layer.W).all()
    layer.unfreeze()
    assert not layer.frozen
    layer.W += 1
    layer.w0 += 1
    x = images(1, 4, 9, 8)
    fresh = convolution()
    fresh.W, fresh.w0 = layer.W.copy(), layer.w0.copy()
    assert layer.forward_pass(x, training=False).tobytes() == fresh.forward_pass(x, training=False).tobytes()


@pytest.mark.parametrize("name", ["W", "w0", "stride", "padding", "dilation", "groups", "padding_mode", "algorithm"])
def test_nothing_that_the_plan_was_made_of_can_be_set(name):
    layer = convolution()
    layer.freeze()
    with pytest.raises(AttributeError, match=f"^Conv2D: the layer is frozen, so {name} cannot be set; call unfreeze "):
        setattr(layer, name, getattr(layer, name))
    layer.unfreeze()
    setattr(layer, name, getattr(layer, name))


@pytest.mark.parametrize("kind", [Conv2D, Dense, BatchNormalization])
def test_a_step_is_refused_before_anything_is_done(kind):
    layer = {"Conv2D": convolution, "Dense": lambda o: Dense(3, input_shape=(5,), rng=0)}.get(
        kind.__name__, lambda o: BatchNormalization()
    )(SGD())
    if layer.input_shape is None:
        layer.set_input_shape((5,))
    layer.initialize(SGD())
    x = images(2, 4, 9, 8) if kind is Conv2D else images(2, 5)
    layer.freeze()
    y = layer.forward_pass(x, training=True)
    before = {name: getattr(layer, name).tobytes() for name in layer.weight_names}
    said = rf"^{kind.__name__}\.backward_pass: the layer is frozen, so its weights cannot be updated; call unfreeze "
    with pytest.raises(RuntimeError, match=said):
        layer.backward_pass(object())  # not even looked at
    with pytest.raises(RuntimeError, match=rf"^{kind.__name__}\.initialize: the layer is frozen"):
        layer.initialize(SGD())
    assert before == {name: getattr(layer, name).tobytes() for name in layer.weight_names}
    layer.trainable = False
    assert layer.backward_pass(np.ones_like(y)).shape == x.shape
    layer.unfreeze()
    layer.trainable = True
    layer.backward_pass(images(*layer.forward_pass(x).shape))
    assert all(before[name] != getattr(layer, name).tobytes() for name in layer.weight_names)


def test_freezing_twice_and_unfreezing_twice():
    layer = convolution()
    layer.unfreeze()
    layer.freeze()
    weight = layer.W
    layer.freeze()
    assert layer.W is weight
    layer.unfreeze()
    weight = layer.W
    layer.unfreeze()
    assert layer.W is weight


def test_layers_without_weights():
    for layer in (Layer(), Activation("relu"), Flatten(), Dropout(0.5)):
        layer.freeze()
        assert not layer.frozen
        layer.unfreeze()


def test_weights_must_be_there():
    with pytest.raises(RuntimeError, match=r"^Conv2D\.freeze: call initialize first$"):
        Conv2D(1, (3, 3), input_shape=(1, 4, 4)).freeze()


@pytest.mark.parametrize("again", COPIES)
def test_copies_stay_frozen_and_apart(again, calls):
    layer, x = convolution(), images(2, 4, 9, 8)
    layer.freeze()
    wanted = layer.forward_pass(x, training=False)
    copied = again(layer)
    assert copied.frozen
    with pytest.raises(ValueError, match="read-only"):
        copied.W[...] = 0
    with pytest.raises(AttributeError, match="frozen"):
        copied.W = layer.W
    before = len(calls)
    assert copied.forward_pass(x, training=False).tobytes() == wanted.tobytes()
    assert len(calls) == before + 1
    copied.unfreeze()
    copied.W[...] = 0
    assert layer.frozen
    assert layer.forward_pass(x, training=False).tobytes() == wanted.tobytes()


def test_a_frozen_layer_is_pickled_once():
    layer = Conv2D(64, (3, 3), input_shape=(64, 8, 8))
    layer.initialize(None)
    layer.freeze()
    assert len(pickle.dumps(layer)) < 1.1 * layer.W.nbytes
    assert b"Conv2DPlan" not in pickle.dumps(layer)  # the plan is made anew


class Slotted(Conv2D):
    __slots__ = ("note",)


@pytest.mark.parametrize("again", COPIES)
def test_a_subclass_with_slots(again):
    layer = Slotted(2, (3, 3), input_shape=(1, 5, 5), rng=0)
    layer.initialize(None)
    layer.note = "kept"
    layer.freeze()
    copied = again(layer)
    assert copied.note == "kept"
    assert copied.frozen
    assert not copied.W.flags.writeable


# --- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [lambda thing: thing, *COPIES])
def test_a_frozen_network_predicts_the_same_bits(again, calls):
    model = network()
    wanted = model.predict(DATA[0], batch_size=5)
    model.freeze()
    assert [layer.frozen for layer in model.layers] == [bool(layer.weight_names) for layer in model.layers]
    frozen = again(model)
    assert frozen.predict(DATA[0], batch_size=5).tobytes() == wanted.tobytes()
    assert len(calls) == 3
    assert frozen.evaluate(*DATA) == network().evaluate(*DATA)
    frozen.unfreeze()
    assert not any(layer.frozen for layer in frozen.layers)
    assert frozen.train_on_batch(*DATA) == network().train_on_batch(*DATA)


def test_a_frozen_network_is_not_trained():
    model = network()
    model.freeze()
    state = model.layers[5].rng.bit_generator.state
    said = r"^Sequential\.train_on_batch: layer 0, Conv2D, is frozen; call unfreeze first$"
    with pytest.raises(RuntimeError, match=said):
        model.train_on_batch(*DATA)
    assert model.layers[5].rng.bit_generator.state == state
    with pytest.raises(RuntimeError, match="is frozen"):
        model.fit(*DATA, progress=False)


def test_the_rest_of_a_network_is_trained():
    model = network()
    model.layers[0].freeze()
    model.layers[0].trainable = False
    before = model.layers[0].W.tobytes(), model.layers[6].W.tobytes()
    model.train_on_batch(*DATA)
    assert model.layers[0].W.tobytes() == before[0]
    assert model.layers[6].W.tobytes() != before[1]


def test_freezing_is_all_or_nothing():
    model = network()
    weights = [layer.W for layer in (model.layers[0], model.layers[6])]
    model.layers.append(Conv2D(1, (3, 3), input_shape=(1, 4, 4)))  # without weights
    with pytest.raises(RuntimeError, match=r"Conv2D\.freeze: call initialize first"):
        model.freeze()
    assert not any(layer.frozen for layer in model.layers)
    assert model.layers[0].W is weights[0]
    assert model.layers[6].W is weights[1]
    model.layers.pop()
    model.train_on_batch(*DATA)


def test_a_layer_of_another_kind_is_left_alone():
    class Doubling:
        input_shape = None

        def set_input_shape(self, shape):
            self.input_shape = shape

        def layer_name(self):
            return "Doubling"

        def output_shape(self):
            return self.input_shape

        def forward_pass(self, X, training=True):
            return 2 * X

    model = network()
    model.layers.insert(4, Doubling())
    wanted = model.predict(DATA[0])
    model.freeze()
    assert model.predict(DATA[0]).tobytes() == wanted.tobytes()
    with pytest.raises(RuntimeError, match="frozen"):
        model.train_on_batch(*DATA)
    model.unfreeze()


def test_a_frozen_network_is_saved_and_not_loaded(tmp_path):
    model = network()
    model.freeze()
    model.save(tmp_path / "weights.npz")
    with pytest.raises(RuntimeError, match=r"^Sequential\.load: layer 0, Conv2D, is frozen; call unfreeze first$"):
        model.load(tmp_path / "weights.npz")
    other = network()
    other.train_on_batch(*DATA)
    other.load(tmp_path / "weights.npz")
    other.freeze()
    assert other.predict(DATA[0]).tobytes() == model.predict(DATA[0]).tobytes()


def test_one_frozen_layer_serves_many_threads():
    layer = convolution()
    x = [images(n, 4, 9, 8) for n in (1, 2, 30)]
    wanted = [layer.forward_pass(each, training=False).tobytes() for each in x]
    layer.freeze()
    wrong = []

    def work():
        for _ in range(30):
            wrong.extend(
                k for k, each in enumerate(x) if layer.forward_pass(each, training=False).tobytes() != wanted[k]
            )

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
