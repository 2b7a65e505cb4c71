"""Programs in processes of their own: a hazard that kills, hangs or aborts takes only its process along."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

# A hang is a failure, not a wait; but compiling every driver takes minutes on a slow machine that is busy besides.
TIMEOUT_S = 600

# What Numba's layer `tbb` needs; pip puts it where the loader does not look.
TBB = next(iter(sorted(glob.glob(os.path.join(sys.prefix, "lib", "libtbb.so.12")))), None)
PRELOAD_TBB = f"import ctypes; ctypes.CDLL({TBB!r}, mode=ctypes.RTLD_GLOBAL)\n"

LAYERS = [
    "omp",
    "workqueue",
    pytest.param(
        "tbb", marks=pytest.mark.skipif(TBB is None, reason="no libtbb.so.12 here: omp and workqueue run instead")
    ),
]


def finish(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program, run to its end."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def output(code: str, *arguments: str, **environment: str) -> str:
    """What a program that must succeed prints."""
    done = finish(code, *arguments, **environment)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def output_on(layer: str, code: str, **environment: str) -> str:
    """What a program prints on a threading layer with two threads; it fails if another layer was used."""
    code, environment = _on(layer, code, environment)
    return output(code, **environment)


def report_lines_on(layer: str, code: str, calls: dict[str, str], **environment: str) -> dict[str, Any]:
    """`report_lines` of a program on a threading layer with two threads."""
    code, environment = _on(layer, code, environment)
    return report_lines(code, calls, **environment)


def _on(layer: str, code: str, environment: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A program that fails if it ran on another layer, and its environment."""
    preload = PRELOAD_TBB if layer == "tbb" else ""
    check = f"\nfrom convjit.runtime import threads\nassert threads.layer() == {layer!r}, threads.layer()\n"
    environment = {"NUMBA_NUM_THREADS": "2", **environment, "NUMBA_THREADING_LAYER": layer}
    return preload + textwrap.dedent(code) + check, environment


def report_lines(code: str, calls: dict[str, str], **environment: str) -> dict[str, Any]:
    """What a process says of each of its calls, which it is given as JSON: a line `[name, what]` for each, in turn.

    A process that dies or hangs has said nothing of the call it was at, nor of those after it: they say how it ended.
    Lines that are no such pairs are a library's.
    """
    try:
        done = finish(code, json.dumps(calls), **environment)
        said, failed = done.stdout, done.returncode != 0
        ending = f"exit status {done.returncode}\n{done.stderr[-6000:]}"
    except subprocess.TimeoutExpired as stopped:
        said, failed, ending = (stopped.stdout or b"").decode(), True, f"no end after {TIMEOUT_S} s"
    lines = dict(json.loads(line) for line in said.splitlines() if line.startswith("[") and line.endswith("]"))
    missing = [name for name in calls if name not in lines]
    for name in missing:
        lines[name] = f"nothing: the process ended at {missing[0]!r}, with {ending}"
    assert missing or not failed, f"all was said, then {ending}"
    return lines


def answer(code: str, timeout: float = 600, **environment: str) -> Any:
    """The JSON that `code` prints as its last line, in a fresh process that can import the tests beside this file.

    A process that dies says where: its standard error, with every thread's stack after a crash, is the failure.
    """
    here = os.path.dirname(__file__)
    path = os.pathsep.join(filter(None, (here, os.path.dirname(here), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return json.loads(done.stdout.splitlines()[-1])
