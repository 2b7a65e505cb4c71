"""What a row of the registry is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..geometry import Geometry
from ..runtime.compile import Driver
from ..typing import DType

Shape = tuple[int, ...]


def _no_workspace(geometry: Geometry, workers: int) -> tuple[Shape, ...]:
    return ()


class Operation(NamedTuple):
    """One compiled operation, called as `driver(workers, geometry, *inputs, result, *workspaces)`.

    Inputs and result, C-contiguous and of one dtype:

    ============  ===============================  ==========================
    forward       x, weight, bias (O,) or (0,)     y (N, O, OH, OW)
    input_grad    grad_output, weight              grad_input (N, C, H, W)
    weight_grad   grad_output, x                   grad_weight
    ============  ===============================  ==========================
    """

    driver: Driver
    # Shapes of the workspaces, in the problem's dtype; the first axis of the first one counts the workers.
    workspace: Callable[[Geometry, int], tuple[Shape, ...]] = _no_workspace


class Algorithm(NamedTuple):
    """A row: a name, when it declines and why, and its operations."""

    name: str
    declines: Callable[[Geometry, DType], str | None]
    forward: Operation
    input_grad: Operation
    weight_grad: Operation
