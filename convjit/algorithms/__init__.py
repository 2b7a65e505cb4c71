"""The registry of convolution algorithms: ordered, best first, `reference` last and always able.

A row is a file. It names its three operations and says for which problems it declines; the reason serves the choice,
the error when it was asked for by name, and the tests, which run every row. Nothing below `choose` raises for what a
caller passed: arrays arrive ready, results and workspaces allocated.

=========================  =============================================================================================
rows                       `winograd`, `depthwise`, `patches`, `direct`, `implicit`, `reference`, in this order
parts of rows              `winograd_*`; `depthwise_*`, in pixels, channels or rows
what rows share            `algorithm`: what a row is; `filling` planes, `turning` images, `running` a product,
                           `input_product` for the input gradient
weight gradients           `weight_gradient` picks `weight_product`, `weight_channels` or `weight_input_lanes`
volumes                    as they are: `direct_volumes`, `depthwise_volumes`; as images: `slices`
operations without rows    `bias`, `columns`, `padding`, `pooling`, `averaging`, `pixel_pooling`, `volume_columns`,
                           `volume_pooling`
those of layers            `activations` and `updates`, each a formula that `pointwise` runs everywhere; `normalising`
                           and `softmax`, whose sums are `lane_sums`
=========================  =============================================================================================
"""

from __future__ import annotations

from ..geometry import Geometry
from ..parsing import describe
from ..typing import DType
from . import depthwise, direct, implicit, patches, reference, winograd
from .algorithm import Algorithm, Explained, Operation, Packing, Space
from .turning import turned

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Explained",
    "Operation",
    "Packing",
    "Space",
    "check_algorithm",
    "choose",
    "is_choice",
    "operation_of",
    "why_not",
]

ALGORITHMS: tuple[Algorithm, ...] = (
    winograd.ALGORITHM,
    depthwise.ALGORITHM,
    patches.ALGORITHM,
    direct.ALGORITHM,
    implicit.ALGORITHM,
    reference.ALGORITHM,
)

# "auto" keeps every numerical promise; "fastest" may also pick rows that trade accuracy for speed.
_CHOICES = ("auto", "fastest")


def is_choice(name: object) -> bool:
    """Whether a name leaves the row to be chosen."""
    return name in _CHOICES


def check_algorithm(function: str, name: object) -> None:
    """Refuse what is neither a choice nor the name of a row."""
    if not isinstance(name, str):
        raise TypeError(f"{function}: algorithm must be a string, got {describe(name)}")
    if is_choice(name):
        return
    known = (*_CHOICES, *(row.name for row in ALGORITHMS))
    if name not in known:
        raise ValueError(f"{function}: algorithm must be one of {', '.join(map(repr, known))}, got {name!r}")


def operation_of(row: Algorithm, operation: str, channels_last: bool = False) -> Operation | None:
    """An operation of a row; with `channels_last` of images that lie so: its own, or the one that turns them."""
    found = row.operation(operation)
    if found is None or not channels_last:
        return found
    return found.channels_last or turned(operation, found)


def why_not(name: str, geometry: Geometry, dtype: DType) -> str | None:
    """Why the row of this name cannot take a problem; None where it can, and of a choice."""
    return next((row.declines(geometry, dtype) for row in ALGORITHMS if row.name == name), None)


def choose(
    function: str, name: object, geometry: Geometry, dtype: DType, operation: str, channels_last: bool = False
) -> Operation:
    """The operation of the first row that takes the problem, or of the named one.

    A named row that does not have the operation, or whose operation declines, leaves it to "auto".
    """
    check_algorithm(function, name)
    if not is_choice(name):
        row = next(row for row in ALGORITHMS if row.name == name)
        reason = row.declines(geometry, dtype)
        if reason is not None:
            raise ValueError(f"{function}: algorithm {name!r} cannot run here: {reason}")
        found = operation_of(row, operation, channels_last)
        if found is not None and found.declines(geometry, dtype) is None:
            return found
    rows = (row for row in ALGORITHMS if row.keeps_promises or name == "fastest")
    return next(
        found
        for row in rows
        if (found := operation_of(row, operation, channels_last)) is not None
        and (row.declines(geometry, dtype) or found.passes_over(geometry, dtype)) is None
    )
