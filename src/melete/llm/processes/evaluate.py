"""Evaluate a model on a suite of tasks, such as `smoke` or `full`, or on single tasks.

The scores, each with its count and 95 % interval, go into the run's result and `evaluation/scores.json`; every item
goes into `evaluation/<task>.jsonl`, so that two runs can be compared item by item. A task that cannot run here is shown
as skipped, with the reason. On a resume, tasks that had finished are not asked again.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run

EXAMPLE = {"run": "latest", "tasks": ["toolcalls"], "limit": 2}


class Config(ProcessConfig):
    """Options of an evaluation."""

    run: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model: run id or name, id:step, checkpoint or transformers folder."
    )
    suite: str = Field("smoke", description="Suite by name, or the path of a YAML file.")
    tasks: list[str] = Field([], description="Single tasks with their default options, instead of a suite.")
    limit: int | None = Field(None, ge=1, description="Most items per task or group, instead of the suite's.")
    slots: int = Field(32, ge=1, description="Most sequences in one batch.")


def main(config: Config, run: Run) -> None:
    """Loads the model, runs the suite, keeps items and scores."""
    from melete import settings as settings_module
    from melete.evals import in_run
    from melete.evals import suite as suites
    from melete.llm import lm
    from melete.llm.config import resolve_device
    from melete.llm.evaluator import Evaluator

    suite = suites.of_tasks(config.tasks) if config.tasks else suites.load(config.suite)
    settings = settings_module.load()
    model = Evaluator(lm.load(config.run, settings, resolve_device(config.device)), config.slots)
    in_run.evaluate(run, model, suite, settings=settings, limit=config.limit, seed=config.seed)
