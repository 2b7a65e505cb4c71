"""The bench itself: its table, its answers, and a run of one small problem."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(CHECKOUT))

from bench import answers, contenders, problems  # noqa: E402

SMALL = problems.Problem("small", 2, 4, 7, 6, 3, 2, 1, 1, 2)


def test_names_are_unique_and_sizes_positive():
    assert len(set(problems.NAMES)) == len(problems.PROBLEMS)
    assert set(problems.QUICK) <= set(problems.NAMES)
    for problem in problems.PROBLEMS:
        assert problem.out_size > 0
        assert problem.in_channels % problem.groups == problem.out_channels % problem.groups == 0


@pytest.mark.parametrize("passed", contenders.Convjit().offers())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_answers_are_convjits(dtype, passed):
    inputs = problems.draw(SMALL, dtype)
    wanted = answers.solve(SMALL, inputs).of(passed)
    got = contenders.Convjit().prepare(passed, SMALL, inputs)()
    assert answers.faults(dict(zip(wanted, got, strict=True)), wanted, dtype) == []


def test_a_wrong_answer_is_found():
    inputs = problems.draw(SMALL, "float64")
    wanted = answers.solve(SMALL, inputs).of("backward")
    got = {name: array.copy() for name, array in wanted.items()}
    got["weight gradient"][0, 0, 0, 0] += 1e-3 * np.abs(got["weight gradient"]).max()
    got["bias gradient"] = got["bias gradient"][:-1]
    got["input gradient"][0, 0, 0, 0] = np.nan
    found = answers.faults(got, wanted, "float64")
    assert [fault.split(" is ")[0].split(" has ")[0] for fault in found] == [
        "input gradient", "weight gradient", "bias gradient"
    ]  # fmt: skip


def test_the_numpy_way_says_what_it_cannot_express():
    declines = contenders.OriginalNumPy().declines
    by_name = {problem.name: declines(problem, "float64") for problem in problems.PROBLEMS}
    assert by_name["digits-2"] is None
    assert by_name["mb2 dw96"] == "has no groups"
    assert by_name["deeplab d2"] == "has no dilation"


@pytest.mark.skipif(importlib.util.find_spec("rich") is None, reason="the extra [bench] is not installed")
def test_a_run_leaves_a_stamped_file(tmp_path):
    command = ["-m", "bench", "--only", "seed", "--rounds", "2", "--threads", "1", "--warm"]
    command += ["--without", *(name for name in contenders.BY_NAME if name not in ("convjit", "numpy"))]
    result = subprocess.run(
        [sys.executable, *command, "--output", str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    (file,) = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    assert {"date", "command", "git", "machine", "versions"} <= set(content["stamp"])
    assert content["troubles"] == []
    timed = {(row["contender"], row["passed"], row["dtype"]) for row in content["rows"] if row["median_seconds"]}
    assert len(timed) == (len(contenders.Convjit().offers()) + len(contenders.OriginalNumPy().offers())) * 2
