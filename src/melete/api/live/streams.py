"""Logs as server-sent events, for what has no WebSocket: `curl -N …/runs/ID/log/stream` shows a log until its run ends.

    id: 1234                                  the place after this line; ask again with after=1234, or Last-Event-ID
    data: {"offset": 1200, "text": "…"}

    event: end                                or `problem`, with the API's error
    data: {"state": "succeeded"}

A comment is sent where nothing is said for a while. The log is read on only as fast as the client takes it, so nothing
is lost and nothing piles up; a client that takes nothing for half a minute is let go.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from melete.access import Who, who_of
from melete.api.here import RunId
from melete.api.live.hub import STUCK_S, Hub
from melete.api.live.topic import Topic
from melete.api.live.topics.log import NEVER, folder_of, seen
from melete.api.store import Store, Text

LINES = 1_000
PERIOD_S = 0.25
ASKED_S = 1.0
"""Between two questions whether it has ended."""
HEARTBEAT_S = 10.0
LastSeen = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**53)]
OPEN_STATES = ("queued", "running", "paused")


class StreamAsked(BaseModel):
    """Where a stream begins."""

    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(None, ge=0, lt=2**53, description="The `id` of the last event that was seen.")
    limit: int = Field(200, ge=1, le=LINES, description="Lines before the end of the log to begin with.")
    search: Text | None = None


class JobStreamAsked(StreamAsked):
    """Where a stream of a job begins, and of which of its processes."""

    step: Text | None = Field(None, description="Name of a process.")


class Events(StreamingResponse):
    """Server-sent events; a client that does not read for long is let go."""

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def patient(message: Message) -> None:
            async with asyncio.timeout(STUCK_S):
                await send(message)

        try:
            await super().__call__(scope, receive, patient)
        except TimeoutError:
            return


def routes(store: Store, hub: Hub) -> APIRouter:
    """The two streams."""
    router = APIRouter(include_in_schema=False)

    @router.get("/runs/{run_id}/log/stream")
    async def stream_run_log(
        request: Request, run_id: RunId, asked: Annotated[StreamAsked, Query()], last: LastSeen = None
    ) -> Response:
        """Lines of a run's log as they are written, until it ends."""
        return await _stream(store, hub, f"/api/v1/runs/{run_id}", who_of(request.scope), asked, last)

    @router.get("/jobs/{job_id}/log/stream")
    async def stream_job_log(
        request: Request, job_id: RunId, asked: Annotated[JobStreamAsked, Query()], last: LastSeen = None
    ) -> Response:
        """What the processes of a job say, until it ends."""
        return await _stream(store, hub, f"/api/v1/jobs/{job_id}", who_of(request.scope), asked, last)

    return router


async def _stream(
    store: Store, hub: Hub, of: str, who: Who, asked: StreamAsked, last: int | None
) -> Response:
    """The stream, or the refusal of the API."""
    topic, record = hub.topic(f"{of}/log", who), hub.topic(of, who)
    after = last if last is not None else asked.after
    kept = asked.model_dump(exclude={"after", "limit"}, exclude_none=True)
    begin = {"limit": asked.limit} if after is None else {"after": after, "limit": LINES}
    first = await topic.answer(**kept, **begin)
    if not first.ok:
        return Response(first.body, first.status, media_type="application/json")
    events = _events(topic, folder_of(topic, store), record, first.json(), kept)
    return Events(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def _events(
    topic: Topic, folder: Path, record: Topic, page: dict[str, Any], kept: dict[str, Any]
) -> AsyncIterator[str]:
    """Lines until the run or the job has ended and all of them were sent."""
    ended: str | None = None
    said_s = asked_s = time.monotonic()
    before = NEVER
    while True:
        for line in page["data"]:
            place = f"id: {page['end']}\n" if line is page["data"][-1] else ""
            yield f"{place}data: {json.dumps(line, ensure_ascii=False)}\n\n"
            said_s = time.monotonic()
        if not page["data"]:
            if ended is not None:
                yield f"event: end\ndata: {json.dumps({'state': ended})}\n\n"
                return
            await asyncio.sleep(PERIOD_S)
            now_s = time.monotonic()
            if now_s - said_s > HEARTBEAT_S:
                yield ": waiting\n\n"
                said_s = now_s
            if now_s - asked_s > ASKED_S:
                ended, asked_s = await _ended(record), now_s
            now = seen(folder)
            if now == before and ended is None:
                continue
            before = now
        answer = await topic.answer(**kept, after=page["end"], limit=LINES)
        if not answer.ok:
            yield f"event: problem\ndata: {json.dumps(answer.json())}\n\n"
            return
        page = answer.json()


async def _ended(record: Topic) -> str | None:
    """How a run or a job ended; None while it goes on, or while nothing can be said."""
    answer = await record.answer()
    state = str(answer.json().get("state")) if answer.ok else None
    return None if state in (None, *OPEN_STATES) else state
