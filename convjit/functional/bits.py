"""Functions that only move values: compiled once a value size, not once a dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..arrays import AS_BITS, ready
from ..runtime.memory import allocate
from ..typing import Array


def move(function: str, sources: Sequence[Array], shape: tuple[int, ...], run: Callable[..., None]) -> Array:
    """A new array of the sources' dtype, filled by `run(*source_bits, target_bits)` on views as integers.

    Values too large for one integer are moved by real and imaginary part.
    """
    dtype = sources[0].dtype
    result = allocate(function, "the result", shape, dtype)
    if result.size == 0:
        return result
    if dtype.itemsize in AS_BITS:
        bits = AS_BITS[dtype.itemsize]
        run(*(ready(function, "x", source, dtype).view(bits) for source in sources), result.view(bits))
        return result
    for take in ("real", "imag"):
        parts = [getattr(source, take) for source in sources]
        target = allocate(function, "a part of the result", shape, parts[0].dtype)
        run(*(ready(function, "x", part, part.dtype).view("int64") for part in parts), target.view("int64"))
        setattr(result, take, target)
    return result
