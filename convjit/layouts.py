"""Where images have their channels: before their pixels, (N, C, H, W), or behind them, (N, H, W, C).

Knows names and shapes; does not know arrays. A problem is told with channels first whatever its images' layout, which
says how that shape lies in memory, and how errors show it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .parsing import Sizes, describe

_LETTERS = {1: "L", 2: "HW", 3: "DHW"}


class Layout(NamedTuple):
    """One of the two."""

    channels_last: bool = False

    def lying(self, shape: Sizes) -> Sizes:
        """How a shape (N, C, ...) lies in memory."""
        return (shape[0], *shape[2:], shape[1]) if self.channels_last else shape

    def told(self, shape: Sizes) -> Sizes:
        """The shape (N, C, ...) of what lies so."""
        return (shape[0], shape[-1], *shape[1:-1]) if self.channels_last else shape

    def of_images(self, rank: int) -> str:
        """What shapes images may have: `(N, C, H, W) or (C, H, W)`."""
        letters = [*_LETTERS[rank], "C"] if self.channels_last else ["C", *_LETTERS[rank]]
        return f"({', '.join(['N', *letters])}) or ({', '.join(letters)})"


CHANNELS_FIRST, CHANNELS_LAST = Layout(), Layout(channels_last=True)

_NAMES = {"NCHW": CHANNELS_FIRST, "NHWC": CHANNELS_LAST}
_ELSEWHERE = {"channels_first": "NCHW", "channels_last": "NHWC", "nchw": "NCHW", "nhwc": "NHWC"}


def as_layout(function: str, name: Any) -> Layout:
    """The layout of this name, or an error that says which there are."""
    if not isinstance(name, str):
        raise TypeError(f"{function}: layout must be 'NCHW' or 'NHWC', got {describe(name)}")
    found = _NAMES.get(name)
    if found is None:
        hint = f"; {_ELSEWHERE[name]!r} is what that is called here" if name in _ELSEWHERE else ""
        raise ValueError(f"{function}: layout must be 'NCHW' or 'NHWC', got {name!r}{hint}")
    return found
