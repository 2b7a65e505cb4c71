"""What a row of the registry is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..geometry import Geometry
from ..typing import DType

Shape = tuple[int, ...]


def _no_workspace(geometry: Geometry, workers: int) -> tuple[Shape, ...]:
    return ()


# What one core does in a nanosecond, to tell small problems from large ones.
_MULTIPLICATIONS_A_NS = 16


def work_ns(geometry: Geometry) -> float:
    """About how long one core takes for any of the three operations, in nanoseconds."""
    return geometry.multiplications / _MULTIPLICATIONS_A_NS


class Operation(NamedTuple):
    """One operation, called as `run(workers, geometry, *inputs, result, *workspaces)`: it launches drivers.

    Inputs and result, C-contiguous and of one dtype:

    ============  ===============================  ==========================
    forward       x, weight, bias (O,) or (0,)     y (N, O, OH, OW)
    input_grad    grad_output, weight              grad_input (N, C, H, W)
    weight_grad   grad_output, x                   grad_weight
    ============  ===============================  ==========================
    """

    run: Callable[..., None]
    # Shapes of the workspaces, in the problem's dtype, for so many workers.
    workspace: Callable[[Geometry, int], tuple[Shape, ...]] = _no_workspace


class Algorithm(NamedTuple):
    """A row: a name, when it declines and why, and its operations."""

    name: str
    declines: Callable[[Geometry, DType], str | None]
    forward: Operation
    input_grad: Operation
    weight_grad: Operation
