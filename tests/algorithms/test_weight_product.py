"""Weight gradients as sums over pixels: the bits of the reference, whatever panel, chunk or total holds a sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from same_bits import REFERENCE, windows
from same_bits import weight_gradient as gradient

from convjit import conv2d_backward, conv2d_weight_grad
from convjit.algorithms import weight_product
from convjit.functional import batches
from convjit.gemm import pixel_sums
from convjit.geometry import conv2d_geometry
from convjit.testing import Problem

pytestmark = pytest.mark.usefixtures("poisoned")

DTYPES = ["float32", "float64", "int64"]


def problem(batch, channels, image, filters, kernel, groups=1, **options):
    return Problem((batch, channels, *image), (filters, channels // groups, *kernel), groups=groups, **options)


AWKWARD = {
    "one of everything": problem(1, 1, (1, 1), 1, (1, 1)),
    "more rows than a task takes": problem(1, 70, (4, 5), 3, (3, 3), padding=1),
    "several panels": problem(2, 3, (6, 7), 150, (2, 2)),
    "a last panel of one filter": problem(1, 2, (5, 5), 65, (3, 3)),
    "blocks that end in images": problem(7, 2, (9, 7), 5, (3, 3), padding=1),
    "images of less than a row of lanes": problem(200, 3, (1, 2), 4, (1, 1)),
    "one total": problem(4, 2, (64, 64), 3, (1, 1)),
    "one total and a pixel": problem(1, 1, (5, 3277), 2, (1, 1)),
    "totals that end in images": problem(5, 2, (90, 91), 3, (3, 3), padding=1),
    "four totals": problem(16, 1, (64, 64), 33, (3, 3), padding=1),
    "1x1, filters in rows": problem(2, 17, (7, 9), 300, (1, 1)),
    "1x1, filters in rows, whole vectors": problem(3, 64, (7, 9), 70, (1, 1)),
    "1x1, filters in rows, several totals": problem(5, 20, (64, 65), 22, (1, 1)),
    "1x1, filters in lanes, several totals": problem(5, 22, (64, 65), 20, (1, 1)),
    "1x1, groups of filters in rows": problem(2, 6, (9, 10), 15, (1, 1), groups=3),
    "1x1, groups and totals": problem(3, 6, (90, 91), 10, (1, 1), groups=2),
    "1x1, padded": problem(2, 6, (9, 10), 15, (1, 1), padding=1),
    "stride of 2": problem(3, 5, (21, 20), 18, (3, 3), stride=2, padding=1),
    "dilation with a stride": problem(2, 4, (25, 24), 20, (3, 2), stride=(2, 3), dilation=(3, 2), padding=3),
    "64 channels": problem(3, 64, (9, 8), 9, (3, 2), stride=2, padding=((1, 2), (0, 1))),
    "groups": problem(3, 12, (9, 10), 60, (3, 3), groups=3, padding=1),
    "groups and totals": problem(3, 4, (90, 91), 6, (3, 3), groups=2, padding=1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_problems(name, dtype, monkeypatch):
    wanted = gradient(AWKWARD[name], dtype, REFERENCE)
    for crew in (1, 2, 5):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        for layout in ("NCHW", "NHWC"):
            assert gradient(AWKWARD[name], dtype, "implicit", layout=layout).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["float16", *DTYPES])
@pytest.mark.parametrize("name", AWKWARD)
def test_the_bias_gradient_is_the_same_on_the_way(name, dtype, monkeypatch):
    """With the weight's gradient, from what is packed for it, or alone."""
    each, rng = AWKWARD[name], np.random.default_rng(2)
    x, dy = ((9 * rng.standard_normal(shape)).astype(dtype) for shape in (each.x_shape, each.y_shape))
    weight = np.zeros(each.weight_shape, dtype)
    for crew, layout in ((1, "NCHW"), (3, "NCHW"), (3, "NHWC")):
        monkeypatch.setattr(batches, "workers", lambda _, crew=crew: crew)
        options = {**each.options, "algorithm": "implicit", "layout": layout}
        if layout == "NHWC":
            dy, x = np.moveaxis(dy, -3, -1), np.moveaxis(x, -3, -1)
        _, dw, db = conv2d_backward(dy, x, weight, **options)
        _, _, alone = conv2d_backward(dy, x, weight, **options, need=(False, False, True))
        assert db.dtype == dw.dtype == alone.dtype == dtype
        assert db.tobytes() == alone.tobytes()
        assert dw.tobytes() == conv2d_weight_grad(dy, x, each.weight_shape[2:], **options).tobytes()


@pytest.mark.parametrize("name", ["totals that end in images", "four totals", "groups and totals"])
@pytest.mark.parametrize("crew", [1, 3])
def test_the_bias_gradient_is_the_same_where_images_are_filled_some_at_a_time(crew, name, anew, monkeypatch):
    each, rng = AWKWARD[name], np.random.default_rng(2)
    x, dy = (rng.standard_normal(shape).astype("f4") for shape in (each.x_shape, each.y_shape))
    given = dy, x, np.zeros(each.weight_shape, "f4")
    _, _, alone = conv2d_backward(*given, **each.options, need=(False, False, True))
    monkeypatch.setattr(batches, "workers", lambda _: crew)
    monkeypatch.setattr(weight_product, "workspace_limit", lambda elements, dtype: 0)
    assert conv2d_backward(*given, **each.options, algorithm="implicit")[2].tobytes() == alone.tobytes()


def test_most_bias_gradients_are_summed_on_the_way():
    def sums(x_shape, weight_shape):
        g = conv2d_geometry("test", x_shape, weight_shape, 1, 0, 1, 1)
        return weight_product.sums_bias(g, np.dtype("float32"))

    assert sums((4, 3, 66, 66), (8, 3, 3, 3))
    assert sums((5, 3, 66, 66), (8, 3, 3, 3))  # two totals
    assert not sums((1, 64, 9, 9), (256, 64, 1, 1))  # the output gradient is not what is packed
    assert sums((1, 256, 9, 9), (64, 256, 1, 1))
    assert not sums((1, 0, 9, 9), (8, 0, 3, 3))


@pytest.mark.parametrize("rows", [1, 7, 24])
@pytest.mark.parametrize("name", ["more rows than a task takes", "groups", "totals that end in images"])
def test_chunks_of_any_size_give_the_same_bits(name, rows, anew, monkeypatch):
    wanted = gradient(AWKWARD[name], "float32", REFERENCE)
    monkeypatch.setattr(pixel_sums, "_MOST_ROWS", rows)
    assert gradient(AWKWARD[name], "float32", "implicit").tobytes() == wanted.tobytes()


@st.composite
def problems(draw):
    kernel, image, options = draw(windows())
    groups, channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(st.integers(1, 70))
    return problem(draw(st.integers(1, 5)), channels * groups, image, filters * groups, kernel, groups, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@given(each=problems(), seed=st.integers(0, 1 << 20))
def test_drawn_problems(each, seed, dtype):
    assert gradient(each, dtype, "implicit", seed).tobytes() == gradient(each, dtype, REFERENCE, seed).tobytes()


def test_totals_are_summed_at_once_only_where_workers_would_wait():
    dtype = np.dtype("float32")
    few = conv2d_geometry("test", (16, 1, 64, 64), (3, 1, 3, 3), 1, 1, 1, 1)
    many = conv2d_geometry("test", (16, 64, 64, 64), (256, 64, 3, 3), 1, 1, 1, 1)
    assert weight_product._plan(few, 1, dtype)[1] == 1
    assert weight_product._plan(few, 2, dtype)[1] == 4
    assert weight_product._plan(many, 2, dtype)[1] == 1
