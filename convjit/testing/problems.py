"""A convolution as a record of shapes and options, and with arrays: what the strategies draw.

Knows sizes; does not know how anything is computed or drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .oracle import Array, Pads, Pair, reference_pads

#: Names of ways to fill the padding: NumPy's.
PADDING_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
#: Names of amounts of padding.
PADDING_NAMES = ("valid", "same", "same_upper", "same_lower", "full")


@dataclass(frozen=True)
class Problem:
    """One valid convolution: shapes, and the options as `conv2d` takes them.

    Attributes
    ----------
    x_shape : tuple of int
        (N, C, H, W), or (C, H, W) of one image without a batch.
    weight_shape : (int, int, int, int)
        (O, C // groups, KH, KW).
    bias_shape : (int,) or None
        (O,); None for no bias.
    stride, dilation : int or (int, int)
    padding
        A name of `PADDING_NAMES`, or counts: an int, a pair, or `((top, bottom), (left, right))`.
    groups : int
    padding_mode : str
        One of `PADDING_MODES`.

    Examples
    --------
    >>> problem = Problem((1, 5, 5), (2, 1, 3, 3), stride=2, padding="same")
    >>> problem.pads, problem.y_shape
    (((1, 1), (1, 1)), (2, 3, 3))
    """

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, int, int, int]
    bias_shape: tuple[int] | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    padding_mode: str = "constant"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `conv2d` and its gradients."""
        return {**self.window, "groups": self.groups, "padding_mode": self.padding_mode}

    @property
    def window(self) -> dict[str, Any]:
        """Keyword arguments of `im2col`: stride, padding and dilation."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def kernel(self) -> Pair:
        """`(KH, KW)`."""
        return self.weight_shape[2], self.weight_shape[3]

    @property
    def image(self) -> Pair:
        """`(H, W)`."""
        return self.x_shape[-2], self.x_shape[-1]

    @property
    def stride_pair(self) -> Pair:
        """The stride as `(height, width)`."""
        return as_pair(self.stride)

    @property
    def dilation_pair(self) -> Pair:
        """The dilation as `(height, width)`."""
        return as_pair(self.dilation)

    @property
    def pads(self) -> Pads:
        """The padding in counts, `((top, bottom), (left, right))`, whatever its form."""
        return reference_pads(self.padding, self.image, self.kernel, self.stride_pair, self.dilation_pair)

    @property
    def reference_options(self) -> dict[str, Any]:
        """Keyword arguments of `reference_conv2d` and `reference_conv2d_backward`."""
        return {**self.reference_window, "groups": self.groups, "padding_mode": self.padding_mode}

    @property
    def reference_window(self) -> dict[str, Any]:
        """Keyword arguments of `reference_im2col`."""
        return {"stride": self.stride_pair, "pads": self.pads, "dilation": self.dilation_pair}

    @property
    def out_size(self) -> Pair:
        """`(OH, OW)`."""
        high, wide = (
            (self.image[a] + sum(self.pads[a]) - (self.kernel[a] - 1) * self.dilation_pair[a] - 1)
            // self.stride_pair[a] + 1 for a in (0, 1)
        )  # fmt: skip
        return high, wide

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The result's, (N, O, OH, OW) or (O, OH, OW)."""
        return (*self.x_shape[:-3], self.weight_shape[0], *self.out_size)

    @property
    def batched_x_shape(self) -> tuple[int, ...]:
        """(N, C, H, W), as the references take it; one image is a batch of one."""
        return self.x_shape if len(self.x_shape) == 4 else (1, *self.x_shape)

    @property
    def batched_y_shape(self) -> tuple[int, ...]:
        """(N, O, OH, OW)."""
        return self.y_shape if len(self.y_shape) == 4 else (1, *self.y_shape)


def as_pair(value: Any) -> Pair:
    """An int or a pair as a pair."""
    first, last = (value[0], value[-1]) if isinstance(value, Sequence) else (value, value)
    return int(first), int(last)


@dataclass(frozen=True, repr=False)
class Case:
    """A problem and arrays for it; shown as the call that reproduces it.

    Attributes
    ----------
    problem : Problem
    x, weight, grad_output : ndarray
        Of `problem.x_shape`, `problem.weight_shape` and `problem.y_shape`.
    bias : ndarray or None
        Of `problem.bias_shape`.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1, 1))
    >>> Case(Problem((1, 1, 1), (1, 1, 1, 1)), one, one[None], None, one)
    conv2d(np.array([[[1.0]]], 'float64'), np.array([[[[1.0]]]], 'float64'), None, stride=1, padding=0, dilation=1, \
groups=1, padding_mode='constant')  # grad_output=np.array([[[1.0]]], 'float64')
    """

    problem: Problem
    x: Array
    weight: Array
    bias: Array | None
    grad_output: Array

    def __repr__(self) -> str:
        arrays = ", ".join(_source(a) for a in (self.x, self.weight, self.bias))
        options = ", ".join(f"{name}={value!r}" for name, value in self.problem.options.items())
        return f"conv2d({arrays}, {options})  # grad_output={_source(self.grad_output)}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # what Hypothesis shows of a failing example


def _source(array: Array | None) -> str:
    if array is None:
        return "None"
    if not array.size:
        return f"np.zeros({array.shape}, {array.dtype.name!r})"
    return f"np.array({array.tolist()}, {array.dtype.name!r})"
