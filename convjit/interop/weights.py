"""Weights under PyTorch's names: to and from `.npz` and `.safetensors` files, and PyTorch's own state dicts.

Knows which weight of a layer is called what in PyTorch and how it lies there. Does not know training: optimizers stay
as they are. Source: PyTorch's `Module.state_dict`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .. import (
    BatchNormalization,
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    Dense,
    Layer,
    Sequential,
)
from ..runtime.files import write_whole
from ..typing import Array
from .formats import format_of

Model: TypeAlias = Sequential | Layer

__all__ = ["load_state_dict", "load_weights", "save_weights", "state_dict"]


class Entry(NamedTuple):
    """A weight or buffer of a layer, and what becomes of it in PyTorch; the way back is the same, then reshaped."""

    attribute: str
    there: Callable[[Array], Array]
    initially: float | None = None  # in PyTorch, of a buffer that is None before training

    @property
    def is_buffer(self) -> bool:
        """Whether training leaves it to the forward pass."""
        return self.initially is not None


def _as_it_is(array: Array) -> Array:
    return array


_CONVOLUTIONS = (Conv1D, Conv1DTranspose, Conv2D, Conv2DTranspose, Conv3D, Conv3DTranspose)
NAMES: dict[type[Layer], dict[str, Entry]] = {
    **{kind: {"weight": Entry("W", _as_it_is), "bias": Entry("w0", np.ravel)} for kind in _CONVOLUTIONS},
    Dense: {"weight": Entry("W", np.transpose), "bias": Entry("w0", np.ravel)},
    BatchNormalization: {
        "weight": Entry("gamma", _as_it_is),
        "bias": Entry("beta", _as_it_is),
        "running_mean": Entry("running_mean", _as_it_is, initially=0),
        "running_var": Entry("running_var", _as_it_is, initially=1),
    },
}
# PyTorch counts batches for a running mean without momentum, which is none that convjit has.
_COUNTER = "num_batches_tracked"


class Place(NamedTuple):
    """Where an entry of a file belongs."""

    layer: Layer
    entry: Entry
    described: str


def _places(function: str, model: Any) -> dict[str, Place]:
    """The place of every name, in PyTorch's order."""
    if not isinstance(model, Sequential | Layer):
        raise TypeError(f"{function}: model must be a Sequential or a Layer, got {type(model).__name__}")
    alone = isinstance(model, Layer)
    layers: list[Any] = [model] if isinstance(model, Layer) else model.layers
    places = {}
    for i, layer in enumerate(layers):
        where = type(layer).__name__ if alone else f"layer {i} ({type(layer).__name__})"
        names = next((NAMES[kind] for kind in type(layer).__mro__ if kind in NAMES), {})
        held = {entry.attribute for entry in names.values()}
        unknown = sorted({*getattr(layer, "weight_names", ()), *getattr(layer, "buffer_names", ())} - held)
        if unknown or (not names and layer.parameters()):
            told = ", ".join(unknown) or f"{layer.parameters()} of them"
            raise TypeError(f"{function}: {where} has weights without a name in PyTorch: {told}")
        for entry in names.values():
            if not entry.is_buffer and getattr(layer, entry.attribute, None) is None:
                raise RuntimeError(f"{function}: {where} has no weights yet; call initialize first")
        for name, entry in names.items():
            places[name if alone else f"{i}.{name}"] = Place(layer, entry, where)
    return places


# --- out ------------------------------------------------------------------------------------------------------------


def state_dict(model: Model) -> dict[str, Array]:
    """Copies of all weights and running means, by PyTorch's names and in its shapes.

    Parameters
    ----------
    model : Sequential or Layer
        In a network, names start with the position of the layer, layers without weights counted, as in
        `torch.nn.Sequential`; a layer alone has none of that.

    Returns
    -------
    dict of str to ndarray
        `Conv2D`: `weight` (F, C // groups, KH, KW), `bias` (F,). `Conv2DTranspose`: `weight` (C, F // groups, KH, KW),
        `bias` (F,). Those of sequences and volumes likewise. `Dense`: `weight` (units, features), the transpose of `W`,
        `bias` (units,). `BatchNormalization`: `weight`, `bias`, `running_mean`, `running_var`, all (C,). Dtypes are the
        layer's.
        For PyTorch: `{name: torch.from_numpy(array) for name, array in state_dict(model).items()}`.

    Raises
    ------
    TypeError
        For what is no model, and a layer whose weights have no name in PyTorch.
    RuntimeError
        For a layer without weights: `initialize` gives it some.

    Notes
    -----
    What the two libraries do with the numbers differs in the running statistics that training leaves, as
    `BatchNormalization` says. Inference is the same. A `BatchNormalization` that was never trained gives means of 0 and
    variances of 1, with which inference begins; a layer that loads them averages the first batch with them, as PyTorch
    does.

    Examples
    --------
    >>> from convjit import Dense
    >>> layer = Dense(3, input_shape=(2,), rng=0)
    >>> layer.initialize(None)
    >>> {name: array.shape for name, array in state_dict(layer).items()}
    {'weight': (3, 2), 'bias': (3,)}
    """
    return _state("state_dict", model)


def _state(function: str, model: Any) -> dict[str, Array]:
    state = {}
    for name, (layer, entry, _) in _places(function, model).items():
        value = getattr(layer, entry.attribute)
        if value is None:  # no batch has been trained on
            value = np.full_like(getattr(layer, layer.weight_names[0]), entry.initially)
        state[name] = np.array(entry.there(value), order="C")
    return state


def save_weights(model: Model, path: str | os.PathLike[str]) -> None:
    """Write all weights and running means into a file, whole or not at all.

    A file that is there keeps its mode, and a link still leads to it.

    Parameters
    ----------
    model : Sequential or Layer
    path : str or path
        Ending in `.npz` or `.safetensors`, which decides about the format. The names are those of `state_dict`.

    Raises
    ------
    TypeError, RuntimeError
        As `state_dict`.
    ValueError
        For another ending, and what is no name of a file.
    OSError
        For what is there and no regular file, and where the system lets nobody write.
    ModuleNotFoundError
        For `.safetensors` without that package.

    Examples
    --------
    >>> from convjit import Dense
    >>> layer = Dense(3, input_shape=(2,), rng=0)
    >>> layer.initialize(None)
    >>> save_weights(layer, "dense.npz")
    >>> load_weights(layer, "dense.npz")
    """
    function = "save_weights"
    target, (write, _) = format_of(function, path)
    content = write(_state(function, model))
    write_whole(function, target, lambda file: file.write(content))


# --- in -------------------------------------------------------------------------------------------------------------


def load_weights(model: Model, path: str | os.PathLike[str]) -> None:
    """Set all weights and running means from a file; nothing changes if one does not fit.

    Parameters
    ----------
    model : Sequential or Layer
    path : str or path
        Ending in `.npz` or `.safetensors`, written by `save_weights` or from a PyTorch state dict.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `load_state_dict`; and `ValueError` for another ending, or a file that is damaged or of something else.
    OSError
        For a file that cannot be opened.
    ModuleNotFoundError
        For `.safetensors` without that package.

    Examples
    --------
    >>> from convjit import Conv2D
    >>> layers = [Conv2D(2, (3, 3), input_shape=(1, 8, 8), rng=seed) for seed in (0, 1)]
    >>> for layer in layers:
    ...     layer.initialize(None)
    >>> save_weights(layers[0], "conv.npz")
    >>> load_weights(layers[1], "conv.npz")
    >>> bool((layers[0].W == layers[1].W).all())
    True
    """
    function = "load_weights"
    source, (_, read) = format_of(function, path)
    content = source.read_bytes()  # what cannot be opened is the system's to name
    try:
        state = read(content)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever a parser says of bytes that are not its format
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{function}: {path} is not a file of weights: {told}") from None
    _load(function, f"{path} holds", model, state)


def load_state_dict(model: Model, state: Mapping[str, Any]) -> None:
    """Set all weights and running means from arrays by PyTorch's names; nothing changes if one does not fit.

    Parameters
    ----------
    model : Sequential or Layer
        Initialized, and not frozen.
    state : mapping of str to array_like
        Names and shapes of `state_dict(model)`, all of them and no others but `num_batches_tracked`, which convjit has
        no use for. Floats of any width, which become the layer's dtype; PyTorch's tensors and parameters on the CPU as
        they are.

    Raises
    ------
    TypeError
        For what is no model or no mapping, a layer whose weights have no name in PyTorch, and entries that are no
        arrays of floats.
    ValueError
        For missing and unexpected entries, wrong shapes, and numbers that are too large for the layer's dtype.
    RuntimeError
        For a layer that is frozen or has no weights yet.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Dense
    >>> layer = Dense(1, input_shape=(2,))
    >>> layer.initialize(None)
    >>> load_state_dict(layer, {"weight": np.array([[3.0, 4.0]]), "bias": np.array([5.0])})
    >>> layer.forward_pass(np.ones((1, 2)))
    array([[12.]])
    """
    function = "load_state_dict"
    if not isinstance(state, Mapping):
        raise TypeError(f"{function}: state must be a mapping of names to arrays, got {type(state).__name__}")
    _load(function, "state holds", model, state)


def _load(function: str, holds: str, model: Any, state: Mapping[str, Any]) -> None:
    """Check everything, then set everything; `holds` begins a sentence about an entry."""
    places = _places(function, model)
    for place in places.values():
        if place.layer.frozen:
            raise RuntimeError(f"{function}: {place.described} is frozen; call unfreeze first")
    counters = {
        name.removesuffix("running_mean") + _COUNTER for name in places if name.rpartition(".")[2] == "running_mean"
    }
    missing = [name for name in places if name not in state]
    unexpected = [str(name) for name in state if name not in places and name not in counters]
    if missing or unexpected:
        raise ValueError(
            f"{function}: {holds} other entries than the model: missing {', '.join(missing) or 'nothing'}, "
            f"unexpected {', '.join(unexpected) or 'nothing'}"
        )
    changes: dict[int, dict[str, Array]] = {id(place.layer): {} for place in places.values()}
    for name, place in places.items():
        changes[id(place.layer)][place.entry.attribute] = _fitted(f"{function}: {holds} {name}", place, state[name])
    layers = {id(place.layer): place.layer for place in places.values()}
    # One call from start to end, so that no interrupt leaves a network half of it.
    list(map(dict.update, (vars(layer) for layer in layers.values()), changes.values()))


def _fitted(sentence: str, place: Place, value: Any) -> Array:
    """An entry in the shape and dtype of the attribute that it becomes."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{sentence} as a masked array, whose mask would be ignored")
    try:
        if getattr(value, "requires_grad", False):  # a parameter: only its numbers are wanted
            value = value.detach()
        # NumPy has no bfloat16, of which every number is one of float32.
        array = np.asarray(value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value)
    except Exception as error:  # such as a tensor on another device
        raise TypeError(f"{sentence} as what is no array: {' '.join(str(error).split())}") from None
    if array.dtype.kind != "f":
        raise TypeError(f"{sentence} as {array.dtype}, but {place.described} needs floats")
    layer, entry = place.layer, place.entry
    like: Array = getattr(layer, layer.weight_names[0] if entry.is_buffer else entry.attribute)
    wanted = entry.there(like).shape
    if array.shape != wanted:
        raise ValueError(f"{sentence} of shape {array.shape}, but {place.described} needs {wanted}")
    held = getattr(layer, entry.attribute)
    dtype = np.dtype(np.float32 if array.dtype.itemsize <= 4 else np.float64) if held is None else held.dtype
    with np.errstate(all="ignore"):
        # Transposing and flattening are their own way back, once the shape is right.
        fitted = np.array(entry.there(array).reshape(like.shape), dtype, order="C")
    if np.isinf(fitted).sum() > np.isinf(array).sum():
        raise ValueError(f"{sentence} with numbers that are too large for {dtype}")
    return fitted
