"""Convolution of Dask arrays: batches in chunks, and images that are too large for memory.

Knows which rows and columns of its neighbours a chunk needs, and gives each of convjit's calls one chunk with those.
Does not know schedulers. Sums over chunks are Dask's tree reductions.
Source: `dask.array.overlap`; V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

import math
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import convjit

from ..extras import needed
from ..functional.front_door import public
from ..geometry import Geometry, conv2d_geometry
from ..typing import Array, ArrayLike, IntOrPair, Padding

with needed("convjit.interop.dask"):
    import dask.array as da
    from dask.array.overlap import overlap

__all__ = ["conv2d", "conv2d_backward"]

DaskArray: TypeAlias = Any  # dask.array.Array, which is untyped here

# That padding may add: a graph of so many is made in about six seconds, and one of ten times as many in a minute.
_MOST_CHUNKS = 1 << 18


class _Axis(NamedTuple):
    """How height or width is cut: `outputs` in a chunk, and the pixels that are a chunk's own."""

    outputs: tuple[int, ...]
    pixels: tuple[int, ...]
    stride: int
    extent: int

    @property
    def before(self) -> int:
        """How many outputs of the chunk before reach into a chunk's own pixels."""
        return (self.extent - 1) // self.stride if len(self.outputs) > 1 else 0


def _axis(chunks: tuple[int, ...], out: int, stride: int, extent: int) -> _Axis:
    """Cuts near those of `chunks` where a window starts; a chunk has what its neighbours need of it."""
    cuts, least = [0], max(1, -(-(extent - 1) // stride))
    for end in accumulate(chunks):
        cut = -(-end // stride)
        if cuts[-1] + least <= cut <= out - least:
            cuts.append(cut)
    outputs = tuple(np.diff([*cuts, out]).tolist())
    pixels = (*(n * stride for n in outputs[:-1]), (outputs[-1] - 1) * stride + extent)
    return _Axis(outputs, pixels, stride, extent)


class _Options(NamedTuple):
    """What says how a convolution is done, by `convjit.conv2d`'s names."""

    stride: Any
    padding: Any
    dilation: Any
    groups: Any


class _Cut(NamedTuple):
    """A convolution, and images padded and cut as it needs them, (N, C, H, W)."""

    geometry: Geometry
    images: DaskArray
    height: _Axis
    width: _Axis

    def overlapping(self) -> DaskArray:
        """Each chunk with the pixels behind it that its windows see."""
        depth = {2: (0, self.height.extent - 1), 3: (0, self.width.extent - 1)}
        return overlap(self.images, depth, boundary="none", allow_rechunk=False)


def _check_images(function: str, x: DaskArray) -> None:
    if not isinstance(x, da.Array):
        raise TypeError(f"{function}: x must be a dask.array.Array, got {type(x).__name__}")
    if x.ndim not in (3, 4):
        raise ValueError(f"{function}: expected x of shape (N, C, H, W) or (C, H, W), got shape {x.shape}")
    if any(np.isnan(size) for size in x.shape):
        raise ValueError(
            f"{function}: x has chunks of unknown size, shape {x.shape}; call x.compute_chunk_sizes() first"
        )


def _check_padding(function: str, x: DaskArray, g: Geometry) -> None:
    """Refuse padding of which the graph alone would take minutes: it is cut as the images are."""
    cuts = [
        -(-(size + sum(pad)) // max(1, *chunks))
        for size, chunks, pad in zip(x.shape[2:], x.chunks[2:], g.pads, strict=True)
    ]
    added = math.prod((*x.numblocks[:2], *cuts)) - x.npartitions
    if added > _MOST_CHUNKS:
        raise ValueError(
            f"{function}: padding adds {added:,} chunks to the {x.npartitions:,} of x, {_MOST_CHUNKS:,} are the most; "
            "chunks of x that are larger make fewer"
        )


def _cut(function: str, x: DaskArray, weight: Array, options: _Options, padding_mode: Any) -> _Cut:
    images = x if x.ndim == 4 else x[None]
    if any(0 in sizes for sizes in images.chunks):  # from which Dask neither pads nor takes
        images = images.rechunk(tuple(tuple(filter(None, sizes)) or (0,) for sizes in images.chunks))
    g = conv2d_geometry(function, images.shape, weight.shape, **options._asdict())
    _check_padding(function, images, g)
    for axis, size, pad in zip((2, 3), (g.in_h, g.in_w), g.pads, strict=True):
        if max(pad) > size and padding_mode != "constant":  # `da.pad` shows an image once on either side
            whole = images.rechunk({axis: -1})  # an empty batch may have been padded in empty chunks
            images = da.take(whole, np.pad(np.arange(size), pad, mode=padding_mode), axis=axis)
        elif any(pad):
            pads = [(0, 0)] * 4
            pads[axis] = pad
            images = da.pad(images, pads, mode=padding_mode)
    height = _axis(images.chunks[2], g.out_h, g.stride_h, (g.kernel_h - 1) * g.dilation_h + 1)
    width = _axis(images.chunks[3], g.out_w, g.stride_w, (g.kernel_w - 1) * g.dilation_w + 1)
    seen = images[:, :, : sum(height.pixels), : sum(width.pixels)]
    return _Cut(g, seen.rechunk({1: -1, 2: height.pixels, 3: width.pixels}), height, width)


def _check_in_memory(function: str, **arrays: Any) -> None:
    for name, value in arrays.items():
        if isinstance(value, da.Array):
            raise TypeError(f"{function}: {name} must be in memory, got a dask.array.Array; pass {name}.compute()")


def _as_weight(function: str, weight: Any) -> Array:
    _check_in_memory(function, weight=weight)
    try:
        return np.asarray(weight)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{function}: weight is not a regular array: {error}") from None


def _none_of(x: DaskArray) -> Array:
    """No image of those: a call with it says at once what is wrong, and in what dtype the result will be."""
    return np.empty((0, *x.shape[-3:]), x.dtype)


@public
def conv2d(
    x: DaskArray,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
) -> DaskArray:
    """`convjit.conv2d` of a Dask array, chunk by chunk.

    Parameters
    ----------
    x : dask.array.Array, (N, C, H, W) or (C, H, W)
        In chunks along any axes. Channels are put together; where a cut of height or width does not stand where a
        window starts, or a chunk is smaller than the window, it is cut anew nearby.
    weight, bias : array_like
        In memory.
    stride, padding, dilation, groups, padding_mode
        As `convjit.conv2d`.

    Returns
    -------
    dask.array.Array
        The same numbers as `convjit.conv2d` of the whole.

    Raises
    ------
    TypeError, ValueError
        As `convjit.conv2d`, for shapes and options at once, for the rest when it is computed; `ValueError` for padding
        that makes more chunks than a graph can have.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from convjit.interop.dask import conv2d
    >>> y = conv2d(da.ones((1, 100, 100), chunks=(1, 30, 30)), np.ones((2, 1, 3, 3)), stride=2, padding=1)
    >>> y.shape, float(y.max().compute())
    ((2, 50, 50), 9.0)
    """
    name = "conv2d"
    _check_images(name, x)
    _check_in_memory(name, weight=weight, bias=bias)
    options = _Options(stride, padding, dilation, groups)
    none = convjit.conv2d(_none_of(x), weight, bias, **options._asdict(), padding_mode=padding_mode)
    w, b = np.asarray(weight), None if bias is None else np.asarray(bias)
    cut = _cut(name, x, w, options, padding_mode)
    y = da.map_blocks(
        partial(convjit.conv2d, weight=w, bias=b, **_inside(cut.geometry)),
        cut.overlapping(),
        chunks=(cut.images.chunks[0], (cut.geometry.out_channels,), cut.height.outputs, cut.width.outputs),
        dtype=none.dtype,
        meta=none[:, :0, :0, :0],
    )
    return y if x.ndim == 4 else y[0]


def _inside(g: Geometry) -> dict[str, Any]:
    """The options of a convolution of chunks, which are padded already."""
    return {"stride": (g.stride_h, g.stride_w), "dilation": (g.dilation_h, g.dilation_w), "groups": g.groups}


@public
def conv2d_backward(
    grad_output: DaskArray,
    x: DaskArray,
    weight: ArrayLike,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    need: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[DaskArray | None, DaskArray | None, DaskArray | None]:
    """`convjit.conv2d_backward` of Dask arrays: weight and bias gradients of chunks, summed by tree reductions.

    Parameters
    ----------
    grad_output : dask.array.Array, shape of `conv2d`'s result
        In any chunks; it is cut as that result is.
    x, weight, stride, padding, dilation, groups
        As given to `conv2d`.
    padding_mode : {"constant"}
        Gradients of other modes reach from one side of the image to another: compute them of the whole.
    need : (bool, bool, bool)
        Which of the three gradients are wanted.

    Returns
    -------
    grad_input, grad_weight, grad_bias : dask.array.Array or None
        The order in which chunks are summed depends on the chunks, so on real numbers the last two may differ from
        those of the whole by rounding.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; and `ValueError` if `grad_output` is not of the shape that it returns.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from convjit.interop.dask import conv2d_backward
    >>> x, dy = da.ones((4, 1, 9, 9), chunks=(2, 1, 5, 5)), da.ones((4, 1, 7, 7))
    >>> grad_input, grad_weight, grad_bias = conv2d_backward(dy, x, np.ones((1, 1, 3, 3)))
    >>> grad_weight.compute()[0, 0, 0], grad_bias.compute()
    (array([196., 196., 196.]), array([196.]))
    """
    name = "conv2d_backward"
    _check_images(name, x)
    w = _as_weight(name, weight)
    if not isinstance(grad_output, da.Array):
        raise TypeError(f"{name}: grad_output must be a dask.array.Array, got {type(grad_output).__name__}")
    if padding_mode != "constant":
        raise ValueError(f"{name}: padding_mode must be 'constant' for gradients of Dask arrays, got {padding_mode!r}")
    options = _Options(stride, padding, dilation, groups)
    cut = _cut(name, x, w, options, "constant")
    g = cut.geometry
    shape = g.y_shape if x.ndim == 4 else g.y_shape[1:]
    if grad_output.shape != shape:
        raise ValueError(f"{name}: grad_output must have shape {shape}, that of the result, got {grad_output.shape}")
    none = convjit.conv2d_backward(_none_of(grad_output), _none_of(x), weight, **options._asdict(), need=need)
    of_input, of_weight, of_bias = none
    dtype = np.result_type(*(gradient.dtype for gradient in none if gradient is not None), grad_output.dtype)
    dy = grad_output if x.ndim == 4 else grad_output[None]
    dy = dy.rechunk((cut.images.chunks[0], -1, cut.height.outputs, cut.width.outputs)).astype(dtype)
    dx = _input_grad(cut, dy, w) if of_input is not None else None
    return (
        dx if dx is None or x.ndim == 4 else dx[0],
        _weight_grad(cut, dy) if of_weight is not None else None,
        dy.sum(axis=(0, 2, 3), dtype=dtype) if of_bias is not None else None,
    )


def _weight_grad(cut: _Cut, dy: DaskArray) -> DaskArray:
    """A gradient a chunk, and their sum."""
    g = cut.geometry
    parts = da.map_blocks(
        partial(_weight_part, kernel_size=(g.kernel_h, g.kernel_w), **_inside(g)),
        dy,
        cut.overlapping(),
        drop_axis=1,
        new_axis=[3, 4, 5, 6],
        chunks=(*((1,) * dy.numblocks[axis] for axis in (0, 2, 3)), *((n,) for n in g.weight_shape)),
        dtype=dy.dtype,
        meta=np.empty((0,) * 7, dy.dtype),
    )
    return parts.sum(axis=(0, 1, 2), dtype=dy.dtype)


def _weight_part(dy: Array, x: Array, **options: Any) -> Array:
    return convjit.conv2d_weight_grad(dy, x, **options)[None, None, None]


def _input_grad(cut: _Cut, dy: DaskArray, weight: Array) -> DaskArray:
    """Each chunk's own pixels, of the outputs of the chunk and of those before it that reach into it."""
    g, axes = cut.geometry, (cut.height, cut.width)
    depth = {2: (cut.height.before, 0), 3: (cut.width.before, 0)}
    padded = da.map_blocks(
        partial(_input_part, weight=weight, axes=axes, **_inside(g)),
        overlap(dy, depth, boundary="none", allow_rechunk=False),
        chunks=(dy.chunks[0], (g.in_channels,), cut.height.pixels, cut.width.pixels),
        dtype=dy.dtype,
        meta=np.empty((0,) * 4, dy.dtype),
    )
    ends = [
        (0, max(0, pad[0] + size - n)) for pad, size, n in zip(g.pads, (g.in_h, g.in_w), padded.shape[2:], strict=True)
    ]
    whole = da.pad(padded, ((0, 0), (0, 0), *ends)) if any(ends[0] + ends[1]) else padded
    return whole[:, :, g.pad_top : g.pad_top + g.in_h, g.pad_left : g.pad_left + g.in_w]


def _input_part(dy: Array, weight: Array, axes: tuple[_Axis, _Axis], block_id: Any = None, **options: Any) -> Array:
    starts = [axis.before * axis.stride if i else 0 for axis, i in zip(axes, block_id[2:], strict=True)]
    ends = [start + axis.pixels[i] for start, axis, i in zip(starts, axes, block_id[2:], strict=True)]
    least = [(n - 1) * axis.stride + axis.extent for n, axis in zip(dy.shape[2:], axes, strict=True)]
    size = [max(pair) for pair in zip(least, ends, strict=True)]
    dx = convjit.conv2d_input_grad(dy, weight, size, **options)
    return dx[:, :, starts[0] : ends[0], starts[1] : ends[1]]
