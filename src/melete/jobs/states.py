"""Jobs of the queue as records, the states of a job and of its processes, and what follows from what.

    waiting ─► queued ─► running ─► succeeded
                 ▲          │ ├───► failed          (once its retries are used up)
                 └──────────┘ └───► stopped         (asked to; continues from its checkpoint)

A process waits until those that it comes after have succeeded. A job's state follows from those of its processes and
from what is wanted of it; `settled` is that rule and has no other effect.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class JobState(enum.StrEnum):
    """State of a job in the queue."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


class StepState(enum.StrEnum):
    """State of one process of a job."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


class Wanted(enum.StrEnum):
    """What people want of a job."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"
    KILL = "kill"


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})


@dataclass(frozen=True)
class Step:
    """One process of a job, as the queue knows it. Times are seconds since the epoch."""

    number: int
    name: str
    process: str
    config: dict[str, Any]
    state: StepState
    after: list[str]
    executor: str
    needs: dict[str, Any]
    retries: int
    limit_batches: int | None = None
    not_before_s: float = 0.0
    attempt: int = 0
    failures: int = 0
    run: str | None = None
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    pid_started_s: float | None = None
    gpus: list[int] = field(default_factory=list)
    claimed_s: float | None = None
    beat_s: float | None = None
    ended_s: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """One submitted job file. Times are seconds since the epoch; `cwd` is the folder that it was submitted from."""

    id: str
    name: str
    file: str
    cwd: str
    priority: int
    state: JobState
    wanted: Wanted
    created_s: float
    steps: list[Step]
    started_s: float | None = None
    ended_s: float | None = None
    tries: int = 1
    error: str | None = None

    @property
    def shown_state(self) -> str:
        """The state in words: also what it is asked to become."""
        if self.state is JobState.RUNNING and self.wanted is not Wanted.RUN:
            return "pausing" if self.wanted is Wanted.PAUSE else "stopping"
        return str(self.state)


def ready(steps: Sequence[Step]) -> list[str]:
    """Names of the waiting processes whose turn has come."""
    done = {step.name for step in steps if step.state == StepState.SUCCEEDED}
    return [step.name for step in steps if step.state == StepState.WAITING and done.issuperset(step.after)]


def settled(states: Sequence[str], wanted: str) -> JobState:
    """The state of a job, from those of its processes and what is wanted of it, once the ready ones are queued."""
    if StepState.RUNNING in states:
        return JobState.RUNNING
    if all(state == StepState.SUCCEEDED for state in states):
        return JobState.SUCCEEDED
    if wanted == Wanted.PAUSE:
        return JobState.PAUSED
    if wanted in (Wanted.STOP, Wanted.KILL):
        return JobState.STOPPED
    if StepState.QUEUED in states:
        return JobState.QUEUED
    return JobState.FAILED if StepState.FAILED in states else JobState.STOPPED
