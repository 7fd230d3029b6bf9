"""`whenhow divergence`: where two models part, in what they say."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probes import DATA
from probes.records import Measurement, Refusal

if TYPE_CHECKING:
    from steering.evaluate import Judged
    from steering.verdict.context import Context
    from steering.verdict.settings import VerdictSettings

ORGANISMS = DATA / "organisms" / "chain"
SHIPPED = (str(ORGANISMS / "base-0"), str(ORGANISMS / "rl-0-0"), str(ORGANISMS / "rl-0-1"))
NULL_SAMPLES = 8
"""Answers of the null model to each problem: a null needs no large k."""


@dataclass(frozen=True)
class Divergence:
    """Measure where two models part in what they say: KL by place, ranks, perplexity, bits.

    Without flags: of the base and its RL copy that ship, with another RL seed as the null.
    """

    base: str = SHIPPED[0]
    """Folder or name of the model before tuning."""
    tuned: str = SHIPPED[1]
    """Folder or name of the model after tuning."""
    task: str = "chain"
    """A shipped task's name, or the path of a task's TOML file."""
    null: str = ""
    """A model that differs from the tuned one by chance alone, such as another seed."""
    out: Path = Path("runs/divergence")
    """Folder of answers, numbers and figures; answers that are there are not sampled again."""
    problems: int = 60
    """Test problems for each skill and half of its entries."""
    samples: int = 32
    """Answers of each model to each of them."""
    texts: int = 2
    """Of these answers, how many are read token by token by both models."""
    solved: int = 5
    """Problems of each skill and half whose solutions are enumerated; 0 for none. Of free text
    none can be."""
    floor: float = 1e-5
    """A solution that both models find rarer than this is not listed."""
    seed: int = 0
    """Everything random follows from it."""
    fresh: bool = False
    """Sample anew, even where recorded answers of this pair lie beside the tuned model."""
    device: str = "cpu"
    """Where the models are: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and activations."""
    json: bool = False
    """Print the numbers as JSON, in place of the path of their folder."""

    resume = "the same command goes on with the answers that were finished."

    def __post_init__(self) -> None:
        """Refuse what can never work, before any work is done."""
        if min(self.texts, self.samples) < 1 or self.solved < 0 or self.problems < 2:
            raise Refusal(
                f"texts {self.texts} and samples {self.samples} (at least 1), solved {self.solved} "
                f"(at least 0), problems {self.problems} (at least 2: intervals resample problems)."
            )
        if not 0 < self.floor < 1:
            raise Refusal(f"floor {self.floor} is no probability between 0 and 1.")

    def run(self) -> str:
        """Measure, draw, show; the path of the folder, or the JSON."""
        from dataclasses import asdict

        from probes.plots.divergence import DIVERGENCE
        from steering.cli.progress import console
        from steering.cli.results import write_results

        rows = measure(self)
        about = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        figures = {f"divergence-{name}": draw for name, draw in DIVERGENCE.items()}
        text = write_results(self.out, "divergence", rows, about, figures)
        for table in shown(rows):
            console().print(table)
        return text if self.json else str(self.out)


def measure(asked: Divergence) -> list[Measurement]:
    """Every number of the verb: the pair, then its nulls."""
    from steering.verdict.context import Context
    from steering.verdict.stages import divergence as stage

    context, null = Context(settings(asked)), settings_of_null(asked)
    other = Context(null) if null else None
    for one in (context, other):
        _ = one and one.pair  # a wrong model is refused before any is measured
    judged = {which: answered(context, which) for which in ("base", "tuned")}
    rows = stage.texts(context, judged, ("base", "tuned"), asked.texts)
    rows += stage.perplexities(context, judged, ("base", "tuned"))
    rows += stage.itself(context, judged["base"])
    rows += solved(asked, context, ("base", "tuned"))
    if other:
        pair = {"tuned": judged["tuned"], "null": answered(other, "tuned")}
        rows += stage.texts(other, pair, ("tuned", "null"), asked.texts)
        rows += stage.perplexities(other, pair, ("tuned", "null"))
        rows += solved(asked, other, ("tuned", "null"))
    return rows


def settings(asked: Divergence) -> "VerdictSettings":
    """What the verdict's stages are asked for."""
    from steering.verdict.settings import VerdictSettings

    return VerdictSettings(
        asked.base,
        asked.tuned,
        asked.task,
        asked.out,
        fresh=asked.fresh,
        seed=asked.seed,
        problems=asked.problems,
        samples=asked.samples,
        device=asked.device,
        dtype=asked.dtype,
    )


def settings_of_null(asked: Divergence) -> "VerdictSettings | None":
    """The same of the tuned model and its null; none where there is no null."""
    from dataclasses import replace

    null = asked.null or (SHIPPED[2] if (asked.base, asked.tuned) == SHIPPED[:2] else "")
    if not null:
        return None
    about = {"base": asked.tuned, "tuned": null, "out": asked.out / "null"}
    return replace(settings(asked), **about, samples=min(asked.samples, NULL_SAMPLES))


def answered(context: "Context", which: str) -> "Judged":
    """The judged answers of a model, sampled unless they are recorded or there."""
    from steering.cli.progress import bar
    from steering.verdict.running import STAGES, run_stage

    stage = next(s for s in STAGES if s.name == f"rollouts-{which}")
    total = len(context.test) * context.settings.samples
    with bar(stage.title, total) as advance:
        done = 0

        def tick(now: int, of: int) -> None:  # noqa: ARG001 (a tick's two numbers)
            nonlocal done
            advance(now - done)
            done = now

        run_stage(context, stage, tick)
        advance(total - done)
    return context.rollouts(which)


def solved(asked: Divergence, context: "Context", names: tuple[str, str]) -> list[Measurement]:
    """Selection and reshaping over the solutions of a few problems of each cell."""
    from probes.divergence import bits, bits_rows, enumerable, solutions
    from steering.cli.progress import bar
    from steering.verdict.stages.rollouts import BATCH

    if not asked.solved or not enumerable(context.task):
        return []
    some = context.problems("test", min(asked.solved, asked.problems))
    with bar(f"solutions, {' and '.join(names)}", len(some)) as advance:
        how = {"floor": asked.floor, "batch": BATCH, "progress": advance}
        found = solutions(*context.pair, context.task, some, **how)
    return bits_rows([bits(one) for one in found], some, names, seed=asked.seed)


def shown(rows: list[Measurement]) -> list[Any]:
    """The tables of the verb: each number beside its null."""
    tables = [_of_places(rows), _of_answers(rows), _of_bits(rows)]
    return [table for table in tables if table.row_count]


def _of_places(rows: list[Measurement]) -> Any:
    """KL by place, both ways and on both writers' texts."""
    from rich.table import Table

    columns = ("base || tuned", "tuned || base")
    nulls = {"shuffled": "base || tuned", "another seed": "tuned || null", "itself": "base || base"}
    titles = [f"KL({column})" for column in columns]
    table = Table("texts", "place", *titles, *nulls, title="KL of a token, nats")
    for texts in ("base's texts", "tuned's texts"):
        of_it = [r for r in rows if r.measure == "kl" and r.setting.startswith(texts)]
        first = [r for r in of_it if (r.model, r.setting) == (columns[0], texts)]
        for kind in [r.kind for r in first]:
            here = [r for r in of_it if r.kind == kind]
            cells = [_said(here, model=c, setting=texts) for c in columns]
            cells.append(_said(here, model=columns[0], setting=f"{texts}, shuffled places"))
            beside = [nulls[name] for name in ("another seed", "itself")]
            cells += [_said(here, model=model, setting=texts) for model in beside]
            table.add_row(texts, kind or "all", *cells)
    return table


def _of_answers(rows: list[Measurement]) -> Any:
    """Perplexity of the tuned model's valid answers over the base's, and how soon texts part."""
    from rich.table import Table

    table = Table("read by", "of whose valid answers", "perplexity ratio", "likelier (null .5)")
    table.title = "answers that count (valid; right in free text), by problem and length"
    for r in rows:
        if r.measure == "perplexity ratio":
            likelier = _said(rows, measure="likelier", model=r.model, setting=r.setting)
            table.add_row(r.model, r.setting, _text(r), likelier)
    return table


def _of_bits(rows: list[Measurement]) -> Any:
    """Selection and reshaping by skill, beside what two seeds differ by."""
    from rich.table import Table

    terms = ("selection bits", "reshaping bits", "gain bits")
    table = Table("skill", *terms, *(f"{t}, another seed" for t in terms), title="bits a problem")
    for r in rows:
        if r.measure == terms[0] and r.setting == "base and tuned":
            about = {"skill": r.skill, "part": r.part}
            cells = [
                _said(rows, measure=t, setting=s, **about)
                for s in ("base and tuned", "tuned and null")
                for t in terms
            ]
            table.add_row(f"{r.skill} {r.part}".strip() or "all", *cells)
    return table


def _said(rows: list[Measurement], **columns: Any) -> str:
    """The one row of these columns with its interval; empty where there is none."""
    found = [r for r in rows if all(getattr(r, k) == v for k, v in columns.items())]
    return _text(found[0]) if found else ""


def _text(row: Measurement) -> str:
    from probes.intervals import Estimate

    reason = row.note if math.isnan(row.value) else ""
    return str(Estimate(row.value, row.low, row.high, row.n, reason=reason))
