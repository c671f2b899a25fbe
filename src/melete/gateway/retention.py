"""What is not kept: contents whose time is over, and segments of the spool that have been read to their end.

Events and request rows stay: they hold figures only. A segment is deleted when every byte of it is in the store, nobody
writes to it any more, and it has been so for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, delete, select

from melete.gateway import spool
from melete.gateway.collectors import _segments
from melete.store.models import RequestContentRow, table

CONTENTS = table(RequestContentRow)
KEEP_SEGMENTS_S = 24 * 3600.0


def purge_contents(engine: Engine, now_s: float | None = None) -> int:
    """Deletes prompts and answers whose time is over; returns how many."""
    now_s = time.time() if now_s is None else now_s
    with engine.begin() as connection:
        return connection.execute(delete(CONTENTS).where(CONTENTS.c.expires_s <= now_s)).rowcount


def purge_segments(
    engine: Engine,
    folder: Path,
    *,
    keep_s: float = KEEP_SEGMENTS_S,
    now_s: float | None = None,
    alive: Callable[[str], bool] = spool.alive,
    under_writers: bool = False,
) -> list[str]:
    """Deletes segments that were read whole and are not written any more; returns their names.

    Args:
        engine: an engine of an upgraded database.
        folder: the spool.
        keep_s: how long a segment is kept after its last line, in seconds.
        now_s: the time, now by default.
        alive: whether a writer's process still runs.
        under_writers: delete the segment that a writer is in, too; it begins another one with its next line. A line
            written in that very moment is lost, so this is for contents only.
    """
    now_s = time.time() if now_s is None else now_s
    with engine.connect() as connection:
        read = {row.segment: row.offset for row in connection.execute(select(_segments.POSITIONS))}
    over = []
    for path in sorted(folder.glob("*.jsonl")):
        state = path.stat()
        if state.st_size != read.get(_segments.key(path)) or state.st_mtime > now_s - keep_s:
            continue
        if under_writers or not alive(_writer_of(path)) or _following(path).exists():
            over.append(path)
    if over:
        keys = [_segments.key(path) for path in over]
        with engine.begin() as connection:
            connection.execute(delete(_segments.POSITIONS).where(_segments.POSITIONS.c.segment.in_(keys)))
    for path in over:
        path.unlink(missing_ok=True)
    return [path.name for path in over]


def _writer_of(path: Path) -> str:
    """The writer of a segment, from its name `host_pid_start-number.jsonl`."""
    host, pid, started = path.stem.rpartition("-")[0].rsplit("_", 2)
    return f"{host}:{pid}:{started}"


def _following(path: Path) -> Path:
    """The segment that the same writer begins after this one."""
    writer, _, number = path.stem.rpartition("-")
    return path.with_name(f"{writer}-{int(number) + 1:06d}.jsonl")
