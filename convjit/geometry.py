"""Sizes, and what is wrong with shapes, in Python integers.

Knows the arithmetic of convolution in one, two and three dimensions; does not know arrays, dtypes or how anything is
computed. A problem is one record, `Convolution`, whatever its dimensions. What runs it takes `Geometry`, the record of
images that Python and compiled code both take: one dimension is an image of height 1, and a `Volume` is a `Depth`
beside it.
Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .layouts import CHANNELS_FIRST, Layout
from .parsing import AXES, LARGEST, Pads, Sizes, Window, as_padding, as_positive, as_window, by

__all__ = ["Convolution", "Depth", "Geometry", "Volume", "conv2d_geometry", "conv_geometry", "pooling_geometry"]


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

    @property
    def is_row(self) -> bool:
        """Whether images are rows that several taps meet, without a stride, as sequences mostly are."""
        is_row = self.in_h == self.out_h == self.kernel_h == 1 and self.pads[0] == (0, 0)
        return is_row and self.stride_w == 1 < self.kernel_w

    def as_one_column(self) -> Geometry:
        """The same problem of rows, without a stride, on images of one column."""
        return self._replace(
            in_h=self.in_w, in_w=1, out_h=self.out_w, out_w=1, kernel_h=self.kernel_w, kernel_w=1, stride_h=1,
            dilation_h=self.dilation_w, dilation_w=1, pad_top=self.pad_left, pad_bottom=self.pad_right, pad_left=0,
            pad_right=0,
        )  # fmt: skip


class Depth(NamedTuple):
    """The first of three dimensions, as `Geometry` has the others: slice `od` and tap `kd` meet in slice
    `od*stride + kd*dilation - pad_front` of the input.
    """

    in_size: int
    out_size: int
    kernel: int
    stride: int
    dilation: int
    pad_front: int
    pad_back: int


class Volume(NamedTuple):
    """A problem in three dimensions: `plane` has its batch, channels and groups, and what is done in height and width.

    Other than the planes of an image, those of a volume stand apart: channel and slice number them.
    """

    depth: Depth
    plane: Geometry

    @property
    def x_shape(self) -> Sizes:
        batch, channels, *plane = self.plane.x_shape
        return batch, channels, self.depth.in_size, *plane

    @property
    def weight_shape(self) -> Sizes:
        out_channels, channels, *kernel = self.plane.weight_shape
        return out_channels, channels, self.depth.kernel, *kernel

    @property
    def y_shape(self) -> Sizes:
        batch, channels, *plane = self.plane.y_shape
        return batch, channels, self.depth.out_size, *plane

    @property
    def multiplications(self) -> int:
        """As those of a `Geometry`."""
        return self.plane.multiplications * self.depth.out_size * self.depth.kernel


class Convolution(NamedTuple):
    """One problem in one, two or three dimensions, as it was given; pooling and columns use it too.

    Sizes, window and pads have an entry for each dimension: `(L,)`, `(H, W)` or `(D, H, W)`.
    """

    batch: int
    in_channels: int
    in_size: Sizes
    out_channels: int
    out_size: Sizes
    window: Window
    pads: Pads
    groups: int

    @property
    def rank(self) -> int:
        return len(self.in_size)

    @property
    def x_shape(self) -> Sizes:
        return self.batch, self.in_channels, *self.in_size

    @property
    def weight_shape(self) -> Sizes:
        return self.out_channels, self.in_channels // self.groups, *self.window.kernel

    @property
    def y_shape(self) -> Sizes:
        return self.batch, self.out_channels, *self.out_size

    def of_padded(self) -> Convolution:
        """The same on images that have their padding already."""
        padded = tuple(size + sum(pad) for size, pad in zip(self.in_size, self.pads, strict=True))
        return self._replace(in_size=padded, pads=((0, 0),) * self.rank)

    @property
    def plane(self) -> Geometry:
        """The last two dimensions; of height 1 where there is one dimension."""
        in_h, in_w = (1, *self.in_size)[-2:]
        out_h, out_w = (1, *self.out_size)[-2:]
        (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
            (1, *entries)[-2:] for entries in self.window
        )
        (top, bottom), (left, right) = ((0, 0), *self.pads)[-2:]
        return Geometry(
            self.batch, self.in_channels, in_h, in_w, self.out_channels, out_h, out_w, kernel_h, kernel_w, stride_h,
            stride_w, dilation_h, dilation_w, top, bottom, left, right, self.groups,
        )  # fmt: skip

    @property
    def depth(self) -> Depth:
        """The first of three dimensions."""
        kernel, stride, dilation = (entries[0] for entries in self.window)
        return Depth(self.in_size[0], self.out_size[0], kernel, stride, dilation, *self.pads[0])

    def as_run(self) -> Geometry | Volume:
        """How it is computed: as images, wherever arrays need only be seen in another shape for it.

        Three dimensions are two where depth is 1, and where a kernel is one pixel high and wide, so that height and
        width are one long row.
        """
        if self.rank < 3:
            return self.plane
        depth, plane = self.depth, self.plane
        if depth == (1, 1, 1, depth.stride, depth.dilation, 0, 0):
            return plane
        one_pixel = (plane.kernel_h, plane.kernel_w, plane.stride_h, plane.stride_w) == (1, 1, 1, 1)
        if one_pixel and plane.pads == ((0, 0), (0, 0)) and self.in_size[1:] == self.out_size[1:]:
            pixels = plane.in_h * plane.in_w
            return plane._replace(
                in_h=depth.in_size, in_w=pixels, out_h=depth.out_size, out_w=pixels, kernel_h=depth.kernel,
                stride_h=depth.stride, dilation_h=depth.dilation, pad_top=depth.pad_front, pad_bottom=depth.pad_back,
            )  # fmt: skip
        return Volume(depth, plane)


# --- what errors call shapes ----------------------------------------------------------------------------------------

_LETTERS = {1: "L", 2: "HW", 3: "DHW"}


def shape_letters(first: str, rank: int, before: str = "") -> str:
    """`(N, C, H, W)`, or `(O, C/groups, KH, KW)` with a letter before each dimension; `K` alone where there is one."""
    letters = [before] if before and rank == 1 else [before + letter for letter in _LETTERS[rank]]
    return f"({', '.join([first, *letters])})"


# --- output sizes ---------------------------------------------------------------------------------------------------


def check_counts_fit(function: str, window: Window, pads: Pads) -> None:
    """Refuse windows so large that sizes leave 64-bit arithmetic."""
    if max(window.extent) > LARGEST or max(map(max, pads)) > LARGEST:
        raise ValueError(
            f"{function}: dilation or padding is too large: kernel extent {window.extent}, padding {pads}, "
            f"at most {LARGEST} each"
        )


def output_size(function: str, image: Sizes, window: Window, pads: Pads, ceil_mode: bool = False) -> Sizes:
    """`floor((in + pad - extent) / stride) + 1` in each dimension; a kernel larger than the padded image is refused.

    With `ceil_mode` the last window, which may be the first one, may reach past the end padding, but not start in it.
    """
    check_counts_fit(function, window, pads)
    padded = tuple([size + sum(pad) for size, pad in zip(image, pads, strict=True)])
    sizes = []
    for axis, stride in enumerate(window.stride):
        left = padded[axis] - window.extent[axis]
        count = left // stride + 1
        reaches_past, starts_inside = left % stride != 0, count * stride < image[axis] + pads[axis][0]
        sizes.append(count + (ceil_mode and reaches_past and starts_inside))
    if min(sizes) < 1:
        dilation = str(window.dilation[0]) if len(set(window.dilation)) == 1 else f"{window.dilation}"
        raise ValueError(
            f"{function}: kernel {by(window.kernel)} with dilation {dilation} (extent {by(window.extent)}) "
            f"is larger than the padded input {by(padded)}"
        )
    return tuple(sizes)


def conv_geometry(
    function: str,
    x_shape: Sizes,
    weight_shape: Sizes,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    layout: Layout = CHANNELS_FIRST,
) -> Convolution:
    """The record of a convolution, or a `ValueError` that names what does not fit.

    `x_shape` is the batched shape `(N, C, H, W)`, and says how many dimensions there are; errors show it in `layout`.
    """
    rank = len(x_shape) - 2
    check_weight_rank(function, weight_shape, rank)
    channels, *image = x_shape[1:]
    out_channels, group_channels, *kernel = weight_shape
    groups = as_positive(function, "groups", groups)
    if min(out_channels, *kernel) < 1:
        raise ValueError(
            f"{function}: weight needs at least one output channel and a kernel of at least {by((1,) * rank)}, "
            f"got {weight_shape}"
        )
    if channels % groups or out_channels % groups:
        raise ValueError(
            f"{function}: groups={groups} must divide the input channels ({channels}) and the output channels "
            f"({out_channels})"
        )
    if group_channels * groups != channels:
        raise ValueError(
            f"{function}: weight expects {group_channels * groups} input channels (groups={groups}), but x has "
            f"{channels}: x {layout.lying(x_shape)}, weight {weight_shape}"
        )
    window = as_window(function, tuple(kernel), stride, dilation, rank)
    pads = as_padding(function, padding, window, tuple(image))
    return _record(function, x_shape, out_channels, window, pads, groups)


def check_weight_rank(function: str, weight_shape: Sizes, rank: int, channels: str = "O, C/groups") -> None:
    """Refuse a weight of other dimensions than images of this rank have."""
    if len(weight_shape) != rank + 2:
        raise ValueError(
            f"{function}: expected weight of shape {shape_letters(channels, rank, 'K')}, got {weight_shape}"
        )


def conv2d_geometry(
    function: str, x_shape: Sizes, weight_shape: Sizes, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Geometry:
    """The same of images `(N, C, H, W)`, as what runs it takes it."""
    return conv_geometry(function, x_shape, weight_shape, stride, padding, dilation, groups).plane


def pooling_geometry(
    function: str,
    x_shape: Sizes,
    window: Window,
    pads: Pads,
    ceil_mode: bool = False,
) -> Convolution:
    """The record of a window that moves over each channel by itself: pooling, im2col and col2im."""
    channels = x_shape[1]
    return _record(function, x_shape, channels, window, pads, max(channels, 1), ceil_mode)


def check_pooling_padding(function: str, window: Window, pads: Pads) -> None:
    """Refuse a padding that could hold a whole window."""
    for extent, pad in zip(window.extent, pads, strict=True):
        if max(pad) >= extent:
            raise ValueError(
                f"{function}: padding must be smaller than the effective kernel {window.extent}, got {pads}: "
                "a window would see padding only"
            )


def _record(
    function: str, x_shape: Sizes, out_channels: int, window: Window, pads: Pads, groups: int, ceil_mode: bool = False
) -> Convolution:
    batch, channels, *image = x_shape
    sizes = output_size(function, tuple(image), window, pads, ceil_mode)
    return Convolution(batch, channels, tuple(image), out_channels, sizes, window, pads, groups)


def check_same_shape(function: str, name: str, got: Sizes, needed: Sizes, why: str) -> None:
    """Refuse an array whose shape does not follow from the others."""
    if got != needed:
        raise ValueError(f"{function}: {name} must have shape {needed} ({why}), got {got}")


def check_bias(function: str, shape: Sizes, channels: int) -> None:
    """Refuse a bias that has not one value for each of so many output channels."""
    check_same_shape(function, "bias", shape, (channels,), "one value an output channel")


def check_led_to(function: str, got: Sizes, problem: Convolution, shown: Sizes) -> None:
    """Refuse a gradient `(N, O, OH, OW)` that no input of this size leads to, and say which sizes would.

    `shown` is its shape as it was given.
    """
    if got == problem.y_shape:
        return
    if got[1] != problem.out_channels:
        raise ValueError(
            f"{function}: grad_output must have {problem.out_channels} channels, as weight {problem.weight_shape} has, "
            f"got {shown}"
        )
    window, ranges = problem.window, []
    for axis, name in enumerate(AXES[problem.rank]):
        stride = window.stride[axis]
        least = (got[2 + axis] - 1) * stride + window.extent[axis] - sum(problem.pads[axis])
        ranges.append(f"{name}s {least}" if stride == 1 else f"{name}s {least}..{least + stride - 1}")
    *most, last = ranges
    raise ValueError(
        f"{function}: input_size {problem.in_size} gives an output of {problem.out_size}, but grad_output "
        f"{shown} is of {got[2:]}, which comes from {', '.join(most)}{' and ' if most else ''}{last}"
    )
