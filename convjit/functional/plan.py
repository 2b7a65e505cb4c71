"""Plans: a convolution whose weights, options and forms of weights stay, for many images.

Knows what can be decided before images come, and keeps what was decided when they came; does not know how sums are
computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..algorithms import Packing, check_name
from ..arrays import DTYPES, as_array, as_images, as_out, ready, result_dtype, write
from ..geometry import check_same_shape, conv2d_geometry
from ..layouts import as_layout
from ..parsing import LARGEST, as_padding, as_pair, as_positive
from ..runtime.memory import allocate
from ..typing import Array, ArrayLike, DType, IntOrPair, Padding
from . import bilinear
from .calls import Call, decide
from .convolving import Problem, input_channels, new_problem, padded_images
from .front_door import public, public_as
from .padding import check_mode
from .slicing import packed

_NAME = "conv2d_plan"
# Shapes and dtypes of images for which decisions are kept.
_KEPT = 64


class _Options(NamedTuple):
    """Options as they stay, whatever becomes of the caller's lists."""

    stride: tuple[int, int]
    padding: Any  # a name, or counts
    dilation: tuple[int, int]
    groups: int
    padding_mode: str
    algorithm: str
    layout: str = "NCHW"

    @property
    def window(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.groups


class _Decision(NamedTuple):
    """What was decided for images of a shape and dtype."""

    problem: Problem
    call: Call
    weights: tuple[Array, ...]  # the weight's parts, ready or packed
    bias: Array | None
    dtype: DType
    shape: tuple[int, ...]  # of the result


class Conv2DPlan:
    """A convolution with weights that stay: `plan(x)` is `conv2d(x, weight, bias, ...)`, to the bit.

    Made by `conv2d_plan`, which documents it. A plan serves many threads at once; it can be pickled and copied, and
    makes its forms of the weight anew then.

    Attributes
    ----------
    weight, bias : ndarray
        The plan's own, read-only; `bias` may be None.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Conv2DPlan, conv2d_plan
    >>> plan = conv2d_plan(np.ones((4, 3, 5, 5), np.float32), padding="same", stride=2)
    >>> plan
    <Conv2DPlan of a float32 weight (4, 3, 5, 5), stride (2, 2), padding 'same'>
    >>> isinstance(plan, Conv2DPlan)
    True
    """

    def __init__(self, weight: Array, bias: Array | None, options: tuple[Any, ...]) -> None:
        self._options = _Options(*options)
        self._layout = as_layout(_NAME, self._options.layout)
        self.weight = _own("weight", weight)
        self.bias = None if bias is None else _own("bias", bias)
        # Both are filled in as images come. No lock is taken: packing launches kernels, for which a holder would wait
        # for others. Threads that come first may make the same thing twice; what is set first is kept by all.
        self._decisions: dict[Any, _Decision] = {}
        self._forms: dict[tuple[DType, Packing | None], tuple[Array, ...]] = {}

    @public_as(_NAME)
    def __call__(self, x: ArrayLike, out: Array | None = None) -> Array:
        """The convolution of images.

        Parameters
        ----------
        x : array_like, (N, C, H, W) or (C, H, W)
            With the plan's `layout="NHWC"` channels come last, here and in the result.
        out : ndarray, optional
            As `conv2d` takes it.

        Returns
        -------
        ndarray, (N, O, OH, OW) or (O, OH, OW)
            Of dtype `np.result_type(x, weight, bias)`.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As `conv2d`.
        """
        x = as_array(_NAME, "x", x)
        problem, call, weights, bias, dtype, shape = self._decisions.get((x.shape, x.dtype)) or self._decide(x)
        if out is not None:
            as_out(_NAME, out, shape, dtype, x=x)
        images = padded_images(_NAME, problem, x if x.ndim == 4 else x[None], self._layout)
        batched = self._layout.lying(problem.inner.y_shape)
        target = None if out is None else out.reshape(batched)
        y = bilinear.run_forward(_NAME, call, batched, images, weights, bias, dtype, target)
        return y.reshape(shape) if out is None else out

    def _decide(self, x: Array) -> _Decision:
        layout, options = self._layout, self._options
        shape = layout.told(as_images(_NAME, "x", x, layout=layout).shape)
        problem = new_problem(_NAME, shape, self.weight.shape, options.window, options.padding_mode, layout)
        arrays = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        dtype = result_dtype(*arrays)
        compute, is_complex = DTYPES[dtype]
        call = decide(_NAME, options.algorithm, problem.inner, compute, "forward", layout)
        weights = self._form(call)
        bias = self.bias if self.bias is None or is_complex else ready(_NAME, "bias", self.bias, compute)
        shape = layout.lying(problem.inner.y_shape)
        shape = shape if x.ndim == 4 else shape[1:]
        decision = _Decision(problem, call.packed() if call.packing else call, weights, bias, dtype, shape)
        if len(self._decisions) >= _KEPT:
            self._decisions.clear()
        self._decisions[x.shape, x.dtype] = decision
        return decision

    def _form(self, call: Call) -> tuple[Array, ...]:
        """The parts of the weight as the call takes them."""
        key = call.compute, call.packing
        if key not in self._forms:
            parts = tuple(ready(_NAME, "weight", part, call.compute) for part in bilinear.parts(self.weight))
            form = parts if call.packing is None else tuple(packed(_NAME, call, part) for part in parts)
            self._forms.setdefault(key, form)
        return self._forms[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return Conv2DPlan, (self.weight, self.bias, tuple(self._options))

    def __repr__(self) -> str:
        said = [f"{name} {value!r}" for name, value in self._options._asdict().items() if value != _DEFAULTS[name]]
        bias = "" if self.bias is None else " and bias"
        return f"<Conv2DPlan of a {', '.join([f'{self.weight.dtype} weight {self.weight.shape}{bias}', *said])}>"


_DEFAULTS = _Options((1, 1), ((0, 0), (0, 0)), (1, 1), 1, "constant", "auto", "NCHW")._asdict()


def _own(what: str, array: Array) -> Array:
    """A read-only copy, whose memory nobody else can write."""
    copy = allocate(_NAME, f"a copy of {what}", array.shape, array.dtype)
    write(copy, array)
    copy.flags.writeable = False
    return copy.view()  # of a view that is read-only, NumPy lets nobody change that


@public
def conv2d_plan(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
    layout: str = "NCHW",
) -> Conv2DPlan:
    """A convolution with weights that stay, for inference: `plan(x, out=None)` gives `conv2d`'s bits sooner.

    What needs no images is checked and decided here, the rest when images of a shape come first. A weight that an
    algorithm reads in another form is brought into it once.

    Parameters
    ----------
    weight : array_like, (O, C // groups, KH, KW)
        Copied, as `bias` is: later writes to the caller's arrays do not show.
    bias : array_like, (O,), optional
    stride, padding, dilation, groups, padding_mode, algorithm, layout
        As `conv2d` takes them.

    Returns
    -------
    Conv2DPlan
        Called with images `x`, (N, C, H, W) or (C, H, W), or with channels last as `layout` says, and optionally `out`,
        it returns what `conv2d(x, weight, bias, ...)` returns, to the bit. Any number of threads may call it at once.
        It can be pickled and copied; what it made of the weight is not pickled, but made anew.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d`, here for everything that does not depend on images, and at a call for the rest.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv2d, conv2d_plan
    >>> weight, images = np.ones((1, 1, 2, 2)), np.arange(9.0).reshape(1, 3, 3)
    >>> plan = conv2d_plan(weight, bias=np.array([0.5]))
    >>> weight[...] = 0  # the plan has a copy
    >>> plan(images)
    array([[[ 8.5, 12.5],
            [20.5, 24.5]]])
    """
    weight = as_array(_NAME, "weight", weight)
    bias = None if bias is None else as_array(_NAME, "bias", bias)
    channels = input_channels(_NAME, weight.shape, groups)
    # The largest image shows every error that does not depend on the image.
    conv2d_geometry(_NAME, (1, channels, LARGEST, LARGEST), weight.shape, stride, padding, dilation, groups)
    check_mode(_NAME, padding_mode, "padding_mode")
    check_name(_NAME, algorithm)
    if bias is not None:
        check_same_shape(_NAME, "bias", bias.shape, (weight.shape[0],), "one value an output channel")
    as_layout(_NAME, layout)
    options = _Options(
        as_pair(_NAME, "stride", stride, 1), padding if isinstance(padding, str) else as_padding(_NAME, padding),
        as_pair(_NAME, "dilation", dilation, 1), as_positive(_NAME, "groups", groups), padding_mode, algorithm,
        layout,
    )  # fmt: skip
    return Conv2DPlan(weight, bias, options)
