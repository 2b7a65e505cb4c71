"""Operators for ONNX's `ReferenceEvaluator`, computed by convjit: pass `new_ops=OPERATORS`.

Knows ONNX's attributes and what they are called here. Sequences, images and volumes are convjit's; other ranks, and
dtypes that convjit has no kernels for (bfloat16), go on to onnx's own implementation, from which each class is derived.
Source: the operators' specifications in onnx, `docs/Operators.md`; where the package's implementation and they differ,
the specification holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import convjit

from ..extras import needed
from ..typing import Array

with needed("convjit.interop.onnx"):
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops import op_average_pool, op_col2im, op_conv, op_conv_transpose, op_max_pool

__all__ = ["OPERATORS", "AveragePool", "Col2Im", "Conv", "ConvTranspose", "MaxPool"]

Ints: TypeAlias = Sequence[int] | None
Sizes: TypeAlias = tuple[int, ...]
_IMAGES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
_PADDINGS: dict[str, Any] = {"SAME_UPPER": "same_upper", "SAME_LOWER": "same_lower", "VALID": 0}
_DTYPES = frozenset({"float16", "float32", "float64"})


class _Window(NamedTuple):
    """What all of the operators have, as convjit takes it."""

    stride: Sizes
    padding: Any  # a name, 0, or pairs of pixels
    dilation: Sizes


def _window(
    operator: str, rank: int, strides: Ints, pads: Ints, dilations: Ints, auto_pad: str | None = None
) -> _Window:
    padding = _PADDINGS.get(auto_pad or "NOTSET")
    if padding is None:
        if auto_pad not in (None, "", "NOTSET"):
            raise ValueError(f"{operator}: auto_pad must be NOTSET, {', '.join(_PADDINGS)}, got {auto_pad!r}")
        ends = _ints(operator, rank, "pads", pads, 0, each=2)  # all that stand before, then all behind
        padding = tuple(zip(ends[:rank], ends[rank:], strict=True))
    return _Window(
        _ints(operator, rank, "strides", strides, 1), padding, _ints(operator, rank, "dilations", dilations, 1)
    )


def _ints(operator: str, rank: int, name: str, given: Ints, default: int, each: int = 1) -> Sizes:
    """An attribute, so many ints `each` dimension; onnx leaves out what has its default."""
    count = each * rank
    values = (default,) * count if given is None or len(given) == 0 else tuple(int(value) for value in given)
    if len(values) != count:
        raise ValueError(f"{operator}: {name} of images {_IMAGES[rank]} must be {count} ints, got {list(values)}")
    return values


def _by_rank(name: str) -> dict[int, Callable[..., Any]]:
    """A function of convjit's for each number of dimensions."""
    return {rank: getattr(convjit, f"{name}{rank}d") for rank in _IMAGES}


def _check_kernel(operator: str, kernel_shape: Ints, weight: Array) -> None:
    if kernel_shape is not None and len(kernel_shape) and tuple(kernel_shape) != weight.shape[2:]:
        raise ValueError(f"{operator}: kernel_shape must be {weight.shape[2:]}, as W is {weight.shape}, got "
                         f"{tuple(kernel_shape)}")  # fmt: skip


_CONV, _CONV_TRANSPOSE = _by_rank("conv"), _by_rank("conv_transpose")
_MAX_POOL, _AVERAGE_POOL = _by_rank("max_pool"), _by_rank("avg_pool")
_COL2IM = {1: convjit.col2im1d, 2: convjit.col2im, 3: convjit.col2im3d}


def _is_for_convjit(*arrays: Array | None) -> bool:
    images = arrays[0]
    return (
        all(a is None or a.dtype.name in _DTYPES for a in arrays) and images is not None and images.ndim - 2 in _IMAGES
    )


class Conv(op_conv.Conv):  # type: ignore[misc]  # onnx is untyped here, as below
    """ONNX's Conv by `convjit.conv1d`, `conv2d` and `conv3d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit.interop.onnx import Conv
    >>> Conv.eval(np.eye(3, dtype=np.float32)[None, None], np.ones((1, 1, 2, 2), np.float32))
    array([[[[2., 1.],
             [1., 2.]]]], dtype=float32)
    """

    def _run(
        self, X: Array, W: Array, B: Array | None = None, auto_pad: str | None = None, dilations: Ints = None,
        group: int | None = None, kernel_shape: Ints = None, pads: Ints = None, strides: Ints = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if not _is_for_convjit(X, W, B):
            return super()._run(X, W, B, auto_pad, dilations, group, kernel_shape, pads, strides)  # type: ignore[no-any-return]
        window = _window("Conv", X.ndim - 2, strides, pads, dilations, auto_pad)
        _check_kernel("Conv", kernel_shape, W)
        y = _CONV[X.ndim - 2](X, W, B, **window._asdict(), groups=1 if group is None else group)
        return (y.astype(X.dtype, copy=False),)


class ConvTranspose(op_conv_transpose.ConvTranspose):  # type: ignore[misc]
    """ONNX's ConvTranspose by `convjit.conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`.

    With `output_shape`, or an automatic padding, the paddings are those that lead to it; where the result is smaller
    even without any, it grows at its end.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit.interop.onnx import ConvTranspose
    >>> x, weight = np.ones((1, 1, 1, 2), np.float32), np.ones((1, 1, 1, 3), np.float32)
    >>> ConvTranspose.eval(x, weight, strides=[1, 2], output_shape=[1, 4], auto_pad="SAME_UPPER")
    array([[[[1., 1., 2., 1.]]]], dtype=float32)
    """

    def _run(
        self, X: Array, W: Array, B: Array | None = None, auto_pad: str | None = None, dilations: Ints = None,
        group: int | None = None, kernel_shape: Ints = None, output_padding: Ints = None, output_shape: Ints = None,
        pads: Ints = None, strides: Ints = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if not _is_for_convjit(X, W, B):
            return super()._run(  # type: ignore[no-any-return]
                X, W, B, auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides
            )
        name, rank = "ConvTranspose", X.ndim - 2
        stride, padding, dilation = _window(name, rank, strides, pads, dilations, auto_pad)
        _check_kernel(name, kernel_shape, W)
        extra = _ints(name, rank, "output_padding", output_padding, 0)
        options: dict[str, Any] = {"padding": padding, "output_padding": extra}
        if output_shape or isinstance(padding, str):
            image = X.shape[2:]
            automatic = [n * s for n, s in zip(image, stride, strict=True)]
            size = _ints(name, rank, "output_shape", output_shape or automatic, 0)
            least = [(n - 1) * s + (k - 1) * d + 1
                     for n, s, k, d in zip(image, stride, W.shape[2:], dilation, strict=True)]  # fmt: skip
            totals = [max(0, n + more - out) for n, more, out in zip(least, extra, size, strict=True)]
            before = [total // 2 if auto_pad == "SAME_UPPER" else total - total // 2 for total in totals]
            options = {
                "padding": [(first, total - first) for first, total in zip(before, totals, strict=True)],
                "output_size": size,
            }
        y = _CONV_TRANSPOSE[rank](
            X, W, B, stride=stride, dilation=dilation, groups=1 if group is None else group, **options
        )
        return (y.astype(X.dtype, copy=False),)


class Col2Im(op_col2im.Col2Im):  # type: ignore[misc]
    """ONNX's Col2Im by `convjit.col2im1d`, `col2im` and `col2im3d`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit.interop.onnx import Col2Im
    >>> Col2Im.eval(np.ones((1, 4, 4), np.float32), np.array([3, 3]), np.array([2, 2]))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]], dtype=float32)
    """

    def _run(
        self, data: Array, image_shape: Array, block_shape: Array, dilations: Ints = None, pads: Ints = None,
        strides: Ints = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        rank = len(image_shape)
        if rank not in _IMAGES or data.ndim != 3 or data.dtype.kind not in "biufc" or data.dtype.name == "bfloat16":
            return super()._run(data, image_shape, block_shape, dilations, pads, strides)  # type: ignore[no-any-return]
        window = _window("Col2Im", rank, strides, pads, dilations)
        image_size = _ints("Col2Im", rank, "image_shape", image_shape.tolist(), 1)
        block = _ints("Col2Im", rank, "block_shape", block_shape.tolist(), 1)
        y = _COL2IM[rank](data, image_size, block, **window._asdict())
        return (y.astype(data.dtype, copy=False),)


class MaxPool(op_max_pool.MaxPool):  # type: ignore[misc]
    """ONNX's MaxPool by `convjit.max_pool1d`, `max_pool2d` and `max_pool3d`.

    With `Indices` where the node has a second output. A NaN is larger than everything. A window that sees no pixel
    gives the least value, and -1 as its index. As the standard has it, `ceil_mode` says nothing beside an `auto_pad`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit.interop.onnx import MaxPool
    >>> MaxPool.eval(np.eye(4, dtype=np.float32)[None, None], kernel_shape=[2, 2], strides=[2, 2])
    array([[[[1., 0.],
             [0., 1.]]]], dtype=float32)
    """

    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int | None = None, dilations: Ints = None,
        kernel_shape: Ints = None, pads: Ints = None, storage_order: int | None = None, strides: Ints = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        rank = x.ndim - 2
        if rank not in _IMAGES or x.dtype.name not in {*_DTYPES, "int8", "uint8"}:
            return super()._run(  # type: ignore[no-any-return]
                x, auto_pad, ceil_mode, dilations, kernel_shape, pads, storage_order, strides
            )
        window = _window("MaxPool", rank, strides, pads, dilations, auto_pad)
        y, indices = _MAX_POOL[rank](
            x, _ints("MaxPool", rank, "kernel_shape", kernel_shape, 1), **window._asdict(),
            ceil_mode=_rounds_up(ceil_mode, auto_pad), return_indices=True,
        )  # fmt: skip
        if len(self.output) == 1:
            return (y,)
        return y, _in_the_tensor(indices, x.shape, bool(storage_order))


def _rounds_up(ceil_mode: int | None, auto_pad: str | None) -> bool:
    """Automatic paddings have sizes of their own, the same for both modes."""
    return bool(ceil_mode) and auto_pad in (None, "", "NOTSET")


def _in_the_tensor(indices: Array, shape: tuple[int, ...], column_major: bool) -> Array:
    """Positions in the plane as positions in the whole tensor, planes one after another, each in the given order."""
    (batch, channels), size = shape[:2], shape[2:]
    inside = indices
    if column_major:
        seen = np.unravel_index(np.maximum(indices, 0), size)
        inside = np.ravel_multi_index(seen, size, order="F")
    first = np.arange(batch * channels, dtype=np.int64).reshape(batch, channels, *(1,) * len(size)) * math.prod(size)
    return np.where(indices < 0, indices, first + inside)


class AveragePool(op_average_pool.AveragePool_19):  # type: ignore[misc]
    """ONNX's AveragePool by `convjit.avg_pool1d`, `avg_pool2d` and `avg_pool3d`.

    As the standard has it, `ceil_mode` says nothing beside an `auto_pad`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit.interop.onnx import AveragePool
    >>> AveragePool.eval(np.eye(4, dtype=np.float32)[None, None], kernel_shape=[2, 2], strides=[2, 2])
    array([[[[0.5, 0. ],
             [0. , 0.5]]]], dtype=float32)
    """

    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int | None = None, dilations: Ints = None,
        kernel_shape: Ints = None, pads: Ints = None, strides: Ints = None, count_include_pad: int | None = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if not _is_for_convjit(x):
            return super()._run(  # type: ignore[no-any-return]
                x, auto_pad, ceil_mode, dilations, kernel_shape, pads, strides, count_include_pad
            )
        rank = x.ndim - 2
        window = _window("AveragePool", rank, strides, pads, dilations, auto_pad)
        y = _AVERAGE_POOL[rank](
            x, _ints("AveragePool", rank, "kernel_shape", kernel_shape, 1), **window._asdict(),
            ceil_mode=_rounds_up(ceil_mode, auto_pad), count_include_pad=bool(count_include_pad),
        )  # fmt: skip
        return (y,)


OPERATORS: list[type[OpRun]] = [Conv, ConvTranspose, Col2Im, MaxPool, AveragePool]
