"""Reads the spool into the store: whole lines only, and how far it came in the same transaction as what it read.

A collector can be killed anywhere: what was not committed is read again, and what was is skipped or recognised.
Requests whose writer died before its last line was read are ended as interrupted.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, Table, select

from melete.gateway import spool
from melete.gateway.events import Event, parse
from melete.gateway.ingest import Ingested, alone, close_interrupted, ingest, open_writers
from melete.settings import Settings
from melete.store.database import opened, upsert
from melete.store.models import SpoolPositionRow

POSITIONS: Table = SpoolPositionRow.__table__  # type: ignore[assignment]
READ_BYTES = 2_000_000
"""Bytes of one transaction: some 5,000 events."""


@dataclass(frozen=True)
class Collected:
    """What a collection added: `ingested`, requests ended as interrupted, and lines that were no events."""

    ingested: Ingested = field(default_factory=Ingested)
    interrupted: int = 0
    bad_lines: int = 0


@dataclass(frozen=True)
class _Part:
    """Whole lines of one segment, and where they end."""

    segment: str
    offset: int
    events: list[Event]
    bad_lines: int


def collect(settings: Settings) -> Collected:
    """Brings the store of these settings up to date with the spool; for one call, not for every second.

    Raises:
        StorageError: the database or the spool cannot be read; nothing is lost, and the next call goes on.
    """
    with opened(settings.database) as engine:
        return collect_into(engine, settings.gateway / "spool")


def collect_into(
    engine: Engine,
    folder: Path,
    *,
    alive: Callable[[str], bool] = spool.alive,
    read_bytes: int = READ_BYTES,
) -> Collected:
    """Reads all that is new in a spool, one transaction for each part.

    Args:
        engine: an engine of an upgraded database.
        folder: the spool.
        alive: whether a writer's process still runs.
        read_bytes: how much one transaction takes.

    Returns:
        What was added by this call.
    """
    with engine.connect() as connection:
        dead = [writer for writer in open_writers(connection) if not alive(writer)]
    total, bad_lines = Ingested(), 0
    more = True
    while more:
        with engine.begin() as connection:
            alone(connection)
            positions = {row.segment: row for row in connection.execute(select(POSITIONS))}
            offsets = {segment: row.offset for segment, row in positions.items()}
            parts = list(_parts(folder, offsets, read_bytes))
            total += ingest(connection, (event for part in parts for event in part.events))
            bad_lines += sum(part.bad_lines for part in parts)
            before = {segment: row.bad_lines for segment, row in positions.items()}
            upsert(connection, POSITIONS, [_position(part, before.get(part.segment, 0)) for part in parts])
            more = bool(parts)
    ended = Ingested()
    if dead:
        with engine.begin() as connection:
            ended = close_interrupted(connection, dead)
    return Collected(total + ended, ended.events, bad_lines)


def segment_key(path: Path) -> str:
    """Under what the position of a segment is kept: its name and where it is, as several spools may share a store."""
    place = f"{socket.gethostname()}:{path.parent.resolve()}"
    return f"{hashlib.sha256(place.encode()).hexdigest()[:12]}/{path.name}"


def _position(part: _Part, bad_before: int) -> dict[str, object]:
    return {
        "segment": part.segment,
        "offset": part.offset,
        "bad_lines": bad_before + part.bad_lines,
        "read_s": time.time(),
    }


def _parts(folder: Path, offsets: dict[str, int], read_bytes: int) -> Iterator[_Part]:
    """New whole lines of all segments, up to `read_bytes` of them together."""
    left = read_bytes
    for path in sorted(folder.glob("*.jsonl")):
        if left <= 0:
            return
        offset = offsets.get(segment_key(path), 0)
        part = _part(path, offset, left)
        if part is not None:
            left -= max(1, part.offset - offset)
            yield part


def _part(path: Path, offset: int, most: int) -> _Part | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == offset:
                return None
            offset = offset if offset < size else 0
            file.seek(offset)
            data = file.read(most)
            if b"\n" not in data:
                data += file.readline()
    except FileNotFoundError:
        return None
    whole = data.rfind(b"\n") + 1
    if not whole:
        return None
    read = [parse(line) for line in data[: whole - 1].split(b"\n")]
    events = [event for event in read if event is not None]
    return _Part(segment_key(path), offset + whole, events, len(read) - len(events))
