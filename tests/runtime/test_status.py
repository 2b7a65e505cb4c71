"""The flags of floating-point arithmetic that a call leaves are those that it found."""

import numpy as np
import pytest
from numba import njit

import convjit
from convjit.runtime import status, threads


@njit
def flags():
    return status.read_status()


@pytest.mark.parametrize("workers", [1, 2])
def test_flags_are_put_back(workers, monkeypatch):
    monkeypatch.setattr(threads, "SERIAL_BELOW_NS", 0 if workers > 1 else 1 << 60)
    x = np.full((2, 3, 20, 20), np.inf, np.float32)
    x[0] = 1e30
    weight = np.full((4, 3, 3, 3), -1e30, np.float32)
    calls = (
        lambda: convjit.conv2d(x, weight, padding=1),
        lambda: convjit.conv2d_backward(x[:, :1].repeat(4, 1), x, weight, padding=1),
        lambda: convjit.avg_pool2d(x, 2),
    )
    for call in calls:
        call()  # compiles, which computes, too
        before = flags()
        call()
        assert flags() == before


def test_a_loop_sets_flags():
    """Else the test above would show nothing."""

    @njit(error_model="numpy")
    def divide(a):
        kept = status.read_status()
        b = a / a
        seen = status.read_status()
        status.write_status(kept)
        return b, kept, seen, status.read_status()

    zeros = np.zeros(100)
    divide(np.ones(100))
    status_before = flags()
    _, kept, seen, after = divide(zeros)
    assert kept == after == status_before
    if status_before & 1 == 0:
        assert seen != kept
