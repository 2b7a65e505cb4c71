"""The public functions that compiled code may call: what they take, what they return, which entries compute them.

A row is a function. Names, order and defaults of the parameters are those of the function in Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import functional
from ..algorithms import ALGORITHMS, check_algorithm
from ..algorithms.padding import PADDING_MODES
from ..functional.convolving import check_need
from ..functional.padding import check_mode
from ..runtime.entries import Entry
from . import convolutions, depthwise, moving, products, seed, windows


class Given(NamedTuple):
    """What is known of a call when it is compiled: dimensions of arrays (0: None), and chosen words."""

    dimensions: dict[str, int]
    chosen: dict[str, Any]
    grouped: bool  # whether there may be more than one group


class Array(NamedTuple):
    """An array that a function takes."""

    dimensions: tuple[int, ...]
    shapes: str  # for messages
    optional: bool = False
    integers: bool = False
    is_out: bool = False  # where the result is written


# How values are given: ints; a pair also as an int; counts also as two pairs; padding also as a name; images as four.
INT, PAIR, COUNTS, PADDING, FLAG, REAL = "an int", "an int or a pair of ints", "counts", "padding", "a bool", "real"
IMAGES = "(N, C, H, W), four ints,"


class Value(NamedTuple):
    """A value that a function takes; one of `choices`, known when the call is compiled, if there are any."""

    kind: str = ""
    choices: tuple[Any, ...] = ()
    listed: str = ""  # how an error tells them, where not one by one
    optional: bool = False
    # Python's own check of a choice, of the function's name, the value's, and the value.
    check: Callable[[str, str, Any], object] = lambda function, name, value: None


class Row(NamedTuple):
    """A function. Parameters that are in neither dict must have their default."""

    function: Callable[..., Any]
    arrays: dict[str, Array]
    values: dict[str, Value]
    # Dimensions of each result, 0 for None; a tuple is returned where there is more than one.
    results: Callable[[Given], tuple[int, ...]]
    entry: Entry
    # The families of entries that compute it.
    computing: Callable[[Given], list[dict[Any, Entry]]]
    # Results that are int64, by place.
    integers: tuple[int, ...] = ()
    widens: bool = False  # whether real results are float64 whatever comes in
    returned: str = "results"  # what becomes of them


_IMAGES = Array((3, 4), "(N, C, H, W) or (C, H, W)")
_WEIGHT = Array((4,), "(O, C/groups, KH, KW)")
_TRANSPOSED_WEIGHT = Array((4,), "(C, O/groups, KH, KW)")
_BIAS = Array((1,), "(O,)", optional=True)
_COLUMNS = Array((2, 3), "(N, C*KH*KW, OH*OW) or (C*KH*KW, OH*OW)")
_OUT = Array((3, 4), "(N, O, OH, OW) or (O, OH, OW)", optional=True, is_out=True)
_INDICES = Array((3, 4), "(N, C, OH, OW) or (C, OH, OW)", optional=True, integers=True)


def _check_algorithm(function: str, name: str, given: Any) -> None:
    check_algorithm(function, given)
    if given not in _SAME_BITS:
        raise ValueError(
            f"{function}: {name} {given!r} does not run in compiled code, which gives the bits of 'auto'; call "
            f"{function} from Python, or give 'auto' or 'fastest'"
        )


# Named or not, compiled code computes in its own way, with the bits that all of these give.
_SAME_BITS = ("auto", "fastest", *(row.name for row in ALGORITHMS if row.keeps_promises))
_ALGORITHM = Value(choices=_SAME_BITS, check=_check_algorithm)
_MODE = Value(choices=PADDING_MODES, check=check_mode)
# In the order of their bits, the input's first.
NEEDS = tuple((a, b, c) for c, b, a in itertools.product((False, True), repeat=3))
_NEED = Value(choices=NEEDS, listed="three bools", check=lambda function, name, given: check_need(function, given))
_PAIR, _SIZE = Value(PAIR), Value(PAIR, optional=True)

_WINDOW = {"stride": _PAIR, "padding": Value(PADDING), "dilation": _PAIR}
_CONV = {**_WINDOW, "groups": Value(INT), "padding_mode": _MODE}
_TRANSPOSED = {
    "stride": _PAIR, "padding": Value(PADDING), "output_padding": _PAIR, "groups": Value(INT), "dilation": _PAIR,
    "output_size": _SIZE,
}  # fmt: skip
_POOL = {
    "kernel_size": _PAIR, "stride": _SIZE, "padding": Value(PADDING), "dilation": _PAIR, "ceil_mode": Value(FLAG)
}  # fmt: skip
_COUNTING = {"count_include_pad": Value(FLAG), "divisor_override": Value(INT, optional=True)}


def _as(name: str) -> Callable[[Given], tuple[int, ...]]:
    return lambda given: (given.dimensions[name],)


def _gradients(given: Given) -> tuple[int, ...]:
    need = given.chosen["need"]
    dimensions = (given.dimensions["x"], 4, 1)
    return tuple(n if wanted else 0 for n, wanted in zip(dimensions, need, strict=True))


def _padding(given: Given, *others: dict[Any, Entry]) -> list[dict[Any, Entry]]:
    return [] if given.chosen["padding_mode"] == "constant" else list(others)


def _forward(given: Given) -> list[dict[Any, Entry]]:
    return [products.FORWARD, *([depthwise.FORWARD] if given.grouped else [])]


def _input_grad(given: Given) -> list[dict[Any, Entry]]:
    return [products.INPUT_GRAD, *([depthwise.INPUT_GRAD] if given.grouped else [])]


def _of_conv2d_backward(given: Given) -> list[dict[Any, Entry]]:
    to_input, to_weight, to_bias = given.chosen["need"]
    entries = [*_input_grad(given), *_padding(given, moving.PAD_BACKWARD)] if to_input else []
    entries += [products.WEIGHT_GRAD, *_padding(given, moving.PAD)] if to_weight else []
    return [*entries, *([products.BIAS_GRAD] if to_bias else []), moving.COPY]


def _of_transposed_backward(given: Given) -> list[dict[Any, Entry]]:
    to_input, to_weight, to_bias = given.chosen["need"]
    entries = _forward(given) if to_input else []
    entries += [products.WEIGHT_GRAD] if to_weight else []
    return [*entries, *([products.BIAS_GRAD] if to_bias else []), moving.COPY]


ROWS = (
    Row(
        functional.conv2d, {"x": _IMAGES, "weight": _WEIGHT, "bias": _BIAS, "out": _OUT},
        {**_CONV, "algorithm": _ALGORITHM}, _as("x"), convolutions.CONV2D,
        lambda given: [*_forward(given), moving.COPY, *_padding(given, moving.PAD)],
    ),
    Row(
        functional.conv2d_backward, {"grad_output": _IMAGES, "x": _IMAGES, "weight": _WEIGHT},
        {**_CONV, "need": _NEED, "algorithm": _ALGORITHM}, _gradients, convolutions.CONV2D_BACKWARD,
        _of_conv2d_backward,
    ),
    Row(
        functional.conv2d_input_grad, {"grad_output": _IMAGES, "weight": _WEIGHT},
        {"input_size": _PAIR, **_CONV, "algorithm": _ALGORITHM},
        _as("grad_output"), convolutions.CONV2D_INPUT_GRAD,
        lambda given: [*_input_grad(given), moving.COPY, *_padding(given, moving.PAD_BACKWARD)],
    ),
    Row(
        functional.conv2d_weight_grad, {"grad_output": _IMAGES, "x": _IMAGES},
        {"kernel_size": _PAIR, **_CONV, "algorithm": _ALGORITHM},
        lambda given: (4,), convolutions.CONV2D_WEIGHT_GRAD,
        lambda given: [products.WEIGHT_GRAD, moving.COPY, *_padding(given, moving.PAD)],
    ),
    Row(
        functional.conv_transpose2d, {"x": _IMAGES, "weight": _TRANSPOSED_WEIGHT, "bias": _BIAS}, _TRANSPOSED,
        _as("x"), convolutions.CONV_TRANSPOSE2D, lambda given: [*_input_grad(given), moving.ADD_BIAS, moving.COPY],
    ),
    Row(
        functional.conv_transpose2d_backward, {"grad_output": _IMAGES, "x": _IMAGES, "weight": _TRANSPOSED_WEIGHT},
        {**_TRANSPOSED, "need": _NEED}, _gradients, convolutions.CONV_TRANSPOSE2D_BACKWARD, _of_transposed_backward,
    ),
    Row(
        functional.pad2d, {"x": _IMAGES}, {"padding": Value(COUNTS), "mode": _MODE, "value": Value(REAL)}, _as("x"),
        windows.PAD2D, lambda given: [moving.PAD, moving.COPY],
    ),
    Row(
        functional.pad2d_backward, {"grad_output": _IMAGES}, {"padding": Value(COUNTS), "mode": _MODE},
        _as("grad_output"), windows.PAD2D_BACKWARD,
        lambda given: [moving.COPY] if given.chosen["mode"] == "constant" else [moving.PAD_BACKWARD, moving.COPY],
    ),
    Row(
        functional.max_pool2d, {"x": _IMAGES}, {**_POOL, "return_indices": Value(choices=(False, True))},
        lambda given: (given.dimensions["x"],) * (1 + given.chosen["return_indices"]), windows.MAX_POOL2D,
        lambda given: [moving.MAX_POOL, moving.COPY], integers=(1,),
    ),
    Row(
        functional.max_pool2d_backward, {"grad_output": _IMAGES, "x": _IMAGES, "indices": _INDICES}, _POOL, _as("x"),
        windows.MAX_POOL2D_BACKWARD, lambda given: [moving.MAX_POOL, moving.MAX_POOL_BACKWARD, moving.COPY],
    ),
    Row(
        functional.avg_pool2d, {"x": _IMAGES}, {**_POOL, **_COUNTING}, _as("x"), windows.AVG_POOL2D,
        lambda given: [moving.AVG_POOL, moving.COPY],
    ),
    Row(
        functional.avg_pool2d_backward, {"grad_output": _IMAGES}, {"input_size": _PAIR, **_POOL, **_COUNTING},
        _as("grad_output"), windows.AVG_POOL2D_BACKWARD, lambda given: [moving.AVG_POOL_BACKWARD, moving.COPY],
    ),
    Row(
        functional.im2col, {"x": _IMAGES}, {"kernel_size": _PAIR, **_WINDOW},
        lambda given: (given.dimensions["x"] - 1,), windows.IM2COL, lambda given: [moving.IM2COL, moving.COPY],
    ),
    Row(
        functional.col2im, {"columns": _COLUMNS}, {"image_size": _PAIR, "kernel_size": _PAIR, **_WINDOW},
        lambda given: (given.dimensions["columns"] + 1,), windows.COL2IM,
        lambda given: [moving.COL2IM, moving.COPY],
    ),
    Row(
        functional.determine_padding, {}, {"filter_shape": _PAIR, "output_shape": Value(PADDING)},
        lambda given: (2,), seed.DETERMINE_PADDING, lambda given: [], integers=(0,),
        returned="((results[0, 0], results[0, 1]), (results[1, 0], results[1, 1]))",
    ),
    Row(
        functional.get_im2col_indices, {},
        {"images_shape": Value(IMAGES), "filter_shape": _PAIR, "padding": Value(PADDING), "stride": _PAIR},
        lambda given: (2, 2, 2), seed.GET_IM2COL_INDICES, lambda given: [], integers=(0, 1, 2),
    ),
    Row(
        functional.image_to_column, {"images": Array((4,), "(N, C, H, W)")},
        {"filter_shape": _PAIR, "stride": _PAIR, "output_shape": Value(PADDING)}, lambda given: (2,),
        seed.IMAGE_TO_COLUMN, lambda given: [moving.IM2COL, moving.COPY],
    ),
    Row(
        functional.column_to_image, {"cols": Array((2,), "(C*KH*KW, OH*OW*N)")},
        {"images_shape": Value(IMAGES), "filter_shape": _PAIR, "stride": _PAIR, "output_shape": Value(PADDING)},
        lambda given: (4,), seed.COLUMN_TO_IMAGE, lambda given: [moving.WIDEN, seed.FOLDED], widens=True,
    ),
)  # fmt: skip
