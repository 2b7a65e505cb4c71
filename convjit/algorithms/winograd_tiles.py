"""How a 3x3 convolution falls into tiles of 4x4 outputs, and tiles into blocks.

An image of a dilated convolution falls into phases: outputs whose rows and columns have the same remainders by the
dilation see inputs that have, too, and are a dense convolution among themselves. They are read and written where they
lie, `dilation` apart.
Knows pixels, phases and blocks of tiles; does not know transforms, weights or tasks.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..gemm.winograd import STEP, TAPS
from ..geometry import Geometry
from ..runtime.compile import kernel


class Problem(NamedTuple):
    """What is convolved: a forward pass, or with `turned` weights, an input gradient."""

    batch: int
    channels: int
    in_h: int
    in_w: int
    filters: int
    out_h: int
    out_w: int
    pad_top: int  # may be negative
    pad_left: int
    dilation_h: int
    dilation_w: int
    turned: int


class Blocks(NamedTuple):
    """How tiles are cut into blocks, and where their transformed inputs lie; sizes in elements.

    A block is `tile_rows` rows of tiles (of all phases of all images, one below the other) by `tile_cols`.
    """

    tile_rows: int
    tile_cols: int
    number: int
    line_pitch: int
    data_pitch: int  # from channel to channel
    product_pitch: int  # from product to product of the data


def forward_problem(g: Geometry) -> Problem:
    """y from x."""
    return Problem(
        g.batch, g.in_channels, g.in_h, g.in_w, g.out_channels, g.out_h, g.out_w, g.pad_top, g.pad_left,
        g.dilation_h, g.dilation_w, 0,
    )  # fmt: skip


def backward_problem(g: Geometry) -> Problem:
    """grad_input from grad_output: a forward pass with weights transposed and flipped."""
    reach_h, reach_w = (TAPS - 1) * g.dilation_h, (TAPS - 1) * g.dilation_w
    return Problem(
        g.batch, g.out_channels, g.out_h, g.out_w, g.in_channels, g.in_h, g.in_w, reach_h - g.pad_top,
        reach_w - g.pad_left, g.dilation_h, g.dilation_w, 1,
    )  # fmt: skip


@kernel
def _ceil(a: Any, b: Any) -> Any:
    """a / b, rounded up; a may be negative."""
    return -(-a // b)


@kernel
def phases(p: Problem) -> Any:
    """Phases that have outputs, down and across."""
    return min(p.dilation_h, p.out_h), min(p.dilation_w, p.out_w)


@kernel
def grid(p: Problem) -> Any:
    """Tiles that cover the first phase of an image, which is the largest, down and across."""
    return _ceil(_ceil(p.out_h, p.dilation_h), STEP), _ceil(_ceil(p.out_w, p.dilation_w), STEP)


@kernel
def block_of(p: Problem, blocks: Blocks, block: Any) -> Any:
    """The rows of tiles of a block, and the tiles of each: first row, behind the last, first tile, behind the last."""
    down, across = grid(p)
    high, wide = phases(p)
    pieces = _ceil(across, blocks.tile_cols)
    row, col = block // pieces * blocks.tile_rows, block % pieces * blocks.tile_cols
    return (
        row, min(row + blocks.tile_rows, p.batch * high * wide * down), col, min(col + blocks.tile_cols, across)
    )  # fmt: skip


@kernel
def place_of(p: Problem, row: Any) -> Any:
    """What a row of tiles belongs to: the image, the phase down and across, and the row in the phase."""
    down, _ = grid(p)
    high, wide = phases(p)
    image, phase = row // down // (high * wide), row // down % (high * wide)
    return image, phase // wide, phase % wide, row % down


@kernel
def apart(step: Any, origin: Any, size: Any) -> Any:
    """Of pixels `origin + step * i`: the first that exists, how many do, and which of them would be number i = 0."""
    behind = origin // step
    first = origin - behind * step
    return first, max(_ceil(size - first, step), 0), behind
