"""Floating-point status: sticky flags that arithmetic sets, and that NumPy reads.

Kernels compute with lanes that they then throw away, and with whatever numbers the caller has. A flag that they left
set would surface as a `RuntimeWarning` in the caller's next NumPy function, as some look at the flags without clearing
them first. So each loop over tasks puts the flags of its thread back.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .options import COMPILED
from .plain import word_for

MACHINE = platform.machine().lower()
_X86, _ARM = ("x86_64", "amd64"), ("aarch64", "arm64")
# Elsewhere flags stay as kernels leave them.
KNOWN = (*_X86, *_ARM)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call one of LLVM's intrinsics."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _emit_read(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    if MACHINE in _X86:
        word = cgutils.alloca_once(builder, _INT32)
        _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(word, cgutils.voidptr_t))
        return builder.zext(builder.load(word), _INT64)
    if MACHINE in _ARM:
        return _call(builder, "llvm.aarch64.get.fpsr", _INT64)
    return ir.Constant(_INT64, 0)


def _emit_write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    (flags,) = arguments
    if MACHINE in _X86:
        word = cgutils.alloca_once_value(builder, builder.trunc(flags, _INT32))
        _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(word, cgutils.voidptr_t))
    elif MACHINE in _ARM:
        _call(builder, "llvm.aarch64.set.fpsr", ir.VoidType(), flags)
    return context.get_dummy_value()


def _typed_read(typing_context: Any) -> Any:
    return types.int64(), _emit_read


def _typed_write(typing_context: Any, flags: Any) -> Any:
    return types.void(types.int64), _emit_write


def _read_in_python() -> int:
    """The flags of this thread, to be given to `write_status`."""
    return 0


def _write_in_python(flags: int) -> None:
    """Put the flags of this thread back; NumPy scalars, which run where kernels are not compiled, set none."""


read_status: Any = intrinsic(_typed_read) if COMPILED else _read_in_python
write_status: Any = intrinsic(_typed_write) if COMPILED else _write_in_python

word_for(read_status)(lambda to: _emit_read(None, to.builder, None, ()))
word_for(write_status)(lambda to, flags: _emit_write(cpu_target.target_context, to.builder, None, (flags,)))

# What the twins call by name.
TWIN_NAMES = {"read_status": read_status, "write_status": write_status}
