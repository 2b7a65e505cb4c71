"""The micro-kernel that fills rows of a zero-padded plane: zeros, every `step`-th element of a row, zeros.

Knows rows and elements; does not know images. Nothing outside the rows is read or written, since other workers fill
what lies beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..runtime.emitting import Body
from ..simd.vectors import Vectors, index
from ..typing import DType


def fill(dtype: DType, lanes: int) -> Body:
    """target[r*pitch + q] = source[r*source_pitch + (q - before)*step], zero for q < before and q >= before + count.

    q < before + count + after; r < rows; strides are in elements.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        target, pitch, source, source_pitch, rows, before, count, after, step = arguments

        def write(count: Any, to: Any, load: Callable[[Any, Any], Any]) -> Any:
            """Write `count` elements, where `load(done, left)` gives the vector from element `done` on."""

            def write_vector(values: list[Any]) -> list[Any]:
                (done,) = values
                v.store(load(done, None), v.offset(to, done))
                return [builder.add(done, index(lanes))]

            (done,) = v.loop(builder.sdiv(count, index(lanes)), [index(0)], write_vector)
            left = builder.sub(count, done)

            def write_rest() -> list[Any]:
                v.store_masked(load(done, left), v.offset(to, done), v.first(left))
                return []

            v.either(left, write_rest, list)
            return v.offset(to, count)

        def fill_row(values: list[Any]) -> list[Any]:
            to, begin = values

            def neighbours(done: Any, left: Any) -> Any:
                at = v.offset(begin, done)
                return v.load(at) if left is None else v.load_masked(at, v.first(left))

            def every_second(done: Any, left: Any) -> Any:
                # The last element that counts is the last one that is read.
                at = v.offset(begin, builder.shl(done, index(1)))
                elements = builder.sub(builder.shl(index(lanes) if left is None else left, index(1)), index(1))
                halves = [
                    v.load_masked(v.offset(at, i * lanes), v.first(builder.sub(elements, index(i * lanes))))
                    for i in range(2)
                ]
                return v.shuffle(halves[0], halves[1], range(0, 2 * lanes, 2))

            def one_by_one() -> list[Any]:
                def copy(values: list[Any]) -> list[Any]:
                    builder.store(v.element(values[0]), values[1])
                    return [v.offset(values[0], step), v.offset(values[1], 1)]

                v.loop(count, [begin, first], copy)
                return []

            first = write(before, to, lambda done, left: v.zero)

            def dense() -> list[Any]:
                write(count, first, neighbours)
                return []

            def halved() -> list[Any]:
                write(count, first, every_second)
                return []

            v.either(is_one, dense, lambda: v.either(is_two, halved, one_by_one))
            write(after, v.offset(first, count), lambda done, left: v.zero)
            return [v.offset(to, pitch), v.offset(begin, source_pitch)]

        is_one, is_two = (builder.zext(builder.icmp_signed("==", step, index(n)), step.type) for n in (1, 2))
        v.loop(rows, [v.pointer(target), v.pointer(source)], fill_row)

    return body
