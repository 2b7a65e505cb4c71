"""Activations and their gradients in compiled passes, where those are not slower than NumPy's.

Exponentials, logarithms and hyperbolic tangents are left to NumPy, which has them in whole vectors; a compiled loop
would call the C library for each. What is done with one is compiled: NumPy's `where` takes 4 ns an element, four times
as long as its exponential. A gradient that is made of what the forward pass returned has none of them.
Knows formulas of one element; which activation they belong to is the layer's table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..runtime.compile import Driver
from .pointwise import backward, forward, forward_of_two, in_place

# float32 numbers fit into both dtypes: of a float64 and one of them Numba makes a float64.
_ZERO, _ONE = np.float32(0), np.float32(1)


class Passes(NamedTuple):
    """The drivers of an activation; None where NumPy is faster."""

    forward: Driver | None
    backward: Driver | None


def _relu(constants: Any, x: Any) -> Any:
    """max(x, 0); of a NaN, NaN."""
    return _ZERO if x <= _ZERO else x


def _relu_gradient(constants: Any, x: Any, y: Any, dy: Any) -> Any:
    """dy where x > 0, else 0."""
    return dy if x > _ZERO else _ZERO


def _leaky_relu(constants: Any, x: Any) -> Any:
    """x where x >= 0, else leak * x."""
    return x if x >= _ZERO else constants[0] * x


def _leaky_relu_gradient(constants: Any, x: Any, y: Any, dy: Any) -> Any:
    """dy where x >= 0, else leak * dy."""
    return dy if x >= _ZERO else constants[0] * dy


def _sigmoid(constants: Any, x: Any, z: Any) -> Any:
    """1 / (1 + exp(-x)), where z = exp(-|x|)."""
    return (_ONE if x >= _ZERO else z) / (_ONE + z)


def _sigmoid_gradient(constants: Any, x: Any, y: Any, dy: Any) -> Any:
    """dy * y * (1 - y)."""
    return dy * y * (_ONE - y)


def _tanh_gradient(constants: Any, x: Any, y: Any, dy: Any) -> Any:
    """dy * (1 - y**2)."""
    return dy * (_ONE - y * y)


def _elu(constants: Any, x: Any, z: Any) -> Any:
    """scale * x where x >= 0, else scale * alpha * z, where z = exp(x) - 1."""
    return constants[0] * x if x >= _ZERO else constants[1] * z


def _softplus(constants: Any, x: Any, z: Any) -> Any:
    """max(x, 0) + z, where z = log(1 + exp(-|x|)); of a NaN, NaN."""
    return (_ZERO if x <= _ZERO else x) + z


def _elu_gradient(constants: Any, x: Any, y: Any, dy: Any) -> Any:
    """scale * dy where x >= 0, else dy * (y + scale * alpha)."""
    return constants[0] * dy if x >= _ZERO else dy * (y + constants[1])


RELU = Passes(forward(_relu), backward(_relu_gradient))
RELU_IN_PLACE = in_place(_relu)
LEAKY_RELU = Passes(forward(_leaky_relu), backward(_leaky_relu_gradient))
SIGMOID = Passes(forward_of_two(_sigmoid), backward(_sigmoid_gradient))
TANH = Passes(None, backward(_tanh_gradient))
ELU = Passes(forward_of_two(_elu), backward(_elu_gradient))
SOFTPLUS = Passes(forward_of_two(_softplus), None)
NUMPYS = Passes(None, None)
