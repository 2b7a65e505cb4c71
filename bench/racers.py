"""Who trains in a race: a row each, which makes a network's training step.

All begin with the same weights, biases of zero, and take steps of Adam. Libraries are imported in the worker's process
only.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from convjit.typing import Array

from .contenders.contender import OURS, threads
from .networks import LEARNING_RATE, Convolution, Network, Pool, Relu

# One step on a batch (images, classes): the loss before it.
Step = Callable[[Array, Array], float]


class Racer(NamedTuple):
    """A name, what must be importable, and `prepare(network, dtype, weights)`, which gives a step."""

    name: str
    module: str
    prepare: Callable[[Network, str, list[Array]], Step]


def _layers(network: Network, dtype: str, convolution: Callable[..., Any]) -> list[Any]:
    """convjit's layers, with a convolution of one's own; the first one is given its input shape."""
    import convjit

    layers: list[Any] = []
    options: dict[str, Any] = {"input_shape": (network.channels, network.size, network.size)}
    for part in network.parts:
        if isinstance(part, Convolution):
            layers.append(convolution(part.filters, (3, 3), **options))
        elif isinstance(part, Relu):
            layers.append(convjit.Activation("relu"))
        elif isinstance(part, Pool):
            layers.append(convjit.MaxPooling2D(part.size, stride=part.size))
        else:
            if not any(isinstance(layer, convjit.Dense) for layer in layers):
                layers.append(convjit.Flatten(**options))
                options = {}
            layers.append(convjit.Dense(part.units, dtype=dtype, rng=0, **options))
        options = {}
    return [*layers, convjit.Activation("softmax")]


def _training(network: Network, dtype: str, weights: list[Array], convolution: Callable[..., Any]) -> Step:
    import convjit

    model = convjit.Sequential(_layers(network, dtype, convolution), optimizer=convjit.Adam(LEARNING_RATE))
    learning: list[Any] = [layer for layer in model.layers if hasattr(layer, "W")]
    for layer, weight in zip(learning, weights, strict=True):
        layer.W, layer.w0 = weight.copy(), layer.w0.astype(dtype)
    return lambda images, classes: model.train_on_batch(images, classes)[0]


def _convjit(algorithm: str) -> Callable[[Network, str, list[Array]], Step]:
    def prepare(network: Network, dtype: str, weights: list[Array]) -> Step:
        import convjit

        def convolution(*arguments: Any, **options: Any) -> Any:
            return convjit.Conv2D(*arguments, dtype=dtype, rng=0, algorithm=algorithm, **options)

        return _training(network, dtype, weights, convolution)

    return prepare


def _numpy(network: Network, dtype: str, weights: list[Array]) -> Step:
    """Convolutions by gather, product and scatter, as the original text has them; the layers around them are ours."""
    from convjit.testing.seed import NumpyConv2D

    return _training(network, dtype, weights, NumpyConv2D)


def _torch(network: Network, dtype: str, weights: list[Array]) -> Step:
    """Modules and autograd, with the fastest of PyTorch's three ways to make a step of Adam."""
    import torch

    torch.set_num_threads(threads())
    parts: list[Any] = []
    left = iter(weights)
    for part in network.parts:
        if isinstance(part, Relu):
            parts.append(torch.nn.ReLU())
        elif isinstance(part, Pool):
            parts.append(torch.nn.MaxPool2d(part.size))
        else:
            weight = torch.from_numpy(next(left))
            if isinstance(part, Convolution):
                module: Any = torch.nn.Conv2d(weight.shape[1], part.filters, 3, padding=1, dtype=weight.dtype)
            else:
                weight = weight.T.contiguous()
                if not any(isinstance(before, torch.nn.Linear) for before in parts):
                    parts.append(torch.nn.Flatten())
                module = torch.nn.Linear(weight.shape[1], part.units, dtype=weight.dtype)
            module.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight), dtype=weight.dtype)})
            parts.append(module)
    model = torch.nn.Sequential(*parts)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    loss_of = torch.nn.CrossEntropyLoss()

    def step(images: Array, classes: Array) -> float:
        optimizer.zero_grad()
        loss = loss_of(model(torch.from_numpy(images)), torch.from_numpy(classes))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


RACERS = (
    Racer(OURS, "convjit", _convjit("auto")),
    Racer("fastest", "convjit", _convjit("fastest")),
    Racer("torch", "torch", _torch),
    Racer("numpy", "numpy", _numpy),
)
BY_NAME = {racer.name: racer for racer in RACERS}


def installed() -> list[Racer]:
    """Those whose libraries are here."""
    return [racer for racer in RACERS if find_spec(racer.module)]
