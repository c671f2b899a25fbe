"""Runs a job's processes in order in the foreground; resumes at the first that did not succeed.

A process that fails ends the job: what came before stays and `--resume` goes on there. A resumed job keeps the runs
whose part of the file is unchanged, continues an unfinished one in its own folder and starts the rest anew.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from melete.errors import MeleteError, RunStateError
from melete.jobs import file as job_file
from melete.jobs import folder as jobs
from melete.jobs.execute import Options, execute
from melete.jobs.execute import resume as resume_run
from melete.records import JobRecord, JobStep, RunRecord, RunState
from melete.runs import folder as folders
from melete.settings import Settings

Announce = Callable[[int, JobStep], None]


def steps_of(job: job_file.JobFile, limit_batches: int | None) -> list[JobStep]:
    """The steps of a job file as records; `limit_batches` is the limit of those that have none."""
    return [
        JobStep(
            step.label,
            step.process,
            step.config,
            limit_batches if step.limit_batches is None else step.limit_batches,
        )
        for step in job.processes
    ]


def start(settings: Settings, file: Path, limit_batches: int | None = None) -> tuple[Path, JobRecord]:
    """Makes the folder of a new job; `run_steps` runs it.

    Raises:
        JobFileError: the file is wrong; nothing was made.
    """
    job = job_file.read(file)
    return jobs.create(settings, file, job.name, steps_of(job, limit_batches))


def resume(settings: Settings, file: Path, limit_batches: int | None = None) -> tuple[Path, JobRecord]:
    """Reopens the newest job of a file; `run_steps` continues it.

    Raises:
        JobFileError: the file is wrong.
        RunStateError: there is no such job, or it is alive, or it has succeeded as the file stands.
    """
    job = job_file.read(file)
    path = jobs.newest(settings, file)
    if path is None:
        raise RunStateError(
            f"No job was started from {file} yet.", next_step=f"Start it with: melete run {file}"
        )
    record = jobs.read(path)
    if record.state is RunState.RUNNING:
        raise RunStateError(f"Job {record.id} runs in process {record.pid} on {record.host}.")
    kept = _kept(steps_of(job, limit_batches), record.steps)
    if all(step.state is RunState.SUCCEEDED for step in kept):
        raise RunStateError(
            f"Job {record.id} has succeeded: nothing is left to resume.",
            next_step=f"Start it anew with: melete run {file}",
        )
    record.steps, record.resumed, record.error = kept, record.resumed + 1, None
    return path, record


def _kept(wanted: list[JobStep], before: list[JobStep]) -> list[JobStep]:
    """The wanted steps, with the runs of the job before up to the first step that changed or did not succeed."""
    steps = []
    unchanged = True
    for number, step in enumerate(wanted):
        old = before[number] if number < len(before) else None
        unchanged = unchanged and old is not None and replace(old, run=None, state=RunState.QUEUED) == step
        steps.append(old if unchanged and old is not None else step)
        unchanged = unchanged and steps[-1].state is RunState.SUCCEEDED
    return steps


def run_steps(settings: Settings, path: Path, record: JobRecord, announce: Announce) -> None:
    """Runs the steps that have not succeeded; ends at the first that does not.

    Raises:
        MeleteError: a process failed; the record says which.
    """
    record.state = RunState.RUNNING
    record.pid, record.host = os.getpid(), socket.gethostname()
    record.pid_started_s = folders.process_start_s(os.getpid())
    record.ended_s = None
    jobs.write(path, record)
    try:
        for number, step in enumerate(record.steps):
            if step.state is RunState.SUCCEEDED:
                continue
            announce(number, step)
            if _run_step(settings, path, record, step).state is RunState.STOPPED:
                record.state = RunState.STOPPED
                return
        record.state = RunState.SUCCEEDED
    except KeyboardInterrupt:
        record.state = RunState.STOPPED
        raise
    except Exception as error:
        record.state = RunState.FAILED
        record.error = str(error) if isinstance(error, MeleteError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        record.ended_s = time.time()
        jobs.write(path, record)


def _run_step(settings: Settings, path: Path, record: JobRecord, step: JobStep) -> RunRecord:
    """Executes one step, or continues its run, and notes in the job how it stands."""
    runs = {earlier.name: earlier.run for earlier in record.steps if earlier.run is not None}
    options = Options(settings, limit_batches=step.limit_batches, job=record.id, step_name=step.name)

    def opened(run_id: str) -> None:
        step.run, step.state = run_id, RunState.RUNNING
        jobs.write(path, record)

    try:
        if step.run is not None and (settings.runs / step.run / "run.json").is_file():
            return resume_run(settings.runs / step.run, options)
        return execute(step.process, job_file.substitute(step.config, runs), options, opened)
    finally:
        if step.run is not None:
            step.state = folders.read(settings.runs / step.run).state
