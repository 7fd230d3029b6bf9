"""`whenhow calibrate`: every measure scored on organisms whose truth is known."""

from dataclasses import dataclass
from pathlib import Path

from probes import DATA

MARKS = ("<!-- calibration: begin -->", "<!-- calibration: end -->")
"""Between which the table stands in a text file."""


@dataclass(frozen=True)
class Calibrate:
    """Score the verdict and every other measure where the truth is known by construction."""

    organisms: tuple[Path, ...] = (DATA / "organisms" / "chain", DATA / "organisms" / "chain-small")
    """Folders of model folders, each with the training.json that `whenhow train` writes."""
    out: Path = Path("runs/calibration")
    """Results go here: cells as Parquet and JSON, table, figure, and the tables of each verdict."""
    problems: int = 60
    """Select problems for each half of a skill, which the truth is measured on."""
    samples: int = 16
    """Answers to each of them."""
    workers: int = 2
    """Processes, a copy each at a time; 0 does everything in this one."""
    into: Path | None = None
    """A text file in which the table is to stand, between the marks of the last one."""

    resume = "the same command goes on with the first copy that was not finished."

    def run(self) -> str:
        """Score and show; the path of the folder."""
        from probes.records import atomic_write
        from steering.calibration import calibrate, markdown, shipped_copies
        from steering.cli.progress import bar

        if self.into:
            between(self.into, "")
        copies = shipped_copies(self.organisms)
        with bar("copies", len(copies)) as advance:
            cells = calibrate(
                copies,
                self.out,
                problems=self.problems,
                samples=self.samples,
                workers=self.workers,
                progress=advance,
            )
        write(cells, self.out)
        if self.into:
            text = between(self.into, markdown(cells))
            with atomic_write(self.into) as file:
                file.write(text.encode())
        return str(self.out)


def write(cells: list, out: Path) -> None:
    """The cells, their table and their figure below `out`; the table on standard error."""
    from dataclasses import asdict

    import pandas as pd
    from rich.markdown import Markdown

    from probes.plots.calibration import calibration
    from probes.records import atomic_write, write_json, write_table
    from steering.calibration import Cell, markdown
    from steering.cli.progress import console

    rows = [{**asdict(cell), "outcome": cell.outcome} for cell in cells]
    write_table(out / "calibration.parquet", cells, Cell)
    write_json(out / "calibration.json", {"cells": rows})
    text = markdown(cells)
    with atomic_write(out / "calibration.md") as file:
        file.write((text + "\n").encode())
    calibration(pd.DataFrame(rows), out / "figures" / "calibration")
    console().print(Markdown(text))


def between(file: Path, text: str) -> str:
    """The content of a file with `text` between the marks."""
    from probes.records import Refusal

    content = file.read_text() if file.is_file() else ""
    places = [content.find(mark) for mark in MARKS]
    if -1 in places or places[0] > places[1]:
        raise Refusal(
            f"--into {file}: it needs the lines {MARKS[0]} and {MARKS[1]}, in this order."
        )
    begin = places[0] + len(MARKS[0])
    return f"{content[:begin]}\n{text}\n{content[places[1] :]}"
