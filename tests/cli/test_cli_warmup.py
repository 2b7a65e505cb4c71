"""`python -m convjit warmup`: what a container's build runs."""

import os
import re
import subprocess
import sys

import pytest

from convjit import warming
from convjit.__main__ import main
from convjit.runtime import cache

COMMAND = ["-m", "convjit", "warmup", "pad2d_backward", "--dtype", "float32"]


def run(arguments, place, **variables):
    """Status, output and errors of a process of its own."""
    variables = {**os.environ, "CONVJIT_CACHE": "1", "CONVJIT_CACHE_DIR": str(place), **variables}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=variables)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The cache of this process, where nothing has gone wrong."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVJIT_CACHE", raising=False)
    monkeypatch.setattr(cache, "_complaint", None)
    return tmp_path / "cache"


def test_it_compiles_once_and_says_where(tmp_path):
    for done in ("compiled 2 kernels, found 0", "compiled 0 kernels, found 2"):
        status, out, errors = run(COMMAND, tmp_path)
        assert (status, errors) == (0, "")
        (folder,) = tmp_path.iterdir()
        assert re.fullmatch(
            rf"pad2d_backward for float32: {done}, kept in {re.escape(str(folder))} \(\d+\.\d s\)\n", out
        )
        assert {path.suffix for path in folder.iterdir()} == {".nbc"}
        assert len(list(folder.iterdir())) == 2


def test_functions_and_dtypes_reach_the_warm_up(place, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(warming, "warmup", lambda *wanted: asked.append(wanted) or warming.Warmed(3, 4))
    assert main(["warmup"]) == main(["warmup", "im2col", "pad2d", "--dtype", "int8", "f4", "--dtype", "f8"]) == 0
    assert asked == [(None, ("float32", "float64")), (["im2col", "pad2d"], ["int8", "f4", "f8"])]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("all functions for float32, float64: compiled 3 kernels, found 4, kept in ")
    assert second.startswith("im2col, pad2d for int8, f4, f8: compiled 3 kernels, found 4, kept in ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["conv4d"], r"convjit warmup: functions must be among 'conv2d', .*, got 'conv4d'\n"),
        (
            ["--dtype", "float32", "pad2d"],
            r"convjit warmup: an entry of dtypes must be a dtype, got str 'pad2d'; functions stand before .*: pad2d\n",
        ),
        (["nopython", "--dtype", "int64"], r"convjit warmup: there is nothing to compile of nopython for int64\n"),
        (["pad2d", "--dtype", "float33"], r"convjit warmup: an entry of dtypes must be a dtype, got str 'float33'\n"),
        (["--dtype", "f4,,"], r"convjit warmup: an entry of dtypes must be a dtype, got str 'f4,,'\n"),
        (["--dtype", "U3"], r"convjit warmup: an entry of dtypes is <U3, which is not supported; .*\n"),
    ],
)
def test_what_is_not_understood_is_one_sentence(arguments, complaint, place, capsys):
    assert main(["warmup", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(complaint, captured.err)
    assert not place.exists()


def refused(capsys):
    """What is said instead of compiling."""
    assert main(["warmup", "pad2d"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    found = re.fullmatch(
        r"convjit warmup: nothing was compiled, because nothing can be kept \((.*)\)\n", captured.err
    )  # fmt: skip
    return found[1]


def test_a_cache_that_is_off_is_named(place, monkeypatch, capsys):
    monkeypatch.setenv("CONVJIT_CACHE", "0")
    assert refused(capsys) == "CONVJIT_CACHE=0"


def test_a_place_that_cannot_be_written_is_named(place, monkeypatch, capsys):
    place.write_text("")
    assert refused(capsys).startswith("NotADirectoryError: ")
    monkeypatch.setattr(cache, "SOURCES", None)
    assert refused(capsys).startswith("FileNotFoundError: the package's sources cannot be read")


def test_without_a_compiler_there_is_nothing_to_keep(place, monkeypatch, capsys):
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert refused(capsys) == "NUMBA_DISABLE_JIT=1"


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_disk_that_fills_up_is_one_sentence(tmp_path):
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); from convjit import __main__"
    )
    status, out, errors = run(["-c", f"{limited}; sys.exit(__main__.main({COMMAND[2:]}))"], tmp_path)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"convjit warmup: what was compiled is not kept \(OSError: .*File too large.*\)\n", errors)


def test_an_interrupt_is_status_130(place, monkeypatch, capsys):
    def interrupted(*wanted):
        raise KeyboardInterrupt

    monkeypatch.setattr(warming, "warmup", interrupted)
    assert main(["warmup"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
