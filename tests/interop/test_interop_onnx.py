"""ONNX's operators by convjit: the package's own cases, and drawn attributes against the oracle, exactly."""

import importlib
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convjit.testing import (
    reference_avg_pool2d,
    reference_col2im,
    reference_conv2d,
    reference_conv_transpose2d,
    reference_max_pool2d,
    reference_pads,
)

pytest.importorskip("onnx", reason="onnx is not installed; tests/functional tests what its operators call")

import onnx
from onnx.reference import ReferenceEvaluator

from convjit.interop import onnx as bridge
from convjit.interop.onnx import OPERATORS

# How many cases onnx 1.16 ships, at least: newer versions have more.
SHIPPED = {"Conv": 6, "ConvTranspose": 9, "Col2Im": 5, "MaxPool": 17, "AveragePool": 17}
# Until version 1.17 onnx divided by too many pixels where a window of `ceil_mode` reaches beyond the padding.
MISCOUNTED = ("test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",)
TABLES = {"Conv": "_CONV", "ConvTranspose": "_CONV_TRANSPOSE", "MaxPool": "_MAX_POOL", "AveragePool": "_AVERAGE_POOL",
          "Col2Im": "_COL2IM"}  # fmt: skip


def evaluated(model, *inputs):
    """The outputs of a model, its operators by convjit."""
    evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
    return evaluator.run(None, dict(zip(evaluator.input_names, inputs, strict=True)))


def model_of(operator, inputs, outputs=1, opset=22, **attributes):
    """A model of one node."""
    helper = onnx.helper
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(outputs)], **attributes)
    types = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    given = [helper.make_tensor_value_info(n, t, x.shape) for n, t, x in zip(names, types, inputs, strict=True)]
    made = [helper.make_tensor_value_info(f"y{i}", (types[0], onnx.TensorProto.INT64)[i], None) for i in range(outputs)]
    graph = helper.make_graph([node], "one", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def run(operator, *inputs, **options):
    return evaluated(model_of(operator, inputs, **options), *inputs)


@pytest.fixture
def calls(monkeypatch):
    """How often an operator was convjit's."""
    seen = Counter()

    def counted(name, call):
        def calling(*args, **kwargs):
            seen[name] += 1
            return call(*args, **kwargs)

        return calling

    for operator, table in TABLES.items():
        functions = {rank: counted(operator, call) for rank, call in getattr(bridge, table).items()}
        monkeypatch.setattr(bridge, table, functions)
    return seen


# --- the cases of the package ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    from onnx.backend.test.case import node

    for name in SHIPPED:
        importlib.import_module(f"{node.__name__}.{name.lower()}")  # makes its cases, and those of no other operator
    wrong = MISCOUNTED if onnx.defs.onnx_opset_version() < 23 else ()
    cases = [case for case in node._NodeTestCases if case.name not in wrong]
    return {name: [case for case in cases if {node.op_type for node in case.model.graph.node} == {name}]
            for name in SHIPPED}  # fmt: skip


def _has_integers(case):
    """Those of a dtype that convjit does not pool."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(case.model.graph.input[0].type.tensor_type.elem_type)
    return kind.name not in ("float16", "float32", "float64", "int8", "uint8")


@pytest.mark.parametrize("operator", SHIPPED)
def test_the_cases_that_onnx_ships(operator, shipped, calls):
    for case in shipped[operator]:
        for inputs, outputs in case.data_sets:
            given = [onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x for x in inputs]
            wanted = [onnx.numpy_helper.to_array(y) if isinstance(y, onnx.TensorProto) else y for y in outputs]
            got = evaluated(case.model, *given)
            assert len(got) == len(wanted), case.name
            for ours, theirs in zip(got, wanted, strict=True):
                assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), case.name
                assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol, err_msg=case.name)
    assert len(shipped[operator]) >= SHIPPED[operator]
    others = 0 if operator == "Col2Im" else sum(_has_integers(case) for case in shipped[operator])
    assert calls == {operator: len(shipped[operator]) - others}


# --- drawn attributes -----------------------------------------------------------------------------------------------

DRAWS = range(60)


class Drawn:
    """Attributes of a window, as ONNX and as the oracle take them."""

    def __init__(self, seed, dilated=True):
        self.rng = np.random.default_rng(seed)
        self.kernel = self.pair(1, 4)
        self.stride = self.pair(1, 4)
        self.dilation = self.pair(1, 3) if dilated else (1, 1)
        self.extent = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        self.auto_pad = str(self.rng.choice(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
        self.image = tuple(e + int(self.rng.integers(0, 6)) for e in self.extent)
        self.pads = ((0, 0), (0, 0))
        if self.auto_pad == "NOTSET":
            self.pads = tuple(tuple(int(p) for p in self.rng.integers(0, e, 2)) for e in self.extent)
        elif self.auto_pad != "VALID":
            self.pads = reference_pads(self.auto_pad.lower(), self.image, self.kernel, self.stride, self.dilation)

    def pair(self, low, high):
        return tuple(int(n) for n in self.rng.integers(low, high, 2))

    def array(self, *shape, dtype=np.float32):
        return self.rng.integers(-4, 5, shape).astype(dtype)

    def flag(self):
        return int(self.rng.integers(2))

    @property
    def attributes(self):
        """Without what has its default, now and then."""
        given = {"strides": self.stride, "dilations": self.dilation, "auto_pad": self.auto_pad}
        if self.auto_pad == "NOTSET":
            given["pads"] = [pad[side] for side in (0, 1) for pad in self.pads]
        defaults = {"strides": (1, 1), "dilations": (1, 1), "pads": [0] * 4, "auto_pad": "NOTSET"}
        return {name: value for name, value in given.items() if value != defaults[name] or self.flag()}


@pytest.mark.parametrize("seed", DRAWS)
def test_conv(seed):
    drawn = Drawn(seed)
    groups = int(drawn.rng.integers(1, 3))
    x, weight = drawn.array(2, 2 * groups, *drawn.image), drawn.array(3 * groups, 2, *drawn.kernel)
    bias = drawn.array(3 * groups) if drawn.flag() else None
    named = {"kernel_shape": drawn.kernel} if drawn.flag() else {}
    (y,) = run("Conv", *[a for a in (x, weight, bias) if a is not None], group=groups, **named, **drawn.attributes)
    wanted = reference_conv2d(x, weight, bias, drawn.stride, drawn.pads, drawn.dilation, groups)
    assert_array_equal(y, wanted.astype(np.float32), strict=True)


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("seed", DRAWS)
def test_conv_transpose(seed, shaped):
    drawn = Drawn(seed)
    groups = int(drawn.rng.integers(1, 3))
    image = drawn.pair(1, 5)
    x, weight = drawn.array(2, 2 * groups, *image), drawn.array(2 * groups, 3, *drawn.kernel)
    bias = drawn.array(3 * groups) if drawn.flag() else None
    attributes = drawn.attributes
    extra = tuple(int(drawn.rng.integers(0, s)) for s in drawn.stride)
    if any(extra):
        attributes["output_padding"] = extra
    size, pads = [], []
    for axis in (0, 1):
        full = drawn.stride[axis] * (image[axis] - 1) + drawn.extent[axis] + extra[axis]
        if shaped:
            size.append(int(drawn.rng.integers(1, full + drawn.stride[axis] - extra[axis])))
        elif drawn.auto_pad.startswith("SAME"):
            size.append(image[axis] * drawn.stride[axis])
        else:
            size.append(full - sum(drawn.pads[axis]))
            pads.append(drawn.pads[axis])
            continue
        total = max(0, full - size[axis])
        less, more = total // 2, total - total // 2
        pads.append((less, more) if drawn.auto_pad == "SAME_UPPER" else (more, less))
    if shaped:
        attributes["output_shape"] = size
    inputs = [a for a in (x, weight, bias) if a is not None]
    if min(size) < 1:
        with pytest.raises(ValueError, match=r"^conv_transpose2d: padding .* leaves no output"):
            run("ConvTranspose", *inputs, group=groups, **attributes)
        return
    (y,) = run("ConvTranspose", *inputs, group=groups, **attributes)
    wanted = reference_conv_transpose2d(x, weight, bias, tuple(size), drawn.stride, tuple(pads), drawn.dilation, groups)
    assert_array_equal(y, wanted.astype(np.float32), strict=True)


def columns_of(drawn, rank=2):
    """Attributes, paddings and columns for Col2Im, of the last `rank` axes."""
    attributes = {k: v for k, v in (drawn.attributes if rank == 2 else of_row(drawn)).items() if k != "auto_pad"}
    pads = drawn.pads if "pads" in attributes else ((0, 0), (0, 0))
    axes = list(zip(drawn.image, pads, drawn.extent, drawn.stride, strict=True))[-rank:]
    outputs = [(n + sum(p) - e) // s + 1 for n, p, e, s in axes]
    return attributes, pads, drawn.array(2, 3 * np.prod(drawn.kernel[-rank:]), np.prod(outputs))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("seed", range(12))
def test_col2im(seed, dtype):
    drawn = Drawn(seed)
    attributes, pads, columns = columns_of(drawn)
    columns = np.abs(columns).astype(dtype)
    (y,) = run("Col2Im", columns, np.array(drawn.image), np.array(drawn.kernel), **attributes)
    exact = columns.astype("complex128" if dtype == "complex64" else "int64")
    wanted = reference_col2im(exact, drawn.image, drawn.kernel, drawn.stride, pads, drawn.dilation)
    assert_array_equal(y, wanted.astype(dtype), strict=True)


@pytest.mark.parametrize("seed", DRAWS)
def test_max_pool(seed):
    drawn = Drawn(seed)
    dtype = drawn.rng.choice(["float32", "float64", "float16", "int8", "uint8"])
    x = np.abs(drawn.array(2, 3, *drawn.image)).astype(dtype)
    ceil, column_major = drawn.flag(), drawn.flag()
    options = {"kernel_shape": drawn.kernel, "ceil_mode": ceil, "storage_order": column_major, **drawn.attributes}
    y, indices = run("MaxPool", x, outputs=2, **options)
    rounds_up = bool(ceil) and drawn.auto_pad == "NOTSET"
    wanted, where = reference_max_pool2d(x, drawn.kernel, drawn.stride, drawn.pads, drawn.dilation, rounds_up)
    assert_array_equal(y, wanted, strict=True)
    planes = x.reshape(6, *drawn.image)
    flat = planes.swapaxes(1, 2).ravel() if column_major else planes.ravel()
    seen = where >= 0
    assert_array_equal(indices >= 0, seen)
    assert_array_equal(flat[indices[seen]], y[seen])
    rows, columns = where // drawn.image[1], where % drawn.image[1]
    inside = rows + columns * drawn.image[0] if column_major else where
    plane = np.arange(6).reshape(2, 3, 1, 1) * np.prod(drawn.image)
    assert_array_equal(indices, np.where(seen, plane + inside, -1), strict=True)
    assert_array_equal(run("MaxPool", x, **options)[0], y)


def test_windows_that_see_no_pixel_have_no_index():
    x = np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]], np.float32)
    options = {"kernel_shape": [2, 1], "pads": [1, 0, 1, 0], "dilations": [2, 1]}
    y, indices = run("MaxPool", x, outputs=2, **options)
    assert_array_equal(indices, np.full((1, 2, 1, 2), -1))
    assert_array_equal(y, np.full((1, 2, 1, 2), -np.inf))


@pytest.mark.parametrize("seed", DRAWS)
def test_average_pool(seed):
    drawn = Drawn(seed)
    x = drawn.array(2, 3, *drawn.image, dtype=np.float64)
    ceil, include = drawn.flag(), drawn.flag()
    (y,) = run("AveragePool", x, kernel_shape=drawn.kernel, ceil_mode=ceil, count_include_pad=include,
               **drawn.attributes)  # fmt: skip
    rounds_up = bool(ceil) and drawn.auto_pad == "NOTSET"
    wanted = reference_avg_pool2d(
        x, drawn.kernel, drawn.stride, drawn.pads, drawn.dilation, rounds_up, bool(include)
    )  # fmt: skip
    assert y.shape == wanted.shape
    assert_allclose(y, wanted, rtol=1e-15, atol=0)


# --- sequences and volumes: images of one row, and one slice --------------------------------------------------------

# What stands for an axis of one pixel.
TRIVIAL = {"strides": 1, "dilations": 1, "kernel_shape": 1, "output_padding": 0, "output_shape": 1}


def with_axis(attributes):
    """The attributes with one more axis before the others."""
    lifted = {name: [TRIVIAL[name], *value] if name in TRIVIAL else value for name, value in attributes.items()}
    if "pads" in attributes:
        half = len(attributes["pads"]) // 2
        lifted["pads"] = [0, *attributes["pads"][:half], 0, *attributes["pads"][half:]]
    return lifted


def of_row(drawn):
    """The attributes of the last axis alone."""
    taken = {name: value[1:] if name in TRIVIAL else value for name, value in drawn.attributes.items()}
    if "pads" in taken:
        taken["pads"] = [taken["pads"][1], taken["pads"][3]]
    return taken


@pytest.mark.parametrize("operator", [name for name in TABLES if name != "Col2Im"])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("seed", range(20))
def test_an_axis_of_one_pixel_changes_nothing(seed, rank, operator, calls):
    drawn = Drawn(seed)
    attributes = of_row(drawn) if rank == 1 else drawn.attributes
    inputs = [drawn.array(2, 4, *drawn.image[-rank:])]
    outputs = 2 if operator == "MaxPool" else 1
    if operator.startswith("Conv"):
        inputs += [drawn.array(4, 2, *drawn.kernel[-rank:])]
        attributes["group"] = 2
    else:
        attributes["kernel_shape"] = drawn.kernel[-rank:]
        attributes["ceil_mode"] = drawn.flag()
    if operator == "MaxPool":
        attributes["storage_order"] = drawn.flag()
    if operator == "ConvTranspose":
        pads = attributes.pop("pads", [0] * 2 * rank)
        attributes["pads"] = [pad if drawn.image[0] > 2 < drawn.image[1] else 0 for pad in pads]
        attributes["output_padding"] = [int(drawn.rng.integers(s)) for s in drawn.stride[-rank:]]
        if attributes.get("auto_pad", "NOTSET") != "NOTSET":
            del attributes["pads"]
        elif drawn.flag():
            attributes["output_shape"] = [n + s for n, s in zip(inputs[0].shape[2:], drawn.stride[-rank:], strict=True)]
            del attributes["pads"]
    flat = run(operator, *inputs, outputs=outputs, **attributes)
    deep = run(operator, *[np.expand_dims(a, 2) for a in inputs], outputs=outputs, **with_axis(attributes))
    for one, other in zip(flat, deep, strict=True):
        assert_array_equal(np.expand_dims(one, 2), other, strict=True)
    assert calls == {operator: 2}


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_col2im_of_sequences_and_volumes(seed, rank, calls):
    drawn = Drawn(seed)
    attributes, _, columns = columns_of(drawn, rank)
    image, kernel = drawn.image[-rank:], drawn.kernel[-rank:]
    (flat,) = run("Col2Im", columns, np.array(image), np.array(kernel), **attributes)
    deep_image, deep_kernel = np.array([1, *image]), np.array([1, *kernel])
    (deep,) = run("Col2Im", columns, deep_image, deep_kernel, **with_axis(attributes))
    assert_array_equal(flat[:, :, None], deep, strict=True)
    assert calls == {"Col2Im": 2}


@pytest.mark.parametrize(("operator", "opset"), [("Conv", 1), ("ConvTranspose", 1), ("MaxPool", 1), ("AveragePool", 7)])
def test_older_opsets(operator, opset, calls):
    drawn = Drawn(0)
    x, weight = drawn.array(1, 2, 5, 6), drawn.array(2, 2, 3, 3)
    inputs = (x, weight) if operator.startswith("Conv") else (x,)
    old, new = (run(operator, *inputs, opset=version, kernel_shape=[3, 3], pads=[1, 0, 1, 1], strides=[2, 1])
                for version in (opset, 22))  # fmt: skip
    assert_array_equal(old[0], new[0], strict=True)
    assert calls[operator] == 2


# --- what goes on to onnx, and what is refused ----------------------------------------------------------------------


def test_other_ranks_are_onnxs(calls):
    x = Drawn(0).array(1, 2, 3, 2, 3, 2)
    attributes = {"kernel_shape": [2, 2, 2, 2]}
    (ours,) = run("MaxPool", x, **attributes)
    (theirs,) = ReferenceEvaluator(model_of("MaxPool", [x], **attributes)).run(None, {"x0": x})
    assert_array_equal(ours, theirs, strict=True)
    assert not calls


def test_bfloat16_is_onnxs(calls):
    dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    if dtype == np.float32:
        pytest.skip("this onnx computes bfloat16 in float32; that is tested above")
    x, weight = np.ones((1, 1, 3, 3)).astype(dtype), np.ones((1, 1, 2, 2)).astype(dtype)
    (y,) = run("Conv", x, weight)
    assert y.dtype == dtype
    assert (y.astype(float) == 4).all()
    assert not calls


X, W = np.ones((1, 2, 5, 5), np.float32), np.ones((2, 2, 3, 3), np.float32)
REFUSED = {
    "auto_pad": ("Conv", [X, W], {"auto_pad": "SAME"}, "Conv: auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER, VALID"),
    "strides": (
        "Conv",
        [X, W],
        {"strides": [1]},
        r"Conv: strides of images \(N, C, H, W\) must be 2 ints, got \[1\]",
    ),
    "pads": ("MaxPool", [X], {"kernel_shape": [2, 2], "pads": [1, 1]}, "MaxPool: pads of .* must be 4 ints, got"),
    "kernel_shape": ("Conv", [X, W], {"kernel_shape": [3, 2]}, r"Conv: kernel_shape must be \(3, 3\), as W is \(2, 2"),
    "channels": ("Conv", [X[:, :1], W], {}, "conv2d: weight expects 2 input channels"),
    "negative pads": ("Conv", [X, W], {"pads": [-1, 0, 0, 0]}, "conv2d: padding must be >= 0"),
    "output_shape": (
        "ConvTranspose",
        [X, W],
        {"output_shape": [9, 7]},
        r"conv_transpose2d: output_size \(9, 7\) cannot",
    ),
    "one size": ("ConvTranspose", [X, W], {"output_shape": [9]}, "ConvTranspose: output_shape of images"),
    "wide pads": ("AveragePool", [X], {"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}, "avg_pool2d: padding"),
    "columns": ("Col2Im", [X[0], np.array([5, 5]), np.array([2, 2])], {}, "col2im: columns has 5 rows, which 4 taps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    operator, inputs, attributes, said = REFUSED[name]
    with pytest.raises(ValueError, match=rf"^{said}"):
        run(operator, *inputs, **attributes)
