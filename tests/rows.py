"""Rows of the registry, as the tests ask for them.

Rows that take every problem run in the tests of whole functions. The others decline most drawn problems, and are held
against the reference on problems of their own in `tests/algorithms/`.
"""

from __future__ import annotations

import numpy as np

from convjit.algorithms import ALGORITHMS
from convjit.geometry import conv2d_geometry

# Nothing is special about it: neither stride nor dilation nor group nor size.
_ANY = conv2d_geometry("test", (3, 10, 17, 19), (6, 5, 2, 3), (3, 2), ((1, 0), (2, 3)), (2, 3), 2)

GENERAL = [
    row.name
    for row in ALGORITHMS
    if row.declines(_ANY, np.dtype("float32")) is None and row.forward and row.input_grad and row.weight_grad
]
