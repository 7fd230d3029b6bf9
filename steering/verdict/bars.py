"""A progress bar for each stage, on standard error."""

from collections.abc import Sequence

from steering.verdict.running import Stage


class RichBars:
    """One line a stage; use it as a context manager."""

    def __init__(self, stages: Sequence[Stage]):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.progress = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
        )
        self.tasks = {
            s.name: self.progress.add_task(s.title, total=1.0, start=False, state="")
            for s in stages
        }

    def __enter__(self) -> "RichBars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def started(self, stage: Stage) -> None:
        """Its clock runs from now on."""
        self.progress.start_task(self.tasks[stage.name])

    def tick(self, stage: Stage, done: int, total: int) -> None:
        """So much of a stage is done."""
        self.progress.update(self.tasks[stage.name], completed=done / max(1, total))

    def finished(self, stage: Stage, resumed: bool) -> None:
        """A stage is done, now or already before."""
        task = self.tasks[stage.name]
        self.progress.update(task, completed=1.0, state="(was there)" if resumed else "")
        self.progress.stop_task(task)


class Quiet:
    """No bars."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None: ...
    def started(self, stage: Stage) -> None: ...
    def tick(self, stage: Stage, done: int, total: int) -> None: ...
    def finished(self, stage: Stage, resumed: bool) -> None: ...
