"""Derivatives by autograd: exact on integers, by finite differences to the second order, and equal to convjit's own."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import convjit

pytest.importorskip("autograd", reason="autograd is not installed; tests/functional checks the gradients that it uses")

import autograd.numpy as anp
from autograd import elementwise_grad, grad, make_jvp, make_vjp
from autograd.extend import vspace
from autograd.test_util import check_grads

from convjit.interop import autograd as bridge

RNG = np.random.default_rng(0)


def integers(*shape):
    return RNG.integers(-4, 5, shape).astype(np.float64)


# Shapes of x and weight, and options.
CONVOLUTIONS = {
    "plain": ((2, 2, 5, 4), (3, 2, 3, 2), {}),
    "one image": ((2, 5, 4), (3, 2, 2, 3), {"padding": 1}),
    "stride": ((1, 2, 6, 7), (2, 2, 3, 2), {"stride": (2, 3), "padding": ((1, 0), (0, 2))}),
    "groups": ((2, 4, 5, 5), (6, 2, 2, 2), {"groups": 2, "dilation": 2, "padding": "same"}),
    "depthwise": ((1, 3, 4, 5), (3, 1, 3, 3), {"groups": 3, "padding": "full"}),
    "reflect": ((1, 1, 4, 4), (1, 1, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "wrap": ((1, 2, 4, 3), (1, 2, 2, 3), {"padding": "same_lower", "stride": 2, "padding_mode": "wrap"}),
}
TRANSPOSED = {
    "plain": ((2, 2, 3, 4), (2, 3, 3, 2), {}),
    "one image": ((2, 3, 2), (2, 3, 2, 3), {"padding": 1}),
    "stride": ((1, 2, 3, 2), (2, 2, 3, 2), {"stride": (2, 3), "padding": ((1, 0), (0, 1)), "output_padding": (1, 2)}),
    "dilation": ((1, 2, 3, 3), (2, 1, 2, 3), {"dilation": 3, "output_padding": 2}),
    "groups": ((2, 4, 3, 3), (4, 2, 3, 3), {"groups": 2, "stride": 2, "padding": "same_upper"}),
    "output_size": ((1, 1, 3, 3), (1, 2, 3, 3), {"stride": 2, "output_size": (8, 7)}),
}
CASES = [
    *(pytest.param("conv2d", *case, id=f"conv2d {name}") for name, case in CONVOLUTIONS.items()),
    *(pytest.param("conv_transpose2d", *case, id=f"conv_transpose2d {name}") for name, case in TRANSPOSED.items()),
]


def biases(name, weight, options):
    return integers(len(weight) if name == "conv2d" else weight.shape[1] * options.get("groups", 1))


# --- convolutions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "x_shape", "weight_shape", "options"), CASES)
def test_value_and_gradients_are_convjits(name, x_shape, weight_shape, options):
    ours, theirs = getattr(convjit, name), getattr(bridge, name)
    x, weight = integers(*x_shape), integers(*weight_shape)
    bias = biases(name, weight, options)
    y = ours(x, weight, bias, **options)
    assert_array_equal(theirs(x, weight, bias=bias, **options), y, strict=True)
    dy = integers(*y.shape)
    wanted = getattr(convjit, f"{name}_backward")(dy, x, weight, **options)
    for i, gradient in enumerate(wanted):
        vjp, value = make_vjp(lambda *a: theirs(*a, **options), i)(x, weight, bias)
        assert_array_equal(value, y, strict=True)
        assert_array_equal(vjp(dy), gradient, strict=True)


@pytest.mark.parametrize(("name", "x_shape", "weight_shape", "options"), CASES)
def test_the_second_derivative_is_exact(name, x_shape, weight_shape, options):
    """`<dy, f(x, w)>` differentiated in x along u is `<dy, f(u, w)>`, whose derivatives in w and dy are known."""
    ours, theirs = getattr(convjit, name), getattr(bridge, name)
    x, weight, u = integers(*x_shape), integers(*weight_shape), integers(*x_shape)
    y = ours(u, weight, **options)
    dy = integers(*y.shape)
    backward = getattr(convjit, f"{name}_backward")

    def along(dy, x, weight):
        return anp.sum(u * make_vjp(lambda x: theirs(x, weight, **options), 0)(x)[0](dy))

    assert_array_equal(grad(along, 0)(dy, x, weight), y, strict=True)
    assert_array_equal(grad(along, 2)(dy, x, weight), backward(dy, u, weight, **options)[1], strict=True)

    v = integers(*weight_shape)

    def along_weight(dy, x, weight):
        return anp.sum(v * make_vjp(lambda weight: theirs(x, weight, **options), 0)(weight)[0](dy))

    assert_array_equal(grad(along_weight, 0)(dy, x, weight), ours(x, v, **options), strict=True)
    assert_array_equal(grad(along_weight, 1)(dy, x, weight), backward(dy, x, v, **options)[0], strict=True)


@pytest.mark.parametrize(("name", "x_shape", "weight_shape", "options"), CASES)
def test_finite_differences_of_second_order(name, x_shape, weight_shape, options):
    x, weight = integers(*x_shape), integers(*weight_shape)
    function = getattr(bridge, name)
    check_grads(lambda *a: anp.tanh(0.1 * function(*a, **options)), (0, 1, 2), order=2, modes=["fwd", "rev"])(
        x, weight, biases(name, weight, options)
    )


@pytest.mark.parametrize("kinds", ["rc", "cr", "cc"])
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_complex_arguments(name, kinds):
    x, weight, options = (2, 2, 4, 3), (2, 2, 2, 2), {"stride": 2, "padding": 1}
    x, weight = (integers(*shape) + (1j * integers(*shape) if kind == "c" else 0)
                 for shape, kind in zip((x, weight), kinds, strict=True))  # fmt: skip
    bias = integers(2)
    function = getattr(bridge, name)
    check_grads(lambda *a: function(*a, **options), (0, 1, 2), order=2, modes=["rev"])(x, weight, bias)
    for i, argument in enumerate((x, weight, bias)):
        gradient = grad(lambda *a: anp.sum(anp.abs(function(*a, **options)) ** 2), i)(x, weight, bias)
        assert gradient.dtype == argument.dtype


@pytest.mark.parametrize(("_", "x_shape", "weight_shape", "options"), CASES[: len(CONVOLUTIONS)])
def test_the_gradients_are_functions_of_their_own(_, x_shape, weight_shape, options):
    x, weight = integers(*x_shape), integers(*weight_shape)
    dy = integers(*convjit.conv2d(x, weight, **options).shape)
    check_grads(lambda dy, w: bridge.conv2d_input_grad(dy, w, x_shape[-2:], **options), (0, 1), order=2)(dy, weight)
    check_grads(lambda dy, x: bridge.conv2d_weight_grad(dy, x, weight_shape[-2:], **options), (0, 1), order=2)(dy, x)
    wanted = convjit.conv2d_backward(dy, x, weight, **options)
    assert_array_equal(bridge.conv2d_input_grad(dy, weight, x_shape[-2:], **options), wanted[0], strict=True)
    assert_array_equal(bridge.conv2d_weight_grad(dy, x, weight_shape[-2:], **options), wanted[1], strict=True)


@pytest.mark.parametrize("kinds", ["rc", "cr", "cc"])
def test_the_gradients_of_complex_arguments(kinds):
    shapes, options = ((1, 2, 3, 2), (2, 2, 2, 2), (1, 2, 4, 3)), {"stride": 2, "padding": 1}
    dy, weight, x = (integers(*shape) + (1j * integers(*shape) if kind == "c" else 0)
                     for shape, kind in zip(shapes, kinds + kinds[1], strict=True))  # fmt: skip
    check_grads(lambda dy, w: bridge.conv2d_input_grad(dy, w, (4, 3), **options), (0, 1), order=2, modes=["rev"])(
        dy, weight
    )
    check_grads(lambda dy, x: bridge.conv2d_weight_grad(dy, x, 2, **options), (0, 1), order=2, modes=["rev"])(dy, x)


def test_float32_stays_float32():
    x, weight, bias = (integers(*shape).astype(np.float32) for shape in ((1, 2, 5, 5), (3, 2, 3, 3), (3,)))
    for i in range(3):
        assert grad(lambda *a: anp.sum(bridge.conv2d(*a) ** 2), i)(x, weight, bias).dtype == np.float32


def test_a_hessian_of_a_convolution_is_its_normal_matrix():
    x, weight = integers(1, 4, 4), integers(2, 1, 3, 3)

    def half_square(x):
        return anp.sum(bridge.conv2d(x, weight, padding=1) ** 2) / 2

    def of(direction):
        return make_vjp(elementwise_grad(half_square))(x)[0](direction), make_jvp(grad(half_square))(x)(direction)[1]

    direction = integers(1, 4, 4)
    y = convjit.conv2d(direction, weight, padding=1)
    wanted = convjit.conv2d_input_grad(y, weight, 4, padding=1)
    for product in of(direction):
        assert_array_equal(product, wanted)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_what_does_not_fit_is_refused_in_convjits_words(name):
    with pytest.raises(ValueError, match=rf"^{name}: weight expects 3 input channels"):
        grad(lambda x: anp.sum(getattr(bridge, name)(x, np.ones((3, 3, 2, 2)))))(np.ones((1, 2, 4, 4)))


# --- pools ----------------------------------------------------------------------------------------------------------

POOLS = {
    "plain": ((2, 3, 4, 6), {"kernel_size": 2}),
    "one image": ((3, 5, 5), {"kernel_size": (2, 3), "stride": 1, "padding": 1}),
    "ceil": ((1, 2, 5, 6), {"kernel_size": 3, "stride": 2, "padding": ((1, 0), (0, 1)), "ceil_mode": True}),
    "dilation": ((1, 1, 6, 7), {"kernel_size": 2, "stride": (2, 1), "dilation": (2, 3)}),
}


def distinct(shape):
    """No two alike, so that finite differences see no change of maximum."""
    return RNG.permutation(np.arange(np.prod(shape))).reshape(shape) + 0.0


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pools(name, case):
    shape, options = POOLS[case]
    x, function = distinct(shape), getattr(bridge, name)
    y = getattr(convjit, name)(x, **options)
    dy = integers(*y.shape)
    vjp, value = make_vjp(lambda x: function(x, **options))(x)
    assert_array_equal(value, y, strict=True)
    assert_array_equal(function(x, **options), y, strict=True)
    backward = getattr(convjit, f"{name}_backward")
    assert_array_equal(vjp(dy), backward(dy, x if name == "max_pool2d" else shape[-2:], **options), strict=True)
    check_grads(lambda x: anp.tanh(0.02 * function(x, **options)), order=2, modes=["fwd", "rev"])(x)


def test_a_divisor_that_is_given():
    gradient = grad(lambda x: anp.sum(bridge.avg_pool2d(x, 2, divisor_override=-8)))(distinct((1, 4, 4)))
    np.testing.assert_array_equal(gradient, np.full((1, 4, 4), -1 / 8))


def test_windows_that_see_no_pixel_have_no_gradient():
    x = np.array([[[1.0, 2.0]]])
    options = {"kernel_size": (2, 1), "padding": ((1, 1), (0, 0)), "dilation": (2, 1), "stride": 1}
    y = convjit.max_pool2d(x, **options)
    assert (y == -np.inf).all()
    vjp, value = make_vjp(lambda x: bridge.max_pool2d(x, **options))(x)
    assert_array_equal(value, y)
    assert_array_equal(vjp(np.ones(y.shape)), np.zeros(x.shape))
    assert_array_equal(make_vjp(lambda dy: anp.sum(5 * vjp(dy)))(np.ones(y.shape))[0](1.0), np.zeros(y.shape))


def test_a_network_learns():
    """All of them in one function, against central differences in a random direction."""
    x, parameters = RNG.normal(size=(3, 1, 8, 8)), [RNG.normal(size=s) for s in ((2, 1, 3, 3), (2,), (2, 3, 2, 2))]

    def loss(parameters):
        weight, bias, last = parameters
        hidden = bridge.max_pool2d(anp.tanh(bridge.conv2d(x, weight, bias, padding="same")), 2)
        return anp.sum(bridge.avg_pool2d(bridge.conv_transpose2d(hidden, last, stride=2), 2) ** 2)

    gradient = grad(loss)(parameters)
    direction = [RNG.normal(size=p.shape) for p in parameters]
    step = 1e-6
    ends = [loss([p + sign * step * d for p, d in zip(parameters, direction, strict=True)]) for sign in (1, -1)]
    slope = vspace(parameters).inner_prod(gradient, direction)
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-6)
