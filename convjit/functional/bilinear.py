"""Running an operation in its dtype: the one place where dtype rows meet algorithms.

Convolution and both its gradients are bilinear, so complex numbers are computed by parts. Knows dtypes, images and
volumes; does not check arguments.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .. import arrays
from ..algorithms.bias import bias_grad as sum_bias_grad
from ..algorithms.bias import sums_shape
from ..arrays import DTYPES
from ..geometry import Geometry, Volume
from ..layouts import CHANNELS_FIRST, Layout
from ..runtime.memory import allocate
from ..runtime.threads import workers
from ..typing import Array, DType
from .batches import run_images
from .calls import Call, decide
from .slicing import run_volumes
from .volumes import VolumeCall, decide_volume

AnyGeometry = Geometry | Volume
AnyCall = Call | VolumeCall


@cache
def no_bias(dtype: DType) -> Array:
    """What stands for a bias that is not given."""
    none = np.empty(0, dtype)
    none.flags.writeable = False
    return none


def decide_any(
    function: str, algorithm: str, geometry: AnyGeometry, compute: DType, operation_name: str,
    layout: Layout = CHANNELS_FIRST,
) -> AnyCall:  # fmt: skip
    """Which call computes it; volumes have their channels first."""
    if isinstance(geometry, Geometry):
        return decide(function, algorithm, geometry, compute, operation_name, layout)
    return decide_volume(function, algorithm, geometry, compute, operation_name)


def computed(
    function: str, call: AnyCall, inputs: tuple[Array, ...], shape: tuple[int, ...], out: Array | None = None
) -> Array:
    """The result of an operation, of this shape, in the dtype that it is computed in; inputs may lie as they like."""
    result = allocate(function, "the result", shape, call.compute) if out is None else out
    if result.size == 0:
        return result
    if type(call) is Call:
        run_images(function, call, inputs, result)
    else:
        assert isinstance(call, VolumeCall)
        run_volumes(function, call, inputs, result)
    return result


def run_forward(
    function: str, call: AnyCall, shape: tuple[int, ...], x: Array, weights: tuple[Array, ...], bias: Array | None,
    dtype: DType, out: Array | None = None,
) -> Array:  # fmt: skip
    """`y` of a convolution, of this shape, into `out` where it is given.

    `weights` are the weight's parts, or those packed for the call; `x` and `y` lie as its layout says.
    """
    compute, is_complex = DTYPES[dtype]
    added = no_bias(compute) if bias is None or is_complex else bias
    if compute == dtype:
        return computed(function, call, (x, weights[0], added), shape, out)
    y = _product(function, call, x, weights, added, shape, dtype)
    if is_complex and bias is not None:
        arrays.add(y, as_channels(bias, y.ndim, call.layout))
    if out is None:
        return y
    arrays.write(out, y)
    return out


def as_channels(bias: Array, dimensions: int, layout: Layout) -> Array:
    """A value a channel, as it is broadcast over images."""
    return bias if layout.channels_last else bias.reshape(-1, *([1] * (dimensions - 2)))


def run_gradient(function: str, call: AnyCall, shape: tuple[int, ...], dy: Array, other: Array, dtype: DType) -> Array:
    """The adjoint of the convolution in `x` where `other` is the weight, in the weight where it is `x`."""
    others = parts(conjugate(other)) if DTYPES[dtype].is_complex else (other,)
    return _product(function, call, dy, others, None, shape, dtype)


def run_weight_gradient(
    function: str, call: AnyCall, shape: tuple[int, ...], dy: Array, x: Array, dtype: DType, *, with_bias: bool
) -> tuple[Array, Array | None]:  # fmt: skip
    """`grad_weight`; and `with_bias`, `grad_bias`, where it can be summed up on the way."""
    compute, is_complex = DTYPES[dtype]
    if not with_bias or is_complex or not isinstance(call, Call) or not call.sums_bias:
        return run_gradient(function, call, shape, dy, x, dtype), None
    dw = allocate(function, "the result", shape, compute)
    db = allocate(function, "the result", (call.geometry.out_channels,), compute)
    run_images(function, call, (dy, x), dw, db)
    return arrays.converted(function, "the result", dw, dtype), arrays.converted(function, "the result", db, dtype)


def bias_grad(function: str, dy: Array, dtype: DType, layout: Layout = CHANNELS_FIRST) -> Array:
    """`grad_bias`, the sum of `dy` (N, O, ...) over images and pixels; it lies as `layout` says."""
    compute, is_complex = DTYPES[dtype]
    batch, channels, *size = layout.told(dy.shape)
    planes = arrays.shaped(function, "grad_output", dy, layout.lying((batch, channels, math.prod(size))))
    if not is_complex:
        return arrays.converted(function, "the result", _sum(function, planes, compute, channels, layout), dtype)
    result = np.zeros(channels, dtype)  # a real gradient beside complex images has no imaginary part
    for part, target in zip(parts(planes), (result.real, result.imag), strict=False):
        arrays.write(target, _sum(function, part, compute, channels, layout))
    return result


def _sum(function: str, planes: Array, compute: DType, channels: int, layout: Layout) -> Array:
    """A sum a channel of real planes."""
    planes = arrays.ready(function, "grad_output", planes, compute)
    crew = workers(planes.size / 4)
    sums = allocate(function, "sums", sums_shape(crew, compute), compute)
    result = allocate(function, "the result", (channels,), compute)
    sum_bias_grad(crew, planes, result, sums, channels_last=layout.channels_last)
    return result


def conjugate(array: Array) -> Array:
    """The complex conjugate; a real array is itself."""
    return array.conj() if array.dtype.kind == "c" else array


def parts(array: Array) -> tuple[Array, ...]:
    """The real part and, where there is one, the imaginary part."""
    return (array.real, array.imag) if array.dtype.kind == "c" else (array,)


def _product(
    function: str, call: AnyCall, a: Array, b_parts: tuple[Array, ...], bias: Array | None, shape: tuple[int, ...],
    dtype: DType,
) -> Array:  # fmt: skip
    """One operation in a fresh array; for complex dtypes a real one for each pair of parts of its two factors."""
    compute, is_complex = DTYPES[dtype]
    rest = () if bias is None else (bias,)
    if not is_complex:
        result = computed(function, call, (a, b_parts[0], *rest), shape)
        return arrays.converted(function, "the result", result, dtype)
    result = allocate(function, "the result", shape, compute)
    total = allocate(function, "the complex result", shape, dtype)
    arrays.write(total, 0)
    for i, a_part in enumerate(parts(a)):
        for j, b_part in enumerate(b_parts):
            computed(function, call, (a_part, b_part, *rest), shape, result)
            # (ar + i ai)(br + i bi): the power of i is the number of imaginary parts.
            if i + j == 0:
                arrays.add(total.real, result)
            elif i + j == 1:
                arrays.add(total.imag, result)
            else:
                arrays.by_slices(lambda t, s: np.subtract(t, s, out=t), total.real, result)
    return total
