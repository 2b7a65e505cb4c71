"""How many threads a call may use.

Knows the pool, its cost and the container's quota; `numba.set_num_threads` is honoured and never called.
Does not know what runs: callers estimate their work in nanoseconds of one core.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numba
from numba.np.ufunc.parallel import _launch_threads

# A parallel loop over two elements took 1.6 us longer than the serial one under OpenMP and 106 us under workqueue:
# below this the serial twin wins.
SERIAL_BELOW_NS = 50_000

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


# OpenMP's threads do not survive a fork: libgomp kills a child that starts a parallel loop. Children run serial twins.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _quota() -> int:
    """The CPU quota of the cgroup in whole CPUs, at least 1; a large number where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 30


@cache
def _launch() -> None:
    """Start Numba's pool, once, so that idle threads of GNU OpenMP sleep soon instead of spinning.

    A spinning pool and a BLAS pool on the same two cores stand in each other's way: `a @ a` (200x200) in turn with
    `conv2d` (1x16x28x28, 16 filters 3x3) took 10.7 ms a pair with 300000 spins, 0.31 ms with 1000, and 0.23 to 0.32 ms
    one after the other alone. The price: after a pause, a woken thread first shares its waker's core.
    libgomp reads the variable when it is loaded, so it is set for that moment only; a value that the user has set is
    left alone.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        _launch_threads()
        return
    os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        _launch_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def available() -> int:
    """Threads that this call may use: Numba's mask for the calling thread, capped by the container's quota."""
    if _forked or numba.config.DISABLE_JIT:
        return 1
    _launch()
    return min(int(numba.get_num_threads()), _quota())


def workers(nanoseconds: float) -> int:
    """How many threads to use for a work of so many nanoseconds on one core."""
    if nanoseconds < SERIAL_BELOW_NS or numba.config.NUMBA_NUM_THREADS == 1:
        return 1
    return available()


def forked() -> bool:
    """Whether this process is a forked child, where parallel loops are not started."""
    return _forked
