"""When memory runs out a call gives the right answer or `MemoryError`, and a layer is as before or as after its step.

The address space of a process with a running pool is limited to what it has and a little more, for one call. Compiling
is left out: LLVM ends the process that it gets no memory in.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fresh
import numpy as np
import pytest

import convjit
from convjit.layers.products import product

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the address space")

Arrays = Sequence[np.ndarray]
# Smaller blocks come from memory that malloc has already; larger ones are not needed.
LEAST, MOST = 64 << 10, 512 << 20


def limits(count: int) -> list[int]:
    """Bytes to spare: none, and from `LEAST` to `MOST` by a constant factor."""
    return [0, *(round(LEAST * (MOST / LEAST) ** (i / (count - 2))) for i in range(count - 1))]


@contextmanager
def to_spare(size: int) -> Iterator[None]:
    """The process may get this much more address space than it has."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = now + size
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def digest(arrays: Arrays) -> str:
    """A digest of all bits."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array) for array in arrays)).hexdigest()


# --- functions ------------------------------------------------------------------------------------------------------


def functions() -> dict[str, Callable[[], Arrays]]:
    """Calls on images of several megabytes, by name; a name begins with the function's."""
    x = np.random.default_rng(0).standard_normal((8, 64, 56, 56))
    few, weight, columns = x[:, :8], np.ones((8, 8, 3, 3)), convjit.im2col(x[:2, :8], 3)
    half, complex_few = few.astype("float16"), few * 1j
    pixels, bias = x.reshape(-1, 512)[:2048], np.ones((1, 512), "f4")
    return {
        **_convolutions(x),
        **_convolutions(x.astype("float32")),
        "conv2d half": lambda: [convjit.conv2d(half, weight.astype("float16"))],
        "conv2d wrapped": lambda: [convjit.conv2d(few, weight, padding=1, padding_mode="wrap")],
        "conv2d complex": lambda: [convjit.conv2d(complex_few, weight)],
        "im2col": lambda: [convjit.im2col(few, 3)],
        "col2im": lambda: [convjit.col2im(columns, (56, 56), 3)],
        "pad2d": lambda: [convjit.pad2d(x, 1, mode="reflect")],
        "pad2d_backward": lambda: [convjit.pad2d_backward(x, 1, mode="edge")],
        "max_pool2d": lambda: convjit.max_pool2d(x, 2, return_indices=True),
        "max_pool2d_backward": lambda: [convjit.max_pool2d_backward(x[..., ::2, ::2], x, 2)],
        "avg_pool2d": lambda: [convjit.avg_pool2d(x, 3, 1)],
        "avg_pool2d_backward": lambda: [convjit.avg_pool2d_backward(few, (112, 112), 2)],
        "conv_transpose2d": lambda: [convjit.conv_transpose2d(few, weight, stride=2)],
        "conv_transpose2d_backward": lambda: convjit.conv_transpose2d_backward(few, few, weight, padding=1),
        # BLAS takes memory of its own, for small matrices and for its threads.
        "Dense narrow": lambda: [product(np.ones((16, 9216), "f4"), np.ones((9216, 2), "f4"), bias[:, :2])],
        "Dense long": lambda: [product(pixels, np.ones((512, 512)), bias)],
        "image_to_column": lambda: [convjit.image_to_column(few, (3, 3), 1)],
    }


def _convolutions(x: np.ndarray) -> dict[str, Callable[[], Arrays]]:
    weight, bias, dy = x[:, :, :3, :3].repeat(2, 0), x[0, :16, 0, 0], np.ones((8, 16, 56, 56), x.dtype)
    plan = convjit.conv2d_plan(weight, bias, padding=1)
    return {
        f"conv2d_plan {x.dtype}": lambda: [plan(x)],
        f"conv2d {x.dtype}": lambda: [convjit.conv2d(x, weight, bias, padding=1)],
        f"conv2d_backward {x.dtype}": lambda: convjit.conv2d_backward(dy, x, weight, padding=1),
    }


def _kind(name: str, error: MemoryError) -> str:
    """Whose error it is; one of convjit's says which function needs how much."""
    message = str(error)
    if not message:
        return "bare"
    if message.startswith("Unable to allocate"):
        return "NumPy's"
    return "convjit's" if message.startswith(f"{name.split()[0]}: ") and " needs " in message else f"strange: {message}"


def try_function(name: str, call: Callable[[], Arrays], wanted: str, size: int) -> str:
    """What a call comes to with this much memory to spare."""
    try:
        with to_spare(size):
            arrays = call()
    except MemoryError as error:
        return _kind(name, error)
    except BaseException as error:
        return f"strange: {error!r}"
    return "right" if digest(arrays) == wanted else "strange: another result"


# --- layers ---------------------------------------------------------------------------------------------------------


def networks() -> dict[str, tuple[Any, Callable[[Any], object]]]:
    """Networks that have made two steps, with what makes another one."""
    x, labels = np.random.default_rng(0).standard_normal((16, 3, 32, 32)), np.arange(16) % 2
    # Weights take most of this layer's memory, half of it the bias: its step can fail between the two.
    channels = 1 << 16
    layer = convjit.Conv2D(channels, (1, 1), input_shape=(channels, 1, 1), groups=channels, rng=0)
    layer.initialize(convjit.Adam())
    pixel = np.ones((1, channels, 1, 1))
    model = convjit.Sequential(optimizer=convjit.Adam())
    for each in (
        convjit.Conv2D(16, (5, 5), input_shape=(3, 32, 32), rng=0), convjit.Activation("relu"),
        convjit.MaxPooling2D((2, 2), stride=2), convjit.Conv2D(64, (3, 3), rng=1), convjit.Flatten(),
        convjit.Dense(2, rng=2), convjit.Activation("softmax"),
    ):  # fmt: skip
        model.add(each)
    steps = {
        "Conv2D": (layer, lambda layer: layer.backward_pass(layer.forward_pass(pixel))),
        "Sequential": (model, lambda model: model.train_on_batch(x, labels)),
    }
    for network, step in steps.values():
        step(network)
        step(network)
    return steps


def states(network: Any) -> list[str]:
    """A digest of each layer's weights and of its optimizers' state."""
    digests = []
    for layer in getattr(network, "layers", [network]):
        names = type(layer).weight_names
        held = [getattr(layer, name) for name in names]
        held += [value for name in names for _, value in sorted(vars(getattr(layer, f"{name}_opt")).items())]
        digests.append(digest([np.asarray(value) for value in held]))
    return digests


def try_step(network: Any, step: Callable[[Any], object], wanted: list[str], size: int) -> str:
    """What a step of a copy of the network comes to with this much memory to spare."""
    tried, before, failure = copy.deepcopy(network), states(network), None
    try:
        with to_spare(size):
            step(tried)
    except MemoryError as error:
        failure = str(error)
    except BaseException as error:
        return f"strange: {error!r}"
    after = states(tried)
    if failure is None:
        return "right" if after == wanted else "strange: another step"
    mixed = [i for i, state in enumerate(after) if state not in (before[i], wanted[i])]
    return f"strange: layers {mixed} are neither as before nor as after" if mixed else "some error"


# --- all of them, in a process --------------------------------------------------------------------------------------


def _attempts() -> Iterator[tuple[str, Callable[[int], str]]]:
    """What is tried, by name, warmed up: nothing compiles and no thread starts any more."""
    for name, call in functions().items():
        wanted = digest(call())
        yield name, lambda size, name=name, call=call, wanted=wanted: try_function(name, call, wanted, size)
    for name, (network, step) in networks().items():
        stepped = copy.deepcopy(network)
        step(stepped)
        wanted = states(stepped)
        yield name, lambda size, n=network, step=step, wanted=wanted: try_step(n, step, wanted, size)


def report_outcomes(count: int) -> None:
    """Print, for each call, what it came to; the last line on standard error is the case at work."""
    outcomes: dict[str, list[str]] = {}
    for name, attempt in list(_attempts()):
        outcomes[name] = []
        for size in limits(count):
            os.write(2, f"{name}, {size} bytes to spare\n".encode())
            outcomes[name].append(attempt(size))
    print(json.dumps(outcomes))


def test_a_call_that_runs_out_of_memory_says_so_and_no_more(share):
    count = share(50, 400)
    # Arrays are mapped and unmapped one by one, so that memory freed before a limit serves no call under it.
    alone = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    outcomes = fresh.answer(f"import test_memory_limits as t; t.report_outcomes({count})", **alone)
    strange = [
        f"{name}, {size} bytes to spare: {outcome}"
        for name, seen in outcomes.items()
        for size, outcome in zip(limits(count), seen, strict=True)
        if outcome.startswith("strange")
    ]
    assert not strange, "\n".join(strange)
    for name, seen in outcomes.items():
        assert seen[-1] == "right", f"{name} has memory enough, and fails: {seen[-1]}"
        assert set(seen) != {"right"}, f"{name} never ran out of memory"
