"""Score the verdict on organisms whose truth is known by construction, and print both.

    copies = shipped_copies(DATA / "organisms" / "chain")
    scored = [line for copy in copies for line in score(copy, "chain", Path("runs/calibration"))]
    print(confusion(scored))

Truth is per skill and tuned copy. It is not the training method (RL can write table entries), and
it is measured apart from the verdict: on problems of the select split, which the verdict's rules
never see, and with what the verdict may not look at, the twin and which entries tuning touched:

- **deployed**: untouched entries improve, and the twin's, tuned identically, don't;
- **recombined**: the same, where the recipe says that the skill was never shown whole;
- **created**: only touched entries improve, or the twin's improve too;
- **lost**: neither improves, and one becomes worse;
- **no gain**: neither half changes by as much as the margin;
- **unknown**: untouched entries improve and there is no tuned twin to compare with; or a change is
  neither shown nor excluded.

The rules' thresholds were set before any organism was measured, or on pretraining seed 0; so the
score to quote is that of the other seeds.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from probes.intervals import Estimate, difference, equivalent, exact_rate, rate
from probes.models import load
from probes.records import Problem, Refusal
from probes.tasks import load_task
from steering.evaluate import Judged, evaluate
from steering.verdict import VerdictSettings, verdict

FIXED_ON = 0
"""The pretraining seed that may have fixed a threshold."""

MARGIN = 0.05
"""The change of a rate that would not matter, as in the verdict's own rules."""

GAINS = ("deployed", "recombined", "created")
"""What is true where something was gained."""

SAID = {
    "deployed": "deployed",
    "latent": "deployed",
    "created": "created",
    "no gain": "no gain",
    "lost": "lost",
}
"""What a label of the verdict claims; every other label claims nothing."""


@dataclass(frozen=True)
class Copy:
    """A tuned copy of a base, with its twin where there is one."""

    name: str
    seed: int
    """Of the pretraining."""
    base: Path
    tuned: Path
    twin: Path | None
    tuned_twin: Path | None
    tuning_rollouts: int
    regimes: tuple[tuple[str, str], ...]
    """Regime of every family in the base's recipe."""


@dataclass(frozen=True)
class Half:
    """Share of valid answers to the select problems of one half of a skill's entries."""

    before: Estimate
    after: Estimate
    change: Estimate
    """Paired by problem, at 99%: a table asks dozens of these, and truth should not be chance."""

    def __str__(self) -> str:
        return f"{self.before.value:.2f} to {self.after.value:.2f}, {self.change}"


@dataclass(frozen=True)
class Scored:
    """One skill of one copy: what is true, and what the verdict said."""

    copy: str
    seed: int
    skill: str
    regime: str
    touched: Half
    untouched: Half
    twin: Half | None
    """The twin's untouched half."""
    truth: str
    said: str

    @property
    def verdict(self) -> str:
        """One of "right", "wrong" and "undecided"."""
        if self.truth == "unknown" or self.said not in SAID:
            return "undecided"
        told = {"recombined": "deployed"}.get(self.truth, self.truth)
        return "right" if SAID[self.said] == told else "wrong"


def shipped_copies(folder: Path) -> list[Copy]:
    """The tuned copies below a folder of organisms, by their `training.json`.

    A copy of ``base-N`` has the twin ``twin-N``; its tuned twin is the copy of that by the same
    kind of training.
    """
    about = {f.parent.name: json.loads(f.read_text()) for f in folder.glob("*/training.json")}
    copies = []
    for name, made in sorted(about.items()):
        start = Path(made["from"]).name if made["from"] else ""
        if not start.startswith("base-"):
            continue
        number = start.removeprefix("base-")
        twin = folder / f"twin-{number}"
        same = [
            other
            for other, its in about.items()
            if its["from"]
            and Path(its["from"]).name == twin.name
            and its["kind"] == made["kind"]
            and _training(its) == _training(made)
        ]
        copies.append(
            Copy(
                name,
                int(number),
                folder / start,
                folder / name,
                twin if twin.is_dir() else None,
                folder / same[0] if same else None,
                max(1, made["tuning_rollouts"]),
                tuple(about[start]["recipe"]["regimes"].items()),
            )
        )
    if not copies:
        raise Refusal(f"{folder} holds no tuned copy of a base: no NAME/training.json says so.")
    return copies


def _training(made: dict) -> dict:
    """What twins must agree in: everything of the recipe but the seed."""
    return {key: value for key, value in made["recipe"].items() if key != "seed"}


def score(
    copy: Copy, task: str, out: Path, *, problems: int = 40, samples: int = 16
) -> list[Scored]:
    """Truth and verdict of every skill whose entries are divided into halves.

    Args:
        copy: which.
        task: its task.
        out: folder of the verdicts' tables; a stopped calibration goes on from there.
        problems: select problems for each half of a skill, which the truth is measured on.
        samples: answers to each.
    """
    settings = VerdictSettings(
        base=str(copy.base),
        tuned=str(copy.tuned),
        task=task,
        out=out / copy.name,
        tuning_rollouts=copy.tuning_rollouts,
        skip=("directions", "strategies", "crossing", "sharpening", "divergence"),
    )
    said = {s.skill: s.label for s in verdict(settings, progress=False).conclusion.skills}
    regimes = dict(copy.regimes)
    loaded = load_task(task)
    lines = []
    for skill in loaded.skills:
        if not loaded.problems("select", 1, skill=skill)[0].part:
            continue
        halves = {}
        for part in ("touched", "untouched"):
            chosen = loaded.problems("select", problems, skill=skill, part=part)
            halves[part] = half(copy.base, copy.tuned, task, tuple(chosen), samples)
            if part == "untouched" and copy.twin and copy.tuned_twin:
                halves["twin"] = half(copy.twin, copy.tuned_twin, task, tuple(chosen), samples)
        true = truth(
            halves["touched"].change,
            halves["untouched"].change,
            halves["twin"].change if "twin" in halves else None,
            regimes.get(skill, ""),
        )
        lines.append(
            Scored(
                copy.name,
                copy.seed,
                skill,
                regimes.get(skill, ""),
                halves["touched"],
                halves["untouched"],
                halves.get("twin"),
                true,
                said[skill],
            )
        )
    return lines


def half(base: Path, tuned: Path, task: str, problems: tuple[Problem, ...], samples: int) -> Half:
    """How a pair answers the same problems."""
    before, after = (
        _judged(path, task, problems, samples).rates("valid") for path in (base, tuned)
    )
    return Half(rate(before), rate(after), difference(after, before, level=0.99))


@cache
def _judged(path: Path, task: str, problems: tuple[Problem, ...], samples: int) -> Judged:
    """The base of several copies is sampled once."""
    return evaluate(load(path), load_task(task), problems, samples=samples, batch=192)


def truth(touched: Estimate, untouched: Estimate, twin: Estimate | None, regime: str) -> str:
    """The truth by construction, from the changes of the two halves and of the twin.

    >>> up, flat = Estimate(0.5, 0.4, 0.6, 40), Estimate(0.0, -0.02, 0.02, 40)
    >>> truth(up, up, flat, "locked"), truth(up, up, flat, "composable")
    ('deployed', 'recombined')
    >>> truth(up, up, up, "absent")
    'created'
    >>> truth(up, flat, flat, "rare"), truth(flat, flat, flat, "rare"), truth(up, up, None, "rare")
    ('created', 'no gain', 'unknown')
    >>> down, wide = Estimate(-0.2, -0.3, -0.1, 40), Estimate(0.0, -0.1, 0.1, 40)
    >>> truth(flat, down, None, "rare"), truth(flat, wide, None, "rare")
    ('lost', 'unknown')
    """
    if untouched.low > 0:
        if twin is None:
            return "unknown"
        if twin.low > 0:
            return "created"
        return "recombined" if regime == "composable" else "deployed"
    if touched.low > 0:
        return "created"
    if min(touched.high, untouched.high) < 0:
        return "lost"
    still = all(equivalent(change, MARGIN) for change in (touched, untouched))
    return "no gain" if still else "unknown"


def confusion(scored: Sequence[Scored]) -> dict[tuple[str, str], int]:
    """How often each truth met each label."""
    return dict(Counter((line.truth, line.said) for line in scored))


def agreement(scored: Sequence[Scored], *, gains: bool = False) -> Estimate | None:
    """Share of the decided lines that are right, with the interval that their number allows.

    Lines of one copy are not independent, so the interval is, if anything, too narrow.

    Args:
        scored: the lines.
        gains: those only where something was gained; to say "no gain" of nothing is easier.
    """
    chosen = [line for line in scored if line.truth in GAINS or not gains]
    decided = [line.verdict == "right" for line in chosen if line.verdict != "undecided"]
    return exact_rate(sum(decided), len(decided)) if decided else None
