"""A session's life: opened with its metadata before any traffic, given a credential, ended with an outcome.

    opened = start(settings, Plan(variant="before", task="support/3"), gateway.url)
    …the harness talks to the gateway with opened.environment…
    finalize(settings, opened.session.id, Outcome("checker", solved=True))

Ending goes in this order: the credential is revoked, so that nothing new begins; what has begun is waited for, within
a bound; the session is finalised; its rollups are computed. A session that has ended has ended for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from melete.bench import provenance, workspace
from melete.bench.folder import Bench
from melete.bench.harness_profile import HarnessProfile, render
from melete.bench.outcome import Outcome
from melete.bench.planned import Plan as Plan
from melete.bench.planned import Planned, rows
from melete.bench.task_card import Card
from melete.bench.variant import Variant
from melete.errors import ConfigError, GatewayError, SessionError, UnknownNameError
from melete.gateway import ingest, process, provider, sessions
from melete.gateway.collectors import spool
from melete.gateway.issuers import Credential, Issuer
from melete.gateway.issuers.embedded import EmbeddedIssuer
from melete.gateway.issuers.litellm import LiteLLMIssuer
from melete.gateway.process import Gateway
from melete.records import SessionRecord, SessionState
from melete.settings import Settings
from melete.store.database import connect, opened

DRAIN_S = 10.0
ADMIN_KEY = "LITELLM_ADMIN_KEY"


@dataclass(frozen=True)
class Opened:
    """A session that is live, and all that its harness needs; the key stands nowhere else.

    Attributes:
        session: its row.
        credential: key, shown once.
        environment: variables for the harness.
        unset: variables to take away from it.
        values: of the placeholders of its profile, the prompt apart.
        folder: of the session; `work` and `harness` lie in it.
        timeout_s: seconds it may take, None for no limit.
    """

    session: SessionRecord
    credential: Credential
    environment: dict[str, str] = field(repr=False)
    unset: tuple[str, ...]
    values: dict[str, str] = field(repr=False)
    folder: Path
    profile: HarnessProfile
    variant: Variant
    card: Card
    timeout_s: float | None

    @property
    def workdir(self) -> Path:
        """Folder in which the harness works."""
        return Path(self.values["workdir"])

    @property
    def task(self) -> dict[str, Any]:
        """The task as the batch protocol says it."""
        return {
            **self.card.task,
            "attempt": self.session.attempt,
            "parameters": dict(self.variant.parameters),
        }


def start(
    settings: Settings,
    plan: Plan,
    base_url: str,
    *,
    workdir: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    issuer: Issuer | None = None,
) -> Opened:
    """Opens one session; see `start_many`."""
    return start_many(settings, [plan], base_url, workdir=workdir, metadata=metadata, issuer=issuer)[0]


def start_many(
    settings: Settings,
    plans: Sequence[Plan],
    base_url: str,
    *,
    workdir: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    issuer: Issuer | None = None,
    bench: Bench | None = None,
) -> list[Opened]:
    """Opens sessions: their rows in one transaction, then a credential for each, then they are live.

    Args:
        settings: home folder, bench folder and database.
        plans: what to open.
        base_url: address of the gateway, without /v1.
        workdir: where the harness works; a folder `work` of the session's own by default.
        metadata: kept with each session besides what is found out here.
        issuer: who makes the credentials; our own database by default.
        bench: where the names are looked up; the bench folder of the settings by default.

    Raises:
        UnknownNameError: a name that no file has.
        ConfigError: a file is wrong, or the variant's model is none of its provider's.
        StorageError: the session's folder or the database cannot be written.
    """
    bench = bench or Bench(settings)
    chosen = [Planned.of(bench, plan) for plan in plans]
    found_out = {
        **provenance.of_machine(settings),
        **provenance.of_repository(workdir or Path.cwd()),
        **(metadata or {}),
        **({"litellm": base_url.rstrip("/")} if isinstance(issuer, LiteLLMIssuer) else {}),
    }
    with connect(settings.database) as connection:
        records = sessions.open_many(connection, rows(connection, settings, chosen, found_out))
    equipped = []
    try:
        with opened(settings.database) as engine:
            for record, each in zip(records, chosen, strict=True):
                credential = _issue(issuer or EmbeddedIssuer(engine), record, each)
                equipped.append(_equip(settings, record, each, credential, base_url, workdir))
        with connect(settings.database) as connection:
            live = [
                sessions.move(
                    connection, each.session.id, SessionState.LIVE, metadata={"workdir": str(each.workdir)}
                )
                for each in equipped
            ]
    except BaseException:
        for record in records:
            with contextlib.suppress(SessionError):
                abort(settings, record.id, "it could not be started", issuer=issuer)
        raise
    return [replace(each, session=record) for each, record in zip(equipped, live, strict=True)]


def finalize(
    settings: Settings,
    id: str,
    outcome: Outcome,
    *,
    drain_s: float = DRAIN_S,
    keep_work: bool = False,
    issuer: Issuer | None = None,
) -> SessionRecord:
    """Ends a session with its outcome: door closed, what had begun waited for, row finalised, rollups computed.

    Args:
        settings: home folder and database.
        id: session, or the beginning of its id.
        outcome: what came of it.
        drain_s: seconds to wait for answers that are still on their way.
        keep_work: whether the working copy stays in the session's folder.
        issuer: who made its credential; found by the session itself by default.

    Raises:
        UnknownNameError: no such session.
        SessionError: it has ended already; nothing is changed.
    """
    found = _going_on(settings, id, SessionState.FINALISED)
    _close(settings, [found], issuer)
    undrained = drain(settings, [found.id], drain_s)
    ended = _move(settings, [found.id], SessionState.FINALISED, [outcome], undrained)
    workspace.remove(settings, found.id, keep_work=keep_work)
    return ended[0]


def finalize_many(settings: Settings, outcomes: Mapping[str, Outcome]) -> list[SessionRecord]:
    """Ends sessions together, in the same order of things, because a transaction costs more than a row.

    Args:
        settings: home folder and database.
        outcomes: id of a session to what came of it.

    Returns:
        The sessions that were finalised; one that had ended meanwhile, such as by its time, is left out.
    """
    with connect(settings.database) as connection:
        known = [sessions.get(connection, id) for id in outcomes]
    going_on = [found for found in known if found.state not in sessions.ENDED]
    _close(settings, going_on, None)
    ids = [found.id for found in going_on]
    undrained = drain(settings, ids, DRAIN_S)
    ended = _move(
        settings, ids, SessionState.FINALISED, [outcomes[id] for id in ids], undrained, strict=False
    )
    for id in ids:
        workspace.remove(settings, id)
    return ended


def abort(settings: Settings, id: str, note: str = "", *, issuer: Issuer | None = None) -> SessionRecord:
    """Ends a session without an outcome; what it has cost stays.

    Raises:
        UnknownNameError: no such session.
        SessionError: it has ended already; nothing is changed.
    """
    found = _going_on(settings, id, SessionState.ABORTED)
    _close(settings, [found], issuer)
    ended = _move(settings, [found.id], SessionState.ABORTED, [Outcome("manual", note=note)], set())
    workspace.remove(settings, found.id)
    return ended[0]


def sweep(settings: Settings) -> list[str]:
    """Expires sessions whose time is over, and removes what harnesses of ended ones were given; returns the expired.

    Working copies stay, for whoever forgot to finalise.
    """
    with connect(settings.database) as connection:
        expired = sessions.expire_due(connection)
        for place in workspace.equipped(settings):
            with contextlib.suppress(UnknownNameError):
                if sessions.get(connection, place.name).state in sessions.ENDED:
                    workspace.remove(settings, place.name, keep_work=True)
    return expired


def reach(settings: Settings, variants: Sequence[str], *, start: bool = False) -> Gateway:
    """The gateway that is up and offers the models of some variants.

    Args:
        settings: home folder and bench folder.
        variants: names of variants that are to be played.
        start: whether to start it, or start it anew, with their providers where it does not offer them.

    Raises:
        GatewayError: it is not up, or does not offer a model.
        UnknownNameError: a name that no file has.
    """
    bench = Bench(settings)
    chosen = [bench.variants.read(name).record for name in variants]
    gateway = process.running(settings)
    missing = sorted({each.model for each in chosen} - set(gateway.models if gateway else ()))
    if gateway is not None and not missing:
        return gateway
    if start:
        wanted = {each.provider: bench.providers.read(each.provider).record for each in chosen}
        known = {
            one.name: one
            for one in provider.own(settings)
            if not one.missing(os.environ) and (one.kind != "melete" or one.base_url is not None)
        }
        return process.up(settings, list({**known, **wanted}.values()))
    if gateway is None:
        raise GatewayError(
            "The gateway is not up, and a session without it would have no traffic.",
            next_step="Start it with: melete gateway up   (or add --up)",
        )
    raise GatewayError(
        f"The gateway that is up does not offer {', '.join(missing)}.",
        allowed=f"It offers: {', '.join(gateway.models)}.",
        next_step="Start it anew, with the providers as they are now: melete gateway up   (or add --up)",
    )


def _issue(issuer: Issuer, record: SessionRecord, each: Planned) -> Credential:
    assert record.expires_s is not None
    return issuer.issue(record.id, [each.variant.record.model], record.expires_s, each.policy)


def _equip(
    settings: Settings,
    record: SessionRecord,
    each: Planned,
    credential: Credential,
    base_url: str,
    workdir: Path | None,
) -> Opened:
    """Folder and environment of a session whose row and credential are there."""
    profile, variant = each.profile.record, each.variant.record
    place = workspace.make(settings, record.id)
    values = {
        "base_url": base_url.rstrip("/"),
        "key": credential.key,
        "model": variant.model,
        "session": record.id,
        "session_dir": str(place / "harness"),
        "workdir": str(workdir or place / "work"),
        "prompt": each.card.card.prompt,
        "parameters": json.dumps(variant.parameters, ensure_ascii=False, sort_keys=True),
        "python": sys.executable,
    }
    workspace.write_files(profile, each.profile.path.parent, place / "harness", values)
    environment = {name: render(text, values) for name, text in profile.environment.items()}
    return Opened(
        session=record,
        credential=credential,
        environment={**environment, "MELETE_SESSION": record.id},
        unset=tuple(profile.unset),
        values=values,
        folder=place,
        profile=profile,
        variant=variant,
        card=each.card,
        timeout_s=each.timeout_s,
    )


def _going_on(settings: Settings, id: str, state: SessionState) -> SessionRecord:
    """A session that has not ended; one that has says when."""
    with connect(settings.database) as connection:
        found = sessions.get(connection, id)
        return found if found.state not in sessions.ENDED else sessions.move(connection, found.id, state)


def _close(settings: Settings, going_on: Sequence[SessionRecord], issuer: Issuer | None) -> None:
    """Takes the keys of sessions, so that nothing new begins."""
    with opened(settings.database) as engine:
        for found in going_on:
            (issuer or issuer_of(engine, found.metadata.get("litellm"))).revoke(found.id)


def _move(
    settings: Settings,
    ids: Sequence[str],
    state: SessionState,
    outcomes: Sequence[Outcome],
    undrained: set[str],
    *,
    strict: bool = True,
) -> list[SessionRecord]:
    """Writes outcomes and rollups; where it is not strict, a session that ended meanwhile is left out."""
    from melete.bench import rollups  # numpy, which a session's start can do without

    ended = []
    with connect(settings.database) as connection:
        for id, outcome in zip(ids, outcomes, strict=True):
            fields = outcome.fields()
            if id in undrained:
                fields["metadata"]["undrained"] = True
            with contextlib.nullcontext() if strict else contextlib.suppress(SessionError):
                ended.append(sessions.move(connection, id, state, **fields))
        rollups.compute(connection, [record.id for record in ended])
    return ended


def issuer_of(engine: Engine, litellm: str | None) -> Issuer:
    """Who makes credentials: our own database, or a LiteLLM elsewhere that has one.

    Args:
        engine: our database.
        litellm: address of that LiteLLM; its admin key is in the environment as `LITELLM_ADMIN_KEY`.

    Raises:
        ConfigError: the admin key is not set.
    """
    if litellm is None:
        return EmbeddedIssuer(engine)
    if not os.environ.get(ADMIN_KEY):
        raise ConfigError(
            f"The LiteLLM at {litellm} makes keys for its administrator only, and {ADMIN_KEY} is not set.",
            next_step=f"Set it with: export {ADMIN_KEY}=…",
        )
    return LiteLLMIssuer(engine, litellm, os.environ[ADMIN_KEY])


def drain(settings: Settings, ids: Sequence[str], wait_s: float) -> set[str]:
    """Reads the spool until nothing that sessions began is open; returns those for which `wait_s` was too short."""
    deadline = time.monotonic() + wait_s
    while True:
        spool.collect(settings)
        with connect(settings.database) as connection:
            left = {id for id in ids if ingest.open_requests(connection, id)}
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.05)
