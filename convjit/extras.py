"""Packages that convjit can do without: what is missing is said in one sentence, with the command that installs it.

Wraps imports and nothing else. Knows no package by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(by: str, install: str = '"convjit[interop]"') -> Iterator[None]:
    """Around an import of what `by` needs and `pip install {install}` brings: `ModuleNotFoundError` says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "convjit"):  # a mistake of our own
            raise
        sentence = f"{by} needs {package}, which is not installed: pip install {install}"
        raise ModuleNotFoundError(sentence, name=error.name) from None
