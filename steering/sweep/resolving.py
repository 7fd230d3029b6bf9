"""From the points of a sweep file to settings, every one checked against its model without weights.

Models are opened as outlines (`probes.models.outline`): config, tokenizer and the hash of the
files, so what can't work is told before a worker starts and a large model costs the driver no
memory.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from probes.generate import Decoding
from probes.models import Model, encode, layer_index, outline
from probes.records import Problem, Refusal, content_hash, parse_site, site_name
from probes.tasks import Task, load_task
from probes.tasks.cells import cells_of, problems_of
from probes.verify import UNCHECKED
from steering.interventions import Steer, Window
from steering.sweep.axes import Point
from steering.sweep.file import Mistakes, SweepFile
from steering.sweep.settings import (
    OPS,
    WINDOWS,
    Push,
    Setting,
    operations,
    read_push,
    window_of,
    window_text,
)

COLDEST = 1e-6
"""Below it a temperature makes logits infinite."""

HALVES = ("choose", "report")
"""Which problems choose the best setting, and which say how good it is."""

LEAST = 2
"""Fewest problems that give an interval."""


@dataclass(frozen=True)
class Asked:
    """The problems of a task that every setting is asked."""

    name: str
    task: Task
    problems: tuple[Problem, ...]

    @cached_property
    def identity(self) -> str:
        """Hash of the problems and of the task, which says how long answers may be."""
        return content_hash([content_hash(self.task.settings), [p.id for p in self.problems]])

    def half(self, index: int) -> str:
        """Every other problem chooses; so each skill is in both halves."""
        return HALVES[index % 2]


@dataclass(frozen=True)
class Resolved:
    """A point of the axes and what it comes to."""

    point: Point
    setting: Setting
    plain: Setting
    """Without any edit."""
    controls: tuple[Setting, ...]


@dataclass
class Resolver:
    """Opens every model, task and push of a file once."""

    file: SweepFile
    models: dict[str, Model] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    beside: dict[str, Asked] = field(default_factory=dict)
    """The task off the axes, if there is one."""
    pushes: dict[str, Push] = field(default_factory=dict)
    failed: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    """What could not be opened, so that it is told once and not for every setting."""
    _fit: set[tuple] = field(default_factory=set)
    _paths: dict[str, str] = field(default_factory=dict)
    _plain: dict[tuple, Setting] = field(default_factory=dict)

    def all(self) -> list[Resolved]:
        """Every point.

        Raises:
            Mistakes: all of them, each told once with the first point that has it.
        """
        wrong: dict[str, Point] = {}
        found = []
        for point in self.file.points:
            try:
                found.append(self.resolve(point))
            except Refusal as refusal:
                wrong.setdefault(str(refusal), point)
        if not wrong:
            try:
                self.off()
            except Refusal as refusal:
                wrong[f"off_task: {refusal}"] = {}
        if wrong:
            raise Mistakes([f"{m}{self._at(p)}" for m, p in wrong.items()], self.file.name)
        return found

    def resolve(self, point: Point) -> Resolved:
        """One point: its setting, and the controls beside it."""
        file = self.file
        source = self.path(point["model"])
        model = self._once("model", source, self.models, outline)
        asked = self.task(point["task"])
        self._readable(model, asked)
        plain = self._unsteered(point, source, model, asked)
        op, strength = point.get("op", "add"), float(point.get("strength", 1.0))
        if op not in OPS:
            raise Refusal(f"op {op!r} is not known; there are {', '.join(OPS)}.")
        text = self._filled(point)
        if text in ("", "none"):
            return Resolved(point, plain, plain, ())
        name, _, part = text.partition("#")
        push = self._once(
            "push", "#".join(filter(None, (self.path(name), part))), self.pushes, read_push
        )
        site = self._site(point, push, model)
        window = self._window(point.get("window", "generated"), model)
        if op in ("add", "ablate") and strength == 0:
            return Resolved(point, plain, plain, ())
        setting = replace(
            plain,
            push=push.path,
            content=push.content,
            op=op,
            site=site,
            strength=strength,
            unit=1.0 if op == "ablate" else push.unit,
            window=window,
        )
        self._fits(setting, push, model)
        return Resolved(point, setting, plain, tuple(setting.controls(file.controls)))

    def _unsteered(self, point: Point, source: str, model: Model, asked: Asked) -> Setting:
        """The model, task and decoding of a point; one object for all that share it."""
        numbers = tuple(point.get(k, d) for k, d in (("temperature", 1.0), ("top_p", 1.0)))
        if 0 < numbers[0] < COLDEST:
            raise Refusal(
                f"temperature {numbers[0]:g}: a logit divided by it is beyond float32; 0 is greedy."
            )
        name = source, asked.name, numbers, point.get("seed", 0)
        if name not in self._plain:
            decoding, off = Decoding(float(numbers[0]), float(numbers[1])), self.off()
            self._plain[name] = Setting(
                source,
                model.digest,
                asked.name,
                content_hash([asked.identity, off.identity if off else ""]),
                temperature=float(decoding.temperature),
                top_p=float(decoding.top_p),
                seed=int(point.get("seed", 0)),
                dtype=self.file.dtype,
            )
        return self._plain[name]

    def off(self) -> Asked | None:
        """The task beside, if one is named."""
        file = self.file
        if not file.off_task:
            return None
        asked = self._once("off_task", self.task_path(file.off_task), self.beside, self._off)
        ids = {p.id for p in asked.problems}
        for one in self.asked.values():
            if ids & {p.id for p in one.problems}:
                raise Refusal(f"{file.off_task} shares problems with {one.name}: name another.")
        for model in self.models.values():
            self._readable(model, asked)
        return asked

    def _off(self, name: str) -> Asked:
        task = load_task(name)
        found = problems_of(task, cells_of(task), self.file.split, self.file.off_problems)
        if len(found) < LEAST:
            raise Refusal(f"{len(found)} problem(s) of {name} give no interval; two is the least.")
        return Asked(name, task, tuple(found))

    def task(self, name: str) -> Asked:
        """A task of the axes with its problems."""
        return self._once("task", self.task_path(name), self.asked, self._problems)

    def task_path(self, name: str) -> str:
        """A file by its path, a shipped task by its name, whatever folder has that name too."""
        return self.path(name) if name.endswith(".toml") else name

    def _problems(self, source: str) -> Asked:
        task = load_task(source)
        if "valid" in self.file.metrics and not task.checks:
            raise Refusal(f"metric 'valid' of {task.name}: {UNCHECKED}.")
        if unknown := [s for s in self.file.skills if s not in task.skills]:
            raise Refusal(
                f"skill {unknown[0]!r} is not one of {source}, which has {', '.join(task.skills)}."
            )
        cells = [c for c in cells_of(task) if not self.file.skills or c[0] in self.file.skills]
        found = problems_of(task, cells, self.file.split, self.file.problems)
        if len(found) < LEAST * len(HALVES):
            raise Refusal(
                f"problems = {self.file.problems} of {source} are {len(found)} in all, and half of "
                f"them report on what the others chose: at least {LEAST * len(HALVES)}."
            )
        return Asked(source, task, tuple(found))

    def path(self, text: str) -> str:
        """A path relative to the sweep file where there is one, else the text: a name."""
        if text not in self._paths:
            at = self.file.folder / text
            there = text not in ("", "none") and at.exists()
            self._paths[text] = str(at.resolve()) if there else text
        return self._paths[text]

    def _filled(self, point: Point) -> str:
        return re.sub(r"{(\w+)}", lambda m: str(point[m[1]]), point.get("push", "none"))

    def _once(self, what: str, source: str, kept: dict[str, Any], make: Callable) -> Any:
        if (what, source) in self.failed:
            raise self.failed[what, source]
        if source not in kept:
            try:
                kept[source] = make(source)
            except Refusal as refusal:
                self.failed[what, source] = refusal
                raise
        return kept[source]

    def _readable(self, model: Model, asked: Asked) -> None:
        """Refuse prompts that the model has no tokens for, or that don't fit its context."""
        if ("reads", model.name, asked.identity) in self._fit:
            return
        longest = max(len(encode(model, p.prompt)) + asked.task.budget(p) for p in asked.problems)
        if longest > model.context:
            raise Refusal(
                f"{model.name} reads {model.context} tokens, and a problem of {asked.name} with "
                f"its answer may have {longest}."
            )
        self._fit.add(("reads", model.name, asked.identity))

    def _site(self, point: Point, push: Push, model: Model) -> str:
        layer, kind = parse_site(push.site)
        layer = layer_index(layer, model.depth)
        wanted = layer_index(int(point.get("layer", layer)), model.depth)
        if (wanted, point.get("site", kind)) != (layer, kind):
            raise Refusal(
                f"{push.path} is of {site_name(layer, kind)}, and the setting says "
                f"{site_name(wanted, point.get('site', kind))}: strengths are in units of a site. "
                f"Name a push for each, as in push = 'NAME-{{layer}}.safetensors'."
            )
        return site_name(layer, kind)

    def _window(self, given: Any, model: Model) -> str:
        if isinstance(given, str):
            if given not in WINDOWS:
                raise Refusal(
                    f"window {given!r} is not known; there are {', '.join(WINDOWS)}, or a table of "
                    f"start, stop, origin, after."
                )
            return window_text(WINDOWS[given])
        kinds = {"start": int, "stop": int, "origin": str, "after": list}
        for key, value in given.items():
            if key not in kinds or type(value) is not kinds[key]:
                raise Refusal(f"window {given}: {key} = {value!r}; it has {', '.join(kinds)}.")
        if given.get("origin", "row") not in ("row", "generated"):
            raise Refusal(f"window {given}: origin is 'row' or 'generated'.")
        words = given.get("after", [])
        if not all(isinstance(w, str) for w in words) or ("after" in given and not words):
            raise Refusal(f"window {given}: after = {words!r}; it is a list of the model's words.")
        window = Window(**{k: v for k, v in given.items() if k != "after"})
        begin = (window.start or 0) if window.origin == "generated" else max(0, window.start or 0)
        if window.stop is not None and window.stop <= begin:
            raise Refusal(f"window {given}: it ends where it begins or before, so it never acts.")
        text = window_text(window, words)
        window_of(text, model)
        return text

    def _fits(self, setting: Setting, push: Push, model: Model) -> None:
        """Lay the edit out on the outline, once for each push, op and window."""
        case = ("push", model.name, setting.push, setting.op, setting.window)
        if case in self._fit:
            return
        if push.made_on and push.made_on != model.digest and not self.file.foreign:
            raise Refusal(
                f"{push.path} was made on another model than {model.name}; say foreign = true if "
                f"that is meant."
            )
        edits = operations(setting, model, _unshaped, foreign=self.file.foreign)
        Steer(model, {setting.key: edits})
        self._fit.add(case)

    def _at(self, point: Point) -> str:
        varied = {k: point[k] for k in self.file.axes if k in point}
        return f" (at {', '.join(f'{k} = {v}' for k, v in varied.items())})" if varied else ""


def _unshaped(site: str) -> Any:
    raise AssertionError(f"a real push at {site} has no random direction")
