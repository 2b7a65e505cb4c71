"""What a row of the registry is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..gemm.summation import TERMS_A_TOTAL
from ..geometry import Geometry, Volume
from ..runtime.options import COMPILED, NOT_COMPILED
from ..typing import DType

INDICES = np.dtype("int64")


# Why several rows decline.
NO_CHANNELS = "there are no channels"


def not_for(geometry: Geometry, dtype: DType) -> str | None:
    """Why rows of kernels for floating point alone decline any problem: None where they may take it."""
    if not COMPILED:
        return NOT_COMPILED
    if dtype.kind != "f":
        return f"it is for floating point, and this is computed in {dtype}"
    return NO_CHANNELS if geometry.in_channels * geometry.out_channels == 0 else None


def too_long(terms: int) -> str | None:
    """Why sums of so many terms are not taken, where a row adds up one total: None where they are."""
    return f"sums have more than {TERMS_A_TOTAL} terms" if terms > TERMS_A_TOTAL else None


# A workspace of this name holds the weight in another form; what is promised of workspaces does not count it.
PACKED_WEIGHT = "packed weight"


# Workspaces beside input, weights and output stay within twice the input or this, whichever is larger.
WORKSPACE_BYTES = 32 << 20


def workspace_limit(input_elements: int, dtype: DType) -> int:
    """Bytes that the workspaces of a problem with so large an input may take."""
    return max(WORKSPACE_BYTES, 2 * input_elements * dtype.itemsize)


class Space(NamedTuple):
    """A workspace: its shape, its dtype where it is not the problem's, and what it holds."""

    shape: tuple[int, ...]
    dtype: DType | None = None
    name: str = "workspace"


def _no_workspace(geometry: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
    return ()


# What one core does in a nanosecond, to tell small problems from large ones; and with one input channel a group, where
# loads count more: 144 channels of 56x56 (3x3, stride 2) took 177 us on one thread, with AVX2.
_MULTIPLICATIONS_A_NS, _OF_ONE_CHANNEL = 16, 8


def work_ns(geometry: Geometry) -> float:
    """About how long one core takes for any of the three operations, in nanoseconds."""
    each = _OF_ONE_CHANNEL if geometry.in_channels == geometry.groups else _MULTIPLICATIONS_A_NS
    return geometry.multiplications / each


def volume_work_ns(volume: Volume) -> float:
    """The same of volumes."""
    return work_ns(volume.plane) * volume.depth.out_size * volume.depth.kernel


class Explained(NamedTuple):
    """How an operation cuts its work, for people to read."""

    how: str
    # Of the multiply-adds' peak of as many cores as there are workers, to expect of the kernels.
    share_of_peak: float


def _never(geometry: Geometry, dtype: DType) -> str | None:
    return None


def _never_sums(geometry: Geometry, dtype: DType) -> bool:
    return False


# `bind(workers, geometry, dtype, *workspaces)` is what a call runs in these workspaces, `run(*inputs, result)`: it
# launches drivers. What depends on no array is found once; in a call of 10 us, to find it takes 2.
Bind: TypeAlias = Callable[..., Callable[..., None]]


def each_call(run: Callable[..., None]) -> Bind:
    """The same of `run(workers, geometry, *inputs, result, *workspaces)`, which finds what it needs at each call."""

    def bind(workers: int, geometry: Geometry, dtype: DType, *workspaces: Any) -> Callable[..., None]:
        return lambda *arrays: run(workers, geometry, *arrays, *workspaces)

    return bind


class Packing(NamedTuple):
    """How an operation runs on a weight that was brought into another form once, for a plan.

    What is packed depends on the weight and on the geometry's window and groups, not on batch or image size: one packed
    weight serves them all. A row that needs different forms is several rows.
    """

    # Of the packed weight, for a problem of this dtype.
    space: Callable[[Geometry, DType], Space]
    # `pack(workers, geometry, weight, packed)` fills it.
    pack: Callable[..., None]
    # As those of `Operation`, with the packed weight in the weight's place.
    bind: Bind
    workspace: Callable[[Geometry, int, DType], tuple[Space, ...]] = _no_workspace


class Operation(NamedTuple):
    """One operation, bound to workspaces once, and called with inputs and result.

    A large batch is cut and run slice by slice, so an operation that is chosen for a batch takes a smaller one, too.

    Inputs and result, C-contiguous and of one dtype:

    ============  ===============================  ==========================
    forward       x, weight, bias (O,) or (0,)     y (N, O, OH, OW)
    input_grad    grad_output, weight              grad_input (N, C, H, W)
    weight_grad   grad_output, x                   grad_weight
    ============  ===============================  ==========================

    Images are (N, C, H, W), and (N, H, W, C) for the operation in `channels_last`.
    """

    bind: Bind
    # The workspaces for so many workers, and a problem of this dtype.
    workspace: Callable[[Geometry, int, DType], tuple[Space, ...]] = _no_workspace
    # Of a forward operation that reads the weight in another form; None where there is nothing to pack.
    packing: Packing | None = None
    # How the work is cut for so many workers, and a problem of this dtype.
    explained: Callable[[Geometry, int, DType], Explained] | None = None
    # Why it cannot take a problem that its row takes: it is left to "auto" then, also where the row was named.
    declines: Callable[[Geometry, DType], str | None] = _never
    # Why it leaves a problem that it could take to the rows below, where those are expected to be faster; it is not
    # asked where the row was named.
    yields: Callable[[Geometry, DType], str | None] = _never
    # The same of images with channels last, where it reads and writes them as they lie; None where they are turned.
    channels_last: Operation | None = None
    # Whether a weight gradient sums up that of the bias on the way, when it is given `db` (O,) behind its result.
    sums_bias: Callable[[Geometry, DType], bool] = _never_sums

    def passes_over(self, geometry: Geometry, dtype: DType) -> str | None:
        """Why a row that is not named does not run it: it declines or yields."""
        return self.declines(geometry, dtype) or self.yields(geometry, dtype)


class Algorithm(NamedTuple):
    """A row: a name, when it declines and why, and its operations.

    An operation that it does not have is None. `keeps_promises` is False for a row that trades accuracy or containment
    for speed: "auto" never picks it.
    """

    name: str
    declines: Callable[[Geometry, DType], str | None]
    forward: Operation | None
    input_grad: Operation | None
    weight_grad: Operation | None
    keeps_promises: bool = True

    def operation(self, name: str) -> Operation | None:
        """One of `OPERATIONS`."""
        found: Operation | None = getattr(self, name)
        return found


OPERATIONS = ("forward", "input_grad", "weight_grad")
