"""Weights on disk: `.npz`, without pickle, an array a weight, named `<layer>.<weight>`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.files import as_path, write_whole
from ..typing import Array
from .base import Layer, parameters_of
from .undo import exhaust

# What NumPy and `zipfile` raise for files that are no archives of arrays, or damaged ones.
_BROKEN = (
    ValueError, TypeError, AttributeError, EOFError, OSError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _names(layer: Any, kind: str) -> tuple[str, ...]:
    """`weight_names` or `buffer_names`, of layers that need not be convjit's."""
    return tuple(getattr(layer, kind, None) or ())


def _check_names(function: str, layers: Sequence[Any]) -> None:
    """Refuse layers of whose weights nobody knows the names, or that have none yet: the file would look whole."""
    for i, layer in enumerate(layers):
        where, names = f"{function}: layer {i} ({type(layer).__name__})", _names(layer, "weight_names")
        if not names and parameters_of(layer):
            raise TypeError(f"{where} has {layer.parameters()} parameters, but no weight_names that say what they are")
        if not names and _names(layer, "buffer_names"):
            raise TypeError(
                f"{where} has buffer_names, but no weight_names; buffers have the shape of the first weight"
            )
        unset = [name for name in names if getattr(layer, name, None) is None]
        if unset:
            raise RuntimeError(f"{where} has no {unset[0]} yet; call initialize first")


def named_weights(layers: Sequence[Layer]) -> dict[str, Array]:
    """Every weight and buffer that is set, by name."""
    _check_names("Sequential.save", layers)
    return {
        f"{i}.{name}": getattr(layer, name)
        for i, layer in enumerate(layers)
        for name in (*_names(layer, "weight_names"), *_names(layer, "buffer_names"))
        if getattr(layer, name, None) is not None
    }


def write_weights(path: Any, layers: Sequence[Layer]) -> None:
    """Write a file of weights, whole or not at all."""
    function = "Sequential.save"
    target, weights = as_path(function, path), named_weights(layers)
    write_whole(function, target, lambda file: np.savez(file, **weights))  # type: ignore[arg-type]  # for a flag


def read_weights(path: Any, layers: Sequence[Layer]) -> None:
    """Check everything, then set everything."""
    _check_names("Sequential.load", layers)
    stored = _arrays(as_path("Sequential.load", path))
    weights = {
        f"{i}.{name}": getattr(layer, name) for i, layer in enumerate(layers) for name in _names(layer, "weight_names")
    }
    buffers = {
        f"{i}.{name}": getattr(layer, layer.weight_names[0])
        for i, layer in enumerate(layers)
        for name in _names(layer, "buffer_names")
    }
    for i, layer in enumerate(layers):  # statistics are stored all or none
        own = {f"{i}.{name}" for name in _names(layer, "buffer_names")}
        weights |= {name: buffers[name] for name in own if own & set(stored)}
    missing, foreign = sorted(set(weights) - set(stored)), sorted(set(stored) - set(weights) - set(buffers))
    if missing or foreign:
        raise ValueError(
            f"Sequential.load: {path} does not fit this network: missing {missing or 'nothing'}, "
            f"unknown {foreign or 'nothing'}"
        )
    for name, array in stored.items():
        shape = (weights[name] if name in weights else buffers[name]).shape
        if array.dtype.kind != "f" or array.shape != shape:
            raise ValueError(
                f"Sequential.load: {path} holds {name} as {array.dtype} {array.shape}, needs floats of shape {shape}"
            )
        if name in weights and name not in buffers:
            dtype = weights[name].dtype
        else:  # statistics are kept as they are, where they are float32 or float64
            dtype = np.dtype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
        stored[name] = _held(f"{path} holds {name}", array, dtype)
    changes = [
        (layer, name, stored.get(f"{i}.{name}"))
        for i, layer in enumerate(layers)
        for name in (*_names(layer, "weight_names"), *_names(layer, "buffer_names"))
    ]
    # One call from start to end, so that no interrupt leaves a network half of it; layers may keep weights in slots.
    exhaust(starmap(object.__setattr__, changes))


def _held(sentence: str, array: Array, dtype: Any) -> Array:
    """An array in the dtype of the weight or statistics that it becomes."""
    with np.errstate(all="ignore"):
        held: Array = array.astype(dtype, copy=False)
    if np.isinf(held).sum() > np.isinf(array).sum():
        raise ValueError(f"Sequential.load: {sentence} with numbers that are too large for {dtype}")
    return held


def _arrays(path: Path) -> dict[str, Array]:
    with open(path, "rb") as file:  # what cannot be opened is the system's to name
        try:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds one array without a name")
            with archive:
                return {name: archive[name] for name in archive.files}
        except _BROKEN as error:
            raise ValueError(f"Sequential.load: {path} is not a file of weights: {error}") from None
