"""A session's life on a real store: what is there before any traffic, and how it ends, once."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import own_bench
import pytest
from sqlalchemy import select, text

from melete.bench import planned, session, traffic, workspace
from melete.bench.outcome import Outcome
from melete.bench.session import Plan
from melete.errors import ConfigError, SessionError, StorageError, UnknownNameError
from melete.gateway import entities, sessions
from melete.gateway.events import Event, event_id
from melete.gateway.sessions import CREDENTIALS
from melete.gateway.spool import SpoolWriter
from melete.records import SessionState
from melete.settings import Settings
from melete.store.database import connect

SOLVED = Outcome("manual", solved=True)


@pytest.fixture
def settings(home: Settings, tmp_path: Path) -> Settings:
    return own_bench.settings_with(home, tmp_path)


def tell(settings: Settings, writer: SpoolWriter, request: str, id: str, kind: str, **fields: Any) -> None:
    """Says what the hook would say of a request."""
    writer.write(Event(kind, event_id(request, kind, 0), request, id, time.time(), writer.writer, fields))


def test_start_keeps_the_row_with_metadata_before_any_traffic(settings: Settings) -> None:
    opened = own_bench.start(settings)

    with connect(settings.database) as connection:
        row = sessions.get(connection, opened.session.id)
        profile = entities.document(connection, "harness_profile", str(row.harness_profile))
    assert row.state is SessionState.LIVE
    assert (row.model, row.attempt, row.solved) == ("small", 0, None)
    assert [entities.name_of(str(id)) for id in (row.variant, row.provider, row.task_card)] == [
        "one",
        "here",
        "say",
    ]
    assert profile["description"] == "Writes what it is told."
    assert row.metadata["harness_version"].startswith("Python 3")
    assert {"host", "versions", "workdir", "repository", "commit", "dirty"} <= set(row.metadata)


def test_start_keeps_the_key_only_as_its_hash(settings: Settings) -> None:
    opened = own_bench.start(settings)

    with connect(settings.database) as connection:
        hashes = list(connection.scalars(select(CREDENTIALS.c.key_hash)))
        dump = " ".join(
            str(row)
            for table in connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all()
            for row in connection.execute(text(f'SELECT * FROM "{table}"'))
        )
    key = opened.credential.key
    assert hashes == [hashlib.sha256(key.encode()).hexdigest()]
    assert key not in dump
    assert key not in repr(opened)


def test_start_renders_environment_and_files_for_their_owner_alone(settings: Settings) -> None:
    opened = own_bench.start(settings)

    file = opened.folder / "harness" / "settings.json"
    assert opened.environment["OPENAI_BASE_URL"] == "http://127.0.0.1:9/v1"
    assert opened.environment["OPENAI_API_KEY"] == opened.credential.key
    assert opened.unset == ("OPENAI_ORGANIZATION",)
    assert json.loads(file.read_text()) == {"model": "small", "key": opened.credential.key}
    assert file.stat().st_mode & 0o077 == 0
    assert opened.folder.stat().st_mode & 0o077 == 0


def test_start_of_an_experiment_takes_its_limits_into_the_credential(settings: Settings) -> None:
    opened = own_bench.start(settings, experiment="both")

    with connect(settings.database) as connection:
        row = connection.execute(select(CREDENTIALS)).mappings().one()
    assert row["models"] == ["small"]
    assert (row["policy"]["max_requests"], row["policy"]["budget_usd"], row["policy"]["content"]) == (
        4,
        0.5,
        False,
    )
    assert opened.timeout_s == 30
    assert row["expires_s"] - opened.session.created_s == pytest.approx(30 + planned.MARGIN_S, abs=5)


def test_start_takes_the_first_attempt_that_is_free(settings: Settings) -> None:
    first, second = own_bench.start(settings), own_bench.start(settings)
    session.abort(settings, first.session.id)

    third, elsewhere = own_bench.start(settings), own_bench.start(settings, experiment="both")

    assert [opened.session.attempt for opened in (first, second, third, elsewhere)] == [0, 1, 0, 0]


def test_start_after_a_template_changed_refers_to_another_profile(home: Settings, tmp_path: Path) -> None:
    worker = own_bench.FILES["harness_profiles/worker.yaml"]
    profile = re.sub("(?m)^files: .*$", "files: {settings.json: {source: a.json}}", worker)
    settings = own_bench.settings_with(home, tmp_path, harness_profiles_worker=profile)
    template = settings.bench / "harness_profiles" / "a.json"
    ids = []
    for text_of_it in ("{}", "{} "):
        template.write_text(text_of_it)
        ids.append(own_bench.start(settings).session.harness_profile)

    assert ids[0] != ids[1]


def test_start_many_opens_every_plan_with_a_key_of_its_own(settings: Settings) -> None:
    plans = [Plan(variant, "say") for variant in ("one", "two", "one")]

    opened = session.start_many(settings, plans, "http://127.0.0.1:9")

    assert [(each.variant.name, each.session.attempt) for each in opened] == [
        ("one", 0),
        ("two", 0),
        ("one", 1),
    ]
    assert len({each.credential.key for each in opened}) == 3


def test_start_with_a_model_that_its_provider_lacks_names_file_line_and_key(
    home: Settings, tmp_path: Path
) -> None:
    changed = "harness_profile: worker\nprovider: here\nmodel: huge\n"
    settings = own_bench.settings_with(home, tmp_path, variants_one=changed)

    with pytest.raises(
        ConfigError, match=r"variants/one.yaml:3: model: here has no model 'huge'. Known: large, small"
    ):
        own_bench.start(settings)


def test_start_that_fails_on_the_way_leaves_no_live_session(home: Settings, tmp_path: Path) -> None:
    settings = own_bench.settings_with(home, tmp_path)
    settings.gateway.mkdir(parents=True)
    (settings.gateway / "sessions").write_text("in the way")

    with pytest.raises(StorageError, match="sessions"):
        own_bench.start(settings)

    with connect(settings.database) as connection:
        found = sessions.list_sessions(connection)
        alive = connection.scalar(select(CREDENTIALS.c.key_hash).where(CREDENTIALS.c.revoked_s.is_(None)))
    assert [each.state for each in found] == [SessionState.ABORTED]
    assert alive is None
    assert not workspace.folder(settings, found[0].id).exists()


def test_finalize_revokes_the_key_keeps_the_outcome_and_removes_the_folder(settings: Settings) -> None:
    opened = own_bench.start(settings)

    ended = session.finalize(
        settings,
        opened.session.id,
        Outcome("harness", True, 0.5, "well\ndone", {"tool_calls": 3, "text": ["no"]}),
    )

    with connect(settings.database) as connection:
        revoked = connection.scalar(select(CREDENTIALS.c.revoked_s))
    assert (ended.state, ended.solved, ended.score) == (SessionState.FINALISED, True, 0.5)
    assert (ended.outcome_source, ended.outcome_note) == ("harness", "well done")
    assert ended.metadata["self_reported"] == {"tool_calls": 3}
    assert revoked is not None
    assert not opened.folder.exists()


def test_finalize_twice_says_when_it_was_done_and_changes_nothing(settings: Settings) -> None:
    opened = own_bench.start(settings)
    ended = session.finalize(settings, opened.session.id, SOLVED)

    with pytest.raises(
        SessionError, match=r"was finalised already, on \d{4}-\d\d-\d\d .* nothing was changed"
    ):
        session.finalize(settings, opened.session.id, Outcome("manual", solved=False))

    with connect(settings.database) as connection:
        assert sessions.get(connection, ended.id) == ended


def test_finalize_by_two_at_once_is_done_by_one(settings: Settings) -> None:
    opened = own_bench.start(settings)
    told: list[str] = []

    def end() -> None:
        try:
            told.append(str(session.finalize(settings, opened.session.id, SOLVED).state))
        except SessionError as error:
            told.append(error.found)

    threads = [threading.Thread(target=end) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert told.count("finalised") == 1
    assert len(told) == 3


def test_finalize_waits_for_an_answer_that_is_on_its_way(settings: Settings) -> None:
    opened, writer = own_bench.start(settings), SpoolWriter(settings.gateway / "spool")
    id = opened.session.id
    tell(settings, writer, "r1", id, "begin", endpoint="chat", model_asked="small", started_s=time.time())
    answer = {"status": "ok", "tokens_in": 7, "tokens_out": 3, "cost_usd": 0.25, "cost_source": "config"}
    late = threading.Timer(0.3, lambda: tell(settings, writer, "r1", id, "end", **answer))
    late.start()

    ended = session.finalize(settings, id, SOLVED)

    late.join()
    with connect(settings.database) as connection:
        used = traffic.of_session(connection, id)
    assert (used.requests, used.open, used.tokens_in, used.cost_usd) == (1, 0, 7, 0.25)
    assert "undrained" not in ended.metadata


def test_finalize_gives_up_waiting_after_its_bound_and_says_so(settings: Settings) -> None:
    opened, writer = own_bench.start(settings), SpoolWriter(settings.gateway / "spool")
    tell(settings, writer, "r1", opened.session.id, "begin", endpoint="chat", started_s=time.time())

    ended = session.finalize(settings, opened.session.id, SOLVED, drain_s=0.05)

    assert ended.metadata["undrained"] is True


def test_finalize_many_leaves_out_what_had_ended_and_waits_for_each(settings: Settings) -> None:
    ids = [own_bench.start(settings).session.id for _ in range(3)]
    session.abort(settings, ids[1])

    ended = session.finalize_many(settings, dict.fromkeys(ids, SOLVED))

    assert [(one.id, one.state, one.solved) for one in ended] == [
        (ids[0], SessionState.FINALISED, True), (ids[2], SessionState.FINALISED, True),
    ]  # fmt: skip
    assert not list((settings.gateway / "sessions").iterdir())


def test_finalize_of_an_unknown_session_lists_the_known(settings: Settings) -> None:
    opened = own_bench.start(settings)

    with pytest.raises(UnknownNameError, match=opened.session.id):
        session.finalize(settings, "s-nope", SOLVED)


def test_sweep_expires_what_is_overdue_takes_the_key_and_keeps_the_work(settings: Settings) -> None:
    opened = own_bench.start(settings, timeout_s=0.01)
    (opened.folder / "work").mkdir()
    with connect(settings.database) as connection:
        connection.execute(text("UPDATE session SET expires_s = 1"))

    expired = session.sweep(settings)

    assert expired == [opened.session.id]
    assert not (opened.folder / "harness").exists()
    assert (opened.folder / "work").exists()
    with pytest.raises(SessionError, match="was expired already"):
        session.finalize(settings, opened.session.id, SOLVED)


def test_sweep_leaves_a_live_session_as_it_is(settings: Settings) -> None:
    opened = own_bench.start(settings)

    assert session.sweep(settings) == []
    assert (opened.folder / "harness" / "settings.json").exists()


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_outcome_with_a_score_outside_its_range_is_refused(score: float) -> None:
    with pytest.raises(ConfigError, match="outside its range"):
        Outcome("manual", score=score)


def test_traffic_tells_failures_and_what_has_no_price(settings: Settings) -> None:
    opened, writer = own_bench.start(settings), SpoolWriter(settings.gateway / "spool")
    id = opened.session.id
    for request, status in (("r1", "ok"), ("r2", "error"), ("r3", "client_abort"), ("r4", "refused")):
        tell(settings, writer, request, id, "begin", endpoint="chat", started_s=time.time())
        fields = (
            {"status": status, "error_class": "rate_limit", "http_status": 429} if status == "error" else {}
        )
        tell(
            settings,
            writer,
            request,
            id,
            "end",
            **{"status": status, "tokens_in": 5, "tokens_out": 1, **fields},
        )
    session.drain(settings, [id], 1.0)

    with connect(settings.database) as connection:
        used = traffic.of_session(connection, id)

    assert (used.requests, used.failed, used.tokens_in, used.cost_usd, used.unpriced) == (4, 3, 20, None, 3)
    assert used.last_error is not None
    assert used.line().startswith("4 requests, 3 failed, 20 tokens in, 4 out, last error: ")
