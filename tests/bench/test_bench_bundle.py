"""The bundle: the same numbers elsewhere, nothing secret inside, and nothing imported from one that is not whole."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stored_sessions
from sqlalchemy import func, select

from melete.bench import bundle, report, rollups, unbundle
from melete.errors import BundleError, SessionError, UnknownNameError
from melete.records import SessionState
from melete.settings import Settings
from melete.store.database import connect
from melete.store.models import RequestContentRow
from postgres_at_hand import postgres, store  # noqa: F401

CALL = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty database, one with an experiment of six cards, and its bundle; each made once."""
    folder = tmp_path_factory.mktemp("bundles")
    with connect(f"sqlite:///{folder}/empty.db"):
        pass
    shutil.copy(folder / "empty.db", folder / "played.db")
    with connect(f"sqlite:///{folder}/played.db") as connection:
        stored_sessions.experiment(connection, cards=6)
        bundle.write(connection, "support", folder / "support.zip")
    return folder


@pytest.fixture
def file(home: Settings, templates: Path, tmp_path: Path) -> Path:
    """The bundle of an experiment; the home that it is from is `home`."""
    home.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(templates / "played.db", home.home / "melete.db")
    return Path(shutil.copy(templates / "support.zip", tmp_path))


@pytest.fixture
def elsewhere(home: Settings, templates: Path, tmp_path: Path) -> Settings:
    """Another home with an empty database."""
    shutil.copy(templates / "empty.db", tmp_path / "elsewhere.db")
    return replace(home, database=f"sqlite:///{tmp_path}/elsewhere.db")


def contents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(file: Path, changed: dict[str, bytes | None], *, fix: bool = True) -> Path:
    """The bundle with files changed, added or left out; `fix` brings the manifest's checksums in line."""
    files: dict[str, bytes] = {**contents(file)}
    for name, data in changed.items():
        files.pop(name, None)
        if data is not None:
            files[name] = data
    if fix and "manifest.json" not in changed:
        manifest = json.loads(files["manifest.json"])
        for name, data in changed.items():
            if data is not None and name in manifest["files"]:
                manifest["files"][name] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        files["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file


def refused(file: Path, elsewhere: Settings, match: str) -> None:
    """Imports, expects to be refused, and sees that nothing was imported."""
    with pytest.raises(BundleError, match=match), connect(elsewhere.database) as connection:
        unbundle.read(connection, file)
    with connect(elsewhere.database) as connection:
        for table in (rollups.SESSIONS, rollups.REQUESTS, rollups.ROLLUPS):
            assert connection.scalar(select(func.count()).select_from(table)) == 0


def lines(file: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in contents(file)[name].splitlines()]


def joined(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_imported_bundle_gives_the_same_report_byte_for_byte(
    home: Settings, file: Path, elsewhere: Settings
) -> None:
    with connect(elsewhere.database) as connection:
        done = unbundle.read(connection, file)
    assert (done.sessions, done.differing) == (12, [])
    with connect(home.database) as connection:
        first = report.to_text(report.of_experiment(connection, "support"))
    with connect(elsewhere.database) as connection:
        second = report.to_text(report.of_experiment(connection, "support"))
    assert first == second == contents(file)["report.json"].decode()


def test_bundle_of_either_database_gives_the_same_report_in_the_other(
    store: Settings,  # noqa: F811
    home: Settings,
    file: Path,
    tmp_path: Path,
) -> None:
    with connect(home.database) as connection:
        expected = report.to_text(report.of_experiment(connection, "support"))
    there = replace(home, database=f"sqlite:///{tmp_path}/there.db")
    for target in (store, there):
        with connect(target.database) as connection:
            unbundle.read(connection, file)
            assert report.to_text(report.of_experiment(connection, "support")) == expected
            bundle.write(connection, "support", file)


def test_bundle_made_elsewhere_from_the_imported_one_is_the_same_file(
    file: Path, elsewhere: Settings, tmp_path: Path
) -> None:
    with connect(elsewhere.database) as connection:
        unbundle.read(connection, file)
        again = bundle.write(connection, "support", tmp_path / "again.zip")
    assert again.path.read_bytes() == file.read_bytes()


def test_importing_twice_changes_nothing(file: Path, elsewhere: Settings) -> None:
    def everything() -> list[Any]:
        with connect(elsewhere.database) as connection:
            tables = (rollups.SESSIONS, rollups.REQUESTS, rollups.ROLLUPS)
            return [
                tuple(row)
                for table in tables
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]

    with connect(elsewhere.database) as connection:
        unbundle.read(connection, file)
    before = everything()
    with connect(elsewhere.database) as connection:
        assert unbundle.read(connection, file).new == 0
    assert everything() == before


def test_importing_at_home_finds_everything_there(home: Settings, file: Path) -> None:
    with connect(home.database) as connection:
        assert unbundle.read(connection, file).new == 0


def test_bundle_holds_no_note_path_client_or_prompt(file: Path) -> None:
    everything = b"".join(contents(file).values())
    assert b"SECRET" not in everything
    assert b"Do support/0." not in everything


def test_bundle_with_content_holds_prompts_that_were_kept_and_imports_them(
    home: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=2)
        id = connection.scalars(select(rollups.REQUESTS.c.id).order_by(rollups.REQUESTS.c.id)).first()
        session = connection.scalar(select(rollups.REQUESTS.c.session_id).where(rollups.REQUESTS.c.id == id))
        row = {
            "request_id": id,
            "session_id": session,
            "parts": [{"role": "user", "text": "KEPT"}],
            "expires_s": 2e9,
        }
        connection.execute(RequestContentRow.__table__.insert(), [row])  # type: ignore[attr-defined]
        without = bundle.write(connection, "support", tmp_path / "without.zip")
        made = bundle.write(connection, "support", tmp_path / "with.zip", content=True)
    assert b"KEPT" not in b"".join(contents(without.path).values())
    assert b"KEPT" in contents(made.path)["content.jsonl"]
    assert b"Do support/0." in contents(made.path)["entities.jsonl"]
    with connect(elsewhere.database) as connection:
        unbundle.read(connection, made.path)
        assert connection.scalar(select(RequestContentRow.parts)) == row["parts"]


def test_bundle_of_an_experiment_that_goes_on_is_refused(home: Settings, tmp_path: Path) -> None:
    with connect(home.database) as connection:
        experiment, before, _ = stored_sessions.experiment(connection, cards=2)
        live = stored_sessions.play(
            connection, before, "support/9", experiment=experiment, state=SessionState.LIVE
        )
        with pytest.raises(SessionError, match=live):
            bundle.write(connection, "support", tmp_path / "x.zip")
        with pytest.raises(UnknownNameError, match="support"):
            bundle.write(connection, "suport", tmp_path / "x.zip")
    assert list(tmp_path.glob("*.zip")) == []


@pytest.mark.parametrize("name", ["sessions.jsonl", "requests.jsonl", "entities.jsonl", "report.json"])
def test_bundle_with_one_byte_changed_is_refused(file: Path, elsewhere: Settings, name: str) -> None:
    data = bytearray(contents(file)[name])
    data[len(data) // 2] ^= 1
    refused(repacked(file, {name: bytes(data)}, fix=False), elsewhere, f"{name} in the bundle was changed")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_bundle_that_is_cut_short_is_refused(file: Path, elsewhere: Settings, kept: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    refused(file, elsewhere, "torn")


def test_bundle_whose_packed_bytes_are_damaged_is_refused(file: Path, elsewhere: Settings) -> None:
    data = bytearray(file.read_bytes())
    for place in range(200, 260):
        data[place] ^= 0xFF
    file.write_bytes(bytes(data))
    refused(file, elsewhere, "torn|changed|size")


def test_bundle_with_random_bytes_changed_is_refused_or_gives_the_same_numbers(
    home: Settings, file: Path, elsewhere: Settings
) -> None:
    whole, draw = file.read_bytes(), random.Random(5)
    expected = contents(file)["report.json"].decode()
    refusals = 0
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3, 20))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(bytes(data))
        try:
            with connect(elsewhere.database) as connection:
                unbundle.read(connection, file)
                # some bytes of a zip file, such as a date, mean nothing
                assert report.to_text(report.of_experiment(connection, "support")) == expected
                raise _Back
        except BundleError:
            refusals += 1
        except _Back:
            pass
        with connect(elsewhere.database) as connection:
            assert connection.scalar(select(func.count()).select_from(rollups.SESSIONS)) == 0
    assert refusals > 50


class _Back(Exception):
    """Takes a transaction back."""


def test_bundle_of_a_newer_version_is_refused(file: Path, elsewhere: Settings) -> None:
    manifest = json.loads(contents(file)["manifest.json"]) | {"version": bundle.VERSION + 1}
    refused(repacked(file, {"manifest.json": json.dumps(manifest).encode()}), elsewhere, "version 2")


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/passwd", "sessions.jsonl/../x", "more.jsonl"])
def test_bundle_with_a_file_that_is_not_its_own_is_refused(
    file: Path, elsewhere: Settings, tmp_path: Path, name: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    refused(repacked(file, {name: b"x"}), elsewhere, "does not hold what its manifest lists")
    manifest = json.loads(contents(file)["manifest.json"])
    manifest["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    repacked(file, {"manifest.json": json.dumps(manifest).encode()})
    refused(file, elsewhere, "other files than a bundle has")
    assert {path.suffix for path in set(tmp_path.rglob("*")) - set(before)} <= {
        ".db",
        ".lock",
        ".db-wal",
        ".db-shm",
    }


def test_bundle_without_a_file_is_refused(file: Path, elsewhere: Settings) -> None:
    refused(repacked(file, {"requests.jsonl": None}), elsewhere, "does not hold")


def test_bundle_that_unpacks_to_more_than_it_says_is_refused(file: Path, elsewhere: Settings) -> None:
    manifest = json.loads(contents(file)["manifest.json"])
    manifest["files"]["requests.jsonl"]["bytes"] -= 1
    refused(repacked(file, {"manifest.json": json.dumps(manifest).encode()}), elsewhere, "size")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sessions.jsonl", {"state": "live"}),
        ("sessions.jsonl", {"attempt": "0; DROP TABLE session"}),
        ("sessions.jsonl", {"metadata": {"repository": "/home/somebody"}}),
        ("sessions.jsonl", {"id": "x" * 61}),
        ("sessions.jsonl", {"outcome_note": "more"}),
        ("requests.jsonl", {"session_id": "s-of-somebody-else"}),
        ("requests.jsonl", {"status": "wonderful"}),
        ("requests.jsonl", {"latency_ms": True}),
        ("requests.jsonl", {"tokens_in": 1e300}),
        ("entities.jsonl", {"document": {"name": "before", "model": "another"}}),
        ("entities.jsonl", {"kind": "credential"}),
    ],
)
def test_bundle_with_a_row_that_cannot_be_is_refused(
    file: Path, elsewhere: Settings, name: str, change: dict[str, Any]
) -> None:
    rows = lines(file, name)
    rows[-1] |= change
    refused(repacked(file, {name: joined(rows)}), elsewhere, "bundle")


@pytest.mark.parametrize("text", [b"not json\n", b"[1, 2]\n", b'{"id": NaN}\n', b"[" * 100_000 + b"\n"])
def test_bundle_with_lines_that_are_no_rows_is_refused(file: Path, elsewhere: Settings, text: bytes) -> None:
    refused(repacked(file, {"requests.jsonl": text}), elsewhere, "requests.jsonl in the bundle")


def test_bundle_that_says_otherwise_than_the_store_is_refused(home: Settings, file: Path) -> None:
    rows = lines(file, "sessions.jsonl")
    rows[0]["solved"] = not rows[0]["solved"]
    repacked(file, {"sessions.jsonl": joined(rows)})
    with (
        pytest.raises(BundleError, match="here already and says something else"),
        connect(home.database) as connection,
    ):
        unbundle.read(connection, file)


def test_figures_that_this_version_computes_otherwise_are_named(file: Path, elsewhere: Settings) -> None:
    rows = lines(file, "rollups.jsonl")
    next(row for row in rows if row["scope"] == "session" and row["metric"] == "cost")["value"] = 99.0
    with connect(elsewhere.database) as connection:
        done = unbundle.read(connection, repacked(file, {"rollups.jsonl": joined(rows)}))
    assert done.differing == ["cost"]


def test_export_and_import_commands_say_what_they_did(home: Settings, call: CALL, tmp_path: Path) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=2)
    path = tmp_path / "made" / "b.zip"
    code, out, _ = call("bench", "export", "support", "--bundle", str(path))
    assert (code, "4 sessions" in out) == (0, True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out
    code, out, _ = call("bench", "import", str(path))
    assert (code, "here already" in out) == (0, True)
    path.write_bytes(b"nothing")
    code, _, err = call("bench", "import", str(path))
    assert code == 14
    assert err.startswith("error: b.zip is torn or is no bundle")
