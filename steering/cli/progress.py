"""A progress bar on standard error, and silence where nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def console() -> Any:
    """Standard error; wide where it is a file, for what is redirected is read later."""
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else 140)


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar while the block runs; call what it gives with how much more is done."""
    with bars() as advance:
        advance(title, 0, total)
        yield lambda more: advance(title, more, total)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for everything that is told of: its title, how much more is done, and of how much."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, TimeElapsedColumn(), console=console()) as progress:

        def advance(title: str, more: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total)
            progress.advance(tasks[title], more)

        yield advance
