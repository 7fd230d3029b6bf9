"""Answers that are drawn each by a seed of its own, and the look at whether they were."""

import hashlib
from collections import Counter
from collections.abc import Iterable

from probes.served.failures import ServerRefused

ALIKE = 10
"""Problems whose answers must all be alike before a server is taken to ignore temperature and
seed; a model may be as sure as that of one or two."""


def check_varied(answers: Iterable[tuple[str, str]]) -> None:
    """Refuse sampled answers of which those to each of `ALIKE` problems or more never differ.

    A whole run's, as (problem, text): a shard may hold too few problems to tell.

    Such a server decodes greedily or repeats one seed: its pass@k would be flat, and wrong.
    """
    count: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    for problem, text in answers:
        count[problem] += 1
        texts.setdefault(problem, set()).add(text)
    repeated = [of_one for problem, of_one in texts.items() if count[problem] > 1]
    if len(repeated) >= ALIKE and all(len(of_one) == 1 for of_one in repeated):
        raise ServerRefused(
            f"at a temperature above 0 the answers to each of {len(repeated)} problems are all "
            f"alike: the server ignores the temperature, or draws by one seed. If the model is as "
            f"sure as that, one sample at temperature 0 says the same."
        )


def request_seed(seed: int, problem: str, sample: int) -> int:
    """The seed of one request: different for all samples of a problem, below 2**31 for llama.cpp.

    >>> request_seed(0, "p", 1) == request_seed(0, "p", 1) != request_seed(1, "p", 1)
    True
    """
    drawn = hashlib.blake2b(f"{seed} {problem}".encode(), digest_size=8).digest()
    # An odd factor makes it a permutation of the samples, scattered.
    return (int.from_bytes(drawn, "big") + sample * 0x9E3779B1) % 2**31
