"""Copying runs of elements as `memcpy`, which LLVM turns into vector moves where the length is a constant.

A plain loop over a few dozen elements spends most of its time in the scalar loop that finishes what whole vectors leave
over, and in checks whether the arrays overlap.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from .plain import word_for

__all__ = ["copy_run"]


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


@word_for(copy_run)
def _copy_in_plain_code(to: Any, target: Any, at: Any, source: Any, start: Any, count: Any) -> None:
    places = to.place(target, at), to.place(source, start)
    cgutils.raw_memcpy(to.builder, *places, to.lifted(count), to.lifted(source.itemsize))
