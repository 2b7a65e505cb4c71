"""Checks of operations and their gradients, for any callables: convjit's or a stranger's.

On integers stored as floats sums have no rounding error, so the checks are exact there. A failure is an
`AssertionError` that says where, what was got and what was wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .oracle import Array


def inner_product(a: npt.ArrayLike, b: npt.ArrayLike) -> Any:
    """`sum(a * conj(b))` in Python numbers: integers exactly, floats rounded once a term and once at the end.

    Examples
    --------
    >>> inner_product([1, 2], [3, 4])
    11
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise AssertionError(f"shapes differ: {a.shape} and {b.shape}")
    products = [p * q.conjugate() for p, q in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)]
    if any(isinstance(p, complex) for p in products):
        return complex(math.fsum(complex(p).real for p in products), math.fsum(complex(p).imag for p in products))
    return math.fsum(products) if any(isinstance(p, float) for p in products) else sum(products)


def check_adjoint(
    forward: Callable[[Array], npt.ArrayLike],
    adjoint: Callable[[Array], npt.ArrayLike],
    x: Array,
    y: Array,
    *,
    tolerance: float = 0.0,
) -> None:
    """`<forward(x), y> == <x, adjoint(y)>`: the definition of an adjoint, and so of a linear function's gradient.

    Parameters
    ----------
    forward, adjoint : callable
        Linear functions of one array.
    x, y : ndarray
        Of the shapes of `forward`'s argument and result. Integers make the check exact.
    tolerance : float
        For other numbers, the error allowed relative to `<|forward(x)|, |y|> + <|x|, |adjoint(y)|>`.

    Raises
    ------
    AssertionError
        With both products.

    Examples
    --------
    >>> x, y = np.array([1, 2, 3]), np.array([1, 0, 0])
    >>> check_adjoint(np.cumsum, lambda y: np.cumsum(y[::-1])[::-1], x, y)
    >>> check_adjoint(np.cumsum, np.cumsum, x, y)
    Traceback (most recent call last):
        ...
    AssertionError: not adjoint: <forward(x), y> = 1 but <x, adjoint(y)> = 6, for x (3,) and y (3,)
    """
    there, back = np.asarray(forward(x)), np.asarray(adjoint(y))
    if there.shape != y.shape or back.shape != x.shape:
        raise AssertionError(
            f"not adjoint: forward maps {x.shape} to {there.shape} and adjoint maps {y.shape} to {back.shape}"
        )
    left, right = inner_product(there, y), inner_product(x, back)
    allowed = 0.0
    if tolerance:
        allowed = tolerance * (inner_product(abs(there), abs(y)) + inner_product(abs(x), abs(back)))
    if not abs(left - right) <= allowed:
        raise AssertionError(
            f"not adjoint: <forward(x), y> = {left} but <x, adjoint(y)> = {right}, for x {x.shape} and y {y.shape}"
        )


def check_gradients(
    function: Callable[..., npt.ArrayLike],
    gradients: Callable[..., Sequence[npt.ArrayLike | None]],
    arrays: Sequence[Array],
    grad_output: Array,
    *,
    central: bool = False,
    step: float = 1.0,
    units: float = 0.0,
    truncation: float = 0.0,
) -> None:
    """Compare gradients with finite differences, entry by entry.

    A function that is linear in each argument by itself, as a convolution is in image, weight and bias, has the
    difference quotient of *any* step as its derivative. With integers and a step of 1 there is no rounding error
    either, and the comparison is exact; that is the default.

    Parameters
    ----------
    function : callable
        `function(*arrays)` returns one array.
    gradients : callable
        `gradients(grad_output, *arrays)` returns a gradient for each of `arrays`, None for those not to be checked.
    arrays : sequence of ndarray
    grad_output : ndarray
        Of the shape of the function's result.
    central : bool
        Step both ways, for functions that are not linear in each argument.
    step : float
    units : float
        Rounding errors allowed in the function's values, in units of their dtype's u = eps / 2: an entry may differ
        by `units * u * sum(|grad_output| * (|y at one end| + |y at the other|)) / distance of the ends`.
    truncation : float
        What else an entry may differ by: `step**2 / 6` times a bound on the third derivative.

    Raises
    ------
    AssertionError
        With the argument, the entry, the gradient and the difference quotient.

    Examples
    --------
    >>> x, w = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    >>> check_gradients(np.multiply, lambda dy, x, w: (dy * w, dy * x), [x, w], np.array([1.0, 5.0]))
    >>> check_gradients(np.multiply, lambda dy, x, w: (dy * w, dy * w), [x, w], np.array([1.0, 5.0]))
    Traceback (most recent call last):
        ...
    AssertionError: gradient of argument 1 at (0,): got 3.0, but the difference quotient is 1.0 (allowed error 0.0)
    """
    given = gradients(grad_output, *arrays)
    if len(given) != len(arrays):
        raise AssertionError(f"{len(given)} gradients for {len(arrays)} arguments")
    here = np.asarray(function(*arrays))
    for argument, (array, gradient) in enumerate(zip(arrays, given, strict=True)):
        if gradient is None:
            continue
        gradient = np.asarray(gradient)
        if gradient.shape != array.shape:
            raise AssertionError(
                f"gradient of argument {argument}: got shape {gradient.shape}, but the argument has {array.shape}"
            )
        for entry in np.ndindex(*array.shape):

            def moved(by: float, argument: int = argument, entry: tuple[int, ...] = entry) -> Array:
                copies = [a.copy() for a in arrays]
                copies[argument][entry] += by
                return np.asarray(function(*copies))

            ahead, behind = moved(step), moved(-step) if central else here
            distance = 2 * step if central else step
            quotient = (inner_product(ahead, grad_output) - inner_product(behind, grad_output)) / distance
            allowed = truncation
            if units:
                unit = float(np.finfo(ahead.dtype).eps) / 2
                allowed += units * unit * inner_product(abs(ahead) + abs(behind), abs(grad_output)) / distance
            got = gradient[entry].item()
            if not abs(got - quotient) <= allowed:
                raise AssertionError(
                    f"gradient of argument {argument} at {entry}: got {got}, but the difference quotient is {quotient} "
                    f"(allowed error {allowed})"
                )


def assert_within_rounding(got: Array, exact: npt.ArrayLike, magnitude: npt.ArrayLike, units: float) -> None:
    """`|got - exact| <= units * u * magnitude`, elementwise, with u = eps / 2 of `got`'s dtype.

    Parameters
    ----------
    got : ndarray of floats
    exact : array_like
        The result in a wider type.
    magnitude : array_like
        The same operation on absolute values: what rounding errors are proportional to.
    units : float

    Raises
    ------
    AssertionError
        With the worst entry and its error in units.

    Examples
    --------
    >>> assert_within_rounding(np.array([1.0]), [1.0 + 1e-16], [1.0], units=1)
    >>> assert_within_rounding(np.array([1.0]), [1.1], [1.0], units=1)
    Traceback (most recent call last):
        ...
    AssertionError: at (0,): got 1.0, wanted 1.1, an error of 9.01e+14 units where 1 are allowed
    """
    unit = float(np.finfo(got.dtype).eps) / 2
    wide = np.longdouble
    wanted, scale = np.asarray(exact, wide), np.asarray(magnitude, wide)
    if got.shape != wanted.shape:
        raise AssertionError(f"got shape {got.shape}, wanted {wanted.shape}")
    error = abs(got.astype(wide) - wanted)
    bad = ~(error <= units * unit * scale)
    if bad.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = np.where(bad, error / (unit * scale), -1)
        where = np.unravel_index(int(np.argmax(np.where(np.isnan(worst), np.inf, worst))), got.shape)
        entry = tuple(int(i) for i in where)
        raise AssertionError(
            f"at {entry}: got {got[entry]}, wanted {float(wanted[entry])}, an error of {float(worst[entry]):.3g} units "
            f"where {units:g} are allowed"
        )
