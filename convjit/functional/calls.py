"""What is decided of an operation before any array is looked at: which row runs it, with which workspaces and slices.

Knows geometries, dtypes and numbers of workers; does not know arrays.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .. import algorithms
from ..algorithms import Operation, Packing, Space
from ..algorithms.algorithm import PACKED_WEIGHT, work_ns, workspace_limit
from ..geometry import Geometry
from ..layouts import CHANNELS_FIRST, Layout
from ..typing import DType


class Call:
    """An operation (one of `algorithms.algorithm.OPERATIONS`) on a problem in a dtype, of images in a layout."""

    def __init__(
        self, operation_name: str, geometry: Geometry, operation: Operation, compute: DType,
        layout: Layout = CHANNELS_FIRST,
    ) -> None:  # fmt: skip
        self.operation_name = operation_name
        self.layout = layout
        self.geometry = geometry
        self.operation = operation
        self.compute = compute
        self.nanoseconds = work_ns(geometry)
        self.is_pointwise = geometry.is_pointwise
        self.sums_bias = operation_name == "weight_grad" and operation.sums_bias(geometry, compute)
        self._images: dict[int, int] = {}
        self._spaces: dict[int, tuple[Space, ...]] = {}
        self._bytes: dict[int, int] = {}
        self._slices: dict[int, Call] = {}
        self._packed: Call | None = None

    @property
    def packing(self) -> Packing | None:
        """How the weight is packed for it, where it is."""
        return self.operation.packing

    def packed(self) -> Call:
        """The same on a packed weight."""
        if self._packed is None:
            packing = self.operation.packing
            assert packing is not None
            operation = Operation(packing.bind, packing.workspace)
            self._packed = Call(self.operation_name, self.geometry, operation, self.compute, self.layout)
        return self._packed

    def images(self, workers: int) -> int:
        """How many images so many workers compute together: all, or as many as stay within the limit."""
        if workers not in self._images:
            self._images[workers] = self._most_images(workers)
        return self._images[workers]

    def of_batch(self, batch: int) -> Call:
        """The same for a slice of the batch, which the same operation runs."""
        if batch not in self._slices:
            geometry = self.geometry._replace(batch=batch)
            self._slices[batch] = Call(self.operation_name, geometry, self.operation, self.compute, self.layout)
        return self._slices[batch]

    def spaces(self, workers: int) -> tuple[Space, ...]:
        """The workspaces of the whole batch, with their dtypes."""
        if workers not in self._spaces:
            spaces = self.operation.workspace(self.geometry, workers, self.compute)
            self._spaces[workers] = tuple(space._replace(dtype=space.dtype or self.compute) for space in spaces)
        return self._spaces[workers]

    def bytes(self, workers: int) -> int:
        """Of all workspaces."""
        if workers not in self._bytes:
            self._bytes[workers] = sum(map(space_bytes, self.spaces(workers)))
        return self._bytes[workers]

    def limit(self) -> int:
        """Bytes that workspaces may take; one image may need more."""
        shape = self.geometry.y_shape if self.operation_name == "input_grad" else self.geometry.x_shape
        return workspace_limit(math.prod(shape), self.compute)

    def _most_images(self, workers: int) -> int:
        """Slices of nearly equal size."""
        batch, limit, slices, images = self.geometry.batch, self.limit(), 1, self.geometry.batch
        if self.operation_name == "weight_grad":  # it sums over the batch in an order of its own, and cuts it itself
            return batch
        while images > 1:
            taken = counted_bytes(self.of_batch(images).spaces(workers))
            if taken <= limit:
                break
            # Planes grow with the batch, other workspaces do not: what is too much is cut into as many slices, or more.
            slices = max(slices + 1, min(batch, slices * taken // limit))
            images = -(-batch // slices)
        return images


def space_bytes(space: Space) -> int:
    """Bytes of a workspace."""
    assert space.dtype is not None
    return math.prod(space.shape) * np.dtype(space.dtype).itemsize


def counted_bytes(spaces: tuple[Space, ...]) -> int:
    """Bytes of all workspaces but the weight in another form."""
    return sum(space_bytes(space) for space in spaces if space.name != PACKED_WEIGHT)


def _decide(
    function: str, algorithm: str, geometry: Geometry, compute: DType, operation_name: str,
    layout: Layout = CHANNELS_FIRST,
) -> Call:  # fmt: skip
    # A 1x1 kernel sees an image as one long row.
    geometry = geometry.as_one_row() if geometry.is_pointwise else geometry
    operation = algorithms.choose(function, algorithm, geometry, compute, operation_name, layout.channels_last)
    return Call(operation_name, geometry, operation, compute, layout)


# A small convolution takes 10 us; deciding how would take as long again.
decide = lru_cache(maxsize=512)(_decide)
