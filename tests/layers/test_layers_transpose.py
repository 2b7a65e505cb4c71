"""The transposed convolution layer: exact on integers, beside PyTorch, in training, and in steps that fail."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from convjit import SGD, Activation, Adam, Conv2D, Conv2DTranspose, Sequential, SquareLoss
from convjit.testing import check_gradients, conv2d_cases, exact_arrays, reference_conv_transpose2d, reference_pads

COPIES = [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def small(optimizer=None, **options):
    """A layer of 4 filters for 2 channels of 5x6, with its weights."""
    options = {"n_filters": 4, "filter_shape": (3, 2), "input_shape": (2, 5, 6), "rng": 0} | options
    layer = Conv2DTranspose(**options)
    layer.initialize(optimizer)
    return layer


@st.composite
def layers(draw):
    """A layer with small integers for weights, its input, its output gradient, and the oracle's options."""
    # A convolution read backwards: its output is this one's input.
    case = draw(conv2d_cases(max_batch=2, max_extra=2, padding_modes=["constant"], batched=True))
    problem = case.problem
    names = st.sampled_from(("same", "valid", "full", "same_upper", "same_lower"))
    padding = draw(st.one_of(st.just(problem.pads), names))
    stride, dilation, kernel = problem.stride_pair, problem.dilation_pair, problem.kernel
    extra = tuple(draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True))
    images = problem.out_size
    spans = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(images, stride, kernel, dilation, strict=True)]
    if padding in ("same_upper", "same_lower"):  # cut down to size times stride
        cut = [max(0, span - n * s) for span, n, s in zip(spans, images, stride, strict=True)]
        pads = tuple((c // 2, c - c // 2) if padding == "same_upper" else (c - c // 2, c // 2) for c in cut)
    else:
        pads = reference_pads(padding, (1, 1), kernel, stride, dilation)
    size = tuple(span - sum(pad) + more for span, pad, more in zip(spans, pads, extra, strict=True))
    if padding in ("same_upper", "same_lower"):
        size = tuple(max(each, n * s) for each, n, s in zip(size, images, stride, strict=True))
    if min(size) < 1:
        padding, pads = 0, ((0, 0), (0, 0))
        size = tuple(span + more for span, more in zip(spans, extra, strict=True))
    filters = problem.weight_shape[1] * problem.groups
    layer = Conv2DTranspose(
        filters, kernel, problem.y_shape[1:], padding, stride, output_padding=extra, dilation=dilation,
        groups=problem.groups, rng=0,
    )  # fmt: skip
    layer.initialize(SGD(1.0))
    layer.W, layer.w0 = case.weight, draw(exact_arrays((filters, 1)))
    options = {"output_size": size, "stride": stride, "pads": pads, "dilation": dilation, "groups": problem.groups}
    return layer, case.grad_output, draw(exact_arrays((problem.y_shape[0], filters, *size))), options


@given(drawn=layers())
def test_forward_and_backward_are_exact_on_integers(drawn):
    layer, x, dy, options = drawn
    weight, bias = layer.W.copy(), layer.w0.copy()
    y = layer.forward_pass(x)
    assert_array_equal(y, reference_conv_transpose2d(x, weight, bias[:, 0], **options), strict=True)
    assert y.shape[1:] == layer.output_shape()
    assert weight.shape == (x.shape[1], layer.n_filters // layer.groups, *layer.filter_shape)
    dx = layer.backward_pass(dy)
    # After a step of SGD(1.0) the weights have moved by their gradients.
    check_gradients(
        lambda x, w, b: reference_conv_transpose2d(x, w, b, **options),
        lambda dy, x, w, b: (dx, weight - layer.W, (bias - layer.w0)[:, 0]),
        [x, weight, bias[:, 0]],
        dy,
    )


def test_the_same_names_as_conv2d_and_sizes_that_fit_back():
    for options in ({"stride": 2, "output_padding": 1}, {"stride": 2, "padding": "same_upper"}, {"stride": 1}):
        down = {name: value for name, value in options.items() if name != "output_padding"}
        encoder = Conv2D(4, (3, 3), input_shape=(2, 8, 10), **down)
        decoder = Conv2DTranspose(2, (3, 3), input_shape=encoder.output_shape(), **options)
        assert decoder.output_shape() == (2, 8, 10)
    layer = small()
    assert layer.parameters() == 2 * 4 * 6 + 4
    assert layer.layer_name() == "Conv2DTranspose"


def test_weights_follow_the_seed_or_the_generator():
    np.random.seed(7)
    limit = 1 / np.sqrt(6)
    wanted = np.random.uniform(-limit, limit, size=(2, 4, 3, 2))
    np.random.seed(7)
    assert_array_equal(small(rng=None).W, wanted, strict=True)
    assert_array_equal(small(rng=5).W, small(rng=np.random.default_rng(5)).W)
    assert small(dtype="float32").W.dtype == small(dtype="float32").w0.dtype == np.float32


@pytest.mark.parametrize(("name", "limit"), [("glorot", np.sqrt(6 / (9 * 8 + 9 * 16))), ("he", np.sqrt(6 / (9 * 8)))])
def test_limits_of_other_initializers(name, limit):
    layer = small(initializer=name, n_filters=32, filter_shape=3, groups=2, input_shape=(16, 5, 5))
    assert 0.98 * limit < np.abs(layer.W).max() <= limit


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "dilation": (2, 1), "padding": (1, 0)},
     {"stride": (3, 1), "output_padding": (2, 0), "padding": "valid"}],
    ids=str,
)  # fmt: skip
def test_pytorch_agrees(options):
    torch = pytest.importorskip("torch")
    layer = small(SGD(1.0), **{"filter_shape": (3, 3), "padding": 0} | options)
    layer.w0 = numbers(4, 1, seed=3)
    named = {name: value for name, value in options.items() if name != "padding"}
    padding = 0 if options.get("padding") == "valid" else options.get("padding", 0)
    theirs = torch.nn.ConvTranspose2d(2, 4, 3, padding=padding, **named).double()
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(layer.W))
        theirs.bias.copy_(torch.tensor(layer.w0[:, 0]))
    weight, bias, x = layer.W, layer.w0, numbers(3, 2, 5, 6, seed=1)
    tensor = torch.tensor(x, requires_grad=True)
    wanted = theirs(tensor)
    y = layer.forward_pass(x)
    assert_allclose(y, wanted.detach().numpy(), rtol=1e-12, atol=1e-12)
    dy = numbers(*y.shape, seed=2)
    wanted.backward(torch.tensor(dy))
    assert_allclose(layer.backward_pass(dy), tensor.grad.numpy(), rtol=1e-12, atol=1e-12)
    assert_allclose(weight - layer.W, theirs.weight.grad.numpy(), rtol=1e-12, atol=1e-12)
    assert_allclose((bias - layer.w0)[:, 0], theirs.bias.grad.numpy(), rtol=1e-12, atol=1e-12)


def autoencoder():
    model = Sequential(optimizer=Adam(0.01), loss=SquareLoss())
    model.add(Conv2D(6, (3, 3), input_shape=(1, 8, 8), stride=2, rng=0))
    model.add(Activation("leaky_relu"))
    model.add(Conv2DTranspose(1, (3, 3), stride=2, output_padding=1, rng=1))
    return model


def test_an_autoencoder_learns():
    images = np.random.default_rng(0).random((32, 1, 8, 8))
    model = autoencoder()
    losses = [model.train_on_batch(images, images)[0] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert model.layers[-1].output_shape() == (1, 8, 8)


def test_it_is_saved_and_loaded(tmp_path):
    images = numbers(4, 1, 8, 8)
    model, other = autoencoder(), autoencoder()
    model.train_on_batch(images, images)
    model.save(tmp_path / "weights.npz")
    other.load(tmp_path / "weights.npz")
    assert_array_equal(other.predict(images), model.predict(images))


def test_without_need_input_the_step_is_the_same():
    layer, twin = small(SGD(0.5)), small(SGD(0.5))
    dy = layer.forward_pass(numbers(2, 2, 5, 6))
    twin.forward_pass(numbers(2, 2, 5, 6))
    assert layer.backward_pass(dy, need_input=False) is None
    assert twin.backward_pass(dy).shape == (2, 2, 5, 6)
    assert_array_equal(layer.W, twin.W)


def test_images_of_another_size_and_none_at_all():
    layer = small(SGD(0.1), stride=2)
    for shape in [(1, 2, 9, 4), (3, 2, 1, 1), (0, 2, 5, 6)]:
        y = layer.forward_pass(numbers(*shape))
        assert layer.backward_pass(y).shape == shape


def test_nothing_is_kept_in_inference():
    layer = small(SGD(0.1))
    layer.forward_pass(numbers(1, 2, 5, 6))
    layer.forward_pass(numbers(1, 2, 5, 6), training=False)
    assert {name for name, value in vars(layer).items() if isinstance(value, np.ndarray)} == {"W", "w0"}
    with pytest.raises(RuntimeError, match=r"^Conv2DTranspose\.backward_pass: call forward_pass first"):
        layer.backward_pass(numbers(1, 4, 5, 6))


def test_a_layer_that_is_not_trainable_keeps_its_weights():
    layer = small(SGD(1.0))
    layer.trainable = False
    before = layer.W.copy()
    layer.backward_pass(layer.forward_pass(numbers(1, 2, 5, 6)))
    assert_array_equal(layer.W, before)


@pytest.mark.parametrize("again", COPIES)
def test_frozen_it_computes_the_same_bits_and_changes_nothing(again):
    layer, x = small(SGD(0.1), stride=2), numbers(2, 2, 5, 6)
    wanted = layer.forward_pass(x, training=False)
    layer.freeze()
    copied = again(layer)
    assert copied.frozen
    assert copied.forward_pass(x, training=False).tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        copied.W[...] = 0
    for name in ("W", "w0", "stride", "padding", "output_padding", "dilation", "groups"):
        with pytest.raises(AttributeError, match=f"^Conv2DTranspose: the layer is frozen, so {name} cannot be set"):
            setattr(copied, name, getattr(copied, name))
    y = copied.forward_pass(x)
    with pytest.raises(RuntimeError, match=r"^Conv2DTranspose\.backward_pass: the layer is frozen"):
        copied.backward_pass(y)
    copied.unfreeze()
    copied.backward_pass(y)
    assert not np.array_equal(copied.W, layer.W)
    assert layer.forward_pass(x, training=False).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("weight", ["W_opt", "w0_opt"])
def test_a_step_that_fails_changes_nothing(weight, error):
    class Fails(Adam):
        def update(self, w, grad):
            super().update(w, grad)
            raise error

    layer = small(Adam(0.1))
    setattr(layer, weight, Fails(0.1))
    y = layer.forward_pass(numbers(2, 2, 5, 6))
    before = copy.deepcopy(vars(layer))
    optimizers = copy.deepcopy((vars(layer.W_opt), vars(layer.w0_opt)))
    with pytest.raises(type(error)):
        layer.backward_pass(y)
    assert_array_equal(layer.W, before["W"])
    assert_array_equal(layer.w0, before["w0"])
    for now, then in zip((vars(layer.W_opt), vars(layer.w0_opt)), optimizers, strict=True):
        assert now.keys() == then.keys()
        for name, value in then.items():
            assert_array_equal(now[name], value)


def test_an_interrupted_forward_pass_leaves_the_last_one(monkeypatch):
    layer = small(SGD(0.1))
    y = layer.forward_pass(numbers(2, 2, 5, 6))
    before = dict(vars(layer))
    monkeypatch.setattr(type(layer), "_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        layer.forward_pass(numbers(1, 2, 7, 7))
    assert all(vars(layer)[name] is value for name, value in before.items())
    assert layer.backward_pass(y).shape == (2, 2, 5, 6)


@pytest.mark.parametrize(
    ("argument", "value", "error", "said"),
    [
        ("n_filters", 0, ValueError, "0"),
        ("n_filters", 2.5, TypeError, "float 2.5"),
        ("filter_shape", (0, 3), ValueError, "(0, 3)"),
        ("filter_shape", "3x3", TypeError, "'3x3'"),
        ("stride", 0, ValueError, "0"),
        ("stride", 1.5, TypeError, "float 1.5"),
        ("padding", "foo", ValueError, "'foo'"),
        ("padding", -1, ValueError, "-1"),
        ("output_padding", 2, ValueError, "(2, 2)"),
        ("output_padding", -1, ValueError, "-1"),
        ("output_padding", "1", TypeError, "'1'"),
        ("dilation", 0, ValueError, "0"),
        ("groups", 3, ValueError, "=3 must divide n_filters=4"),
        ("dtype", "int32", TypeError, "int32"),
        ("rng", "now", TypeError, "'now'"),
        ("initializer", "zeros", ValueError, "'zeros'"),
        ("input_shape", (3, 8), ValueError, "(3, 8)"),
        ("strides", 2, TypeError, "it is called 'stride' here"),
    ],
)
def test_bad_arguments_are_refused_at_construction(argument, value, error, said):
    with pytest.raises(error, match=rf"^Conv2DTranspose: .*{argument}.*{re.escape(said)}"):
        Conv2DTranspose(**{"n_filters": 4, "filter_shape": (3, 3), "stride": 2} | {argument: value})


def test_images_and_gradients_that_do_not_fit():
    layer = small(SGD(0.1))
    with pytest.raises(ValueError, match=r"^Conv2DTranspose\.forward_pass: the layer has weights for 2 .* but X has 3"):
        layer.forward_pass(numbers(1, 3, 5, 6))
    with pytest.raises(ValueError, match=r"^Conv2DTranspose\.forward_pass: expected X of shape \(N, C, H, W\)"):
        layer.forward_pass(numbers(2, 5, 6))
    layer.forward_pass(numbers(1, 2, 5, 6))
    with pytest.raises(ValueError, match=r"^Conv2DTranspose\.backward_pass: accum_grad must have shape"):
        layer.backward_pass(numbers(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r"^Conv2DTranspose\.initialize: groups=4 must divide the channels"):
        small(groups=4)
    with pytest.raises(ValueError, match=r"^Conv2DTranspose\.output_shape: padding .* leaves no output"):
        small(padding=9).output_shape()
    with pytest.raises(RuntimeError, match=r"^Conv2DTranspose\.forward_pass: call initialize first"):
        Conv2DTranspose(4, 3, (2, 5, 6)).forward_pass(numbers(1, 2, 5, 6))
    untrained = small()
    y = untrained.forward_pass(numbers(1, 2, 5, 6))
    with pytest.raises(RuntimeError, match=r"^Conv2DTranspose\.backward_pass: the optimizer of W is None"):
        untrained.backward_pass(y)
