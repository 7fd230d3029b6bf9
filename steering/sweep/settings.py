"""One setting of a sweep: everything that determines its answers, and the hash of that.

    setting.key                    # the same on every machine and in every sweep
    setting.controls(2)            # random directions as large, at the same place
    operations(setting, model, shape)     # what `steering.interventions.Steer` is given

Two points of the axes that come to the same edit are one setting: a push of strength 0 is the
unsteered model at any layer, and is computed once. A control's direction depends on its site, size
and draw and not on the push it stands beside, so pushes of one site and size share controls.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from probes.directions import load as load_direction
from probes.models import Model
from probes.records import Refusal, content_hash, file_hash, parse_site
from probes.sae import Sae, load_sae
from probes.sae.files import CONFIG, WEIGHTS
from steering.controls import shaped_random
from steering.features import FeatureEdit
from steering.interventions import ALL, GENERATED, PROMPT, Intervention, Operation, Window
from steering.vectors import Vectors, load_vectors

VERSION = 1
"""Raised whenever the same setting gives other answers."""

OPS = ("add", "ablate", "clamp")
RANDOM = "random direction"
WINDOWS = {"generated": GENERATED, "prompt": PROMPT, "all": ALL}
"""By name; others as a table of `steering.interventions.Window`'s fields, `after` in words."""

Shape = Callable[[str], Float[Tensor, "rows d"]]
"""From a site's full name to unsteered activations there, to draw random directions from."""


@dataclass(frozen=True)
class Setting:
    """What a row of a sweep is decoded with; a row of the table of settings."""

    model: str
    """Folder or Hugging Face name."""
    digest: str
    """Content hash of the model."""
    task: str
    """Name, or path of its file."""
    problems: str
    """Hash of the problems that it is asked, off the task too."""
    push: str = ""
    """A direction's file, trained vectors' file#category, or a dictionary's folder#latent; "" for
    the unsteered model."""
    content: str = ""
    """Hash of the push's file."""
    op: str = ""
    site: str = ""
    """Full name."""
    strength: float = 0.0
    unit: float = 1.0
    """What a strength of 1 adds or clamps to: the site's mean residual norm, a feature's largest
    activation; 1 for trained vectors, which are as long as they are."""
    window: str = ""
    """JSON of the window's fields, as `window_text` writes it."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    dtype: str = "float32"
    control: str = ""
    """"" for the real one, or the name of the control."""
    draw: int = 0
    """Of the control's random numbers."""

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits of the hash of what determines the answers; paths do not."""
        content = {name: getattr(self, name) for name in COUNTED}
        if self.control and "#" not in self.push:
            # A random direction as large, whatever it stands beside.
            size = self.strength if self.op == "ablate" else self.strength * self.unit
            content |= {"push": "", "content": "", "strength": size, "unit": 1.0}
        else:
            content["push"] = self.push.rpartition("#")[2] if "#" in self.push else ""
        return content_hash([VERSION, content])[:16]

    @property
    def steered(self) -> bool:
        """Whether it edits anything."""
        return bool(self.push)

    def controls(self, draws: int) -> list["Setting"]:
        """So many random directions at the same place, none for an unsteered setting."""
        if not self.steered:
            return []
        return [replace(self, control=RANDOM, draw=i) for i in range(draws)]


COUNTED = tuple(f.name for f in fields(Setting) if f.name not in ("model", "task"))
"""What the key is of."""


def operations(setting: Setting, model: Model, shape: Shape, *, foreign: bool) -> list[Operation]:
    """The edits of a setting on a model.

    Args:
        setting: which.
        model: what is steered.
        shape: asked for a control only.
        foreign: allow a push that was made on another model.

    Raises:
        Refusal: a push that changed since the plan was made, or does not fit the model.
    """
    if not setting.steered:
        return []
    edit = _edit(setting, model, foreign)
    if setting.control:
        drawn = shaped_random(shape(setting.site), seed=setting.draw)
        if isinstance(edit, FeatureEdit):
            edit = replace(edit, along=drawn.to(edit.sae.decoder.device))
        else:
            length = 1.0 if edit.norm is not None else float(torch.as_tensor(edit.vector).norm())
            edit = replace(edit, vector=drawn.float().cpu() * length)
    return [edit]


def _edit(setting: Setting, model: Model, foreign: bool) -> Intervention | FeatureEdit:
    path, _, part = setting.push.partition("#")
    content = digest_of(path)
    if content != setting.content:
        raise Refusal(f"{path} is not what it was when the sweep was planned.")
    window = window_of(setting.window, model)
    if Path(path).is_dir():
        # An outline has no device; what is checked against it is read on the CPU.
        sae = _sae(path, content, "cpu" if model.device.type == "meta" else str(model.device))
        about = {"unit": setting.unit, "window": window, "foreign": foreign}
        return FeatureEdit(setting.op, sae, int(part), setting.strength, **about)
    if part:
        vector = _trained(path, content).pushes(torch.tensor([int(part)]))[0]
        return Intervention(setting.op, setting.site, vector, setting.strength, None, window)
    strength, unit = setting.strength, setting.unit
    vector = _direction(path, content)
    return Intervention(setting.op, setting.site, vector, strength, unit, window)


# By content too: in a notebook, what was fitted anew lies where the old one lay.
@lru_cache(maxsize=64)
def _direction(path: str, content: str) -> Tensor:  # noqa: ARG001
    return torch.from_numpy(load_direction(path).vector)


@lru_cache(maxsize=64)
def _trained(path: str, content: str) -> Vectors:  # noqa: ARG001
    return load_vectors(path)


@lru_cache(maxsize=4)
def _sae(path: str, content: str, device: str) -> Sae:  # noqa: ARG001
    return load_sae(path, device=device)


def digest_of(path: str) -> str:
    """Hash of a push's file, or of a dictionary's weights and config; "" where there is none."""
    folder = Path(path)
    files = [folder / CONFIG, folder / WEIGHTS] if folder.is_dir() else [folder]
    stats = [(str(f), f.stat()) for f in files if f.is_file()]
    return _digest(tuple((name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats))


@lru_cache(maxsize=4096)
def _digest(files: tuple[tuple[str, int, int, int], ...]) -> str:
    """Read again only where a file was written since."""
    hashes = [file_hash(Path(name)) for name, *_ in files]
    return hashes[0] if len(hashes) == 1 else content_hash(hashes) if hashes else ""


def window_text(window: Window, words: Sequence[str] = ()) -> str:
    """JSON of what differs from a window without bounds: one text for windows that are the same.

    >>> window_text(GENERATED), window_text(ALL)
    ('{"origin": "generated"}', '{}')
    """
    given = {k: v for k, v in vars(window).items() if v != getattr(ALL, k)}
    if window.origin == "row" and window.start is None:
        del given["start"]  # a row has nothing before its first token
    if words:
        given["after"] = sorted(set(words))
    return json.dumps(given, sort_keys=True)


def window_of(text: str, model: Model) -> Window:
    """The window that a setting's JSON means for this model's tokens.

    Raises:
        Refusal: a word that is no token.
    """
    given = dict(json.loads(text))
    if "after" in given:
        vocabulary = model.tokenizer.get_vocab()
        if unknown := [w for w in given["after"] if w not in vocabulary]:
            raise Refusal(f"window after {unknown[0]!r}: no token of {model.name}.")
        given["after"] = frozenset(vocabulary[w] for w in given["after"])
    return Window(**given)


@dataclass(frozen=True)
class Push:
    """What a push's file says of itself."""

    path: str
    """With "#" and a category or latent where it holds several."""
    content: str
    site: str
    unit: float
    made_on: str
    """Content hash of the model it was made on; "" where it isn't said."""
    latents: bool = False


def read_push(text: str) -> Push:
    """A direction, one of trained vectors, or one latent of a dictionary, from where it lies.

    Raises:
        Refusal: no such file, a damaged one, no such category or latent, one that can't be pushed.
    """
    path, _, part = text.partition("#")
    if os.path.isdir(path):  # `Path` raises where a name is too long for any file
        if not part.isdecimal():
            raise Refusal(f"{text}: name a latent of the dictionary, as in {path}#17.")
        content, latent = digest_of(path), int(part)
        sae = _sae(path, content, "cpu")
        edit = FeatureEdit("add", sae, latent)  # refuses a latent that never fires
        return Push(f"{path}#{latent}", content, sae.site, edit.norm, sae.model, latents=True)
    if not os.path.isfile(path):
        raise Refusal(
            f"there is no push {path!r}: give a direction's .safetensors, trained vectors' "
            f".safetensors#CATEGORY, or a dictionary's FOLDER#LATENT."
        )
    content = digest_of(path)
    if part:
        vectors = _trained(path, content)
        index = _category(path, vectors, part)
        if vectors.network is not None:
            raise Refusal(
                f"{path} has a coefficient network, so its push depends on the residual; a sweep "
                f"adds a fixed one. `whenhow route` runs it."
            )
        if not vectors.vectors[index].any():
            raise Refusal(f"{text} was left out of the fit: its vector is zero.")
        return Push(f"{path}#{index}", content, vectors.site, 1.0, vectors.base)
    direction = load_direction(path)
    parse_site(direction.place)
    return Push(text, content, direction.place, direction.norm, direction.model)


def _category(path: str, vectors: Vectors, part: str) -> int:
    """A category by its number, or by its name where only one has it."""
    named = [i for i, name in enumerate(vectors.names) if name == part]
    if part.isdecimal() and int(part) < len(vectors.names):
        return int(part)
    if len(named) != 1:
        listed = ", ".join(f"{i} ({name})" for i, name in enumerate(vectors.names))
        what = f"{len(named)} categories named" if named else "no category"
        raise Refusal(f"{path} has {what} {part!r}; there are {listed}.")
    return named[0]
