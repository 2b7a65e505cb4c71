"""This library: its functions, its plans, and its `Conv2D`."""

from __future__ import annotations

import numpy as np

from ..problems import Inputs, Problem
from . import seed_layer
from .contender import OURS, PASSES, Pass


class Convjit:
    """Everything that there is to be compared."""

    name = OURS
    modules: tuple[str, ...] = ("convjit",)
    direct = True

    def offers(self) -> tuple[str, ...]:

        return PASSES

    def declines(self, problem: Problem, dtype: str) -> str | None:
        return None

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        import convjit

        x, weight, bias, dy = inputs
        options = (problem.stride, problem.padding, problem.dilation, problem.groups)
        match passed:
            case "forward":
                forward = getattr(convjit, f"conv{problem.rank}d")
                return lambda: (forward(x, weight, bias, *options),)
            case "fastest":
                return lambda: (convjit.conv2d(x, weight, bias, *options, algorithm="fastest"),)
            case "plan" | "plan-fastest":
                make_plan = convjit.conv2d_plan
                plan = make_plan(weight, bias, *options, algorithm="auto" if passed == "plan" else "fastest")
                y = np.full(problem.y_shape, np.nan, weight.dtype)  # kept, as the inference runtimes keep theirs
                return lambda: (plan(x, out=y),)
            case "backward" | "backward-fastest":
                gradients = getattr(convjit, f"conv{problem.rank}d_backward")
                algorithm = "auto" if passed == "backward" else "fastest"
                return lambda: gradients(dy, x, weight, *options, algorithm=algorithm)
            case "layer":
                layer = seed_layer.load(
                    convjit.Conv2D(
                        problem.out_channels, (problem.kernel, problem.kernel), input_shape=problem.x_shape[1:],
                        padding=problem.padding, stride=problem.stride, dilation=problem.dilation,
                        groups=problem.groups, dtype=weight.dtype,
                    ), inputs,
                )  # fmt: skip
                return lambda: (*seed_layer.forward(layer, x), *seed_layer.backward(layer, dy))
        raise ValueError(f"unknown pass {passed!r}")
