"""One contender in a process of its own: `python -m bench.worker NAME`.

Requests and replies are JSON, one a line, on standard input and output; what a library prints goes to standard error.
The process ends with its input.

======================================  ==================================================================
request                                 reply
======================================  ==================================================================
`{"do": "hello"}`                       `{"version": ...}`
`{"do": "load", "problem", "dtype"}`    `{}`
`{"do": "first", "pass", "into"}`       a `First`; the arrays of the first call in the file `into`
`{"do": "time", "pass", "calls"}`       `{"seconds"}` a call, over so many calls
======================================  ==================================================================

A request that fails is answered with `{"error": ...}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np

from .contenders import BY_NAME, Contender, Pass
from .memory import Growth
from .problems import Inputs, Problem, draw

# After 50 ms of sleep, Linux took more than 30 ms to bring the second thread of a parallel loop to a core of its own.
WAKE_SECONDS = 0.1


class First(TypedDict):
    """What a pass takes before it can be repeated.

    Memory is counted in a second start, above the problem's inputs: by then the code is compiled, and what is seen is
    packed weights, workspaces and the result.
    """

    prepare_seconds: float
    first_seconds: float
    prepared_bytes: int | None
    peak_bytes: int | None


class Worker:
    """Answers requests for one contender; holds one problem at a time."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._problem: tuple[Problem, Inputs] | None = None
        self._passes: dict[str, Pass] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        match request["do"]:
            case "hello":
                module = importlib.import_module(self._contender.modules[0])
                return {"version": str(getattr(module, "__version__", "?"))}
            case "load":
                problem = Problem(**request["problem"])
                self._problem, self._passes = None, {}  # the arrays of the last problem go before new ones are made
                self._problem = problem, draw(problem, request["dtype"])
                return {}
            case "first":
                return dict(self._first(request["pass"], request["into"]))
            case "time":
                return {"seconds": self._time(self._passes[request["pass"]], request["calls"])}
        raise ValueError(f"unknown request {request['do']!r}")

    def _prepare(self, passed: str) -> Pass:
        if self._problem is None:
            raise ValueError("no problem is loaded")
        return self._contender.prepare(passed, *self._problem)

    def _first(self, passed: str, into: str) -> First:
        start = time.perf_counter()
        function = self._prepare(passed)
        prepared = time.perf_counter()
        arrays = function()
        done = time.perf_counter()
        np.savez(into, *[np.asarray(array) for array in arrays])
        del function, arrays
        memory = Growth()
        self._passes[passed] = self._prepare(passed)
        prepared_bytes = memory.now()
        self._passes[passed]()
        return {
            "prepare_seconds": prepared - start,
            "first_seconds": done - prepared,
            "prepared_bytes": prepared_bytes,
            "peak_bytes": memory.peak(),
        }

    @staticmethod
    def _time(function: Pass, calls: int) -> float:
        # A thread that was asleep runs on the core of the one that woke it until the system moves it: untimed calls
        # before the timed ones show every contender at work, not waking up.
        awake = time.perf_counter() + WAKE_SECONDS
        while time.perf_counter() < awake:
            function()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # one sentence for the one who asked
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(Worker(BY_NAME[sys.argv[1]]).answer)
