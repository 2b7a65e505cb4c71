"""The bench: its table of problems, its judge, and whole runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich", reason="the bench needs rich")

import bench.__main__ as command
from bench import measure
from bench.answers import TOLERANCE, faults, solve
from bench.contenders import BY_NAME, CONTENDERS, OURS, PASSES, TRAINING, Convjit, OriginalNumPy, installed
from bench.measure import Setting
from bench.problems import NAMES, OTHERS, PROBLEMS, QUICK, RANKS, Problem, draw, drawn, drawn_names, select
from bench.process import CHECKOUT, WorkerError, WorkerProcess
from bench.ratios import lines
from bench.worker import Worker
from convjit.testing import reference_conv2d, reference_conv2d_backward
from convjit.testing.spatial import reference_conv, reference_conv_backward

PLAIN = Problem("plain", 2, 3, 6, 4, 3, 1, 1, 1, 1)
STRIDED = Problem("strided", 1, 2, 7, 3, 2, 2, 0, 1, 1)
GROUPED = Problem("grouped", 2, 4, 7, 6, 3, 2, 1, 2, 2)
TINY = [PLAIN, STRIDED, GROUPED]


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_has_27_problems_of_different_names():
    assert len(PROBLEMS) == len(set(NAMES)) == 27
    assert set(QUICK) <= set(NAMES)


def test_other_problems_are_other_problems():
    assert 15 <= len(OTHERS) <= 20
    everything = PROBLEMS + OTHERS
    assert len({problem.name for problem in everything}) == len({problem[1:] for problem in everything}) == 47


@pytest.mark.parametrize(
    "problem", [*PROBLEMS, *OTHERS, *RANKS, *map(drawn, range(1, 31))], ids=lambda problem: problem.name
)
def test_problems_are_possible(problem):
    assert problem.in_channels % problem.groups == problem.out_channels % problem.groups == 0
    assert problem.out_size >= 1
    window = problem.dilation * (problem.kernel - 1) + 1
    for out, size in zip(problem.out_sizes, problem.in_size, strict=True):
        assert (out - 1) * problem.stride + window <= size + 2 * problem.padding
    assert len(problem.x_shape) == len(problem.weight_shape) == problem.rank + 2


def test_known_sizes():
    sizes = {problem.name: problem.out_size for problem in PROBLEMS}
    assert sizes["r50 stem"] == 112
    assert sizes["lenet"] == 10
    assert sizes["alexnet 5x5"] == 27
    assert select(("seed",))[0].multiplications == 16 * 32 * 32 * 27


def test_select_keeps_the_order_and_names_what_is_unknown():
    assert [problem.name for problem in select(("vit patch16", "lenet", "seed"))] == ["seed", "lenet", "vit patch16"]
    with pytest.raises(ValueError, match="no problem 'nobody'"):
        select(("nobody",))


def test_drawn_problems_are_the_same_every_time_of_all_ranks_and_of_no_more_work_than_others():
    problems = select(drawn_names(100))
    assert [problem.name for problem in problems[:2]] == ["drawn 1", "drawn 2"]
    assert select(("drawn 7", "seed")) == [*select(("seed",)), problems[6]]
    assert {problem.rank for problem in problems} == {1, 2, 3}
    assert any(1 < problem.groups == problem.in_channels for problem in problems)
    assert len({problem[1:] for problem in problems}) == 100
    assert max(problem.multiplications for problem in problems) <= 6e8
    with pytest.raises(ValueError, match="no problem 'drawn seven'"):
        select(("drawn seven",))


def test_inputs_are_the_same_every_time_and_of_the_dtype():
    first, second = draw(PLAIN, "float32"), draw(PLAIN, "float32")
    for one, other in zip(first, second, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    assert draw(PLAIN, "float64").x.dtype == np.float64


def test_the_numpy_way_declines_what_it_cannot_express():
    reasons = {problem.name: OriginalNumPy().declines(problem, "float64") for problem in PROBLEMS}
    assert reasons["mb2 dw96"] == "has no groups"
    assert reasons["deeplab d2"] == "has no dilation"
    assert reasons["r50 stem"] is reasons["lenet"] is reasons["r50 64-256"] is None
    assert "same" in OriginalNumPy().declines(Problem("odd", 1, 1, 8, 1, 3, 1, 2, 1, 1), "float64")


# --- the judge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", TINY, ids=lambda problem: problem.name)
def test_answers_are_those_of_the_oracle(problem):
    inputs = draw(problem, "float64")
    stride, padding, dilation = ((n, n) for n in (problem.stride, problem.padding, problem.dilation))
    options = stride, (padding, padding), dilation, problem.groups
    answers = solve(problem, inputs)
    np.testing.assert_allclose(
        answers.y, reference_conv2d(inputs.x, inputs.weight, inputs.bias, *options), rtol=1e-12, atol=1e-12
    )
    gradients = reference_conv2d_backward(inputs.grad_output, inputs.x, inputs.weight, *options)
    for got, wanted in zip(answers[1:], gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "problem",
    [Problem("sequence", 2, 4, 17, 6, 3, 2, 1, 2, 2, 1), Problem("volume", 2, 4, 6, 6, 3, 2, 1, 1, 2, 3, 5)],
    ids=lambda problem: problem.name,
)
def test_answers_of_other_ranks_are_those_of_the_oracle_and_of_ours(problem):
    inputs, how = draw(problem, "float64"), [(n,) * problem.rank for n in (problem.stride, problem.dilation)]
    options = how[0], ((problem.padding,) * 2,) * problem.rank, how[1], problem.groups
    answers = solve(problem, inputs)
    wanted = [
        reference_conv(inputs.x, inputs.weight, inputs.bias, *options),
        *reference_conv_backward(inputs.grad_output, inputs.x, inputs.weight, *options),
    ]
    for got, right in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-12)
    assert [passed for passed in PASSES if problem.has(passed)] == ["forward", "backward"]
    for passed in ("forward", "backward"):
        parts = answers.of(passed)
        got = Convjit().prepare(passed, problem, inputs)()
        assert faults(dict(zip(parts, got, strict=True)), parts, "float64") == []
    assert OriginalNumPy().declines(problem, "float64") == "is asked for images only"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda y: y * (1 + 1e-3), "off by 1.0e-03"),
        (lambda y: np.where(np.arange(y.size).reshape(y.shape) == 7, np.nan, y), "off by nan"),
        (lambda y: y[..., :-1], "has shape"),
        (lambda y: np.roll(y, 1, axis=-1), "off by"),
    ],
)
def test_wrong_answers_are_seen(spoil, words):
    wanted = solve(PLAIN, draw(PLAIN, "float32")).of("forward")
    (fault,) = faults({"output": spoil(wanted["output"])}, wanted, "float32")
    assert fault.startswith("output")
    assert words in fault
    assert faults(wanted, wanted, "float32") == []


def test_a_lost_edge_is_seen():
    """One pixel that the weight gradient forgets, in a sum of many, is above the tolerance."""
    problem = Problem("large", 1, 1, 224, 2, 3, 1, 1, 1, 1)
    inputs = draw(problem, "float32")
    wanted = solve(problem, inputs).of("backward")
    inputs.grad_output[:, :, 0, 0] = 0
    found = faults(solve(problem, inputs).of("backward"), wanted, "float32")
    assert any(fault.startswith("weight gradient") for fault in found)
    assert TOLERANCE["float64"] < TOLERANCE["float32"]


# --- runs -------------------------------------------------------------------------------------------------------------


class InProcess:
    """Stands in for a contender's process."""

    def __init__(self, name, threads, cache):
        self._worker = Worker(BY_NAME[name])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def end(self):
        pass

    def ask(self, do, **request):
        try:
            return json.loads(json.dumps(self._worker.answer({"do": do, **request})))
        except ZeroDivisionError as error:
            raise WorkerError(str(error)) from None


class Wrong(Convjit):
    """Forgets the bias."""

    name = "wrong"

    def offers(self):
        return TRAINING

    def prepare(self, passed, problem, inputs):
        return super().prepare(passed, problem, inputs._replace(bias=np.zeros_like(inputs.bias)))


class Broken(Convjit):
    """Fails in its second pass."""

    name = "broken"

    def offers(self):
        return TRAINING

    def prepare(self, passed, problem, inputs):
        return (lambda: 1 / 0) if passed == "backward" else super().prepare(passed, problem, inputs)


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(measure, "WorkerProcess", InProcess)
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0)
    monkeypatch.setattr("bench.worker.WAKE_SECONDS", 0)
    monkeypatch.setattr(measure.peak, "measure", lambda dtype, threads: 1e9)
    for contender in (Wrong(), Broken()):
        monkeypatch.setitem(BY_NAME, contender.name, contender)


def outcome_of(contenders, dtypes=("float64",), problems=(PLAIN,)):
    setting = Setting(list(contenders), 2, None, lambda what: None)
    return measure.run(setting, list(problems), list(dtypes), [1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contenders_without_threads_of_their_own_give_the_right_answers(in_process, dtype):
    contenders = [Convjit(), OriginalNumPy()]
    outcome = outcome_of(contenders, [dtype], TINY)
    assert outcome.troubles == []
    assert len(outcome.rows) == len(TINY) * sum(len(contender.offers()) for contender in contenders)
    for row in outcome.rows:
        assert (row.median is None) == (row.declined is not None)


def test_a_wrong_contender_is_caught_and_has_no_ratio(in_process):
    outcome = outcome_of([Convjit(), Wrong()])
    assert len(outcome.troubles) == 2  # the output, in the forward and in the layer pass
    assert all("wrong, " in trouble and "output is off by" in trouble for trouble in outcome.troubles)
    assert all(line.ratio("wrong") is None for line in lines(outcome.rows) if line.passed in ("forward", "layer"))


def test_a_contender_that_fails_is_named_and_the_others_go_on(in_process):
    outcome = outcome_of([Convjit(), Broken()])
    assert outcome.troubles == ["plain, float64: division by zero"]
    assert [row.passed for row in outcome.rows if row.contender == OURS and row.median] == list(Convjit().offers())


def test_a_wrong_answer_ends_with_status_1(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "installed", lambda: [Convjit(), Wrong()])
    arguments = ["--only", "seed", "--dtype", "float32", "--threads", "1", "--rounds", "1", "--warm"]
    assert command.main([*arguments, "--output", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "trouble: wrong, forward of seed, float32: output is off by" in text
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_a_process_that_ends_is_one_sentence():
    with WorkerProcess("nobody", 1, None) as worker, pytest.raises(WorkerError) as caught:
        worker.ask("hello")
    assert str(caught.value) == "the worker of nobody ended during 'hello': KeyError: 'nobody' (exit status 1)"


PEERS = [contender.name for contender in CONTENDERS if contender.name not in (OURS, "numpy")]


def run_bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def test_one_problem_gives_a_table_and_a_stamped_file(tmp_path):
    done = run_bench(
        "--only", "seed", "--dtype", "float32", "--threads", "1", "--rounds", "2", "--warm", "--without", *PEERS,
        "--output", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "best peer / convjit" in done.stdout
    assert "geometric means" in done.stdout
    (path,) = tmp_path.glob("bench-*.json")
    result = json.loads(path.read_text())
    stamp = result["stamp"]
    assert {"convjit", "python", "numpy", "numba", "llvmlite", "platform"} <= set(stamp["versions"])
    assert {"cpu", "instruction set", "cores"} <= set(stamp["machine"])
    assert set(stamp["git"]) == {"commit", "dirty"}
    assert stamp["command"].startswith("python -m bench --only seed")
    assert stamp["date"][:2] == "20"
    assert result["options"]["threads"] == [1]
    rows = {(row["contender"], row["passed"]): row for row in result["rows"]}
    contenders = (Convjit(), OriginalNumPy())
    assert set(rows) == {(contender.name, passed) for contender in contenders for passed in contender.offers()}
    (peak,) = result["fma peak"]
    for row in rows.values():
        assert len(row["samples"]) == 2
        assert row["faults"] == []
        assert row["prepare_seconds"] >= 0 < row["first_seconds"]
        assert row["peak_bytes"] is None or row["peak_bytes"] >= row["prepared_bytes"] >= 0
        assert row["flops"] > 0
        assert peak["flops"] is None or row["share_of_peak"] == pytest.approx(row["flops"] / peak["flops"])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "--quick"),
        (["--list"], 0, "resnext g32 s2"),
        (["--list"], 0, "vit patch16"),
        (["--passes", "sideways"], 2, "plan-fastest"),
        (["--only", "nobody"], 2, "no problem 'nobody'"),
        (["--rounds", "0"], 2, "positive whole number"),
        (["--dtype", "int8"], 2, "int8"),
    ],
)
def test_the_command_line(arguments, status, words, capsys):
    try:
        returned = command.main(arguments)
    except SystemExit as end:
        returned = end.code
    assert returned == status
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_without_rich_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert command.main(["--only", "seed"]) == 1
    assert 'pip install "convjit[bench]"' in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
def test_an_interrupt_ends_the_workers(tmp_path):
    bench = subprocess.Popen(
        [sys.executable, "-m", "bench", "--only", "vgg 64", "--warm", "--output", str(tmp_path)], cwd=CHECKOUT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    children = []
    deadline = time.monotonic() + 60
    while len(children) < len(installed()) and time.monotonic() < deadline:
        time.sleep(0.05)
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
    bench.send_signal(signal.SIGINT)
    _, errors = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert errors == "interrupted\n"
    assert len(children) == len(installed())
    # A worker that was being started when the interrupt came ends by itself, with its input.
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{child}") for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    assert list(tmp_path.iterdir()) == []
