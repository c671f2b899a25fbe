"""The queue as people see it: submit a job file, list, show, pause, stop, resume, retry.

    with opened(settings) as queue:
        job = queue.submit(Path("job.yaml"), priority=5)
        queue.ask(job.id, Wanted.STOP)

`claims.py` is the side of the workers. Each call is one transaction that holds the job's row (PostgreSQL) or the
database (SQLite, `BEGIN IMMEDIATE`). What is asked of a running process is written down here; its child reads it with
each heartbeat and ends itself.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, and_, insert, or_, select, update

from melete import documents
from melete.errors import ConfigError, JobFileError, RunStateError, StorageError, UnknownNameError
from melete.jobs import file as job_file
from melete.jobs.home import home_id
from melete.jobs.states import ENDED, Job, JobState, Step, StepState, Wanted, ready, settled
from melete.runs import folder as folders
from melete.runs.process import config_class, first_problem
from melete.settings import Settings
from melete.store import database
from melete.store.models import JobRow, JobStepRow, table

JOBS, STEPS = table(JobRow), table(JobStepRow)
STEP_FIELDS = [one.name for one in fields(Step)]
JOB_FIELDS = [one.name for one in fields(Job) if one.name != "steps"]
FRESH = {
    "attempt": 0, "failures": 0, "not_before_s": 0.0, "gpus": [], "handed_back": False,
    "run": None, "worker": None, "host": None, "pid": None, "pid_started_s": None,
    "claimed_s": None, "beat_s": None, "ended_s": None, "error": None,
}  # fmt: skip
"""Columns of a process that nobody has claimed yet."""


@contextmanager
def opened(settings: Settings) -> Iterator[Queue]:
    """The queue of a home.

    Raises:
        StorageError: the database cannot be used, is of a newer version, or the home folder cannot be written.
    """
    with database.opened(settings.database) as engine:
        yield Queue(settings, engine)


class Queue:
    """The jobs of one home.

    Args:
        settings: the home folder, where job files are copied to.
        engine: database at its newest schema.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.home = home_id(settings)

    def submit(
        self,
        file: Path,
        *,
        priority: int = 0,
        limit_batches: int | None = None,
        origin: str | None = None,
    ) -> Job:
        """Checks a job file and puts it into the queue.

        Args:
            file: YAML or JSON; a copy is kept in the job's folder.
            priority: higher goes first; equal ones in the order in which they came.
            limit_batches: the most steps per loop of processes that say none themselves.
            origin: where the file comes from, if not from where it lies.

        Raises:
            JobFileError: the file is wrong; nothing was made.
            StorageError: the home folder or the database cannot be written; nothing was made.
        """
        read = job_file.read(file)
        where = str(file.resolve()) if origin is None else origin
        return self._put(
            read,
            lambda folder: shutil.copyfile(file, folder / f"job{file.suffix}"),
            where,
            priority,
            limit_batches,
        )

    def submit_text(
        self, text: str, *, priority: int = 0, limit_batches: int | None = None, origin: str = ""
    ) -> Job:
        """Checks the text of a job file and puts it into the queue, as `submit` does with a file.

        Raises:
            JobFileError: the text is wrong, by line and key; nothing was made.
            StorageError: the home folder or the database cannot be written; nothing was made.
        """
        name = file_name(text)
        document, problems = job_file.check(Path(name), text)
        if document is None or problems:
            raise documents.failure(problems, JobFileError)
        return self._put(
            document.record,
            lambda folder: (folder / name).write_text(text, encoding="utf-8"),
            origin,
            priority,
            limit_batches,
        )

    def _put(
        self,
        read: job_file.JobFile,
        keep: Callable[[Path], object],
        origin: str,
        priority: int,
        limit_batches: int | None,
    ) -> Job:
        """Makes the job's folder, in which `keep` writes its file, and its rows."""
        path, now_s = folders.new_folder(self.settings.home / "jobs", read.name)
        try:
            keep(path)
            rows = step_rows(read, path.name, priority, now_s, limit_batches)
            with alone(self.engine) as connection:
                connection.execute(
                    insert(JOBS).values(
                        id=path.name, home=self.home, name=read.name,
                        file=origin, cwd=str(Path.cwd()), priority=priority, state=JobState.QUEUED,
                        wanted=Wanted.RUN, wanted_s=now_s, created_s=now_s, tries=1,
                    )
                )  # fmt: skip
                connection.execute(insert(STEPS), rows)
                settle(connection, path.name)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise folders.storage_error(path / "job", error) from error
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return self.get(path.name)

    def get(self, ref: str) -> Job:
        """A job by its id, the unique beginning of one, its name (the newest), or `latest`.

        Raises:
            UnknownNameError: there is none.
            ConfigError: several ids begin so.
        """
        with self.engine.connect() as connection:
            return job_of(connection, self._id(connection, ref))

    def list(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        limit: int = 20,
        before: tuple[float, str] | None = None,
    ) -> list[Job]:
        """The newest jobs of this home first.

        Args:
            state: only those in this state.
            name: only those whose name holds this, in any case.
            limit: the most.
            before: `(created_s, id)` of the last one of the page before.
        """
        query = select(JOBS).where(JOBS.c.home == self.home)
        if state is not None:
            query = query.where(JOBS.c.state == state)
        if name is not None:
            query = query.where(JOBS.c.name.icontains(name, autoescape=True))
        if before is not None:
            made_s, last = before
            older = or_(JOBS.c.created_s < made_s, and_(JOBS.c.created_s == made_s, JOBS.c.id < last))
            query = query.where(older)
        query = query.order_by(JOBS.c.created_s.desc(), JOBS.c.id.desc()).limit(limit)
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
            steps: dict[str, list[Step]] = {row.id: [] for row in rows}
            found = select(STEPS).where(STEPS.c.job_id.in_(steps)).order_by(STEPS.c.number)
            for step in connection.execute(found):
                steps[step.job_id].append(step_record(step))
        return [job_record(row, steps[row.id]) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs of this home are in each state."""
        from sqlalchemy import func

        query = select(JOBS.c.state, func.count()).where(JOBS.c.home == self.home).group_by(JOBS.c.state)
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def ask(self, ref: str, wanted: Wanted) -> Job:
        """Asks a job to pause, to stop (with a checkpoint first) or to end at once.

        Raises:
            UnknownNameError: there is no such job.
            RunStateError: it has ended.
        """
        with alone(self.engine) as connection:
            job = self._held(connection, ref)
            if job.state in ENDED or (job.state is JobState.PAUSED and wanted is Wanted.PAUSE):
                raise RunStateError(
                    f"Job {job.id} is {job.state}: there is nothing to {wanted}.",
                    next_step=f"Look at it with: melete jobs show {job.id}",
                )
            _want(connection, job.id, wanted)
            if wanted is not Wanted.PAUSE:
                held = STEPS.c.state.in_((StepState.QUEUED, StepState.WAITING))
                connection.execute(
                    update(STEPS).where(STEPS.c.job_id == job.id, held).values(state=StepState.STOPPED)
                )
            settle(connection, job.id)
            return job_of(connection, job.id)

    def resume(self, ref: str) -> Job:
        """Continues a job that was paused or stopped, each process from its newest checkpoint.

        Raises:
            UnknownNameError: there is no such job.
            RunStateError: it is neither paused nor stopped.
        """
        with alone(self.engine) as connection:
            job = self._held(connection, ref)
            waiting = job.wanted is not Wanted.RUN and job.state not in (JobState.FAILED, JobState.SUCCEEDED)
            if not (waiting or job.state is JobState.STOPPED):
                next_step = f"Try it again with: melete jobs retry {job.id}" if job.state in ENDED else None
                raise RunStateError(f"Job {job.id} is {job.state}, not paused.", next_step=next_step)
            _refuse_while_it_stops(job)
            again(connection, job)
            return job_of(connection, job.id)

    def retry(self, ref: str, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Job:
        """Tries a job again: what has succeeded stays, the rest continues from its newest checkpoint.

        Args:
            ref: the job.
            changes: process name to config keys with new values; these processes, and all that come after them, start
                anew in runs of their own.

        Raises:
            UnknownNameError: there is no such job, or no such process in it.
            ConfigError: a value is wrong; nothing was changed.
            RunStateError: it runs, or it has succeeded and nothing was changed.
        """
        changes = changes or {}
        with alone(self.engine) as connection:
            job = self._held(connection, ref)
            _refuse_while_it_stops(job)
            if job.state not in ENDED:
                raise RunStateError(
                    f"Job {job.id} is {job.state}.",
                    next_step=f"Stop it first with: melete jobs stop {job.id}",
                )
            if job.state is JobState.SUCCEEDED and not changes:
                raise RunStateError(
                    f"Job {job.id} has succeeded: nothing is left to retry.",
                    next_step="Change something with --set STEP.KEY=VALUE, or submit the file again.",
                )
            again(connection, job, changes)
            return job_of(connection, job.id)

    def _held(self, connection: Connection, ref: str) -> Job:
        """The job, whose row is held until the transaction ends."""
        job_id = self._id(connection, ref)
        connection.execute(select(JOBS.c.id).where(JOBS.c.id == job_id).with_for_update())
        return job_of(connection, job_id)

    def _id(self, connection: Connection, ref: str) -> str:
        ours = select(JOBS.c.id).where(JOBS.c.home == self.home)
        newest = ours.order_by(JOBS.c.created_s.desc(), JOBS.c.id.desc())
        if ref == "latest":
            found = list(connection.scalars(newest.limit(1)))
        else:
            begins = JOBS.c.id.startswith(ref, autoescape=True)
            found = list(connection.scalars(newest.where(begins).limit(5)))
            found = [ref] if ref in found else found
            found = found or list(connection.scalars(newest.where(JOBS.c.name == ref).limit(1)))
        if len(found) > 1:
            raise ConfigError(f"{ref!r} is the beginning of several jobs: {', '.join(found)}.")
        if not found:
            known = connection.scalars(newest.limit(24))
            raise UnknownNameError("job", ref, known, next_step="List them with: melete jobs list")
        return str(found[0])


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A transaction in which SQLite keeps every other writer out from its start; PostgreSQL locks rows instead."""
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def settle(connection: Connection, job_id: str, now_s: float | None = None) -> JobState:
    """Queues the processes whose turn has come and writes the job's state; its row is held."""
    job = job_of(connection, job_id)
    names = ready(job.steps) if job.wanted is Wanted.RUN else []
    if names:
        ours = (STEPS.c.job_id == job_id) & STEPS.c.name.in_(names)
        connection.execute(update(STEPS).where(ours).values(state=StepState.QUEUED))
    states = [StepState.QUEUED if step.name in names else step.state for step in job.steps]
    state = settled(states, job.wanted)
    ended_s = (job.ended_s or now_s or time.time()) if state in ENDED else None
    error = next((f"{step.name}: {step.error}" for step in job.steps if step.state == StepState.FAILED), None)
    values = {"state": state, "ended_s": ended_s, "error": error if state is JobState.FAILED else None}
    connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))
    return state


def again(connection: Connection, job: Job, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Puts what did not succeed, and what is changed or comes after it, back into the queue; the job's row is held."""
    changes = changes or {}
    configs = _changed(job, changes)
    anew = set(changes)
    for step in job.steps:
        if anew.intersection(step.after):
            anew.add(step.name)
        if step.state is StepState.SUCCEEDED and step.name not in anew:
            continue
        keep = {} if step.name in anew else {"run": step.run}
        named = [name for value in configs[step.name].values() for name in job_file.references(value)]
        values = {
            **FRESH, **keep, "attempt": step.attempt, "config": configs[step.name],
            "after": list(dict.fromkeys([*step.after, *named])),
        }  # fmt: skip
        ours = (STEPS.c.job_id == job.id) & (STEPS.c.number == step.number)
        connection.execute(update(STEPS).where(ours).values(**values, state=StepState.WAITING))
    _want(connection, job.id, Wanted.RUN)
    connection.execute(
        update(JOBS).where(JOBS.c.id == job.id).values(tries=job.tries + 1, ended_s=None, error=None)
    )
    settle(connection, job.id)


def _changed(job: Job, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The configs after the changes, each checked by its process."""
    steps = {step.name: step for step in job.steps}
    configs = {name: dict(step.config) for name, step in steps.items()}
    for name, values in changes.items():
        if name not in steps:
            raise UnknownNameError("process of this job", name, steps)
        configs[name] |= values
        earlier = {before for before in steps if steps[before].number < steps[name].number}
        for wrong in (found for value in values.values() for found in job_file.references(value)):
            if wrong not in earlier:
                raise UnknownNameError("earlier process of this job", wrong, earlier)
        cls = config_class(steps[name].process)
        try:
            cls(**configs[name])
        except ValidationError as error:
            key, text = first_problem(cls, error)
            raise ConfigError(f"{name}.{key}: {text}") from error
    return configs


def _want(connection: Connection, job_id: str, wanted: Wanted) -> None:
    values = {"wanted": wanted, "wanted_s": time.time()}
    connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))


def _refuse_while_it_stops(job: Job) -> None:
    if any(step.state is StepState.RUNNING for step in job.steps):
        raise RunStateError(
            f"A process of job {job.id} is still running.",
            next_step=f"Wait until it has ended: melete jobs show {job.id}",
        )


def file_name(text: str) -> str:
    """The file that a text would be: JSON where it begins like an object."""
    return "job.json" if text.lstrip().startswith("{") else "job.yaml"


def step_rows(
    read: job_file.JobFile, job_id: str, priority: int, now_s: float, limit_batches: int | None
) -> list[dict[str, Any]]:
    """The rows of a job file's processes, all of them waiting."""
    return [
        {
            **FRESH,
            "job_id": job_id, "number": number, "name": step.label, "process": step.process,
            "config": step.config, "limit_batches": step.limit_batches or limit_batches, "after": after,
            "executor": step.executor, "needs": step.needs.model_dump(), "device": step.needs.device,
            "slots": step.needs.slots, "retries": step.retries, "priority": priority, "created_s": now_s,
            "state": StepState.WAITING,
        }
        for number, (step, after) in enumerate(zip(read.processes, job_file.waits_for(read), strict=True))
    ]  # fmt: skip


def job_of(connection: Connection, job_id: str) -> Job:
    """A job with its processes.

    Raises:
        StorageError: its rows are not there.
    """
    row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise StorageError(f"The database holds no job {job_id}.")
    steps = connection.execute(select(STEPS).where(STEPS.c.job_id == job_id).order_by(STEPS.c.number))
    return job_record(row, [step_record(step) for step in steps])


def job_record(row: Row[Any], steps: list[Step]) -> Job:
    """A row as a record."""
    values = {name: row._mapping[name] for name in JOB_FIELDS}
    return Job(**{**values, "state": JobState(row.state), "wanted": Wanted(row.wanted)}, steps=steps)


def step_record(row: Row[Any]) -> Step:
    """A row as a record."""
    values = {name: row._mapping[name] for name in STEP_FIELDS}
    return Step(**{**values, "state": StepState(row.state)})
