"""The weight gradient as a product: sums over the pixels of the batch, for each output channel, channel and tap.

Knows workers, workspaces and how totals are put together; does not know how one is computed, see `gemm.pixel_sums`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

from ..gemm.direct_kernels import kernels as kernels_of
from ..gemm.estimate import filling_cycles, weight_share
from ..gemm.pixel_sums import PixelSums, plan_sums, sum_pixels
from ..gemm.pixels import pixel_axes, plane_axes
from ..gemm.planes import AS_IN_IMAGE, BEHIND, Axis, Pixel, plane_elements, term_offsets
from ..gemm.summation import TERM_BLOCK, TERMS_A_TOTAL
from ..geometry import Geometry
from ..runtime.compile import driver, kernel
from ..runtime.launch import Launch, Run, run_in_turn
from ..simd import isa
from ..typing import DType
from .algorithm import INDICES, Explained, Operation, Space, work_ns, workspace_limit
from .filling import Source, as_planes, filled, filled_by


@driver
def _weight_grad(
    task: Any, worker: Any, s: PixelSums, tasks: Any, kernels: Any, positions: Any, adds_up: Any, first: Any,
    stop: Any, dy: Any, source: Any, begin: Any, dw: Any, db: Any, partial: Any, sums: Any, totals: Any, packed: Any,
    lists: Any,
) -> None:  # fmt: skip
    """dw[o,c,kh,kw] = sum over n,oh,ow of x[n, c, oh*stride_h+kh*dilation_h-pad_top, ...] * dy[n,o,oh,ow]

    Of the terms (n, oh, ow), those `first <= term < stop`, whole totals of so many tasks each. The very first total is
    put into `dw` (O, rows); another one into its row of `partial` (totals, O, rows), or added where that has no rows.
    `dy` is (N * O, pixels), or (N * pixels, O); `source` are planes from element `begin` on of those of the whole
    batch. Of a sum that is swapped, the two have changed places. The sum of `dy` is put into `db` (O,), or that of each
    total into its row of `sums` (totals, O), unless they are empty.

    With `adds_up`, a task adds rows `first <= total < stop` of `partial` to a filter's gradient, when they are there;
    and rows `total < stop` of `sums` to that of its bias, which begins with the first one if `first` is 1.
    """
    if adds_up == 1:
        if partial.shape[0] > 0:
            _add_partial(task, first, stop, partial, dw)
        if sums.shape[1] > 0:
            _add_sums(task, first, stop, sums, db)
    else:
        total = task // tasks
        first_term = first + total * TERMS_A_TOTAL
        planes = source.ctypes.data - begin * source.itemsize
        target, extend = dw, 1
        if first_term == 0:
            extend = 0
        elif partial.shape[0] > 0:
            target, extend = partial[total], 0
        of_bias = db
        if sums.shape[1] > 0:
            of_bias = sums[total]
        sum_pixels(
            s, task % tasks, first_term, min(stop, first_term + TERMS_A_TOTAL), kernels, positions, dy, planes, target,
            extend, of_bias, totals[worker], packed[worker].ctypes.data, lists[worker],
        )  # fmt: skip


@kernel
def _add_partial(o: Any, first: Any, stop: Any, partial: Any, dw: Any) -> None:
    """dw[o] += partial[total, o], total after total."""
    for total in range(first, stop):
        for i in range(dw.shape[1]):
            dw[o, i] += partial[total, o, i]


@kernel
def _add_sums(o: Any, begins: Any, stop: Any, sums: Any, db: Any) -> None:
    """db[o] = or += sums[total, o], total after total."""
    for total in range(stop):
        db[o] = sums[total, o] if total < begins else db[o] + sums[total, o]


def _clear(dy: Any, x: Any, dw: Any, db: Any = None) -> None:
    """The gradient of no pixels."""
    dw[...] = 0


def _do_nothing(dy: Any, x: Any, dw: Any, db: Any = None) -> None:
    """The gradient of no weights."""


class WeightProduct(NamedTuple):
    """The operation, of images with their channels first or last."""

    channels_last: bool

    def workspace(self, g: Geometry, workers: int, dtype: DType) -> tuple[Space, ...]:
        """Planes of the images that are filled together, totals, packed output gradients and lists."""
        s, at_once = _plan(g, workers, dtype, self.channels_last)
        lanes = s.widest * isa.lanes(dtype)
        others = (
            Space((at_once if at_once > 1 else 0, g.out_channels, _rows(g)), name="partial gradients"),
            Space((at_once, g.out_channels) if self._adds_sums(g, dtype) else (1, 0), name="partial bias"),
            Space((workers, s.chunk * lanes), name="totals"),
            Space((workers, (TERM_BLOCK + 1) * lanes), name="packed gradient"),  # and sums of it
            Space((workers, TERM_BLOCK), INDICES, "lists"),
        )
        taken = sum(math.prod(space.shape) * (space.dtype or dtype).itemsize for space in others)
        left = (workspace_limit(math.prod(g.x_shape), dtype) - taken) // dtype.itemsize
        planes = _plane_elements(g, 1, dtype, self.channels_last)
        together = min(g.batch, max(left // max(planes, 1), _least_images(g)))
        return Space((_plane_elements(g, together, dtype, self.channels_last),), name="planes"), *others

    def explained(self, g: Geometry, workers: int, dtype: DType) -> Explained:
        """Chunks of (channel, tap), panels of output channels, and totals."""
        s, at_once = _plan(g, workers, dtype, self.channels_last)
        tasks = s.tasks * at_once
        sides = ("filters", "channels") if s.is_swapped else ("(channel, tap)", "filters")
        widest = min(s.columns, s.widest * isa.lanes(dtype))
        how = f"in place, {TERM_BLOCK} pixels at a time, {s.chunk} {sides[0]} x up to {widest} {sides[1]}"
        filling = filling_cycles(
            1 if self.channels_last else g.in_channels, _axes(g, dtype, self.channels_last)[0], dtype
        )
        share = weight_share(s, g.batch, filling, tasks, workers, dtype)
        return Explained(f"{how}, {at_once} totals at once; tasks: {tasks}", share)

    def bind(
        self, workers: int, g: Geometry, dtype: DType, planes: Any, partial: Any, sums: Any, totals: Any, packed: Any,
        lists: Any,
    ) -> Callable[..., None]:  # fmt: skip
        """`run(dy, x, dw, db)` in these workspaces, for as many images at a time as `planes` has room for.

        `db` as of `sums_bias`.
        """
        pixels = g.out_h * g.out_w
        terms = g.batch * pixels
        if terms == 0:
            return _clear
        setup = _set_up(g, workers, dtype, self.channels_last)
        s, at_once = setup.sums, setup.at_once
        if setup.tasks == 0:
            return _do_nothing
        # Images that lie on both sides of a cut between totals are filled twice.
        span = terms
        if 0 < planes.size < setup.planes:
            images = (planes.size - BEHIND) // s.image_step
            span = TERMS_A_TOTAL * max(1, (images - 1) * pixels // TERMS_A_TOTAL)
        channels = g.batch * (1 if self.channels_last else g.in_channels)
        fill_all = filled_by(setup.axes, channels, planes, setup.pixel) if span == terms else None
        no_sums = sums[:, :0]

        def fill(x: Any, start: int, stop: int) -> Source:
            if fill_all is not None:
                return fill_all(x)
            room = planes[: _plane_elements(g, stop - start, dtype, self.channels_last)]
            return filled(setup.axes, x[start:stop], room, setup.pixel)

        def run(dy: Any, x: Any, dw: Any, db: Any = None) -> None:
            matrix = dw.reshape(g.out_channels, setup.rows)
            of_totals = no_sums if db is None else sums
            db = dw.reshape(-1)[:0] if db is None else db
            if s.is_swapped:
                dy, x = x, dy
            if self.channels_last:
                gradients, x = dy.reshape(dy.shape[0] * pixels, dy.shape[3]), as_planes(x)
            else:
                gradients = dy.reshape(dy.shape[0] * dy.shape[1], pixels)
            for start in range(0, terms, span):
                end = min(terms, start + span)
                image = start // pixels
                source, before = fill(x, image, -(-end // pixels))
                for first in range(start, end, at_once * TERMS_A_TOTAL):
                    stop = min(end, first + at_once * TERMS_A_TOTAL)
                    count = -(-(stop - first) // TERMS_A_TOTAL)
                    share = setup.nanoseconds * (stop - first) / terms
                    arrays = (
                        gradients, source, image * s.image_step, matrix, db, partial, of_totals, totals, packed, lists
                    )  # fmt: skip
                    taken = setup.sum_up.part(count * setup.tasks, share, 0, first, stop, *arrays)
                    whole = 1 if first == 0 else 0  # totals that were put where they belong
                    others: tuple[Run, ...] = ()
                    if (at_once > 1 and count > whole) or of_totals.size > 0:
                        added = count * matrix.size / 4 if at_once > 1 else count * len(matrix)
                        others = (setup.sum_up.part(len(matrix), added, 1, whole, count, *arrays),)
                    run_in_turn(workers, *before, taken, *others)
                    before = ()

        return run

    def sums_bias(self, g: Geometry, dtype: DType) -> bool:
        """Whether the output gradient is summed up on the way: where it is packed."""
        terms = g.batch * g.out_h * g.out_w
        return terms > 0 and _rows(g) > 0 and not _plan(g, 1, dtype, self.channels_last)[0].is_swapped

    def _adds_sums(self, g: Geometry, dtype: DType) -> bool:
        """Whether sums of several totals are added up for that."""
        return g.batch * g.out_h * g.out_w > TERMS_A_TOTAL and self.sums_bias(g, dtype)


class _Setup(NamedTuple):
    """Everything about a gradient that its geometry, dtype and number of workers decide: looked up once a call."""

    sums: PixelSums
    tasks: int
    at_once: int
    sum_up: Launch
    axes: tuple[Axis, Axis]
    pixel: Pixel
    planes: int  # elements of those of all images
    rows: int  # (channel, tap) of a filter
    nanoseconds: float


@lru_cache(maxsize=256)
def _set_up(g: Geometry, workers: int, dtype: DType, channels_last: bool) -> _Setup:
    s, at_once = _plan(g, workers, dtype, channels_last)
    axes, pixel = _axes(g, dtype, channels_last)
    positions = term_offsets(*axes, s.channels, 1 if channels_last else None)
    sum_up = Launch(_weight_grad, s.tasks, work_ns(g), s, s.tasks, partial(kernels_of, dtype), positions)
    planes = _plane_elements(g, g.batch, dtype, channels_last)
    return _Setup(s, s.tasks, at_once, sum_up, axes, pixel, planes, _rows(g), work_ns(g))


def _plane_elements(g: Geometry, images: int, dtype: DType, channels_last: bool) -> int:
    axes, _ = _axes(g, dtype, channels_last)
    return plane_elements(images if channels_last else images * g.in_channels, *axes)


def _axes(g: Geometry, dtype: DType, channels_last: bool) -> tuple[tuple[Axis, Axis], Pixel]:
    return pixel_axes(g, dtype.itemsize) if channels_last else (plane_axes(g), AS_IN_IMAGE)


def _plan(g: Geometry, workers: int, dtype: DType, channels_last: bool = False) -> tuple[PixelSums, int]:
    """How the gradient is cut, and how many totals are summed at once: as many as memory has room for."""
    columns, channels = g.out_channels // g.groups, g.in_channels // g.groups
    totals = -(-g.batch * g.out_h * g.out_w // TERMS_A_TOTAL)
    axes, pixel = _axes(g, dtype, channels_last)
    room = workspace_limit(math.prod(g.x_shape), dtype) // 2 // max(math.prod(g.weight_shape) * dtype.itemsize, 1)
    return plan_sums(
        axes, (g.stride_h, g.stride_w), g.groups, columns, channels, min(totals, room), workers, dtype,
        is_pointwise=g.is_pointwise, channels_last=channels_last, pixel=pixel,
    )  # fmt: skip


def _rows(g: Geometry) -> int:
    """(channel, tap) of a filter."""
    return g.in_channels // g.groups * g.kernel_h * g.kernel_w


def _least_images(g: Geometry) -> int:
    """Images that the pixels of one total can lie in: so many must be filled at once."""
    return -(-TERMS_A_TOTAL // (g.out_h * g.out_w)) + 1


_FIRST, _LAST = WeightProduct(channels_last=False), WeightProduct(channels_last=True)
bind, workspace, explained, sums_bias = _FIRST.bind, _FIRST.workspace, _FIRST.explained, _FIRST.sums_bias
CHANNELS_LAST = Operation(_LAST.bind, _LAST.workspace, explained=_LAST.explained, sums_bias=_LAST.sums_bias)
