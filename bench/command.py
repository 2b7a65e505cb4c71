"""The end of every command of the bench.

Knows exit statuses; does not know what a command does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def run(main: Callable[[list[str]], int]) -> None:
    """Exit with what `main` returns for the command line, or with 130 if it was interrupted."""
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
