"""Hooks that exist only while a forward pass runs.

Two steppers may share one model, and each must meet its own observers only; so hooks are put on
before a pass and taken off after it, returned or raised. A site whose module did not run raises:
an edit that silently does nothing is the commonest error of steering libraries.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from probes.generate.seam import Observer, Pass
from probes.models import Model, blocks, layer_index, submodule
from probes.records import SITES, Refusal, parse_site


class _Enough(Exception):  # noqa: N818 - it ends a pass early, and is no error
    pass


class Taps:
    """The observers of one model, sorted by the module that each site lives on."""

    def __init__(
        self, model: Model, observers: Sequence[Observer], *, stop_after: int | None = None
    ):
        self.observers = tuple(observers)
        self.stack = blocks(model.net)
        self.last = None if stop_after is None else layer_index(stop_after, len(self.stack))
        by_site: dict[str, list[Observer]] = {}
        for observer in self.observers:
            for site in observer.sites:
                by_site.setdefault(site, []).append(observer)
        self.sites: list[tuple[str, nn.Module, str, list[Observer]]] = []
        order = {site: i for i, site in enumerate(SITES)}
        for site in sorted(by_site, key=lambda s: (parse_site(s)[0], order[parse_site(s)[1]])):
            layer, kind = parse_site(site)
            layer = layer_index(layer, len(self.stack))
            if self.last is not None and layer > self.last:
                raise Refusal(f"{site} lies behind layer {self.last}, where the pass stops.")
            module, how = submodule(model, layer, kind)
            self.sites.append((site, module, how, by_site[site]))

    @contextmanager
    def on(self, now: Pass) -> Iterator[None]:
        """Within this block the model's forward passes go through the observers.

        Raises:
            RuntimeError: a site did not run, so what was asked for at it did not happen.
        """
        if not self.sites and self.last is None:
            yield
            return
        fired: set[str] = set()
        handles = [self._hook(entry, now, fired) for entry in self.sites]
        if self.last is not None:
            handles.append(self.stack[self.last].register_forward_hook(_stop))
        try:
            with suppress(_Enough):
                yield
        finally:
            for handle in handles:
                handle.remove()
        if silent := [entry[0] for entry in self.sites if entry[0] not in fired]:
            raise RuntimeError(
                f"{', '.join(silent)} did not run in this forward pass, so nothing was read or "
                f"edited there: was the model compiled, wrapped, or are its layers skipped?"
            )

    def _hook(
        self, entry: tuple[str, nn.Module, str, list[Observer]], now: Pass, fired: set[str]
    ) -> Any:
        site, module, how, observers = entry

        def through(x: Tensor) -> Tensor:
            fired.add(site)
            for observer in observers:
                x = observer.at(site, x, now)
            return x

        def before(_: nn.Module, args: tuple, named: dict) -> tuple[tuple, dict]:
            if args:
                return (through(args[0]), *args[1:]), named
            return args, {**named, "hidden_states": through(named["hidden_states"])}

        def after(_: nn.Module, __: tuple, output: Any) -> Any:
            if isinstance(output, tuple):
                return (through(output[0]), *output[1:])
            return through(output)

        if how == "input":
            return module.register_forward_pre_hook(before, with_kwargs=True)
        return module.register_forward_hook(after)


def _stop(*_: Any) -> None:
    raise _Enough
