"""Events into the store: order, repetition, cut batches and kills change nothing, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text
from told import WRITER, forget, history, rows, told_of

from melete.errors import StorageError
from melete.gateway import content, retention, sessions, spool
from melete.gateway.collectors import contents
from melete.gateway.collectors.spool import collect, collect_into
from melete.gateway.events import Event, to_line
from melete.gateway.ingest import ingest, open_requests, recompute
from melete.records import SessionState
from melete.settings import Settings
from melete.store import database
from melete.store.models import RequestContentRow, RequestRow
from postgres_at_hand import server

SESSIONS = [f"s-{number}" for number in range(4)]
KILLS = int(os.environ.get("MELETE_KILLS", "20"))


class Broken(Exception):
    """What a test raises to cut a transaction short."""


@pytest.fixture
def engine(store: Settings) -> Iterator[Engine]:
    """An upgraded database with four live sessions."""
    with database.opened(store.database) as opened:
        with opened.begin() as connection:
            opening = [{"id": id, "created_s": 1.0, "state": SessionState.LIVE} for id in SESSIONS]
            sessions.open_many(connection, opening)
        yield opened


def stand(engine: Engine) -> dict[str, list[str]]:
    with engine.connect() as connection:
        return rows(connection)


def told_once(engine: Engine, events: list[Event]) -> dict[str, list[str]]:
    """The rows after all events were told once and in order; the store is empty again afterwards."""
    with engine.begin() as connection:
        ingest(connection, events)
    found = stand(engine)
    with engine.begin() as connection:
        forget(connection)
    return found


def write(folder: Path, events: list[Event], name: str = "host_1_2-000000.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    with path.open("ab") as file:
        file.writelines(to_line(event) for event in events)
    return path


def cut_short(engine: Engine, events: list[Event]) -> None:
    """Ingests in a transaction that does not reach its end."""
    with engine.begin() as connection:
        ingest(connection, events)
        raise Broken


def of_status(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {row.id: row.status for row in connection.execute(select(RequestRow.id, RequestRow.status))}


def alive(writer: str) -> bool:
    return True


def dead(writer: str) -> bool:
    return False


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 40))
def test_everything_told_twice_shuffled_and_half_of_it_cut_short_gives_the_same_rows(
    engine: Engine, seed: int, size: int
) -> None:
    events = history(seed, 36, SESSIONS)
    expected = told_once(engine, events)
    chance = random.Random(seed)
    twice = [*chance.sample(events, len(events)), *chance.sample(events, len(events))]
    for at in range(0, len(twice), size):
        batch = twice[at : at + size]
        if chance.random() < 0.5:
            with pytest.raises(Broken):
                cut_short(engine, batch[: chance.randint(0, len(batch))])
        with engine.begin() as connection:
            ingest(connection, batch)
    assert stand(engine) == expected
    with engine.begin() as connection:
        forget(connection)


@hypothesis_settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), read_bytes=st.integers(1, 4000))
def test_spool_read_while_it_grows_gives_the_same_rows(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, seed: int, read_bytes: int
) -> None:
    events = history(seed, 18, SESSIONS)
    expected = told_once(engine, events)
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("spool")
    streams = dict.fromkeys(("a_1_1-000000.jsonl", "a_1_1-000001.jsonl", "b_2_2-000000.jsonl"), b"")
    for event in [*events, *events]:
        streams[chance.choice(sorted(streams))] += to_line(event)
    while any(streams.values()):
        name = chance.choice(sorted(streams))
        cut = chance.randint(0, 700)
        with (folder / name).open("ab") as file:
            file.write(streams[name][:cut])
        streams[name] = streams[name][cut:]
        collect_into(engine, folder, alive=alive, read_bytes=read_bytes)
    collect_into(engine, folder, alive=alive, read_bytes=read_bytes)
    assert stand(engine) == expected
    with engine.begin() as connection:
        forget(connection)


def test_rows_computed_again_from_their_events_are_the_same(engine: Engine) -> None:
    with engine.begin() as connection:
        ingest(connection, history(4, 36, SESSIONS))
    before = stand(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM request"))
        connection.execute(text("UPDATE session SET first_request_s = NULL, last_request_s = NULL"))
        assert recompute(connection) == len(before["request"])
    assert stand(engine) == before


def test_ingest_says_what_was_new(engine: Engine) -> None:
    events = told_of("ok", "r", "s-0", 1000.0)
    with engine.begin() as connection:
        first = ingest(connection, events)
    with engine.begin() as connection:
        again = ingest(connection, events)
    assert (first.events, first.repeated, first.requests, first.sessions) == (3, 0, 1, {"s-0"})
    assert (again.events, again.repeated, again.requests) == (0, 3, 0)


def test_ingest_writes_when_the_requests_of_a_session_began(engine: Engine) -> None:
    events = [event for at_s in (30.0, 10.0, 20.0) for event in told_of("ok", f"r{at_s}", "s-1", at_s)]
    with engine.begin() as connection:
        ingest(connection, events)
        found = sessions.get(connection, "s-1")
    assert (found.first_request_s, found.last_request_s) == (10.0, 30.0)


def test_request_under_way_is_open_until_its_end_comes(engine: Engine) -> None:
    begin, *rest = told_of("ok", "r", "s-0", 1000.0)
    with engine.begin() as connection:
        ingest(connection, [begin])
        assert open_requests(connection, "s-0") == 1
        ingest(connection, rest)
        assert open_requests(connection, "s-0") == 0


def test_event_of_an_unknown_session_is_kept_and_stops_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        ingest(connection, told_of("ok", "r", "s-of-another-home", 1000.0))
    assert of_status(engine) == {"r": "ok"}


def test_request_of_a_writer_that_died_is_interrupted_and_a_late_end_still_wins(
    engine: Engine, tmp_path: Path
) -> None:
    events = told_of("ok", "r", "s-0", 1000.0)
    write(tmp_path / "spool", events[:1])
    collect_into(engine, tmp_path / "spool", alive=alive)
    assert of_status(engine) == {}
    collected = collect_into(engine, tmp_path / "spool", alive=dead)
    assert (collected.interrupted, of_status(engine)) == (1, {"r": "interrupted"})
    assert collect_into(engine, tmp_path / "spool", alive=dead).interrupted == 0
    write(tmp_path / "spool", events[1:])
    collect_into(engine, tmp_path / "spool", alive=dead)
    assert of_status(engine) == {"r": "ok"}


def test_end_in_the_spool_of_a_dead_writer_is_read_before_its_requests_are_interrupted(
    engine: Engine, tmp_path: Path
) -> None:
    events = told_of("ok", "r", "s-0", 1000.0)
    write(tmp_path / "spool", events[:1])
    collect_into(engine, tmp_path / "spool", alive=alive)
    write(tmp_path / "spool", events[1:])
    assert collect_into(engine, tmp_path / "spool", alive=dead, read_bytes=1).interrupted == 0
    assert of_status(engine) == {"r": "ok"}


def test_garbage_in_a_segment_is_counted_and_stops_nothing(engine: Engine, tmp_path: Path) -> None:
    path = write(tmp_path / "spool", told_of("ok", "a", "s-0", 1000.0))
    with path.open("ab") as file:
        file.write(b'{"kind":"end"\n\xff\xfe\x00\n[]\n' + b"x" * 5_000_000 + b"\n")
    write(tmp_path / "spool", told_of("ok", "b", "s-0", 1001.0))
    collected = collect_into(engine, tmp_path / "spool", alive=alive)
    assert (collected.bad_lines, of_status(engine)) == (4, {"a": "ok", "b": "ok"})
    assert collect_into(engine, tmp_path / "spool", alive=alive).bad_lines == 0


def test_line_that_has_not_ended_is_read_when_it_has(engine: Engine, tmp_path: Path) -> None:
    line = to_line(told_of("end_only", "r", "s-0", 1000.0)[0])
    (tmp_path / "w-0.jsonl").write_bytes(line[:50])
    assert collect_into(engine, tmp_path, alive=alive).bad_lines == 0
    (tmp_path / "w-0.jsonl").write_bytes(line)
    collect_into(engine, tmp_path, alive=alive)
    assert of_status(engine) == {"r": "ok"}


def test_spool_that_is_not_there_is_empty(engine: Engine, tmp_path: Path) -> None:
    assert collect_into(engine, tmp_path / "none").ingested.events == 0


def test_two_spools_with_segments_of_one_name_are_both_read(engine: Engine, tmp_path: Path) -> None:
    for place in ("a", "b"):
        write(tmp_path / place, told_of("ok", place, "s-0", 1000.0))
        collect_into(engine, tmp_path / place, alive=alive)
    assert of_status(engine) == {"a": "ok", "b": "ok"}


def collect_slowly(url: str, folder: Path) -> None:
    """A collector as its own process: small transactions, so that a kill finds it inside one."""
    with database.opened(url) as engine:
        collect_into(engine, folder, alive=alive, read_bytes=1500)


def start(work: Callable[..., None], *args: object) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    process.start()
    return process


@pytest.mark.slow
def test_collector_killed_at_random_moments_loses_and_doubles_nothing(
    engine: Engine, store: Settings, tmp_path: Path
) -> None:
    events = history(1, 900, SESSIONS)
    expected = told_once(engine, events)
    engine.dispose()
    chance, killed = random.Random(7), 0
    for part in range(KILLS):
        write(tmp_path / "spool", events[part * len(events) // KILLS : (part + 1) * len(events) // KILLS])
        collector = start(collect_slowly, store.database, tmp_path / "spool")
        collector.join(chance.uniform(0.01, 0.12))
        if collector.is_alive():
            os.kill(collector.pid or 0, signal.SIGKILL)
            killed += 1
        collector.join(60)
    collect_into(engine, tmp_path / "spool", alive=alive)
    assert killed >= KILLS / 4
    assert stand(engine) == expected


def test_collectors_at_once_lose_and_double_nothing(engine: Engine, store: Settings, tmp_path: Path) -> None:
    events = history(2, 300, SESSIONS)
    expected = told_once(engine, events)
    engine.dispose()
    for number in range(3):
        write(tmp_path / "spool", events[number::3], f"host_1_{number}-000000.jsonl")
    collectors = [start(collect_slowly, store.database, tmp_path / "spool") for _ in range(3)]
    for collector in collectors:
        collector.join(120)
    assert [collector.exitcode for collector in collectors] == [0, 0, 0]
    assert stand(engine) == expected


@pytest.mark.postgres
def test_connections_cut_at_random_moments_lose_and_double_nothing(
    postgres: str, home: Settings, tmp_path: Path
) -> None:
    from postgres_at_hand import empty

    empty(postgres)
    events = history(3, 300, SESSIONS)
    with database.opened(postgres) as engine:
        expected = told_once(engine, events)
        write(tmp_path / "spool", events[: len(events) // 2])
        cut = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'cut'"
        )
        chance, cuts, rest = random.Random(5), 0, events[len(events) // 2 :]
        for part in range(KILLS + 1):
            write(tmp_path / "spool", rest[part * len(rest) // KILLS : (part + 1) * len(rest) // KILLS])
            collector = start(collect_slowly, postgres + "&application_name=cut", tmp_path / "spool")
            collector.join(chance.uniform(0.02, 0.15) if part < KILLS else 120)
            with engine.begin() as connection:
                cuts += connection.scalar(cut) or 0
            collector.join(120)
        assert collector.exitcode == 0
        assert cuts >= KILLS / 4
        assert stand(engine) == expected


@pytest.mark.postgres
def test_database_that_goes_away_is_one_message_and_nothing_is_lost(home: Settings) -> None:
    with server() as running:
        away = replace(home, database=running.url)
        write_home = away.gateway / "spool"
        write_home.parent.mkdir(parents=True)
        write(write_home, told_of("ok", "a", "s-0", 1000.0))
        assert collect(away).ingested.events == 3
        running.stop()
        write(write_home, told_of("ok", "b", "s-0", 1001.0))
        for _ in range(2):
            with pytest.raises(StorageError, match="cannot be used"):
                collect(away)
        running.start()
        assert collect(away).ingested.events == 3
        with database.opened(away.database) as engine:
            assert of_status(engine) == {"a": "ok", "b": "ok"}


def test_store_of_a_newer_melete_is_refused_and_left_as_it_is(store: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_from_tomorrow'"))
    engine.dispose()
    with pytest.raises(StorageError, match="9999_from_tomorrow, newer than this program"):
        collect(store)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999_from_tomorrow"
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{database.newest_revision()}'"))


def test_segment_is_deleted_only_when_it_is_read_and_nobody_writes_to_it(
    engine: Engine, tmp_path: Path
) -> None:
    first = write(tmp_path, told_of("ok", "a", "s-0", 1.0), "host_1_2-000000.jsonl")
    second = write(tmp_path, told_of("ok", "b", "s-0", 2.0), "host_1_2-000001.jsonl")
    later_s = second.stat().st_mtime + 10_000

    def purge(now_s: float, lives: bool) -> list[str]:
        return retention.purge_segments(engine, tmp_path, keep_s=100, now_s=now_s, alive=lambda writer: lives)

    assert purge(later_s, False) == []
    collect_into(engine, tmp_path, alive=alive)
    assert purge(second.stat().st_mtime, False) == []
    assert purge(later_s, True) == [first.name]
    with second.open("ab") as file:
        file.write(to_line(told_of("end_only", "c", "s-0", 3.0)[0]))
    assert purge(later_s, False) == []
    collect_into(engine, tmp_path, alive=alive)
    assert purge(later_s, False) == [second.name]
    assert of_status(engine) == {"a": "ok", "b": "ok", "c": "ok"}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM spool_position")) == 0


def test_segment_of_the_real_writer_is_deleted_after_its_process_has_gone(
    engine: Engine, tmp_path: Path
) -> None:
    def work() -> None:
        writer = spool.SpoolWriter(tmp_path)
        for event in told_of("ok", "r", "s-0", 1.0):
            writer.write(event)
        writer.close()

    child = start(work)
    child.join(60)
    collect_into(engine, tmp_path)
    names = [path.name for path in tmp_path.glob("*.jsonl")]
    assert len(names) == 1
    assert retention.purge_segments(engine, tmp_path, keep_s=-1.0) == names


def test_segment_deleted_under_its_writer_is_left_for_a_new_one(engine: Engine, tmp_path: Path) -> None:
    writer = spool.SpoolWriter(tmp_path)
    for event in told_of("ok", "a", "s-0", 1.0):
        writer.write(event)
    collect_into(engine, tmp_path)
    assert retention.purge_segments(engine, tmp_path, keep_s=-1.0) == []
    assert len(retention.purge_segments(engine, tmp_path, keep_s=-1.0, under_writers=True)) == 1
    for event in told_of("ok", "b", "s-0", 2.0):
        writer.write(event)
    collect_into(engine, tmp_path)
    assert of_status(engine) == {"a": "ok", "b": "ok"}


def test_writers_of_one_process_have_segments_of_their_own(engine: Engine, tmp_path: Path) -> None:
    for name in ("a", "b"):
        writer = spool.SpoolWriter(tmp_path)
        for event in told_of("ok", name, "s-0", 1.0):
            writer.write(event)
        writer.close()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    collect_into(engine, tmp_path)
    assert of_status(engine) == {"a": "ok", "b": "ok"}


def test_content_is_kept_until_its_time_is_over(engine: Engine, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hello \x00 ö"}]
    lines = [
        content.to_line(content.Content(id, "s-0", 1.0, expires_s, said))
        for id, expires_s in (("a", 50.0), ("b", 100.0), ("c", 5.0))
    ]
    (tmp_path / "w-0.jsonl").write_bytes(b"".join([*lines, b"torn {\n", *lines]))
    assert contents.collect_into(engine, tmp_path, now_s=10.0) == 2
    assert contents.collect_into(engine, tmp_path, now_s=10.0) == 0
    with engine.connect() as connection:
        kept = {row.request_id: row.parts for row in connection.execute(select(RequestContentRow.__table__))}
    assert kept == {"a": said, "b": said}
    assert retention.purge_contents(engine, now_s=60.0) == 1
    assert retention.purge_contents(engine, now_s=60.0) == 0


def test_collection_leaves_sqlite_unlocked_while_its_engine_lives(home: Settings, tmp_path: Path) -> None:
    with database.opened(home.database) as engine:
        write(tmp_path / "spool", told_of("ok", "r", "s-0", 1.0))
        collect_into(engine, tmp_path / "spool", alive=alive)
        other = sqlalchemy.create_engine(engine.url, connect_args={"timeout": 0})
        with other.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        other.dispose()


def test_writer_of_told_events_has_the_form_of_a_writer() -> None:
    assert len(WRITER.split(":")) == len(spool.writer_name().rsplit(":", 2))


def test_collect_command_says_what_it_read(home: Settings, call: Callable[..., tuple[int, str, str]]) -> None:
    (home.gateway).mkdir(parents=True)
    write(home.gateway / "spool", told_of("ok", "r", "s-0", 1.0))
    assert call("bench", "collect") == (0, "spool: 3 new events, 1 request\n", "")
    assert call("bench", "collect")[1] == "spool: 0 new events, 0 requests\n"
    assert call("bench", "collect", "--again")[1].endswith("again: 1 request\n")
