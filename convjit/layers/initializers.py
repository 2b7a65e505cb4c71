"""How first weights are drawn. A scheme is a row: the limit of a uniform distribution from the fans.

Source: the text's `1/sqrt(KH*KW)`; X. Glorot, Y. Bengio (2010), equation 16; K. He et al. (2015), equation 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..parsing import as_index, describe
from ..typing import Array, DType

# Limits by (fan_in, fan_out, seed_fan): seed_fan is what the text divides by.
LIMITS: dict[str, Callable[[int, int, int], float]] = {
    "uniform": lambda fan_in, fan_out, seed_fan: 1 / math.sqrt(seed_fan),
    "glorot": lambda fan_in, fan_out, seed_fan: math.sqrt(6 / (fan_in + fan_out)),
    "he": lambda fan_in, fan_out, seed_fan: math.sqrt(6 / fan_in),
}


def check_initializer(owner: str, name: Any) -> str:
    """The name of a scheme."""
    if not isinstance(name, str):
        raise TypeError(f"{owner}: initializer must be a string, got {describe(name)}")
    if name not in LIMITS:
        known = ", ".join(repr(n) for n in LIMITS)
        raise ValueError(f"{owner}: initializer must be one of {known}, got {name!r}")
    return name


def as_rng(owner: str, rng: Any) -> np.random.Generator | None:
    """A Generator from a Generator, an int seed or None, which stands for NumPy's global state."""
    if rng is None or isinstance(rng, np.random.Generator):
        return rng
    seeds = np.random.SeedSequence | np.random.BitGenerator | np.random.RandomState
    try:
        return np.random.default_rng(rng if isinstance(rng, seeds) else as_index(owner, "rng", rng))
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: rng must be a numpy.random.Generator or an int seed, got {describe(rng)}") from None


def draw(owner: str, limit: float, shape: tuple[int, ...], rng: np.random.Generator | None, dtype: DType) -> Array:
    """Weights drawn uniformly from ±limit, in float64, then rounded to `dtype`."""
    source: Any = np.random if rng is None else rng
    try:
        weights: Array = source.uniform(-limit, limit, size=shape)
    except (MemoryError, ValueError):
        raise MemoryError(f"{owner}: weights of shape {shape} do not fit into memory") from None
    return weights.astype(dtype, copy=False)


def as_weight_dtype(owner: str, dtype: Any) -> DType:
    """float32 or float64."""
    try:
        chosen: DType = np.dtype(dtype)
    except Exception:  # of a string that Python cannot parse a SyntaxError
        raise TypeError(f"{owner}: dtype must be float32 or float64, got {describe(dtype)}") from None
    if chosen not in (np.dtype("float32"), np.dtype("float64")):
        raise TypeError(f"{owner}: dtype must be float32 or float64, got {chosen}")
    return chosen
