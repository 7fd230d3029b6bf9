"""What the measures are made of: a finished verdict, both models, texts and activations."""

from collections.abc import Sequence
from functools import cached_property

from probes.capture import from_rollouts
from probes.divergence import Parted, divergences
from probes.records import Measurement, Rollout
from probes.sae import Sae, load_sae
from probes.sae.active import Rows, read_rows
from steering.calibration.truth import PARTS
from steering.evaluate import Judged, load_judged
from steering.verdict import VerdictSettings, measured
from steering.verdict.context import Context
from steering.verdict.stages.rollouts import BATCH

TEXTS = 120
"""Of each skill: what one forward pass of both models is made of."""


class Evidence:
    """A finished verdict of one copy, and both models; everything is read when first needed."""

    def __init__(self, settings: VerdictSettings) -> None:
        self.context = Context(settings)
        self._read: dict[tuple[str, str], tuple[Rows, Rows]] = {}
        self.found = measured(settings)

    @property
    def rows(self) -> Sequence[Measurement]:
        """All that the stages measured."""
        return self.found.rows

    @cached_property
    def answers(self) -> dict[str, Judged]:
        """Of base and tuned, to the test problems of the touched half."""
        return {m: self.context.rollouts(m).where(part=PARTS[0]) for m in ("base", "tuned")}

    def dictionary(self, which: str) -> Sae | None:
        """The dictionary beside a model, where there is one."""
        folder = self.context.dictionaries.get(which)
        return load_sae(folder, self.context.model(which)) if folder else None

    def read(self, skill: str, site: str) -> tuple[Rows, Rows]:
        """Both models' activations on texts of the tuned model."""
        if (skill, site) not in self._read:
            base, tuned = self.context.pair
            answers = self.texts("tuned", skill)
            texts = from_rollouts(tuned, self.answers["tuned"].problems, answers)
            before, after = (read_rows(m, site, texts, batch=BATCH) for m in (base, tuned))
            self._read[skill, site] = before, after
        return self._read[skill, site]

    @cached_property
    def crossed(self) -> Judged:
        """The stage's own arms of crossed decoding."""
        return load_judged(self.context.file("rollouts-crossed.parquet"))[0].where(part=PARTS[0])

    def texts(self, model: str, skill: str, *, valid: bool = False) -> list[Rollout]:
        """A few answers of a model, from as many problems as there are."""
        of_it = self.answers[model].where(skill=skill)
        pairs = zip(of_it.rollouts, of_it.graded, strict=True)
        kept = [r for r, g in pairs if g.valid or not valid]
        return kept[:: max(1, len(kept) // TEXTS)][:TEXTS]

    def parted(self, texts: Sequence[Rollout]) -> list[Parted]:
        """Both models along these texts."""
        problems = self.answers["base"].problems
        return divergences(*self.context.pair, self.context.task, problems, texts, batch=BATCH)
