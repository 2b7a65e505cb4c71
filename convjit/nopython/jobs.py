"""A job: what an entry that computes is told, a flat array of 64-bit integers.

A geometry, then addresses of C-contiguous arrays, then options. No job allocates results: they are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gemm import direct_kernels, micro
from ..geometry import Geometry
from ..runtime.entries import array_at, new_slot, row_of_table, set_row
from ..runtime.options import kernel
from ..typing import DType

A = len(Geometry._fields)  # the first factor, or what is moved
B = A + 1  # the second one
BIAS = A + 2  # 0 where there is none
RESULT = A + 3
OPTION = A + 4
OPTION2 = A + 5
ENTRIES = A + 6

DTYPES = tuple(np.dtype(name) for name in ("float32", "float64"))
# Where the table of entries has the addresses of a dtype's kernels, those of `micro` and of `direct_kernels`.
_KERNELS = {dtype: new_slot() for dtype in DTYPES}
_KERNELS_32, _KERNELS_64 = (_KERNELS[dtype] for dtype in DTYPES)
_CHANNEL_KERNELS = {dtype: new_slot() for dtype in DTYPES}
_CHANNEL_KERNELS_32, _CHANNEL_KERNELS_64 = (_CHANNEL_KERNELS[dtype] for dtype in DTYPES)
# How many numbers a dtype's kernels are told by.
_NUMBERS, _CHANNEL_NUMBERS = micro.WEAVE + 1, direct_kernels.ADD_ROWS + 1


def kernels_row(dtype: DType) -> Any:
    """What makes a dtype's micro-kernels ready, for `Entry.needs`."""
    return lambda: set_row(_KERNELS[dtype], micro.kernels(dtype).ctypes.data)


def channel_kernels_row(dtype: DType) -> Any:
    """The same for the kernels whose lanes are channels."""
    return lambda: set_row(_CHANNEL_KERNELS[dtype], direct_kernels.kernels(dtype).ctypes.data)


@kernel
def kernels_at_hand(size: Any) -> Any:
    """The micro-kernels of the dtype of so many bytes an element."""
    return array_at(row_of_table(_KERNELS_32 if size == 4 else _KERNELS_64), (_NUMBERS,), 0)


@kernel
def channel_kernels_at_hand(size: Any) -> Any:
    """The same of the kernels whose lanes are channels."""
    return array_at(row_of_table(_CHANNEL_KERNELS_32 if size == 4 else _CHANNEL_KERNELS_64), (_CHANNEL_NUMBERS,), 0)


@kernel
def address_of(array: Any) -> Any:
    """Where an array begins; Numba's own number has no sign, and would make a float of what it meets."""
    return np.int64(array.ctypes.data)


@kernel
def job_at(address: Any) -> Any:
    """The job at an address."""
    return array_at(address, (ENTRIES,), 0)


@kernel
def geometry_of(job: Any) -> Any:
    """The geometry of a job."""
    return Geometry(
        job[0], job[1], job[2], job[3], job[4], job[5], job[6], job[7], job[8], job[9], job[10], job[11], job[12],
        job[13], job[14], job[15], job[16], job[17],
    )  # fmt: skip


@kernel
def job_of(g: Geometry, a: Any, b: Any, bias: Any, result: Any, option: Any, option2: Any) -> Any:
    """A job."""
    return np.array((
        g.batch, g.in_channels, g.in_h, g.in_w, g.out_channels, g.out_h, g.out_w, g.kernel_h, g.kernel_w, g.stride_h,
        g.stride_w, g.dilation_h, g.dilation_w, g.pad_top, g.pad_bottom, g.pad_left, g.pad_right, g.groups,
        a, b, bias, result, option, option2,
    ), np.int64)  # fmt: skip
