"""The log of a run: its end, what was before it, what comes next, and the lines that hold a word."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from melete.api import here, lines, paging
from melete.api.here import RunId
from melete.api.lines import LogAsked
from melete.api.records import LogPage
from melete.api.store import Store


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
        asked.check()
        log = path / "log.txt"
        if asked.after is not None:
            found = lines.since(log, asked.after, asked.limit, asked.search)
            return LogPage(data=found.lines, next_cursor=None, end=found.end)
        of = f"log {run_id} {asked.search or ''}"
        found = lines.before(log, paging.place(asked.cursor, of, int), asked.limit, asked.search)
        more = paging.cursor_at(found.start, of) if found.start > 0 else None
        return LogPage(data=found.lines, next_cursor=more, end=found.end)

    return router
