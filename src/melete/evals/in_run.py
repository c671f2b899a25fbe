"""An evaluation inside a run: items and scores are kept in its folder, and a resume asks only what had not finished.

`evaluation/<task>.jsonl` holds every item, `evaluation/<task>.json` a task's result, `evaluation/scores.json` all of
them; the scores also go into the run's result. Both `melete llm evaluate` and `melete evals run` end here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from melete.errors import DatasetError
from melete.evals import run as evaluation
from melete.evals.model import LanguageModel
from melete.evals.run import TaskResult
from melete.evals.suite import Suite
from melete.evals.table import show
from melete.evals.task import Item
from melete.records import Score
from melete.runs.folder import replace_file
from melete.runs.run import Run
from melete.settings import Settings

EXAMPLES = 3
"""Items of each task that the report shows."""


def evaluate(
    run: Run,
    model: LanguageModel,
    suite: Suite,
    *,
    settings: Settings,
    limit: int | None = None,
    seed: int = 1337,
) -> list[TaskResult]:
    """Evaluates a model and keeps what comes of it; see `melete.evals.run.evaluate`.

    Raises:
        DatasetError: no task of the suite could run here.
    """
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
        limit=limit,
        seed=seed,
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
    return results


def _examples(items: Sequence[Item]) -> str:
    """The first items with what the model did, for the report."""
    texts = []
    for item in items[:EXAMPLES]:
        details = [f"{key}: {value}" for key, value in item.detail.items()]
        texts.append("\n".join([f"[{item.id}] {item.value:g}", *details]))
    return "\n\n".join(texts)


def _write(folder: Path, result: TaskResult, items: Sequence[Item]) -> None:
    """Items first: a task counts as finished once its result file is there."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n" for item in items]
    replace_file(folder / f"{result.task}.jsonl", "".join(lines))
    _write_json(folder / f"{result.task}.json", dataclasses.asdict(result))


def _write_json(path: Path, values: object) -> None:
    path.parent.mkdir(exist_ok=True)
    replace_file(path, json.dumps(values, indent=1, ensure_ascii=False))


def _done(folder: Path) -> dict[str, TaskResult]:
    """Tasks that an earlier part of this run finished."""
    results = {}
    for path in folder.glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            values["scores"] = [Score(**score) for score in values["scores"]]
            result = TaskResult(**values)
            if result.complete:
                results[result.task] = result
    return results
