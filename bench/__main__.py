"""The command line: `python -m bench`."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from . import command
from .contenders import CONTENDERS, PASSES, installed
from .problems import (
    DTYPES,
    NAMES,
    OTHER_NAMES,
    OTHERS,
    PROBLEMS,
    QUICK,
    RANK_NAMES,
    RANKS,
    Problem,
    drawn_names,
    select,
)

TABLE_WIDTH = 170


def default_threads() -> list[int]:
    """One, and all cores."""
    return sorted({1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure convolution beside its peers, each in a process of its own and in turn; check every "
        "answer. Exit status 1 if an answer is wrong or a contender fails.",
    )
    parser.add_argument("--quick", action="store_true", help="few small problems, few rounds: two to three minutes")
    parser.add_argument("--others", action="store_true", help="layers of other networks, instead of the named problems")
    parser.add_argument("--ranks", action="store_true", help="layers of one dimension and of three, instead")
    parser.add_argument("--drawn", type=positive, metavar="N", help="so many layers that are drawn, instead")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="problems to run, of all tables (see --list)")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES), help="default: all that there are")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="default: both")
    parser.add_argument("--threads", nargs="+", type=positive, metavar="N", help="default: 1 and all cores; quick: all")
    parser.add_argument("--rounds", type=positive, metavar="N", help="samples of each pass (default: 11; quick: 3)")
    parser.add_argument("--without", nargs="+", default=[], choices=[c.name for c in CONTENDERS[1:]], help="leave out")
    parser.add_argument("--warm", action="store_true", help="use the compiled code on disk, not an empty cache")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the JSON (default: results)")
    parser.add_argument("--list", action="store_true", help="show problems and contenders, run nothing")
    return parser


def positive(text: str) -> int:
    """An option that must be a whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def _list(options: argparse.Namespace) -> None:
    print(f"{'problem':18}{'N':>5}{'C':>6}{'H=W':>6}{'O':>6}{'k':>3}{'s':>3}{'p':>3}{'d':>4}{'g':>5}{'MMAC':>8}")
    if options.drawn:
        for problem in select(drawn_names(options.drawn)):
            print(f"{_listed(problem)}  {_RANKS[problem.rank]}")
        return
    for problem in PROBLEMS:
        print(_listed(problem) + ("  quick" if problem.name in QUICK else ""))
    print("\nwith --others:")
    for problem in OTHERS:
        print(_listed(problem))
    print("\nwith --ranks, in one dimension and in three:")
    for problem in RANKS:
        print(_listed(problem) + (f"  {problem.depth} slices" if problem.depth else ""))
    print(f"\npasses: {', '.join(PASSES)}")
    here = installed()
    for contender in CONTENDERS:
        print(f"contender: {contender.name}{'' if contender in here else ' (not installed)'}")


_RANKS = {1: "sequences", 2: "images", 3: "volumes"}


def _listed(problem: Problem) -> str:
    name, n, c, size, o, kernel, stride, padding, dilation, groups, *_ = problem
    return (
        f"{name:18}{n:5}{c:6}{size:6}{o:6}{kernel:3}{stride:3}{padding:3}{dilation:4}{groups:5}"
        f"{problem.multiplications / 1e6:8.1f}"
    )


def main(arguments: list[str]) -> int:
    """Run the bench; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _list(options)
        return 0
    if not command.has("rich", "python -m bench"):
        return 1
    try:
        select(tuple(options.only or ()))
    except ValueError as error:
        parser.error(str(error))
    return _run(options, arguments)


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    from rich.console import Console

    from .measure import Setting, run
    from .progress import shown
    from .report import print_report
    from .results import write_json

    table = RANK_NAMES if options.ranks else OTHER_NAMES if options.others else QUICK if options.quick else NAMES
    table = drawn_names(options.drawn) if options.drawn else table
    problems = select(tuple(options.only or table))
    threads = options.threads or default_threads()[-1 if options.quick else 0 :]
    rounds = options.rounds or (3 if options.quick else 11)
    console = Console(width=max(TABLE_WIDTH, Console().width))  # a narrow terminal wraps lines, but no number is cut
    contenders = [contender for contender in installed() if contender.name not in options.without]
    with ExitStack() as stack:
        # Compiled code goes to an empty folder, so that "first call" has one meaning on every machine.
        cache = None if options.warm else Path(stack.enter_context(TemporaryDirectory(prefix="convjit-bench-cache-")))
        advance = stack.enter_context(shown(len(problems) * len(options.dtype) * len(threads)))
        outcome = run(
            Setting(contenders, rounds, cache, advance, tuple(options.passes)), problems, options.dtype, threads
        )
    print_report(console, outcome, rounds)
    settings = {
        "rounds": rounds,
        "threads": threads,
        "dtypes": options.dtype,
        "passes": options.passes,
        "compiled code": "kept" if options.warm else "cold",
    }
    print(f"written: {write_json(options.output, outcome, arguments, settings)}")
    return 1 if outcome.troubles else 0


if __name__ == "__main__":
    command.run(main)
