"""Input gradients as products, phase by phase of a stride: the bits of the reference wherever results belong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from same_bits import REFERENCE, windows

from convjit import conv2d_input_grad
from convjit.functional import batches
from convjit.gemm import product
from convjit.testing import Problem

DTYPES = ["float32", "float64", "int64"]

AWKWARD = {
    "stride of 2": Problem((2, 5, 11, 12), (7, 5, 3, 3), stride=2, padding=1),
    "even rows": Problem((1, 9, 8, 8), (3, 9, 2, 2), stride=2),
    "odd rows": Problem((1, 9, 9, 9), (3, 9, 3, 3), stride=2, padding=1),
    "phases without taps": Problem((2, 6, 9, 13), (4, 6, 1, 1), stride=2),
    "stride of 3": Problem((2, 5, 11, 14), (7, 5, 3, 3), stride=3, padding=1),
    "stride of 4": Problem((1, 3, 14, 19), (2, 3, 5, 5), stride=4, padding=2),
    "rows alone": Problem((2, 4, 12, 9), (3, 4, 3, 3), stride=(2, 1), padding=1),
    "columns alone": Problem((2, 4, 12, 9), (3, 4, 3, 3), stride=(1, 2), padding=1),
    "two columns": Problem((2, 4, 9, 2), (3, 4, 3, 2), stride=(2, 3), padding=(1, 0)),
    "one column": Problem((2, 4, 9, 1), (3, 4, 3, 1), stride=(2, 2), padding=(1, 0)),
    "rows of several tiles": Problem((1, 2, 5, 578), (3, 2, 3, 3), stride=2, padding=1),
    "a tile's last column is one": Problem((1, 2, 3, 577), (3, 2, 3, 3), stride=(1, 2), padding=1),
    "several tiles of rows": Problem((1, 3, 75, 47), (2, 3, 3, 3), stride=2, padding=1),
    "dilation": Problem((1, 3, 25, 24), (2, 3, 3, 3), stride=2, dilation=3, padding=3),
    "stride and dilation share a factor": Problem((1, 3, 25, 24), (2, 3, 3, 3), stride=4, dilation=2, padding=3),
    "groups": Problem((2, 12, 13, 12), (18, 4, 3, 3), groups=3, stride=2, padding=1),
    "behind the last output": Problem((1, 3, 12, 12), (2, 3, 3, 3), stride=(5, 2)),
    "more than a chunk of channels": Problem((1, 301, 6, 6), (2, 301, 3, 3), stride=2, padding=1),
    "one total in some phases, two in others": Problem((1, 2, 4, 5), (9000, 2, 2, 3), stride=2, padding=(0, 1)),
}


def gradient(problem, dtype, algorithm, seed=0):
    rng = np.random.default_rng(seed)
    dy, weight = (9 * rng.standard_normal(shape) for shape in (problem.y_shape, problem.weight_shape))
    return conv2d_input_grad(
        dy.astype(dtype), weight.astype(dtype), problem.x_shape[2:], **problem.options, algorithm=algorithm
    )  # fmt: skip


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, monkeypatch):
    wanted = gradient(AWKWARD[name], dtype, REFERENCE)
    for crew in (1, 2, 5):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        assert gradient(AWKWARD[name], dtype, "implicit").tobytes() == wanted.tobytes()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", AWKWARD)
def test_planes_in_place_or_packed_panels(name, in_place, anew, monkeypatch):
    wanted = gradient(AWKWARD[name], "float32", REFERENCE)
    monkeypatch.setattr(product, "_pays_in_place", lambda *arguments: in_place)
    assert gradient(AWKWARD[name], "float32", "implicit").tobytes() == wanted.tobytes()


@st.composite
def problems(draw):
    kernel, image, options = draw(windows())
    groups, channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    return Problem(
        (draw(st.integers(1, 2)), groups * channels, *image), (groups * filters, channels, *kernel), groups=groups,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@given(problem=problems(), seed=st.integers(0, 1 << 20))
def test_drawn_problems(problem, seed, dtype):
    wanted = gradient(problem, dtype, REFERENCE, seed)
    assert gradient(problem, dtype, "implicit", seed).tobytes() == wanted.tobytes()
