"""Hypothesis strategies for convolution problems and for the arrays that go with them.

Knows which problems are valid; does not know how they are computed. Every strategy says how it shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from .oracle import Array, Pads, Pair, reference_pads

PADDING_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
PADDING_NAMES = ("valid", "same", "same_upper", "same_lower", "full")


@dataclass(frozen=True)
class Problem:
    """One valid convolution: shapes, and the options as `conv2d` takes them.

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
        return self.weight_shape[2], self.weight_shape[3]

    @property
    def image(self) -> Pair:
        return self.x_shape[-2], self.x_shape[-1]

    @property
    def stride_pair(self) -> Pair:
        return _pair(self.stride)

    @property
    def dilation_pair(self) -> Pair:
        return _pair(self.dilation)

    @property
    def pads(self) -> Pads:
        """The padding in counts."""
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
        return (*self.x_shape[:-3], self.weight_shape[0], *self.out_size)

    @property
    def batched_x_shape(self) -> tuple[int, ...]:
        return self.x_shape if len(self.x_shape) == 4 else (1, *self.x_shape)

    @property
    def batched_y_shape(self) -> tuple[int, ...]:
        return self.y_shape if len(self.y_shape) == 4 else (1, *self.y_shape)


def _pair(value: Any) -> Pair:
    first, last = (value[0], value[-1]) if isinstance(value, Sequence) else (value, value)
    return int(first), int(last)


def _ints_or_pairs(low: int, high: int) -> st.SearchStrategy[Any]:
    numbers = st.integers(low, high)
    return st.one_of(numbers, st.tuples(numbers, numbers))


def _paddings(most: int) -> st.SearchStrategy[Any]:
    """Every form of padding; shrinks to 0."""
    count = st.integers(0, most)
    side = st.tuples(count, count)
    return st.one_of(count, side, st.tuples(side, side), st.sampled_from(PADDING_NAMES))


@st.composite
def conv2d_problems(
    draw: Any, /, *, max_batch: int = 2, max_channels: int = 3, max_groups: int = 3, max_kernel: int = 3,
    max_stride: int = 3, max_dilation: int = 2, max_padding: int = 3, max_extra: int = 4,
    padding_modes: Sequence[str] = PADDING_MODES,
) -> Problem:  # fmt: skip
    """Valid convolutions, with every form of every option.

    Shrinks towards one unbatched image of one pixel and one channel, a 1x1 kernel, one group, no bias, stride 1, no
    padding and dilation 1. `max_channels` counts channels a group, on either side; `max_extra` is by how much an image
    may be larger than the least that the kernel needs.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(conv2d_problems(), lambda problem: True)
    Problem(x_shape=(1, 1, 1), weight_shape=(1, 1, 1, 1), bias_shape=None, stride=1, padding=0, dilation=1, groups=1, \
padding_mode='constant')
    """
    groups = draw(st.integers(1, max_groups))
    channels, filters = draw(st.integers(1, max_channels)), draw(st.integers(1, max_channels)) * groups
    kernel = (draw(st.integers(1, max_kernel)), draw(st.integers(1, max_kernel)))
    stride, dilation = draw(_ints_or_pairs(1, max_stride)), draw(_ints_or_pairs(1, max_dilation))
    padding, mode = draw(_paddings(max_padding)), draw(st.sampled_from(padding_modes))
    sizes = []
    for axis in (0, 1):
        extent = (kernel[axis] - 1) * _pair(dilation)[axis] + 1
        pad = (0, 0) if isinstance(padding, str) else reference_pads(padding, (1, 1), kernel)[axis]
        if not isinstance(padding, str):
            least = max(1, extent - sum(pad), max(pad) + 1 if mode == "reflect" else 1)
        else:  # a named padding is at most extent - 1 a side
            least = extent if padding == "valid" or mode == "reflect" else 1
        sizes.append(least + draw(st.integers(0, max_extra)))
    batch = (draw(st.integers(1, max_batch)),) if draw(st.booleans()) else ()
    return Problem(
        x_shape=(*batch, channels * groups, *sizes),
        weight_shape=(filters, channels, *kernel),
        bias_shape=(filters,) if draw(st.booleans()) else None,
        stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode,
    )  # fmt: skip


def exact_arrays(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64, largest: int = 4
) -> st.SearchStrategy[Array]:
    """Integers of magnitude at most `largest`, stored in `dtype`: sums and products of them are exact.

    Shrinks to all zeros. Unsigned and bool arrays hold no negative numbers; complex ones have both parts.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(exact_arrays((1, 3), "float32"), lambda a: a.any())
    array([[0., 0., 1.]], dtype=float32)
    """
    kind = np.dtype(dtype)
    # 0, 1, -1, 2, -2, ...: the smaller the byte, the simpler the number.
    ladder = [number for n in range(1, largest + 1) for number in (n, -n)]
    values = np.array([0, *([abs(n) for n in ladder] if kind.kind in "ub" else ladder)])
    size = int(np.prod(shape))
    parts = 2 if kind.kind == "c" else 1

    def build(data: bytes) -> Array:
        numbers = values[np.frombuffer(data, np.uint8) % len(values)].reshape(parts, size)
        array = numbers[0] + 1j * numbers[1] if parts == 2 else numbers[0]
        result: Array = array.astype(kind).reshape(shape)
        return result

    return st.binary(min_size=size * parts, max_size=size * parts).map(build)


def real_arrays(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64, positive: bool = False
) -> st.SearchStrategy[Array]:
    """Normal random numbers, or uniform ones in (0, 1) if `positive`, rounded to `dtype`.

    Drawn by a seed, which shrinks to 0: the problem around it gets simpler, its numbers do not.

    Examples
    --------
    >>> from hypothesis import find
    >>> bool((find(real_arrays((2, 3), positive=True), lambda a: True) > 0).all())
    True
    """

    def build(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        kind = np.dtype(dtype)
        parts = [rng.random(shape) if positive else rng.standard_normal(shape) for _ in range(1 + (kind.kind == "c"))]
        return np.asarray(parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]).astype(kind)

    return st.integers(0, 2**32 - 1).map(build)


# --- problems with their arrays -------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Case:
    """A problem and arrays for it; shown as the call that reproduces it.

    Examples
    --------
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
    return "None" if array is None else f"np.array({array.tolist()}, {array.dtype.name!r})"


@st.composite
def conv2d_cases(
    draw: Any, /, dtype: npt.DTypeLike = np.float64, values: Callable[..., st.SearchStrategy[Array]] = exact_arrays,
    **limits: Any,
) -> Case:  # fmt: skip
    """A problem of `conv2d_problems(**limits)` with image, weight, bias and gradient from `values(shape, dtype)`.

    Shrinks as the problem and the arrays do.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(conv2d_cases(), lambda case: case.bias is not None).bias
    array([0.])
    """
    problem = draw(conv2d_problems(**limits))
    bias = None if problem.bias_shape is None else draw(values(problem.bias_shape, dtype))
    x, weight = draw(values(problem.x_shape, dtype)), draw(values(problem.weight_shape, dtype))
    return Case(problem, x, weight, bias, draw(values(problem.y_shape, dtype)))


# --- memory layouts -------------------------------------------------------------------------------------------------


def _strided(array: Array) -> Array:
    room = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
    view = room[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def _reversed(array: Array) -> Array:
    flip = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[flip])[flip]


def _transposed(array: Array) -> Array:
    order = tuple(np.roll(np.arange(array.ndim), 1))
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _unaligned(array: Array) -> Array:
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


#: Memory layouts by name: each function returns the same values, laid out otherwise.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda array: np.array(array, order="C"),
    "fortran": lambda array: np.array(array, order="F"),
    "transposed": _transposed,
    "strided": _strided,
    "reversed": _reversed,
    "read-only": _read_only,
    "unaligned": _unaligned,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder("S")),
}


def layouts(array: Array) -> st.SearchStrategy[Array]:
    """The same values in another memory layout; shrinks to a plain C-contiguous copy.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(layouts(np.eye(2)), lambda a: not a.flags.aligned).flags.aligned
    False
    """
    return st.sampled_from(list(LAYOUTS.values())).map(lambda lay_out: lay_out(array))
