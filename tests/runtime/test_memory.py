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
