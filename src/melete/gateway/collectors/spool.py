"""Reads the spool into the store: whole lines only, and how far it came in the same transaction as what it read.

A collector can be killed anywhere: what was not committed is read again, and what was is skipped or recognised.
Requests whose writer died before its last line was read are ended as interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from melete.gateway import spool
from melete.gateway.collectors import contents
from melete.gateway.collectors._segments import keep_positions, new_parts
from melete.gateway.events import Event, parse
from melete.gateway.ingest import Ingested, alone, close_interrupted, ingest, open_writers
from melete.settings import Settings
from melete.store.database import opened

READ_BYTES = 2_000_000
"""Bytes of one transaction: some 5,000 events."""


@dataclass(frozen=True)
class Collected:
    """What a collection added: `ingested`, requests ended as interrupted, and lines that were no events."""

    ingested: Ingested = field(default_factory=Ingested)
    interrupted: int = 0
    bad_lines: int = 0


def collect(settings: Settings) -> Collected:
    """Brings the store of these settings up to date with the spool; for one call, not for every second.

    Raises:
        StorageError: the database or the spool cannot be read; nothing is lost, and the next call goes on.
    """
    with opened(settings.database) as engine:
        collected = collect_into(engine, settings.gateway / "spool")
        contents.collect_into(engine, settings.gateway / "content")
    return collected


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
    more = any(folder.glob("*.jsonl"))
    while more:
        with engine.begin() as connection:
            alone(connection)
            parts = new_parts(connection, folder, read_bytes)
            events: list[Event] = []
            bad: dict[str, int] = {}
            for part in parts:
                read = [parse(line) for line in part.lines]
                events += (event for event in read if event is not None)
                bad[part.segment] = read.count(None)
            total += ingest(connection, events)
            keep_positions(connection, parts, bad)
        bad_lines += sum(bad.values())
        more = bool(parts)
    ended = Ingested()
    if dead:
        with engine.begin() as connection:
            ended = close_interrupted(connection, dead)
    return Collected(total + ended, ended.events, bad_lines)
