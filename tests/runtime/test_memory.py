"""Arrays that cannot fit are refused before a page of them is touched."""

from __future__ import annotations

import numpy as np
import pytest

from convjit.runtime import memory


def test_sizes_are_readable():
    assert memory.readable_size(1023) == "1023 bytes"
    assert memory.readable_size(12 << 30) == "12.0 GiB"
    assert memory.readable_size(1 << 80).endswith("EiB")


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 20), (1 << 62, 1 << 62), (1 << 45,)])
def test_what_cannot_fit_is_a_memory_error(shape):
    with pytest.raises(MemoryError, match=r"f: y of shape .* needs .*iB"):
        memory.allocate("f", "y", shape, np.float32)


def test_allocation_asks_for_what_is_left(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    memory.allocate("f", "y", (99 << 20,), np.int8)
    with pytest.raises(MemoryError):
        memory.allocate("f", "y", (101 << 20,), np.int8)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_large_workspaces_begin_with_a_cache_line(dtype):
    def displaced(function, what, shape, dtype):
        """The worst place: an element behind a cache line."""
        buffer = memory.allocate(function, what, (shape[0] + 32,), dtype)
        first = -buffer.ctypes.data % 64 // buffer.itemsize + 1
        return buffer[first : first + shape[0]]

    dtype = np.dtype(dtype)
    for shape in ((1 << 14,), (3, 5, 1999), (1 << 20,)):
        space = memory.aligned(displaced, "f", "a workspace", shape, dtype)
        assert (space.shape, space.dtype) == (shape, dtype)
        assert space.flags.c_contiguous
        assert space.ctypes.data % 64 == 0
    small = memory.aligned(memory.allocate, "f", "a workspace", (3, 4), dtype)
    assert small.base is None
