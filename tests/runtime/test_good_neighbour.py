"""What a call must leave as it was: the state of the process around it, and its memory.

The calls are those of `every_call`, made in a process of their own whose state is read after each of them.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import locale
import logging
import os
import platform
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import every_call
import fresh
import numba
import numpy as np
import pytest
from fresh import output
from numba.core.runtime import rtsys

import convjit
from convjit.runtime import contention

ON_LINUX = sys.platform == "linux"

# --- the state of a process, by aspect -------------------------------------------------------------------------------


def _floating_point_control() -> Any:
    """The control words of the calling thread, without the flags that arithmetic raises."""
    if not (ON_LINUX and platform.machine() == "x86_64"):
        return None
    environment = (ctypes.c_uint32 * 8)()  # glibc's fenv_t: the x87 control word first, MXCSR last
    assert ctypes.CDLL("libm.so.6").fegetenv(environment) == 0
    return environment[0] & 0xFFFF, environment[7] & ~0x3F


@numba.njit(parallel=True)
def _halves_and_sums(tiny: Any, halves: Any, sums: Any) -> None:
    for i in numba.prange(tiny.size):
        halves[i] = tiny[i] * 0.5
        sums[i] = 1.0 + tiny[i] * 2.0**1019  # 1 and 3/16 of a unit in the last place


def _arithmetic(run: Callable[..., None] = _halves_and_sums) -> Any:
    """What the pool's threads make of denormal numbers, and how they round."""
    tiny = np.full(64 * numba.config.NUMBA_NUM_THREADS, 2.0**-1074 * 6)
    halves, sums = np.empty_like(tiny), np.empty_like(tiny)
    run(tiny, halves, sums)
    return sorted({float(value).hex() for value in np.concatenate([halves, sums])})


def _lines_of_status(*fields: str) -> list[str]:
    """Lines that the kernel writes about this process: signals and the like that C code may have changed, too."""
    if not ON_LINUX:
        return []
    return [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(fields)]


def _caught_signals() -> int:
    """The set of signals that have handlers, but for the two that glibc takes when it starts the first thread."""
    return sum(int(line.split()[1], 16) & ~(1 << 31 | 1 << 32) for line in _lines_of_status("SigCgt"))


def _affinities() -> list[list[int]]:
    """The sets of cores on which threads of this process may run."""
    if not ON_LINUX:
        return []
    return sorted({tuple(sorted(os.sched_getaffinity(int(task)))) for task in os.listdir("/proc/self/task")})


def _threads_of_the_process() -> int:
    return len(os.listdir("/proc/self/task")) if ON_LINUX else threading.active_count()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if ON_LINUX else 0


_warned: list[str] = []
_raised: list[str] = []

ASPECTS: dict[str, Callable[[], Any]] = {
    "environment": lambda: dict(os.environ),
    "floating-point control": _floating_point_control,
    "NumPy's error state": lambda: (np.geterr(), np.geterrcall()),
    "warnings shown": _warned.copy,
    "floating-point errors raised": _raised.copy,
    "warning filters": lambda: warnings.filters.copy(),
    "display of warnings": lambda: (warnings.showwarning, warnings.formatwarning),
    "NumPy's random state": lambda: [str(part) for part in np.random.get_state()],
    "random state": random.getstate,
    "signal handlers": lambda: [signal.getsignal(number) for number in sorted(signal.valid_signals())],
    "signals of the process": lambda: [*_lines_of_status("SigBlk", "SigIgn"), _caught_signals()],
    "umask": lambda: _lines_of_status("Umask"),
    "locale": lambda: locale.setlocale(locale.LC_ALL),
    "working directory": os.getcwd,
    "recursion limit": sys.getrecursionlimit,
    "switch interval": sys.getswitchinterval,
    "affinity of threads": _affinities,
    "exception hooks": lambda: (sys.excepthook, threading.excepthook, sys.unraisablehook),
    "tracing": lambda: (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()),
    "garbage collector": lambda: (gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks.copy()),
    "logging": lambda: (logging.root.level, logging.root.handlers.copy(), logging.root.manager.disable),
    "standard streams": lambda: (sys.stdin, sys.stdout, sys.stderr),
    "module path": sys.path.copy,
    "NumPy's printing": np.get_printoptions,
    "file descriptors": _descriptors,
}
# Reading these starts Numba's pool, which is for the first call to do.
ASPECTS_OF_THE_POOL: dict[str, Callable[[], Any]] = {
    "Numba's thread mask": numba.get_num_threads,
    "arithmetic of the pool's threads": _arithmetic,
    "threads": _threads_of_the_process,
}


def _first_changes(thread_mask: int) -> dict[str, str]:
    """Make every call; for each aspect that one changed, the first that did, with what was before and after."""
    before = {aspect: read() for aspect, read in ASPECTS.items()}
    before["Numba's thread mask"] = thread_mask
    before["arithmetic of the pool's threads"] = _arithmetic(_halves_and_sums.py_func)
    changes: dict[str, str] = {}
    calls = every_call.every_call()  # makes layers, so it comes after the state before
    large = next(call for call in calls if call.name.endswith("large"))
    for call in [large, *calls]:
        try:
            call()
        except FloatingPointError as error:
            _raised.append(str(error))
        for aspect, read in (ASPECTS | ASPECTS_OF_THE_POOL).items():
            after = read()
            if after != before.setdefault(aspect, after):
                changes.setdefault(aspect, f"{call.name}: {_difference(before[aspect], after)}")
    return changes


def _difference(before: Any, after: Any) -> str:
    """Both values; of dictionaries only what is not the same."""
    if isinstance(before, dict):
        same = {key for key in before if key in after and after[key] == before[key]}
        before, after = ({key: value for key, value in each.items() if key not in same} for each in (before, after))
    return f"{before} became {after}"


def report_changes(thread_mask: int | None, errors: str) -> None:
    """Print what the calls of a fresh process change, under a thread mask and an error state of the caller's."""
    if thread_mask is not None:
        numba.set_num_threads(thread_mask)
    np.seterr(divide=errors, over=errors, invalid=errors)
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_: _warned.append(str(message))
    signal.signal(signal.SIGTERM, lambda *_: None)
    print(json.dumps(_first_changes(thread_mask or numba.config.NUMBA_NUM_THREADS)))


@pytest.fixture(scope="module", params=["all threads, NumPy warns", "one thread, NumPy raises"])
def changes(request):
    """By aspect, what calls changed."""
    mask, errors = {"all": (None, "warn"), "one": (1, "raise")}[request.param[:3]]
    return fresh.answer(f"import test_good_neighbour as t; t.report_changes({mask}, {errors!r})")


@pytest.mark.parametrize("aspect", [*ASPECTS, *ASPECTS_OF_THE_POOL])
def test_calls_leave_it_as_it_was(aspect, changes):
    assert aspect not in changes, changes[aspect]


def test_every_public_function_is_called():
    called = {call.name.split()[0] for call in every_call.sound_calls()}
    assert called == set(convjit.functional.__all__)


# --- memory ---------------------------------------------------------------------------------------------------------


def _resident() -> int:
    """Bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _held() -> dict[str, int]:
    """What a leak would make grow."""
    gc.collect()
    numba_stats = rtsys.get_allocation_stats()
    return {
        "resident bytes": _resident(),
        "file descriptors": _descriptors(),
        "threads": _threads_of_the_process(),
        "Python objects": len(gc.get_objects()),
        "arrays held by Numba": numba_stats.mi_alloc - numba_stats.mi_free,
    }


def report_growth(count: int) -> None:
    """Print by how much `count` calls make grow what a process holds, after as many rounds as it takes to settle."""
    calls = every_call.every_call()
    warnings.simplefilter("ignore")

    def make(count: int) -> None:
        for call in itertools.islice(itertools.cycle(calls), count):
            call()

    # A call decides for a number of threads, and keeps that: here for one number, whoever else has the cores.
    contention.are_free = lambda: True
    held = 0
    for _ in range(10):  # the pools of malloc and of Python's objects find their size
        make(2 * len(calls))
        before, held = held, _resident()
        if held <= before:
            break
    start = _held()
    make(count)
    print(json.dumps({name: number - start[name] for name, number in _held().items()}))


ALLOWED = {"resident bytes": 2 << 20, "Python objects": 100}


@pytest.mark.skipif(not ON_LINUX, reason="reads /proc, which only Linux has")
def test_many_calls_leak_nothing():
    code = "import test_good_neighbour as t; t.report_growth(20_000)"
    growth = fresh.answer(code, NUMBA_NRT_STATS="1")
    leaks = {name: number for name, number in growth.items() if number > ALLOWED.get(name, 0)}
    assert not leaks, f"growth after 20,000 calls: {growth}"


MODE = """
import ctypes
import numba, numpy as np
import convjit
from convjit.runtime import contention
contention.are_free = lambda: True  # so that there is a team
libm = ctypes.CDLL("libm.so.6")

@numba.njit
def compiled(x, weight):
    return convjit.conv2d(x, weight, padding=1)

rng = np.random.default_rng(0)  # weight gradients are of several totals, summed at once
x, weight = rng.standard_normal((16, 8, 40, 40)), rng.standard_normal((8, 8, 3, 3))
def results():
    found = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        y = convjit.conv2d(x, weight, padding=1)
        found += [y, *convjit.conv2d_backward(y, x, weight, padding=1), convjit.avg_pool2d(x, 3)]
    return [*found, compiled(x, weight)]
wanted = results()
UPWARD = 0x800
libm.fesetround(UPWARD)
got = results()
print(libm.fegetround() == UPWARD, all((a == b).all() for a, b in zip(got, wanted)))
"""


@pytest.mark.skipif(
    not (ON_LINUX and platform.machine() == "x86_64"), reason="glibc's number of the mode is that of x86"
)
def test_a_thread_that_rounds_otherwise_gets_the_same_bits_and_keeps_its_mode():
    assert output(MODE, NUMBA_NUM_THREADS="2") == "True True"
