"""New whole lines of the segments of a spool, and how far each was read."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from melete.store.database import upsert
from melete.store.models import SpoolPositionRow, table

POSITIONS = table(SpoolPositionRow)


@dataclass(frozen=True)
class Part:
    """Whole lines of one segment, without their newlines, and the offset in bytes at which they end."""

    segment: str
    offset: int
    lines: list[bytes]


def key(path: Path) -> str:
    """Under what the position of a segment is kept: its name and where it is, as several spools may share a store."""
    place = f"{socket.gethostname()}:{path.parent.resolve()}"
    return f"{hashlib.sha256(place.encode()).hexdigest()[:12]}/{path.name}"


def new_parts(connection: Connection, folder: Path, read_bytes: int) -> list[Part]:
    """What was written since the last reading, up to about `read_bytes` of all segments together."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        return []
    offsets = {row.segment: row.offset for row in connection.execute(select(POSITIONS))}
    return list(_parts(paths, offsets, read_bytes))


def keep_positions(connection: Connection, parts: list[Part], bad_lines: dict[str, int]) -> None:
    """Writes how far segments were read, in the transaction of what was read.

    Args:
        connection: that transaction.
        parts: what was read.
        bad_lines: segment to how many of its new lines could not be used.
    """
    names = [part.segment for part in parts]
    query = select(POSITIONS).where(POSITIONS.c.segment.in_(names))
    before = {row.segment: row.bad_lines for row in connection.execute(query)}
    rows = [
        {
            "segment": part.segment,
            "offset": part.offset,
            "bad_lines": before.get(part.segment, 0) + bad_lines.get(part.segment, 0),
            "read_s": time.time(),
        }
        for part in parts
    ]
    upsert(connection, POSITIONS, rows)


def _parts(paths: list[Path], offsets: dict[str, int], left: int) -> Iterator[Part]:
    for path in paths:
        offset = offsets.get(key(path), 0)
        part = _part(path, offset, left)
        if part is not None:
            left -= max(1, part.offset - offset)
            yield part
        if left <= 0:
            return


def _part(path: Path, offset: int, most: int) -> Part | None:
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
    return Part(key(path), offset + whole, data[: whole - 1].split(b"\n")) if whole else None
