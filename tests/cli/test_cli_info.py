"""`python -m convjit`: help, errors, `info`."""

import os
import re
import subprocess
import sys

import pytest

from convjit import __version__, environment
from convjit.__main__ import main


def run(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "convjit", *arguments], capture_output=True, text=True, check=False,
        env=os.environ | variables,
    )  # fmt: skip


@pytest.mark.parametrize("command", [[], ["info"], ["warmup"], ["demo"]])
def test_help_everywhere(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert " ".join(["usage: python -m convjit", *command]) in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["demo", "--epochs", "0"],
        ["demo", "--epochs", "9" * 29],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", str(1 << 32)],
    ],
)
def test_what_is_not_understood(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"convjit {__version__}\n"


FIELDS = (
    "convjit", "python", "numpy", "numba", "llvmlite", "platform", "cpu", "instruction set", "cores",
    "container quota", "layer", "numba threads", "a large call", "a small call", "folder", "state", "entries",
)  # fmt: skip


def test_info_prints_every_field_as_plain_text(tmp_path):
    done = run("info", CONVJIT_CACHE_DIR=str(tmp_path / "cache"), NUMBA_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    names = [line.strip().split("  ")[0] for line in done.stdout.splitlines()]
    assert set(FIELDS) <= set(names)
    assert str(tmp_path / "cache") in done.stdout
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert {"numba threads 1", "entries 0"} <= set(lines)
    assert list(tmp_path.iterdir()) == []  # asking makes no folder


def test_info_without_a_compiler_or_a_cache():
    done = run("info", NUMBA_DISABLE_JIT="1", CONVJIT_CACHE="0")
    assert done.returncode == 0, done.stderr
    assert "off (CONVJIT_CACHE=0)" in done.stdout
    assert "none (NUMBA_DISABLE_JIT=1)" in done.stdout


def test_the_cache_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    place = environment.cache.folder()
    place.mkdir()
    (place / "one.nbc").write_bytes(bytes(2048))
    (place / ".two.tmp").write_bytes(bytes(10))
    assert environment.cache_state() == {"folder": str(place), "state": "on", "entries": "1 (2.0 KiB)"}


def test_a_folder_that_cannot_be_made_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert environment.cache_state()["state"] == "on, but the folder cannot be written"


def test_the_instruction_set_is_the_one_that_kernels_are_emitted_for():
    environ = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    code = "from convjit import environment; print(environment.instruction_set())"
    found = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("128-bit vectors", "NEON")


def test_a_demo_whose_picture_cannot_be_written_is_refused_first(tmp_path, capsys):
    for extra in ("matplotlib", "rich", "sklearn"):
        pytest.importorskip(extra, reason="the demo's extra is not installed")
    assert main(["demo", "--output", str(tmp_path / "nowhere" / "picture.png")]) == 1
    assert main(["demo", "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("choose another --output") == 2


def test_an_interrupt_is_status_130(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(environment, "print_report", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "workqueue"}, "parallel twin, 2 workers"),
        ({"NUMBA_NUM_THREADS": "1"}, "serial twin: Numba has one thread"),
        ({"NUMBA_DISABLE_JIT": "1"}, "serial twin: kernels are not compiled"),
        ({"NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "pigeon"}, "none: the threading layer cannot be used"),
    ],
)
def test_info_says_which_twin_runs_and_why(variables, line):
    done = run("info", **variables)
    assert done.returncode == 0, done.stderr
    assert f"a large call {line}" in " ".join(done.stdout.split())


def test_a_folder_that_the_terminal_cannot_show(tmp_path):
    done = run("info", CONVJIT_CACHE_DIR=str(tmp_path / "caché"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"cach\xe9" in "".join(done.stdout.split())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device here that is always full")
def test_output_that_cannot_be_written_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "convjit", "info"], stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False)  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(r"convjit: the output could not be written \(.*\)\n", done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="pipes are those of POSIX")
def test_a_reader_that_has_left_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "convjit", "info"], stdout=writing, stderr=subprocess.PIPE, text=True,
                          check=False)  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
