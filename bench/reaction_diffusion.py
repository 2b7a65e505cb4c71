"""Spots and stripes: the Gray-Scott reaction of two substances that diffuse, in one compiled loop.

The Laplacian is a depthwise convolution that wraps around, called inside the compiled function. Each row of the picture
is a pair of rates, each column a later time. Draws into the file that it is given.
Source: J. Pearson, "Complex Patterns in a Simple System" (1993).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter

import numba
import numpy as np

import convjit
from convjit.extras import needed
from convjit.typing import Array

with needed("bench/reaction_diffusion.py", '"convjit[demo]"'):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

SIZE = 192
TIMES = (500, 2000, 4000, 12000)
# Feed and kill rates.
RATES = {"stripes": (0.037, 0.060), "spots": (0.030, 0.062)}


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def react(state: Array, laplacian: Array, steps: int, feed: float, kill: float) -> None:
    """So many steps of a state (2, H, W), the substances u and v."""
    for _ in range(steps):
        spread = convjit.conv2d(state, laplacian, padding=1, groups=2, padding_mode="wrap")
        for i in range(state.shape[1]):
            for j in range(state.shape[2]):
                u, v = state[0, i, j], state[1, i, j]
                state[0, i, j] += 0.16 * spread[0, i, j] - u * v * v + feed * (1 - u)
                state[1, i, j] += 0.08 * spread[1, i, j] + u * v * v - (feed + kill) * v


def beginning(size: int) -> Array:
    """Nothing but u, and some v in squares here and there."""
    rng = np.random.default_rng(3)
    state = np.stack([np.ones((size, size)), np.zeros((size, size))])
    for i, j in rng.integers(0, size - 12, (20, 2)):
        state[:, i : i + 12, j : j + 12] = np.array([0.5, 0.25])[:, None, None]
    return state + rng.uniform(0, 0.01, state.shape)


def main(path: Path) -> None:
    """Simulate, and draw."""
    laplacian = np.array([[0.05, 0.2, 0.05], [0.2, -1.0, 0.2], [0.05, 0.2, 0.05]])
    laplacian = np.stack([laplacian[None], laplacian[None]])
    react(beginning(16), laplacian, 1, 0.0, 0.0)  # compiles
    figure = Figure(figsize=(10, 5.3), dpi=64, facecolor="white")
    FigureCanvasAgg(figure)
    places = figure.subplots(len(RATES), len(TIMES))
    began = perf_counter()
    for row, (name, (feed, kill)) in zip(places, RATES.items(), strict=True):
        state, done = beginning(SIZE), 0
        for axes, time in zip(row, TIMES, strict=True):
            react(state, laplacian, time - done, feed, kill)
            done = time
            axes.imshow(state[1], cmap="magma", vmin=0, vmax=0.4, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=f"{time:,} steps" if name == "stripes" else "")
        row[0].set_ylabel(f"{name}: feed {feed:.3f}, kill {kill:.3f}")
    each = (perf_counter() - began) / (len(RATES) * TIMES[-1])
    figure.tight_layout()
    figure.savefig(path, format="png")
    print(f"{1e6 * each:.0f} microseconds a step of {SIZE}x{SIZE} pixels, drawn into {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python bench/reaction_diffusion.py", description=__doc__)
    parser.add_argument("path", metavar="PNG", type=Path, help="the picture")
    output = parser.parse_args().path
    if output.is_dir() or not os.access(output if output.exists() else output.absolute().parent, os.W_OK):
        parser.error(f"cannot write {str(output)!r}; choose another PNG")  # before a minute is spent
    main(output)
