"""What plans of one, two and three dimensions share: weights, options and forms of weights that stay.

Knows what can be decided before images come, and keeps what was decided when they came; does not know how sums are
computed.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..algorithms import check_algorithm, is_choice
from ..arrays import DTYPES, as_array, as_images, as_out, locked, ready, result_dtype, shaped, write
from ..geometry import Geometry, check_bias, conv_geometry
from ..layouts import as_layout
from ..parsing import LARGE_IMAGE, Pads, Sizes, as_entries, as_padding, as_positive
from ..runtime.memory import allocate
from ..typing import Array, ArrayLike, DType
from . import bilinear
from .bilinear import AnyCall, AnyGeometry
from .convolving import Problem, input_channels, new_problem, padded_images
from .options import ConvOptions
from .padding import check_mode
from .slicing import packed

# Shapes and dtypes of images for which decisions are kept.
_KEPT = 64


class Options(NamedTuple):
    """Options as they stay, whatever becomes of the caller's lists."""

    stride: Sizes
    padding: str | Pads  # a name, or counts
    dilation: Sizes
    groups: int
    padding_mode: str
    algorithm: str
    layout: str = "NCHW"

    @property
    def of_conv(self) -> ConvOptions:
        return ConvOptions(self.stride, self.padding, self.dilation, self.groups)


class _Decision(NamedTuple):
    """What was decided for images of a shape and dtype."""

    problem: Problem
    call: AnyCall
    weights: tuple[Array, ...]  # the weight's parts, ready or packed
    bias: Array | None
    dtype: DType
    shape: tuple[int, ...]  # of the result, as it is returned


class Plan:
    """A convolution with weights that stay, of images of this rank; `name` is what errors call it."""

    rank: ClassVar[int]
    name: ClassVar[str]

    def __init__(self, weight: Array, bias: Array | None, options: tuple[Any, ...]) -> None:
        self._options = Options(*options)
        self._layout = as_layout(self.name, self._options.layout)
        self.weight = _own(self.name, "weight", weight)
        self.bias = None if bias is None else _own(self.name, "bias", bias)
        # Both are filled in as images come. No lock is taken: packing launches kernels, for which a holder would wait
        # for others. Threads that come first may make the same thing twice; what is set first is kept by all.
        self._decisions: dict[Any, _Decision] = {}
        self._forms: dict[Any, tuple[Array, ...]] = {}

    def _run(self, x: ArrayLike, out: Array | None) -> Array:
        function = self.name
        x = as_array(function, "x", x)
        problem, call, weights, bias, dtype, shape = self._decisions.get((x.shape, x.dtype)) or self._decide(x)
        if out is not None:
            as_out(function, out, shape, dtype, x=x)
        images = padded_images(function, problem, x if x.ndim == self.rank + 2 else x[None])
        target = None if out is None else out.reshape(problem.inner_y_shape)
        y = bilinear.run_forward(function, call, problem.inner_y_shape, images, weights, bias, dtype, target)
        return y.reshape(shape) if out is None else out

    def _decide(self, x: Array) -> _Decision:
        function, layout, options = self.name, self._layout, self._options
        x_shape = layout.told(as_images(function, "x", x, self.rank, layout).shape)
        problem = new_problem(function, x_shape, self.weight.shape, options.of_conv, options.padding_mode, layout)
        arrays = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        dtype = result_dtype(*arrays)
        compute, is_complex = DTYPES[dtype]
        call = bilinear.decide_any(function, options.algorithm, problem.inner, compute, "forward", layout)
        weights = self._form(call, problem.inner)
        bias = self.bias if self.bias is None or is_complex else ready(function, "bias", self.bias, compute)
        shape = problem.y_shape if x.ndim == self.rank + 2 else problem.y_shape[1:]
        call = call.packed() if call.packing else call
        decision = _Decision(problem, call, weights, bias, dtype, shape)
        if len(self._decisions) >= _KEPT:
            self._decisions.clear()
        self._decisions[x.shape, x.dtype] = decision
        return decision

    def _form(self, call: AnyCall, inner: AnyGeometry) -> tuple[Array, ...]:
        """The parts of the weight as the call takes them."""
        key = call.compute, call.packing, _seen_as(inner)
        if key not in self._forms:
            weight = shaped(self.name, "weight", self.weight, inner.weight_shape)
            parts = tuple(ready(self.name, "weight", part, call.compute) for part in bilinear.parts(weight))
            form = parts if call.packing is None else tuple(packed(self.name, call, part) for part in parts)
            self._forms.setdefault(key, form)
        return self._forms[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.weight, self.bias, tuple(self._options))

    def __repr__(self) -> str:
        usual = _usual(self.rank)._asdict()
        said = [f"{name} {value!r}" for name, value in self._options._asdict().items() if value != usual[name]]
        bias = "" if self.bias is None else " and bias"
        told = ", ".join([f"{self.weight.dtype} {self.weight.shape}{bias}", *said])
        return f"<{type(self).__name__} of weight {told}>"


def _seen_as(inner: AnyGeometry) -> tuple[Any, ...]:
    """What a form of the weight depends on: volumes may be computed as images, of one plane or with long rows."""
    plane = inner if isinstance(inner, Geometry) else inner.plane
    window = plane.stride_h, plane.stride_w, plane.dilation_h, plane.dilation_w
    return inner.weight_shape, window


def _usual(rank: int) -> Options:
    """Options that nobody has given."""
    return Options((1,) * rank, ((0, 0),) * rank, (1,) * rank, 1, "constant", "auto", "NCHW")


def _own(function: str, what: str, array: Array) -> Array:
    """A read-only copy, whose memory nobody else can write."""
    copy = allocate(function, f"a copy of {what}", array.shape, array.dtype)
    write(copy, array)
    return locked(copy)


def _check_that_it_takes(
    function: str, algorithm: str, rank: int, images: Sizes, weight_shape: Sizes, options: ConvOptions
) -> None:
    """Refuse an algorithm that was named, and takes this weight on no image: the smallest tells."""
    if is_choice(algorithm):  # they always find one, which is not to be looked for before there is an image
        return
    dilation = as_entries(function, "dilation", options.dilation, 1, rank)
    size = [(kernel - 1) * apart + 1 for kernel, apart in zip(weight_shape[2:], dilation, strict=True)]
    problem = new_problem(function, (*images, *size), weight_shape, options._replace(padding=0), "constant")
    # In a dtype that every row takes: that of results is not known before there is an image.
    bilinear.decide_any(function, algorithm, problem.inner, np.dtype("float64"), "forward")


def checked(
    function: str, rank: int, weight: ArrayLike, bias: ArrayLike | None, options: ConvOptions, padding_mode: str,
    algorithm: str, layout: str = "NCHW",
) -> tuple[Array, Array | None, Options]:  # fmt: skip
    """What a plan is made of."""
    stride, padding, dilation, groups = options
    weight = as_array(function, "weight", weight)
    bias = None if bias is None else as_array(function, "bias", bias)
    channels = input_channels(function, weight.shape, groups, rank)
    # The largest image shows every error that does not depend on the image.
    conv_geometry(function, (1, channels, *(LARGE_IMAGE,) * rank), weight.shape, stride, padding, dilation, groups)
    check_mode(function, "padding_mode", padding_mode)
    check_algorithm(function, algorithm)
    _check_that_it_takes(function, algorithm, rank, (1, channels), weight.shape, options)
    if bias is not None:
        check_bias(function, bias.shape, weight.shape[0])
    as_layout(function, layout)
    return weight, bias, Options(
        as_entries(function, "stride", stride, 1, rank),
        padding if isinstance(padding, str) else as_padding(function, padding, rank=rank),
        as_entries(function, "dilation", dilation, 1, rank), as_positive(function, "groups", groups), padding_mode,
        algorithm, layout,
    )  # fmt: skip
