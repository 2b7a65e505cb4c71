"""A small network: layers one after another, trained on batches.

Knows the order of layers and the loss. Does not know what a layer computes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import as_array
from ..functional.front_door import public
from ..parsing import as_positive, describe, is_iterable
from ..progress import progress_bar
from ..runtime.reusing import Reused
from ..typing import AnyPath, Array, ArrayLike, Updates
from .base import Layer, Shape, check_optimizer, name_of, parameters_of
from .initializers import as_rng
from .losses import LOSSES, CrossEntropy, Loss, targets_once
from .optimizers import Adam
from .order import in_running_order
from .storage import read_weights, write_weights
from .undo import exhaust, exhaust_the_rest, undoing

History = dict[str, list[float]]


# What a network calls of a layer, of somebody else's, too.
_METHODS = ("set_input_shape", "forward_pass", "backward_pass", "output_shape")


class Sequential:
    """Layers one after another.

    Parameters
    ----------
    layers : iterable of Layer
        Added in order, as by `add`.
    optimizer : object with `update(w, grad)`, optional
        Every weight gets a copy, that of a layer's `W` is its `W_opt`: to change a learning rate in training, set
        `layer.W_opt.learning_rate`. `Adam()` if not given.
    loss : {"cross_entropy", "square"} or Loss

    Raises
    ------
    TypeError, ValueError
        For layers, an optimizer or a loss of the wrong kind.

    Notes
    -----
    A ReLU in front of max pooling is run behind it, on fewer values: outputs and gradients are the same to the bit.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Activation, Dense, Sequential
    >>> model = Sequential([Dense(2, input_shape=(3,), rng=0), Activation("softmax")])
    >>> history = model.fit(np.eye(3), np.array([0, 1, 1]), epochs=2, rng=0)
    >>> sorted(history)
    ['accuracy', 'loss']
    >>> model.predict(np.eye(3)).shape
    (3, 2)
    """

    @public
    def __init__(
        self, layers: Iterable[Layer] = (), *, optimizer: Updates | None = None, loss: str | Loss = "cross_entropy"
    ) -> None:
        check_optimizer("Sequential", optimizer)
        self.optimizer = Adam() if optimizer is None else optimizer
        self.loss = _as_loss(loss)
        self.layers: list[Layer] = []
        if not is_iterable(layers):
            raise TypeError(f"Sequential: layers must be a list of layers, got {describe(layers)}")
        for layer in layers:
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Append a layer: its input is the last one's output, and its weights are drawn now."""
        if isinstance(layer, type) or not callable(getattr(layer, "forward_pass", None)):
            raise TypeError(f"Sequential.add: layer must be a Layer, got {describe(layer)}")
        lacking = [name for name in _METHODS if not callable(getattr(layer, name, None))]
        if lacking:
            raise TypeError(f"Sequential.add: layer {type(layer).__name__} needs the method {lacking[0]}, as of Layer")
        if any(layer is other for other in self.layers):
            raise ValueError(f"Sequential.add: {name_of(layer)} is in the network already; it keeps one input only")
        undo = undoing([layer])
        try:
            if self.layers:
                layer.set_input_shape(self.layers[-1].output_shape())
            elif getattr(layer, "input_shape", None) is None:
                raise ValueError(f"Sequential.add: the first layer, {name_of(layer)}, needs an input_shape")
            layer.output_shape()  # a layer that cannot follow is refused before it is added
            if hasattr(layer, "initialize"):
                layer.initialize(self.optimizer)
        except BaseException:
            try:
                exhaust(undo)
            except Exception:
                exhaust_the_rest(undo)
            raise
        self.layers.append(layer)

    # --- passes -------------------------------------------------------------------------------------------------

    def _forward(self, X: Array, order: list[Any], training: bool) -> Array:
        """Through layers in `order`, as of `in_running_order`; they need not be convjit's."""
        if not order:
            raise RuntimeError("Sequential: there are no layers; add some first")
        for layer in order:
            X = layer.forward_pass(X, training)
            if X is None:
                i = next(i for i, each in enumerate(self.layers) if each is layer)
                raise TypeError(f"Sequential: forward_pass of layer {i}, {type(layer).__name__}, returned None")
        return X

    def _backward(self, y: ArrayLike, predicted: Array, order: list[Any]) -> None:
        """Back through the layers of a forward pass."""
        layers = order[::-1]
        activation = getattr(layers[0], "activation_name", "")
        if isinstance(self.loss, CrossEntropy) and self.loss.is_fused and activation == self.loss.fused_activation:
            gradient = self.loss.fused_gradient(y, predicted)
            layers = layers[1:]
        else:
            gradient = self.loss.gradient(y, predicted)
        for layer in layers:
            # Nobody is there for the first layer's gradient; a layer that can spare it says so in its signature.
            spares = layer is order[0] and _takes_need_input(getattr(layer.backward_pass, "__func__", None))
            gradient = layer.backward_pass(gradient, need_input=False) if spares else layer.backward_pass(gradient)

    def train_on_batch(self, X: ArrayLike, y: ArrayLike) -> tuple[float, float]:
        """One step on one batch; its loss and accuracy, before the step.

        An error or an interrupt leaves all layers and their optimizers as they were. The network keeps the memory that
        the step took, for the next one.
        """
        inputs, y = _data("Sequential.train_on_batch", X, y)
        self._refuse_if_frozen("train_on_batch", train=True)
        undo = undoing([*self.layers, *self._optimizers()])
        try:
            with self._memory().step():
                order = in_running_order(self.layers)
                predicted = self._forward(inputs, order, training=True)
                targets = targets_once(self.loss, y, predicted)
                loss, accuracy = self._scores(targets, predicted)
                self._backward(targets, predicted, order)
        except BaseException:
            try:
                exhaust(undo)
            except Exception:
                exhaust_the_rest(undo)
            raise
        return loss, accuracy

    def _memory(self) -> Reused:
        """That of its steps; networks that older versions pickled come without."""
        reused: Reused | None = self.__dict__.get("_reused")
        return self.__dict__.setdefault("_reused", Reused()) if reused is None else reused

    def _scores(self, y: ArrayLike, predicted: Array) -> tuple[float, float]:
        """Loss and accuracy, numbers also where the loss is somebody else's."""
        kind = type(self.loss).__name__
        return (
            _as_score(f"{kind}.loss", self.loss.loss(y, predicted)),
            _as_score(f"{kind}.accuracy", self.loss.accuracy(y, predicted)),
        )

    def _optimizers(self) -> list[Any]:
        """Those of the weights of convjit's layers; what somebody else's layers hold is remembered with them."""
        found: list[Any] = []
        for layer in self.layers:
            if isinstance(layer, Layer):
                for name in layer.weight_names or ():
                    optimizer = vars(layer).get(f"{name}_opt")
                    if optimizer is not None:
                        found.append(optimizer)
        return found

    def freeze(self) -> None:
        """Freeze all layers, or none where one cannot be: `Layer.freeze` says what that means.

        A frozen network predicts the same bits. It cannot be trained or loaded until `unfreeze`; one of which some
        layers are frozen trains the others where those are not `trainable`.
        """
        self._all_or_none("freeze")

    def unfreeze(self) -> None:
        """Make the weights of all layers arrays that can be written again."""
        self._all_or_none("unfreeze")

    def _all_or_none(self, method: str) -> None:
        layers = [layer for layer in self.layers if callable(getattr(layer, method, None))]
        undo = undoing(layers)
        try:
            for layer in layers:
                getattr(layer, method)()
        except BaseException:
            try:
                exhaust(undo)
            except Exception:
                exhaust_the_rest(undo)
            raise

    def _refuse_if_frozen(self, method: str, train: bool) -> None:
        """Refuse to change frozen weights, in training only those that would be updated."""
        for i, layer in enumerate(self.layers):
            if not getattr(layer, "frozen", False) or not getattr(layer, "weight_names", None):
                continue
            if layer.trainable or not train:
                raise RuntimeError(f"Sequential.{method}: layer {i}, {name_of(layer)}, is frozen; call unfreeze "
                                   "first")  # fmt: skip

    def test_on_batch(self, X: ArrayLike, y: ArrayLike) -> tuple[float, float]:
        """The loss and accuracy of one batch."""
        inputs, y = _data("Sequential.test_on_batch", X, y)
        return self._scores(y, self._forward(inputs, in_running_order(self.layers), training=False))

    # --- training -----------------------------------------------------------------------------------------------

    @public
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        epochs: int = 1,
        batch_size: int = 32,
        *,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        rng: np.random.Generator | int | None = None,
        shuffle: bool = True,
        progress: bool | None = None,
    ) -> History:
        """Train on batches.

        Parameters
        ----------
        X : array_like, (N, ...)
        y : array_like, (N, ...)
            Integer classes, or rows as the network predicts.
        epochs, batch_size : int
            The last batch of an epoch may be smaller.
        validation_data : (X, y), optional
            Evaluated after each epoch.
        rng : numpy.random.Generator or int, optional
            What shuffles; NumPy's global state if not given.
        shuffle : bool
        progress : bool, optional
            Whether to show a bar; on a terminal if not given.

        Returns
        -------
        dict of lists
            `loss` and `accuracy`, means over the rows of an epoch, and with validation data `val_loss` and
            `val_accuracy`.

        Raises
        ------
        TypeError, ValueError
            For data or numbers that do not fit. An interrupt leaves the network as it was after some whole step.
        """
        name = "Sequential.fit"
        inputs, targets = _data(name, X, y)
        epochs, batch_size = as_positive(name, "epochs", epochs), as_positive(name, "batch_size", batch_size)
        held_out = None if validation_data is None else _data(name, *_pair(name, validation_data))
        source: Any = as_rng(name, rng) or np.random
        history: History = {"loss": [], "accuracy": []}
        if held_out is not None:
            history |= {"val_loss": [], "val_accuracy": []}
        batches = math.ceil(len(inputs) / batch_size)
        with self._memory().given_up(), progress_bar(epochs * batches, progress) as advance:
            for epoch in range(epochs):
                order = source.permutation(len(inputs)) if shuffle else np.arange(len(inputs))
                sums = np.zeros(2)
                for start in range(0, len(inputs), batch_size):
                    batch = order[start : start + batch_size]
                    sums += len(batch) * np.array(self.train_on_batch(inputs[batch], targets[batch]))
                    loss, accuracy = sums / min(len(inputs), start + batch_size)
                    advance(f"epoch {epoch + 1}/{epochs}  loss {loss:.4f}  accuracy {accuracy:.2%}")
                history["loss"].append(float(loss))
                history["accuracy"].append(float(accuracy))
                if held_out is not None:
                    for key, value in zip(("val_loss", "val_accuracy"), self.evaluate(*held_out), strict=True):
                        history[key].append(value)
        return history

    def predict(self, X: ArrayLike, batch_size: int = 256) -> Array:
        """The network's output for `X` (N, ...), computed in batches."""
        inputs = as_array("Sequential.predict", "X", X, real=True)
        size = as_positive("Sequential.predict", "batch_size", batch_size)
        if inputs.ndim == 0:
            raise ValueError(f"Sequential.predict: expected X of shape (N, ...), got shape {inputs.shape}")
        order = in_running_order(self.layers)
        starts = range(0, max(len(inputs), 1), size)
        parts = [self._forward(inputs[i : i + size], order, training=False) for i in starts]
        return np.concatenate(parts)

    def evaluate(self, X: ArrayLike, y: ArrayLike, batch_size: int = 256) -> tuple[float, float]:
        """The mean loss and accuracy over `X` (N, ...)."""
        inputs, targets = _data("Sequential.evaluate", X, y)
        size = as_positive("Sequential.evaluate", "batch_size", batch_size)
        return self._scores(targets, self.predict(inputs, size))

    # --- looking and keeping ------------------------------------------------------------------------------------

    def parameters(self) -> int:
        """The number of parameters that training could change."""
        return sum(map(parameters_of, self.layers))

    def output_shape(self) -> Shape:
        """The shape of one prediction."""
        if not self.layers:
            raise RuntimeError("Sequential.output_shape: there are no layers; add some first")
        return self.layers[-1].output_shape()

    def summary(self) -> str:
        """A table of layers, output shapes and parameters."""
        rows = [("layer", "output shape", "parameters")]
        rows += [(name_of(layer), str(layer.output_shape()), f"{parameters_of(layer):,}") for layer in self.layers]
        rows.append(("total", "", f"{self.parameters():,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)

    def save(self, path: AnyPath) -> None:
        """Write all weights and running means into an `.npz` file, whole or not at all."""
        write_weights(path, self.layers)

    def load(self, path: AnyPath) -> None:
        """Read what `save` wrote into a network of the same layers; nothing changes if it does not fit.

        A frozen network is refused: `unfreeze` it first.
        """
        self._refuse_if_frozen("load", train=False)
        read_weights(path, self.layers)


@lru_cache(maxsize=256)
def _takes_need_input(backward_pass: Any) -> bool:
    """Whether a method can be told that nobody needs the gradient with respect to the input."""
    return backward_pass is not None and "need_input" in inspect.signature(backward_pass).parameters


def _as_score(function: str, value: Any) -> float:
    if type(value) is float:
        return value
    try:
        number = np.asarray(value)
    except ValueError:  # lists of several lengths
        number = None
    if number is None or number.ndim > 0 or number.dtype.kind not in "biuf":
        raise TypeError(f"{function} must return a number, got {describe(value)}")
    return float(number)


def _as_loss(loss: Any) -> Loss:
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss()
    kind = ValueError if isinstance(loss, str) else TypeError
    raise kind(f"Sequential: loss must be one of {', '.join(map(repr, LOSSES))} or a Loss, got {loss!r}")


def _pair(function: str, data: Any) -> tuple[Any, Any]:
    try:
        X, y = data
    except (TypeError, ValueError):
        raise ValueError(f"{function}: validation_data must be a pair (X, y), got {describe(data)}") from None
    return X, y


def _data(function: str, X: Any, y: Any) -> tuple[Array, Array]:
    inputs, targets = as_array(function, "X", X, real=True), as_array(function, "y", y, real=True)
    if inputs.ndim < 2 or len(inputs) == 0:
        raise ValueError(f"{function}: X needs a batch axis and at least one row, got shape {inputs.shape}")
    if targets.ndim == 0 or len(targets) != len(inputs):
        raise ValueError(f"{function}: X and y must have as many rows, got {inputs.shape} and {targets.shape}")
    return inputs, targets
