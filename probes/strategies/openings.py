"""Where a sentence begins, and whether it will be one of a label: decisions of free text.

    openings(model, rollout.tokens, lexicon)     # a Decision for each sentence and label

They are what a task's grammar gives of an organism (`probes.tasks.decisions`), so that whatever is
fitted to decisions can be fitted to sentences. What decides a label stands in the sentence; what is
read stands before it.
"""

from collections.abc import Sequence

from probes.models import Model, covering, decode, offsets
from probes.records import Decision
from probes.strategies.lexicon import Lexicon, by_lexicon
from probes.strategies.sentences import sentences

OPTIONS: dict[str, tuple[str, ...]] = {"yes": (), "no": ()}
"""Of every label, the one that uses it first; no words of a grammar stand for them."""


def openings(model: Model, tokens: Sequence[int], lexicon: Lexicon) -> list[Decision]:
    """One decision for each sentence of an answer and each label of the lexicon.

    Args:
        model: whose tokenizer wrote the answer.
        tokens: of the answer, without its prompt.
        lexicon: names the labels.

    Returns:
        In the order of the sentences; `position` is the token in which the sentence's first
        character stands, counted from the answer's first, and the choice "yes" or "no".
    """
    places = offsets(model, tokens)
    found = sentences(decode(model, tokens))
    return [
        Decision(covering(places, one.start, one.start + 1)[0], kind, "yes" if given else "no")
        for one, label in zip(found, by_lexicon(found, lexicon), strict=True)
        for kind in lexicon.labels
        for given in [kind == label]
    ]
