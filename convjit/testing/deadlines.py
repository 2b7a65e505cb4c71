"""Deadlines that leave out compiling: a pytest plugin for tests of Hypothesis, and a decorator for one test.

A Hypothesis deadline is how long one example may take, 200 ms if nothing is said. The first call of a function that
Numba compiles takes seconds, so such tests are usually given no deadline at all, and then nobody notices when one of
them begins to crawl. With this line in the `conftest.py` beside the tests' root::

    pytest_plugins = ["convjit.testing.deadlines"]

every deadline, be it that of a profile, of `@settings(deadline=...)` or Hypothesis' own, counts neither the time in
which Numba compiles, for whichever function, nor that in which it loads compiled code from its cache. A test without a
deadline has none. Like Hypothesis' own, a deadline is looked at when an example has ended; an example that never ends
is for a plugin such as pytest-timeout.

Knows Hypothesis' deadlines and Numba's events; knows no function that is compiled.
PYTEST_DONT_REWRITE: there are no assertions here.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from numba.core import event

from .needing import needs_hypothesis

with needs_hypothesis("deadlines"):
    from hypothesis import settings
    from hypothesis.errors import DeadlineExceeded

__all__ = ["leave_out_compiling"]

Test = TypeVar("Test", bound=Callable[..., Any])

# Numba takes this lock to compile, and to load what it compiled before.
_EVENT = "numba:compiler_lock"
# Where Hypothesis' decorators leave a test's settings.
_SETTINGS = "_hypothesis_internal_use_settings"
# Hypothesis lets an example pass by so much the first time, so that one that fails then fails again.
_GRACE = 1.25


class _Clock(event.Listener):  # type: ignore[misc]  # Numba has no types
    """The time in which any thread compiles."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._since = self._total = 0.0

    def on_start(self, event: Any) -> None:
        with self._lock:
            self._busy += 1
            if self._busy == 1:
                self._since = time.perf_counter()

    def on_end(self, event: Any) -> None:
        with self._lock:
            self._busy -= self._busy > 0  # what began before the clock was there may end
            if not self._busy:
                self._total += time.perf_counter() - self._since
                self._since = time.perf_counter()

    def read(self) -> float:
        """Seconds up to now."""
        with self._lock:
            return self._total + (time.perf_counter() - self._since if self._busy else 0.0)


@functools.cache
def _clock() -> _Clock:
    clock = _Clock()
    event.register(_EVENT, clock)
    return clock


def leave_out_compiling(test: Test) -> Test:
    """Make a test's deadline count nothing of what Numba compiles.

    To stand above `@given` and `@settings`; the plugin does it for every test.

    Parameters
    ----------
    test : function
        What `@given` returned. A test without a deadline, or one that is no Hypothesis test, is left as it is.

    Returns
    -------
    function
        The same one. An example that takes longer fails with `hypothesis.errors.DeadlineExceeded`, which names the time
        that it took without compiling.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> from numba import njit
    >>> from convjit.testing import exact_arrays
    >>> @leave_out_compiling
    ... @settings(deadline=100, max_examples=3)
    ... @given(exact_arrays(3))
    ... def test_something_compiled(array):
    ...     total = njit(lambda a: a.sum())  # compiled in each example, for a second or so
    ...     assert total(array) == array.sum()
    >>> test_something_compiled()
    """
    function: Any = getattr(test, "__func__", test)  # a method is one of an instance
    known = getattr(function, _SETTINGS, None)
    if not getattr(function, "is_hypothesis_test", False) or known is None or known.deadline is None:
        return test
    handle = function.hypothesis
    handle.inner_test = _timed(handle.inner_test, known.deadline)
    setattr(function, _SETTINGS, settings(known, deadline=None))
    return test


def _timed(inner: Callable[..., Any], deadline: timedelta) -> Callable[..., Any]:
    """The body of a test, which fails when it takes longer."""
    clock = _clock()
    exceeded = False

    @functools.wraps(inner)
    def body(*args: Any, **kwargs: Any) -> Any:
        nonlocal exceeded
        compiling, start = clock.read(), time.perf_counter()
        result = inner(*args, **kwargs)
        taken = timedelta(seconds=time.perf_counter() - start - (clock.read() - compiling))
        if taken >= (deadline if exceeded else _GRACE * deadline):
            exceeded = True
            raise DeadlineExceeded(taken, deadline)
        return result

    return body


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """What pytest calls when it has found the tests."""
    for item in items:
        if getattr(item, "obj", None) is not None:
            leave_out_compiling(item.obj)
