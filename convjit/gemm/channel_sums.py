"""The micro-kernel that adds up pixels of channels: lanes are channels, squares of pixels are transposed on the way.

Knows one chain for each channel; does not know where blocks of a sum begin and end.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..runtime import emitting
from ..runtime.compile import kernel, passed
from ..simd import isa
from ..simd.vectors import Vectors, index
from ..typing import Array, DType

# What compiled code is told of the kernel for a dtype, an int64 array.
ELEMENT = 0  # bytes an element
LANES = 1  # channels that are done at once
EXTEND = 2


@cache
def kernels(dtype: DType) -> Array:
    """The kernel of a dtype for this machine, compiled or loaded on the first call."""
    row, lanes = isa.here(), isa.lanes(dtype)
    functions = {"extend": (5, _extend(dtype, lanes))}
    addresses = emitting.compiled(f"{__name__}.{dtype}.{row.name}", functions, row.features)
    return passed((dtype.itemsize, lanes, addresses["extend"]))


def _extend(dtype: DType, lanes: int) -> emitting.Body:
    """chains[j] += source[j*pitch + q] for q < count, q in order, and channels j < channels, at most a vector of them.

    Chains that began with +0 are never -0, so that zeros for pixels that are not there do not show.
    """

    def body(builder: Any, arguments: Any) -> None:
        v = Vectors(builder, dtype, lanes)
        source, pitch, channels, count, chains = arguments
        place = v.pointer(chains)
        is_there = [builder.icmp_signed(">", channels, index(j)) for j in range(lanes)]
        rows = [v.pointer(source)]
        for _ in range(1, lanes):
            rows.append(v.offset(rows[-1], pitch))

        def square(at: Any, chain: Any, load: Any) -> Any:
            for pixels in v.transposed([load(v.offset(row, at), j) for j, row in enumerate(rows)]):
                chain = v.add(chain, pixels)
            return chain

        def add_squares(load: Any) -> list[Any]:
            def whole(turn: Any, values: list[Any]) -> list[Any]:
                return [square(builder.mul(turn, index(lanes)), values[0], load)]

            return v.counted_loop(builder.sdiv(count, index(lanes)), [v.load(place)], whole)

        every = v.first(index(lanes))
        is_full = v.flag(">=", channels, index(lanes))
        (chain,) = v.either(
            is_full,
            lambda: add_squares(lambda at, j: v.load(at)),
            lambda: add_squares(lambda at, j: v.load_masked(at, v.only_if(is_there[j], every))),
        )
        rest = builder.srem(count, index(lanes))

        def add_rest() -> list[Any]:
            mask = v.first(rest)
            done = builder.sub(count, rest)
            return [square(done, chain, lambda at, j: v.load_masked(at, v.only_if(is_there[j], mask)))]

        (chain,) = v.either(rest, add_rest, lambda: [chain])
        v.store(chain, place)

    return body


_call_extend = emitting.caller(5)


@kernel
def extend_chains(kernels: Any, source: Any, pitch: Any, channels: Any, count: Any, chains: Any) -> None:
    """chains[j] += source[j*pitch + q], q < count in order, see `_extend`; `source` and `chains` are addresses."""
    _call_extend(kernels[EXTEND], source, pitch, channels, count, chains)
