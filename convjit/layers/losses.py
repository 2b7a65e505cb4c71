"""Losses: the mean over a batch, and its gradient."""

from __future__ import annotations

from functools import cache as once
from typing import Any, ClassVar

import numpy as np

from ..arrays import as_array, converted, sums_dtype
from ..typing import Array, ArrayLike, DType
from .base import floating


def _both(loss: str, y: Any, predicted: Any) -> tuple[Array, Array]:
    """Targets in the predictions' shape, and predictions, floating; float16 is computed in float32."""
    given = as_array(loss, "predicted", predicted, real=True)
    if given.ndim < 2 or given.dtype.kind not in "biuf":
        raise ValueError(f"{loss}: predicted must be real, of shape (N, ...), got {given.dtype} {given.shape}")
    values = floating(loss, "predicted", given)
    if values.size == 0:
        raise ValueError(f"{loss}: predicted needs at least one row and one column, got shape {values.shape}")
    return _targets(loss, y, values.shape), values.astype(sums_dtype(values.dtype), copy=False)


def _like(loss: str, gradient: Array, predicted: Any) -> Array:
    """A gradient in the dtype of the predictions, if that is floating."""
    dtype = as_array(loss, "predicted", predicted).dtype
    return converted(loss, "the gradient", gradient, dtype) if dtype.kind == "f" else gradient


def _targets(loss: str, y: Any, shape: tuple[int, ...]) -> Array:
    """Targets of the predictions' shape: given so, as integer classes, or without the axis of one column."""
    targets = as_array(loss, "y", y, real=True)
    if shape[1:] == (1,) and targets.shape == shape[:1]:
        targets = targets.reshape(shape)
    if targets.shape == shape:
        if targets.dtype.kind not in "biuf":
            raise TypeError(f"{loss}: y must be numbers, got dtype {targets.dtype}")
        return targets
    if len(shape) == 2 and targets.shape in ((shape[0],), (shape[0], 1)):
        if targets.dtype.kind not in "biu":
            raise TypeError(f"{loss}: classes must be integers, got dtype {targets.dtype}")
        classes = targets.reshape(-1)
        if classes.size and not (classes.min() >= 0 and classes.max() < shape[1]):
            raise ValueError(f"{loss}: classes must be 0..{shape[1] - 1}, got {classes.min()}..{classes.max()}")
        rows = np.zeros(shape)
        rows[np.arange(shape[0]), classes.astype(np.intp)] = 1
        return rows
    or_classes = f", or ({shape[0]},) with integer classes" if len(shape) == 2 else ""
    raise ValueError(f"{loss}: y must have shape {shape}{or_classes}, got {targets.shape}")


class Loss:
    """A loss: `loss(y, predicted)` a number, `gradient(y, predicted)` an array, `accuracy(y, predicted)` a number.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SquareLoss
    >>> SquareLoss().loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    2.0
    """

    # The activation that this loss can be computed without, from its input; see `CrossEntropy`.
    fused_activation: ClassVar[str | None] = None

    def loss(self, y: ArrayLike, predicted: Array) -> float:
        """The mean over the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def gradient(self, y: ArrayLike, predicted: Array) -> Array:
        """The gradient of the mean with respect to the predictions."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient")

    def accuracy(self, y: ArrayLike, predicted: Array) -> float:
        """The share of rows whose largest prediction is the largest target; of one column, of the same side of 1/2."""
        both = _both(type(self).__name__, y, predicted)
        targets, values = (array.reshape(len(array), -1) for array in both)
        if values.shape[1] == 1:
            hits = (values > 0.5) == (targets > 0.5)
        else:
            hits = values.argmax(axis=1) == targets.argmax(axis=1)
        return float(np.count_nonzero(hits) / hits.size)


class SquareLoss(Loss):
    """Half the squared error, summed over a row, averaged over the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import SquareLoss
    >>> SquareLoss().gradient(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    array([[0., 2.]])
    """

    def loss(self, y: ArrayLike, predicted: Array) -> float:
        targets, predicted = _both("SquareLoss", y, predicted)
        error = predicted - targets
        return float(0.5 * (error * error).sum() / len(predicted))

    def gradient(self, y: ArrayLike, predicted: Array) -> Array:
        targets, values = _both("SquareLoss", y, predicted)
        gradient = (values - targets.astype(values.dtype, copy=False)) / len(values)
        return _like("SquareLoss", gradient, predicted)


@once
def _tiny(dtype: DType) -> Any:
    return np.finfo(dtype).tiny


_FUSED_WITH = ("fused_gradient", "loss", "gradient")


class CrossEntropy(Loss):
    """Cross-entropy of probabilities: `-sum(y * log(p))` over a row, averaged over the batch.

    Targets are integer classes or rows of probabilities. Where the last layer of a `Sequential` is
    `Activation("softmax")`, the gradient with respect to the softmax's input is taken at once, `(p - y) / N` for rows
    that add up to 1: it stays right where probabilities vanish, which the quotient `y / p` does not. A subclass with a
    `loss` or a `gradient` of its own is asked for that gradient, unless it has a `fused_gradient`, too.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import CrossEntropy
    >>> round(CrossEntropy().loss(np.array([1]), np.array([[0.5, 0.5]])), 6)
    0.693147
    """

    fused_activation: ClassVar[str | None] = "softmax"

    def loss(self, y: ArrayLike, predicted: Array) -> float:
        targets, predicted = self._probabilities(y, predicted)
        # The smallest positive number stands for 0: a finite loss where a probability was rounded to nothing.
        logs = np.log(np.maximum(predicted, _tiny(predicted.dtype)))
        return float(-(targets * logs).sum() / len(predicted))

    def gradient(self, y: ArrayLike, predicted: Array) -> Array:
        targets, values = self._probabilities(y, predicted)
        gradient = -targets / np.maximum(values, _tiny(values.dtype)) / len(values)
        return _like("CrossEntropy", gradient, predicted)

    @property
    def is_fused(self) -> bool:
        """Whether `fused_gradient` belongs to this loss: not where a subclass has a loss or a gradient of its own."""
        if type(self) is CrossEntropy:  # most are, and each step asks
            return True
        definers = [next(kind for kind in type(self).__mro__ if name in vars(kind)) for name in _FUSED_WITH]
        return all(issubclass(definers[0], other) for other in definers[1:])

    def fused_gradient(self, y: ArrayLike, predicted: Array) -> Array:
        """The gradient with respect to the input of the softmax that made the predictions."""
        targets, values = self._probabilities(y, predicted)
        gradient = (values * targets.sum(axis=-1, keepdims=True) - targets) / len(values)
        return _like("CrossEntropy", gradient, predicted)

    def _probabilities(self, y: Any, predicted: Any) -> tuple[Array, Array]:
        targets, values = _both("CrossEntropy", y, predicted)
        if values.shape[-1] == 1:
            raise ValueError(
                f"CrossEntropy: predicted needs a column for each of at least 2 classes, got {values.shape}; for one "
                "probability a row, use two columns and softmax"
            )
        return targets.astype(values.dtype, copy=False), values


LOSSES: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "square": SquareLoss}


def targets_once(loss: Loss, y: ArrayLike, predicted: Array) -> ArrayLike:
    """What several methods of a loss are given for `y`: its rows, made once.

    A loss of somebody else's, or one with a method of its own, gets `y` as it came.
    """
    if type(loss) not in LOSSES.values() or vars(loss):
        return y
    return _both(type(loss).__name__, y, predicted)[0]
