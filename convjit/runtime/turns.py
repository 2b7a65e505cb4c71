"""Steps that a team of threads takes in turn: the loops of one call, each begun when the one before has ended.

Starting a team takes 10 us, and a thread that sleeps is awake 50 to 100 us later: so the loops of a call share one
start. A worker that finds all tasks of a step taken waits until they are done, not until every worker has come: one
that wakes late, or whose core is taken, holds up nothing but the tasks that it has begun.

Each worker has a share of a step's tasks, neighbours, and takes those of others when it has none left. So what a worker
reads in one step is more often what it wrote in the step before, which its core's caches have: on two threads 24 layers
and their gradients took 0.75 to 1.04 of the time that they took with one counter for all, 0.98 in the middle.

A board is memory that the workers share: a row of 16 words of 64 bits for each step, a cache line for each share, then
the numbers that the steps' tasks are given. Teams are Numba's: the one parallel loop here starts any worker by its
address. Does not know what a task does.
"""

from __future__ import annotations

import ast
import ctypes
import struct
from functools import cache as once
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir

from . import emitting, team, threads
from .plain import Array
from .translating import Translation
from .twins import PRANGE_ONLY, dispatcher


class Step(NamedTuple):
    """Tasks `first <= task < stop` of a loop, run by `tasks(arguments, numbers, first, stop, worker)`."""

    tasks: int  # its address
    first: int
    stop: int
    arguments: tuple[Any, ...]  # whose address it is given
    numbers: bytes


# A row: what workers write, in a cache line of its own, how many tasks are done; then what they read: where the tasks
# begin, how many there are, how many are taken at once, among how many workers, and where shares and numbers are and
# what is called.
_DONE, _FIRST, _COUNT, _GRAIN, _WORKERS, _SHARES, _TASKS, _ARGUMENTS, _NUMBERS, _WORDS = 0, *range(8, 17)
_ROW = struct.Struct(f"{_WORDS}q")
# The line of a share begins with how many of its tasks are taken, or more when none is left.
_SHARE_BYTES = 64

# A worker that waits looks so many times, about 20 us, before it lets others have its core between two looks.
_LOOKS = 1000


def run_steps(workers: int, steps: list[Step]) -> None:
    """Run steps on a team of so many workers."""
    rows, of_step = [], _SHARE_BYTES * workers
    share, at = _ROW.size * len(steps), (_ROW.size + of_step) * len(steps)
    for tasks, first, stop, arguments, numbers in steps:
        grain = team.grain(workers, first, stop)
        told = first, stop - first, grain, workers, share, tasks, id(arguments), at
        rows.append(_ROW.pack(0, 0, 0, 0, 0, 0, 0, 0, *told))
        share += of_step
        at += len(numbers)
    nothing_taken = bytes(of_step * len(steps))
    board = ctypes.create_string_buffer(b"".join([*rows, nothing_taken, *[step.numbers for step in steps]]), at)
    arguments = workers, _worker(), ctypes.addressof(board), len(steps), _give_way()
    threads.run_parallel(workers, work_in_team(), *arguments)


@once
def _worker() -> int:
    """Address of `worker(board, steps, give_way, worker)`, what one worker of a team does."""
    return emitting.compiled(f"{__name__}.worker", {"worker": (4, _emit_worker)})["worker"]


def _emit_worker(builder: Any, parameters: Any) -> None:
    board, steps, give_way, worker = parameters
    to = Translation(builder)

    def take_turn(step: Any, _: Any) -> None:
        row = Array(_at(to, board, step, _ROW.size), (_WORDS,), np.int64)
        first, count, grain, workers = (to.load(row, i) for i in (_FIRST, _COUNT, _GRAIN, _WORKERS))
        shares, tasks, arguments = (to.load(row, i) for i in (_SHARES, _TASKS, _ARGUMENTS))
        shares, numbers = (to.computed(ast.Add, board, offset) for offset in (shares, to.load(row, _NUMBERS)))

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


def _work_in_team(workers: Any, work: Any, board: Any, steps: Any, give_way: Any) -> None:
    for worker in numba.prange(workers):
        _call_worker(work, board, steps, give_way, worker)


@once
def work_in_team() -> Any:
    """`work_in_team(workers, work, board, steps, give_way)`: call `work` for each worker, on as many threads."""
    return dispatcher(_work_in_team, parallel=PRANGE_ONLY)  # type: ignore[arg-type]
