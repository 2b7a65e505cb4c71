"""The convolution layer: the calls of the original text, training beside plain NumPy, errors, and steps that fail."""

import copy
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit import SGD, Adam, Conv2D, conv2d, conv2d_backward
from convjit.testing import NumpyConv2D

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)


class Momentum:
    """Averages gradients; rebinds its state."""

    def __init__(self, learning_rate=0.01, momentum=0.9):
        self.learning_rate, self.momentum, self.step = learning_rate, momentum, None

    def update(self, w, grad):
        self.step = np.zeros(w.shape) if self.step is None else self.step
        self.step = self.momentum * self.step + (1 - self.momentum) * grad
        return w - self.learning_rate * self.step


class InPlaceAdagrad:
    """Adds squares of gradients into the array that it holds."""

    def __init__(self, learning_rate=0.01):
        self.learning_rate, self.squares = learning_rate, None

    def update(self, w, grad):
        if self.squares is None:
            self.squares = np.zeros(w.shape)
        self.squares += grad**2
        return w - self.learning_rate * grad / np.sqrt(self.squares + 1e-8)


class PlainAdam:
    """Adam without counting steps: the moments are corrected by constants."""

    def __init__(self):
        self.mean = self.square = 0.0

    def update(self, w, grad):
        self.mean = 0.9 * self.mean + 0.1 * grad
        self.square = 0.999 * self.square + 0.001 * grad**2
        return w - 0.001 * (self.mean / 0.1) / (np.sqrt(self.square / 0.001) + 1e-8)


class WritesIntoWeights:
    """Changes the weights and the gradient that it is given, and returns those weights."""

    def update(self, w, grad):
        grad *= 0.01
        w -= grad
        return w


class Slotted:
    """Holds its state in slots, and changes it in place."""

    __slots__ = ("seen", "velocity")

    def __init__(self):
        self.seen = []

    def update(self, w, grad):
        if not hasattr(self, "velocity"):
            self.velocity = np.zeros_like(w)
        self.velocity += grad
        self.seen.append(float(grad.sum()))
        return w - 0.01 * self.velocity


FOREIGN = [Momentum, InPlaceAdagrad, PlainAdam, WritesIntoWeights, Slotted]


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def small(optimizer=None, **options):
    """A layer of 4 filters for 2 channels of 6x6, with its weights."""
    options = {"n_filters": 4, "filter_shape": (3, 3), "input_shape": (2, 6, 6), "rng": 0} | options
    layer = Conv2D(**options)
    layer.initialize(optimizer)
    return layer


def state(thing):
    """All that an object holds, copied."""
    if hasattr(thing, "__dict__"):
        return copy.deepcopy(vars(thing))
    return copy.deepcopy({name: getattr(thing, name) for name in thing.__slots__ if hasattr(thing, name)})


def assert_same_state(got, wanted):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_array_equal(got[name], value, err_msg=name)


# --- the calls of the original text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "stride", "shape"),
    [("same", 1, (1, 16, 32, 32)), ("valid", 1, (1, 16, 30, 30)), ("valid", 2, (1, 16, 15, 15))],
)
def test_the_calls_of_the_original_text(padding, stride, shape):
    layer = Conv2D(n_filters=16, filter_shape=(3, 3), stride=stride, input_shape=(3, 32, 32), padding=padding)
    layer.initialize(optimizer=None)
    y = layer.forward_pass(IMAGE, training=False)
    assert y.shape == shape
    assert y.dtype == np.float64
    assert layer.output_shape() == shape[1:]
    assert layer.parameters() == 448
    assert layer.layer_name() == "Conv2D"
    assert_allclose(y, conv2d(IMAGE.astype(float), layer.W, stride=stride, padding=padding), rtol=1e-12)


def test_positional_arguments_and_a_shape_given_later():
    layer = Conv2D(4, (3, 2), (2, 6, 5), "valid", 2)
    later = Conv2D(4, (3, 2), padding="valid", stride=2)
    later.set_input_shape((2, 6, 5))
    assert layer.output_shape() == later.output_shape() == (4, 2, 2)
    assert layer.input_shape == later.input_shape == (2, 6, 5)


def test_weights_are_those_of_the_seed():
    np.random.seed(7)
    limit = 1 / np.sqrt(3 * 5)
    wanted = np.random.uniform(-limit, limit, size=(4, 2, 3, 5))
    next_number = np.random.uniform()
    np.random.seed(7)
    layer = Conv2D(4, (3, 5), input_shape=(2, 8, 8))
    layer.initialize(Momentum())
    assert_array_equal(layer.W, wanted, strict=True)
    assert_array_equal(layer.w0, np.zeros((4, 1)), strict=True)
    assert np.random.uniform() == next_number


def test_a_generator_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()
    layers = [small(rng=5), small(rng=5), small(rng=np.random.default_rng(5)), small(rng=6)]
    assert_array_equal(np.random.get_state()[1], before)
    assert_array_equal(layers[0].W, layers[1].W)
    assert_array_equal(layers[0].W, layers[2].W)
    assert not np.array_equal(layers[0].W, layers[3].W)


@pytest.mark.parametrize(("name", "limit"), [("glorot", np.sqrt(6 / (9 * 8 + 9 * 16))), ("he", np.sqrt(6 / (9 * 8)))])
def test_limits_of_other_initializers(name, limit):
    weights = small(initializer=name, n_filters=32, groups=2, input_shape=(16, 5, 5)).W
    assert 0.98 * limit < np.abs(weights).max() <= limit


def test_each_weight_has_its_own_copy_of_the_optimizer():
    optimizer = Momentum()
    layer = small(optimizer)
    assert type(layer.W_opt) is type(layer.w0_opt) is Momentum
    assert len({id(optimizer), id(layer.W_opt), id(layer.w0_opt)}) == 3


# --- training beside plain NumPy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", FOREIGN)
@pytest.mark.parametrize(("padding", "stride"), [("same", 1), ("valid", 1), ("valid", 2), ("same", 2)])
def test_fifty_steps_beside_plain_numpy(optimizer, padding, stride):
    options = {"input_shape": (2, 7, 6), "padding": padding, "stride": stride}
    layers = []
    for kind in (Conv2D, NumpyConv2D):
        np.random.seed(3)
        layer = kind(3, (3, 2), **options)
        layer.initialize(optimizer())
        layers.append(layer)
    ours, plain = layers
    if optimizer is WritesIntoWeights:  # the plain layer hands out its weights themselves
        plain.W_opt, plain.w0_opt = Momentum(momentum=0), Momentum(momentum=0)
    for step in range(50):
        x = images(2, 2, 7, 6, seed=step)
        y, wanted = ours.forward_pass(x), plain.forward_pass(x)
        assert_allclose(y, wanted, rtol=0, atol=1e-10)
        dy = np.tanh(wanted - images(*wanted.shape, seed=99)) / 10
        assert_allclose(ours.backward_pass(dy), plain.backward_pass(dy), rtol=0, atol=1e-10)
        assert_allclose(ours.W, plain.W, rtol=0, atol=1e-10)
        assert_allclose(ours.w0, plain.w0, rtol=0, atol=1e-10)
    assert ours.W.dtype == np.float64
    assert np.abs(ours.w0).min() > 1e-6


def test_the_gradient_is_that_of_the_weights_of_the_forward_pass():
    layer = small(SGD(1.0))
    x, old = images(2, 2, 6, 6), layer.W
    dy = images(2, 4, 6, 6, seed=1)
    layer.forward_pass(x)
    wanted, dw, db = conv2d_backward(dy, x, old, padding="same")
    assert_array_equal(layer.backward_pass(dy), wanted)
    assert_array_equal(layer.W, old - dw)
    assert_array_equal(layer.w0, -db.reshape(-1, 1))
    assert_array_equal(layer.backward_pass(dy), wanted)  # once more: still those of the forward pass
    layer.forward_pass(x)
    layer.W = np.zeros_like(old)
    assert np.abs(layer.backward_pass(dy)).max() > 0.1


def test_who_holds_an_optimizer_holds_it_after_a_step():
    class Scheduled(Momentum):
        schedule = {"rate": 1.0}

        def update(self, w, grad):
            return w - self.schedule["rate"] * grad

    for optimizer in (SGD(1.0), Adam(), Momentum(), Slotted(), Scheduled()):
        layer = small(optimizer)
        held = layer.W_opt, layer.w0_opt
        layer.backward_pass(layer.forward_pass(images(1, 2, 6, 6)))
        assert layer.W_opt is held[0]
        assert layer.w0_opt is held[1]
    optimizer = Scheduled()
    optimizer.schedule = {"rate": 1.0}
    layer = small(optimizer)
    for rate in (1.0, 0.0):
        optimizer.schedule["rate"] = rate
        before = layer.W
        layer.backward_pass(layer.forward_pass(images(1, 2, 6, 6)))
        assert np.array_equal(layer.W, before) == (rate == 0)


def test_images_of_another_height_and_width():
    layer = small(SGD(0.1))
    for shape in [(1, 2, 9, 4), (3, 2, 6, 6), (0, 2, 6, 6), (2, 2, 1, 12)]:
        x = images(*shape)
        y = layer.forward_pass(x)
        assert_array_equal(y, conv2d(x, layer.W, layer.w0[:, 0], padding="same"))
        assert layer.backward_pass(y).shape == shape


def test_nothing_is_kept_in_inference():
    layer = small(SGD(0.1))
    weights = {"W", "w0"}
    layer.forward_pass(images(2, 2, 6, 6))
    assert {k for k, v in vars(layer).items() if isinstance(v, np.ndarray)} - weights == {"layer_input", "_weight_used"}
    layer.forward_pass(images(2, 2, 6, 6), training=False)
    assert {k for k, v in vars(layer).items() if isinstance(v, np.ndarray)} == weights
    with pytest.raises(RuntimeError, match=r"Conv2D\.backward_pass: call forward_pass first, with training=True"):
        layer.backward_pass(images(2, 4, 6, 6))


@pytest.mark.parametrize("optimizer", [None, SGD(0.1), Momentum()])
def test_a_layer_that_is_not_trainable(optimizer):
    layer = small(optimizer)
    layer.trainable = False
    x, before = images(2, 2, 6, 6), state(layer.W_opt) if optimizer else None
    weights = layer.W.copy(), layer.w0.copy()
    dy = layer.forward_pass(x)
    wanted = conv2d_backward(dy, x, layer.W, padding="same", need=(True, False, False))[0]
    assert_array_equal(layer.backward_pass(dy), wanted)
    assert_array_equal(layer.W, weights[0])
    assert_array_equal(layer.w0, weights[1])
    if optimizer:
        assert_same_state(vars(layer.W_opt), before)
    assert layer.parameters() == 4 * 2 * 9 + 4


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2},
        {"groups": 2},
        {"stride": (2, 1), "padding": ((0, 1), (2, 0))},
        {"padding_mode": "reflect"},
        {"padding_mode": "wrap", "dilation": (1, 2), "padding": 2},
        {"padding": "full"},
        {"padding": "same_upper", "stride": 2},
        {"dtype": np.float32},
        {"dtype": "float32", "groups": 2, "algorithm": "reference"},
        {"filter_shape": 3},
    ],
    ids=str,
)
def test_every_option_is_that_of_conv2d(options):
    layer = small(SGD(0.5), **options)
    dtype = np.dtype(options.get("dtype", np.float64))
    named = {k: v for k, v in options.items() if k not in ("dtype", "filter_shape")}
    named = {"padding": "same"} | named
    x, weight = images(2, 2, 6, 6).astype(dtype), layer.W
    layer.w0 = np.arange(4, dtype=dtype).reshape(4, 1)
    y = layer.forward_pass(x)
    assert_array_equal(y, conv2d(x, weight, np.arange(4, dtype=dtype), **named), strict=True)
    assert layer.output_shape() == y.shape[1:]
    dx, dw, db = conv2d_backward(y, x, weight, **named)
    assert_array_equal(layer.backward_pass(y), dx, strict=True)
    assert_array_equal(layer.W, weight - dtype.type(0.5) * dw, strict=True)
    assert_array_equal(layer.w0[:, 0], np.arange(4, dtype=dtype) - dtype.type(0.5) * db, strict=True)


def test_float32_weights_stay_float32_beside_a_float64_optimizer():
    layer = small(InPlaceAdagrad(), dtype=np.float32)
    for _ in range(2):
        layer.backward_pass(layer.forward_pass(images(1, 2, 6, 6)))
    assert layer.W.dtype == layer.w0.dtype == np.float32


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("optimizer", [Adam(), InPlaceAdagrad()])
def test_copies_go_on_alike_and_apart(again, optimizer):
    layer = small(optimizer, padding="valid")
    layer.backward_pass(layer.forward_pass(images(2, 2, 6, 6)))
    layer.forward_pass(images(1, 2, 6, 6))
    other = again(layer)
    frozen = layer.W.copy()
    got = other.backward_pass(images(1, 4, 4, 4))
    assert_array_equal(layer.W, frozen)
    assert_array_equal(layer.backward_pass(images(1, 4, 4, 4)), got)
    assert_array_equal(layer.W, other.W)
    assert not np.array_equal(layer.W, frozen)
    assert_same_state(vars(layer.W_opt), vars(other.W_opt))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value", "error", "said"),
    [
        ("n_filters", 0, ValueError, "0"),
        ("n_filters", -3, ValueError, "-3"),
        ("n_filters", 2.5, TypeError, "float 2.5"),
        ("n_filters", True, TypeError, "bool True"),
        ("n_filters", None, TypeError, "NoneType"),
        ("filter_shape", (0, 3), ValueError, "(0, 3)"),
        ("filter_shape", (3, 3, 3), ValueError, "3"),
        ("filter_shape", "3x3", TypeError, "'3x3'"),
        ("filter_shape", (3, 2.0), TypeError, "float 2.0"),
        ("stride", 0, ValueError, "0"),
        ("stride", (1, -1), ValueError, "(1, -1)"),
        ("stride", 1.5, TypeError, "float 1.5"),
        ("stride", np.True_, TypeError, "True"),
        ("padding", "foo", ValueError, "'foo'"),
        ("padding", -1, ValueError, "-1"),
        ("padding", None, TypeError, "NoneType"),
        ("dilation", 0, ValueError, "0"),
        ("groups", 3, ValueError, "=3 must divide n_filters=4"),
        ("groups", 0, ValueError, "0"),
        ("groups", np.True_, TypeError, "True"),
        ("padding_mode", "zeros", ValueError, "'constant'"),
        ("dtype", "int32", TypeError, "int32"),
        ("dtype", np.float16, TypeError, "float16"),
        ("dtype", "nonsense", TypeError, "'nonsense'"),
        ("rng", "now", TypeError, "'now'"),
        ("rng", 1.5, TypeError, "float 1.5"),
        ("rng", True, TypeError, "True"),
        ("initializer", "zeros", ValueError, "'zeros'"),
        ("initializer", ["he"], TypeError, "['he']"),
        ("algorithm", "fft", ValueError, "'fft'"),
        ("input_shape", 5, ValueError, "5"),
        ("input_shape", (3, 8), ValueError, "(3, 8)"),
        ("input_shape", (3, 8, 8.0), TypeError, "float 8.0"),
        ("input_shape", (-1, 8, 8), ValueError, "(-1, 8, 8)"),
    ],
)
def test_bad_arguments_are_refused_at_construction(argument, value, error, said):
    with pytest.raises(error, match=rf"^Conv2D: .*{argument}.*{re.escape(said)}"):
        Conv2D(**{"n_filters": 4, "filter_shape": (3, 3)} | {argument: value})


@pytest.mark.parametrize(
    ("keyword", "said"),
    [
        ("strides", "it is called 'stride' here"),
        ("dilation_rate", "it is called 'dilation' here"),
        ("data_format", r"arrays are \(N, C, H, W\)"),
        ("bogus", "it takes n_filters, filter_shape"),
    ],
)
def test_unknown_keywords_name_the_right_word(keyword, said):
    with pytest.raises(TypeError, match=f"^Conv2D: unknown keyword '{keyword}'.*{said}"):
        Conv2D(4, (3, 3), **{keyword: 1})


class Answers:
    """An optimizer whose `update` gives this answer."""

    def __init__(self, answer):
        self.answer = answer

    def update(self, w, grad):
        return self.answer


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Conv2D(4, (3, 3)).initialize(None), ValueError, "Conv2D.initialize: input_shape is not set"),
        (lambda: Conv2D(4, (3, 3)).output_shape(), ValueError, "Conv2D.output_shape: input_shape is not set"),
        (lambda: small(groups=4), ValueError, "Conv2D.initialize: groups=4 must divide the channels"),
        (
            lambda: small(object()),
            TypeError,
            "Conv2D.initialize: optimizer must be an object with update(w, grad), got obj",
        ),
        (lambda: small("adam"), TypeError, "got str 'adam'"),
        (
            lambda: small(Adam),
            TypeError,
            "Conv2D.initialize: optimizer must be an object with update(w, grad), got type",
        ),
        (
            lambda: Conv2D(4, (3, 3), (2, 6, 6)).forward_pass(images(1, 2, 6, 6)),
            RuntimeError,
            "Conv2D.forward_pass: call initialize first",
        ),
        (
            lambda: small().forward_pass(images(1, 3, 6, 6)),
            ValueError,
            "for 2 input channels, but X has 3: X (1, 3, 6, 6)",
        ),
        (lambda: small().forward_pass(images(2, 6, 6)), ValueError, "(N, C, H, W), got (2, 6, 6)"),
        (lambda: small().forward_pass(images(1, 2, 6, 6) + 1j), TypeError, "Conv2D.forward_pass: X must be a real"),
        (lambda: small().forward_pass(np.ma.ones((1, 2, 6, 6))), TypeError, "Conv2D.forward_pass: X is a masked array"),
        (
            lambda: small().forward_pass([[1.0], [1.0, 2.0]]),
            ValueError,
            "Conv2D.forward_pass: X is not a regular array",
        ),
        (
            lambda: small(padding="valid").forward_pass(images(1, 2, 2, 2)),
            ValueError,
            "larger than the padded input 2x2",
        ),
        (
            lambda: small().backward_pass(images(1, 4, 6, 6)),
            RuntimeError,
            "Conv2D.backward_pass: call forward_pass first",
        ),
    ],
)
def test_calls_in_the_wrong_order_or_of_the_wrong_shape(call, error, said):
    with pytest.raises(error, match=re.escape(said)):
        call()


@pytest.mark.parametrize(
    ("gradient", "error", "said"),
    [
        (
            images(1, 4, 5, 6),
            ValueError,
            "accum_grad must have shape (1, 4, 6, 6), that of the last output, got (1, 4, 5, 6)",
        ),
        (images(4, 6, 6), ValueError, "got (4, 6, 6)"),
        (np.ma.ones((1, 4, 6, 6)), TypeError, "accum_grad is a masked array"),
        (np.full((1, 4, 6, 6), "a"), TypeError, "accum_grad has dtype <U1"),
        (None, TypeError, "accum_grad"),
    ],
)
def test_a_gradient_that_does_not_fit(gradient, error, said):
    layer = small(SGD(0.1))
    layer.forward_pass(images(1, 2, 6, 6))
    before = layer.W.copy()
    with pytest.raises(error, match=rf"^Conv2D\.backward_pass: .*{re.escape(said)}"):
        layer.backward_pass(gradient)
    assert_array_equal(layer.W, before)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (None, TypeError, "returned None from update(w, grad); it must return the new w"),
        (np.ones(3), ValueError, "returned shape (3,) from update(w, grad); it must be (4, 2, 3, 3)"),
        (1.0, ValueError, "returned shape ()"),
        ("w", TypeError, "returned str 'w'"),
        (np.full((4, 2, 3, 3), 1j), TypeError, "must return a real array"),
        ([[1], [2, 3]], TypeError, "returned list [[1], [2, 3]] from update(w, grad); it must return a real array"),
        (
            np.ma.ones((4, 2, 3, 3)),
            TypeError,
            "returned MaskedArray from update(w, grad); it must return a real array, without a mask",
        ),
    ],
)
def test_an_answer_of_update_that_does_not_fit(answer, error, said):
    layer = small(Answers(answer))
    before = layer.W.copy()
    y = layer.forward_pass(images(1, 2, 6, 6))
    with pytest.raises(error, match=rf"^Conv2D\.backward_pass: the optimizer of W .*{re.escape(said)}"):
        layer.backward_pass(y)
    assert_array_equal(layer.W, before)


def test_no_optimizer_is_an_error_in_training_only():
    layer = small(None)
    y = layer.forward_pass(images(1, 2, 6, 6))
    with pytest.raises(RuntimeError, match=r"^Conv2D\.backward_pass: the optimizer of W is None; call initialize"):
        layer.backward_pass(y)


# --- steps that fail --------------------------------------------------------------------------------------------------


def failing(kind, error):
    """An optimizer of a kind that does its work, then raises."""

    class Failing(kind):
        __slots__ = ()
        armed = False

        def update(self, w, grad):
            new = super().update(w, grad)
            if type(self).armed:
                raise error
            return new

    return Failing


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("kind", [SGD, Adam, *FOREIGN])
def test_a_step_that_fails_changes_nothing(kind, error):
    arguments = (0.1, 0.9) if kind is SGD else ()
    layer = small(kind(*arguments))
    second = failing(kind, error)
    layer.w0_opt = second(*arguments)
    for steps_before in (0, 1):
        for _ in range(steps_before):
            layer.backward_pass(layer.forward_pass(images(2, 2, 6, 6)))
        second.armed = True
        y = layer.forward_pass(images(2, 2, 6, 6, seed=1))
        before = layer.W.copy(), layer.w0.copy(), state(layer.W_opt), state(layer.w0_opt)
        with pytest.raises(type(error)):
            layer.backward_pass(y)
        assert_array_equal(layer.W, before[0])
        assert_array_equal(layer.w0, before[1])
        assert_same_state(state(layer.W_opt), before[2])
        assert_same_state(state(layer.w0_opt), before[3])
        second.armed = False
    twin = copy.deepcopy(layer)
    for each in (layer, twin):
        each.backward_pass(y)
    assert_array_equal(layer.W, twin.W)
    assert not np.array_equal(layer.W, before[0])


def test_one_optimizer_for_both_weights_is_put_back_to_the_start():
    class Counts:
        def __init__(self):
            self.shapes = []

        def update(self, w, grad):
            self.shapes.append(w.shape)
            return w if len(self.shapes) % 2 else None

    layer = small(Counts())
    layer.w0_opt = layer.W_opt
    y = layer.forward_pass(images(1, 2, 6, 6))
    with pytest.raises(TypeError, match="the optimizer of w0 returned None"):
        layer.backward_pass(y)
    assert layer.W_opt.shapes == []


def test_an_optimizer_that_cannot_be_copied_deeply():
    class Locked(Momentum):
        def __init__(self):
            super().__init__()
            self.numbers = (number for number in range(100))

        def update(self, w, grad):
            next(self.numbers)
            return super().update(w, grad)

    layer = small()
    layer.W_opt, layer.w0_opt = Locked(), failing(Momentum, ValueError())()
    type(layer.w0_opt).armed = True
    y = layer.forward_pass(images(1, 2, 6, 6))
    with pytest.raises(ValueError):
        layer.backward_pass(y)
    assert layer.W_opt.step is None
