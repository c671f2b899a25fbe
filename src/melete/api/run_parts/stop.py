"""Stops a run that no queue looks after, as Ctrl-C in its terminal does: it saves a checkpoint and ends."""

from __future__ import annotations

import os
import signal
import socket

import sqlalchemy
from fastapi import APIRouter

from melete.api import here
from melete.api.here import RunId
from melete.api.records import StopAsked
from melete.api.store import Store
from melete.errors import ApiError, RunStateError
from melete.records import RunRecord, RunState
from melete.runs import folder
from melete.store.models import JobStepRow, table

STEP = table(JobStepRow)


def routes(store: Store) -> APIRouter:
    """One request."""
    router = APIRouter()

    @router.post("", status_code=202)
    def stop_run(run_id: RunId) -> StopAsked:
        """Ask a run to save a checkpoint and to end; one of the queue is stopped with its job.

        The signal goes to the process that the run's record names, once its start time was compared, and only on this
        machine.
        """
        _, record = here.opened(store, run_id)
        if record.state is not RunState.RUNNING:
            raise RunStateError(f"Run {run_id} is {record.state}: there is nothing to stop.")
        if (job := _queued_as(store, record)) is not None:
            raise ApiError(
                f"Run {run_id} is part of job {job}, which the queue looks after. "
                f"Stop the job: POST /api/v1/jobs/{job}/stop.",
                409,
                "of_a_job",
            )
        _signal(record)
        return StopAsked(run=run_id, state="stopping")

    return router


def _queued_as(store: Store, record: RunRecord) -> str | None:
    """The job of the queue that a run belongs to."""
    if record.job is None:
        return None
    with store.read() as connection:
        found: str | None = connection.scalar(
            sqlalchemy.select(STEP.c.job_id).where(STEP.c.job_id == record.job).limit(1)
        )
        return found


def _signal(record: RunRecord) -> None:
    if record.host != socket.gethostname() or record.pid is None:
        raise RunStateError(
            f"Run {record.id} runs on {record.host}, and this server is on {socket.gethostname()}.",
            next_step=f"Stop it there: kill -TERM {record.pid}",
        )
    if not folder.same_process(record.pid, record.pid_started_s):
        raise RunStateError(f"The process of run {record.id} has ended.")
    try:
        os.kill(record.pid, signal.SIGTERM)
    except OSError as error:
        raise RunStateError(
            f"Process {record.pid} of run {record.id} cannot be signalled ({error.strerror}).",
            next_step="It belongs to another user; stop it where it was started.",
        ) from error
