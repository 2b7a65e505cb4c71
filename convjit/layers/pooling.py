"""Pooling layers."""

from __future__ import annotations

import numpy as np

from ..functional import avg_pool2d, avg_pool2d_backward, max_pool2d
from ..functional.front_door import public
from ..functional.pools import scatter_to_maxima
from ..geometry import check_pooling_padding, pooling_geometry
from ..parsing import as_padding, as_pair, as_window
from ..typing import Array, IntOrPair, Padding
from .base import Layer, Shape, as_batch, check_grad, floating


class _Pooling(Layer):
    """What both layers share: a window, and sizes."""

    def __init__(self, pool_shape: IntOrPair, stride: IntOrPair, padding: Padding) -> None:
        name = type(self).__name__
        self._window = as_window(name, as_pair(name, "pool_shape", pool_shape, 1), stride, 1)
        check_pooling_padding(name, self._window, as_padding(name, padding, self._window, (1 << 20, 1 << 20)))
        self.pool_shape = pool_shape
        self.stride = stride
        self.padding = padding

    def output_shape(self) -> Shape:
        """Channels, height and width of one output, for inputs of `input_shape`."""
        name = f"{type(self).__name__}.output_shape"
        shape = self._needed_input_shape("output_shape")
        if len(shape) != 3:
            raise ValueError(f"{name}: input_shape must be (channels, height, width), got {shape}")
        channels, height, width = shape
        pads = as_padding(name, self.padding, self._window, (height, width))
        return pooling_geometry(name, (1, channels, height, width), self._window, pads).y_shape[1:]

    def _output_shape_of(self, images: Array) -> Shape:
        pads = as_padding(type(self).__name__, self.padding, self._window, images.shape[2:])
        return pooling_geometry(type(self).__name__, images.shape, self._window, pads).y_shape


class MaxPooling2D(_Pooling):
    """The largest value in each window.

    Parameters
    ----------
    pool_shape : int or (int, int)
    stride : int or (int, int)
        1 by default, as in the original text; give the pool's shape for windows that do not overlap.
    padding
        In any form that `max_pool2d` takes.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import MaxPooling2D
    >>> MaxPooling2D((2, 2), stride=2).forward_pass(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    @public
    def __init__(self, pool_shape: IntOrPair = (2, 2), stride: IntOrPair = 1, padding: Padding = 0) -> None:
        super().__init__(pool_shape, stride, padding)

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The maxima of the images `X` (N, C, H, W); with `training`, where they were is kept."""
        images = as_batch("MaxPooling2D.forward_pass", X, 4)
        y, indices = max_pool2d(images, self.pool_shape, self.stride, self.padding, return_indices=True)
        self._kept_pass = (images.shape, indices) if training else None
        return y

    def backward_pass(self, accum_grad: Array) -> Array:
        """Each output's gradient, at the pixel that was its maximum."""
        shape, indices = self._kept("_kept_pass")
        gradient = floating(check_grad("MaxPooling2D", accum_grad, indices.shape))
        return scatter_to_maxima("MaxPooling2D.backward_pass", gradient, indices, shape, gradient.dtype)


class AveragePooling2D(_Pooling):
    """The mean of each window; padding counts as zeros.

    Parameters
    ----------
    pool_shape, stride, padding
        As `MaxPooling2D`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import AveragePooling2D
    >>> AveragePooling2D((2, 2), stride=2).forward_pass(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    @public
    def __init__(self, pool_shape: IntOrPair = (2, 2), stride: IntOrPair = 1, padding: Padding = 0) -> None:
        super().__init__(pool_shape, stride, padding)

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The means of the images `X` (N, C, H, W)."""
        images = as_batch("AveragePooling2D.forward_pass", X, 4)
        y = avg_pool2d(images, self.pool_shape, self.stride, self.padding)
        self._input_shape_used = images.shape if training else None
        return y

    def backward_pass(self, accum_grad: Array) -> Array:
        """Each output's gradient, shared by its window."""
        shape = self._kept("_input_shape_used")
        images = np.broadcast_to(np.zeros((), np.float32), shape)
        gradient = floating(check_grad("AveragePooling2D", accum_grad, self._output_shape_of(images)))
        return avg_pool2d_backward(gradient, shape[2:], self.pool_shape, self.stride, self.padding)
