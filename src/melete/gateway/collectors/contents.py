"""Reads kept prompts and answers, redacted before they were written, into the store until their time is over."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Engine

from melete.gateway import content
from melete.gateway.collectors._segments import keep_positions, new_parts
from melete.gateway.ingest import alone
from melete.store.database import upsert
from melete.store.models import RequestContentRow, table

CONTENTS = table(RequestContentRow)
READ_BYTES = 8_000_000


def collect_into(engine: Engine, folder: Path, now_s: float | None = None) -> int:
    """Reads all that is new; returns how many requests' contents were kept.

    Args:
        engine: an engine of an upgraded database.
        folder: the spool of contents; it is only there where an experiment asked for it.
        now_s: the time, now by default; what has expired by then is left out.
    """
    now_s = time.time() if now_s is None else now_s
    kept = 0
    more = any(folder.glob("*.jsonl"))
    while more:
        with engine.begin() as connection:
            alone(connection)
            parts = new_parts(connection, folder, READ_BYTES)
            rows: dict[str, dict[str, object]] = {}
            bad: dict[str, int] = {}
            for part in parts:
                read = [content.parse(line) for line in part.lines]
                bad[part.segment] = read.count(None)
                for said in read:
                    if said is not None and said.expires_s > now_s:
                        rows[said.request] = {
                            "request_id": said.request,
                            "session_id": said.session,
                            "parts": said.parts,
                            "expires_s": said.expires_s,
                        }
            upsert(connection, CONTENTS, list(rows.values()))
            keep_positions(connection, parts, bad)
        kept += len(rows)
        more = bool(parts)
    return kept
