"""Functions emitted as LLVM IR, callable from kernels.

An emitted function takes flat arrays of one dtype, as pointers to their elements, and integers. It is one private LLVM
function a dtype, never inlined: it is optimised once, and travels in its callers' cache entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Called as body(builder, scalar type, arguments): emits the function's body, without the return.
Body = Callable[[Any, Any, list[Any]], None]


def emitted(name: str, parameters: int, body: Body) -> Any:
    """A function of so many arguments, arrays first or last as its caller likes, for use inside kernels."""

    def typed(typing_context: Any, *arguments: Any) -> Any:
        arrays = [a for a in arguments if isinstance(a, types.Array)]
        dtype = arrays[0].dtype
        assert all(a.ndim == 1 and a.layout == "C" and a.dtype == dtype for a in arrays)
        signature = types.void(*(a if isinstance(a, types.Array) else types.intp for a in arguments))

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            scalar = context.get_data_type(dtype)
            passed = [
                context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, values, strict=True)
            ]
            builder.call(_function(builder.module, f"convjit_{name}_{dtype}", passed, scalar), passed)
            return context.get_dummy_value()

        return signature, codegen

    def _function(module: Any, symbol: str, passed: list[Any], scalar: Any) -> Any:
        if symbol in module.globals:
            return module.globals[symbol]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [value.type for value in passed]), symbol)
        function.linkage = "internal"
        for attribute in ("noinline", "nounwind"):
            function.attributes.add(attribute)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        body(builder, scalar, list(function.args))
        builder.ret_void()
        return function

    # Numba wants the number of arguments spelled out.
    names = ", ".join(f"a{i}" for i in range(parameters))
    namespace: dict[str, Any] = {"typed": typed}
    exec(f"def {name}(typing_context, {names}):\n    return typed(typing_context, {names})", namespace)
    return intrinsic(namespace[name])
