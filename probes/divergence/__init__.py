"""Where two models part in what they say, on the same text or over the same solutions.

    parted = divergences(base, tuned, task, problems, rollouts)      # token by token
    mean_kl(parted, "value"), kl_share(parted, "check"), first_parting(parted, "jump")
    crossed(by_tuned, by_base, under=0).ratio                        # perplexity, length-matched
    [bits(one) for one in solutions(base, tuned, task, problems)]    # selection and reshaping
    gold_logprobs(model, task, problems)                             # log p of the canonical trace

    logprobs     log-probabilities of given text
    kl           KL both ways, ranks, and the choice in it, of rows of logits
    places       what each word of a response does
    along        both models along rollouts
    sums         by place, by rank, by first parting, with intervals
    perplexity   each model's valid answers under the other, matched by problem and length
    grammar      what may come next in a solution
    solutions    all solutions of a problem with their probability
    bits         what tuning changed about them: selection, reshaping
    rows         all of it as tidy rows

Not here: which positions decide (`probes.tasks`), activations before and after (`probes.drift`).
"""

from probes.divergence.along import Parted, divergences
from probes.divergence.bits import Bits, bits, coin_kl
from probes.divergence.kl import Compared, compare, token_kl
from probes.divergence.logprobs import gold_logprobs, token_logprobs
from probes.divergence.perplexity import Crossed, Scored, crossed, halves, perplexity, score
from probes.divergence.places import EXECUTION, places
from probes.divergence.rows import (
    bits_rows,
    kl_rows,
    perplexity_rows,
    seen,
    strip_rows,
    text_rows,
    typical,
    ways,
)
from probes.divergence.solutions import Solved, enumerable, solutions
from probes.divergence.sums import (
    RANKS,
    first_parting,
    kl_share,
    mean_kl,
    parted_by,
    pooled,
    rank_share,
)

__all__ = [
    "ways",
    "typical",
    "text_rows",
    "strip_rows",
    "perplexity_rows",
    "kl_rows",
    "bits_rows",
    "enumerable",
    "EXECUTION",
    "RANKS",
    "Bits",
    "Compared",
    "Crossed",
    "Parted",
    "Scored",
    "Solved",
    "bits",
    "coin_kl",
    "compare",
    "crossed",
    "divergences",
    "first_parting",
    "gold_logprobs",
    "halves",
    "kl_share",
    "mean_kl",
    "parted_by",
    "perplexity",
    "places",
    "pooled",
    "rank_share",
    "score",
    "seen",
    "solutions",
    "token_kl",
    "token_logprobs",
]
