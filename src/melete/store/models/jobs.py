"""The queue: jobs, their processes, the workers that carry them out, and which GPU of a host is taken.

Who changes a job or one of its processes holds the job's row, so two programs never decide about one job at once; only
heartbeats are written without it. Of queued jobs these tables are the truth; the runs that come of them are folders.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class JobRow(Model):
    """One submitted job file; see `melete.jobs.states.Job`."""

    __tablename__ = "job"
    __table_args__ = (Index("job_by_age", "created_s", "id"), Index("job_by_state", "home", "state"))

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    home: Mapped[str] = mapped_column(String(40), doc="id of the home folder whose workers may run it")
    name: Mapped[str] = mapped_column(String(200))
    file: Mapped[str] = mapped_column(Text, doc="where the job file lay")
    cwd: Mapped[str] = mapped_column(
        Text, doc="folder that it was submitted from; relative paths start there"
    )
    priority: Mapped[int] = mapped_column(Integer, doc="higher goes first")
    state: Mapped[str] = mapped_column(String(20))
    wanted: Mapped[str] = mapped_column(String(10), doc="run, pause, stop or kill")
    wanted_s: Mapped[float] = mapped_column(Float(53))
    created_s: Mapped[float] = mapped_column(Float(53))
    started_s: Mapped[float | None] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    tries: Mapped[int] = mapped_column(Integer, doc="how often it was submitted or retried")
    error: Mapped[str | None] = mapped_column(Text)


class JobStepRow(Model):
    """One process of a job. `attempt` counts its claims and is what a child must still hold to write anything."""

    __tablename__ = "job_step"
    __table_args__ = (
        Index("job_step_by_turn", "state", "priority", "created_s"),
        Index("job_step_by_worker", "worker"),
    )

    job_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    process: Mapped[str] = mapped_column(String(100))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    limit_batches: Mapped[int | None] = mapped_column(Integer)
    after: Mapped[list[str]] = mapped_column(JSON, doc="names of the processes that must have succeeded")
    executor: Mapped[str] = mapped_column(String(40))
    needs: Mapped[dict[str, Any]] = mapped_column(
        JSON, doc="device, slots, resources; see melete.jobs.file.Needs"
    )
    device: Mapped[str] = mapped_column(String(10), doc="needs.device: any, cpu or cuda")
    slots: Mapped[int] = mapped_column(Integer, doc="needs.slots")
    retries: Mapped[int] = mapped_column(Integer)
    priority: Mapped[int] = mapped_column(Integer)
    created_s: Mapped[float] = mapped_column(Float(53))
    state: Mapped[str] = mapped_column(String(20))
    not_before_s: Mapped[float] = mapped_column(Float(53), doc="a failed one waits until then")
    attempt: Mapped[int] = mapped_column(Integer)
    failures: Mapped[int] = mapped_column(Integer, doc="failed attempts since the last submit or retry")
    run: Mapped[str | None] = mapped_column(String(100))
    worker: Mapped[str | None] = mapped_column(String(60))
    host: Mapped[str | None] = mapped_column(String(200))
    pid: Mapped[int | None] = mapped_column(Integer, doc="the child's, once it has begun")
    pid_started_s: Mapped[float | None] = mapped_column(Float(53))
    gpus: Mapped[list[int]] = mapped_column(JSON)
    handed_back: Mapped[bool] = mapped_column(doc="its worker ends: it stops and goes back into the queue")
    claimed_s: Mapped[float | None] = mapped_column(Float(53))
    beat_s: Mapped[float | None] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    error: Mapped[str | None] = mapped_column(Text)


class JobWorkerRow(Model):
    """A worker that lives, or died without taking its leave."""

    __tablename__ = "job_worker"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    home: Mapped[str] = mapped_column(String(40))
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    pid_started_s: Mapped[float] = mapped_column(Float(53))
    gpus: Mapped[list[int]] = mapped_column(JSON)
    cpu_slots: Mapped[int] = mapped_column(Integer)
    executors: Mapped[list[str]] = mapped_column(JSON)
    started_s: Mapped[float] = mapped_column(Float(53))
    beat_s: Mapped[float] = mapped_column(Float(53))


class JobGpuRow(Model):
    """A GPU of a host that a running process has to itself."""

    __tablename__ = "job_gpu"

    host: Mapped[str] = mapped_column(String(200), primary_key=True)
    gpu: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(String(100))
    number: Mapped[int] = mapped_column(Integer)
