"""Forked children: what a fork leaves behind in them.

A fork copies one thread. In the child OpenMP's pool is gone (libgomp kills the process that then starts a parallel
loop), and a lock that another thread held at that moment stays locked for ever: Numba's compiler lock, if it was
compiling. So children run serial twins, and a fork waits until the locks named here are free.
"""

from __future__ import annotations

import _thread
import ctypes
import multiprocessing
import operator
import os
import threading
import time
from collections import deque
from typing import Any

import numba.np.ufunc.parallel as numba_parallel
from numba.core.compiler_lock import global_compiler_lock

_forked = False
# Taken before a fork, in this order, and released after it on both sides.
_locks: list[Any] = [global_compiler_lock]
_acquire, _release = operator.methodcaller("acquire"), operator.methodcaller("release")


class _Fork(threading.local):
    """The fork of this thread: threads that fork at the same time follow one another."""

    def __init__(self) -> None:
        self.held: list[bool] = []  # as many as there are locks held
        self.interrupts: list[type[BaseException]] = []


_fork = _Fork()


def Lock() -> Any:  # named as in `threading`
    """A reentrant lock that no fork finds locked. Who holds it may compile, but not wait for another one."""
    lock = threading.RLock()
    _locks.append(lock)
    return lock


def forked() -> bool:
    """Whether this process is a forked child, where parallel loops are not started."""
    return _forked


def _before() -> None:
    """Take all locks.

    What a signal handler raises meanwhile would be lost, as Python raises nothing out of here, and the fork would go on
    without the locks: it is kept for later. One call of compiled code takes them and counts, so that none is forgotten.
    """
    while len(_fork.held) < len(_locks):
        try:
            _fork.held.extend(map(_acquire, _locks[len(_fork.held) :]))
        except BaseException as error:
            _fork.interrupts.append(type(error))


def _after() -> None:
    taken = _locks[len(_fork.held) - 1 :: -1] if _fork.held else []
    _fork.held = []  # before the last release, behind which another thread forks
    deque(map(_release, taken), maxlen=0)


def _after_in_parent() -> None:
    _after()
    interrupts, _fork.interrupts = _fork.interrupts, []
    if interrupts:  # not from here, where it would be lost as well
        _thread.start_new_thread(_raise_soon, (threading.get_ident(), interrupts[0]))


def _raise_soon(thread: int, kind: type[BaseException]) -> None:
    """Raise in a thread that is about to leave `os.fork`."""
    time.sleep(1e-3)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def _after_in_child() -> None:
    global _forked
    _forked = True
    _fork.interrupts = []
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
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
    _forked = _born_by_fork()
