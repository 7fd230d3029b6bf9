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


def at_revision(source: str | Path, revision: str | None) -> str | Path:
    """The name with its revision in it.

    Raises:
        Refusal: a revision of a folder, or of a name that has another.
    """
    if not revision:
        return source
    if Path(source).is_dir():
        raise Refusal(
            f"revision {revision!r} of {source}, which is a folder: folders have none, and hub "
            f"names do."
        )
    name, _, marked = str(source).partition("@")
    if marked not in ("", revision):
        raise Refusal(f"{source} names revision {marked!r}, and revision={revision!r} another.")
    return f"{name}@{revision}"


def located(source: str | Path, *, weights: bool = True) -> Path:
    """The folder of a model, fetched from the hub if it is no folder here.

    Args:
        source: a folder, or a hub name such as Qwen/Qwen2.5-0.5B, with @revision or without.
        weights: whether they are wanted, or config and tokenizer alone.

    Raises:
        Refusal: no such folder, or the hub did not give it (with why).
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.suffix == ".gguf" and folder.is_file():
        raise Refusal(
            f"{source} is a GGUF file, and models are folders: probes.models.gguf.convert(file, "
            f"folder) makes one of it."
        )
    name, _, revision = str(source).partition("@")
    if isinstance(source, Path) or folder.is_absolute() or len(Path(name).parts) != 2:
        raise Refusal(
            f"there is no model folder {str(source)!r}: give a folder with config.json and "
            f"safetensors, or a Hugging Face name such as Qwen/Qwen2.5-0.5B."
        )
    return _fetched(name, revision or None, weights)


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
                else "the weights are missing (of a hub model, safetensors alone are fetched)."
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
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refusal(f"{index} is damaged or cut short: {error!r}") from None
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

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each config class checks its fields in its own way
        raise Refusal(f"{file}: transformers can't read this {name}: {error!r}") from None


def tokenizer_of(source: str | Path, folder: Path, net: Any) -> Any:
    """The tokenizer beside a model.

    Raises:
        Refusal: none, one that can't be read, or one with more tokens than the net can take in.
    """
    files = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if not any((folder / name).is_file() for name in files):
        raise Refusal(f"{source} has no tokenizer (tokenizer.json) beside its weights.")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # json's, tokenizers' own, a key that isn't there
        raise Refusal(f"{source}: its tokenizer is damaged or cut short: {error!r}") from None
    rows = net.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise Refusal(
            f"{source}: the tokenizer knows {len(tokenizer)} tokens and the model {rows}: the "
            f"tokenizer belongs to another model."
        )
    return tokenizer


def digest(folder: Path, files: Sequence[Path]) -> str:
    """Hash of what determines the function: the weight files and the config."""
    parts = [file_hash(f) for f in (*files, folder / "config.json")]
    return hashlib.blake2b("".join(parts).encode(), digest_size=32).hexdigest()
