"""Forked children: what a fork leaves behind in them.

A fork copies one thread. In the child OpenMP's pool is gone (libgomp kills the process that then starts a parallel
loop), and a lock that another thread held at that moment stays locked for ever: Numba's compiler lock, if it was
compiling. So children run serial twins, and a fork waits until the locks named here are free.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

import numba.np.ufunc.parallel as numba_parallel
from numba.core.compiler_lock import global_compiler_lock

_forked = False
# Taken before a fork, in this order, and released after it on both sides.
_locks: list[Any] = [global_compiler_lock]
_held: list[Any] = []


def Lock() -> Any:  # named as in `threading`
    """A reentrant lock that no fork finds locked. Who holds it may compile, but not wait for another one."""
    lock = threading.RLock()
    _locks.append(lock)
    return lock


def forked() -> bool:
    """Whether this process is a forked child, where parallel loops are not started."""
    return _forked


def _before() -> None:
    for lock in _locks:
        lock.acquire()
        _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    global _forked
    _forked = True
    _after()


def _born_by_fork() -> bool:
    """Whether a pool was started in a parent that knew Numba but not convjit, so that nobody could set the flag.

    A worker of `multiprocessing` that is spawned looks the same if Numba started a pool in it before convjit came: it
    then runs serially, too, which is slower but right.
    """
    started = getattr(numba_parallel, "_is_initialized", False)
    forks = multiprocessing.get_start_method(allow_none=True) in (None, "fork", "forkserver")
    return bool(started and forks and multiprocessing.parent_process() is not None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
    _forked = _born_by_fork()
