"""The named problems.

Three tables, integers only: what is convolved with what; and as many more as are drawn. Does not know who computes it.
Inputs are drawn from a fixed seed, the same in every process.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np

from convjit.typing import Array

SEED = 20240229
DTYPES = ("float32", "float64")


class Problem(NamedTuple):
    """One convolution with square images, kernels and pads; a row of the table.

    Of other ranks: sequences as long as images are wide, and volumes of so many square slices.
    """

    name: str
    batch: int
    in_channels: int
    size: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    groups: int
    rank: int = 2
    depth: int = 0  # slices of a volume

    @property
    def in_size(self) -> tuple[int, ...]:
        return (self.depth, self.size, self.size)[-self.rank :]

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.in_channels, *self.in_size

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *[self.kernel] * self.rank

    @property
    def out_sizes(self) -> tuple[int, ...]:
        reach = self.dilation * (self.kernel - 1) + 1
        return tuple((size + 2 * self.padding - reach) // self.stride + 1 for size in self.in_size)

    @property
    def out_size(self) -> int:
        """Of the last dimension."""
        return self.out_sizes[-1]

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.batch, self.out_channels, *self.out_sizes

    @property
    def multiplications(self) -> int:
        """Of the direct method, forward; each of the gradients in the input and the weight takes as many."""
        taps = math.prod(self.weight_shape[1:])
        return self.batch * self.out_channels * math.prod(self.out_sizes) * taps

    def has(self, passed: str) -> bool:
        """Whether a pass can be measured: layers and plans are of images."""
        return self.rank == 2 or passed in ("forward", "backward")


class Inputs(NamedTuple):
    """The arrays of a problem; `grad_output` is the gradient that comes back from the next layer."""

    x: Array
    weight: Array
    bias: Array
    grad_output: Array


def draw(problem: Problem, dtype: str) -> Inputs:
    """Normal numbers from a fixed seed, rounded to `dtype`."""
    rng = np.random.default_rng(SEED)
    shapes = (problem.x_shape, problem.weight_shape, (problem.out_channels,), problem.y_shape)
    return Inputs(*(rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes))


#             name                N    C   H=W     O  k  s  p  d    g
PROBLEMS = (
    Problem("seed",               1,   3,   32,   16, 3, 1, 1, 1,   1),
    Problem("digits-1",         256,   1,    8,   16, 3, 1, 1, 1,   1),
    Problem("digits-2",         256,  16,    8,   32, 3, 1, 1, 1,   1),
    Problem("lenet",             64,   6,   14,   16, 5, 1, 0, 1,   1),
    Problem("r50 stem",           1,   3,  224,   64, 7, 2, 3, 1,   1),
    Problem("r50 64",             1,  64,   56,   64, 3, 1, 1, 1,   1),
    Problem("r50 64-256",         1,  64,   56,  256, 1, 1, 0, 1,   1),
    Problem("r50 128",            1, 128,   28,  128, 3, 1, 1, 1,   1),
    Problem("r50 256-512 s2",     1, 256,   56,  512, 1, 2, 0, 1,   1),
    Problem("r50 1024-256 b16",  16, 1024,  14,  256, 1, 1, 0, 1,   1),
    Problem("r50 512-512",        1, 512,    7,  512, 3, 1, 1, 1,   1),
    Problem("r50 128 s2",         1, 128,   56,  128, 3, 2, 1, 1,   1),
    Problem("vgg 64",             1,  64,  224,   64, 3, 1, 1, 1,   1),
    Problem("vgg 512",            1, 512,   28,  512, 3, 1, 1, 1,   1),
    Problem("deeplab d2",         1, 256,   28,  256, 3, 1, 2, 2,   1),
    Problem("unet 64",            1,  64,  256,   64, 3, 1, 1, 1,   1),
    Problem("r50 256",            1, 256,   14,  256, 3, 1, 1, 1,   1),
    Problem("r50 256 b16",       16, 256,   14,  256, 3, 1, 1, 1,   1),
    Problem("mb2 dw96",           1,  96,  112,   96, 3, 1, 1, 1,  96),
    Problem("mb2 dw144 s2",       1, 144,   56,  144, 3, 2, 1, 1, 144),
    Problem("convnext dw7",       1,  96,   56,   96, 7, 1, 3, 1,  96),
    Problem("resnext g32",        1, 128,   56,  128, 3, 1, 1, 1,  32),
    Problem("resnext g32 s2",     1, 256,   56,  256, 3, 2, 1, 1,  32),
    Problem("mb2 96-24",          1,  96,   56,   24, 1, 1, 0, 1,   1),
    Problem("mb2 stem",           1,   3,  224,   32, 3, 2, 1, 1,   1),
    Problem("alexnet 5x5",        1,  64,   27,  192, 5, 1, 2, 1,   1),
    Problem("r50 512-2048",       1, 512,    7, 2048, 1, 1, 0, 1,   1),
)  # fmt: skip

# Layers of networks that are not in the first table: what is fast there has to be fast here too.
#             name                N    C   H=W     O  k  s  p  d    g
OTHERS = (
    Problem("effnet dw5 s2",      1, 144,   56,  144, 5, 2, 2, 1, 144),
    Problem("effnet 240-40",      1, 240,   28,   40, 1, 1, 0, 1,   1),
    Problem("effnet 320-1280",    1, 320,    7, 1280, 1, 1, 0, 1,   1),
    Problem("densenet 128-32",    1, 128,   28,   32, 3, 1, 1, 1,   1),
    Problem("densenet 512-128",   1, 512,   14,  128, 1, 1, 0, 1,   1),
    Problem("inception 5x5",      1,  16,   28,   32, 5, 1, 2, 1,   1),
    Problem("inception 288 s2",   1, 288,   35,  384, 3, 2, 0, 1,   1),
    Problem("darknet 32-64 s2",   1,  32,  416,   64, 3, 2, 1, 1,   1),
    Problem("darknet 512-1024",   1, 512,   13, 1024, 3, 1, 1, 1,   1),
    Problem("yolo 64",            1,  64,   80,   64, 3, 1, 1, 1,   1),
    Problem("squeezenet 16-64",   1,  16,   55,   64, 3, 1, 1, 1,   1),
    Problem("shufflenet g3",      1, 240,   28,   60, 1, 1, 0, 1,   3),
    Problem("shufflenet dw58",    1,  58,   28,   58, 3, 1, 1, 1,  58),
    Problem("mb3 dw672 s2",       1, 672,   14,  672, 5, 2, 2, 1, 672),
    Problem("regnet g10",         1, 160,   14,  160, 3, 1, 1, 1,  10),
    Problem("unet up 512-256",    1, 512,   64,  256, 3, 1, 1, 1,   1),
    Problem("srcnn 9x9",          1,   1,  256,   64, 9, 1, 4, 1,   1),
    Problem("espcn 32-9",         1,  32,  256,    9, 3, 1, 1, 1,   1),
    Problem("aspp d12",           1, 320,   33,  256, 3, 1, 12, 12, 1),
    Problem("vit patch16",        1,   3,  224,  768, 16, 16, 0, 1, 1),
)  # fmt: skip

# Sequences of WaveNet, of keyword spotting (TC-ResNet) and, one channel a group, of QuartzNet; volumes of networks for
# video (R3D-18, the stem of I3D) and of a 3-D U-Net for scans.
#             name                N    C   L,H=W   O  k  s  p    d    g
RANKS = (
    Problem("wavenet d1",         1,  64, 16000,  64, 2, 1, 0,   1,   1, 1),
    Problem("wavenet d64",        1,  64, 16000,  64, 2, 1, 0,  64,   1, 1),
    Problem("wavenet d512",       1,  32, 16000,  64, 2, 1, 0, 512,   1, 1),
    Problem("tc-resnet 40-16",   64,  40,    98,  16, 3, 1, 1,   1,   1, 1),
    Problem("tc-resnet 24 s2",   64,  16,    98,  24, 9, 2, 4,   1,   1, 1),
    Problem("tc-resnet 48",      64,  32,    25,  48, 9, 1, 4,   1,   1, 1),
    Problem("quartznet dw33",     1, 256,   512, 256, 33, 1, 16, 1, 256, 1),
    Problem("r3d 64",             1,  64,    56,  64, 3, 1, 1,   1,   1, 3, 16),
    Problem("r3d 128-256 s2",     1, 128,    28, 256, 3, 2, 1,   1,   1, 3, 8),
    Problem("r3d 512",            1, 512,     7, 512, 3, 1, 1,   1,   1, 3, 2),
    Problem("i3d stem",           1,   3,   112,  64, 7, 2, 3,   1,   1, 3, 16),
    Problem("unet3d 8-16",        1,   8,    64,  16, 3, 1, 1,   1,   1, 3, 32),
)  # fmt: skip

# Small enough for two to three minutes with compilation, and every kind: one image, many, no padding, stride,
# depthwise.
QUICK = ("seed", "digits-1", "digits-2", "lenet", "r50 128", "mb2 dw144 s2")

NAMES = tuple(problem.name for problem in PROBLEMS)
OTHER_NAMES = tuple(problem.name for problem in OTHERS)
RANK_NAMES = tuple(problem.name for problem in RANKS)


# What is drawn, for each rank: sizes and kernels. Of a group of one channel, one filter or two.
_DRAWN = {
    1: ((8, 20, 49, 100, 256, 1000, 4000, 16000), (1, 3, 3, 5, 7, 9, 15, 31)),
    2: ((4, 5, 7, 8, 10, 14, 16, 20, 27, 28, 32, 40, 56, 64, 112, 128, 224), (1, 1, 2, 3, 3, 3, 4, 5, 7, 9)),
    3: ((4, 6, 8, 12, 16, 28, 32), (1, 2, 3, 3, 3, 5)),
}
_DRAWN_CHANNELS = (1, 3, 4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 512)
# Multiplications and elements: milliseconds on one core, and nothing that is over before it began.
_LEAST_WORK, _MOST_WORK, _MOST_ELEMENTS = 20_000, 600_000_000, 20_000_000
_PREFIX = "drawn "


def drawn(number: int) -> Problem:
    """One of the problems that nobody chose: what layers have, in any combination; its number says which."""
    r = random.Random(number)
    while True:
        rank = r.choice((1, 2, 2, 2, 3))
        sizes, kernels = _DRAWN[rank]
        size, kernel, channels, filters = (
            r.choice(pool) for pool in (sizes, kernels, _DRAWN_CHANNELS, _DRAWN_CHANNELS)
        )
        batch, stride, dilation = (
            r.choice((1, 1, 1, 2, 8, 32, 64)),
            r.choice((1, 1, 1, 2, 2, 3, 4)),
            r.choice((1, 1, 1, 2)),
        )
        same = dilation * (kernel - 1) // 2
        groups = r.choice((1, 1, 1, 1, 1, 1, 2, 4, 8, channels))
        if groups == channels:
            filters = channels * r.choice((1, 1, 2))
        problem = Problem(
            f"{_PREFIX}{number}", batch, channels, size, filters, kernel, stride, r.choice((0, same, same)), dilation,
            groups, rank, size if rank == 3 else 0,
        )  # fmt: skip
        if channels % groups or filters % groups or problem.out_size < 1:
            continue
        elements = max(math.prod(problem.x_shape), math.prod(problem.y_shape))
        if _LEAST_WORK <= problem.multiplications <= _MOST_WORK and elements <= _MOST_ELEMENTS:
            return problem


def drawn_names(count: int) -> tuple[str, ...]:
    """The first so many of them."""
    return tuple(f"{_PREFIX}{number}" for number in range(1, count + 1))


def select(names: tuple[str, ...]) -> list[Problem]:
    """The problems of these names, in the tables' order, then drawn ones; a `ValueError` names an unknown one."""
    others = [name for name in names if name not in NAMES + OTHER_NAMES + RANK_NAMES]
    for name in others:
        if not name.startswith(_PREFIX) or not name.removeprefix(_PREFIX).isdecimal():
            raise ValueError(f"there is no problem {name!r}; `python -m bench --list` shows them")
    found = [problem for problem in PROBLEMS + OTHERS + RANKS if problem.name in names]
    return found + [drawn(int(name.removeprefix(_PREFIX))) for name in others]
