"""Make the small models: a word-level tokenizer, a Llama of a given size, and their folder.

They are in Hugging Face format, so every code path is the one that a 7B model takes.
"""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from probes.records import Refusal

PAD, UNKNOWN, END = "<pad>", "<unk>", "END"
"""Ids 0 and 1, and the word that ends a response (`probes.tasks.END`)."""


def new_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word, words being separated by blanks.

    Ids 0 and 1 are padding and unknown; the words follow in their order. "END" is among them and
    is the end-of-sequence token.

    >>> t = new_tokenizer(["a", "=", "END"])
    >>> t("a = a END")["input_ids"], t.decode([2, 3, 2, 4], skip_special_tokens=True)
    ([2, 3, 2, 4], 'a = a')

    Raises:
        Refusal: a word twice, a word with a blank in it, or no END.
    """
    repeated = sorted({w for w in words if words.count(w) > 1})
    if repeated or END not in words or any(len(w.split()) != 1 for w in words):
        raise Refusal(
            f"a vocabulary needs distinct words without blanks, {END} among them; "
            f"repeated: {repeated}, {END} {'is' if END in words else 'is not'} there."
        )
    ids = {word: i for i, word in enumerate((PAD, UNKNOWN, *words))}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    # A plain special token would also be cut out of the middle of a longer word (BLEND).
    end = AddedToken(END, single_word=True, special=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=end,
        padding_side="left",
        clean_up_tokenization_spaces=False,  # it would glue "?" to the word before
    )


def new_byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token a byte, so that it reads any text; id 0 ends a response.

    >>> t = new_byte_tokenizer()
    >>> len(t), t.decode(t("2 + 2 = vier")["input_ids"])
    (257, '2 + 2 = vier')
    """
    ids = {word: i for i, word in enumerate([END, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(ids, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, padding_side="left"
    )


def new_llama(
    vocab_size: int, *, width: int, depth: int, heads: int, mlp: int, context: int, seed: int
) -> LlamaForCausalLM:
    """A random Llama with tied embeddings; the seed fixes its weights and nothing else."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def save(
    net: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = torch.float16,
) -> None:
    """Write a model folder: config, tokenizer and safetensors, whole or not at all.

    Args:
        net: a Hugging Face causal LM; it is left as it is.
        tokenizer: its tokenizer.
        folder: replaced if it exists.
        dtype: of the stored weights; None keeps the model's own. Floats beyond float16's range
            are refused, not written as infinity.
    """
    folder = Path(folder)
    stored = net
    if dtype is not None and dtype != next(net.parameters()).dtype:
        stored = copy.deepcopy(net).to(dtype)
    for name, weight in stored.named_parameters():
        if not torch.isfinite(weight).all():
            raise Refusal(f"{name} is not finite as {weight.dtype}; nothing was written.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        stored.save_pretrained(fresh)  # type: ignore[operator]
        tokenizer.save_pretrained(fresh)
        described = json.loads((fresh / "config.json").read_text())
        described |= {
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        (fresh / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
        os.chmod(fresh, 0o755)
        _replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace(fresh: Path, folder: Path) -> None:
    """Give `fresh` the name of `folder`; a folder can't be replaced in one step, so two renames."""
    if not folder.exists():
        os.replace(fresh, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    os.replace(folder, aside / "was")
    os.replace(fresh, folder)
    shutil.rmtree(aside)
