"""The end of a process: nobody compiles while LLVM is taken away.

Python ends while daemon threads still run, and LLVM's tables are gone then: a thread that compiles would crash. So the
end waits for the compile that is under way, and then keeps other threads from beginning one. It does so for a while
only: exit handlers that were registered before convjit was imported are called after this one, and may wait for a
thread that has to compile.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from numba.core.compiler_lock import global_compiler_lock

# A process that has nothing else to do has ended by then.
_PATIENCE_SECONDS = 0.5


class _LastLock:
    """Numba's lock in a process that ends: the first other thread that asks for it waits a while before it may."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._ending = threading.get_ident()
        self._waits = True

    def acquire(self, *arguments: Any) -> bool:
        if self._waits and threading.get_ident() != self._ending and not self._is_owned():
            time.sleep(_PATIENCE_SECONDS)
            self._waits = False
        return bool(self._lock.acquire(*arguments))

    def release(self) -> None:
        self._lock.release()

    def _is_owned(self) -> bool:  # Numba asks
        return bool(self._lock._is_owned())


def wait_for_compiles() -> None:
    """Called when the process ends."""
    with global_compiler_lock:
        lock = getattr(global_compiler_lock, "_lock", None)
        if hasattr(lock, "_is_owned"):
            global_compiler_lock._lock = _LastLock(lock)
