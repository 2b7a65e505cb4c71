"""The levels under a convolution, each alone: order of summation, micro-kernel, blocks, planes.

Buffers start full of NaN and stand between canaries, so that a read or a write out of place shows.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from convjit.gemm import blocked, micro, planes, summation
from convjit.runtime.fma import _fma_in_python
from convjit.runtime.fma import fma as compiled_fma
from convjit.runtime.tiles import tile
from convjit.runtime.twins import compiled

DTYPES = [np.float32, np.float64, np.int64]


def chain(a, b, dtype):
    """The promise, in Python: products added one by one, each step rounded once."""
    total = dtype(0)
    for left, right in zip(a, b, strict=True):
        total = _fma_in_python(left, right, total)
    return total


def blocked_sum(a, b, dtype):
    """The promise for any length: blocks of 128 terms, totals of 128 blocks."""
    totals = []
    for start in range(0, len(a), 128 * 128):
        stop = min(len(a), start + 128 * 128)
        blocks = [chain(a[i : min(i + 128, stop)], b[i : min(i + 128, stop)], dtype) for i in range(start, stop, 128)]
        total = blocks[0]
        for block in blocks[1:]:
            total = total + block
        totals.append(total)
    if not totals:
        return dtype(0)
    result = totals[0]
    for total in totals[1:]:
        result = result + total
    return result


def numbers(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "i":
        return rng.integers(-9, 10, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


@compiled
def _fma(a, b, c):
    return compiled_fma(a, b, c)


@compiled
def _scalar_sum(a, b):
    zero = a.dtype.type(0)
    sums = summation.no_terms(zero)
    for t in range(a.size):
        sums = summation.add_term(sums, a[t], b[t], zero)
    return summation.value(sums)


@given(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 3)
def test_fma_is_rounded_once_in_float32(a, b, c):
    a, b, c = (np.float32(v) for v in (a, b, c))
    with np.errstate(all="ignore"):
        assert_array_equal(_fma(a, b, c), _fma_in_python(a, b, c))


@given(*[st.floats(allow_nan=False, allow_infinity=False)] * 3)
def test_fma_is_rounded_once_in_float64(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    got = _fma(np.float64(a), np.float64(b), np.float64(c))
    if math.isfinite(got) and exact != 0:
        assert got == exact.numerator / exact.denominator
    with np.errstate(all="ignore"):
        assert_array_equal(got, _fma_in_python(np.float64(a), np.float64(b), np.float64(c)))


def test_fma_differs_from_two_roundings():
    a = np.float32(1 + 2**-12)
    assert _fma(a, a, np.float32(-1)) != np.float32(a * a) - np.float32(1)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.uint64])
def test_fma_wraps_on_integers(dtype):
    most = dtype(np.iinfo(dtype).max)
    wrapped = _fma_in_python(most, most, most)
    exact = int(most) * int(most) + int(most)
    assert (int(wrapped) - exact) % (1 << 8 * np.dtype(dtype).itemsize) == 0


@pytest.mark.parametrize("length", [0, 1, 2, 127, 128, 129, 300, 16384, 16385, 16500, 33000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scalar_sums_keep_the_order(dtype, length):
    a, b = numbers(length, dtype), numbers(length, dtype, 1)
    assert_array_equal(_scalar_sum(a, b), blocked_sum(a, b, dtype))


@compiled
def _multiply(kernels, a, a_at, a_stride, rows, b, b_at, offsets, terms, count, c, c_at, pitch, extend, bias):
    """Runs `micro.multiply` on flat arrays from elements on."""
    size = a.itemsize
    micro.multiply(
        kernels, a.ctypes.data + a_at * size, a_stride, rows, b.ctypes.data + b_at * size, offsets.ctypes.data, terms,
        count, c.ctypes.data + c_at * size, pitch, extend, bias.ctypes.data if bias.size > 0 else 0,
    )  # fmt: skip


@pytest.mark.parametrize("extend", [0, 1])
@pytest.mark.parametrize("terms", [0, 1, 27, 128])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 9, 21])
@pytest.mark.parametrize("dtype", DTYPES)
def test_register_tiles_are_a_chain_a_lane(dtype, rows, terms, extend):
    kernels = micro.kernels(np.dtype(dtype))
    lanes = int(kernels[micro.LANES])
    for count in {1, lanes - 1, lanes, lanes + 1, 3 * lanes, 4 * lanes - 1, 7 * lanes + 1}:
        whole = -(-count // lanes) * lanes
        a_stride, pitch = terms + 3, count + 5
        a, bias = numbers(2 + rows * a_stride, dtype), numbers(rows if terms % 2 else 0, dtype, 2)
        b = numbers(3 + max(terms, 1) * (whole + 2), dtype, 1)
        offsets = np.random.default_rng(3).permutation(terms) * (whole + 2)
        result = np.full(1 + rows * pitch, dtype(77))
        _multiply(kernels, a, 2, a_stride, rows, b, 3, offsets, terms, count, result, 1, pitch, extend, bias)
        grid = result[1:].reshape(rows, pitch)
        for r, j in product({0, rows // 2, rows - 1}, {0, count // 2, count - 1}):
            wanted = chain(a[2 + r * a_stride :][:terms], b[3 + j :][offsets], dtype)
            wanted = dtype(77) + wanted if extend else wanted
            assert_array_equal(grid[r, j], wanted + bias[r] if bias.size else wanted)
        assert (grid[:, count:] == 77).all()
        assert result[0] == 77


@compiled
def _multiply_asking(kernels, a, rows, b, offsets, count, c, pitch, extend, bias, further):
    """Runs `micro.multiply_asking` on flat arrays, the result from element 1 on."""
    terms = offsets.size
    micro.multiply_asking(
        kernels, a.ctypes.data, terms, rows, b.ctypes.data, offsets.ctypes.data, terms, count,
        c.ctypes.data + c.itemsize, pitch, extend, bias.ctypes.data if bias.size > 0 else 0, further,
    )  # fmt: skip


@pytest.mark.parametrize("extend", [0, 1])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 21, 48])
@pytest.mark.parametrize("dtype", DTYPES)
def test_asking_changes_nothing(dtype, rows, extend):
    """The bits of those that do not ask; what is asked for need not be there."""
    kernels, terms = micro.asking_kernels(np.dtype(dtype)), 19
    lanes = int(kernels[micro.LANES])
    for count in {1, lanes, 3 * lanes, 4 * lanes - 1, 7 * lanes + 1}:
        plane, pitch = -(-count // lanes) * lanes, count + 5
        a, b, bias = numbers(rows * terms, dtype), numbers(terms * plane, dtype, 1), numbers(rows * extend, dtype, 2)
        offsets, results = np.arange(terms)[::-1] * plane, [np.full(1 + rows * pitch, dtype(77)) for _ in range(3)]
        _multiply(kernels, a, 0, terms, rows, b, 0, offsets, terms, count, results[0], 1, pitch, extend, bias)
        for result, further in zip(results[1:], (plane, 1 << 40), strict=True):
            _multiply_asking(kernels, a, rows, b, offsets, count, result, pitch, extend, bias, further)
            assert_array_equal(result, results[0])


@compiled
def _multiply_lines(kernels, a, rows, b, offsets, count, c, pitch, extend, bias, lines, b_step, line_step):
    """Runs `micro.multiply_lines` on flat arrays, the result from element 1 on."""
    terms = offsets.size
    micro.multiply_lines(
        kernels, a.ctypes.data, terms, rows, b.ctypes.data, offsets.ctypes.data, terms, count,
        c.ctypes.data + c.itemsize, pitch, extend, bias.ctypes.data if bias.size > 0 else 0, lines, b_step, line_step,
    )  # fmt: skip


@pytest.mark.parametrize("extend", [0, 1])
@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("lines", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 21])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lines_share_tiles_and_keep_apart(dtype, rows, lines, vectors, extend):
    kernels = micro.line_kernels(np.dtype(dtype), vectors)
    lanes, terms = int(kernels[micro.LANES]), 19
    for count in {(vectors - 1) * lanes + 1, vectors * lanes - 1, vectors * lanes} - {0}:
        b_step, line_step = count + 3, count + 1
        pitch = lines * line_step + 2
        a, bias = numbers(rows * terms, dtype), numbers(rows * extend, dtype, 2)
        plane = lines * b_step
        b, offsets = numbers(terms * plane + vectors * lanes, dtype, 1), np.arange(terms)[::-1] * plane
        result = np.full(1 + rows * pitch, dtype(77))
        _multiply_lines(kernels, a, rows, b, offsets, count, result, pitch, extend, bias, lines, b_step, line_step)
        for r, line, j in product({0, rows - 1}, range(lines), {0, count - 1}):
            wanted = chain(a[r * terms :][:terms], b[line * b_step + j :][offsets], dtype)
            wanted = dtype(77) + wanted + bias[r] if extend else wanted
            assert_array_equal(result[1 + r * pitch + line * line_step + j], wanted)
        grid = result[1:].reshape(rows, pitch)
        assert (grid[:, : lines * line_step].reshape(rows, lines, line_step)[..., count:] == 77).all()
        assert (grid[:, lines * line_step :] == 77).all()
        assert result[0] == 77


@compiled
def _pack(kernels, source, offsets, pieces, count, panel, pitch):
    micro.pack(
        kernels, source.ctypes.data, offsets.ctypes.data, offsets.size, pieces.ctypes.data, count, panel.ctypes.data,
        pitch,
    )  # fmt: skip


@given(data=st.data())
def test_panels_hold_what_grid_points_meet(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    kernels = micro.kernels(np.dtype(dtype))
    lanes = int(kernels[micro.LANES])
    height, grid, more = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 40)), data.draw(st.integers(0, 4))
    position = data.draw(st.integers(0, height * grid - 1))
    count = data.draw(st.integers(1, min(blocked.PANEL_LANES, height * grid - position)))
    offsets = np.array([more, 0], np.int64)
    source = numbers(height * (grid + more) + more, dtype)
    pieces = np.full(3 * blocked.PANEL_LANES, -1)
    found = planes.list_pieces(pieces, grid, grid + more, position, count, lanes, micro.VECTORS_A_PIECE)
    assert pieces[2 : 3 * found : 3].sum() == count
    panel = np.full((3, blocked.PANEL_LANES), dtype(77))
    _pack(kernels, source, offsets, pieces, found, panel.reshape(-1), blocked.PANEL_LANES)
    for t, j in product(range(2), range(count)):
        i, k = divmod(position + j, grid)
        assert panel[t, j] == source[offsets[t] + i * (grid + more) + k]
    assert (panel[2, lanes:] == 77).all()


@compiled
def _fill_rows(kernels, target, at, pitch, source, source_pitch, rows, before, count, after, step):
    size = target.itemsize
    micro.fill_rows(
        kernels, target.ctypes.data + at * size, pitch, source.ctypes.data, source_pitch, rows, before, count, after,
        step,
    )  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_filled_and_nothing_beside_them(dtype, step):
    kernels = micro.kernels(np.dtype(dtype))
    for before, count, after in product((0, 1, 17), (0, 1, 2, 7, 16, 33), (0, 3, 20)):
        width = before + count + after
        source = numbers((3, max(0, count - 1) * step + 1), dtype)
        target = np.full((3, width + 4), dtype(77))
        _fill_rows(
            kernels, target.reshape(-1), 2, width + 4, source.reshape(-1), source.shape[1], 3, before, count, after,
            step,
        )  # fmt: skip
        wanted = np.full((3, width + 4), dtype(77))
        wanted[:, 2 : 2 + width] = 0
        wanted[:, 2 + before : 2 + before + count] = source[:, ::step][:, :count]
        assert_array_equal(target, wanted)


@compiled
def _fold(kernels, a, rows, terms, b, offsets, scratch, lanes):
    size = a.itemsize
    for term in range(0, terms, summation.TERM_BLOCK):
        here = min(summation.TERM_BLOCK, terms - term)
        totals = scratch.ctypes.data + blocked.TOTALS * blocked.PANEL_LANES * size
        micro.multiply(
            kernels, a.ctypes.data + term * size, terms, rows, b.ctypes.data, offsets.ctypes.data + 8 * term, here,
            lanes, totals, blocked.PANEL_LANES, 0 if term % summation.TERMS_A_TOTAL == 0 else 1, 0,
        )  # fmt: skip
        blocked.close_totals(scratch, rows, term + here, terms, lanes)


@pytest.mark.parametrize(
    ("rows", "terms", "lanes"),
    [(1, 5, 16), (3, 128, 33), (4, 129, 128), (5, 300, 17), (9, 16384, 16), (2, 16500, 48), (7, 33000, 15)],
)
def test_blocks_fold_into_the_promised_order(rows, terms, lanes):
    a, b = numbers(rows * terms, np.float32), numbers((terms, lanes + 16), np.float32, 1)
    scratch = np.full(blocked.scratch_elements(rows, terms), np.nan, np.float32)
    kernels = micro.kernels(np.dtype("float32"))
    _fold(kernels, a, rows, terms, b.reshape(-1), np.arange(terms) * (lanes + 16), scratch, lanes)
    results = scratch[blocked.results_at(rows, terms) :].reshape(-1, blocked.PANEL_LANES)
    for r, j in product({0, rows - 1}, (0, lanes - 1)):
        wanted = blocked_sum(a[r * terms : (r + 1) * terms], b[:, j], np.float32)
        assert_array_equal(results[r, j], wanted)


@given(st.integers(1, 3000), st.integers(1, 400), st.integers(0, 10**7), st.integers(1, 16), st.sampled_from([8, 16]))
def test_chunks_and_tiles_cover_everything(rows, tiles, terms, workers, step):
    chunk = blocked.row_chunk(rows, tiles, terms, workers)
    assert 1 <= chunk <= rows
    assert chunk == rows or chunk % 24 == 0
    lanes = rows
    width = blocked.tile_lanes(lanes, step)
    count = blocked.tile_count(lanes)
    assert (count - 1) * width < lanes <= count * width
    assert width % step == 0
    assert width <= blocked.PANEL_LANES


def axis_problems():
    return st.tuples(
        st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9)
    ).filter(lambda p: (p[1] - 1) * p[3] + 1 <= p[0] + 2 * p[4])


@compiled
def _fill_tile(kernels, flat, image, p, inside, top, bottom, left, right):
    planes.fill_tile(kernels, flat.ctypes.data + 8, image.ctypes.data, p, inside, 0, top, bottom, left, right)


def filled(vertical, horizontal, image):
    kernels, (p, inside) = micro.kernels(np.dtype("float64")), planes.filling((vertical, horizontal))
    size = vertical.planes * horizontal.planes * vertical.padded * horizontal.padded
    flat = np.full(size + 2, np.nan)
    rows, cols, count = vertical.padded // 2 + 1, horizontal.padded // 3 + 1, 0
    tiles = -(-vertical.padded // rows) * -(-horizontal.padded // cols)
    for task in range(tiles):
        plane, *where = tile(task, vertical.padded, horizontal.padded, rows, cols)
        assert plane == 0
        count += (where[1] - where[0]) * (where[3] - where[2])
        _fill_tile(kernels, flat, image, p, inside, *where)
    assert count == vertical.padded * horizontal.padded
    assert np.isnan(flat[[0, -1]]).all()
    assert not np.isnan(flat[1:-1]).any()
    return flat[1:-1]


@given(axis_problems())
def test_forward_planes_hold_what_every_tap_meets(problem):
    size, kernel_size, stride, dilation, pad = problem
    out = (size + 2 * pad - (kernel_size - 1) * dilation - 1) // stride + 1
    axis = planes.forward_axis(out, kernel_size, stride, dilation, pad, size)
    image = np.arange(1.0, size * size + 1).reshape(size, size)
    flat = filled(axis, axis, image)
    offsets = planes.term_offsets(axis, axis, 1).reshape(kernel_size, kernel_size)
    for i, kh, kw in product(range(out), range(kernel_size), range(kernel_size)):
        h, w = i * stride + kh * dilation - pad, i * stride + kw * dilation - pad
        inside = 0 <= h < size and 0 <= w < size
        got = flat[offsets[kh, kw] + i * axis.padded + i]
        assert got == (image[h, w] if inside else 0)


@given(axis_problems())
def test_images_are_read_in_place_where_planes_would_repeat_them(problem):
    size, kernel_size, stride, dilation, pad = problem
    out = (size + 2 * pad - (kernel_size - 1) * dilation - 1) // stride + 1
    axis = planes.forward_axis(out, kernel_size, stride, dilation, pad, size)
    image = np.arange(1.0, size * size + 1).reshape(size, size)
    # Planes of several phases may happen to lie as the image does; they are not looked for.
    repeats = axis.planes == 1 and filled(axis, axis, image).tolist() == image.ravel().tolist()
    needed = 0 if repeats else filled(axis, axis, image).size + planes.BEHIND
    assert planes.plane_elements(1, axis, axis) == needed


@given(axis_problems())
def test_backward_axis_is_the_adjoint_of_the_forward_one(problem):
    size, kernel_size, stride, dilation, pad = problem
    out = (size + 2 * pad - (kernel_size - 1) * dilation - 1) // stride + 1
    forward = {
        (i * stride + k * dilation - pad, i, k)
        for i, k in product(range(out), range(kernel_size))
        if 0 <= i * stride + k * dilation - pad < size
    }
    backward = set()
    phases = planes.grid_phases(stride, size)
    before = planes.taps_before_phases(phases, kernel_size, stride, dilation, pad)
    assert before.shape == (phases + 1,)
    for phase in range(phases):
        axis = planes.backward_axis(phase, out, kernel_size, stride, dilation, pad, size)
        assert axis.taps == before[phase + 1] - before[phase]
        for i, t in product(range(axis.grid), range(axis.taps)):
            pixel = i + axis.shift + t * axis.tap_step
            assert 0 <= pixel < axis.padded
            if 0 <= pixel + axis.first < out:
                k = axis.kernel_first + t * axis.kernel_step
                backward.add((axis.out_first + i * axis.out_step, pixel + axis.first, k))
    assert backward == forward
