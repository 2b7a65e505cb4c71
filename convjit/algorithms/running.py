"""Running a product whose results are one run a row: an output, or an input gradient of stride 1.

Knows workers and workspaces; does not know which of the two it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..gemm.bands import FILLED_BEFORE, band_count, band_size
from ..gemm.blocked import LIST_ENTRIES, PANEL_LANES, scratch_elements
from ..gemm.estimate import filling_cycles, forward_share
from ..gemm.landing import multiply_and_store
from ..gemm.micro import ELEMENT
from ..gemm.planes import Axis, Planes
from ..gemm.product import FROM_PLANES, Product, kernels_for, multiply_tile, plan_product, task_count, task_of
from ..gemm.summation import TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, Run, run_in_turn
from ..typing import Array, DType
from .algorithm import INDICES, Explained, Space
from .filling import cut_into_bands, filled_by, in_parts, of_groups, source_of_band

Axes = tuple[Axis, Axis]


@kernel
def _run_task(
    task: Any, origin: Any, p: Product, kernels: Any, a: Any, offsets: Any, bias: Any, source: Any, results: Any,
    scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """One task of a band that begins with row `origin`, of short sums; `source` is where image 0 would be."""
    t = task_of(p, task, min(p.grid_h, p.image_h - origin))
    if t.lanes == 0:
        return
    size, terms, plane = kernels[ELEMENT], p.channels * p.taps, t.image * p.rows + t.row
    o = plane % (p.groups * p.rows)
    multiply_tile(
        p, t, kernels, a.ctypes.data + o * terms * size, offsets.ctypes.data, source,
        results.ctypes.data + (plane * p.result + origin * p.grid_w + t.position) * size, p.result,
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
    _run_task(task, 0, p, kernels, a, offsets, bias, source.ctypes.data, results, scratch[worker], lists[worker])


@driver
def _multiply_band(
    task: Any, worker: Any, p: Product, f: Planes, inside: Any, kernels: Any, a: Any, offsets: Any, bias: Any,
    images: Any, results: Any, scratch: Any, lists: Any, planes: Any,
) -> None:  # fmt: skip
    """The same for a band of rows of a part of an image, whose planes are the worker's."""
    bands, tasks = band_count(p), task_count(p)
    n, origin = task // bands, task % bands * p.grid_h
    source = source_of_band(n, origin, kernels, f, inside, images, planes[worker])
    for each in range(n * tasks, (n + 1) * tasks):
        _run_task(each, origin, p, kernels, a, offsets, bias, source, results, scratch[worker], lists[worker])


@driver
def _multiply_long(
    task: Any, worker: Any, p: Product, vertical: Axis, horizontal: Axis, kernels: Any, a: Any, offsets: Any, bias: Any,
    source: Any, results: Any, scratch: Any, lists: Any,
) -> None:  # fmt: skip
    """The same for sums of more than one total; `results` are (N * groups * rows, height, width)."""
    t = task_of(p, task, p.grid_h)
    if t.lanes > 0:
        o = (t.image * p.rows + t.row) % (p.groups * p.rows)
        of_row = a.ctypes.data + o * p.channels * p.taps * kernels[ELEMENT]
        multiply_and_store(
            p, t, vertical, horizontal, kernels, of_row, offsets.ctypes.data, source.ctypes.data, results, bias,
            scratch[worker], lists[worker],
        )  # fmt: skip


def in_bands(g: Geometry) -> Geometry:
    """The problem as it is cut: rows are columns, of which workers fill the bands that they read."""
    return g.as_one_column() if g.is_row else g


def as_column(images: Array) -> Array:
    """Rows as columns."""
    n, c, _, length = images.shape
    return images.reshape(n, c, length, 1)


class Setup(NamedTuple):
    """Everything about a product that its geometry, dtype and number of workers decide: made once, looked up after."""

    product: Product
    axes: Axes  # of a band
    kernels: Callable[[], Array]
    by_band: bool
    tasks: int
    spaces: tuple[Space, ...]  # scratch, lists, and planes: of all images, or of a band for each worker
    multiply: Launch


def set_up(
    axes: Axes, batch: int, groups: int, rows: int, channels: int, result: int, workers: int, dtype: DType,
    nanoseconds: float, terms: int | None = None, phases: int = 1, *, dense: bool = True,
) -> Setup:  # fmt: skip
    """The setup of a product that takes so long; of so many phases, whose sums have at most so many terms.

    `dense` where neighbouring grid points land beside one another: a stride of 1, which is not the same as one phase.
    """
    vertical, horizontal = axes
    planes, of_group = groups * channels, channels * vertical.taps * horizontal.taps
    band = FILLED_BEFORE
    if dense and of_group <= TERMS_A_TOTAL:
        band = band_size(
            axes, planes, batch, groups * rows, of_group, workers, dtype.itemsize, PANEL_LANES, groups=groups
        )  # fmt: skip
    bands = cut_into_bands(axes, band, batch, planes, workers)
    p = plan_product(
        bands.axes, batch, groups, rows, channels, result, phases, bands.crew, dtype, vertical.grid, dense=dense,
        parts=band.parts,
    )  # fmt: skip
    terms = of_group if terms is None else terms
    scratch = scratch_elements(p.chunk, terms) * (1 if dense else 2)  # of two phases at once
    if dense and p.in_place == FROM_PLANES and p.is_short:
        scratch = 0  # no panel, no totals
    spaces = (
        Space((workers, scratch), name="scratch"),
        Space((workers, LIST_ENTRIES), INDICES, "lists"),
        bands.space,
    )
    kernels = kernels_for(p, dtype)
    tasks = batch * p.parts * (p.bands if bands.by_band else p.tasks)
    if bands.by_band:
        multiply = Launch(_multiply_band, tasks, nanoseconds, p, bands.record, bands.inside, kernels)
    elif p.is_short:
        multiply = Launch(_multiply, tasks, nanoseconds, p, kernels)
    else:
        multiply = Launch(_multiply_long, tasks, nanoseconds, p, *bands.axes, kernels)
    return Setup(p, bands.axes, kernels, bands.by_band, tasks, spaces, multiply)


def explained_product(
    setup: Setup, taps: float, workers: int, dtype: DType, phases: tuple[int, int] = (1, 1), transposed: int = 0
) -> Explained:
    """How a product of so many taps is cut, in phases down and across, after so many weights were transposed."""
    p, count = setup.product, phases[0] * phases[1]
    tasks = setup.tasks * phases[0] * -(-phases[1] // 2)
    source = "in place" if p.in_place else "packed"
    if p.line > 0:
        source = "in place, rows of pixels share tiles"
    bands = f", bands of {p.grid_h} rows{of_groups(p.groups, p.parts)}" if setup.by_band else ""
    each = f", {count} phases" if count > 1 else ""
    how = f"{source}, panels of {p.lanes} lanes, {p.chunk} rows at once{each}{bands}; tasks: {tasks}"
    filling = filling_cycles(p.groups * p.channels, setup.axes, dtype) / max(count, 1)
    share = forward_share(
        p, taps, filling, tasks, workers, dtype, transposed // max(count, 1), columns=phases[1] if count > 1 else 0
    )
    return Explained(how, share)


def bind_product(
    setup: Setup, workers: int, channels: int, offsets: Array, scratch: Array, lists: Array, planes: Array
) -> Callable[..., None]:
    """A product of images with so many channels in all, as a function of a call's arrays.

    `run(images, a, bias, results)`: `images` and `results` are four-dimensional, `bias` may be empty.
    """
    if setup.by_band:
        return _of_bands(setup, partial(setup.multiply.run, workers), offsets, scratch, lists, planes)
    runs = product_runs(setup, channels, offsets, scratch, lists, planes)
    return lambda *arrays: run_in_turn(workers, *runs(*arrays))


def product_runs(
    setup: Setup, channels: int, offsets: Array, scratch: Array, lists: Array, planes: Array
) -> Callable[..., tuple[Run, ...]]:
    """What is run in turn for it, as a function of the same arrays."""
    multiply, is_short = setup.multiply.on, setup.product.is_short
    if setup.by_band:
        of_bands = _of_bands(setup, multiply, offsets, scratch, lists, planes)
        return lambda *arrays: (of_bands(*arrays),)
    fill = filled_by(setup.axes, channels, planes)

    def of_all(images: Array, a: Array, bias: Array, results: Array) -> tuple[Run, ...]:
        source, before = fill(images)
        if not is_short:
            n, c, height, width = results.shape
            results = results.reshape(n * c, height, width)
        return *before, multiply(a.reshape(-1), offsets, bias, source, results, scratch, lists)

    return of_all


def _of_bands(
    setup: Setup, multiply: Callable[..., Any], offsets: Array, scratch: Array, lists: Array, planes: Array
) -> Callable[..., Any]:
    """What `multiply` does or returns, given all arrays of a product in bands, as a function of a call's."""
    parts = setup.product.parts

    def of_bands(images: Array, a: Array, bias: Array, results: Array) -> Any:
        if parts > 1:
            images = in_parts(images, parts)
        return multiply(a.reshape(-1), offsets, bias, images, results, scratch, lists, planes)

    return of_bands
