"""One racer in a process of its own: `python -m bench.race_worker NAME`.

Requests and replies are lines of JSON, as `worker`'s.

=============================================  ========================================================================
request                                        reply
=============================================  ========================================================================
`{"do": "hello"}`                              `{"version": ...}`
`{"do": "load", "network", "dtype"}`           `{}`
`{"do": "losses", "steps"}`                    `{"losses": [...]}` of so many steps from the first weights on
`{"do": "time", "steps"}`                      `{"seconds"}` a step, over so many steps
`{"do": "until", "loss", "most"}`              `{"seconds", "steps"}` until a loss is as low, None after `most` steps
=============================================  ========================================================================

Each but `load` begins with the first weights anew, as trained ones may hold numbers that are slow to compute with.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from .networks import BATCHES, BY_NAME, Data, Network, draw_data, draw_weights
from .racers import BY_NAME as RACERS
from .racers import Racer
from .worker import WAKE_SECONDS, serve


class RaceWorker:
    """Answers requests for one racer; holds one network's data at a time."""

    def __init__(self, racer: Racer) -> None:
        self._racer = racer
        self._loaded: tuple[Network, str, Data] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        match request["do"]:
            case "hello":
                return {"version": str(getattr(importlib.import_module(self._racer.module), "__version__", "?"))}
            case "load":
                network = BY_NAME[request["network"]]
                self._loaded = network, request["dtype"], draw_data(network, request["dtype"])
                return {}
            case "losses":
                training = _Training(self._racer, self._loaded)
                return {"losses": [training.step() for _ in range(request["steps"])]}
            case "time":
                return {"seconds": self._time(request["steps"])}
            case "until":
                return self._until(request["loss"], request["most"])
        raise ValueError(f"unknown request {request['do']!r}")

    def _time(self, steps: int) -> float:
        training = _Training(self._racer, self._loaded)
        awake = time.perf_counter() + WAKE_SECONDS
        training.step()
        while time.perf_counter() < awake:
            training.step()
        start = time.perf_counter()
        for _ in range(steps):
            training.step()
        return (time.perf_counter() - start) / steps

    def _until(self, loss: float, most: int) -> dict[str, Any]:
        training = _Training(self._racer, self._loaded)
        start = time.perf_counter()
        for step in range(1, most + 1):
            if training.step() <= loss:
                return {"seconds": time.perf_counter() - start, "steps": step}
        return {"seconds": None, "steps": None}


class _Training:
    """A network with its first weights, and the batches in turn."""

    def __init__(self, racer: Racer, loaded: tuple[Network, str, Data] | None) -> None:
        if loaded is None:
            raise ValueError("no network is loaded")
        network, dtype, self._data = loaded
        self._step = racer.prepare(network, dtype, draw_weights(network, dtype))
        self._steps = 0

    def step(self) -> float:
        """The loss of the next batch, before the weights learn from it."""
        at = self._steps % BATCHES
        self._steps += 1
        return self._step(self._data.images[at], self._data.classes[at])


if __name__ == "__main__":
    serve(RaceWorker(RACERS[sys.argv[1]]).answer)
