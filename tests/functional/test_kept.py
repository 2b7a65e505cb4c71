"""Workspaces that small calls leave: found by the next, had by one call at a time, few in all."""

from collections import OrderedDict
from threading import Thread

import numpy as np
import pytest

from convjit import conv2d, conv2d_backward, conv2d_input_grad
from convjit.algorithms import Operation
from convjit.functional import bilinear, kept

RNG = np.random.default_rng(0)
X, WEIGHT = RNG.standard_normal((1, 3, 12, 12)).astype("f4"), RNG.standard_normal((5, 3, 3, 3)).astype("f4")


@pytest.fixture
def shelf(monkeypatch):
    monkeypatch.setattr(kept, "_kept", OrderedDict())
    return kept._kept


@pytest.fixture
def allocated(monkeypatch):
    seen, allocate = [], bilinear.allocate

    def counted(function, what, shape, dtype):
        seen.append(what)
        return allocate(function, what, shape, dtype)

    monkeypatch.setattr(bilinear, "allocate", counted)
    return seen


def test_the_next_call_of_a_kind_allocates_its_result_only(shelf, allocated):
    first = conv2d(X, WEIGHT)
    assert len(allocated) > 1
    del allocated[:]
    ((_, left),) = shelf.values()
    for space in left:  # whatever lies there
        space.reshape(-1).view(np.uint8)[...] = 0xFF
    again = conv2d(X, WEIGHT)
    assert allocated == ["the result"]
    assert again.tobytes() == first.tobytes()
    assert not any(np.shares_memory(again, space) for space in left)


def test_gradients_find_theirs(shelf, allocated):
    dy = RNG.standard_normal((1, 5, 10, 10)).astype("f4")
    first = conv2d_backward(dy, X, WEIGHT, need=(True, True, False))
    for _, left in shelf.values():
        for space in left:
            space.reshape(-1).view(np.uint8)[...] = 0xFF
    del allocated[:]
    again = conv2d_backward(dy, X, WEIGHT, need=(True, True, False))
    assert set(allocated) == {"the result"}
    assert [grad.tobytes() for grad in again[:2]] == [grad.tobytes() for grad in first[:2]]


def test_large_calls_leave_nothing(shelf):
    dy, weight = np.ones((1, 512, 7, 7), "f4"), np.ones((512, 512, 3, 3), "f4")
    conv2d_input_grad(dy, weight, 7, padding=1, algorithm="implicit")
    assert not shelf


def test_few_kinds_are_kept_and_those_the_latest(shelf):
    for width in range(8, 8 + 3 * kept.CALLS):
        conv2d(X[..., :5], np.ones((width, 3, 1, 1), "f4"))
    assert [call.geometry.out_channels for call, _ in shelf] == [*range(8 + 2 * kept.CALLS, 8 + 3 * kept.CALLS)]


def test_few_bytes_are_kept(shelf):
    for width in range(40, 40 + kept.CALLS):
        conv2d(np.ones((1, 64, 40, width), "f4"), np.ones((64, 64, 3, 3), "f4"), padding=1)
    taken = sum(space.nbytes for _, left in shelf.values() for space in left)
    assert 0.5 * kept.BYTES < taken <= kept.BYTES
    assert 1 < len(shelf) < kept.CALLS
    assert [size for size, _ in shelf.values()] == [sum(s.nbytes for s in left) for _, left in shelf.values()]


def test_one_call_has_them_at_a_time(shelf):
    conv2d(X, WEIGHT)
    (kind,) = shelf
    assert kept.take(*kind) is not None
    assert kept.take(*kind) is None


def test_a_call_within_a_call_has_its_own(shelf, monkeypatch):
    """As when a signal arrives in a call, and its handler convolves, too."""
    wanted, ((call, _),) = conv2d(X, WEIGHT), shelf
    run, inner = call.operation.run, []

    def interrupted(*arguments):
        if not inner:
            inner.append(None)
            inner[0] = conv2d(X, WEIGHT)
            arguments[-1].reshape(-1)[...] = 7  # what the inner call left there is not ours
        run(*arguments)

    monkeypatch.setattr(call, "operation", Operation(interrupted, call.operation.workspace))
    assert conv2d(X, WEIGHT).tobytes() == wanted.tobytes() == inner[0].tobytes()


def test_a_call_that_fails_leaves_nothing(shelf, monkeypatch):
    conv2d(X, WEIGHT)
    ((call, _),) = shelf

    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(call, "operation", Operation(fails, call.operation.workspace))
    with pytest.raises(KeyboardInterrupt):
        conv2d(X, WEIGHT)
    assert not shelf


def test_many_threads(shelf):
    problems = [(X[..., : 6 + i], WEIGHT) for i in range(7)] * 4
    wanted = [conv2d(*problem).tobytes() for problem in problems]
    wrong = []

    def work():
        for _ in range(40):
            wrong.extend(i for i, problem in enumerate(problems) if conv2d(*problem).tobytes() != wanted[i])

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(shelf) <= kept.CALLS
