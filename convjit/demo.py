"""The main job, shown: scanned digits, a small network, a picture of what it learned.

`python -m convjit demo`. Needs the extra `[demo]`: scikit-learn for the digits, rich for the terminal, matplotlib for
the picture.
Source of the digits: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (1998), 1797 scans of 8x8
pixels, which ship with scikit-learn.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from .layers import Activation, Adam, Conv2D, Dense, Dropout, Flatten, MaxPooling2D, Sequential
from .picture import draw
from .testing.seed import NumpyConv2D
from .typing import Array

BATCH = 32
HELD_OUT = 360
COMPARED_EPOCHS = 3


class Digits(NamedTuple):
    """Images (N, 1, 8, 8) in 0..1, and their classes."""

    x: Array
    y: Array
    held_out_x: Array
    held_out_y: Array


def digits(seed: int) -> Digits:
    """All digits, shuffled; the last `HELD_OUT` of them are never trained on."""
    scans = load_digits()
    order = np.random.default_rng(seed).permutation(len(scans.target))
    x = (scans.images[order, None] / 16).astype(np.float32)
    y = scans.target[order]
    return Digits(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:])


def network(seed: int, numpy_way: bool = False) -> Sequential:
    """Two convolutions, a pool, two dense layers; with `numpy_way` the convolutions of the original text.

    Those draw their weights from NumPy's global state and keep float64, as the text does.
    """
    rng = np.random.default_rng(seed)
    own: dict[str, Any] = {"dtype": np.float32, "rng": rng, "initializer": "he"}

    def convolution(filters: int, **options: Any) -> Any:
        if numpy_way:
            return NumpyConv2D(filters, (3, 3), **options)
        return Conv2D(filters, (3, 3), **options, **own)

    return Sequential(
        [
            convolution(16, input_shape=(1, 8, 8)),
            Activation("relu"),
            convolution(32),
            Activation("relu"),
            MaxPooling2D((2, 2), stride=2),
            Flatten(),
            Dropout(0.4, rng=rng),
            Dense(64, **own),
            Activation("relu"),
            Dropout(0.4, rng=rng),
            Dense(10, **own),
            Activation("softmax"),
        ],
        optimizer=Adam(0.002),
        loss="cross_entropy",
    )


def timed(work: Any) -> tuple[Any, float]:
    """What `work` returns, and its seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def run(epochs: int, seed: int, output: Path) -> int:
    """Train, compare, draw; the exit status."""
    console = Console(soft_wrap=True)
    data = digits(seed)
    model = network(seed)
    console.print(f"{len(data.x)} digits to train on, {len(data.held_out_x)} held out\n")
    console.print(model.summary(), highlight=False)

    def first_step() -> None:
        throwaway = network(seed)
        throwaway.train_on_batch(data.x[:BATCH], data.y[:BATCH])
        throwaway.evaluate(data.held_out_x, data.held_out_y)

    _, compiling = timed(first_step)
    console.print(f"\nkernels compiled, or loaded from disk, in {compiling:.1f} s; training")
    validation = (data.held_out_x, data.held_out_y)
    history, training = timed(
        lambda: model.fit(data.x, data.y, epochs, BATCH, validation_data=validation, rng=seed)
    )  # fmt: skip
    epoch, numpy_epoch = _compare(data, seed)
    _, accuracy = model.evaluate(*validation)

    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    wrong = round((1 - accuracy) * HELD_OUT)
    table.add_row("held-out digits recognised", f"{accuracy:.2%} ({wrong} of {HELD_OUT} wrong)")
    table.add_row("last training loss", f"{history['loss'][-1]:.4f}")
    table.add_row("training", f"{training:.1f} s for {epochs} epoch{'s' if epochs > 1 else ''}")
    table.add_row("one epoch here", f"{epoch:.2f} s")
    table.add_row("one epoch, convolutions the original NumPy way", f"{numpy_epoch:.2f} s")
    table.add_row("ratio", f"{numpy_epoch / epoch:.1f}")
    console.print(table)
    draw(output, model, history, data.held_out_x, data.held_out_y)
    console.print(f"picture: {output}")
    return 0


def _compare(data: Digits, seed: int) -> tuple[float, float]:
    """Seconds of an epoch of training here and the NumPy way, on the same batches: the best of some, in turn."""
    # The NumPy layers draw from the global state, which is left as it was.
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        models = [network(seed), network(seed, numpy_way=True)]
    finally:
        np.random.set_state(state)
    seconds: list[list[float]] = [[], []]
    for _ in range(COMPARED_EPOCHS):
        for model, spent in zip(models, seconds, strict=True):
            spent.append(timed(lambda model=model: model.fit(data.x, data.y, 1, BATCH, rng=seed, progress=False))[1])
    return min(seconds[0]), min(seconds[1])
