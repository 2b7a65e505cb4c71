"""Checks of operations and their gradients, for any callables: convjit's or a stranger's.

On integers stored as floats sums have no rounding error, so the checks are exact there. A failure is an
`AssertionError` that says where the difference is largest, what was got, what was wanted, and of which arrays.
Knows no operation: convolution is one example of a function that is linear in each of its arguments.
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

    Parameters
    ----------
    a, b : array_like
        Of one shape; bool, integer, floating, complex, or Python numbers such as fractions.

    Returns
    -------
    int, float, complex or another Python number

    Raises
    ------
    AssertionError
        For different shapes.

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


# An array up to this size is shown, a larger one described.
_SHOWN = 12
# Entries up to which a failed adjoint is traced, by as many calls of `forward`.
_TRACED = 512


def described(array: Array) -> str:
    """A small array as the expression that makes it, a large one by dtype and shape."""
    if 0 < array.size <= _SHOWN:
        return f"np.array({array.tolist()}, {array.dtype.name!r})"
    return f"{array.dtype} {array.shape}"


def called(name: str, function: Callable[..., Any], *arguments: Array) -> Array:
    """A copy of what a function returns, which may be a buffer of its own; refused if it changes an argument."""
    before = [argument.copy() for argument in arguments]
    result = np.array(np.asarray(function(*arguments)))  # a tensor of PyTorch's is not asked for a copy
    check_unchanged(name, arguments, before)
    return result


def check_unchanged(name: str, arguments: Sequence[Array], before: Sequence[Array]) -> None:
    """Refuse a function that writes into what it is given: what is compared with it would be spoiled."""
    for i, (argument, copy) in enumerate(zip(arguments, before, strict=True)):
        if argument.tobytes() != copy.tobytes():
            raise AssertionError(f"{name} changes its argument {i}: got {described(copy)}, left {described(argument)}")


def check_allowed(function: str, **allowed: float | None) -> None:
    """Refuse what would allow nothing or, compared the other way round, everything."""
    for name, value in allowed.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{function}: {name} must be 0 or more, got {value}")


def check_adjoint(
    forward: Callable[[Array], npt.ArrayLike],
    adjoint: Callable[[Array], npt.ArrayLike],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    tolerance: float = 0.0,
) -> None:
    """`<forward(x), y> == <x, adjoint(y)>`: the definition of an adjoint, and so of a linear function's gradient.

    Parameters
    ----------
    forward, adjoint : callable
        Linear functions of one array: leave a bias out.
    x, y : array_like
        Of the shapes of `forward`'s argument and result. Integers make the check exact, in a dtype that holds the
        results: a sum that wraps has no adjoint.
    tolerance : float
        For other numbers, the error allowed relative to `<|forward(x)|, |y|> + <|x|, |adjoint(y)|>`.

    Raises
    ------
    AssertionError
        With both products, and the entry of `adjoint(y)` that is furthest from `<forward(e), y>`, where `e` is one at
        that entry and zero elsewhere. For a function that changes its argument, too.
    ValueError
        For a tolerance that is negative or NaN.

    Examples
    --------
    >>> x, y = np.array([1, 2, 3]), np.array([1, 0, 0])
    >>> check_adjoint(np.cumsum, lambda y: np.cumsum(y[::-1])[::-1], x, y)
    >>> check_adjoint(np.cumsum, np.cumsum, x, y)
    Traceback (most recent call last):
        ...
    AssertionError: not adjoint: <forward(x), y> = 1 but <x, adjoint(y)> = 6; 2 of 3 entries of adjoint(y) are wrong, \
most at (1,): got 1, wanted 0; x = np.array([1, 2, 3], 'int64'), y = np.array([1, 0, 0], 'int64')
    """
    __tracebackhide__ = True  # pytest then shows the line that called
    check_allowed("check_adjoint", tolerance=tolerance)
    x, y = np.asarray(x), np.asarray(y)
    there, back = called("forward", forward, x), called("adjoint", adjoint, y)
    if there.shape != y.shape or back.shape != x.shape:
        raise AssertionError(
            f"not adjoint: forward maps {x.shape} to {there.shape} and adjoint maps {y.shape} to {back.shape}"
        )
    left, right = inner_product(there, y), inner_product(x, back)
    allowed = 0.0
    if tolerance:
        allowed = tolerance * (inner_product(abs(there), abs(y)) + inner_product(abs(x), abs(back)))
    if not (abs(left - right) <= allowed and math.isfinite(allowed)):
        traced = _traced(forward, x, y, back, tolerance)
        raise AssertionError(
            f"not adjoint: <forward(x), y> = {left} but <x, adjoint(y)> = {right}{traced}; x = {described(x)}, "
            f"y = {described(y)}"
        )


def _traced(forward: Callable[[Array], npt.ArrayLike], x: Array, y: Array, back: Array, tolerance: float) -> str:
    """Where an adjoint is wrong, found by unit vectors."""
    if np.any(called("forward", forward, np.zeros_like(x))):
        return "; forward(0) is not 0, so forward is not linear: leave a bias out"
    if not 0 < x.size <= _TRACED:
        return ""
    wanted = np.empty(x.shape, object)
    allowed = np.zeros(x.shape)
    for entry in np.ndindex(*x.shape):
        unit = np.zeros_like(x)
        unit[entry] = 1
        column = called("forward", forward, unit)
        wanted[entry] = inner_product(y, column)
        allowed[entry] = tolerance * inner_product(abs(column), abs(y)) if tolerance else 0
    at, wrong = largest_difference(back, wanted, allowed)
    if at is None:
        return ""
    got = back.item(at)
    return f"; {wrong} of {x.size} entries of adjoint(y) are wrong, most at {at}: got {got}, wanted {wanted[at]}"


def largest_difference(got: Array, wanted: Array, allowed: Array) -> tuple[tuple[int, ...] | None, int]:
    """The entry that is furthest beyond what is allowed, and how many are; NaN is furthest of all."""
    at, most, wrong = None, -1.0, 0
    for entry in np.ndindex(*got.shape):
        difference = float(abs(got.item(entry) - wanted[entry]))
        if difference <= allowed[entry]:
            continue
        wrong += 1
        beyond = difference - float(allowed[entry])
        beyond = math.inf if math.isnan(beyond) else beyond
        if beyond > most:
            at, most = entry, beyond
    return at, wrong


def assert_within_rounding(got: npt.ArrayLike, exact: npt.ArrayLike, magnitude: npt.ArrayLike, units: float) -> None:
    """`|got - exact| <= units * u * magnitude`, elementwise, with u = eps / 2 of `got`'s dtype.

    Parameters
    ----------
    got : array_like, floating or complex
    exact : array_like
        The result in a wider type, of `got`'s shape.
    magnitude : array_like
        The same operation on absolute values: what rounding errors are proportional to.
    units : float
        A sum of n terms, added one after the other, errs by at most n of them.

    Raises
    ------
    AssertionError
        For different shapes; or with the worst entry, its error in units, and how many entries differ. NaN is wrong.
    TypeError
        If `got` does not round.
    ValueError
        For `units` that are negative or NaN.

    Examples
    --------
    >>> assert_within_rounding(np.array([1.0]), [1.0 + 1e-16], [1.0], units=1)
    >>> assert_within_rounding(np.array([1.0]), [1.1], [1.0], units=1)
    Traceback (most recent call last):
        ...
    AssertionError: at (0,): got 1.0, wanted 1.1, an error of 9.01e+14 units where 1 are allowed; 1 of 1 is wrong
    """
    __tracebackhide__ = True  # pytest then shows the line that called
    check_allowed("assert_within_rounding", units=units)
    got = np.asarray(got)
    if got.dtype.kind not in "fc":
        raise TypeError(f"assert_within_rounding: got must be floating or complex, not {got.dtype}")
    unit = float(np.finfo(got.dtype).eps) / 2
    wide = np.clongdouble if got.dtype.kind == "c" else np.longdouble
    wanted, scale = np.asarray(exact, wide), np.asarray(magnitude, np.longdouble)
    if got.shape != wanted.shape:
        raise AssertionError(f"got shape {got.shape}, wanted {wanted.shape}")
    error = abs(got.astype(wide) - wanted)
    bad = (error != 0) & ~((error <= units * unit * scale) & np.isfinite(scale))  # of an infinity, nothing follows
    if bad.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = np.where(bad, np.where(np.isinf(scale), np.inf, error / (unit * scale)), -1)
        where = np.unravel_index(int(np.argmax(np.where(np.isnan(worst), np.inf, worst))), got.shape)
        entry = tuple(int(i) for i in where)
        raise AssertionError(
            f"at {entry}: got {got[entry]}, wanted {wanted[entry].astype(got.dtype)}, an error of "
            f"{float(worst[entry]):.3g} units where {units:g} are allowed; {int(bad.sum())} of {got.size} "
            f"{'is' if got.size == 1 else 'are'} wrong"
        )
