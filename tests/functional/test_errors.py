"""Every call to refuse: the type, and a sentence that names function, argument and what did not fit."""

import re

import numpy as np
import pytest

import convjit
from convjit import (
    avg_pool2d,
    avg_pool2d_backward,
    col2im,
    column_to_image,
    conv2d,
    conv2d_backward,
    conv2d_input_grad,
    conv2d_weight_grad,
    conv_transpose2d,
    conv_transpose2d_backward,
    determine_padding,
    get_im2col_indices,
    im2col,
    image_to_column,
    max_pool2d,
    max_pool2d_backward,
    pad2d,
    pad2d_backward,
    pad3d,
)

X = np.ones((2, 3, 8, 8))
W = np.ones((4, 3, 3, 3))
Y = np.ones((2, 4, 6, 6))
HUGE = np.broadcast_to(np.float32(1), (1, 10**6, 10**6))


class Sparse:
    """Has a shape and a dtype, but is no array."""

    shape, dtype, ndim = (1, 3, 8, 8), np.dtype("float64"), 4


class Tensor:
    """A tensor that requires grad."""

    requires_grad = True

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it is broken")


def read_only(shape, dtype=np.float64):
    array = np.empty(shape, dtype)
    array.flags.writeable = False
    return array


def overlapping():
    room = np.zeros(X.size + 10)
    x = room[: X.size].reshape(X.shape)
    return conv2d(x, W, out=room[10 : 10 + Y.size].reshape(Y.shape))


def out_overlaps_weight():
    room = np.ones(18)
    return conv2d(np.ones((1, 3, 3)), room[:9].reshape(1, 1, 3, 3), padding=1, out=room[8:17].reshape(1, 3, 3))


def layout(name):
    return {"fortran": np.empty(Y.shape, order="F"), "strided": np.empty((2, 4, 6, 12))[..., ::2]}[name]


# What is refused (numbers group what is alike), a call, what it raises, and what its message must say.
REFUSED = [
    ("1 None", lambda: conv2d(None, W), TypeError, ["conv2d", "x must", "NoneType"]),
    ("1 string", lambda: conv2d("image", W), TypeError, ["conv2d", "x", "str"]),
    ("1 object", lambda: conv2d(object(), W), TypeError, ["conv2d", "x", "object"]),
    ("1 weight None", lambda: conv2d(X, None), TypeError, ["conv2d", "weight", "NoneType"]),
    ("1 dict", lambda: max_pool2d({}, 2), TypeError, ["max_pool2d", "x", "dict"]),
    ("2 two axes", lambda: conv2d(np.ones((3, 3)), W), ValueError, ["conv2d", "x of shape (N, C, H, W)", "(3, 3)"]),
    ("2 five axes", lambda: im2col(np.ones((1, 1, 1, 3, 3)), 2), ValueError, ["im2col", "(1, 1, 1, 3, 3)"]),
    ("2 pad2d", lambda: pad2d(np.ones(3), 1), ValueError, ["pad2d", "(3,)"]),
    ("3 three axes", lambda: conv2d(X, np.ones((4, 3, 3))), ValueError, ["conv2d", "weight of shape", "(4, 3, 3)"]),
    ("3 transposed", lambda: conv_transpose2d(X, np.ones((3, 3))), ValueError,
     ["conv_transpose2d", "weight", "(3, 3)"]),
    ("3 input gradient", lambda: conv2d_input_grad(Y, np.ones((4, 3, 3)), 8), ValueError,
     ["conv2d_input_grad", "weight"]),
    ("4 channels", lambda: conv2d(np.ones((2, 5, 8, 8)), W), ValueError,
     ["conv2d: weight expects 3 input channels (groups=1), but x has 5: x (2, 5, 8, 8), weight (4, 3, 3, 3)"]),
    ("4 grouped", lambda: conv2d(np.ones((2, 4, 8, 8)), W, groups=2), ValueError, ["expects 6", "groups=2", "has 4"]),
    ("4 transposed", lambda: conv_transpose2d(np.ones((1, 2, 4, 4)), W), ValueError,
     ["conv_transpose2d", "weight", "(1, 2, 4, 4)", "(4, 3, 3, 3)"]),
    ("5 zero", lambda: conv2d(X, W, groups=0), ValueError, ["conv2d", "groups must be a positive integer, got 0"]),
    ("5 negative", lambda: conv2d(X, W, groups=-2), ValueError, ["groups", "-2"]),
    ("5 float", lambda: conv2d(X, W, groups=1.0), TypeError, ["conv2d", "groups", "float 1.0"]),
    ("5 bool", lambda: conv2d(X, W, groups=True), TypeError, ["conv2d", "groups", "bool"]),
    ("5 None", lambda: conv2d(X, W, groups=None), TypeError, ["conv2d", "groups", "NoneType"]),
    ("5 pair", lambda: conv2d_weight_grad(Y, X, 3, groups=(1, 2)), TypeError, ["conv2d_weight_grad", "groups"]),
    ("5 huge", lambda: conv2d(X, W, groups=2**70), ValueError, ["groups"]),
    ("5 input gradient", lambda: conv2d_input_grad(Y, W, 8, groups=0), ValueError,
     ["conv2d_input_grad", "groups must be a positive integer, got 0"]),
    ("6 channels", lambda: conv2d(X, W, groups=2), ValueError, ["conv2d", "groups=2", "(3)"]),
    ("6 filters", lambda: conv2d(X, np.ones((4, 1, 3, 3)), groups=3), ValueError, ["conv2d", "groups=3", "(4)"]),
    ("6 transposed", lambda: conv_transpose2d(X, np.ones((3, 1, 2, 2)), groups=2), ValueError, ["groups=2", "(3)"]),
    ("7 zero", lambda: conv2d(X, W, stride=(0, 1)), ValueError, ["conv2d", "stride must be >= 1", "(0, 1)"]),
    ("7 negative", lambda: im2col(X, 3, stride=-1), ValueError, ["im2col", "stride", "-1"]),
    ("7 pool", lambda: max_pool2d(X, 2, 0), ValueError, ["max_pool2d", "stride"]),
    ("7 seed", lambda: image_to_column(X, (3, 3), 0), ValueError, ["image_to_column", "stride"]),
    ("8 float", lambda: conv2d(X, W, stride=1.5), TypeError,
     ["conv2d", "stride must be an int or a pair of ints, got float 1.5"]),
    ("8 str", lambda: conv2d(X, W, stride="2"), TypeError, ["stride", "str '2'"]),
    ("8 None", lambda: conv2d(X, W, stride=None), TypeError, ["stride", "NoneType"]),
    ("8 numpy float", lambda: conv2d(X, W, stride=np.float64(2)), TypeError, ["stride", "float64"]),
    ("8 NaN", lambda: conv2d(X, W, stride=float("nan")), TypeError, ["stride", "nan"]),
    ("8 float in a pair", lambda: conv2d(X, W, stride=(1, 2.0)), TypeError, ["stride", "float 2.0"]),
    ("8 float array", lambda: conv2d(X, W, stride=np.ones(2)), TypeError, ["stride"]),
    ("8 padding", lambda: conv2d(X, W, padding=0.5), TypeError, ["padding", "float 0.5"]),
    ("8 padding None", lambda: conv2d(X, W, padding=None), TypeError, ["padding", "NoneType"]),
    ("8 dilation", lambda: conv2d(X, W, dilation="1"), TypeError, ["dilation", "str"]),
    ("8 dict", lambda: conv2d(X, W, stride={}), TypeError, ["stride", "dict"]),
    ("9 three", lambda: conv2d(X, W, stride=(1, 1, 1)), ValueError,
     ["conv2d", "stride must have 1 or 2 entries, got 3"]),
    ("9 none", lambda: conv2d(X, W, stride=()), ValueError, ["stride", "got 0"]),
    ("9 padding", lambda: conv2d(X, W, padding=(1, 1, 1, 1)), ValueError, ["padding", "got 4"]),
    ("9 nested", lambda: conv2d(X, W, padding=((1, 1), (1, 1), (1, 1))), ValueError, ["padding", "got 3"]),
    ("9 nested long", lambda: conv2d(X, W, padding=((1, 1, 1), (1, 1))), ValueError, ["padding", "got 3"]),
    ("10 negative", lambda: conv2d(X, W, padding=-1), ValueError, ["conv2d", "padding must be >= 0, got -1"]),
    ("10 one side", lambda: conv2d(X, W, padding=((0, -1), (0, 0))), ValueError, ["padding", "-1"]),
    ("11 name", lambda: conv2d(X, W, padding="foo"), ValueError, ["conv2d", "padding", "'same'", "'valid'", "'foo'"]),
    ("11 case", lambda: conv2d(X, W, padding="SAME"), ValueError, ["padding", "'SAME'"]),
    ("11 seed", lambda: determine_padding((3, 3), "foo"), ValueError, ["determine_padding: output_shape", "'foo'"]),
    ("11 seed columns", lambda: image_to_column(X, (3, 3), 1, "foo"), ValueError,
     ["image_to_column: output_shape", "'foo'"]),
    ("11 seed sides", lambda: image_to_column(X, (3, 3), 1, ((1, -1), (0, 0))), ValueError,
     ["image_to_column: output_shape must be >= 0, got"]),
    ("11 seed back", lambda: column_to_image(X, X.shape, (3, 3), 1, "foo"), ValueError,
     ["column_to_image: output_shape", "'foo'"]),
    ("11 pad2d", lambda: pad2d(X, "same"), ValueError, ["pad2d", "padding", "'same'"]),
    ("13 zero", lambda: conv2d(X, W, dilation=0), ValueError, ["conv2d", "dilation must be >= 1, got 0"]),
    ("13 negative", lambda: im2col(X, 3, dilation=(1, -1)), ValueError, ["im2col", "dilation", "(1, -1)"]),
    ("14 kernel", lambda: conv2d(np.ones((1, 3, 2, 2)), W), ValueError,
     ["conv2d: kernel 3x3 with dilation 1 (extent 3x3) is larger than the padded input 2x2"]),
    ("14 dilated", lambda: conv2d(X, W, dilation=(1, 5)), ValueError, ["kernel 3x3", "(1, 5)", "extent 3x11", "8x8"]),
    ("15 kernel", lambda: conv2d(X, np.ones((4, 3, 0, 3))), ValueError, ["conv2d", "1x1", "(4, 3, 0, 3)"]),
    ("15 filters", lambda: conv2d(X, np.ones((0, 3, 3, 3))), ValueError, ["conv2d", "(0, 3, 3, 3)"]),
    ("15 im2col", lambda: im2col(X, (0, 3)), ValueError, ["im2col", "kernel_size", ">= 1", "(0, 3)"]),
    ("15 weight gradient", lambda: conv2d_weight_grad(Y, X, (3, 0)), ValueError,
     ["conv2d_weight_grad", "kernel_size", ">= 1", "(3, 0)"]),
    ("17 no rows", lambda: conv2d(np.ones((1, 3, 0, 8)), W), ValueError, ["conv2d", "0x8"]),
    ("17 no columns", lambda: im2col(np.ones((1, 3, 8, 0)), 1), ValueError, ["im2col", "8x0"]),
    ("17 transposed", lambda: conv_transpose2d(np.ones((1, 3, 0, 8)), np.ones((3, 1, 1, 1))), ValueError,
     ["conv_transpose2d", "(1, 3, 0, 8)"]),
    ("18 padding", lambda: conv2d(X, W, padding=2**62), ValueError, ["conv2d", "padding", str(2**62)]),
    ("18 padding, in range", lambda: conv2d(X, W, padding=2**31 - 1), (ValueError, MemoryError), ["conv2d"]),
    ("18 stride", lambda: conv2d(X, W, stride=2**62), ValueError, ["stride"]),
    ("18 stride beyond", lambda: conv2d(X, W, stride=2**100), ValueError, ["stride"]),
    ("18 dilation", lambda: conv2d(X, W, dilation=2**40), ValueError, ["dilation"]),
    ("18 dilation and padding", lambda: conv2d(X, W, dilation=2**30, padding=2**31 - 1), (ValueError, MemoryError), []),
    ("18 kernel", lambda: im2col(X, 2**40), ValueError, ["kernel_size"]),
    ("18 image", lambda: col2im(np.ones((9, 9)), 2**62, 3), ValueError, ["col2im", "image_size"]),
    ("18 same", lambda: conv2d(X, W, dilation=2**30, padding="same"), (ValueError, MemoryError), []),
    ("18 full", lambda: conv2d(X, W, dilation=2**31 - 1, padding="full"), (ValueError, MemoryError), []),
    ("18 pad2d", lambda: pad2d(X, 2**30), MemoryError, ["pad2d", "iB"]),
    ("18 pad3d of no images", lambda: pad3d(np.ones((0, 5, 6, 5)), 10**6), MemoryError, ["pad3d", "iB"]),
    ("18 pad2d edges", lambda: pad2d(X, 2**30, mode="edge"), MemoryError, ["pad2d"]),
    ("19 output", lambda: conv2d(np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32), padding=10**6),
     MemoryError, ["conv2d", "iB", "float32"]),
    ("19 columns", lambda: im2col(np.ones((1, 1, 1)), 1, padding=10**7), MemoryError, ["im2col", "iB"]),
    ("19 transposed", lambda: conv_transpose2d(np.ones((1, 9, 9)), np.ones((1, 1, 1, 1)), stride=2**30), MemoryError,
     ["conv_transpose2d"]),
    ("19 filters", lambda: conv2d(np.ones((1, 1000, 1000)), np.broadcast_to(1.0, (10**8, 1, 1, 1))), MemoryError,
     ["conv2d", "iB"]),
    ("23 object", lambda: conv2d(X.astype(object), W), TypeError, ["conv2d", "x", "object"]),
    ("23 structured", lambda: conv2d(np.zeros((1, 3, 3), "f4,f4"), W), TypeError, ["conv2d", "x has dtype", "f4"]),
    ("23 datetime", lambda: conv2d(np.zeros((1, 3, 3), "M8[s]"), W), TypeError, ["x", "datetime64[s]"]),
    ("23 timedelta", lambda: pad2d(np.zeros((1, 3, 3), "m8[s]"), 1), TypeError, ["pad2d", "timedelta64[s]"]),
    ("23 strings", lambda: conv2d(np.zeros((1, 3, 3), "U3"), W), TypeError, ["x", "U3"]),
    ("23 bytes", lambda: conv2d(X, np.zeros((1, 3, 3, 3), "S2")), TypeError, ["weight", "S2"]),
    ("23 void", lambda: conv2d(X, np.zeros((1, 3, 3, 3), "V8")), TypeError, ["weight", "V8"]),
    ("23 maximum of a string", lambda: max_pool2d("abc", 2), TypeError, ["max_pool2d: x must be a real numeric array"]),
    ("23 complex maximum", lambda: max_pool2d(X * 1j, 2), TypeError, ["max_pool2d", "complex128"]),
    ("24 longdouble", lambda: conv2d(X.astype(np.longdouble), W), TypeError, ["conv2d", "x", np.dtype("g").name]),
    ("24 clongdouble", lambda: conv2d(X, W.astype(np.clongdouble)), TypeError, ["weight", np.dtype("G").name]),
    ("26 masked", lambda: conv2d(np.ma.masked_less(X, 0), W), TypeError, ["conv2d", "x", "masked", "filled"]),
    ("26 masked weight", lambda: conv2d(X, np.ma.array(W)), TypeError, ["weight", "masked"]),
    ("26 masked bias", lambda: conv2d(X, W, np.ma.ones(4)), TypeError, ["bias", "masked"]),
    ("26 masked out", lambda: conv2d(X, W, out=np.ma.empty(Y.shape)), TypeError, ["out", "MaskedArray"]),
    ("27 sparse", lambda: conv2d(Sparse(), W), TypeError, ["conv2d", "x", "Sparse"]),
    ("27 requires grad", lambda: conv2d(Tensor(), W), TypeError, ["conv2d", "x", "detach"]),
    ("27 broken", lambda: conv2d(X, Broken()), TypeError, ["conv2d", "weight", "it is broken"]),
    ("28 ragged", lambda: conv2d([[[1, 2], [3]]], W), ValueError, ["conv2d", "x", "regular"]),
    ("29 length", lambda: conv2d(X, W, np.ones(5)), ValueError, ["conv2d", "bias must have shape (4,)", "(5,)"]),
    ("29 axes", lambda: conv2d(X, W, np.ones((4, 1))), ValueError, ["bias", "(4,)", "(4, 1)"]),
    ("29 scalar", lambda: conv2d(X, W, 1.0), ValueError, ["bias", "()"]),
    ("29 dtype", lambda: conv2d(X, W, ["a"] * 4), TypeError, ["conv2d", "bias"]),
    ("29 transposed", lambda: conv_transpose2d(X, np.ones((3, 2, 1, 1)), np.ones(3)), ValueError, ["bias", "(2,)"]),
    ("30 shape", lambda: conv2d(X, W, out=np.empty((2, 4, 6, 5))), ValueError, ["conv2d", "out", "(2, 4, 6, 6)"]),
    ("30 dtype", lambda: conv2d(X, W, out=np.empty(Y.shape, "f4")), ValueError, ["out", "float64", "float32"]),
    ("30 byte order", lambda: conv2d(X, W, out=np.empty(Y.shape, np.dtype("f8").newbyteorder("S"))), ValueError,
     ["out"]),
    ("30 read-only", lambda: conv2d(X, W, out=read_only(Y.shape)), ValueError, ["conv2d", "out is read-only"]),
    ("30 fortran", lambda: conv2d(X, W, out=layout("fortran")), ValueError, ["out", "contiguous"]),
    ("30 strided", lambda: conv2d(X, W, out=layout("strided")), ValueError, ["out", "contiguous"]),
    ("30 overlap", overlapping, ValueError, ["conv2d", "out overlaps x"]),
    ("30 overlaps weight", out_overlaps_weight, ValueError, ["conv2d", "out overlaps weight"]),
    ("30 itself", lambda: conv2d(X[:1, :1], np.ones((1, 1, 1, 1)), out=X[:1, :1]), ValueError, ["out"]),
    ("30 list", lambda: conv2d(X, W, out=[1]), TypeError, ["out", "list"]),
    ("31 size", lambda: conv2d_backward(np.ones((2, 4, 5, 5)), X, W), ValueError,
     ["conv2d_backward", "grad_output must have shape (2, 4, 6, 6)", "(2, 4, 5, 5)"]),
    ("31 batch", lambda: conv2d_backward(np.ones((1, 4, 6, 6)), X, W), ValueError, ["grad_output", "(1, 4, 6, 6)"]),
    ("31 axes", lambda: conv2d_backward(np.ones((4, 6, 6)), X, W), ValueError, ["grad_output", "(4, 6, 6)"]),
    ("31 weight gradient", lambda: conv2d_weight_grad(np.ones((2, 4, 5, 6)), X, 3), ValueError,
     ["conv2d_weight_grad", "grad_output", "(2, 4, 6, 6)", "(2, 4, 5, 6)"]),
    ("31 transposed", lambda: conv_transpose2d_backward(*[np.ones((1, 1, 2, 2))] * 3),
     ValueError, ["conv_transpose2d_backward", "grad_output", "(1, 1, 3, 3)"]),
    ("31 maximum", lambda: max_pool2d_backward(np.ones((1, 3, 3)), np.ones((1, 4, 4)), 2), ValueError,
     ["max_pool2d_backward", "grad_output", "(1, 2, 2)"]),
    ("31 mean", lambda: avg_pool2d_backward(np.ones((1, 3, 3)), 4, 2), ValueError,
     ["avg_pool2d_backward", "grad_output", "(1, 2, 2)", "got (1, 3, 3)"]),
    ("31 mixed axes", lambda: conv2d_weight_grad(np.ones((4, 6, 6)), X, 3), ValueError, ["grad_output", "(4, 6, 6)"]),
    ("32 input size", lambda: conv2d_input_grad(Y, W, (12, 11), stride=2), ValueError,
     ["conv2d_input_grad", "input_size (12, 11)", "13..14"]),
    ("32 one image", lambda: conv2d_input_grad(Y[0], W, (12, 11), stride=2), ValueError, ["grad_output (4, 6, 6) is"]),
    ("32 channels", lambda: conv2d_input_grad(np.ones((2, 3, 6, 6)), W, 8), ValueError, ["grad_output", "4 channels"]),
    ("33 kernel", lambda: im2col(np.ones((1, 2, 2)), 3), ValueError, ["im2col", "kernel 3x3", "2x2"]),
    ("33 seed", lambda: image_to_column(np.ones((1, 1, 2, 2)), (3, 3), 1, "valid"), ValueError,
     ["image_to_column", "3x3"]),
    ("33 indices", lambda: get_im2col_indices((1, 1, 2, 2), (3, 3), ((0, 0), (0, 0))), ValueError,
     ["get_im2col_indices", "3x3"]),
    ("34 positions", lambda: col2im(np.ones((1, 4, 5)), 3, 2), ValueError, ["col2im", "5 positions", "(1, 4, 5)"]),
    ("34 rows", lambda: col2im(np.ones((1, 5, 4)), 3, 2), ValueError, ["col2im", "5 rows", "2x2"]),
    ("34 axes", lambda: col2im(np.ones(4), 3, 2), ValueError, ["col2im", "(4,)"]),
    ("34 seed", lambda: column_to_image(np.ones((4, 5)), (1, 1, 3, 3), (2, 2), 1, "valid"), ValueError,
     ["column_to_image", "(4, 4)", "(4, 5)"]),
    ("34 seed shape", lambda: column_to_image(np.ones((4, 4)), (1, 3, 3), (2, 2), 1), ValueError,
     ["column_to_image", "images_shape", "(1, 3, 3)"]),
    ("35 reflect", lambda: pad2d(np.ones((1, 3, 3)), 3, mode="reflect"), ValueError, ["pad2d", "reflect", "height 3"]),
    ("35 in conv2d", lambda: conv2d(X, W, padding=8, padding_mode="reflect"), ValueError, ["conv2d", "reflect"]),
    ("35 list", lambda: pad2d(X, [1, 2, 3]), ValueError, ["pad2d", "padding", "got 3"]),
    ("35 mode", lambda: pad2d(X, 1, mode="foo"), ValueError, ["pad2d", "mode", "'foo'", "'symmetric'"]),
    ("35 mode kind", lambda: pad2d(X, 1, mode=None), TypeError, ["pad2d", "mode", "NoneType"]),
    ("35 value", lambda: pad2d(X, 1, value=[1, 2]), TypeError, ["pad2d", "value", "scalar"]),
    ("35 value None", lambda: pad2d(X, 1, value=None), (TypeError, ValueError), ["pad2d", "value"]),
    ("35 value for uint8", lambda: pad2d(X.astype("u1"), 1, value=256), ValueError, ["pad2d", "value 256", "uint8"]),
    ("35 value -1 for uint8", lambda: pad2d(X.astype("u1"), 1, value=-1), ValueError, ["value -1", "uint8"]),
    ("35 value NaN for ints", lambda: pad2d(X.astype("i4"), 1, value=np.nan), ValueError, ["value", "int32"]),
    ("35 complex value", lambda: pad2d(X, 1, value=1j), ValueError, ["value", "float64"]),
    ("35 negative", lambda: pad2d(X, -1), ValueError, ["pad2d", "padding", "-1"]),
    ("35 float", lambda: pad2d(X, 1.0), TypeError, ["pad2d", "padding", "float"]),
    ("35 backward", lambda: pad2d_backward(np.ones((1, 3, 3)), 2), ValueError, ["pad2d_backward", "padding", "height"]),
    ("35 no pixels", lambda: pad2d(np.ones((1, 0, 3)), 1, mode="edge"), ValueError, ["pad2d", "height 0", "edge"]),
    ("36 output padding", lambda: conv_transpose2d(X, np.ones((3, 1, 2, 2)), output_padding=1), ValueError,
     ["conv_transpose2d", "output_padding", "stride", "dilation"]),
    ("36 output size", lambda: conv_transpose2d(X, np.ones((3, 1, 2, 2)), stride=2, output_size=18), ValueError,
     ["output_size (18, 18)", "(16, 16)"]),
    ("36 disagree", lambda: conv_transpose2d(X, np.ones((3, 1, 2, 2)), stride=2, output_padding=1, output_size=16),
     ValueError, ["output_size (16, 16)", "(1, 1)"]),
    ("36 nothing left", lambda: conv_transpose2d(np.ones((1, 1, 1)), np.ones((1, 1, 1, 1)), padding=1), ValueError,
     ["conv_transpose2d", "padding"]),
    ("37 padding", lambda: max_pool2d(X, 2, padding=2), ValueError, ["max_pool2d", "padding", "kernel"]),
    ("37 one side", lambda: avg_pool2d(X, 3, padding=((0, 3), (0, 0))), ValueError, ["avg_pool2d", "padding"]),
    ("37 full", lambda: max_pool2d(X, 1, padding=1), ValueError, ["max_pool2d", "padding"]),
    ("37 kernel", lambda: max_pool2d(X, 0), ValueError, ["max_pool2d", "kernel_size", ">= 1", "got 0"]),
    ("37 too large", lambda: avg_pool2d(X, 9), ValueError, ["avg_pool2d", "kernel 9x9", "8x8"]),
    ("37 kernel None", lambda: avg_pool2d(X, None), TypeError, ["avg_pool2d", "kernel_size"]),
    ("37 indices", lambda: max_pool2d_backward(np.ones((1, 1, 1)), np.ones((1, 2, 2)), 2, indices=[[[4]]]), ValueError,
     ["max_pool2d_backward", "indices", "4"]),
    ("37 negative indices", lambda: max_pool2d_backward(np.ones((1, 1, 1)), np.ones((1, 2, 2)), 2, indices=[[[-2]]]),
     ValueError, ["indices", "-2"]),
    ("37 float indices", lambda: max_pool2d_backward(np.ones((1, 1, 1)), np.ones((1, 2, 2)), 2, indices=[[[0.0]]]),
     TypeError, ["indices", "float64"]),
    ("37 shape of indices", lambda: max_pool2d_backward(np.ones((1, 1, 1)), np.ones((1, 2, 2)), 2, indices=[[0]]),
     ValueError, ["indices", "(1, 1)"]),
    ("44 strides", lambda: conv2d(X, W, strides=2), TypeError, ["conv2d", "'strides'", "'stride'"]),
    ("44 dilation_rate", lambda: conv2d(X, W, dilation_rate=2), TypeError, ["'dilation_rate'", "'dilation'"]),
    ("44 data_format", lambda: conv2d(X, W, data_format="NHWC"), TypeError, ["'data_format'", "'layout'"]),
    ("44 layout of columns", lambda: im2col(X, 2, layout="NHWC"), TypeError, ["im2col", "'layout'", "(N, C, H, W)"]),
    ("44 pool_size", lambda: max_pool2d(X, 2, pool_size=2), TypeError, ["max_pool2d", "'pool_size'", "'kernel_size'"]),
    ("44 anything", lambda: conv2d(X, W, wibble=1), TypeError, ["conv2d", "'wibble'", "padding_mode"]),
    ("44 zeros", lambda: conv2d(X, W, padding_mode="zeros"), ValueError, ["conv2d", "padding_mode", "'constant'"]),
    ("44 replicate", lambda: pad2d(X, 1, mode="replicate"), ValueError, ["pad2d", "mode", "'edge'"]),
    ("44 circular", lambda: conv2d(X, W, padding=1, padding_mode="circular"), ValueError, ["'wrap'"]),
    ("45 stride", lambda: conv2d(X, W, stride=np.True_), TypeError, ["stride", "bool"]),
    ("45 groups", lambda: conv2d(X, W, groups=np.True_), TypeError, ["groups", "bool"]),
    ("45 in a pair", lambda: conv2d(X, W, stride=(True, 1)), TypeError, ["stride", "bool"]),
    ("45 bool array", lambda: conv2d(X, W, padding=np.array([True, False])), TypeError, ["padding", "bool"]),
    ("46 giant", lambda: conv2d(HUGE, np.ones((1, 1, 1, 1), np.float32)), MemoryError, ["conv2d", "iB"]),
    ("46 giant, small result", lambda: conv2d(HUGE, np.ones((1, 1, 1, 1), np.float32), stride=10**5), MemoryError,
     ["conv2d", "iB"]),
    ("46 columns", lambda: im2col(HUGE, 1, stride=10**5), MemoryError, ["im2col", "iB"]),
    ("46 pool", lambda: max_pool2d(HUGE, 1, 10**5), MemoryError, ["max_pool2d", "iB"]),
    ("46 gradient", lambda: conv2d_weight_grad(HUGE[:, ::10**5, ::10**5], HUGE, 1, stride=10**5), MemoryError, ["iB"]),
    ("46 pad", lambda: pad2d(HUGE, 0), MemoryError, ["pad2d", "iB"]),
    ("need", lambda: conv2d_backward(Y, X, W, need=(True, False)), ValueError, ["conv2d_backward", "need", "three"]),
    ("need kind", lambda: conv2d_backward(Y, X, W, need=None), (TypeError, ValueError), ["conv2d_backward", "need"]),
    ("algorithm", lambda: conv2d(X, W, algorithm="magic"), ValueError,
     ["conv2d", "algorithm", "'reference'", "'magic'"]),
    ("algorithm kind", lambda: conv2d(X, W, algorithm=None), TypeError, ["conv2d", "algorithm", "NoneType"]),
    ("seed images", lambda: image_to_column(np.ones((3, 8, 8)), (3, 3), 1), ValueError,
     ["image_to_column", "(3, 8, 8)"]),
    ("seed filter", lambda: determine_padding((0, 3)), ValueError, ["determine_padding", "filter_shape", "(0, 3)"]),
    ("seed filter kind", lambda: determine_padding(("a", 3)), TypeError, ["determine_padding", "filter_shape"]),
    ("seed padding kind", lambda: determine_padding((3, 3), 1), TypeError, ["determine_padding", "output_shape"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(call, error, words):
    with pytest.raises(error) as raised:
        call()
    message = str(raised.value)
    for word in words:
        assert word in message
    assert "numba" not in message.lower()
    assert "\n" not in message
    assert not type(raised.value).__module__.startswith("numba")
    assert re.match(rf"({'|'.join(name for name in dir(convjit) if not name.startswith('_'))}): \w", message)


ACCEPTED = [
    ("8 numpy int", lambda: conv2d(X, W, stride=np.int8(2)), (2, 4, 3, 3)),
    ("8 list", lambda: conv2d(X, W, stride=[2, 1]), (2, 4, 3, 6)),
    ("8 array", lambda: conv2d(X, W, stride=np.array([1, 2])), (2, 4, 6, 3)),
    ("9 one entry", lambda: conv2d(X, W, stride=(2,)), (2, 4, 3, 3)),
    ("12 same with stride", lambda: conv2d(X, W, stride=3, padding="same"), (2, 4, 3, 3)),
    ("16 no images", lambda: conv2d(X[:0], W), (0, 4, 6, 6)),
    ("16 no channels", lambda: conv2d(X[:, :0], W[:, :0]), (2, 4, 6, 6)),
    ("17 no rows, padded", lambda: conv2d(X[:, :, :0], W, padding=((2, 1), (0, 0))), (2, 4, 1, 6)),
    ("18 stride in range", lambda: conv2d(X, W, stride=2**31 - 1), (2, 4, 1, 1)),
    ("18 dilation in range", lambda: conv2d(X, W[:, :, :1, :1], dilation=2**31 - 1), (2, 4, 8, 8)),
    ("20 mixed dtypes", lambda: conv2d(X.astype("f4"), W), (2, 4, 6, 6)),
    ("21 bool", lambda: conv2d(X.astype(bool), W.astype(bool)), (2, 4, 6, 6)),
    ("22 float16", lambda: conv2d(X.astype("f2"), W.astype("f2")), (2, 4, 6, 6)),
    ("23 complex", lambda: conv2d(X * 1j, W), (2, 4, 6, 6)),
    ("25 big-endian", lambda: conv2d(X.astype(">f8"), W.astype("<f8")), (2, 4, 6, 6)),
    ("36 reached", lambda: conv_transpose2d(X, np.ones((3, 1, 2, 2)), stride=2, output_padding=1), (2, 1, 17, 17)),
    ("37 padding below the dilated kernel", lambda: max_pool2d(X, 2, 1, 2, 2), (2, 3, 10, 10)),
    ("algorithm fastest", lambda: conv2d(X, W, algorithm="fastest"), (2, 4, 6, 6)),
]


@pytest.mark.parametrize(("call", "shape"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(call, shape):
    assert call().shape == shape


def test_a_refused_call_writes_nothing():
    out = np.full(Y.shape, 7.0)
    for call in (
        lambda: conv2d(X, W, np.ones(5), out=out),
        lambda: conv2d(X, W, stride=0, out=out),
        lambda: conv2d(X, W, algorithm="magic", out=out),
        lambda: conv2d(X, W.astype(object), out=out),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert (out == 7).all()


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="this NumPy has no such strings; others are above")
def test_strings_of_any_length():
    with pytest.raises(TypeError, match=r"^conv2d: x has dtype StringDType\(\), which is not supported"):
        conv2d(np.full((1, 3, 3), "a", np.dtypes.StringDType()), W)
