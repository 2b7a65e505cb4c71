"""What the bench asks the machine: its FMA peak, and the memory of a process."""

import numpy as np
import pytest

from bench import memory, peak


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(peak, "SAMPLE_SECONDS", 0)
    monkeypatch.setattr(peak, "WIDTH_SECONDS", 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chains_multiply_and_add(dtype):
    """Every lane of every chain is computed, with numbers that come from memory."""
    found = peak._all_chains(dtype)
    if not found:
        pytest.skip("this processor has no fused multiply-add")
    for chains in found:
        lanes = _lanes(chains)
        numbers = np.full(chains.elements, 0.25, dtype)
        a, b, x = numbers[:lanes], numbers[lanes : 2 * lanes], numbers[2 * lanes :]
        a[:] = 2
        b[:] = np.arange(lanes)
        x[:] = np.arange(len(x)) % 7
        wanted = x.reshape(-1, lanes).copy()
        for _ in range(3 * peak.UNROLLED):
            wanted = wanted * a + b
        chains.run(numbers.ctypes.data, 3)
        np.testing.assert_array_equal(x.reshape(-1, lanes), wanted)
        np.testing.assert_array_equal(a, 2)


def _lanes(chains):
    """`elements` is `(chains + 2) * lanes`, `flops` is `2 * UNROLLED * chains * lanes`."""
    return (chains.elements - chains.flops // (2 * peak.UNROLLED)) // 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_peak_is_a_rate_or_none(hurried, threads, monkeypatch):
    rate = peak.measure("float32", threads)
    assert rate is None or rate > 0
    monkeypatch.setattr(peak, "_all_chains", lambda dtype: [])
    assert peak.measure("float32", threads) is None


def test_the_best_width_counts(monkeypatch):
    monkeypatch.setattr(peak, "_all_chains", lambda dtype: [3.0, 5.0, 4.0])
    monkeypatch.setattr(peak, "_best_rate", lambda chains, dtype, threads: chains)
    assert peak.measure("float32", 1) == 5.0


def test_the_command(hurried, capsys):
    assert peak.main(["--threads", "1"]) == 0
    text = capsys.readouterr().out
    assert "float32  1 thread " in text
    assert "float64  1 thread " in text


def test_growth_sees_what_is_kept_and_what_was_taken():
    growth = memory.Growth()
    if growth.now() is None:
        pytest.skip("this system does not tell the most memory since a moment")
    kept = np.ones(24 << 20, np.uint8)
    np.ones(48 << 20, np.uint8).sum()
    assert kept[0]
    assert 20 << 20 < growth.now() < 40 << 20
    assert 66 << 20 < growth.peak() < 90 << 20
    del kept
    assert memory.Growth().peak() < 16 << 20


def test_where_the_system_cannot_forget_a_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    peaks = iter([100, 164])
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: next(peaks))
    growth = memory.Growth()
    assert growth.now() is None
    assert growth.peak() == 64


def test_where_the_system_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: None)
    assert memory.Growth().peak() is None
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory._status("VmRSS") is None
    (tmp_path / "status").write_text("VmRSS:\t    12 kB\n")
    assert memory._status("VmRSS") == 12 * 1024
