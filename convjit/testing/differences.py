"""Gradients beside finite differences, for any callable.

Knows how far a difference quotient may be from a derivative, in integers not at all; knows no operation.
Source: the step of central differences is that of W. Press et al., "Numerical Recipes", section 5.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import called, check_allowed, check_unchanged, described, inner_product, largest_difference
from .oracle import Array


def check_gradients(
    function: Callable[..., npt.ArrayLike],
    gradients: Callable[..., Sequence[npt.ArrayLike | None]],
    arrays: Sequence[Array],
    grad_output: Array,
    *,
    central: bool = False,
    step: float | None = None,
    units: float | None = None,
    truncation: float | None = None,
) -> None:
    """Compare gradients with finite differences, entry by entry.

    A function that is linear in each argument by itself, as a convolution is in image, weight and bias, has the
    difference quotient of *any* step as its derivative. With integers and a step of 1 there is no rounding error
    either, and the comparison is exact; that is the default. For real numbers, and for functions that are not linear,
    `central=True` compares with central differences, within what rounding and the step can account for.

    Parameters
    ----------
    function : callable
        `function(*arrays)` returns one array.
    gradients : callable
        `gradients(grad_output, *arrays)` returns a gradient for each of `arrays`, None for those not to be checked.
    arrays : sequence of array_like
        Real. Integers make the default exact, stored as floats or in a dtype that holds them and the results;
        central differences need floating ones.
    grad_output : ndarray
        Of the shape of the function's result.
    central : bool
        Step both ways.
    step : float, optional
        1; with `central` a power of two near the cube root of the dtype's eps, for an entry beyond 1 times its size.
    units : float, optional
        Rounding errors allowed in the function's values, in units of their dtype's u = eps / 2: an entry may differ
        by `units * u * sum(|grad_output| * (|y at one end| + |y at the other|)) / distance of the ends`. 0; with
        `central` 64.
    truncation : float, optional
        What else an entry may differ by: `step**2 / 6` times a bound on the third derivative. 0; with `central` three
        times what a second pair of ends, twice as far, shows that it is.

    Raises
    ------
    AssertionError
        With the argument, the entry where the difference is largest, its gradient and difference quotient, and how
        many entries differ. For callables that change their arguments, and for functions that are not finite at the
        ends of a central difference, too.
    TypeError
        For arrays that are not real, and for central differences of arrays that are not floating.
    ValueError
        For `units` or a `truncation` that are negative or NaN, and a `step` that is not positive and finite.

    Examples
    --------
    >>> x, w = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    >>> check_gradients(np.multiply, lambda dy, x, w: (dy * w, dy * x), [x, w], np.array([1.0, 5.0]))
    >>> check_gradients(np.multiply, lambda dy, x, w: (dy * w, dy * w), [x, w], np.array([1.0, 5.0]))
    Traceback (most recent call last):
        ...
    AssertionError: gradient of argument 1 is wrong in 2 of 2 entries, most at (1,): got 20.0, but the difference \
quotient is 10.0 (allowed error 0.0); arguments np.array([1.0, 2.0], 'float64'), np.array([3.0, 4.0], 'float64'), \
grad_output np.array([1.0, 5.0], 'float64')
    >>> x = np.array([0.3, -1.2])
    >>> check_gradients(np.tanh, lambda dy, x: (dy / np.cosh(x) ** 2,), [x], np.ones(2), central=True)
    """
    __tracebackhide__ = True  # pytest then shows the line that called
    check_allowed("check_gradients", units=units, truncation=truncation)
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"check_gradients: step must be positive and finite, got {step}")
    if isinstance(arrays, np.ndarray) or not isinstance(arrays, Iterable):
        got = "one array" if isinstance(arrays, np.ndarray) else type(arrays).__name__
        raise TypeError(f"check_gradients: arrays must be a list, with one array for each argument, got {got}")
    grad_output, *arrays = inputs = [np.asarray(array) for array in (grad_output, *arrays)]
    before = [np.array(array) for array in inputs]
    returned: Any = gradients(*inputs)
    one = isinstance(returned, np.ndarray) and returned.shape[:1] != (len(arrays),)
    if one or not isinstance(returned, Iterable):
        got = "one array" if one else type(returned).__name__
        raise AssertionError(f"gradients returned {got}, not a tuple of as many as arguments, {len(arrays)}")
    given = [None if gradient is None else np.array(np.asarray(gradient)) for gradient in returned]
    check_unchanged("gradients", inputs, before)
    if len(given) != len(arrays):
        raise AssertionError(f"{len(given)} gradients for {len(arrays)} arguments")
    here = called("function", function, *arrays)
    if here.shape != np.shape(grad_output):
        raise AssertionError(f"grad_output has shape {np.shape(grad_output)}, but the function returns {here.shape}")
    for argument, (array, gradient) in enumerate(zip(arrays, given, strict=True)):
        if gradient is None:
            continue
        if gradient.shape != array.shape:
            raise AssertionError(
                f"gradient of argument {argument}: got shape {gradient.shape}, but the argument has {array.shape}"
            )
        if array.dtype.kind in "bc":
            raise TypeError(f"check_gradients: arrays must be real numbers, argument {argument} is {array.dtype}")
        if central and array.dtype.kind != "f":
            raise TypeError(
                f"check_gradients: central differences need floating arrays, argument {argument} is {array.dtype}"
            )
        wanted, allowed = _quotients(function, arrays, argument, here, grad_output, central, step, units, truncation)
        at, wrong = largest_difference(gradient, wanted, allowed)
        if at is not None:
            shown = f"arguments {', '.join(map(described, arrays))}, grad_output {described(grad_output)}"
            raise AssertionError(
                f"gradient of argument {argument} is wrong in {wrong} of {array.size} entries, most at {at}: got "
                f"{gradient.item(at)}, but the difference quotient is {wanted[at]} (allowed error {allowed[at]})"
                f"{_hint(central, units, *arrays, grad_output)}; {shown}"
            )


def _hint(central: bool, units: float | None, *arrays: Array) -> str:
    """A word to those who compare rounded numbers exactly."""
    if central or units or all(a.dtype.kind != "f" or (a == np.round(a)).all() for a in arrays):
        return ""
    return (
        "; not all of the numbers are integers, and only of those is this comparison exact: central=True is for others"
    )


def _quotients(
    function: Callable[..., npt.ArrayLike], arrays: Sequence[Array], argument: int, here: Array, grad_output: Array,
    central: bool, step: float | None, units: float | None, truncation: float | None,
) -> tuple[Array, Array]:  # fmt: skip
    """The difference quotient of each entry of an argument, and how far a gradient may be from it."""
    array = arrays[argument]
    # Where errors of rounding, eps / step, and of truncation, step ** 2, are alike, for numbers of size 1.
    near = 2.0 ** round(math.log2(np.finfo(array.dtype).eps) / 3) if central else 1
    units = (64.0 if central else 0.0) if units is None else units

    def quotient(entry: tuple[int, ...], step: float) -> tuple[Any, float]:
        ends = []
        for by in (step, -step) if central else (step,):
            copies = [a.copy() for a in arrays]
            copies[argument][entry] += by
            ends.append(called("function", function, *copies))
        ahead, behind = ends if central else (ends[0], here)
        distance = 2 * step if central else step
        rounding = 0.0
        if units:
            unit = float(np.finfo(ahead.dtype).eps) / 2 if ahead.dtype.kind in "fc" else 0.0
            magnitudes = [inner_product(abs(end), abs(grad_output)) for end in (ahead, behind)]
            rounding = units * unit * sum(magnitudes) / distance
        return (inner_product(ahead, grad_output) - inner_product(behind, grad_output)) / distance, rounding

    def finite(entry: tuple[int, ...], step: float) -> tuple[Any, float]:
        found, rounding = quotient(entry, step)
        if not math.isfinite(found) or not math.isfinite(rounding):
            raise AssertionError(
                f"the difference quotient of argument {argument} at {entry} is {found} with a step of {step}: the "
                "function is not finite there; give a smaller step, or other arrays"
            )
        return found, rounding

    wanted, allowed = np.empty(array.shape, object), np.zeros(array.shape)
    for entry in np.ndindex(*array.shape):
        by = step
        if by is None:
            size = abs(float(array[entry]))
            by = near * 2.0 ** math.ceil(math.log2(size)) if central and 1 < size < math.inf else near
        wanted[entry], allowed[entry] = finite(entry, by) if central else quotient(entry, by)
        if truncation is not None:
            allowed[entry] += truncation
        elif central:
            # The error of twice the step is four times as large, so their difference is three times the error.
            further, rounding = finite(entry, 2 * by)
            allowed[entry] += rounding + abs(further - wanted[entry])
    return wanted, allowed
