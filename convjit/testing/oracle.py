"""What every operation should give, computed from its definition: slow, short, and importing nothing from convjit.

Padding is counts, `((top, bottom), (left, right))`; kernel, stride and dilation are pairs `(height, width)`; images
have a batch axis. Works in the dtype of its arguments, so integers, longdouble and Python objects (fractions) give
exact or better results. Shapes that do not fit one another are whatever error NumPy makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[Pair, Pair]

NO_PADS: Pads = ((0, 0), (0, 0))


class Tap(NamedTuple):
    """One output position and the slices of the padded image that it sees."""

    i: int
    j: int
    rows: slice
    cols: slice


def reference_pads(padding: Any, image: Pair, kernel: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Pads:
    """Any form of padding as counts; `same_upper` and `same_lower` by trial.

    Parameters
    ----------
    padding : str, int, (int, int) or ((int, int), (int, int))
        `"valid"` is none, `"same"` what keeps the size at stride 1, `"full"` the kernel's reach on both sides,
        `"same_upper"` and `"same_lower"` the least for `ceil(size / stride)` outputs, the odd one at the end or at the
        start; or counts for both axes, a pair `(height, width)`, or `((top, bottom), (left, right))`.
    image, kernel, stride, dilation : (int, int)
        Only names need them.

    Returns
    -------
    ((top, bottom), (left, right)) : pair of pairs of int

    Examples
    --------
    >>> reference_pads("same_upper", (5, 5), (3, 3), stride=(2, 3))
    ((1, 1), (0, 1))
    """
    if not isinstance(padding, str):
        top_left = np.broadcast_to(np.asarray(padding).reshape(-1, 1) if np.ndim(padding) < 2 else padding, (2, 2))
        return (int(top_left[0, 0]), int(top_left[0, 1])), (int(top_left[1, 0]), int(top_left[1, 1]))
    sides = []
    for axis in (0, 1):
        reach, size = dilation[axis] * (kernel[axis] - 1), image[axis]
        total = {"valid": 0, "same": reach, "full": 2 * reach}.get(padding)
        if total is None:
            wanted, total = -(-size // stride[axis]), 0
            while (size + total - reach - 1) // stride[axis] + 1 < wanted:
                total += 1
        sides.append((total - total // 2, total // 2) if padding == "same_lower" else (total // 2, total - total // 2))
    return sides[0], sides[1]


def _starts(size: int, pads: Pair, extent: int, stride: int, ceil_mode: bool) -> list[int]:
    """Where the windows of one axis start in the padded image."""
    starts = [0]
    while starts[-1] + stride + extent <= size + sum(pads):
        starts.append(starts[-1] + stride)
    more = starts[-1] + stride
    if ceil_mode and starts[-1] + extent < size + sum(pads) and more < size + pads[0]:
        starts.append(more)
    return starts


def windows_of(
    image: tuple[int, ...], kernel: Pair, stride: Pair, pads: Pads, dilation: Pair, ceil_mode: bool = False
) -> Iterator[Tap]:
    """Each output position, row by row, with what it sees of the padded image."""
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    heights, widths = (_starts(image[a - 2], pads[a], extents[a], stride[a], ceil_mode) for a in (0, 1))
    for i, top in enumerate(heights):
        for j, left in enumerate(widths):
            rows = slice(top, top + extents[0], dilation[0])
            yield Tap(i, j, rows, slice(left, left + extents[1], dilation[1]))


def reference_pad2d(x: Array, pads: Pads, mode: Any = "constant", value: Any = 0) -> Array:
    """`np.pad` of the last two axes.

    Parameters
    ----------
    x : ndarray, (..., H, W)
    pads : ((int, int), (int, int))
        `((top, bottom), (left, right))`.
    mode : str
        `"constant"` or any other mode of `np.pad` that takes no further arguments.
    value : number
        What to pad with, in mode `"constant"`.

    Returns
    -------
    ndarray, (..., top + H + bottom, left + W + right)
        Of `x`'s dtype.

    Examples
    --------
    >>> reference_pad2d(np.array([[1, 2, 3]]), ((0, 0), (1, 1)), "wrap")
    array([[3, 1, 2, 3, 1]])
    """
    if mode != "constant":
        return np.pad(x, [(0, 0)] * (x.ndim - 2) + [*pads], mode)
    (top, bottom), (left, right) = pads
    height, width = x.shape[-2:]
    padded = np.full((*x.shape[:-2], top + height + bottom, left + width + right), value, x.dtype)
    padded[..., top : top + height, left : left + width] = x  # np.pad would put NumPy integers into an object array
    return padded


def reference_pad2d_backward(dy: Array, pads: Pads, mode: Any = "constant") -> Array:
    """Adds every padded position to the pixel that it shows.

    Parameters
    ----------
    dy : ndarray, (..., top + H + bottom, left + W + right)
        The gradient with respect to `reference_pad2d`'s result.
    pads, mode
        As given to `reference_pad2d`.

    Returns
    -------
    ndarray, (..., H, W)
        Of `dy`'s dtype.

    Examples
    --------
    >>> reference_pad2d_backward(np.ones((1, 7)), ((0, 0), (2, 2)), "edge")
    array([[3., 1., 3.]])
    """
    height, width = dy.shape[-2] - sum(pads[0]), dy.shape[-1] - sum(pads[1])
    dx = np.zeros((*dy.shape[:-2], height, width), dy.dtype)
    shown_h = reference_pad2d(np.repeat(np.arange(height), width).reshape(height, width), pads, mode, -1)
    shown_w = reference_pad2d(np.tile(np.arange(width), height).reshape(height, width), pads, mode, -1)
    for i, j in np.ndindex(*shown_h.shape):
        if shown_h[i, j] >= 0:
            dx[..., shown_h[i, j], shown_w[i, j]] += dy[..., i, j]
    return dx


def _check_forms(function: str, x: Array, weight: Array, pads: Pads, **pairs: Pair) -> None:
    """Refuse the other forms that convolutions take: an image without a batch, and ints for pairs."""
    for name, array, form in (("x", x, "(N, C, H, W)"), ("weight", weight, "(O, C // groups, KH, KW)")):
        if np.ndim(array) != 4:
            raise ValueError(f"{function}: {name} must have shape {form}, got {np.shape(array)}")
    for name, pair in pairs.items():
        if np.shape(pair) != (2,):
            raise ValueError(f"{function}: {name} must be a pair (height, width), got {pair}")
    if np.shape(pads) != (2, 2):
        raise ValueError(f"{function}: pads must be ((top, bottom), (left, right)), got {pads}")


def reference_conv2d(
    x: Array, weight: Array, bias: Array | None = None, stride: Pair = (1, 1), pads: Pads = NO_PADS,
    dilation: Pair = (1, 1), groups: int = 1, padding_mode: str = "constant",
) -> Array:  # fmt: skip
    """Cross-correlation, one output pixel after the other; `x` is (N, C, H, W).

    Parameters
    ----------
    x : ndarray, (N, C, H, W)
    weight : ndarray, (O, C // groups, KH, KW)
    bias : ndarray, (O,), optional
    stride, dilation : (int, int)
    pads : ((int, int), (int, int))
        `((top, bottom), (left, right))`; `reference_pads` makes counts of names.
    groups : int
    padding_mode : str
        As `reference_pad2d`'s `mode`.

    Returns
    -------
    ndarray, (N, O, OH, OW)
        Of dtype `np.result_type(x, weight, bias)`.

    Raises
    ------
    ValueError
        For an image without a batch, and options that are not of these forms.

    Examples
    --------
    >>> reference_conv2d(np.arange(9).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2), int))
    array([[[[ 8, 12],
             [20, 24]]]])
    """
    _check_forms("reference_conv2d", x, weight, pads, stride=stride, dilation=dilation)
    padded = reference_pad2d(x, pads, padding_mode)
    kernel = (weight.shape[2], weight.shape[3])
    taps = list(windows_of(x.shape, kernel, stride, pads, dilation))
    dtype = np.result_type(x, weight) if bias is None else np.result_type(x, weight, bias)
    y = np.zeros((x.shape[0], weight.shape[0], taps[-1].i + 1, taps[-1].j + 1), dtype)
    for ins, outs in _groups(x.shape[1], weight.shape[0], groups):
        for tap in taps:
            patch = padded[:, ins, tap.rows, tap.cols]
            y[:, outs, tap.i, tap.j] = np.tensordot(patch, weight[outs], ((1, 2, 3), (1, 2, 3)))
    return y if bias is None else np.asarray(y + bias[:, None, None], dtype)


def _groups(in_channels: int, out_channels: int, groups: int) -> list[tuple[slice, slice]]:
    per_in, per_out = in_channels // groups, out_channels // groups
    return [(slice(g * per_in, (g + 1) * per_in), slice(g * per_out, (g + 1) * per_out)) for g in range(groups)]


def reference_conv2d_backward(
    grad_output: Array, x: Array, weight: Array, stride: Pair = (1, 1), pads: Pads = NO_PADS,
    dilation: Pair = (1, 1), groups: int = 1, padding_mode: str = "constant",
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The adjoints of `reference_conv2d` in input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray, (N, O, OH, OW)
    x, weight, stride, pads, dilation, groups, padding_mode
        As given to `reference_conv2d`.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray
        Of the shapes of `x`, `weight` and `(O,)`, and of dtype `np.result_type(grad_output, x, weight)`. Complex ones
        are adjoints, with conjugated factors.

    Raises
    ------
    ValueError
        For an image without a batch, and options that are not of these forms.

    Examples
    --------
    >>> x, weight = np.ones((1, 1, 1, 3)), np.array([[[[1.0, 2.0]]]])
    >>> [g.ravel().tolist() for g in reference_conv2d_backward(np.ones((1, 1, 1, 2)), x, weight)]
    [[1.0, 3.0, 2.0], [2.0, 2.0], [2.0]]
    """
    _check_forms("reference_conv2d_backward", x, weight, pads, stride=stride, dilation=dilation)
    padded = reference_pad2d(x, pads, padding_mode)
    dtype = np.result_type(grad_output, x, weight)
    dpadded, dw = np.zeros(padded.shape, dtype), np.zeros(weight.shape, dtype)
    kernel = (weight.shape[2], weight.shape[3])
    for ins, outs in _groups(x.shape[1], weight.shape[0], groups):
        for tap in windows_of(x.shape, kernel, stride, pads, dilation):
            dy = grad_output[:, outs, tap.i, tap.j]
            dpadded[:, ins, tap.rows, tap.cols] += np.tensordot(dy, np.conj(weight[outs]), (1, 0))
            dw[outs] += np.tensordot(dy, np.conj(padded[:, ins, tap.rows, tap.cols]), (0, 0))
    db = grad_output.sum((0, 2, 3), dtype=dtype)
    return reference_pad2d_backward(dpadded, pads, padding_mode), dw, db


def reference_conv_transpose2d(
    x: Array, weight: Array, bias: Array | None, output_size: Pair, stride: Pair = (1, 1), pads: Pads = NO_PADS,
    dilation: Pair = (1, 1), groups: int = 1,
) -> Array:  # fmt: skip
    """Stamps the weights, scaled by each pixel of `x`, onto the output; `weight` is (C, O // groups, KH, KW).

    Parameters
    ----------
    x : ndarray, (N, C, H, W)
    weight : ndarray, (C, O // groups, KH, KW)
    bias : ndarray, (O,), or None
    output_size : (int, int)
        `(OH, OW)`: at least what the pixels reach without the padding, of which the rest holds the bias.
    stride, dilation : (int, int)
    pads : ((int, int), (int, int))
        What is cut off; only `top` and `left` count, the other ends follow from `output_size`.
    groups : int

    Returns
    -------
    ndarray, (N, O, OH, OW)
        Of dtype `np.result_type(x, weight, bias)`.

    Examples
    --------
    >>> x = np.array([[[[1, 2]]]])
    >>> reference_conv_transpose2d(x, np.ones((1, 1, 1, 2), int), None, output_size=(1, 4), stride=(1, 2))
    array([[[[1, 1, 2, 2]]]])
    """
    out_channels = weight.shape[1] * groups
    top, left = pads[0][0], pads[1][0]
    dtype = np.result_type(x, weight) if bias is None else np.result_type(x, weight, bias)
    # Room for stamps that reach beyond the output on either side, which is cut out at the end.
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], stride, weight.shape[2:], dilation,
                                                                 strict=True)]  # fmt: skip
    canvas = (max(reach[0], top + output_size[0]), max(reach[1], left + output_size[1]))
    y = np.zeros((x.shape[0], out_channels, *canvas), dtype)
    for ins, outs in _groups(x.shape[1], out_channels, groups):
        for i, j, kh, kw in np.ndindex(*x.shape[2:], *weight.shape[2:]):
            h, w = i * stride[0] + kh * dilation[0], j * stride[1] + kw * dilation[1]
            y[:, outs, h, w] += x[:, ins, i, j] @ weight[ins, :, kh, kw]
    y = y[:, :, top : top + output_size[0], left : left + output_size[1]]
    return y if bias is None else np.asarray(y + bias[:, None, None], dtype)
