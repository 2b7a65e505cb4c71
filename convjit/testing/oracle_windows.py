"""What columns and pools should give, from their definitions, as `oracle` does for convolution.

Knows windows and the pixels that they see; imports nothing from convjit but that oracle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .oracle import NO_PADS, Array, Pads, Pair, reference_pad2d, reference_pad2d_backward, windows_of


def reference_im2col(
    x: Array, kernel: Pair, stride: Pair = (1, 1), pads: Pads = NO_PADS, dilation: Pair = (1, 1)
) -> Array:
    """Every window of (N, C, H, W), flattened, as a column.

    Parameters
    ----------
    x : ndarray, (N, C, H, W)
    kernel, stride, dilation : (int, int)
    pads : ((int, int), (int, int))

    Returns
    -------
    ndarray, (N, C*KH*KW, OH*OW)
        Of `x`'s dtype.

    Examples
    --------
    >>> reference_im2col(np.arange(3).reshape(1, 1, 1, 3), (1, 2))
    array([[[0, 1],
            [1, 2]]])
    """
    padded = reference_pad2d(x, pads)
    windows = [padded[:, :, t.rows, t.cols] for t in windows_of(x.shape, kernel, stride, pads, dilation)]
    return np.stack([w.reshape(x.shape[0], x.shape[1] * kernel[0] * kernel[1]) for w in windows], axis=2)


def reference_col2im(
    columns: Array, image_size: Pair, kernel: Pair, stride: Pair = (1, 1), pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
) -> Array:  # fmt: skip
    """Adds every column back to the window that it came from.

    Parameters
    ----------
    columns : ndarray, (N, C*KH*KW, OH*OW)
    image_size : (int, int)
        `(H, W)`.
    kernel, stride, pads, dilation
        As given to `reference_im2col`, whose adjoint this is.

    Returns
    -------
    ndarray, (N, C, H, W)
        Of `columns`' dtype.

    Examples
    --------
    >>> reference_col2im(np.ones((1, 2, 2), int), (1, 3), (1, 2))
    array([[[[1, 2, 1]]]])
    """
    batch, channels = columns.shape[0], columns.shape[1] // (kernel[0] * kernel[1])
    padded = reference_pad2d(np.zeros((batch, channels, *image_size), columns.dtype), pads)
    for column, tap in enumerate(windows_of(image_size, kernel, stride, pads, dilation)):
        padded[:, :, tap.rows, tap.cols] += columns[:, :, column].reshape(batch, channels, *kernel)
    return reference_pad2d_backward(padded, pads)


def _pixels(
    x: Array, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair, ceil_mode: bool
) -> Iterator[tuple[int, int, list[Pair], int]]:
    """Each output position, the pixels that it sees, and its number of taps up to the end of the padding."""
    height, width = x.shape[2:]
    ends = height + sum(pads[0]), width + sum(pads[1])
    for tap in windows_of(x.shape, kernel, stride, pads, dilation, ceil_mode):
        taps = [
            (h, w)
            for h in range(tap.rows.start, tap.rows.stop, tap.rows.step)
            for w in range(tap.cols.start, tap.cols.stop, tap.cols.step)
            if h < ends[0] and w < ends[1]
        ]
        seen = [(h - pads[0][0], w - pads[1][0]) for h, w in taps]
        yield tap.i, tap.j, [(h, w) for h, w in seen if 0 <= h < height and 0 <= w < width], len(taps)


def reference_max_pool2d(
    x: Array, kernel: Pair, stride: Pair, pads: Pads = NO_PADS, dilation: Pair = (1, 1), ceil_mode: bool = False
) -> tuple[Array, Array]:
    """The maximum of each window and the flat position of the first one.

    A window that sees no pixel gives the least value of the dtype, and -1.

    Parameters
    ----------
    x : ndarray, (N, C, H, W)
        Floating or integer.
    kernel, stride, dilation : (int, int)
    pads : ((int, int), (int, int))
        Pads never win.
    ceil_mode : bool
        Whether a last window may reach past the end padding, if it starts before it.

    Returns
    -------
    y, indices : ndarray, (N, C, OH, OW)
        The maxima, of `x`'s dtype, and `h*W + w` of each, int64.

    Examples
    --------
    >>> y, indices = reference_max_pool2d(np.array([[[[1, 3, 3]]]]), (1, 2), (1, 1))
    >>> y.tolist(), indices.tolist()
    ([[[[3, 3]]]], [[[[1, 1]]]])
    """
    values, positions = {}, {}
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    for i, j, pixels, _ in _pixels(x, kernel, stride, pads, dilation, ceil_mode):
        if not pixels:
            values[i, j], positions[i, j] = np.full(x.shape[:2], least), np.full(x.shape[:2], -1)
            continue
        seen = np.stack([x[:, :, h, w] for h, w in pixels])
        first = seen.argmax(0)  # NumPy's too: the first maximum, or the first NaN
        values[i, j] = np.take_along_axis(seen, first[None], 0)[0]
        positions[i, j] = np.array([h * x.shape[3] + w for h, w in pixels])[first]
    out = (*x.shape[:2], max(values)[0] + 1, max(values)[1] + 1)
    y, indices = np.empty(out, x.dtype), np.empty(out, np.int64)
    for (i, j), value in values.items():
        y[:, :, i, j], indices[:, :, i, j] = value, positions[i, j]
    return y, indices


def reference_max_pool2d_backward(grad_output: Array, indices: Array, input_size: Pair) -> Array:
    """Adds each output's gradient to the pixel at its index.

    Parameters
    ----------
    grad_output, indices : ndarray, (N, C, OH, OW)
        Indices as `reference_max_pool2d` returns them; nothing is added for negative ones.
    input_size : (int, int)
        `(H, W)`.

    Returns
    -------
    ndarray, (N, C, H, W)
        Of `grad_output`'s dtype.

    Examples
    --------
    >>> reference_max_pool2d_backward(np.ones((1, 1, 1, 2)), np.array([[[[1, 1]]]]), (1, 3))
    array([[[[0., 2., 0.]]]])
    """
    dx = np.zeros((*grad_output.shape[:2], *input_size), grad_output.dtype)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        if indices[n, c, i, j] >= 0:
            h, w = divmod(int(indices[n, c, i, j]), input_size[1])
            dx[n, c, h, w] += grad_output[n, c, i, j]
    return dx


def reference_avg_pool2d(
    x: Array, kernel: Pair, stride: Pair, pads: Pads = NO_PADS, dilation: Pair = (1, 1), ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """The mean of each window.

    Parameters
    ----------
    x : ndarray, (N, C, H, W)
    kernel, stride, pads, dilation, ceil_mode
        As `reference_max_pool2d`.
    count_include_pad : bool
        Whether a sum is divided by the window's taps up to the end of the padding, or by the pixels that it sees.
    divisor_override : int, optional
        What a sum is divided by instead: any int but 0.

    Returns
    -------
    ndarray, (N, C, OH, OW)
        Floating as `x`; of integers, float64.

    Examples
    --------
    >>> reference_avg_pool2d(np.array([[[[1.0, 3.0, 5.0]]]]), (1, 2), (1, 1))
    array([[[[2., 4.]]]])
    """
    means = {}
    for i, j, pixels, taps in _pixels(x, kernel, stride, pads, dilation, ceil_mode):
        total = sum((x[:, :, h, w] for h, w in pixels), np.zeros(x.shape[:2], x.dtype))
        counted = taps if count_include_pad else max(len(pixels), 1)
        means[i, j] = total / (counted if divisor_override is None else divisor_override)
    y = np.empty((*x.shape[:2], max(means)[0] + 1, max(means)[1] + 1), np.result_type(*means.values()))
    for (i, j), mean in means.items():
        y[:, :, i, j] = mean
    return y
