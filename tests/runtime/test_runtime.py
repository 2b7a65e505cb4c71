"""The runtime's mechanisms: twins, cache, threads, memory. Hazards of a process are run in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from convjit.algorithms import implicit
from convjit.runtime import cache, memory

CALL = """
    import warnings
    import numpy as np
    import convjit
    x = np.arange(2.0 * 3 * 6 * 6).reshape(2, 3, 6, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = convjit.conv2d(x, np.ones((4, 3, 3, 3)))
        y = convjit.pad2d(y, 1)
    from convjit.algorithms import implicit, padding
    hits = sum(sum(d.serial.stats.cache_hits.values()) for d in (implicit._forward, padding._pad))
    print(y.sum(), hits, len(caught))
"""


def run(code: str, **environment: str) -> str:
    """The output of a fresh process; None of its warnings are errors."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_twins_have_names_of_their_own():
    driver = implicit._forward
    assert driver.serial.py_func.__qualname__ != driver.parallel.py_func.__qualname__


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    first = run(CALL, CONVJIT_CACHE_DIR=str(tmp_path)).split()
    second = run(CALL, CONVJIT_CACHE_DIR=str(tmp_path)).split()
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("0", "2")
    assert first[2] == second[2] == "0"


def damage(path, how):
    for file in path.rglob("*.nbc"):
        content = file.read_bytes()
        file.write_bytes({"emptied": b"", "truncated": content[:-100], "foreign": b"x" * len(content)}[how])


@pytest.mark.parametrize("how", ["emptied", "truncated", "foreign"])
def test_a_damaged_entry_is_compiled_anew_and_mended(tmp_path, how):
    wanted = run(CALL, CONVJIT_CACHE_DIR=str(tmp_path)).split()[0]
    damage(tmp_path, how)
    assert run(CALL, CONVJIT_CACHE_DIR=str(tmp_path)).split() == [wanted, "0", "0"]
    assert run(CALL, CONVJIT_CACHE_DIR=str(tmp_path)).split() == [wanted, "2", "0"]


def test_an_unusable_place_costs_one_warning(tmp_path):
    file = tmp_path / "a file, not a folder"
    file.write_text("")
    assert run(CALL, CONVJIT_CACHE_DIR=str(file)).split()[1:] == ["0", "1"]


def test_the_cache_can_be_switched_off(tmp_path):
    assert run(CALL, CONVJIT_CACHE_DIR=str(tmp_path), CONVJIT_CACHE="0").split()[1:] == ["0", "0"]
    assert not list(tmp_path.iterdir())


def test_the_digest_follows_every_source_file(monkeypatch, tmp_path):
    package = tmp_path / "convjit"
    (package / "runtime").mkdir(parents=True)
    (package / "runtime" / "cache.py").write_text("")
    monkeypatch.setattr(cache, "__file__", str(package / "runtime" / "cache.py"))
    digests = set()
    for text in ("a = 1", "a = 2"):
        (package / "other.py").write_text(text)
        digests.add(cache.source_digest.__wrapped__())
    assert len(digests) == 2


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
