"""Compiling ahead: later calls compile nothing, whatever their options, layouts and numbers of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decisions import forget

import convjit
from convjit import functional, warming, warmup
from convjit.arrays import DTYPES
from convjit.gemm import micro, product
from convjit.layers.optimizers import PUBLISHED
from convjit.simd import isa

COMPILE_NOTHING = {"determine_padding", "explain", "get_im2col_indices"}
# Layers that are more than functions, and optimizers.
BESIDES = {"Activation", "BatchNormalization", "Dense", *(kind.__name__ for kind in PUBLISHED)}


def process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CONVJIT_CACHE": "1", **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def run(code: str, **variables: str) -> Any:
    """What a fresh process prints, silent otherwise."""
    done = process(code, **variables)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_every_function_that_compiles_has_a_call():
    assert set(warming._CALLS) == set(functional.__all__) - COMPILE_NOTHING | BESIDES


WARM_UP = """
import json
import convjit
from convjit.runtime.compile import made
counts = convjit.warmup()
print(json.dumps([counts, made()]))
"""

# Calls unlike those of the warm-up; once on one thread and once on teams.
FIRST_CALLS = """
import json
import numpy as np
import convjit
from convjit.runtime import contention, emitting, threads
from convjit.runtime.compile import made

rng = np.random.default_rng(0)

def call_everything(dtype):
    x, weight = rng.normal(size=(2, 4, 9, 8)).astype(dtype), rng.normal(size=(6, 2, 3, 2)).astype(dtype)
    bias, out = np.ones(6, dtype), np.empty((2, 6, 7, 7), dtype)
    options = dict(stride=(2, 1), padding=((2, 1), (0, 1)), dilation=2, groups=2)
    for mode in ("constant", "reflect", "wrap"):
        y = convjit.conv2d(np.asfortranarray(x), weight, **options, padding_mode=mode)
        convjit.conv2d_backward(y, x, weight, **options, padding_mode=mode)
        convjit.conv2d_input_grad(y[0], weight, (9, 8), **options, padding_mode=mode)
        convjit.conv2d_input_grad(y[0], weight, (9, 8), **options, padding_mode=mode, algorithm="implicit")
        convjit.conv2d_weight_grad(y, x[:, ::-1], (3, 2), **options, padding_mode=mode)
    last = np.moveaxis(x, 1, -1)
    for mode in ("constant", "wrap"):
        y = convjit.conv2d(last, weight, bias, **options, padding_mode=mode, layout="NHWC")
        convjit.conv2d_backward(y, last, weight, **options, padding_mode=mode, layout="NHWC")
    each = weight[:4, :1]
    convjit.conv2d_backward(convjit.conv2d(last, each, groups=4, layout="NHWC"), last, each, groups=4, layout="NHWC")
    y, indices = convjit.max_pool2d(last, 3, 2, padding=1, return_indices=True, layout="NHWC")
    convjit.max_pool2d_backward(y, last, 3, 2, padding=1, indices=indices, layout="NHWC")
    convjit.avg_pool2d_backward(convjit.avg_pool2d(last, 3, layout="NHWC"), (9, 8), 3, layout="NHWC")
    weight.flags.writeable = False
    convjit.conv2d(x, weight, bias, groups=2, out=out)
    convjit.conv2d(x[0], np.ones((1, 4, 1, 1), dtype))
    convjit.conv2d(np.ones((3, 4, 300, 100), dtype), np.ones((5, 4, 1, 1), dtype), algorithm="implicit")
    for many, each in (((1, 5000, 4, 8), (1, 5000, 3, 1)), ((1, 20000, 2, 2), (1, 20000, 1, 1))):
        many, each = np.ones(many, dtype), np.ones(each, dtype)
        y = convjit.conv2d(many, each)
        convjit.conv2d_backward(y, many, each)
    many, each = np.ones((2, 48, 20, 40), dtype), np.ones((2, 48, 3, 3), dtype)
    convjit.conv2d_backward(convjit.conv2d(many, each), many, each)
    many, each = np.ones((9, 2, 8, 8), dtype), np.ones((3, 2, 3, 3), dtype)
    convjit.conv2d_backward(convjit.conv2d(many, each, padding=2), many, each, padding=2)
    for side in (1, 3):  # planes read in place, and filled band by band
        convjit.conv2d(many, np.ones((3, 2, side, side), dtype), padding=side // 2, algorithm="direct")
    for channels in (2, 16):
        many, each = np.ones((2, channels, 9, 9), dtype), np.ones((channels, 1, 3, 3), dtype)
        convjit.conv2d_backward(convjit.conv2d(many, each, groups=channels), many, each, groups=channels)
    convjit.conv2d_input_grad(np.ones((1, 6, 2, 2), dtype), np.ones((6, 2, 3, 3), dtype), 7, 3, algorithm="patches")
    y = convjit.conv2d(x, weight[:, :1].repeat(4, 1), stride=2)
    convjit.conv2d_backward(y, x, weight[:, :1].repeat(4, 1), stride=2)
    y = convjit.conv2d(x, weight[:4, :1], bias[:4], stride=2, groups=4)
    convjit.conv2d_backward(y, x, weight[:4, :1], stride=2, groups=4)
    convjit.conv2d_plan(weight, bias, groups=2)(x, out=out)
    y = convjit.conv_transpose2d(x, np.ones((4, 3, 2, 2), dtype), np.ones(3, dtype), stride=2, output_padding=1)
    convjit.conv_transpose2d_backward(y, x, np.ones((4, 3, 2, 2), dtype), stride=2, output_padding=1)
    convjit.col2im(convjit.im2col(x, (3, 2), padding="same"), (9, 8), (3, 2), padding="same")
    convjit.pad2d_backward(convjit.pad2d(x, 2, mode="symmetric"), 2, mode="symmetric")
    convjit.pad2d(x, 1, value=3)
    y, indices = convjit.max_pool2d(x, 3, 2, padding=1, ceil_mode=True, return_indices=True)
    convjit.max_pool2d_backward(y, x, 3, 2, padding=1, ceil_mode=True, indices=indices)
    convjit.max_pool2d(x, 2, 3)
    convjit.max_pool2d_backward(y, x, 3, 2, padding=1, ceil_mode=True)
    y = convjit.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
    convjit.avg_pool2d_backward(y, (9, 8), 3, 2, padding=1, count_include_pad=False)
    y, indices = convjit.max_pool2d(x, (9, 8), return_indices=True)
    convjit.max_pool2d_backward(y, x, (9, 8), indices=indices)
    convjit.avg_pool2d_backward(convjit.avg_pool2d(x, (9, 8)), (9, 8), (9, 8))
    convjit.column_to_image(convjit.image_to_column(x, (3, 3), 1), x.shape, (3, 3), 1)
    volumes, filters = rng.normal(size=(2, 4, 3, 9, 8)).astype(dtype), np.ones((6, 4, 2, 3, 3), dtype)
    y = convjit.conv3d(volumes, filters, np.ones(6, dtype), padding=1)
    convjit.conv3d_backward(y, volumes, filters, padding=1)
    convjit.conv3d_input_grad(y, filters, (3, 9, 8), padding=1)
    convjit.conv3d_input_grad(y, filters, (3, 9, 8), padding=1, algorithm="implicit")  # of gathered slices
    each = filters[:4, :1]
    convjit.conv3d_backward(convjit.conv3d(volumes, each, groups=4), volumes, each, groups=4)
    convjit.conv3d_weight_grad(y, volumes, (2, 3, 3), padding=1)
    y = convjit.conv_transpose3d(volumes, np.ones((4, 3, 2, 2, 2), dtype), stride=2)
    convjit.conv_transpose3d_backward(y, volumes, np.ones((4, 3, 2, 2, 2), dtype), stride=2)
    convjit.col2im3d(convjit.im2col3d(volumes, 2), (3, 9, 8), 2)
    y, indices = convjit.max_pool3d(volumes, 2, return_indices=True)
    convjit.max_pool3d_backward(y, volumes, 2, indices=indices)
    convjit.avg_pool3d_backward(convjit.avg_pool3d(volumes, 2), (3, 9, 8), 2)
    convjit.conv1d(volumes[:, :, 0, 0], np.ones((6, 4, 3), dtype), padding=1)
    line, each = np.ones((2, 4, 300), dtype), np.ones((4, 1, 5), dtype)
    convjit.conv1d_backward(convjit.conv1d(line, each, groups=4), line, each, groups=4)
    layer = convjit.Conv2D(3, (3, 3), input_shape=(4, 9, 8), dtype=dtype, rng=0)
    layer.initialize(convjit.Adam())
    layer.backward_pass(layer.forward_pass(x))
    for kind in (convjit.SGD, convjit.Adagrad, convjit.Adadelta, convjit.RMSprop, convjit.Adam, convjit.AdamW):
        kind().update(np.ones((3, 2, 5), dtype)[:, ::-1], np.ones((3, 2, 5), dtype))
    for nesterov in (False, True):
        convjit.SGD(0.1, 0.5, nesterov=nesterov).update(bias, bias)
    normalisation = convjit.BatchNormalization()
    normalisation.set_input_shape((4, 9, 8))
    normalisation.initialize(convjit.SGD())
    normalisation.backward_pass(normalisation.forward_pass(x))
    pooled = convjit.Sequential([convjit.Conv2D(2, (3, 3), input_shape=(4, 9, 8), dtype=dtype, rng=0)])
    for layer in (convjit.Activation("relu"), convjit.MaxPooling2D(), convjit.Flatten(), convjit.Dense(2, dtype=dtype)):
        pooled.add(layer)
    pooled.train_on_batch(x, np.zeros(2, int))
    dense = convjit.Dense(3, (288,), dtype=dtype, rng=0)
    dense.initialize(convjit.SGD())
    dense.backward_pass(dense.forward_pass(x.reshape(2, 288)))
    for name in ("relu", "leaky_relu", "sigmoid", "tanh", "softmax", "elu", "selu", "softplus"):
        activation = convjit.Activation(name)
        activation.backward_pass(activation.forward_pass(x))

contention.are_free = lambda: True  # whoever else has the cores
for threads.SERIAL_BELOW_NS in (float("inf"), 0):
    for dtype in ("float32", "float64"):
        call_everything(dtype)
print(json.dumps([made(), sorted(emitting.anew)]))
"""


def test_after_a_warm_up_another_process_compiles_nothing():
    (compiled, loaded), warm = run(WARM_UP, NUMBA_NUM_THREADS="1")
    assert compiled + loaded == len(warm)
    again = [0, len(warm)], dict.fromkeys(warm, False)
    assert run(WARM_UP, NUMBA_NUM_THREADS="2") == list(again)
    drivers, kernels = run(FIRST_CALLS, NUMBA_NUM_THREADS="2")
    assert drivers == dict.fromkeys(warm, False)
    # Of the emitted ones, those that are made for a filter's size.
    assert {name.removesuffix(f".{isa.here().name}") for name in kernels} <= {
        f"convjit.gemm.channel_lanes.{dtype}" for dtype in ("float32", "float64")
    }


@pytest.mark.parametrize(
    "name",
    ["conv2d", "conv2d_backward", "conv2d_input_grad", "conv2d_plan", "conv_transpose2d", "conv_transpose2d_backward"],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "bool"])
def test_kernels_for_lines_and_for_what_is_far_are_warm(name, dtype, monkeypatch):
    made = set()

    def kernels(dtype, vectors):
        made.add(vectors)
        return micro.line_kernels(dtype, vectors)

    def asking(dtype):
        made.add("asking")
        return micro.asking_kernels(dtype)

    monkeypatch.setattr(product, "line_kernels", kernels)
    monkeypatch.setattr(product, "asking_kernels", asking)
    forget()
    warming._CALLS[name](np.ones((1, 2, 4, 4), dtype), np.ones((2, 2, 3, 3), dtype), np.ones(2, dtype))
    assert made == {"asking", *range(1, product._LONGEST_LINE + 1)}


ONE_ALONE = """
import json
import numpy as np
import convjit
x, weight = np.ones((1, 2, 5, 5)), np.ones((2, 2, 3, 3))
arguments = {{
    "conv2d": (x, weight), "conv2d_backward": (x, x, weight), "conv2d_input_grad": (x, weight, 5),
    "conv2d_weight_grad": (x, x, 3),
}}
convjit.warmup({name!r}, "float64")
before = convjit.warming._counts()
for mode in ("constant", "reflect"):
    getattr(convjit, {name!r})(*arguments[{name!r}], padding="same", padding_mode=mode)
print(json.dumps(convjit.warming._counts() == before))
"""


@pytest.mark.parametrize("name", ["conv2d", "conv2d_backward", "conv2d_input_grad", "conv2d_weight_grad"])
def test_a_function_alone_is_warm_in_every_padding_mode(name):
    assert run(ONE_ALONE.format(name=name))


@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(bool)], ids=str)
def test_every_dtype_is_taken_by_every_function(dtype):
    """The calls themselves: nothing is compiled that other tests do not compile."""
    for name, kind in warming.plan(None, dtype):
        warming._CALLS[name](np.ones((1, 2, 4, 4), kind), np.ones((2, 2, 3, 3), kind), np.ones(2, kind))


@pytest.mark.parametrize(
    "processor",
    [{}, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}, {"NUMBA_CPU_NAME": "generic"}],
    ids=["here", "haswell", "generic"],
)
def test_drawn_calls_of_a_function_that_is_warmed_alone_want_nothing_more(processor):
    script = [sys.executable, str(Path(__file__).with_name("warmed_alone.py")), "150"]
    environment = {**os.environ, "CONVJIT_CACHE": "0", **processor}
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {}


PIECEMEAL = """
import json
import numpy as np
from convjit import avg_pool2d, warmup
avg_pool2d(np.ones((1, 2, 2)), 2)
print(json.dumps([sum(warmup(*each)) for each in (
    ("pad2d_backward", "float32"), (["pad2d_backward"], ["float32", "float16"]), ("avg_pool2d", "float64"),
    ([], "float32"), ("max_pool2d", "complex64"),
)]))
"""


def test_only_what_is_asked_for_and_missing_is_made():
    """float16 is computed as float32; complex numbers have no maximum.

    Teams need one function more, whatever they run; the mean lacks the loops for several windows and for channels last.
    """
    assert run(PIECEMEAL) == [2, 0, 2, 0, 0]


BAR = """
from convjit import warmup
warmup("pad2d_backward", "float32", progress={progress})
print("[]")
"""


def test_the_bar_is_shown_where_it_is_wanted():
    pytest.importorskip("rich", reason="the bar is drawn by rich")
    for progress in (None, False, True):
        done = process(BAR.format(progress=progress))
        assert done.stdout == "[]\n"
        assert ("1/1 pad2d_backward float32" in done.stderr) == (progress is True)
        assert (done.stderr == "") == (progress is not True)


@pytest.mark.parametrize("dtypes", ["float32", np.float32, np.dtype(">f4"), ("f4",), [np.single], {"float32": 1}])
def test_dtypes_in_any_form(dtypes):
    assert warming.plan("pad2d", dtypes) == [("pad2d", np.dtype("float32"))]


def test_names_in_any_form():
    assert warming.plan("pad2d", "f8") == warming.plan(iter(["pad2d"]), "f8") == [("pad2d", np.dtype("float64"))]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("conv4d",),
            ValueError,
            r"^warmup: functions must be among 'conv2d', .*, 'column_to_image', .*, got 'conv4d'$",
        ),
        (("determine_padding",), ValueError, "^warmup: functions must be among .* got 'determine_padding'$"),
        ((["pad2d", "Conv2D"],), ValueError, "^warmup: functions must be among .* got 'Conv2D'$"),
        ((convjit.conv2d,), TypeError, "^warmup: functions must be names of functions, got function"),
        (([1],), TypeError, "^warmup: functions must be names of functions, got int 1$"),
        ((None, "float33"), TypeError, "^warmup: an entry of dtypes must be a dtype, got str 'float33'$"),
        ((None, "f4,,"), TypeError, "^warmup: an entry of dtypes must be a dtype, got str 'f4,,'$"),
        ((np.array("pad2d"),), TypeError, "^warmup: functions must be names of functions, got ndarray$"),
        ((None, np.array("float32")), TypeError, "^warmup: an entry of dtypes must be a dtype, got ndarray$"),
        ((None, 7), TypeError, "^warmup: an entry of dtypes must be a dtype, got int 7$"),
        ((None, None), TypeError, "^warmup: an entry of dtypes is object, which is not supported; bool,"),
        ((None, ["float32", "U3"]), TypeError, "^warmup: an entry of dtypes is <U3, which is not supported"),
    ],
)
def test_what_is_not_understood_is_one_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        warmup(*arguments)


def test_nothing_is_compiled_without_a_compiler():
    assert run(WARM_UP, NUMBA_DISABLE_JIT="1") == [[0, 0], {}]


NOPYTHON = """
import json
import numba
import numpy as np
import convjit
from convjit.runtime import emitting

done = convjit.warmup("nopython", ["float32", "int8"])
before = len(emitting.anew)

@numba.njit
def call(x, weight):
    y = convjit.conv2d(x, weight, padding=1, groups=len(weight), padding_mode="wrap")
    return convjit.conv2d_backward(y, x, weight, padding=1, groups=len(weight), padding_mode="wrap")

call(np.ones((2, 4, 4), "f"), np.ones((2, 1, 3, 3), "f"))
print(json.dumps([*done, len(emitting.anew) - before]))
"""


def test_what_compiled_callers_need(tmp_path):
    compiled, loaded, later = run(NOPYTHON, CONVJIT_CACHE_DIR=str(tmp_path))
    assert compiled > 30
    assert (loaded, later) == (0, 0)
    assert run(NOPYTHON, CONVJIT_CACHE_DIR=str(tmp_path)) == [0, compiled, 0]
