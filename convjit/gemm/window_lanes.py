"""Windows as lanes: how they are loaded, however far apart they lie, and a line of any number of them.

Knows pixels and steps; does not know what is made of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..simd.vectors import Vectors, index

# Steps from a window to the next that pixels are shuffled for; of larger ones, each is loaded by itself.
STEPS = 2
# Windows far apart lie in cache lines of their own, of which a first-level cache keeps eight at any distance.
FAR = 8


def load(v: Vectors, place: Any, step: Any, known: int | None) -> Any:
    """A pixel of each window; `known` is the step, 1 or 2, if it is known here."""
    return v.load_spaced(place, step, v.all) if known is None else v.load_every(place, known)


def over_windows(
    v: Vectors, count: Any, begin: list[Any], windows: Callable[[int, list[Any]], list[Any]]
) -> list[Any]:  # fmt: skip
    """`values = windows(together, values)` over `count` windows: those of a vector together, then half as many.

    What whole vectors leave takes narrower ones, as masked stores are slow.
    """
    builder, together = v.builder, v.lanes
    values, times = begin, builder.sdiv(count, index(together))
    while together > 0:
        values = v.loop(times, values, partial(windows, together))
        together //= 2
        times = builder.zext(v.is_set(builder.and_(count, index(together))), times.type)
    return values
