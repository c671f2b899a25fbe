"""The log of a run: its end, what was before it, what comes next, and the lines that hold a word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from melete.api import here, paging
from melete.api.clean import text
from melete.api.here import RunId
from melete.api.records import LogLine, LogPage
from melete.api.store import PLAIN, Store
from melete.errors import ConfigError

LOOKED_BYTES = 1 << 20
"""Looked through for one answer."""
SEARCHED_BYTES = 4 << 20
LONGEST_LINE = 4_000
"""Characters of one line."""


class LogAsked(BaseModel):
    """Which lines."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(200, ge=1, le=1_000, description="Lines at most.")
    cursor: str | None = Field(
        None, max_length=2_000, pattern=r"^[A-Za-z0-9_-]+$", description="next_cursor: the lines before."
    )
    after: int | None = Field(
        None, ge=0, lt=2**53, description="`end` of the answer before: what came since."
    )
    search: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description="Only lines with this text, in any case.",
    )


def routes(store: Store) -> APIRouter:
    """One answer."""
    router = APIRouter()

    @router.get("")
    def get_run_log(run_id: RunId, asked: Annotated[LogAsked, Query()]) -> LogPage:
        """Lines of the log, oldest first: the last ones, those before a cursor, or those after a place.

        At most 1 MB is looked through for one answer, 4 MB in a search: an answer may hold fewer lines than asked for,
        even none, and still have a cursor.
        """
        path, _ = here.opened(store, run_id)
        if asked.after is not None and asked.cursor is not None:
            raise ConfigError("after and cursor were both given.", allowed="One of them, or none.")
        most = SEARCHED_BYTES if asked.search else LOOKED_BYTES
        of = f"log {run_id} {asked.search or ''}"
        before = paging.place(asked.cursor, of, int)
        log = path / "log.txt"
        size = log.stat().st_size if log.is_file() else 0
        if asked.after is not None:
            start = min(asked.after, size)
            found = _lines(_between(log, start, min(size, start + most)), start)
            if found and start + most < size and len(found) > 1:
                found.pop()  # its end is in the next answer
            end = found[-1][0] + len(found[-1][1]) if found else start
            kept = [line for line in found if _matches(line[1], asked.search)]
            if len(kept) > asked.limit:
                kept = kept[: asked.limit]
                end = kept[-1][0] + len(kept[-1][1])
            return LogPage(data=[_shown(line) for line in kept], next_cursor=None, end=end)
        end = size if before is None else min(before, size)
        start = max(0, end - most)
        found = _lines(_between(log, start, end), start)
        if start > 0 and len(found) > 1:
            found = found[1:]  # its beginning is in the answer after this one
            start = found[0][0]
        kept = [line for line in found if _matches(line[1], asked.search)]
        if len(kept) > asked.limit:
            kept = kept[-asked.limit :]
            start = kept[0][0]
        cursor = paging.cursor_at(start, of) if start > 0 else None
        return LogPage(data=[_shown(line) for line in kept], next_cursor=cursor, end=end)

    return router


def _between(log: Path, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    with log.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _lines(data: bytes, start: int) -> list[tuple[int, bytes]]:
    """Lines with their ends and the place where each begins."""
    found = []
    for line in data.split(b"\n"):
        found.append((start, line + b"\n"))
        start += len(line) + 1
    last_start, last = found.pop()
    if last != b"\n":
        found.append((last_start, last[:-1]))
    return found


def _matches(line: bytes, search: str | None) -> bool:
    return search is None or search.lower() in line.decode("utf-8", "replace").lower()


def _shown(line: tuple[int, bytes]) -> LogLine:
    return LogLine(offset=line[0], text=text(line[1].decode("utf-8", "replace").rstrip("\r\n"), LONGEST_LINE))
