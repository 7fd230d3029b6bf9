"""`whenhow calibrate`: what the verdict says of organisms whose truth is known."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from probes import DATA


@dataclass(frozen=True)
class Calibrate:
    """Score the verdict's conclusions on the shipped organisms, skill by skill."""

    organisms: Path = DATA / "organisms" / "chain"
    """Folder of bases, twins and tuned copies, each with its training.json."""
    task: str = "chain"
    """A shipped task's name, or the path of a task's TOML file."""
    out: Path = Path("runs/calibration")
    """Folder of the verdicts' tables and of calibration.json; a stopped run goes on from there."""
    json: bool = False
    """Print the scored lines as JSON, in place of the path of the folder."""

    resume = "the same command goes on with the first verdict that was not finished."

    def run(self) -> str:
        """Score every copy, show the lines and the confusion matrix."""
        from rich.console import Console
        from tqdm import tqdm

        from probes.records import write_json
        from steering.calibration import score, shipped_copies

        copies = shipped_copies(self.organisms)
        scored = []
        for copy in tqdm(copies, desc="copies", unit=" copies"):
            scored += score(copy, self.task, self.out)
        console = Console(stderr=True)
        for table in tables(scored):
            console.print(table)
        lines = [{**asdict(line), "verdict": line.verdict} for line in scored]
        write_json(self.out / "calibration.json", lines)
        return json.dumps(lines) if self.json else str(self.out)


def tables(scored: list) -> list:
    """Every line; then truth against label, for the seeds that fixed no threshold."""
    from rich.table import Table

    from steering.calibration import FIXED_ON, agreement, confusion

    lines = Table(title="what is true, and what the verdict said")
    for name in ("copy", "skill", "regime", "touched", "untouched", "twin", "truth", "said", ""):
        lines.add_column(name)
    for s in scored:
        changes = (str(s.touched), str(s.untouched), str(s.twin or ""))
        lines.add_row(s.copy, s.skill, s.regime, *changes, s.truth, s.said, s.verdict)
    unseen = [s for s in scored if s.seed != FIXED_ON]
    matrix = confusion(unseen)
    labels = sorted({said for _, said in matrix})
    share = agreement(unseen)
    table = Table(
        title=f"truth against label, pretraining seeds other than {FIXED_ON}",
        caption=f"right among the decided: {share if share else 'none decided'}",
    )
    for name in ("truth", *labels):
        table.add_column(name)
    for true in sorted({true for true, _ in matrix}):
        table.add_row(true, *(str(matrix.get((true, label), 0)) for label in labels))
    return [lines, table]
