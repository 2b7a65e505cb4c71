"""The transform of weights, G * g * GT, with lanes = output channels.

Knows taps and vectors of output channels; does not know panels or where weights are kept.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1.
"""

from __future__ import annotations

from typing import Any

from ..runtime import emitting
from ..simd.vectors import Vectors, index
from ..typing import DType
from .cook_toom import Tile, matrices, store_products


def turn(dtype: DType, lanes: int) -> emitting.Body:
    """Transpose: target[column*lanes + row] = source[row*row_pitch + column]; rows from `rows` on are zero.

    Whole vectors of columns are written.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, row_pitch, rows, columns, target = arguments
        starts = [builder.mul(row_pitch, index(r)) for r in range(lanes)]
        all_rows = builder.icmp_signed(">=", rows, index(lanes))

        def block(values: list[Any]) -> list[Any]:
            place, to, left = values
            places = [v.offset(place, start) for start in starts]

            def masked() -> list[Any]:
                mask = v.first(left)
                exists = [builder.icmp_signed("<", index(r), rows) for r in range(lanes)]
                return [v.load_masked(at, v.only_if(here, mask)) for at, here in zip(places, exists, strict=True)]

            whole = builder.and_(all_rows, builder.icmp_signed(">=", left, index(lanes)))
            loaded = v.either(builder.zext(whole, left.type), lambda: [v.load(at) for at in places], masked)
            for i, column in enumerate(v.transposed(loaded)):
                v.store(column, v.offset(to, i * lanes))
            return [v.offset(place, lanes), v.offset(to, lanes * lanes), builder.sub(left, index(lanes))]

        blocks = builder.sdiv(builder.add(columns, index(lanes - 1)), index(lanes))
        v.loop(blocks, [v.pointer(source), v.pointer(target), columns], block)

    return body


def weights(dtype: DType, lanes: int, tile: Tile) -> emitting.Body:
    """U[window*r + s][c] = sum over i, j of G[r][i] * G[s][j] * tap[i][j] of channel c, lanes = output channels.

    Taps are vectors, `row_step` and `col_step` elements apart, which may be negative; those behind the first `rows` and
    `cols` are zero. Channels of taps lie `channel_pitch` apart, products `product_pitch`, channels of them `pitch`.
    """
    g, across = matrices(tile)[1], tile.taps

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        taps, row_step, col_step, rows, cols, channel_pitch, channels, target, product_pitch, pitch = arguments
        down, along = (
            [(builder.mul(step, index(i)), builder.icmp_signed("<", index(i), count)) for i in range(across)]
            for step, count in ((row_step, rows), (col_step, cols))
        )
        every = v.first(index(lanes))

        def tap(source: Any, row: tuple[Any, Any], col: tuple[Any, Any]) -> Any:
            place = v.offset(v.offset(source, row[0]), col[0])
            return v.load_masked(place, v.only_if(builder.and_(row[1], col[1]), every))

        def channel(values: list[Any]) -> list[Any]:
            source, to = values
            columns = [[tap(source, row, col) for row in down] for col in along]
            store_products(v, g, columns, to, product_pitch)
            return [v.offset(source, channel_pitch), v.offset(to, pitch)]

        v.loop(channels, [v.pointer(taps), v.pointer(target)], channel)

    return body
