"""Running an operation in its dtype: the one place where dtype rows meet algorithms.

Convolution and both its gradients are bilinear, so complex numbers are computed by parts. Knows dtypes, workers and
workspaces; does not check arguments.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np

from .. import algorithms, arrays
from ..algorithms import Operation
from ..algorithms.algorithm import work_ns
from ..algorithms.bias import bias_grad as sum_bias_grad
from ..arrays import DTYPES
from ..geometry import Geometry
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, DType


class Call:
    """An operation on a problem in a dtype: what is decided before any array is looked at."""

    def __init__(self, function: str, algorithm: str, geometry: Geometry, compute: DType, operation: str) -> None:
        self.is_pointwise = geometry.is_pointwise  # a 1x1 kernel sees an image as one long row
        self.geometry = geometry.as_one_row() if self.is_pointwise else geometry
        self.operation: Operation = algorithms.choose(function, algorithm, self.geometry, compute, operation)
        self.nanoseconds = work_ns(geometry)
        self._compute = compute
        self._spaces: dict[int, list[tuple[tuple[int, ...], DType]]] = {}

    def spaces(self, crew: int) -> list[tuple[tuple[int, ...], DType]]:
        """Shapes and dtypes of the workspaces for so many workers."""
        if crew not in self._spaces:
            spaces = self.operation.workspace(self.geometry, crew, self._compute)
            self._spaces[crew] = [(space.shape, space.dtype or self._compute) for space in spaces]
        return self._spaces[crew]


# A small convolution takes 10 us; deciding how would take as long again.
_call = lru_cache(maxsize=512)(Call)


@cache
def _no_bias(dtype: DType) -> Array:
    return np.empty(0, dtype)


def forward(
    function: str, algorithm: str, geometry: Geometry, x: Array, weight: Array, bias: Array | None, dtype: DType,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """`y` of a convolution, into `out` where it is given."""
    compute, is_complex = DTYPES[dtype]
    operation = _call(function, algorithm, geometry, compute, "forward")
    no_bias = _no_bias(compute)
    if is_complex:
        y = _product(function, operation, (x, weight, no_bias), geometry.y_shape, dtype)
        if bias is not None:
            arrays.add(y, bias[:, None, None])
    elif out is not None and dtype == compute:
        _run(function, operation, (x, weight, no_bias if bias is None else bias), out, compute)
        return out
    else:
        inputs = (x, weight, no_bias if bias is None else bias)
        y = _product(function, operation, inputs, geometry.y_shape, dtype)
    if out is None:
        return y
    arrays.write(out, y)
    return out


def input_grad(function: str, algorithm: str, geometry: Geometry, dy: Array, weight: Array, dtype: DType) -> Array:
    """`grad_input`, the adjoint of the convolution in `x`."""
    operation = _call(function, algorithm, geometry, DTYPES[dtype].compute, "input_grad")
    return _product(function, operation, (dy, conjugate(weight)), geometry.x_shape, dtype)


def weight_grad(function: str, algorithm: str, geometry: Geometry, dy: Array, x: Array, dtype: DType) -> Array:
    """`grad_weight`, the adjoint of the convolution in `weight`."""
    operation = _call(function, algorithm, geometry, DTYPES[dtype].compute, "weight_grad")
    return _product(function, operation, (dy, conjugate(x)), geometry.weight_shape, dtype)


def bias_grad(function: str, dy: Array, dtype: DType) -> Array:
    """`grad_bias`, the sum of `dy` (N, O, H, W) over images and pixels."""
    compute, is_complex = DTYPES[dtype]
    planes = dy.reshape(dy.shape[0], dy.shape[1], dy.shape[2] * dy.shape[3])
    result = np.zeros(dy.shape[1], dtype)
    targets = (result.real, result.imag) if is_complex else (result,)
    for part, target in zip(_parts(planes), targets, strict=False):
        part = arrays.ready(function, "grad_output", part, compute)
        db = np.empty(dy.shape[1], compute)
        sum_bias_grad(workers(part.size), part, db)
        arrays.write(target, db)
    return result


def conjugate(array: Array) -> Array:
    """The complex conjugate; a real array is itself."""
    return array.conj() if array.dtype.kind == "c" else array


def _parts(array: Array) -> tuple[Array, ...]:
    """The real part and, where there is one, the imaginary part."""
    return (array.real, array.imag) if array.dtype.kind == "c" else (array,)


def _product(function: str, operation: Call, inputs: tuple[Array, ...], shape: tuple[int, ...], dtype: DType) -> Array:
    """One operation in a fresh array; for complex dtypes a real one for each pair of parts of the first two inputs."""
    compute, is_complex = DTYPES[dtype]
    result = allocate(function, "the result", shape, compute)
    if not is_complex:
        _run(function, operation, inputs, result, compute)
        return arrays.converted(function, "the result", result, dtype)
    total = allocate(function, "the complex result", shape, dtype)
    arrays.write(total, 0)
    a, b, *rest = inputs
    for i, a_part in enumerate(_parts(a)):
        for j, b_part in enumerate(_parts(b)):
            _run(function, operation, (a_part, b_part, *rest), result, compute)
            # (ar + i ai)(br + i bi): the power of i is the number of imaginary parts.
            if i + j == 0:
                arrays.add(total.real, result)
            elif i + j == 1:
                arrays.add(total.imag, result)
            else:
                arrays.by_slices(lambda t, s: np.subtract(t, s, out=t), total.real, result)
    return total


def _run(function: str, call: Call, inputs: tuple[Array, ...], result: Array, compute: DType) -> None:
    """Run an operation: inputs made ready, workers chosen, workspaces allocated."""
    if result.size == 0:
        return
    prepared: list[Any] = [arrays.ready(function, "an input", array, compute) for array in inputs]
    if call.is_pointwise:
        prepared = [_one_row(array) for array in prepared]
        result = _one_row(result)
    crew = workers(call.nanoseconds)
    spaces = [allocate(function, "workspace", shape, dtype) for shape, dtype in call.spaces(crew)]
    call.operation.run(crew, call.geometry, *prepared, result, *spaces)


def _one_row(array: Array) -> Array:
    if array.ndim != 4:
        return array
    n, c, h, w = array.shape
    return array.reshape(n, c, 1, h * w)
