"""What the bench asks of a contender, and which passes there are.

Knows names and signatures; imports no library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from ..problems import Inputs, Problem

# A prepared call. Returns arrays, or things that `numpy.asarray` takes: `(y,)`, or the three gradients
# `(grad_input, grad_weight, grad_bias)`, or all four.
Pass = Callable[[], tuple[Any, ...]]

# What is measured of convjit, and which pass of its peers stands beside it.
COMPARED = {
    "forward": "forward",
    "fastest": "forward",
    "plan": "forward",
    "plan-fastest": "forward",
    "backward": "backward",
    "backward-fastest": "backward",
    "layer": "layer",
}
PASSES = tuple(COMPARED)
# Those of which convjit, too, sums each result directly: a share of the peak says what they wait for.
DIRECT = tuple(passed for passed in PASSES if "fastest" not in passed)
INFERENCE = ("forward",)
TRAINING = ("forward", "backward", "layer")

OURS = "convjit"


class Contender(Protocol):
    """One library, or one way of using it."""

    name: str
    modules: tuple[str, ...]  # what must be importable; the version of the first is reported
    direct: bool  # sums each result directly; False if it may take Winograd's way, which is less accurate

    def offers(self) -> tuple[str, ...]:
        """The passes that it has, in the order of `PASSES`."""

    def declines(self, problem: Problem, dtype: str) -> str | None:
        """Why this problem cannot be expressed, or None."""

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        """All that can be done once, before the calls: compiling a model, packing weights."""


def threads() -> int:
    """How many threads this process may use."""
    return int(os.environ["OMP_NUM_THREADS"])


def images_in_float32(problem: Problem, dtype: str) -> str | None:
    """The reason of those that are asked for nothing else here."""
    return not_images(problem) or (None if dtype == "float32" else "computes in float32 only")


def not_images(problem: Problem) -> str | None:
    """The reason of those that are asked for images alone."""
    return None if problem.rank == 2 else "is asked for images only"
