"""What shapes, dtypes and options decide: found where the same was decided before.

A small convolution takes 10 us, and to check its arguments and choose its algorithm takes longer. Knows which options
may be compared; does not know what is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, ParamSpec, TypeVar

from ..parsing import are_plain

P = ParamSpec("P")
R = TypeVar("R")

# Problems whose decisions are kept: more than the layers of most networks.
_PROBLEMS = 512


class LookedUp(Generic[P, R]):
    """A function whose results are kept; what it refuses is refused anew each time.

    As a decorator; `decide.of(options)(...)` is a call, whose arguments hold these options.
    """

    def __init__(self, decide: Callable[P, R]) -> None:
        self.anew = decide
        self.kept: Callable[P, R] = lru_cache(maxsize=_PROBLEMS)(decide)

    def of(self, options: tuple[Any, ...]) -> Callable[P, R]:
        """The function for these options: True equals 1, which is kept, and a list cannot be looked up."""
        return self.kept if are_plain(options) else self.anew
