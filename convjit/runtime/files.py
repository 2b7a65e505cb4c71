"""Files that are written whole or not at all: aside first, then put in the place of the old one.

Knows names, links and modes of files; does not know what is written. Source: POSIX `rename`.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..parsing import describe, shown


def as_path(function: str, path: Any) -> Path:
    """What is given as the name of a file; `TypeError` or `ValueError` if no file can have it."""
    try:
        file = Path(path)
    except TypeError:
        raise TypeError(f"{function}: path must be a string or a path, got {describe(path)}") from None
    try:
        encoded = os.fsencode(file)
    except UnicodeEncodeError:  # half a character
        encoded = b"\0"
    if not file.name or b"\0" in encoded:
        raise ValueError(f"{function}: path must be the name of a file, got {shown(path)}")
    return file


def write_whole(function: str, path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` with a file aside and rename it, so that a full disk or an interrupt leaves the old one whole.

    An old file's mode is kept, and where `path` is a link, what it leads to is replaced. What is there and is no
    regular file is an `OSError`.
    """
    try:
        old = os.stat(path).st_mode
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old):
        raise OSError(f"{function}: path must be a regular file or not be there yet, got {str(path)!r}")
    mode = 0o666 if old is None else stat.S_IMODE(old)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # Never more open than the old one, not even while it is empty.
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
            if old is not None:  # whatever the umask
                os.chmod(temporary, mode)
            write(file)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename = str(path)
        raise
