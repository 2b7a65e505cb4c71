"""The micro-kernels that fill zero-padded planes: zeros, every `step`-th element of a row, zeros.

Know rows and elements; do not know images. Of `fill`, nothing outside the rows is read or written, since other workers
fill what lies beside them; `fill_many` is for planes that one worker fills one after another, and `fill_listed` for
small ones, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.emitting import Body
from ..simd.vectors import Vectors, index
from ..typing import DType


def fill(dtype: DType, lanes: int) -> Body:
    """target[r*pitch + q] = source[r*source_pitch + (q - before)*step], zero for q < before and q >= before + count.

    q < before + count + after; r < rows; strides are in elements.
    """

    def body(builder: Any, arguments: Any) -> None:
        f = _Filling(Vectors(builder, dtype, lanes), *arguments)
        v, width = f.v, f.width
        is_whole = v.flag("==", f.pitch, width)
        is_blank = builder.and_(is_whole, v.flag("==", f.count, index(0)))
        is_narrow = builder.and_(f.is_one, v.flag("<=", width, index(lanes)))
        is_wide = builder.and_(f.is_one, is_whole)
        for most in (f.before, f.after):
            is_wide = builder.and_(is_wide, v.flag("<=", most, index(lanes)))
        for least in (f.pitch, f.source_pitch):
            is_wide = builder.and_(is_wide, v.flag(">=", least, index(lanes)))
        v.either(
            is_blank, f.blank, lambda: v.either(is_narrow, f.narrow, lambda: v.either(is_wide, f.wide, f.any_rows))
        )

    return body


@dataclass
class _Filling:
    """The arguments of `fill`, and the ways to fill rows that it chooses from."""

    v: Vectors
    target: Any
    pitch: Any
    source: Any
    source_pitch: Any
    rows: Any
    before: Any
    count: Any
    after: Any
    step: Any

    def __post_init__(self) -> None:
        builder = self.v.builder
        self.target_rows, self.source_rows = self.v.pointer(self.target), self.v.pointer(self.source)
        self.width = builder.add(builder.add(self.before, self.count), self.after)
        self.is_one, self.is_two = (self.v.flag("==", self.step, index(n)) for n in (1, 2))

    def blank(self) -> list[Any]:
        """Zeros alone, in rows one behind another."""
        _clear(self.v, self.v.builder.mul(self.rows, self.width), self.target_rows)
        return []

    def narrow(self) -> list[Any]:
        """Rows of one vector at most, without a step: zeros are what the mask leaves out."""
        v, builder = self.v, self.v.builder
        read = v.between(self.before, builder.add(self.before, self.count))

        def copy_row(values: list[Any]) -> list[Any]:
            to, begin = values
            v.store_first([v.load_masked(begin, read)], [to], self.width)
            return self._following(to, begin)

        v.loop(self.rows, [self.target_rows, v.offset(self.source_rows, builder.neg(self.before))], copy_row)
        return []

    def wide(self) -> list[Any]:
        """Whole vectors: what a row writes and reads behind its end is the next row's, so the last one is cut."""
        v, builder = self.v, self.v.builder
        vectors, whole = _covering(v, self.count), builder.sub(self.rows, index(1))

        def copy_row(values: list[Any]) -> list[Any]:
            to, begin = values
            _copy_whole_row(v, to, begin, self.before, self.count, vectors)
            return self._following(to, begin)

        to, begin = v.loop(whole, [self.target_rows, self.source_rows], copy_row)
        v.loop(builder.sub(self.rows, v.greatest(whole, index(0))), [to, begin], self._fill_row)
        return []

    def any_rows(self) -> list[Any]:
        """Row by row, and nothing beside them."""
        self.v.loop(self.rows, [self.target_rows, self.source_rows], self._fill_row)
        return []

    def _following(self, to: Any, begin: Any) -> list[Any]:
        return [self.v.offset(to, self.pitch), self.v.offset(begin, self.source_pitch)]

    def _fill_row(self, values: list[Any]) -> list[Any]:
        v = self.v
        to, begin = values
        first = _clear(v, self.before, to)
        v.either(
            self.is_one,
            lambda: self._copy(begin, first, self._neighbours),
            lambda: v.either(
                self.is_two,
                lambda: self._copy(begin, first, self._every_second),
                lambda: self._copy_one_by_one(begin, first),
            ),
        )
        _clear(v, self.after, v.offset(first, self.count))
        return self._following(to, begin)

    def _copy(self, begin: Any, to: Any, load: Callable[[Any, Any, Any], Any]) -> list[Any]:
        _write(self.v, self.count, to, lambda done, left: load(begin, done, left))
        return []

    def _neighbours(self, begin: Any, done: Any, left: Any) -> Any:
        at = self.v.offset(begin, done)
        return self.v.load(at) if left is None else self.v.load_masked(at, self.v.first(left))

    def _every_second(self, begin: Any, done: Any, left: Any) -> Any:
        """The last element that counts is the last one that is read."""
        v, builder, lanes = self.v, self.v.builder, self.v.lanes
        at = v.offset(begin, builder.shl(done, index(1)))
        elements = builder.sub(builder.shl(index(lanes) if left is None else left, index(1)), index(1))
        halves = [
            v.load_masked(v.offset(at, i * lanes), v.first(builder.sub(elements, index(i * lanes)))) for i in range(2)
        ]
        return v.shuffle(halves[0], halves[1], range(0, 2 * lanes, 2))

    def _copy_one_by_one(self, begin: Any, to: Any) -> list[Any]:
        v = self.v

        def copy(values: list[Any]) -> list[Any]:
            v.builder.store(v.element(values[0]), values[1])
            return [v.offset(values[0], self.step), v.offset(values[1], 1)]

        v.loop(self.count, [begin, to], copy)
        return []


# Vectors of a row that is read with its zeros, as many as there are rows of 56 pixels with AVX-512, and the least bytes
# of one: 128-bit sets load no masked vectors.
_MASKED_VECTORS, _LEAST_MASKED_BYTES = 4, 32


def fill_many(dtype: DType, lanes: int) -> Body:
    """Planes one behind another: `top` zeros, rows of zeros, `count` elements and zeros, `bottom` zeros.

    target[p*each + top + r*width + before + q] = source[p*image + r*source_pitch + q], q < count, r < rows. At most
    `lanes` zeros are on either side of a row. Whole vectors are written: up to `lanes` elements behind a plane are
    spoiled, which the next one writes. Of rows without masks whole vectors are read, too, behind the source.

    Rows of a few vectors are read with their zeros, which a mask leaves out: that takes fewer stores. With AVX-512, 256
    planes of 14x14, 128 of 28x28 and 64 of 56x56 took 0.4, 0.5 and 0.8 of the time.
    """
    masked = range(1, _MASKED_VECTORS + 1) if lanes * dtype.itemsize >= _LEAST_MASKED_BYTES else ()

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        target, each, source, image, planes, top, rows, before, count, width, source_pitch, bottom = arguments

        def clear(vectors: Any, begin: Any) -> None:
            def clear_vector(values: list[Any]) -> list[Any]:
                v.store(v.zero, values[0])
                return [v.offset(values[0], lanes)]

            v.loop(vectors, [begin], clear_vector)

        of_top, of_row, of_bottom = (_covering(v, elements) for elements in (top, count, bottom))

        def fill_all(copy_row: Callable[[Any, Any], None]) -> list[Any]:
            def fill_row(values: list[Any]) -> list[Any]:
                to, begin = values
                copy_row(to, begin)
                return [v.offset(to, width), v.offset(begin, source_pitch)]

            def fill_plane(values: list[Any]) -> list[Any]:
                to, begin = values
                clear(of_top, to)
                behind, _ = v.loop(rows, [v.offset(to, top), begin], fill_row)
                clear(of_bottom, behind)
                return [v.offset(to, each), v.offset(begin, image)]

            v.loop(planes, [v.pointer(target), v.pointer(source)], fill_plane)
            return []

        def with_masks(vectors: int) -> list[Any]:
            starts = [builder.sub(before, index(i * lanes)) for i in range(vectors)]
            masks = [v.between(start, builder.add(start, count)) for start in starts]

            def copy_row(to: Any, begin: Any) -> None:
                first = v.offset(begin, builder.neg(before))
                found = [v.load_masked(v.offset(first, i * lanes), mask) for i, mask in enumerate(masks)]
                for i, value in enumerate(found):
                    v.store(value, v.offset(to, i * lanes))

            return fill_all(copy_row)

        def choose(sizes: Sequence[int]) -> list[Any]:
            if not sizes:
                return fill_all(lambda to, begin: _copy_whole_row(v, to, begin, before, count, of_row))
            is_size = v.flag("==", _covering(v, width), index(sizes[0]))
            return v.either(is_size, lambda: with_masks(sizes[0]), lambda: choose(sizes[1:]))

        choose(masked)

    return body


# Channels whose pixels are copied together, so that each is looked up once: their addresses fit into registers.
_CHANNELS_TOGETHER = 4


def fill_listed(dtype: DType, lanes: int) -> Body:
    """Planes of channels one behind another, of `each` elements: zeros but for pixels that are listed.

    target[c*each + pixels[i, 0]] = source[c*image + pixels[i, 1]] for i < count, of a list with three columns.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        target, each, source, image, channels, pixels, count = arguments
        first = v.integers(pixels)

        def fill_channels(number: int) -> Callable[[list[Any]], list[Any]]:
            def fill_them(values: list[Any]) -> list[Any]:
                targets, sources = ([start] for start in values)
                for _ in range(number):
                    targets.append(v.offset(targets[-1], each))
                    sources.append(v.offset(sources[-1], image))
                _clear(v, builder.mul(index(number), each), targets[0])

                def copy_pixel(values: list[Any]) -> list[Any]:
                    (pixel,) = values
                    to, met = v.element(pixel), v.element(v.offset(pixel, 1))
                    found = [v.element(v.offset(start, met)) for start in sources[:number]]
                    for start, element in zip(targets, found, strict=False):
                        builder.store(element, v.offset(start, to))
                    return [v.offset(pixel, 3)]

                v.loop(count, [first], copy_pixel)
                return [targets[number], sources[number]]

            return fill_them

        starts = [v.pointer(target), v.pointer(source)]
        together = index(_CHANNELS_TOGETHER)
        starts = v.loop(builder.sdiv(channels, together), starts, fill_channels(_CHANNELS_TOGETHER))
        v.loop(builder.srem(channels, together), starts, fill_channels(1))

    return body


def _clear(v: Vectors, count: Any, to: Any) -> Any:
    """Write `count` zeros; return the end."""
    return _write(v, count, to, lambda done, left: v.zero)


def _write(v: Vectors, count: Any, to: Any, load: Callable[[Any, Any], Any]) -> Any:
    """Write `count` elements, where `load(done, left)` gives the vector from element `done` on; return the end."""
    builder, lanes = v.builder, index(v.lanes)

    def write_vector(values: list[Any]) -> list[Any]:
        (done,) = values
        v.store(load(done, None), v.offset(to, done))
        return [builder.add(done, lanes)]

    (done,) = v.loop(builder.sdiv(count, lanes), [index(0)], write_vector)
    left = builder.sub(count, done)

    def write_rest() -> list[Any]:
        v.store_first([load(done, left)], [v.offset(to, done)], left)
        return []

    v.either(left, write_rest, list)
    return v.offset(to, count)


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
