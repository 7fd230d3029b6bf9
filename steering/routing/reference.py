"""The hybrid as plainly as it can be written: no cache, no batch, one forward a candidate.

    tokens, steps = reference(base, tuned, prompt, taxonomy, vectors, coefficients=(0.5, 1.0))

This is what the released code of Venhoff et al. (arXiv:2510.07364, `hybrid_token.py`) does at each
token, with its windows: a push on the last 1, 15, 50 or 100 positions of the whole sequence, or on
all of them. A push with a window moves with the sequence, so at every token earlier positions are
computed anew, pushed or not by where they now stand: nothing of it can be cached but for window -1,
which is what `hybrid` decodes. The other windows are served from here.

Two things differ from that code on purpose. The category is read from activations that are centred
and scaled as the taxonomy was fitted (theirs were raw), and vectors are added at the site that they
were trained at (theirs were trained before the block and added behind it).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.generate import Decoding, Request
from probes.models import Model, decode, submodule
from probes.records import Refusal, Rollout, parse_site
from probes.taxonomy.record import Taxonomy
from steering.routing.routers import lines_of
from steering.vectors.record import Vectors

WINDOWS = (0, -1, -15, -50, -100)
"""Of the released code: 0 is every position, -w the last w."""


class Step(NamedTuple):
    """One token: who chose it ("base" or "steered"), and under which candidate."""

    token: int
    chooser: str
    base_top: int
    tuned_top: int
    category: int = -1
    coefficient: float = 0.0
    window: int = 0


@torch.no_grad()
def reference(
    base: Model,
    tuned: Model,
    prompt: Sequence[int],
    taxonomy: Taxonomy,
    vectors: Vectors,
    *,
    coefficients: Sequence[float] = (1.0,),
    windows: Sequence[int] = (-1,),
    max_new: int,
    stop: Sequence[int] = (),
) -> tuple[tuple[int, ...], list[Step]]:
    """Greedy tokens of the hybrid, and who chose each.

    Args:
        base: is steered.
        tuned: where the two models' likeliest tokens differ, its residual names the category and
            its probability chooses among the candidates.
        prompt: tokens.
        taxonomy: of the tuned model.
        vectors: of the base.
        coefficients: of the push; tried in this order, each with each window.
        windows: see `WINDOWS`.
        max_new: most tokens.
        stop: tokens that end the answer.

    Raises:
        Refusal: a window above 0, or a category without a vector.
    """
    if bad := [w for w in windows if w > 0]:
        raise Refusal(f"window {bad[0]}: -w is the last w positions, 0 all of them.")
    lines = lines_of(taxonomy, vectors)
    tokens, steps = list(prompt), []
    for _ in range(max_new):
        ids = torch.tensor([tokens])
        plain = base.net(ids.to(base.device)).logits[0, -1]
        with reading(tuned, taxonomy.site) as read:
            theirs = tuned.net(ids.to(tuned.device)).logits[0, -1]
        ours, top = int(plain.argmax()), int(theirs.argmax())
        step = Step(ours, "base", ours, top)
        if ours != top:
            category = lines[int(taxonomy.category(read[0][:, -1])[0])]
            push = pushed(base, vectors, category, ids)
            best = -torch.inf
            # A category that was left at zero pushes nowhere: there the base chooses.
            for size in coefficients if push.any() else ():
                for window in windows:
                    with pushing(base, vectors.site, size * push, window):
                        token = int(base.net(ids.to(base.device)).logits[0, -1].argmax())
                    score = float(torch.log_softmax(theirs.float(), -1)[token])
                    if score > best:
                        best = score
                        step = Step(token, "steered", ours, top, category, size, window)
        steps.append(step)
        tokens.append(step.token)
        if step.token in stop:
            break
    return tuple(tokens[len(prompt) :]), steps


def pushed(
    base: Model, vectors: Vectors, category: int, ids: Int[Tensor, "1 tokens"]
) -> Float[Tensor, " d"]:
    """What the category adds behind these tokens; a coefficient network reads the base there."""
    x = None
    if vectors.network is not None:
        with reading(base, vectors.site) as read:
            base.net(ids.to(base.device))
        x = read[0][:, -1]
    return vectors.pushes(torch.tensor([category]), 1.0, x)[0].to(base.device)


def by_reference(
    base: Model,
    tuned: Model,
    requests: Sequence[Request],
    decoding: Decoding,
    taxonomy: Taxonomy,
    vectors: Vectors,
    *,
    coefficients: Sequence[float],
    windows: Sequence[int],
    progress: Any = None,
) -> tuple[list[Rollout], list[list[Step]]]:
    """Rollouts of the reference, one after another, for windows that can't be cached.

    The log-probabilities are not kept (NaN): the released code has none either.

    Raises:
        Refusal: a temperature; the reference is greedy.
    """
    check_greedy(decoding, windows)
    rollouts, steps = [], []
    for request in requests:
        tokens, of_it = reference(
            base,
            tuned,
            request.prompt,
            taxonomy,
            vectors,
            coefficients=coefficients,
            windows=windows,
            max_new=request.max_new,
            stop=decoding.stop,
        )
        ended = "stop" if tokens[-1] in decoding.stop else "length"
        name = "" if request.setting is None else str(request.setting)
        nothing = (float("nan"),) * len(tokens)
        text = decode(base, tokens)
        rollouts.append(
            Rollout(request.problem, request.sample, tokens, nothing, text, ended, name)
        )
        steps.append(of_it)
        if progress:
            progress(1)
    return rollouts, steps


def check_greedy(decoding: Decoding, windows: Sequence[int]) -> None:
    """Refuse a temperature.

    Raises:
        Refusal: with the windows that need the reference.
    """
    if decoding.temperature != 0:
        raise Refusal(
            f"temperature {decoding.temperature}: windows {list(windows)} are decoded without a "
            f"cache by the reference, which is greedy (temperature 0)."
        )


@contextmanager
def pushing(model: Model, site: str, push: Float[Tensor, " d"], window: int) -> Iterator[None]:
    """Add the push at the last positions of every forward pass in the block."""
    module, how = submodule(model, *parse_site(site))
    with _hooked(module, how, lambda x: torch.cat(_split(x, push, window), 1)):
        yield


@contextmanager
def reading(model: Model, site: str) -> Iterator[list[Tensor]]:
    """The residuals at a site of every forward pass in the block."""
    module, how = submodule(model, *parse_site(site))
    found: list[Tensor] = []

    def read(x: Tensor) -> Tensor:
        found.append(x)
        return x

    with _hooked(module, how, read):
        yield found


def _split(x: Tensor, push: Tensor, window: int) -> list[Tensor]:
    first = 0 if window == 0 else max(0, x.shape[1] + window)
    wide = torch.promote_types(x.dtype, torch.float32)
    return [x[:, :first], (x[:, first:].to(wide) + push.to(wide)).to(x.dtype)]


@contextmanager
def _hooked(module: Any, how: str, edit: Any) -> Iterator[None]:
    def before(_: Any, args: tuple, named: dict) -> tuple[tuple, dict]:
        if args:
            return (edit(args[0]), *args[1:]), named
        return args, {**named, "hidden_states": edit(named["hidden_states"])}

    def after(_: Any, __: Any, out: Any) -> Any:
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    if how == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()
