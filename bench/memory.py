"""How much memory this process takes from some moment on.

Knows what the system says about resident pages; does not know what they hold. Linux tells the most since a moment of
the caller's choice (proc(5), `clear_refs` and `VmHWM`), other systems the most since the process began (getrusage(2)):
there, growth below an earlier peak is not seen. None where the system says nothing.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_HIGH_WATER = "5"


class Growth:
    """Resident bytes above those at the moment when this was made."""

    def __init__(self) -> None:
        _give_back()
        self._resettable = _reset()
        self._before = self._resident() if self._resettable else _lifetime_peak()

    @staticmethod
    def _resident() -> int | None:
        return _status("VmRSS")

    def now(self) -> int | None:
        """What is taken now."""
        return _above(self._resident(), self._before) if self._resettable else None

    def peak(self) -> int | None:
        """The most that was taken at once since then."""
        return _above(_status("VmHWM") if self._resettable else _lifetime_peak(), self._before)


def _above(value: int | None, before: int | None) -> int | None:
    return None if value is None or before is None else max(0, value - before)


def _give_back() -> None:
    """Hand unused memory back to the system, so that taking it again is seen."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def _reset() -> bool:
    try:
        CLEAR.write_text(RESET_HIGH_WATER)
    except OSError:
        return False
    return _status("VmHWM") is not None


def _status(name: str) -> int | None:
    try:
        text = STATUS.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _lifetime_peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
