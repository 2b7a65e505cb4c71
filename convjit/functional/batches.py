"""Running an operation on images, a slice of the batch at a time where workspaces would be too large.

Knows workers, workspaces and slices of a batch; does not know volumes, nor complex numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import arrays
from ..runtime.threads import workers
from ..typing import Array
from . import kept
from .calls import Call


def run_images(
    function: str, call: Call, inputs: tuple[Array, ...], result: Array, db: Array | None = None
) -> None:  # fmt: skip
    """Run an operation on real images of any layout; the result has the dtype that it is computed in.

    Inputs are made ready, workers chosen, workspaces allocated; `db` is the bias gradient, as of `Call.sums_bias`.

    A batch whose workspaces would be too large is cut: images do not see each other, so the bits are the same.
    """
    crew, batch = workers(call.nanoseconds), call.geometry.batch
    together = call.images(crew)
    if together == batch:
        ready = arrays.all_ready(function, "an input", inputs, call.compute)
        _run_slice(function, call, crew, ready, result, db)
        return
    images, others = inputs[0], arrays.all_ready(function, "an input", inputs[1:], call.compute)
    for first in range(0, batch, together):
        here = slice(first, min(batch, first + together))
        part = call.of_batch(here.stop - first)
        slices = arrays.ready(function, "an input", images[here], call.compute)
        _run_slice(function, part, crew, (slices, *others), result[here])


def _run_slice(
    function: str, call: Call, crew: int, inputs: Sequence[Array], result: Array, db: Array | None = None
) -> None:
    if call.is_pointwise:
        if call.operation_name == "weight_grad":
            inputs = [_one_row(call, array) for array in inputs]
        else:
            inputs, result = [_one_row(call, inputs[0]), *inputs[1:]], _one_row(call, result)
    source, workspaces = kept.take(function, call, crew)
    run = workspaces.run
    if run is None:
        run = workspaces.run = call.operation.bind(crew, call.geometry, call.compute, *workspaces)
    if db is None:
        run(*inputs, result)
    else:
        run(*inputs, result, db)
    kept.put_back(call, crew, source, workspaces)


def _one_row(call: Call, images: Array) -> Array:
    """Images with all their pixels in one row."""
    n, c, h, w = call.layout.told(images.shape)
    return images.reshape(call.layout.lying((n, c, 1, h * w)))
