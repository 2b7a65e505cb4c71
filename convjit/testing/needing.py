"""What needs Hypothesis says so in one sentence where it is not installed, with the command that installs it.

Wraps imports and nothing else. It is what `extras` is to the rest of the package, which nothing here imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_hypothesis(name: str) -> Iterator[None]:
    """Around an import that `convjit.testing.{name}` needs: `ModuleNotFoundError` says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "hypothesis":
            raise
        sentence = f'convjit.testing.{name} needs hypothesis, which is not installed: pip install "convjit[test]"'
        raise ModuleNotFoundError(sentence, name=error.name) from None
