"""How a 3x3 convolution falls into tiles of 4x4 outputs, and tiles into blocks.

An image of a dilated convolution falls into phases: outputs whose rows and columns have the same remainders by the
dilation see inputs that have, too, and are a dense convolution among themselves. They are read and written where they
lie, `dilation` apart.

With stride 2 each kernel falls into phases, too, a polyphase decomposition: taps 0 and 2 of an axis see the inputs of
one remainder, tap 1 those of the other. Each phase of both axes is a dense convolution of at most 2x2 taps. Forward
they have the same outputs: the phases of the inputs are so many times more channels to sum, its `sources`. For an input
gradient they have the same inputs: the phases of the outputs are so many times more filters, its `sinks`.
Knows pixels, phases and blocks of tiles; does not know transforms, weights or tasks.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4; P. Vaidyanathan,
"Multirate Systems and Filter Banks" (1993), section 4.3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..gemm.winograd import STEP
from ..geometry import Geometry
from ..runtime.compile import kernel

TAPS = 3  # of a kernel, down and across


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
    first_h: int  # where outputs of the first tile begin
    first_w: int
    dilation_h: int
    dilation_w: int
    stride: int  # of the forward pass, down and across: 1 or 2
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
        g.batch, g.in_channels, g.in_h, g.in_w, g.out_channels, g.out_h, g.out_w, g.pad_top, g.pad_left, 0, 0,
        g.dilation_h, g.dilation_w, g.stride_h, 0,
    )  # fmt: skip


def backward_problem(g: Geometry) -> Problem:
    """grad_input from grad_output: a forward pass with weights transposed and flipped."""
    (pad_top, first_h), (pad_left, first_w) = (
        _turned(pad, dilation, g.stride_h) for pad, dilation in ((g.pad_top, g.dilation_h), (g.pad_left, g.dilation_w))
    )
    return Problem(
        g.batch, g.out_channels, g.out_h, g.out_w, g.in_channels, g.in_h, g.in_w, pad_top, pad_left, first_h, first_w,
        g.dilation_h, g.dilation_w, g.stride_h, 1,
    )  # fmt: skip


def _turned(pad: int, dilation: int, stride: int) -> tuple[int, int]:
    """Of an axis of an input gradient: the padding of its inputs, and where its outputs begin.

    With stride 2, pixels of the padded image with even number 2q have taps 2 and 0 of outputs q - 1 and q, those with
    number 2q - 1 have tap 1 of output q - 1: both phases see the same two, from the first q that meets the image on.
    """
    if stride == 1:
        return (TAPS - 1) * dilation - pad, 0
    return 1 - -(-pad // 2), pad % 2


@kernel
def _ceil(a: Any, b: Any) -> Any:
    """a / b, rounded up; a may be negative."""
    return -(-a // b)


@kernel
def in_stride(p: Problem) -> Any:
    """Phases of inputs that are summed, along an axis."""
    return 1 if p.turned == 1 else p.stride


@kernel
def out_stride(p: Problem) -> Any:
    """Phases of outputs that are computed from the same inputs, along an axis."""
    return p.stride if p.turned == 1 else 1


@kernel
def sources(p: Problem) -> Any:
    """Phases of inputs that are summed, of both axes."""
    return in_stride(p) * in_stride(p)


@kernel
def sinks(p: Problem) -> Any:
    """Phases of outputs that are computed from the same inputs, of both axes."""
    return out_stride(p) * out_stride(p)


@kernel
def phases(p: Problem) -> Any:
    """Phases that are convolutions of their own and have outputs, down and across."""
    return min(p.dilation_h, p.out_h), min(p.dilation_w, p.out_w)


@kernel
def grid(p: Problem) -> Any:
    """Tiles that cover the first phase of an image, which is the largest, or its sinks, down and across."""
    stride = out_stride(p)
    before = stride - 1  # the last sink begins so many pixels before the first
    return (
        _ceil(_ceil(p.out_h - p.first_h + before, p.dilation_h * stride), STEP),
        _ceil(_ceil(p.out_w - p.first_w + before, p.dilation_w * stride), STEP),
    )


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
