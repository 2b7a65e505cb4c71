"""Compiled passes: the bits of the same formulas in NumPy, on any number of threads, and what is left to NumPy."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit import SGD, Activation, Adadelta, Adagrad, Adam, AdamW, RMSprop
from convjit.algorithms.pointwise import CHUNK
from convjit.layers import activation, optimizers, passes
from convjit.layers.activation import ACTIVATIONS

OPTIMIZERS = {
    "SGD": SGD(0.1),
    "momentum": SGD(0.1, 0.9),
    "Nesterov": SGD(0.1, 0.9, nesterov=True),
    "Adagrad": Adagrad(0.1),
    "Adadelta": Adadelta(),
    "RMSprop": RMSprop(0.1),
    "Adam": Adam(0.1),
    "AdamW": AdamW(0.1, weight_decay=0.3),
}
SIZES = [(1,), (7,), (3, 5, 2), (CHUNK,), (CHUNK + 1,), (5, CHUNK)]
DTYPES = [np.float32, np.float64]


def numbers(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def walk(optimizer, shape, dtype, grad_dtype=None, change=lambda array: array):
    """Weights after some steps, and the state."""
    optimizer = copy.copy(optimizer)
    w, path = numbers(shape, dtype), []
    for step in range(3):
        w = optimizer.update(change(w), change(numbers(shape, grad_dtype or dtype, seed=step + 1)))
        path.append(w)
    return [*path, *(value for value in vars(optimizer).values() if isinstance(value, np.ndarray))]


def assert_same(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert_array_equal(one, other, strict=True)


@pytest.fixture
def by_numpy(monkeypatch):
    """Call to leave everything to NumPy from now on."""

    def switch():
        for module in (passes, activation):
            monkeypatch.setattr(module, "compiled", lambda *arrays: False)

    return switch


@pytest.fixture
def ran(monkeypatch):
    """The names of the drivers that ran."""
    names = []
    everywhere = passes.everywhere

    def watched(driver, *rest):
        names.append(driver.__name__)
        return everywhere(driver, *rest)

    monkeypatch.setattr(passes, "everywhere", watched)
    return names


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_has_the_bits_of_numpys(name, shape, dtype, by_numpy, ran):
    got = walk(OPTIMIZERS[name], shape, dtype)
    assert len(ran) == 3
    by_numpy()
    assert_same(got, walk(OPTIMIZERS[name], shape, dtype))
    assert len(ran) == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_has_the_same_bits_on_two_threads(name, monkeypatch):
    got = walk(OPTIMIZERS[name], (9, CHUNK + 3), np.float32)
    monkeypatch.setattr(passes, "workers", lambda nanoseconds: 2)
    assert_same(walk(OPTIMIZERS[name], (9, CHUNK + 3), np.float32), got)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layouts_are_not_seen(name, ran):
    shape = (6, 5, 4)
    wanted = walk(OPTIMIZERS[name], shape, np.float64)
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2], lambda a: a[::-1].copy()[::-1]):
        assert_same(walk(OPTIMIZERS[name], shape, np.float64, change=change), wanted)
    assert len(ran) == 12


@pytest.mark.parametrize(
    ("dtype", "grad_dtype"), [("f2", "f2"), ("f4", "f8"), ("f8", "f4"), ("f8", "i4"), (">f8", ">f8")]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_other_dtypes_are_numpys(name, dtype, grad_dtype, ran, by_numpy):
    got = walk(OPTIMIZERS[name], (3, 2), dtype, grad_dtype)
    by_numpy()
    assert_same(got, walk(OPTIMIZERS[name], (3, 2), dtype, grad_dtype))


def test_empty_weights_and_one_gradient_for_all(ran):
    for optimizer in OPTIMIZERS.values():
        assert copy.copy(optimizer).update(np.ones((0, 3)), np.ones((0, 3))).shape == (0, 3)
    assert ran == []
    for optimizer in OPTIMIZERS.values():
        one, all_of_them = (copy.copy(optimizer).update(np.ones((2, 3)), np.ones(n)) for n in (3, (2, 3)))
        assert_array_equal(one, all_of_them)


@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "numpy"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_state_is_kept_denormal(name, dtype, is_compiled, by_numpy, ran):
    """Of gradients and squares on either side of the least normal number, which shrink when gradients are 0."""
    least = np.finfo(dtype).smallest_normal
    sizes = np.concatenate([least, np.sqrt(least)] * np.geomspace(1e-4, 1e4, 50, dtype=dtype)[:, None])
    grad = np.concatenate([sizes, -sizes])
    if not is_compiled:
        by_numpy()
    optimizer, w = copy.copy(OPTIMIZERS[name]), np.ones_like(grad)
    for step in range(20):
        w = optimizer.update(w, grad * (step < 3))
        states = [value for value in vars(optimizer).values() if isinstance(value, np.ndarray)]
        assert all(np.any(state) and not np.any((state != 0) & (np.abs(state) < least)) for state in states)
    assert len(ran) == 20 * is_compiled
    assert len(states) == {"SGD": 0, "Adadelta": 2, "Adam": 2, "AdamW": 2}.get(name, 1)


@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "numpy"])
@pytest.mark.parametrize("make", [Adagrad, Adadelta, RMSprop, Adam, AdamW])
def test_without_eps_a_gradient_that_stops_makes_no_nan(make, is_compiled, by_numpy):
    """Squares below the least normal number are kept where their root divides."""
    if not is_compiled:
        by_numpy()
    optimizer, w = make(eps=0.0), np.ones(2, np.float32)
    w = optimizer.update(w, np.array([1e-20, 1e-19], np.float32))
    for _ in range(50):
        w = optimizer.update(w, np.zeros(2, np.float32))
        assert np.isfinite(w).all()
    assert 0 < optimizer._squares.min() < optimizer._squares.max() < np.finfo(np.float32).smallest_normal


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_of_another_dtype_give_the_wider_one(name):
    layer = Activation(name)
    layer.forward_pass(numbers((3, 4), np.float32))
    dx = layer.backward_pass(np.full((3, 4), 1e200))
    assert dx.dtype == np.float64
    assert np.isfinite(dx).all()


EDGES = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-30, -1e-30, 3.5, -2.5]


@pytest.mark.parametrize("dtype", [*DTYPES, np.float16])
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"softmax"}))
def test_activations_have_the_bits_of_numpys(name, shape, dtype, by_numpy, ran):
    x, dy = numbers(shape, dtype), numbers(shape, dtype, seed=1)
    few = min(x.size, len(EDGES))
    x.reshape(-1)[:few] = EDGES[:few]
    if x.ndim == 1:
        x, dy = x[None], dy[None]

    def both():
        layer = Activation(name)
        with np.errstate(all="ignore"):
            return [layer.forward_pass(x), layer.backward_pass(dy)]

    got = both()
    expected = sum(driver is not None for driver in ACTIVATIONS[name].passes)
    assert len(ran) == (expected if dtype != np.float16 else 0)
    by_numpy()
    assert_same(got, both())


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid", "softplus", "softmax"])
def test_activations_have_the_same_bits_on_two_threads(name, monkeypatch):
    x, dy = numbers((9, CHUNK), np.float32), numbers((9, CHUNK), np.float32, seed=1)
    results = []
    for crew in (1, 2):
        monkeypatch.setattr(passes, "workers", lambda nanoseconds, crew=crew: crew)
        layer = Activation(name)
        results.append([layer.forward_pass(x), layer.backward_pass(dy)])
    assert_same(*results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 10, 16, 31, 1000])
def test_softmax_of_rows(columns, dtype):
    """Within the rounding of sums of eight lanes and of an exponential of one unit, of rows with one entry and many."""
    x = 5 * numbers((3, 4, columns), dtype)
    dy = numbers(x.shape, dtype, seed=1)
    layer = Activation("softmax")
    y, dx = layer.forward_pass(x), layer.backward_pass(dy)
    assert y.dtype == dx.dtype == dtype
    unit = np.finfo(dtype).eps
    z = np.exp(np.longdouble(x) - np.max(x, -1, keepdims=True))
    wanted = z / z.sum(-1, keepdims=True)
    # Differences to the largest entry are rounded before they are exponents.
    assert_allclose(y, wanted, rtol=(columns / 8 + 8 + np.ptp(x)) * unit)
    terms = np.longdouble(y) * dy
    bound = (columns / 8 + 4) * unit * y * (np.abs(dy) + np.abs(terms).sum(-1, keepdims=True))
    assert np.all(np.abs(dx - y * (dy - terms.sum(-1, keepdims=True))) <= bound)


def test_softmax_of_any_layout_and_of_numbers_that_are_none():
    x, dy = numbers((4, 5, 6), np.float32), numbers((4, 5, 6), np.float32, seed=1)
    x[0, 0, 3], x[1, 1, 4], x[2, 2], x[3, 3, :5] = np.nan, np.inf, -np.inf, -np.inf
    passes_of = []
    for change in (np.copy, np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2]):
        layer = Activation("softmax")
        passes_of.append([layer.forward_pass(change(x)), layer.backward_pass(change(dy))])
    y = passes_of[0][0]
    for other in passes_of[1:]:
        assert_same(other, passes_of[0])
    not_numbers = np.isnan(y)
    assert not_numbers[[0, 1, 2], [0, 1, 2]].all()
    assert not_numbers.sum() == 18
    assert y[3, 3].tolist() == [0, 0, 0, 0, 0, 1]


def test_inputs_that_no_gradient_needs_are_not_kept():
    for name, row in ACTIVATIONS.items():
        layer = Activation(name)
        x = numbers((3, 4), np.float64)
        y = layer.forward_pass(x)
        kept = [value for value in layer._kept_pass if value is not y]
        assert len(kept) == (0 if row.by_output else 1)


def test_every_published_optimizer_is_here():
    assert {type(optimizer) for optimizer in OPTIMIZERS.values()} == optimizers.PUBLISHED
