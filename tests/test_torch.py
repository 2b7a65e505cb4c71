"""A second opinion: drawn problems by PyTorch in float64, to 1e-10. Without it the oracle's exact tests still run."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from convjit import (
    avg_pool2d,
    avg_pool2d_backward,
    col2im,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    im2col,
    max_pool2d,
    max_pool2d_backward,
)
from convjit.testing import conv2d_cases, real_arrays

try:
    import torch
    from torch.nn import functional
except ImportError:
    pytest.skip(
        "PyTorch is not installed; tests/functional compares the same operations exactly with the oracle",
        allow_module_level=True,
    )

EXAMPLES = 200  # a test: about a thousand in all
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
# PyTorch pads with other modes on fewer terms (never more than the image), so the modes have the oracle alone.
ZEROS = {"padding_modes": ["constant"]}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(*arrays):
    """Tensors that collect gradients, None where there is no array."""
    return [None if a is None else torch.tensor(a, requires_grad=True) for a in arrays]


def padded(x, pads):
    """PyTorch pads both sides alike; this pads any side, differentiably."""
    (top, bottom), (left, right) = pads
    return functional.pad(x, (left, right, top, bottom))


@contextmanager
def names(problem):
    """Names the problem in a failure."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{problem}: {error}") from error


def assert_close(got, wanted):
    for mine, theirs in zip(got, wanted, strict=True):
        assert_allclose(mine, theirs.detach().numpy(), **CLOSE)


@settings(max_examples=EXAMPLES)
@given(case=conv2d_cases(values=real_arrays, max_kernel=4, max_extra=6, **ZEROS))
def test_conv2d_and_all_gradients(case):
    problem = case.problem
    x, weight, bias = tensors(case.x, case.weight, case.bias)
    options = {"stride": problem.stride_pair, "dilation": problem.dilation_pair, "groups": problem.groups}
    y = functional.conv2d(padded(x, problem.pads), weight, bias, **options)
    y.backward(torch.tensor(case.grad_output))
    with names(problem):
        assert_close([conv2d(case.x, case.weight, case.bias, **problem.options)], [y])
        gradients = conv2d_backward(case.grad_output, case.x, case.weight, **problem.options)
        assert_close(
            gradients[: 2 if bias is None else 3], [x.grad, weight.grad] + ([] if bias is None else [bias.grad])
        )


@settings(max_examples=EXAMPLES)
@given(case=conv2d_cases(values=real_arrays, max_groups=1, **ZEROS), data=st.data())
def test_unfold_and_fold(case, data):
    problem = case.problem
    (top, bottom), (left, right) = problem.pads
    options = {"kernel_size": problem.kernel, "stride": problem.stride_pair, "dilation": problem.dilation_pair}
    x = case.x.reshape(problem.batched_x_shape)
    wanted = functional.unfold(padded(torch.tensor(x), problem.pads), **options)
    columns = data.draw(real_arrays(tuple(wanted.shape)))
    size = (problem.image[0] + top + bottom, problem.image[1] + left + right)
    folded = functional.fold(torch.tensor(columns), size, **options)
    folded = folded[..., top : top + problem.image[0], left : left + problem.image[1]]
    with names(problem):
        assert_array_equal(im2col(x, problem.kernel, **problem.window), wanted.numpy())
        assert_close([col2im(columns, problem.image, problem.kernel, **problem.window)], [folded])


@settings(max_examples=EXAMPLES)
@given(case=conv2d_cases(values=real_arrays, max_kernel=4, **ZEROS))
def test_conv_transpose2d_and_all_gradients(case):
    problem = case.problem
    top, left = problem.pads[0][0], problem.pads[1][0]
    # PyTorch cuts alike on both sides: compute everything, add what stride left over, and cut afterwards.
    x, weight = tensors(case.grad_output, case.weight)
    options = {"stride": problem.stride_pair, "dilation": problem.dilation_pair, "groups": problem.groups}
    full = functional.conv_transpose2d(x, weight, **options)
    room = [max(0, n + sum(p) - f) for n, p, f in zip(problem.image, problem.pads, full.shape[-2:], strict=True)]
    full = functional.pad(full, (0, room[1], 0, room[0]))
    y = full[..., top : top + problem.image[0], left : left + problem.image[1]]
    y.backward(torch.tensor(case.x))
    window = {**options, "padding": problem.pads, "output_size": problem.image}
    with names(problem):
        assert_close([conv_transpose2d(case.grad_output, case.weight, **window)], [y])
        gradients = conv_transpose2d_backward(case.x, case.grad_output, case.weight, **window)
        assert_close(gradients[:2], [x.grad, weight.grad])
        assert_allclose(gradients[2], case.x.reshape(problem.batched_x_shape).sum((0, 2, 3)), **CLOSE)


@st.composite
def pools(draw):
    """Images and a pooling as PyTorch takes it: padding at most half the kernel, the same on both sides."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    sizes = tuple(k + draw(st.integers(0, 6)) for k in kernel)
    x = draw(real_arrays((draw(st.integers(1, 2)), 2, *sizes)))
    return x, {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}


@settings(max_examples=EXAMPLES)
@given(problem=pools(), dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), data=st.data())
def test_max_pool2d(problem, dilation, data):
    x, options = problem
    x = np.pad(x, ((0, 0), (0, 0), (2, 3), (3, 2)))  # room for dilation; and ties, whose first one wins in both
    options = {**options, "dilation": dilation}
    tensor = tensors(x)[0]
    y, indices = functional.max_pool2d(tensor, **options, return_indices=True)
    dy = data.draw(real_arrays(tuple(y.shape)))
    y.backward(torch.tensor(dy))
    with names((x.shape, options)):
        got, where = max_pool2d(x, **options, return_indices=True)
        assert_array_equal(got, y.detach().numpy())
        assert_array_equal(where, indices.numpy())
        assert_close([max_pool2d_backward(dy, x, **options)], [tensor.grad])


@settings(max_examples=EXAMPLES)
@given(
    problem=pools(),
    counting=st.fixed_dictionaries(
        {"count_include_pad": st.booleans(), "divisor_override": st.none() | st.integers(1, 9) | st.integers(-9, -1)}
    ),
    data=st.data(),
)
def test_avg_pool2d(problem, counting, data):
    x, options = problem
    options = {**options, **counting}
    tensor = tensors(x)[0]
    y = functional.avg_pool2d(tensor, **options)
    dy = data.draw(real_arrays(tuple(y.shape)))
    y.backward(torch.tensor(dy))
    with names((x.shape, options)):
        assert_close([avg_pool2d(x, **options)], [y])
        assert_close([avg_pool2d_backward(dy, x.shape[2:], **options)], [tensor.grad])


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # PyTorch's remark on even kernels
@pytest.mark.parametrize("name", ["same", "valid"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_padding_names_that_pytorch_has(name, kernel):
    x, weight = np.random.default_rng(0).standard_normal((1, 2, 9, 8)), np.ones((3, 2, kernel, kernel + 1))
    wanted = functional.conv2d(torch.tensor(x), torch.tensor(weight), padding=name)
    assert_close([conv2d(x, weight, padding=name)], [wanted])
