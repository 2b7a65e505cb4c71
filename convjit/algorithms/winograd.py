"""Winograd's convolution: a quarter of the multiplications, for a less accurate and less contained result.

Knows which problems it takes, and how its parts are put together; does not know how they compute. Forward and input
gradient are one computation: a gradient is a forward with weights transposed and flipped. With stride 2 four phases of
the kernel are convolved, in somewhat more than half of the multiplications. Relative to exact results the
L2 norm of the error is at most 2e-5 in float32 and 4e-14 in float64; a pixel that is not finite spoils the tiles that
see it. Channels are summed in blocks of `CHANNEL_BLOCK`, each in order: neither threads nor blocks of tiles nor other
images show in a result.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..gemm import winograd
from ..geometry import Geometry
from ..runtime.launch import Launch, Run, run_in_turn
from ..runtime.options import COMPILED, NOT_COMPILED
from ..typing import DType
from . import winograd_gradient
from .algorithm import NO_CHANNELS, Algorithm, Explained, Operation, Packing, Space, each_call, work_ns
from .winograd_blocks import some_panels
from .winograd_cut import (
    MULTIPLICATIONS_A_CYCLE,
    TRANSFORMS_TAKE_LONGER,
    VECTOR,
    cut_of,
    explained,
    image_cycles,
    inputs_spaces,
    spaces,
)  # fmt: skip
from .winograd_tiles import TAPS, Problem, backward_problem, forward_problem
from .winograd_weights import all_transformed, lasting_space, taps_space


def _run(
    workers: int, p: Problem, nanoseconds: float, x: Any, weight: Any, bias: Any, y: Any, taps: Any, transformed: Any,
    *spaces: Any,
) -> None:  # fmt: skip
    how = _launch(p, workers, y.dtype, False, nanoseconds)
    before = [all_transformed(p, weight, taps, transformed)] if cut_of(p, workers, y.dtype).lasting else []
    run_in_turn(workers, *before, _multiplied(how, x, weight, bias, y, taps, transformed, *spaces))


@lru_cache(maxsize=256)
def _launch(p: Problem, workers: int, dtype: DType, packed: bool, nanoseconds: float) -> Launch:
    """Everything but the weights, where these are lasting."""
    cut, kernels = cut_of(p, workers, dtype, packed), winograd.kernels(dtype, p.stride)
    tasks, ways = cut.blocks.number * cut.shares, (cut.shares, cut.together, cut.lasting)
    return Launch(some_panels, tasks, nanoseconds, p, cut.blocks, *ways, kernels)


def _multiplied(
    how: Launch, x: Any, weight: Any, bias: Any, y: Any, taps: Any, transformed: Any, lines: Any, data: Any, sums: Any,
    places: Any,
) -> Run:  # fmt: skip
    places[:, 0] = -1  # no worker has any block's inputs
    return how.on(x.reshape(-1), weight.reshape(-1), bias, y.reshape(-1), taps, transformed, lines, data, sums, places)


# --- weights transformed once, for a plan -----------------------------------------------------------------------------


def _pack(workers: int, g: Geometry, weight: Any, packed: Any) -> None:
    p = forward_problem(g)
    taps = np.empty(taps_space(p, workers, packed.dtype).shape, packed.dtype)
    run_in_turn(workers, all_transformed(p, weight, taps, packed))


def _run_packed(workers: int, g: Geometry, x: Any, packed: Any, bias: Any, y: Any, *spaces: Any) -> None:
    how, taps = _launch(forward_problem(g), workers, y.dtype, True, work_ns(g) / 2), np.empty((workers, 0), y.dtype)
    run_in_turn(workers, _multiplied(how, x, packed, bias, y, taps, packed, *spaces))


PACKING = Packing(
    lambda g, dtype: lasting_space(forward_problem(g), dtype),
    _pack,
    each_call(_run_packed),
    lambda g, workers, dtype: inputs_spaces(forward_problem(g), workers, dtype, packed=True),
)


# --- the row ----------------------------------------------------------------------------------------------------------


def _run_forward(workers: int, g: Geometry, x: Any, weight: Any, bias: Any, y: Any, *spaces: Any) -> None:
    _run(workers, forward_problem(g), work_ns(g) / 2, x, weight, bias, y, *spaces)


def _forward_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return spaces(forward_problem(g), workers, dtype)


def _forward_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    return explained(forward_problem(g), workers, dtype)


def _forward_yields(g: Geometry, dtype: DType) -> str | None:
    return _yields(forward_problem(g))


def _run_input_grad(workers: int, g: Geometry, dy: Any, weight: Any, dx: Any, *spaces: Any) -> None:
    _run(workers, backward_problem(g), work_ns(g) / 2, dy, weight, np.empty(0, dx.dtype), dx, *spaces)


def _input_grad_workspace(g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return spaces(backward_problem(g), workers, dtype)


def _input_grad_explained(g: Geometry, workers: int, dtype: DType) -> Explained:
    return explained(backward_problem(g), workers, dtype)


def _input_grad_yields(g: Geometry, dtype: DType) -> str | None:
    return _yields(backward_problem(g))


def _declines(g: Geometry, dtype: DType) -> str | None:
    if not COMPILED:
        return NOT_COMPILED
    if dtype.kind != "f":
        return f"its matrices have fractions, which {dtype} has not"
    if (g.kernel_h, g.kernel_w) != (TAPS, TAPS):
        return f"it is for 3x3 kernels, not {g.kernel_h}x{g.kernel_w}"
    strides = g.stride_h, g.stride_w
    if strides not in ((1, 1), (2, 2)):
        return f"it is for strides 1 and 2 of both axes, not {g.stride_h}x{g.stride_w}"
    if strides == (2, 2) and (g.dilation_h, g.dilation_w) != (1, 1):
        return f"with stride 2 it is for dilation 1, not {g.dilation_h}x{g.dilation_w}"
    if g.groups != 1:
        return f"it is for one group, not {g.groups}"
    if g.in_channels * g.out_channels == 0:
        return NO_CHANNELS
    if max(g.in_channels, g.out_channels) > _MOST_CHANNELS:
        return f"it is for at most {_MOST_CHANNELS} channels"
    return None


# Past it, a task on a block of the fewest tiles would be long, and its transformed inputs large.
_MOST_CHANNELS = 8192
# What the direct method reaches of two multiply-adds a cycle; and what has to be saved, as both are estimates.
_DIRECT_SPEED, _SAVED = 0.9, 0.05
# Images that are expected to share transformed weights, in a batch or as calls of a plan; and how much longer than with
# the direct method an image alone may take. Of 56 geometries (32 to 512 channels and filters, 4x4 to 28x28 pixels,
# AVX-512, one thread, calls with algorithm="winograd" and "auto" in turn) this rule takes 36, which ran in 0.50 to 0.91
# of the time of "auto" in batches of 8, and in 0.55 to 1.46 of it alone.
_IMAGES, _ALONE = 8, 1.45


def _yields(p: Problem) -> str | None:
    """Why the direct method is better, if an image is expected to take more cycles so, transforms included.

    Batch and plan never matter: an image would get other bits in them than alone.
    """
    if p.stride > 1:
        # 81 multiplications in place of 144, of which memory has four times the weights and inputs: 14 geometries (16
        # to 512 channels, 32x32 to 224x224 pixels, one thread, in turn) took 0.82 to 1.20 of the time of "auto" with
        # AVX-512, and 0.91 to 1.41 with AVX2, outputs of plans and input gradients.
        return "with a stride its transforms take as long as the multiplications that they save"
    filled = min(_rounded_up(p.out_h * p.out_w), _rounded_up(p.filters))  # either may be lanes
    direct = p.channels * p.filters * TAPS**2 * p.out_h * p.out_w * filled / MULTIPLICATIONS_A_CYCLE / _DIRECT_SPEED
    if image_cycles(p, 1 / _IMAGES) <= (1 - _SAVED) * direct and image_cycles(p) <= _ALONE * direct:
        return None
    return TRANSFORMS_TAKE_LONGER


def _rounded_up(lanes: int) -> float:
    """How many times as many lanes whole vectors of them have."""
    return -(-lanes // VECTOR) * VECTOR / max(lanes, 1)


ALGORITHM = Algorithm(
    "winograd",
    _declines,
    Operation(each_call(_run_forward), _forward_workspace, PACKING, _forward_explained, yields=_forward_yields),
    Operation(
        each_call(_run_input_grad), _input_grad_workspace, explained=_input_grad_explained, yields=_input_grad_yields
    ),
    winograd_gradient.OPERATION,
    keeps_promises=False,
)
