"""The layer contract, and the one way in which weights change.

Knows parameters and optimizers. Does not know what a layer computes. Source of the contract: E. Linder-Norén,
"ML-From-Scratch" (MIT licence), `deep_learning/layers.py`.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np

from ..arrays import as_array, converted, locked
from ..parsing import as_index, describe, is_iterable, shown
from ..typing import Array, Updates
from .optimizers import PUBLISHED, Range, hyperparameter
from .undo import exhaust, exhaust_the_rest, undoing

Shape = tuple[int, ...]


class Layer:
    """What a network expects of a layer.

    A layer with weights names them in `weight_names`; each weight `W` has its optimizer in `W_opt`.

    Attributes
    ----------
    input_shape : tuple of int or None
        The shape of one input, without the batch.
    trainable : bool
        Whether `backward_pass` updates the weights.

    Examples
    --------
    >>> from convjit import Layer
    >>> Layer().parameters()
    0
    """

    # The weights that training changes, and what is kept besides them, such as running means: of the shape of the
    # first weight, or None.
    weight_names: ClassVar[tuple[str, ...]] = ()
    buffer_names: ClassVar[tuple[str, ...]] = ()
    # Options that stay while the weights are frozen.
    frozen_names: ClassVar[tuple[str, ...]] = ()
    # Of hyperparameters, which are checked whenever one is set.
    _ranges: ClassVar[dict[str, Range]] = {}

    input_shape: Shape | None = None
    trainable: bool = True
    _frozen: bool = False

    def set_input_shape(self, shape: Shape) -> None:
        """Set the shape of one input, without the batch."""
        name = type(self).__name__
        if not is_iterable(shape) or isinstance(shape, str):
            raise TypeError(f"{name}: input_shape must be a tuple of ints, got {describe(shape)}")
        sizes = tuple(as_index(name, "input_shape", size, "a tuple of ints") for size in shape)
        if min(sizes, default=0) < 0:
            raise ValueError(f"{name}: input_shape must be ints >= 0, got {shown(shape)}")
        self.input_shape = sizes

    def layer_name(self) -> str:
        """The name in a summary."""
        return type(self).__name__

    def parameters(self) -> int:
        """The number of parameters that training could change; 0 before `initialize`."""
        return sum(int(np.size(getattr(self, name, ()))) for name in self.weight_names)

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The layer's output; with `training`, what `backward_pass` needs is kept."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_pass")

    def backward_pass(self, accum_grad: Array) -> Array:
        """The gradient with respect to the input, from the one with respect to the output; updates the weights."""
        raise NotImplementedError(f"{type(self).__name__} has no backward_pass")

    def output_shape(self) -> Shape:
        """The shape of one output, without the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no output_shape")

    # --- frozen weights -----------------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether `freeze` was called, and `unfreeze` not since."""
        return self._frozen

    def freeze(self) -> None:
        """Make the weights read-only, for inference, until `unfreeze`; without weights, nothing.

        A frozen layer computes the same bits, a convolution with a plan, whose weights are packed once. What would
        change weights, or the options that they are used with, is refused: a step of a trainable layer, `initialize`,
        assigning to them, `Sequential.load`. Arrays that were its weights before stay as they are.
        """
        if not self._frozen and self.weight_names:
            self._initialized("freeze")
            self.__dict__.update(self._as_frozen())

    def unfreeze(self) -> None:
        """Make the weights arrays that can be written again."""
        if self._frozen:
            self.__dict__.update(self._as_thawed())

    def _as_frozen(self) -> dict[str, Any]:
        """What a frozen layer holds."""
        return {**{name: locked(getattr(self, name).copy()) for name in self.weight_names}, "_frozen": True}

    def _as_thawed(self) -> dict[str, Any]:
        return {**{name: getattr(self, name).copy() for name in self.weight_names}, "_frozen": False}

    def _refuse_if_frozen(self, method: str, what: str) -> None:
        if self._frozen:
            raise RuntimeError(f"{type(self).__name__}.{method}: the layer is frozen, so {what}; call unfreeze first")

    def __setattr__(self, name: str, value: Any) -> None:
        if self._frozen and name in (*self.weight_names, *self.frozen_names):
            raise AttributeError(
                f"{type(self).__name__}: the layer is frozen, so {name} cannot be set; call unfreeze first"
            )
        if name in self.weight_names or name in self.buffer_names:
            value = self._as_weight(name, value)
        elif name in self._ranges:
            value = hyperparameter(type(self).__name__, name, value, *self._ranges[name])
        super().__setattr__(name, value)

    def _as_weight(self, name: str, value: Any) -> Any:
        """A weight or buffer as it is held: steps would be lost in integers."""
        if value is None:
            return value
        array = as_array(type(self).__name__, name, value, real=True)
        if array.dtype.kind == "c":
            raise TypeError(f"{type(self).__name__}: {name} must be real, as inputs are, got dtype {array.dtype}")
        return floating(type(self).__name__, name, array)

    def __setstate__(self, state: Any) -> None:
        # Copies and pickles of arrays can be written.
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        self.__dict__.update(attributes or {})
        for name, value in (slots or {}).items():
            object.__setattr__(self, name, value)
        if self._frozen:
            self.__dict__.update(self._as_frozen())

    # --- for layers ---------------------------------------------------------------------------------------------

    def _needed_input_shape(self, method: str) -> Shape:
        if self.input_shape is None:
            raise ValueError(f"{type(self).__name__}.{method}: input_shape is not set; give it or add the layer to a "
                             "Sequential after another one")  # fmt: skip
        return self.input_shape

    def _start(self, optimizer: Updates | None, **weights: Array) -> None:
        """Set the first weights, give each a copy of the optimizer, and forget buffers: all of it, or nothing."""
        self._refuse_if_frozen("initialize", "its weights cannot be drawn")
        check_optimizer(f"{type(self).__name__}.initialize", optimizer)
        state: dict[str, Any] = dict(weights)
        state.update({f"{name}_opt": copy.copy(optimizer) for name in weights})
        state.update(dict.fromkeys(self.buffer_names))
        self.__dict__.update(state)

    def _initialized(self, method: str) -> None:
        for name in self.weight_names:
            if getattr(self, name, None) is None:
                raise RuntimeError(f"{type(self).__name__}.{method}: call initialize first")

    def _kept(self, name: str) -> Any:
        """What the last forward pass kept for `backward_pass`."""
        value = self.__dict__.get(name)
        if value is None:
            raise RuntimeError(f"{type(self).__name__}.backward_pass: call forward_pass first, with training=True")
        return value

    def _update(self, **gradients: Array) -> None:
        """Let each weight's optimizer make a step: all of them or none.

        A step that fails or is interrupted changes nothing: new weights are made aside and set together, and the
        optimizers are put back. They stay the same objects, so that who holds one, or shares something with one, such
        as a schedule, still does after a step. convjit's own rebind their state and never write into it; a foreign one
        may write, into its state and into `w`.
        """
        self._refuse_if_frozen("backward_pass", "its weights cannot be updated")
        optimizers: dict[str, Any] = {}
        for name in gradients:
            optimizers[name] = getattr(self, f"{name}_opt", None)
            if optimizers[name] is None:
                raise RuntimeError(
                    f"{self._where_updated(name)} is None; call initialize with an optimizer, or set trainable=False "
                    "for inference"
                )
        changed: dict[str, Any] = {}
        undo = undoing(optimizers.values())
        try:
            for name, optimizer in optimizers.items():
                weight, gradient = getattr(self, name), gradients[name]
                if _shape(weight) != _shape(gradient):
                    raise ValueError(
                        f"{type(self).__name__}.backward_pass: {name} has shape {_shape(weight)}, its gradient "
                        f"{_shape(gradient)}"
                    )
                if type(optimizer) in PUBLISHED:
                    updated = optimizer.update(weight, gradient)
                else:
                    check_optimizer(f"{type(self).__name__}.backward_pass", optimizer, f"{name}_opt")
                    updated = optimizer.update(weight.copy(), gradient)
                if type(updated) is np.ndarray and updated.dtype == weight.dtype and updated.shape == weight.shape:
                    changed[name] = updated
                else:
                    changed[name] = _as_updated(self._where_updated(name), updated, weight)
        except BaseException:
            try:
                exhaust(undo)
            except Exception:
                exhaust_the_rest(undo)
            raise
        # Python looks for signals after calls and at the end of loops, so none comes between the last step and this.
        self.__dict__.update(changed)

    def _where_updated(self, name: str) -> str:
        return f"{type(self).__name__}.backward_pass: the optimizer of {name}"


def name_of(layer: Any) -> str:
    """What a layer calls itself; one of somebody else's that does not is called by its class."""
    return str(layer.layer_name()) if hasattr(layer, "layer_name") else type(layer).__name__


def parameters_of(layer: Any) -> int:
    """How many weights a layer says it has; one of somebody else's that does not say is taken for one without."""
    return int(layer.parameters()) if hasattr(layer, "parameters") else 0


def check_optimizer(where: str, optimizer: Any, name: str = "optimizer") -> None:
    """Refuse what is no optimizer; None is fine."""
    usable = callable(getattr(optimizer, "update", None)) and not isinstance(optimizer, type)
    if optimizer is not None and not usable:
        raise TypeError(f"{where}: {name} must be an object with update(w, grad), got {describe(optimizer)}")


def _shape(value: Any) -> Shape:
    """Of an array or a list: as `np.shape`, which takes 1 us to find out whose it is."""
    return value.shape if type(value) is np.ndarray else np.shape(value)


def _as_updated(where: str, updated: Any, weight: Array) -> Array:
    """What an optimizer returned as the new weight, in its dtype, or an error that names the optimizer."""
    if updated is None:
        raise TypeError(f"{where} returned None from update(w, grad); it must return the new w")
    try:
        array = np.asarray(updated)
    except Exception:  # lists of several lengths, and what somebody else's conversion raises
        array = np.array(None)
    if array.dtype.kind not in "biuf" or isinstance(updated, np.ma.MaskedArray):
        raise TypeError(
            f"{where} returned {describe(updated)} from update(w, grad); it must return a real array, without a mask"
        )
    if array.shape != weight.shape:
        raise ValueError(f"{where} returned shape {array.shape} from update(w, grad); it must be {weight.shape}")
    return array.astype(weight.dtype, copy=False)


_BATCHES = {2: "(N, features)", 3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}


def as_batch(layer: str, X: Any, ndim: int | None = None) -> Array:
    """The input of a layer as an array, with a batch axis."""
    array = as_array(layer, "X", X, real=True)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{layer}: X must be a real numeric array, got dtype {array.dtype}")
    if array.ndim < 2 or (ndim is not None and array.ndim != ndim):
        wanted = _BATCHES.get(ndim or 0, "(N, ...)")
        raise ValueError(f"{layer}: expected X of shape {wanted}, got {array.shape}")
    return array


def check_grad(layer: str, accum_grad: Any, shape: Shape) -> Array:
    """The output gradient, of the shape of the last output."""
    array = as_array(f"{layer}.backward_pass", "accum_grad", accum_grad, real=True)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{layer}.backward_pass: accum_grad must be a real numeric array, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(
            f"{layer}.backward_pass: accum_grad must have shape {shape}, that of the last output, got {array.shape}"
        )
    return array


def floating(layer: str, name: str, array: Array) -> Array:
    """Integers and bools as float64, floating arrays as they are."""
    return array if array.dtype.kind == "f" else converted(layer, f"a copy of {name}", array, np.dtype(np.float64))
