"""`whenhow boundary`: does the boundary move, or only the likelihood?"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steering.cli.verdict import SHIPPED


@dataclass(frozen=True)
class Boundary:
    """Measure how far two models reach: pass@k and its critics, with intervals and nulls.

    Without flags: the base and its RL copy that ship, from their recorded answers.
    """

    base: str = SHIPPED.base
    """Folder or name of the model before tuning."""
    tuned: str = SHIPPED.tuned
    """Folder or name of the model after tuning; the base's own for a model against itself."""
    task: str = SHIPPED.task
    """A task that ships, or the path of a TOML file of your own."""
    out: Path = Path("runs/boundary")
    """Folder of the tables, figures and samples; a run that was stopped goes on from there."""
    problems: int = SHIPPED.problems
    """Test problems of each skill and half of its entries."""
    samples: int = SHIPPED.samples
    """Answers to each: the largest k. The base is asked as often again, for the null."""
    k: int = 0
    """Budget of the reported differences, fixed beforehand; 0 for a quarter of the samples."""
    others: int = 40
    """Problems of both and of neither to test again, each, beside all that one alone solved."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Such as "cuda"."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and activations."""
    fresh: bool = False
    """Sample anew, even where recorded answers of this pair lie beside the tuned model."""
    json: bool = False
    """Print the results as JSON, in place of the path of their folder."""

    resume = "the same command goes on with the first shard of answers that was not finished."

    def run(self) -> str:
        """Measure, draw and show; the path of the folder, or the JSON."""
        from dataclasses import asdict

        from probes.plots.boundary import BOUNDARY
        from steering.cli.progress import bars, console
        from steering.cli.results import write_results
        from steering.reach import Reach, reach

        asked = Reach(
            self.base,
            self.tuned,
            self.task,
            self.out,
            self.problems,
            self.samples,
            self.k,
            self.others,
            self.seed,
            self.fresh,
            self.device,
            self.dtype,
        )
        with bars() as advance:
            rows = reach(asked, advance)
        settings = {key: str(value) for key, value in asdict(asked).items()}
        text = write_results(self.out, "boundary", rows, settings, BOUNDARY)
        console().print(shown(rows, f"{self.base} against {self.tuned}", asked.at))
        return text if self.json else str(self.out)


def shown(rows: list, title: str, k: int) -> Any:
    """Two tables of valid answers: all problems with every null, and a line a skill and half.

    Where nobody checks the traces both are of right ones.
    """
    from rich.console import Group
    from rich.table import Table

    from probes.records import unique

    groups = unique([(r.skill, r.part) for r in rows])
    whole = [r for r in rows if (r.skill, r.part) == groups[0]]
    table = Table(title=title)
    nulls = ("against itself", "shuffled", "guessing (right)")
    for name in (f"measure, {counted(rows)} answers", "value [95%]", *nulls):
        table.add_column(name)
    for label, measure, where in lines(whole, k):
        table.add_row(label, *beside(whole, measure, where))
    return Group(table, *([by_skill(rows, groups[1:], k)] if len(groups) > 1 else []))


def lines(rows: list, k: int) -> list[tuple[str, str, dict]]:
    """Label, measure and columns of each line of the first table."""
    from probes.boundary.solvable import EXCLUSIVE, KEPT_BY_LUCK

    most = max(r.x for r in rows if r.measure == "pass@k")
    pair = {"model": "tuned - base"}
    found: list[tuple[str, str, dict]] = [
        (f"pass@{x:g}, tuned - base", "valid@k", {**pair, "x": float(x)})
        for x in sorted({1, k, most})
    ]
    found.append((f"P(cross by k = {most:g})", "crossing valid", {}))
    found.append(("  tuned leads at k = 1", "ahead valid", {}))
    found.append(("crossing at k", "crossing k valid", {}))
    for cell in ("both", "base only", "tuned only", "neither"):
        found.append((f"solved by {cell}", "solvable valid", {"model": cell}))
        bound = f" (equal models: {KEPT_BY_LUCK:g} at most)" if cell in EXCLUSIVE else ""
        found.append((f"  again{bound}", "solvable again valid", {"model": cell}))
    found += [
        (f"cover@{tau:g}, {model}", "cover valid", {"model": model, "x": tau})
        for tau in (0.1, 0.5, 0.9)
        for model in ("base", "tuned", "tuned - base")
    ]
    found.append((f"gap, base@{k} - tuned@1", "efficiency gap valid", {}))
    for model in ("base", "tuned"):
        found.append((f"rate below the limit, {model}", "below limit valid", {"model": model}))
        found.append(("  at exactly 0: not identified", "never valid", {"model": model}))
        found.append(("  log-likelihood that it adds", "zero gain valid", {"model": model}))
    found.append(("base's unsolved, solved later", "solved later valid", {"setting": ""}))
    found.append(("  as one fit to all says", "solved later valid", {"setting": "fit"}))
    which = counted(rows)
    return [(label, of_kind(measure, which), where) for label, measure, where in found]


def counted(rows: list) -> str:
    """Name of what counts: valid answers, or right ones where nobody checks the traces."""
    return "valid" if any(r.measure == "solvable valid" and r.model for r in rows) else "right"


def of_kind(measure: str, which: str) -> str:
    """The measure of valid answers, or the same of right ones."""
    if which == "valid":
        return measure
    return measure.replace("valid@k", "pass@k").replace(" valid", " right")


BY_SKILL: dict[str, tuple[str, dict]] = {
    "P(cross)": ("crossing valid", {"setting": ""}),
    "itself": ("crossing valid", {"setting": "against itself"}),
    "base only": ("solvable valid", {"model": "base only", "setting": ""}),
    "again": ("solvable again valid", {"model": "base only"}),
    "tuned only": ("solvable valid", {"model": "tuned only", "setting": ""}),
    "again ": ("solvable again valid", {"model": "tuned only"}),
    "base below limit": ("below limit valid", {"model": "base"}),
    "tuned below": ("below limit valid", {"model": "tuned"}),
    "gap": ("efficiency gap valid", {"setting": ""}),
}
"""Columns of the second table."""


def by_skill(rows: list, groups: list, k: int) -> Any:
    """A line a skill and half of its entries."""
    from rich.table import Table

    which = counted(rows)
    limit = next(r.x for r in rows if r.measure == f"below limit {which}")
    table = Table(title=f"by skill, {which} answers (gap at k = {k}; limit {limit:.3f})")
    for name in ("", f"pass@{k}, tuned - base", *BY_SKILL):
        table.add_column(name)
    change = {"model": "tuned - base", "x": float(k), "setting": ""}
    for skill, part in groups:
        of_it = [r for r in rows if (r.skill, r.part) == (skill, part)]
        cells = [_first(of_it, of_kind("valid@k", which), change)]
        cells += [_first(of_it, of_kind(m, which), where) for m, where in BY_SKILL.values()]
        table.add_row(" ".join(filter(None, (skill, part))), *cells)
    return table


def beside(rows: list, measure: str, where: dict) -> list[str]:
    """The value, and what the nulls and guessing give for the same thing."""
    from probes.boundary.rows import ITSELF, SHUFFLED

    cells = []
    for setting in ("", ITSELF, SHUFFLED):
        wanted = {"setting": setting, **where} if setting == "" else {**where, "setting": setting}
        cells.append(_first(rows, measure, wanted))
    guess = {"valid@k": "pass@k"}.get(measure, measure.replace("valid", "right"))
    x = {"x": where["x"]} if "x" in where else {}
    if where.get("model") in ("base", "tuned", None):
        cells.append(_first(rows, guess, {**x, "model": "guessing"}))
    elif "solvable valid" in measure:
        cells.append(_first(rows, guess, {**where, "setting": "guessing"}))
    else:
        cells.append("")
    return cells


def _first(rows: list, measure: str, where: dict) -> str:
    for row in rows:
        if row.measure == measure and all(getattr(row, k) == v for k, v in where.items()):
            return said(row)
    return ""


def said(row: Any) -> str:
    """A number with its interval; a crossing that is not there by the last k is censored."""
    if math.isnan(row.value):
        return "none" if row.measure.startswith("solvable again") else f"undefined ({row.note})"
    if row.measure.startswith("crossing k"):
        ends = row.value, row.low, row.high
        k, low, high = (f"> {row.x:g}" if math.isinf(end) else f"{end:g}" for end in ends)
        return f"censored: {k}" if math.isinf(row.value) else f"{k} [{low}, {high}]"
    if math.isnan(row.low):
        return f"{row.value:.3f}"
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
