"""Jobs of this home as the API's records, with why each process waits and what can be asked of a job now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Path as InPath

from melete.api import here
from melete.api.clean import clean
from melete.api.job_records import Action, JobDetail, JobSummary, Worker
from melete.api.store import Store
from melete.errors import UnknownNameError

if TYPE_CHECKING:
    from melete.jobs.queue import Queue
    from melete.jobs.states import Job, Step

JobId = Annotated[
    str,
    InPath(
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="A job's id, the unique beginning of one, its name (the newest), or `latest`.",
        examples=["20261120-123405-tiny-a1f3"],
    ),
]


def has_queue(store: Store) -> bool:
    """Whether anything was ever queued in this home; asking makes nothing."""
    from melete.jobs.home import FILE

    return (store.settings.home / FILE).is_file()


def found(store: Store, job_id: str) -> tuple[Job, list[dict[str, Any]]]:
    """A job by its reference, and the workers that live.

    Raises:
        UnknownNameError: there is none.
    """
    from melete.jobs import outlook

    if not has_queue(store):
        raise UnknownNameError("job", job_id, [], next_step="Submit one: POST /api/v1/jobs.")
    with store.queue() as queue:
        return queue.get(job_id), outlook.workers(queue.engine, queue.home)


def summary(job: Job, alive: list[dict[str, Any]]) -> JobSummary:
    """A job in a list."""
    return JobSummary.model_validate(clean(_told(job, alive), longest=2_000))


def detail(store: Store, job: Job, alive: list[dict[str, Any]]) -> JobDetail:
    """All that is known of a job."""
    told = _told(job, alive)
    steps = [_step(store, step, one["waits"]) for step, one in zip(job.steps, told["steps"], strict=True)]
    text = here.text_of(_file(store.settings.home / "jobs" / job.id))
    return JobDetail.model_validate(
        clean({**told, "file": job.file, "cwd": job.cwd, "steps": steps}) | {"text": clean(text, 2_000_000)}
    )


def actions(job: Job) -> list[Action]:
    """What can be asked of a job now; one that has succeeded is only tried again with a change."""
    from melete.jobs.states import ENDED, StepState, Wanted

    runs = any(step.state is StepState.RUNNING for step in job.steps)
    if job.state in ENDED:
        again: list[Action] = ["resume", "retry"] if job.state == "stopped" else ["retry"]
        return [] if runs else again
    if job.wanted is Wanted.RUN:
        return ["pause", "stop", "kill"]
    asked: list[Action] = [] if runs else ["resume"]
    if job.wanted is Wanted.PAUSE:
        asked += ["stop"]
    return asked if job.wanted is Wanted.KILL else [*asked, "kill"]


def workers(queue: Queue) -> list[Worker]:
    """Who carries out processes of this home."""
    from melete.jobs import claims, outlook

    alive = outlook.workers(queue.engine, queue.home)
    running = claims.in_use(queue.engine, queue.home) if alive else []
    taken = {host: claims.gpus_taken(queue.engine, host) for host in {one["host"] for one in alive}}
    now_s = time.time()
    made = []
    for one in alive:
        its = [(job, step) for job, step in running if step.worker == one["id"]]
        on_cpu = [step for _, step in its if step.executor == "local" and not step.gpus]
        told = {
            **one,
            "gpus_taken": [gpu for gpu in taken[one["host"]] if gpu in one["gpus"]],
            "cpu_slots_taken": sum(int(step.needs["slots"]) for step in on_cpu),
            "beat_age_s": max(0.0, now_s - one["beat_s"]),
            "working_on": [{"job": job, "step": step.name, "run": step.run} for job, step in its],
        }
        made.append(Worker.model_validate(clean(told)))
    return made


def _told(job: Job, alive: list[dict[str, Any]]) -> dict[str, Any]:
    from melete.jobs import outlook
    from melete.jobs.states import StepState

    waits = [outlook.reason(job, step, alive) for step in job.steps]
    steps = [{**vars(step), "waits": why} for step, why in zip(job.steps, waits, strict=True)]
    return {
        **vars(job),
        "shown_state": job.shown_state,
        "done": sum(step.state is StepState.SUCCEEDED for step in job.steps),
        "steps": steps,
        "waits": next((why for why in waits if why), None),
        "actions": actions(job),
    }


def _step(store: Store, step: Step, waits: str | None) -> dict[str, Any]:
    gone = step.run is not None and not (store.settings.runs / step.run / "run.json").is_file()
    return {
        **vars(step),
        "waits": waits,
        "not_before_s": step.not_before_s or None,
        "run_gone": gone,
    }


def _file(folder: Path) -> Path:
    """The copy of the job file that was made when it was submitted."""
    return next(
        (path for path in sorted(folder.glob("job.*")) if path.suffix in (".yaml", ".yml", ".json")),
        folder / "job.yaml",
    )
