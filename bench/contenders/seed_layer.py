"""Layers of the seed's contract, as contenders use them: given weights go in, gradients come out, nothing is learned.

Knows `initialize`, `forward_pass`, `backward_pass` and the optimizers that a layer holds.
"""

from __future__ import annotations

from typing import Any

from ..problems import Inputs


class Keeper:
    """An optimizer that keeps the gradient and changes nothing."""

    grad: Any = None

    def update(self, w: Any, grad: Any) -> Any:
        self.grad = grad
        return w


def load(layer: Any, inputs: Inputs) -> Any:
    """Give a layer the weights of the problem."""
    layer.initialize(Keeper())
    layer.W, layer.w0 = inputs.weight, inputs.bias.reshape(-1, 1)
    return layer


def forward(layer: Any, x: Any) -> tuple[Any, ...]:
    """`(y,)`"""
    return (layer.forward_pass(x, training=True),)


def backward(layer: Any, grad_output: Any) -> tuple[Any, ...]:
    """The gradients in the input, the weight and the bias; a forward pass came before."""
    grad_input = layer.backward_pass(grad_output)
    return grad_input, layer.W_opt.grad, layer.w0_opt.grad.reshape(-1)
