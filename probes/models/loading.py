"""Load a model, refuse a damaged one, and turn text into its tokens.

    model = load("data/organisms/chain-base")      # or "Qwen/Qwen2.5-0.5B"
    tokens = encode(model, "Q 9 b1 >")

Only safetensors are read: a pickled checkpoint runs code when it is opened. A checkpoint that
lacks a weight is refused, where transformers would fill it with random numbers and warn.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from probes.models.sites import ARCHITECTURES, architecture, blocks
from probes.records import Refusal, file_hash

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Model:
    """A causal LM with its tokenizer. Frozen: training makes a new one."""

    net: nn.Module
    tokenizer: PreTrainedTokenizerBase
    name: str
    """Path or Hugging Face name, as given."""
    digest: str = ""
    """Hash of its weights and config; "" for a model that was never on disk."""

    @cached_property
    def depth(self) -> int:
        """Number of blocks."""
        return len(blocks(self.net))

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self.net.config

    @property
    def width(self) -> int:
        """Length of a residual vector."""
        return self.config.hidden_size

    @property
    def context(self) -> int:
        """How many tokens, prompt and answer together, it can read."""
        return self.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.net.parameters()).dtype

    @property
    def vocab(self) -> int:
        """How many logits it gives; some real models pad this beyond their tokenizer."""
        return self.config.vocab_size


def load(
    source: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Model:
    """A model from a folder or from the Hugging Face hub, in eval mode, gradients off.

    Raises:
        Refusal: no such folder, no safetensors (pickled ones are never opened), a truncated file,
            a weight that is missing or not finite, an unknown architecture, no tokenizer or one
            with more tokens than the model has.
    """
    folder, files, _ = _checked(source)
    try:
        net, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (RuntimeError, OSError, SafetensorError) as error:
        raise Refusal(f"{source}: the weights don't fit the config: {error}") from None
    if missing := sorted(report["missing_keys"]):
        raise Refusal(
            f"{source} lacks {len(missing)} weights ({', '.join(missing[:4])}, ...): the "
            f"checkpoint is incomplete, or its config.json belongs to another model."
        )
    for weight, values in net.named_parameters():
        if not torch.isfinite(values).all():
            raise Refusal(
                f"{source}: {weight} has values that are not finite: a training run "
                f"that diverged, or {dtype} is too narrow for it."
            )
    tokenizer = _tokenizer(source, folder, net)
    net = net.to(device).eval().requires_grad_(False)
    return Model(net, tokenizer, str(source), _digest(folder, files))


def load_on(source: str, device: str, dtype: str) -> Model:
    """`load` by the names of a device and a dtype, as they stand in settings.

    Raises:
        Refusal: a device that torch doesn't know or this machine doesn't have, or as `load`.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = [name for name in ("cuda", "mps") if getattr(torch, name).is_available()]
        raise Refusal(
            f"device {device!r} can't be used here; there is {', '.join(['cpu', *here])} "
            f"({str(error).splitlines()[0]})."
        ) from None
    return load(source, device=device, dtype=getattr(torch, dtype))


def outline(source: str | Path) -> Model:
    """The same without its weights: shapes, sites, tokenizer and digest, to check a plan against.

    The net lies on torch's meta device, so a large model takes no memory; it computes nothing.

    Raises:
        Refusal: as `load`, but for what only the weights show.
    """
    folder, files, config = _checked(source)
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(config)
    tokenizer = _tokenizer(source, folder, net)
    return Model(net.eval(), tokenizer, str(source), _digest(folder, files))


def _checked(source: str | Path) -> tuple[Path, list[Path], Any]:
    """Folder, weight files and config of a model whose files are whole and architecture known."""
    folder = _folder(source)
    # Their name in Hugging Face's format; what was made of a model (vectors, a taxonomy) may lie
    # beside its weights and is no part of it.
    files = sorted(folder.glob("model*.safetensors"))
    _check_files(folder, files)
    config = AutoConfig.from_pretrained(folder)
    name = (config.architectures or ["a model without architectures in its config.json"])[0]
    if name not in ARCHITECTURES:
        raise Refusal(
            f"{source} is {name}, which is not a known architecture; known are "
            f"{', '.join(ARCHITECTURES)} (a line each in probes.models.sites)."
        )
    return folder, files, config


def _folder(source: str | Path) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or folder.is_absolute() or len(folder.parts) != 2:
        raise Refusal(
            f"there is no model folder {str(source)!r}: give a folder with config.json and "
            f"safetensors, or a Hugging Face name such as Qwen/Qwen2.5-0.5B."
        )
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(str(source), allow_patterns=wanted))
    except Exception as error:  # the hub client raises its own, httpx's and the system's
        raise Refusal(
            f"{source} is no folder here, and the Hugging Face hub did not give it: {error}"
        ) from None


def _check_files(folder: Path, files: list[Path]) -> None:
    """Refuse what can be seen without loading: missing, pickled or truncated files."""
    if not (folder / "config.json").is_file():
        raise Refusal(f"{folder} has no config.json, so it is no Hugging Face model folder.")
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


def _tokenizer(source: str | Path, folder: Path, net: nn.Module) -> PreTrainedTokenizerBase:
    if (
        not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
        and not (folder / "vocab.json").is_file()
    ):
        raise Refusal(f"{source} has no tokenizer (tokenizer.json) beside its weights.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = net.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise Refusal(
            f"{source}: the tokenizer knows {len(tokenizer)} tokens and the model {rows}: the "
            f"tokenizer belongs to another model."
        )
    return tokenizer


def _digest(folder: Path, files: Sequence[Path]) -> str:
    """Hash of what determines the function: the weight files and the config."""
    parts = [file_hash(f) for f in (*files, folder / "config.json")]
    return hashlib.blake2b("".join(parts).encode(), digest_size=32).hexdigest()


def check_pair(base: Model, tuned: Model) -> None:
    """Refuse two models that can't be compared position by position.

    Raises:
        Refusal: they differ in tokenizer, in the number of blocks or in the residual's length.
    """
    if base.tokenizer.get_vocab() != tuned.tokenizer.get_vocab():
        ours, theirs = base.tokenizer.get_vocab(), tuned.tokenizer.get_vocab()
        differing = sorted(k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k))
        raise Refusal(
            f"{base.name} and {tuned.name} have different tokenizers ({len(differing)} tokens "
            f"differ, such as {differing[0]!r}): a pair must be one model before and after tuning."
        )
    for what in ("depth", "width"):
        a, b = getattr(base, what), getattr(tuned, what)
        if a != b:
            raise Refusal(
                f"{base.name} has {what} {a} and {tuned.name} {b}: a pair must be one model before "
                f"and after tuning."
            )
    if type(base.net) is not type(tuned.net):
        a, b = (type(architecture(m.net) and m.net).__name__ for m in (base, tuned))
        raise Refusal(f"{base.name} is {a} and {tuned.name} is {b}: a pair must be of one kind.")


def encode(model: Model, prompt: str) -> tuple[int, ...]:
    """The tokens of a prompt, with those special ones that the model's own tokenizer adds.

    A word-level tokenizer adds none, so there word i is token i. A prompt that begins with the
    tokenizer's own first token, as a rendered chat may, gets no second one.

    Raises:
        Refusal: the prompt is empty, or has a word that the vocabulary lacks.
    """
    begun = bool(model.tokenizer.bos_token) and prompt.startswith(str(model.tokenizer.bos_token))
    tokens = tuple(model.tokenizer(prompt, add_special_tokens=not begun)["input_ids"])
    if not tokens:
        raise Refusal("the prompt is empty: the first token is chosen after at least one.")
    unknown = model.tokenizer.unk_token_id
    if unknown in tokens and str(model.tokenizer.unk_token) not in prompt:
        known = model.tokenizer.get_vocab()
        words = [w for w in prompt.split() if w not in known]
        listed = list(dict.fromkeys(words))
        shown = " ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
        raise Refusal(
            f"{shown or 'a character'} is not in the vocabulary of "
            f"{model.name} ({len(known)} tokens): is the task of another model?"
        )
    return tokens


def decode(model: Model, tokens: Sequence[int]) -> str:
    """The text of tokens, special ones left out."""
    return str(model.tokenizer.decode(list(tokens), skip_special_tokens=True))
