"""How a product is cut shows in speed alone: bands, chunks, panels and reading in place give the reference's bits."""

from itertools import groupby

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from convjit import conv2d, conv2d_input_grad
from convjit.algorithms import direct, implicit
from convjit.gemm import bands, micro, product, tiles
from convjit.geometry import conv2d_geometry
from convjit.runtime import threads
from convjit.simd import isa
from convjit.testing import Problem

PROBLEMS = {
    "3x3": Problem((2, 4, 33, 18), (5, 4, 3, 3), padding=1),
    "7x7, stride 2": Problem((1, 3, 40, 45), (9, 3, 7, 7), stride=2, padding=3),
    "dilated": Problem((2, 2, 30, 31), (3, 2, 3, 3), dilation=3, padding=3),
    "grouped": Problem((3, 6, 21, 50), (4, 3, 3, 5), groups=2, padding=2),
    "many groups": Problem((2, 24, 21, 20), (16, 3, 3, 3), groups=8, padding=1),
    "groups, stride 2": Problem((1, 18, 41, 24), (12, 3, 3, 3), groups=6, stride=2, padding=1),
    "one side": Problem((1, 3, 25, 17), (2, 3, 2, 2), padding=((0, 3), (2, 0))),
    "1x1, stride 3": Problem((4, 5, 29, 31), (7, 5, 1, 1), stride=3),
    "one row": Problem((1, 2, 1, 300), (3, 2, 1, 3), padding=(0, 1)),
}


def check(problem, dtype="float32", algorithm="auto"):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (problem.x_shape, problem.weight_shape))
    bias = rng.standard_normal(len(weight)).astype(dtype)
    dy = rng.standard_normal(problem.y_shape).astype(dtype)
    options = problem.options
    y = conv2d(x, weight, bias, **options, algorithm=algorithm)
    assert_array_equal(y, conv2d(x, weight, bias, **options, algorithm="reference"))
    size = problem.x_shape[2:]
    dx = conv2d_input_grad(dy, weight, size, **options, algorithm=algorithm)
    assert_array_equal(dx, conv2d_input_grad(dy, weight, size, **options, algorithm="reference"))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("cached", [1000, 5000, 20000])
@pytest.mark.parametrize("algorithm", ["implicit", "direct"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_bands_of_any_height(name, algorithm, cached, workers, anew, monkeypatch):
    monkeypatch.setattr(bands, "_CACHED_BYTES", cached)
    monkeypatch.setattr(threads, "SERIAL_BELOW_NS", 0)
    monkeypatch.setattr(threads, "available", lambda: workers)
    check(PROBLEMS[name], algorithm=algorithm)


def test_some_of_these_are_cut_into_bands(anew, monkeypatch):
    monkeypatch.setattr(bands, "_CACHED_BYTES", 5000)
    problem = PROBLEMS["3x3"]
    geometry = conv2d_geometry("test", problem.x_shape, problem.weight_shape, 1, 1, 1, 1)
    setup = implicit._forward(geometry, 1, np.dtype("float32")).setup
    assert setup.by_band
    assert setup.product.bands > 2
    assert setup.tasks == 2 * setup.product.bands


def test_some_are_cut_into_parts_of_their_groups(anew, monkeypatch):
    """Whole images of some groups, whose bands share no rows."""
    monkeypatch.setattr(bands, "_CACHED_BYTES", 20000)
    problem, dtype = PROBLEMS["many groups"], np.dtype("float32")
    geometry = conv2d_geometry("test", problem.x_shape, problem.weight_shape, 1, 1, 1, 8)
    for p in (implicit._forward(geometry, 1, dtype)[0].product, direct._set_up(geometry, 1, dtype, False).direct):
        assert (p.parts, p.bands) == (4, 1)
    assert "bands of 21 rows of 2 groups; tasks: 8" in implicit.forward_explained(geometry, 1, dtype).how


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_in_place_or_packed(name, dtype, in_place, anew, monkeypatch):
    monkeypatch.setattr(product, "_pays_in_place", lambda *arguments: in_place)
    check(PROBLEMS[name], dtype)


# Pixels that fill vectors and do not, some tiles of them and a piece of one; sums of one block, of some and of totals.
ONE_PIXEL = {
    "one tile": Problem((1, 5, 3, 5), (4, 5, 1, 1)),
    "images": Problem((3, 30, 7, 7), (40, 30, 1, 1)),
    "groups": Problem((2, 12, 11, 29), (9, 4, 1, 1), groups=3),
    "whole vectors": Problem((2, 9, 16, 18), (3, 9, 1, 1)),
    "blocks": Problem((1, 300, 13, 13), (10, 300, 1, 1)),
    "totals": Problem((1, 16400, 3, 6), (2, 16400, 1, 1)),
}


@pytest.mark.parametrize(("stays", "near"), [(False, 1 << 40), (True, 1 << 40), (True, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ONE_PIXEL)
def test_images_as_they_lie_asked_for_or_packed(name, dtype, stays, near, anew, monkeypatch):
    monkeypatch.setattr(product, "_stays_near", lambda *arguments, is_far: stays)
    monkeypatch.setattr(product, "_FAR_BYTES", near)
    check(ONE_PIXEL[name], dtype, "implicit")


# Several pixels and no padding: tiles of whole rows, of parts of a row, of neither; rows that follow one another.
IMAGES = {
    "whole rows": Problem((2, 3, 19, 28), (5, 3, 3, 3)),
    "parts of a row": Problem((1, 2, 5, 264), (3, 2, 2, 3)),
    "neither": Problem((2, 3, 9, 151), (4, 3, 3, 3)),
    "one after the other": Problem((2, 3, 21, 19), (5, 3, 3, 1)),
    "a row": Problem((3, 4, 1, 400), (6, 4, 1, 5)),
    "dilated": Problem((1, 3, 20, 40), (5, 3, 3, 4), dilation=(2, 3)),
    "groups": Problem((2, 6, 20, 33), (4, 3, 3, 3), groups=2),
    "whole vectors": Problem((1, 3, 20, 34), (5, 3, 3, 3)),
    "rows of whole vectors, whose parts are none": Problem((1, 3, 6, 242), (5, 3, 3, 3)),
}


def ends_inside(p, task, kernel, dilation, lanes):
    """Whether all that whole vectors of a tile read lies in its image."""
    met = 0
    for row, points in groupby(range(task.position, task.position + task.lanes), lambda point: point // p.grid_w):
        first, *others = points
        stop = first - row * p.grid_w + -(-(1 + len(others)) // lanes) * lanes
        met = max(met, row * p.padded_w + stop)
    behind = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    return met + behind[0] * p.padded_w + behind[1] <= p.each


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", IMAGES)
def test_images_of_several_taps_as_they_lie(name, dtype, anew, monkeypatch):
    problem, dtype = IMAGES[name], np.dtype(dtype)
    monkeypatch.setattr(product, "_pays_in_place", lambda *arguments: True)
    geometry = conv2d_geometry("test", problem.x_shape, problem.weight_shape, 1, 0, problem.dilation, problem.groups)
    p = implicit._forward(geometry, 1, dtype).setup.product
    assert p.in_place == product.FROM_IMAGES
    kernels = micro.kernels(dtype)
    given = [product.task_of(p, task, p.grid_h) for task in range(p.batch * p.tasks)]
    reads = [bool(product._reads_in_place(p, task, kernels)) for task in given]
    dilation = (geometry.dilation_h, geometry.dilation_w)
    fits = ends_inside(p, given[-1], problem.weight_shape[2:], dilation, kernels[micro.LANES])
    assert reads == [True] * (len(reads) - 1) + [fits]
    check(problem, dtype, "implicit")


def test_the_tile_that_would_read_behind_the_last_image_is_packed(anew):
    problem, dtype = ONE_PIXEL["images"], np.dtype("float32")
    geometry = conv2d_geometry("test", problem.x_shape, problem.weight_shape, 1, 0, 1, 1).as_one_row()
    p = implicit._forward(geometry, 1, dtype).setup.product
    assert p.in_place == product.FROM_IMAGES
    reads = [
        bool(product._reads_in_place(p, product.task_of(p, task, 1), micro.kernels(dtype)))
        for task in range(p.batch * p.tasks)
    ]
    assert reads == [True, True, False]  # 49 pixels are no whole vectors


@pytest.mark.parametrize(
    ("image", "rows", "wanted", "asks"),
    [
        ((1, 28, 28), 48, product.FROM_IMAGES, 0),
        ((1, 28, 28), 72, product.PACKED, 0),  # which share what packing costs
        ((4, 28, 28), 72, product.FROM_IMAGES, 1),  # from far
        ((4, 28, 28), 120, product.PACKED, 0),
        ((8, 26, 26), 48, product.FROM_IMAGES, 1),
        ((8, 26, 26), 72, product.PACKED, 0),  # channels no whole lines of the cache apart
        ((1, 64, 64), 48, product.PACKED, 0),  # channels four pages apart
        ((1, 64, 64), 3, product.FROM_IMAGES, 1),
    ],
)
def test_which_images_are_read_as_they_lie(image, rows, wanted, asks):
    batch, *size = image
    geometry = conv2d_geometry("test", (batch, 100, *size), (rows, 100, 1, 1), 1, 0, 1, 1).as_one_row()
    found = implicit._forward(geometry, 1, np.dtype("float32")).setup.product
    assert (found.in_place, found.asks) == (wanted, asks)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_rows_of_the_grid_that_share_tiles(name, dtype, anew, monkeypatch):
    monkeypatch.setattr(product, "_pays_in_place", lambda *arguments: True)
    monkeypatch.setattr(tiles, "TILE_CYCLES", 1 << 30)  # of a row alone
    check(PROBLEMS[name], dtype)


def test_rows_share_tiles_where_few_chains_would_wait_for_one_another(anew):
    lanes = isa.lanes(np.dtype("float32"))
    for width, rows, wanted in ((lanes - 2, 2, 1), (2 * lanes, 2, 2), (2 * lanes + 1, 2, 0), (9 * lanes, 2, 0)):
        geometry = conv2d_geometry("test", (1, 4, 20, width), (rows, 4, 3, 3), 1, 1, 1, 1)
        assert implicit._forward(geometry, 1, np.dtype("float32"))[0].product.line == wanted
    one_row = conv2d_geometry("test", (1, 4, 1, lanes - 2), (2, 4, 1, 3), 1, (0, 1), 1, 1)
    assert implicit._forward(one_row, 1, np.dtype("float32"))[0].product.line == 0


@pytest.mark.parametrize("rows", [1, 24])
def test_chunks_of_rows(rows, anew, monkeypatch):
    monkeypatch.setattr(product, "row_chunk", lambda all_rows, *arguments: min(rows, all_rows))
    for problem in PROBLEMS.values():
        check(problem)
