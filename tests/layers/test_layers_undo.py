"""A step that fails leaves somebody else's layers and optimizers as they were: the same objects, the same content."""

import hashlib
from dataclasses import dataclass
from unittest.mock import MagicMock

import numpy as np
import pytest

from convjit import SGD, Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten, Layer, Sequential

X = np.random.default_rng(0).normal(size=(8, 4))
CLASSES = np.arange(8) % 3


class Tied(Layer):
    """A dense layer's weights, transposed."""

    def __init__(self, other):
        self.other = other

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        return X @ self.other.W.T

    def backward_pass(self, accum_grad):
        return accum_grad @ self.other.W


class MyDense(Dense):
    pass


class MyConv(Conv2D):
    pass


def classifier(first):
    return Sequential([first, Dense(3, rng=1), Activation("softmax")], optimizer=SGD(0.1))


def fails(network, X=X):
    with pytest.raises(ValueError, match=r"classes must be 0\.\.2"):
        network.train_on_batch(X, np.full(len(X), 9))


def test_tied_weights_stay_tied():
    def build():
        dense = Dense(3, input_shape=(4,), rng=0)
        return Sequential([dense, Tied(dense)], loss="square")

    smooth, rough = build(), build()
    with pytest.raises(ValueError, match="y must have shape"):
        rough.train_on_batch(X, X[:, :2])
    assert rough.layers[1].other is rough.layers[0]
    assert [smooth.train_on_batch(X, X) for _ in range(3)] == [rough.train_on_batch(X, X) for _ in range(3)]


def test_an_optimizer_of_a_subclass_stays_the_same():
    network = classifier(MyDense(5, input_shape=(4,), rng=0))
    optimizer, weights = network.layers[0].W_opt, network.layers[0].W
    fails(network)
    assert network.layers[0].W_opt is optimizer
    assert network.layers[0].W is weights
    optimizer.learning_rate = 0.0
    network.train_on_batch(X, CLASSES)
    assert (weights == network.layers[0].W).all()


def test_a_frozen_layer_of_a_subclass_stays_read_only():
    images = np.random.default_rng(0).normal(size=(4, 2, 5, 5))
    first = MyConv(2, (3, 3), input_shape=(2, 5, 5), groups=2, rng=0)
    network = Sequential([first, Flatten(), Dense(3), Activation("softmax")])
    first.trainable = False
    first.freeze()
    fails(network, images)
    assert not first.W.flags.writeable


class Busy(Layer):
    """Everything that a layer may hold, changed in every pass."""

    def __init__(self, log):
        self.log, self.rng, self.old_rng = log, np.random.default_rng(0), np.random.RandomState(0)
        self.counts, self.names, self.sums = {"passes": 0}, set(), (np.zeros(2),)
        self.inner = Dropout(0.5, rng=0)

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        self.log.append(len(self.log))
        self.counts["passes"] += 1
        self.names.add(str(len(self.log)))
        self.sums[0][:] += 1
        self.rng.normal(), self.old_rng.normal()
        self.extra = self.inner.forward_pass(X)
        return X

    def backward_pass(self, accum_grad):
        return accum_grad

    def state(self):
        drawn = (self.rng.bit_generator.state, self.inner.rng.bit_generator.state, str(self.old_rng.get_state()))
        return [*self.log], {**self.counts}, {*self.names}, self.sums[0].tolist(), drawn, hasattr(self, "extra")


def test_what_a_layer_holds_is_refilled():
    log = []
    busy = Busy(log)
    busy.set_input_shape((4,))
    network = classifier(busy)
    before, held = busy.state(), {**vars(busy)}
    fails(network)
    assert busy.state() == before
    assert busy.log is log
    assert all(vars(busy)[name] is value for name, value in held.items())
    network.train_on_batch(X, CLASSES)
    assert (log, busy.counts, busy.sums[0][0]) == ([0], {"passes": 1}, 1)


class Block(Layer):
    """A layer made of convjit's own."""

    def __init__(self):
        self.parts = [Dense(4, input_shape=(4,), rng=2), Activation("tanh")]
        self.parts[0].initialize(SGD(0.1, 0.9))

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        for part in self.parts:
            X = part.forward_pass(X, training)
        return X

    def backward_pass(self, accum_grad):
        for part in reversed(self.parts):
            accum_grad = part.backward_pass(accum_grad)
        return accum_grad


class Refusing(Layer):
    """Fails when all layers behind it have made their step."""

    fails = False

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        return X

    def backward_pass(self, accum_grad):
        if self.fails:
            raise ArithmeticError
        return accum_grad


def test_layers_within_a_layer_are_put_back():
    def build():
        first = Refusing()
        first.set_input_shape((4,))
        return Sequential([first, Block(), Dense(3, rng=1), Activation("softmax")], optimizer=SGD(0.1))

    smooth, rough = build(), build()
    for network in (smooth, rough):
        network.train_on_batch(X, CLASSES)
    rough.layers[0].fails = True
    with pytest.raises(ArithmeticError):
        rough.train_on_batch(X, CLASSES)
    rough.layers[0].fails = False
    assert [smooth.train_on_batch(X, CLASSES) for _ in range(3)] == [rough.train_on_batch(X, CLASSES) for _ in range(3)]


class Watched(Layer):
    """Holds what answers every question, and a number of classes."""

    def __init__(self):
        self.watcher, self.kinds = MagicMock(), [Dense, Scheduled]

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        self.watcher.saw(X.shape)
        return X

    def backward_pass(self, accum_grad):
        return accum_grad


def test_what_claims_to_be_everything_is_left_alone():
    watched = Watched()
    watched.set_input_shape((4,))
    network = classifier(watched)
    watcher = watched.watcher
    fails(network)
    assert watched.watcher is watcher
    watcher.saw.assert_called_once_with((8, 4))


class Scheduled:
    """Gradient descent whose copies share a schedule."""

    def __init__(self, schedule):
        self.schedule = schedule

    def update(self, w, grad):
        return w - self.schedule.rate * grad


def test_copies_of_an_optimizer_share_a_schedule_after_a_failed_step():
    class Schedule:
        rate = 0.1

    schedule = Schedule()
    layer = Dense(3, input_shape=(4,), rng=0)
    layer.initialize(Scheduled(schedule))
    layer.forward_pass(X)
    layer.w0_opt.schedule = None
    with pytest.raises(AttributeError):
        layer.backward_pass(np.ones((8, 3)))
    assert layer.W_opt.schedule is schedule


class Stubborn(np.ndarray):
    """Takes no values from NumPy's functions."""

    def __array_function__(self, *_):
        raise TypeError("never")


class Unwilling(list):
    """Refuses to be emptied."""

    def clear(self):
        raise TypeError("never")


class Locking(Layer):
    """Counts in arrays that it locks then, and in a list; one of its arrays cannot be put back at all."""

    def __init__(self):
        self.stubborn = np.zeros(4).view(Stubborn)
        self.whole = np.zeros(4)
        self.part = self.whole[1:]
        self.log = Unwilling()

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        self.part += 1
        self.log.append(len(self.log))
        for array in (self.stubborn, self.whole, self.part):
            array.flags.writeable = False
        return X

    def backward_pass(self, accum_grad):
        return accum_grad


def test_what_cannot_be_put_back_stops_nothing_else():
    first, locking = Refusing(), Locking()
    first.set_input_shape((4,))
    network = Sequential([first, locking, BatchNormalization(), Dense(3, rng=1), Activation("softmax")])
    weights, first.fails = network.layers[3].W, True
    copied = weights.copy()
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            network.train_on_batch(X, CLASSES)
        assert network.layers[3].W is weights
        assert (copied == weights).all()
        assert network.layers[2].running_mean is None
        assert locking.log == []
        assert locking.whole.flags.writeable
        assert locking.part.flags.writeable
        assert (locking.whole == 0).all()


# --- slots ------------------------------------------------------------------------------------------------------------


class Private:
    """Counts in a slot whose name is mangled, and in one that is empty before the first step."""

    __slots__ = ("__n", "last", "v")

    def __init__(self):
        self.__n, self.v = 0, [0]

    def update(self, w, grad):
        self.__n += 1
        self.v[0] += 1
        self.last = grad
        return w - 0.1 * grad

    def state(self):
        return self.__n, [*self.v], hasattr(self, "last")


class Derived(Private):
    """Has a slot of the same name, and a dictionary."""

    __slots__ = ("__dict__", "__n")

    def update(self, w, grad):
        self.__n = self.extra = 1
        return super().update(w, grad)

    def state(self):
        return *super().state(), hasattr(self, "_Derived__n"), {**vars(self)}


@dataclass(frozen=True, slots=True)
class Unchanging:
    """Refuses to set attributes, but for the list that it holds."""

    rate: float
    log: list

    def update(self, w, grad):
        self.log.append(len(self.log))
        return w - self.rate * grad

    def state(self):
        return self.rate, [*self.log]


def refusing(optimizer):
    """A network whose first layer can fail, when the others have made their step."""
    first = Refusing()
    first.set_input_shape((4,))
    layers = [first, Dense(3, rng=1), Activation("softmax")]
    network = Sequential(layers, optimizer=optimizer)
    network.layers[1].w0_opt = SGD(0.1)
    return network


@pytest.mark.parametrize("make", [Private, Derived, lambda: Unchanging(0.1, [])], ids=["private", "derived", "frozen"])
@pytest.mark.parametrize("steps_before", [0, 1])
def test_slots_are_put_back(make, steps_before):
    network = refusing(make())
    for _ in range(steps_before):
        network.train_on_batch(X, CLASSES)
    optimizer, weights = network.layers[1].W_opt, network.layers[1].W
    before = optimizer.state()
    network.layers[0].fails = True
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            network.train_on_batch(X, CLASSES)
    assert network.layers[1].W_opt is optimizer
    assert network.layers[1].W is weights
    assert optimizer.state() == before


# --- what optimizers may be, and hold ---------------------------------------------------------------------------------


class Stateless:
    __slots__ = ()

    def update(self, w, grad):
        return w - 0.1 * grad


class Holding(Stateless):
    """Holds something, and counts its steps."""

    def __init__(self, held):
        self.held, self.steps = held, [0]

    def update(self, w, grad):
        self.steps[0] += 1
        return super().update(w, grad)


class Passing(Layer):
    """Holds something, and counts its passes."""

    def __init__(self, held):
        self.held, self.passes, self.input_shape = held, [0], (4,)

    def output_shape(self):
        return (4,)

    def forward_pass(self, X, training=True):
        self.passes[0] += 1
        return X

    def backward_pass(self, accum_grad):
        return accum_grad


def shared(depth):
    """Tuples that hold one another twice: 2**depth ways to the innermost."""
    made = ()
    for _ in range(depth):
        made = made, made
    return made


def nested(depth):
    made = []
    for _ in range(depth):
        made = [made]
    return made


HELD = {
    "nothing to write into": Stateless, "a hash": hashlib.sha256, "a class": lambda: SGD,
    "tuples that share tuples": lambda: shared(60), "deep lists": lambda: nested(5000),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_layers_and_optimizers_may_hold_anything(name):
    held = HELD[name]()
    network = classifier(Passing(held))
    network.layers[1].initialize(Holding(held))
    network.train_on_batch(X, CLASSES)
    fails(network)
    assert network.layers[0].held is network.layers[1].W_opt.held is held
    assert (network.layers[0].passes, network.layers[1].W_opt.steps) == ([1], [2])  # steps are of both weights


def test_an_optimizer_without_state_trains():
    network = classifier(Dense(4, input_shape=(4,), rng=0))
    network.layers[0].initialize(Stateless())
    weights = network.layers[0].W
    fails(network)
    assert network.layers[0].W is weights
    network.train_on_batch(X, CLASSES)
    assert not (weights == network.layers[0].W).any()


class Miscopied(Stateless):
    def __copy__(self):
        return 3


@pytest.mark.parametrize("step", [lambda layer: layer.backward_pass(np.ones((8, 4))), None], ids=["layer", "network"])
@pytest.mark.parametrize(
    ("set_up", "got"),
    [
        (lambda layer: setattr(layer, "W_opt", 3), "int 3"),
        (lambda layer: layer.__dict__.update(W_opt=SGD, w0_opt=SGD), "type"),
        (lambda layer: layer.initialize(Miscopied()), "int 3"),
    ],
    ids=["a number", "a class", "a copy that is none"],
)
def test_what_is_no_optimizer_is_refused(set_up, got, step):
    layer = Dense(4, input_shape=(4,), rng=0)
    network = classifier(layer)
    set_up(layer)
    weights = layer.W
    layer.forward_pass(X)
    said = rf"^Dense\.backward_pass: W_opt must be an object with update\(w, grad\), got {got}"
    with pytest.raises(TypeError, match=said):
        step(layer) if step else network.train_on_batch(X, CLASSES)
    assert layer.W is weights
