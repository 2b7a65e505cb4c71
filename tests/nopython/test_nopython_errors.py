"""What compiled code refuses: Python's own sentences for values, one sentence for types."""

import numba
import numpy as np
import pytest
from callers import called, caller

import convjit

X, W, B = np.ones((2, 4, 6, 7)), np.ones((6, 2, 3, 3)), np.ones(6)
HUGE = 1 << 40

# Function, arrays, options: Python refuses each, for the values of shapes and numbers.
REFUSED = [
    ("conv2d", (X, W), {}),
    ("conv2d", (X, W, np.ones(5)), {"groups": 2}),
    ("conv2d", (X, W), {"groups": 3}),
    ("conv2d", (X, W), {"groups": 0}),
    ("conv2d", (X, W), {"groups": HUGE}),
    ("conv2d", (X, W), {"groups": 2, "stride": 0}),
    ("conv2d", (X, W), {"groups": 2, "stride": (1, 0)}),
    ("conv2d", (X, W), {"groups": 2, "stride": (-3,)}),
    ("conv2d", (X, W), {"groups": 2, "stride": HUGE}),
    ("conv2d", (X, W), {"groups": 2, "dilation": (4, 1)}),
    ("conv2d", (X, W), {"groups": 2, "dilation": (1 << 31, 1)}),
    ("conv2d", (X, W), {"groups": 2, "dilation": (1 << 30, 1 << 30)}),
    ("conv2d", (X, W), {"groups": 2, "padding": -1}),
    ("conv2d", (X, W), {"groups": 2, "padding": ((0, 1), (2, -1))}),
    ("conv2d", (X, W), {"groups": 2, "padding": ((0,), HUGE)}),
    ("conv2d", (X, W), {"groups": 2, "padding": 6, "padding_mode": "reflect"}),
    ("conv2d", (X, W), {"groups": 2, "padding": 1 << 24}),
    ("conv2d", (X[0], W), {"groups": 2, "dilation": 9}),
    ("conv2d", (np.ones((1, 1, 0, 3)), np.ones((1, 1, 1, 1))), {"padding": 1, "padding_mode": "wrap"}),
    ("conv2d", (X, np.ones((0, 4, 3, 3))), {}),
    ("conv2d", (X, np.ones((2, 4, 0, 3))), {}),
    ("conv2d_backward", (X, X, W), {"groups": 2}),
    ("conv2d_backward", (np.ones((6, 4, 5)), X, W), {"groups": 2}),
    ("conv2d_backward", (np.ones((2, 6, 16, 17)), X, W), {"groups": 2, "padding": 6, "padding_mode": "reflect"}),
    ("conv2d_input_grad", (X, np.ones((4, 1, 3, 3))), {"input_size": 6}),
    ("conv2d_input_grad", (X, np.ones((5, 1, 3, 3))), {"input_size": (8, 9)}),
    ("conv2d_input_grad", (X, np.ones((4, 1, 3, 3))), {"input_size": (8, -9)}),
    ("conv2d_input_grad", (X, np.ones((4, 1, 3, 3))), {"input_size": (8, 9), "groups": 0}),
    ("conv2d_weight_grad", (X, X), {"kernel_size": 2}),
    ("conv2d_weight_grad", (X, X), {"kernel_size": 0}),
    ("conv2d_weight_grad", (X, X), {"kernel_size": 1, "groups": 0}),
    ("conv2d_weight_grad", (X[0], X), {"kernel_size": 1}),
    ("conv_transpose2d", (X, W), {}),
    ("conv_transpose2d", (X, np.ones((4, 2, 3, 3)), B), {}),
    ("conv_transpose2d", (X, np.ones((4, 2, 3, 3))), {"groups": 3}),
    ("conv_transpose2d", (X, np.ones((4, 2, 3, 3))), {"output_padding": 1}),
    ("conv_transpose2d", (X, np.ones((4, 2, 3, 3))), {"output_size": (8, 10)}),
    ("conv_transpose2d", (X, np.ones((4, 2, 3, 3))), {"stride": 2, "output_size": 14, "output_padding": 1}),
    ("conv_transpose2d", (X, np.ones((4, 2, 3, 3))), {"padding": 9}),
    ("conv_transpose2d", (X[:, :, :0], np.ones((4, 2, 3, 3))), {}),
    ("conv_transpose2d_backward", (X, X, np.ones((4, 2, 3, 3))), {}),
    ("pad2d", (X,), {"padding": -1}),
    ("pad2d", (X,), {"padding": (6, 0), "mode": "reflect"}),
    ("pad2d", (X[:, :, :0],), {"padding": 1, "mode": "edge"}),
    ("pad2d_backward", (X,), {"padding": 4}),
    ("pad2d_backward", (X,), {"padding": (2, 0), "mode": "reflect"}),
    ("max_pool2d", (X,), {"kernel_size": 0}),
    ("max_pool2d", (X,), {"kernel_size": 8}),
    ("max_pool2d", (X,), {"kernel_size": 2, "padding": 2}),
    ("max_pool2d", (X,), {"kernel_size": 2, "stride": 0}),
    ("max_pool2d_backward", (X, X), {"kernel_size": 2}),
    ("max_pool2d_backward", (X[0], X), {"kernel_size": 1}),
    ("avg_pool2d", (X,), {"kernel_size": 2, "padding": ((0, 2), (0, 0))}),
    ("avg_pool2d_backward", (X,), {"input_size": 6, "kernel_size": 2}),
    ("im2col", (X,), {"kernel_size": (7, 1)}),
    ("im2col", (X,), {"kernel_size": (1 << 40, 1)}),
    ("col2im", (X[0],), {"image_size": 3, "kernel_size": 2}),
    ("col2im", (np.ones((2, 8, 5)),), {"image_size": 3, "kernel_size": 2}),
    ("col2im", (np.ones((8, 4)),), {"image_size": -3, "kernel_size": 2}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arrays", "options"), REFUSED, ids=lambda v: str(v) if isinstance(v, str | dict) else ""
)
def test_values_are_refused_with_pythons_sentence(name, arrays, options):
    with pytest.raises((ValueError, MemoryError)) as wanted:
        getattr(convjit, name)(*arrays, **options)
    for _ in range(2):  # a compiled function refuses, and goes on
        with pytest.raises(wanted.type) as got:
            called(name, *arrays, **options)
        assert str(got.value) == str(wanted.value)
        assert got.type is wanted.type


def test_results_that_fit_nowhere():
    x = np.broadcast_to(np.ones(()), (1 << 20, 1, 1 << 12, 1 << 12))
    with pytest.raises(MemoryError) as wanted:
        convjit.pad2d(x, 1)
    with pytest.raises(MemoryError) as got:
        called("pad2d", x, padding=1)
    assert str(got.value) == str(wanted.value)
    with pytest.raises(MemoryError, match=r"^conv2d"):
        called("conv2d", x, np.ones((1, 1, 1, 1)))


TYPES = [
    (
        "conv2d", (X.astype(int), W), {},
        r"conv2d: x has dtype int64, which compiled code cannot pass; float32 and float64 ",
    ),
    (
        "conv2d", (X, W.astype("f")), {},
        r"conv2d: arrays must have one dtype in compiled code, got x float64, weight float32",
    ),
    ("conv2d", (X.astype(complex), W), {}, r"conv2d: x has dtype complex128"),
    ("conv2d", (X, 3), {}, r"conv2d: weight must be an array in compiled code, got int64"),
    (
        "conv2d", (X, W), {"stride": 1.5},
        r"conv2d: stride must be an int or a pair of ints in compiled code, got float64",
    ),
    ("conv2d", (X, W), {"stride": (1, 2, 3)}, r"conv2d: stride must be an int or a pair"),
    ("conv2d", (X, W), {"layout": "NHWC"}, r"conv2d: layout must be 'NCHW' in compiled code, got str 'NHWC'"),
    ("conv2d", (X, W), {"groups": (1, 2)}, r"conv2d: groups must be an int in compiled code"),
    ("conv2d", (X, W), {"stride": True}, r"conv2d: stride must be an int or a pair"),
    ("conv2d", (X, W), {"dilation": ((1, 2), (1, 2))}, r"conv2d: dilation must be an int or a pair"),
    ("conv2d", (X, W), {"padding": None}, r"conv2d: padding must be a literal name, an int, a pair, or "),
    ("conv2d", (X, W, None), {"out": True}, r"conv2d: out must be an array in compiled code, got bool True"),
    ("pad2d", (X,), {"padding": True}, r"pad2d: padding must be an int, a pair, or .* got bool True"),
    ("pad2d", (X,), {"padding": "same"}, r"pad2d: padding must be an int, a pair, or "),
    ("max_pool2d", (X,), {"kernel_size": 2, "ceil_mode": None}, r"max_pool2d: ceil_mode must be a bool, got NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arrays", "options", "sentence"), TYPES, ids=[t[3][:60] for t in TYPES])
def test_types_are_refused_when_the_caller_is_compiled(name, arrays, options, sentence):
    with pytest.raises(TypeError, match=f"^{sentence}") as raised:
        called(name, *arrays, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "arrays", "options", "sentence"), [
    (
        "conv2d", (X[0, 0], W), {},
        r"conv2d: expected x of shape \(N, C, H, W\) or \(C, H, W\), got an array of 2 dimensions",
    ),
    (
        "conv2d", (X, W[0]), {},
        r"conv2d: expected weight of shape \(O, C/groups, KH, KW\), got an array of 3 dimensions",
    ),
    ("conv2d", (X, W, W), {}, r"conv2d: expected bias of shape \(O,\), got an array of 4 dimensions"),
], ids=str)  # fmt: skip
def test_dimensions_are_refused_when_the_caller_is_compiled(name, arrays, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}") as raised:
        called(name, *arrays, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "arrays", "options"), [
    ("conv2d", (X, W), {"padding": "sane"}),
    ("conv2d", (X, W), {"padding_mode": "zeros"}),
    ("pad2d", (X,), {"padding": 1, "mode": "mirror"}),
    ("conv2d", (X, W), {"algorithm": "fast"}),
    ("conv2d_backward", (X, X, np.ones((4, 4, 1, 1))), {"need": (True, False)}),
    ("conv2d_weight_grad", (X, X), {"kernel_size": 1, "algorithm": "best"}),
], ids=str)  # fmt: skip
def test_unknown_names_are_refused_with_pythons_sentence_when_the_caller_is_compiled(name, arrays, options):
    if name == "conv2d":
        arrays = (X, np.ones((6, 4, 3, 3)))
    with pytest.raises(ValueError, match=f"^{name}: ") as wanted:
        getattr(convjit, name)(*arrays, **options)
    with pytest.raises(ValueError, match=f"^{name}: ") as got:
        called(name, *arrays, **options)
    assert str(got.value) == str(wanted.value)


def test_the_algorithm_that_breaks_promises_does_not_run():
    with pytest.raises(ValueError, match=r"^conv2d: algorithm 'winograd' does not run in compiled code, .* 'fastest'$"):
        called("conv2d", X, W, algorithm="winograd")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("conv2d(x, w, bias, 1, 1)", "bias"),
        ("conv2d(x, w, bias, padding=1)", "bias"),
        ("conv2d(x, w, bias=bias, padding=1)", "bias"),
        ("conv2d(x, weight=bias, padding=1)", "weight"),
        ("max_pool2d(x, 2, stride)", "stride"),
        ("max_pool2d(x, 2, stride, ceil_mode=True)", "stride"),
    ],
)
def test_what_may_be_none_is_refused_however_it_is_given(call, name):
    """Numba asks for such arguments twice, the second time without their None, and not beside keywords."""
    namespace = {"convjit": convjit}
    body = f"def call(x, w, b, flag):\n bias = stride = None\n if flag:\n  bias, stride = b, 2\n return convjit.{call}"
    exec(body, namespace)
    function = call.partition("(")[0]
    with pytest.raises(TypeError, match=f"^{function}: {name} may be None or not when this runs; compiled code must"):
        numba.njit(namespace["call"])(X, W, B, True)


def test_lists_are_refused():
    def call(x, weight):
        return convjit.conv2d(x, weight, stride=[2, 2])

    with pytest.raises(TypeError, match=r"^conv2d: stride must be .* got a list, whose length is not known: write a t"):
        numba.njit(call)(X, W)


def test_integers_of_every_kind_and_no_bools():
    call = caller("conv2d", 2, ("stride", "groups"))
    wanted = convjit.conv2d(X, W, stride=2, groups=2)
    for kind in (np.int64, np.int32, np.uint8, int):
        np.testing.assert_array_equal(call(X, W, kind(2), kind(2)), wanted)
    with pytest.raises(TypeError, match=r"^conv2d: groups must be an int in compiled code, got bool$"):
        call(X, W, 2, np.bool_(True))


def test_names_must_be_literals():
    with pytest.raises(TypeError, match=r"^conv2d: padding must be a literal name, an int, .* got unicode_type$"):
        caller("conv2d", 2, ("padding",))(X, W, "same")


def test_needs_in_a_prange_are_constants_from_outside():
    """Numba moves a tuple that is written inside out of the loop, where it is no literal any more."""
    need = (False, True, False)

    def inside(dy, x, weight):
        for i in numba.prange(len(x)):
            convjit.conv2d_backward(dy[i], x[i], weight, need=(False, True, False))

    def outside(dy, x, weight):
        sums = np.zeros(len(x))
        for i in numba.prange(len(x)):
            sums[i] = convjit.conv2d_backward(dy[i], x[i], weight, need=need)[1].sum()
        return sums

    weight = np.ones((4, X.shape[1], 1, 1))
    dy = convjit.conv2d(X, weight)
    wanted = [convjit.conv2d_weight_grad(dy[i], X[i], 1).sum() for i in range(len(X))]
    np.testing.assert_allclose(numba.njit(parallel=True)(outside)(dy, X, weight), wanted)
    sentence = "^conv2d_backward: need must be three bools, .* in a prange, a constant of the module or of an enclosing"
    with pytest.raises(TypeError, match=sentence):
        numba.njit(parallel=True)(inside)(dy, X, weight)


def test_an_error_whose_record_was_written_over_says_so():
    from convjit.nopython.refusals import Refused

    with pytest.raises(ValueError, match=r"^conv2d: shapes or values do not fit; 4096 later errors took"):
        Refused(10**9, "conv2d")


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda x, w: convjit.conv2d(x, w, strides=2), "conv2d: unknown keyword 'strides'; it is called 'stride' here"),
    (lambda x, w: convjit.conv2d(x), "conv2d: missing a required argument: 'weight'"),
    (lambda x, w: convjit.max_pool2d(x, 2, 2, 0, 1, False, False, "NCHW", 7), "max_pool2d: too many positional"),
    (lambda x, w: convjit.conv2d(x, w, weight=w), "conv2d: multiple values for argument 'weight'"),
    (lambda x, w: convjit.conv1d(x, w), "conv1d: compiled code has no conv1d; it has conv2d, "),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_calls_are_refused_in_one_sentence(call, sentence):
    with pytest.raises(TypeError, match=f"^{sentence}") as raised:
        numba.njit(call)(X, W)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
def test_numbers_beyond_64_bits_are_too_large(number):
    def call(x, weight, stride):
        return convjit.conv2d(x, weight, stride=stride)

    for given in (np.uint64(number), number):
        with pytest.raises(ValueError, match=r"^conv2d: stride must be at most 2147483647, got 9223372036854775807"):
            numba.njit(call)(X, np.ones((6, 4, 3, 3)), given)


def test_results_of_transposed_convolutions_that_are_too_large_to_count():
    x = np.empty((0, 1, (1 << 59) + 1, 1))
    with pytest.raises(MemoryError) as wanted:
        convjit.conv_transpose2d(x, np.ones((1, 1, 1, 1)), stride=(64, 1))
    with pytest.raises(MemoryError) as got:
        called("conv_transpose2d", x, np.ones((1, 1, 1, 1)), stride=(64, 1))
    assert str(got.value) == str(wanted.value)
