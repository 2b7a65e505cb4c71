"""The micro-kernel that puts results of two phases where they belong: each beside the other's, element by element.

Knows rows and elements; does not know what phases are.
"""

from __future__ import annotations

from typing import Any

from ..runtime.emitting import Body
from ..simd.vectors import Vectors, index
from ..typing import DType


def weave(dtype: DType, lanes: int) -> Body:
    """target[r*pitch + 2*q + s] = source[r*source_pitch + s*apart + q] for 2*q + s < count, s < 2 and r < rows."""

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, source_pitch, apart, rows, count, target, pitch = arguments

        def weave_row(values: list[Any]) -> list[Any]:
            begin, to = values

            def whole(values: list[Any]) -> list[Any]:
                at, place = values
                for i, woven in enumerate(v.zipped(v.load(at), v.load(v.offset(at, apart)))):
                    v.store(woven, v.offset(place, i * lanes))
                return [v.offset(at, lanes), v.offset(place, 2 * lanes)]

            at, place = v.loop(builder.sdiv(count, index(2 * lanes)), [begin, to], whole)
            left = builder.srem(count, index(2 * lanes))

            def rest() -> list[Any]:
                seconds = builder.ashr(left, index(1))
                first = v.load_masked(at, v.first(builder.sub(left, seconds)))
                second = v.load_masked(v.offset(at, apart), v.first(seconds))
                for i, woven in enumerate(v.zipped(first, second)):
                    v.store_first([woven], [v.offset(place, i * lanes)], builder.sub(left, index(i * lanes)))
                return []

            v.either(left, rest, list)
            return [v.offset(begin, source_pitch), v.offset(to, pitch)]

        v.loop(rows, [v.pointer(source), v.pointer(target)], weave_row)

    return body
