"""Convolution in PyTorch's graph: PyTorch's numbers, checked derivatives of two orders, no copies, no idle work."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import convjit

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; tests/functional checks the gradients it would get"
)

bridge = pytest.importorskip("convjit.interop.torch")
functional = torch.nn.functional

CASES = {
    "plain": ("conv2d", (2, 2, 5, 4), (3, 2, 3, 2), {}),
    "one image": ("conv2d", (2, 5, 4), (3, 2, 2, 3), {"padding": 1}),
    "stride": ("conv2d", (1, 2, 6, 7), (2, 2, 3, 2), {"stride": (2, 3), "padding": (1, 2)}),
    "groups": ("conv2d", (2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "dilation": 2, "padding": "same"}),
    "transposed": ("conv_transpose2d", (2, 2, 3, 4), (2, 3, 3, 2), {}),
    "transposed image": ("conv_transpose2d", (2, 3, 2), (2, 3, 2, 3), {"padding": 1}),
    "transposed stride": ("conv_transpose2d", (1, 4, 3, 2), (4, 1, 3, 2),
                          {"stride": (2, 3), "padding": 1, "output_padding": (1, 2), "groups": 2}),
    "transposed dilation": ("conv_transpose2d", (1, 2, 3, 3), (2, 1, 2, 3), {"dilation": 3, "output_padding": 2}),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(case, dtype=torch.float64, requires_grad=(True, True, True)):
    """Input, weight and bias of small integers."""
    name, x_shape, weight_shape, options = CASES[case]
    channels = weight_shape[0] if name == "conv2d" else weight_shape[1] * options.get("groups", 1)
    generator = torch.Generator().manual_seed(0)
    made = [torch.randint(-4, 5, s, generator=generator).to(dtype) for s in (x_shape, weight_shape, (channels,))]
    if dtype.is_complex:
        made = [a + 1j * torch.randint(-4, 5, a.shape, generator=generator) for a in made]
    return [a.requires_grad_(wanted) for a, wanted in zip(made, requires_grad, strict=True)]


def both(case):
    """The functions of this case, ours and PyTorch's."""
    name, _, _, options = CASES[case]
    return (lambda *a: getattr(bridge, name)(*a, **options)), (lambda *a: getattr(functional, name)(*a, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_pytorchs(case, dtype):
    ours, theirs = both(case)
    a, b = tensors(case, dtype), tensors(case, dtype)
    y, wanted = ours(*a), theirs(*b)
    assert y.dtype == dtype
    assert_array_equal(y.detach().numpy(), wanted.detach().numpy(), strict=True)
    dy = torch.randint(-4, 5, y.shape).to(dtype)
    y.backward(dy)
    wanted.backward(dy)
    for left, right in zip(a, b, strict=True):
        assert_array_equal(left.grad.numpy(), right.grad.numpy(), strict=True)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_derivatives_of_two_orders(case, with_bias):
    ours, _ = both(case)
    arguments = tensors(case)[: 3 if with_bias else 2]
    assert torch.autograd.gradcheck(ours, arguments)
    assert torch.autograd.gradgradcheck(ours, arguments)


@pytest.mark.parametrize("case", ["stride", "transposed stride"])
def test_derivatives_of_complex_tensors(case):
    ours, _ = both(case)
    arguments = tensors(case, torch.complex128)
    assert torch.autograd.gradcheck(ours, arguments)
    assert torch.autograd.gradgradcheck(ours, arguments)


@pytest.mark.parametrize("case", ["stride", "transposed"])
def test_a_third_derivative(case):
    """Of `sum(y**3)` along itself: what comes of using every derivative within another one."""
    ours, theirs = both(case)

    def third(function):
        arguments = tensors(case)
        value = (function(*arguments) ** 3).sum()
        for _ in range(3):
            gradients = torch.autograd.grad(value, arguments, create_graph=True)
            value = sum((g * a).sum() for g, a in zip(gradients, arguments, strict=True))
        return value.item()

    assert third(ours) == third(theirs)


@pytest.mark.parametrize("required", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1) if a + b + c])
@pytest.mark.parametrize("case", ["groups", "transposed"])
def test_only_what_is_required_is_computed(case, required, monkeypatch):
    name = f"{CASES[case][0]}_backward"
    asked = []
    backward = getattr(convjit, name)
    monkeypatch.setattr(
        convjit, name, lambda *a, need, **options: (asked.append(need), backward(*a, need=need, **options))[1]
    )
    required = tuple(bool(wanted) for wanted in required)
    ours, theirs = both(case)
    a, b = tensors(case, requires_grad=required), tensors(case, requires_grad=required)
    ours(*a).sum().backward()
    theirs(*b).sum().backward()
    assert asked == [required]
    for left, right in zip(a, b, strict=True):
        assert (left.grad is None) == (right.grad is None)
        assert left.grad is None or torch.equal(left.grad, right.grad)


@pytest.mark.parametrize("parts", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("case", ["stride", "transposed stride"])
def test_second_derivatives_of_some_gradients_only(case, parts):
    results = []
    for function in both(case):
        arguments = tensors(case)
        y = function(*arguments)
        dy = torch.linspace(-3, 3, y.numel()).round().double().reshape(y.shape).requires_grad_()
        first = torch.autograd.grad(y, arguments, dy, create_graph=True)
        value = sum((first[i] * torch.arange(first[i].numel()).reshape(first[i].shape)).sum() for i in parts)
        results.append(torch.autograd.grad(value, [dy, *arguments[:2]], allow_unused=True, materialize_grads=True))
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)


def test_memory_is_read_where_it_is(monkeypatch):
    seen = []
    forward = convjit.conv2d
    monkeypatch.setattr(convjit, "conv2d", lambda *a, **options: (seen.extend(a), forward(*a, **options))[1])
    arguments = tensors("plain")
    bridge.conv2d(*arguments)
    assert [a.ctypes.data for a in seen] == [t.data_ptr() for t in arguments]


def test_other_layouts():
    x, weight, _ = tensors("plain", requires_grad=(False, False, False))
    wanted = functional.conv2d(x, weight)
    strided = torch.stack([x, x], -1)[..., 0]
    for given in (strided, x.contiguous(memory_format=torch.channels_last), x.flip(0).flip(0)):
        given = given.requires_grad_()
        y = bridge.conv2d(given, weight.transpose(2, 3).contiguous().transpose(2, 3))
        assert torch.equal(y, wanted)
        y.sum().backward()
        assert torch.equal(given.grad, torch.autograd.grad(functional.conv2d(given, weight).sum(), given)[0])


def test_conjugate_views():
    x, weight, _ = tensors("plain", torch.complex128, (False, False, False))
    assert x.conj().is_conj()
    assert torch.equal(bridge.conv2d(x.conj(), weight), functional.conv2d(x.conj(), weight))


def test_without_gradients_nothing_is_recorded():
    x, weight, bias = tensors("plain", requires_grad=(False, False, False))
    assert not bridge.conv2d(x, weight, bias).requires_grad
    with torch.no_grad():
        assert not bridge.conv2d(*tensors("plain")).requires_grad


def test_a_tensor_that_was_changed_is_noticed():
    x, weight, bias = tensors("plain")
    y = bridge.conv2d(x, weight, bias)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_torch_func():
    x, weight, bias = tensors("plain", requires_grad=(False, False, False))
    got = torch.func.grad(lambda w: bridge.conv2d(x, w, bias).pow(2).sum())(weight)
    assert torch.equal(got, torch.func.grad(lambda w: functional.conv2d(x, w, bias).pow(2).sum())(weight))


X, W = torch.ones(1, 2, 5, 5), torch.ones(2, 2, 3, 3)
REFUSED = {
    "array": ((np.ones((1, 2, 5, 5)), W), TypeError, "input must be a torch.Tensor, got ndarray$"),
    "no weight": ((X, None), TypeError, "weight must be a torch.Tensor, got NoneType$"),
    "dtypes": ((X, W.double()), TypeError, "weight must be of dtype torch.float32, got torch.float64$"),
    "bias": ((X, W, torch.ones(2).double()), TypeError, "bias must be of dtype torch.float32, got torch.float64$"),
    "bfloat16": ((X.bfloat16(), W.bfloat16()), TypeError, "input must be of dtype float16, 32, .* got torch.bfloat16$"),
    "integers": ((X.int(), W.int()), TypeError, "input must be of dtype float16, 32, .* got torch.int32$"),
    "device": ((X.to("meta"), W), TypeError, "input must be a dense tensor on the CPU, got one on or in meta$"),
    "sparse": ((X.to_sparse(), W), TypeError, "input must be a dense tensor on the CPU, got one on or in torch.sparse"),
    "channels": ((X[:, :1], W), ValueError, "weight expects 2 input channels"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_what_is_refused(name, case):
    arguments, error, said = REFUSED[case]
    with pytest.raises(error, match=rf"^{name}: {said}"):
        getattr(bridge, name)(*arguments)
