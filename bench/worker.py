"""One contender in a process of its own: `python -m bench.worker NAME`.

Requests and replies are JSON, one a line, on standard input and output; what a library prints goes to standard error.
The process ends with its input.

======================================  =================================================================
request                                 reply
======================================  =================================================================
`{"do": "hello"}`                       `{"version": ...}`
`{"do": "load", "problem", "dtype"}`    `{}`
`{"do": "first", "pass", "into"}`       `{"seconds"}` of the first call; its arrays in the file `into`
`{"do": "time", "pass", "calls"}`       `{"seconds"}` a call, over so many calls
======================================  =================================================================

A request that fails is answered with `{"error": ...}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np

from .contenders import BY_NAME, Contender, Pass
from .problems import Problem, draw

# After 50 ms of sleep, Linux took more than 30 ms to bring the second thread of a parallel loop to a core of its own.
WAKE_SECONDS = 0.1


class Worker:
    """Answers requests for one contender; holds one problem at a time."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._passes: dict[str, Pass] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        match request["do"]:
            case "hello":
                return {"version": str(getattr(importlib.import_module(self._contender.module), "__version__", "?"))}
            case "load":
                problem = Problem(**request["problem"])
                self._passes = {}  # the arrays of the last problem go before new ones are made
                self._passes = self._contender.passes(problem, draw(problem, request["dtype"]))
                return {}
            case "first":
                start = time.perf_counter()
                arrays = self._passes[request["pass"]]()
                seconds = time.perf_counter() - start
                np.savez(request["into"], *[np.asarray(array) for array in arrays])
                return {"seconds": seconds}
            case "time":
                return {"seconds": self._time(self._passes[request["pass"]], request["calls"])}
        raise ValueError(f"unknown request {request['do']!r}")

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


def main() -> None:
    """Serve until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(BY_NAME[sys.argv[1]])
    for line in sys.stdin:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:  # one sentence for the one who asked
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
