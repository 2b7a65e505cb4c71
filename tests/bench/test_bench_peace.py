"""How convjit lives with others: the arguments, the table and the machinery of `python -m bench.peace`; no times."""

import json
import math
import os
import signal
import sys
import time

import pytest

pytest.importorskip("rich", reason="the bench needs rich")

from bench import peace
from bench.peace import Interrupt, Row
from bench.problems import Problem
from bench.process import THREAD_VARIABLES

NAMES = ("SMALL", "MIDDLE", "LARGE", "LONG")
needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers that send signals")


@pytest.fixture
def tiny(monkeypatch):
    """Sizes and times that take no time."""
    for name in NAMES:
        monkeypatch.setattr(peace, name, Problem(name.lower(), 1, 2, 8, 3, 3, 1, 1, 1, 1))
    monkeypatch.setattr(peace, "POOLED_SHAPE", (1, 2, 16, 16))
    monkeypatch.setattr(peace, "DENSE_SIZE", 8)
    for name in ("WAKE_SECONDS", "SAMPLE_SECONDS", "PAUSE_SECONDS"):
        monkeypatch.setattr(peace, name, 1e-4)


@needs_timer
def test_a_run_has_all_rows_and_leaves_a_stamped_file(tiny, tmp_path, capsys):
    assert peace.main(["--rounds", "2", "--interrupts", "3", "--output", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    rows = [
        "small: conv2d 1x2x8x8, 3 filters 3x3", "middle: conv2d", "large: conv2d", "conv2d 1x2x8x8", "conv2d_backward",
        "max_pool2d 1x2x16x16, kernel 15", "Dense(8) forward, backward, batch 8",
    ]  # fmt: skip
    for words in (*rows, "pair/sum", "first two", "worst", "3 of 3"):
        assert words in captured.out
    (path,) = tmp_path.glob("peace-*.json")
    result = json.loads(path.read_text())
    assert result["stamp"]["command"].startswith("python -m bench.peace --rounds 2")
    assert "blas" in result["stamp"]["versions"]
    assert result["options"]["rounds"] == 2
    assert [row["section"] for row in result["rows"]] == ["in turn"] * 3 + ["pause"] + ["Ctrl-C"] * 4
    for row in result["rows"]:
        expected = {"whole call": 1, "delay": 3} if row["sent"] else dict.fromkeys(row["samples"], 2)
        assert {what: len(samples) for what, samples in row["samples"].items()} == expected


def test_ratios_are_of_medians():
    turn = Row("in turn", "", {"product": [1.0, 2.0, 9.0], "conv2d": [3.0, 3.0, 0.1], "pair": [10.0, 1.0, 99.0]})
    assert peace.turn_ratio(turn) == 2.0
    assert peace.pause_ratio(Row("pause", "", {"steady": [2.0], "first two": [1.0, 6.0, 7.0]})) == 3.0


@needs_timer
def test_an_interrupt_is_waited_for_and_the_handler_restored():
    before = signal.getsignal(signal.SIGALRM)
    with peace.timer_interrupts():
        delay = peace.interrupt_delay(lambda: time.sleep(0.001), 0.005)
    assert delay is not None
    assert delay >= 0
    with pytest.raises(ZeroDivisionError), peace.timer_interrupts():
        peace.interrupt_delay(lambda: 1 / 0, 30)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@needs_timer
def test_a_call_that_swallows_interrupts_is_seen(monkeypatch):
    monkeypatch.setattr(peace, "LOST_SECONDS", 0.05)

    def swallow():
        try:
            time.sleep(0.2)
        except KeyboardInterrupt:
            time.sleep(0.1)

    row = peace.interrupted("swallow", swallow, 1)
    assert peace.lost(row) == 1
    assert math.isnan(row.median("delay"))


@needs_timer
def test_the_users_own_interrupt_ends_the_bench():
    def interrupted_by_hand():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, peace.timer_interrupts():
        peace.interrupt_delay(interrupted_by_hand, 30)
    assert not isinstance(caught.value, Interrupt)


@needs_timer
def test_a_lost_interrupt_ends_with_status_1(monkeypatch, tmp_path, capsys):
    row = Row("Ctrl-C", "swallows", {"whole call": [1.0], "delay": []}, sent=2)
    monkeypatch.setattr(peace, "measure", lambda rounds, interrupts, advance: [row])
    assert peace.main(["--output", str(tmp_path)]) == 1
    assert "0 of 2" in capsys.readouterr().out


def test_threads_are_set_before_blas_is_imported(monkeypatch):
    begun = []
    monkeypatch.setattr(os, "execve", lambda *arguments: begun.append(arguments))
    peace.start_with_threads(3, ["--threads", "3"])
    ((program, arguments, environment),) = begun
    assert (program, arguments[1:]) == (sys.executable, ["-m", "bench.peace", "--threads", "3"])
    assert {environment[variable] for variable in THREAD_VARIABLES} == {"3"}
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "3")
    peace.start_with_threads(3, ["--threads", "3"])
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "a pause, Ctrl-C"),
        (["--rounds", "0"], 2, "positive whole number"),
        (["--threads", "many"], 2, "positive whole number"),
        (["--nobody"], 2, "--nobody"),
    ],
)
def test_the_command_line(arguments, status, words, capsys):
    with pytest.raises(SystemExit) as end:
        peace.main(arguments)
    assert end.value.code == status
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_without_rich_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert peace.main([]) == 1
    said = 'python -m bench.peace needs rich, which is not installed: pip install "convjit[bench]"\n'
    assert capsys.readouterr().err == said
