"""PyTorch: `conv2d`, the gradient that autograd calls, and `nn.Conv2d` with autograd."""

from __future__ import annotations

from typing import Any

from ..problems import Inputs, Problem
from .contender import TRAINING, Pass, threads


class Torch:
    """PyTorch as its users call it; weights are given anew in every call."""

    name = "torch"
    modules: tuple[str, ...] = ("torch",)
    direct = True

    def offers(self) -> tuple[str, ...]:
        return TRAINING

    def declines(self, problem: Problem, dtype: str) -> str | None:
        return None

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        import torch

        torch.set_num_threads(threads())
        x, weight, bias, dy = (torch.from_numpy(array) for array in inputs)
        options = (problem.stride, problem.padding, problem.dilation, problem.groups)
        sizes, no_more = [problem.out_channels], [0] * problem.rank
        entries = [[value] * problem.rank for value in options[:3]]

        convolve = getattr(torch.nn.functional, f"conv{problem.rank}d")

        def forward() -> tuple[Any, ...]:
            with torch.inference_mode():
                return (convolve(x, weight, bias, *options),)

        def backward() -> tuple[Any, ...]:
            return tuple(
                torch.ops.aten.convolution_backward(
                    dy, x, weight, sizes, *entries, False, no_more, problem.groups, [True] * 3
                )
            )

        if passed != "layer":
            return {"forward": forward, "backward": backward}[passed]
        layer = torch.nn.Conv2d(
            problem.in_channels, problem.out_channels, problem.kernel, *options, dtype=weight.dtype
        )  # fmt: skip
        layer.load_state_dict({"weight": weight, "bias": bias})
        followed = x.clone().requires_grad_()

        def both() -> tuple[Any, ...]:
            y = layer(followed)
            return y.detach(), *torch.autograd.grad(y, (followed, layer.weight, layer.bias), dy)

        return both
