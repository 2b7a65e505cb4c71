"""Every operation on arrays between guard pages, compared to the bit with the same call on ordinary arrays.

`python tests/runtime/guarded_calls.py --calls 20000` runs the whole; `--only SEED` shows one call and runs it. Inputs,
`out`, results, workspaces and tables lie at the end of their pages, then at the start.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numba
import numpy as np
from guarded import Guarded, GuardedNumPy
from trials import Finding, main

import convjit
from convjit.functional import batches, bilinear, columns, kept, padding, pools, slicing
from convjit.gemm import product
from convjit.runtime import memory
from convjit.testing import PADDING_MODES, reference_pads

_DTYPES = ("float32", "float32", "float64", "float64", "int64")
# Channels around register tiles (8 or 6 rows), vectors (8, 16 lanes), blocks (128 terms) and panels (144 lanes).
_CHANNELS = (*range(1, 21), *range(1, 21), 24, 31, 32, 33, 42, 43, 48)
_LARGE_CHANNELS = (127, 128, 129, 136, 143, 144, 145)
# Multiplications above which a drawn problem is cut down to one channel a group.
_MOST_WORK = 3_000_000


class Trial(NamedTuple):
    """A call of a public function; `workers` is how many the guarded call shares its work among."""

    name: str
    arrays: dict[str, Any]
    options: dict[str, Any]
    workers: int

    def __repr__(self) -> str:
        arrays = [f"{name}: {a.dtype} {a.shape}" for name, a in self.arrays.items()]
        return f"{self.name}, {', '.join(arrays)}, {self.options}, {self.workers} workers"


# --- drawing --------------------------------------------------------------------------------------------------------


class _Shapes(NamedTuple):
    """A convolution problem."""

    batch: int
    channels: int
    filters: int
    kernel: tuple[int, int]
    image: tuple[int, int]
    out: tuple[int, int]
    window: dict[str, Any]  # stride, padding in counts, dilation
    groups: int

    @property
    def x(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.image)

    @property
    def y(self) -> tuple[int, ...]:
        return (self.batch, self.filters, *self.out)

    @property
    def weight(self) -> tuple[int, ...]:
        return (self.filters, self.channels // self.groups, *self.kernel)


def _shapes(r: random.Random, row: str = "") -> _Shapes:
    kernel = r.choice(((1, 1), (3, 3), (r.randint(1, 4), r.randint(1, 4)), (1, 5), (7, 2)))
    stride, dilation = ((r.choice((1, 1, 1, 2, 3)), r.choice((1, 1, 1, 2, 3, 4))) for _ in range(2))
    if row == "patches":  # windows that do not overlap
        kernel, dilation = kernel if kernel != (1, 1) else (2, 2), (1, 1)
        stride = tuple(max(k, 2) + r.choice((0, 0, 1)) for k in kernel)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = r.choice((((0, 0), (0, 0)), tuple((r.randint(0, 3), r.randint(0, 3)) for _ in range(2)), "same_upper",
                     "same_lower", "full"))  # fmt: skip
    image = (r.randint(1, 12), r.randint(1, 40))
    if r.random() < 0.005:
        image = (131, 131)  # so many terms that the weight gradient has more than one total
    image = tuple(max(n, e) for n, e in zip(image, extent, strict=True))
    pads = reference_pads(pads, image, kernel, stride, dilation)
    out = tuple((n + sum(p) - e) // s + 1 for n, p, e, s in zip(image, pads, extent, stride, strict=True))
    groups, batch = r.choice((1, 1, 1, 2, 3)), r.choice((1, 1, 2, 3))
    channels, filters = r.choice(_CHANNELS), r.choice(_CHANNELS)
    if row == "depthwise":
        channels, filters, groups = 1, r.choice((1, 1, 1, 2, 3, 8)), r.choice(_CHANNELS)
    elif r.random() < 0.05:
        channels, filters = r.sample((r.choice(_LARGE_CHANNELS), r.randint(1, 8)), 2)
    if batch * groups * channels * filters * out[0] * out[1] * kernel[0] * kernel[1] > _MOST_WORK:
        channels, filters = r.sample((1, r.randint(1, 8)), 2) if row != "depthwise" else (1, filters)
    window = {"stride": stride, "padding": pads, "dilation": dilation}
    return _Shapes(batch, channels * groups, filters * groups, kernel, image, out, window, groups)


def _shapes_of_rank(r: random.Random, rank: int) -> _Shapes:
    """A problem of images, of sequences, or of volumes, which are smaller."""
    if rank == 2:
        return _shapes(r)
    kernels, longest = ((1, 2, 3, 9, 33), 300) if rank == 1 else ((1, 1, 2, 3), 7)
    kernel, stride, dilation = (tuple(r.choice(pool) for _ in range(rank)) for pool in (kernels, (1, 1, 2), (1, 1, 3)))
    padding = tuple((r.choice((0, 0, 1, 3)), r.choice((0, 0, 2))) for _ in range(rank))
    extent = [(k - 1) * n + 1 for k, n in zip(kernel, dilation, strict=True)]
    size = tuple(max(1, e - sum(p)) + r.randint(0, longest) for e, p in zip(extent, padding, strict=True))
    out = tuple((n + sum(p) - e) // s + 1 for n, p, e, s in zip(size, padding, extent, stride, strict=True))
    groups, batch, channels, filters = r.choice((1, 1, 2)), r.choice((1, 2)), r.choice((1, 3, 9)), r.choice((1, 4, 17))
    if r.random() < 0.3:  # a channel a group
        groups, channels, filters = r.choice((4, 16, 19)), 1, r.choice((1, 1, 2))
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    return _Shapes(batch, channels * groups, filters * groups, kernel, size, out, window, groups)


class _Draw:
    """What a trial is made of: one number's choices."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._rng = np.random.default_rng(seed)
        self.dtype = np.dtype(self.random.choice(_DTYPES))

    def array(self, *shape: int) -> Any:
        if self.dtype.kind == "i":
            return self._rng.integers(-(2**62), 2**62, shape)
        return self._rng.standard_normal(shape).astype(self.dtype)


Parts = tuple[dict[str, Any], dict[str, Any]]


def _shapes_of(row: str, d: _Draw) -> _Shapes:
    """A convolution problem that the row takes, and the draw's dtype one that it takes."""
    r, s = d.random, _shapes(d.random, row)
    if row in ("direct", "patches", "winograd") and d.dtype.kind == "i":
        d.dtype = np.dtype("float32")
    if row != "winograd":
        return s
    pads = tuple((r.randint(0, 4), r.randint(0, 4)) for _ in range(2))
    stride = r.choice((1, 1, 2))
    dilation = tuple(r.choice((1, 1, 2, 3)) if stride == 1 else 1 for _ in range(2))
    reach = [2 * d - sum(p) for d, p in zip(dilation, pads, strict=True)]
    image = tuple(max(n, 1 + more) for n, more in zip((r.randint(1, 12), r.randint(1, 70)), reach, strict=True))
    out = tuple((n - more - 1) // stride + 1 for n, more in zip(image, reach, strict=True))
    channels, filters = s.channels // s.groups, s.filters // s.groups
    window = {"stride": (stride, stride), "padding": pads, "dilation": dilation}
    return _Shapes(s.batch, channels, filters, (3, 3), image, out, window, 1)


def _options(d: _Draw, s: _Shapes, row: str) -> dict[str, Any]:
    options = {**s.window, "groups": s.groups, "algorithm": row}
    pads = s.window["padding"]
    if d.random.random() < 0.2 and all(max(p) < n for p, n in zip(pads, s.image, strict=True)):
        options["padding_mode"] = d.random.choice(PADDING_MODES)
    return options


def _forward(row: str) -> Callable[[_Draw], Parts]:
    def draw(d: _Draw) -> Parts:
        s = _shapes_of(row, d)
        arrays = {"x": d.array(*s.x), "weight": d.array(*s.weight)}
        if d.random.random() < 0.5:
            arrays["bias"] = d.array(s.filters)
        if d.random.random() < 0.5:
            arrays["out"] = d.array(*s.y)
        return arrays, _options(d, s, row)

    return draw


def _input_grad(row: str) -> Callable[[_Draw], Parts]:
    def draw(d: _Draw) -> Parts:
        s = _shapes_of(row, d)
        arrays = {"grad_output": d.array(*s.y), "weight": d.array(*s.weight)}
        return arrays, {"input_size": s.image, **_options(d, s, row)}

    return draw


def _weight_grad(row: str) -> Callable[[_Draw], Parts]:
    def draw(d: _Draw) -> Parts:
        s = _shapes_of(row, d)
        arrays = {"grad_output": d.array(*s.y), "x": d.array(*s.x)}
        return arrays, {"kernel_size": s.kernel, **_options(d, s, row)}

    return draw


def _backward(d: _Draw, rank: int = 2) -> Parts:
    s = _shapes_of_rank(d.random, rank)
    return {"grad_output": d.array(*s.y), "x": d.array(*s.x), "weight": d.array(*s.weight)}, _options(d, s, "auto")


def _transposed(d: _Draw, rank: int) -> tuple[_Shapes, dict[str, Any]]:
    """The convolution that is transposed, its input of any size that leads to its output."""
    s = _shapes_of_rank(d.random, rank)
    return s, {**s.window, "groups": s.groups, "output_size": s.image}


def _conv_transpose(d: _Draw, rank: int = 2) -> Parts:
    s, options = _transposed(d, rank)
    arrays = {"x": d.array(*s.y), "weight": d.array(*s.weight)}
    return ({**arrays, "bias": d.array(s.channels)} if d.random.random() < 0.5 else arrays), options


def _conv_transpose_backward(d: _Draw, rank: int = 2) -> Parts:
    s, options = _transposed(d, rank)
    return {"grad_output": d.array(*s.x), "x": d.array(*s.y), "weight": d.array(*s.weight)}, options


def _of_rank(d: _Draw, rank: int, kind: str) -> Parts:
    """A convolution of sequences or volumes, or the gradient that is told this size."""
    s = _shapes_of_rank(d.random, rank)
    shapes = {"x": s.x, "weight": s.weight, "grad_output": s.y}
    options = {**s.window, "groups": s.groups}
    names = {"x": ("x", "weight"), "input_size": ("grad_output", "weight"), "kernel_size": ("grad_output", "x")}[kind]
    told = {"x": {}, "input_size": {"input_size": s.image}, "kernel_size": {"kernel_size": s.kernel}}[kind]
    return {name: d.array(*shapes[name]) for name in names}, {**told, **options}


def _im2col(d: _Draw, rank: int = 2) -> Parts:
    s = _shapes_of_rank(d.random, rank)
    return {"x": d.array(*s.x)}, {"kernel_size": s.kernel, **s.window}


def _col2im(d: _Draw, rank: int = 2) -> Parts:
    s = _shapes_of_rank(d.random, rank)
    taps, positions = math.prod(s.kernel), math.prod(s.out)
    return {"columns": d.array(s.batch, s.channels * taps, positions)}, {
        "image_size": s.image, "kernel_size": s.kernel, **s.window
    }  # fmt: skip


def _pad(d: _Draw, backward: bool, rank: int = 2) -> Parts:
    r = d.random
    image, mode = tuple(r.randint(4, 12) for _ in range(rank - 1)), r.choice(PADDING_MODES)
    image = (*image, r.randint(4, 40))
    pads = tuple((r.randint(0, 3), r.randint(0, 3)) for _ in range(rank))
    lead, options = (r.randint(1, 3), r.randint(1, 20)), {"padding": pads, "mode": mode}
    if not backward:
        return {"x": d.array(*lead, *image)}, options
    return {"grad_output": d.array(*lead, *(n + sum(p) for n, p in zip(image, pads, strict=True)))}, options


def _pool(d: _Draw, rank: int) -> tuple[_Shapes, dict[str, Any]]:
    """A problem whose padding is smaller than its kernel."""
    while True:
        s = _shapes_of_rank(d.random, rank)
        extent = [(k - 1) * n + 1 for k, n in zip(s.kernel, s.window["dilation"], strict=True)]
        if all(max(pads) < e for pads, e in zip(s.window["padding"], extent, strict=True)):
            return s, {"kernel_size": s.kernel, **s.window}


def _max_pool(d: _Draw, rank: int = 2) -> Parts:
    s, options = _pool(d, rank)
    return {"x": d.array(*s.x)}, {**options, "ceil_mode": d.random.random() < 0.5, "return_indices": True}


def _max_pool_backward(d: _Draw, rank: int = 2) -> Parts:
    s, options = _pool(d, rank)
    return {"grad_output": d.array(*s.x[:2], *s.out), "x": d.array(*s.x)}, options


def _counting(d: _Draw) -> dict[str, Any]:
    """What sums of windows are divided by."""
    return {"count_include_pad": d.random.random() < 0.5, "divisor_override": d.random.choice((None, None, 3, -1, -7))}


def _avg_pool(d: _Draw, rank: int = 2) -> Parts:
    s, options = _pool(d, rank)
    return {"x": d.array(*s.x)}, {**options, "ceil_mode": d.random.random() < 0.5, **_counting(d)}


def _avg_pool_backward(d: _Draw, rank: int = 2) -> Parts:
    s, options = _pool(d, rank)
    return {"grad_output": d.array(*s.x[:2], *s.out)}, {"input_size": s.image, **options, **_counting(d)}


def _calls_of(rank: int) -> Iterator[tuple[str, Callable[[_Draw], Parts]]]:
    """What there is of one rank, but convolutions of images, which are drawn for each row."""
    if rank != 2:
        for name, kind in (("", "x"), ("_input_grad", "input_size"), ("_weight_grad", "kernel_size")):
            yield f"conv{rank}d{name}", partial(_of_rank, rank=rank, kind=kind)
    of_columns = "" if rank == 2 else f"{rank}d"
    yield f"conv{rank}d_backward", partial(_backward, rank=rank)
    yield f"conv_transpose{rank}d", partial(_conv_transpose, rank=rank)
    yield f"conv_transpose{rank}d_backward", partial(_conv_transpose_backward, rank=rank)
    yield f"im2col{of_columns}", partial(_im2col, rank=rank)
    yield f"col2im{of_columns}", partial(_col2im, rank=rank)
    yield f"pad{rank}d", partial(_pad, backward=False, rank=rank)
    yield f"pad{rank}d_backward", partial(_pad, backward=True, rank=rank)
    yield f"max_pool{rank}d", partial(_max_pool, rank=rank)
    yield f"max_pool{rank}d_backward", partial(_max_pool_backward, rank=rank)
    yield f"avg_pool{rank}d", partial(_avg_pool, rank=rank)
    yield f"avg_pool{rank}d_backward", partial(_avg_pool_backward, rank=rank)


CALLS: list[tuple[str, Callable[[_Draw], Parts]]] = [
    *(call for name in ("depthwise", "implicit", "reference") for call in (
        ("conv2d", _forward(name)), ("conv2d_input_grad", _input_grad(name)),
        ("conv2d_weight_grad", _weight_grad(name)),
    )),
    ("conv2d", _forward("direct")),
    ("conv2d_input_grad", _input_grad("direct")),
    ("conv2d_input_grad", _input_grad("patches")),
    ("conv2d", _forward("winograd")),
    ("conv2d_input_grad", _input_grad("winograd")),
    ("conv2d_weight_grad", _weight_grad("winograd")),
    *(call for rank in (1, 2, 3) for call in _calls_of(rank)),
]  # fmt: skip


def draw(seed: int) -> Trial:
    """The call of this number; the functions take turns."""
    name, parts = CALLS[seed % len(CALLS)]
    d = _Draw(seed)
    arrays, options = parts(d)
    if name.startswith(_WITH_LAYOUT) and d.random.random() < 0.4:
        arrays |= {key: np.moveaxis(arrays[key], 1, -1).copy() for key in _IMAGES & arrays.keys()}
        options["layout"] = "NHWC"
    return Trial(name, arrays, options, d.random.choice((1, 1, 2, 3, 5)))


_WITH_LAYOUT, _IMAGES = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d"), {"x", "grad_output", "out"}


# --- running --------------------------------------------------------------------------------------------------------


@contextmanager
def _everything_guarded(guarded: Guarded, workers: int) -> Iterator[None]:
    """Let whatever the package allocates lie between guard pages, and work be shared among so many workers."""
    numpy, share = GuardedNumPy(guarded), lambda nanoseconds: workers
    tables, inverse = padding._tables, padding._inverse_tables
    with (
        mock.patch.multiple(memory, _new=guarded.empty, _ROOM=0),
        mock.patch.multiple(kept, CALLS=0, _kept=OrderedDict()),
        mock.patch.multiple(bilinear, np=numpy, workers=share),
        mock.patch.object(batches, "workers", share),
        mock.patch.multiple(pools, np=numpy, workers=share),
        mock.patch.object(slicing, "workers", share),
        mock.patch.object(columns, "workers", share),
        mock.patch.multiple(
            padding,
            np=numpy,
            workers=share,
            _tables=lambda *a: tuple(map(guarded.copy, tables(*a))),
            _inverse_tables=lambda *a: tuple(map(guarded.copy, inverse(*a))),
        ),
    ):
        yield


def trial(seed: int) -> str:
    """Run the call on ordinary arrays, then guarded on either side."""
    # Images are small here: every second time they count as far.
    with mock.patch.object(product, "_FAR_BYTES", 0 if seed % 2 else product._FAR_BYTES):
        return _try(draw(seed))


def _try(call: Trial) -> str:
    function = getattr(convjit, call.name)
    wanted = _bits(function(**{name: a.copy() for name, a in call.arrays.items()}, **call.options))
    for at_end in (True, False):
        where = f"{'end' if at_end else 'start'} of the pages, {call!r}"
        guarded = Guarded(at_end)
        arrays = {name: guarded.copy(array) for name, array in call.arrays.items()}
        with _everything_guarded(guarded, call.workers):
            got = function(**arrays, **call.options)
        if _bits(got) != wanted:
            raise Finding(f"other bits at the {where}")
        _check_inputs(arrays, call, where)
        if guarded.overwritten():
            raise Finding(f"an array's neighbourhood was written to at the {where}")
    return "unharmed"


def _bits(results: Any) -> list[bytes]:
    return [array.tobytes() for array in (results if isinstance(results, tuple) else (results,))]


def _check_inputs(arrays: dict[str, Any], call: Trial, where: str) -> None:
    for name, array in arrays.items():
        if name != "out" and array.tobytes() != call.arrays[name].tobytes():
            raise Finding(f"{name} was written to at the {where}")


# --- faults that must be found --------------------------------------------------------------------------------------


@numba.njit
def _read(x: Any, index: Any) -> Any:
    return x[index]


def _plant_read_behind(seed: int) -> None:
    if seed % 10 == 7:
        _read(Guarded(at_end=True).empty(3), 3)


def _plant_read_before(seed: int) -> None:
    if seed % 10 == 7:
        _read(Guarded(at_end=False).empty(3), -4)  # Numba adds the length once


def _plant_short_workspace(seed: int) -> None:
    def shorter(function: str, what: str, shape: Any, dtype: Any, aligned_from: int) -> Any:
        # Half: what a product has room for is not all used by each. On ordinary arrays it would spoil memory.
        less = shape[-1] // 2 if "result" not in what and memory._new is not np.empty else 0
        return memory.allocate(function, what, (*shape[:-1], shape[-1] - less), dtype, aligned_from)

    kept.allocate = shorter


_empty = Guarded.empty


def _plant_stray_write(seed: int) -> None:
    def empty(self: Guarded, shape: Any, dtype: Any = np.float64) -> Any:
        array = _empty(self, shape, dtype)
        if self.at_end and array.nbytes % mmap.PAGESIZE:
            ctypes.memset(array.ctypes.data - 1, 0, 1)
        return array

    Guarded.empty = empty  # type: ignore[method-assign]


_pad2d = convjit.pad2d


def _plant_other_bits(seed: int) -> None:
    def pad2d(x: Any, *args: Any, **kwargs: Any) -> Any:
        y = _pad2d(x, *args, **kwargs)
        y.flat[-1] += isinstance(x.base, mmap.mmap)
        return y

    convjit.pad2d = pad2d


PLANTS = {
    "read behind": _plant_read_behind, "read before": _plant_read_before, "short workspace": _plant_short_workspace,
    "stray write": _plant_stray_write, "other bits": _plant_other_bits,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(__file__, trial, lambda seed: repr(draw(seed)), PLANTS))
