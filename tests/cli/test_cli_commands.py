"""The command line, as a person runs it: in processes of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

DEMO_EXTRA = ("matplotlib", "rich", "sklearn")
needs_demo = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in DEMO_EXTRA),
    reason="the extra [demo] is not installed; the other commands are tested",
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["warmup", "--help"], ["demo", "--help"]])
def test_help_everywhere(arguments):
    result = run("-m", "convjit", *arguments)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: python -m convjit")


def test_an_unknown_command_is_one_sentence():
    result = run("-m", "convjit", "inof")
    assert result.returncode == 2
    assert "invalid choice" in result.stderr
    assert "Traceback" not in result.stderr


def test_info_says_what_a_report_needs(tmp_path):
    result = run("-m", "convjit", "info", CONVJIT_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    for field in ("convjit", "python", "numpy", "numba", "llvmlite", "cpu", "instruction set", "layer", "folder"):
        assert f"  {field} " in result.stdout
    assert str(tmp_path) in result.stdout


def test_info_names_a_cache_that_is_off(tmp_path):
    assert "off (CONVJIT_CACHE=0)" in run("-m", "convjit", "info", CONVJIT_CACHE="0").stdout


def test_a_missing_extra_is_one_sentence(tmp_path):
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError('no', name='sklearn')")
    result = run("-m", "convjit", "demo", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert 'pip install "convjit[demo]"' in result.stderr
    assert "Traceback" not in result.stderr


@needs_demo
def test_the_demo_learns_and_draws(tmp_path):
    picture = tmp_path / "digits.png"
    result = run("-m", "convjit", "demo", "--epochs", "2", "--output", str(picture))
    assert result.returncode == 0, result.stderr
    assert "held-out digits recognised" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert result.stderr == ""  # quiet in a pipe


@needs_demo
def test_an_interrupt_ends_cleanly(tmp_path):
    command = [sys.executable, "-m", "convjit", "demo", "--epochs", "100000", "--output", str(tmp_path / "p.png")]
    # What a shell has put in the background ignores the signal, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "training" in line:
                break
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
