"""The three matrix products of a dense layer, by convjit's own kernels or by BLAS.

Threads of OpenBLAS wait for their next work by spinning, for some 25 ms: on two cores, a step of the `cifar` network of
`python -m bench.race` took 30 ms with BLAS in its dense layer and 19 ms without. So BLAS computes what a few calls on
the calling thread can do, and what takes so long that its threads pay for themselves; in between, a product is a
convolution with 1x1 kernels. Shapes alone decide, never the number of threads.

Knows matrices; does not know layers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..algorithms.bias import ADDED_NS, add_to_rows
from ..arrays import add, ready
from ..functional import conv2d, conv2d_input_grad, conv2d_weight_grad
from ..runtime.memory import allocate, check_room
from ..runtime.threads import workers
from ..typing import Array
from .passes import compiled

# Multiplications up to which OpenBLAS starts no threads (`SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD`).
_ON_ONE_THREAD = 1 << 18
# In so many such calls BLAS is faster: of 21 products of 0.13 to 2.1 million in float32 and in float64 (AVX-512, one
# thread) convolutions took 1.3 times as long in the middle (0.6 to 2.5), and of larger ones 0.75 (0.5 to 1.4). For the
# gradient in the weight nearly all of them took longer, as did those with fewer rows than fill a register tile.
_FEW, _FEW_OF_INPUT, _FEW_OF_WEIGHT = 3, 2, 8
_FEW_ROWS, _FEW_OF_FEW_ROWS = 8, 8
# Multiplications from which on a product takes milliseconds.
_LONG = 1 << 27
# Multiplications a slice of a long product: some ten milliseconds, at what BLAS reaches on one core in float64.
_SLICE = 1 << 29
# What OpenBLAS takes for each product of several threads, beside what it keeps: 300 to 600 KB, as it counts with 64.
_LIST_BYTES = 1 << 20
# Units below which vectors along them are not full, so that a transposed copy pays: 32 rows of 8192 features and 10
# units took 120 us and 122 us for the two gradients that way, and 247 us and 530 us in place.
_NARROW = 32


def product(x: Array, weight: Array, bias: Array) -> Array:
    """`x @ weight + bias` of (N, features), (features, units) and (1, units)."""
    y = _by_blas(x, weight) if _is_for_blas(x, weight.shape[1], _FEW) else _product(x, weight)
    if compiled(y) and bias.dtype == y.dtype:
        flat = ready("Dense", "w0", bias, y.dtype).reshape(-1)
        add_to_rows(workers(y.size * ADDED_NS), flat, y)
    else:
        add(y, bias)
    return y


def input_gradient(dy: Array, weight: Array) -> Array:
    """`dy @ weight.T` of (N, units) and (features, units)."""
    features, units = weight.shape
    if _is_for_blas(dy, features, _FEW_OF_INPUT):
        return _by_blas(dy, weight.T)
    if units < _NARROW:
        return _product(dy, weight.T)
    # The weights are an image of so many channels, whose pixels are the units: as in the forward product.
    rows = len(dy)
    return conv2d_weight_grad(
        dy.reshape(1, rows, 1, units), weight.reshape(1, features, 1, units), 1
    ).reshape(rows, features)  # fmt: skip


def weight_gradient(x: Array, dy: Array) -> Array:
    """`x.T @ dy` of (N, features) and (N, units)."""
    (rows, features), units = x.shape, dy.shape[1]
    if _is_for_blas(x, units, _FEW_OF_WEIGHT):
        return _by_blas(x.T, dy)
    if units < _NARROW:
        return np.ascontiguousarray(_product(dy.T, x).T)
    return conv2d_input_grad(
        dy.reshape(1, rows, 1, units), x.reshape(rows, features, 1, 1), (1, units)
    ).reshape(features, units)  # fmt: skip


def _is_for_blas(rows: Array, columns: int, few: int) -> bool:
    multiplications = rows.size * columns
    few = few if len(rows) >= _FEW_ROWS else _FEW_OF_FEW_ROWS
    return multiplications <= few * _ON_ONE_THREAD or multiplications >= _LONG


def _product(a: Array, b: Array) -> Array:
    """`a @ b`: the rows of `a` are filters over the rows of `b`, which are channels."""
    (rows, depth), columns = a.shape, b.shape[1]
    image, filters = b.reshape(1, depth, 1, columns), a.reshape(rows, depth, 1, 1)
    return conv2d(image, filters).reshape(rows, columns)


def _by_blas(a: Array, b: Array) -> Array:
    """`a @ b` in slices of the result, along its longer axis."""
    rows, columns = a.shape[0], b.shape[1]
    multiplications = a.size * columns
    parts = -(-multiplications // (_SLICE if multiplications >= _LONG else _ON_ONE_THREAD))
    result = allocate("Dense", "the result", (rows, columns), np.result_type(a, b))
    _room_for_blas(a, b)
    if parts <= 1:
        return np.matmul(a, b, out=result)
    if rows >= columns:
        for part in _cut(rows, parts):
            np.matmul(a[part], b, out=result[part])
    else:
        for part in _cut(columns, parts):
            np.matmul(a, b[:, part], out=result[:, part])
    return result


def _room_for_blas(a: Array, b: Array) -> None:
    """`MemoryError` unless there is the memory that a product takes: without it OpenBLAS ends the process.

    With AVX-512, its kernels for small matrices pack one of them, and do not ask whether they got the memory; a product
    of several threads begins with a list for them.
    """
    of_list = _LIST_BYTES if a.size * b.shape[1] >= _LONG else 0
    check_room("Dense", "a workspace", a.nbytes + b.nbytes + of_list)


def _cut(size: int, parts: int) -> Iterator[slice]:
    step = -(-size // parts)
    return (slice(first, first + step) for first in range(0, size, step))
