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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda more: progress.advance(task, more)
