"""Volumes with one channel a group are correlated as they are: to the bits of the reference, however they are cut."""

import numpy as np
import pytest
from decisions import forget
from numpy.testing import assert_array_equal
from spatial import Spatial, real

import convjit
from convjit.algorithms import depthwise_volumes
from convjit.functional import batches, slicing, volumes
from convjit.geometry import conv_geometry

# By what is particular: x, weight, stride, pads, dilation.
PROBLEMS = {
    "plain": ((2, 3, 7, 6, 20), (3, 1, 3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    "wider than a tile": ((1, 2, 3, 4, 150), (2, 1, 2, 2, 5), (1, 1, 1), ((0, 1), (1, 0), (2, 2)), (1, 1, 1)),
    "strides": ((2, 2, 9, 10, 20), (2, 1, 3, 2, 3), (2, 3, 2), ((1, 0), (0, 0), (2, 1)), (1, 1, 1)),
    "dilated": ((1, 2, 9, 9, 11), (2, 1, 3, 3, 2), (1, 1, 1), ((2, 2), (3, 3), (1, 0)), (2, 3, 1)),
    "stride and dilation in depth": ((1, 2, 21, 4, 5), (2, 1, 3, 2, 2), (4, 1, 1), ((3, 2), (0, 0), (0, 0)), (6, 1, 1)),
    "more padding than taps": ((1, 2, 3, 3, 4), (2, 1, 2, 2, 2), (1, 1, 1), ((4, 3), (2, 0), (0, 5)), (1, 1, 1)),
    "two filters a channel": ((2, 3, 5, 6, 7), (6, 1, 3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    "no padding": ((1, 3, 5, 5, 5), (3, 1, 5, 5, 5), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1)),
}


def of_name(name):
    x, weight, stride, pads, dilation = PROBLEMS[name]
    return Spatial(x, weight, stride, pads, pads, dilation, x[1])


def decided(problem, operation, algorithm="auto", dtype="float32"):
    window = problem.stride, problem.pads, problem.dilation, problem.groups
    volume = conv_geometry("test", problem.x_shape, problem.weight_shape, *window).as_run()
    return volumes.decide_volume("test", algorithm, volume, np.dtype(dtype), operation)


def results(problem, dtype, algorithm="auto"):
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    x, weight, bias, dy = (real(shape, dtype, seed) for seed, shape in enumerate(shapes))
    options = {**problem.options, "algorithm": algorithm}
    return (
        convjit.conv3d(x, weight, bias, **options),
        convjit.conv3d_input_grad(dy, weight, problem.x_shape[2:], **options),
    )


@pytest.mark.parametrize("room", [1 << 18, 6000, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_bits_are_those_of_the_reference_however_slices_are_cut(name, dtype, room, monkeypatch):
    problem = of_name(name)
    wanted = results(problem, dtype, "reference")
    monkeypatch.setattr(depthwise_volumes, "_TILE_BYTES", room)
    forget()
    try:
        assert decided(problem, "forward").whole.way is depthwise_volumes
        of_gradient = decided(problem, "input_grad").whole
        is_taken = of_gradient is not None and of_gradient.way is depthwise_volumes
        assert is_taken == (problem.stride == (1, 1, 1) and name != "two filters a channel")
        for crew in (1, 3):
            for module in (slicing, batches):
                monkeypatch.setattr(module, "workers", lambda _, crew=crew: crew)
            for got, array in zip(results(problem, dtype), wanted, strict=True):
                assert_array_equal(got, array)
    finally:
        forget()


def test_a_task_of_several_slices_and_one_of_fewer():
    """What the cuts above come to."""
    job = decided(of_name("plain"), "forward").whole.job
    whole, cut = (depthwise_volumes._slabs(job, workers, np.dtype("float32")) for workers in (1, 3))
    assert (whole.slices, whole.deep) == (7, 1)
    assert (cut.slices, cut.deep) == (4, 2)


def test_slices_that_meet_padding_alone_fill_their_planes_and_nothing_else(monkeypatch):
    problem = of_name("more padding than taps")
    monkeypatch.setattr(depthwise_volumes, "_TILE_BYTES", 1)
    forget()
    try:
        job = decided(problem, "forward").whole.job
        x, weight = real(problem.x_shape, "float32", 0), real(problem.weight_shape, "float32", 1)
        planes, *others = depthwise_volumes.workspace(job, 1, x.dtype)
        room = np.full(planes.shape[1] + 2000, np.nan, np.float32)
        spaces = [room[None, 1000:-1000], *(np.empty(space.shape, space.dtype) for space in others)]
        y, bias = np.empty(problem.y_shape, np.float32), np.empty(0, np.float32)
        depthwise_volumes.run(1, job, x, weight, bias, y, *spaces)
    finally:
        forget()
    assert_array_equal(y, convjit.conv3d(x, weight, **problem.options))
    assert np.isnan(room[:1000]).all()
    assert np.isnan(room[-1000:]).all()


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        ((1, 4, 5, 5, 5), (4, 2, 3, 3, 3), 2),  # two channels a group
        ((1, 2, 9, 9, 9), (2, 1, 5, 5, 6), 2),  # more taps than one chain has
        ((1, 2, 5, 400, 400), (2, 1, 3, 3, 3), 2),  # planes that no near cache holds
        ((0, 2, 5, 5, 5), (2, 1, 3, 3, 3), 2),
        ((1, 2, 0, 5, 5), (2, 1, 1, 3, 3), 2),
    ],
)
def test_what_it_leaves_to_others(x, weight, groups):
    pads = ((1, 1),) * 3
    problem = Spatial(x, weight, (1, 1, 1), pads, pads, (1, 1, 1), groups)
    call = decided(problem, "forward")
    assert call.whole is None or call.whole.way is not depthwise_volumes
    assert convjit.explain(x, weight, padding=1, groups=groups).forward.algorithm != "depthwise" or weight[2] == 1


def test_it_can_be_asked_for_by_name_and_others_can():
    problem = of_name("plain")
    assert decided(problem, "forward", "depthwise").whole.way is depthwise_volumes
    assert decided(problem, "forward", "implicit").whole is None
    assert decided(problem, "weight_grad", "depthwise").whole is None
    for got, array in zip(results(problem, "float32", "depthwise"), results(problem, "float32"), strict=True):
        assert_array_equal(got, array)


@pytest.mark.parametrize("filters", [1, 8])
def test_a_plan_keeps_the_weight_as_it_is(filters):
    """Also where images of slices would read it packed, as of 8 filters a channel with AVX-512."""
    x, weight = real((2, 8, 4, 7, 7), "float32", 0), real((8 * filters, 1, 3, 3, 3), "float32", 1)
    plan = convjit.conv3d_plan(weight, padding=1, groups=8)
    assert_array_equal(plan(x), convjit.conv3d(x, weight, padding=1, groups=8))


def test_explain_tells_of_volumes():
    found = convjit.explain((1, 54, 16, 28, 28), (54, 1, 3, 3, 3), padding=1, groups=54)
    for operation in (found.forward, found.input_grad):
        assert operation.algorithm == "depthwise"
        assert operation.others["implicit"] == "slower"
        assert "depthwise" not in operation.others
        assert operation.cut.startswith("volumes, pixels as lanes, 16 slices")
    assert found.forward.workspace["planes"] == 4 * (18 * 30 * 30 + 16) * found.forward.workers
