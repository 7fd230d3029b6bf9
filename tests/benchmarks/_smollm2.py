"""SmolLM2-135M-Instruct, and what it is asked: sums, in its own chat template."""

from functools import cache

from probes.generate import Request
from probes.models import Model, encode, load
from probes.models.gguf import smollm2
from probes.tasks import load_task

BATCH = 16


@cache
def model() -> Model:
    """Made from the package index where it isn't there yet."""
    return load(smollm2())


def asked(problems: int, samples: int, most: int) -> list[Request]:
    """Answers to sums of reasoning-gym; a model that small seldom stops before the budget."""
    found = []
    for problem in load_task("gym-chain-sum").problems("test", problems):
        text = model().tokenizer.apply_chat_template(
            [{"role": "user", "content": problem.prompt}],
            tokenize=False,
            add_generation_prompt=True,
        )
        prompt = encode(model(), text)
        found += [Request(problem.id, i, prompt, most) for i in range(samples)]
    return found
