"""How many threads a call may use, and the start of their pool.

Knows Numba's pool, its cost and its layers; the caller's `numba.set_num_threads` is honoured and restored.
Does not know what runs: callers estimate their work in nanoseconds of one core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numba
import numba.np.ufunc.parallel as numba_parallel

from . import contention, forks
from .containers import cpu_quota
from .options import NOT_COMPILED

# A parallel loop over two elements took 1.6 us longer than the serial one under OpenMP and 106 us under workqueue, and
# waking a thread that sleeps takes about 100 us: below this the serial twin wins. It also leaves other cores to a BLAS
# pool that is at work beside small convolutions (`python -m bench.peace`).
SERIAL_BELOW_NS = 120_000
# Threads of GNU OpenMP that have ended a loop so short a time ago still spin, and a team of them starts within 10 us:
# then it pays for less work. So it is between most layers of a network: a training step of `cifar` (`python -m
# bench.race`) takes 4 to 6 % less on two threads.
_AWAKE_NS, SERIAL_BELOW_IF_AWAKE_NS = 100_000, 25_000

_LAYERS = ["omp", "tbb", "workqueue"]

# More workers than any machine has cores for; libgomp keeps a team's books on the stack, which 100,000 overflow.
_MOST_WORKERS = 1024

_launched = False
_launching = forks.Lock()
# Numba's mask for the calling thread; once the pool runs, without the locks that Numba takes to see whether it does.
_mask: Callable[[], int] = numba.get_num_threads
_set_mask: Callable[[int], object] = numba.set_num_threads

# Two threads inside Numba's workqueue abort the process. Who holds this may start a parallel loop there; reentrant,
# because a signal handler may call convjit while its thread holds it between two loops.
_one_at_a_time = threading.RLock()
_has_workqueue = False
# Whether threads spin for a while, and not for as long as the user says.
_spin = False


def launch_pool() -> None:
    """Start Numba's pool, once, so that idle threads of GNU OpenMP sleep soon instead of spinning.

    To wake a thread takes 50 to 100 us, so one that waits spins about as long: 8000 times, 110 us here. It stays awake
    between the loops of a call, and where a program does a little between two calls; nobody waits twice as long as with
    the best count, and whoever else needs the core, a BLAS pool or another process, soon has it. libgomp reads the
    variable when it is loaded, so it is set for that moment only; a value that the user has set is left alone.
    """
    global _launched, _mask, _set_mask, _has_workqueue, _spin
    if _launched:
        return
    with _launching:
        if _launched:
            return
        # Numba would ask `multiprocessing` for a lock, which settles the start method: a later
        # `multiprocessing.set_start_method` in the user's program would fail.
        if getattr(numba_parallel, "_backend_init_process_lock", None) is None:
            numba_parallel._backend_init_process_lock = threading.RLock()
        by_user = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
        if by_user:
            _start()
        else:
            try:
                os.putenv("GOMP_SPINCOUNT", "8000")
                _start()
            finally:
                os.unsetenv("GOMP_SPINCOUNT")  # `del os.environ` is Python's code, which an interrupt may end
        _mask = getattr(numba_parallel, "_get_num_threads", None) or _mask
        _set_mask = getattr(numba_parallel, "_set_num_threads", None) or _set_mask
        _has_workqueue = numba.threading_layer() == "workqueue"
        _spin = numba.threading_layer() == "omp" and not by_user
        _launched = True


def _start() -> None:
    try:
        numba_parallel._launch_threads()
    except (ValueError, ImportError, OSError) as error:  # Numba's own text runs over several lines
        raise RuntimeError(f"convjit: {_why_no_pool(str(error).split('.')[0])}") from None


def _why_no_pool(error: str) -> str:
    order = numba.config.THREADING_LAYER_PRIORITY
    if sorted(order) != _LAYERS:
        return (
            "NUMBA_THREADING_LAYER_PRIORITY must have 'omp', 'tbb' and 'workqueue', each once, in the order in which "
            f"Numba is to try them, got {' '.join(order)!r}"
        )
    return (
        f"Numba's threading layer {numba.config.THREADING_LAYER!r} cannot be used here ({error}); "
        "set NUMBA_THREADING_LAYER to 'default', 'omp', 'workqueue' or 'tbb' (with its library installed)"
    )


def layer() -> str:
    """The library behind parallel loops: omp, tbb or workqueue; this starts it."""
    launch_pool()
    return str(numba.threading_layer())


def why_serial() -> str | None:
    """Why every call of this thread takes the serial twin; None where large ones are parallel."""
    if numba.config.DISABLE_JIT:
        return NOT_COMPILED
    if forks.forked():
        return "this process was forked, and a pool of threads does not survive a fork"
    if numba.config.NUMBA_NUM_THREADS == 1:
        return "Numba has one thread (NUMBA_NUM_THREADS, or one usable core)"
    if cpu_quota() == 1:
        return "the container has a quota of one CPU"
    launch_pool()
    if numba.get_num_threads() == 1:
        return "numba.set_num_threads(1) was called in this thread"
    if not contention.are_free():
        return "another thread or process has the cores, and a team of threads would wait for them"
    return None


def available() -> int:
    """Threads that this call may use: Numba's mask for the calling thread, capped by the container's quota."""
    if forks.forked() or numba.config.DISABLE_JIT or numba.config.NUMBA_NUM_THREADS == 1:
        return 1
    if not contention.are_free():
        return 1
    launch_pool()
    return min(_mask(), cpu_quota(), _MOST_WORKERS)


def workers(nanoseconds: float) -> int:
    """How many threads to use now for a work of so many nanoseconds on one core."""
    if nanoseconds >= SERIAL_BELOW_NS or (nanoseconds >= SERIAL_BELOW_IF_AWAKE_NS and _are_awake()):
        return available()
    return 1


def workers_alone(nanoseconds: float) -> int:
    """How many threads such a work is given by itself, not soon after another one."""
    return 1 if nanoseconds < SERIAL_BELOW_NS else available()


def _are_awake() -> bool:
    """Whether the pool's threads still wait for work by spinning."""
    return _spin and contention.since_last_team() < _AWAKE_NS


def run_parallel(workers: int, twin: Callable[..., None], *arguments: Any) -> None:
    """Call a parallel twin with a team of so many threads, when the process may start one."""
    launch_pool()
    if _has_workqueue:
        with _one_at_a_time:
            _run_team(workers, twin, *arguments)
    else:
        _run_team(workers, twin, *arguments)


def _run_team(workers: int, twin: Callable[..., None], *arguments: Any) -> None:
    before = _mask()
    if workers >= before:
        contention.watched(before, twin, *arguments)
        return
    try:
        _set_mask(workers)
        contention.watched(workers, twin, *arguments)
    finally:
        _set_mask(before)  # one call of compiled code: where a function begins, Python looks for signals
