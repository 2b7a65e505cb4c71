"""Running a product whose results are one run a row: an output, or an input gradient of stride 1.

Knows workers and workspaces; does not know which of the two it computes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..gemm.blocked import LIST_ENTRIES, scratch_elements
from ..gemm.landing import multiply_and_store
from ..gemm.micro import ELEMENT
from ..gemm.micro import kernels as kernels_of
from ..gemm.planes import Axis, Planes, filling, plane_elements
from ..gemm.product import Product, goes_by_image, multiply_tile, task_of
from ..runtime.compile import driver, kernel, passed
from ..runtime.launch import launch
from ..typing import Array, DType
from .algorithm import INDICES, Space
from .filling import fill_planes, source_of_image

Axes = tuple[Axis, Axis]


@kernel
def _run_task(
    task: Any, p: Product, kernels: Any, a: Any, offsets: Any, bias: Any, source: Any, results: Any, scratch: Any,
    lists: Any,
) -> None:  # fmt: skip
    """One task of a product of short sums; `source` is the address of the planes of image 0."""
    t = task_of(p, task)
    if t.lanes == 0:
        return
    size, terms, plane = kernels[ELEMENT], p.channels * p.taps, t.image * p.rows + t.row
    o = plane % (p.groups * p.rows)
    multiply_tile(
        p, t, kernels, a.ctypes.data + o * terms * size, offsets.ctypes.data, source,
        results.ctypes.data + (plane * p.result + t.position) * size, p.result,
        bias.ctypes.data + o * size if bias.size > 0 else 0, scratch.ctypes.data, lists, 0, terms,
    )  # fmt: skip


@driver
def _multiply(
    task: Any, worker: Any, p: Product, kernels: Any, a: Any, offsets: Any, bias: Any, source: Any, results: Any,
    scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """result row r at each grid point = bias[r] + sum over (channel, tap) of a[r, term] * what it meets.

    `a` is flat, a matrix (rows, terms) for each group; `source` are the planes of (N * groups * channels).
    """
    _run_task(task, p, kernels, a, offsets, bias, source.ctypes.data, results, scratch[worker], lists[worker])


@driver
def _multiply_image(
    task: Any, worker: Any, p: Product, f: Planes, inside: Any, kernels: Any, a: Any, offsets: Any,
    bias: Any, images: Any, results: Any, scratch: Any, lists: Any, planes: Any,
) -> None:  # fmt: skip
    """The same for all of an image, whose planes are the worker's."""
    source = source_of_image(task, kernels, f, inside, images, planes[worker])
    tasks = p.groups * ((p.rows + p.chunk - 1) // p.chunk) * p.tiles
    for each in range(task * tasks, (task + 1) * tasks):
        _run_task(each, p, kernels, a, offsets, bias, source, results, scratch[worker], lists[worker])


@driver
def _multiply_long(
    task: Any, worker: Any, p: Product, vertical: Axis, horizontal: Axis, kernels: Any, a: Any, offsets: Any, bias: Any,
    source: Any, results: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """The same for sums of more than one total; `results` are (N * groups * rows, height, width)."""
    t = task_of(p, task)
    if t.lanes > 0:
        o = (t.image * p.rows + t.row) % (p.groups * p.rows)
        of_row = a.ctypes.data + o * p.channels * p.taps * kernels[ELEMENT]
        multiply_and_store(
            p, t, vertical, horizontal, kernels, of_row, offsets.ctypes.data, source.ctypes.data, results, bias,
            scratch[worker], lists[worker],
        )  # fmt: skip


class Setup(NamedTuple):
    """Everything about a product that its geometry, dtype and number of workers decide: made once, looked up after."""

    product: Product
    axes: Axes
    kernels: Array
    inside: Array
    by_image: bool
    tasks: int
    spaces: tuple[Space, ...]  # scratch, lists, and planes: of all images, or of one for each worker
    records: tuple[Array, ...]  # the records as compiled code takes them


def set_up(p: Product, axes: Axes, workers: int, dtype: DType, terms: int, phases: int = 1) -> Setup:
    """The setup of a product of so many phases, whose sums have at most so many terms."""
    channels = p.groups * p.channels
    of_image = plane_elements(channels, *axes)
    by_image = phases == 1 and p.is_short and goes_by_image(p, of_image, phases, workers, dtype)
    spaces = (
        Space((workers, scratch_elements(p.chunk, terms))),
        Space((workers, LIST_ENTRIES), INDICES),
        Space((workers, of_image) if by_image else (plane_elements(p.batch * channels, *axes),)),
    )
    f, inside = filling(axes)
    records = passed(p), passed(f), passed(axes[0]), passed(axes[1])
    tasks = p.batch if by_image else p.batch * p.tasks
    return Setup(p, axes, kernels_of(dtype), inside, by_image, tasks, spaces, records)


def run_product(
    workers: int, setup: Setup, nanoseconds: float, images: Array, a: Array, offsets: Array, bias: Array,
    results: Array, scratch: Array, lists: Array, planes: Array,
) -> None:  # fmt: skip
    """Launch the drivers; `images` and `results` are four-dimensional, `bias` may be empty."""
    product, f, vertical, horizontal = setup.records
    ours = setup.kernels, a.reshape(-1), offsets, bias
    if setup.by_image:
        launch(
            _multiply_image, workers, setup.tasks, nanoseconds, product, f, setup.inside, *ours, images, results,
            scratch, lists, planes,
        )  # fmt: skip
        return
    source = fill_planes(workers, setup.axes, images, planes)
    if setup.product.is_short:
        launch(_multiply, workers, setup.tasks, nanoseconds, product, *ours, source, results, scratch, lists)
        return
    n, c, height, width = results.shape
    flat = results.reshape(n * c, height, width)
    launch(
        _multiply_long, workers, setup.tasks, nanoseconds, product, vertical, horizontal, *ours, source, flat, scratch,
        lists,
    )  # fmt: skip
