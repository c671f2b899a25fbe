"""Evaluate a model on a suite of tasks, such as `smoke` or `full`, or on single tasks.

The scores, each with its count and 95 % interval, go into the run's result and `evaluation/scores.json`; every item
goes into `evaluation/<task>.jsonl`, so that two runs can be compared item by item. A task that cannot run here is shown
as skipped, with the reason. On a resume, tasks that had finished are not asked again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from melete.errors import DatasetError
from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from melete.evals.run import TaskResult
    from melete.evals.task import Item

EXAMPLES = 3
"""Items of each task that the report shows."""
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
    from melete.evals import run as evaluation
    from melete.evals import suite as suites
    from melete.evals.table import show
    from melete.llm import lm
    from melete.llm.config import resolve_device
    from melete.llm.evaluator import Evaluator

    suite = suites.of_tasks(config.tasks) if config.tasks else suites.load(config.suite)
    settings = settings_module.load()
    model = Evaluator(lm.load(config.run, settings, resolve_device(config.device)), config.slots)
    run.say(f"{model.name} on {suite.name}: {', '.join(suite.tasks)}")
    folder = run.folder / "evaluation" if run.folder else None
    finished = 0

    def keep(result: TaskResult, items: Sequence[Item]) -> None:
        nonlocal finished
        finished += 1
        run.datasets.update(result.datasets)
        if result.skipped:
            run.say(f"{result.task} skipped: {result.skipped}")
        if not result.scores:
            return
        head = result.scores[0]
        run.log(finished, {score.name: score.value for score in result.scores if score.count})
        run.say(f"{result.task} {head.value:.4g}, {result.items} items in {result.seconds:.1f} s")
        run.sample(finished, result.task, _examples(items))
        if folder is not None:
            _write(folder, result, items)

    results = evaluation.evaluate(
        model,
        suite,
        settings=settings,
        limit=config.limit,
        seed=config.seed,
        loop=lambda total: run.steps(total, what="chunks of items"),
        done=_done(folder) if run.resuming and folder is not None else {},
        finished=keep,
    )
    for result in results:
        run.result |= {score.name: dataclasses.asdict(score) for score in result.scores}
        run.result |= {f"{result.task} skipped": result.skipped} if result.skipped else {}
    if folder is not None:
        _write_json(folder / "scores.json", [dataclasses.asdict(result) for result in results])
    if not run.silent:
        run.say(show(model.name, suite.name, results))
    if all(result.skipped for result in results):
        raise DatasetError(
            "No task of the suite could run here; each says above what it lacks.",
            next_step="Tasks that need no download: --tasks toolcalls --tasks bits_per_byte",
        )


def _examples(items: Sequence[Item]) -> str:
    """The first items with what the model did, for the report."""
    texts = []
    for item in items[:EXAMPLES]:
        details = [f"{key}: {value}" for key, value in item.detail.items()]
        texts.append("\n".join([f"[{item.id}] {item.value:g}", *details]))
    return "\n\n".join(texts)


def _write(folder: Path, result: TaskResult, items: Sequence[Item]) -> None:
    """Items first: a task counts as finished once its result file is there."""
    from melete.runs.folder import replace_file

    folder.mkdir(exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n" for item in items]
    replace_file(folder / f"{result.task}.jsonl", "".join(lines))
    _write_json(folder / f"{result.task}.json", dataclasses.asdict(result))


def _write_json(path: Path, values: object) -> None:
    from melete.runs.folder import replace_file

    path.parent.mkdir(exist_ok=True)
    replace_file(path, json.dumps(values, indent=1, ensure_ascii=False))


def _done(folder: Path) -> dict[str, TaskResult]:
    """Tasks that an earlier part of this run finished."""
    from melete.evals.run import TaskResult
    from melete.records import Score

    results = {}
    for path in folder.glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            values["scores"] = [Score(**score) for score in values["scores"]]
            result = TaskResult(**values)
            if result.complete:
                results[result.task] = result
    return results
