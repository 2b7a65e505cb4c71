"""The convolution layer as it is often written in plain NumPy: gather with fancy indices, one product, scatter.

Steps, argument names and the order of columns are those of E. Linder-Norén's "ML-From-Scratch" (MIT licence),
`deep_learning/layers.py`, itself after Stanford's CS231n; the lines are new. Here to be compared with, not to be fast.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .oracle import Array, Pads, Pair


def padding_of(filter_shape: Pair, output_shape: str) -> Pads:
    """`"valid"` or, half before and half after, `"same"`.

    Examples
    --------
    >>> padding_of((3, 4), "same")
    ((1, 1), (1, 2))
    """
    if output_shape == "valid":
        return (0, 0), (0, 0)
    high, wide = ((size - 1) for size in filter_shape)
    return (high // 2, high - high // 2), (wide // 2, wide - wide // 2)


def patch_indices(
    images_shape: tuple[int, int, int, int], filter_shape: Pair, padding: Pads, stride: int = 1
) -> tuple[Array, Array, Array]:
    """Channel, row and column of every entry of the column matrix, in padded images.

    Examples
    --------
    >>> k, i, j = patch_indices((1, 1, 2, 2), (1, 2), ((0, 0), (0, 0)))
    >>> i.tolist(), j.tolist()
    ([[0, 1], [0, 1]], [[0, 0], [1, 1]])
    """
    _, channels, height, width = images_shape
    filter_h, filter_w = filter_shape
    out_h = (height + sum(padding[0]) - filter_h) // stride + 1
    out_w = (width + sum(padding[1]) - filter_w) // stride + 1
    tap_row = np.tile(np.repeat(np.arange(filter_h), filter_w), channels)
    tap_col = np.tile(np.arange(filter_w), filter_h * channels)
    channel = np.repeat(np.arange(channels), filter_h * filter_w)
    row = tap_row[:, None] + stride * np.repeat(np.arange(out_h), out_w)
    col = tap_col[:, None] + stride * np.tile(np.arange(out_w), out_h)
    return channel[:, None], row, col


def images_to_columns(images: Array, filter_shape: Pair, stride: int, output_shape: str = "same") -> Array:
    """Patches as columns, (C*KH*KW, OH*OW*N), the batch fastest.

    Examples
    --------
    >>> images_to_columns(np.arange(4.0).reshape(2, 1, 1, 2), (1, 1), 1)
    array([[0., 2., 1., 3.]])
    """
    padding = padding_of(filter_shape, output_shape)
    channel, row, col = patch_indices(images.shape, filter_shape, padding, stride)
    padded = np.pad(images, ((0, 0), (0, 0), *padding))
    return padded[:, channel, row, col].transpose(1, 2, 0).reshape(len(channel), -1)


def columns_to_images(
    columns: Array, images_shape: tuple[int, int, int, int], filter_shape: Pair, stride: int,
    output_shape: str = "same",
) -> Array:  # fmt: skip
    """Adds columns back to where their entries came from.

    Examples
    --------
    >>> columns_to_images(np.ones((2, 2)), (1, 1, 1, 3), (1, 2), 1, "valid")
    array([[[[1., 2., 1.]]]])
    """
    batch, channels, height, width = images_shape
    (top, bottom), (left, right) = padding = padding_of(filter_shape, output_shape)
    channel, row, col = patch_indices(images_shape, filter_shape, padding, stride)
    padded: Array = np.zeros((batch, channels, top + height + bottom, left + width + right))
    entries = columns.reshape(len(channel), -1, batch).transpose(2, 0, 1)
    where: Any = (slice(None), channel, row, col)
    np.add.at(padded, where, entries)
    return padded[:, :, top : top + height, left : left + width]


class NumpyConv2D:
    """A convolution layer in plain NumPy.

    Parameters
    ----------
    n_filters : int
    filter_shape : (int, int)
    input_shape : (int, int, int), optional
        `(C, H, W)` of one image; may be set later, before `initialize`.
    padding : {"same", "valid"}
    stride : int

    Examples
    --------
    >>> layer = NumpyConv2D(2, (3, 3), input_shape=(1, 8, 8))
    >>> layer.initialize(None)
    >>> layer.forward_pass(np.zeros((5, 1, 8, 8))).shape, layer.parameters()
    ((5, 2, 8, 8), 20)
    """

    W: Array
    w0: Array

    def __init__(
        self, n_filters: int, filter_shape: Pair, input_shape: tuple[int, int, int] | None = None,
        padding: str = "same", stride: int = 1,
    ) -> None:  # fmt: skip
        self.n_filters = n_filters
        self.filter_shape = filter_shape
        self.input_shape = input_shape
        self.padding = padding
        self.stride = stride
        self.trainable = True

    def set_input_shape(self, shape: tuple[int, int, int]) -> None:
        """`(C, H, W)` of one image."""
        self.input_shape = shape

    def layer_name(self) -> str:
        """The name in a summary."""
        return type(self).__name__

    def initialize(self, optimizer: Any) -> None:
        """Draw the weights from NumPy's global generator; each parameter gets its own copy of the optimizer."""
        assert self.input_shape is not None
        limit = 1 / np.sqrt(self.filter_shape[0] * self.filter_shape[1])
        self.W = np.random.uniform(-limit, limit, (self.n_filters, self.input_shape[0], *self.filter_shape))
        self.w0 = np.zeros((self.n_filters, 1))
        self.W_opt, self.w0_opt = copy.copy(optimizer), copy.copy(optimizer)

    def parameters(self) -> int:
        """How many numbers are trained."""
        return self.W.size + self.w0.size

    def output_shape(self) -> tuple[int, int, int]:
        """`(F, OH, OW)` for one image."""
        assert self.input_shape is not None
        padding = padding_of(self.filter_shape, self.padding)
        high, wide = (
            (self.input_shape[1 + a] + sum(padding[a]) - self.filter_shape[a]) // self.stride + 1 for a in (0, 1)
        )
        return self.n_filters, high, wide

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """(N, C, H, W) to (N, F, OH, OW)."""
        self.layer_input = X
        self.X_col = images_to_columns(X, self.filter_shape, self.stride, self.padding)
        self.W_col = self.W.reshape(self.n_filters, -1)
        product: Array = self.W_col.dot(self.X_col) + self.w0
        return product.reshape(*self.output_shape(), len(X)).transpose(3, 0, 1, 2)

    def backward_pass(self, accum_grad: Array) -> Array:
        """Update the weights; return the gradient with respect to the input, of the weights of the forward pass."""
        rows = accum_grad.transpose(1, 2, 3, 0).reshape(self.n_filters, -1)
        if self.trainable:
            grad_w = rows.dot(self.X_col.T).reshape(self.W.shape)
            grad_w0 = rows.sum(axis=1, keepdims=True)
            self.W = self.W_opt.update(self.W, grad_w)
            self.w0 = self.w0_opt.update(self.w0, grad_w0)
        columns = self.W_col.T.dot(rows)
        return columns_to_images(columns, self.layer_input.shape, self.filter_shape, self.stride, self.padding)
