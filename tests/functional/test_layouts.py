"""The same values give the same bits, however they lie in memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convjit
from convjit.testing import LAYOUTS, conv2d_cases, layouts, real_arrays

X = np.random.default_rng(0).standard_normal((2, 2, 5, 6))
W = np.random.default_rng(1).standard_normal((4, 2, 3, 2))
DY = convjit.conv2d(X, W, stride=2, padding=1)
COLUMNS = convjit.im2col(X, (3, 2), 2, 1)

# Each public function of arrays, called on arrays that were laid out by `lay`.
CALLS = {
    "conv2d": lambda lay: convjit.conv2d(lay(X), lay(W), lay(np.arange(4.0)), 2, 1),
    "conv2d with edges": lambda lay: convjit.conv2d(lay(X), lay(W), padding=1, padding_mode="reflect"),
    "conv2d complex": lambda lay: convjit.conv2d(lay(X + 1j), lay(W * 1j)),
    "conv2d integers": lambda lay: convjit.conv2d(lay((9 * X).astype("int16")), lay((9 * W).astype("int16"))),
    "conv2d_backward x": lambda lay: convjit.conv2d_backward(lay(DY), lay(X), lay(W), 2, 1)[0],
    "conv2d_backward weight": lambda lay: convjit.conv2d_backward(lay(DY), lay(X), lay(W), 2, 1)[1],
    "conv2d_backward bias": lambda lay: convjit.conv2d_backward(lay(DY), lay(X), lay(W), 2, 1)[2],
    "conv2d_input_grad": lambda lay: convjit.conv2d_input_grad(lay(DY), lay(W), (5, 6), 2, 1),
    "conv2d_weight_grad": lambda lay: convjit.conv2d_weight_grad(lay(DY), lay(X), (3, 2), 2, 1),
    "conv_transpose2d": lambda lay: convjit.conv_transpose2d(lay(DY), lay(W), lay(np.ones(2)), 2, 1),
    "conv_transpose2d_backward": lambda lay: convjit.conv_transpose2d_backward(
        lay(X), lay(DY), lay(W), 2, 1, output_size=(5, 6)
    )[1],
    "im2col": lambda lay: convjit.im2col(lay(X), (3, 2), 2, 1),
    "im2col complex": lambda lay: convjit.im2col(lay(X + 1j), (3, 2), 2, 1),
    "col2im": lambda lay: convjit.col2im(lay(COLUMNS), (5, 6), (3, 2), 2, 1),
    "pad2d": lambda lay: convjit.pad2d(lay(X), 2, mode="reflect"),
    "pad2d_backward": lambda lay: convjit.pad2d_backward(lay(X), 1, mode="wrap"),
    "pad2d_backward constant": lambda lay: convjit.pad2d_backward(lay(X), 1),
    "max_pool2d": lambda lay: convjit.max_pool2d(lay(X), 2),
    "max_pool2d_backward": lambda lay: convjit.max_pool2d_backward(lay(convjit.max_pool2d(X, 2)), lay(X), 2),
    "avg_pool2d": lambda lay: convjit.avg_pool2d(lay(X), 2),
    "avg_pool2d_backward": lambda lay: convjit.avg_pool2d_backward(lay(X), (10, 12), 2),
    "image_to_column": lambda lay: convjit.image_to_column(lay(X), (3, 2), 2),
    "column_to_image": lambda lay: convjit.column_to_image(
        lay(convjit.image_to_column(X, (3, 2), 2)), X.shape, (3, 2), 2
    ),
}


def _of_rank(rank, x):
    """The functions of another number of dimensions, images of which are `x`."""
    size, weight = x.shape[2:], np.resize(W, (4, 2, *[2] * rank))
    of = {name: getattr(convjit, f"{name}{rank}d") for name in ("conv", "conv_transpose", "im2col", "col2im", "pad")}
    of |= {f"{name}_pool": getattr(convjit, f"{name}_pool{rank}d") for name in ("max", "avg")}
    back = {name: getattr(convjit, f"{name}{rank}d_backward") for name in ("conv", "conv_transpose", "pad")}
    back |= {f"{name}_pool": getattr(convjit, f"{name}_pool{rank}d_backward") for name in ("max", "avg")}
    input_grad, weight_grad = (getattr(convjit, f"conv{rank}d_{name}_grad") for name in ("input", "weight"))
    dy, columns, largest = of["conv"](x, weight), of["im2col"](x, 2), of["max_pool"](x, 2)
    grown = tuple(2 * n for n in size)
    return {
        f"conv{rank}d": lambda lay: of["conv"](lay(x), lay(weight), lay(np.arange(4.0)), 1, 1),
        f"conv{rank}d_backward": lambda lay: back["conv"](lay(dy), lay(x), lay(weight))[1],
        f"conv{rank}d_input_grad": lambda lay: input_grad(lay(dy), lay(weight), size),
        f"conv{rank}d_weight_grad": lambda lay: weight_grad(lay(dy), lay(x), 2),
        f"conv_transpose{rank}d": lambda lay: of["conv_transpose"](lay(dy), lay(weight), lay(np.ones(2)), 2),
        f"conv_transpose{rank}d_backward": lambda lay: back["conv_transpose"](lay(x), lay(dy), lay(weight))[1],
        f"im2col{rank}d": lambda lay: of["im2col"](lay(x), 2),
        f"col2im{rank}d": lambda lay: of["col2im"](lay(columns), size, 2),
        f"pad{rank}d": lambda lay: of["pad"](lay(x), 1, mode="reflect"),
        f"pad{rank}d_backward": lambda lay: back["pad"](lay(x), 1),
        f"max_pool{rank}d": lambda lay: of["max_pool"](lay(x), 2),
        f"max_pool{rank}d_backward": lambda lay: back["max_pool"](lay(largest), lay(x), 2),
        f"avg_pool{rank}d": lambda lay: of["avg_pool"](lay(x), 2),
        f"avg_pool{rank}d_backward": lambda lay: back["avg_pool"](lay(x), grown, 2),
    }


CALLS |= _of_rank(1, X[:, :, 0]) | _of_rank(3, np.random.default_rng(2).standard_normal((2, 2, 3, 5, 4)))


def test_every_function_is_listed():
    functions = {name for name in dir(convjit) if callable(getattr(convjit, name)) and name[0].islower()}
    functions -= {"determine_padding", "get_im2col_indices", "explain", "warmup"}
    functions -= {f"conv{rank}d_plan" for rank in (1, 2, 3)}
    assert functions <= {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("call", CALLS)
def test_layouts_give_the_same_bits(call, layout):
    plain, laid_out = CALLS[call](lambda a: a), CALLS[call](LAYOUTS[layout])
    assert laid_out.dtype == plain.dtype
    assert laid_out.shape == plain.shape
    assert laid_out.flags.c_contiguous
    assert laid_out.tobytes() == plain.tobytes()


@given(data=st.data())
def test_drawn_problems_in_drawn_layouts(data):
    case = data.draw(conv2d_cases("float32", real_arrays))
    x, weight, dy = (data.draw(layouts(a)) for a in (case.x, case.weight, case.grad_output))
    options = case.problem.options
    y = convjit.conv2d(case.x, case.weight, **options)
    assert convjit.conv2d(x, weight, **options).tobytes() == y.tobytes()
    plain = convjit.conv2d_backward(case.grad_output, case.x, case.weight, **options)
    for got, wanted in zip(convjit.conv2d_backward(dy, x, weight, **options), plain, strict=True):
        assert got.tobytes() == wanted.tobytes()


def test_zero_strides():
    x = np.broadcast_to(np.float32(2), (1, 3, 4, 4))
    assert (convjit.conv2d(x, np.broadcast_to(np.float32(1), (2, 3, 2, 2))) == 24).all()
