"""Copying runs of elements as `memcpy`, which LLVM turns into vector moves where the length is a constant.

A plain loop over a few dozen elements spends most of its time in the scalar loop that finishes what whole vectors leave
over, and in checks whether the arrays overlap.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from .compile import kernel

__all__ = ["CHUNK", "copy_chunks", "copy_run", "element_size"]

# Elements a chunk: one or two 256-bit vectors.
CHUNK = 8


def _copy_in_python(target: Any, at: Any, source: Any, start: Any, count: Any) -> None:
    """target[at : at + count] = source[start : start + count], which do not overlap."""
    target[at : at + count] = source[start : start + count]


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    target_type, _, source_type, _, count_type = signature.args
    target = context.make_array(target_type)(context, builder, arguments[0])
    source = context.make_array(source_type)(context, builder, arguments[2])
    size = context.get_abi_sizeof(context.get_data_type(source_type.dtype))
    to = builder.gep(target.data, [arguments[1]])
    origin = builder.gep(source.data, [arguments[3]])
    count = context.cast(builder, arguments[4], count_type, types.intp)
    cgutils.raw_memcpy(builder, to, origin, count, size)
    return context.get_dummy_value()


def _typed_copy(typing_context: Any, target: Any, at: Any, source: Any, start: Any, count: Any) -> Any:
    contiguous = all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in (target, source))
    if contiguous and target.dtype == source.dtype:
        return types.void(target, types.intp, source, types.intp, types.intp), _emit
    return None


copy_run: Any = _copy_in_python if config.DISABLE_JIT else intrinsic(_typed_copy)


def _typed_size(typing_context: Any, array: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        return context.get_constant(types.intp, size)

    return (types.intp(array), emit) if isinstance(array, types.Array) else None


def _size_in_python(array: Any) -> Any:
    """Bytes an element; compiled it is a constant, where `array.itemsize` would be read from the array."""
    return array.itemsize


element_size: Any = _size_in_python if config.DISABLE_JIT else intrinsic(_typed_size)


@kernel
def copy_chunks(target: Any, at: Any, source: Any, start: Any, count: Any) -> None:
    """target[at : at + count] = source[start : start + count], in whole chunks.

    The caller guarantees that the elements up to the next multiple of `CHUNK` can be read, and may be overwritten.
    """
    for q in range(0, count, CHUNK):
        copy_run(target, at + q, source, start + q, CHUNK)
