"""The formulas of optimizers: new weights and new state from numbers, weights, gradient and state.

The numbers are hyperparameters, and what is computed of them once a step. Of scalars in a compiled pass, or of whole
arrays by NumPy: both round alike. A formula has at most `pointwise.NUMBERS` numbers and two states.
Does not know where state is kept; sources are named with the optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..runtime.compile import Driver
from .pointwise import step, step_with_one_state, step_with_two_states


class Update(NamedTuple):
    """A formula `formula(numbers, w, grad, *states)` and the driver made of it."""

    formula: Callable[..., Any]
    driver: Driver


def _descent(numbers: Any, w: Any, grad: Any) -> Any:
    """w - rate * grad."""
    return (w - numbers[0] * grad,)


def _momentum(numbers: Any, w: Any, grad: Any, velocity: Any) -> Any:
    """v = momentum * v + grad, w - rate * v."""
    rate, momentum = numbers[0], numbers[1]
    new = momentum * velocity + grad
    return w - rate * new, new


def _nesterov(numbers: Any, w: Any, grad: Any, velocity: Any) -> Any:
    """v = momentum * v + grad, w - rate * (grad + momentum * v)."""
    rate, momentum = numbers[0], numbers[1]
    new = momentum * velocity + grad
    return w - rate * (grad + momentum * new), new


def _adagrad(numbers: Any, w: Any, grad: Any, squares: Any) -> Any:
    """G = G + grad**2, w - rate * grad / (sqrt(G) + eps)."""
    rate, eps = numbers[0], numbers[1]
    new = squares + grad * grad
    return w - rate * grad / (np.sqrt(new) + eps), new


def _adadelta(numbers: Any, w: Any, grad: Any, squares: Any, steps: Any) -> Any:
    """E, D: running means of squared gradients and steps; step = sqrt(D + eps) / sqrt(E + eps) * grad."""
    rate, rho, rest, eps = numbers[0], numbers[1], numbers[2], numbers[3]
    new = rho * squares + rest * grad * grad
    step = np.sqrt(steps + eps) / np.sqrt(new + eps) * grad
    return w - rate * step, new, rho * steps + rest * step * step


def _rmsprop(numbers: Any, w: Any, grad: Any, squares: Any) -> Any:
    """E = rho * E + (1 - rho) * grad**2, w - rate * grad / (sqrt(E) + eps)."""
    rate, rho, rest, eps = numbers[0], numbers[1], numbers[2], numbers[3]
    new = rho * squares + rest * grad * grad
    return w - rate * grad / (np.sqrt(new) + eps), new


def _adam(numbers: Any, w: Any, grad: Any, mean: Any, squares: Any) -> Any:
    """Running means m of gradients and E of their squares; w * shrink - rate * m / (sqrt(E) * correction + eps)."""
    b1, rest1, b2, rest2 = numbers[0], numbers[1], numbers[2], numbers[3]
    rate, correction, eps, shrink = numbers[4], numbers[5], numbers[6], numbers[7]
    mean = b1 * mean + rest1 * grad
    squares = b2 * squares + rest2 * grad * grad
    return w * shrink - rate * mean / (np.sqrt(squares) * correction + eps), mean, squares


DESCENT = Update(_descent, step(_descent))
MOMENTUM = Update(_momentum, step_with_one_state(_momentum))
NESTEROV = Update(_nesterov, step_with_one_state(_nesterov))
ADAGRAD = Update(_adagrad, step_with_one_state(_adagrad))
ADADELTA = Update(_adadelta, step_with_two_states(_adadelta))
RMSPROP = Update(_rmsprop, step_with_one_state(_rmsprop))
ADAM = Update(_adam, step_with_two_states(_adam))
