"""With NUMBA_DISABLE_JIT=1 the same calls run uncompiled, and give the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convjit

X = np.random.default_rng(0).standard_normal((2, 2, 5, 4))
W = np.random.default_rng(1).standard_normal((4, 1, 3, 2))
BIAS = np.array([0.5, -1.0, 2.0, 0.0])
OPTIONS = {"stride": (2, 1), "padding": "same", "dilation": (1, 2), "groups": 2}
EDGES = {"groups": 2, "padding": ((1, 0), (0, 2)), "padding_mode": "reflect"}


def results(dtype):
    """Every operation on a tiny problem, by name."""
    x, weight, bias = X.astype(dtype), W.astype(dtype), BIAS.astype(dtype)
    y = convjit.conv2d(x, weight, bias, **OPTIONS)
    dx, dw, db = convjit.conv2d_backward(y, x, weight, **OPTIONS)
    edges = convjit.conv2d(x, weight, **EDGES)
    edges_dx, edges_dw, _ = convjit.conv2d_backward(edges, x, weight, **EDGES)
    columns = convjit.im2col(x, (3, 2), 2, 1)
    best, where = convjit.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)
    return {
        "y": y, "dx": dx, "dw": dw, "db": db, "edges": edges, "edges_dx": edges_dx, "edges_dw": edges_dw,
        "columns": columns, "images": convjit.col2im(columns, (5, 4), (3, 2), 2, 1),
        "turned": convjit.conv_transpose2d(edges, weight, groups=2, stride=2),
        "padded": convjit.pad2d(x, 2, mode="symmetric"), "unpadded": convjit.pad2d_backward(x, 1, mode="wrap"),
        "best": best, "where": where, "best_back": convjit.max_pool2d_backward(best, x, 3, 2, 1, ceil_mode=True),
        "mean": convjit.avg_pool2d(x, 3, 2, 1), "mean_back": convjit.avg_pool2d_backward(x, (10, 8), 2),
        "whole": convjit.avg_pool2d(x, (5, 4)), "largest": convjit.max_pool2d(x, (5, 4)),
        "whole_back": convjit.avg_pool2d_backward(x[:, :, :1, :1], (5, 4), (5, 4)),
        # Of windows of which some see no pixel.
        "none": convjit.avg_pool2d(x[:, :, :1], (2, 1), 1, (1, 0), (2, 1), count_include_pad=False),
        "none_back": convjit.avg_pool2d_backward(
            x[:, :, :1], (1, 4), (2, 1), 1, (1, 0), (2, 1), count_include_pad=False
        ),
        # Of which the first taps lie beside the image.
        "beside_back": convjit.avg_pool2d_backward(x[:, :, :1, :2], (1, 2), (1, 4), 1, ((0, 0), (3, 0))),
        "seed": convjit.image_to_column(x, (3, 3), 1),
    }  # fmt: skip


def main(folder):
    for dtype in ("float32", "float64", "int16"):
        np.savez(Path(folder) / f"{dtype}.npz", **results(dtype))


@pytest.fixture(scope="module")
def uncompiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uncompiled")
    code = (
        "import sys, warnings; warnings.simplefilter('error'); "
        f"sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_disabled_jit as t; t.main({str(folder)!r})"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_uncompiled_results_have_the_same_bits(dtype, uncompiled):
    loaded = np.load(uncompiled / f"{dtype}.npz")
    compiled = results(dtype)
    assert set(loaded.files) == set(compiled)
    for name, wanted in compiled.items():
        got = loaded[name]
        assert got.dtype == wanted.dtype, name
        assert got.shape == wanted.shape, name
        assert got.tobytes() == wanted.tobytes(), name
