"""The layer of the text that this library grew out of: im2col by fancy indexing, a product, `np.add.at`."""

from __future__ import annotations

from ..problems import Inputs, Problem
from . import seed_layer
from .contender import TRAINING, Pass, not_images


class OriginalNumPy:
    """The way that needs nothing but NumPy."""

    name = "numpy"
    modules: tuple[str, ...] = ("numpy",)
    direct = True

    def offers(self) -> tuple[str, ...]:
        return TRAINING

    def declines(self, problem: Problem, dtype: str) -> str | None:
        if problem.rank != 2:
            return not_images(problem)
        if problem.groups != 1:
            return "has no groups"
        if problem.dilation != 1:
            return "has no dilation"
        if problem.padding and 2 * problem.padding != problem.kernel - 1:
            return 'pads as "same" or "valid" do, not otherwise'
        return None

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        from convjit.testing.seed import NumpyConv2D

        x, dy = inputs.x, inputs.grad_output
        layer = seed_layer.load(
            NumpyConv2D(
                problem.out_channels, (problem.kernel, problem.kernel),
                input_shape=(problem.in_channels, problem.size, problem.size),
                padding="same" if problem.padding else "valid", stride=problem.stride,
            ), inputs,
        )  # fmt: skip
        if passed == "forward":
            return lambda: seed_layer.forward(layer, x)
        if passed == "layer":
            return lambda: (*seed_layer.forward(layer, x), *seed_layer.backward(layer, dy))
        # `backward` needs the columns that a forward pass leaves behind.
        seed_layer.forward(layer, x)
        return lambda: seed_layer.backward(layer, dy)
