"""Arguments as they are given: ints, an int for each dimension, windows, padding in all its forms.

Knows what may be written and what it means, in Python integers; does not know arrays, nor how anything is computed.
Source: ONNX operator Conv for `same_upper` and `same_lower`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

# The largest stride, dilation, kernel or padding: sums and products of a few of them stay far inside 64 bits.
LARGEST = (1 << 31) - 1
# The size of an image behind which no other shows an error: options are checked with it before an image is known.
LARGE_IMAGE = 1 << 40

PADDING_NAMES = ("valid", "same", "same_upper", "same_lower", "full")
Pair: TypeAlias = tuple[int, int]
# An int, or a (before, after), for each dimension: (height, width), or (depth, height, width), or (length,).
Sizes: TypeAlias = tuple[int, ...]
Pads: TypeAlias = tuple[Pair, ...]

# The dimensions of images of one, two and three, by what an error calls them.
AXES: dict[int, tuple[str, ...]] = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
# What may be given for one int a dimension, and for padding.
_ENTRIES = {1: "an int", 2: "an int or a pair of ints", 3: "an int or a triple of ints"}
_PADDINGS = {
    1: "an int or ((start, end),)",
    2: "an int, a pair, or ((top, bottom), (left, right))",
    3: "an int, a triple, or ((front, back), (top, bottom), (left, right))",
}


class Window(NamedTuple):
    """How a kernel moves over an image: what im2col, pooling and convolution share. An int for each dimension."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    @property
    def extent(self) -> Sizes:
        """The pixels of each dimension that a dilated kernel spans."""
        return tuple([(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)])

    @property
    def rank(self) -> int:
        """How many dimensions there are."""
        return len(self.kernel)


def by(sizes: Sizes) -> str:
    """Sizes as people write them: `3x3`."""
    return "x".join(map(str, sizes))


# --- integers and their tuples --------------------------------------------------------------------------------------


# Of an int that an error may show: Python refuses to print 4300 digits.
_MOST_BITS = 1 << 12


def as_index(function: str, name: str, value: Any, needs: str = "an int") -> int:
    """`value` as a Python int; bools, floats, strings are a `TypeError`, what cannot be printed is a `ValueError`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be {needs}, got {describe(value)}") from None
    if number.bit_length() > _MOST_BITS:
        raise ValueError(f"{function}: {name} must be {needs}, got an int of {number.bit_length():,} bits")
    return number


def describe(value: Any) -> str:
    """A value as an error message shows it: its type and, where that is short, itself."""
    kind = type(value).__name__
    if value is None or isinstance(value, np.ndarray):
        return kind
    text = _on_one_line(value)
    return f"{kind} {text}" if len(text) <= 40 else kind


def shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = _on_one_line(value)
    if text in (_TOO_DEEP, _NEVER):
        return f"{type(value).__name__} {text}"
    return text if len(text) <= 80 else text[:77] + "..."


_TOO_DEEP, _NEVER = "nested too deep to show", "that cannot be shown"


def _on_one_line(value: Any) -> str:
    try:
        return " ".join(repr(value).split())
    except RecursionError:
        return _TOO_DEEP
    except Exception:  # of somebody else's class, or an int of more digits than Python prints
        return _NEVER


def is_sequence(value: Any) -> bool:
    """Whether a value has entries: a list, a tuple, an array with an axis, but not a string."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_iterable(value: Any) -> bool:
    """Whether a value gives entries, one after the other, be it a string: an array without an axis does not."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


# Tuples in tuples that an option may be: padding is a tuple of pairs.
_NESTED = 2


def are_plain(options: tuple[Any, ...], nested: int = _NESTED) -> bool:
    """Whether options are ints, names, None and tuples of them, as most are: what they mean may be looked up.

    True equals 1 and is refused: types are looked at, not values.
    """
    for option in options:
        kind = type(option)
        if kind is tuple and nested > 0 and are_plain(option, nested - 1):
            continue
        if kind is not int and kind is not str and option is not None:
            return False
    return True


def as_flag(function: str, name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, bool | np.bool_ | int | np.integer):
        raise TypeError(f"{function}: {name} must be a bool, got {describe(value)}")
    return bool(value)


def as_entries(function: str, name: str, value: Any, least: int, rank: int) -> Sizes:
    """An int, one int for each dimension, or a one-element sequence: `rank` ints, each in `least..LARGEST`."""
    if type(value) is int and least <= value <= LARGEST:  # as most calls have it
        return (value,) * rank
    if type(value) is tuple and len(value) == rank:
        for entry in value:
            if type(entry) is not int or not least <= entry <= LARGEST:
                break
        else:
            return value
    needs = _ENTRIES[rank]
    if is_sequence(value):
        _check_entries(function, name, value, rank)
        entries = [as_index(function, name, entry, needs) for entry in value]
    else:
        entries = [as_index(function, name, value, needs)]
    for entry in entries:
        if entry < least:
            raise ValueError(f"{function}: {name} must be >= {least}, got {value!r}")
        if entry > LARGEST:
            raise ValueError(f"{function}: {name} must be at most {LARGEST}, got {value!r}: the result is too large")
    return tuple(entries) * (rank if len(entries) == 1 else 1)


def as_pair(function: str, name: str, value: Any, least: int) -> Pair:
    """The same for `(height, width)`, or for the two sides of one dimension."""
    first, second = as_entries(function, name, value, least, 2)
    return first, second


def _check_entries(function: str, name: str, value: Any, rank: int, hint: str = "") -> None:
    try:
        count = len(value)
    except OverflowError:  # a `range` beyond 2^63
        count = LARGEST
    if count not in (1, rank):
        raise ValueError(
            f"{function}: {name} must have {'1 entry' if rank == 1 else f'1 or {rank} entries'}, got {count}{hint}"
        )


def as_positive(function: str, name: str, value: Any) -> int:
    """A positive int, such as `groups` or a number of filters."""
    needs = "a positive integer"
    number = as_index(function, name, value, needs)
    if number < 1:
        raise ValueError(f"{function}: {name} must be {needs}, got {number}")
    if number > LARGEST:
        raise ValueError(f"{function}: {name} must be at most {LARGEST}, got {number}")
    return number


def as_divisor(function: str, name: str, value: Any) -> int:
    """What sums are divided by: an int of either sign, but not 0."""
    needs = "an integer other than 0"
    number = as_index(function, name, value, needs)
    if number == 0:
        raise ValueError(f"{function}: {name} must be {needs}, got 0")
    if abs(number) > LARGEST:
        limit = f"at most {LARGEST}" if number > 0 else f"at least {-LARGEST}"
        raise ValueError(f"{function}: {name} must be {limit}, got {number}")
    return number


def as_window(function: str, kernel_size: Any, stride: Any, dilation: Any, rank: int = 2) -> Window:
    """Parse kernel, stride and dilation together."""
    return Window(
        as_entries(function, "kernel_size", kernel_size, 1, rank),
        as_entries(function, "stride", stride, 1, rank),
        as_entries(function, "dilation", dilation, 1, rank),
    )


def as_image_size(function: str, name: str, value: Any, rank: int = 2) -> Sizes:
    """A size in pixels, `(H, W)`."""
    return as_entries(function, name, value, 0, rank)


# --- padding --------------------------------------------------------------------------------------------------------


def as_padding(
    function: str,
    padding: Any,
    window: Window | None = None,
    image: Sizes | None = None,
    rank: int = 2,
    argument: str = "padding",
) -> Pads:
    """Any form of padding as one `(before, after)` for each dimension, `((top, bottom), (left, right))`.

    Names need the window, which also says how many dimensions there are, `same_upper` and `same_lower` the image size
    too. Where they are not given only counts are accepted. `argument` is what the caller knows it by.
    """
    rank = rank if window is None else window.rank
    if isinstance(padding, str):
        return _named_padding(function, argument, padding, window, image, rank)
    if is_sequence(padding):
        _check_entries(function, argument, padding, rank, "; two sides are ((start, end),)" if rank == 1 else "")
    if is_sequence(padding) and any(map(is_sequence, padding)):
        sides = [as_pair(function, argument, side, 0) for side in padding]
        return tuple(sides) * (rank if len(sides) == 1 else 1)
    return tuple([(count, count) for count in as_entries(function, argument, padding, 0, rank)])


def _named_padding(
    function: str, argument: str, name: str, window: Window | None, image: Sizes | None, rank: int
) -> Pads:
    usable = PADDING_NAMES if image else tuple(n for n in PADDING_NAMES if not is_for_size(n))
    if window is None or name not in usable:
        names = ", ".join(repr(n) for n in usable) + ", " if window else ""
        raise ValueError(f"{function}: {argument} must be {names}{_PADDINGS[rank]}, got {name!r}")
    return tuple([_axis_padding(name, axis, window, image) for axis in range(rank)])


def _axis_padding(name: str, axis: int, window: Window, image: Sizes | None) -> Pair:
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


def is_for_size(padding: Any) -> bool:
    """Whether a padding is as large as a size of the result needs it: `same_upper` and `same_lower`."""
    return isinstance(padding, str) and padding in ("same_upper", "same_lower")


def transposed_padding(function: str, padding: Any, window: Window, image: Sizes, output: Sizes | None) -> Pads:
    """Padding of a transposed convolution of `image`; `same_upper` and `same_lower` cut the result down to `output`.

    Where no output size is given it is `image * stride`, of which short kernels leave the end unfilled.
    """
    if not is_for_size(padding):
        return as_padding(function, padding, window)
    sides = []
    for axis in range(window.rank):
        wanted = image[axis] * window.stride[axis] if output is None else output[axis]
        total = max(0, (image[axis] - 1) * window.stride[axis] + window.extent[axis] - wanted)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if padding == "same_upper" else (more, less))
    return tuple(sides)
