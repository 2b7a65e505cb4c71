"""What the measurements say beside each other: ratios, the best peer, means, scaling.

Knows rows that were measured; neither measures nor prints. A ratio is a peer's median over convjit's: above 1, convjit
is the faster one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .contenders import BY_NAME, COMPARED, OURS, PASSES
from .measure import Row
from .problems import Problem

# Closer than this is a tie: counts as 1.
TIE = 1.03

# Work beside that of the forward pass: the gradients in the input and in the weight take as much each.
WORK = {"backward": 2, "backward-fastest": 2, "layer": 3}

# Layers of so many channels and more, in and out of each group, wait for the multiply-add units, if for anything.
MANY_CHANNELS = 64

ALL_PEERS = "best of all"
DIRECT_PEERS = "best direct"


class Best(NamedTuple):
    """The fastest peer of a line."""

    peer: str
    ratio: float


class Line(NamedTuple):
    """One pass of one problem: convjit's row, and the rows of the peers' pass that stands beside it."""

    problem: Problem
    dtype: str
    threads: int
    passed: str
    ours: Row | None
    peers: dict[str, Row]

    def ratio(self, peer: str) -> float | None:
        """How many times longer a peer takes, where both were measured and gave the right answer."""
        theirs, ours = (usable_median(row) for row in (self.peers.get(peer), self.ours))
        return theirs / ours if theirs and ours else None

    def best(self, direct: bool = False) -> Best | None:
        """The fastest peer; with `direct`, of those that sum each result directly."""
        ratios = {name: self.ratio(name) for name in self.peers if not direct or is_direct(name)}
        found = [Best(name, value) for name, value in ratios.items() if value is not None]
        return min(found, key=lambda best: best.ratio, default=None)


def is_direct(name: str) -> bool:
    """Whether a contender sums each result directly; one that is not known here does."""
    return name not in BY_NAME or BY_NAME[name].direct


def usable_median(row: Row | None) -> float | None:
    """Seconds a call of a row that was measured and right."""
    return None if row is None or row.faults else row.median


def lines(rows: Iterable[Row]) -> list[Line]:
    """All lines, in the order of the rows; a problem's passes in the order of `PASSES`."""
    found: dict[tuple[str, int, Problem], dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row.dtype, row.threads, row.problem][row.passed][row.contender] = row
    result = []
    for (dtype, threads, problem), passes in found.items():
        for passed in PASSES:
            beside = {name: row for name, row in passes.get(COMPARED[passed], {}).items() if name != OURS}
            ours = passes.get(passed, {}).get(OURS)
            if passed in passes:
                result.append(Line(problem, dtype, threads, passed, ours, beside))
    return result


def flops(row: Row) -> float | None:
    """Floating-point operations a second: those of the direct method, whatever was computed; None if not measured."""
    seconds = usable_median(row)
    return 2 * WORK.get(row.passed, 1) * row.problem.multiplications / seconds if seconds else None


def tied(ratio: float) -> float:
    """1 where the ratio is a tie."""
    return 1.0 if 1 / TIE <= ratio <= TIE else ratio


def geometric_mean(values: Iterable[float]) -> float | None:
    """The mean of ratios; None of nothing."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def ratios(found: Iterable[Line], peer: str) -> dict[Problem, float]:
    """The ratio to a peer, or to `ALL_PEERS` or `DIRECT_PEERS`, of each problem, ties as 1."""
    result = {}
    for line in found:
        if peer in (ALL_PEERS, DIRECT_PEERS):
            best = line.best(direct=peer == DIRECT_PEERS)
            value = best.ratio if best else None
        else:
            value = line.ratio(peer)
        if value is not None:
            result[line.problem] = tied(value)
    return result


class Bound(NamedTuple):
    """How near the multiply-adds' peak layers of many channels come, and what ratio its whole would give: means."""

    layers: int
    ours: float  # share of the peak
    peer: float  # of the fastest direct peer
    ratio: float
    at_peak: float  # the ratio, if convjit had the whole peak


def bound(found: Iterable[Line], share: Callable[[Row], float | None]) -> Bound | None:
    """Of layers of `MANY_CHANNELS` and more, whose shares of the peak are `share(row)`; None without any."""
    shares, reached = [], []
    for line in found:
        best, ours = line.best(direct=True), None if line.ours is None else share(line.ours)
        channels = min(line.problem.in_channels, line.problem.out_channels) // line.problem.groups
        if best is not None and ours and channels >= MANY_CHANNELS:
            shares.append(ours)
            reached.append(best.ratio)
    ours, ratio = geometric_mean(shares), geometric_mean(reached)
    return None if ours is None or ratio is None else Bound(len(shares), ours, ours / ratio, ratio, ratio / ours)


def scaling(found: Iterable[Line]) -> dict[tuple[Problem, str, str], float]:
    """How many times faster the most threads are than one, by problem, dtype and pass."""
    medians: dict[tuple[Problem, str, str], dict[int, float]] = defaultdict(dict)
    for line in found:
        seconds = usable_median(line.ours)
        if seconds:
            medians[line.problem, line.dtype, line.passed][line.threads] = seconds
    return {key: times[1] / times[max(times)] for key, times in medians.items() if 1 in times and len(times) > 1}
