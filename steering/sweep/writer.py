"""The writer of a shard: rows of any settings side by side, broken ones set apart.

    writer = Packed(steer, {"a": Decoding(0.0), "b": Decoding(1.0)}, stop=eos)
    generate(writer, requests, Decoding(stop=(eos,)))
    writer.failed                       # {"a": "its logits are not finite at ..."}

A row whose logits hold NaN or infinity is ended by the stop token and its cache cleared, so that
neither its neighbours nor whoever is seated there next can see them.
"""

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.generate import Choice, Decoding, Turn, choose
from steering.interventions import Steer, Steered


class Packed(Steered):
    """`Steered`, each row with its own temperature and top-p."""

    def __init__(self, steer: Steer, decodings: Mapping[Hashable, Decoding], stop: int) -> None:
        """Decodings by setting; `stop` ends a row that broke."""
        super().__init__(steer)
        self.decodings, self.stop = decodings, stop
        self.failed: dict[Hashable, str] = {}
        self._seats: tuple = ()
        self._groups: list[tuple[Decoding, Int[np.ndarray, " rows"]]] = []

    def next(self, tokens: Int[Tensor, " rows"], turn: Turn) -> Choice:
        """Choose every row's token by its setting's decoding."""
        logits = self.logits(tokens, turn)
        broken = ~torch.isfinite(logits.amax(-1))  # NaN, or an infinity on top
        rows = broken.nonzero()[:, 0].tolist()
        if rows:
            logits = torch.where(broken[:, None], 0.0, logits)
        choice = self._chosen(logits, turn)
        if rows:
            choice.tokens[broken] = self.stop
            for row in rows:
                self._end(row, turn)
        return choice

    def _chosen(self, logits: Float[Tensor, "rows vocab"], turn: Turn) -> Choice:
        if turn.requests is not self._seats:
            self._seats = turn.requests
            self._groups = self._grouped(turn)
        if len(self._groups) == 1:
            return choose(logits, turn.uniforms, self._groups[0][0])
        tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        logprobs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for decoding, rows in self._groups:
            at = torch.from_numpy(rows).to(logits.device)
            part = choose(logits[at], turn.uniforms[rows], decoding)
            tokens[at], logprobs[at] = part.tokens, part.logprobs
        return Choice(tokens, logprobs)

    def _grouped(self, turn: Turn) -> list[tuple[Decoding, Int[np.ndarray, " rows"]]]:
        found: dict[Decoding, list[int]] = {}
        for row, request in enumerate(turn.requests):
            found.setdefault(self.decodings[request.setting], []).append(row)
        return [(decoding, np.array(rows)) for decoding, rows in found.items()]

    def _end(self, row: int, turn: Turn) -> None:
        request, place = turn.requests[row], len(turn.written[row])
        self.failed.setdefault(
            request.setting,
            f"its logits are not finite at token {place} of problem {request.problem}, sample "
            f"{request.sample}: the push is too large for the model's numbers",
        )
        self.stepper.clear(row)
