"""The command line: `python -m convjit`."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import time
import warnings
from pathlib import Path

import numba

from . import __version__, environment, extras, warming
from .runtime import cache


def _whole(text: str, least: int, behind: int) -> int:
    if not text.isdecimal() or len(text) > len(str(behind)) or not least <= int(text) < behind:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to below {behind}, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    """NumPy's global state takes no larger one."""
    return _whole(text, 0, 1 << 32)


def _positive(text: str) -> int:
    return _whole(text, 1, (1 << 31) - 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m convjit", description="Convolution for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"convjit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = "print versions, processor, threads and the cache's state, to be pasted into a bug report"
    commands.add_parser("info", help=info, description=info[0].upper() + info[1:] + ".")
    warmup = commands.add_parser(
        "warmup",
        help="compile ahead and keep it on disk, so that later processes start warm",
        description="Compile ahead and keep it on disk, so that later processes (of a container, of CI) start warm.",
    )
    warmup.add_argument("functions", nargs="*", metavar="FUNCTION", help="such as conv2d (default: all)")
    warmup.add_argument(
        "--dtype", nargs="+", action="extend", dest="dtypes", metavar="DTYPE",
        help=f"of the arrays that will come (default: {' '.join(warming.DTYPES)})",
    )  # fmt: skip
    demo = commands.add_parser(
        "demo",
        help="train a small network on scanned digits and draw what it learned",
        description="Train a small convolutional network on the scanned digits of scikit-learn, compare an epoch with "
        "the same network in plain NumPy, and draw what was learned.",
    )
    demo.add_argument("--epochs", type=_positive, default=20, metavar="N", help="default: %(default)s")
    demo.add_argument(
        "--seed", type=_seed, default=0, metavar="S", help="of weights and batches (default: %(default)s)"
    )
    demo.add_argument(
        "--output", type=Path, default=Path("convjit-digits.png"), metavar="PNG", help="default: %(default)s"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = {"info": _info, "warmup": _warmup, "demo": _demo}[options.command](options)
        print(end="", flush=True)
        return status
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        if error.errno == errno.ENOSPC:
            print(f"convjit: the output could not be written ({error})", file=sys.stderr)
        # Whoever read the output has left, or it is full: the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _info(options: argparse.Namespace) -> int:
    environment.print_report()
    return 0


def _warmup(options: argparse.Namespace) -> int:
    """Exit status 2 for what is not understood, 1 where nothing is kept."""
    functions, dtypes = options.functions or None, options.dtypes or warming.DTYPES
    try:
        wanted = warming.plan(functions, dtypes)
    except (TypeError, ValueError) as error:
        misplaced = [word for word in dtypes if warming.is_function(word)]
        hint = f"; functions stand before --dtype: {' '.join(misplaced)}" if misplaced else ""
        print(f"convjit {error}{hint}", file=sys.stderr)
        return 2
    if not wanted:
        told = f"there is nothing to compile of {', '.join(options.functions)} for {', '.join(dtypes)}"
        print(f"convjit warmup: {told}", file=sys.stderr)
        return 2
    obstacle = "NUMBA_DISABLE_JIT=1" if numba.config.DISABLE_JIT else cache.obstacle()
    if obstacle is not None:
        print(f"convjit warmup: nothing was compiled, because nothing can be kept ({obstacle})", file=sys.stderr)
        return 1
    began = time.perf_counter()
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # what a full disk says is said below
        done = warming.warmup(functions, dtypes)
    obstacle = cache.obstacle()
    if obstacle is not None:
        print(f"convjit warmup: what was compiled is not kept ({obstacle})", file=sys.stderr)
        return 1
    what = ", ".join(options.functions) or "all functions"
    print(
        f"{what} for {', '.join(dtypes)}: compiled {done.compiled} kernels, found {done.loaded}, "
        f"kept in {cache.folder()} ({time.perf_counter() - began:.1f} s)"
    )
    return 0


def _writable(path: Path) -> bool:
    """Whether a file of this name can be made, asked before a minute is spent."""
    return not path.is_dir() and os.access(path if path.exists() else path.absolute().parent, os.W_OK)


def _demo(options: argparse.Namespace) -> int:
    try:
        with extras.needed("convjit demo", '"convjit[demo]"'):
            from . import demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "convjit":
            raise
        print(error, file=sys.stderr)
        return 1
    if not _writable(options.output):
        print(f"convjit demo: cannot write {str(options.output)!r}; choose another --output", file=sys.stderr)
        return 1
    return demo.run(options.epochs, options.seed, options.output)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # a folder may have letters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
