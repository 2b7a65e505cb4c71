"""Steps that a team of threads takes in turn: the loops of one call, each begun when the one before has ended.

Starting a team takes 10 us, and a thread that sleeps is awake 50 to 100 us later: so the loops of a call share one
start. A worker that finds all tasks of a step taken waits until they are done, not until every worker has come: one
that wakes late, or whose core is taken, holds up nothing but the tasks that it has begun.

Each worker has a share of a step's tasks, neighbours, and takes those of others when it has none left. So what a worker
reads in one step is more often what it wrote in the step before, which its core's caches have: on two threads 24 layers
and their gradients took 0.75 to 1.04 of the time that they took with one counter for all, 0.98 in the middle.

A board is memory that the workers share: words of 64 bits that the steps' tasks are given, which each call has anew;
then what all calls of such steps begin with, a row of 16 words for each step and a cache line for each share. Teams are
Numba's: the one parallel loop here starts any worker by its address. Does not know what a task does.
"""

from __future__ import annotations

import ast
import ctypes
import struct
from collections.abc import Callable
from functools import cache as once
from functools import lru_cache
from typing import Any, TypeAlias

import numba
import numpy as np
from llvmlite import ir

from . import emitting, team, threads
from .plain import Array
from .translating import Translation
from .twins import PRANGE_ONLY, dispatcher

# Tasks `first <= task < stop` of a loop, run by `tasks(arguments, numbers, first, stop, worker)`: the address of that,
# where they begin and end, the format of the numbers, as `struct` has it, the tuple of arguments whose address it is
# given, and the numbers. A plain tuple, as several are made in a call.
Step: TypeAlias = tuple[int, int, int, str, tuple[Any, ...], tuple[Any, ...]]

# A row: what workers write, in a cache line of its own, how many tasks are done; then what they read: where the tasks
# begin, how many there are, how many are taken at once, among how many workers, where shares are, what is called, and
# where the given words are.
_DONE, _FIRST, _COUNT, _GRAIN, _WORKERS, _SHARES, _TASKS, _GIVEN, _WORDS = 0, *range(8, 15), 16
_ROW = struct.Struct(f"{_WORDS}q")
_WORD_BYTES, _LINE = 8, 64
# The line of a share begins with how many of its tasks are taken, or more when none is left.
_SHARE_BYTES = _LINE

# A worker that waits looks so many times, about 20 us, before it lets others have its core between two looks.
_LOOKS = 1000


def run_steps(workers: int, steps: list[Step]) -> None:
    """Run steps on a team of so many workers."""
    key: list[Any] = [workers]
    words: list[Any] = []
    for tasks, first, stop, numbers, arguments, given in steps:
        key += tasks, first, stop, numbers
        words.append(id(arguments))
        words += given
    pack, rest, new, rows_at = _board_for(*key)
    board = new(pack(*words) + rest)
    rows = ctypes.addressof(board) + rows_at
    threads.run_parallel(workers, work_in_team(), workers, _worker(), rows, len(steps), _give_way())


# More than the kinds of call of most networks.
@lru_cache(maxsize=512)
def _board_for(workers: int, *entries: Any) -> tuple[Callable[..., bytes], bytes, Callable[[bytes], Any], int]:
    """Of steps alike: what packs given words, what follows them, what makes a board of both, and where rows begin.

    Of each step four entries: its first ones.
    """
    steps = tuple(zip(*[iter(entries)] * 4, strict=True))
    numbers = "".join(f"q{numbers}" for _, _, _, numbers in steps)
    given = struct.Struct(f"={numbers}")
    # A line between what is read only and what is written: boards begin anywhere in one.
    rows_at = (given.size // _LINE + 2) * _LINE
    share, at, rows = _ROW.size * len(steps), -rows_at, []
    for tasks, first, stop, numbers in steps:
        told = first, stop - first, team.grain(workers, first, stop), workers, share, tasks, at, 0
        rows.append(_ROW.pack(0, 0, 0, 0, 0, 0, 0, 0, *told))
        share += _SHARE_BYTES * workers
        at += _WORD_BYTES * (1 + len(numbers))
    rest = b"".join([bytes(rows_at - given.size), *rows, bytes(_SHARE_BYTES * workers * len(steps))])
    return given.pack, rest, (ctypes.c_char * (given.size + len(rest))).from_buffer_copy, rows_at


@once
def _worker() -> int:
    """Address of `worker(rows, steps, give_way, worker)`, what one worker of a team does."""
    return emitting.compiled(f"{__name__}.worker", {"worker": (4, _emit_worker)})["worker"]


def _emit_worker(builder: Any, parameters: Any) -> None:
    rows, steps, give_way, worker = parameters
    to = Translation(builder)

    def take_turn(step: Any, _: Any) -> None:
        row = Array(_at(to, rows, step, _ROW.size), (_WORDS,), np.int64)
        first, count, grain, workers = (to.load(row, i) for i in (_FIRST, _COUNT, _GRAIN, _WORKERS))
        shares, given = (to.computed(ast.Add, rows, to.load(row, offset)) for offset in (_SHARES, _GIVEN))
        tasks, arguments = to.load(row, _TASKS), to.load(Array(given, (1,), np.int64), 0)
        numbers = to.computed(ast.Add, given, _WORD_BYTES)

        def take_share(others: Any, _: Any) -> None:
            share = to.computed(ast.Mod, to.computed(ast.Add, worker, others), workers)
            begin, end = (
                to.computed(ast.Add, first, to.computed(ast.FloorDiv, to.computed(ast.Mult, count, bound), workers))
                for bound in (share, to.computed(ast.Add, share, 1))
            )
            taken = to.place(Array(_at(to, shares, share, _SHARE_BYTES), (1,), np.int64), 0)

            def now(count: Any) -> Any:
                return to.computed(ast.Add, begin, count)

            with to.loop(lambda: to.compared(ast.Lt, now(builder.load_atomic(taken, "monotonic", 8)), end)):
                start = now(builder.atomic_rmw("add", taken, grain, "monotonic"))
                with builder.if_then(to.compared(ast.Lt, start, end)):
                    stop = to.extreme(ast.Lt, (to.computed(ast.Add, start, grain), end))
                    emitting.emit_call(builder, tasks, arguments, numbers, start, stop, worker)
                    builder.atomic_rmw("add", to.place(row, _DONE), to.computed(ast.Sub, stop, start), "release")

        to.count(0, workers, 1, take_share)
        _emit_wait(to, lambda: builder.load_atomic(to.place(row, _DONE), "acquire", 8), count, give_way)

    to.count(0, steps, 1, take_turn)


def _at(to: Translation, first: Any, i: Any, size: int) -> Any:
    """The address of one of several things of such a size."""
    return to.computed(ast.Add, first, to.computed(ast.Mult, i, size))


def _emit_wait(to: Translation, done: Any, count: Any, give_way: Any) -> None:
    looks = to.variable(ir.Constant(emitting.INTEGER, 0))
    with to.loop(lambda: to.compared(ast.Lt, done(), count)):
        looks.set(to.computed(ast.Add, looks.get(), 1))
        _emit_pause(to.builder)
        patient = to.both_bits(to.compared(ast.Gt, looks.get(), _LOOKS), to.compared(ast.NotEq, give_way, 0))
        with to.builder.if_then(patient):
            emitting.emit_call(to.builder, give_way)


def _emit_pause(builder: Any) -> None:
    """Tell the processor that this loop waits, so that another thread of the core runs meanwhile."""
    for family, word in (("x86", "pause"), ("i686", "pause"), ("aarch64", "yield"), ("arm64", "yield")):
        if emitting.target().triple.startswith(family):
            builder.asm(ir.FunctionType(ir.VoidType(), []), word, "", [], side_effect=True)
            return


@once
def _give_way() -> int:
    """Address of the system's function that lets another thread have this core; 0 where there is none."""
    try:
        found = ctypes.CDLL(None).sched_yield
    except (TypeError, OSError, AttributeError):  # on Windows
        return 0
    return ctypes.cast(found, ctypes.c_void_p).value or 0


# --- the one parallel loop ------------------------------------------------------------------------------------------

_call_worker = emitting.caller(4)


def _work_in_team(workers: Any, work: Any, rows: Any, steps: Any, give_way: Any) -> None:
    for worker in numba.prange(workers):
        _call_worker(work, rows, steps, give_way, worker)


@once
def work_in_team() -> Any:
    """`work_in_team(workers, work, rows, steps, give_way)`: call `work` for each worker, on as many threads."""
    return dispatcher(_work_in_team, parallel=PRANGE_ONLY)  # type: ignore[arg-type]
