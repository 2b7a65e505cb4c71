"""The training race: its networks, its racers, its table and its file; no times."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.testing import assert_array_equal

pytest.importorskip("rich", reason="the bench needs rich")

from bench import networks, race, race_worker, racers
from bench.networks import Convolution, Dense, Network, Pool, Relu
from bench.process import WorkerError
from bench.race import Outcome, Row

TINY = Network("tiny", 3, 2, 4, (Convolution(2), Relu(), Pool(), Dense(5), Relu(), Dense(networks.CLASSES)))
HERE = [racer.name for racer in racers.RACERS if find_spec(racer.module)]


def trained(name, dtype, steps=4):
    """The losses of a racer's first steps."""
    data = networks.draw_data(TINY, dtype)
    step = racers.BY_NAME[name].prepare(TINY, dtype, networks.draw_weights(TINY, dtype))
    return [step(data.images[i], data.classes[i]) for i in range(steps)]


@pytest.mark.parametrize("network", [*networks.NETWORKS, TINY], ids=lambda network: network.name)
def test_data_and_weights_fit_the_network(network):
    data, weights = networks.draw_data(network, "float32"), networks.draw_weights(network, "float32")
    size = (network.channels, network.size, network.size)
    assert data.images.shape == (networks.BATCHES, network.batch, *size)
    assert data.images.dtype == weights[0].dtype == np.float32
    assert set(np.unique(data.classes)) <= set(range(networks.CLASSES))
    assert data.images.std() == pytest.approx(1, rel=0.1)
    assert len(weights) == sum(isinstance(part, Convolution | Dense) for part in network.parts)
    assert weights[-1].shape[1] == networks.CLASSES
    for again, once in zip(networks.draw_weights(network, "float32"), weights, strict=True):
        assert_array_equal(again, once)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", HERE)
def test_every_racer_learns_the_same(name, dtype, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    losses = trained(name, dtype)
    np.testing.assert_allclose(losses, trained("convjit", dtype), rtol=0, atol=2e-6 if dtype == "float32" else 1e-12)
    assert len(set(losses)) == 4
    data = networks.draw_data(TINY, dtype)
    step = racers.BY_NAME[name].prepare(TINY, dtype, networks.draw_weights(TINY, dtype))
    same = [step(data.images[0], data.classes[0]) for _ in range(50)]
    assert same[-1] < same[0]


def test_losses_that_part_are_trouble():
    rows = [Row("n", "float32", 1, name, losses) for name, losses in [
        ("convjit", [2.0, 1.0]), ("torch", [2.0, 1.0 + race.TOLERANCE / 2]), ("numpy", [2.0, 1.001]),
        ("fastest", [2.0, float("nan")]),
    ]]  # fmt: skip
    troubles = []
    race.compare(rows, "here", troubles)
    assert [trouble.split(" is ")[0] for trouble in troubles] == [
        "here: the loss of numpy", "here: the loss of fastest"
    ]  # fmt: skip
    assert "at step 2" in troubles[0]
    assert rows[1].apart == pytest.approx(race.TOLERANCE / 2)


def test_a_worker_answers(monkeypatch):
    monkeypatch.setitem(race_worker.BY_NAME, "tiny", TINY)
    monkeypatch.setattr(race_worker, "WAKE_SECONDS", 0)
    worker = race_worker.RaceWorker(racers.BY_NAME["convjit"])
    with pytest.raises(ValueError, match="no network is loaded"):
        worker.answer({"do": "losses", "steps": 1})
    assert worker.answer({"do": "hello"})["version"]
    worker.answer({"do": "load", "network": "tiny", "dtype": "float64"})
    losses = worker.answer({"do": "losses", "steps": 5})["losses"]
    assert losses == worker.answer({"do": "losses", "steps": 5})["losses"]
    assert worker.answer({"do": "time", "steps": 2})["seconds"] > 0
    reached = worker.answer({"do": "until", "loss": min(losses), "most": 5})
    assert reached["steps"] == 1 + int(np.argmin(losses))
    assert worker.answer({"do": "until", "loss": -1, "most": 3}) == {"seconds": None, "steps": None}
    with pytest.raises(ValueError, match="unknown request 'sing'"):
        worker.answer({"do": "sing"})


def test_a_run_leaves_a_stamped_file(tmp_path, capsys):
    arguments = ["--only", "digits", "--dtype", "float32", "--threads", "1", "--rounds", "2", "--steps", "3"]
    arguments += ["--without", *(name for name in racers.BY_NAME if name not in ("convjit", "numpy"))]
    assert race.main([*arguments, "--output", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    for words in ("numpy/convjit", "float32, 1 thread", "digits", "loss apart"):
        assert words in captured.out
    (path,) = tmp_path.glob("race-*.json")
    result = json.loads(path.read_text())
    assert result["stamp"]["command"].startswith("python -m bench.race --only digits")
    assert {"convjit", "numpy"} <= set(result["stamp"]["versions"])
    assert result["troubles"] == []
    assert [row["racer"] for row in result["rows"]] == ["convjit", "numpy"]
    for row in result["rows"]:
        assert len(row["samples"]) == 2
        assert len(row["losses"]) == 3
        assert row["until_steps"] == result["rows"][0]["until_steps"] is not None


class Dying:
    """A worker that answers the first request and no other."""

    def __init__(self):
        self.asked = 0

    def ask(self, do, **request):
        self.asked += 1
        if self.asked > 1:
            raise WorkerError("the worker of numpy ended")
        return {"version": "1"}

    def end(self):
        self.ended = True


def test_a_racer_that_fails_is_ended_and_reported():
    outcome, dying = Outcome(), Dying()
    team = race._Race(outcome, {"numpy": dying}, 1)
    team.greet()
    team.run("digits", "float32", 2, 3)
    assert dying.ended
    assert outcome.troubles == ["digits, float32, 1 thread: the worker of numpy ended"]
    (row,) = outcome.rows
    assert (row.losses, row.samples) == ([], [])
    assert [table.row_count for table in race.as_tables(outcome, 2, 3)] == [1, 1]


def test_trouble_ends_with_status_1(monkeypatch, tmp_path, capsys):
    rows = [Row("digits", "float32", 1, "convjit", [1.0], 1, [0.5], 0.5, 1)]
    monkeypatch.setattr(race, "measure", lambda *rest: Outcome(rows, {"convjit": "1"}, ["somebody fell"]))
    assert race.main(["--threads", "1", "--output", str(tmp_path)]) == 1
    assert "somebody fell" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "time to the same"),
        (["--steps", "0"], 2, "positive whole number"),
        (["--only", "resnet"], 2, "resnet"),
        (["--without", "convjit"], 2, "convjit"),
    ],
)
def test_the_command_line(arguments, status, words, capsys):
    with pytest.raises(SystemExit) as end:
        race.main(arguments)
    assert end.value.code == status
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_without_rich_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert race.main([]) == 1
    said = 'python -m bench.race needs rich, which is not installed: pip install "convjit[bench]"\n'
    assert capsys.readouterr().err == said
