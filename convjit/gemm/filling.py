"""The micro-kernels that fill zero-padded planes: zeros, every `step`-th element of a row, zeros.

Know rows and elements; do not know images. Of `fill`, nothing outside the rows is read or written, since other workers
fill what lies beside them; `fill_many` is for planes that one worker fills one after another.
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
                v.store_first([load(done, left)], [v.offset(to, done)], left)
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

        is_one, is_two = (v.flag("==", step, index(n)) for n in (1, 2))

        def row_by_row(rows: Any, to: Any, begin: Any) -> list[Any]:
            v.loop(rows, [to, begin], fill_row)
            return []

        def narrow() -> list[Any]:
            """Rows of one vector at most, without a step: zeros are what the mask leaves out."""
            read = v.between(before, builder.add(before, count))

            def copy_row(values: list[Any]) -> list[Any]:
                to, begin = values
                v.store_first([v.load_masked(begin, read)], [to], width)
                return [v.offset(to, pitch), v.offset(begin, source_pitch)]

            v.loop(rows, [target_rows, v.offset(source_rows, builder.neg(before))], copy_row)
            return []

        def wide() -> list[Any]:
            """Whole vectors: what a row writes and reads behind its end is the next row's, so the last one is cut."""
            vectors = _covering(v, count)

            def copy_row(values: list[Any]) -> list[Any]:
                to, begin = values
                _copy_whole_row(v, to, begin, before, count, vectors)
                return [v.offset(to, pitch), v.offset(begin, source_pitch)]

            whole = builder.sub(rows, index(1))
            to, begin = v.loop(whole, [target_rows, source_rows], copy_row)
            return row_by_row(builder.sub(rows, v.greatest(whole, index(0))), to, begin)

        def blank() -> list[Any]:
            write(builder.mul(rows, width), target_rows, lambda done, left: v.zero)
            return []

        target_rows, source_rows = v.pointer(target), v.pointer(source)
        width = builder.add(builder.add(before, count), after)
        is_whole = v.flag("==", pitch, width)
        is_blank = builder.and_(is_whole, v.flag("==", count, index(0)))
        is_narrow = builder.and_(is_one, v.flag("<=", width, index(lanes)))
        is_wide = builder.and_(is_one, is_whole)
        for most in (before, after):
            is_wide = builder.and_(is_wide, v.flag("<=", most, index(lanes)))
        for least in (pitch, source_pitch):
            is_wide = builder.and_(is_wide, v.flag(">=", least, index(lanes)))

        def otherwise() -> list[Any]:
            return v.either(is_wide, wide, lambda: row_by_row(rows, target_rows, source_rows))

        v.either(is_blank, blank, lambda: v.either(is_narrow, narrow, otherwise))

    return body


def fill_many(dtype: DType, lanes: int) -> Body:
    """Planes one behind another: `top` zeros, rows of zeros, `count` elements and zeros, `bottom` zeros.

    target[p*each + top + r*width + before + q] = source[p*image + r*source_pitch + q], q < count, r < rows. At most
    `lanes` zeros are on either side of a row. Whole vectors are read and written: up to `lanes` elements behind a plane
    are spoiled, which the next one writes, and as many behind its source are read.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        target, each, source, image, planes, top, rows, before, count, width, source_pitch, bottom = arguments

        def clear(vectors: Any, begin: Any) -> None:
            def clear_vector(values: list[Any]) -> list[Any]:
                v.store(v.zero, values[0])
                return [v.offset(values[0], lanes)]

            v.loop(vectors, [begin], clear_vector)

        of_top, of_row, of_bottom = (_covering(v, elements) for elements in (top, count, bottom))

        def fill_row(values: list[Any]) -> list[Any]:
            to, begin = values
            _copy_whole_row(v, to, begin, before, count, of_row)
            return [v.offset(to, width), v.offset(begin, source_pitch)]

        def fill_plane(values: list[Any]) -> list[Any]:
            to, begin = values
            clear(of_top, to)
            behind, _ = v.loop(rows, [v.offset(to, top), begin], fill_row)
            clear(of_bottom, behind)
            return [v.offset(to, each), v.offset(begin, image)]

        v.loop(planes, [v.pointer(target), v.pointer(source)], fill_plane)

    return body


def _covering(v: Vectors, elements: Any) -> Any:
    """Vectors that cover so many elements."""
    return v.builder.sdiv(v.builder.add(elements, index(v.lanes - 1)), index(v.lanes))


def _copy_whole_row(v: Vectors, to: Any, begin: Any, before: Any, count: Any, vectors: Any) -> None:
    """A row of zeros, `count` elements in so many whole vectors, and zeros: as many as a vector has, at either end."""
    v.store(v.zero, to)
    first = v.offset(to, before)

    def copy_vector(values: list[Any]) -> list[Any]:
        v.store(v.load(values[0]), values[1])
        return [v.offset(pointer, v.lanes) for pointer in values]

    v.loop(vectors, [begin, first], copy_vector)
    v.store(v.zero, v.offset(first, count))
