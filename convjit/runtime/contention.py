"""Cores that somebody else has: while they do, calls run on their own threads.

A thread of OpenBLAS waits for its next product by spinning, for some 25 ms, and other processes compute. A team of as
many threads as there are cores then shares them with these, a slice of 4 ms each, and waits for whoever has none: on
two cores `a @ a` (200x200) in turn with `conv2d` (1x64x56x56, 64 filters 3x3) took 4.6 ms a pair,
where the convolution takes 1.4 ms alone and 2.6 ms on one thread; with this 3.6 ms (`python -m timeit -n 300 -s "import
numpy as np, convjit; a = np.ones((200, 200)); x = np.ones((1, 64, 56, 56), 'f4'); w = np.ones((64, 64, 3, 3), 'f4')"
"a @ a; convjit.conv2d(x, w, padding=1)"`).

The calling thread's own clock tells: what it did not run for while its team did is nothing where cores are free, and a
slice where they are not. Teams are tried again after a while, and after twice as long each time that it was in vain.
Knows clocks; does not know what runs, nor who has the cores.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns

import numba

try:
    import resource
except ImportError:  # on Windows: cores are taken to be free
    resource = None  # type: ignore[assignment]

# Where cores are free, a team's start and its end cost the calling thread less of its time than this, or, while it
# waits for the last tasks of others, less than one part in so many. (Integers: a call leaves no flag of arithmetic.)
_LOST_NS, _LOST_PARTS = 500_000, 5
# How long calls run on their own threads at first, and at most: how long OpenBLAS spins; and so long that teams which
# are tried in vain, a slice or two each, cost some per cent.
_FIRST_NS, _MOST_NS = 25_000_000, 100_000_000


class _Watch:
    """What was seen of the last teams; threads that see something at once may each write it down."""

    def __init__(self) -> None:
        self.switches: int | None = None  # when a team lost time first, if the last one did
        self.until = 0  # when a team is tried again; 0 while cores are free
        self.wait = _FIRST_NS


_seen = _Watch()


def are_free() -> bool:
    """Whether a team may be started."""
    return _seen.until == 0 or perf_counter_ns() >= _seen.until


def watched(workers: int, start: Callable[[], None]) -> None:
    """Start a team of so many workers, and see whether it has its cores."""
    if resource is None or workers > numba.config.NUMBA_DEFAULT_NUM_THREADS:
        start()
        return
    began, ran = perf_counter_ns(), thread_time_ns()
    start()
    ran, ended = thread_time_ns() - ran, perf_counter_ns()
    _look(ended - began, ran, ended)


def _look(took: int, ran: int, now: int) -> None:
    seen, lost = _seen, took - ran
    if lost < max(_LOST_NS, took // _LOST_PARTS):
        seen.switches, seen.until, seen.wait = None, 0, _FIRST_NS
        return
    # A thread that only waits for others loses time, too, but nobody is made to leave a core.
    switches, before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, seen.switches
    seen.switches = switches
    if before is not None and switches > before:
        seen.until, seen.wait = now + seen.wait, min(2 * seen.wait, _MOST_NS)
