"""A majority vote over the answers to one problem."""

from collections.abc import Sequence

from probes.records import Refusal


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Chance that a majority vote over the answers to one problem is right.

    Answers that could not be read (None) have no vote. Of m answers that share the most votes
    each is taken with chance 1/m, and the exact expectation is given, not one draw of it.
    Without a single vote nothing is answered, and that is not right.

    >>> majority(["7", "7", "4", "4", None], [True, True, False, False, False])
    0.5
    """
    if len(answers) != len(right):
        raise Refusal(f"{len(answers)} answers and {len(right)} verdicts can't be paired.")
    votes: dict[str, int] = {}
    verdicts: dict[str, bool] = {}
    for answer, verdict in zip(answers, right, strict=True):
        if answer is None:
            continue
        votes[answer] = votes.get(answer, 0) + 1
        if verdicts.setdefault(answer, verdict) != verdict:
            raise Refusal(
                f"the answer {answer!r} is both right and wrong: votes are of final answers, "
                f"not of whole responses, and all to one problem."
            )
    leaders = [answer for answer, count in votes.items() if count == max(votes.values())]
    return sum(verdicts[answer] for answer in leaders) / len(leaders) if leaders else 0.0
