"""Our GRPO loop against TRL's `GRPOTrainer`, which samples with Hugging Face's `generate`.

Same base, problems in the same order, 16 answers to each of 32, temperature 1, token-mean loss, no
penalty, AdamW at the same constant rate, one step an update, and the same graders; each writes its
own answers. TRL gets what makes it fast on a CPU: one generation an update for all 512 answers, so
that it is on-policy and computes no old log-probabilities; float32 without activation checkpoints
(its defaults are bfloat16, which this CPU emulates, and checkpoints); nothing logged, saved or
shuffled; and the fastest of three sizes of the batches that learn. vLLM needs a GPU. Making
trainer and data set is not timed; of our call everything is.
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable

import transformers

from probes.records import Grade, Problem
from probes.verify import grade_all
from steering.training.rlvr import rlvr
from steering.training.rlvr.loop import draw

from . import Line, alternate
from ._practice import practice
from ._shipped import base

ROWS = (128, 256, 512)
"""Answers in one of TRL's forward and backward passes."""


def run(small: bool = False) -> Line:
    updates, prompts, rounds = (1, 2, 1) if small else (6, 32, 5)
    task, problems, paid, settings = practice(updates, prompts)
    size = prompts * settings.samples
    drawn = [i for update in range(updates) for i, _ in draw(len(problems), settings, update)]
    ordered = [problems[i] for i in drawn[:: settings.samples]]
    quiet()

    def ours() -> int:
        rlvr(base(), task, problems, paid, settings, progress=False)
        return updates

    with tempfile.TemporaryDirectory() as folder:

        def trainer(rows: int) -> Callable[[], object]:
            config = {
                "output_dir": folder,
                "per_device_train_batch_size": rows,
                "gradient_accumulation_steps": size // rows,
                "num_generations": settings.samples,
                "max_steps": updates,
                "max_completion_length": max(map(task.budget, problems)),
                "temperature": settings.temperature,
                "learning_rate": settings.rate,
                "weight_decay": settings.decay,
                "max_grad_norm": settings.clip,
                "epsilon": settings.low,
            }
            return trl_trainer(config, ordered, task)

        sizes = [size] if small else ROWS
        best = min(sizes, key=lambda rows: seconds(trainer(rows)))
        waiting = [trainer(best) for _ in range(rounds + 1)]

        def peer() -> int:
            waiting.pop()()
            return updates

        return alternate(
            "grpo-trl",
            ours,
            peer,
            unit="updates/s",
            against=f"TRL's GRPOTrainer, {best} answers a pass",
            rounds=rounds,
        )


def trl_trainer(config: dict, problems: list[Problem], task: object) -> Callable[[], object]:
    """What trains a copy of the base on these problems, one group each, in order."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    asked = {p.prompt: p for p in problems}

    def right(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        graded = grade_all(task, [asked[p] for p in prompts], completions)  # type: ignore[arg-type]
        return [float(g.grade is Grade.RIGHT) for g in graded]

    trainer = GRPOTrainer(
        model=copy.deepcopy(base().net).requires_grad_(True),
        reward_funcs=right,
        args=GRPOConfig(
            **config,
            beta=0.0,
            adam_beta2=0.95,
            lr_scheduler_type="constant",
            loss_type="dapo",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": p.prompt} for p in problems]),
        processing_class=base().tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer.train


def quiet() -> None:
    """Standard output is for the line alone."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    transformers.logging.set_verbosity_error()


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
