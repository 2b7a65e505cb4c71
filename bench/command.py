"""What commands of the bench need, and how they end.

Knows packages of the extra and exit statuses; does not know what a command does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from convjit.extras import needed


def has(package: str, program: str) -> bool:
    """Whether a package of the extra is there; one sentence if not."""
    try:
        with needed(program, '"convjit[bench]"'):
            import_module(package)
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return False
    return True


def run(main: Callable[[list[str]], int]) -> None:
    """Exit with what `main` returns for the command line, or with 130 if it was interrupted."""
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
