"""The bench's contenders: which passes each has, what it declines, and that its answers are right."""

import json

import numpy as np
import pytest

from bench import contenders
from bench.answers import faults, solve
from bench.contenders import BY_NAME, COMPARED, CONTENDERS, INFERENCE, OURS, PASSES, TRAINING
from bench.problems import PROBLEMS, Problem, draw
from bench.process import WorkerProcess
from bench.worker import Worker

TINY = [
    Problem("plain", 2, 3, 6, 4, 3, 1, 1, 1, 1),
    Problem("strided", 1, 2, 7, 3, 2, 2, 0, 1, 1),
    Problem("dilated", 1, 4, 9, 5, 3, 1, 2, 2, 1),
    Problem("grouped", 2, 4, 7, 6, 3, 2, 1, 1, 2),
    Problem("depthwise", 3, 8, 7, 8, 3, 1, 1, 1, 8),
]
INSTALLED = {contender.name for contender in contenders.installed()}
LIBRARIES = [contender for contender in CONTENDERS if contender.name not in (OURS, "numpy")]


def test_every_pass_stands_beside_one_that_peers_have():
    assert set(COMPARED.values()) == set(TRAINING)
    assert all(COMPARED[passed] == passed for passed in TRAINING)


@pytest.mark.parametrize("contender", CONTENDERS, ids=BY_NAME)
def test_passes_are_in_the_order_of_the_table(contender):
    offered = list(contender.offers())
    assert offered == [passed for passed in PASSES if passed in offered]
    assert offered[0] == "forward"


def test_plans_are_made_once_with_the_algorithm_of_their_pass(monkeypatch):
    import convjit

    made = []

    def conv2d_plan(weight, bias, *options, algorithm):
        made.append((options, algorithm))
        return lambda x, out: convjit.conv2d(x, weight, bias, *options, out=out)

    monkeypatch.setattr(convjit, "conv2d_plan", conv2d_plan)
    assert BY_NAME[OURS].offers() == PASSES
    problem = TINY[0]
    inputs = draw(problem, "float32")
    for passed in ("plan", "plan-fastest"):
        (y,) = BY_NAME[OURS].prepare(passed, problem, inputs)()
        wanted = solve(problem, inputs).of(passed)
        assert faults({"output": y}, wanted, "float32") == []
    assert made == [((1, 1, 1, 1), "auto"), ((1, 1, 1, 1), "fastest")]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "ncnn"])
def test_inference_runtimes_decline_float64_and_gradients(name):
    contender = BY_NAME[name]
    assert contender.offers() == INFERENCE
    for problem in PROBLEMS:
        assert contender.declines(problem, "float32") is None
        assert contender.declines(problem, "float64") == "computes in float32 only"


def test_a_contender_is_installed_when_all_its_modules_are(monkeypatch):
    monkeypatch.setattr(contenders, "find_spec", lambda module: None if module == "onnx" else object())
    names = [contender.name for contender in contenders.installed()]
    assert names == [name for name in BY_NAME if name != "onnxruntime"]


@pytest.mark.parametrize("contender", LIBRARIES, ids=lambda contender: contender.name)
def test_libraries_give_the_right_answers(contender, tmp_path):
    if contender.name not in INSTALLED:
        pytest.skip(f"{' and '.join(contender.modules)} not installed")
    into = tmp_path / "answer.npz"
    with WorkerProcess(contender.name, 1, None) as worker:
        assert worker.ask("hello")["version"] != "?"
        for dtype in ("float32", "float64"):
            for problem in TINY:
                if contender.declines(problem, dtype) is not None:
                    continue
                answers = solve(problem, draw(problem, dtype))
                worker.ask("load", problem=problem._asdict(), dtype=dtype)
                for passed in contender.offers():
                    first = worker.ask("first", **{"pass": passed, "into": str(into)})
                    assert first["prepare_seconds"] > 0 < first["first_seconds"]
                    wanted = answers.of(passed)
                    with np.load(into) as arrays:
                        got = dict(zip(wanted, arrays.values(), strict=True))
                        assert faults(got, wanted, dtype) == [], f"{passed} of {problem.name}, {dtype}"
                    assert worker.ask("time", **{"pass": passed, "calls": 1})["seconds"] > 0


def test_a_worker_counts_what_is_prepared(monkeypatch, tmp_path):
    """32 MiB of packed weights and 64 MiB of workspace show, memory that was freed before does not."""

    class Greedy:
        name = "greedy"
        modules = ("numpy",)
        direct = True

        def offers(self):
            return INFERENCE

        def declines(self, problem, dtype):
            return None

        def prepare(self, passed, problem, inputs):
            packed = np.ones(32 << 20, np.uint8)

            def forward():
                np.ones(64 << 20, np.uint8).sum()
                return (packed[:1],)

            return forward

    worker = Worker(Greedy())
    worker.answer({"do": "load", "problem": TINY[0]._asdict(), "dtype": "float32"})
    first = worker.answer({"do": "first", "pass": "forward", "into": str(tmp_path / "answer.npz")})
    json.dumps(first)
    if first["prepared_bytes"] is None:
        pytest.skip("this system does not tell the most memory since a moment")
    assert 28 << 20 < first["prepared_bytes"] < 48 << 20
    assert 90 << 20 < first["peak_bytes"] < 120 << 20


def test_a_worker_without_a_problem_says_so():
    with pytest.raises(ValueError, match="no problem is loaded"):
        Worker(BY_NAME[OURS]).answer({"do": "first", "pass": "forward", "into": "nowhere"})
