"""Counts its steps and logs a falling loss.

The loss is drawn from `random`, so that it shows the seed. `fail_at` ends it with an error of the user's, `crash_at`
with a bug, `kill_at` with SIGKILL, `hold_s` makes a step last.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Annotated, Literal

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of counting."""

    steps: int = Field(5, ge=1, le=1_000_000, description="Steps to count.")
    rate: float = Field(0.5, gt=0, description="How fast the loss falls.")
    shape: Literal["flat", "steep"] = Field("flat", description="Shape of the curve.")
    words: list[str] = Field([], description="Words to say.")
    note: str | None = Field(None, description="A note.")
    loud: bool = Field(False, description="Say each step.")
    save_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 saves none.")
    fail_at: int | None = Field(None, description="Step at which the loss is not a number.")
    crash_at: int | None = Field(None, description="Step at which a bug shows.")
    kill_at: int | None = Field(None, description="Step at which the process kills itself.")
    hold_s: float = Field(0.0, ge=0, description="Seconds per step.")
    base: Annotated[str, Input("checkpoint", kinds=("trial",))] = Field("", description="Run to start from.")


EXAMPLE = {"steps": 3}


def plan(config: Config) -> list[tuple[str, object, str]]:
    """What follows from the options."""
    return [("total", config.steps * config.rate, "steps times rate")]


def main(config: Config, run: Run) -> None:
    """Counts."""
    start = 0
    if run.resuming and (folder := run.latest_checkpoint()):
        from melete.runs import checkpoints

        start = checkpoints.read(folder).step
        run.rewind(start)
    run.datasets["trial"] = "0" * 64
    for word in config.words:
        run.say(word)
    first = not run.resuming
    for step in run.steps(config.steps, start=start):
        if first and step == config.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if first and step == config.crash_at:
            raise KeyError("a bug")
        if first and step == config.fail_at:
            run.check_finite(step, float("nan"))
        time.sleep(config.hold_s)
        run.log(step + 1, {"loss": config.rate / (step + 1) + random.random() * 0.01, "tokens_per_s": 1000.0})
        if config.loud:
            run.say(f"step {step + 1}")
        if config.save_every and run.should_save(step, config.save_every):
            save(run, step + 1)
    run.sample(config.steps, "text", "counted to <b>the end</b>")
    run.result["steps"] = config.steps
    run.result["accuracy"] = {
        "name": "accuracy",
        "value": 0.5,
        "count": 40,
        "low": 0.35,
        "high": 0.65,
        "note": "",
    }


def save(run: Run, step: int) -> None:
    """Saves a checkpoint of nothing but its step."""
    run.save_checkpoint(
        kind="trial", step=step, config={}, tensors={}, side_files={"step.txt": str(step).encode()}
    )
