"""One setting judged, or several in one batch: a writer, a task, its verdicts.

    judged = evaluate(model, task, problems, samples=16)                 # a model as it is
    judged.counts(part="untouched")                                      # for `probes.boundary`
    judged.rates("valid", skill="n")                                     # (problems,) for intervals
    strategies.mark(task, judged.problems, judged.rollouts)

    steered = evaluate(Steered(steer), task, problems, samples=16, settings=(None, "push"))
    difference(steered.rates("right", setting="push"), steered.rates("right", setting=None))

Rates of two records pair by place where both were asked the same problems in the same order; the
random numbers follow (seed, problem, sample), so they are common to all settings, writers and
decodings. What must be independent (a model against itself) takes another `first_sample`.

An answer whose grader failed is in no rate. Not here: what an intervention does
(`steering.interventions`), pass@k (`probes.boundary`), which numbers make a verdict.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from probes.boundary import Counts, counts
from probes.frames import card, frame
from probes.generate import Decoding, Observer, Request, Writer, generate
from probes.models import Model, encode
from probes.records import (
    Grade,
    Problem,
    Refusal,
    Rollout,
    read_table,
    unique,
    write_table,
)
from probes.tasks import Task
from probes.verify import Graded, grade_all

Which = Literal["right", "valid", "parsed", "unparsed"]
"""Share of a problem's answers that are right; right by a valid trace; readable; not readable."""

ANY: Any = object()
"""No selection: None is itself a setting."""


@dataclass(frozen=True)
class Judged:
    """Answers with their verdicts; the three tuples of answers run side by side."""

    problems: tuple[Problem, ...]
    """Each once, in the order of all rates."""
    rollouts: tuple[Rollout, ...]
    graded: tuple[Graded, ...]

    def __add__(self, more: "Judged") -> "Judged":
        """Both, for further samples, problems or settings."""
        together = Judged(
            tuple(unique([*self.problems, *more.problems])),
            self.rollouts + more.rollouts,
            self.graded + more.graded,
        )
        keys = [(r.problem, r.sample, r.setting) for r in together.rollouts]
        if len(set(keys)) < len(keys):
            raise Refusal(
                "the two records share answers (problem, sample, setting): together they would "
                "count twice. Sample the second with another first_sample."
            )
        return together

    @property
    def ways(self) -> tuple[Which, ...]:
        """What can be counted of these answers: "valid" only where their traces were checked."""
        return ("right",) if any(g.valid is None for g in self.graded) else ("right", "valid")

    def frame(self) -> Any:
        """A row an answer with its verdict, as a pandas frame; the tokens are left out."""
        return frame(lines(self)).drop(columns=["tokens", "logprobs"])

    def _repr_html_(self) -> str:
        """How many answers to how many problems, and what they came to, in a notebook."""
        told = {"problems": len(self.problems), "answers": len(self.rollouts)}
        told |= {g.value: sum(one.grade is g for one in self.graded) for g in Grade}
        settings = ", ".join(name or "plain" for name in unique(r.setting for r in self.rollouts))
        return card("Judged answers", {**told, "settings": settings})

    def where(
        self, *, setting: Hashable = ANY, skill: str | None = None, part: str | None = None
    ) -> "Judged":
        """The answers of one setting (None is the plain one), skill or part.

        Raises:
            Refusal: none is left.
        """
        kept = {
            p.id: p for p in self.problems if skill in (None, p.skill) and part in (None, p.part)
        }
        name = setting if setting is ANY else setting_name(setting)
        pairs = [
            (r, g)
            for r, g in zip(self.rollouts, self.graded, strict=True)
            if r.problem in kept and (name is ANY or r.setting == name)
        ]
        if not pairs:
            settings = unique(r.setting for r in self.rollouts)
            groups = unique((p.skill, p.part) for p in self.problems)
            wanted = ", ".join(
                f"{what} {value!r}"
                for what, value in (("setting", name), ("skill", skill), ("part", part))
                if value is not None and value is not ANY
            )
            raise Refusal(f"no answer is of {wanted}; there are settings {settings}, {groups}.")
        rollouts, graded = zip(*pairs, strict=True)
        return Judged(tuple(kept.values()), rollouts, graded)

    def counts(
        self, *, setting: Hashable = ANY, skill: str | None = None, part: str | None = None
    ) -> list[Counts]:
        """What the answers to each problem came to.

        Raises:
            Refusal: several settings and none chosen, or a problem without a judged answer.
        """
        of_it = self.where(setting=setting, skill=skill, part=part)
        if len(settings := {r.setting for r in of_it.rollouts}) > 1:
            raise Refusal(f"answers of {sorted(settings)}: choose one setting to count.")
        found = counts([r.problem for r in of_it.rollouts], of_it.graded)
        by_id = {one.problem: one for one in found}
        if lost := [p.id for p in of_it.problems if p.id not in by_id]:
            raise Refusal(f"{len(lost)} problem(s) have no answer, first {lost[0]}.")
        return [by_id[p.id] for p in of_it.problems]

    def rates(
        self,
        which: Which,
        *,
        setting: Hashable = ANY,
        skill: str | None = None,
        part: str | None = None,
    ) -> Float[np.ndarray, " problems"]:
        """Share of each problem's answers, in the order of `problems`.

        Raises:
            Refusal: as `counts`, or "valid" is asked for and the task checks no traces.
        """
        counted = self.counts(setting=setting, skill=skill, part=part)
        if which in ("right", "valid"):
            return np.array([c.number(which) / c.n for c in counted], dtype=np.float64)
        of_each = {
            "unparsed": [c.unparsed / c.n for c in counted],
            "parsed": [1 - c.unparsed / c.n for c in counted],
        }
        return np.array(of_each[which], dtype=np.float64)


def evaluate(
    source: Model | Writer,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    seed: int = 0,
    first_sample: int = 0,
    settings: Sequence[Hashable] = (None,),
    observers: Sequence[Observer] = (),
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> Judged:
    """Sample answers, grade them and check their traces.

    Args:
        source: a model, or a writer over one or several.
        task: made the problems.
        problems: each once.
        samples: answers for each problem and setting.
        decoding: where it names no stop tokens, the tokenizer's end-of-sequence token stops.
        seed: of the common random numbers.
        first_sample: index of the first sample; disjoint ranges give independent answers.
        settings: what observers and writers look up in `Request.setting`; all in one batch.
        observers: on a plain model, as in `generate`.
        batch: rows decoded together, a matter of speed.
        progress: called with the number of answers finished since the last call.

    Raises:
        Refusal: a problem twice, no samples, or what `generate` refuses.
        GraderFailure: more than 1% of the answers could not be judged.
    """
    model = source if isinstance(source, Model) else source.steppers[0].model
    if len({p.id for p in problems}) < len(problems) or not problems or samples < 1:
        raise Refusal(
            f"{len(problems)} problems, {len({p.id for p in problems})} of them different, and "
            f"{samples} samples: give each problem once, at least one, and at least one sample."
        )
    if not decoding.stop:
        decoding = replace(decoding, stop=(model.tokenizer.eos_token_id,))
    # A setting may edit the prompt: only answers of the same one share the prefix's computation.
    requests = [
        Request(p.id, first_sample + i, prompt, task.budget(p), setting, setting)
        for setting in settings
        for p, prompt in [(p, encode(model, p.prompt)) for p in problems]
        for i in range(samples)
    ]
    rollouts = generate(
        source,
        requests,
        decoding,
        batch=batch,
        seed=seed,
        observers=observers,
        progress=progress,
    )
    return judge_all(task, problems, rollouts)


def judge_all(task: Task, problems: Sequence[Problem], rollouts: Sequence[Rollout]) -> Judged:
    """Verdicts on finished answers to these problems, wherever they were made."""
    by_id = {p.id: p for p in problems}
    if unknown := {r.problem for r in rollouts} - set(by_id):
        raise Refusal(
            f"{len(unknown)} rollout problem(s) are not among the {len(by_id)} given, such as "
            f"{min(unknown)}: were they sampled from another task, split or version of it?"
        )
    graded = grade_all(task, [by_id[r.problem] for r in rollouts], [r.text for r in rollouts])
    return Judged(tuple(problems), tuple(rollouts), tuple(graded))


def setting_name(setting: Hashable) -> str:
    """A setting as `Rollout.setting` holds it."""
    return "" if setting is None else str(setting)


def groups(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    """The (skill, part) pairs of the problems, in order of appearance."""
    return unique((p.skill, p.part) for p in problems)


@dataclass(frozen=True)
class Line:
    """One answer as it is stored: its rollout, its verdict and its problem, each in full."""

    problem: str
    sample: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    stop: str
    setting: str
    grade: str
    valid: bool | None
    """None where the task checks no traces."""
    error: str
    task: str
    prompt: str
    answer: str
    skill: str
    part: str
    difficulty: int
    spec: str


def save_judged(path: Path, judged: Judged, **about: Any) -> None:
    """Write the answers as Parquet, atomically, with what is to be said about all of them."""
    write_table(path, lines(judged), Line, **about)


def lines(judged: Judged) -> list[Line]:
    """The answers as they are stored, and as `probes.datasets` hands them on."""
    asked = {p.id: asdict(p) for p in judged.problems}
    return [
        Line(**asdict(r), grade=g.grade.value, valid=g.valid, error=g.error, **asked[r.problem])
        for r, g in zip(judged.rollouts, judged.graded, strict=True)
    ]


def load_judged(path: Path) -> tuple[Judged, dict[str, Any]]:
    """What `save_judged` wrote, and what was said about it.

    Raises:
        Refusal: no such file, a damaged or foreign one, or a problem whose content no longer has
            the id that its answers name.
    """
    stored, about = read_table(path, Line)
    return judged_of(stored, str(path)), about


def judged_of(stored: Sequence[Line], where: str = "the rows") -> Judged:
    """The answers of stored lines, from a table or from a dataset.

    Raises:
        Refusal: a problem whose content no longer has the id that its answers name.
    """
    of_problem = [f.name for f in fields(Problem)]
    problems: dict[str, Problem] = {}
    for line in stored:
        if line.problem not in problems:
            problem = Problem(**{name: getattr(line, name) for name in of_problem})
            if problem.id != line.problem:
                raise Refusal(f"{where}: problem {line.problem} has the content of {problem.id}.")
            problems[line.problem] = problem
    of_rollout = [f.name for f in fields(Rollout)]
    rollouts = [Rollout(**{name: getattr(one, name) for name in of_rollout}) for one in stored]
    graded = [Graded(Grade(one.grade), one.valid, one.error) for one in stored]
    return Judged(tuple(problems.values()), tuple(rollouts), tuple(graded))
