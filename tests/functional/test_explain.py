"""What `explain` says is what happens: the same choice, the same workspaces, and a share that can be believed."""

import os
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st

from convjit import algorithms, conv2d, conv2d_backward, explain
from convjit.algorithms import ALGORITHMS, algorithm
from convjit.functional import batches, kept
from convjit.runtime import threads
from convjit.testing import conv2d_cases

PASSES = ("forward", "input_grad", "weight_grad")
ROWS = [row.name for row in ALGORITHMS]


@pytest.fixture
def allocated(monkeypatch):
    """Names and bytes of what was allocated, results aside."""
    seen = []
    allocate = kept.allocate

    def counted(function, what, shape, dtype, *aligned_from):
        array = allocate(function, what, shape, dtype, *aligned_from)
        if what != "the result":
            seen.append((what, array.nbytes))
        return array

    monkeypatch.setattr(kept, "allocate", counted)
    monkeypatch.setattr(kept, "CALLS", 0)
    monkeypatch.setattr(kept, "_kept", OrderedDict())
    return seen


@pytest.mark.parametrize("algorithm", ["auto", *ROWS])
@pytest.mark.parametrize("crew", [1, 3])
@given(data=st.data())
def test_workspaces_are_those_that_are_allocated(data, crew, algorithm, allocated, monkeypatch):
    monkeypatch.setattr(batches, "workers", lambda _: crew)
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: crew)
    case = data.draw(conv2d_cases("float32"))
    options = {**case.problem.options, "algorithm": algorithm}
    x, dy = case.x, case.grad_output
    if data.draw(st.booleans()):
        x, dy, options["layout"] = np.moveaxis(x, -3, -1), np.moveaxis(dy, -3, -1), "NHWC"
    try:
        found = explain(x.shape, case.weight.shape, **options)
    except ValueError:  # the row declines
        with pytest.raises(ValueError):
            conv2d(x, case.weight, **options)
        return
    for name in PASSES:
        del allocated[:]
        if name == "forward":
            conv2d(x, case.weight, **options)
        else:
            need = (name == "input_grad", name == "weight_grad", False)
            conv2d_backward(dy, x, case.weight, **options, need=need)
        expected = getattr(found, name)
        assert allocated == [*expected.workspace.items()]
        assert sum(size for _, size in allocated) == expected.workspace_bytes
        assert expected.workers == crew


def test_a_cut_batch(allocated, monkeypatch):
    monkeypatch.setattr(algorithm, "WORKSPACE_BYTES", 1 << 15)
    forget()
    monkeypatch.setattr(batches, "workers", lambda _: 2)
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 2)
    x, weight = np.ones((9, 2, 3, 3), "f4"), np.ones((2, 2, 3, 3), "f4")
    found = explain(x, weight, padding=20, algorithm="implicit").forward
    assert 1 <= found.images < 9
    conv2d(x, weight, padding=20, algorithm="implicit")
    assert allocated[: len(found.workspace)] == [*found.workspace.items()]
    forget()


def test_multiplications_and_workers():
    small, large = explain((1, 1, 4, 4), (1, 1, 3, 3)), explain((16, 64, 56, 56), (64, 64, 3, 3), padding=1)
    assert small.forward.multiplications == 2 * 2 * 9
    assert large.forward.multiplications == 16 * 64 * 56 * 56 * 64 * 9
    assert small.forward.workers == 1
    assert explain((1, 1, 4, 4), (1, 1, 3, 3), dtype="complex64").forward.multiplications == 4 * 36
    assert explain(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)) * 1j).forward.multiplications == 2 * 36


def test_workers_are_those_of_a_call_alone(monkeypatch):
    """Not of one that finds its threads awake."""
    monkeypatch.setattr(threads, "available", lambda: 7)
    monkeypatch.setattr(threads, "_are_awake", lambda: True)
    small, large = ((1, channels, 28, 28) for channels in (16, 128))
    assert threads.workers(threads.SERIAL_BELOW_NS - 1) == 7
    assert explain(small, (16, 16, 3, 3), padding=1).forward.workers == 1
    assert explain(large, (128, 128, 3, 3), padding=1).forward.workers == 7


def test_arrays_and_shapes_are_alike():
    x, weight, bias = np.ones((2, 4, 9, 8), "f4"), np.ones((6, 2, 3, 3), "f4"), np.ones(6, "f4")
    options = {"stride": 2, "padding": "same", "groups": 2}
    wanted = explain(x, weight, bias, **options)
    assert explain(x.shape, weight.shape, bias.shape, **options, dtype=np.float32) == wanted
    assert explain(x.astype("f8"), weight.shape, **options).problem.startswith("float64 x (2, 4, 9, 8), weight (6, 2,")
    assert explain(x[0], weight, **options).problem.endswith("y (6, 5, 4)")
    assert "computed as int64" in explain(x.shape, weight.shape, **options, dtype="int8").problem


# --- reasons --------------------------------------------------------------------------------------------------------


def test_every_row_is_accounted_for():
    found = explain((1, 3, 9, 9), (4, 3, 3, 3))
    for name in PASSES:
        one = getattr(found, name)
        assert [one.algorithm, *one.others] == sorted(ROWS, key=lambda row: row != one.algorithm)


def test_reasons(monkeypatch):
    plain = ALGORITHMS[-1]
    rows = (
        plain._replace(name="rough", keeps_promises=False, weight_grad=None),
        plain._replace(name="wet", declines=lambda geometry, dtype: "it is raining"),
        plain._replace(name="first"),
        plain._replace(name="half", input_grad=None),
        plain,
    )
    # Operations of their own, so that they can be told apart.
    rows = tuple(
        row._replace(**{p: op._replace(bind=lambda *a, op=op: op.bind(*a)) for p in PASSES if (op := getattr(row, p))})
        for row in rows
    )
    monkeypatch.setattr(algorithms, "ALGORITHMS", rows)
    forget()
    try:
        shapes = (1, 1, 4, 4), (1, 1, 3, 3)
        found = explain(*shapes)
        assert [getattr(found, name).algorithm for name in PASSES] == ["first"] * 3
        rough = "breaks promises: only with algorithm='fastest', or by name"
        assert found.forward.others == {"rough": rough, "wet": "it is raining", "half": "slower", "reference": "slower"}
        assert found.input_grad.others["half"] == "it has no input gradient"
        assert found.weight_grad.others["rough"] == "it has no weight gradient"
        found = explain(*shapes, algorithm="fastest")
        assert found.forward.algorithm == "rough"
        assert found.forward.others["first"] == "slower"
        assert explain(*shapes, algorithm="half").forward.others["first"] == "algorithm='half' was asked for"
        with pytest.raises(ValueError, match=r"^explain: algorithm 'wet' cannot run here: it is raining$"):
            explain(*shapes, algorithm="wet")
    finally:
        forget()


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_table():
    found = explain((8, 16, 20, 20), (24, 16, 3, 3), padding="same")
    text = str(found)
    assert repr(found) == text
    lines = text.splitlines()
    assert lines[0] == "float32 x (8, 16, 20, 20), weight (24, 16, 3, 3) -> y (8, 24, 20, 20)"
    for title, one in (("forward", found.forward), ("input gradient", found.input_grad)):
        assert f"{title:<17} {one.algorithm}" in lines
    assert lines.count(f"  multiplications {8 * 24 * 400 * 16 * 9:,}") == 3
    assert all(len(line) > 18 and line[17] == " " for line in lines[1:])
    for name, value in {"not reference": "slower", "images together": "8"}.items():
        assert lines.count(f"  {name:<16}{value}") == 3


# --- the share ------------------------------------------------------------------------------------------------------


def share(x, weight, name="forward", **options):
    return getattr(explain(x, weight, **options, algorithm="implicit"), name).share_of_peak


@pytest.mark.skipif("implicit" not in ROWS or share((1, 1, 1, 1), (1, 1, 1, 1)) is None, reason="no estimate")
def test_shares_are_ordered_as_fills_are(monkeypatch):
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 1)
    full = share((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    assert 0.6 < full < 1
    assert share((1, 64, 56, 56), (1, 64, 3, 3), padding=1) < full / 1.5  # as long as planes take to fill
    assert share((1, 64, 2, 2), (64, 64, 3, 3), padding=1) < full  # few lanes
    assert share((1, 64, 56, 56), (64, 1, 3, 3), padding=1, groups=64) < full / 3  # depthwise
    assert share((1, 512, 7, 7), (512, 512, 3, 3), "input_grad", padding=1) < full / 2  # weights are transposed
    assert share((1, 256, 56, 56), (64, 256, 1, 1)) > 0.6
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 64)
    assert share((1, 64, 56, 56), (64, 64, 3, 3), padding=1) < full / 1.5  # few tasks for so many


DEPTHWISE = {
    "pixels": ((1, 32, 112, 112), (32, 1, 3, 3), {"groups": 32, "padding": 1}),
    "channels": ((1, 64, 14, 14), (64, 1, 3, 3), {"groups": 64, "padding": 1}),
    "a stride": ((1, 64, 56, 56), (64, 1, 3, 3), {"groups": 64, "padding": 1, "stride": 2}),
    "filters": ((1, 64, 56, 56), (128, 1, 3, 3), {"groups": 64, "padding": 1}),
}


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_says_how_it_is_cut(name, monkeypatch):
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 1)
    x, weight, options = DEPTHWISE[name]
    found, large = explain(x, weight, **options), explain(x, (weight[0], 1, 7, 7), **{**options, "padding": 3})
    for which in PASSES:
        one, more = getattr(found, which), getattr(large, which)
        assert one.algorithm == "depthwise"
        assert 0.02 < one.share_of_peak < more.share_of_peak < 0.7, "more products for what is moved"
        assert "as lanes" in one.cut
    assert ("channels" if name in ("channels", "a stride") else "pixels") in found.forward.cut
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 1000)
    assert explain(x, weight, **options).forward.share_of_peak < found.forward.share_of_peak


def test_winograd_says_how_it_is_cut(monkeypatch):
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 1)
    shapes = (1, 64, 56, 56), (64, 64, 3, 3)
    dense = explain(*shapes, padding=1, algorithm="winograd")
    dilated = explain(*shapes, padding=3, dilation=3, algorithm="winograd").forward
    assert dense.forward.share_of_peak == dense.input_grad.share_of_peak
    assert 0.2 < dilated.share_of_peak < dense.forward.share_of_peak < 0.9
    assert "3x3 phases" in dilated.cut
    assert "phases" not in dense.forward.cut
    assert "tiles" in dense.forward.cut
    strided = explain(*shapes, padding=1, stride=2, algorithm="winograd")
    assert "2x2 phases, which are summed, " in strided.forward.cut
    assert "2x2 phases, weights" in strided.input_grad.cut
    assert 0.2 < strided.forward.share_of_peak < 0.9
    monkeypatch.setattr("convjit.functional.explaining.workers_alone", lambda _: 64)
    crowd = explain(*shapes, padding=1, algorithm="winograd").forward
    assert crowd.share_of_peak < dense.forward.share_of_peak / 2  # few tiles for so many


WITHOUT_COMPILING = """
from convjit import explain
from convjit.algorithms import ALGORITHMS
from convjit.runtime import compile, emitting
for algorithm in ("auto", "fastest", *(row.name for row in ALGORITHMS)):
    for groups in (1, 32, 64):
        for stride in (1, 2):
            for layout in ("NCHW", "NHWC"):
                x, weight = (8, 64, 56, 56), (64, 64 // groups, 3, 3)
                options = dict(stride=stride, padding=1, groups=groups, dtype="float64", layout=layout)
                try:
                    print(explain(x if layout == "NCHW" else (8, 56, 56, 64), weight, algorithm=algorithm, **options))
                except ValueError as error:
                    assert "cannot run here" in str(error)
assert (compile.made(), emitting.anew) == ({}, set())
"""


def test_nothing_is_compiled_to_choose_and_to_explain():
    environment = {**os.environ, "CONVJIT_CACHE": "0"}
    command = [sys.executable, "-c", WITHOUT_COMPILING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "winograd" in done.stdout


@given(data=st.data())
def test_depthwise_shares_are_shares(data):
    case = data.draw(conv2d_cases("float32", max_channels=20, max_kernel=5, max_stride=3))
    channels, (o, _, kh, kw) = case.x.shape[-3], case.weight.shape
    options = {**case.problem.options, "groups": channels}
    found = explain(case.x.shape, (channels * max(1, o // channels), 1, kh, kw), **options)
    for name in PASSES:
        expected = getattr(found, name).share_of_peak
        assert expected is None or 0 <= expected <= 1


@given(data=st.data())
def test_shares_are_shares(data):
    case = data.draw(conv2d_cases("float32", max_channels=40, max_kernel=5, max_stride=3))
    found = explain(case.x.shape, case.weight.shape, **case.problem.options)
    for name in PASSES:
        expected = getattr(found, name).share_of_peak
        assert expected is None or 0 <= expected <= 1


# --- errors ---------------------------------------------------------------------------------------------------------

ERRORS = {
    "rank": (lambda: explain((3, 3), (1, 1, 1, 1)), ValueError, "expected x of shape"),
    "channels": (lambda: explain((1, 2, 3, 3), (1, 1, 1, 1)), ValueError, "weight expects 1 input channels"),
    "bias": (lambda: explain((1, 1, 3, 3), (2, 1, 1, 1), (3,)), ValueError, "bias must have shape"),
    "entries": (lambda: explain((1, "a", 3), (1, 1, 1, 1)), TypeError, "the shape of x must be ints"),
    "negative": (lambda: explain((1, 1, -3, 3), (1, 1, 1, 1)), ValueError, "x cannot have the shape"),
    "endless": (lambda: explain((1, 1 << 62, 3, 3), (1, 1, 1, 1)), ValueError, "x cannot have the shape"),
    "dtype": (lambda: explain((1, 1, 3, 3), (1, 1, 1, 1), dtype="U3"), TypeError, "dtype is <U3, which is not"),
    "dtype that does not parse": (
        lambda: explain((1, 1, 3, 3), (1, 1, 1, 1), dtype="f4,,"), TypeError, "dtype must be a dtype, got str 'f4,,'",
    ),
    "no dtype": (lambda: explain((1, 1, 3, 3), (1, 1, 1, 1), dtype="sloat"), TypeError, "dtype must be a dtype"),
    "algorithm": (lambda: explain((1, 1, 3, 3), (1, 1, 1, 1), algorithm="best"), ValueError, "algorithm must be one"),
    "keyword": (lambda: explain((1, 1, 3, 3), (1, 1, 1, 1), strides=1), TypeError, "it is called 'stride' here"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, error, said = ERRORS[name]
    with pytest.raises(error, match=said) as caught:
        call()
    assert str(caught.value).startswith("explain: ")


def test_no_pixels():
    """Images of a channel a group, without columns: a row of the gradient has no pixels."""
    options = {"stride": 3, "padding": ((0, 2), (2, 2)), "dilation": (3, 2), "groups": 2}
    for dtype in ("int8", "float64"):
        assert explain((2, 7, 0), (2, 1, 2, 1), **options, dtype=dtype).input_grad.share_of_peak < 1
    for size in ((0, 0), (0, 3), (3, 0)):
        for groups in (1, 2):
            found = explain((2, *size), (2, 2 // groups, 1, 1), stride=2, padding=3, groups=groups)
            assert found.input_grad.share_of_peak in (0, None)


def test_phases_of_an_input_gradient_are_told():
    found = explain((1, 64, 28, 28), (64, 64, 3, 3), stride=2, padding=1).input_grad
    assert found.algorithm == "direct"
    assert ", 4 phases" in found.cut


def test_no_channels():
    """There is nothing to estimate: no panel has a vector."""
    for kernel in (1, 2):
        assert explain((1, 0, 2, 3), (2, 0, kernel, kernel)).weight_grad.share_of_peak in (0, None)


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_a_gradient_that_was_left_to_auto_is_explained_as_that(algorithm):
    found = explain((1, 64, 28, 28), (64, 64, 3, 3), padding=2, dilation=2, algorithm=algorithm).weight_grad
    assert found.algorithm == "implicit"
    assert found.others["reference"] == "slower"
