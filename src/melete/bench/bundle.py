"""A bundle: one experiment as a zip file that another home imports to the same numbers.

It holds a manifest with the sha256 of every file, config entities, sessions, requests, rollups and the report. Only
listed columns go in: no key, no note, no name that a client chose, no path; task cards (their prompts) and kept
prompts and answers only when they are asked for. The same experiment gives the same bytes. An experiment with sessions
that have not ended cannot be bundled, because its numbers would still change. See `unbundle` for the way back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from melete.bench import report as reports
from melete.bench import rollups
from melete.bench.columns import LAYOUT, READ, figures
from melete.bench.origin import NOTED
from melete.errors import SessionError, StorageError, UnknownNameError
from melete.gateway.entities import name_of
from melete.gateway.sessions import ENDED
from melete.store.database import chunks
from melete.store.models import ENTITIES, RequestContentRow, table

VERSION = 1
MANIFEST = "manifest.json"
SESSION_COLUMNS = (
    "id", "kind", "state", "experiment", "variant", "task_card", "attempt", "harness_profile", "provider", "model",
    "created_s", "started_s", "ended_s", "expires_s", "first_request_s", "last_request_s", "solved", "score",
    "outcome_source", "metadata", "content",
)  # fmt: skip
REQUEST_COLUMNS = (
    "id", "session_id", *READ, "stream", "deployment", "http_status", "ended_s", "first_chunk_ms", "gap_p50_ms",
    "gap_max_ms", "finish_reason",
)  # fmt: skip
ROLLUP_COLUMNS = ("scope", "scope_id", "metric", "value", "count")
ENTITY_COLUMNS = ("id", "name", "digest", "document", "created_s")
CONTENT_COLUMNS = ("request_id", "session_id", "parts", "expires_s")
FILES = (
    "entities.jsonl", "sessions.jsonl", "requests.jsonl", "rollups.jsonl", "content.jsonl", "report.json",
)  # fmt: skip
METADATA = (*NOTED, "versions", "load_1m", "self_reported")
CONTENTS = table(RequestContentRow)
WITH_CONTENT = frozenset({"task_card"})
"""Kinds of entities whose documents hold prompts."""
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundled:
    """What was written: the file, its sha256, the experiment's newest id, and rows by file."""

    path: Path
    sha256: str
    experiment: str
    rows: dict[str, int]


def write(connection: Connection, experiment: str, path: Path, *, content: bool = False) -> Bundled:
    """Writes the bundle of an experiment, whole or not at all.

    Args:
        connection: an open transaction.
        experiment: name, then all its versions, or `name@digest`.
        path: where to.
        content: also task cards, and the prompts and answers that were kept (redacted).

    Raises:
        UnknownNameError: no such experiment has a session.
        SessionError: some of its sessions have not ended.
        StorageError: the file cannot be written.
    """
    ids, sessions = _ended(connection, experiment)
    report = reports.of_experiment(connection, experiment)
    rollups.refresh_experiment(connection, sorted({row["experiment"] for row in sessions}))
    files: dict[str, Iterable[Any]] = {
        "entities.jsonl": _entities(connection, sessions, content),
        "sessions.jsonl": sessions,
        "requests.jsonl": _rows(connection, rollups.REQUESTS, "session_id", ids, REQUEST_COLUMNS),
        "rollups.jsonl": _rollups(connection, sessions),
    }
    if content:
        files["content.jsonl"] = _rows(connection, CONTENTS, "session_id", ids, CONTENT_COLUMNS)
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = _write(partial, report, files, content)
        sha256 = _digest(partial)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(f"{path} cannot be written ({error.strerror}).") from error
    return Bundled(
        path, sha256, report["experiment"]["id"], {name: entry["rows"] for name, entry in listed.items()}
    )


def shown(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """The listed columns of a row; of a session's metadata only what is listed, and only figures of a self-report."""
    kept = {name: row[name] for name in columns}
    if "metadata" in kept:
        noted = {name: value for name, value in (kept["metadata"] or {}).items() if name in METADATA}
        if "self_reported" in noted:
            noted["self_reported"] = figures(noted["self_reported"])
        kept["metadata"] = noted
    return kept


def _ended(connection: Connection, experiment: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Ids and rows of the experiment's sessions, all of which have ended."""
    of = rollups.SESSIONS.c
    known = [id for id in connection.scalars(select(of.experiment).distinct()) if id]
    chosen = [id for id in known if experiment in (id, name_of(id))]
    if not chosen:
        raise UnknownNameError("experiment with sessions", experiment, {name_of(id) for id in known})
    query = select(rollups.SESSIONS).where(of.experiment.in_(chosen)).order_by(of.id)
    rows = [shown(dict(row), SESSION_COLUMNS) for row in connection.execute(query).mappings()]
    open_ones = [row["id"] for row in rows if row["state"] not in ENDED]
    if open_ones:
        raise SessionError(
            f"{len(open_ones)} session{'s' if len(open_ones) != 1 else ''} of {experiment} have not ended:"
            f" {', '.join(open_ones[:5])}{' …' if len(open_ones) > 5 else ''}.",
            next_step="Finish each with `melete bench session finalize` or `melete bench session abort`.",
        )
    return [row["id"] for row in rows], rows


def _entities(
    connection: Connection, sessions: list[dict[str, Any]], content: bool
) -> Iterator[dict[str, Any]]:
    """The config entities that the sessions name, kind by kind."""
    for kind, model in ENTITIES.items():
        if kind in WITH_CONTENT and not content:
            continue
        ids = sorted({row[kind] for row in sessions if row[kind]})
        for row in _rows(connection, table(model), "id", ids, ENTITY_COLUMNS):
            yield {"kind": kind, **row}


def _rollups(connection: Connection, sessions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Figures of the sessions, variants and versions of the experiment, without the packed requests."""
    of = rollups.ROLLUPS.c
    for scope, column in (("experiment", "experiment"), ("session", "id"), ("variant", "variant")):
        for id in sorted({row[column] for row in sessions if row[column]}):
            query = select(*(of[name] for name in ROLLUP_COLUMNS)).order_by(of.metric)
            query = query.where(of.scope == scope, of.scope_id == id, of.metric != LAYOUT)
            yield from (dict(row) for row in connection.execute(query).mappings())


def _rows(
    connection: Connection, table: Table, key: str, ids: list[str], columns: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Listed columns of the rows whose key is among the ids, in the order of ids and primary keys."""
    order = [table.c[key], *table.primary_key.columns]
    for some in chunks(ids):
        query = select(*(table.c[name] for name in columns)).where(table.c[key].in_(some))
        yield from (
            shown(dict(row), columns) for row in connection.execute(query.order_by(*order)).mappings()
        )


def _write(
    path: Path, report: dict[str, Any], files: Mapping[str, Iterable[Any]], content: bool
) -> dict[str, dict[str, Any]]:
    """Writes the zip file; returns what the manifest says of each file."""
    listed: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in files.items():
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n" for row in rows)
            listed[name] = _add(archive, name, lines)
        listed["report.json"] = _add(archive, "report.json", [reports.to_text(report).encode()])
        manifest = {
            "format": "melete bundle",
            "version": VERSION,
            "experiment": report["experiment"]["id"],
            "content": content,
            "files": listed,
        }
        _add(archive, MANIFEST, [json.dumps(manifest, indent=1).encode()])
    return listed


def _add(archive: zipfile.ZipFile, name: str, parts: Iterable[bytes]) -> dict[str, Any]:
    digest, size, rows = hashlib.sha256(), 0, 0
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    with archive.open(info, "w", force_zip64=True) as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size, rows = size + len(part), rows + 1
    return {"sha256": digest.hexdigest(), "bytes": size, "rows": rows}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
