"""The index of runs, on SQLite and on a real PostgreSQL: the same tests on both."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from melete.errors import ConfigError, DiskFullError, StorageError
from melete.records import RunState
from melete.runs import folder
from melete.runs.run import Run
from melete.settings import Settings
from melete.store import database, index
from melete.store.models import Model


def make_run(settings: Settings, loss: float = 1.0, name: str | None = None) -> Path:
    path, _ = folder.create(settings, "trial.count", name=name)
    run = Run(path)
    run.log(1, {"loss": loss + 1})
    run.log(2, {"loss": loss})
    run.close()
    return path


def test_record_of_a_new_run_is_found(store: Settings) -> None:
    path = make_run(store, loss=0.5, name="first")
    index.record(store, path)
    (row,) = index.newest(store)
    assert (row["id"], row["name"], row["state"], row["step"], row["loss"]) == (
        path.name,
        "first",
        "queued",
        2,
        0.5,
    )


def test_record_again_replaces_the_row(store: Settings) -> None:
    path = make_run(store)
    index.record(store, path)
    record = folder.read(path)
    record.state = RunState.FAILED
    record.error = "it broke\nin two lines, ö"
    folder.write(path, record)
    index.record(store, path)
    (row,) = index.newest(store)
    assert (row["state"], row["error"]) == ("failed", "it broke\nin two lines, ö")


def test_record_of_a_loss_that_is_not_a_number_is_kept_without_it(store: Settings) -> None:
    index.record(store, make_run(store, loss=float("nan")))
    assert index.newest(store)[0]["loss"] is None


def test_newest_filters_and_limits(store: Settings) -> None:
    paths = [make_run(store) for _ in range(3)]
    for path in paths:
        index.record(store, path)
    assert [row["id"] for row in index.newest(store, limit=2)] == [paths[2].name, paths[1].name]
    assert index.newest(store, state="running") == []
    assert len(index.newest(store, process="trial.count")) == 3


def test_rebuild_makes_the_index_what_the_folders_are(store: Settings) -> None:
    gone, kept = make_run(store), make_run(store)
    index.record(store, gone)
    shutil.rmtree(gone)
    assert index.rebuild(store) == 1
    assert [row["id"] for row in index.newest(store)] == [kept.name]


def test_rebuild_leaves_the_runs_of_other_homes(store: Settings, tmp_path: Path) -> None:
    other = replace(store, home=tmp_path / "other")
    elsewhere = make_run(other)
    index.record(other, elsewhere)
    make_run(store)
    index.rebuild(store)
    assert {row["location"] for row in index.newest(store)} == {index.location(other), index.location(store)}


def test_complete_adds_the_runs_that_the_index_lacks_and_changes_no_other(store: Settings) -> None:
    known, broken = make_run(store), make_run(store)
    index.record(store, known)
    shutil.rmtree(known)
    (broken / "run.json").write_text("{", encoding="utf-8")
    moved_here = make_run(store)
    assert index.complete(store) == 1
    assert {row["id"] for row in index.newest(store)} == {known.name, moved_here.name}
    assert index.complete(store) == 0


def write_runs(settings: Settings, paths: list[Path]) -> None:
    for path in paths:
        index.record(settings, path)


def test_writers_at_once_on_an_empty_database_lose_nothing(store: Settings) -> None:
    paths = [make_run(store) for _ in range(12)]
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_runs, args=(store, paths[i::3])) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert {row["id"] for row in index.newest(store, limit=50)} == {path.name for path in paths}


def test_migrations_give_the_schema_of_the_models(store: Settings) -> None:
    with database.connect(store.database) as connection:
        assert compare_metadata(MigrationContext.configure(connection), Model.metadata) == []


def test_sqlite_is_in_wal_mode(home: Settings) -> None:
    with database.connect(home.database) as connection:
        assert connection.scalar(sqlalchemy.text("PRAGMA journal_mode")) == "wal"


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+nothing:///x"])
def test_url_of_another_database_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="MELETE_DATABASE"):
        database.open_engine(url)


def test_file_that_is_no_database_is_a_storage_error(home: Settings, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is not a database " * 100)
    with pytest.raises(StorageError, match="cannot be used"):
        index.newest(replace(home, database=f"sqlite:///{tmp_path}/x.db"))


def test_disk_that_is_full_is_named_and_what_was_stored_is_kept(home: Settings) -> None:
    def fill() -> None:
        with database.connect(home.database) as connection:
            pages = connection.scalar(sqlalchemy.text("PRAGMA page_count"))
            connection.execute(sqlalchemy.text(f"PRAGMA max_page_count = {pages}"))  # as on a full disk
            connection.execute(sqlalchemy.text("CREATE TABLE large AS SELECT zeroblob(1000000) AS content"))

    index.record(home, make_run(home, name="before"))
    with pytest.raises(DiskFullError, match=r"disk of the database .* is full[\s\S]*Free some space"):
        fill()
    assert [row["name"] for row in index.newest(home)] == ["before"]


def test_rebuild_command_says_how_many(store: Settings, call: Callable[..., tuple[int, str, str]]) -> None:
    make_run(store)
    assert call("store", "rebuild")[1] == "indexed 1 run\n"


def test_upgrade_command_of_an_empty_home_makes_the_database(
    home: Settings, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = call("store", "upgrade")
    assert (code, out) == (0, f"the database is at {database.newest_revision()}\n")
    assert (home.home / "melete.db").exists()
