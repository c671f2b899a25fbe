"""The bench folder: providers, harness profiles, variants, experiments and task cards, one file a thing.

Each kind is a `Shelf`: the user's folder first, then the examples that ship with Melete. `check` reads every file and
everything that it refers to, and returns all that is wrong at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from melete import find
from melete.bench import checkers
from melete.bench.experiment import Experiment
from melete.bench.harness_profile import HarnessProfile
from melete.bench.task_card import Card, TaskCard, cards
from melete.bench.variant import Variant
from melete.documents import Document, Place, Problem, Shelf
from melete.errors import ConfigError, MeleteError, UnknownNameError
from melete.gateway import provider as providers
from melete.gateway.provider import Provider
from melete.settings import Settings


@dataclass(frozen=True)
class Bench:
    """All typed files of one bench folder, read when they are asked for."""

    settings: Settings

    @cached_property
    def providers(self) -> Shelf[Provider]:
        """Provider files."""
        return providers.shelf(self.settings)

    @cached_property
    def harness_profiles(self) -> Shelf[HarnessProfile]:
        """Harness profiles."""
        return self._shelf("harness profile", HarnessProfile, "harness_profiles")

    @cached_property
    def variants(self) -> Shelf[Variant]:
        """Variants."""
        return self._shelf("variant", Variant, "variants")

    @cached_property
    def experiments(self) -> Shelf[Experiment]:
        """Experiments."""
        return self._shelf("experiment", Experiment, "experiments")

    @cached_property
    def task_cards(self) -> Shelf[TaskCard]:
        """Task cards; a set is one file."""
        return self._shelf("task card", TaskCard, "task_cards")

    @property
    def shelves(self) -> tuple[Shelf[Any], ...]:
        """All kinds, in the order in which one refers to the next."""
        return (self.providers, self.harness_profiles, self.variants, self.task_cards, self.experiments)

    def _shelf(self, kind: str, model: Any, name: str) -> Shelf[Any]:
        return Shelf(kind, model, self.settings.bench / name, f"melete.bench.{name}")

    def cards(self, name: str) -> list[Card]:
        """The cards that a name stands for: one, all of a set, or `set/number`.

        Raises:
            UnknownNameError: no such card, or no such number in the set.
            ConfigError: the file is wrong.
        """
        stem, _, number = name.partition("/")
        found = cards(self.task_cards.read(stem))
        if not number:
            return found
        chosen = [card for card in found if card.id == name]
        if not chosen:
            raise UnknownNameError("task card", name, [card.id for card in found])
        return chosen

    def card(self, name: str) -> Card:
        """One card by its name.

        Raises:
            UnknownNameError: no such card.
            ConfigError: the file is wrong, or the name stands for a set.
        """
        found = self.cards(name)
        if found[0].id != name:
            raise ConfigError(
                f"The task card {name!r} is a set of {len(found)}.",
                allowed=f"One of them is {found[0].id} to {found[-1].id}.",
            )
        return found[0]


@dataclass
class Findings:
    """What is wrong, what is worth knowing, and how many files were read."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def check(bench: Bench, environ: Mapping[str, str] | None = None) -> Findings:
    """Reads the user's files and all that they refer to; a variable that a provider lacks is a warning.

    Args:
        bench: folder to check.
        environ: environment in which the variables of providers are looked for; that of this process by default.
    """
    environ = os.environ if environ is None else environ
    findings = Findings()
    read: dict[str, dict[str, Document[Any]]] = {}
    for shelf in bench.shelves:
        read[shelf.kind] = {}
        for name, path in shelf.paths().items():
            document, problems = shelf.check(name)
            findings.problems += problems
            if document is not None:
                read[shelf.kind][name] = document
            if path.parent == shelf.folder:
                findings.counts[shelf.kind] = findings.counts.get(shelf.kind, 0) + 1
    references = _References(bench, findings)
    for profile in read["harness profile"].values():
        references.profile(profile)
    for variant in read["variant"].values():
        references.variant(variant, read["provider"])
    for card in read["task card"].values():
        references.card(card)
    for experiment in read["experiment"].values():
        references.experiment(experiment)
    for provider in read["provider"].values():
        if provider.path.parent == bench.providers.folder:
            references.provider(provider, environ)
    return findings


@dataclass
class _References:
    """Looks up what one file says of others."""

    bench: Bench
    findings: Findings

    def profile(self, document: Document[HarnessProfile]) -> None:
        for name, file in document.record.files.items():
            if file.source is not None and not (document.path.parent / file.source).is_file():
                self._add(
                    document, ("files", name, "source"), f"no file {file.source!r} is beside the profile."
                )

    def variant(self, document: Document[Variant], known: Mapping[str, Document[Provider]]) -> None:
        variant = document.record
        self._name(document, ("harness_profile",), self.bench.harness_profiles, variant.harness_profile)
        if self._name(document, ("provider",), self.bench.providers, variant.provider):
            models = known[variant.provider].record.models if variant.provider in known else None
            if models is not None and variant.model not in models:
                error = UnknownNameError(f"model of {variant.provider}", variant.model, models)
                self._add(document, ("model",), _sentence(error))

    def card(self, document: Document[TaskCard]) -> None:
        card = document.record
        if card.folder is not None and not (document.path.parent / card.folder).is_dir():
            self._add(document, ("folder",), f"no folder {card.folder!r} is beside the card.")
        if card.scenario is not None:
            known = find.names("melete.agents.scenarios")
            if card.scenario.name not in known:
                error = UnknownNameError("scenario", card.scenario.name, known)
                self._add(document, ("scenario", "name"), _sentence(error))
        for name, options in card.checker.items():
            try:
                _, problems = checkers.options(name, options)
            except MeleteError as error:
                self._add(document, ("checker", name), _sentence(error))
                continue
            for place, key, text in problems:
                self.findings.problems.append(
                    document.problem(("checker", name, *place), text, key=f"checker.{name}.{key}")
                )

    def experiment(self, document: Document[Experiment]) -> None:
        for number, name in enumerate(document.record.variants):
            self._name(document, ("variants", number), self.bench.variants, name)
        for number, name in enumerate(document.record.task_cards):
            self._name(document, ("task_cards", number), self.bench.task_cards, name.partition("/")[0])

    def provider(self, document: Document[Provider], environ: Mapping[str, str]) -> None:
        for name in document.record.missing(environ):
            place: Place = ("api_key",) if name in str(document.record.api_key) else ()
            text = f"the environment variable {name} is not set."
            self.findings.warnings.append(document.problem(place, text))

    def _name(self, document: Document[Any], place: Place, shelf: Shelf[Any], name: str) -> bool:
        known = shelf.names()
        if name in known:
            return True
        self._add(document, place, _sentence(UnknownNameError(shelf.kind, name, known)))
        return False

    def _add(self, document: Document[Any], place: Place, text: str) -> None:
        self.findings.problems.append(document.problem(place, text))


def _sentence(error: MeleteError) -> str:
    """An error's message as one line that follows a key."""
    text = " ".join(part for part in (error.found, error.allowed) if part)
    return text[0].lower() + text[1:]
