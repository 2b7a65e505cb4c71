"""What `explain` says of sequences and volumes is what happens to them."""

from collections import OrderedDict

import numpy as np
import pytest

from convjit import conv3d, conv3d_backward, explain
from convjit.algorithms import ALGORITHMS
from convjit.functional import batches, bilinear, explaining, kept, slicing

PASSES = ("forward", "input_grad", "weight_grad")


@pytest.fixture
def allocated(monkeypatch):
    """The most bytes of what was allocated, by name; results and weights of phases aside."""
    seen = {}

    def counting(allocate):
        def counted(function, what, shape, dtype, *aligned_from):
            array, name = allocate(function, what, shape, dtype, *aligned_from), what.removeprefix("the ")
            if name not in ("result", "weight of a phase") and not name.startswith("a part"):
                seen[name] = max(seen.get(name, 0), array.nbytes)
            return array

        return counted

    for module in (kept, bilinear, slicing):
        monkeypatch.setattr(module, "allocate", counting(module.allocate))
    monkeypatch.setattr(kept, "CALLS", 0)
    monkeypatch.setattr(kept, "_kept", OrderedDict())
    return seen


VOLUMES = {
    "volumes": ((2, 16, 6, 12, 12), (24, 16, 3, 3, 3), {"padding": 1}),
    "volumes as they lie": ((1, 8, 9, 10, 11), (40, 8, 2, 2, 2), {"algorithm": "direct"}),
    "slices": ((1, 3, 9, 20, 20), (4, 3, 3, 3, 3), {"stride": 2, "padding": 1, "algorithm": "implicit"}),
    "many slices": ((2, 32, 24, 40, 40), (16, 32, 3, 3, 3), {"padding": 1, "algorithm": "implicit"}),
    "no slices": ((0, 3, 9, 20, 20), (4, 3, 3, 3, 3), {}),
    "no depth": ((1, 3, 0, 20, 20), (4, 3, 3, 3, 3), {"padding": 2}),
    "a plane": ((2, 8, 1, 12, 12), (16, 8, 1, 3, 3), {"padding": (0, 1, 1)}),
}


@pytest.mark.parametrize("crew", [1, 3])
@pytest.mark.parametrize("name", VOLUMES)
def test_workspaces_are_those_that_are_allocated(name, crew, allocated, monkeypatch):
    for module in (batches, bilinear, slicing):
        monkeypatch.setattr(module, "workers", lambda _: crew)
    monkeypatch.setattr(explaining, "workers_alone", lambda _: crew)
    shape, weight_shape, options = VOLUMES[name]
    x, weight = np.ones(shape, "f4"), np.ones(weight_shape, "f4")
    found = explain(x, weight_shape, **options)
    y = conv3d(x, weight, **options)
    assert found.problem == f"float32 x {shape}, weight {weight_shape} -> y {y.shape}"
    for which in PASSES:
        allocated.clear()
        if which == "forward":
            conv3d(x, weight, **options)
        else:
            conv3d_backward(y, x, weight, **options, need=(which == "input_grad", which == "weight_grad", False))
        one = getattr(found, which)
        if x.size:
            assert allocated == one.workspace
            assert one.workers == crew
            assert one.multiplications == y.size * weight[0].size
        assert set(one.others) | {one.algorithm} == {row.name for row in ALGORITHMS}
    how = {"volumes": "volumes planes filled once", "volumes as they lie": "volumes as they lie"}
    assert found.forward.cut.startswith(how.get(name, "slices as images of" if "slices" in name else ""))
    if name == "many slices":
        assert 1 <= found.forward.images < 2 * 24


def test_sequences():
    x, weight = np.ones((2, 4, 90), "f4"), np.ones((6, 2, 5), "f4")
    found = explain(x, weight, (6,), 2, "same", groups=2)
    assert found.problem == "float32 x (2, 4, 90), weight (6, 2, 5) -> y (2, 6, 45)"
    assert explain(x.shape, weight.shape, (6,), 2, "same", groups=2) == found
    image = explain((2, 4, 1, 90), (6, 2, 1, 5), (6,), (1, 2), "same", groups=2)
    assert found[1:] == image[1:]
    assert explain(x[0], weight, groups=2).problem.endswith("y (6, 86)")
    assert explain(x[0, :, :, None, None], weight[..., None, None], groups=2).problem.endswith("y (6, 86, 1, 1)")


def test_complex_volumes():
    x, weight = np.ones((1, 2, 4, 5, 6)) * 1j, np.ones((3, 2, 2, 2, 2)) * 1j
    assert explain(x, weight).forward.multiplications == 4 * explain(x.shape, weight.shape).forward.multiplications


ERRORS = {
    "rank": (lambda: explain((3, 3), (1, 1)), "expected weight of shape"),
    "rank of x": (lambda: explain((1, 1, 3, 3), (1, 1, 1)), r"expected x of shape \(N, C, L\) or \(C, L\)"),
    "layout": (lambda: explain((1, 3, 1), (1, 1, 1), layout="NHWC"), "layout 'NHWC' is for images, but weight is of"),
    "stride": (lambda: explain((1, 1, 3), (1, 1, 1), stride=(1, 1)), "stride must have 1 entry, got 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, said = ERRORS[name]
    with pytest.raises(ValueError, match=f"^explain: {said}"):
        call()
