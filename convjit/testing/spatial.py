"""What convolution, pooling and columns should give in any number of dimensions, from their definitions.

As slow and plain as `oracle`, and importing nothing from convjit: images are (N, C, ...), kernel, stride and dilation
have an int for each dimension, pads a (before, after).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


def _pad(x: Array, pads: Pads, mode: Any = "constant") -> Array:
    return np.pad(x, [(0, 0), (0, 0), *pads], mode)


def _groups(in_channels: int, out_channels: int, groups: int) -> Iterator[tuple[slice, slice]]:
    ins, outs = in_channels // groups, out_channels // groups
    for g in range(groups):
        yield slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)


def _taps(kernel: Sizes, stride: Sizes, dilation: Sizes, out: Sizes) -> Iterator[tuple[Any, Any]]:
    """Each tap and the pixels of the padded image that it meets, an output each."""
    for tap in np.ndindex(*kernel):
        starts = [k * d for k, d in zip(tap, dilation, strict=True)]
        yield tap, tuple(slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, out, stride, strict=True))


def _out_size(size: Sizes, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> Sizes:
    return tuple(
        (n + sum(p) - (k - 1) * d - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, pads, dilation, strict=True)
    )


def reference_conv(
    x: Array, weight: Array, bias: Array | None, stride: Sizes, pads: Pads, dilation: Sizes, groups: int = 1,
    padding_mode: str = "constant",
) -> Array:  # fmt: skip
    """Cross-correlation, tap by tap.

    Examples
    --------
    >>> reference_conv(np.array([[[1, 2, 4]]]), np.array([[[-1, 1]]]), None, (1,), ((0, 0),), (1,))
    array([[[1, 2]]])
    """
    out = _out_size(x.shape[2:], weight.shape[2:], stride, pads, dilation)
    dtype = np.result_type(x, weight) if bias is None else np.result_type(x, weight, bias)
    padded, y = _pad(x, pads, padding_mode), np.zeros((len(x), len(weight), *out), dtype)
    for ins, outs in _groups(x.shape[1], len(weight), groups):
        for tap, seen in _taps(weight.shape[2:], stride, dilation, out):
            of_tap, here = weight[(outs, slice(None), *tap)], padded[(slice(None), ins, *seen)]
            y[:, outs] += np.einsum("oc,nc...->no...", of_tap, here)
    return y if bias is None else y + bias.reshape(-1, *([1] * len(out))).astype(dtype)


def reference_conv_backward(
    dy: Array, x: Array, weight: Array, stride: Sizes, pads: Pads, dilation: Sizes, groups: int = 1,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The adjoints of `reference_conv`, padded with zeros, in input, weight and bias.

    Examples
    --------
    >>> x, weight = np.array([[[1, 2, 4]]]), np.array([[[-1, 1]]])
    >>> [g.ravel().tolist() for g in reference_conv_backward(np.ones((1, 1, 2), int), x, weight, (1,), ((0, 0),), (1,))]
    [[-1, 0, 1], [3, 6], [2]]
    """
    dtype, padded = np.result_type(dy, x, weight), _pad(x, pads)
    axes = [0, *range(2, dy.ndim)]
    dpadded, dw = np.zeros(padded.shape, dtype), np.zeros(weight.shape, dtype)
    for ins, outs in _groups(x.shape[1], len(weight), groups):
        for tap, seen in _taps(weight.shape[2:], stride, dilation, dy.shape[2:]):
            of_tap: Any = (outs, slice(None), *tap)
            here: Any = (slice(None), ins, *seen)
            dpadded[here] += np.einsum("oc,no...->nc...", weight[of_tap].conj(), dy[:, outs])
            dw[of_tap] += np.tensordot(dy[:, outs], padded[here].conj(), (axes, axes))
    inner: Any = tuple(slice(before, before + n) for (before, _), n in zip(pads, x.shape[2:], strict=True))
    return dpadded[:, :, *inner], dw, dy.sum(axis=(0, *range(2, dy.ndim)), dtype=dtype)


def reference_columns(x: Array, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """Every window as a column, (N, C * taps, positions).

    Examples
    --------
    >>> reference_columns(np.array([[[1, 2, 4]]]), (2,), (1,), ((0, 0),), (1,))
    array([[[1, 2],
            [2, 4]]])
    """
    out, padded = _out_size(x.shape[2:], kernel, stride, pads, dilation), _pad(x, pads)
    rows = [padded[:, :, *seen] for _, seen in _taps(kernel, stride, dilation, out)]
    return np.stack(rows, 2).reshape(len(x), x.shape[1] * len(rows), int(np.prod(out)))


def windows(
    size: Sizes, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes, ceil_mode: bool
) -> Iterator[tuple[Sizes, list[Sizes], int]]:
    """Each output position, the pixels that its window sees, and its taps up to the end of the padding.

    Examples
    --------
    >>> list(windows((3,), (2,), (2,), ((0, 0),), (1,), True))
    [((0,), [(0,), (1,)], 2), ((1,), [(2,)], 1)]
    """
    starts = []
    for n, k, s, (before, after), d in zip(size, kernel, stride, pads, dilation, strict=True):
        extent, all_starts = (k - 1) * d + 1, range(0, n + before + after, s)
        whole = [start for start in all_starts if start + extent <= n + before + after]
        # One more, if the last whole one does not reach the end, and it does not start in the end padding.
        reached = whole[-1] + extent if whole else extent - s
        more = [start for start in all_starts[len(whole) :][:1] if reached < n + before + after]
        starts.append(whole + [start for start in more if ceil_mode and start < n + before])
    for position in np.ndindex(*map(len, starts)):
        firsts = [starts[a][at] for a, at in enumerate(position)]
        axes = [  # not tap by tap: a kernel may be larger than anything
            range(first, min(first + (k - 1) * d + 1, n + sum(p)), d)
            for first, n, k, p, d in zip(firsts, size, kernel, pads, dilation, strict=True)
        ]
        taps = [tuple(axes[a][i] for a, i in enumerate(index)) for index in np.ndindex(*map(len, axes))]
        pixels = [tuple(at - before for at, (before, _) in zip(tap, pads, strict=True)) for tap in taps]
        yield position, [p for p in pixels if all(0 <= at < n for at, n in zip(p, size, strict=True))], len(taps)
