"""Calls to refuse in one dimension and three: one sentence, with the function and the argument."""

import re

import numpy as np
import pytest
from spatial import function

import convjit
import convjit.parsing

X = {1: np.ones((2, 3, 8)), 3: np.ones((2, 3, 6, 7, 8))}
W = {1: np.ones((4, 3, 3)), 3: np.ones((4, 3, 3, 3, 3))}
Y = {1: np.ones((2, 4, 6)), 3: np.ones((2, 4, 4, 5, 6))}
HUGE = 1 << 40

REFUSED = [
    (1, "conv2d", (np.ones((3, 3, 3, 3)), W[1]), {}, ValueError,
     "conv1d: expected x of shape (N, C, L) or (C, L), got shape (3, 3, 3, 3)"),
    (3, "conv2d", (np.ones((3, 3, 3)), W[3]), {}, ValueError,
     "conv3d: expected x of shape (N, C, D, H, W) or (C, D, H, W), got shape (3, 3, 3)"),
    (1, "conv2d", (X[1], W[3]), {}, ValueError,
     "conv1d: expected weight of shape (O, C/groups, K), got (4, 3, 3, 3, 3)"),
    (3, "conv2d", (X[3], W[1]), {}, ValueError,
     "conv3d: expected weight of shape (O, C/groups, KD, KH, KW), got (4, 3, 3)"),
    (1, "conv2d", (X[1], W[1]), {"stride": (1, 2)}, ValueError, "conv1d: stride must have 1 entry, got 2"),
    (3, "conv2d", (X[3], W[3]), {"stride": (1, 2)}, ValueError, "conv3d: stride must have 1 or 3 entries, got 2"),
    (3, "conv2d", (X[3], W[3]), {"stride": 1.5}, TypeError,
     "conv3d: stride must be an int or a triple of ints, got float 1.5"),
    (1, "conv2d", (X[1], W[1]), {"dilation": None}, TypeError, "conv1d: dilation must be an int, got NoneType"),
    (3, "conv2d", (X[3], W[3]), {"padding": (0, -1, 0)}, ValueError, "conv3d: padding must be >= 0, got (0, -1, 0)"),
    (1, "conv2d", (X[1], W[1]), {"padding": (1, 3)}, ValueError,
     "conv1d: padding must have 1 entry, got 2; two sides are ((start, end),)"),
    (1, "conv2d", (X[1], W[1]), {"padding": "sane"}, ValueError,
     "conv1d: padding must be 'valid', 'same', 'same_upper', 'same_lower', 'full', an int or ((start, end),), "
     "got 'sane'"),
    (3, "pad2d", (X[3], "same"), {}, ValueError,
     "pad3d: padding must be an int, a triple, or ((front, back), (top, bottom), (left, right)), got 'same'"),
    (3, "conv2d", (X[3], W[3]), {"dilation": 3}, ValueError,
     "conv3d: kernel 3x3x3 with dilation 3 (extent 7x7x7) is larger than the padded input 6x7x8"),
    (1, "conv2d", (X[1], W[1]), {"dilation": 4}, ValueError,
     "conv1d: kernel 3 with dilation 4 (extent 9) is larger than the padded input 8"),
    (3, "conv2d", (X[3], np.ones((4, 3, 3, 0, 3))), {}, ValueError,
     "conv3d: weight needs at least one output channel and a kernel of at least 1x1x1, got (4, 3, 3, 0, 3)"),
    (3, "conv2d", (X[3], W[3], np.ones(5)), {}, ValueError,
     "conv3d: bias must have shape (4,) (one value an output channel), got (5,)"),
    (3, "conv2d", (X[3], W[3]), {"out": np.ones((2, 4, 4, 5, 5))}, ValueError,
     "conv3d: out must have shape (2, 4, 4, 5, 6) and dtype float64, got shape (2, 4, 4, 5, 5) and dtype float64"),
    (1, "conv2d", (X[1], W[1]), {"padding": HUGE}, ValueError,
     f"conv1d: padding must be at most {convjit.parsing.LARGEST}, got {HUGE}: the result is too large"),
    (1, "conv2d", (X[1], W[1]), {"algorithm": "quick"}, ValueError,
     "conv1d: algorithm must be one of 'auto', 'fastest', 'winograd', 'depthwise', 'patches', 'direct', 'implicit', "
     "'reference', got 'quick'"),
    (1, "conv2d", (X[1], W[1]), {"strides": 2}, TypeError,
     "conv1d: unknown keyword 'strides'; it is called 'stride' here"),
    (3, "conv2d", (X[3], W[3]), {"data_format": "NDHWC"}, TypeError,
     "conv3d: unknown keyword 'data_format'; arrays are (N, C, D, H, W), transpose before the call"),
    (3, "conv2d_backward", (Y[3][..., 1:], X[3], W[3]), {}, ValueError,
     "conv3d_backward: grad_output must have shape (2, 4, 4, 5, 6) (the shape of the forward result), "
     "got (2, 4, 4, 5, 5)"),
    (3, "conv2d_input_grad", (Y[3], W[3], (7, 7, 8)), {"stride": (2, 1, 1)}, ValueError,
     "conv3d_input_grad: input_size (7, 7, 8) gives an output of (3, 5, 6), but grad_output (2, 4, 4, 5, 6) is of "
     "(4, 5, 6), which comes from depths 9..10, heights 7 and widths 8"),
    (1, "conv2d_input_grad", (Y[1], W[1], 9), {}, ValueError,
     "conv1d_input_grad: input_size (9,) gives an output of (7,), but grad_output (2, 4, 6) is of (6,), which comes "
     "from lengths 8"),
    (3, "conv2d_weight_grad", (Y[3], X[3], (3, 3)), {}, ValueError,
     "conv3d_weight_grad: kernel_size must have 1 or 3 entries, got 2"),
    (3, "conv_transpose2d", (Y[3], W[3]), {"output_padding": (0, 1, 0)}, ValueError,
     "conv_transpose3d: output_padding must be smaller than stride or dilation, got (0, 1, 0) with stride (1, 1, 1) "
     "and dilation (1, 1, 1)"),
    (1, "conv_transpose2d", (Y[1], W[3]), {}, ValueError,
     "conv_transpose1d: expected weight of shape (C, O/groups, K), got (4, 3, 3, 3, 3)"),
    (3, "max_pool2d", (X[3], 3, 1, 3), {}, ValueError,
     "max_pool3d: padding must be smaller than the effective kernel (3, 3, 3), got ((3, 3), (3, 3), (3, 3)): "
     "a window would see padding only"),
    (1, "max_pool2d", (X[1] * 1j, 2), {}, TypeError, "max_pool1d: x has dtype complex128, which has no order"),
    (3, "max_pool2d_backward", (X[3], X[3], 1), {"indices": np.full(X[3].shape, 336)}, ValueError,
     "max_pool3d_backward: indices must be -1..335, got 336..336"),
    (3, "pad2d", (X[3], (6, 0, 0)), {"mode": "reflect"}, ValueError,
     "pad3d: padding with mode 'reflect' must be smaller than the depth 6, got (6, 6)"),
    (1, "pad2d_backward", (X[1], 5), {}, ValueError,
     "pad1d_backward: padding (5, 5) is larger than the length of grad_output, 8"),
    (3, "col2im", (np.ones((2, 9, 4)), 3, 2), {}, ValueError,
     "col2im3d: columns has 9 rows, which 8 taps (2x2x2) do not divide into channels"),
    (1, "col2im", (np.ones(3), 3, 2), {}, ValueError,
     "col2im1d: expected columns of shape (N, C*K, OL) or (C*K, OL), got shape (3,)"),
    (3, "conv2d", (np.broadcast_to(1.0, (1 << 16, 3, 1 << 10, 1 << 10, 1 << 10)), W[3]), {}, MemoryError, "conv3d: "),
    (3, "pad2d", (X[3], 1 << 20), {}, MemoryError, "pad3d: the padded image of shape"),
]  # fmt: skip


@pytest.mark.parametrize(("rank", "name", "arguments", "options", "kind", "sentence"), REFUSED)
def test_refused_in_one_sentence(rank, name, arguments, options, kind, sentence):
    with pytest.raises(kind, match="^" + re.escape(sentence)):
        function(name, rank)(*arguments, **options)


def test_layers_are_told_the_shapes_of_their_rank():
    for layer, shape in ((convjit.Conv1D, "(N, C, L)"), (convjit.Conv3D, "(N, C, D, H, W)")):
        with pytest.raises(TypeError, match=re.escape(f"arrays are {shape}, transpose before the call")):
            layer(4, 3, data_format="channels_last")


@pytest.mark.parametrize("rank", [1, 3])
def test_huge_strides_see_one_output(rank):
    huge, conv = convjit.parsing.LARGEST, function("conv2d", rank)
    y = conv(X[rank], W[rank], stride=huge, padding="same")
    assert y.shape == (2, 4, *(1,) * rank)
    dx = function("conv2d_input_grad", rank)(y, W[rank], X[rank].shape[2:], stride=huge, padding="same")
    assert dx.shape == X[rank].shape
    np.testing.assert_array_equal(function("avg_pool2d", rank)(X[rank], 2, huge), np.ones((2, 3, *(1,) * rank)))
