"""Numbered trials in worker processes, so that a crash or a hang is one trial's finding and not the end of the run.

A script hands `main` a function of one number. Workers, which are the same script started again, write the number of a
trial to a file before they begin it. Knows processes; does not know what is tried.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# A worker is started anew after each crash: so many times, then the rest is not run.
_RESTARTS = 20
# A worker that has not begun its first trial imports, which may take this much longer than a trial.
_START_SECONDS = 60


class Finding(Exception):  # noqa: N818 - it is what the run looks for, and no mistake of the run
    """A trial that did not end as it must; the message says how."""


@dataclass
class Report:
    """What came of a run: trials by verdict, and what went wrong by number."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)
    not_run: int = 0
    seconds: float = 0.0

    def summary(self) -> str:
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(self.counts.items()))
        left = f", {self.not_run} not run" if self.not_run else ""
        trials = sum(self.counts.values()) + len(self.findings)
        return (
            f"{trials} trials in {self.seconds:.0f} s: {verdicts or 'none right'}, {len(self.findings)} findings{left}"
        )

    def details(self) -> str:
        return "\n".join(f"--- {seed}: {text}" for seed, text in sorted(self.findings.items()))


# --- in the worker --------------------------------------------------------------------------------------------------

Trial = Callable[[int], str]


def serve(trial: Trial, seeds: range, folder: Path) -> None:
    """Run the trials, keeping `state` (the number now tried, counts so far) and `findings` up to date."""
    faulthandler.enable()
    counts: Counter[str] = Counter()
    with open(folder / "state", "wb", buffering=0) as state, open(folder / "findings", "a", buffering=1) as findings:

        def note(seed: int | None) -> None:
            state.seek(0)
            state.write(json.dumps({"seed": seed, "counts": counts}).ljust(400).encode())

        for seed in seeds:
            note(seed)
            try:
                counts[trial(seed)] += 1
            except BaseException as error:
                text = str(error) if isinstance(error, Finding) else traceback.format_exc()
                findings.write(json.dumps([seed, text]) + "\n")
        note(None)


# --- in the parent --------------------------------------------------------------------------------------------------


class _Worker:
    """One process and what it has said so far."""

    def __init__(self, script: Path, seeds: range, plant: str | None) -> None:
        self.seeds, self.seed, self.counts = seeds, -1, Counter[str]()
        self.room = tempfile.TemporaryDirectory()
        self.folder = Path(self.room.name)
        command = [sys.executable, str(script), "--seed", str(seeds.start), "--calls", str(len(seeds))]
        command += ["--worker", str(self.folder), *(["--plant", plant] if plant else [])]
        self.errors = open(self.folder / "errors", "w+")  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(command, stdout=self.errors, stderr=self.errors)
        self.since = time.monotonic() + _START_SECONDS

    def look(self, timeout: float) -> str | None:
        """None while all is well, "" at the end, else what happened to the trial `self.seed`."""
        code = self.process.poll()  # before the state is read: what a dead worker wrote is all there
        with contextlib.suppress(OSError, ValueError):  # not written yet
            state = json.loads((self.folder / "state").read_text())
            if state["seed"] != self.seed:
                self.since = time.monotonic()
            self.seed, self.counts = state["seed"], Counter(state["counts"])
        if code is None:
            return None if time.monotonic() - self.since < timeout else self._stop(timeout)
        if code == 0 and self.seed is None:
            return ""
        return f"the process ended with {_describe(code)}\n{self._last_words()}"

    def _stop(self, timeout: float) -> str:
        self.process.send_signal(signal.SIGABRT)  # which makes faulthandler say where it was
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return f"no answer after {timeout:g} s\n{self._last_words()}"

    def _last_words(self) -> str:
        self.errors.seek(0)
        return self.errors.read()[-1500:]

    def findings(self) -> dict[int, str]:
        path = self.folder / "findings"
        return dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.errors.close()
        self.room.cleanup()


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def run(
    script: Path, seeds: range, workers: int = 2, timeout: float = 60, plant: str | None = None, progress: bool = False
) -> Report:
    """Try all `seeds` with so many workers; `timeout` is for one trial, compilation included."""
    begin, report, restarts = time.monotonic(), Report(), 0
    edges = [seeds.start + len(seeds) * i // workers for i in range(workers + 1)]
    parts = [range(a, b) for a, b in itertools.pairwise(edges) if a < b]
    running = [_Worker(script, part, plant) for part in parts]
    try:
        while running:
            time.sleep(0.05)
            for worker in list(running):
                ending = worker.look(timeout)
                if ending is None:
                    continue
                running.remove(worker)
                rest = _collect(report, worker, ending)
                restarts += bool(ending)
                if rest and restarts <= _RESTARTS:
                    running.append(_Worker(script, rest, plant))
                else:
                    report.not_run += len(rest)
            if progress:
                done = sum((sum(w.counts.values()) for w in running), sum(report.counts.values()))
                print(f"\r{done} of {len(seeds)}, {len(report.findings)} findings ", end="", file=sys.stderr)
    finally:
        for worker in running:
            worker.close()
    report.seconds = time.monotonic() - begin
    return report


def _collect(report: Report, worker: _Worker, ending: str) -> range:
    """Add what an ended worker found; the trials that are left."""
    report.counts += worker.counts
    report.findings |= worker.findings()
    worker.close()
    if not ending:
        return range(0)
    if worker.seed == -1 or worker.seed is None:  # it died before its first trial or after its last one
        report.findings[worker.seeds.start] = f"outside of trials, {ending}"
        return range(0)
    report.findings[worker.seed] = ending
    return range(worker.seed + 1, worker.seeds.stop)


# --- the command line -----------------------------------------------------------------------------------------------


def main(script: str, trial: Trial, show: Callable[[int], str], plants: Mapping[str, Callable[[int], None]]) -> int:
    """The command line of a script; `plants` are faults, called before each trial, that must become findings."""
    parser = argparse.ArgumentParser(description="Run numbered trials in worker processes.")
    parser.add_argument("--calls", type=int, default=1000, help="how many trials")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one trial")
    parser.add_argument("--only", type=int, help="show and run one trial, in this process")
    parser.add_argument("--plant", choices=[*plants], help="a fault to be found")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.calls)

    def planted(seed: int) -> str:
        if options.plant:
            plants[options.plant](seed)
        return trial(seed)

    if options.worker:
        serve(planted, seeds, options.worker)
        return 0
    if options.only is not None:
        print(show(options.only))
        try:
            print(planted(options.only))
        except Finding as finding:
            print(f"finding: {finding}")
            return 1
        return 0
    progress = sys.stderr.isatty()
    report = run(Path(script), seeds, options.workers, options.timeout, options.plant, progress)
    if progress:
        print(file=sys.stderr)
    if report.findings:
        print(report.details())
    print(report.summary())
    return 1 if report.findings or report.not_run else 0
