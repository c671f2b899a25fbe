"""The queue as workers and their children see it: claim a process, begin it, beat, finish it, find what the dead left.

    worker:  claim ──► starts a child                  child:  begin ──► run ──► finish
             finish (for a child that could not)               beat (every 2 s: what is wanted of it)
             recover (what dead workers left)

The attempt number is the fence. A claim counts it up, and `begin`, `beat`, `note_run` and `finish` write nothing unless
the process is running with just that number; so of two children that were ever started for one process only one begins.
A child outlives its worker: as long as it lives on this host, or beats from another, its process is nobody else's.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from melete.jobs.queue import JOBS, STEPS, alone, job_of, settle, step_record
from melete.jobs.states import Job, JobState, Step, StepState, Wanted
from melete.runs import folder as folders
from melete.store import database
from melete.store.models import JobGpuRow, JobWorkerRow, table

WORKERS, GPUS = table(JobWorkerRow), table(JobGpuRow)
BEAT_S = 2.0
LEASE_S = 60.0
"""Who gave no sign of life for this long, and lives on another host, counts as dead."""
RETRY_PAUSE_S = 5.0
"""Pause before the first retry; it doubles with each."""
LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True)
class Worker:
    """Who claims: what it has, and which executors it offers."""

    id: str
    home: str
    host: str
    pid: int
    pid_started_s: float
    gpus: tuple[int, ...] = ()
    cpu_slots: int = 1
    executors: tuple[str, ...] = ("local",)


@dataclass(frozen=True)
class Claim:
    """A process that a worker has to carry out; `pid` is that of a child found alive, which is only watched."""

    job: str
    step: Step
    pid: int | None = None

    @property
    def attempt(self) -> int:
        """The number that the child must hold."""
        return self.step.attempt


@dataclass(frozen=True)
class Work:
    """What a child is to do: its process, and the runs of the job's processes by name."""

    job: Job
    step: Step
    runs: dict[str, str]


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; `again` says whether another one could end otherwise."""

    state: StepState
    error: str | None = None
    again: bool = False


class Wish(enum.StrEnum):
    """What a child is told with each beat."""

    GO_ON = "go on"
    STOP = "stop"
    KILL = "kill"
    LOST = "lost"


def enter(engine: Engine, worker: Worker) -> None:
    """Makes a worker known."""
    now_s = time.time()
    row = {**worker.__dict__, "started_s": now_s, "beat_s": now_s}
    with alone(engine) as connection:
        connection.execute(insert(WORKERS).values(**row))


def leave(engine: Engine, worker: Worker) -> None:
    """Forgets a worker that ends."""
    with alone(engine) as connection:
        connection.execute(delete(WORKERS).where(WORKERS.c.id == worker.id))


def worker_beats(engine: Engine, worker: Worker) -> None:
    """A worker's sign of life; one that was given up meanwhile is entered again."""
    now_s = time.time()
    with alone(engine) as connection:
        ours = update(WORKERS).where(WORKERS.c.id == worker.id).values(beat_s=now_s)
        if connection.execute(ours).rowcount == 0:
            connection.execute(insert(WORKERS).values(**worker.__dict__, started_s=now_s, beat_s=now_s))


def living_workers(connection: Connection, home: str, host: str) -> list[dict[str, Any]]:
    """Workers of a home that live, as far as this host can know."""
    rows = connection.execute(select(WORKERS).where(WORKERS.c.home == home)).mappings()
    return [dict(row) for row in rows if _worker_lives(dict(row), host)]


def in_use(engine: Engine, home: str) -> list[tuple[str, Step]]:
    """The running processes of a home, each with its job's id."""
    query = (
        select(STEPS)
        .join(JOBS, JOBS.c.id == STEPS.c.job_id)
        .where(JOBS.c.home == home, STEPS.c.state == StepState.RUNNING)
        .order_by(STEPS.c.job_id, STEPS.c.number)
    )
    with engine.connect() as connection:
        return [(row.job_id, step_record(row)) for row in connection.execute(query)]


def gpus_taken(engine: Engine, host: str) -> list[int]:
    """The GPUs of a host that running processes have, of whatever home."""
    with engine.connect() as connection:
        return sorted(connection.scalars(select(GPUS.c.gpu).where(GPUS.c.host == host)))


def _worker_lives(row: dict[str, Any], host: str) -> bool:
    if row["host"] == host:
        return folders.same_process(row["pid"], row["pid_started_s"])
    return bool(time.time() - row["beat_s"] < LEASE_S)


def claim(engine: Engine, worker: Worker, now_s: float | None = None) -> Claim | None:
    """Takes the process whose turn it is among those that fit what is free; None if there is none.

    Args:
        engine: database at its newest schema.
        worker: who takes it, with all its slots.
        now_s: the time, for processes that wait before a retry.
    """
    now_s = time.time() if now_s is None else now_s
    try:
        with alone(engine) as connection:
            return _claim(connection, worker, now_s)
    except IntegrityError:  # another worker of this host took the GPU in the same moment
        return None


def _claim(connection: Connection, worker: Worker, now_s: float) -> Claim | None:
    taken = set(connection.scalars(select(GPUS.c.gpu).where(GPUS.c.host == worker.host)))
    gpus = [gpu for gpu in worker.gpus if gpu not in taken]
    cpus = worker.cpu_slots - int(connection.scalar(_cpu_slots_in_use(worker)) or 0)
    query = (
        select(STEPS)
        .join(JOBS, JOBS.c.id == STEPS.c.job_id)
        .where(STEPS.c.not_before_s <= now_s, _is_for(worker, len(gpus), cpus))
        .order_by(STEPS.c.priority.desc(), STEPS.c.created_s, STEPS.c.job_id, STEPS.c.number)
        .limit(1)
        .with_for_update(of=JOBS, skip_locked=True)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    # PostgreSQL has read the process before it held the job's row.
    row = connection.execute(select(STEPS).where(key_of(row.job_id, row.number))).one()
    if row.state != StepState.QUEUED:
        return None
    uses_gpu = row.executor == "local" and (row.device == "cuda" or (row.device == "any" and worker.gpus))
    held = gpus[: row.slots] if uses_gpu else []
    for gpu in held:
        ours = {"host": worker.host, "gpu": gpu, "job_id": row.job_id, "number": row.number}
        connection.execute(insert(GPUS).values(**ours))
    values = {
        "state": StepState.RUNNING, "attempt": row.attempt + 1, "worker": worker.id, "host": worker.host,
        "pid": None, "pid_started_s": None, "gpus": held, "handed_back": False, "claimed_s": now_s,
        "beat_s": now_s, "ended_s": None, "error": None,
    }  # fmt: skip
    connection.execute(update(STEPS).where(key_of(row.job_id, row.number)).values(**values))
    started_s = func.coalesce(JOBS.c.started_s, now_s)
    connection.execute(
        update(JOBS).where(JOBS.c.id == row.job_id).values(state=JobState.RUNNING, started_s=started_s)
    )
    return Claim(row.job_id, _step(connection, row.job_id, row.number))


def _is_for(worker: Worker, gpus: int, cpus: int) -> ColumnElement[bool]:
    """The condition that a process, joined with its job, is queued and fits that many GPUs and CPU slots."""
    on_gpu = STEPS.c.device == "cuda"
    if worker.gpus:
        on_gpu = or_(on_gpu, STEPS.c.device == "any")
    fits = or_(
        STEPS.c.executor != "local",
        and_(on_gpu, STEPS.c.slots <= gpus),
        and_(~on_gpu, STEPS.c.slots <= cpus),
    )
    wanted = and_(JOBS.c.home == worker.home, JOBS.c.wanted == Wanted.RUN)
    return and_(wanted, STEPS.c.state == StepState.QUEUED, STEPS.c.executor.in_(worker.executors), fits)


def waiting(engine: Engine, worker: Worker) -> bool:
    """Whether a process is queued that the worker could carry out now or later."""
    could = _is_for(worker, len(worker.gpus), worker.cpu_slots)
    query = select(func.count()).select_from(STEPS).join(JOBS, JOBS.c.id == STEPS.c.job_id).where(could)
    with engine.connect() as connection:
        return bool(connection.scalar(query))


def _cpu_slots_in_use(worker: Worker) -> Select[tuple[int]]:
    """CPU slots of a worker that are taken, also by children that it took over."""
    runs_here = (STEPS.c.state == StepState.RUNNING) & (STEPS.c.worker == worker.id)
    on_cpu = (STEPS.c.executor == "local") & (STEPS.c.device != "cuda")
    if worker.gpus:
        on_cpu &= STEPS.c.device == "cpu"
    return select(func.sum(STEPS.c.slots)).where(runs_here, on_cpu)


def begin(
    engine: Engine,
    job_id: str,
    number: int,
    attempt: int,
    *,
    host: str,
    pid: int,
    pid_started_s: float | None,
) -> Work | None:
    """Makes a child the one that carries out an attempt; None if that is no longer wanted: then it does nothing."""
    with alone(engine) as connection:
        if _held(connection, job_id, number, attempt) is None:
            return None
        job = job_of(connection, job_id)
        step = job.steps[number]
        if step.pid is not None:
            return None
        if job.wanted is not Wanted.RUN or _handed_back(connection, job_id, number):
            _finish(connection, job, step, Ending(StepState.STOPPED))
            return None
        values = {"pid": pid, "pid_started_s": pid_started_s, "host": host, "beat_s": time.time()}
        connection.execute(update(STEPS).where(key_of(job_id, number)).values(**values))
        runs = {other.name: other.run for other in job.steps if other.run is not None}
        return Work(job, step, runs)


def note_run(engine: Engine, job_id: str, number: int, attempt: int, run: str) -> bool:
    """Writes down which run an attempt has opened; False if the attempt is no longer the child's."""
    with alone(engine) as connection:
        ours = update(STEPS).where(_running(job_id, number, attempt)).values(run=run)
        return connection.execute(ours).rowcount == 1


def beat(engine: Engine, job_id: str, number: int, attempt: int) -> Wish:
    """A child's sign of life; what is wanted of it."""
    with alone(engine) as connection:
        ours = update(STEPS).where(_running(job_id, number, attempt)).values(beat_s=time.time())
        if connection.execute(ours).rowcount == 0:
            return Wish.LOST
        wanted = connection.scalar(select(JOBS.c.wanted).where(JOBS.c.id == job_id))
        if wanted == Wanted.KILL:
            return Wish.KILL
        stops = wanted != Wanted.RUN or _handed_back(connection, job_id, number)
        return Wish.STOP if stops else Wish.GO_ON


def finish(engine: Engine, job_id: str, number: int, attempt: int, ending: Ending) -> JobState | None:
    """Writes down how an attempt ended; returns the job's state, or None if somebody did so before."""
    with alone(engine) as connection:
        if _held(connection, job_id, number, attempt) is None:
            return None
        job = job_of(connection, job_id)
        return _finish(connection, job, job.steps[number], ending)


def _finish(connection: Connection, job: Job, step: Step, ending: Ending) -> JobState:
    """The row of the job is held and the process is running."""
    now_s = time.time()
    values: dict[str, Any] = {"state": ending.state, "error": ending.error, "ended_s": now_s, "beat_s": now_s}
    wanted = job.wanted is Wanted.RUN
    if ending.state is StepState.STOPPED and wanted and _handed_back(connection, job.id, step.number):
        values |= {"state": StepState.QUEUED, "ended_s": None}
    elif ending.state is StepState.FAILED:
        values["failures"] = step.failures + 1
        if not wanted and ending.again:
            values["state"] = StepState.STOPPED  # it was asked to stop, and was killed
        elif wanted and ending.again and step.failures < step.retries:
            pause_s = min(LONGEST_PAUSE_S, RETRY_PAUSE_S * 2**step.failures)
            values |= {"state": StepState.QUEUED, "not_before_s": now_s + pause_s}
    connection.execute(update(STEPS).where(key_of(job.id, step.number)).values(**values, handed_back=False))
    connection.execute(delete(GPUS).where(GPUS.c.job_id == job.id, GPUS.c.number == step.number))
    return settle(connection, job.id, now_s)


def hand_back(engine: Engine, worker: Worker) -> int:
    """Asks all children of a worker that ends to stop; their processes go back into the queue. How many there are."""
    ours = (STEPS.c.worker == worker.id) & (STEPS.c.state == StepState.RUNNING)
    with alone(engine) as connection:
        return connection.execute(update(STEPS).where(ours).values(handed_back=True)).rowcount


def abandoned(engine: Engine, worker: Worker) -> list[Claim]:
    """Running processes of this home whose worker is dead; `pid` is that of the child if it lives on this host."""
    with engine.connect() as connection:
        living = [row["id"] for row in living_workers(connection, worker.home, worker.host)]
        query = (
            select(STEPS)
            .join(JOBS, JOBS.c.id == STEPS.c.job_id)
            .where(JOBS.c.home == worker.home, STEPS.c.state == StepState.RUNNING)
            .where(STEPS.c.worker.not_in([*living, worker.id]))
        )
        rows = connection.execute(query).all()
    found = []
    for row in rows:
        here = row.host == worker.host
        lives = here and row.pid is not None and folders.same_process(row.pid, row.pid_started_s)
        if here or time.time() - (row.beat_s or 0) > LEASE_S:
            found.append(Claim(row.job_id, step_record(row), row.pid if lives else None))
    return found


def adopt(engine: Engine, worker: Worker, found: Claim) -> bool:
    """Makes a worker the one that watches a child whose worker is dead; False if another one was quicker."""
    with alone(engine) as connection:
        ours = _running(found.job, found.step.number, found.attempt) & (STEPS.c.worker == found.step.worker)
        return connection.execute(update(STEPS).where(ours).values(worker=worker.id)).rowcount == 1


def give_back(engine: Engine, found: Claim) -> bool:
    """Puts a process back into the queue whose child never began; False if it has begun or was given back before."""
    step = found.step
    with alone(engine) as connection:
        row = _held(connection, found.job, step.number, found.attempt)
        if row is None or row.pid is not None:
            return False
        connection.execute(
            update(STEPS).where(key_of(found.job, step.number)).values(state=StepState.QUEUED, worker=None)
        )
        connection.execute(delete(GPUS).where(GPUS.c.job_id == found.job, GPUS.c.number == step.number))
        settle(connection, found.job)
        return True


def forget_dead(engine: Engine, worker: Worker) -> None:
    """Deletes the rows of workers that are dead and watch nothing any more."""
    with alone(engine) as connection:
        living = [row["id"] for row in living_workers(connection, worker.home, worker.host)]
        watching = select(STEPS.c.worker).where(
            STEPS.c.state == StepState.RUNNING, STEPS.c.worker.is_not(None)
        )
        dead = WORKERS.c.id.not_in([*living, worker.id]) & WORKERS.c.id.not_in(watching)
        connection.execute(delete(WORKERS).where(WORKERS.c.home == worker.home, dead))


def wishes(engine: Engine, jobs: Collection[str]) -> dict[str, tuple[str, float]]:
    """What is wanted of jobs, and since when."""
    query = select(JOBS.c.id, JOBS.c.wanted, JOBS.c.wanted_s).where(JOBS.c.id.in_(jobs))
    with engine.connect() as connection:
        return {row.id: (row.wanted, row.wanted_s) for row in connection.execute(query)}


def run_of(engine: Engine, job_id: str, number: int) -> str | None:
    """The run that a process has opened."""
    with engine.connect() as connection:
        found: str | None = connection.scalar(select(STEPS.c.run).where(key_of(job_id, number)))
        return found


def has_begun(engine: Engine, job_id: str, number: int) -> bool:
    """Whether the child of a running process has begun; one that waits for a node has not."""
    with engine.connect() as connection:
        return connection.scalar(select(STEPS.c.pid).where(key_of(job_id, number))) is not None


def is_current(engine: Engine) -> bool:
    """Whether the database is still at the schema that this program knows."""
    return database.revision(engine) == database.newest_revision()


def key_of(job_id: str, number: int) -> ColumnElement[bool]:
    """The condition that a row is that of a process."""
    return and_(STEPS.c.job_id == job_id, STEPS.c.number == number)


def _running(job_id: str, number: int, attempt: int) -> ColumnElement[bool]:
    return and_(key_of(job_id, number), STEPS.c.attempt == attempt, STEPS.c.state == StepState.RUNNING)


def _held(connection: Connection, job_id: str, number: int, attempt: int) -> Any:
    """The process's row if it runs with this attempt; the job's row is then held."""
    connection.execute(select(JOBS.c.id).where(JOBS.c.id == job_id).with_for_update())
    return connection.execute(select(STEPS).where(_running(job_id, number, attempt))).one_or_none()


def _handed_back(connection: Connection, job_id: str, number: int) -> bool:
    return bool(connection.scalar(select(STEPS.c.handed_back).where(key_of(job_id, number))))


def _step(connection: Connection, job_id: str, number: int) -> Step:
    return step_record(connection.execute(select(STEPS).where(key_of(job_id, number))).one())
