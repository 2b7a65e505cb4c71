"""Convolution in one dimension and three: exact on integers, adjoint, and the bits of the two-dimensional one."""

import numba
import numpy as np
import pytest
from decisions import forget
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rows import GENERAL
from spatial import MODES, RANKS, Spatial, arrays_of, function, real, spatials

import convjit
import convjit.geometry
from convjit.algorithms import direct_volumes, implicit, input_product
from convjit.functional import batches, kept, slicing, volumes
from convjit.gemm import bands
from convjit.testing import assert_within_rounding, check_adjoint, real_arrays

DTYPES = ["float32", "float64"]


@pytest.fixture
def gathered_few(monkeypatch):
    """`gathered_few(n)`: volumes are computed so many slices at a time."""

    def set_to(count):
        forget()
        monkeypatch.setattr(volumes, "_together", lambda call, limit: min(count, call.geometry.batch))

    yield set_to
    forget()


@pytest.mark.parametrize("algorithm", ["auto", *GENERAL])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_everything_is_exact_on_integers(data, rank, dtype, algorithm):
    problem = data.draw(spatials(rank))
    x, weight, bias, dy = data.draw(arrays_of(problem, dtype))
    y = function("conv2d", rank)(x, weight, bias, **problem.options, algorithm=algorithm)
    assert_array_equal(y, problem.forward(x, weight, bias), strict=True)
    got = function("conv2d_backward", rank)(dy, x, weight, **problem.options, algorithm=algorithm)
    for gradient, wanted in zip(got, problem.backward(dy, x, weight), strict=True):
        assert_array_equal(gradient, wanted, strict=True)


def test_a_row_that_does_not_take_the_slices_of_a_gradient_leaves_them_to_auto():
    x, weight, dy = real((1, 2, 5, 6, 6), "f4", 0), real((4, 1, 1, 3, 3), "f4", 1), real((1, 4, 5, 4, 4), "f4", 2)
    wanted = function("conv2d_backward", 3)(dy, x, weight, groups=2)
    for got, array in zip(
        function("conv2d_backward", 3)(dy, x, weight, groups=2, algorithm="depthwise"), wanted, strict=True
    ):
        assert_array_equal(got, array)


@pytest.mark.parametrize("together", [1, 2, 5])
@given(data=st.data())
@settings(max_examples=30)
def test_slices_are_gathered_in_any_number(data, together, gathered_few):
    gathered_few(together)
    problem = data.draw(spatials(3))
    x, weight, bias, dy = data.draw(arrays_of(problem, "float32"))
    options = {**problem.options, "algorithm": "implicit"}  # of others, whole volumes may be read where they lie
    assert_array_equal(convjit.conv3d(x, weight, bias, **options), problem.forward(x, weight, bias))
    got = convjit.conv3d_backward(dy, x, weight, **options)
    for gradient, wanted in zip(got, problem.backward(dy, x, weight), strict=True):
        assert_array_equal(gradient, wanted, strict=True)


def check_exactly(problem, algorithm="auto", dtype="f4"):
    """Everything of a problem on small integers, none of them zero, beside the oracle."""
    rng = np.random.default_rng(1)
    x, weight, bias, dy = (
        rng.choice([-3, -2, -1, 1, 2, 3], shape).astype(dtype)
        for shape in (problem.x_shape, problem.weight_shape, (problem.weight_shape[0],), problem.y_shape)
    )
    options = {**problem.options, "algorithm": algorithm}
    y = problem.forward(x, weight, bias)
    assert_array_equal(convjit.conv3d(x, weight, bias, **options), y, strict=True)
    assert_array_equal(convjit.conv3d_plan(weight, bias, **options)(x), y, strict=True)
    got = convjit.conv3d_backward(dy, x, weight, **options)
    for gradient, wanted in zip(got, problem.backward(dy, x, weight), strict=True):
        assert_array_equal(gradient, wanted, strict=True)


NOT_PADDED = ((0, 0),) * 3
# With strides: sizes that they divide, and not; strides of rows or columns alone; a single voxel that is met; padding.
VOXELS = [
    ((3, 4, 7, 9, 11), (2, 2, 2), NOT_PADDED), ((3, 4, 6, 9, 8), (3, 1, 2), NOT_PADDED),
    ((2, 4, 5, 6, 7), (1, 2, 1), NOT_PADDED), ((2, 4, 4, 5, 40), (1, 1, 3), NOT_PADDED),
    ((5, 4, 2, 3, 2), (4, 4, 4), NOT_PADDED), ((2, 4, 3, 3, 3), (2, 2, 2), ((1, 0), (0, 0), (0, 0))),
    ((2, 4, 3, 3, 3), (2, 2, 2), ((0, 0), (1, 0), (0, 0))),
]  # fmt: skip


@pytest.mark.parametrize("together", [None, 2])
@pytest.mark.parametrize("algorithm", ["auto", *GENERAL])
@pytest.mark.parametrize(("shape", "stride", "pads"), VOXELS)
def test_kernels_of_one_voxel_with_strides(shape, stride, pads, algorithm, together, gathered_few):
    if together is not None:
        gathered_few(together)
    for dtype in DTYPES:  # nothing that is kept of the first one is found for the second
        check_exactly(Spatial(shape, (6, 2, 1, 1, 1), stride, pads, pads, (1, 1, 1), 2), algorithm, dtype)


@pytest.mark.parametrize("operation", ["forward", "input_grad", "weight_grad"])
def test_voxels_that_strides_meet_are_one_row_of_small_volumes(operation, anew):
    def turns(size):
        geometry = convjit.geometry.conv_geometry("test", (2, 4, *size), (6, 4, 1, 1, 1), 2, 0, 1, 1)
        call = volumes.decide_volume("test", "auto", geometry.as_run(), np.dtype("f4"), operation)
        return [turn.is_row for turn in call.turns if turn.call is not None]

    assert turns((7, 9, 11)) == [True]
    assert not any(turns((170, 180, 190)))


def test_phases_of_one_plane_that_meet_another_one():
    """The plane of the output gradient is not the one that some phases would read."""
    pads = ((0, 1), (0, 0), (0, 0))
    check_exactly(Spatial((1, 1, 4, 3, 3), (1, 1, 3, 1, 1), (3, 1, 2), pads, pads, (2, 1, 1), 1))


def test_voxels_that_a_larger_result_has_are_zero():
    """Of a transposed convolution with output padding, more voxels than strides meet."""
    x, weight = real((1, 2, 3, 3, 3), "f4", 0), real((2, 3, 1, 1, 1), "f4", 1)
    y = convjit.conv_transpose3d(x, weight, stride=2, output_padding=2, dilation=3)
    assert y.shape == (1, 3, 7, 7, 7)
    wanted = np.zeros_like(y)
    wanted[:, :, :5:2, :5:2, :5:2] = convjit.conv_transpose3d(x, weight)
    assert_array_equal(y, wanted)
    for got, small in zip(
        convjit.conv_transpose3d_backward(y, x, weight, stride=2, output_padding=2, dilation=3)[:2],
        convjit.conv_transpose3d_backward(wanted[:, :, :5:2, :5:2, :5:2], x, weight)[:2], strict=True,
    ):  # fmt: skip
        assert_allclose(got, small, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_single_gradients_are_those_of_backward(data, rank):
    problem = data.draw(spatials(rank, MODES))
    x, weight, _, dy = data.draw(arrays_of(problem, values=real_arrays))
    dx, dw, db = function("conv2d_backward", rank)(dy, x, weight, **problem.options)
    size, kernel = problem.x_shape[2:], problem.kernel
    assert_array_equal(function("conv2d_input_grad", rank)(dy, weight, size, **problem.options), dx)
    assert_array_equal(function("conv2d_weight_grad", rank)(dy, x, kernel, **problem.options), dw)
    picked = function("conv2d_backward", rank)(dy, x, weight, **problem.options, need=(False, True, False))
    assert picked[0] is picked[2] is None
    assert_array_equal(picked[1], dw)
    assert db.shape == problem.weight_shape[:1]


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_gradients_are_adjoints(data, rank):
    problem = data.draw(spatials(rank, MODES))
    x, weight, _, dy = data.draw(arrays_of(problem))
    conv, options = function("conv2d", rank), problem.options
    check_adjoint(
        lambda x: conv(x, weight, **options),
        lambda dy: function("conv2d_input_grad", rank)(dy, weight, problem.x_shape[2:], **options), x, dy,
    )  # fmt: skip
    check_adjoint(
        lambda weight: conv(x, weight, **options),
        lambda dy: function("conv2d_weight_grad", rank)(dy, x, problem.kernel, **options), weight, dy,
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_padding_is_that_of_a_padded_image(data, rank, mode):
    problem = data.draw(spatials(rank, [mode]))
    x, weight, bias, _ = data.draw(arrays_of(problem, values=real_arrays))
    rest = {"stride": problem.stride, "dilation": problem.dilation, "groups": problem.groups}
    padded = function("pad2d", rank)(x, problem.pads, mode=mode)
    assert_array_equal(
        function("conv2d", rank)(x, weight, bias, **problem.options),
        function("conv2d", rank)(padded, weight, bias, **rest),
    )


@given(data=st.data())
def test_one_dimension_is_a_row(data):
    problem = data.draw(spatials(1, MODES))
    x, weight, bias, dy = data.draw(arrays_of(problem, values=real_arrays))
    wide = {
        "stride": (1, *problem.stride), "padding": ((0, 0), *problem.pads), "dilation": (1, *problem.dilation),
        "groups": problem.groups, "padding_mode": problem.padding_mode,
    }  # fmt: skip
    row = [array[:, :, None] for array in (x, weight, dy)]
    y = convjit.conv1d(x, weight, bias, **problem.options)
    assert_array_equal(y[:, :, None], convjit.conv2d(row[0], row[1], bias, **wide))
    got = convjit.conv1d_backward(dy, x, weight, **problem.options)
    wanted = convjit.conv2d_backward(row[2], row[0], row[1], **wide)
    for gradient, of_row in zip(got, wanted, strict=True):
        assert_array_equal(gradient, of_row.reshape(gradient.shape))


@given(data=st.data())
def test_a_volume_of_one_slice_is_an_image(data):
    problem = data.draw(spatials(3))
    shape, kernel = (*problem.x_shape[:2], 1, *problem.x_shape[3:]), (*problem.weight_shape[:2], 1, *problem.kernel[1:])
    x, weight = data.draw(real_arrays(shape)), data.draw(real_arrays(kernel))
    image = {"stride": problem.stride[1:], "padding": problem.pads[1:], "dilation": problem.dilation[1:]}
    volume = {name: (3 if name != "padding" else (0, 0), *value) for name, value in image.items()}
    y = convjit.conv3d(x, weight, **volume, groups=problem.groups)
    assert_array_equal(y[:, :, 0], convjit.conv2d(x[:, :, 0], weight[:, :, 0], **image, groups=problem.groups))


# --- the same bits --------------------------------------------------------------------------------------------------

# Many slices; a stride, so that there are phases; kernels one pixel wide, which are rows, also of pixels with a stride;
# depthwise.
VOLUMES = {
    "plain": Spatial((2, 6, 9, 11, 13), (5, 6, 3, 3, 3), (1, 1, 1), 1, ((1, 1),) * 3, (1, 1, 1), 1),
    "strided": Spatial(
        (3, 4, 9, 11, 13), (6, 2, 3, 2, 3), (2, 3, 1), (2, 1, 0), ((2, 2), (1, 1), (0, 0)), (1, 1, 2), 2
    ),
    "in depth": Spatial(
        (2, 6, 9, 11, 13), (5, 6, 3, 1, 1), (2, 1, 1), (1, 0, 0), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), 1
    ),
    "every second row, every third column": Spatial(
        (2, 6, 9, 11, 13), (5, 6, 3, 1, 1), (2, 2, 3), ((1, 2), (0, 0), (0, 0)), ((1, 2), (0, 0), (0, 0)), (1, 1, 1), 1
    ),
    "and with padding": Spatial(
        (2, 6, 9, 11, 13), (5, 6, 3, 1, 1), (2, 2, 3), ((0, 1), (2, 1), (1, 0)), ((0, 1), (2, 1), (1, 0)), (1, 1, 1), 1
    ),
    "depthwise": Spatial((2, 6, 9, 11, 13), (6, 1, 3, 3, 3), (1, 1, 1), 1, ((1, 1),) * 3, (1, 1, 1), 6),
}


def everything(problem, dtype, batch=slice(None), algorithm="auto"):
    """Results in a row: forward, and all gradients."""
    rank, options = problem.rank, {**problem.options, "algorithm": algorithm}
    shapes = (problem.x_shape, problem.weight_shape, problem.weight_shape[:1], problem.y_shape)
    x, weight, bias, dy = (real(shape, dtype, seed) for seed, shape in enumerate(shapes))
    x, dy = x[batch], dy[batch]
    y = function("conv2d", rank)(x, weight, bias, **options)
    return [y, *function("conv2d_backward", rank)(dy, x, weight, **options)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VOLUMES)
def test_the_same_bits_from_any_row_threads_and_slice(name, dtype, gathered_few, monkeypatch):
    problem = VOLUMES[name]
    wanted = everything(problem, dtype)
    for row in GENERAL:
        for got, array in zip(everything(problem, dtype, algorithm=row), wanted, strict=True):
            assert_array_equal(got, array, err_msg=row)
    for n in range(problem.x_shape[0]):
        part = everything(problem, dtype, slice(n, n + 1))
        assert_array_equal(part[0], wanted[0][n : n + 1])
        assert_array_equal(part[1], wanted[1][n : n + 1])
    monkeypatch.setattr("convjit.functional.batches.workers", lambda _: numba.config.NUMBA_NUM_THREADS)
    monkeypatch.setattr(slicing, "workers", lambda _: numba.config.NUMBA_NUM_THREADS)
    for row in ("direct", "auto"):
        for got, array in zip(everything(problem, dtype, algorithm=row), wanted, strict=True):
            assert_array_equal(got, array)
    for together in (1, 4):
        gathered_few(together)
        for got, array in zip(everything(problem, dtype, algorithm="implicit")[:2], wanted, strict=False):
            assert_array_equal(got, array, err_msg=f"{together} slices")


@pytest.mark.parametrize("room", [1 << 30, 60_000, 20_000, 1, 0])
@pytest.mark.parametrize("name", ["plain", "strided"])
def test_volumes_are_read_in_pieces_of_any_size(name, room, monkeypatch):
    """All at once, some volumes, some slices, one slice; and gathered, where even that would take too much."""
    problem = VOLUMES[name]
    wanted = everything(problem, "float32", algorithm="reference")
    if room:
        monkeypatch.setattr(direct_volumes, "_PIECE_BYTES", room)
    else:
        monkeypatch.setattr(volumes, "workspace_limit", lambda elements, dtype: 1)
    forget()
    try:
        dtype = np.dtype("float32")
        call = volumes.decide_volume("test", "direct", problem_geometry(problem), dtype, "forward")
        sizes = {1 << 30: (problem.x_shape[0], problem.out_size[0]), 1: (1, 1)}
        if room in sizes:
            assert direct_volumes.piece(call.whole.job, dtype) == sizes[room]
        assert (call.whole is None) == (room == 0)
        # The parts of a weight gradient are another sum where memory is short.
        for got, array in zip(everything(problem, "float32", algorithm="direct")[:2], wanted, strict=False):
            assert_array_equal(got, array)
    finally:
        forget()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1000, 1001])
def test_long_sequences_are_cut_into_bands_to_the_same_bits(length, dtype, monkeypatch):
    """Of whose results each has a halo, and two lie at an end."""
    problem = Spatial((2, 9, length), (10, 9, 7), (1,), ((5, 11),), ((5, 11),), (3,), 1)
    wanted = everything(problem, dtype, algorithm="reference")
    geometry, cuts = problem_geometry(problem), []
    monkeypatch.setattr(bands, "_CACHED_BYTES", 16000)
    try:
        for crew in (1, 2, 3):
            forget()
            monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
            setups = (way(geometry, crew, np.dtype(dtype)).setup for way in (implicit._forward, input_product._set_up))
            cuts += [(setup.by_band, setup.product.bands > 2) for setup in setups]
            for got, array in zip(everything(problem, dtype, algorithm="implicit"), wanted, strict=True):
                assert_array_equal(got, array)
    finally:
        forget()
    assert all(map(all, cuts))


@pytest.mark.parametrize(("size", "whole"), [(14, True), (15, True), (23, False)])
def test_tasks_of_volumes_end_where_slices_end_if_that_is_near(size, whole):
    """Slices of 196 and 225 points, of which a task takes two; 529 are more than a task takes."""
    problem = Spatial((1, 8, 4, size, size), (64, 8, 3, 3, 3), (1, 1, 1), 1, ((1, 1),) * 3, (1, 1, 1), 1)
    dtype = np.dtype("float32")
    call = volumes.decide_volume("test", "direct", problem_geometry(problem), dtype, "forward")
    d = direct_volumes._set_up(call.whole.job, *direct_volumes.piece(call.whole.job, dtype), 1, dtype).direct
    assert d.chunks * d.points >= d.grid_h * d.grid_w > (d.chunks - 1) * d.points
    assert (d.points == 2 * size * size) == whole


@pytest.mark.parametrize("kind", ["normal", "positive"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_stay_in_their_bound(dtype, kind, gathered_few):
    gathered_few(8)  # of 24 slices: the weight gradient is a sum of three parts
    shapes = ((2, 20, 12, 10, 11), (6, 20, 3, 3, 3), (2, 6, 12, 10, 11))
    x, weight, dy = (real(shape, dtype, seed) for seed, shape in enumerate(shapes))
    if kind == "positive":
        x, weight, dy = abs(x), abs(weight), abs(dy)
    wide = {"float32": np.float64, "float64": np.longdouble}[dtype]
    problem = Spatial(shapes[0], shapes[1], (1, 1, 1), 1, ((1, 1),) * 3, (1, 1, 1), 1)
    exact = [a.astype(wide) for a in (dy, x, weight)]
    units = 8 if kind == "normal" else 16
    y, magnitude = problem.forward(exact[1], exact[2], None), problem.forward(abs(exact[1]), abs(exact[2]), None)
    assert_within_rounding(convjit.conv3d(x, weight, padding=1), y, magnitude, units)
    got = convjit.conv3d_backward(dy, x, weight, padding=1)
    for gradient, value, size in zip(got, problem.backward(*exact), problem.backward(*map(abs, exact)), strict=True):
        assert_within_rounding(gradient, value, size, units)


def problem_geometry(problem):
    """As what runs it takes it."""
    window = problem.stride, problem.pads, problem.dilation, problem.groups
    return convjit.geometry.conv_geometry("test", problem.x_shape, problem.weight_shape, *window).as_run()


def test_workspaces_stay_within_their_limit():
    """Of the planes that are gathered, their results, and what one worker needs for them; or of whole volumes."""
    for shape, weight in (((1, 64, 16, 112, 112), (64, 64, 3, 3, 3)), ((2, 3, 32, 224, 224), (64, 3, 7, 7, 7))):
        problem = convjit.geometry.conv_geometry("test", shape, weight, 1, "same", 1, 1).as_run()
        dtype = np.dtype("float32")
        limit = volumes.workspace_limit(int(np.prod(shape)), dtype)
        for name in ("forward", "input_grad", "weight_grad"):
            size = max(
                limit, volumes.workspace_limit(int(np.prod(problem.y_shape)), dtype) if name == "input_grad" else 0
            )
            volume_call = volumes.VolumeCall("test", "auto", problem, dtype, name)
            if volume_call.whole is not None:
                assert 0 < volumes.counted_bytes(direct_volumes.workspace(volume_call.whole.job, 1, dtype)) <= size
            for turn in volume_call.turns:
                call = turn.call.of_batch(turn.together)
                planes = (np.prod(call.geometry.x_shape) + np.prod(call.geometry.y_shape)) * dtype.itemsize
                assert planes + volumes.counted_bytes(call.spaces(1)) <= size
                assert turn.together < turn.call.geometry.batch


# --- dtypes and layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
@settings(max_examples=20)
def test_dtypes_are_those_of_numpy(data, rank):
    problem = data.draw(spatials(rank, most=2))
    x, weight, _, dy = data.draw(arrays_of(problem))
    conv, backward = function("conv2d", rank), function("conv2d_backward", rank)
    wanted = problem.forward(x, weight, None), *problem.backward(dy, x, weight)
    for dtype in ("int8", "int64", "float16", "complex64", "complex128"):
        arrays = [array.astype(dtype) for array in (x, weight, dy)]
        got = [conv(arrays[0], arrays[1], **problem.options), *backward(arrays[2], *arrays[:2], **problem.options)]
        for result, right in zip(got, wanted, strict=True):
            assert_array_equal(result, right.astype(dtype), strict=True)
    z, w, dz = x + 1j * x[::-1], weight - 2j * weight[::-1], dy + 3j * dy[::-1]
    assert_array_equal(conv(z, w, **problem.options), problem.forward(z, w, None))
    for result, right in zip(backward(dz, z, w, **problem.options), problem.backward(dz, z, w), strict=True):
        assert_array_equal(result, right, strict=True)
    assert conv(x > 0, weight > 0, **problem.options).dtype == np.int64
    assert_array_equal(conv(x > 0, weight > 0, **problem.options), problem.forward((x > 0) * 1, (weight > 0) * 1, None))


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
@settings(max_examples=30)
def test_layouts_out_and_unbatched(data, rank):
    problem = data.draw(spatials(rank))
    x, weight, bias, dy = data.draw(arrays_of(problem, "float32", real_arrays))
    conv, backward = function("conv2d", rank), function("conv2d_backward", rank)
    y, gradients = conv(x, weight, bias, **problem.options), backward(dy, x, weight, **problem.options)
    turned = [np.asfortranarray(array) for array in (dy, x, weight)]
    turned[1] = np.repeat(turned[1], 2, axis=-1)[..., ::2]
    for array in turned:
        array.flags.writeable = False
    assert_array_equal(conv(turned[1], turned[2], bias, **problem.options), y)
    for got, wanted in zip(backward(*turned, **problem.options), gradients, strict=True):
        assert_array_equal(got, wanted, strict=True)
    out = np.full(y.shape, np.nan, y.dtype)
    assert conv(x, weight, bias, **problem.options, out=out) is out
    assert_array_equal(out, y)
    one = conv(x[0], weight, bias, **problem.options)
    assert_array_equal(one, y[0], strict=True)
    assert_array_equal(backward(dy[0], x[0], weight, **problem.options)[0], gradients[0][0], strict=True)


@pytest.mark.parametrize("rank", RANKS)
def test_nothing_is_answered_with_nothing(rank):
    conv, size = function("conv2d", rank), (5,) * rank
    x, weight, kernel = np.ones((0, 3, *size)), np.ones((4, 3, *(3,) * rank)), (3,) * rank
    assert conv(x, weight).shape == (0, 4, *(3,) * rank)
    dx, dw, db = function("conv2d_backward", rank)(np.ones((0, 4, *kernel)), x, weight)
    assert dx.shape == x.shape
    assert not dw.any()
    assert not db.any()
    y = conv(np.ones((2, 0, *size)), np.ones((4, 0, *kernel)), np.arange(4.0))
    assert_array_equal(y[1].reshape(4, -1), np.arange(4.0)[:, None].repeat(3**rank, 1))
    padded = conv(np.ones((1, 1, *(0,) * rank)), np.ones((1, 1, *kernel)), padding=2)
    assert_array_equal(padded, np.zeros((1, 1, *(2,) * rank)))
    # Slices that no output sees.
    dx = function("conv2d_input_grad", rank)(
        np.ones((1, 1, *(1,) * rank)), np.ones((1, 1, *(1,) * rank)), size, stride=7
    )
    assert dx.sum() == 1
    assert dx.ravel()[0] == 1


# --- transposed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_the_transposed_convolution_is_the_adjoint(data, rank, dtype):
    problem = data.draw(spatials(rank))
    x, weight, _, dy = data.draw(arrays_of(problem, dtype))
    window = {"stride": problem.stride, "padding": problem.pads, "dilation": problem.dilation, "groups": problem.groups}
    transposed, size = function("conv_transpose2d", rank), problem.x_shape[2:]
    wanted = problem.backward(dy, x, weight)
    least = [
        (n - 1) * s + (k - 1) * d + 1 - sum(p)
        for n, s, k, d, p in zip(problem.out_size, problem.stride, problem.kernel, problem.dilation, problem.pads,
                                 strict=True)
    ]  # fmt: skip
    bias = np.arange(1.0, 1 + problem.x_shape[1], dtype=dtype)
    if all(n - small < max(s, d) for n, small, s, d in zip(size, least, problem.stride, problem.dilation, strict=True)):
        y = transposed(dy, weight, bias, **window, output_size=size)
        assert_array_equal(y, wanted[0] + bias.reshape(-1, *[1] * rank), strict=True)
        extra = tuple(n - small for n, small in zip(size, least, strict=True))
        assert_array_equal(transposed(dy, weight, bias, **window, output_padding=extra), y)
        got = function("conv_transpose2d_backward", rank)(x, dy, weight, **window, output_size=size)
        axes = (0, *range(2, 2 + rank))
        for gradient, right in zip(got, (problem.forward(x, weight, None), wanted[1], x.sum(axes)), strict=True):
            assert_array_equal(gradient, right, strict=True)


# --- PyTorch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", RANKS)
@given(data=st.data())
def test_pytorch_agrees(data, rank):
    torch = pytest.importorskip("torch")
    problem = data.draw(spatials(rank))
    x, weight, _, dy = data.draw(arrays_of(problem, values=real_arrays))
    sides = [n for pads in problem.pads[::-1] for n in pads]
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    rest = {"stride": problem.stride, "dilation": problem.dilation, "groups": problem.groups}
    y = getattr(torch.nn.functional, f"conv{rank}d")(torch.nn.functional.pad(tensors[0], sides), tensors[1], **rest)
    y.backward(torch.tensor(dy))
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(function("conv2d", rank)(x, weight, **problem.options), y.detach().numpy(), **close)
    dx, dw, _ = function("conv2d_backward", rank)(dy, x, weight, **problem.options)
    np.testing.assert_allclose(dx, tensors[0].grad.numpy(), **close)
    np.testing.assert_allclose(dw, tensors[1].grad.numpy(), **close)


def test_copies_of_slices_are_left_to_the_next_call(monkeypatch):
    """A call that computes some slices at a time has room for so many, which the next one finds."""
    allocated = []
    allocate_bytes = kept.allocate_bytes
    monkeypatch.setattr(kept, "allocate_bytes", lambda *given: allocated.append(given[1]) or allocate_bytes(*given))
    # Workspaces are those of so many workers, and how many a call is given hangs on who else has the cores.
    monkeypatch.setattr(batches, "workers", lambda nanoseconds: 1)
    forget()
    kept._kept.clear()
    try:
        x, weight = real((1, 3, 8, 112, 112), "float32", 0), real((24, 3, 1, 3, 3), "float32", 1)
        options = {"stride": (1, 2, 2), "padding": (0, 1, 1), "algorithm": "implicit"}
        y = convjit.conv3d(x, weight, **options)
        assert allocated
        del allocated[:]
        assert_array_equal(convjit.conv3d(x, weight, **options), y)
        assert not allocated
    finally:
        forget()
    assert_array_equal(y, convjit.conv3d(x, weight, **{**options, "algorithm": "reference"}))


def test_pixels_behind_the_last_one_that_is_met_are_left_out():
    """Those of an output padding that is no less than the stride."""
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-9, 9, shape).astype(float) for shape in ((3, 1, 1, 3, 3), (1, 1, 3, 1, 1)))
    dy = rng.integers(-9, 9, (3, 1, 7, 5, 7)).astype(float)
    options = {"stride": 2, "dilation": 3, "output_padding": (0, 0, 2)}
    dx, dw, _ = convjit.conv_transpose3d_backward(dy, x, weight, **options)
    met = dy[:, 0, ::3, ::2, :6:2]  # slice, row and column of each tap
    assert_array_equal(dx[:, 0, 0], (weight[0, 0, :, :, :] * met).sum(axis=1))
    assert_array_equal(dw[0, 0, :, 0, 0], (x[:, 0] * met).sum(axis=(0, 2, 3)))
