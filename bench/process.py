"""A contender's process, seen from the one who asks.

Knows how to start it, ask it and end it. Does not know what is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent

THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(Exception):
    """A worker failed; the message is one sentence."""


class WorkerProcess:
    """One contender at work; use as a context manager, which ends the process."""

    def __init__(self, name: str, threads: int, cache: Path | None, module: str = "bench.worker") -> None:
        self.name = name
        environment = os.environ | {variable: str(threads) for variable in THREAD_VARIABLES}
        if cache is not None:
            environment |= {"CONVJIT_CACHE_DIR": str(cache), "CONVJIT_CACHE": "1"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        # A session of its own: Ctrl-C reaches the bench alone, which ends its workers.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, name], cwd=CHECKOUT, env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the reply; `WorkerError` if there is none, or it says that the request failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"the worker of {self.name} ended during {do!r}: {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"the worker of {self.name} failed during {do!r}: {reply['error']}")
        return reply

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (exit status {status})"

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was still to be written has no reader
                    pipe.close()


class Asking:
    """Workers by name. One that fails is ended, its sentence is kept in `troubles`, and the others go on."""

    def __init__(self, workers: dict[str, WorkerProcess], troubles: list[str]) -> None:
        self._workers, self._troubles = workers, troubles

    def _ask(self, name: str, where: str, do: str, **request: Any) -> dict[str, Any] | None:
        """The reply of a worker; None if it is not there any more."""
        if name not in self._workers:
            return None
        try:
            return self._workers[name].ask(do, **request)
        except WorkerError as error:
            self._troubles.append(f"{where}: {error}" if where else str(error))
            self._workers.pop(name).end()
            return None
