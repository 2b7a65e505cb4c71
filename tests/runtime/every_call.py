"""Calls of every kind, for tests of what calls leave behind.

Every public function on problems small enough for one thread and large enough for several, in every kind of dtype and
on numbers that break arithmetic; layers at work; and calls that fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import convjit

Array = npt.NDArray[np.generic]

DTYPES = ("float16", "float32", "float64", "int8", "int64", "uint64", "bool", "complex64", "complex128")
# Of the large one every operation is more work than `runtime.threads.SERIAL_BELOW_NS`, the lightest of them, which
# move values, too.
SIZES = {"small": (1, 2, 7, 6), "large": (4, 10, 64, 64)}
# Numbers whose sums and products overflow, are no numbers, or vanish.
EXTREMES = {
    "nan": ("float32", np.nan), "infinity": ("complex64", np.inf), "infinities": ("complex64", complex(np.inf, np.inf)),
    "opposite infinities": ("float64", np.inf), "denormal": ("float32", 1e-40), "huge": ("float64", 1e300),
    "huge half": ("float16", 6e4), "wrapping": ("int8", 127),
}  # fmt: skip


class Call(NamedTuple):
    """A call by name; `fails` is what it raises."""

    name: str
    run: Callable[[], object]
    fails: type[Exception] | None = None

    def __call__(self) -> None:
        """Make the call, and see that it fails or does not."""
        try:
            self.run()
        except Exception as error:
            if self.fails is None or not isinstance(error, self.fails):
                error.add_note(f"in the call {self.name}")
                raise
        else:
            assert self.fails is None, f"{self.name} raised no {self.fails}"


def every_call() -> list[Call]:
    """All calls below."""
    return [*sound_calls(), *layer_calls(), *failing_calls()]


def sound_calls() -> Iterator[Call]:
    """Every public function, in every size and dtype, and on numbers that break arithmetic."""
    rng = np.random.default_rng(0)
    for size, shape in SIZES.items():
        for dtype in DTYPES:
            for function, run in _functions(rng.integers(0, 5, shape).astype(dtype)):
                yield Call(f"{function} {dtype} {size}", run)
        for name, (dtype, value) in EXTREMES.items():
            x = np.full(shape, value, dtype)
            if name.startswith("opposite"):
                x[..., ::2] *= -1
            for function, run in _functions(x):
                yield Call(f"{function} {name} {size}", run)


def _functions(x: Array) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every public function on images `x` (N, C, H, W), with weights and gradients made of the same numbers."""
    n, c, h, w = x.shape
    weight, bias = x[:1, :, :3, :3].repeat(c, 0), x[0, :, 0, 0]
    taps, padded = np.resize(x, (n, 9 * c, h * w)), np.resize(x, (n, c, h + 2, w + 2))
    out = np.empty(x.shape, np.int64 if x.dtype == bool else x.dtype)
    yield "conv2d", lambda: convjit.conv2d(x, weight, bias, padding=1)
    yield "conv2d", lambda: convjit.conv2d(x, weight, padding="same", padding_mode="wrap", out=out)
    yield "conv2d_backward", lambda: convjit.conv2d_backward(x, x, weight, padding=1)
    yield "conv2d_input_grad", lambda: convjit.conv2d_input_grad(x, weight, (h, w), padding=1, padding_mode="edge")
    yield "conv2d_weight_grad", lambda: convjit.conv2d_weight_grad(x, x[:, ::-1], 3, padding=1)
    yield "conv_transpose2d", lambda: convjit.conv_transpose2d(x, weight, bias, stride=2)
    yield "conv_transpose2d_backward", lambda: convjit.conv_transpose2d_backward(x, x, weight, padding=1)
    yield "conv2d_plan", lambda: convjit.conv2d_plan(weight, bias, padding=1)(x)
    yield "conv2d_plan", lambda: convjit.conv2d_plan(weight, padding="same", padding_mode="wrap")(x, out=out)
    yield "explain", lambda: str(convjit.explain(x, weight, bias, padding=1))
    yield "im2col", lambda: convjit.im2col(x, 3, padding=1)
    yield "col2im", lambda: convjit.col2im(taps, (h, w), 3, padding=1)
    yield "pad2d", lambda: convjit.pad2d(x, 3, mode="reflect")
    yield "pad2d_backward", lambda: convjit.pad2d_backward(padded, 1, mode="symmetric")
    yield "avg_pool2d", lambda: convjit.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    yield "avg_pool2d", lambda: convjit.avg_pool2d(x, 3, 1, 1, divisor_override=-2)
    yield "avg_pool2d_backward", lambda: convjit.avg_pool2d_backward(x, (h, w), 3, 1, 1)
    yield "avg_pool2d_backward", lambda: convjit.avg_pool2d_backward(x, (h, w), 3, 1, 1, divisor_override=-2)
    if x.dtype.kind != "c":
        yield "max_pool2d", lambda: convjit.max_pool2d(x, 3, 1, 1, return_indices=True)
        yield "max_pool2d_backward", lambda: convjit.max_pool2d_backward(x, x, 3, 1, 1)
    yield from _of_other_ranks(x)
    yield "determine_padding", lambda: convjit.determine_padding((3, 4))
    yield "get_im2col_indices", lambda: convjit.get_im2col_indices(x.shape, (3, 3), "same")
    yield "image_to_column", lambda: convjit.image_to_column(x, (3, 3), 1)
    columns = taps.transpose(1, 2, 0).reshape(9 * c, h * w * n)
    yield "column_to_image", lambda: convjit.column_to_image(columns, x.shape, (3, 3), 1)


def _of_other_ranks(x: Array) -> Iterator[tuple[str, Callable[[], object]]]:
    """The functions of sequences, which the images' rows are, and of volumes: all channels of an image are slices."""
    n, rows, volumes = len(x), x[:, :, 0], x[:, None]
    for rank, images in ((1, rows), (3, volumes)):
        channels, size = images.shape[1], images.shape[2:]
        weight = np.resize(x, (channels, channels, *[3] * rank))
        taps = np.resize(x, (n, channels * 3**rank, int(np.prod(size))))
        of = {
            name: getattr(convjit, f"{name}{rank}d") for name in ("conv", "conv_transpose", "im2col", "col2im", "pad")
        }
        backward = {name: getattr(convjit, f"{name}{rank}d_backward") for name in ("conv", "conv_transpose", "pad")}
        yield f"conv{rank}d", lambda of=of, x=images, w=weight: of["conv"](x, w, padding=1)
        yield f"conv{rank}d_plan", lambda rank=rank, x=images, w=weight: getattr(
            convjit, f"conv{rank}d_plan")(w, padding=1)(x)  # fmt: skip
        yield f"conv{rank}d_backward", lambda to=backward, x=images, w=weight: to["conv"](x, x, w, padding=1)
        yield f"conv{rank}d_input_grad", lambda rank=rank, x=images, w=weight: getattr(
            convjit, f"conv{rank}d_input_grad")(x, w, x.shape[2:], padding=1)  # fmt: skip
        yield f"conv{rank}d_weight_grad", lambda rank=rank, x=images: getattr(
            convjit, f"conv{rank}d_weight_grad")(x, x, 3, padding=1)  # fmt: skip
        yield f"conv_transpose{rank}d", lambda of=of, x=images, w=weight: of["conv_transpose"](x, w, stride=2)
        yield f"conv_transpose{rank}d_backward", lambda to=backward, x=images, w=weight: to["conv_transpose"](
            x, x, w, padding=1)  # fmt: skip
        yield f"im2col{rank}d", lambda of=of, x=images: of["im2col"](x, 3, padding=1)
        yield f"col2im{rank}d", lambda of=of, t=taps, size=size: of["col2im"](t, size, 3, padding=1)
        yield f"pad{rank}d", lambda of=of, x=images: of["pad"](x, 1, mode="edge")
        yield f"pad{rank}d_backward", lambda to=backward, x=images: to["pad"](x, 1, mode="constant")
        mean, to_mean = (getattr(convjit, f"avg_pool{rank}d{end}") for end in ("", "_backward"))
        yield f"avg_pool{rank}d", lambda mean=mean, x=images: mean(x, 3, 1, 1)
        yield f"avg_pool{rank}d_backward", lambda back=to_mean, x=images: back(x, x.shape[2:], 3, 1, 1)
        if x.dtype.kind != "c":
            largest, to_largest = (getattr(convjit, f"max_pool{rank}d{end}") for end in ("", "_backward"))
            yield f"max_pool{rank}d", lambda largest=largest, x=images: largest(x, 3, 1, 1)
            yield f"max_pool{rank}d_backward", lambda back=to_largest, x=images: back(x, x, 3, 1, 1)


def layer_calls() -> Iterator[Call]:
    """Training, inference and evaluation of a network of every kind of layer."""
    x, labels = np.random.default_rng(1).standard_normal((8, 1, 8, 8)), np.arange(8) % 2
    model = convjit.Sequential(optimizer=convjit.AdamW(0.01))
    for layer in (
        convjit.Conv2D(4, (3, 3), input_shape=(1, 8, 8), rng=0), convjit.BatchNormalization(),
        convjit.Activation("relu"), convjit.MaxPooling2D((2, 2), stride=2), convjit.AveragePooling2D((2, 2), stride=2),
        convjit.Flatten(), convjit.Dropout(0.2, rng=1), convjit.Dense(2, rng=2), convjit.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    yield Call("Sequential.train_on_batch", lambda: model.train_on_batch(x, labels))
    yield Call("Sequential.fit", lambda: model.fit(x, labels, batch_size=4, rng=3, progress=False))
    yield Call("Sequential.predict", lambda: model.predict(x))
    yield Call("Sequential.test_on_batch", lambda: model.test_on_batch(x, labels))
    yield Call("Sequential.freeze", lambda: (model.freeze(), model.predict(x), model.unfreeze()))
    yield Call("Sequential.summary", model.summary)
    yield Call("Conv2D of other channels", lambda: model.predict(x.repeat(2, 1)), ValueError)
    yield Call("Sequential of too few labels", lambda: model.train_on_batch(x, labels[:3]), ValueError)
    yield Call("Conv2D.backward_pass frozen", lambda: _frozen().backward_pass(x), RuntimeError)
    yield Call("Conv2D.backward_pass first", lambda: _untrained().backward_pass(x), RuntimeError)


def _untrained() -> convjit.Conv2D:
    layer = convjit.Conv2D(1, (3, 3), input_shape=(1, 8, 8), rng=0)
    layer.initialize(None)
    return layer


def _frozen() -> convjit.Conv2D:
    layer = _untrained()
    layer.freeze()
    return layer


def failing_calls() -> Iterator[Call]:
    """Calls that are refused: for the kind of an argument, for its value, for memory."""
    x, weight = np.ones((1, 2, 6, 6)), np.ones((2, 2, 3, 3))
    endless = np.broadcast_to(1.0, (1 << 20, 2, 1 << 10, 1 << 10))
    for name, run in {
        "conv2d of an object": lambda: convjit.conv2d(object(), weight),
        "conv2d of a fraction of a stride": lambda: convjit.conv2d(x, weight, stride=1.5),
        "conv2d of an unknown keyword": lambda: convjit.conv2d(x, weight, strides=2),
        "conv2d of a longdouble": lambda: convjit.conv2d(x.astype(np.longdouble), weight),
        "max_pool2d of complex numbers": lambda: convjit.max_pool2d(x * 1j, 2),
    }.items():
        yield Call(name, run, TypeError)
    for name, run in {
        "conv2d of other channels": lambda: convjit.conv2d(x[:, :1], weight),
        "conv2d into its input": lambda: convjit.conv2d(x, weight, padding=1, out=x),
        "conv2d of a ragged list": lambda: convjit.conv2d([[1], [1, 2]], weight),
        "conv2d_plan of other channels": lambda: convjit.conv2d_plan(weight)(x[:, :1]),
        "conv2d_backward of another size": lambda: convjit.conv2d_backward(x, x, weight),
        "conv_transpose2d of nothing": lambda: convjit.conv_transpose2d(x, weight, padding=99),
        "col2im of other columns": lambda: convjit.col2im(x[0], (3, 3), 2),
        "explain of other channels": lambda: convjit.explain((1, 1, 6, 6), weight),
        "pad2d of too much": lambda: convjit.pad2d(x, 6, mode="reflect"),
        "max_pool2d_backward outside": lambda: convjit.max_pool2d_backward(x, x, 1, indices=x.astype(int) + 99),
        "avg_pool2d of no pixels": lambda: convjit.avg_pool2d(x, 0),
        "avg_pool2d over nothing": lambda: convjit.avg_pool2d(x, 2, divisor_override=0),
    }.items():
        yield Call(name, run, ValueError)
    for name, run in {
        "conv2d of endless images": lambda: convjit.conv2d(endless, weight),
        "conv2d_plan of endless images": lambda: convjit.conv2d_plan(weight)(endless),
        "conv2d_backward of endless images": lambda: convjit.conv2d_backward(endless, endless, weight[..., :1, :1]),
        "im2col of endless images": lambda: convjit.im2col(endless, 3),
        "pad2d by very much": lambda: convjit.pad2d(x, 1 << 24),
        "max_pool2d of endless images": lambda: convjit.max_pool2d(endless, 2),
        "conv_transpose2d of endless images": lambda: convjit.conv_transpose2d(endless, weight),
    }.items():
        yield Call(name, run, MemoryError)
