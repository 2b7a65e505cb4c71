"""Launches of one call by one start of a team: each step begins when the one before has ended, whoever runs it."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from every_call import _functions

from convjit.runtime import launch, threads, turns
from convjit.runtime.compile import Driver
from convjit.runtime.launch import Launch, run_in_turn


def summed(task: Any, worker: Any, rounds: Any, source: Any, target: Any) -> None:
    """target[task] = source[task] + the sum of all of the source's neighbours, `rounds` times."""
    total = 0.0
    for _ in range(rounds):
        total = 0.0
        for i in range(source.size):
            total += source[i]
    target[task] = source[task] + total


SUMMED = Driver(summed)


def chain(tasks, steps):
    """Arrays, and runs of which each reads all of what the one before wrote."""
    arrays = [np.arange(tasks, dtype=np.float64), *(np.full(tasks, np.nan) for _ in range(steps))]
    how = Launch(SUMMED, tasks, 1.0, 3)
    return arrays, [how.on(*pair) for pair in pairwise(arrays)]


@pytest.mark.parametrize("workers", [2, 3, 16])
@pytest.mark.parametrize("tasks", [1, 2, 7, 100])
def test_each_step_reads_what_the_one_before_wrote(tasks, workers, monkeypatch):
    starts = []
    run_parallel = threads.run_parallel
    monkeypatch.setattr(threads, "run_parallel", lambda *arguments: starts.append(run_parallel(*arguments)))
    wanted, runs = chain(tasks, 4)
    run_in_turn(1, *runs)
    assert not starts
    for _ in range(50):
        got, runs = chain(tasks, 4)
        run_in_turn(workers, *runs)
        for a, b in zip(got, wanted, strict=True):
            assert a.tobytes() == b.tobytes()
    assert len(starts) == 50


def test_steps_without_tasks_hold_nothing_up():
    source, target = np.ones(5), np.zeros(5)
    none = Launch(SUMMED, 0, 1.0, 1).on(source, target)
    run_in_turn(2, none, Launch(SUMMED, 5, 1.0, 1).on(source, target), none)
    assert target.tolist() == [6.0] * 5


def test_long_steps_are_run_apart_and_in_pieces(monkeypatch):
    monkeypatch.setattr(turns, "run_steps", lambda *arguments: pytest.fail("one start for long steps"))
    monkeypatch.setattr(launch, "_CUT_ABOVE_NS", 0.5)
    wanted, _ = chain(9, 3)
    got, runs = chain(9, 3)
    run_in_turn(2, *runs)
    for i in range(3):
        wanted[i + 1][...] = wanted[i] + wanted[i].sum()
    assert all(a.tolist() == b.tolist() for a, b in zip(got, wanted, strict=True))


def test_a_worker_that_comes_late_finds_nothing_to_do():
    """As on a core that another thread has: the others do not wait for it."""
    arrays, runs = chain(6, 3)
    order: list[int] = []

    def one_by_one(workers, twin, *arguments):
        order.append(workers)
        twin(1, *arguments[1:])  # a team of which only one worker ever comes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "run_parallel", one_by_one)
        run_in_turn(3, *runs)
    wanted, runs = chain(6, 3)
    run_in_turn(1, *runs)
    assert order == [3]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays, wanted, strict=True))


def numbered(task: Any, worker: Any, count: Any, target: Any) -> None:
    """target[task] = how many tasks were run before."""
    target[task] = count[0]
    count[0] += 1


@pytest.mark.parametrize(("worker", "order"), [(0, "0123456789"), (1, "3456789012"), (2, "6789012345")])
def test_a_worker_begins_with_its_own_share_and_takes_those_of_others_then(worker, order, monkeypatch):
    """So that it finds in its caches what it wrote in the step before."""

    def alone(_, twin, workers, work, *told):
        ctypes.CFUNCTYPE(None, *4 * [ctypes.c_int64])(work)(*told, worker)

    monkeypatch.setattr(threads, "run_parallel", alone)
    counts, target = np.zeros((2, 1), np.int64), np.zeros((2, 10), np.int64)
    how = Launch(Driver(numbered), 10, 1.0)
    run_in_turn(3, *map(how.on, counts, target))
    for step in target:
        assert "".join(map(str, np.argsort(step))) == order


def test_what_numba_compiles_is_run_step_by_step():
    """Its twins are not called by address."""
    source, target, last = np.arange(4, dtype="u8"), np.zeros(4, "u8"), np.zeros(4)
    moved = Driver(copied)
    run_in_turn(2, Launch(moved, 4, 1.0).on(source, target), Launch(SUMMED, 4, 1.0, 1).on(target.astype("f8"), last))
    assert target.tolist() == [0, 1, 2, 3]
    assert last.tolist() == [0.0] * 4  # the second was given what was there before the first had run


def copied(task: Any, worker: Any, source: Any, target: Any) -> None:
    """target = source."""
    target[task] = source[task]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_launches_are_given_the_same_kinds_each_time(dtype, monkeypatch, anew):
    """What is compiled for the first arguments serves all later ones: arrays of any layout, read-only or not."""
    checked = []

    def watched(make):
        def made(self, *arguments):
            way, tasks, nanoseconds, given = make(self, *arguments)
            assert self._driver.way(given) is way
            checked.append(self)
            return way, tasks, nanoseconds, given

        return made

    def run(self, workers, *last):
        run_in_turn(workers, self.on(*last))

    for name in ("on", "part"):
        monkeypatch.setattr(Launch, name, watched(getattr(Launch, name)))
    monkeypatch.setattr(Launch, "run", run)
    monkeypatch.setattr(threads, "SERIAL_BELOW_NS", 0)
    x = (np.random.default_rng(3).standard_normal((2, 4, 9, 18)) * 8).astype(dtype)
    read_only = x.copy()
    read_only.flags.writeable = False
    for images in (x, read_only, np.asfortranarray(x), x[::-1], x[:1], np.repeat(x, 2, axis=3)[..., ::2]):
        for _, run in _functions(images):
            run()
    assert len(checked) > len(set(checked)) > 10
