"""Arrays that cannot fit are refused before a page of them is touched."""

from __future__ import annotations

import math

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
        memory.allocate("f", "y", shape, np.dtype("float32"))


def test_allocation_asks_for_what_is_left(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    memory.allocate("f", "y", (99 << 20,), np.dtype("int8"))
    with pytest.raises(MemoryError):
        memory.allocate("f", "y", (101 << 20,), np.dtype("int8"))


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64", "complex128"])
@pytest.mark.parametrize("behind", [0, 16, 48])
def test_large_arrays_begin_with_a_cache_line(dtype, behind, monkeypatch):
    def displaced(shape, dtype):
        """So many bytes behind a cache line."""
        size = math.prod(shape) * dtype.itemsize
        buffer = np.empty(size + 128, np.uint8)
        first = -buffer.ctypes.data % 64 + behind
        return buffer[first : first + size].view(dtype).reshape(shape)

    dtype = np.dtype(dtype)
    monkeypatch.setattr(memory, "_new", displaced)
    for shape in ((1 << 20,), (3, 5, 19_999), (2, 0, 3), (1 << 17,)):
        array = memory.allocate("f", "the result", shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.carray
        assert array.size == 0 or array.ctypes.data % 64 == 0
    small = memory.RESULTS_ALIGNED_FROM // dtype.itemsize - 1
    assert memory.allocate("f", "the result", (small,), dtype).ctypes.data % 64 == behind
    assert memory.allocate("f", "a workspace", (small,), dtype, memory.ALIGNED_FROM).ctypes.data % 64 == 0


@pytest.mark.parametrize("elements", [1, 1 << 15, 1 << 17])
def test_without_room_nothing_lies_behind_an_array(elements, monkeypatch):
    made = []
    monkeypatch.setattr(memory, "_ROOM", 0)
    monkeypatch.setattr(memory, "_new", lambda shape, dtype: made.append(np.empty(shape, dtype)) or made[-1])
    array = memory.allocate("f", "the result", (elements,), np.dtype("float32"))
    assert [each.shape for each in made] == [array.shape]
    assert array.ctypes.data == made[0].ctypes.data
