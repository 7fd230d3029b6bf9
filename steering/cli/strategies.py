"""`whenhow strategies`: label the sentences of recorded answers, and how far labellers agree."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class StrategiesLabel:
    """Label the sentences of recorded answers, by one labeller or several, with their agreement.

    By words without flags; --taxonomy, --probe and --judge add labellers.
    """

    rollouts: Path
    """The Parquet file of `whenhow sample`."""
    out: Path = Path("runs/strategies")
    """Folder: labels.parquet, a row a sentence and labeller, and the agreement with its figures."""
    cut: Literal["sentences", "steps"] = "sentences"
    """What is labelled: sentences, or paragraphs."""
    lexicon: str = "reasonscore"
    """Word list: one that ships, or the path of a TOML file of your own; "" for none."""
    model: str = ""
    """Model that reads the answers for --taxonomy and --probe: a folder, or a Hugging Face name."""
    taxonomy: str = ""
    """File of a taxonomy of that model."""
    probe: str = ""
    """Site of a linear probe, such as blocks.1.hook_resid_post; the lexicon teaches it."""
    judge: str = ""
    """Address of a judge, such as http://127.0.0.1:8000/v1."""
    judge_model: str = ""
    """Its name there."""
    rubric: str = "venhoff"
    """What it is asked: one that ships, or the path of a TOML file of your own."""
    judge_key: str = ""
    """Environment variable that holds its key, where one is needed."""
    judged: Path = Path("runs/judged")
    """Folder of its answers: none is asked for twice, whatever the run."""
    rename: tuple[str, ...] = ()
    """Labels that mean the same, such as backtracking=reflection; deduction= makes it none."""
    seed: int = 0
    """Of the probe's thirds, its nulls and the intervals."""
    device: str = "cpu"
    """Where the model is: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of its weights."""
    json: bool = False
    """Print the agreement as JSON, in place of the path of the folder."""

    resume = "the same command goes on: what the judge has answered is kept."

    def run(self) -> str:
        """Label, write, compare; the path of the folder, or the JSON."""
        from probes.records import Refusal, write_table
        from probes.strategies.labellers import Labelled, labelled, passages
        from probes.strategies.sentences import sentences, steps
        from steering.cli.progress import bars
        from steering.evaluate import load_judged

        names = renames(self.rename)
        answers, about = load_judged(self.rollouts)
        cut = {"sentences": sentences, "steps": steps}[self.cut]
        texts = passages(answers.problems, answers.rollouts, cut)
        if not (self.lexicon or self.taxonomy or self.judge):
            raise Refusal("nothing labels: give --lexicon, --taxonomy or --judge.")
        with bars() as advance:
            made, told = self._labellers(texts, advance)
            rows = labelled(made, texts)
        write_table(
            self.out / "labels.parquet",
            rows,
            Labelled,
            rollouts=str(self.rollouts),
            cut=self.cut,
            sampled=about.get("identity", ""),
        )
        return _compared(self.out, rows, names, self.seed, told, self.json)

    def _labellers(self, texts: list, advance: Any) -> tuple[list, list]:
        """Those that were asked for, and the evidence of the probe, as rows."""
        from probes.records import Refusal
        from probes.strategies.labellers import ByLexicon
        from probes.strategies.lexicon import load_lexicon

        made: list = [ByLexicon(load_lexicon(self.lexicon))] if self.lexicon else []
        told: list = []
        if (self.taxonomy or self.probe) and not self.model:
            raise Refusal("--taxonomy and --probe read the answers through a model: give --model.")
        if self.probe and not self.lexicon:
            raise Refusal("--probe is taught by the lexicon: give --lexicon.")
        if self.judge:
            made.append(self._judge(texts, advance))
        if self.model:
            from probes.models import load_on

            model = load_on(self.model, self.device, self.dtype)
            if self.taxonomy:
                made.append(_sorter(model, self.taxonomy))
            if self.probe:
                learnt, told = _learnt(model, self.probe, made[0], texts, self.seed)
                made.append(learnt)
        return made, told

    def _judge(self, texts: list, advance: Any) -> Any:
        from probes.strategies.chat import Chat
        from probes.strategies.judge import ByJudge
        from probes.strategies.rubric import load_rubric

        count = sum(len(one.segments) for one in texts)
        return ByJudge(
            Chat(self.judge, self.judge_model, self.judge_key),
            self.judge_model,
            load_rubric(self.rubric),
            self.judged,
            progress=lambda more: advance("judged", more, count),
        )


@dataclass(frozen=True)
class StrategiesAgree:
    """How far the labellers of one or several tables of the same sentences agree."""

    labels: tuple[Path, ...]
    """Files labels.parquet of `whenhow strategies label`."""
    out: Path = Path("runs/agreement")
    """Folder of the numbers and figures."""
    rename: tuple[str, ...] = ()
    """Labels that mean the same, such as backtracking=reflection; deduction= makes it none."""
    seed: int = 0
    """Of the intervals."""
    json: bool = False
    """Print the agreement as JSON, in place of the path of the folder."""

    resume = "the same command begins anew: it takes seconds."

    def run(self) -> str:
        """Compare every pair; the path of the folder, or the JSON."""
        from probes.records import read_table
        from probes.strategies.labellers import Labelled

        rows = [row for path in self.labels for row in read_table(path, Labelled)[0]]
        return _compared(self.out, rows, renames(self.rename), self.seed, [], self.json)


def renames(given: tuple[str, ...]) -> dict[str, str]:
    """What --rename says, "old=new" each.

    >>> renames(("backtracking=reflection", "deduction="))
    {'backtracking': 'reflection', 'deduction': ''}
    """
    from probes.records import Refusal

    if bad := [one for one in given if one.count("=") != 1 or one.startswith("=")]:
        raise Refusal(f"--rename {bad[0]!r}: it is old=new, or old= for none.")
    return {one.partition("=")[0]: one.partition("=")[2] for one in given}


def _compared(out: Path, rows: list, names: dict, seed: int, told: list, as_json: bool) -> str:
    """Write and show the agreement of every pair."""
    from probes.plots.labellers import LABELLERS
    from probes.strategies.between import agreements, renamed
    from steering.cli.progress import console
    from steering.cli.results import write_results

    found = [*agreements(renamed(rows, names), seed=seed), *told]
    settings = {"rename": names, "seed": seed}
    text = write_results(out, "agreement", found, settings, LABELLERS)
    console().print(_shown(found))
    return text if as_json else str(out)


def _shown(rows: list) -> Any:
    """What each labeller gives, how every pair agrees, and what the probe is worth."""
    from rich.console import Group
    from rich.table import Table

    alone = Table(title="labels, as shares of the segments (95% over problems)")
    for name in ("labeller", "label", "share", "segments"):
        alone.add_column(name)
    pairs = Table(title="agreement: Cohen's kappa (95% over problems)")
    for name in ("labellers", "kappa", "same label", "labelled by both"):
        pairs.add_column(name)
    probes = Table(title="probe: AUC on problems it never met")
    for name in ("label", "AUC", "shuffled labels (95%)"):
        probes.add_column(name)
    for r in rows:
        if r.measure in ("label share", "unlabelled"):
            label = r.kind if r.measure == "label share" else f"unlabelled: {r.kind}"
            alone.add_row(r.model, label, _said(r), f"{r.x:.0f}" if r.x == r.x else "")
        elif r.measure == "kappa":
            beside = [
                _said(o)
                for what in ("agreement", "labelled by both")
                for o in rows
                if (o.measure, o.model, o.setting) == (what, r.model, r.setting)
            ]
            pairs.add_row(f"{r.model}\n{r.setting}", _said(r), *beside)
        elif r.measure == "probe auc":
            probes.add_row(r.kind, _said(r), f"{r.x:.2f}")
    return Group(*(t for t in (alone, pairs, probes) if t.row_count))


def _said(row: Any) -> str:
    if row.value != row.value:
        return f"undefined ({row.note})"
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"


def _sorter(model: Any, path: str) -> Any:
    from probes.strategies.residuals import SentenceMeans
    from probes.taxonomy import ByTaxonomy, load_taxonomy

    taxonomy = load_taxonomy(path, model)
    return ByTaxonomy(taxonomy, SentenceMeans(model, taxonomy.site))


def _learnt(model: Any, site: str, teacher: Any, texts: list, seed: int) -> tuple[Any, list]:
    """A probe that the teacher taught, and its evidence as rows; `x` is the null's 95% quantile."""
    from probes.measurements import row
    from probes.strategies.labellers import Unlabelled
    from probes.strategies.probing import ByProbe, fit_probe
    from probes.strategies.residuals import SentenceMeans

    read = SentenceMeans(model, site)
    given = [None if isinstance(x, Unlabelled) else x for of in teacher.label(texts) for x in of]
    problems = [one.problem for one in texts for _ in one.segments]
    probe = fit_probe(read(texts), given, problems, taught_by=teacher.name, seed=seed)
    by_probe = ByProbe(probe, read)
    told = [
        row("probe auc", e.auc, model=by_probe.name, kind=e.label or "(none)", site=site, x=high)
        for e in probe.evidence
        for high in [e.null_high]
    ]
    return by_probe, told
