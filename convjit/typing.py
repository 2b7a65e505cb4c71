"""Names for the types in public signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
ArrayLike: TypeAlias = npt.ArrayLike
DType: TypeAlias = np.dtype[Any]
DTypeLike: TypeAlias = npt.DTypeLike
IntOrPair: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Padding: TypeAlias = str | SupportsIndex | Sequence[SupportsIndex] | Sequence[Sequence[SupportsIndex]]
