"""Formulas at every element of arrays of one shape: one pass, without temporaries, a chunk a task.

A formula is a function of scalars, compiled into the loop; most of them serve NumPy's arrays as well, so that a dtype
without a kernel gets the same numbers. Knows flat arrays; does not know what formulas mean, nor where arrays come from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..runtime.compile import Driver, driver, kernel
from ..runtime.launch import Launch
from ..typing import DType

# Elements a task. The seven arrays of a chunk of Adam's step fit into a first-level cache of 48 KiB in float32: each
# of its three loops reads what the one before has loaded.
CHUNK = 1024

# Numbers that come with a formula, of the arrays' dtype; unused ones are zero. Behind them comes the least number that
# a step keeps.
CONSTANTS, NUMBERS = 2, 8

_ZERO = np.float32(0)  # fits into both dtypes


def forward(formula: Callable[..., Any]) -> Driver:
    """y[i] = formula(constants, x[i])."""
    point = kernel(formula)

    def body(task: Any, worker: Any, constants: Any, x: Any, y: Any) -> None:
        first = task * CHUNK
        known = (constants[0], constants[1])
        # Slices from their own beginning: a place that cannot be negative needs no look, and vectors are whole.
        x, y = x[first : first + CHUNK], y[first : first + CHUNK]
        for i in range(len(y)):
            y[i] = point(known, x[i])

    return _named(body, formula)


def in_place(formula: Callable[..., Any]) -> Driver:
    """y[i] = formula(constants, y[i])."""
    point = kernel(formula)

    def body(task: Any, worker: Any, constants: Any, y: Any) -> None:
        first = task * CHUNK
        known = (constants[0], constants[1])
        y = y[first : first + CHUNK]
        for i in range(len(y)):
            y[i] = point(known, y[i])

    return _named(body, formula, "_in_place")


def forward_of_two(formula: Callable[..., Any]) -> Driver:
    """y[i] = formula(constants, x[i], z[i])."""
    point = kernel(formula)

    def body(task: Any, worker: Any, constants: Any, x: Any, z: Any, y: Any) -> None:
        first = task * CHUNK
        known = (constants[0], constants[1])
        x, z, y = x[first : first + CHUNK], z[first : first + CHUNK], y[first : first + CHUNK]
        for i in range(len(y)):
            y[i] = point(known, x[i], z[i])

    return _named(body, formula)


def backward(formula: Callable[..., Any]) -> Driver:
    """dx[i] = formula(constants, x[i], y[i], dy[i])."""
    point = kernel(formula)

    def body(task: Any, worker: Any, constants: Any, x: Any, y: Any, dy: Any, dx: Any) -> None:
        first = task * CHUNK
        known = (constants[0], constants[1])
        x, y = x[first : first + CHUNK], y[first : first + CHUNK]
        dy, dx = dy[first : first + CHUNK], dx[first : first + CHUNK]
        for i in range(len(dx)):
            dx[i] = point(known, x[i], y[i], dy[i])

    return _named(body, formula)


# A step of an optimizer: formula(numbers, w, grad, *states) gives the new w and the new states. Each result has a loop
# of its own, for which the compiler keeps what it needs of the formula: with more arrays than five in a loop it does
# not check whether they overlap, and makes no vectors.
#
# States below the least normal number are kept as 0, but by formulas that would divide by it. A mean of gradients that
# have become 0, as those of a unit do that is never active again, shrinks step by step and stays at a denormal number
# for good, for which processors take some hundred cycles: with 7 % of such weights the steps of Adam took 7 times as
# long, from the 830th on.


@kernel
def _in_registers(numbers: Any) -> Any:
    """All `NUMBERS`, which no store into an array can change."""
    return (
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7],
    )  # fmt: skip


@kernel
def _kept(state: Any, least: Any) -> Any:
    return _ZERO if np.abs(state) < least else state


def step(formula: Callable[..., Any]) -> Driver:
    """new_w[i] = formula(numbers, w[i], grad[i])[0]."""
    point = kernel(formula)

    def body(task: Any, worker: Any, numbers: Any, w: Any, grad: Any, new_w: Any) -> None:
        first = task * CHUNK
        known = _in_registers(numbers)
        w, grad, new_w = w[first : first + CHUNK], grad[first : first + CHUNK], new_w[first : first + CHUNK]
        for i in range(len(new_w)):
            new_w[i] = point(known, w[i], grad[i])[0]

    return _named(body, formula)


def step_with_one_state(formula: Callable[..., Any]) -> Driver:
    """new_w[i], new_a[i] = formula(numbers, w[i], grad[i], a[i])."""
    point = kernel(formula)

    def body(task: Any, worker: Any, numbers: Any, w: Any, grad: Any, a: Any, new_w: Any, new_a: Any) -> None:
        first = task * CHUNK
        known, least = _in_registers(numbers), numbers[NUMBERS]
        w, grad, a = w[first : first + CHUNK], grad[first : first + CHUNK], a[first : first + CHUNK]
        new_w, new_a = new_w[first : first + CHUNK], new_a[first : first + CHUNK]
        for i in range(len(new_w)):
            new_a[i] = _kept(point(known, w[i], grad[i], a[i])[1], least)
        for i in range(len(new_w)):
            new_w[i] = point(known, w[i], grad[i], a[i])[0]

    return _named(body, formula)


def step_with_two_states(formula: Callable[..., Any]) -> Driver:
    """new_w[i], new_a[i], new_b[i] = formula(numbers, w[i], grad[i], a[i], b[i])."""
    point = kernel(formula)

    def body(
        task: Any, worker: Any, numbers: Any, w: Any, grad: Any, a: Any, b: Any, new_w: Any, new_a: Any, new_b: Any
    ) -> None:
        first = task * CHUNK
        known, least = _in_registers(numbers), numbers[NUMBERS]
        w, grad, a = w[first : first + CHUNK], grad[first : first + CHUNK], a[first : first + CHUNK]
        b, new_w = b[first : first + CHUNK], new_w[first : first + CHUNK]
        new_a, new_b = new_a[first : first + CHUNK], new_b[first : first + CHUNK]
        for i in range(len(new_w)):
            new_a[i] = _kept(point(known, w[i], grad[i], a[i], b[i])[1], least)
        for i in range(len(new_w)):
            new_b[i] = _kept(point(known, w[i], grad[i], a[i], b[i])[2], least)
        for i in range(len(new_w)):
            new_w[i] = point(known, w[i], grad[i], a[i], b[i])[0]

    return _named(body, formula)


def _named(body: Any, formula: Callable[..., Any], where: str = "") -> Driver:
    """A driver named after the formula, and where it is used: compiled code is kept by name."""
    body.__name__ = f"{formula.__name__}{where}"
    body.__qualname__ = f"{formula.__module__}.{formula.__qualname__}{where}"
    body.__doc__ = formula.__doc__
    return driver(body)


def everywhere(made: Driver, workers: int, nanoseconds: float, size: int, *arguments: Any) -> None:
    """Run a driver of this module over flat arrays of so many elements; `nanoseconds` is what one takes."""
    _launch(made, nanoseconds, size, arguments[0].dtype).run(workers, *arguments)


# Of sizes, more than the weights and layers of most networks have.
@lru_cache(maxsize=512)
def _launch(made: Driver, nanoseconds: float, size: int, dtype: DType) -> Launch:
    """Of numbers and arrays of this dtype."""
    return Launch(made, -(-size // CHUNK), size * nanoseconds)
