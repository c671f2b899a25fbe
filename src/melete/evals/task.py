"""What an evaluation task is: a file in `tasks/` with `Config`, `Task` and `EXAMPLE`; its name is the file's name.

    class Config(TaskConfig): …            # options, which a suite may set
    class Task:
        def __init__(self, config, settings, seed): …    # opens its datasets; DatasetError if one is not at hand
        rows: list[Row]                    # what to ask, already limited; few-shot examples are in the rows
        datasets: dict[str, str]           # dataset to fingerprint, for the run's provenance
        def evaluate(self, model, rows) -> list[Item]    # any part of the rows
        def scores(self, items) -> list[Score]           # from any part of the items
        def solve(self, rows) -> Solution                # what a perfect model would answer
    EXAMPLE = {"limit": 2}                 # options with which the task takes a moment

Ids of items do not depend on the model or the limit, so two models can be compared item by item; a larger limit holds
the items of a smaller one. `limit` never cuts the pool that few-shot examples are drawn from.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field

from melete import find
from melete.evals.model import LanguageModel, ScoreRequest
from melete.records import Conversation, Score, Turn
from melete.settings import Settings

TASKS = "melete.evals.tasks"
FEWSHOT_SETS = 8


class TaskConfig(BaseModel):
    """Options that every task has; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(
        None, ge=1, description="Most items per group, drawn with the seed; None is all."
    )


@dataclass(frozen=True)
class Row:
    """One item to ask about: its data as it lies in the dataset, and the examples that go before it."""

    id: str
    group: str
    data: dict[str, Any]
    shots: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Item:
    """One item's result: `value` is 1 or 0 for right or wrong; `weight` is 1, or bytes where a rate is per byte."""

    id: str
    group: str
    value: float
    weight: float = 1.0
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass
class Solution:
    """Perfect answers: probable continuations, texts after prompts, turns after conversations."""

    continuations: set[ScoreRequest] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)

    def add_turn(self, conversation: Conversation, turn: Turn) -> None:
        """Tells the turn that is due after a conversation."""
        self.turns[key(conversation)] = turn


class Task(Protocol):
    """See the head of this file."""

    rows: list[Row]
    datasets: dict[str, str]

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Asks the model about some of the rows."""
        ...

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """The task's scores from some of the items; the first one is the headline."""
        ...

    def solve(self, rows: Sequence[Row]) -> Solution:
        """What a perfect model would answer."""
        ...


def key(conversation: Conversation) -> str:
    """A conversation as a key: its JSON."""
    return json.dumps(conversation.to_openai(), sort_keys=True)


def names() -> list[str]:
    """Names of all tasks."""
    return find.names(TASKS)


def config_class(name: str) -> type[TaskConfig]:
    """The config class of a task, by name.

    Raises:
        UnknownNameError: no such task.
    """
    return cast(type[TaskConfig], find.load(TASKS, name, "evaluation task").Config)


def open(name: str, config: TaskConfig, settings: Settings, seed: int) -> Task:
    """Opens a task.

    Raises:
        UnknownNameError: no such task.
        DatasetError: a dataset of the task is not at hand or corrupt.
    """
    return cast(Task, find.load(TASKS, name, "evaluation task").Task(config, settings, seed))


def choose(count: int, limit: int | None, seed: int, label: str) -> list[int]:
    """Sorted indices of at most `limit` of `count` items: the first ones of an order drawn from seed and label."""
    order = list(range(count))
    random.Random(f"{seed}/{label}").shuffle(order)
    return sorted(order[:limit])


class FewShot:
    """Draws few-shot examples from a pool: a few sets for a whole group, so that prompts share their beginning.

    Item `i` uses set `i % FEWSHOT_SETS`. Each set holds one spare example, which stands in when the item itself is
    in the set. Published results draw anew for every item; this draws eight times and costs a fraction.
    """

    def __init__(self, pool: Sequence[dict[str, Any]], shots: int, seed: int, label: str) -> None:
        draw = random.Random(f"{seed}/{label}/shots")
        size = min(shots + 1, len(pool)) if shots else 0
        self._pool = pool
        self._shots = shots
        self._sets = [draw.sample(range(len(pool)), size) for _ in range(FEWSHOT_SETS)]

    def examples(self, index: int) -> tuple[dict[str, Any], ...]:
        """The examples for item `index`, never the item itself."""
        chosen = [i for i in self._sets[index % FEWSHOT_SETS] if i != index][: self._shots]
        return tuple(self._pool[i] for i in chosen)
