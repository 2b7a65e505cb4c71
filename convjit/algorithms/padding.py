"""Padding and its adjoint, from one table a axis: which pixel each padded position shows.

A mode is a name in `PADDING_MODES` and a branch of `source_indices`; the kernels know no modes. Compiled callers have
the same two in `nopython.geometry` and `nopython.moving`, and `convjit.testing` the name: tests hold them together.
Source: NumPy's `pad`, whose names and pictures these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime.compile import driver, kernel
from ..runtime.copying import copy_run
from ..runtime.launch import launch
from ..runtime.tiles import tile, tiling
from ..typing import Array

PADDING_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def source_indices(mode: str, size: int, before: int, after: int) -> Array:
    """The pixel that each of `before + size + after` positions shows, or -1 for the constant.

    Pictures for pixels 1 2 3 4 and two positions on either side.
    """
    position = np.arange(-before, size + after, dtype=np.int64)
    if mode == "constant":  # 0 0 | 1 2 3 4 | 0 0
        return np.where((position >= 0) & (position < size), position, -1)
    if mode == "edge":  # 1 1 | 1 2 3 4 | 4 4
        return np.clip(position, 0, size - 1)
    if mode == "wrap":  # 3 4 | 1 2 3 4 | 1 2
        return position % size
    if mode == "symmetric":  # 2 1 | 1 2 3 4 | 4 3
        position %= 2 * size
        return np.minimum(position, 2 * size - 1 - position)
    if mode == "reflect":  # 3 2 | 1 2 3 4 | 3 2
        position %= max(2 * size - 2, 1)
        return np.minimum(position, 2 * size - 2 - position)
    raise AssertionError(f"padding mode {mode!r} has no branch")


def positions_of_pixels(indices: Array, size: int) -> tuple[Array, Array]:
    """The inverse table: `positions[starts[p]:starts[p + 1]]` show pixel `p`, in order."""
    order = np.argsort(indices, kind="stable")
    starts = np.searchsorted(indices[order], np.arange(size + 1)).astype(np.int64)
    return starts, order.astype(np.int64)


@kernel
def _run(entries: Any, left: Any, right: Any) -> Any:
    """The longest run of `left <= i < right` whose entries count up by 1 from one that is not negative."""
    first, stop, begin = left, left, left
    for i in range(left, right):
        if entries[i] < 0:
            begin = i + 1
        elif i > begin and entries[i] != entries[i - 1] + 1:
            begin = i
        if i + 1 - begin > stop - first:
            first, stop = begin, i + 1
    return first, stop


@driver
def _pad(
    task: Any, worker: Any, tile_rows: Any, tile_cols: Any, x: Any, rows: Any, cols: Any, constant: Any, y: Any
) -> None:
    """y[p,i,j] = x[p, rows[i], cols[j]], or constant[0] where an index is -1.

    Moves values without looking at them: `x`, `constant` and `y` hold unsigned integers of the values' size.
    """
    plane, top, bottom, left, right = tile(task, y.shape[1], y.shape[2], tile_rows, tile_cols)
    first, stop = _run(cols, left, right)
    for i in range(top, bottom):
        line, h = y[plane, i], rows[i]
        if h < 0:
            for j in range(left, right):
                line[j] = constant[0]
            continue
        pixels = x[plane, h]
        _show(pixels, cols, left, first, constant, line)
        if first < stop:  # in whole vectors
            target, source = line[first:stop], pixels[cols[first] : cols[first] + stop - first]
            for j in range(len(target)):
                target[j] = source[j]
        _show(pixels, cols, stop, right, constant, line)


@kernel
def _show(pixels: Any, cols: Any, first: Any, stop: Any, constant: Any, line: Any) -> None:
    """The positions `first <= j < stop` of a row, one by one."""
    for j in range(first, stop):
        line[j] = pixels[cols[j]] if cols[j] >= 0 else constant[0]


def pad(workers: int, x: Any, rows: Any, cols: Any, constant: Any, y: Any) -> None:
    """Fill `y` (planes, padded height, padded width) from `x` (planes, height, width) and the tables of both axes."""
    tiles = tiling(y.shape[1], y.shape[2])
    launch(_pad, workers, len(y) * tiles.a_plane, y.size, tiles.rows, tiles.cols, x, rows, cols, constant, y)


@kernel
def _run_shown_once(starts: Any, positions: Any, left: Any, right: Any) -> Any:
    """The longest run of pixels `left <= w < right` each of which one position shows, and these count up by 1."""
    first, stop, begin = left, left, left
    for w in range(left, right):
        if starts[w + 1] - starts[w] != 1:
            begin = w + 1
        elif w > begin and positions[starts[w]] != positions[starts[w - 1]] + 1:
            begin = w
        if w + 1 - begin > stop - first:
            first, stop = begin, w + 1
    return first, stop


@driver
def _pad_backward(
    task: Any, worker: Any, tile_rows: Any, tile_cols: Any, dy: Any, row_starts: Any, rows: Any, col_starts: Any,
    cols: Any, dx: Any,
) -> None:  # fmt: skip
    """dx[p,h,w] = sum of dy[p,i,j] over the positions i, j that show pixel h, w.

    The adjoint of y[p,i,j] = x[p, rows[i], cols[j]]: gathered, a line at a time.
    """
    zero = dy.dtype.type(0)
    plane, top, bottom, left, right = tile(task, dx.shape[1], dx.shape[2], tile_rows, tile_cols)
    first, stop = _run_shown_once(col_starts, cols, left, right)
    for h in range(top, bottom):
        line = dx[plane, h]
        for w in range(left, right):
            line[w] = zero
        for i in range(row_starts[h], row_starts[h + 1]):
            shown = dy[plane, rows[i]]
            _add_shown(shown, col_starts, cols, left, first, line)
            if first < stop:  # in whole vectors
                at = cols[col_starts[first]]
                target, source = line[first:stop], shown[at : at + stop - first]
                for w in range(len(target)):
                    target[w] += source[w]
            _add_shown(shown, col_starts, cols, stop, right, line)


@kernel
def _add_shown(shown: Any, col_starts: Any, cols: Any, first: Any, stop: Any, line: Any) -> None:
    """Add to the pixels `first <= w < stop` of a line what shows them in a row, one by one."""
    zero = line.dtype.type(0)
    for w in range(first, stop):
        part = zero
        for j in range(col_starts[w], col_starts[w + 1]):
            part += shown[cols[j]]
        line[w] += part


def pad_backward(workers: int, dy: Any, row_starts: Any, rows: Any, col_starts: Any, cols: Any, dx: Any) -> None:
    """Fill `dx` (planes, height, width) from `dy` (planes, padded height, padded width) and the inverse tables."""
    planes = max(len(dx), 1)
    tiles = tiling(dx.shape[1], dx.shape[2], dy.size / planes / max(dx[0].size, 1))
    tables = (row_starts, rows, col_starts, cols)
    launch(_pad_backward, workers, planes * tiles.a_plane, dy.size, tiles.rows, tiles.cols, dy, *tables, dx)


@driver
def _pad_pixels(task: Any, worker: Any, tile_rows: Any, tile_cols: Any, x: Any, rows: Any, cols: Any, y: Any) -> None:
    """y[n,i,j,:] = x[n, rows[i], cols[j], :]; moves bits, as `_pad`."""
    n, top, bottom, left, right = tile(task, y.shape[1], y.shape[2], tile_rows, tile_cols)
    for i in range(top, bottom):
        for j in range(left, right):
            copy_run(y[n, i, j], 0, x[n, rows[i], cols[j]], 0, y.shape[3])


def pad_pixels(workers: int, x: Any, rows: Any, cols: Any, y: Any) -> None:
    """Fill `y` (N, padded height, padded width, C) from `x` (N, height, width, C) and tables without a constant."""
    tiles = tiling(y.shape[1], y.shape[2], y.shape[3] / 4)
    launch(_pad_pixels, workers, len(y) * tiles.a_plane, y.size, tiles.rows, tiles.cols, x, rows, cols, y)


@driver
def _pad_pixels_backward(
    task: Any, worker: Any, tile_rows: Any, tile_cols: Any, dy: Any, row_starts: Any, rows: Any, col_starts: Any,
    cols: Any, dx: Any, parts: Any,
) -> None:  # fmt: skip
    """dx[n,h,w,:] = sum of dy[n,i,j,:] over the positions i, j that show pixel h, w; in `_pad_backward`'s order."""
    zero, part = dy.dtype.type(0), parts[worker]
    n, top, bottom, left, right = tile(task, dx.shape[1], dx.shape[2], tile_rows, tile_cols)
    for h in range(top, bottom):
        for w in range(left, right):
            total = dx[n, h, w]
            for c in range(len(total)):
                total[c] = zero
            for i in range(row_starts[h], row_starts[h + 1]):
                for c in range(len(total)):
                    part[c] = zero
                for j in range(col_starts[w], col_starts[w + 1]):
                    pixel = dy[n, rows[i], cols[j]]
                    for c in range(len(total)):
                        part[c] += pixel[c]
                for c in range(len(total)):
                    total[c] += part[c]


def pad_pixels_backward(
    workers: int, dy: Any, row_starts: Any, rows: Any, col_starts: Any, cols: Any, dx: Any, parts: Any
) -> None:
    """Fill `dx` (N, height, width, C) from `dy` and the inverse tables; `parts` are (workers, C)."""
    batch, height, width, channels = dx.shape
    tiles = tiling(height, width, channels * dy.size / max(dx.size, 1))
    tables = (row_starts, rows, col_starts, cols)
    launch(
        _pad_pixels_backward, workers, batch * tiles.a_plane, dy.size, tiles.rows, tiles.cols, dy, *tables, dx, parts
    )  # fmt: skip
