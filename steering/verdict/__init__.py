"""Did tuning create what it gained, or deploy what the base had? The main job.

    found = verdict(VerdictSettings(base="data/organisms/chain/base-0", tuned="..."))
    found.conclusion.answer             # "deployed"
    print(found)                        # the table, the conclusion, where the evidence is silent

Stages measure, rules conclude, the page shows; each stage is a table of `Measurement` rows, so
conclusions can be drawn again, by other rules, without a model:

    settings    VerdictSettings
    running     the stages: which there are, resuming, workers
    context     what every stage works with
    stages/     one module each
    rules       measurements to conclusions, pure
    lines       the table of the evidence
    page        the text, the JSON

Everything is read off the models' behaviour. The recipes, which know what is true of the organisms,
are never opened here (a test holds that no module of this package imports them).

What rows are called (columns of `Measurement`; a figure needs no more):

- ``pass@k``, ``valid@k``: model base, tuned, "tuned - base" (and guessing), skill, part, x = k;
  skill and part "" are all problems together;
- ``option rate``: kind, setting = the option, model base, tuned, "tuned - base"; of steering:
  setting = the arm ("direction" or a control), x = strength, model = the one that was steered;
- ``right``, ``valid``, ``valid steps``: of steering, likewise;
- ``auc``: kind, model, site, x = layer, setting = method; baselines carry their name as setting;
- ``cosine``: kind, site, x = layer, setting = method, model "base x tuned";
- ``activation shift``, ``activation cosine``: site, x = layer, setting = whose texts.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.records import Measurement, read_table, write_json, write_table
from steering.verdict.lines import Line, table
from steering.verdict.page import as_json, render
from steering.verdict.rules import Conclusion, Thresholds, conclude
from steering.verdict.running import STAGES, Bars, Stage, chosen, run_all
from steering.verdict.running import table as stage_table
from steering.verdict.settings import VerdictSettings

__all__ = [
    "STAGES",
    "Bars",
    "Conclusion",
    "Line",
    "Stage",
    "Thresholds",
    "Verdict",
    "VerdictSettings",
    "conclude",
    "measured",
    "render",
    "verdict",
]

EVIDENCE = "evidence.parquet"


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    settings: VerdictSettings
    rows: tuple[Measurement, ...]
    lines: tuple[Line, ...]
    conclusion: Conclusion

    @property
    def heading(self) -> str:
        """Which pair, and from how many answers, recorded or fresh."""
        sources = {}
        for row in self.rows:
            if row.measure == "answers":
                n, _ = sources.get((row.model, row.setting), (0.0, 0))
                sources[row.model, row.setting] = n + row.value, row.n
        answers = ", ".join(
            f"{model}: n = {n:.0f} {source} answers" for (model, source), (n, _) in sources.items()
        )
        return f"{self.settings.base} against {self.settings.tuned} ({answers})"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140, record=True, file=_Nowhere())  # type: ignore[arg-type]
        console.print(render(self))
        return console.export_text()


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def verdict(settings: VerdictSettings, *, progress: bool = True) -> Verdict:
    """Run every stage that isn't done, conclude, and write verdict.json, tables and figures.

    Args:
        settings: what is asked.
        progress: a bar for each stage on standard error.

    Raises:
        Refusal: models that can't be compared, an unknown task or stage, and whatever else can't
            work; found before or in the first stage.
    """
    from steering.verdict.bars import Quiet, RichBars

    with RichBars(chosen(settings)) if progress else Quiet() as bars:
        run_all(settings, bars)
    found = measured(settings)
    out = settings.out
    write_table(out / EVIDENCE, found.rows, Measurement, settings=_plain(settings))
    write_json(
        out / "verdict.json",
        as_json(_plain(settings), found.conclusion, found.lines, {"heading": found.heading}),
    )
    figures(found, out / "figures")
    return found


def measured(settings: VerdictSettings) -> Verdict:
    """The verdict on the stages that are done, from their tables alone."""
    rows: list[Measurement] = []
    for stage in chosen(settings):
        rows += read_table(stage_table(settings.out, stage), Measurement)[0]
    conclusion = conclude(rows, settings.thresholds)
    return Verdict(settings, tuple(rows), tuple(table(rows, conclusion)), conclusion)


def figures(found: Verdict, folder: Path) -> list[Path]:
    """Draw every figure of `probes.plots`, PNG and SVG."""
    import pandas as pd

    from probes.plots import FIGURES, summary

    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([asdict(row) for row in found.rows])
    labels = {skill.skill: skill.label for skill in found.conclusion.skills}
    drawn = []
    for name, draw in FIGURES.items():
        named = {"labels": labels, "title": found.conclusion.answer} if draw is summary else {}
        drawn += draw(frame, folder / name, **named)
    return drawn


def _plain(settings: VerdictSettings) -> dict[str, Any]:
    """The settings as JSON."""
    given = asdict(settings) | {"tuning_rollouts": settings.tuning_answers}
    return {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
