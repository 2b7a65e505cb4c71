"""A progress bar on a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def shown(total: int, own_thread: bool = True) -> Iterator[Callable[[str], None]]:
    """Give a function that is told what begins now.

    Without a thread of its own the bar moves only then, and stands in nobody's way.
    """
    console = Console(stderr=True)
    console.quiet = disabled = not console.is_terminal  # a disabled bar of rich before 14.3 ends with an empty line
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=disabled, auto_refresh=own_thread) as progress:
        task = progress.add_task("starting", total=total)
        begun = 0

        def advance(what: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=what, refresh=True)
            begun += 1

        yield advance
