"""Weights on disk: `.npz`, without pickle, an array a weight, named `<layer>.<weight>`."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..typing import Array
from .base import Layer


def named_weights(layers: Sequence[Layer]) -> dict[str, Array]:
    """Every weight and buffer that is set, by name."""
    return {
        f"{i}.{name}": getattr(layer, name)
        for i, layer in enumerate(layers)
        for name in (*layer.weight_names, *layer.buffer_names)
        if getattr(layer, name, None) is not None
    }


def write_weights(path: Any, layers: Sequence[Layer]) -> None:
    """Write the file aside and rename it, so that a full disk or an interrupt leaves the old one whole."""
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **named_weights(layers))  # type: ignore[arg-type]  # the stubs take a flag's name for any
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_weights(path: Any, layers: Sequence[Layer]) -> None:
    """Check everything, then set everything."""
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(f"Sequential.load: {path} is not a file of weights: {error}") from None
    weights = {
        f"{i}.{name}": getattr(layer, name, None) for i, layer in enumerate(layers) for name in layer.weight_names
    }
    buffers = {f"{i}.{name}" for i, layer in enumerate(layers) for name in layer.buffer_names}
    missing, foreign = sorted(set(weights) - set(stored)), sorted(set(stored) - set(weights) - buffers)
    if missing or foreign:
        raise ValueError(
            f"Sequential.load: {path} does not fit this network: missing {missing or 'nothing'}, "
            f"unknown {foreign or 'nothing'}"
        )
    for name, array in stored.items():
        held = weights.get(name, layers[int(name.split(".")[0])].__dict__.get(name.split(".")[1]))
        if array.dtype.kind != "f" or (held is not None and array.shape != held.shape):
            needed = "floats" if held is None else f"floats of shape {held.shape}"
            raise ValueError(f"Sequential.load: {path} holds {name} as {array.dtype} {array.shape}, needs {needed}")
    for i, layer in enumerate(layers):
        layer.__dict__.update(
            {name: stored[f"{i}.{name}"].astype(getattr(layer, name).dtype, copy=False) for name in layer.weight_names}
        )
        for name in layer.buffer_names:
            layer.__dict__[name] = stored.get(f"{i}.{name}")
