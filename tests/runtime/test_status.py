"""The flags of floating-point arithmetic that a call leaves are those that it found."""

import numpy as np
import pytest
from numba import njit

import convjit
from convjit.runtime import contention, status, threads

# The flags themselves: invalid, zero divide, overflow, underflow, inexact, and on x86 denormal.
FLAGS = 0x3F


@njit
def flags():
    return status.read_status()


@njit
def clear():
    """Take all flags back; the others of the register stay."""
    status.write_status(status.read_status() & ~FLAGS)


@pytest.fixture(autouse=True)
def cleared():
    if status.MACHINE not in status.KNOWN:
        pytest.skip(f"flags of {status.MACHINE} are not known, so none are put back")
    clear(), flags()  # compiling computes, too
    clear()
    assert flags() & FLAGS == 0
    yield
    clear()


@pytest.mark.parametrize("workers", [1, 2])
def test_flags_are_put_back(workers, monkeypatch):
    monkeypatch.setattr(threads, "SERIAL_BELOW_NS", 0 if workers > 1 else 1 << 60)
    # Where others had the cores in the first call of two, the second would compile its team, which computes, too.
    monkeypatch.setattr(contention, "are_free", lambda: True)
    x = np.full((2, 3, 20, 20), np.inf, np.float32)
    x[0] = 1e30
    weight = np.full((4, 3, 3, 3), -1e30, np.float32)
    calls = {
        "conv2d": lambda: convjit.conv2d(x, weight, padding=1),
        "conv2d_backward": lambda: convjit.conv2d_backward(x[:, :1].repeat(4, 1), x, weight, padding=1),
        "avg_pool2d": lambda: convjit.avg_pool2d(x, 2),
    }
    for name, call in calls.items():
        call()  # compiles, which computes, too
        clear()
        call()
        assert flags() & FLAGS == 0, name


def test_a_loop_sets_flags():
    """Else the test above would show nothing."""

    @njit(error_model="numpy")
    def divide(a):
        kept = status.read_status()
        b = a / a
        seen = status.read_status()
        status.write_status(kept)
        return b, seen

    divide(np.zeros(100))
    clear()
    _, seen = divide(np.zeros(100))
    assert seen & FLAGS != 0
    assert flags() & FLAGS == 0
