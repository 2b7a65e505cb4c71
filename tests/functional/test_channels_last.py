"""`layout="NHWC"`: the bits of `layout="NCHW"`, channels last, for every function, dtype, option and row."""

import re

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from test_pooling import poolings

import convjit
from convjit.algorithms import ALGORITHMS, algorithm
from convjit.functional import batches, bilinear, pools
from convjit.testing import conv2d_cases, exact_arrays, layouts, real_arrays, reference_conv2d

DTYPES = ["float32", "float64", "float16", "complex64", "int16"]
ROWS = [row.name for row in ALGORITHMS]


def last(array):
    """An array (..., C, H, W) as (..., H, W, C)."""
    return np.ascontiguousarray(np.moveaxis(array, -3, -1))


def assert_last(got, wanted, what=None):
    """`got` is what `wanted` is, with channels last."""
    wanted = last(wanted)
    assert got.flags.c_contiguous
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), what
    assert got.tobytes() == wanted.tobytes(), (what, np.argwhere(got != wanted)[:3].tolist())


def drawn_options(data, case):
    """Those of the case and a row that takes it, if one was drawn."""
    options = {**case.problem.options, "algorithm": data.draw(st.sampled_from(["auto", "auto", *ROWS]))}
    try:
        convjit.explain(case.x, case.weight, **options)
    except ValueError:
        return {**options, "algorithm": "auto"}
    return options


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_drawn_problems(data, dtype, monkeypatch):
    crew = data.draw(st.sampled_from([1, 2, 3])) if dtype in ("float32", "float64") else 1
    for module in (batches, bilinear):
        monkeypatch.setattr(module, "workers", lambda _: crew)
    values = data.draw(st.sampled_from([exact_arrays, real_arrays])) if dtype != "int16" else exact_arrays
    case = data.draw(conv2d_cases(dtype, values, empty=True, bias=data.draw(st.booleans())))
    options = drawn_options(data, case)
    x, dy = (data.draw(layouts(last(array))) for array in (case.x, case.grad_output))
    y = convjit.conv2d(case.x, case.weight, case.bias, **options)
    out = np.full(last(y).shape, 99, y.dtype)
    assert_last(convjit.conv2d(x, case.weight, case.bias, **options, layout="NHWC"), y)
    assert convjit.conv2d(x, case.weight, case.bias, **options, layout="NHWC", out=out) is out
    assert_last(out, y)
    plan = convjit.conv2d_plan(case.weight, case.bias, **options, layout="NHWC")
    for _ in range(2):
        assert_last(plan(x), y)
    if case.x.size:
        wanted = convjit.conv2d_backward(case.grad_output, case.x, case.weight, **options)
        got = convjit.conv2d_backward(dy, x, case.weight, **options, layout="NHWC")
        assert_last(got[0], wanted[0])
        for one, other in zip(got[1:], wanted[1:], strict=True):
            assert one.tobytes() == other.tobytes()
        size = case.x.shape[-2:]
        assert_last(convjit.conv2d_input_grad(dy, case.weight, size, **options, layout="NHWC"),
                    convjit.conv2d_input_grad(case.grad_output, case.weight, size, **options))  # fmt: skip
        kernel = case.weight.shape[2:]
        assert convjit.conv2d_weight_grad(dy, x, kernel, **options, layout="NHWC").tobytes() == (
            convjit.conv2d_weight_grad(case.grad_output, case.x, kernel, **options).tobytes()
        )


@given(case=conv2d_cases("float32", bias=True))
def test_exact_on_integers(case):
    """Against the definition, not against the other layout."""
    problem = case.problem
    y = convjit.conv2d(last(case.x), case.weight, case.bias, **problem.options, layout="NHWC")
    batch = case.x.reshape(problem.batched_x_shape)
    wanted = reference_conv2d(batch, case.weight, case.bias, **problem.reference_options).reshape(problem.y_shape)
    np.testing.assert_array_equal(y, last(wanted))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_transposed(data, dtype):
    case = data.draw(conv2d_cases(dtype, exact_arrays, padding_modes=["constant"], max_kernel=2))
    options = {name: value for name, value in case.problem.options.items() if name != "padding_mode"}
    options["output_size"] = case.x.shape[-2:]
    x, dy = last(case.grad_output), last(case.x)
    bias = data.draw(exact_arrays(case.x.shape[-3:-2], dtype))
    y = convjit.conv_transpose2d(case.grad_output, case.weight, bias, **options)
    assert_last(convjit.conv_transpose2d(x, case.weight, bias, **options, layout="NHWC"), y)
    wanted = convjit.conv_transpose2d_backward(case.x, case.grad_output, case.weight, **options)
    got = convjit.conv_transpose2d_backward(dy, x, case.weight, **options, layout="NHWC")
    assert_last(got[0], wanted[0])
    for one, other in zip(got[1:], wanted[1:], strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint64", "float16", "complex64"])
@given(data=st.data())
def test_pools(data, dtype, monkeypatch):
    crew = data.draw(st.sampled_from([1, 2, 3])) if dtype == "float32" else 1  # each compiles another loop
    monkeypatch.setattr(pools, "workers", lambda _: crew)
    problem = data.draw(poolings(planes=((1, 1), (2, 3), (1, 20))))
    options = problem.arguments
    x = data.draw(exact_arrays(problem.shape, dtype))
    if dtype == "float32" and x.size:
        x.flat[data.draw(st.integers(0, x.size - 1))] = np.nan
    x = x[0] if data.draw(st.booleans()) else x
    include_pad, means = data.draw(st.booleans()), {}
    for layout, images in (("NCHW", x), ("NHWC", data.draw(layouts(last(x))))):
        means[layout] = convjit.avg_pool2d(images, **options, count_include_pad=include_pad, layout=layout)
        shares = {"input_size": x.shape[-2:], **options, "count_include_pad": include_pad, "layout": layout}
        means[f"{layout} back"] = convjit.avg_pool2d_backward(means[layout], **shares)
    assert_last(means["NHWC"], means["NCHW"])
    assert_last(means["NHWC back"], means["NCHW back"])
    if dtype == "complex64":
        return
    y, where = convjit.max_pool2d(x, **options, return_indices=True)
    got = convjit.max_pool2d(last(x), **options, return_indices=True, layout="NHWC")
    assert_last(got[0], y)
    assert_last(got[1], where)
    dy = data.draw(exact_arrays(y.shape, dtype))
    dx = convjit.max_pool2d_backward(dy, x, **options)
    for indices in (None, got[1]):
        again = convjit.max_pool2d_backward(last(dy), last(x), **options, indices=indices, layout="NHWC")
        assert_last(again, dx)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 70])
def test_more_pixels_and_channels_than_a_tile(groups, dtype):
    """What is turned is turned in tiles; biases are summed in vectors of channels and blocks of pixels."""
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(dtype) for s in ((2, 70, 17, 19), (70, 70 // groups, 3, 3)))
    options = {"padding": 1, "groups": groups, "algorithm": "implicit" if groups == 1 else "depthwise"}
    y = convjit.conv2d(x, weight, weight[:, 0, 0, 0], **options)
    assert_last(convjit.conv2d(last(x), weight, weight[:, 0, 0, 0], **options, layout="NHWC"), y)
    wanted = convjit.conv2d_backward(y, x, weight, **options)
    got = convjit.conv2d_backward(last(y), last(x), weight, **options, layout="NHWC")
    assert_last(got[0], wanted[0])
    for one, other in zip(got[1:], wanted[1:], strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_bias_of_more_than_one_total():
    dy = np.random.default_rng(0).standard_normal((2, 3, 100, 101)).astype("f")
    x, weight, need = np.zeros((2, 1, 100, 101), "f"), np.zeros((3, 1, 1, 1), "f"), (False, False, True)
    wanted = convjit.conv2d_backward(dy, x, weight, need=need)[2]
    got = convjit.conv2d_backward(last(dy), last(x), weight, need=need, layout="NHWC")[2]
    assert got.tobytes() == wanted.tobytes()


def test_a_batch_that_is_turned_is_cut(monkeypatch):
    """Some images at a time are turned for a row that cannot read them as they lie."""
    monkeypatch.setattr(algorithm, "WORKSPACE_BYTES", 1 << 12)
    forget()
    rng, seen, run = np.random.default_rng(0), [], batches._run_slice

    def counted(function, call, *arguments):
        seen.append(call.geometry.batch)
        run(function, call, *arguments)

    monkeypatch.setattr(batches, "_run_slice", counted)
    x, weight = rng.standard_normal((9, 5, 8, 8)), rng.standard_normal((64, 5, 3, 3))
    options = {"padding": 1, "stride": 2, "algorithm": "implicit"}
    y = convjit.conv2d(last(x), weight, **options, layout="NHWC")
    dx = convjit.conv2d_input_grad(y, weight, 8, **options, layout="NHWC")
    assert max(seen) < 9
    forget()
    assert_last(y, convjit.conv2d(x, weight, **options))
    assert_last(dx, convjit.conv2d_input_grad(np.moveaxis(y, -1, 1), weight, 8, **options))


def test_what_reads_images_as_they_lie_makes_no_copy_of_them():
    found = convjit.explain((8, 56, 56, 64), (64, 64, 3, 3), padding=1, algorithm="direct", layout="NHWC")
    assert found.problem == "float32 x (8, 56, 56, 64), weight (64, 64, 3, 3) -> y (8, 56, 56, 64), channels last"
    for each in (found.forward, found.input_grad, found.weight_grad):
        assert not any("turned" in name for name in each.workspace)
    assert found.forward.workspace_bytes < 8 * 56 * 56 * 64 * 4 / 4
    pointwise = convjit.explain((8, 56, 56, 64), (256, 64, 1, 1), algorithm="direct", layout="NHWC")
    for each in (pointwise.forward, pointwise.input_grad, pointwise.weight_grad):
        assert each.workspace.get("planes") == 0


def test_a_view_of_the_other_layout():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 5, 6, 7)), rng.standard_normal((3, 5, 2, 2))
    y = convjit.conv2d(x, weight)
    assert_last(convjit.conv2d(x.transpose(0, 2, 3, 1), weight, layout="NHWC"), y)
    assert convjit.conv2d(last(x).transpose(0, 3, 1, 2), weight).tobytes() == y.tobytes()


X, W = np.ones((2, 8, 9, 3)), np.ones((4, 3, 3, 3))
REFUSED = [
    (lambda: convjit.conv2d(X, W, layout="CHWN"), ValueError, "conv2d: layout must be 'NCHW' or 'NHWC', got 'CHWN'"),
    (lambda: convjit.conv2d(X, W, layout="channels_last"), ValueError,
     "conv2d: layout must be 'NCHW' or 'NHWC', got 'channels_last'; 'NHWC' is what that is called here"),
    (lambda: convjit.max_pool2d(X, 2, layout=None), TypeError,
     "max_pool2d: layout must be 'NCHW' or 'NHWC', got NoneType"),
    (lambda: convjit.conv2d_plan(W, layout=1), TypeError, "conv2d_plan: layout must be 'NCHW' or 'NHWC', got int 1"),
    (lambda: convjit.conv2d(X, W, data_format="channels_last"), TypeError,
     "conv2d: unknown keyword 'data_format'; it is called 'layout' here"),
    (lambda: convjit.conv2d(X[0, 0], W, layout="NHWC"), ValueError,
     "conv2d: expected x of shape (N, H, W, C) or (H, W, C), got shape (9, 3)"),
    (lambda: convjit.conv2d(X.transpose(0, 3, 1, 2), W, layout="NHWC"), ValueError,
     "conv2d: weight expects 3 input channels (groups=1), but x has 9: x (2, 3, 8, 9), weight (4, 3, 3, 3)"),
    (lambda: convjit.conv2d(X, W, out=np.ones((2, 4, 6, 7)), layout="NHWC"), ValueError,
     "conv2d: out must have shape (2, 6, 7, 4) and dtype float64, got shape (2, 4, 6, 7) and dtype float64"),
    (lambda: convjit.conv2d_backward(np.ones((2, 4, 6, 7)), X, W, layout="NHWC"), ValueError,
     "conv2d_backward: grad_output must have shape (2, 6, 7, 4) (the shape of the forward result), got (2, 4, 6, 7)"),
    (lambda: convjit.conv2d_input_grad(np.ones((2, 5, 7, 4)), W, (8, 9), layout="NHWC"), ValueError,
     "conv2d_input_grad: input_size (8, 9) gives an output of (6, 7), but grad_output (2, 5, 7, 4) is of (5, 7)"),
    (lambda: convjit.conv_transpose2d(X, W, layout="NHWC"), ValueError,
     "conv_transpose2d: weight expects 4 input channels, but x has 3: x (2, 8, 9, 3), weight (4, 3, 3, 3)"),
    (lambda: convjit.max_pool2d_backward(X, X, 2, layout="NHWC"), ValueError,
     "max_pool2d_backward: grad_output must have shape (2, 4, 4, 3)"),
    (lambda: convjit.conv1d(X[0], W[0], layout="NLC"), TypeError,
     "conv1d: unknown keyword 'layout'; arrays are (N, C, L), transpose before the call"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_errors_speak_of_the_callers_layout(call, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        call()
