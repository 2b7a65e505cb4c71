"""Workspaces stay within twice the input or 32 MiB: a large batch is cut, which no bit shows."""

import numpy as np
import pytest
from decisions import forget
from hypothesis import assume, given
from hypothesis import strategies as st
from rows import GENERAL

from convjit import conv2d, conv2d_backward, conv2d_plan, conv2d_weight_grad
from convjit.algorithms import turning, why_not
from convjit.functional import batches, calls, kept
from convjit.functional.calls import counted_bytes
from convjit.geometry import conv2d_geometry
from convjit.layouts import CHANNELS_FIRST, CHANNELS_LAST

MIB = 1 << 20
PASSES = ("forward", "input_grad", "weight_grad")


# Name: images, weights, options. Padding makes planes several times as large as images.
CUT = {
    "padded": ((9, 8, 5, 6), (6, 8, 3, 3), {"padding": 9}),
    "strided": ((10, 6, 9, 9), (4, 6, 3, 3), {"padding": 9, "stride": 2}),
    "grouped": ((7, 8, 5, 5), (8, 2, 3, 3), {"padding": 12, "groups": 4, "dilation": 2}),
    "one side": ((13, 4, 6, 6), (5, 4, 2, 2), {"padding": ((0, 20), (15, 0))}),
    "long sums": ((5, 1900, 3, 3), (3, 1900, 3, 3), {"padding": 3}),
}
DTYPES = ["float32", "float64", "float16", "complex64", "int8"]


def arrays(name, dtype, bias=True):
    x_shape, weight_shape, options = CUT[name]
    rng = np.random.default_rng(0)
    y_shape = conv2d_geometry("test", x_shape, weight_shape, *window(options)).y_shape
    shapes = (x_shape, weight_shape, weight_shape[:1], y_shape)
    return [(rng.standard_normal(shape) * 9).astype(dtype) for shape in shapes]


def window(options):
    return (options.get("stride", 1), options["padding"], options.get("dilation", 1), options.get("groups", 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CUT)
def test_a_cut_batch_has_the_same_bits(name, dtype, monkeypatch):
    x, weight, bias, dy = arrays(name, dtype)
    options, seen, run = {**CUT[name][2], "algorithm": "implicit"}, [], batches._run_slice

    def counted(function, call, *arguments):
        seen.append((call.operation_name, call.geometry.batch))
        run(function, call, *arguments)

    def results():
        y = conv2d(x, weight, bias, **options)
        out = np.empty_like(y)
        conv2d(x[::-1], weight, bias, **options, out=out)
        return [y, out[::-1], conv2d_plan(weight, bias, **options)(x), *conv2d_backward(dy, x, weight, **options)]

    monkeypatch.setattr(batches, "_run_slice", counted)
    for crew in (1, 3):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        wanted = results()
        with monkeypatch.context() as patch:
            patch.setattr(
                calls.Call, "images", lambda call, _: call.geometry.batch if call.operation_name == "weight_grad" else 3
            )
            del seen[:]
            got = results()
        assert {("forward", 3), ("input_grad", 3), ("weight_grad", len(x))} <= set(seen)
        assert {batch for _, batch in seen} <= {3, len(x) % 3, len(x)}
        for one, other in zip(got, wanted, strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("padding", [1, 3, ((5, 0), (2, 1))])
@pytest.mark.parametrize("pixels", [(40, 41), (128, 128), (150, 170)])
def test_a_weight_gradient_fills_some_images_at_a_time(pixels, padding, dtype, monkeypatch):
    """Totals of 16384 pixels begin and end inside images; planes are those of the images that a few of them need."""
    rng, images = np.random.default_rng(0), max(4, 90_000 // (pixels[0] * pixels[1]))
    x = (9 * rng.standard_normal((images, 2, *pixels))).astype(dtype)
    weight = np.ones((3, 2, 2, 3), dtype)
    dy = (9 * rng.standard_normal(conv2d(x, weight, padding=padding).shape)).astype(dtype)
    need = (False, True, False)
    planes = []
    allocate = kept.allocate
    monkeypatch.setattr(kept, "CALLS", 0)

    def seen(function, what, shape, dtype, aligned_from):
        planes.extend(shape if what == "planes" else ())
        return np.full(shape, 99, dtype) if what == "planes" else allocate(function, what, shape, dtype, aligned_from)

    monkeypatch.setattr(kept, "allocate", seen)
    results = []
    for room in (1 << 40, 0):
        monkeypatch.setattr(
            "convjit.algorithms.weight_product.workspace_limit", lambda elements, dtype, room=room: room
        )
        forget()
        results.append(conv2d_backward(dy, x, weight, padding=padding, algorithm="implicit", need=need)[1].tobytes())
    forget()
    assert planes[1] < planes[0]
    assert results[0] == results[1]


# --- the bound ------------------------------------------------------------------------------------------------------


@st.composite
def geometries(draw):
    """Layers as networks have them, and some that no network has."""
    groups, kernel = draw(st.sampled_from([1, 1, 1, 2, 32])), draw(st.sampled_from([1, 1, 3, 3, 5, 7, 11]))
    channels, filters = (groups * draw(st.sampled_from([1, 2, 3, 8, 16, 64, 160])) for _ in range(2))
    size = draw(st.sampled_from([1, 7, 8, 13, 14, 28, 32, 56, 112, 224]))
    pad = draw(st.sampled_from(["same", "same", 0, 3, kernel]))
    dilation = draw(st.sampled_from([1, 1, 1, 2, 6]))
    size = max(size, (kernel - 1) * dilation + 1)
    batch = draw(st.sampled_from([1, 2, 8, 32, 100, 256]))
    stride = draw(st.sampled_from([1, 1, 2, 3, 4]))
    weight_shape = (filters, channels // groups, kernel, kernel)
    return conv2d_geometry("test", (batch, channels, size, size), weight_shape, stride, pad, dilation, groups)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", GENERAL)
@given(g=geometries(), crew=st.sampled_from([1, 2, 8]), layout=st.sampled_from([CHANNELS_FIRST, CHANNELS_LAST]))
def test_workspaces_hold_the_bound(row, dtype, g, crew, layout):
    """Nothing is allocated: `tests/functional/test_explain.py` holds the workspaces against what is."""
    dtype = np.dtype(dtype)
    assume(why_not(row, g, dtype) is None)
    for name in PASSES:
        call = calls.decide("test", row, g, dtype, name, layout)
        images = call.images(crew)
        inputs = np.prod(g.y_shape if name == "input_grad" else g.x_shape)
        taken = counted_bytes(call.of_batch(images).spaces(crew))
        bound = max(32 * MIB, 2 * inputs * dtype.itemsize)
        if name != "weight_grad":
            assert taken <= bound or images == 1, (name, g, crew, taken / MIB)
            # What is cut is not cut further than it must be: with twice the images it would not have fitted.
            more = min(g.batch, 2 * images + 2)
            assert images == g.batch or counted_bytes(call.of_batch(more).spaces(crew)) > bound
        elif not (layout.channels_last and row == "reference"):  # it turns all images, and needs nothing else
            one_total = -(-16384 // (g.out_h * g.out_w)) + 1
            few = counted_bytes(call.of_batch(min(g.batch, one_total)).spaces(crew))
            assert taken <= max(bound, few), (name, g, crew, taken / MIB)


def test_what_one_image_needs_it_gets():
    """The exception: images of one pixel, each of whose planes are larger than all that workspaces may take."""
    x, weight = np.ones((3, 2048, 1, 1), "f4"), np.ones((1, 2048, 3, 3), "f4")
    g = conv2d_geometry("test", x.shape, weight.shape, 1, 40, 1, 1)
    call = calls.decide("test", "implicit", g, np.dtype("f4"), "forward")
    assert call.images(1) == 1
    assert counted_bytes(call.of_batch(1).spaces(1)) > call.limit()
    assert conv2d(x, weight, padding=40, algorithm="implicit").sum() == 3 * 2048 * 9


@given(g=geometries(), batch=st.sampled_from([1, 40, 1000]))
def test_a_weight_gradient_that_is_turned_is_cut_by_groups(g, batch):
    g = g._replace(batch=batch, in_channels=g.out_channels, groups=g.out_channels)  # depthwise
    part = turning._some_groups(g, np.dtype("f4"))
    assert g.groups % part.groups == 0
    taken = 4 * (np.prod(part.x_shape) + np.prod(part.y_shape))
    assert taken <= max(16 * MIB, 4 * np.prod(g.x_shape)) or part.groups == 1


def test_groups_of_a_turned_weight_gradient_have_the_same_bits(monkeypatch):
    rng, seen, cut = np.random.default_rng(0), [], turning._some_groups
    x, dy = rng.standard_normal((3, 12, 7, 9)), rng.standard_normal((3, 24, 7, 9))
    wanted = conv2d_weight_grad(dy, x, 3, padding=1, groups=12)
    for room in (0, 60_000, 1 << 30):
        monkeypatch.setattr(turning, "workspace_limit", lambda elements, dtype, room=room: room)
        forget()
        cut.cache_clear()  # behind what stands in its place
        monkeypatch.setattr(
            turning, "_some_groups", lambda g, dtype: seen.append(cut(g, dtype).groups) or cut(g, dtype)
        )
        got = conv2d_weight_grad(*(np.moveaxis(a, 1, -1) for a in (dy, x)), 3, padding=1, groups=12, layout="NHWC")
        assert got.tobytes() == wanted.tobytes()
    forget()
    cut.cache_clear()
    assert sorted(set(seen)) == [1, 6, 12]
