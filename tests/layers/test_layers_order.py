"""A network takes maxima before a ReLU: the bits of outputs, gradients and weights are those of the order as added."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from convjit import (
    SGD,
    Activation,
    AveragePooling2D,
    Conv1D,
    Conv2D,
    Conv3D,
    Dense,
    Flatten,
    Layer,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
    Sequential,
    SquareLoss,
)
from convjit.layers.order import MaximaFirst, in_running_order

POOLS = {
    "apart": MaxPooling2D((2, 2), stride=2),
    "over one another": MaxPooling2D((3, 2), stride=1),
    "padded": MaxPooling2D(3, stride=2, padding=1),
    "padding shown twice": MaxPooling2D((2, 3), stride=3, padding=((1, 0), (0, 1))),
}


class Seen(Layer):
    """Hands on what it gets, and keeps it."""

    def __init__(self, changed=lambda array: array):
        self.changed = changed

    def forward_pass(self, X, training=True):
        self.output = self.changed(X)
        return self.output

    def backward_pass(self, accum_grad):
        self.gradient = accum_grad
        return accum_grad

    def output_shape(self):
        return self.input_shape


def names(layers):
    return [type(layer).__name__ if type(layer) is not Activation else layer.activation_name for layer in layers]


def changed_places(layers):
    return [names([layer._relu, layer._pool]) for layer in in_running_order(layers) if isinstance(layer, MaximaFirst)]


def hard(images):
    """Values of which many are equal, zeros of both signs, and some that are none."""
    values = np.round(images)
    values[:, 0, ::3, ::2] = -0.0
    values[0, 0, 1, 1] = np.nan
    values[0, 1, 2, 3] = np.inf
    values[-1, 0] = -np.abs(values[-1, 0])
    return values


@pytest.mark.parametrize(("changed", "steps"), [(lambda array: array, 3), (hard, 1)], ids=["real", "hard"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", POOLS)
def test_a_network_has_the_bits_of_the_order_as_added(name, dtype, changed, steps, monkeypatch):
    """A NaN spoils all weights in one step; gradients of the other images are compared before."""
    x = 2 * np.random.default_rng(0).standard_normal((3, 2, 9, 7)).astype(dtype)
    y = np.array([0, 1, 1])

    def run():
        seen, behind = Seen(changed), Seen()
        first = Conv2D(3, (3, 3), input_shape=(2, 9, 7), dtype=dtype, rng=0)
        pool = MaxPooling2D(POOLS[name].pool_shape, POOLS[name].stride, POOLS[name].padding)
        rest = Flatten(), Dense(2, dtype=dtype, rng=1), Activation("softmax")
        layers = [first, seen, Activation("relu"), pool, behind, *rest]
        model = Sequential(layers, optimizer=SGD(0.1))
        with np.errstate(all="ignore"):
            scores = [model.train_on_batch(x, y) for _ in range(steps)]
            predicted = model.predict(x)
        return predicted, behind.output, seen.gradient, first.W, first.w0, np.array(scores)

    swapped = run()
    monkeypatch.setattr("convjit.layers.sequential.in_running_order", list)
    for got, expected in zip(swapped, run(), strict=True):
        assert got.dtype == expected.dtype
        assert_array_equal(got, expected)
        finite = ~np.isnan(expected)
        assert_array_equal(np.signbit(got[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize(("conv", "pool", "size"), [(Conv1D, MaxPooling1D, 8), (Conv3D, MaxPooling3D, 4)])
def test_also_in_one_and_three_dimensions(conv, pool, size, monkeypatch):
    rank = conv.rank
    x = np.random.default_rng(0).standard_normal((4, 1, *(size,) * rank))

    def run():
        layers = [conv(2, 3, input_shape=x.shape[1:], rng=0), Activation("relu"), pool(2, stride=2), Flatten()]
        model = Sequential([*layers, Dense(3, rng=0)], optimizer=SGD(0.1), loss="square")
        model.fit(x, np.eye(4, 3), epochs=3, rng=0)
        return model.layers[0].W

    swapped = run()
    monkeypatch.setattr("convjit.layers.sequential.in_running_order", list)
    assert_array_equal(swapped, run())


def test_which_layers_change_places():
    relu, pool = Activation("relu"), MaxPooling2D()
    assert changed_places([Conv2D(1, (1, 1)), relu, pool, Flatten()]) == [["relu", "MaxPooling2D"]]
    assert len(in_running_order([relu, pool, MaxPooling2D(), Activation("relu"), MaxPooling1D()])) == 3
    for first in (Activation("leaky_relu"), Activation("tanh"), Dense(1), MaxPooling2D()):
        assert in_running_order([first, pool]) == [first, pool]
    mean = AveragePooling2D()
    assert in_running_order([relu, mean]) == [relu, mean]
    assert in_running_order([pool, relu]) == [pool, relu]


def test_a_layer_of_somebody_elses_or_one_that_is_watched_keeps_its_place():
    class Mine(MaxPooling2D):
        pass

    class Rectified(Activation):
        pass

    relu, pool, mine, rectified = Activation("relu"), MaxPooling2D(), Mine(), Rectified("relu")
    assert in_running_order([relu, mine]) == [relu, mine]
    assert in_running_order([rectified, pool]) == [rectified, pool]
    for watched in (relu, pool):
        watched.backward_pass = watched.backward_pass
        assert in_running_order([relu, pool]) == [relu, pool]
        del watched.backward_pass
    assert changed_places([relu, pool]) == [["relu", "MaxPooling2D"]]


def model_of(*layers, **options):
    return Sequential([Conv2D(2, (3, 3), input_shape=(1, 6, 6), rng=0), *layers], optimizer=SGD(0.1), **options)


def test_the_layers_of_a_network_stay_in_the_order_in_which_they_were_added():
    model = model_of(Activation("relu"), MaxPooling2D())
    model.predict(np.zeros((1, 1, 6, 6)))
    assert names(model.layers) == ["Conv2D", "relu", "MaxPooling2D"]
    assert "Activation (ReLU)  (2, 6, 6)" in model.summary()


def through(layers, images):
    for layer in layers:
        images = layer.forward_pass(images)
    return images


def back_through(layers, gradient):
    for layer in layers[::-1]:
        gradient = layer.backward_pass(gradient)
    return gradient


def test_layers_keep_what_their_own_passes_need():
    """Back through the layers by hand, behind a step of the network: for the gradient in the images, say."""
    x = np.random.default_rng(0).standard_normal((3, 1, 6, 6))

    def network():
        return model_of(Activation("relu"), MaxPooling2D((2, 2), stride=2), Flatten(), Dense(2, rng=0), loss="square")

    stepped, by_hand = network(), network()
    for layer in stepped.layers:
        layer.trainable = False
    stepped.train_on_batch(x, np.eye(3, 2))
    through(by_hand.layers, x)
    assert_array_equal(back_through(stepped.layers, np.ones((3, 2))), back_through(by_hand.layers, np.ones((3, 2))))


def test_a_layer_that_is_watched_from_within_a_step_on():
    """The way back is the way that the step went forward."""
    seen, x = [], np.random.default_rng(0).standard_normal((2, 1, 6, 6))

    class Watching(SquareLoss):
        def loss(self, y, predicted):
            relu = model.layers[1]
            relu.backward_pass = lambda gradient: seen.append(gradient) or Activation.backward_pass(relu, gradient)
            return super().loss(y, predicted)

    results = []
    for loss in (SquareLoss(), Watching()):
        model = model_of(Activation("relu"), MaxPooling2D((2, 2), stride=2), loss=loss)
        results.append((model.train_on_batch(x, np.zeros((2, 2, 3, 3))), model.layers[0].W.tobytes()))
    assert results[0] == results[1]
    assert [gradient.shape for gradient in seen] == [(2, 2, 3, 3)]


@pytest.mark.parametrize("grad_dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", POOLS)
def test_one_pass_back_has_the_bits_of_two(name, dtype, grad_dtype, monkeypatch):
    rng = np.random.default_rng(0)
    x = hard(rng.standard_normal((3, 2, 9, 7)).astype(dtype))
    layers = Activation("relu"), POOLS[name]
    wanted = through(layers, x)
    gradient = rng.standard_normal(wanted.shape).astype(grad_dtype)
    back = back_through(layers, gradient)
    (pair,) = in_running_order(layers)
    monkeypatch.setattr(Activation, "backward_pass", lambda *arguments: pytest.fail("a pass of its own"))
    got = pair.forward_pass(x)
    gradients = pair.backward_pass(gradient)
    assert_array_equal(got, wanted, strict=True)
    assert_array_equal(gradients, back, strict=True)
    assert_array_equal(np.signbit(gradients), np.signbit(back))


NOTHING_GAINED = {
    "float16, whose -0 NumPy keeps": (np.array([[[[-1, -0.0, -2, -0.0]]]], "f2"), {}),
    "integers that float64 rounds": (np.array([[[[1, 0, 3, 2]]]]) + 2**53, {}),
    "windows in the padding": (np.zeros((1, 1, 0, 4)), {"padding": 1}),
}


@pytest.mark.parametrize("name", NOTHING_GAINED)
def test_what_is_run_as_it_stands(name):
    x, options = NOTHING_GAINED[name]
    layers = [Activation("relu"), MaxPooling2D((1, 2) if not options else 2, **options)]
    layers[0].set_input_shape(x.shape[1:])
    got, wanted = Sequential(layers).predict(x), through(layers, x)
    assert got.tobytes() == wanted.tobytes()
    (pair,) = in_running_order(layers)
    back = back_through(layers, np.ones_like(wanted))
    pair.forward_pass(x)
    assert pair.backward_pass(np.ones_like(wanted)).tobytes() == back.tobytes()
