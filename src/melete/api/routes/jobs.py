"""Jobs: what is queued, runs and has ended; submit, check, pause, stop, resume and retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from melete.api import job_drafts, job_log, paging, queue_here
from melete.api.job_records import (
    Checked,
    JobDetail,
    JobLogPage,
    JobState,
    JobSummary,
)
from melete.api.lines import LogAsked
from melete.api.queue_here import JobId
from melete.api.store import Asked, Listed, Store, Text
from melete.errors import ConfigError

if TYPE_CHECKING:
    from melete.jobs.queue import Queue
    from melete.jobs.states import Job

LARGEST_TEXT = 1_000_000
EXAMPLE = "name: tiny\nprocesses:\n  - process: llm.tokenizer\n    config: {vocab_size: 300}\n"
JobText = Annotated[
    str, Field(max_length=LARGEST_TEXT, description="A job file, YAML or JSON.", examples=[EXAMPLE])
]


class JobAsked(Asked):
    """Which jobs."""

    state: JobState | None = None
    name: Text | None = Field(None, description="Part of the name, in any case.", examples=["tiny"])


class JobLogAsked(LogAsked):
    """Which lines of which process."""

    step: Text | None = Field(None, description="Only of this process.", examples=["base"])


class SubmitBody(BaseModel):
    """A job to queue."""

    model_config = ConfigDict(extra="forbid")

    text: JobText
    priority: int = Field(0, ge=-1_000_000, le=1_000_000, description="Higher goes first.")
    limit_batches: int | None = Field(
        None, ge=1, le=10**9, description="The most steps per loop of processes that say none themselves."
    )


class CheckBody(BaseModel):
    """A text to check."""

    model_config = ConfigDict(extra="forbid")

    text: JobText


class RetryBody(BaseModel):
    """What is to be changed before a job is tried again."""

    model_config = ConfigDict(extra="forbid")

    changes: dict[str, dict[str, Any]] = Field(
        {},
        description="Process name to config keys with new values; these, and all that come after them, start anew.",
        examples=[{"base": {"depth": 6}}],
    )


def routes(store: Store) -> APIRouter:
    """A list, newest first, one of it with its log, and what can be asked of it."""
    router = APIRouter()
    job_drafts.add(router, store)
    _add_reading(router, store)
    _add_asking(router, store)
    return router


def _add_reading(router: APIRouter, store: Store) -> None:
    @router.get("")
    def list_jobs(asked: Annotated[JobAsked, Query()]) -> Listed[JobSummary]:
        """List jobs of the queue, newest first; what `melete run` runs in the foreground is among the runs."""
        from melete.jobs import outlook

        of = f"jobs {asked.state or ''} {asked.name or ''}"
        before = _before(paging.place(asked.cursor, of, str))
        if not queue_here.has_queue(store):
            return Listed[JobSummary](object="list", data=[], next_cursor=None)
        with store.queue() as queue:
            jobs = queue.list(state=asked.state, name=asked.name, limit=asked.limit + 1, before=before)
            alive = outlook.workers(queue.engine, queue.home)
        shown = jobs[: asked.limit]
        more = None
        if len(jobs) > asked.limit:
            more = paging.cursor_at(f"{shown[-1].created_s!r} {shown[-1].id}", of)
        data = [queue_here.summary(job, alive) for job in shown]
        return Listed[JobSummary](object="list", data=data, next_cursor=more)

    @router.post("/check")
    def check_job(body: CheckBody) -> Checked:
        """Check a job file's text without queueing it: every problem by line, or what it would do."""
        return job_drafts.checked(store, body.text)

    @router.get("/{job_id}")
    def get_job(job_id: JobId) -> JobDetail:
        """One job: its processes, why each waits, and what can be asked of it now."""
        return queue_here.detail(store, *queue_here.found(store, job_id))

    @router.get("/{job_id}/log")
    def get_job_log(job_id: JobId, asked: Annotated[JobLogAsked, Query()]) -> JobLogPage:
        """What a job's processes said, one after the other, oldest line first; asked as the log of a run is.

        Of processes that run side by side the last one's lines come last: `step=` follows one of them.
        """
        job, _ = queue_here.found(store, job_id)
        return job_log.page(store, job, asked, asked.step)


def _add_asking(router: APIRouter, store: Store) -> None:
    @router.post("", status_code=201)
    def submit_job(body: SubmitBody, response: Response) -> JobDetail:
        """Check the text of a job file and put it into the queue; nothing is made of one that is wrong."""
        with store.queue_to_write() as queue:
            job = queue.submit_text(body.text, priority=body.priority, limit_batches=body.limit_batches)
        response.headers["Location"] = f"/api/v1/jobs/{job.id}"
        return queue_here.detail(store, *queue_here.found(store, job.id))

    @router.post("/{job_id}/pause")
    def pause_job(job_id: JobId) -> JobDetail:
        """Hold a job back; what runs saves a checkpoint and frees its slot."""
        return ask(job_id, "pause")

    @router.post("/{job_id}/stop")
    def stop_job(job_id: JobId) -> JobDetail:
        """Stop a job; what runs saves a checkpoint first."""
        return ask(job_id, "stop")

    @router.post("/{job_id}/kill")
    def kill_job(job_id: JobId) -> JobDetail:
        """End a job at once, without a checkpoint."""
        return ask(job_id, "kill")

    @router.post("/{job_id}/resume")
    def resume_job(job_id: JobId) -> JobDetail:
        """Continue a job that was paused or stopped, from its newest checkpoints."""
        return changed(job_id, lambda queue, job: queue.resume(job))

    @router.post("/{job_id}/retry")
    def retry_job(job_id: JobId, body: Annotated[RetryBody, Body()] = RetryBody(changes={})) -> JobDetail:  # noqa: B008
        """Try a job again: what has succeeded stays, the rest continues, what is changed starts anew."""
        return changed(job_id, lambda queue, job: queue.retry(job, body.changes))

    def ask(job_id: str, wanted: str) -> JobDetail:
        from melete.jobs.states import Wanted

        return changed(job_id, lambda queue, job: queue.ask(job, Wanted(wanted)))

    def changed(job_id: str, change: Callable[[Queue, str], Job]) -> JobDetail:
        job, _ = queue_here.found(store, job_id)
        with store.queue_to_write() as queue:
            change(queue, job.id)
        return queue_here.detail(store, *queue_here.found(store, job.id))


def _before(place: str | None) -> tuple[float, str] | None:
    """Time and id in a cursor.

    Raises:
        ConfigError: it holds something else.
    """
    if place is None:
        return None
    made_s, _, last = place.partition(" ")
    try:
        return float(made_s), last
    except ValueError as error:
        raise ConfigError("The cursor does not belong to this list and these filters.") from error
