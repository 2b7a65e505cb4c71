"""Sizes, padding rules and every complaint about shapes, in Python integers.

Knows the arithmetic of convolution; does not know arrays, dtypes or how anything is computed. What comes out is one
record, `Geometry`, that Python and compiled code both take.
Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016); ONNX operator Conv for
`same_upper` and `same_lower`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

__all__ = ["Geometry", "Window", "conv2d_geometry", "pooling_geometry"]

# The largest stride, dilation, kernel or padding: sums and products of a few of them stay far inside 64 bits.
LARGEST = (1 << 31) - 1

PADDING_NAMES = ("valid", "same", "same_upper", "same_lower", "full")
Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[Pair, Pair]


class Geometry(NamedTuple):
    """One convolution problem in integers; pooling and columns use it too, with a channel per group.

    Output pixel `(oh, ow)` and tap `(kh, kw)` meet in input row `oh*stride_h + kh*dilation_h - pad_top` and column
    `ow*stride_w + kw*dilation_w - pad_left`. Outside the image, the input is zero.
    """

    batch: int
    in_channels: int
    in_h: int
    in_w: int
    out_channels: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    groups: int

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.in_channels, self.in_h, self.in_w

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.out_channels, self.in_channels // self.groups, self.kernel_h, self.kernel_w

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.out_channels, self.out_h, self.out_w

    @property
    def pads(self) -> Pads:
        return (self.pad_top, self.pad_bottom), (self.pad_left, self.pad_right)

    @property
    def multiplications(self) -> int:
        """Multiplications of the direct method, forward or either gradient."""
        taps = self.in_channels // self.groups * self.kernel_h * self.kernel_w
        return self.batch * self.out_channels * self.out_h * self.out_w * taps

    @property
    def is_pointwise(self) -> bool:
        """Whether output pixel i depends on input pixel i alone; a transposed convolution may have pixels besides."""
        window = (self.kernel_h, self.kernel_w, self.stride_h, self.stride_w)
        same_size = (self.in_h, self.in_w) == (self.out_h, self.out_w)
        return window == (1, 1, 1, 1) and self.pads == ((0, 0), (0, 0)) and same_size

    def as_one_row(self) -> Geometry:
        """The same pointwise problem on images of one row."""
        return self._replace(in_h=1, in_w=self.in_h * self.in_w, out_h=1, out_w=self.out_h * self.out_w)


class Window(NamedTuple):
    """How a kernel moves over an image: what im2col, pooling and convolution share. All pairs are (height, width)."""

    kernel: Pair
    stride: Pair
    dilation: Pair

    @property
    def extent(self) -> Pair:
        """The rows and columns that a dilated kernel spans."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1


# --- integers and pairs ---------------------------------------------------------------------------------------------


def as_index(function: str, name: str, value: Any, needs: str = "an int") -> int:
    """`value` as a Python int; bools, floats and strings are a `TypeError`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be {needs}, got {describe(value)}") from None


def describe(value: Any) -> str:
    """A value as an error message shows it: its type and, where that is short, itself."""
    kind = type(value).__name__
    if value is None or isinstance(value, np.ndarray):
        return kind
    text = " ".join(repr(value).split())
    return f"{kind} {text}" if len(text) <= 40 else kind


def shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def is_sequence(value: Any) -> bool:
    """Whether a value has entries: a list, a tuple, an array with an axis, but not a string."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def as_flag(function: str, name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, bool | np.bool_ | int | np.integer):
        raise TypeError(f"{function}: {name} must be a bool, got {describe(value)}")
    return bool(value)


def as_pair(function: str, name: str, value: Any, least: int) -> Pair:
    """An int, a pair or a one-element sequence as `(height, width)`, each in `least..LARGEST`."""
    needs = "an int or a pair of ints"
    if is_sequence(value):
        _check_entries(function, name, value)
        entries = [as_index(function, name, entry, needs) for entry in value]
        pair = (entries[0], entries[-1])
    else:
        entry = as_index(function, name, value, needs)
        pair = (entry, entry)
    for entry in pair:
        if entry < least:
            raise ValueError(f"{function}: {name} must be >= {least}, got {value!r}")
        if entry > LARGEST:
            raise ValueError(f"{function}: {name} must be at most {LARGEST}, got {value!r}: the result is too large")
    return pair


def _check_entries(function: str, name: str, value: Any) -> None:
    try:
        count = len(value)
    except OverflowError:  # a `range` beyond 2^63
        count = LARGEST
    if count not in (1, 2):
        raise ValueError(f"{function}: {name} must have 1 or 2 entries, got {count}")


def as_positive(function: str, name: str, value: Any) -> int:
    """A positive int, such as `groups` or a number of filters."""
    needs = "a positive integer"
    number = as_index(function, name, value, needs)
    if number < 1:
        raise ValueError(f"{function}: {name} must be {needs}, got {number}")
    if number > LARGEST:
        raise ValueError(f"{function}: {name} must be at most {LARGEST}, got {number}")
    return number


def as_window(function: str, kernel_size: Any, stride: Any, dilation: Any) -> Window:
    """Parse kernel, stride and dilation together."""
    kernel = as_pair(function, "kernel_size", kernel_size, 0)
    if 0 in kernel:
        raise ValueError(f"{function}: kernel must be at least 1x1, got {kernel[0]}x{kernel[1]}")
    return Window(kernel, as_pair(function, "stride", stride, 1), as_pair(function, "dilation", dilation, 1))


def as_image_size(function: str, name: str, value: Any) -> Pair:
    """A size `(H, W)` in pixels."""
    return as_pair(function, name, value, 0)


# --- padding --------------------------------------------------------------------------------------------------------


def as_padding(function: str, padding: Any, window: Window | None = None, image: Pair | None = None) -> Pads:
    """Any form of padding as `((top, bottom), (left, right))`.

    Names need the window, `same_upper` and `same_lower` the image size too. Where they are not given only counts are
    accepted.
    """
    if isinstance(padding, str):
        return _named_padding(function, padding, window, image)
    if is_sequence(padding):
        _check_entries(function, "padding", padding)
    if is_sequence(padding) and any(map(is_sequence, padding)):
        sides = [padding[0], padding[-1]]
        top_bottom, left_right = (as_pair(function, "padding", side, 0) for side in sides)
        return top_bottom, left_right
    vertical, horizontal = as_pair(function, "padding", padding, 0)
    return (vertical, vertical), (horizontal, horizontal)


def _named_padding(function: str, name: str, window: Window | None, image: Pair | None) -> Pads:
    usable = PADDING_NAMES if image else tuple(n for n in PADDING_NAMES if n not in ("same_upper", "same_lower"))
    if window is None or name not in usable:
        names = ", ".join(repr(n) for n in usable) + ", " if window else ""
        raise ValueError(
            f"{function}: padding must be {names}an int, a pair, or ((top, bottom), (left, right)), got {name!r}"
        )
    return _axis_padding(name, 0, window, image), _axis_padding(name, 1, window, image)


def _axis_padding(name: str, axis: int, window: Window, image: Pair | None) -> Pair:
    reach = window.extent[axis] - 1
    if name == "valid":
        return 0, 0
    if name == "full":
        return reach, reach
    if name == "same":
        return reach // 2, reach - reach // 2
    assert image is not None
    size, stride = image[axis], window.stride[axis]
    total = max(0, (-(-size // stride) - 1) * stride + reach + 1 - size)
    less, more = total // 2, total - total // 2
    return (less, more) if name == "same_upper" else (more, less)


def transposed_padding(function: str, padding: Any, window: Window, image: Pair, output: Pair | None) -> Pads:
    """Padding of a transposed convolution of `image`; `same_upper` and `same_lower` cut the result down to `output`.

    Where no output size is given it is `image * stride`.
    """
    if not isinstance(padding, str) or padding not in ("same_upper", "same_lower"):
        return as_padding(function, padding, window)
    sides = []
    for axis in (0, 1):
        wanted = image[axis] * window.stride[axis] if output is None else output[axis]
        total = max(0, (image[axis] - 1) * window.stride[axis] + window.extent[axis] - wanted)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if padding == "same_upper" else (more, less))
    return sides[0], sides[1]


def check_counts_fit(function: str, window: Window, pads: Pads) -> None:
    """Refuse windows so large that sizes leave 64-bit arithmetic."""
    if max(window.extent) > LARGEST or max(map(max, pads)) > LARGEST:
        raise ValueError(
            f"{function}: dilation or padding is too large: kernel extent {window.extent}, padding {pads}, "
            f"at most {LARGEST} each"
        )


# --- output sizes ---------------------------------------------------------------------------------------------------


def output_size(function: str, image: Pair, window: Window, pads: Pads) -> Pair:
    """`floor((in + pad - extent) / stride) + 1` for both axes; a kernel larger than the padded image is refused."""
    check_counts_fit(function, window, pads)
    padded = tuple(size + sum(pad) for size, pad in zip(image, pads, strict=True))
    extent = window.extent
    if extent[0] > padded[0] or extent[1] > padded[1]:
        (kh, kw), (dh, dw) = window.kernel, window.dilation
        dilation = str(dh) if dh == dw else f"({dh}, {dw})"
        raise ValueError(
            f"{function}: kernel {kh}x{kw} with dilation {dilation} (extent {extent[0]}x{extent[1]}) "
            f"is larger than the padded input {padded[0]}x{padded[1]}"
        )
    high, wide = ((p - e) // s + 1 for p, e, s in zip(padded, extent, window.stride, strict=True))
    return high, wide


def conv2d_geometry(
    function: str,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Geometry:
    """The record of a convolution, or a `ValueError` that names what does not fit.

    `x_shape` is the batched shape `(N, C, H, W)`.
    """
    if len(weight_shape) != 4:
        raise ValueError(f"{function}: expected weight of shape (O, C/groups, KH, KW), got {weight_shape}")
    batch, channels, height, width = x_shape
    out_channels, group_channels, kernel_h, kernel_w = weight_shape
    groups = as_positive(function, "groups", groups)
    if out_channels < 1 or kernel_h < 1 or kernel_w < 1:
        raise ValueError(
            f"{function}: weight needs at least one output channel and a kernel of at least 1x1, got {weight_shape}"
        )
    if channels % groups or out_channels % groups:
        raise ValueError(
            f"{function}: groups={groups} must divide the input channels ({channels}) and the output channels "
            f"({out_channels})"
        )
    if group_channels * groups != channels:
        raise ValueError(
            f"{function}: weight expects {group_channels * groups} input channels (groups={groups}), but x has "
            f"{channels}: x {x_shape}, weight {weight_shape}"
        )
    window = as_window(function, (kernel_h, kernel_w), stride, dilation)
    pads = as_padding(function, padding, window, (height, width))
    return _record(function, (batch, channels, height, width), out_channels, window, pads, groups)


def pooling_geometry(
    function: str,
    x_shape: tuple[int, ...],
    window: Window,
    pads: Pads,
    ceil_mode: bool = False,
) -> Geometry:
    """The record of a window that moves over each channel by itself: pooling, im2col and col2im.

    With `ceil_mode` the last window may reach past the end padding, but not start in it.
    """
    batch, channels, height, width = x_shape
    record = _record(function, (batch, channels, height, width), channels, window, pads, max(channels, 1))
    if not ceil_mode:
        return record
    sizes = []
    for axis, floor_size in enumerate((record.out_h, record.out_w)):
        size, (before, after) = (height, width)[axis], pads[axis]
        stride, extent = window.stride[axis], window.extent[axis]
        reaches_past = (size + before + after - extent) % stride != 0
        starts_inside = floor_size * stride < size + before
        sizes.append(floor_size + (reaches_past and starts_inside))
    return record._replace(out_h=sizes[0], out_w=sizes[1])


def check_pooling_padding(function: str, window: Window, pads: Pads) -> None:
    """Refuse a padding that could hold a whole window."""
    for axis in (0, 1):
        if max(pads[axis]) >= window.extent[axis]:
            raise ValueError(
                f"{function}: padding must be smaller than the effective kernel {window.extent}, got {pads}: "
                "a window would see padding only"
            )


def _record(
    function: str, x_shape: tuple[int, int, int, int], out_channels: int, window: Window, pads: Pads, groups: int
) -> Geometry:
    batch, channels, height, width = x_shape
    out_h, out_w = output_size(function, (height, width), window, pads)
    return Geometry(
        batch, channels, height, width, out_channels, out_h, out_w, *window.kernel, *window.stride, *window.dilation,
        *pads[0], *pads[1], groups,
    )  # fmt: skip


def check_same_shape(function: str, name: str, got: tuple[int, ...], needed: tuple[int, ...], why: str) -> None:
    """Refuse an array whose shape does not follow from the others."""
    if got != needed:
        raise ValueError(f"{function}: {name} must have shape {needed} ({why}), got {got}")
