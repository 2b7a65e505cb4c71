"""Arrays without a count of their users: what a caller keeps alive need not be counted by what it calls.

Numba counts the users of an array's memory with atomic additions, at 20 cycles each, wherever a function takes an array
or a part of one: a task of a hundred nanoseconds would spend half of them so. Parallel loops get bare arrays anyway.
Knows how Numba keeps an array; does not know whose it is.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .options import COMPILED


@intrinsic
def _uncounted(typing_context: Any, value: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not isinstance(signature.return_type, types.Array):
            return arguments[0]
        array = context.make_array(signature.return_type)(context, builder, arguments[0])
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        return array._getvalue()

    return value(value), emit


def _as_it_is(value: Any) -> Any:
    return value


# `borrowed(array)` is the array, uncounted: it must not outlive the call. Anything else is itself.
borrowed = _uncounted if COMPILED else _as_it_is
