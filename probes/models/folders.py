"""The folder of a model: given, or fetched from the Hugging Face hub, and whole.

A hub name may carry a revision, "allenai/OLMo-2-0425-1B@step1000", wherever a model is named.
Only files of the repository's top level are fetched (weights are often there twice: in another
layout in a subfolder), and of weights only safetensors.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from probes.models.sites import ARCHITECTURES
from probes.records import Refusal, file_hash

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
DESCRIBING = ("*.json", "*.model", "*.txt", "*.jinja")
"""Files of config and tokenizer."""
WEIGHTS = ("model*.safetensors",)
"""Hugging Face's names of weight files; what was made of a model (vectors, a taxonomy) may lie
beside them and is no part of it."""


def located(source: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a model, fetched from the hub if it is no folder here.

    Args:
        source: a folder, or a hub name such as Qwen/Qwen2.5-0.5B, with @revision or without.
        revision: branch, tag or commit on the hub.
        weights: whether they are wanted, or config and tokenizer alone.

    Raises:
        Refusal: no such folder, a revision of a folder, or the hub did not give it (with why).
    """
    folder = Path(source)
    if folder.is_dir():
        if revision:
            raise Refusal(
                f"revision {revision!r} of {source}, which is a folder: folders have none, and "
                f"hub names do."
            )
        return folder
    name, _, marked = str(source).partition("@")
    if isinstance(source, Path) or folder.is_absolute() or len(Path(name).parts) != 2:
        raise Refusal(
            f"there is no model folder {str(source)!r}: give a folder with config.json and "
            f"safetensors, or a Hugging Face name such as Qwen/Qwen2.5-0.5B."
        )
    if revision and marked and revision != marked:
        raise Refusal(f"{source} names revision {marked!r}, and revision={revision!r} another.")
    return _fetched(name, revision or marked or None, weights)


def _fetched(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import errors, snapshot_download

    wanted = [*DESCRIBING, *(WEIGHTS if weights else ())]
    by_hand = (
        f"where there is a network, `hf download {name} --local-dir DIR` makes a folder, and DIR "
        f"can be given in place of the name"
    )
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]
            )
        )
    except errors.GatedRepoError:
        why = (
            f"is gated: accept its terms at https://huggingface.co/{name}, then `hf auth login` "
            f"with that account, and try again."
        )
    except errors.RevisionNotFoundError:
        why = (
            f"has no revision {revision!r}: https://huggingface.co/{name}/tree/main lists "
            f"its branches and tags; a commit has 40 hex digits."
        )
    except errors.RepositoryNotFoundError:
        why = (
            "is no repository on the Hugging Face hub, or a private one: check the name, or "
            "`hf auth login` if it is yours. It is no folder here either."
        )
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        at = f" at revision {revision}" if revision else ""
        why = (
            f"is no folder here and was not fetched before{at}, and the Hugging Face hub can't be "
            f"reached (no network, or HF_HUB_OFFLINE is set): {by_hand}."
        )
    except Exception as error:  # the hub client raises its own, its transport's and the system's
        why = f"is no folder here, and the Hugging Face hub did not give it ({error}): {by_hand}."
    raise Refusal(f"{name} {why}")


def weight_files(folder: Path) -> list[Path]:
    """Its weight files.

    Raises:
        Refusal: what can be seen without loading: missing, pickled or truncated files.
    """
    files = sorted(f for pattern in WEIGHTS for f in folder.glob(pattern))
    if not files:
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
        raise Refusal(
            f"{folder} has no .safetensors file; "
            + (
                f"{', '.join(pickled)} are pickled and opening them can run any code: convert "
                f"them with safetensors' own tool."
                if pickled
                else "the weights are missing."
            )
        )
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise Refusal(f"{file} is damaged or cut short: {error}") from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text())["weight_map"].values())
        if absent := sorted(shards - {f.name for f in files}):
            raise Refusal(f"{folder} lacks the shards {', '.join(absent)} that its index names.")
    return files


def config_of(source: str | Path, folder: Path) -> Any:
    """The Hugging Face config of a model whose architecture is known; code beside it isn't run.

    Raises:
        Refusal: no config.json, one that can't be read, or an unknown architecture.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise Refusal(f"{folder} has no config.json, so it is no Hugging Face model folder.")
    try:
        named = json.loads(file.read_text()).get("architectures")
    except (ValueError, AttributeError) as error:
        raise Refusal(f"{file} is no JSON object: {error}") from None
    # Before transformers reads it, which knows less of why a new architecture isn't there.
    name = (named or ["a model without architectures in its config.json"])[0]
    if name not in ARCHITECTURES:
        raise Refusal(
            f"{source} is {name}, which is not a known architecture; known are "
            f"{', '.join(ARCHITECTURES)}. What is missing is a line in probes.models.sites: the "
            f"path of its blocks, and the submodules whose outputs attention and MLP add to the "
            f"residual."
        )
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def digest(folder: Path, files: Sequence[Path]) -> str:
    """Hash of what determines the function: the weight files and the config."""
    parts = [file_hash(f) for f in (*files, folder / "config.json")]
    return hashlib.blake2b("".join(parts).encode(), digest_size=32).hexdigest()
