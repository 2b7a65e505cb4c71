"""Measuring contenders in turn.

Knows the order: for each problem every contender answers once (timed, then checked), and then rounds in which each
contender is asked for one sample of each pass. What disturbs a round, disturbs all of them. Does not print.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from . import peak
from .answers import Answers, faults, solve
from .contenders import COMPARED, OURS, PASSES, Contender
from .problems import Problem, draw
from .process import Asking, WorkerProcess

# A sample is at least so long, so that the clock and the request do not show in it.
SAMPLE_SECONDS = 0.004
# Idle threads of OpenMP and BLAS spin for some milliseconds after their work: the next contender waits for that.
SETTLE_SECONDS = 0.01


@dataclass
class Row:
    """What one contender did in one pass of one problem."""

    problem: Problem
    dtype: str
    threads: int
    passed: str
    contender: str
    declined: str | None = None
    prepare_seconds: float | None = None
    first_seconds: float | None = None
    prepared_bytes: int | None = None
    peak_bytes: int | None = None
    calls_a_sample: int = 0
    samples: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """Seconds a call, or None where nothing was measured."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def until_first(self) -> float | None:
        """Seconds until the first result is there: preparation and first call."""
        if self.prepare_seconds is None or self.first_seconds is None:
            return None
        return self.prepare_seconds + self.first_seconds


@dataclass
class Setting:
    """What is the same for a whole run; `cache` is a folder for compiled code, or None for the user's own."""

    contenders: list[Contender]
    rounds: int
    cache: Path | None
    advance: Callable[[str], None]  # is told what begins now
    passes: tuple[str, ...] = PASSES

    def passes_of(self, contender: Contender) -> list[str]:
        """The passes to be measured, and those that stand beside them."""
        wanted = {*self.passes, *(COMPARED[passed] for passed in self.passes)}
        if contender.name == OURS:
            wanted = set(self.passes)
        return [passed for passed in contender.offers() if passed in wanted]


@dataclass
class Outcome:
    """All rows, the versions of the contenders, the FMA peaks, and a sentence for everything that went wrong."""

    rows: list[Row] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    peaks: dict[tuple[str, int], float | None] = field(default_factory=dict)

    def share_of_peak(self, dtype: str, threads: int, flops: float | None) -> float | None:
        """Of the FMA peak of so many threads; None where one of the two was not measured."""
        peak = self.peaks.get((dtype, threads))
        return flops / peak if flops and peak else None


def run(setting: Setting, problems: list[Problem], dtypes: list[str], threads: list[int]) -> Outcome:
    """Measure every problem with every dtype and number of threads."""
    outcome = Outcome(peaks={(dtype, count): peak.measure(dtype, count) for dtype in dtypes for count in threads})
    for count in threads:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="convjit-bench-")))
            workers = {
                contender.name: stack.enter_context(WorkerProcess(contender.name, count, setting.cache))
                for contender in setting.contenders
            }
            bench = _Bench(setting, outcome, workers, folder, count)
            bench.greet()
            for dtype in dtypes:
                for problem in problems:
                    bench.measure(problem, dtype)
    return outcome


class _Bench(Asking):
    """The workers of one number of threads."""

    def __init__(
        self, setting: Setting, outcome: Outcome, workers: dict[str, WorkerProcess], folder: Path, threads: int
    ) -> None:
        super().__init__(workers, outcome.troubles)
        self._setting, self._outcome = setting, outcome
        self._folder, self._threads = folder, threads

    def greet(self) -> None:
        for contender in self._setting.contenders:
            reply = self._ask(contender.name, "", "hello")
            if reply is not None:
                self._outcome.versions[contender.name] = reply["version"]

    def measure(self, problem: Problem, dtype: str) -> None:
        """All passes of one problem."""
        where = f"{problem.name}, {dtype}, {self._threads} threads" if self._threads > 1 else f"{problem.name}, {dtype}"
        self._setting.advance(where)
        rows = [
            Row(problem, dtype, self._threads, passed, contender.name, contender.declines(problem, dtype))
            for passed in PASSES
            for contender in self._setting.contenders
            if contender.name in self._workers and passed in self._setting.passes_of(contender) and problem.has(passed)
        ]
        self._outcome.rows += rows
        answers = solve(problem, draw(problem, dtype))
        for name in {row.contender: None for row in rows if row.declined is None}:
            self._ask(name, where, "load", problem=problem._asdict(), dtype=dtype)
        for row in rows:
            if row.declined is None:
                self._first(row, answers, where)
        del answers
        timed = [row for row in rows if row.calls_a_sample]
        for _ in range(self._setting.rounds):
            for row in timed:
                self._sample(row, where)

    def _first(self, row: Row, answers: Answers, where: str) -> None:
        """The first call, its answer, and how many calls make a sample."""
        into = self._folder / "answer.npz"
        first = self._ask(row.contender, where, "first", **{"pass": row.passed, "into": str(into)})
        if first is None:
            return
        for name, value in first.items():
            setattr(row, name, value)
        wanted = answers.of(row.passed)
        with np.load(into) as arrays:
            row.faults = faults(dict(zip(wanted, arrays.values(), strict=True)), wanted, row.dtype)
        self._outcome.troubles += [f"{row.contender}, {row.passed} of {where}: {fault}" for fault in row.faults]
        warm = self._ask(row.contender, where, "time", **{"pass": row.passed, "calls": 1})
        if warm is not None:
            row.calls_a_sample = max(1, math.ceil(SAMPLE_SECONDS / max(warm["seconds"], 1e-7)))

    def _sample(self, row: Row, where: str) -> None:
        time.sleep(SETTLE_SECONDS)
        reply = self._ask(row.contender, where, "time", **{"pass": row.passed, "calls": row.calls_a_sample})
        if reply is not None:
            row.samples.append(reply["seconds"])
