"""Convolution in PyTorch's graph, computed by convjit on the memory of CPU tensors.

Knows PyTorch's arguments and which derivatives it asks for; derivatives of any order, as each is made of the others.
Does not know how sums are computed. Forward mode and `vmap` are not there.
Source: PyTorch's `torch.autograd.Function`; `torch.nn.functional.conv2d` and `conv_transpose2d`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import convjit

from ..extras import needed
from ..typing import Array, IntOrPair, Padding

with needed("convjit.interop.torch", "torch"):
    import torch

__all__ = ["conv2d", "conv_transpose2d"]

Tensor: TypeAlias = Any  # torch.Tensor, which is untyped here


class _Operation(NamedTuple):
    """A function of (x, weight, bias), its three gradients, and the options of both."""

    forward: Callable[..., Array]
    backward: Callable[..., tuple[Array | None, Array | None, Array | None]]
    options: dict[str, Any]


def _array(tensor: Tensor) -> Array:
    """The tensor's memory as an array."""
    array: Array = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array


class _Forward(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here, as below
    """`y = f(x, weight, bias)`"""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, operation: _Operation) -> Tensor:
        b = None if bias is None else _array(bias)
        return torch.from_numpy(operation.forward(_array(x), _array(weight), b, **operation.options))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004  # PyTorch's signature
        x, weight, _bias, ctx.operation = inputs
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None
        need = tuple(ctx.needs_input_grad[:3])
        return (*_Gradients.apply(dy, *ctx.saved_tensors, need, ctx.operation), None)


class _Gradients(torch.autograd.Function):  # type: ignore[misc]
    """`dx, dw, db`, those that are needed, of `y = f(x, weight, bias)`, from `dy`.

    Each is linear in `dy`, `dx` in `weight` and `dw` in `x` besides, so for gradients `u, v, w` of a scalar with
    respect to the three, that with respect to `dy` is `f(u, weight, w) + f(x, v)`, to `x` it is `dx(dy, v)`, and to
    `weight` it is `dw(dy, u)`.
    """

    @staticmethod
    def forward(
        dy: Tensor, x: Tensor, weight: Tensor, need: tuple[bool, bool, bool], operation: _Operation
    ) -> tuple[Tensor | None, ...]:
        arrays = operation.backward(_array(dy), _array(x), _array(weight), **operation.options, need=need)
        return tuple(None if array is None else torch.from_numpy(array) for array in arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        dy, x, weight, _bias, ctx.operation = inputs
        ctx.save_for_backward(dy, x, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None, w: Tensor | None) -> tuple[Tensor | None, ...]:
        dy, x, weight = ctx.saved_tensors
        operation = ctx.operation
        terms, to_x, to_weight = [], None, None
        if ctx.needs_input_grad[0]:
            if u is not None:
                terms.append(_Forward.apply(u, weight, w, operation))
            elif w is not None:
                terms.append(w[:, None, None].expand_as(dy))
            if v is not None:
                terms.append(_Forward.apply(x, v, None, operation))
        if ctx.needs_input_grad[1] and v is not None:
            to_x = _Gradients.apply(dy, x, v, (True, False, False), operation)[0]
        if ctx.needs_input_grad[2] and u is not None:
            to_weight = _Gradients.apply(dy, u, weight, (False, True, False), operation)[1]
        return sum(terms[1:], *terms[:1]) if terms else None, to_x, to_weight, None, None


def _applied(function: str, tensors: dict[str, Any], operation: _Operation) -> Tensor:
    """The result for tensors that convjit can read where they are."""
    for name, tensor in tensors.items():
        if tensor is None and name == "bias":
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{function}: {name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            kind = tensor.device if tensor.layout == torch.strided else tensor.layout
            raise TypeError(f"{function}: {name} must be a dense tensor on the CPU, got one on or in {kind}")
        if tensor.dtype not in _DTYPES or tensor.dtype != tensors["input"].dtype:
            wanted = (
                tensors["input"].dtype if tensors["input"].dtype in _DTYPES else "float16, 32, 64, complex64 or 128"
            )
            raise TypeError(f"{function}: {name} must be of dtype {wanted}, got {tensor.dtype}")
    return _Forward.apply(*tensors.values(), operation)


_DTYPES = {torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128}


def conv2d(
    input: Tensor,  # noqa: A002  # PyTorch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d` by `convjit.conv2d`, differentiable any number of times by `backward`.

    Parameters
    ----------
    input, weight, bias : torch.Tensor
        Dense, on the CPU, all of one dtype: float16, float32, float64, complex64 or complex128. They are read where
        they are, copied only if their layout is not contiguous.
    stride, padding, dilation, groups
        In PyTorch's forms and in all that `convjit.conv2d` takes.

    Returns
    -------
    torch.Tensor
        The same numbers, to the bit, as `convjit.conv2d`, gradients as `convjit.conv2d_backward`; only those that are
        required are computed.

    Raises
    ------
    TypeError
        For what is no such tensor.
    ValueError, MemoryError
        As `convjit.conv2d`.

    Examples
    --------
    >>> import torch
    >>> from convjit.interop.torch import conv2d
    >>> weight = torch.ones(1, 1, 2, 2, requires_grad=True)
    >>> conv2d(torch.eye(3)[None], weight).sum().backward()
    >>> weight.grad
    tensor([[[[2., 1.],
              [1., 2.]]]])
    """
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    operation = _Operation(convjit.conv2d, convjit.conv2d_backward, options)
    return _applied("conv2d", {"input": input, "weight": weight, "bias": bias}, operation)


def conv_transpose2d(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Tensor:
    """`torch.nn.functional.conv_transpose2d` by `convjit.conv_transpose2d`, as `conv2d` here is by `convjit.conv2d`.

    Parameters
    ----------
    input, weight, bias : torch.Tensor
        As of `conv2d`.
    stride, padding, output_padding, groups, dilation
        In PyTorch's forms and in all that `convjit.conv_transpose2d` takes.

    Returns
    -------
    torch.Tensor

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import torch
    >>> from convjit.interop.torch import conv_transpose2d
    >>> conv_transpose2d(torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1, 1, 2), stride=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    options = {
        "stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups, "dilation": dilation,
    }  # fmt: skip
    operation = _Operation(convjit.conv_transpose2d, convjit.conv_transpose2d_backward, options)
    return _applied("conv_transpose2d", {"input": input, "weight": weight, "bias": bias}, operation)
