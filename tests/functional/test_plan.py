"""Plans give the bits of `conv2d`, keep what is theirs, and pack a weight once."""

import copy
import pickle
import threading

import numpy as np
import pytest
from decisions import forget
from hypothesis import given
from hypothesis import strategies as st
from rows import GENERAL

from convjit import Conv2DPlan, algorithms, conv1d_plan, conv2d, conv2d_plan, conv3d_plan
from convjit.algorithms import ALGORITHMS, Packing, Space
from convjit.algorithms.algorithm import each_call
from convjit.functional import bilinear
from convjit.functional.planning import _KEPT
from convjit.testing import PADDING_MODES, conv2d_cases, real_arrays

DTYPES = ["bool", "int8", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128"]


def assert_same(got, wanted):
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()


def arrays(x_dtype, weight_dtype, bias_dtype="int8"):
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 4, 7, 8), "weight": (6, 2, 3, 2), "bias": (6,)}
    drawn = [rng.integers(0, 9, shape) / 2 + 0.25j * rng.integers(0, 9, shape) for shape in shapes.values()]
    dtypes = (x_dtype, weight_dtype, bias_dtype)
    return [(a if np.dtype(d).kind == "c" else a.real).astype(d) for a, d in zip(drawn, dtypes, strict=True)]


@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize("x_dtype", DTYPES)
def test_every_pair_of_dtypes(x_dtype, weight_dtype):
    x, weight, bias = arrays(x_dtype, weight_dtype)
    for given_bias in (None, bias, bias.astype(weight_dtype), bias.astype("complex64")):
        plan = conv2d_plan(weight, given_bias, 2, 1, groups=2)
        for images in (x, x[0], x[:, :, ::-1]):
            wanted = conv2d(images, weight, given_bias, 2, 1, groups=2)
            assert_same(plan(images), wanted)
            out = np.full(wanted.shape, 77, wanted.dtype)
            assert plan(images, out=out) is out
            assert_same(out, wanted)


@pytest.mark.parametrize("algorithm", [*GENERAL, "auto", "fastest"])
@given(data=st.data())
def test_drawn_problems(data, algorithm):
    case = data.draw(conv2d_cases("float32", real_arrays))
    plan = conv2d_plan(case.weight, case.bias, **case.problem.options, algorithm=algorithm)
    wanted = conv2d(case.x, case.weight, case.bias, **case.problem.options, algorithm=algorithm)
    assert_same(plan(case.x), wanted)
    assert_same(plan(case.x), wanted)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_padding_modes(mode):
    x, weight, bias = arrays("float64", "float32")
    plan = conv2d_plan(weight, bias, padding=2, groups=2, padding_mode=mode)
    assert_same(plan(x), conv2d(x, weight, bias, padding=2, groups=2, padding_mode=mode))


def test_more_shapes_than_are_kept():
    plan, weight = conv2d_plan(np.ones((1, 1, 2, 2))), np.ones((1, 1, 2, 2))
    for size in [*range(2, _KEPT + 9), 2]:
        x = np.ones((1, size, 3))
        assert_same(plan(x), conv2d(x, weight))
    assert len(plan._decisions) <= _KEPT


def test_what_callers_write_does_not_show():
    x, weight, bias = arrays("float64", "float64", "float64")
    stride, padding = [2, 1], np.array([[1, 0], [2, 1]])
    wanted = conv2d(x, weight, bias, stride, padding, groups=2)
    plan = conv2d_plan(weight, bias, stride, padding, groups=2)
    weight[...], bias[...], stride[0], padding[...] = 0, 0, 1, 0
    assert_same(plan(x), wanted)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128", "int8", "bool"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 0, 2, 2), (300, 500, 1, 1)])
def test_weights_are_read_only_for_good(shape, dtype):
    weight = np.ones(shape, dtype)
    plan = conv2d_plan(weight, np.ones(shape[0], dtype))
    assert plan.weight.flags.c_contiguous
    assert_same(plan.weight, weight)
    for array in (plan.weight, plan.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_plan_on_one_line():
    plan = conv2d_plan(np.ones((4, 1, 3, 3), "f4"), np.ones(4), 2, "same", groups=2, algorithm="reference")
    assert repr(plan) == (
        "<Conv2DPlan of weight float32 (4, 1, 3, 3) and bias, stride (2, 2), padding 'same', groups 2, "
        "algorithm 'reference'>"
    )
    assert repr(conv2d_plan(np.ones((1, 1, 1, 1)))) == "<Conv2DPlan of weight float64 (1, 1, 1, 1)>"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_copies_give_the_same_bits(again):
    x, weight, bias = arrays("float32", "float32")
    plan = conv2d_plan(weight, bias, 2, "same", groups=2, padding_mode="edge")
    wanted = plan(x)
    copied = again(plan)
    assert type(copied) is Conv2DPlan
    assert repr(copied) == repr(plan)
    assert not copied.weight.flags.writeable
    assert_same(copied(x), wanted)


# --- errors ---------------------------------------------------------------------------------------------------------

WEIGHT = np.ones((4, 2, 3, 3))
AT_ONCE = {
    "rank": (lambda: conv2d_plan(np.ones((3, 3))), ValueError, "expected weight of shape"),
    "no filter": (lambda: conv2d_plan(WEIGHT[:0]), ValueError, "at least one output channel"),
    "kind": (lambda: conv2d_plan("weight"), TypeError, "weight must be a real or complex numeric array"),
    "dtype": (lambda: conv2d_plan(WEIGHT.astype(np.longdouble)), TypeError, "longdouble|float128|float96"),
    "bias": (lambda: conv2d_plan(WEIGHT, np.ones(3)), ValueError, r"bias must have shape \(4,\)"),
    "dtype of bias": (lambda: conv2d_plan(WEIGHT, np.array(["a"] * 4)), TypeError, "bias"),
    "stride": (lambda: conv2d_plan(WEIGHT, stride=0), ValueError, "stride must be >= 1"),
    "dilation": (lambda: conv2d_plan(WEIGHT, dilation=1 << 31), ValueError, "dilation must be at most"),
    "extent": (lambda: conv2d_plan(WEIGHT, dilation=1 << 30), ValueError, "too large"),
    "groups": (lambda: conv2d_plan(WEIGHT, groups=3), ValueError, "groups=3 must divide"),
    "kind of groups": (lambda: conv2d_plan(WEIGHT, groups=1.0), TypeError, "groups must be"),
    "padding": (lambda: conv2d_plan(WEIGHT, padding="sane"), ValueError, "padding must be 'valid'"),
    "negative padding": (lambda: conv2d_plan(WEIGHT, padding=-1), ValueError, "padding must be >= 0"),
    "padding mode": (lambda: conv2d_plan(WEIGHT, padding_mode="zeros"), ValueError, "padding_mode must be one of"),
    "algorithm": (lambda: conv2d_plan(WEIGHT, algorithm="best"), ValueError, "algorithm must be one of"),
    "kind of algorithm": (lambda: conv2d_plan(WEIGHT, algorithm=1), TypeError, "algorithm must be a string"),
    "keyword": (lambda: conv2d_plan(WEIGHT, strides=1), TypeError, "it is called 'stride' here"),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_needs_no_image_is_refused_at_once(name):
    make, error, said = AT_ONCE[name]
    with pytest.raises(error, match=said) as caught:
        make()
    assert str(caught.value).startswith("conv2d_plan: ")


X = np.ones((1, 2, 5, 5))
PER_CALL = {
    "channels": (lambda plan: plan(X[:, :1]), ValueError, "weight expects 2 input channels"),
    "rank": (lambda plan: plan(X[0, 0]), ValueError, "expected x of shape"),
    "kernel": (lambda plan: plan(X[..., :2]), ValueError, "is larger than the padded input"),
    "kind": (lambda plan: plan(None), TypeError, "x must be"),
    "dtype": (lambda plan: plan(X.astype(np.longdouble)), TypeError, "x has dtype"),
    "out": (lambda plan: plan(X, out=X), ValueError, "out must have shape"),
    "kind of out": (lambda plan: plan(X, [1]), TypeError, "out must be a NumPy array"),
    "keyword": (lambda plan: plan(X, stride=1), TypeError, "unknown keyword 'stride'; it takes x, out"),
    "name of x": (lambda plan: plan(images=X), TypeError, "it is called 'x' here"),
    "memory": (
        lambda plan: plan(np.broadcast_to(1.0, (1 << 20, 2, 1 << 10, 1 << 10))), MemoryError, "needs .* more than"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PER_CALL)
def test_what_needs_the_image_is_refused_at_the_call(name):
    call, error, said = PER_CALL[name]
    with pytest.raises(error, match=said) as caught:
        call(conv2d_plan(WEIGHT))
    assert str(caught.value).startswith("conv2d_plan: ")


def test_out_that_overlaps_the_images():
    room = np.ones((1, 4, 5, 5))
    with pytest.raises(ValueError, match="conv2d_plan: out overlaps x"):
        conv2d_plan(np.ones((4, 4, 1, 1)))(room, out=room)


# --- threads --------------------------------------------------------------------------------------------------------


def test_many_threads_at_once():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 3, 3, 3))
    images = [rng.standard_normal((2, 3, size, size)).astype(d) for size in (5, 9, 40) for d in ("f4", "f8", "c8")]
    wanted = [conv2d(x, weight, padding=1).tobytes() for x in images]
    plan, wrong, start = conv2d_plan(weight, padding=1), [], threading.Barrier(8)

    def work(first):
        start.wait()
        for i in range(60):
            k = (first + i) % len(images)
            if plan(images[k]).tobytes() != wanted[k]:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- packing --------------------------------------------------------------------------------------------------------


class Packed:
    """A row that reads weights negated, as something to pack, and leaves the rest to the reference; it counts."""

    def __init__(self):
        self.packed, self.ran = 0, 0
        reference = ALGORITHMS[-1]

        def pack(workers, geometry, weight, packed):
            self.packed += 1
            np.negative(weight.reshape(-1), out=packed)

        def run(workers, geometry, x, packed, bias, y, space):
            assert not packed.flags.writeable
            assert space.shape == (geometry.batch, 3)
            self.ran += 1
            direct = reference.forward.bind(workers, geometry, y.dtype)
            direct(x, -packed.reshape(geometry.weight_shape), bias, y)

        packing = Packing(
            lambda geometry, dtype: Space((np.prod(geometry.weight_shape),)), pack, each_call(run),
            lambda geometry, workers, dtype: (Space((geometry.batch, 3), np.dtype("int8"), "three"),),
        )  # fmt: skip
        forward = reference.forward._replace(packing=packing)
        self.row = reference._replace(name="packed", forward=forward)


@pytest.fixture
def packed(monkeypatch):
    fake = Packed()
    monkeypatch.setattr(algorithms, "ALGORITHMS", (fake.row, *ALGORITHMS))
    forget()
    yield fake
    forget()


@pytest.mark.parametrize("algorithm", ["auto", "packed"])
def test_a_weight_is_packed_once_for_each_dtype_it_is_computed_in(packed, algorithm):
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((6, 2, 3, 3)).astype("f4"), rng.standard_normal(6).astype("f4")
    plan = conv2d_plan(weight, bias, groups=2, algorithm=algorithm)
    assert packed.packed == 0
    for dtype, times in (("f4", 1), ("f2", 1), ("f8", 2), ("c8", 2), ("i2", 2), ("i8", 2), ("c16", 2)):
        for shape in ((1, 4, 5, 5), (3, 4, 5, 5), (4, 9, 8), (0, 4, 5, 5)):
            x = rng.standard_normal(shape).astype(dtype)
            assert_same(plan(x), conv2d(x, weight, bias, groups=2, algorithm="reference"))
        assert packed.packed == times, dtype
    assert packed.ran > 10


def test_both_parts_of_a_complex_weight_are_packed(packed):
    x, weight, bias = arrays("float32", "complex64")
    plan = conv2d_plan(weight, bias, groups=2)
    assert_same(plan(x), conv2d(x, weight, bias, groups=2, algorithm="reference"))
    assert_same(plan(x), conv2d(x, weight, bias, groups=2, algorithm="reference"))
    assert packed.packed == 2


def test_copies_pack_anew_and_pickles_hold_no_packed_weight(packed):
    weight = np.ones((50, 40, 3, 3), "f4")
    plan = conv2d_plan(weight)
    before = len(pickle.dumps(plan))
    plan(np.ones((40, 4, 4), "f4"))
    assert len(pickle.dumps(plan)) == before < 1.2 * weight.nbytes
    pickle.loads(pickle.dumps(plan))(np.ones((40, 4, 4), "f4"))
    assert packed.packed == 2


@pytest.mark.parametrize(
    ("make", "weight", "options", "reason"),
    [
        (conv2d_plan, (2, 2, 5, 5), {"algorithm": "winograd"}, "3x3 kernels, not 5x5"),
        (conv2d_plan, (2, 2, 3, 3), {"algorithm": "winograd", "stride": 3}, "strides 1 and 2 of both axes, not 3x3"),
        (conv2d_plan, (2, 2, 3, 3), {"algorithm": "depthwise"}, "2 input channels"),
        (conv1d_plan, (2, 2, 3), {"algorithm": "winograd"}, "3x3 kernels, not 1x3"),
        (conv3d_plan, (2, 2, 3, 3, 3), {"algorithm": "winograd", "stride": 3}, "strides 1 and 2 of both axes, not 3x3"),
    ],
)
def test_a_plan_is_refused_that_no_image_could_use(make, weight, options, reason):
    with pytest.raises(ValueError, match=f"^{make.__name__}: algorithm .* cannot run here: .*{reason}"):
        make(np.ones(weight), **options)


def test_nothing_is_chosen_before_there_is_an_image(monkeypatch):
    """What is expected of algorithms depends on the dtype of the images that come."""
    monkeypatch.setattr(bilinear, "decide_any", None)
    for make, rank in ((conv1d_plan, 1), (conv2d_plan, 2), (conv3d_plan, 3)):
        for algorithm in ("auto", "fastest"):
            make(np.ones((2, 2, *(3,) * rank), np.float32), algorithm=algorithm)
