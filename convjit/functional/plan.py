"""Plans: a convolution whose weights, options and forms of weights stay, for many images: signatures."""

from __future__ import annotations

from ..typing import Array, ArrayLike, IntOrPair, Padding
from .front_door import public, public_as
from .options import ConvOptions
from .planning import Plan, checked


class Conv1DPlan(Plan):
    """A convolution with weights that stay: `plan(x)` is `conv1d(x, weight, bias, ...)`, to the bit.

    Made by `conv1d_plan`; otherwise as `Conv2DPlan`.

    Attributes
    ----------
    weight, bias : ndarray
        The plan's own, read-only; `bias` may be None.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Conv1DPlan, conv1d_plan
    >>> plan = conv1d_plan(np.ones((4, 3, 5), np.float32), padding="same")
    >>> plan
    <Conv1DPlan of weight float32 (4, 3, 5), padding 'same'>
    >>> isinstance(plan, Conv1DPlan)
    True
    """

    rank, name = 1, "conv1d_plan"

    @public_as("conv1d_plan")
    def __call__(self, x: ArrayLike, out: Array | None = None) -> Array:
        """The convolution of sequences `x`, (N, C, L) or (C, L), as `Conv2DPlan` has it of images."""
        return self._run(x, out)


class Conv2DPlan(Plan):
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
    <Conv2DPlan of weight float32 (4, 3, 5, 5), stride (2, 2), padding 'same'>
    >>> isinstance(plan, Conv2DPlan)
    True
    """

    rank, name = 2, "conv2d_plan"

    @public_as("conv2d_plan")
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
        return self._run(x, out)


class Conv3DPlan(Plan):
    """A convolution with weights that stay: `plan(x)` is `conv3d(x, weight, bias, ...)`, to the bit.

    Made by `conv3d_plan`; otherwise as `Conv2DPlan`.

    Attributes
    ----------
    weight, bias : ndarray
        The plan's own, read-only; `bias` may be None.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import Conv3DPlan, conv3d_plan
    >>> plan = conv3d_plan(np.ones((4, 3, 3, 5, 5), np.float32), stride=(1, 2, 2))
    >>> plan
    <Conv3DPlan of weight float32 (4, 3, 3, 5, 5), stride (1, 2, 2)>
    >>> isinstance(plan, Conv3DPlan)
    True
    """

    rank, name = 3, "conv3d_plan"

    @public_as("conv3d_plan")
    def __call__(self, x: ArrayLike, out: Array | None = None) -> Array:
        """The convolution of volumes `x`, (N, C, D, H, W) or (C, D, H, W), as `Conv2DPlan` has it of images."""
        return self._run(x, out)


@public
def conv1d_plan(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
) -> Conv1DPlan:
    """A convolution of sequences with weights that stay, for inference: `conv2d_plan` in one dimension.

    Parameters
    ----------
    weight : array_like, (O, C // groups, K)
        Copied, as `bias` is: later writes to the caller's arrays do not show.
    bias : array_like, (O,), optional
    stride, padding, dilation, groups, padding_mode, algorithm
        As `conv1d` takes them.

    Returns
    -------
    Conv1DPlan
        Called with sequences `x`, (N, C, L) or (C, L), and optionally `out`, it returns what
        `conv1d(x, weight, bias, ...)` returns, to the bit; otherwise as that of `conv2d_plan`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_plan`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv1d_plan
    >>> difference = conv1d_plan(np.array([[[-1.0, 1.0]]]))
    >>> difference(np.array([[1.0, 2.0, 4.0, 8.0]]))
    array([[1., 2., 4.]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return Conv1DPlan(*checked("conv1d_plan", 1, weight, bias, options, padding_mode, algorithm))


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
    options = ConvOptions(stride, padding, dilation, groups)
    return Conv2DPlan(*checked("conv2d_plan", 2, weight, bias, options, padding_mode, algorithm, layout))


@public
def conv3d_plan(
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
) -> Conv3DPlan:
    """A convolution of volumes with weights that stay, for inference: `conv2d_plan` in three dimensions.

    Parameters
    ----------
    weight : array_like, (O, C // groups, KD, KH, KW)
        Copied, as `bias` is: later writes to the caller's arrays do not show.
    bias : array_like, (O,), optional
    stride, padding, dilation, groups, padding_mode, algorithm
        As `conv3d` takes them.

    Returns
    -------
    Conv3DPlan
        Called with volumes `x`, (N, C, D, H, W) or (C, D, H, W), and optionally `out`, it returns what
        `conv3d(x, weight, bias, ...)` returns, to the bit; otherwise as that of `conv2d_plan`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `conv2d_plan`.

    Examples
    --------
    >>> import numpy as np
    >>> from convjit import conv3d_plan
    >>> plan = conv3d_plan(np.ones((1, 1, 2, 1, 1)))
    >>> plan(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[[[ 4.,  6.],
             [ 8., 10.]]]])
    """
    options = ConvOptions(stride, padding, dilation, groups)
    return Conv3DPlan(*checked("conv3d_plan", 3, weight, bias, options, padding_mode, algorithm))
