"""Names for the types in public signatures."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Protocol, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
ArrayLike: TypeAlias = npt.ArrayLike
DType: TypeAlias = np.dtype[Any]
DTypeLike: TypeAlias = npt.DTypeLike
IntOrPair: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Padding: TypeAlias = str | SupportsIndex | Sequence[SupportsIndex] | Sequence[Sequence[SupportsIndex]]
AnyPath: TypeAlias = str | PathLike[str]

# What a type checker need not tell apart from an array: None where a gradient was not asked for, a pair of arrays where
# indices were.
MaybeArray: TypeAlias = Array | Any
Gradients: TypeAlias = tuple[MaybeArray, MaybeArray, MaybeArray]


class Updates(Protocol):
    """An optimizer, of convjit or not: it is copied for each weight, and keeps what it has to remember."""

    def update(self, w: Array, grad: Array, /) -> Array:
        """The new weights after one step against the gradient."""
        ...
