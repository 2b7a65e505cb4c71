"""Functions emitted as LLVM IR: compiled by llvmlite alone, kept on disk, called by address.

An emitted function takes 64-bit integers only (addresses, counts) and returns nothing. Numba's functions reach it
through an address that they are given as data, never through a name: so their own compiled code, on disk or inside a
user's function, holds no copy of it and cannot call a stale one.

The first `micro.kernels(dtype)` of a process takes 0.6 s with `CONVJIT_CACHE=0`, and a few milliseconds from disk. As
intrinsics inside Numba's functions kernels would be compiled again with each function that calls them, and Numba's
vector width (256 bits on many processors that can do 512) would be theirs.
Source: llvmlite's documentation, "Execution engine"; Numba's `numba.core.codegen` for the target's options.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from enum import Enum, auto
from functools import cache as once
from types import MappingProxyType
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from . import cache
from .plain import word_for

INTEGER = ir.IntType(64)


class Target(NamedTuple):
    """What Numba compiles for, as LLVM describes it; `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` change it."""

    triple: str
    cpu: str
    features: str


@once
def target() -> Target:
    """The target of this process; asked once, as llvmlite takes a lock for it that a fork might find locked."""
    with global_compiler_lock:  # which no fork finds locked
        return Target(*_codegen().magic_tuple())


def _codegen() -> Any:
    return cpu_target.target_context.codegen()


class Passes(Enum):
    """What LLVM makes of a function before it becomes machine code: that takes as long as the rest, or longer."""

    # Its own choice: loops over elements become loops over vectors.
    ALL = auto()
    # For functions that steer and leave elements to others: 28 calls from compiled code, of 2 to 1300 us, took 0.97 to
    # 1.07 times as long as with all passes, and the first ones, `python -m bench.first_calls`, 0.6 to 0.8 times.
    FEW = auto()
    # For what is written as it shall run: register tiles, loops that only move elements. The largest tile gains 2 to
    # 5 % by all passes (its loop is unrolled), others nothing, and those of depthwise layers, whose loads they move,
    # lose 10 to 20 %.
    NONE = auto()


# Symbols of register tiles begin so; unless something else is asked for, they get no passes, and others all.
TILE = "tile_"

# Emits a function's body, without the return: body(builder, arguments).
Body = Callable[[Any, Sequence[Any]], None]

_AS_USUAL: Mapping[str, Passes] = MappingProxyType({})

# `Vectors.opaque` is a piece of assembly, if an empty one.
llvm.initialize_native_asmparser()

# Compiled code lives as long as its engine.
_engines: list[Any] = []
# Addresses of what this process has, by name and key: threads that call first at once compile once.
_made: dict[tuple[str, str], dict[str, int]] = {}
# Names of what this process has compiled, not found on disk.
anew: set[str] = set()


def compiled(
    name: str, functions: dict[str, tuple[int, Body]], features: str = "", passes: Mapping[str, Passes] = _AS_USUAL
) -> dict[str, int]:  # fmt: skip
    """Addresses of functions, given as `{symbol: (number of arguments, body)}`, compiled as one module.

    `features` are added to the target's. `name` is that of the file on disk. `passes` are those of functions that do
    not get what is usual.
    """
    with global_compiler_lock:  # which no fork finds locked
        key = hashlib.sha256(repr((sorted(functions), *target(), features)).encode()).hexdigest()[:24]
        if (name, key) in _made:
            return _made[name, key]
        machine = _machine(features)
        code = cache.read(name, key)
        if code is None:
            anew.add(name)
            code = machine.emit_object(_optimised(functions, machine, passes))
            cache.keep(name, key, code)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{target().triple}"'), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _engines.append(engine)
        _made[name, key] = {symbol: engine.get_function_address(symbol) for symbol in functions}
        return _made[name, key]


def assembly(
    functions: dict[str, tuple[int, Body]], features: str = "", passes: Mapping[str, Passes] = _AS_USUAL
) -> str:  # fmt: skip
    """What `compiled` makes of them, for people and tests to read."""
    machine = _machine(features)
    text: str = machine.emit_assembly(_optimised(functions, machine, passes))
    return text


def _machine(features: str) -> Any:
    options: dict[str, Any] = {"opt": 3}
    _codegen()._customize_tm_options(options)
    options["features"] = ",".join(part for part in (options["features"], features) if part)
    return llvm.Target.from_default_triple().create_target_machine(**options)


def _optimised(functions: dict[str, tuple[int, Body]], machine: Any, passes: Mapping[str, Passes]) -> Any:
    """A module of all functions, each with its passes behind it."""
    usual = {symbol: Passes.NONE if symbol.startswith(TILE) else Passes.ALL for symbol in functions}
    given = usual | dict(passes)
    parts = []
    for each in Passes:
        defined = {symbol for symbol in functions if given[symbol] is each}
        if defined:
            parts.append(_parsed(functions, defined))
            if each in _PASSES:
                _PASSES[each](parts[-1], machine)
    module, *others = parts
    for part in others:
        module.link_in(part)
    return module


def _run_all(module: Any, machine: Any) -> None:
    builder: Any = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)


def _run_few(module: Any, machine: Any) -> None:
    """Variables into registers, what was computed before, shorter instructions, fewer blocks."""
    builder: Any = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    manager: Any = llvm.create_new_function_pass_manager()
    manager.add_sroa_pass()
    manager.add_new_gvn_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            manager.run(function, builder)


_PASSES = {Passes.ALL: _run_all, Passes.FEW: _run_few}


def _parsed(functions: dict[str, tuple[int, Body]], defined: Set[str]) -> Any:
    """A module that knows all functions and defines some of them."""
    module = ir.Module()
    module.triple = target().triple
    for symbol, (parameters, body) in functions.items():  # which may call those before them
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INTEGER] * parameters), symbol)
        for attribute in ("noinline", "nounwind"):
            function.attributes.add(attribute)
        if symbol in defined:
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            body(builder, function.args)
            builder.ret_void()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return parsed


def emit_call(builder: Any, address: Any, *values: Any) -> None:
    """Emit a call of an emitted function."""
    kind = ir.FunctionType(ir.VoidType(), [INTEGER] * len(values))
    builder.call(builder.inttoptr(address, kind.as_pointer()), values)


def caller(parameters: int) -> Any:
    """`call(address, ...)` for kernels and plain code: call an emitted function of so many arguments."""

    def typed(typing_context: Any, address: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit_call(builder, *values)
            return context.get_dummy_value()

        return types.void(types.int64, *[types.int64] * parameters), codegen

    # Numba wants the number of arguments spelled out.
    names = ", ".join(f"a{i}" for i in range(parameters))
    namespace: dict[str, Any] = {"typed": typed}
    exec(f"def call(typing_context, address, {names}):\n    return typed(typing_context, address, {names})", namespace)
    call = intrinsic(namespace["call"])
    word_for(call)(lambda to, *values: emit_call(to.builder, *map(to.lifted, values)))
    return call
