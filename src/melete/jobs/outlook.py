"""Why a process of a queued job does not run: one sentence, with what to do about it."""

from __future__ import annotations

import socket
import time
from typing import Any

from sqlalchemy import Engine

from melete.jobs import claims
from melete.jobs.states import Job, Step, StepState, Wanted


def workers(engine: Engine, home: str) -> list[dict[str, Any]]:
    """The workers of a home that live."""
    with engine.connect() as connection:
        return claims.living_workers(connection, home, socket.gethostname())


def reason(job: Job, step: Step, alive: list[dict[str, Any]]) -> str | None:
    """Why a process does not run yet; None for one that runs or has ended.

    Args:
        job: its job.
        step: the process.
        alive: the workers that live.
    """
    if step.state is StepState.WAITING:
        ended = {one.name: one.state for one in job.steps}
        left = [name for name in step.after if ended[name] is not StepState.SUCCEEDED]
        return f"comes after {', '.join(left)}"
    if step.state is not StepState.QUEUED:
        return None
    if job.wanted is not Wanted.RUN:
        return f"held back; go on with: melete jobs resume {job.id}"
    left_s = step.not_before_s - time.time()
    if left_s > 0:
        return f"failed {step.failures} times, is tried again in {left_s:.0f} s: {step.error}"
    if not alive:
        return "no worker is alive; start one with: melete up, or in the foreground: melete worker"
    offering = [worker for worker in alive if step.executor in worker["executors"]]
    if not offering:
        return f"no worker offers the executor {step.executor}; see why with: melete worker --executor {step.executor}"
    if step.executor != "local":
        return "a worker takes it in a moment"
    return _slots(step, offering)


def _slots(step: Step, alive: list[dict[str, Any]]) -> str:
    slots = int(step.needs["slots"])
    most_gpus, most_cpus = (
        max(len(one["gpus"]) for one in alive),
        max(one["cpu_slots"] for one in alive),
    )
    device = step.needs["device"]
    if device == "cuda" and most_gpus < slots:
        return (
            f"needs {slots} GPU{'s' * (slots > 1)}, and the workers that are alive have {most_gpus or 'none'}"
        )
    if device == "cpu" and most_cpus < slots:
        return f"needs {slots} CPU slots, and the workers that are alive have {most_cpus} (melete worker --cpu-slots)"
    if device == "any" and max(most_gpus, most_cpus) < slots:
        return f"needs {slots} slots, and no worker that is alive has so many"
    return "waits for a free slot"
