"""Hypothesis strategies for convolution problems, and for problems with their arrays.

Knows which problems are valid; does not know how they are computed. Every strategy says how it shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from .arrays import exact_arrays
from .oracle import Array, reference_pads
from .problems import PADDING_MODES, PADDING_NAMES, Case, Problem, as_pair


def _ints_or_pairs(low: int, high: int) -> st.SearchStrategy[Any]:
    numbers = st.integers(low, high)
    return st.one_of(numbers, st.tuples(numbers, numbers))


def _paddings(most: int) -> st.SearchStrategy[Any]:
    """Every form of padding; shrinks to 0.

    Half of them have names, most of those begin with "same": which is which shows with strides or even kernels alone.
    """
    count = st.integers(0, most)
    side = st.tuples(count, count)
    names = (PADDING_NAMES, PADDING_NAMES[1:], PADDING_NAMES[1:4])
    return st.one_of(count, side, st.tuples(side, side), *[st.sampled_from(some) for some in names])


def _least_size(padding: Any, axis: int, kernel: int, extent: int, mode: str, empty: bool) -> int:
    """The smallest image, along an axis, that the kernel and the padding can do with."""
    reflected = mode == "reflect"
    none = 0 if empty and mode == "constant" else 1  # other modes have nothing to fill the padding with
    if not isinstance(padding, str):
        pads = reference_pads(padding, (1, 1), (1, 1))[axis]
        return max(none, extent - sum(pads), max(pads) + 1 if reflected else 0)
    if padding == "full" and not reflected:  # at most extent - 1 a side, as all that have names
        return none if kernel > 1 else 1
    return extent if padding == "valid" or reflected else 1


def _check_padding(padding: Any) -> None:
    """Refuse what is no padding: no problem with it is valid."""
    try:
        counts = np.asarray(0 if isinstance(padding, str) and padding in PADDING_NAMES else padding)
    except ValueError:  # of uneven lengths
        counts = np.empty(0)
    if counts.dtype.kind not in "iu" or counts.shape not in ((), (2,), (2, 2)) or counts.min() < 0:
        raise ValueError(
            f"conv2d_problems: paddings drew {padding!r}, but problems have names of PADDING_NAMES, or counts of at "
            "least 0: an int, a pair, or ((top, bottom), (left, right))"
        )


@st.composite
def conv2d_problems(
    draw: Any, /, *, max_batch: int = 2, max_channels: int = 3, max_groups: int = 3, max_kernel: int = 3,
    max_stride: int = 3, max_dilation: int = 2, max_padding: int = 3, max_extra: int = 4,
    paddings: st.SearchStrategy[Any] | None = None, padding_modes: Sequence[str] = PADDING_MODES,
    batched: bool | None = None, bias: bool | None = None, empty: bool = False,
) -> Problem:  # fmt: skip
    """Valid convolutions, with every form of every option.

    Parameters
    ----------
    max_batch : int
        Images in a batch.
    max_channels : int
        Channels a group, on either side.
    max_groups, max_kernel, max_stride, max_dilation, max_padding : int
        All but the padding start at 1. Kernels, strides and dilations may differ between height and width.
    max_extra : int
        By how much an image may be larger than the least that the kernel needs.
    paddings : strategy, optional
        Of paddings; by default ints, pairs, pairs of pairs up to `max_padding`, and all names of `PADDING_NAMES`.
    padding_modes : sequence of str
        Of which to draw. With `"reflect"` images are larger than their padding.
    batched, bias : bool, optional
        Whether images come in a batch, and whether there is a bias; both, if not given.
    empty : bool
        Also batches of no images, images of no channels and, where padding gives a kernel room, images of no rows or
        columns.

    Returns
    -------
    strategy of Problem
        Shrinks towards one unbatched image of one pixel and one channel, a 1x1 kernel, one group, no bias, stride 1, no
        padding and dilation 1.

    Raises
    ------
    TypeError, ValueError
        When it draws: for `padding_modes` that are one string, and for what `paddings` draw, if it is no padding.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(conv2d_problems(), lambda problem: True)
    Problem(x_shape=(1, 1, 1), weight_shape=(1, 1, 1, 1), bias_shape=None, stride=1, padding=0, dilation=1, groups=1, \
padding_mode='constant')
    >>> find(conv2d_problems(bias=True), lambda problem: problem.groups == 2).weight_shape
    (2, 1, 1, 1)
    """
    if isinstance(padding_modes, str):
        raise TypeError(f"conv2d_problems: padding_modes must be a sequence of names, got the string {padding_modes!r}")
    groups = draw(st.integers(1, max_groups))
    channels, filters = draw(st.integers(1, max_channels)), draw(st.integers(1, max_channels)) * groups
    kernel = (draw(st.integers(1, max_kernel)), draw(st.integers(1, max_kernel)))
    stride, dilation = draw(_ints_or_pairs(1, max_stride)), draw(_ints_or_pairs(1, max_dilation))
    padding = draw(_paddings(max_padding) if paddings is None else paddings)
    _check_padding(padding)
    mode = draw(st.sampled_from(padding_modes))
    sizes = []
    for axis in (0, 1):
        extent = (kernel[axis] - 1) * as_pair(dilation)[axis] + 1
        least = _least_size(padding, axis, kernel[axis], extent, mode, empty)
        sizes.append(least + draw(st.integers(0, max_extra)))
    images = draw(st.integers(1, max_batch)) if draw(st.booleans() if batched is None else st.just(batched)) else None
    with_bias = draw(st.booleans() if bias is None else st.just(bias))
    if empty:  # drawn last, so that without it the same choices give the same problem
        channels *= draw(st.sampled_from((1, 1, 1, 0)))
        images = images and images * draw(st.sampled_from((1, 1, 1, 0)))
    return Problem(
        x_shape=(*(() if images is None else (images,)), channels * groups, *sizes),
        weight_shape=(filters, channels, *kernel),
        bias_shape=(filters,) if with_bias else None,
        stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode,
    )  # fmt: skip


@st.composite
def conv2d_cases(
    draw: Any, /, dtype: npt.DTypeLike = np.float64, values: Callable[..., st.SearchStrategy[Array]] = exact_arrays,
    **limits: Any,
) -> Case:  # fmt: skip
    """Problems with image, weight, bias and output gradient.

    Parameters
    ----------
    dtype : dtype
        Of all arrays.
    values : callable
        `values(shape, dtype)` returns the strategy of one array: `exact_arrays`, `real_arrays` or one of yours.
    **limits
        As `conv2d_problems`.

    Returns
    -------
    strategy of Case
        Shrinks as the problem does, then as the arrays do. A failing example is printed as the call of `conv2d` that
        it is.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(conv2d_cases(), lambda case: case.x.any() and case.weight.any())
    conv2d(np.array([[[1.0]]], 'float64'), np.array([[[[1.0]]]], 'float64'), None, stride=1, padding=0, dilation=1, \
groups=1, padding_mode='constant')  # grad_output=np.array([[[0.0]]], 'float64')
    """
    problem = draw(conv2d_problems(**limits))
    bias = None if problem.bias_shape is None else draw(values(problem.bias_shape, dtype))
    x, weight = draw(values(problem.x_shape, dtype)), draw(values(problem.weight_shape, dtype))
    return Case(problem, x, weight, bias, draw(values(problem.y_shape, dtype)))
