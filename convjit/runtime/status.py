"""Floating-point status: sticky flags that arithmetic sets, and that NumPy reads; and the mode that it rounds in.

Kernels compute with lanes that they then throw away, and with whatever numbers the caller has. A flag that they left
set would surface as a `RuntimeWarning` in the caller's next NumPy function, as some look at the flags without clearing
them first. And a thread may round upwards, or take denormal numbers for zeros (`torch.set_flush_denormal`), where those
of a team do not: a result would tell who computed it. So each loop over tasks begins in the mode that threads are born
with, and puts flags and mode of its thread back.
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


# x86's control and status word: six flags, and above them the mode, which is this where a thread begins.
_FLAGS, _MODE = 0x3F, 0x1F80


def _emit_read(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    if MACHINE in _X86:
        word = cgutils.alloca_once(builder, _INT32)
        _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(word, cgutils.voidptr_t))
        status = builder.zext(builder.load(word), _INT64)
        mode = builder.and_(status, ir.Constant(_INT64, ~_FLAGS))
        with builder.if_then(builder.icmp_signed("!=", mode, ir.Constant(_INT64, _MODE)), likely=False):
            _write_x86(builder, ir.Constant(_INT64, _MODE))
        return status
    if MACHINE in _ARM:  # two registers of 32 bits
        flags, mode = (_call(builder, f"llvm.aarch64.get.{name}", _INT64) for name in ("fpsr", "fpcr"))
        with builder.if_then(builder.icmp_signed("!=", mode, ir.Constant(_INT64, 0)), likely=False):
            _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), ir.Constant(_INT64, 0))
        return builder.or_(flags, builder.shl(mode, ir.Constant(_INT64, 32)))
    return ir.Constant(_INT64, 0)


def _emit_write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    (status,) = arguments
    if MACHINE in _X86:
        _write_x86(builder, status)
    elif MACHINE in _ARM:
        low = ir.Constant(_INT64, (1 << 32) - 1)
        mode = builder.lshr(status, ir.Constant(_INT64, 32))
        _call(builder, "llvm.aarch64.set.fpsr", ir.VoidType(), builder.and_(status, low))
        with builder.if_then(builder.icmp_signed("!=", mode, ir.Constant(_INT64, 0)), likely=False):
            _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)
    return context.get_dummy_value()


def _write_x86(builder: Any, status: Any) -> None:
    word = cgutils.alloca_once_value(builder, builder.trunc(status, _INT32))
    _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(word, cgutils.voidptr_t))


def _typed_read(typing_context: Any) -> Any:
    return types.int64(), _emit_read


def _typed_write(typing_context: Any, flags: Any) -> Any:
    return types.void(types.int64), _emit_write


def _read_in_python() -> int:
    """Flags and mode of this thread, to be given to `write_status`; the mode is the usual one from here on."""
    return 0


def _write_in_python(flags: int) -> None:
    """Put flags and mode of this thread back; NumPy scalars, which run where kernels are not compiled, set none."""


read_status: Any = intrinsic(_typed_read) if COMPILED else _read_in_python
write_status: Any = intrinsic(_typed_write) if COMPILED else _write_in_python

word_for(read_status)(lambda to: _emit_read(None, to.builder, None, ()))
word_for(write_status)(lambda to, flags: _emit_write(cpu_target.target_context, to.builder, None, (flags,)))

# What the twins call by name.
TWIN_NAMES = {"read_status": read_status, "write_status": write_status}
