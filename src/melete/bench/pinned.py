"""A bench folder whose files are read once, with the runs behind its models pinned to the checkpoints of this moment.

A provider of kind `melete` may name a run for a model (`serve: practice`). Which weights that is may change while the
files do not, so for playing it is replaced by run and step, and it stands in the variant's text too: other weights are
another variant, and no report mixes their sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel

from melete.bench.folder import Bench
from melete.bench.task_card import Card
from melete.documents import Document, Shelf
from melete.errors import ConfigError
from melete.gateway import provider as providers
from melete.gateway.provider import Provider
from melete.runs import refs
from melete.settings import Settings

M = TypeVar("M", bound=BaseModel)
ECHO = "echo"
"""The model of `melete serve` that needs no run."""


@dataclass(frozen=True)
class _Pinned(Shelf[M]):
    """A shelf whose files are read once; some records are not as their file says."""

    changed: Mapping[str, M] = field(default_factory=dict)
    _read: dict[str, Document[M]] = field(default_factory=dict, compare=False)

    def read(self, name: str) -> Document[M]:
        if name not in self._read:
            document = super().read(name)
            self._read[name] = replace(document, record=self.changed.get(name, document.record))
        return self._read[name]


@dataclass(frozen=True)
class PinnedBench(Bench):
    """See the head of this file; make one with `pin`."""

    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _cards: dict[str, dict[str, Card]] = field(default_factory=dict, compare=False)

    @cached_property
    def providers(self) -> Shelf[Provider]:
        """Provider files, with the runs that their models mean."""
        shelf = providers.shelf(self.settings)
        return _Pinned(
            shelf.kind, shelf.model, shelf.folder, shelf.package, self.records.get("providers", {})
        )

    def _shelf(self, kind: str, model: Any, name: str) -> Shelf[Any]:
        shelf = super()._shelf(kind, model, name)
        return _Pinned(shelf.kind, shelf.model, shelf.folder, shelf.package, self.records.get(name, {}))

    def card(self, name: str) -> Card:
        """See `Bench.card`; the cards of a set are made once."""
        stem = name.partition("/")[0]
        if stem not in self._cards:
            self._cards[stem] = {card.id: card for card in self.cards(stem)}
        return self._cards[stem].get(name) or super().card(name)


def pin(settings: Settings, variants: Sequence[str], runs: Mapping[str, str]) -> PinnedBench:
    """The bench folder of some variants, with the runs behind their models pinned.

    Args:
        settings: bench folder and runs.
        variants: names of what will be played.
        runs: model to run, instead of the one that its provider file names.

    Raises:
        UnknownNameError: no such variant, provider or run.
        CheckpointError: a run has no checkpoint of a language model.
        ConfigError: a file is wrong, or `runs` names a model that no variant has or that is served elsewhere.
    """
    bench = Bench(settings)
    files = {name: bench.variants.read(name).record for name in variants}
    offering = {one.provider: bench.providers.read(one.provider).record for one in files.values()}
    asked = {one.model for one in files.values()}
    for model in runs:
        if model not in asked:
            raise ConfigError(
                f"No variant that is played asks for a model {model!r}.",
                allowed=f"Models of the variants: {', '.join(sorted(asked))}.",
            )
    for name, provider in offering.items():
        offering[name] = _with_runs(settings, provider, asked, runs)
    played = {}
    for name, variant in files.items():
        offered = offering[variant.provider].models.get(variant.model)
        if offered is not None and offered.serve is not None:
            said = f"{variant.description} Weights: {offered.serve}.".strip()
            played[name] = variant.model_copy(update={"description": said})
    return PinnedBench(settings, {"providers": offering, "variants": played})


def _with_runs(settings: Settings, provider: Provider, asked: set[str], runs: Mapping[str, str]) -> Provider:
    """The provider with those of its models that are asked for, each with run and step where we serve it."""
    if provider.kind != "melete" or provider.base_url is not None:
        elsewhere = next((model for model in provider.models if model in runs), None)
        if elsewhere is not None:
            raise ConfigError(
                f"The model {elsewhere!r} is served elsewhere, so a run cannot stand behind it.",
                allowed="A provider of kind melete without base_url has its models served from runs.",
                next_step=f"Change the provider {provider.name}.",
            )
        return provider
    models = {}
    for name, model in provider.models.items():
        if name in asked:
            models[name] = model.model_copy(
                update={"serve": resolved(settings, runs.get(name) or model.serve or name)}
            )
    return provider.model_copy(update={"models": models}) if models else provider


def resolved(settings: Settings, ref: str) -> str:
    """Run and step of a reference; a folder or a hub id stays as it is.

    Raises:
        UnknownNameError: no such run.
        CheckpointError: it has no checkpoint of a language model.
    """
    if ref == ECHO or ref.count("/") == 1:
        return ref
    folder = refs.checkpoint(settings, ref, ("llm",))
    run, step = folder.parent.parent, folder.name.removeprefix("step_")
    return f"{run.name}:{int(step)}" if run.parent == settings.runs and step.isdecimal() else str(folder)
