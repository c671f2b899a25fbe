"""Reads a bundle into the store: everything is checked before anything stands there, and all of it or nothing goes in.

A bundle comes from elsewhere, so it is believed nothing: only known files of the sizes and checksums of its manifest,
only known columns of the right types, only sessions that have ended, only configs whose digest is that of their text.
A row that is there already must say the same; importing twice changes nothing. Figures are computed anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, Connection, Float, Integer, String, Table, select

from melete.bench import bundle, rollups
from melete.bench.bundle import FILES, MANIFEST
from melete.bench.columns import STATUSES
from melete.errors import BundleError
from melete.gateway import entities
from melete.gateway.sessions import ENDED
from melete.store.database import insert_new
from melete.store.models import ENTITIES, table

LARGEST_BYTES = 4_000_000_000
"""Unpacked size of all files."""
LARGEST_LINE = 4_000_000
LARGEST_MANIFEST = 100_000
CHUNK = 500
NEXT = "Ask for the bundle again, or make it again: melete bench export EXPERIMENT --bundle FILE"


@dataclass(frozen=True)
class Imported:
    """What an import added, and figures that this version computes otherwise than the bundle says."""

    experiment: str
    sessions: int
    requests: int
    new: int
    differing: list[str]


def read(connection: Connection, path: Path) -> Imported:
    """Imports a bundle within the caller's transaction, which must be rolled back if this raises.

    Raises:
        BundleError: the file is torn, was changed, is of a newer version, or says what the store says otherwise.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, path)
            for name, entry in manifest["files"].items():
                _check(archive, name, entry)
            return _import(connection, archive, manifest)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{path.name} is torn or is no bundle ({error}).", next_step=NEXT) from error
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror or error}).") from error


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    """The manifest, once the list of files is exactly what it says."""
    names = [info.filename for info in archive.infolist()]
    if MANIFEST not in names or archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
        raise BundleError(f"{path.name} has no manifest of a bundle.", next_step=NEXT)
    manifest = _json(archive.read(MANIFEST), MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != "melete bundle":
        raise BundleError(f"{path.name} is no bundle of Melete.")
    version = manifest.get("version")
    if not isinstance(version, int) or version > bundle.VERSION:
        raise BundleError(
            f"{path.name} is a bundle of version {version!r}.",
            allowed=f"This Melete reads up to version {bundle.VERSION}.",
            next_step="Update Melete.",
        )
    files = manifest.get("files")
    if (
        not isinstance(files, dict)
        or not set(files) <= set(FILES)
        or not set(FILES) - {"content.jsonl"} <= set(files)
    ):
        raise BundleError(f"The manifest of {path.name} lists other files than a bundle has.", next_step=NEXT)
    if sorted(names) != sorted([*files, MANIFEST]):
        odd = sorted(set(names) ^ {*files, MANIFEST}) or ["a file twice"]
        raise BundleError(f"{path.name} does not hold what its manifest lists: {odd[0]!r}.", next_step=NEXT)
    said = [entry.get("bytes") for entry in files.values() if isinstance(entry, dict)]
    sizes = [size for size in said if isinstance(size, int) and size >= 0]
    if len(sizes) != len(files):
        raise BundleError(f"The manifest of {path.name} has no sizes.", next_step=NEXT)
    if sum(sizes) > LARGEST_BYTES:
        raise BundleError(
            f"{path.name} unpacks to {sum(sizes):,} bytes.", allowed=f"At most {LARGEST_BYTES:,}."
        )
    return manifest


def _check(archive: zipfile.ZipFile, name: str, entry: Mapping[str, Any]) -> None:
    """Compares a file with its size and checksum, without ever unpacking more than that size."""
    if archive.getinfo(name).file_size != entry["bytes"]:
        raise BundleError(f"{name} in the bundle has not the size that the manifest says.", next_step=NEXT)
    digest, size = hashlib.sha256(), 0
    with archive.open(name) as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
            if size > entry["bytes"]:
                break
    if size != entry["bytes"] or digest.hexdigest() != entry.get("sha256"):
        raise BundleError(
            f"{name} in the bundle was changed: its checksum is not the one in the manifest.", next_step=NEXT
        )


def _import(connection: Connection, archive: zipfile.ZipFile, manifest: Mapping[str, Any]) -> Imported:
    new = _entities(connection, archive)
    sessions: set[str] = set()
    for rows in _batches(archive, "sessions.jsonl"):
        for row in rows:
            _typed(row, rollups.SESSIONS, bundle.SESSION_COLUMNS, "sessions.jsonl")
            if row["state"] not in ENDED:
                raise BundleError(f"Session {row['id']} in the bundle has not ended.", next_step=NEXT)
            if row != bundle.shown(row, bundle.SESSION_COLUMNS):
                raise BundleError(
                    f"Session {row['id']} in the bundle notes more than it should.", next_step=NEXT
                )
            sessions.add(row["id"])
        new += _insert(connection, rollups.SESSIONS, rows, bundle.SESSION_COLUMNS)
    requests = 0
    for rows in _batches(archive, "requests.jsonl"):
        for row in rows:
            _typed(row, rollups.REQUESTS, bundle.REQUEST_COLUMNS, "requests.jsonl")
            _belongs(row, sessions)
            if row["status"] not in STATUSES:
                raise BundleError(
                    f"A request in the bundle has the status {row['status']!r}.", next_step=NEXT
                )
        requests += len(rows)
        new += _insert(connection, rollups.REQUESTS, rows, bundle.REQUEST_COLUMNS)
    for rows in _batches(archive, "content.jsonl") if "content.jsonl" in manifest["files"] else ():
        for row in rows:
            _typed(row, bundle.CONTENTS, bundle.CONTENT_COLUMNS, "content.jsonl")
            _belongs(row, sessions)
        new += _insert(connection, bundle.CONTENTS, rows, bundle.CONTENT_COLUMNS)
    ids = sorted(sessions)
    figures = rollups.compute(connection, ids) if new else {}
    return Imported(
        str(manifest.get("experiment")), len(ids), requests, new, _differing(archive, figures) if new else []
    )


def _entities(connection: Connection, archive: zipfile.ZipFile) -> int:
    """Imports config entities; returns how many are new."""
    new = 0
    for rows in _batches(archive, "entities.jsonl"):
        for row in rows:
            kind = row.pop("kind", None)
            if kind not in ENTITIES:
                raise BundleError(
                    f"entities.jsonl in the bundle has a config of kind {kind!r}.", next_step=NEXT
                )
            entity = table(ENTITIES[kind])
            _typed(row, entity, bundle.ENTITY_COLUMNS, "entities.jsonl")
            document = row["document"]
            if row["digest"] != entities.digest(document) or row["id"] != entities.id_of(
                row["name"], document
            ):
                raise BundleError(
                    f"The text of {kind} {row['id']} in the bundle was changed.", next_step=NEXT
                )
            new += _insert(connection, entity, [row], ("id", "digest"))
    return new


def _insert(
    connection: Connection, table: Table, rows: list[dict[str, Any]], columns: tuple[str, ...]
) -> int:
    """Inserts rows that are not there; one that is must say the same in the columns. Returns how many were new."""
    (key,) = table.primary_key.columns
    query = select(*(table.c[name] for name in columns)).where(key.in_([row[key.name] for row in rows]))
    known = {row[key.name]: bundle.shown(dict(row), columns) for row in connection.execute(query).mappings()}
    for row in rows:
        if row[key.name] in known and known[row[key.name]] != {name: row[name] for name in columns}:
            raise BundleError(
                f"The {table.name} {row[key.name]} is here already and says something else than in the bundle.",
                next_step="Import it into a home of its own: MELETE_HOME=FOLDER melete bench import FILE",
            )
    new = [row for row in rows if row[key.name] not in known]
    insert_new(connection, table, new)
    return len(new)


def _typed(row: dict[str, Any], table: Table, columns: tuple[str, ...], file: str) -> None:
    """Refuses a row that has not exactly the listed columns, each of its type."""
    if set(row) != set(columns):
        raise BundleError(
            f"{file} in the bundle has a row with other columns than it should.", next_step=NEXT
        )
    for name in columns:
        column, value = table.c[name], row[name]
        if value is None and column.nullable:
            continue
        if isinstance(column.type, JSON):
            fits = isinstance(value, (dict, list))
        elif isinstance(column.type, Boolean):
            fits = isinstance(value, bool)
        elif isinstance(column.type, Float):
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        elif isinstance(column.type, Integer):
            fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
        else:
            longest = column.type.length if isinstance(column.type, String) else None
            fits = isinstance(value, str) and value.isprintable() and len(value) <= (longest or LARGEST_LINE)
        if not fits:
            raise BundleError(
                f"{file} in the bundle has a {name} that cannot be: {str(value)[:60]!r}.", next_step=NEXT
            )


def _belongs(row: Mapping[str, Any], sessions: set[str]) -> None:
    if row["session_id"] not in sessions:
        raise BundleError("The bundle has a request of a session that is not in it.", next_step=NEXT)


def _batches(archive: zipfile.ZipFile, name: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file, some at a time."""
    rows: list[dict[str, Any]] = []
    with archive.open(name) as file:
        while line := file.readline(LARGEST_LINE):
            row = _json(line, name)
            if not isinstance(row, dict):
                raise BundleError(f"{name} in the bundle has a line that is no row.", next_step=NEXT)
            rows.append(row)
            if len(rows) == CHUNK:
                yield rows
                rows = []
    if rows:
        yield rows


def _json(text: bytes, name: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} in the bundle cannot be read.", next_step=NEXT) from error


def _differing(archive: zipfile.ZipFile, figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Figures of sessions that are not what the bundle says, as names of metrics."""
    found = set()
    for rows in _batches(archive, "rollups.jsonl"):
        for row in rows:
            if row.get("scope") != "session":
                continue
            own, said = (
                figures.get(str(row.get("scope_id")), {}).get(str(row.get("metric"))),
                row.get("value"),
            )
            if own is None or not isinstance(said, (int, float)) or not math.isclose(own, said, rel_tol=1e-9):
                found.add(str(row.get("metric")))
    return sorted(found)
