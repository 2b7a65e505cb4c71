"""The optimizers: their published formulas written out for several steps, beside PyTorch, and what they leave alone."""

import copy
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit import SGD, Adadelta, Adagrad, Adam, AdamW, Dense, Optimizer, RMSprop
from convjit.layers.optimizers import PUBLISHED

STEPS = 6


def gradients(dtype=np.float64):
    return np.random.default_rng(1).standard_normal((STEPS, 3, 2)).astype(dtype)


def walk(optimizer, dtype=np.float64):
    """The weights after each step."""
    w = np.linspace(-1, 1, 6, dtype=dtype).reshape(3, 2)
    path = []
    for grad in gradients(dtype):
        w = optimizer.update(w, grad)
        path.append(w)
    return np.array(path)


def written_out(step):
    """The same walk, where `step(t, w, past gradients)` gives the new weights from all gradients so far."""
    w, path = np.linspace(-1, 1, 6).reshape(3, 2), []
    past = gradients()
    for t in range(1, STEPS + 1):
        w = step(t, w, past[:t])
        path.append(w)
    return np.array(path)


def decayed(values, rate, weight):
    """`sum(weight * rate**(t - i) * values[i])`: a running average without its recursion."""
    powers = rate ** np.arange(len(values) - 1, -1, -1)
    return weight * np.tensordot(powers, values, axes=1)


def adam_step(t, w, g, rate=0.1, b1=0.8, b2=0.95, eps=1e-3):
    mean = decayed(g, b1, 1 - b1) / (1 - b1**t)
    square = decayed(g**2, b2, 1 - b2) / (1 - b2**t)
    return w - rate * mean / (np.sqrt(square) + eps)


def adadelta_walk(rho=0.9, eps=1e-3, rate=0.5):
    steps = np.empty((0, 3, 2))

    def step(t, w, g):
        nonlocal steps
        before = decayed(steps**2, rho, 1 - rho) if t > 1 else 0
        change = np.sqrt(before + eps) / np.sqrt(decayed(g**2, rho, 1 - rho) + eps) * g[-1]
        steps = np.concatenate([steps, change[None]])
        return w - rate * change

    return written_out(step)


FORMULAS = {
    "SGD": (SGD(0.1), lambda: written_out(lambda t, w, g: w - 0.1 * g[-1])),
    "momentum": (SGD(0.1, 0.9), lambda: written_out(lambda t, w, g: w - 0.1 * decayed(g, 0.9, 1))),
    "Nesterov": (
        SGD(0.1, 0.9, nesterov=True),
        lambda: written_out(lambda t, w, g: w - 0.1 * (g[-1] + 0.9 * decayed(g, 0.9, 1))),
    ),
    "Adagrad": (
        Adagrad(0.1, eps=1e-3),
        lambda: written_out(lambda t, w, g: w - 0.1 * g[-1] / (np.sqrt((g**2).sum(axis=0)) + 1e-3)),
    ),
    "RMSprop": (
        RMSprop(0.1, rho=0.8, eps=1e-3),
        lambda: written_out(lambda t, w, g: w - 0.1 * g[-1] / (np.sqrt(decayed(g**2, 0.8, 0.2)) + 1e-3)),
    ),
    "Adadelta": (Adadelta(rho=0.9, eps=1e-3, learning_rate=0.5), adadelta_walk),
    "Adam": (Adam(0.1, b1=0.8, b2=0.95, eps=1e-3), lambda: written_out(adam_step)),
    "AdamW": (
        AdamW(0.1, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3),
        lambda: written_out(lambda t, w, g: adam_step(t, w, g) - 0.1 * 0.3 * w),
    ),
}

every_optimizer = pytest.mark.parametrize("name", FORMULAS)


def fresh(name):
    return copy.deepcopy(FORMULAS[name][0])


def test_every_published_optimizer_has_a_formula():
    assert {type(optimizer) for optimizer, _ in FORMULAS.values()} == PUBLISHED
    assert set(Optimizer.__subclasses__()) <= {*PUBLISHED} | {
        kind for kind in Optimizer.__subclasses__() if not kind.__module__.startswith("convjit.")
    }


@every_optimizer
def test_steps_are_those_of_the_formula(name):
    assert_allclose(walk(fresh(name)), FORMULAS[name][1](), rtol=1e-10, atol=1e-13)


@every_optimizer
def test_steps_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; the formulas written out are tested instead")
    make = {
        "SGD": lambda p: torch.optim.SGD(p, 0.1),
        "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        "Nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1, eps=1e-3),
        "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.8, eps=1e-3),
        "Adadelta": lambda p: torch.optim.Adadelta(p, 0.5, rho=0.9, eps=1e-3),
        "Adam": lambda p: torch.optim.Adam(p, 0.1, betas=(0.8, 0.95), eps=1e-3),
        "AdamW": lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3),
    }
    weight = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2).requires_grad_()
    optimizer = make[name]([weight])
    wanted = []
    for grad in gradients():
        weight.grad = torch.from_numpy(grad)
        optimizer.step()
        wanted.append(weight.detach().numpy().copy())
    assert_allclose(walk(fresh(name)), wanted, rtol=1e-10, atol=1e-13)


@every_optimizer
def test_nothing_is_written_into(name):
    optimizer = fresh(name)
    w = np.ones((3, 2))
    for grad in gradients():
        w.flags.writeable = grad.flags.writeable = False
        held = {k: v for k, v in vars(optimizer).items() if isinstance(v, np.ndarray)}
        before = copy.deepcopy(held)
        new = optimizer.update(w, grad)
        assert new is not w
        assert not np.shares_memory(new, w)
        for key, array in held.items():
            assert_array_equal(array, before[key])
            assert not np.shares_memory(array, vars(optimizer)[key])
        w = new


@every_optimizer
def test_a_shallow_copy_is_a_full_one(name):
    optimizer = fresh(name)
    for _ in range(2):
        twin = copy.copy(optimizer)
        assert_array_equal(walk(twin), walk(copy.copy(optimizer)))
        optimizer.update(np.ones((3, 2)), gradients()[0])


@every_optimizer
def test_float32_stays_float32(name):
    optimizer = fresh(name)
    path = walk(optimizer, np.float32)
    assert path.dtype == np.float32
    assert {v.dtype for v in vars(optimizer).values() if isinstance(v, np.ndarray)} <= {np.dtype(np.float32)}
    assert_allclose(path, walk(fresh(name)), rtol=1e-4, atol=1e-5)


@every_optimizer
def test_shows_its_hyperparameters(name):
    optimizer = fresh(name)
    optimizer.update(np.ones((3, 2)), np.ones((3, 2)))
    assert vars(eval(repr(optimizer))).keys() == vars(optimizer).keys()
    assert repr(eval(repr(optimizer))) == repr(optimizer)
    assert "array" not in repr(optimizer)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), Adagrad(0.5), RMSprop(0.05), Adadelta(), Adam(0.05), AdamW(0.05)])
def test_a_quadratic_goes_down(optimizer):
    w = np.array([3.0, -2.0])
    for _ in range(600):
        w = optimizer.update(w, w * [1, 10])
    assert (w * w * [1, 10]).sum() < {Adadelta: 40}.get(type(optimizer), 1e-2)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: SGD(-0.1), ValueError, "SGD: learning_rate must be >= 0, got -0.1"),
        (lambda: SGD(float("inf")), ValueError, "SGD: learning_rate must be >= 0 and finite, got inf"),
        (lambda: SGD(10**400), ValueError, "SGD: learning_rate must be >= 0 and finite, got inf"),
        (lambda: SGD(float("nan")), ValueError, "SGD: learning_rate must be >= 0, got nan"),
        (lambda: SGD("fast"), TypeError, "SGD: learning_rate must be a number, got str 'fast'"),
        (lambda: SGD(True), TypeError, "SGD: learning_rate must be a number, got bool True"),
        (lambda: SGD(None), TypeError, "SGD: learning_rate must be a number, got NoneType"),
        (lambda: SGD(momentum=1), ValueError, "SGD: momentum must be >= 0 and < 1, got 1"),
        (lambda: SGD(nesterov=True), ValueError, "SGD: nesterov needs a momentum above 0, got 0"),
        (lambda: SGD(lr=0.1), TypeError, "SGD: unknown keyword 'lr'; it is called 'learning_rate' here"),
        (lambda: Adagrad(eps=-1), ValueError, "Adagrad: eps must be >= 0, got -1"),
        (lambda: Adadelta(rho=1.0), ValueError, "Adadelta: rho must be >= 0 and < 1, got 1.0"),
        (lambda: RMSprop(rho=-0.1), ValueError, "RMSprop: rho must be >= 0 and < 1, got -0.1"),
        (lambda: Adam(b1=1), ValueError, "Adam: b1 must be >= 0 and < 1, got 1"),
        (lambda: Adam(b2=2), ValueError, "Adam: b2 must be >= 0 and < 1, got 2"),
        (
            lambda: Adam(betas=(0.9, 0.99)),
            TypeError,
            "Adam: unknown keyword 'betas'; it takes learning_rate, b1, b2, eps",
        ),
        (lambda: AdamW(b1=1), ValueError, "AdamW: b1 must be >= 0 and < 1, got 1"),
        (lambda: AdamW(weight_decay=-1), ValueError, "AdamW: weight_decay must be >= 0, got -1"),
    ],
)
def test_hyperparameters_out_of_range(call, error, said):
    with pytest.raises(error, match=f"^{re.escape(said)}"):
        call()


@pytest.mark.parametrize(
    ("optimizer", "name", "value", "error", "said"),
    [
        (SGD(), "learning_rate", None, TypeError, "SGD: learning_rate must be a number, got NoneType"),
        (SGD(), "momentum", 1.0, ValueError, "SGD: momentum must be >= 0 and < 1, got 1.0"),
        (Adam(), "b1", 1, ValueError, "Adam: b1 must be >= 0 and < 1, got 1"),
        (Adam(), "learning_rate", np.array(0.1), TypeError, "Adam: learning_rate must be a number, got ndarray"),
        (AdamW(), "weight_decay", -1, ValueError, "AdamW: weight_decay must be >= 0, got -1"),
        (AdamW(), "learning_rate", float("nan"), ValueError, "AdamW: learning_rate must be >= 0, got nan"),
    ],
)
def test_hyperparameters_that_are_set_later(optimizer, name, value, error, said):
    before = getattr(optimizer, name)
    with pytest.raises(error, match=f"^{re.escape(said)}$"):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before


def test_numpy_numbers_are_hyperparameters():
    assert type(SGD(np.float32(0.5)).learning_rate) is float
    assert type(Adam(np.int64(1)).learning_rate) is float


def test_a_bare_optimizer():
    with pytest.raises(NotImplementedError, match=r"^Optimizer has no update$"):
        Optimizer().update(np.ones(1), np.ones(1))


def test_a_subclass_may_write_into_what_it_is_given():
    class InPlace(SGD):
        def update(self, w, grad):
            w -= grad
            return w

    layer = Dense(2, input_shape=(3,), rng=0)
    layer.initialize(InPlace())
    before = layer.W
    values = before.copy()
    layer.backward_pass(layer.forward_pass(np.ones((1, 3))))
    assert_array_equal(before, values)
    assert not np.array_equal(layer.W, values)


@pytest.mark.parametrize("kind", sorted(PUBLISHED, key=lambda kind: kind.__name__))
def test_steps_keep_the_dtype_of_the_weights(kind):
    optimizer, w = kind(), np.ones(3, np.float32)
    for _ in range(2):
        w = optimizer.update(w, np.full(3, 0.5))
        assert w.dtype == np.float32
    assert all(state.dtype == np.float32 for state in vars(optimizer).values() if isinstance(state, np.ndarray))
    assert optimizer.update([1.0, 2.0, 3.0], [0, 1, 2]).dtype == np.float64


@pytest.mark.parametrize("kind", sorted(PUBLISHED, key=lambda kind: kind.__name__))
def test_steps_of_float16_are_computed_in_float32(kind):
    half, single = kind(), kind()
    w = np.array([1, -2, 0.5], np.float16)
    # No gradient at all, one whose square float16 has no number for, and one whose square is beyond it.
    for grad in np.array([[0, 1e-4, 300], [0, -1e-4, 400]], np.float16):
        wanted = single.update(w.astype(np.float32), grad).astype(np.float16)
        w = half.update(w, grad)
        assert_array_equal(w, wanted, strict=True)
        assert np.isfinite(w).all()
    assert all(state.dtype == np.float32 for state in vars(half).values() if isinstance(state, np.ndarray))


def test_a_layer_trains_float16_weights_that_were_set():
    layer = Dense(2, input_shape=(3,), rng=0)
    layer.initialize(Adam(0.5))
    layer.W, layer.w0 = layer.W.astype(np.float16), layer.w0.astype(np.float16)
    before = layer.W
    x = np.array([[1, 0, -1]], np.float16)  # the second feature's weights have no gradient
    for _ in range(2):
        layer.backward_pass(np.ones_like(layer.forward_pass(x)))
    assert_array_equal(layer.W, before + np.array([[-1], [0], [1]]).astype(np.float16), strict=True)


def test_gradients_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^SGD.update: grad must have the shape of w, \(3, 1\), .* got \(3,\)$"):
        SGD().update(np.ones((3, 1)), np.ones(3))
    with pytest.raises(TypeError, match=r"^Adam.update: grad must be real, as w is, got dtype complex128$"):
        Adam().update(np.ones(3), np.ones(3) * 1j)
    assert Adam().update(np.ones(3) * 1j, np.ones(3)).dtype == np.complex128


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "SGD"])
def test_an_optimizer_keeps_state_for_one_weight(name):
    optimizer = fresh(name)
    optimizer.update(np.ones((3, 3)), np.ones((3, 3)))
    said = rf"^{type(optimizer).__name__}\.update: w must have the shape of the weights before, \(3, 3\), got"
    with pytest.raises(ValueError, match=said):
        optimizer.update(np.ones(3), np.ones(3))
