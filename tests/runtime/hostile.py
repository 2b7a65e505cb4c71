"""Hostile calls of every public function: each must give the right answer or one clear sentence.

`python tests/runtime/hostile.py --calls 100000` runs the whole; `--only SEED` shows one call and runs it. Judges calls;
`hostile_calls` draws them and `hostile_answers` knows what is right.
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from typing import Any

import numpy as np
from hostile_answers import LEARNING_RATE, answers
from hostile_calls import ARRAYS, Call, draw
from hostile_reading import Expected, TooLargeToCheck, as_entries, as_pads
from hostile_values import GIANT
from trials import Finding, main

import convjit

try:
    import resource
except ImportError:  # not POSIX: giants that are let through are not stopped
    resource = None  # type: ignore[assignment]

# What a call may take beyond what the process has, so that a giant that is let through is a MemoryError here.
_ROOM = 4 << 30
_ERRORS = (TypeError, ValueError, MemoryError)
# NumPy's own words for what is the caller's business: overflow on the way to a smaller dtype, an old dtype's name.
_FINE_WARNINGS = ("overflow encountered in cast", "invalid value encountered in cast", "Data type alias")


def trial(seed: int) -> str:
    """Run one call and say how it ended; a `Finding` if that is not allowed."""
    _limit_memory()
    call = draw(seed)
    before = _bytes_of_inputs(call)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            got = _run(call)
            error = None
        except Exception as raised:
            got, error = None, raised
    if _bytes_of_inputs(call) != before:
        raise Finding(f"an input was written to\n{call!r}")
    stray = [w for w in caught if not str(w.message).startswith(_FINE_WARNINGS)]
    if stray:
        raise Finding(f"warned: {stray[0].category.__name__}: {stray[0].message}\n{call!r}")
    if error is not None:
        return _judge_error(call, error)
    return _judge_answer(call, got)


_is_limited = False


def _limit_memory() -> None:
    global _is_limited
    if _is_limited or resource is None or not os.path.exists("/proc/self/statm"):
        return
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM,) * 2)
    _is_limited = True


def _run(call: Call) -> Any:
    function = getattr(convjit, call.name)
    if _is_layer(call):
        return _train_once(function, dict(call.arguments))
    if _is_plan(call):
        return _plan_and_call(function, dict(call.arguments))
    return function(**call.arguments)


def _is_plan(call: Call) -> bool:
    return call.name.endswith("_plan")


def _is_layer(call: Call) -> bool:
    return call.name.endswith("D")


def _plan_and_call(make: Any, a: dict[str, Any]) -> Any:
    """What a plan says to images the first time, which must be what it says the second time."""
    images = {name: a.pop(name) for name in ("x", "out") if name in a}
    plan = make(**a)
    first = plan(**images)
    kept = first.copy()
    second = plan(**images)
    if second.tobytes() != kept.tobytes():
        raise Finding("a plan gave other bits at its second call")
    return second


def _train_once(kind: Any, a: dict[str, Any]) -> tuple[Any, ...]:
    """Output, input gradient, weights after and before one step."""
    images, gradient = a.pop("X", None), a.pop("grad", None)
    layer = kind(**a)
    layer.initialize(convjit.SGD(LEARNING_RATE))
    before = layer.W.copy(), layer.w0.copy()
    y = layer.forward_pass(images)
    dx = layer.backward_pass(gradient)
    return y, dx, layer.W, layer.w0, *before


def _bytes_of_inputs(call: Call) -> list[bytes | str]:
    """The whole memory behind each input, `out` aside; text for what is no array."""
    found: list[bytes | str] = []
    for name, value in call.arguments.items():
        if not isinstance(value, np.ndarray):
            found.append(repr(value) if isinstance(value, list | tuple) else "")
        elif name != "out":
            out = call.arguments.get("out")
            shares = isinstance(out, np.ndarray) and np.may_share_memory(value, out)
            if shares and _is_plan(call) and name != "x":  # of which the plan has a copy
                continue
            root = value
            while isinstance(root.base, np.ndarray) and not shares:
                root = root.base
            small = root if root.size <= GIANT else root[(slice(0, 1),) * root.ndim]
            found.append(small.tobytes())
    return found


# --- verdicts -------------------------------------------------------------------------------------------------------


def _judge_error(call: Call, error: Exception) -> str:
    kind, text = type(error), str(error)
    said = f"{kind.__module__}.{kind.__name__}: {text!r}\n{call!r}"
    if kind not in _ERRORS:
        raise Finding(f"raised {said}") from error
    # What a layer is refused by its function, that says.
    if not text.lower().startswith(call.name.lower()) or "\n" in text or "numba" in text.lower():
        raise Finding(f"unclear message: {said}") from error
    if not call.spoiled and not (kind is MemoryError and _is_giant(call)):
        raise Finding(f"a valid call was refused: {said}") from error
    return "refused"


def _is_giant(call: Call) -> bool:
    shapes = [v.shape for k, v in call.arguments.items() if k in ARRAYS and isinstance(v, np.ndarray)]
    shapes += [v for k, v in call.arguments.items() if k in ("input_size", "image_size", "images_shape", "input_shape")]
    return any(math.prod(max(n, 1) for n in shape) > GIANT for shape in shapes)


def _judge_answer(call: Call, got: Any) -> str:
    if call.name == "explain":
        return _judge_explanation(call, got)
    given = got if isinstance(got, tuple) else (got,)
    if call.name == "get_im2col_indices":
        given = _flat_positions(call, given)
    elif call.name == "determine_padding":
        given = tuple(np.array(side) for side in got)
    else:
        _check_aliases(call, given)
    if any(isinstance(array, np.ndarray) and array.size > GIANT for array in given):
        return "too large to check"
    try:
        with np.errstate(all="ignore"):
            wanted = answers(call.name, call.arguments, got)
    except TooLargeToCheck:
        return "too large to check"
    except Exception as error:
        raise Finding(f"answered what cannot be read: {type(error).__name__}: {error}\n{call!r}") from error
    checked = given[: len(wanted)] if _is_layer(call) else given
    if len(checked) != len(wanted):
        raise Finding(f"{len(given)} results, not {len(wanted)}\n{call!r}")
    for index, (array, expected) in enumerate(zip(checked, wanted, strict=True)):
        _compare(f"result {index} of {call!r}", array, expected)
    return "right"


def _judge_explanation(call: Call, got: Any) -> str:
    for found in (got.forward, got.input_grad, got.weight_grad):
        counts = (found.workers, found.images, found.workspace_bytes, found.multiplications)
        share = 0 if found.share_of_peak is None else found.share_of_peak
        if min(counts) < 0 or not 0 <= share <= 1 or not found.algorithm:
            raise Finding(f"explained by {found}\n{call!r}")
    return "right" if str(got) else "empty"


def _flat_positions(call: Call, given: tuple[Any, ...]) -> tuple[Any, ...]:
    k, i, j = given
    a = call.arguments
    if max(k.size * j.size, *as_entries(a["filter_shape"], 2)) > GIANT:  # the reading below tries paddings one by one
        return (np.broadcast_to(np.int64(0), (GIANT + 1,)),)
    kernel, image = as_entries(a["filter_shape"], 2), tuple(a["images_shape"])[2:]
    pads = as_pads(a["padding"], 2, image, kernel, as_entries(a.get("stride", 1), 2))
    high, wide = (int(n) + sum(p) for n, p in zip(image, pads, strict=True))
    return ((k * high + i) * wide + j,)


def _check_aliases(call: Call, given: tuple[Any, ...]) -> None:
    out = call.arguments.get("out")
    if out is not None and given[0] is not out:
        raise Finding(f"the result is not out\n{call!r}")
    for name, value in call.arguments.items():
        for array in given:
            copied = _is_plan(call) and name != "x" and array is out
            if name != "out" and not copied and isinstance(value, np.ndarray) and np.may_share_memory(array, value):
                raise Finding(f"a result shares memory with {name}\n{call!r}")


def _compare(what: str, got: Any, expected: Expected | None) -> None:
    if expected is None or got is None:
        if got is not None or expected is not None:
            raise Finding(f"{what}: an array where None is due, or the reverse")
        return
    if type(got) is not np.ndarray or got.dtype != expected.dtype or got.shape != expected.exact.shape:
        described = f"{got.dtype} {got.shape}" if isinstance(got, np.ndarray) else ""
        raise Finding(f"{what}: got {type(got).__name__} {described}, not {expected.dtype} {expected.exact.shape}")
    with np.errstate(all="ignore"):
        near = expected.exact.astype(expected.dtype)
        right = (got == near) | expected.open
        if got.dtype.kind in "fc":
            right |= np.isnan(got) & np.isnan(near)
        if got.dtype.kind == "c":  # which part is not finite depends on the order of the products
            right |= ~np.isfinite(got) & ~np.isfinite(near)
        if expected.magnitude is not None:
            unit = float(np.finfo(expected.dtype).eps) / 2
            right |= abs(got - expected.exact) <= expected.units * unit * expected.magnitude
    if not right.all():
        where = tuple(int(i) for i in np.argwhere(~right)[0])
        raise Finding(f"{what}: got {got[where]!r} at {where}, not {expected.exact[where]!r}")


# --- faults that must be found --------------------------------------------------------------------------------------

_conv2d = convjit.conv2d


def _plant_wrong_result(seed: int) -> None:
    def wrong(*args: Any, **kwargs: Any) -> Any:
        y = _conv2d(*args, **kwargs)
        y[..., -1:] += np.ones((), y.dtype)
        return y

    convjit.conv2d = wrong


def _plant_written_input(seed: int) -> None:
    def writes(x: Any, *args: Any, **kwargs: Any) -> Any:
        y = _conv2d(x, *args, **kwargs)
        if type(x) is np.ndarray and x.flags.writeable and x.size:
            x.flat[0] = 77
        return y

    convjit.conv2d = writes


def _plant_abort(seed: int) -> None:
    if seed % 10 == 7:
        os.abort()


def _plant_hang(seed: int) -> None:
    if seed % 10 == 7:
        time.sleep(3600)


PLANTS = {
    "wrong result": _plant_wrong_result, "written input": _plant_written_input, "abort": _plant_abort,
    "hang": _plant_hang,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(__file__, trial, lambda seed: repr(draw(seed)), PLANTS))
