"""The observer that edits every row of a batch by its own setting."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.capture import Text
from probes.generate import Pass, Request
from probes.models import Model, layer_index
from probes.records import Refusal, parse_site, site_name
from steering.interventions.operations import LogitBias
from steering.interventions.readings import Edit, FeatureOperation, Operation
from steering.interventions.rows import Bank, NotFired, Seated, Tally, Windows

LOGITS = "logits"
"""The pseudo-site of `LogitBias`: no hook sees it, `Steered` and `replayed` do."""

Key = tuple[tuple[int, ...], Hashable]


class Steer:
    """Applies to each row the interventions of its request's setting.

    Setting None, a request's default, is the unedited row; any other must be in the mapping.
    """

    def __init__(self, model: Model, settings: Mapping[Hashable, Sequence[Operation]]) -> None:
        """Resolve layers and lay out what each setting does at each site, in order.

        Raises:
            Refusal: a layer that isn't there, a vector of another length than the residual, a
                token outside the vocabulary, a feature of another model's dictionary.
        """
        self.model = model
        self.settings = {None: (), **{name: tuple(listed) for name, listed in settings.items()}}
        self._banks: dict[str, Bank] = {}
        self._edits: dict[tuple[str, Hashable], list[Edit]] = {}
        for name, listed in self.settings.items():
            for intervention in listed:
                self._add(name, intervention)
        self.sites = tuple(site for site in self._banks if site != LOGITS)
        self.biased = LOGITS in self._banks
        self.told = False
        """Whether someone tells the newest tokens and applies the logit biases (`Steered`)."""
        self._texts: dict[tuple, tuple[int, ...]] = {}
        self.newest: Int[np.ndarray, " rows"] | None = None
        """The token of each row in the pass of one column that is about to run."""
        self._rows: list[Request | None] = []
        self._seated: dict[str, tuple[Seated, Windows]] = {}
        self._closed: list[Tally] = []
        self._prefilled: dict[Key, Hashable] = {}
        self._signatures: dict[tuple[Hashable, int], Hashable] = {}
        self._checked = True
        """Whether a pass has run since rows were seated, so that no row can begin in the next."""
        self._counted: Counter[Hashable] = Counter()
        self._missed: dict[Hashable, str] = {}

    def _add(self, name: Hashable, intervention: Operation) -> None:
        op, strength = intervention.op, intervention.strength
        if isinstance(intervention, LogitBias):
            site, width, norm = LOGITS, self.model.vocab, None
        else:
            if isinstance(intervention, FeatureOperation):
                intervention.fits(self.model)
            layer, kind = parse_site(intervention.site)
            site = site_name(layer_index(layer, self.model.depth), kind)
            width, norm = self.model.width, intervention.norm
        bank = self._banks.setdefault(site, Bank(width))
        size = strength * (1.0 if norm is None else norm)
        alpha, beta = {
            "add": (size, 0.0),
            "ablate": (0.0, -strength),
            "clamp": (size, -1.0),
            "project": (0.0, -1.0),
            "none": (0.0, 0.0),
        }[op]
        if alpha == beta == 0:
            return  # not even x + 0, which would turn -0.0 into 0.0
        listed = self._edits.setdefault((site, name), [])
        for line in bank.lines(intervention):
            edit = Edit(line, alpha, beta, intervention.window)
            if isinstance(intervention, FeatureOperation):
                edit = _reading(edit, intervention, bank, listed)
            listed.append(edit)

    def keyed(self, requests: Sequence[Request]) -> list[Request]:
        """The requests, with a prefix of their own where their setting edits the prompt's start."""
        return [
            replace(r, prefix_key=(r.prefix_key, r.setting)) if self._signature(r) else r
            for r in requests
        ]

    def tell(self, owners: Sequence[Request | Text], sequences: Sequence[tuple[int, ...]]) -> None:
        """All tokens of finished sequences that are about to be replayed, by whose they are.

        Raises:
            Refusal: two sequences of the same problem, sample and setting.
        """
        for owner, sequence in zip(owners, sequences, strict=True):
            if self._texts.setdefault(_owner(owner), tuple(sequence)) != tuple(sequence):
                raise Refusal(f"two sequences are of {_owner(owner)} (problem, sample, setting).")
        self.told = True

    def seat(self, slots: Sequence[int], requests: Sequence[Request], rows: int) -> None:
        """Put requests into rows; what they need is gathered in the next pass."""
        self._rows = (self._rows + [None] * rows)[:rows]
        for slot, request in zip(slots, requests, strict=True):
            if request.setting not in self.settings:
                known = ", ".join(map(repr, self.settings))
                raise Refusal(f"setting {request.setting!r} is not known; there are {known}.")
            if (LOGITS, request.setting) in self._edits and not self.told:
                raise Refusal(
                    f"setting {request.setting!r} has a logit bias, which no hook can apply: write "
                    f"with `Steered`, or replay with `replayed`."
                )
            self._rows[slot] = request
        self._closed += [seated.tally for seated, _ in self._seated.values()]
        self._seated, self._checked = {}, False
        if len(self._closed) > 256:
            self._count()

    def at(
        self, site: str, x: Float[Tensor, "rows width d"], now: Pass
    ) -> Float[Tensor, "rows width d"]:
        """The residuals with every row's edits made; `x` itself where this pass has none."""
        seated, windows = self._gathered(site, now, x)
        inside = windows.inside(now.positions, self.newest)
        source = x
        for k in range(len(inside)):
            source = seated.readings.source(k, x, source)
            if inside[k].any():
                x = seated.edit(k, inside[k], x, source)
        return x

    def edited(self, site: str, now: Pass) -> Bool[np.ndarray, "rows width"]:
        """The cells that this pass edits at a site (for `probes.capture.Capture`)."""
        windows = self._windows([self._of(site, r) for r in self._rows])
        return np.any(windows.inside(now.positions, self.newest), axis=0)

    def check(self) -> Counter[Hashable]:
        """Compare how many positions were edited with what the windows said for the passes run.

        The count is of positions at which the values really changed (or, for ablate, clamp and
        project, already were what the edit makes them), summed on the device beside the edit and
        read here. So no step waits for the device.

        Returns:
            Edited positions by setting since the last check, each edit counted.

        Raises:
            NotFired: another number, with site, row and request.
        """
        missed = self.missed()
        if missed:
            raise NotFired(next(iter(missed.values())))
        counted, self._counted = self._counted, Counter()
        return counted

    def missed(self) -> dict[Hashable, str]:
        """`check` for many settings of which some may fail: what is wrong with each that does."""
        self._closed += [seated.tally for seated, _ in self._seated.values()]
        self._count()
        missed, self._missed = self._missed, {}
        return missed

    def _count(self) -> None:
        closed, self._closed = self._closed, []
        for tally in closed:
            counted, missed = tally.read()
            self._counted += counted
            self._missed = {**missed, **self._missed}

    def _windows(self, edits: Sequence[Sequence[Edit]]) -> Windows:
        windows = [[e.window for e in listed] for listed in edits]
        reading = any(w.after is not None for listed in windows for w in listed)
        texts = [self._texts.get(_owner(r), r.prompt) if r and reading else () for r in self._rows]
        return Windows(self._rows, windows, texts, self.model.vocab)

    def _of(self, site: str, request: Request | None) -> list[Edit]:
        return [] if request is None else self._edits.get((site, request.setting), [])

    def _gathered(self, site: str, now: Pass, x: Tensor) -> tuple[Seated, Windows]:
        if site not in self._seated:
            if not self._checked:
                self._check_prefix(now)
            bank = self._banks[site].tensor(x)
            edits = [self._of(site, r) for r in self._rows]
            self._seated[site] = Seated(site, self._rows, edits, bank), self._windows(edits)
        return self._seated[site]

    def _signature(self, request: Request) -> Hashable:
        """The setting, if it edits positions before P-1, which other settings must not share."""
        key = request.setting, len(request.prompt)
        if key not in self._signatures:
            self._signatures[key] = request.setting if self._edits_prefix(*key) else None
        return self._signatures[key]

    def _edits_prefix(self, setting: Hashable, prompt: int) -> bool:
        bounds = (
            edit.window.bounds(prompt)
            for site in self.sites
            for edit in self._edits.get((site, setting), [])
        )
        return any(start < min(stop, prompt - 1) for start, stop in bounds)

    def _check_prefix(self, now: Pass) -> None:
        """Refuse a row that begins on a prefix that another setting was prefilled under."""
        first, final = now.positions[:, 0].tolist(), now.positions[:, -1].tolist()
        for request, start, stop in zip(now.requests, first, final, strict=True):
            last = len(request.prompt) - 1
            if stop != last - 1 and (start != last or last == 0):
                continue
            key, own = (request.prompt[:-1], request.prefix_key), self._signature(request)
            if stop == last - 1:
                self._prefilled[key] = own
            elif self._prefilled.get(key) != own:
                raise Refusal(
                    f"settings {own!r} and {self._prefilled.get(key)!r} edit the prompt "
                    f"differently and share its prefix: give the requests other prefix keys "
                    f"(steer.keyed(requests))."
                )
        self._checked = True


def _reading(edit: Edit, feature: FeatureOperation, bank: Bank, before: Sequence[Edit]) -> Edit:
    """The edit with what it reads: features of one dictionary, side by side, read the same x.

    So they become what a decoder makes of the edited activations. A feature that is edited a
    second time is read anew.
    """
    reading = feature.reading
    group: list[Edit] = []
    for one in reversed(before):
        if one.reading is None or one.reading.dictionary is not reading.dictionary:
            break
        group.append(one)
        if not one.together:
            break
    latents = [one.reading.latent for one in group if one.reading]
    together = bool(latents) and reading.latent not in latents
    (encoder,) = bank.lines(reading)
    return replace(edit, reading=reading, encoder=encoder, together=together)


def _owner(of: Request | Text) -> tuple:
    return of.problem, of.sample, of.setting
