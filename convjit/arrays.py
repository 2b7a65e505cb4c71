"""Arrays as kernels want them: dtype, layout, alignment, overlap.

Knows NumPy's arrays and makes the only silent copies in the package. Does not know what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .layouts import CHANNELS_FIRST, Layout
from .parsing import Sizes, describe
from .runtime.launch import in_pieces
from .runtime.memory import allocate
from .typing import Array, DType

# --- dtypes ---------------------------------------------------------------------------------------------------------


class DTypeRow(NamedTuple):
    """How results of one dtype are computed."""

    compute: DType  # what kernels are compiled for
    is_complex: bool = False  # computed by parts


_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

# Integers are computed in int64 and truncated: arithmetic modulo 2^64 agrees with arithmetic modulo 2^8.
DTYPES: dict[DType, DTypeRow] = {
    np.dtype("float32"): DTypeRow(np.dtype("float32")),
    np.dtype("float64"): DTypeRow(np.dtype("float64")),
    np.dtype("float16"): DTypeRow(np.dtype("float32")),
    np.dtype("complex64"): DTypeRow(np.dtype("float32"), is_complex=True),
    np.dtype("complex128"): DTypeRow(np.dtype("float64"), is_complex=True),
    **{np.dtype(name): DTypeRow(np.dtype("int64")) for name in _INTEGERS},
}

# By bytes of an element: what arrays are viewed as to be moved and not computed with, once a size, not once a dtype.
# Of these loops are compiled, see `runtime.loops`.
AS_BITS = {1: "uint8", 2: "uint16", 4: "uint32", 8: "int64"}


def result_dtype(*arrays: Array) -> DType:
    """`np.result_type` of the arrays; bool counts as 0 and 1 and gives int64."""
    return common_dtype(tuple([array.dtype for array in arrays]))


def common_dtype(dtypes: tuple[DType, ...]) -> DType:
    """The same of their dtypes."""
    dtype = dtypes[0]
    for each in dtypes:  # a loop: most calls are of one dtype, and a generator takes as long as all of this
        if each is not dtype:
            dtype = np.result_type(*dtypes)
            break
    return np.dtype("int64") if dtype.kind == "b" else dtype


# Elements of a NumPy pass that takes a few milliseconds.
_WHOLE_PASS = 1 << 22


def sums_dtype(dtype: DType) -> DType:
    """The dtype that holds unrounded results of this one."""
    return dtype if DTYPES[dtype].is_complex else DTYPES[dtype].compute


# --- what comes in --------------------------------------------------------------------------------------------------


def as_array(function: str, name: str, value: Any, real: bool = False) -> Array:
    """Any array-like of numbers as a base-class ndarray, still in its own layout and dtype.

    `real` is whether the caller refuses complex numbers, so that no sentence here offers them.
    """
    if type(value) is not np.ndarray:
        value = _converted(function, name, value, real)
    dtype: DType = value.dtype
    if dtype not in DTYPES and dtype.kind != "b":
        native = _native(f"{function}: {name} has dtype", dtype, real)
        value = converted(function, f"a native copy of {name}", value, native)
    return value  # type: ignore[no-any-return]


def _native(told: str, dtype: DType, real: bool = False) -> DType:
    """The same in this machine's byte order; `told` begins the sentence that refuses it."""
    native: DType = dtype.newbyteorder("=") if dtype.kind in "iufc" else dtype  # others may have no byte order
    if native not in DTYPES and native.kind != "b":
        raise TypeError(f"{told} {dtype}, which is not supported; {_supported(real)}")
    return native


def _supported(real: bool) -> str:
    floats = "float16, float32 and float64" if real else "float16, float32, float64, complex64 and complex128"
    return f"bool, integers, {floats} are"


def _converted(function: str, name: str, value: Any, real: bool) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{function}: {name} is a masked array, whose mask would be ignored; use {name}.filled()")
    if getattr(value, "requires_grad", False):
        raise TypeError(f"{function}: {name} is a tensor that requires grad; pass {name}.detach()")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{function}: {name} is not a regular array: {error}") from None
    except Exception as error:
        raise TypeError(f"{function}: {name} cannot be read as an array: {' '.join(str(error).split())}") from None
    if array.dtype.kind not in "biufc" and not (isinstance(value, np.ndarray) or hasattr(value, "__array__")):
        if array.dtype.kind == "O" and array.ndim and not hasattr(value, "dtype"):
            raise TypeError(f"{function}: {name} has dtype object, which is not supported; {_supported(real)}")
        numbers = "real" if real else "real or complex"
        raise TypeError(f"{function}: {name} must be a {numbers} numeric array, got {describe(value)}")
    return np.asarray(array)


def as_images(function: str, name: str, array: Array, rank: int = 2, layout: Layout = CHANNELS_FIRST) -> Array:
    """One unbatched image `(C, H, W)` becomes a batch of one; so does one of another rank."""
    return array if len(batch_shape(function, name, array.shape, rank, layout)) == array.ndim else array[None]


def batch_shape(function: str, name: str, shape: Sizes, rank: int = 2, layout: Layout = CHANNELS_FIRST) -> Sizes:
    """The shape of what `as_images` makes of an array of this shape."""
    if len(shape) == rank + 2:
        return shape
    if len(shape) == rank + 1:
        return (1, *shape)
    raise ValueError(f"{function}: expected {name} of shape {layout.of_images(rank)}, got shape {shape}")


def shaped(function: str, name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """The array in another shape: a view, or one of a C-contiguous copy where axes that lie apart become one."""
    if array.shape == shape:
        return array
    if not array.flags.c_contiguous and [n for n in array.shape if n != 1] != [n for n in shape if n != 1]:
        array = _copied(function, f"a contiguous copy of {name}", array, array.dtype)
    return array.reshape(shape)


def as_dtype(function: str, name: str, value: Any) -> DType:
    """A dtype that convjit computes in."""
    try:
        found: DType = np.dtype("object" if value is None else value)  # NumPy takes None for float64
    except Exception:  # of a string that Python cannot parse a SyntaxError
        raise TypeError(f"{function}: {name} must be a dtype, got {describe(value)}") from None
    return _native(f"{function}: {name} is", found)


def ready(function: str, name: str, array: Array, dtype: DType) -> Array:
    """The array as kernels take it: this dtype, C-contiguous, aligned."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype == dtype:
        return array
    return _copied(function, f"a contiguous copy of {name}", array, dtype)


def all_ready(function: str, name: str, arrays: Sequence[Array], dtype: DType) -> Sequence[Array]:
    """The same of several, of which most calls have only those that are."""
    for array in arrays:
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and array.dtype == dtype):
            return [ready(function, name, each, dtype) for each in arrays]
    return arrays


def locked(array: Array) -> Array:
    """A fresh array as one that nobody can write again: of a read-only buffer.

    The flag of a view, which a large result is, anybody could set again.
    """
    return np.asarray(array.data.toreadonly())


# --- passes over whole arrays ---------------------------------------------------------------------------------------


def by_slices(operate: Callable[..., object], target: Array, *sources: Any) -> None:
    """`operate(target, *sources)`, slice by slice where they are large; sources are broadcast to the target's shape.

    So an interrupt does not wait for a pass over gigabytes. Like kernels, it signals no floating-point errors.
    """
    with np.errstate(all="ignore"):
        if target.size > _WHOLE_PASS:
            _cut(operate, target, *sources)
        else:
            operate(target, *sources)


def _cut(operate: Callable[..., object], target: Array, *sources: Any) -> None:
    axis = int(np.argmax(target.shape))
    arrays, before = (target, *[np.broadcast_to(s, target.shape) for s in sources]), (slice(None),) * axis
    in_pieces(
        lambda first, stop: operate(*(array[(*before, slice(first, stop))] for array in arrays)),
        target.shape[axis],
        target.size,
    )


def write(target: Array, source: Any) -> None:
    """`target[...] = source`, which is broadcast and converted.

    Integers wrap, as promised; a float64 that float32 cannot hold becomes an infinity, as NumPy's astype says.
    """
    by_slices(_copy, target, source)


def add(target: Array, source: Array) -> None:
    """`target += source`, which is broadcast and converted."""
    total: Any = partial(np.add, dtype=target.dtype, casting="unsafe")
    by_slices(lambda t, s: total(t, s, out=t), target, source)


def converted(function: str, what: str, array: Array, dtype: DType) -> Array:
    """The array in this dtype: itself, or a C-contiguous copy."""
    return array if array.dtype == dtype else _copied(function, what, array, dtype)


def _copied(function: str, what: str, array: Array, dtype: DType) -> Array:
    copy = allocate(function, what, array.shape, dtype)
    write(copy, array)
    return copy


def _copy(target: Array, source: Array) -> None:
    np.copyto(target, source, casting="unsafe")


# --- what goes out --------------------------------------------------------------------------------------------------


def as_out(function: str, out: Any, shape: tuple[int, ...], dtype: DType, **inputs: Array | None) -> Array:
    """Check the caller's `out`: refused unless the result can be written straight into it."""
    if type(out) is np.ma.MaskedArray or not isinstance(out, np.ndarray):
        raise TypeError(f"{function}: out must be a NumPy array, got {describe(out)}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"{function}: out must have shape {shape} and dtype {dtype}, got shape {out.shape} and dtype {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError(f"{function}: out is read-only")
    if not (out.flags.c_contiguous and out.flags.aligned):
        raise ValueError(f"{function}: out must be C-contiguous and aligned, got strides {out.strides}")
    for name, array in inputs.items():
        if array is not None and _overlap(out, array):
            raise ValueError(f"{function}: out overlaps {name}, which is still read while out is written")
    return out


def _overlap(out: Array, array: Array) -> bool:
    if not np.may_share_memory(out, array):
        return False
    try:
        return np.shares_memory(out, array, max_work=1000)  # type: ignore[arg-type]  # the stubs know two values only
    except np.exceptions.TooHardError:
        return True


__all__ = [
    "DTYPES",
    "DTypeRow",
    "allocate",
    "as_array",
    "as_images",
    "as_out",
    "add",
    "all_ready",
    "batch_shape",
    "by_slices",
    "common_dtype",
    "converted",
    "ready",
    "result_dtype",
    "shaped",
    "sums_dtype",
    "write",
]
