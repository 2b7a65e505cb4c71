"""What drivers and kernels calls ask for, by name: those of a warm-up of one function, and those of drawn calls of it.

A script: `python warmed_alone.py CALLS` prints, as JSON, what calls of each function wanted beyond what is warm then.
Nothing is compiled and nothing computed: whatever would be emitted has a number in place of an address, and is not run.
Knows where names are found; does not know what is computed.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

import convjit
from convjit import warming
from convjit.runtime import emitting, launch, loops, threads, twins

# Numbers that no table of kernels holds otherwise.
_FIRST = 0x7F3C5A1B00000
# Made for a filter's size: no warm-up can have them all.
_OF_A_SIZE = "convjit.gemm.channel_lanes.float", "convjit.gemm.channel_lanes.int"

_numbers: dict[str, int] = {}
_wanted: set[str] = set()
_crew = [1]


def _compiled(name: str, functions: dict[str, Any], *arguments: Any, **options: Any) -> dict[str, int]:
    return dict.fromkeys(functions, _numbers.setdefault(name, _FIRST + len(_numbers)))


def _run(self: loops.Loop, workers: int, first: int, stop: int, arguments: tuple[Any, ...]) -> None:
    _want(self, arguments)


def _want(loop: loops.Loop, arguments: tuple[Any, ...]) -> None:
    names = {number: name for name, number in _numbers.items()}
    # Tables are read-only; other arrays of integers are full of whatever was there before.
    tables = [a for a in arguments if type(a) is np.ndarray and a.dtype == np.int64 and not a.flags.writeable]
    kernels = {names[number] for table in tables for number in table.ravel()[:64].tolist() if number in names}
    _wanted.update([loop.name, *(name for name in kernels if not name.startswith(_OF_A_SIZE))])


def _step(self: loops.Loop, first: int, stop: int, arguments: tuple[Any, ...]) -> None:
    _want(self, arguments)


def _nothing_runs() -> None:
    def twin(self: Any, *arguments: Any) -> None:
        _wanted.add(f"twin of {self._body.__qualname__}")

    emitting.compiled = _compiled
    loops.Loop.run, loops.Loop.step, twins.Twins.run = _run, _step, twin  # type: ignore[method-assign, assignment]
    launch.turns.run_steps = lambda *arguments: None  # type: ignore[attr-defined]
    workers = threads.workers
    for module in list(sys.modules.values()):
        if getattr(module, "workers", None) is workers and module is not threads:
            module.workers = lambda nanoseconds: _crew[0]  # type: ignore[attr-defined]


def _of_call(call: Callable[[], object]) -> set[str]:
    _wanted.clear()
    call()
    return set(_wanted)


def _draws(rank: int, dtype: str, d: random.Random) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Images, weights and options."""
    while True:
        channels, filters = (d.choice((1, 2, 3, 4, 8, 16, 40, 100)) for _ in range(2))
        groups = d.choice((1, 1, 1, channels, 2 if channels % 2 == filters % 2 == 0 else 1))
        filters = -(-filters // groups) * groups
        size = [d.choice((1, 3, 7, 8, 14, 17, 33, 60, 112)[: 9 if rank < 3 else 6]) for _ in range(rank)]
        kernel = [d.choice((1, 1, 2, 3, 3, 5, 7)) for _ in range(rank)]
        options = {"stride": d.choice((1, 1, 1, 2, 3)), "padding": d.choice((0, 1, 1, 2, 3))}
        options |= {"dilation": d.choice((1, 1, 1, 2)), "groups": groups}
        x = np.ones((d.choice((1, 1, 2, 5)), channels, *size), dtype)
        if rank == 2 and d.random() < 0.3:
            x, options["layout"] = np.ascontiguousarray(np.moveaxis(x, 1, -1)), "NHWC"
        yield x, np.ones((filters, channels // groups, *kernel), dtype), options


def _calls(
    rank: int, x: Any, weight: Any, options: dict[str, Any]
) -> dict[str, Callable[[], object]] | None:  # fmt: skip
    """A problem for each function; None where sizes do not fit."""
    of = partial(_function, rank)
    forward, transposed = of("conv"), of("conv_transpose")
    try:
        dy = np.empty_like(forward(x, weight, **options))
        spread = np.empty_like(transposed(dy, weight, **options))
    except ValueError:
        return None
    image = x.shape[1:-1] if "layout" in options else x.shape[2:]
    kernel, bias = weight.shape[2:], np.ones(len(weight), weight.dtype)
    return {
        f"conv{rank}d": lambda: forward(x, weight, bias, **options),
        f"conv{rank}d_backward": lambda: of("conv", "_backward")(dy, x, weight, **options),
        f"conv{rank}d_input_grad": lambda: of("conv", "_input_grad")(dy, weight, image, **options),
        f"conv{rank}d_weight_grad": lambda: of("conv", "_weight_grad")(dy, x, kernel, **options),
        f"conv{rank}d_plan": lambda: of("conv", "_plan")(weight, bias, **options)(x),
        f"conv_transpose{rank}d": lambda: transposed(dy, weight, **options),
        f"conv_transpose{rank}d_backward": lambda: of("conv_transpose", "_backward")(spread, dy, weight, **options),
    }


def _function(rank: int, name: str, end: str = "") -> Any:
    return getattr(convjit, f"{name}{rank}d{end}")


def _warm(name: str, dtype: str) -> set[str]:
    x, weight, bias = (np.ones(shape, dtype) for shape in ((1, 2, 4, 4), (2, 2, 3, 3), (2,)))
    return _of_call(lambda: warming._CALLS[name](x, weight, bias))


def lacking(calls: int) -> dict[str, list[str]]:
    """What so many calls of each function and dtype want that a warm-up of the function alone does not."""
    _nothing_runs()
    found = {}
    for dtype in ("float32", "float64", "int8"):
        for rank in (1, 2, 3):
            d = random.Random(rank)
            problems = islice(_draws(rank, dtype, d), calls)
            drawn = [each for each in (_calls(rank, *problem) for problem in problems) if each is not None]
            for name in drawn[0]:
                _crew[0] = 1
                warm, more = _warm(name, dtype), set()
                for each in drawn:
                    _crew[0] = d.choice((1, 2, 8))
                    more |= _of_call(each[name]) - warm
                if more:
                    found[f"{name} of {dtype}"] = sorted(more)
    return found


if __name__ == "__main__":
    print(json.dumps(lacking(int(sys.argv[1]))))
