"""Optimizers: `update(w, grad)` returns the new weights.

State is rebound, never written into, so that a shallow copy of an optimizer is a full one. All is computed in the dtype
of the weights, but for float16 in float32, where state stays: float16 has neither small squares nor an eps of 1e-8.
State below the least normal number is kept as 0, but with an eps of 0.

Knows hyperparameters and state; the formulas are `algorithms.updates`'.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..algorithms.updates import ADADELTA, ADAGRAD, ADAM, DESCENT, MOMENTUM, NESTEROV, RMSPROP, Update
from ..arrays import as_array, converted, sums_dtype
from ..functional.front_door import public
from ..parsing import as_flag, describe
from ..typing import Array
from .passes import are_ready, step, stepped

# The least number that a hyperparameter may be, and the first that is too large.
Range = tuple[float, float]
ANY, SHARE = (0.0, math.inf), (0.0, 1.0)


def hyperparameter(owner: str, name: str, value: Any, low: float, high: float = math.inf) -> float:
    """A hyperparameter in `low <= value < high`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{owner}: {name} must be a number, got {describe(value)}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond the largest float
        number = value = math.inf
    if not low <= number < high:
        upper = f" and < {high:g}" if high < math.inf else " and finite" if number == math.inf else ""
        raise ValueError(f"{owner}: {name} must be >= {low:g}{upper}, got {value}")
    return number


class Optimizer:
    """Base of the optimizers here.

    Any object with `update(w, grad)` can be given to a layer; it need not be one of these. What they return has the
    dtype of `w`; integers give float64. float16 is computed in float32 and rounded at the end of each step: steps of
    less than half a unit in the last place of a weight are lost. State below the least normal number (1.2e-38 in
    float32) is kept as 0, since processors are slow with such numbers: a weight whose gradients have become 0 would
    slow down all later steps. With an `eps` of 0 it is kept, as its root divides.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SGD
    >>> SGD(learning_rate=0.5).update(np.array([1.0]), np.array([0.2]))
    array([0.9])
    """

    learning_rate: float

    # Of hyperparameters, which are checked whenever one is set.
    _ranges: ClassVar[dict[str, Range]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._ranges:
            value = hyperparameter(type(self).__name__, name, value, *self._ranges[name])
        super().__setattr__(name, value)

    def update(self, w: Array, grad: Array) -> Array:
        """The new weights after one step against the gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def _stepped(
        self, update: Update, numbers: tuple[float, ...], w: Any, grad: Any, *states: Array | None
    ) -> tuple[Array, ...]:
        """A formula's step of weights, in their dtype; integers count as float64, float16 computes in float32."""
        is_exact = self.__dict__.get("eps") == 0  # where squares that are kept as 0 would divide
        if are_ready(w, grad, *states):
            return step(update, numbers, is_exact, w, grad, *states)
        where = f"{type(self).__name__}.update"
        w, grad = as_array(where, "w", w), as_array(where, "grad", grad)
        if grad.dtype.kind == "c" and w.dtype.kind != "c":
            raise TypeError(f"{where}: grad must be real, as w is, got dtype {grad.dtype}")
        if grad.shape != w.shape:
            try:
                grad = np.broadcast_to(grad, w.shape)
            except ValueError:
                raise ValueError(
                    f"{where}: grad must have the shape of w, {w.shape}, or be broadcast to it, got {grad.shape}"
                ) from None
        for state in states:
            if state is not None and state.shape != w.shape:
                raise ValueError(
                    f"{where}: w must have the shape of the weights before, {state.shape}, got {w.shape}; an optimizer "
                    "keeps state for one weight, so give each a copy"
                )
        dtype = w.dtype if w.dtype.kind in "fc" else np.dtype(np.float64)
        w, grad = (converted(where, name, array, sums_dtype(dtype)) for name, array in (("w", w), ("grad", grad)))
        new, *kept = stepped(update, numbers, is_exact, w, grad, *states)
        return converted(where, "the new w", new, dtype), *kept

    def __repr__(self) -> str:
        shown = (f"{k}={v!r}" for k, v in vars(self).items() if isinstance(v, bool | int | float) and k[0] != "_")
        return f"{type(self).__name__}({', '.join(shown)})"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    `v = momentum * v + grad`, `w -= learning_rate * v`; with `nesterov`, `w -= learning_rate * (grad + momentum * v)`.
    Source: I. Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013), in
    PyTorch's form.

    Parameters
    ----------
    learning_rate : float
        The step's length, >= 0.
    momentum : float
        Share of the last step that is kept, 0 <= momentum < 1.
    nesterov : bool
        Whether the gradient counts once more, as if it had been taken behind the step.

    Raises
    ------
    TypeError, ValueError
        For a hyperparameter of the wrong kind or out of range; `nesterov` needs a momentum.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SGD
    >>> SGD(learning_rate=0.5).update(np.array([1.0]), np.array([0.2]))
    array([0.9])
    """

    _ranges: ClassVar[dict[str, Range]] = {"learning_rate": ANY, "momentum": SHARE}

    @public
    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False) -> None:
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = as_flag(type(self).__name__, "nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"{type(self).__name__}: nesterov needs a momentum above 0, got 0")
        self._velocity: Array | None = None

    def update(self, w: Array, grad: Array) -> Array:
        numbers = (self.learning_rate, self.momentum)
        if self.momentum == 0:
            (new,) = self._stepped(DESCENT, numbers, w, grad)
            return new
        update = NESTEROV if self.nesterov else MOMENTUM
        new, self._velocity = self._stepped(update, numbers, w, grad, self._velocity)
        return new


class Adagrad(Optimizer):
    """Adaptive gradients: `G += grad**2`, `w -= learning_rate * grad / (sqrt(G) + eps)`.

    Source: J. Duchi, E. Hazan, Y. Singer, "Adaptive Subgradient Methods" (2011).

    Parameters
    ----------
    learning_rate : float
        The step's length, >= 0.
    eps : float
        Added to the root that divides, >= 0.

    Raises
    ------
    TypeError, ValueError
        For a hyperparameter of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Adagrad
    >>> Adagrad(learning_rate=0.5).update(np.array([1.0]), np.array([4.0])).round(6)
    array([0.5])
    """

    _ranges: ClassVar[dict[str, Range]] = {"learning_rate": ANY, "eps": ANY}

    @public
    def __init__(self, learning_rate: float = 0.01, eps: float = 1e-10) -> None:
        self.learning_rate = learning_rate
        self.eps = eps
        self._squares: Array | None = None

    def update(self, w: Array, grad: Array) -> Array:
        new, self._squares = self._stepped(ADAGRAD, (self.learning_rate, self.eps), w, grad, self._squares)
        return new


class Adadelta(Optimizer):
    """Adadelta: steps scaled by running averages of squared gradients and squared steps.

    Source: M. Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012), algorithm 1; `learning_rate` scales the
    step, 1 in the paper.

    Parameters
    ----------
    rho : float
        Share of the running averages that is kept, 0 <= rho < 1.
    eps : float
        Added under both roots, >= 0.
    learning_rate : float
        Scales the step, >= 0.

    Raises
    ------
    TypeError, ValueError
        For a hyperparameter of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Adadelta
    >>> Adadelta().update(np.array([1.0]), np.array([4.0])).round(4)
    array([0.9955])
    """

    _ranges: ClassVar[dict[str, Range]] = {"learning_rate": ANY, "rho": SHARE, "eps": ANY}

    @public
    def __init__(self, rho: float = 0.95, eps: float = 1e-6, learning_rate: float = 1.0) -> None:
        self.learning_rate = learning_rate
        self.rho = rho
        self.eps = eps
        self._squares: Array | None = None
        self._steps: Array | None = None

    def update(self, w: Array, grad: Array) -> Array:
        numbers = (self.learning_rate, self.rho, 1 - self.rho, self.eps)
        new, squares, steps = self._stepped(ADADELTA, numbers, w, grad, self._squares, self._steps)
        self._squares, self._steps = squares, steps
        return new


class RMSprop(Optimizer):
    """RMSprop: `E = rho * E + (1 - rho) * grad**2`, `w -= learning_rate * grad / (sqrt(E) + eps)`.

    Source: T. Tieleman, G. Hinton, "Lecture 6.5 - RMSProp", Coursera (2012).

    Parameters
    ----------
    learning_rate : float
        The step's length, >= 0.
    rho : float
        Share of the running average that is kept, 0 <= rho < 1.
    eps : float
        Added to the root that divides, >= 0.

    Raises
    ------
    TypeError, ValueError
        For a hyperparameter of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import RMSprop
    >>> RMSprop(learning_rate=0.1, rho=0.75).update(np.array([1.0]), np.array([4.0])).round(6)
    array([0.8])
    """

    _ranges: ClassVar[dict[str, Range]] = {"learning_rate": ANY, "rho": SHARE, "eps": ANY}

    @public
    def __init__(self, learning_rate: float = 0.01, rho: float = 0.9, eps: float = 1e-8) -> None:
        self.learning_rate = learning_rate
        self.rho = rho
        self.eps = eps
        self._squares: Array | None = None

    def update(self, w: Array, grad: Array) -> Array:
        numbers = (self.learning_rate, self.rho, 1 - self.rho, self.eps)
        new, self._squares = self._stepped(RMSPROP, numbers, w, grad, self._squares)
        return new


class Adam(Optimizer):
    """Adam: adaptive moments, corrected for their start at zero.

    Source: D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    Parameters
    ----------
    learning_rate : float
        The step's length, >= 0.
    b1, b2 : float
        Share of the running mean, and of the running mean square, that is kept, each 0 <= b < 1.
    eps : float
        Added to the root that divides, >= 0.

    Raises
    ------
    TypeError, ValueError
        For a hyperparameter of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Adam
    >>> Adam(learning_rate=0.1).update(np.array([1.0]), np.array([4.0])).round(6)
    array([0.9])
    """

    _ranges: ClassVar[dict[str, Range]] = {"learning_rate": ANY, "b1": SHARE, "b2": SHARE, "eps": ANY}

    @public
    def __init__(self, learning_rate: float = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> None:
        self.learning_rate = learning_rate
        self.b1 = b1
        self.b2 = b2
        self.eps = eps
        self._steps = 0
        self._mean: Array | None = None
        self._squares: Array | None = None

    def update(self, w: Array, grad: Array) -> Array:
        return self._step(w, grad, 1.0)

    def _step(self, w: Array, grad: Array, shrink: float) -> Array:
        """Adam's step from weights that are scaled by `shrink` first."""
        steps = self._steps + 1
        numbers = (
            self.b1, 1 - self.b1, self.b2, 1 - self.b2, self.learning_rate / (1 - self.b1**steps),
            1 / math.sqrt(1 - self.b2**steps), self.eps, shrink,
        )  # fmt: skip
        new, mean, squares = self._stepped(ADAM, numbers, w, grad, self._mean, self._squares)
        self.__dict__.update(_mean=mean, _squares=squares, _steps=steps)
        return new


class AdamW(Adam):
    """Adam with decoupled weight decay: `w -= learning_rate * weight_decay * w` beside Adam's step.

    Source: I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2, in PyTorch's form.

    Parameters
    ----------
    learning_rate : float
        The step's length, >= 0.
    b1, b2 : float
        Share of the running mean, and of the running mean square, that is kept, each 0 <= b < 1.
    eps : float
        Added to the root that divides, >= 0.
    weight_decay : float
        Share of the weights that a step of length 1 takes away, >= 0.

    Raises
    ------
    TypeError, ValueError
        For a hyperparameter of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import AdamW
    >>> AdamW(learning_rate=0.1, weight_decay=0.5).update(np.array([1.0]), np.array([4.0])).round(6)
    array([0.85])
    """

    _ranges: ClassVar[dict[str, Range]] = {**Adam._ranges, "weight_decay": ANY}

    @public
    def __init__(
        self,
        learning_rate: float = 0.001,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, b1, b2, eps)
        self.weight_decay = weight_decay

    def update(self, w: Array, grad: Array) -> Array:
        return self._step(w, grad, 1 - self.learning_rate * self.weight_decay)


# Those known to rebind their state and to leave `w` alone; a subclass of somebody else's need not.
PUBLISHED = frozenset({SGD, Adagrad, Adadelta, RMSprop, Adam, AdamW})
