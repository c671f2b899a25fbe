"""The queue for tests: a job file in a line, workers that are records only, and children that are pretended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from melete.jobs import child, claims
from melete.jobs.claims import Claim, Ending, Worker
from melete.jobs.queue import Queue, opened
from melete.jobs.states import Job, StepState
from melete.runs import folder as folders
from melete.settings import Settings
from trial_runs import TRIAL

DONE = Ending(StepState.SUCCEEDED)
HERE = socket.gethostname()


def job_file(folder: Path, *processes: dict[str, Any], name: str = "tiny") -> Path:
    """Writes a job file; each process counts, unless it says otherwise."""
    path = folder / f"{name}.yaml"
    steps = [{"process": "trial.count", "name": f"p{number}", **one} for number, one in enumerate(processes)]
    path.write_text(yaml.safe_dump({"name": name, "processes": steps}))
    return path


@contextmanager
def queue_of(settings: Settings) -> Iterator[Queue]:
    """The queue of a home, as tests use it."""
    with opened(settings) as queue:
        yield queue


def worker(queue: Queue, name: str = "w", *, enter: bool = True, **values: Any) -> Worker:
    """A worker that lives as long as this process, and is known to the queue."""
    pid = os.getpid()
    made = Worker(
        **{
            "id": name, "home": queue.home, "host": HERE, "pid": pid,
            "pid_started_s": folders.process_start_s(pid) or 0.0, **values,
        }
    )  # fmt: skip
    if enter:
        claims.enter(queue.engine, made)
    return made


def dead(queue: Queue, name: str = "dead", **values: Any) -> Worker:
    """A worker of this host whose process is gone."""
    return worker(queue, name, **{"pid": 2**22 - 1, "pid_started_s": 1.0, **values})


def begin(queue: Queue, claim: Claim, **values: Any) -> claims.Work | None:
    """Begins as the child of a claim would, by default one that lives: this process."""
    pid = os.getpid()
    told = {"host": HERE, "pid": pid, "pid_started_s": folders.process_start_s(pid), **values}
    return claims.begin(queue.engine, claim.job, claim.step.number, claim.attempt, **told)


def finish(queue: Queue, claim: Claim, ending: Ending = DONE) -> Any:
    """Ends as the child of a claim would."""
    return claims.finish(queue.engine, claim.job, claim.step.number, claim.attempt, ending)


def later() -> float:
    """A time after every pause before a retry."""
    return time.time() + 1e6


def until(found: Callable[[], Any], longest_s: float = 120.0) -> Any:
    """Waits until something is so."""
    until_s = time.monotonic() + longest_s
    while time.monotonic() < until_s:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


@contextmanager
def started_worker(
    settings: Settings, *arguments: str, said: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker in a process of its own; `said` is a file for what it says."""
    environ = {**os.environ, "MELETE_HOME": str(settings.home), "MELETE_DATABASE": settings.database}
    with (said or Path(os.devnull)).open("wb") as out:
        started = subprocess.Popen(
            [sys.executable, TRIAL, "worker", *arguments],
            stdout=out,
            stderr=out,
            env={**environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(60)


def log_of(settings: Settings, job: Job, number: int = 0) -> str:
    """What the children of a process have said."""
    path = child.log_file(settings, job.id, number, job.steps[number].name)
    return path.read_text() if path.is_file() else ""
