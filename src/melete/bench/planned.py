"""What a session is planned to be: the files that a plan names, the row that they make, and what its key may do.

Everything is looked up and checked before the first row is written. The exact text of every file in force is kept as an
entity, and the row refers to it; the attempt is the first that is free, unless the plan says one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from melete.bench import inheritance
from melete.bench.experiment import Content, Experiment, Limits
from melete.bench.folder import Bench
from melete.bench.harness_profile import HarnessProfile, templates
from melete.bench.task_card import Card
from melete.bench.variant import Variant
from melete.documents import Document, failure
from melete.gateway import entities, sessions
from melete.gateway.issuers import Policy
from melete.gateway.provider import Provider
from melete.records import SessionState
from melete.settings import Settings

BY_HAND_S = 4 * 3600.0
"""Seconds that a session without a time limit lives, and one that a person plays."""
MARGIN_S = 120.0
"""Seconds that a credential outlives the time limit of its session, for the last answer and the checker."""


@dataclass(frozen=True)
class Plan:
    """A session to open: names of the variant, of one task card and of the experiment it belongs to.

    Attributes:
        attempt: repeat of the same variant and card, from 0; None takes the first that is free.
        timeout_s: seconds the session may take; the card's or the experiment's limit by default.
    """

    variant: str
    task: str
    experiment: str | None = None
    attempt: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Planned:
    """A plan with the files that it names."""

    plan: Plan
    variant: Document[Variant]
    profile: Document[HarnessProfile]
    provider: Document[Provider]
    experiment: Document[Experiment] | None
    card: Card

    @classmethod
    def of(cls, bench: Bench, plan: Plan) -> Planned:
        """Looks up what a plan names.

        Raises:
            UnknownNameError: a name that no file has.
            ConfigError: a file is wrong, or the variant's model is none of its provider's.
        """
        variant = bench.variants.read(plan.variant)
        profile = bench.harness_profiles.read(variant.record.harness_profile)
        provider = bench.providers.read(variant.record.provider)
        if variant.record.model not in provider.record.models:
            known = ", ".join(sorted(provider.record.models))
            text = f"{provider.name} has no model {variant.record.model!r}. Known: {known}."
            raise failure([variant.problem(("model",), text)])
        experiment = None if plan.experiment is None else bench.experiments.read(plan.experiment)
        return cls(plan, variant, profile, provider, experiment, bench.card(plan.task))

    @property
    def limits(self) -> Limits:
        """Of the experiment; none without one."""
        return self.experiment.record.limits if self.experiment else Limits()

    @property
    def timeout_s(self) -> float | None:
        """Seconds that the session may take: as the plan says, else the card, else the experiment."""
        return self.plan.timeout_s or self.card.card.timeout_s or self.limits.timeout_s

    @property
    def policy(self) -> Policy:
        """What the session's key may use up, and whether content is kept."""
        content = self.experiment.record.content if self.experiment else Content()
        return Policy(content.store, content.retention_days, self.limits.max_requests, self.limits.budget_usd)

    @property
    def repository(self) -> dict[str, Any]:
        """The repository that the working copy comes from, where the card names one."""
        source = self.card.card.repository
        return {} if source is None else {"repository": source.url, "commit": source.commit, "dirty": False}

    def entities(self, connection: Connection) -> dict[str, str | None]:
        """Keeps the exact text of every file in force; returns the ids that the session refers to."""
        written = texts(self.variant, self.profile, self.provider)
        written["task_card"] = self.card.document
        if self.experiment is not None:
            written["experiment"] = self.experiment.record.model_dump(mode="json")
        kept = {
            kind: entities.record(connection, kind, document["name"], document)
            for kind, document in written.items()
        }
        return {"experiment": None, **kept}


def texts(
    variant: Document[Variant], profile: Document[HarnessProfile], provider: Document[Provider]
) -> dict[str, dict[str, Any]]:
    """What the store keeps of a variant and of what it names: kind of entity to document.

    Raises:
        ConfigError: a template of the profile is missing.
    """
    return {
        "variant": variant.record.model_dump(mode="json"),
        "harness_profile": {
            **profile.record.model_dump(mode="json"),
            "files": templates(profile.record, profile.path.parent),
        },
        "provider": provider.record.model_dump(mode="json"),
    }


def rows(
    connection: Connection, settings: Settings, chosen: Sequence[Planned], found_out: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of sessions, with the entities that they refer to."""
    now_s, made = time.time(), []
    taken: dict[tuple[str | None, str, str], set[int]] = {}
    for each in chosen:
        key = (each.experiment.name if each.experiment else None, each.variant.name, each.card.id)
        if key not in taken:
            taken[key] = _attempts(connection, *key)
        attempt = each.plan.attempt
        if attempt is None:
            attempt = next(number for number in itertools.count() if number not in taken[key])
        taken[key].add(attempt)
        made.append(
            {
                **each.entities(connection),
                "attempt": attempt,
                "model": each.variant.record.model,
                "expires_s": now_s + (BY_HAND_S if each.timeout_s is None else each.timeout_s + MARGIN_S),
                "content": each.policy.content,
                "metadata": {
                    **found_out,
                    **each.repository,
                    "harness_version": inheritance.version(each.profile.record, settings),
                },
            }
        )
    return made


def _attempts(connection: Connection, experiment: str | None, variant: str, card: str) -> set[int]:
    """Attempts that are taken: those of sessions that go on or were finalised."""
    found = sessions.list_sessions(
        connection, variant=variant, task_card=card, experiment=experiment, limit=100_000
    )
    return {
        session.attempt
        for session in found
        if session.state not in (SessionState.ABORTED, SessionState.EXPIRED)
        and (experiment is not None or session.experiment is None)
    }
