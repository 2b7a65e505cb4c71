"""The layers beside the convolution: each against plain NumPy or central differences, in training and in inference."""

import copy
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit import (
    SGD,
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    CrossEntropy,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPooling2D,
    SquareLoss,
)
from convjit.layers.activation import ACTIVATIONS

POOLINGS = [
    {},
    {"pool_shape": 3, "stride": 2},
    {"pool_shape": (2, 3), "stride": (2, 1), "padding": 1},
    {"pool_shape": (3, 3), "stride": 1, "padding": "same"},
    {"pool_shape": (2, 2), "stride": (2, 2), "padding": ((1, 0), (0, 1))},
]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def started(layer, shape, optimizer=None):
    """The layer with an input shape and, if it has any, weights."""
    layer.set_input_shape(shape)
    if layer.weight_names:
        layer.initialize(optimizer)
    return layer


def central_differences(function, x, dy, step=1e-6):
    """The gradient of `(function(x) * dy).sum()`, entry by entry."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append((function(moved) * dy).sum())
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def assert_gradient(layer, x, **tolerance):
    """The layer's gradient in its input is that of its forward pass in training."""
    apart = copy.deepcopy(layer)
    y = layer.forward_pass(x)
    dy = numbers(*y.shape, seed=9)
    dx = layer.backward_pass(dy)
    wanted = central_differences(lambda moved: copy.deepcopy(apart).forward_pass(moved), x, dy)
    assert_allclose(dx, wanted, **({"rtol": 1e-6, "atol": 1e-8} | tolerance))


def windows(x, pool_shape=(2, 2), stride=1, padding=0, fill=0.0):
    """Every window of every channel, (N, C, OH, OW, KH, KW), entry by entry."""
    kernel, step = (v if isinstance(v, tuple) else (v, v) for v in (pool_shape, stride))
    if padding == "same":
        padding = tuple(((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel)
    sides = padding if isinstance(padding, tuple) else ((padding, padding),) * 2
    padded = np.pad(x, ((0, 0), (0, 0), *sides), constant_values=fill)
    high, wide = ((padded.shape[2 + a] - kernel[a]) // step[a] + 1 for a in (0, 1))
    rows = [
        [padded[:, :, i * step[0] :, j * step[1] :][:, :, : kernel[0], : kernel[1]] for j in range(wide)]
        for i in range(high)
    ]
    return np.array(rows).transpose(2, 3, 0, 1, 4, 5)


LAYERS = {
    "Conv2D": (lambda: Conv2D(3, (2, 3), stride=2, rng=0), (2, 5, 6)),
    "Conv2DTranspose": (lambda: Conv2DTranspose(3, (2, 3), stride=2, output_padding=1, rng=0), (2, 5, 6)),
    "MaxPooling2D": (lambda: MaxPooling2D((2, 2), stride=2), (2, 5, 6)),
    "AveragePooling2D": (lambda: AveragePooling2D(), (2, 5, 6)),
    "Activation": (lambda: Activation("relu"), (2, 5, 6)),
    "Flatten": (lambda: Flatten(), (2, 5, 6)),
    "Dense": (lambda: Dense(4, rng=0), (7,)),
    "Dropout": (lambda: Dropout(0.3, rng=0), (7,)),
    "BatchNormalization": (lambda: BatchNormalization(), (2, 5, 6)),
    "BatchNormalization of rows": (lambda: BatchNormalization(), (7,)),
}


@pytest.fixture(params=LAYERS)
def layer_and_shape(request):
    make, shape = LAYERS[request.param]
    return started(make(), shape, SGD(0.1)), shape


# --- the contract -----------------------------------------------------------------------------------------------------


def test_a_bare_layer():
    layer = Layer()
    assert layer.parameters() == 0
    assert layer.layer_name() == "Layer"
    layer.set_input_shape((3,))
    assert layer.input_shape == (3,)
    for call in (lambda: layer.forward_pass(None), lambda: layer.backward_pass(None), layer.output_shape):
        with pytest.raises(NotImplementedError, match=r"^Layer has no "):
            call()


def test_output_shape_is_that_of_the_output(layer_and_shape):
    layer, shape = layer_and_shape
    for training in (True, False):
        assert layer.forward_pass(numbers(3, *shape), training).shape == (3, *layer.output_shape())
    assert layer.forward_pass(numbers(0, *shape), training=False).shape == (0, *layer.output_shape())


def test_float32_stays_float32(layer_and_shape):
    layer, shape = layer_and_shape
    if hasattr(layer, "dtype"):
        layer.dtype = np.dtype(np.float32)
        layer.initialize(SGD(0.1))
    for training in (False, True) if not layer.buffer_names else (True, False, True):
        y = layer.forward_pass(numbers(3, *shape).astype(np.float32), training)
        assert y.dtype == np.float32
    assert layer.backward_pass(y).dtype == np.float32


def test_integers_are_taken(layer_and_shape):
    layer, shape = layer_and_shape
    x = np.random.default_rng(0).integers(0, 200, (3, *shape), dtype=np.uint8)
    twin = copy.deepcopy(layer)
    y = layer.forward_pass(x)
    assert_allclose(y, twin.forward_pass(x.astype(float)), rtol=1e-12)
    ones = np.ones(y.shape, np.uint8)
    assert_allclose(layer.backward_pass(ones), twin.backward_pass(ones.astype(float)), rtol=1e-12)
    for name in layer.weight_names:
        assert_allclose(getattr(layer, name), getattr(twin, name), rtol=1e-12)


def test_the_input_and_the_gradient_are_left_alone(layer_and_shape):
    layer, shape = layer_and_shape
    x = numbers(3, *shape)
    before = x.copy()
    x.flags.writeable = False
    dy = layer.forward_pass(x).copy()
    dy.flags.writeable = False
    layer.backward_pass(dy)
    assert_array_equal(x, before)


def test_backward_needs_a_forward_pass_in_training(layer_and_shape):
    layer, shape = layer_and_shape
    name = type(layer).__name__
    y = np.ones((3, *layer.output_shape()))
    with pytest.raises(RuntimeError, match=rf"^{name}\.backward_pass: call forward_pass first, with training=True$"):
        layer.backward_pass(y)
    layer.forward_pass(numbers(3, *shape))
    layer.forward_pass(numbers(3, *shape), training=False)
    with pytest.raises(RuntimeError, match=rf"^{name}\.backward_pass: call forward_pass first"):
        layer.backward_pass(y)


def test_nothing_is_kept_in_inference(layer_and_shape):
    layer, shape = layer_and_shape
    layer.forward_pass(numbers(3, *shape))
    layer.forward_pass(numbers(3, *shape), training=False)
    named = {*layer.weight_names, *layer.buffer_names}
    assert {name for name, value in vars(layer).items() if isinstance(value, np.ndarray | tuple)} - named <= {
        "input_shape", "filter_shape", "_window", "pool_shape", "_output_shape",
    }  # fmt: skip


def test_a_gradient_of_another_shape(layer_and_shape):
    layer, shape = layer_and_shape
    y = layer.forward_pass(numbers(3, *shape))
    with pytest.raises(ValueError, match=rf"^{type(layer).__name__}\.backward_pass: accum_grad must have shape"):
        layer.backward_pass(y[:2])


def test_what_is_no_batch_of_numbers(layer_and_shape):
    layer, shape = layer_and_shape
    where = rf"^{type(layer).__name__}\.forward_pass: "
    x = numbers(3, *shape)
    for bad, error in [
        (np.float64(1), ValueError),
        (numbers(7), ValueError),
        (x + 1j, TypeError),
        (x.astype(object), TypeError),
        (np.ma.array(x), TypeError),
        ("abc", TypeError),
    ]:
        with pytest.raises(error, match=where):
            layer.forward_pass(bad)


def test_copies_go_on_alike(layer_and_shape):
    layer, shape = layer_and_shape
    y = layer.forward_pass(numbers(3, *shape))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_array_equal(other.backward_pass(y), copy.deepcopy(layer).backward_pass(y))
        other.forward_pass(numbers(2, *shape), training=False)
    assert_array_equal(layer.backward_pass(y), layer.backward_pass(y))


@pytest.mark.parametrize("make", [lambda: Dense(4), lambda: BatchNormalization()])
def test_weights_need_an_input_shape_and_a_start(make):
    layer = make()
    name = type(layer).__name__
    with pytest.raises(ValueError, match=rf"^{name}\.initialize: input_shape is not set"):
        layer.initialize(None)
    with pytest.raises(RuntimeError, match=rf"^{name}\.forward_pass: call initialize first"):
        layer.forward_pass(numbers(3, 7))
    started(layer, (6,))
    with pytest.raises(ValueError, match=rf"^{name}\.forward_pass: the layer has .*6.*X has 7"):
        layer.forward_pass(numbers(3, 7))
    assert layer.parameters() == {"Dense": 28, "BatchNormalization": 12}[name]


# --- pooling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", POOLINGS, ids=str)
def test_pooling_is_a_maximum_or_a_mean_of_each_window(options):
    x = numbers(2, 3, 6, 7)
    y = MaxPooling2D(**options).forward_pass(x)
    assert_array_equal(y, windows(x, **options, fill=-np.inf).max(axis=(4, 5)))
    y = AveragePooling2D(**options).forward_pass(x)
    assert_allclose(y, windows(x, **options).mean(axis=(4, 5)), rtol=1e-12, atol=1e-14)
    y = AveragePooling2D(**options, divisor_override=-3).forward_pass(x)
    assert_allclose(y, windows(x, **options).sum(axis=(4, 5)) / -3, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", POOLINGS, ids=str)
@pytest.mark.parametrize("kind", [MaxPooling2D, AveragePooling2D])
def test_gradients_of_pooling(kind, options):
    assert_gradient(kind(**options), np.random.default_rng(0).permutation(np.arange(60.0)).reshape(1, 2, 5, 6))
    layer = started(kind(**options), (2, 5, 6))
    assert layer.forward_pass(numbers(2, 2, 5, 6)).shape == (2, *layer.output_shape())
    assert layer.backward_pass(np.ones((2, *layer.output_shape()))).shape == (2, 2, 5, 6)


@pytest.mark.parametrize("kind", [MaxPooling2D, AveragePooling2D])
@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"pool_shape": 0}, ValueError, "pool_shape must be >= 1, got 0"),
        ({"pool_shape": 2.0}, TypeError, "pool_shape must be an int or a pair of ints, got float 2.0"),
        ({"stride": 0}, ValueError, "stride must be >= 1, got 0"),
        ({"padding": "foo"}, ValueError, "padding must be"),
        ({"padding": 2}, ValueError, "padding"),
        ({"strides": 2}, TypeError, "unknown keyword 'strides'; it is called 'stride' here"),
    ],
    ids=str,
)
def test_bad_arguments_of_pooling(kind, options, error, said):
    with pytest.raises(error, match=rf"^{kind.__name__}: {re.escape(said)}"):
        kind(**options)


@pytest.mark.parametrize("kind", [MaxPooling2D, AveragePooling2D])
def test_images_that_pooling_cannot_take(kind):
    with pytest.raises(ValueError, match=r"larger than the padded input 1x4"):
        kind().forward_pass(numbers(1, 2, 1, 4))
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.output_shape: input_shape must be \(channels"):
        started(kind(), (7,)).output_shape()
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.output_shape: input_shape is not set"):
        kind().output_shape()


@pytest.mark.parametrize("kind", [MaxPooling2D, AveragePooling2D])
def test_options_of_pooling_that_are_set_later(kind):
    layer, wanted = started(kind(2), (1, 4, 4)), started(kind((2, 1), stride=2, padding=((1, 0), (0, 0))), (1, 4, 4))
    layer.pool_shape, layer.stride, layer.padding = (2, 1), 2, ((1, 0), (0, 0))
    x = numbers(1, 1, 4, 4)
    y = layer.forward_pass(x)
    assert_array_equal(y, wanted.forward_pass(x))
    assert layer.output_shape() == y.shape[1:]
    assert_array_equal(layer.backward_pass(y), wanted.backward_pass(y))


CHANGES = {
    "Conv2D": {"padding_mode": "wrap", "dilation": 2, "stride": 1, "padding": 0, "groups": 2},
    "Conv2DTranspose": {"output_padding": 0, "dilation": 2, "stride": 3, "padding": 0},
    "AveragePooling2D": {"pool_shape": 3, "stride": 2, "padding": 1, "divisor_override": 5},
    "MaxPooling2D": {"pool_shape": 3, "stride": 1, "padding": 1},
    "Activation": {"activation_name": "tanh"},
    "Dropout": {"p": 0.9},
    "BatchNormalization": {"eps": 9.0, "momentum": 0.5},
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in CHANGES for option in CHANGES[name]])
def test_the_gradient_is_that_of_the_options_of_the_forward_pass(name, option):
    make, shape = LAYERS[name]
    layer = started(make(), shape)
    layer.trainable = False
    y = layer.forward_pass(numbers(2, *shape))
    wanted = layer.backward_pass(y)
    setattr(layer, option, CHANGES[name][option])
    assert_array_equal(layer.backward_pass(y), wanted)


def test_the_divisor_of_means():
    layer = started(AveragePooling2D(2, divisor_override=np.int8(-3)), (2, 5, 6))
    assert type(layer.divisor_override) is int
    assert AveragePooling2D().divisor_override is None
    assert_gradient(layer, numbers(1, 2, 5, 6))
    x, wanted = numbers(1, 2, 5, 6), layer.forward_pass(numbers(1, 2, 5, 6))
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_array_equal(other.forward_pass(x), wanted)
        assert_array_equal(other.backward_pass(wanted), layer.backward_pass(wanted))
    layer.divisor_override = None
    assert_allclose(layer.forward_pass(x), wanted * -3 / 4, rtol=1e-12)
    layer.divisor_override = 0
    with pytest.raises(ValueError, match=r"^avg_pool2d: divisor_override must be an integer other than 0, got 0$"):
        layer.forward_pass(x)


# --- activations ------------------------------------------------------------------------------------------------------

DEFINITIONS = {
    "relu": lambda x: x if x > 0 else 0,
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "elu": lambda x: x if x > 0 else 0.1 * (np.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (np.exp(x) - 1)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
}


def test_every_row_has_a_definition():
    assert set(ACTIVATIONS) == {*DEFINITIONS, "softmax"}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_activations_follow_their_definition(name):
    x = 3 * numbers(4, 5)
    wanted = np.vectorize(DEFINITIONS[name], otypes=[float])(x)
    assert_allclose(Activation(name).forward_pass(x), wanted, rtol=1e-12, atol=1e-15)


def test_softmax_is_over_the_last_axis():
    for x in (numbers(4, 5), numbers(2, 3, 4)):
        y = Activation("softmax").forward_pass(x)
        assert_allclose(y, np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_of_activations(name):
    assert_gradient(Activation(name), 3 * numbers(3, 4))
    assert_gradient(Activation(name), numbers(2, 2, 3, seed=1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_softmax_of_the_largest_numbers_warns_of_nothing(dtype):
    most = np.finfo(dtype).max
    with np.errstate(all="raise", under="ignore"):
        y = Activation("softmax").forward_pass(np.array([[-most, most]], dtype))
    assert_array_equal(y, np.array([[0, 1]], dtype), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_stable_far_out(name, dtype):
    layer = Activation(name)
    x = np.array([[-1000, 1000, 0, -88, 89], [-1000, -1000, -1000, -1000, -1000]], dtype)
    y = layer.forward_pass(x)
    dx = layer.backward_pass(np.ones_like(y))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert y.dtype == dx.dtype == dtype
    if name == "softmax":
        assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    else:
        ends = {"sigmoid": (0, 1), "tanh": (-1, 1), "softplus": (0, 1000), "relu": (0, 1000), "elu": (-0.1, 1000)}
        ends |= {"leaky_relu": (-200, 1000), "selu": (-1.7580993408473766, 1050.7009873554805)}
        assert_allclose(y[0, :2], ends[name], rtol=1e-6)


def test_names_of_activations():
    assert Activation("relu").layer_name() == "Activation (ReLU)"
    with pytest.raises(ValueError, match=r"^Activation: name must be one of 'relu', .*, got 'swish'$"):
        Activation("swish")
    with pytest.raises(TypeError, match=r"^Activation: name must be a string, got function$"):
        Activation(lambda x: x)
    with pytest.raises(TypeError, match="it is called 'name' here"):
        Activation(activation="relu")


# --- dense and flatten ------------------------------------------------------------------------------------------------


def test_dense_is_a_product_and_a_shift():
    layer = started(Dense(3, rng=0), (4,), SGD(0.5))
    layer.w0 = np.array([[1.0, 2.0, 3.0]])
    x, dy, weights = numbers(5, 4), numbers(5, 3, seed=1), layer.W
    y = layer.forward_pass(x)
    wanted = [[sum(x[n, i] * weights[i, o] for i in range(4)) + o + 1 for o in range(3)] for n in range(5)]
    assert_allclose(y, wanted, rtol=1e-12)
    assert_allclose(layer.backward_pass(dy), np.einsum("no,io->ni", dy, weights), rtol=1e-12)
    assert_allclose(layer.W, weights - 0.5 * np.einsum("ni,no->io", x, dy), rtol=1e-12)
    assert_allclose(layer.w0[0], [1, 2, 3] - 0.5 * dy.sum(axis=0), rtol=1e-12)
    assert_allclose(layer.backward_pass(dy), np.einsum("no,io->ni", dy, weights), rtol=1e-12)
    layer.trainable = False
    before = layer.W
    layer.backward_pass(dy)
    assert layer.W is before


@pytest.mark.parametrize(
    ("rows", "features", "units"),
    [(3, 4, 5), (20, 700, 31), (33, 2700, 31), (40, 900, 64), (32, 512, 64), (33, 1000, 17), (4, 4096, 64)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_is_exact_on_integers_however_it_is_computed(rows, features, units, dtype):
    """By BLAS and by convjit's kernels, with few units and with many."""
    rng = np.random.default_rng(0)
    x, weights, dy = (
        rng.integers(-4, 5, shape).astype(dtype) for shape in ((rows, features), (features, units), (rows, units))
    )
    layer = Dense(units, input_shape=(features,), dtype=dtype, rng=0)
    layer.initialize(SGD(1.0))
    layer.W, layer.w0 = weights, np.arange(units, dtype=dtype)[None]
    wide = [array.astype(np.int64) for array in (x, weights, dy)]
    y = layer.forward_pass(x)
    assert_array_equal(y, wide[0] @ wide[1] + np.arange(units))
    assert_array_equal(layer.backward_pass(dy), wide[2] @ wide[1].T)
    assert_array_equal(layer.W, wide[1] - wide[0].T @ wide[2])
    assert layer.W.dtype == y.dtype == dtype


def test_dense_draws_as_the_original_text_does():
    np.random.seed(3)
    wanted = np.random.uniform(-0.5, 0.5, size=(4, 3))
    np.random.seed(3)
    assert_array_equal(started(Dense(3), (4,)).W, wanted, strict=True)
    assert np.abs(started(Dense(500, initializer="he", rng=0), (6,)).W).max() == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Dense(0), ValueError, "Dense: n_units must be a positive integer, got 0"),
        (lambda: Dense(2.0), TypeError, "Dense: n_units must be a positive integer, got float 2.0"),
        (
            lambda: Dense(3, input_shape=(2, 2)),
            ValueError,
            "Dense: input_shape must be (features,), got (2, 2); add a F",
        ),
        (lambda: Dense(3, input_shape=4), ValueError, "Dense: input_shape must be (features,), got 4"),
        (lambda: Dense(3, dtype="int8"), TypeError, "Dense: dtype must be float32 or float64, got int8"),
        (lambda: Dense(3, dtype="f4,,"), TypeError, "Dense: dtype must be float32 or float64, got str 'f4,,'"),
        (lambda: Dense(3, dtype=10**5000), TypeError, "Dense: dtype must be float32 or float64, got int"),
        (
            lambda: Dense(3, dtype={"names": ["a", "a"], "formats": ["f4", "f4"]}),
            TypeError,
            "Dense: dtype must be float32 or float64, got dict",
        ),
        (lambda: Dense(3, initializer="zeros"), ValueError, "Dense: initializer must be one of"),
        (lambda: Dense(3, rng=""), TypeError, "Dense: rng must be"),
        (lambda: Dense(3, units=3), TypeError, "Dense: unknown keyword 'units'"),
        (lambda: Flatten(5), TypeError, "Flatten: input_shape must be a tuple of ints, got int 5"),
        (lambda: Flatten((2, -1)), ValueError, "Flatten: input_shape must be ints >= 0, got (2, -1)"),
        (lambda: Flatten(np.array(5)), TypeError, "Flatten: input_shape must be a tuple of ints, got ndarray"),
        (lambda: Flatten("abc"), TypeError, "Flatten: input_shape must be a tuple of ints, got str 'abc'"),
        (lambda: Flatten((2, 2.5)), TypeError, "Flatten: input_shape must be a tuple of ints, got float 2.5"),
        (lambda: Flatten().output_shape(), ValueError, "Flatten.output_shape: input_shape is not set"),
        (lambda: Dropout(1.0), ValueError, "Dropout: p must be >= 0 and < 1.0, got 1.0"),
        (lambda: Dropout("0.5"), TypeError, "Dropout: p must be a number, got str '0.5'"),
        (lambda: BatchNormalization(1.5), ValueError, "BatchNormalization: momentum must be >= 0 and < 1, got 1.5"),
        (lambda: BatchNormalization(eps=-1), ValueError, "BatchNormalization: eps must be >= 0, got -1"),
        (lambda: started(BatchNormalization(), ()), ValueError, "BatchNormalization.initialize: input_shape"),
    ],
)
def test_bad_arguments(call, error, said):
    with pytest.raises(error, match=f"^{re.escape(said)}".replace(r"<\ 1\.0", r"<\ 1(\.0)?")):
        call()


@pytest.mark.parametrize("make", [Activation, BatchNormalization, Dropout, Flatten, MaxPooling2D, AveragePooling2D])
@pytest.mark.parametrize(
    ("shape", "error", "said"),
    [
        (4, TypeError, "must be a tuple of ints, got int 4"),
        ("abc", TypeError, "must be a tuple of ints, got str 'abc'"),
        ((1, 4.0, 4.0), TypeError, "must be a tuple of ints, got float 4.0"),
        ((-3,), ValueError, "must be ints >= 0, got (-3,)"),
    ],
)
def test_what_is_no_shape_of_an_input(make, shape, error, said):
    layer = make("relu") if make is Activation else make()
    with pytest.raises(error, match=f"^{make.__name__}: input_shape {re.escape(said)}$"):
        layer.set_input_shape(shape)
    assert layer.input_shape is None


def test_a_shape_is_kept_as_ints():
    layer = MaxPooling2D()
    layer.set_input_shape([np.int64(1), 4, 4])
    assert layer.input_shape == (1, 4, 4)
    assert {type(size) for size in layer.input_shape} == {int}


def test_channels_that_have_no_room():
    with pytest.raises(
        MemoryError, match=r"^BatchNormalization.initialize: a weight of shape \(10000000000000,\) .*iB"
    ):
        started(BatchNormalization(), (10**13,))


@pytest.mark.parametrize(
    ("layer", "option", "value", "error", "said"),
    [
        (Dropout(), "p", 1.0, ValueError, "p must be >= 0 and < 1, got 1.0"),
        (Dropout(), "p", -1, ValueError, "p must be >= 0 and < 1, got -1"),
        (Dropout(), "p", np.nan, ValueError, "p must be >= 0 and < 1, got nan"),
        (Dropout(), "p", "x", TypeError, "p must be a number, got str 'x'"),
        (BatchNormalization(), "eps", -100, ValueError, "eps must be >= 0, got -100"),
        (BatchNormalization(), "eps", None, TypeError, "eps must be a number, got NoneType"),
        (BatchNormalization(), "momentum", 5, ValueError, "momentum must be >= 0 and < 1, got 5"),
        (Activation("relu"), "activation_name", "zz", ValueError, "name must be one of 'relu', "),
        (Activation("relu"), "activation_name", None, TypeError, "name must be a string, got NoneType"),
    ],
)
def test_options_that_are_set_later_are_checked(layer, option, value, error, said):
    before = getattr(layer, option)
    with pytest.raises(error, match=f"^{type(layer).__name__}: {re.escape(said)}"):
        setattr(layer, option, value)
    assert getattr(layer, option) == before


def test_flatten_there_and_back():
    x = numbers(2, 3, 4, 5)
    layer = Flatten(input_shape=(3, 4, 5))
    y = layer.forward_pass(x)
    assert_array_equal(y, [list(image.ravel()) for image in x])
    assert layer.output_shape() == (60,)
    assert_array_equal(layer.backward_pass(y), x)
    assert layer.forward_pass(np.ones((0, 3, 2))).shape == (0, 6)


# --- dropout and batch normalisation ----------------------------------------------------------------------------------


def test_dropout_drops_a_share_and_scales_the_rest():
    layer = Dropout(0.25, rng=0)
    x = np.ones((100, 200))
    y = layer.forward_pass(x)
    assert set(np.unique(y)) == {0, 1 / 0.75}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    assert_array_equal(layer.backward_pass(x), y)
    assert not np.array_equal(layer.forward_pass(x), y)
    assert_array_equal(layer.forward_pass(x, training=False), x)
    assert_array_equal(Dropout(0.25, rng=0).forward_pass(x), y)
    assert_array_equal(Dropout(0).forward_pass(x), x)
    assert_gradient(Dropout(0.5, rng=3), numbers(3, 4))


def test_dropout_without_a_generator_draws_from_the_global_state():
    drawn = []
    for _ in range(2):
        np.random.seed(4)
        drawn.append(Dropout(0.5).forward_pass(np.ones((5, 5))))
    assert_array_equal(*drawn)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2, 5), (4, 3, 7)])
def test_batch_normalisation(shape):
    layer = started(BatchNormalization(momentum=0.9, eps=1e-3), shape[1:], SGD(0.5))
    layer.gamma, layer.beta = np.array([1.0, 2.0, -0.5]), np.array([0.5, 0.0, 1.0])
    gamma, beta, means, variances = layer.gamma, layer.beta, None, None
    for step in range(3):
        x, dy = 2 * numbers(*shape, seed=step) + 1, numbers(*shape, seed=step + 9)
        y = layer.forward_pass(x)
        normal = np.empty_like(x)
        batch = np.array([[x[:, c].mean(), ((x[:, c] - x[:, c].mean()) ** 2).mean()] for c in range(3)])
        for c in range(3):
            normal[:, c] = (x[:, c] - batch[c, 0]) / np.sqrt(batch[c, 1] + 1e-3)
            assert_allclose(y[:, c], gamma[c] * normal[:, c] + beta[c], rtol=1e-10, atol=1e-12)
        means = batch[:, 0] if means is None else 0.9 * means + 0.1 * batch[:, 0]
        variances = batch[:, 1] if variances is None else 0.9 * variances + 0.1 * batch[:, 1]
        assert_allclose(layer.running_mean, means, rtol=1e-10)
        assert_allclose(layer.running_var, variances, rtol=1e-10)
        layer.backward_pass(dy)
        gamma = gamma - 0.5 * np.array([(dy[:, c] * normal[:, c]).sum() for c in range(3)])
        beta = beta - 0.5 * np.array([dy[:, c].sum() for c in range(3)])
        assert_allclose(layer.gamma, gamma, rtol=1e-10)
        assert_allclose(layer.beta, beta, rtol=1e-10)
    before = layer.running_mean.copy()
    y = layer.forward_pass(x, training=False)
    for c in range(3):
        wanted = gamma[c] * (x[:, c] - means[c]) / np.sqrt(variances[c] + 1e-3) + beta[c]
        assert_allclose(y[:, c], wanted, rtol=1e-9, atol=1e-12)
    assert_array_equal(layer.running_mean, before)


@pytest.mark.parametrize("shape", [(5, 3), (3, 2, 2, 3)])
def test_gradients_of_batch_normalisation(shape):
    layer = started(BatchNormalization(), shape[1:], SGD(0.1))
    layer.gamma = 1 + np.arange(shape[1])
    assert_gradient(layer, numbers(*shape), rtol=1e-5)
    layer.trainable = False  # then it normalises with the running statistics, in training too
    gamma, mean = layer.gamma, layer.running_mean
    assert_gradient(layer, numbers(*shape, seed=4), rtol=1e-5)
    assert layer.gamma is gamma
    assert_array_equal(layer.running_mean, mean)


def test_batch_normalisation_far_out_and_on_constants():
    for dtype in (np.float32, np.float64):
        layer = started(BatchNormalization(), (2,), SGD(0.1))
        y = layer.forward_pass(np.array([[-1000, 7], [1000, 7]], dtype))
        assert_allclose(y, [[-1, 0], [1, 0]], atol=1e-6)
        assert np.isfinite(layer.backward_pass(y)).all()


def test_batch_normalisation_before_the_first_batch_takes_zero_and_one():
    layer, x = started(BatchNormalization(eps=0), (3,)), numbers(2, 3)
    assert_array_equal(layer.forward_pass(x, training=False), x)
    layer.trainable = False
    assert_array_equal(layer.forward_pass(x), x)
    assert layer.running_mean is None
    assert layer.running_var is None


def test_frozen_batch_normalisation_stays_as_it_is():
    layer, x = started(BatchNormalization(momentum=0.5), (3,)), numbers(8, 3)
    layer.forward_pass(x)
    layer.freeze()
    wanted = layer.forward_pass(x, training=False)
    layer.forward_pass(5 * x + 3)
    assert_array_equal(layer.forward_pass(x), wanted)
    for name in ("eps", "momentum", "running_mean", "running_var"):
        with pytest.raises(AttributeError, match=f"^BatchNormalization: the layer is frozen, so {name} cannot be set"):
            setattr(layer, name, 0.5)


def test_batch_normalisation_needs_a_batch():
    layer = started(BatchNormalization(), (3,))
    with pytest.raises(ValueError, match=r"^BatchNormalization\.forward_pass: cannot train on an empty batch$"):
        layer.forward_pass(numbers(0, 3))


def test_losses_of_float16_are_computed_in_float32():
    many = np.full((70_000, 2), 0.5, np.float16)
    assert CrossEntropy().loss(np.zeros(70_000, int), many) == pytest.approx(np.log(2), rel=1e-4)
    assert SquareLoss().loss(np.zeros((10, 100)), np.full((10, 100), 30, np.float16)) == 45_000
    gradient = SquareLoss().gradient(np.zeros((70_000, 1)), np.ones((70_000, 1), np.float16))
    assert gradient.dtype == np.float16
    assert_allclose(gradient[0], 1 / 70_000, rtol=1e-2)


def test_many_classes_take_little_memory():
    """A row of targets for each prediction, not one for each class."""
    predicted = np.full((2, 1 << 20), 2.0**-20, np.float32)
    assert CrossEntropy().loss(np.array([3, 5]), predicted) == pytest.approx(20 * np.log(2))


def test_empty_batches_have_no_loss():
    with pytest.raises(ValueError, match=r"^CrossEntropy: predicted needs at least one row .* got shape \(0, 3\)$"):
        CrossEntropy().loss(np.zeros(0, int), np.zeros((0, 3)))
    assert Activation("softmax").forward_pass(np.zeros((3, 0))).shape == (3, 0)


GIANTS = {
    "giant images": np.broadcast_to(0.0, (10**5, 2, 10**5, 10**5)),
    "many images": np.broadcast_to(np.zeros(2)[:, None], (10**6, 2, 10**5)),
    "integers": np.broadcast_to(np.int8(0), (10**5, 2, 10**5, 10**5)),
    "float16": np.broadcast_to(np.float16(0), (10**5, 2, 10**5, 10**5)),
}


@pytest.mark.parametrize("name", GIANTS)
@pytest.mark.parametrize(
    ("make", "training"),
    [
        (BatchNormalization, True), (BatchNormalization, False), (lambda: Activation("softmax"), True),
        (lambda: Activation("relu"), True), (lambda: Dropout(0.5), True), (Flatten, True),
    ],
    ids=["BatchNormalization", "inference", "softmax", "relu", "Dropout", "Flatten"],
)  # fmt: skip
def test_batches_whose_result_has_no_room_are_refused_at_once(name, make, training):
    x = GIANTS[name]
    layer = started(make(), x.shape[1:])
    with pytest.raises(MemoryError, match=rf"^{type(layer).__name__}.*: .* of shape {re.escape(str(x.shape))} .*iB, "):
        layer.forward_pass(x, training)


@pytest.mark.parametrize(
    "weight", [np.array([[3], [5]]), [[3], [5]], np.ones((2, 1), bool)], ids=["ints", "list", "bools"]
)
def test_weights_that_are_given_are_floating(weight):
    """Steps would be lost in integers."""
    layer = Dense(1, input_shape=(2,), rng=0)
    layer.initialize(SGD(0.1))
    layer.W = weight
    first = np.array(layer.W, float)
    for _ in range(3):
        layer.forward_pass(np.ones((1, 2)))
        layer.backward_pass(np.full((1, 1), 0.01))
    assert_allclose(layer.W, first - 0.003, rtol=1e-12)
    with pytest.raises(TypeError, match=r"^Dense: W has dtype <U1, which is not supported"):
        layer.W = np.array([["a"]])


LONG = np.dtype(np.longdouble)
GIVEN = {
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), "is a masked array, whose mask would be ignored; use {name}.fil"),
    "long double": (np.ones(2, LONG), f"has dtype {LONG}, which is not supported"),
    "complex": (np.array([1j, 2j]), "must be real, as inputs are, got dtype complex128"),
    "objects": (np.array([1.0, None]), "has dtype object, which is not supported"),
    "strings": (["a", "b"], "must be a real numeric array, got list"),
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var", "W", "w0"])
def test_what_is_no_weight_is_refused_when_it_is_set(name, given):
    layer = Dense(2) if name in Dense.weight_names else BatchNormalization()
    value, said = GIVEN[given]
    with pytest.raises(TypeError, match=f"^{type(layer).__name__}: {name} {re.escape(said.format(name=name))}"):
        setattr(layer, name, value)
    assert getattr(layer, name, None) is None


def test_statistics_may_be_lists():
    layer = started(BatchNormalization(momentum=0.5, eps=0), (2,))
    layer.running_mean, layer.running_var = [1, 2], [4.0, 16.0]
    assert_array_equal(layer.forward_pass(np.array([[3.0, 6.0]]), training=False), [[1.0, 1.0]])
    layer.forward_pass(np.array([[2.0, 2.0], [4.0, 4.0]]))
    assert_array_equal([layer.running_mean, layer.running_var], [[2.0, 2.5], [2.5, 8.5]])
    layer.running_mean = layer.running_var = None
    assert_array_equal(layer.forward_pass(np.array([[3.0, 6.0]]), training=False), [[3.0, 6.0]])


def test_a_masked_batch_is_refused():
    with pytest.raises(TypeError, match=r"^BatchNormalization.forward_pass: X is a masked array"):
        started(BatchNormalization(), (2,)).forward_pass(np.ma.ones((2, 2, 8, 8)))


def test_a_weight_of_another_shape_is_named():
    layer = Dense(3, input_shape=(2,), rng=0)
    layer.initialize(SGD(0.1))
    layer.w0 = np.zeros(3)
    layer.forward_pass(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"^Dense.backward_pass: w0 has shape \(3,\), its gradient \(1, 3\)$"):
        layer.backward_pass(np.ones((1, 3)))
