"""Cores that somebody else has: while they do, calls run on their own threads.

A thread of OpenBLAS waits for its next product by spinning, for some 25 ms, and other processes compute. A team of as
many threads as there are cores then shares them with these, a slice of 4 ms each, and waits for whoever has none.

The calling thread's own clock tells: what it did not run for while its team did is nothing where cores are free, and a
slice where they are not. The clock of the process tells whether its other threads have the cores, while calls run
alone: no team is tried before these have stopped. Nothing tells that of another process, so teams are tried again after
a while, and after twice as long each time that it was in vain.
Knows clocks; does not know what runs, nor who has the cores. `python -m bench.peace` measures what it gains.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter_ns, process_time_ns, thread_time_ns
from typing import Any, NamedTuple

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
# Over how long other threads are looked at: Linux adds up their time at ticks, 1 to 10 ms apart (4 ms where this was
# measured).
_SPAN_NS = 10_000_000


class _Span(NamedTuple):
    """Time in which a thread computed alone, as far as this module knows."""

    began: int
    process: int
    thread: int
    ident: int

    @classmethod
    def begin(cls, now: int) -> _Span:
        """A span that begins now, on the calling thread."""
        return cls(now, process_time_ns(), thread_time_ns(), threading.get_ident())

    def others_leave_one_core(self, now: int) -> bool:
        """Whether other threads of this process had all cores but one, or nearly; no if another thread asks."""
        if threading.get_ident() != self.ident:
            return False
        others = process_time_ns() - self.process - (thread_time_ns() - self.thread)
        return 2 * others > (2 * numba.config.NUMBA_DEFAULT_NUM_THREADS - 3) * (now - self.began)


class _Watch:
    """What was seen of the last teams; threads that see something at once may each write it down."""

    def __init__(self) -> None:
        self.switches: int | None = None  # when a team lost time first, if the last one did
        self.until = 0  # when a team is tried again, at the earliest; 0 while cores are free
        self.wait = _FIRST_NS
        self.ended, self.caller = 0, 0  # when the last team was done, and whose it was: each thread has its own
        self.span: _Span | None = None  # what is looked at, while calls run on their own threads
        self.taken = False  # whether other threads of this process had the cores, in the last span


_seen = _Watch()


def are_free() -> bool:
    """Whether a team may be started."""
    seen = _seen
    if seen.until == 0:
        return True
    now, span = perf_counter_ns(), seen.span
    if span is None or now - span.began >= _SPAN_NS:
        seen.taken = span is not None and span.others_leave_one_core(now)
        seen.span = _Span.begin(now)
    return now >= seen.until and not seen.taken


def since_last_team() -> int:
    """Nanoseconds since the calling thread's team was done; very many if another thread had the last one."""
    seen = _seen
    return perf_counter_ns() - (seen.ended if seen.caller == threading.get_ident() else 0)


def watched(workers: int, start: Callable[..., None], *arguments: Any) -> None:
    """Start a team of so many workers, by `start(*arguments)`, and see whether it has its cores."""
    if resource is None or workers > numba.config.NUMBA_DEFAULT_NUM_THREADS:
        start(*arguments)
        return
    began, ran = perf_counter_ns(), thread_time_ns()
    start(*arguments)
    ended = perf_counter_ns()
    took = ended - began
    _look(took, took if took < _LOST_NS else thread_time_ns() - ran, ended)


def _look(took: int, ran: int, now: int) -> None:
    seen, lost = _seen, took - ran
    seen.ended, seen.caller = now, threading.get_ident()
    seen.span = None  # its own workers ran in it
    if lost < max(_LOST_NS, took // _LOST_PARTS):
        seen.switches, seen.until, seen.wait = None, 0, _FIRST_NS
        return
    # A thread that only waits for others loses time, too, but nobody is made to leave a core.
    switches, before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, seen.switches
    seen.switches = switches
    if before is not None and switches > before:
        seen.until, seen.wait = now + seen.wait, min(2 * seen.wait, _MOST_NS)
