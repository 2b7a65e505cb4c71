"""Rows of the registry, as the tests ask for them.

Rows that take any problem run in the tests of whole functions; an operation that such a row does not have is done as
"auto" does it. The others decline most drawn problems, and are held against the reference on problems of their own, in
`tests/algorithms/test_<name>.py`.
"""

from __future__ import annotations

import numpy as np

from convjit.algorithms import ALGORITHMS
from convjit.algorithms.algorithm import OPERATIONS
from convjit.geometry import conv2d_geometry

# Nothing is special about it: neither stride nor dilation nor group nor size.
_ANY = conv2d_geometry("test", (3, 10, 17, 19), (6, 5, 2, 3), (3, 2), ((1, 0), (2, 3)), (2, 3), 2)

_FLOAT32, _INT64 = np.dtype("float32"), np.dtype("int64")
GENERAL = [
    row.name
    for row in ALGORITHMS
    if row.declines(_ANY, _FLOAT32) is None
    and any(row.operation(name) and not row.operation(name).declines(_ANY, _FLOAT32) for name in OPERATIONS)
]
# Those that take any dtype, too, and images and sums of any size.
UNLIMITED = [row.name for row in ALGORITHMS if row.name in GENERAL and row.declines(_ANY, _INT64) is None]
