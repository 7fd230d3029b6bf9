"""`whenhow models`: the published pairs, and whether two models can be compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

if TYPE_CHECKING:
    from probes.models import Model


@dataclass(frozen=True)
class ModelsList:
    """Show the published pairs: a base, and what was made of it."""

    kind: str = ""
    """Only those that were made so: rl, distilled, "distilled, then rl" or instruct."""
    json: bool = False
    """Print all that is known of each as JSON, in place of their names."""

    out = Path("runs")
    resume = "the same command shows them again."

    def run(self) -> str:
        """Read and show; the names, one a line, or the JSON."""
        import json
        from dataclasses import asdict

        from probes.models.pairs import KINDS, read_pairs
        from probes.records import Refusal
        from steering.cli.progress import console

        if self.kind and self.kind not in KINDS:
            raise Refusal(f"--kind {self.kind!r}; there are {', '.join(KINDS)}.")
        pairs = [p for p in read_pairs() if self.kind in ("", p.kind)]
        if self.json:
            return json.dumps([asdict(p) for p in pairs], indent=2)
        fields = ("name", "base", "tuned", "kind", "used_by")
        rows = [
            {f: getattr(p, f) for f in fields} | {"used_by": ", ".join(p.used_by)} for p in pairs
        ]
        console().print(table("published pairs", rows))
        return "\n".join(p.name for p in pairs)


@dataclass(frozen=True)
class ModelsCheck:
    """Say whether two models can be compared position by position, from their small files alone.

    Configs and tokenizers are read, and fetched where they aren't here; no weights are.
    """

    base: Positional[str]
    """Name of a published pair; or a folder or hub name, with @revision or without."""
    tuned: Positional[str] = ""
    """The other folder or hub name; not with a published pair."""
    json: bool = False
    """Print what was found as JSON, in place of one line."""

    out = Path("runs")
    resume = "the same command checks them again; what was fetched stays."

    def run(self) -> str:
        """Open both, compare, show; the verdict, or the JSON.

        Raises:
            Refusal: they can't be compared, a model that can't be opened, or no such pair.
        """
        import json

        from probes.models import differences, differing_tokens, find_pair, outline
        from probes.records import Refusal
        from steering.cli.progress import console

        pair = None if self.tuned else find_pair(self.base)
        names = (pair.base, pair.tuned) if pair else (self.base, self.tuned)
        base, tuned = (outline(name, weights=False) for name in names)
        against = differences(base, tuned, added=False)
        added = differing_tokens(base, tuned)[1]
        marks = (pair.thinking or ()) if pair else ()
        about = [described(model, marks) for model in (base, tuned)]
        if self.json:
            found = {"comparable": not against, "against": against, "added_tokens": added}
            return json.dumps({**found, "base": about[0], "tuned": about[1]}, indent=2)
        console().print(table("base and tuned", about))
        if against:
            raise Refusal(f"{names[0]} and {names[1]} can't be compared: {' '.join(against)}")
        if added:
            return (
                f"comparable on texts without {len(added)} added tokens that differ: "
                f"{' '.join(added)}"
            )
        return "comparable"


def described(model: "Model", marks: tuple[str, ...]) -> dict[str, Any]:
    """What decides, and what one wants to know before a long run."""
    from probes.models import spelt

    pieces = spelt(model, marks)
    thinking = ", ".join(f"{mark}: {len(ids)}" for mark, ids in pieces.items())
    return {
        "model": model.name,
        "architecture": type(model.net).__name__,
        "blocks": model.depth,
        "width": model.width,
        "context": model.context,
        "logits": model.vocab,
        "tokens": len(model.tokenizer),
        "stored as": str(model.config.dtype or "unknown").removeprefix("torch."),
        "chat template": "yes" if model.tokenizer.chat_template else "no",
        "tokens of a mark": thinking or "-",
    }


def table(title: str, rows: list[dict[str, Any]]) -> Any:
    """A line each."""
    from rich.table import Table

    shown = Table(title=title)
    for name in rows[0] if rows else ():
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*(str(value) for value in row.values()))
    return shown
