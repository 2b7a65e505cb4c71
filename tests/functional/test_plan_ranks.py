"""Plans of sequences and volumes give the bits of their functions, and pack a weight once."""

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import GENERAL
from spatial import MODES, RANKS, arrays_of, function, real, spatials

from convjit import Conv1DPlan, Conv3DPlan, conv1d_plan, conv3d_plan
from convjit.algorithms.algorithm import PACKED_WEIGHT
from convjit.functional import kept, slicing
from convjit.testing import real_arrays


def assert_same(got, wanted):
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("algorithm", [*GENERAL, "auto", "fastest"])
@given(data=st.data())
def test_drawn_problems(rank, algorithm, data):
    problem = data.draw(spatials(rank, MODES))
    x, weight, bias, _ = data.draw(arrays_of(problem, "float32", real_arrays))
    plan = function("conv2d_plan", rank)(weight, bias, **problem.options, algorithm=algorithm)
    wanted = function("conv2d", rank)(x, weight, bias, **problem.options, algorithm=algorithm)
    out = np.full(wanted.shape, 77, wanted.dtype)
    assert_same(plan(x), wanted)
    assert plan(x, out=out) is out
    assert_same(out, wanted)
    assert_same(plan(x[0]), wanted[0])


# Volumes that are read as they lie, with and without padding, and so few points that their tasks pack weights; slices
# that are gathered some at a time; one plane, and one long row, which are images.
VOLUMES = {
    "padded": ((2, 16, 6, 12, 12), (24, 16, 3, 3, 3), {"padding": 1}),
    "in place": ((1, 8, 9, 10, 11), (40, 8, 2, 2, 2), {}),
    "groups": ((2, 16, 4, 9, 9), (24, 8, 3, 3, 3), {"padding": (1, 0, 2), "groups": 2}),
    "few points": ((1, 12, 2, 4, 4), (20, 12, 2, 3, 3), {}),
    "a stride": ((1, 16, 9, 60, 60), (16, 16, 3, 3, 3), {"stride": 2, "padding": 1}),
    "a plane": ((2, 8, 1, 12, 12), (16, 8, 1, 3, 3), {"padding": (0, 1, 1)}),
    "rows": ((1, 8, 5, 8, 8), (16, 8, 3, 1, 1), {}),
}


@pytest.fixture
def packings(monkeypatch):
    """Bytes of weights that were packed for a call, and how often one was packed for a plan."""
    seen = []
    allocate = slicing.allocate

    def counted(function, what, shape, dtype, *aligned_from):
        array = allocate(function, what, shape, dtype, *aligned_from)
        if what in (PACKED_WEIGHT, "the packed weight") and array.nbytes:
            seen.append(what)
        return array

    monkeypatch.setattr(kept, "CALLS", 0)
    for module in (kept, slicing):
        monkeypatch.setattr(module, "allocate", counted)
    return seen


@pytest.mark.parametrize("dtypes", ["f4 f4", "f4 f8", "f4 c8", "i8 i8"])
@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_of_every_kind(name, dtypes, packings):
    shape, weight_shape, options = VOLUMES[name]
    x_dtype, weight_dtype = dtypes.split()
    x, weight = (8 * real(size, dtype, 1) for size, dtype in ((shape, x_dtype), (weight_shape, weight_dtype)))
    bias = real((weight_shape[0],), weight_dtype, 2)
    algorithm = "auto" if "i8" in dtypes else "direct"
    wanted = function("conv2d", 3)(x, weight, bias, **options, algorithm=algorithm)
    del packings[:]
    plan = conv3d_plan(weight, bias, **options, algorithm=algorithm)
    for _ in range(2):
        assert_same(plan(x), wanted)
        assert_same(plan(x[:1]), wanted[:1])
        assert_same(plan(x[0]), wanted[0])
    once = [] if algorithm == "auto" else ["the packed weight"]
    assert packings == once * (2 if "c8" in dtypes else 1)


def test_one_plan_for_volumes_that_are_run_in_different_ways():
    """Weights are seen as those of images where a volume is one, and packed for each way."""
    weight = real((16, 8, 1, 3, 3), "f4", 0)
    plan = conv3d_plan(weight, padding=(0, 1, 1))
    for depth in (1, 5, 1, 3):
        x = real((2, 8, depth, 9, 9), "f4", depth)
        assert_same(plan(x), function("conv2d", 3)(x, weight, padding=(0, 1, 1)))
    line = real((16, 8, 1, 1, 1), "f4", 0)
    plan = conv3d_plan(line, stride=(2, 1, 1))
    for depth in (1, 5):
        x = real((2, 8, depth, 9, 9), "f4", depth)
        assert_same(plan(x), function("conv2d", 3)(x, line, stride=(2, 1, 1)))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_copies_give_the_same_bits(again):
    for make, kind, size in ((conv1d_plan, Conv1DPlan, (9,)), (conv3d_plan, Conv3DPlan, (5, 6, 7))):
        plan = make(np.ones((4, 1, *(2,) * len(size)), "f4"), np.ones(4), 2, "same", groups=2, padding_mode="edge")
        x = real((2, 2, *size), "f4", 0)
        wanted, copied = plan(x), again(plan)
        assert type(copied) is kind
        assert repr(copied) == repr(plan) == (
            f"<{kind.__name__} of weight float32 {plan.weight.shape} and bias, stride {(2,) * len(size)}, "
            "padding 'same', groups 2, padding_mode 'edge'>"
        )  # fmt: skip
        assert_same(copied(x), wanted)
    assert repr(conv1d_plan(np.ones((1, 1, 1)))) == "<Conv1DPlan of weight float64 (1, 1, 1)>"


def test_many_threads_at_once():
    weight = real((8, 3, 3, 3, 3), "f4", 0)
    volumes = [real((1, 3, size, 8, 9), dtype, size) for size in (3, 8, 12) for dtype in ("f4", "f8")]
    wanted = [function("conv2d", 3)(x, weight, padding=1).tobytes() for x in volumes]
    plan, wrong, start = conv3d_plan(weight, padding=1), [], threading.Barrier(6)

    def work(first):
        start.wait()
        wrong.extend(
            k for i in range(20) if plan(volumes[k := (first + i) % len(volumes)]).tobytes() != wanted[k]
        )  # fmt: skip

    threads = [threading.Thread(target=work, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


ERRORS = {
    "rank": (lambda: conv1d_plan(np.ones((1, 1, 1, 1))), ValueError, r"conv1d_plan: expected weight of shape \(O, C/g"),
    "padding": (lambda: conv3d_plan(np.ones((1,) * 5), padding=(1, 2)), ValueError, "conv3d_plan: padding must have"),
    "stride": (lambda: conv3d_plan(np.ones((1,) * 5), stride=(1, 2)), ValueError, "conv3d_plan: stride must have"),
    "layout": (lambda: conv1d_plan(np.ones((1,) * 3), layout="NHWC"), TypeError, "conv1d_plan: unknown keyword 'lay"),
    "x": (lambda: conv3d_plan(np.ones((1,) * 5))(np.ones((1, 1, 1))), ValueError, r"conv3d_plan: expected x of shape"),
    "channels": (lambda: conv1d_plan(np.ones((1,) * 3))(np.ones((2, 5))), ValueError, "conv1d_plan: weight expects 1"),
    "keyword": (lambda: conv3d_plan(np.ones((1,) * 5))(images=1), TypeError, "conv3d_plan: unknown .* called 'x' here"),
    "nothing": (lambda: conv1d_plan(), TypeError, "conv1d_plan: missing 1 required positional argument: 'weight'"),
    "no x": (lambda: conv3d_plan(np.ones((1,) * 5))(), TypeError, "conv3d_plan: missing 1 required positional arg"),
    "memory": (
        lambda: conv1d_plan(np.ones((1,) * 3))(np.broadcast_to(1.0, (1 << 20, 1, 1 << 20))), MemoryError, "conv1d_plan"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, error, said = ERRORS[name]
    with pytest.raises(error, match=f"^{said}"):
        call()
