"""Who is measured: one small class each, one row each in `CONTENDERS`.

A contender says what it cannot express, and makes of a problem one callable for each pass. Libraries are imported in
the worker's process only: two OpenMP runtimes in one process ruin both.

==========  ===================================================================================
`forward`   returns `(y,)`
`backward`  returns `(grad_input, grad_weight, grad_bias)`
`layer`     a layer that holds weight and bias, forward then backward: returns all four
==========  ===================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

from .problems import Inputs, Problem

Pass = Callable[[], tuple[Any, ...]]
PASSES = ("forward", "backward", "layer")
OURS = "convjit"


class Contender(Protocol):
    """What the bench asks of a contender."""

    name: str
    module: str  # what must be importable, and whose version is reported

    def declines(self, problem: Problem) -> str | None:
        """Why this problem cannot be expressed, or None."""

    def passes(self, problem: Problem, inputs: Inputs) -> dict[str, Pass]:
        """A callable for each pass; each returns arrays or something that `numpy.asarray` takes."""


class _Keeper:
    """An optimizer that keeps the gradient and changes nothing."""

    grad: Any = None

    def update(self, w: Any, grad: Any) -> Any:
        self.grad = grad
        return w


def _layer_backward(layer: Any, grad_output: Any) -> tuple[Any, ...]:
    grad_input = layer.backward_pass(grad_output)
    return grad_input, layer.W_opt.grad, layer.w0_opt.grad.reshape(-1)


def _load(layer: Any, inputs: Inputs) -> Any:
    """Give a layer of the seed's contract the weights of the problem."""
    layer.initialize(_Keeper())
    layer.W, layer.w0 = inputs.weight, inputs.bias.reshape(-1, 1)
    return layer


class Convjit:
    """This library: its functions, and its `Conv2D`."""

    name = OURS
    module = "convjit"

    def declines(self, problem: Problem) -> str | None:
        return None

    def passes(self, problem: Problem, inputs: Inputs) -> dict[str, Pass]:
        import convjit

        x, weight, bias, dy = inputs
        options = (problem.stride, problem.padding, problem.dilation, problem.groups)
        layer = convjit.Conv2D(
            problem.out_channels, (problem.kernel, problem.kernel), input_shape=problem.x_shape[1:],
            padding=problem.padding, stride=problem.stride, dilation=problem.dilation, groups=problem.groups,
            dtype=weight.dtype,
        )  # fmt: skip
        _load(layer, inputs)
        return {
            "forward": lambda: (convjit.conv2d(x, weight, bias, *options),),
            "backward": lambda: convjit.conv2d_backward(dy, x, weight, *options),
            "layer": lambda: (layer.forward_pass(x, training=True), *_layer_backward(layer, dy)),
        }


class OriginalNumPy:
    """The layer of the text that this library grew out of: im2col by fancy indexing, a product, `np.add.at`."""

    name = "numpy"
    module = "numpy"

    def declines(self, problem: Problem) -> str | None:
        if problem.groups != 1:
            return "has no groups"
        if problem.dilation != 1:
            return "has no dilation"
        if problem.padding and 2 * problem.padding != problem.kernel - 1:
            return 'pads as "same" or "valid" do, not otherwise'
        return None

    def passes(self, problem: Problem, inputs: Inputs) -> dict[str, Pass]:
        from convjit.testing.seed import NumpyConv2D

        layer = _load(
            NumpyConv2D(
                problem.out_channels, (problem.kernel, problem.kernel), input_shape=problem.x_shape[1:],
                padding="same" if problem.padding else "valid", stride=problem.stride,
            ), inputs,
        )  # fmt: skip
        # `backward` needs the columns that a forward pass leaves behind.
        layer.forward_pass(inputs.x, training=True)
        return {
            "forward": lambda: (layer.forward_pass(inputs.x, training=True),),
            "backward": lambda: _layer_backward(layer, inputs.grad_output),
            "layer": lambda: (
                layer.forward_pass(inputs.x, training=True),
                *_layer_backward(layer, inputs.grad_output),
            ),
        }


class Torch:
    """PyTorch: `conv2d`, the gradient that autograd calls, and `nn.Conv2d` with autograd."""

    name = "torch"
    module = "torch"

    def declines(self, problem: Problem) -> str | None:
        return None

    def passes(self, problem: Problem, inputs: Inputs) -> dict[str, Pass]:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        x, weight, bias, dy = (torch.from_numpy(array) for array in inputs)
        options = (problem.stride, problem.padding, problem.dilation, problem.groups)
        pairs = [[value, value] for value in options[:3]]
        layer = torch.nn.Conv2d(
            problem.in_channels, problem.out_channels, problem.kernel, *options, dtype=weight.dtype
        )  # fmt: skip
        layer.load_state_dict({"weight": weight, "bias": bias})
        followed = x.clone().requires_grad_()

        def forward() -> tuple[Any, ...]:
            with torch.inference_mode():
                return (torch.nn.functional.conv2d(x, weight, bias, *options),)

        def backward() -> tuple[Any, ...]:
            return tuple(
                torch.ops.aten.convolution_backward(
                    dy, x, weight, [problem.out_channels], *pairs, False, [0, 0], problem.groups, [True] * 3
                )
            )

        def both() -> tuple[Any, ...]:
            y = layer(followed)
            return y.detach(), *torch.autograd.grad(y, (followed, layer.weight, layer.bias), dy)

        return {"forward": forward, "backward": backward, "layer": both}


CONTENDERS: tuple[Contender, ...] = (Convjit(), OriginalNumPy(), Torch())
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def installed() -> list[Contender]:
    """The contenders whose library is here."""
    return [contender for contender in CONTENDERS if find_spec(contender.module) is not None]
