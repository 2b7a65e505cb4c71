"""Planes: images with zeros around them, to the element, and nothing else is written."""

import numpy as np
import pytest

from convjit.algorithms.filling import filled
from convjit.gemm.pixels import plane_axes
from convjit.gemm.planes import BEHIND, forward_axes, plane_elements
from convjit.geometry import conv2d_geometry
from convjit.runtime.launch import run_in_turn

SHAPES = {
    "one pixel": ((3, 2, 1, 1), 1),
    "narrower than a vector": ((2, 5, 3, 2), 1),
    "as wide as a vector": ((2, 70, 8, 8), 1),
    "wider": ((1, 40, 7, 19), (2, 1)),
    "one channel": ((1, 1, 6, 9), 1),
    "zeros above only": ((2, 33, 5, 9), ((3, 0), (0, 0))),
    "zeros below only": ((2, 33, 5, 9), ((0, 3), (0, 0))),
    "zeros to the left only": ((2, 33, 5, 9), ((0, 0), (4, 0))),
    "zeros to the right only": ((2, 33, 5, 9), ((0, 0), (0, 4))),
    "more zeros than a vector has lanes": ((1, 34, 4, 5), ((1, 2), (17, 20))),
    "no channels": ((2, 0, 5, 9), 1),
    "two vectors": ((1, 70, 7, 19), 1),
    "four vectors": ((2, 70, 5, 60), ((1, 2), (2, 1))),
    "more vectors than masks": ((1, 70, 4, 70), (1, 2)),
    "a last vector of zeros": ((1, 70, 4, 15), ((0, 1), (1, 9))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_planes_are_images_with_zeros_around_them(name, workers, dtype):
    shape, padding = SHAPES[name]
    g = conv2d_geometry("test", shape, (1, shape[1], 2, 2), 1, padding, 1, 1)
    axes = plane_axes(g)
    images = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    wanted = np.pad(images, ((0, 0), (0, 0), *g.pads))
    room = np.full(plane_elements(shape[0] * shape[1], *axes) + 64, np.nan, dtype)
    planes = room[32:-32]
    source, before = filled(axes, images, planes)
    run_in_turn(workers, *before)
    assert source[: wanted.size].tobytes() == wanted.tobytes()
    assert np.isnan(room[:32]).all()
    assert np.isnan(room[-32:]).all()


STRIDED = {
    "one channel": ((1, 1, 7, 5), 3, 2, 1, 1),
    "channels that are taken together": ((2, 64, 7, 5), 3, (2, 3), ((2, 0), (1, 3)), 1),
    "and others": ((1, 230, 9, 12), 2, 4, 1, 3),
    "nothing but zeros across": ((1, 5, 6, 1), (1, 4), (1, 3), ((0, 0), (6, 0)), 1),
    "rows alone": ((2, 7, 9, 4), 3, (2, 1), 1, 1),
    "wider": ((2, 3, 9, 20), 3, 2, 1, 1),
    "fewer pixels than a vector has": ((2, 70, 3, 4), 3, 1, 1, 1),
    "larger than the list": ((1, 6, 40, 40), 3, 2, 1, 1),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", STRIDED)
def test_planes_of_strided_reads_and_tiny_ones_show_the_pixels_of_a_phase_each(name, workers, dtype):
    shape, kernel, stride, padding, dilation = STRIDED[name]
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    g = conv2d_geometry("test", shape, (1, shape[1], *kernel), stride, padding, dilation, 1)
    axes = forward_axes(g)
    images = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    # Tap k of output i meets pixel i * stride + k * dilation - pad, in the plane of its phase.
    rows, cols = (
        [
            min(phase * dilation % axis.step + axis.step * pixel - pad, axis.size)
            for phase in range(axis.planes)
            for pixel in range(axis.padded)
        ]
        for axis, pad in zip(axes, (g.pad_top, g.pad_left), strict=True)
    )
    with_zeros = np.pad(images, ((0, 0), (0, 0), (g.pad_top, 1), (g.pad_left, 1)))
    seen = with_zeros[:, :, np.add(rows, g.pad_top)][..., np.add(cols, g.pad_left)]
    split = seen.reshape(*shape[:2], axes[0].planes, axes[0].padded, axes[1].planes, axes[1].padded)
    wanted = split.swapaxes(3, 4)
    room = np.full(plane_elements(shape[0] * shape[1], *axes) + 64, np.nan, dtype)
    planes = room[32:-32]
    source, before = filled(axes, images, planes)
    run_in_turn(workers, *before)
    assert source[:-BEHIND].tobytes() == wanted.tobytes()
    assert np.isnan(room[:32]).all()
    assert np.isnan(room[-32:]).all()


def test_a_task_writes_none_of_the_planes_behind_its_own():
    shape = (4, 64, 8, 9)
    g = conv2d_geometry("test", shape, (1, 64, 3, 3), 1, 1, 1, 1)
    axes = plane_axes(g)
    planes = np.full(plane_elements(4 * 64, *axes), np.nan, np.float32)
    _, ((way, tasks, _, arguments),) = filled(axes, np.ones(shape, np.float32), planes)
    _, together, *_ = arguments
    assert 1 < together < 64
    each = 10 * 11
    for task in range(tasks)[::-1]:
        planes[:-BEHIND] = np.nan
        way.run(1, task, task + 1, arguments)
        is_written = ~np.isnan(planes[:-BEHIND])
        own = slice(task * together * each, (task + 1) * together * each)
        assert is_written[own].all()
        assert is_written.sum() == together * each


def test_a_task_of_no_channels_writes_nothing():
    shape = (1, 0, 5, 9)
    axes = plane_axes(conv2d_geometry("test", shape, (1, 0, 3, 3), 1, 1, 1, 1))
    room, each = np.full(1000, np.nan, np.float32), 7 * 11
    planes = room[each:-each]
    _, ((way, _, _, arguments),) = filled(axes, np.zeros(shape, np.float32), planes)
    planes[...] = np.nan
    way.run(1, 0, 1, arguments)
    assert np.isnan(room).all()
