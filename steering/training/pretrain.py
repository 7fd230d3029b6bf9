"""Teach a small model from examples: cross-entropy on the completion, nothing on the prompt.

    net = new_llama(len(tokenizer), width=128, depth=3, heads=4, mlp=384, context=96, seed=0)
    examples = lambda step: [("Q 4 a0 n2 >", "a0 = 3 ; n2 = 5 ; ans 5 END"), ...]
    curve = pretrain(net, tokenizer, examples, PretrainSettings(steps=1500), Path("runs/base"))

The examples of a step are a pure function of the step (of the seed inside it too), so they need no
state of their own and a resumed run is bit for bit the uninterrupted one; a killed run loses what
it did since its last checkpoint and nothing else. The same loop serves supervised tuning.

For speed, on one thread of a CPU (3 layers of width 128, 128 examples of 25 tokens, 0.56 s a step
when padded to the longest): the examples of a step are sorted by length and go through the model a
quarter at a time (0.32 s; the matrix products are at the processor's peak then). Packing several
examples into a row under a block mask gave 0.29 s and was left out: a mask that is wrong by one
leaks one example into another without any sign. bfloat16 autocast took 6.1 s there (AVX2 has no
such instructions).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from probes.records import Refusal, content_hash
from steering.training import progress_bar, training
from steering.training.checkpoints import new_optimiser, restore, save, weights_digest

Examples = Callable[[int], Sequence[tuple[str, str]]]
"""Prompt and completion of each example of a step; a pure function of the step."""


@dataclass(frozen=True)
class PretrainSettings:
    """How to learn; what is learned is in the examples."""

    steps: int = 1500
    """Updates of the weights."""
    rate: float = 2e-3
    """AdamW's learning rate after the warm-up; it then falls linearly to 0 at the last step."""
    warmup: int = 30
    """Steps over which the rate rises linearly from 0."""
    decay: float = 0.01
    """AdamW's weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    rows: int = 32
    """Examples in one forward pass: a matter of speed only, up to rounding."""
    save_every: int = 250
    """Steps between checkpoints, hence the most that a killed run loses."""

    def __post_init__(self) -> None:
        if min(self.steps, self.rows, self.save_every) < 1 or not self.rate > 0:
            raise Refusal(f"{self}: steps, rows, save_every and rate must be positive.")


@dataclass(frozen=True)
class CurveRow:
    """One step of pretraining."""

    step: int
    """Counted from 1."""
    loss: float
    """Mean cross-entropy of the step's completion tokens, in nats, before the update."""
    rate: float
    """The learning rate of the update."""
    tokens: int
    """Completion tokens learned from so far, this step's included."""
    seconds: float
    """Spent on this step, data and checkpoint included."""


@dataclass(frozen=True)
class Chunk:
    """Examples of like length, padded on the right."""

    ids: Int[Tensor, "rows width"]
    learned: Bool[Tensor, "rows width"]
    """True at the tokens that the loss is taken of: completions."""


def pretrain(
    net: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    settings: PretrainSettings,
    out: Path | None = None,
    *,
    progress: bool = True,
) -> list[CurveRow]:
    """Train `net` in place and return the training curve, one row a step.

    Args:
        net: a Hugging Face causal language model in float32; it is left in evaluation mode.
        tokenizer: word-level, one token for each word between blanks.
        examples: the data; a completion that lacks the end-of-sequence word gets it.
        settings: see there.
        out: folder of checkpoints and of the curve; a run found there is continued. None keeps
            nothing.
        progress: show one line of progress on standard error.

    Raises:
        Refusal: the tokenizer is not word-level, a word is unknown, the weights are not float32,
            or `out` holds another run.
        FloatingPointError: the loss is no longer a number; the last checkpoint is kept.
    """
    encode = word_encoder(tokenizer)
    identity = {
        "settings": {k: v for k, v in asdict(settings).items() if k != "save_every"},
        "start": weights_digest(net),
        "data": content_hash([list(pair) for pair in examples(0)])[:16],
    }
    device = next(net.parameters()).device
    with training(net):
        optimiser = new_optimiser(net, rate=settings.rate, decay=settings.decay)
        start, curve = restore(out, net, optimiser, identity, CurveRow) if out else (0, [])
        bar = progress_bar(start, settings.steps, progress)
        for step in range(start, settings.steps):
            begun = time.perf_counter()
            rate = learning_rate(step, settings)
            encoded = [(encode(p), encode(c, end=True)) for p, c in examples(step)]
            loss = update(net, optimiser, encoded, rate, settings, device)
            if not loss < float("inf"):
                raise FloatingPointError(
                    f"the loss of step {step + 1} is {loss}: try a lower rate than {settings.rate}."
                )
            tokens = sum(len(c) for _, c in encoded) + (curve[-1].tokens if curve else 0)
            curve.append(CurveRow(step + 1, loss, rate, tokens, time.perf_counter() - begun))
            if out and ((step + 1) % settings.save_every == 0 or step + 1 == settings.steps):
                save(out, step + 1, net, optimiser, curve, identity, CurveRow)
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()
        bar.close()
    return curve


def update(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    encoded: Sequence[tuple[Sequence[int], Sequence[int]]],
    rate: float,
    settings: PretrainSettings,
    device: torch.device,
) -> float:
    """One step of AdamW on the mean loss of all completion tokens; returns that mean."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    count = sum(len(completion) for _, completion in encoded)
    for chunk in chunks(encoded, settings.rows):
        loss = completion_loss(net, chunk.ids.to(device), chunk.learned.to(device)) / count
        loss.backward()
        total += loss.detach().cpu()
    nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
    optimiser.step()
    return float(total)


def completion_loss(
    net: nn.Module, ids: Int[Tensor, "rows width"], learned: Bool[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """Summed cross-entropy (nats) of the learned tokens, each predicted from those before it.

    Rows are padded on the right, where causal attention never looks back from: no mask is needed.
    Logits are computed from the first column that predicts anything.
    """
    first = int(learned.any(0).nonzero()[0, 0])
    logits = net(input_ids=ids[:, :-1], logits_to_keep=ids.shape[1] - first, use_cache=False).logits
    wanted = learned[:, first:]
    return F.cross_entropy(logits[wanted], ids[:, first:][wanted], reduction="sum")


def chunks(encoded: Sequence[tuple[Sequence[int], Sequence[int]]], rows: int) -> Iterator[Chunk]:
    """Examples by length, `rows` at a time, so that little of a chunk is padding."""
    ordered = sorted(encoded, key=lambda pair: len(pair[0]) + len(pair[1]))
    for i in range(0, len(ordered), rows):
        part = ordered[i : i + rows]
        width = len(part[-1][0]) + len(part[-1][1])
        ids = torch.zeros(len(part), width, dtype=torch.long)
        learned = torch.zeros(len(part), width, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(part):
            length = len(prompt) + len(completion)
            ids[row, :length] = torch.tensor([*prompt, *completion])
            learned[row, len(prompt) : length] = True
        yield Chunk(ids, learned)


def learning_rate(step: int, settings: PretrainSettings) -> float:
    """The rate of 0-based `step`: a linear rise over the warm-up, then a linear fall to 0.

    >>> [learning_rate(s, PretrainSettings(steps=6, warmup=2, rate=1.0)) for s in range(6)]
    [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    left = (settings.steps - step) / (settings.steps - settings.warmup + 1)
    return settings.rate * left


def word_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[..., tuple[int, ...]]:
    """A function from text to ids by one look-up a word, some fifty times faster than a tokenizer.

    With ``end=True`` the text gets the end-of-sequence word where it doesn't close with it.

    Raises:
        Refusal: here, if the tokenizer is not word-level; at the call, for a word outside its
            vocabulary or a text without words.
    """
    ids = tokenizer.get_vocab()
    known = [w for w in ids if w not in tokenizer.all_special_tokens][:50]
    by_words = [ids[word] for word in known]
    if tokenizer(" ".join(known), add_special_tokens=False)["input_ids"] != by_words:
        raise Refusal(
            "the tokenizer does not give each word between blanks its own token: pretraining and "
            "the organisms' positions need one that does (probes.models.new_tokenizer makes it)."
        )

    def encode(text: str, end: bool = False) -> tuple[int, ...]:
        words = text.split()
        if end and words[-1:] != [tokenizer.eos_token]:
            words.append(str(tokenizer.eos_token))
        try:
            found = tuple(ids[word] for word in words)
        except KeyError as unknown:
            raise Refusal(f"{unknown} of {text!r} is not in the vocabulary.") from None
        if not found:
            raise Refusal("an example has an empty prompt: its first token could not be predicted.")
        return found

    return encode
