"""Compiled passes over arrays of one shape, and when NumPy makes them instead.

Knows dtypes, layouts and workers; does not know formulas. Kernels are for float32 and float64, all arrays of a pass of
one dtype; what else comes is NumPy's, with the same formula.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..algorithms import softmax
from ..algorithms.activations import RELU_IN_PLACE
from ..algorithms.pointwise import CONSTANTS, NUMBERS, everywhere
from ..algorithms.updates import Update
from ..arrays import all_ready, by_slices, ready
from ..runtime.compile import Driver
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, DType

_COMPILED = (np.dtype(np.float32), np.dtype(np.float64))

# What an element takes: an activation waits for memory, a step for a root and a division.
_ACTIVATION_NS = 0.2
_STEP_NS = 0.7


def compiled(*arrays: Any) -> bool:
    """Whether a pass over these arrays has a kernel."""
    first = arrays[0]
    if type(first) is not np.ndarray:
        return False
    dtype, shape = first.dtype, first.shape
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape:
            return False
    return dtype in _COMPILED and first.size > 0


def pointwise(function: str, driver: Driver, constants: tuple[float, ...], *arrays: Array) -> Array:
    """The result of a `forward` or `backward` driver, of the arrays' shape."""
    like = arrays[0]
    result = allocate(function, "the result", like.shape, like.dtype)
    inputs = [array.ravel() for array in all_ready(function, "an array", arrays, like.dtype)]
    crew = workers(_ACTIVATION_NS * like.size)
    known = _numbers(constants, CONSTANTS, like.dtype)
    everywhere(driver, crew, _ACTIVATION_NS, like.size, known, *inputs, result.ravel())
    return result


def rectify(y: Array) -> None:
    """max(y, 0) in its own place, of an array as kernels take it."""
    known = _numbers((), CONSTANTS, y.dtype)
    everywhere(RELU_IN_PLACE, workers(_ACTIVATION_NS * y.size), _ACTIVATION_NS, y.size, known, y.ravel())


def has_rows(*arrays: Array) -> bool:
    """Whether the rows of these arrays, along the last axis, have kernels."""
    return compiled(*arrays) and arrays[0].shape[-1] <= softmax.MOST


def softmax_of_rows(function: str, x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis."""
    y = allocate(function, "the result", x.shape, x.dtype)
    crew, rows = workers(x.size * softmax.ENTRY_NS), y.reshape(-1, y.shape[-1])
    softmax.shift(crew, ready(function, "X", x, x.dtype).reshape(rows.shape), rows)
    by_slices(_exponentiate, y)
    softmax.divide(crew, rows)
    return y


def _exponentiate(z: Array) -> None:
    np.exp(z, out=z)


def softmax_gradient_of_rows(function: str, y: Array, dy: Array) -> Array:
    """y * (dy - sum(y * dy)) over the last axis."""
    dx = allocate(function, "the gradient", y.shape, y.dtype)
    rows = [
        array.reshape(-1, y.shape[-1]) for array in (*all_ready(function, "an array", (y, dy), y.dtype), dx)
    ]  # fmt: skip
    softmax.gradient(workers(y.size * softmax.ENTRY_NS), *rows)
    return dx


@lru_cache(maxsize=64)
def _numbers(numbers: tuple[float, ...], count: int, dtype: DType, is_exact: bool = True) -> Array:
    """So many numbers, zeros behind those that are given, and the least one that is kept: 0, or the least normal one.

    They are the same for all weights of a network in a step.
    """
    known = np.array((*numbers, *[0] * (count - len(numbers)), _least(dtype, is_exact)), dtype)
    known.flags.writeable = False
    return known


def _least(dtype: DType, is_exact: bool) -> float:
    return 0.0 if is_exact else float(np.finfo(dtype).smallest_normal)


def stepped(
    update: Update, numbers: tuple[float, ...], is_exact: bool, w: Array, grad: Array, *states: Array | None
) -> tuple[Array, ...]:
    """The new `w` and the new states, in new arrays; a state of None is zeros.

    States below the least normal number are kept as 0, unless `is_exact`.
    """
    arrays = [w, grad, *[np.zeros_like(w) if state is None else state for state in states]]
    if compiled(*arrays):
        flat = [ready("Optimizer.update", "an array", array, w.dtype) for array in arrays]
        return step(update, numbers, is_exact, *flat)
    new, *kept = update.formula(numbers, *arrays)
    return new, *(np.where(np.abs(state) < _least(state.dtype, is_exact), 0, state) for state in kept)


def step(update: Update, numbers: tuple[float, ...], is_exact: bool, *arrays: Any) -> tuple[Array, ...]:
    """The same of `w`, `grad` and states that are compiled and ready."""
    w = arrays[0]
    shape, dtype = w.shape, w.dtype
    new = [allocate("Optimizer.update", "the result", shape, dtype) for _ in arrays[1:]]
    flat = map(np.ndarray.ravel, (*arrays, *new))
    known = _numbers(numbers, NUMBERS, w.dtype, is_exact)
    everywhere(update.driver, workers(_STEP_NS * w.size), _STEP_NS, w.size, known, *flat)
    return tuple(new)


def are_ready(*arrays: Any) -> bool:
    """Whether `step` takes these arrays: as most are."""
    # A list: several steps are made in each step of a network, and a generator is entered for each of its entries.
    return compiled(*arrays) and not [array for array in arrays if not array.flags.carray]
