"""A progress bar on a terminal, and silence in a pipe or without `rich`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[str], None]


def _silent(description: str) -> None:
    pass


@contextmanager
def progress_bar(total: int, wanted: bool | None) -> Iterator[Advance]:
    """A function that moves a bar one of `total` steps on and shows a text; `wanted` None asks the terminal."""
    if wanted is False:
        yield _silent
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _silent
        return
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    terminal = console.is_terminal
    if not (wanted or terminal):
        yield _silent  # a disabled bar of rich before 14.3 ends with an empty line
        return
    # A bar leaves a terminal when it is done; where a file asked for one, its last state is what is written.
    with Progress(*columns, console=console, transient=terminal) as bar:
        task = bar.add_task("", total=total)

        def advance(description: str) -> None:
            bar.update(task, advance=1, description=description)

        yield advance
