"""Memory layouts: the same values, held in memory in every way that NumPy knows.

Knows arrays; does not know what they are for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from .oracle import Array


def _strided(array: Array) -> Array:
    room = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
    view = room[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def _reversed(array: Array) -> Array:
    flip = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[flip])[flip]


def _transposed(array: Array) -> Array:
    order = tuple(np.roll(np.arange(array.ndim), 1))
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _unaligned(array: Array) -> Array:
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


#: Memory layouts by name: each function returns the same values, laid out otherwise.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda array: np.array(array, order="C"),
    "fortran": lambda array: np.array(array, order="F"),
    "transposed": _transposed,
    "strided": _strided,
    "reversed": _reversed,
    "read-only": _read_only,
    "unaligned": _unaligned,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder("S")),
}


def layouts(array: Array) -> st.SearchStrategy[Array]:
    """The same values in another memory layout.

    Parameters
    ----------
    array : ndarray
        Of any shape and dtype.

    Returns
    -------
    strategy of ndarray
        One of `LAYOUTS`, always a copy: Fortran's order, transposed, strided, reversed, read-only, unaligned,
        byte-swapped. Shrinks to a C-contiguous one.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(layouts(np.eye(2)), lambda a: not a.flags.aligned).flags.aligned
    False
    """
    return st.sampled_from(list(LAYOUTS.values())).map(lambda lay_out: lay_out(array))
