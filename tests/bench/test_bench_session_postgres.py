"""A session's whole life on SQLite and on PostgreSQL: the same story, the same rows."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import own_bench
import pytest

from melete.bench import session, traffic
from melete.bench.outcome import Outcome
from melete.errors import SessionError
from melete.gateway import sessions
from melete.gateway.events import Event, event_id
from melete.gateway.spool import SpoolWriter
from melete.settings import Settings
from melete.store.database import connect


def test_session_from_start_to_end_and_once_more(store: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(store, bench_folder=own_bench.write(tmp_path / "bench"))
    opened = own_bench.start(settings, experiment="both")
    writer, id = SpoolWriter(settings.gateway / "spool"), opened.session.id
    told = {"begin": {"endpoint": "chat"}, "end": {"status": "ok", "tokens_in": 5, "cost_usd": 0.5}}
    for kind, fields in told.items():
        writer.write(Event(kind, event_id("r1", kind, 0), "r1", id, time.time(), writer.writer, dict(fields)))

    ended = session.finalize(settings, id, Outcome("checker", True, 0.75, "three of four"))

    with pytest.raises(SessionError, match="was finalised already"):
        session.finalize(settings, id, Outcome("manual", False))
    with connect(settings.database) as connection:
        used = traffic.of_session(connection, id)
        assert sessions.get(connection, id) == ended
    assert (ended.solved, ended.score, ended.attempt) == (True, 0.75, 0)
    assert (used.requests, used.tokens_in, used.cost_usd) == (1, 5, 0.5)
    assert own_bench.start(settings, experiment="both").session.attempt == 1
