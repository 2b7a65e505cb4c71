"""The picture that the demo draws: how training went, what was learned, what went wrong.

Knows matplotlib and nothing of training. Drawn without a screen, into a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .layers import Sequential
from .typing import Array

BLUE, ORANGE, GREY = "#2f6f9f", "#d9792b", "#55606b"
SHOWN = 12


def draw(path: Path, model: Sequential, history: dict[str, list[float]], x: Array, y: Array) -> None:
    """Draw into a PNG; `x` and `y` are digits that were not trained on."""
    figure = Figure(figsize=(12, 9), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    accuracy = history["val_accuracy"][-1]
    figure.text(0.045, 0.955, "Scanned digits, learned with convjit", fontsize=19, weight="bold", color="#1d2733")
    figure.text(
        0.045, 0.925, f"{accuracy:.1%} of {len(x)} digits that were held out are recognised after "
        f"{len(history['loss'])} epochs", fontsize=12, color=GREY,
    )  # fmt: skip
    grid = figure.add_gridspec(
        2, 2, left=0.06, right=0.97, top=0.855, bottom=0.05, hspace=0.27, wspace=0.16, height_ratios=(1, 1.12)
    )  # fmt: skip
    _curves(figure, grid[0, 0], history)
    _filters(figure, grid[0, 1], vars(model.layers[0])["W"])
    _feature_maps(figure, grid[1, 0], model, x[:1], int(y[0]))
    _mistakes(figure, grid[1, 1], model.predict(x), x, y)
    figure.savefig(path, format="png")


def _title(figure: Any, place: Any, text: str, note: str) -> None:
    box = place.get_position(figure)
    figure.text(box.x0, box.y1 + 0.028, text, fontsize=13, weight="bold", color="#1d2733")
    figure.text(box.x0, box.y1 + 0.008, note, fontsize=9.5, color=GREY)


def _curves(figure: Any, place: Any, history: dict[str, list[float]]) -> None:
    _title(figure, place, "Training", "loss on a logarithmic scale, and the share of digits recognised")
    inner = GridSpecFromSubplotSpec(1, 2, place, wspace=0.32)
    epochs = np.arange(1, len(history["loss"]) + 1)
    panels = (("loss", "val_loss", "loss"), ("accuracy", "val_accuracy", "recognised"))
    for column, (seen, unseen, label) in enumerate(panels):
        axes = figure.add_subplot(inner[0, column])
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, history[seen], color=BLUE, lw=2, marker=marker, label="training, with dropout")
        axes.plot(epochs, history[unseen], color=ORANGE, lw=2, marker=marker, label="held out")
        axes.set_xlabel("epoch", color=GREY)
        axes.set_ylabel(label, color=GREY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#e3e7eb", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=GREY, labelsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if column == 0:
            axes.set_yscale("log")
            axes.legend(frameon=False, fontsize=9, loc="upper right")
        else:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _tile(
    figure: Any, place: Any, image: Array, cmap: str, limit: tuple[float, float], text: str = "", colour: str = GREY
) -> None:
    axes = figure.add_subplot(place)
    axes.imshow(image, cmap=cmap, vmin=limit[0], vmax=limit[1], interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c9d0d6")
        spine.set_linewidth(0.7)
    if text:
        axes.set_title(text, fontsize=10, color=colour, pad=3)


def _filters(figure: Any, place: Any, weights: Array) -> None:
    _title(figure, place, "Learned filters", "the first layer's 3x3 weights: red adds, blue takes away")
    side = int(np.ceil(np.sqrt(len(weights))))
    inner = GridSpecFromSubplotSpec(side, side, place, wspace=0.0, hspace=0.16)
    largest = float(np.abs(weights).max())
    for i, weight in enumerate(weights):
        _tile(figure, inner[i // side, i % side], weight[0], "RdBu_r", (-largest, largest))


def _feature_maps(figure: Any, place: Any, model: Sequential, digit: Array, label: int) -> None:
    _title(
        figure, place, f"One digit, a {label}, through the first layer", "the scan, and what each filter makes of it"
    )
    inner = GridSpecFromSubplotSpec(1, 2, place, width_ratios=(1, 2.1), wspace=0.08)
    _tile(figure, inner[0, 0], digit[0, 0], "gray_r", (0, 1))
    maps = digit
    for layer in model.layers[:2]:
        maps = layer.forward_pass(maps, training=False)
    side = int(np.ceil(np.sqrt(maps.shape[1])))
    tiles = GridSpecFromSubplotSpec(side, side, inner[0, 1], wspace=0.08, hspace=0.08)
    for i, image in enumerate(maps[0]):
        _tile(figure, tiles[i // side, i % side], image, "magma", (0, max(float(image.max()), 1e-6)))


def _mistakes(figure: Any, place: Any, predicted: Array, x: Array, y: Array) -> None:
    guessed, sureness = predicted.argmax(axis=1), predicted.max(axis=1)
    wrong = np.flatnonzero(guessed != y)
    right = np.flatnonzero(guessed == y)
    # The surest mistakes first, then what was right by the narrowest margin.
    order = [*wrong[np.argsort(-sureness[wrong], kind="stable")], *right[np.argsort(sureness[right], kind="stable")]]
    found = f"{len(wrong)} of {len(y)}, in orange" if len(wrong) else "none"
    _title(figure, place, "Mistakes", f"{found}; the others were recognised, but with the least certainty")
    # A low first row keeps the captions clear of the title.
    inner = GridSpecFromSubplotSpec(4, 4, place, height_ratios=(0.02, 1, 1, 1), wspace=0.1, hspace=0.4)
    for i, index in enumerate(order[:SHOWN]):
        is_wrong = guessed[index] != y[index]
        text = f"{y[index]}, seen as {guessed[index]}" if is_wrong else f"{y[index]}, {sureness[index]:.0%} sure"
        place_here = inner[1 + i // 4, i % 4]
        _tile(figure, place_here, x[index, 0], "gray_r", (0, 1), text, ORANGE if is_wrong else GREY)
