"""`whenhow calibrate`: the verdict scored on organisms whose truth is known."""

from dataclasses import dataclass
from pathlib import Path

from probes import DATA


@dataclass(frozen=True)
class Calibrate:
    """Score the verdict on organisms whose truth is known by construction."""

    organisms: Path = DATA / "organisms" / "chain"
    """Folder of model folders, each with the training.json that `whenhow train` writes."""
    task: str = "chain"
    """Their task."""
    out: Path = Path("runs/calibration")
    """Results go here: calibration.json, and the tables of each verdict."""
    problems: int = 40
    """Select problems for each half of a skill, which the truth is measured on."""
    samples: int = 16
    """Answers to each of them."""

    resume = "the same command goes on with the first stage that was not finished."

    def run(self) -> str:
        """Score and show; the path of the JSON."""
        from dataclasses import asdict

        from probes.records import write_json
        from steering.calibration import FIXED_ON, agreement, score, shipped_copies
        from steering.cli.progress import bar, console

        copies, scored = shipped_copies(self.organisms), []
        with bar("organisms", len(copies)) as advance:
            for copy in copies:
                args = {"problems": self.problems, "samples": self.samples}
                scored += score(copy, self.task, self.out, **args)
                advance(1)
        held = [line for line in scored if line.seed != FIXED_ON]
        console().print(shown(scored, "all copies"))
        console().print(shown(held, "copies of pretraining seeds that fixed no threshold"))
        right = {}
        for name, lines in (("all", scored), ("held-out seeds", held)):
            right[name] = agreement(lines)
            right[f"{name}, where something was gained"] = agreement(lines, gains=True)
        for name, share in right.items():
            console().print(
                f"right of the decided, {name}: {share} (n = {share.n})" if share else ""
            )
        file = self.out / "calibration.json"
        lines = [{**asdict(s), "verdict": s.verdict} for s in scored]
        write_json(file, {"right": {k: v and asdict(v) for k, v in right.items()}, "lines": lines})
        return str(file)


def shown(scored: list, of: str) -> object:
    """The confusion table, and the lines that are wrong."""
    from rich.table import Table

    from steering.calibration import confusion

    counted = confusion(scored)
    said = sorted({label for _, label in counted})
    table = Table("truth", *said, title=f"what is true, and what the verdict said: {of}")
    for truth in sorted({true for true, _ in counted}):
        table.add_row(truth, *(str(counted.get((truth, label), "")) for label in said))
    for line in scored:
        if line.verdict == "wrong":
            title = f"{line.copy}, skill {line.skill}: {line.truth}, not {line.said}"
            table.caption = f"{table.caption}\n{title}" if table.caption else title
    return table
