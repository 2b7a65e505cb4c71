"""The networks of the training race.

A table: what follows what, and how large. Does not know who trains. Data and first weights are drawn from a fixed seed,
the same in every process.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convjit.typing import Array

from .problems import SEED

CLASSES = 10
# Of Adam, whose first steps are about so large for every weight, however small its gradient: larger ones make so much
# of a rounding error that losses in float32 part by 1e-3 within 20 steps, whoever computes them.
LEARNING_RATE = 1e-4
# Of pixels around their class's picture, whose own are standard normal: hard enough that no loss is near 0 soon.
NOISE = 3.0
# The batches are gone through again and again.
BATCHES = 16


class Convolution(NamedTuple):
    """3x3, stride 1, as large as its input."""

    filters: int


class Pool(NamedTuple):
    """The largest of 2x2 pixels."""

    size: int = 2


class Dense(NamedTuple):
    """Fully connected, behind a flattened input where that is an image."""

    units: int


class Relu(NamedTuple):
    """max(x, 0)."""


Part = Convolution | Pool | Dense | Relu


class Network(NamedTuple):
    """A row: a batch of square images goes through the parts, and a softmax behind them."""

    name: str
    batch: int
    channels: int
    size: int
    parts: tuple[Part, ...]


NETWORKS = (
    # That of `python -m convjit demo`, without what it draws at random.
    Network(
        "digits", 32, 1, 8,
        (Convolution(16), Relu(), Convolution(32), Relu(), Pool(), Dense(64), Relu(), Dense(CLASSES)),
    ),
    Network(
        "cifar", 32, 3, 32,
        (
            Convolution(32), Relu(), Pool(), Convolution(64), Relu(), Pool(), Convolution(128), Relu(), Dense(CLASSES),
        ),
    ),
)  # fmt: skip
BY_NAME = {network.name: network for network in NETWORKS}


class Data(NamedTuple):
    """Batches of images (BATCHES, N, C, H, W) and their classes (BATCHES, N)."""

    images: Array
    classes: Array


def draw_data(network: Network, dtype: str) -> Data:
    """A picture for each class, and images that are one of them under noise; pixels are standard normal numbers."""
    rng = np.random.default_rng(SEED)
    shape = (network.channels, network.size, network.size)
    pictures = rng.standard_normal((CLASSES, *shape), np.float32)
    classes = rng.integers(0, CLASSES, (BATCHES, network.batch))
    noise = rng.standard_normal((BATCHES, network.batch, *shape), np.float32)
    images = (pictures[classes] + np.float32(NOISE) * noise) / np.float32(np.hypot(1, NOISE))
    return Data(images.astype(dtype), classes)


def draw_weights(network: Network, dtype: str) -> list[Array]:
    """A weight for each convolution (O, C, 3, 3) and dense part (features, units), as wide as PyTorch draws them."""
    rng = np.random.default_rng(SEED + 1)
    weights, channels, size = [], network.channels, network.size
    for part in network.parts:
        shape: tuple[int, ...]
        if isinstance(part, Convolution):
            shape, fan_in, channels = (part.filters, channels, 3, 3), 9 * channels, part.filters
        elif isinstance(part, Dense):
            fan_in = channels * size * size
            shape, channels, size = (fan_in, part.units), part.units, 1
        else:
            size //= part.size if isinstance(part, Pool) else 1
            continue
        limit = 1 / np.sqrt(fan_in)
        weights.append(rng.uniform(-limit, limit, shape).astype(np.float32).astype(dtype))
    return weights
