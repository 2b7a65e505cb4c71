"""What a caller asks for beside arrays, as it was given: nothing is checked yet."""

from __future__ import annotations

from typing import Any, NamedTuple


class ConvOptions(NamedTuple):
    """Of a convolution."""

    stride: Any
    padding: Any
    dilation: Any
    groups: Any


class TransposeOptions(NamedTuple):
    """Of a transposed convolution."""

    stride: Any
    padding: Any
    output_padding: Any
    groups: Any
    dilation: Any


class WindowOptions(NamedTuple):
    """Of windows over images, those of pools and of columns; a pool's `stride` may be None, its kernel's size."""

    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
