"""Runs a suite over a model: opens its tasks, asks in chunks, keeps each item, and scores each task as it ends.

A task whose dataset is not at hand, whose sandbox cannot be set up, or that asks of a server what it does not offer,
is a result that says `skipped` with the reason and the way to get it; it never disappears. A loop that ends early (a
stop, `--limit-batches`) gives scores over the items that were asked, and their notes say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from melete.errors import DatasetError, NotOfferedError, SandboxError
from melete.evals import suite as suites
from melete.evals import task as tasks
from melete.evals.model import LanguageModel
from melete.evals.suite import Suite
from melete.evals.task import Item, Row, Task
from melete.records import Score
from melete.settings import Settings

CHUNK = 128
"""Rows in one call: enough to fill a batch and share prefixes, few enough for progress and a quick stop."""


@dataclass
class TaskResult:
    """One task's outcome: scores from `items` of `total` items, or the reason why it was skipped.

    A task that an early end left without any item has neither.
    """

    task: str
    scores: list[Score] = field(default_factory=list)
    items: int = 0
    total: int = 0
    seconds: float = 0.0
    skipped: str = ""
    datasets: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every item was asked."""
        return not self.skipped and self.items == self.total


Finished = Callable[[TaskResult, Sequence[Item]], None]


def evaluate(
    model: LanguageModel,
    suite: Suite | Sequence[str],
    *,
    settings: Settings,
    limit: int | None = None,
    seed: int = 1337,
    loop: Callable[[int], Iterable[int]] = range,
    done: Mapping[str, TaskResult] | None = None,
    finished: Finished | None = None,
) -> list[TaskResult]:
    """Evaluates a model.

    Args:
        model: what to ask.
        suite: a suite, or names of tasks.
        settings: where datasets are looked for.
        limit: most items per group, instead of the suite's own limits.
        seed: draws items and few-shot examples.
        loop: given a number of steps, yields them; a run's `steps` adds progress and a graceful stop.
        done: results that need not be found again, by task.
        finished: told of each task when it ends, with its items.

    Returns:
        One result per task, in the suite's order.

    Raises:
        ConfigError: an option of a task is wrong.
        UnknownNameError: a task or a dataset that does not exist.
    """
    chosen = suites.limited(suite if isinstance(suite, Suite) else suites.of_tasks(suite), limit)
    results, opened = dict(done or {}), {}
    for name, config in chosen.tasks.items():
        if name in results:
            continue
        try:
            opened[name] = tasks.open(name, config, settings, seed)
        except DatasetError as error:
            results[name] = TaskResult(name, skipped=str(error))
            _tell(finished, results[name], [])
    plan = [(name, rows) for name, task in opened.items() for rows in _chunks(task.rows)]
    items: dict[str, list[Item]] = {name: [] for name in opened}
    seconds = dict.fromkeys(opened, 0.0)
    for step in loop(len(plan)):
        name, rows = plan[step]
        if name in results:
            continue
        started = time.perf_counter()
        try:
            items[name] += opened[name].evaluate(model, rows)
        except (SandboxError, NotOfferedError) as error:
            results[name] = TaskResult(name, skipped=str(error))
            _tell(finished, results[name], [])
            continue
        seconds[name] += time.perf_counter() - started
        if len(items[name]) == len(opened[name].rows):
            results[name] = _result(name, opened[name], items[name], seconds[name])
            _tell(finished, results[name], items[name])
    for name, task in opened.items():
        if name not in results:
            results[name] = _result(name, task, items[name], seconds[name])
            _tell(finished, results[name], items[name])
    return [results[name] for name in chosen.tasks]


def _chunks(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _result(name: str, task: Task, items: Sequence[Item], seconds: float) -> TaskResult:
    total = len(task.rows)
    scores = task.scores(items) if items else []
    if len(items) < total:
        early = f"ended early: {len(items)} of {total} items"
        scores = [replace(score, note="; ".join(filter(None, (score.note, early)))) for score in scores]
    return TaskResult(name, scores, len(items), total, seconds, datasets=task.datasets)


def _tell(finished: Finished | None, result: TaskResult, items: Sequence[Item]) -> None:
    if finished is not None:
        finished(result, items)
