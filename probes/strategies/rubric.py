"""What a judge model is asked, as a published file, and how its answer is read: strictly.

    rubric = load_rubric("venhoff")                 # shipped: data/judges/, with its source
    rubric.messages(question, before, sentence)     # of a chat
    rubric.read("backtracking")                     # the label; None where it names none

A file has `source`, `system`, `ask` with the places {labels}, {question}, {before} and {sentence},
`none` (what a judge answers where no label fits), and [labels], each with its meaning.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from probes import DATA
from probes.records import Refusal, content_hash, read_toml

SHIPPED = DATA / "judges"
PLACES = ("labels", "question", "before", "sentence")
BEFORE = 2000
"""Characters of the answer shown before the sentence, the last ones: a few paragraphs."""


@dataclass(frozen=True)
class Rubric:
    """A prompt and the labels that it asks for."""

    name: str
    source: str
    """Paper and place, and whose the wording is."""
    system: str
    ask: str
    none: str
    """The answer that stands for no label."""
    labels: dict[str, str]
    """Meaning of each label."""

    @cached_property
    def digest(self) -> str:
        """Hash of all that is asked: another wording is another judge."""
        asked = asdict(self)
        del asked["source"], asked["name"]
        return content_hash(asked)

    def messages(self, question: str, before: str, sentence: str) -> list[dict[str, str]]:
        """The chat that asks about one sentence.

        What stands in the texts is put in as it is: a sentence with {before} in it is no template.
        """
        listed = [f"- {name}: {meaning}" for name, meaning in self.labels.items()]
        told = {
            "labels": "\n".join([*listed, f"- {self.none}: none of these"]),
            "question": question,
            "before": before[-BEFORE:],
            "sentence": sentence,
        }
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": _filled(self.ask, told)},
        ]

    def read(self, said: str) -> str | None:
        r"""The label that an answer names, "" for `none`; None where it is anything else.

        The answer has to be the name, but for blanks around it and its case: of a sentence that
        mentions two labels no rule finds the one that was meant.

        >>> rubric = load_rubric("venhoff")
        >>> [rubric.read(said) for said in (" Deduction\n", "none", "It is deduction.")]
        ['deduction', '', None]
        """
        known = {name.casefold(): name for name in self.labels} | {self.none.casefold(): ""}
        return known.get(said.strip().casefold())


def load_rubric(source: str | Path) -> Rubric:
    """A shipped rubric by name, or one's own by the path of its TOML file.

    Raises:
        Refusal: no such file, one without a source, a place that is missing or unknown, or labels
            that can't be told apart.
    """
    path, given = read_toml(source, SHIPPED, "judge's rubric")
    for key in ("source", "system", "ask", "none"):
        if not isinstance(given.get(key), str) or not given[key].strip():
            raise Refusal(f"{path}: {key} = '...' is missing; source says where it is from.")
    labels = given.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise Refusal(f"{path}: [labels] names each label with its meaning.")
    if bad := [name for name, meaning in labels.items() if not isinstance(meaning, str)]:
        raise Refusal(f"{path}: the meaning of {bad[0]!r} is a text, not {labels[bad[0]]!r}.")
    folded = [name.strip().casefold() for name in (*labels, given["none"])]
    if len(set(folded)) < len(folded) or "" in folded:
        raise Refusal(f"{path}: labels and none are told apart by their names, whatever the case.")
    found = re.findall(r"\{(\w+)\}", given["ask"])
    if sorted(found) != sorted(PLACES):
        places = ", ".join(f"{{{place}}}" for place in PLACES)
        raise Refusal(f"{path}: ask has the places {places}, each once; here are {found}.")
    asked = {key: given[key] for key in ("source", "system", "ask", "none")}
    return Rubric(path.stem, labels=dict(labels), **asked)


def _filled(text: str, told: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda place: told[place[1]], text)
