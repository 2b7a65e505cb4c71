"""Pooling layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from ..functional import (
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool3d,
    avg_pool3d_backward,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from ..functional.front_door import public
from ..functional.pools import scatter_to_maxima
from ..geometry import check_pooling_padding, pooling_geometry
from ..parsing import AXES, LARGE_IMAGE, Window, as_divisor, as_entries, as_padding, as_window
from ..typing import Array, IntOrPair, Padding
from .base import Layer, Shape, as_batch, check_grad, floating


class _Functions(NamedTuple):
    """What layers compute with."""

    largest: Callable[..., Any]
    mean: Callable[..., Array]
    shared: Callable[..., Array]


_FUNCTIONS = {
    1: _Functions(max_pool1d, avg_pool1d, avg_pool1d_backward),
    2: _Functions(max_pool2d, avg_pool2d, avg_pool2d_backward),
    3: _Functions(max_pool3d, avg_pool3d, avg_pool3d_backward),
}


class _Pooling(Layer):
    """What all layers share: a window over images of the layer's rank, and sizes."""

    rank: ClassVar[int]

    def __init__(self, pool_shape: IntOrPair, stride: IntOrPair, padding: Padding) -> None:
        self.pool_shape = pool_shape
        self.stride = stride
        self.padding = padding
        name, window = type(self).__name__, self._window_for(type(self).__name__)
        check_pooling_padding(name, window, as_padding(name, padding, window, (LARGE_IMAGE,) * self.rank))

    def _window_for(self, name: str) -> Window:
        entries = as_entries(name, "pool_shape", self.pool_shape, 1, self.rank)
        return as_window(name, entries, self.stride, 1, self.rank)

    def output_shape(self) -> Shape:
        """Channels and sizes of one output, for inputs of `input_shape`."""
        name = f"{type(self).__name__}.output_shape"
        shape = self._needed_input_shape("output_shape")
        if len(shape) != self.rank + 1:
            needs = f"({', '.join(['channels', *AXES[self.rank]])})"
            raise ValueError(f"{name}: input_shape must be {needs}, got {shape}")
        window = self._window_for(name)
        padding = as_padding(name, self.padding, window, shape[1:])
        return pooling_geometry(name, (1, *shape), window, padding).y_shape[1:]


class _MaxPooling(_Pooling):
    """The largest value in each window."""

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The maxima of the images `X` (N, C, H, W), or of another rank; with `training`, where they were is kept."""
        images = as_batch(f"{type(self).__name__}.forward_pass", X, self.rank + 2)
        pool = _FUNCTIONS[self.rank].largest
        y, indices = pool(images, self.pool_shape, self.stride, self.padding, return_indices=True)
        self.__dict__["_kept_pass"] = (images.shape, indices) if training else None
        largest: Array = y
        return largest

    def backward_pass(self, accum_grad: Array) -> Array:
        """Each output's gradient, at the pixel that was its maximum."""
        return self.backward_through_relu(accum_grad, None)

    def backward_through_relu(self, accum_grad: Array, rectified: Array | None) -> Array:
        """The same, from the gradient behind a ReLU that made `rectified` of the last output; None without one."""
        shape, indices = self._kept("_kept_pass")
        name = type(self).__name__
        gradient = floating(f"{name}.backward_pass", "accum_grad", check_grad(name, accum_grad, indices.shape))
        return scatter_to_maxima(f"{name}.backward_pass", gradient, indices, shape, gradient.dtype, rectified)


class _AveragePooling(_Pooling):
    """The mean of each window."""

    def __init__(
        self, pool_shape: IntOrPair, stride: IntOrPair, padding: Padding, divisor_override: int | None
    ) -> None:
        super().__init__(pool_shape, stride, padding)
        if divisor_override is not None:
            divisor_override = as_divisor(type(self).__name__, "divisor_override", divisor_override)
        self.divisor_override = divisor_override

    def forward_pass(self, X: Array, training: bool = True) -> Array:
        """The means of the images `X` (N, C, H, W), or of another rank."""
        images = as_batch(f"{type(self).__name__}.forward_pass", X, self.rank + 2)
        pool = _FUNCTIONS[self.rank].mean
        window, divisor = (self.pool_shape, self.stride, self.padding), self.divisor_override
        y = pool(images, *window, divisor_override=divisor)
        self.__dict__["_kept_pass"] = (images.shape, y.shape, window, divisor) if training else None
        return y

    def backward_pass(self, accum_grad: Array) -> Array:
        """Each output's gradient, shared by its window."""
        shape, output_shape, window, divisor = self._kept("_kept_pass")
        name = type(self).__name__
        gradient = floating(f"{name}.backward_pass", "accum_grad", check_grad(name, accum_grad, output_shape))
        return _FUNCTIONS[self.rank].shared(gradient, shape[2:], *window, divisor_override=divisor)


class MaxPooling1D(_MaxPooling):
    """The largest value in each window: `MaxPooling2D` of sequences.

    Parameters
    ----------
    pool_shape, stride : int
    padding
        In any form that `max_pool1d` takes.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import MaxPooling1D
    >>> MaxPooling1D(2, stride=2).forward_pass(np.array([[[3.0, 1.0, 1.0, 4.0]]]))
    array([[[3., 4.]]])
    """

    rank = 1

    @public
    def __init__(self, pool_shape: IntOrPair = 2, stride: IntOrPair = 1, padding: Padding = 0) -> None:
        super().__init__(pool_shape, stride, padding)


class MaxPooling2D(_MaxPooling):
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

    rank = 2

    @public
    def __init__(self, pool_shape: IntOrPair = (2, 2), stride: IntOrPair = 1, padding: Padding = 0) -> None:
        super().__init__(pool_shape, stride, padding)


class MaxPooling3D(_MaxPooling):
    """The largest value in each window: `MaxPooling2D` of volumes.

    Parameters
    ----------
    pool_shape, stride : int or (int, int, int)
    padding
        In any form that `max_pool3d` takes.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import MaxPooling3D
    >>> MaxPooling3D(2, stride=2).forward_pass(np.arange(16.0).reshape(1, 1, 2, 2, 4))
    array([[[[[13., 15.]]]]])
    """

    rank = 3

    @public
    def __init__(self, pool_shape: IntOrPair = 2, stride: IntOrPair = 1, padding: Padding = 0) -> None:
        super().__init__(pool_shape, stride, padding)


class AveragePooling1D(_AveragePooling):
    """The mean of each window: `AveragePooling2D` of sequences.

    Parameters
    ----------
    pool_shape, stride, padding
        As `MaxPooling1D`.
    divisor_override : int, optional
        As `AveragePooling2D`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import AveragePooling1D
    >>> AveragePooling1D(2, stride=2).forward_pass(np.array([[[3.0, 1.0, 1.0, 4.0]]]))
    array([[[2. , 2.5]]])
    """

    rank = 1

    @public
    def __init__(
        self, pool_shape: IntOrPair = 2, stride: IntOrPair = 1, padding: Padding = 0,
        *, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(pool_shape, stride, padding, divisor_override)


class AveragePooling2D(_AveragePooling):
    """The mean of each window; padding counts as zeros.

    Parameters
    ----------
    pool_shape, stride, padding
        As `MaxPooling2D`.
    divisor_override : int, optional
        What the sum of each window is divided by, instead of how many pixels count: any int but 0, 1 for sums.

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

    rank = 2

    @public
    def __init__(
        self, pool_shape: IntOrPair = (2, 2), stride: IntOrPair = 1, padding: Padding = 0,
        *, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(pool_shape, stride, padding, divisor_override)


class AveragePooling3D(_AveragePooling):
    """The mean of each window: `AveragePooling2D` of volumes.

    Parameters
    ----------
    pool_shape, stride, padding
        As `MaxPooling3D`.
    divisor_override : int, optional
        As `AveragePooling2D`.

    Raises
    ------
    TypeError, ValueError
        At construction, for arguments of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import AveragePooling3D
    >>> AveragePooling3D(2, stride=2).forward_pass(np.arange(16.0).reshape(1, 1, 2, 2, 4))
    array([[[[[6.5, 8.5]]]]])
    """

    rank = 3

    @public
    def __init__(
        self, pool_shape: IntOrPair = 2, stride: IntOrPair = 1, padding: Padding = 0,
        *, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(pool_shape, stride, padding, divisor_override)
