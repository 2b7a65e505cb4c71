"""What the bench's medians say beside each other, as numbers, as tables and as a picture."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("rich", reason="the bench needs rich")

from rich.console import Console

from bench import figure
from bench.contenders import BY_NAME, OURS
from bench.measure import Outcome, Row, Setting
from bench.problems import Problem
from bench.process import CHECKOUT
from bench.ratios import (
    ALL_PEERS,
    DIRECT_PEERS,
    Best,
    Bound,
    bound,
    flops,
    geometric_mean,
    lines,
    ratios,
    scaling,
    tied,
)
from bench.report import print_report
from bench.results import read_json, write_json

ONE = Problem("one", 1, 2, 6, 3, 3, 1, 1, 1, 1)
TWO = Problem("two", 1, 2, 6, 3, 1, 1, 0, 1, 1)


def row(contender, samples, problem=ONE, passed="forward", threads=1, **rest):
    return Row(problem, "float32", threads, passed, contender, samples=samples, **rest)


def some_rows():
    return [
        row(OURS, [1.0, 2.0, 9.0]),
        row("torch", [3.0, 4.0, 5.0]),
        row("ncnn", [1.0]),
        row(OURS, [0.5], passed="fastest"),
        row(OURS, [4.0], TWO),
        row("torch", [4.1], TWO),
        row("ncnn", [0.1], TWO, faults=["output is off"]),
        row(OURS, [1.0], threads=2),
        row("torch", [2.0], threads=2),
    ]


def some_outcome():
    return Outcome(some_rows(), {OURS: "1", "torch": "2", "ncnn": "3"}, ["something"], {("float32", 1): 1e6})


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_ratio_is_of_medians_and_needs_right_answers():
    forward, fastest, two, *_ = lines(some_rows())
    assert (forward.problem, forward.passed, forward.ratio("torch")) == (ONE, "forward", 2.0)
    assert forward.ratio("nobody") is None
    assert (fastest.passed, fastest.ratio("torch"), fastest.ratio("ncnn")) == ("fastest", 8.0, 2.0)
    assert two.ratio("ncnn") is None
    assert [line.ratio("torch") for line in lines([row("torch", [1.0])])] == [None]


def test_the_best_peer_and_the_best_that_sums_directly():
    forward, _, two, _ = lines(some_rows())
    assert forward.best() == Best("ncnn", 0.5)
    assert forward.best(direct=True) == Best("torch", 2.0)
    assert two.best() == Best("torch", 4.1 / 4.0)
    assert lines([row(OURS, [1.0])])[0].best() is None
    assert [name for name, contender in BY_NAME.items() if not contender.direct] == ["ncnn"]


def test_what_is_within_three_percent_is_a_tie():
    assert tied(0.98) == tied(1.02) == 1.0
    assert (tied(0.96), tied(1.04)) == (0.96, 1.04)
    found = [line for line in lines(some_rows()) if line.threads == 1 and line.passed == "forward"]
    assert ratios(found, "torch") == ratios(found, DIRECT_PEERS) == {ONE: 2.0, TWO: 1.0}
    assert ratios(found, ALL_PEERS) == {ONE: 0.5, TWO: 1.0}


def test_means_and_scaling():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert geometric_mean([]) is None
    assert scaling(lines(some_rows())) == {(ONE, "float32", "forward"): 2.0}


def test_how_far_the_peak_lets_layers_of_many_channels_go():
    many, grouped = (Problem("many", 1, 64 * g, 6, 64 * g, 3, 1, 1, 1, g) for g in (1, 2))
    few, split = Problem("few", 1, 63, 6, 64, 3, 1, 1, 1, 1), Problem("split", 1, 64, 6, 64, 3, 1, 1, 1, 2)
    rows = [row(name, [t], each) for each in (many, grouped, few, split) for name, t in ((OURS, 2.0), ("torch", 4.0))]
    rows += [row("ncnn", [1.0], many), row(OURS, [8.0], many, passed="plan")]
    forward = [line for line in lines(rows) if line.passed == "forward"]
    assert bound(forward, lambda row: 0.5) == Bound(layers=2, ours=0.5, peer=0.25, ratio=2.0, at_peak=4.0)
    assert bound(forward, lambda row: None) is None
    assert bound(forward[2:], lambda row: 0.5) is None


def test_operations_are_those_of_the_direct_method():
    assert flops(row(OURS, [1.0])) == 2 * 3 * 36 * 2 * 9
    assert flops(row(OURS, [1.0], passed="layer")) == 3 * flops(row(OURS, [1.0]))
    assert flops(row(OURS, [])) is None
    assert some_outcome().share_of_peak("float32", 1, 5e5) == 0.5
    assert some_outcome().share_of_peak("float32", 9, 5e5) is None


def test_peers_are_measured_in_the_pass_that_stands_beside():
    setting = Setting([], 1, None, print, ("fastest",))
    assert setting.passes_of(BY_NAME[OURS]) == ["fastest"]
    assert setting.passes_of(BY_NAME["torch"]) == ["forward"]


# --- tables and files -------------------------------------------------------------------------------------------------


def test_the_tables_say_it_all(capsys):
    print_report(Console(width=170), some_outcome(), 3)
    text = capsys.readouterr().out
    for words in ("ncnn 0.50", "wrong", "best direct", "0.50 (one)", "trouble: something", "f32 forward"):
        assert words in text


def test_the_tables_say_how_near_the_peak_is(capsys):
    many = Problem("many", 1, 64, 6, 64, 3, 1, 1, 1, 1)
    rows = [row(OURS, [flops(row(OURS, [1.0], many))], many), row("torch", [flops(row(OURS, [1.0], many)) * 3], many)]
    print_report(Console(width=170), Outcome(rows, {OURS: "1", "torch": "2"}, [], {("float32", 1): 2.0}), 1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[-1:] == ["6.00"]]
    assert line.split() == ["float32,", "1", "thread", "forward", "1", "50%", "17%", "3.00", "6.00"]


def test_a_result_is_read_as_it_was_written(tmp_path):
    outcome = some_outcome()
    stamp, rows = read_json(write_json(tmp_path, outcome, ["--warm"], {}))
    assert rows == outcome.rows
    assert stamp["command"] == "python -m bench --warm"


@pytest.mark.parametrize("content", ["", "[]", '{"rows": [{}]}', '{"rows": 1}'])
def test_what_is_no_result_is_one_sentence(tmp_path, content, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    path = tmp_path / "result.json"
    path.write_text(content)
    assert figure.main([str(path), "--output", str(tmp_path / "speed.svg")]) == 1
    assert "is not a result of `python -m bench`" in capsys.readouterr().err
    assert not (tmp_path / "speed.svg").exists()


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_of_a_result(tmp_path, ending):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    rows = [*some_rows(), row(OURS, [1.5], passed="plan"), row(OURS, [0.4], passed="plan-fastest")]
    result = write_json(tmp_path, Outcome(rows, {OURS: "1", "torch": "2", "ncnn": "3"}), [], {})
    pictures = [tmp_path / f"{name}.{ending}" for name in ("first", "second")]
    for picture in pictures:
        command = [sys.executable, "-m", "bench.figure", str(result), "--output", str(picture)]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"written: {picture}\n"
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert pictures[0].stat().st_size > 5000


def test_the_picture_shows_each_line_once(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: drawn.append(self))
    stamp = json.loads(write_json(tmp_path, some_outcome(), [], {}).read_text())["stamp"]
    figure.draw(tmp_path / "speed.svg", stamp, lines(some_rows()), "float32", ["forward", "fastest"])
    (picture,) = drawn
    titles = [axes.get_title(loc="left") for axes in picture.axes]
    assert titles == ['algorithm="auto", 1 thread', 'algorithm="auto", 2 threads', 'algorithm="fastest", 1 thread']
    dots = [[line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"] for axes in picture.axes]
    assert dots == [[2.0, 4.1 / 4.0], [2.0], [2.0]]
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == ["one", "two"]


def test_nothing_to_compare_is_one_sentence(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    result = write_json(tmp_path, some_outcome(), [], {})
    assert figure.main([str(result), "--dtype", "float64", "--output", str(tmp_path / "speed.svg")]) == 1
    assert capsys.readouterr().err == "there is nothing to compare in float64\n"


def test_without_matplotlib_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert figure.main(["result.json"]) == 1
    said = 'python -m bench.figure needs matplotlib, which is not installed: pip install "convjit[bench]"\n'
    assert capsys.readouterr().err == said


def test_a_reaction_without_matplotlib_ends_with_one_sentence():
    program = "import runpy, sys; sys.modules['matplotlib'] = None; runpy.run_path('bench/reaction_diffusion.py')"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: bench/reaction_diffusion.py needs matplotlib, which is not installed: "
        'pip install "convjit[demo]"'
    )


def test_a_reaction_that_cannot_be_drawn_ends_with_one_sentence(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; what is said of that is tested above")
    for place in (tmp_path, tmp_path / "nowhere" / "a.png"):
        done = subprocess.run(
            [sys.executable, "bench/reaction_diffusion.py", place],
            cwd=CHECKOUT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == (
            f"python bench/reaction_diffusion.py: error: cannot write {str(place)!r}; choose another PNG"
        )
