"""Logs of runs and jobs as they grow: first the last lines, then only the lines that came since.

    {"whole": LogPage}, {"more": LogPage}, {"more": LogPage}, …

Both are what the API answers at the same path, so the parameters of the log (`limit`, `search`, a job's `step`) hold
here too. The files are looked at four times a second (one `stat` each) and asked for only when they changed. A log that
grew by more than a page at once, or that was rewritten, is sent whole again.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from melete.api.lines import LOOKED_BYTES
from melete.api.live.topic import Topic, frame, refused
from melete.api.live.watch import Joined, Message, refusal
from melete.api.store import Store
from melete.errors import ServerError

PATTERN = re.compile(r"/api/v1/(runs|jobs)/([A-Za-z0-9][A-Za-z0-9._-]{0,199})/log")
MORE = 1_000
"""Lines of one `more`."""
HALF_LOOKED_BYTES = LOOKED_BYTES // 2
NEVER = object()
"""Nothing was seen yet, not even that the folder is gone."""


def watch(topic: Topic, store: Store) -> Log | None:
    """Watches a log; None if the topic is none, or asks for a part of one that does not grow."""
    if PATTERN.fullmatch(topic.path) is None or {"cursor", "after"} & topic.asked.keys():
        return None
    return Log(topic, folder_of(topic, store))


def folder_of(topic: Topic, store: Store) -> Path:
    """Folder of the run or the job whose log a topic is."""
    found = PATTERN.fullmatch(topic.path)
    assert found is not None
    return (store.settings.runs if found[1] == "runs" else store.settings.home / "jobs") / found[2]


def seen(folder: Path) -> object:
    """Changes when there is something to read in a log, or it is gone. For the event loop: a `stat` or few."""
    try:
        with os.scandir(folder) as files:
            return [
                (file.name, file.stat().st_ino, file.stat().st_size)
                for file in files
                if file.name == "log.txt" or file.name.endswith(".log")
            ]
    except OSError:
        return None


class Log:
    """Watches a log.

    Args:
        topic: a path of the API that answers with a LogPage.
        folder: of the run or the job.
    """

    period_s = 0.25

    def __init__(self, topic: Topic, folder: Path) -> None:
        self._topic, self._folder = topic, folder
        self._seen: object = NEVER
        self._end: int | None = None
        self._refused: Message | None = None

    async def look(self) -> Message | None:
        """See Watch."""
        now = seen(self._folder)
        if now == self._seen:
            return None
        self._seen = now
        if self._end is not None:
            page = await self._page(after=self._end, limit=MORE)
            if isinstance(page, dict) and page["end"] >= self._end and len(page["data"]) < MORE:
                if page["end"] - self._end > HALF_LOOKED_BYTES:
                    self._seen = NEVER  # there may be more than is looked through for one answer
                self._end = page["end"]
                return self._message("more", page) if page["data"] else None
        before = self._refused
        whole = await self._whole()
        return None if whole == before else whole

    async def join(self) -> Joined:
        """See Watch."""
        place, refused = self._end, self._refused
        page = await self._whole_page()
        if isinstance(page, Message):
            return Joined(None if page == refused else page, page)
        whole = self._message("whole", page)
        if place is None or page["end"] < place:
            return Joined(whole, whole)
        # The lines since that place are among those of the page, unless it begins after it.
        more = [line for line in page["data"] if line["offset"] >= place]
        if len(more) == len(page["data"]) and page["next_cursor"] is not None and page["end"] > place:
            return Joined(whole, whole)
        return Joined(
            self._message("more", {**page, "data": more, "next_cursor": None}) if more else None, whole
        )

    async def _whole(self) -> Message:
        page = await self._whole_page()
        return page if isinstance(page, Message) else self._message("whole", page)

    async def _whole_page(self) -> dict[str, Any] | Message:
        """The last lines, or what the API refuses."""
        self._end = self._refused = None
        page = await self._page()
        if isinstance(page, Message):
            self._refused = page
        else:
            self._end = page["end"]
        return page

    async def _page(self, **changed: int) -> dict[str, Any] | Message:
        try:
            answer = await self._topic.answer(**changed)
        except ServerError as error:
            return await refusal(self._topic, error)
        if not answer.ok:
            return Message(frame(self._topic.text, refused(answer, self._topic)), whole=True)
        page: dict[str, Any] = answer.json()
        return page

    def _message(self, kind: Literal["whole", "more"], page: dict[str, Any]) -> Message:
        payload = json.dumps({kind: page}, ensure_ascii=False, separators=(",", ":"))
        return Message(frame(self._topic.text, payload), whole=kind == "whole")
