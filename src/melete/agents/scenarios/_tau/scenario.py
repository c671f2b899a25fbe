"""What the scenarios of both shops share: tasks from the data, the gold state by replay, criteria and the expert.

The gold state of a task is the database after its gold actions, carried out by the tools here; a gold call that
fails changes nothing and is remembered in `failing`, as is done in tau-bench. A task is solved when the database at
the end equals the gold state, every required output was said, and the customer has heard from the agent.
"""

from __future__ import annotations

import functools
import random
from abc import abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Any

from melete import datasets
from melete.actions import prompts
from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard
from melete.actions.tools import ToolSet
from melete.agents.scenario import Criterion, Policy, Proposal, Scenario, State, Task
from melete.agents.scenarios._tau import data, journal
from melete.agents.scenarios._tau.journal import Journal
from melete.agents.scenarios._tau.world import TauWorld
from melete.errors import ConfigError, DatasetError
from melete.records import Turn

Script = Generator[Proposal, str, None]


class TauScenario(Scenario):
    """A shop of tau-bench; see `tau_retail` and `tau_airline`.

    Attributes:
        shop: folder of the data.
        tables: names of its tables.
        parts: split to the part of the data.
        world_class: its tools.
    """

    shop: str
    tables: tuple[str, ...]
    parts: dict[str, str]
    world_class: type[TauWorld]
    max_steps = 40
    datasets = (data.DATASET,)
    prompt = prompts.load("tau_shop", Path(__file__).parent)

    def __init__(self) -> None:
        self.splits = tuple(self.parts)
        self.toolset = ToolSet.of(self.world_class)
        self.guard = Guard.load(Path(__file__).parents[1] / self.name / "guard.yaml")
        if self.unavailable() is None:
            self.system_prompt = self.prompt.render(policy=data.policy(self.shop))
        else:
            self.system_prompt = self.description

    def unavailable(self) -> str | None:
        """Says where the data come from, if they are not on this machine."""
        try:
            datasets.open(data.DATASET)
        except DatasetError as error:
            return str(error)
        return None

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """Tasks of a split in the order of the data, as many as there are; `seed` changes nothing."""
        if split not in self.parts:
            raise ConfigError(
                f"{self.name} has no split {split!r}.", allowed=f"Splits: {', '.join(self.splits)}."
            )
        return list(_tasks(self, split)[start : None if count is None else start + count])

    def world(self, task: Task) -> TauWorld:
        """A world over the shared tables."""
        return self.world_class(Journal(data.tables(self.shop, self.tables)), task.goal)

    def success_criteria(self) -> list[Criterion]:
        """Database, outputs, and that the customer was answered."""
        return [
            Criterion(
                "database", "The database equals the one after the gold actions.", self._database_is_gold
            ),
            Criterion("outputs", "Everything that was asked was said.", _everything_was_said),
            Criterion("answered", "The customer has heard from the agent.", lambda state: state["heard"] > 0),
        ]

    def progress(self, state: State) -> float:
        """Share of the gold changes that were made and of the outputs that were said."""
        goal = state["goal"]
        steps: int = goal["changes"] + len(goal["outputs"])
        if not steps:
            return 0.0
        done: int = len(state["agreed"]) + len(state["told"])
        return done / steps

    def expert(self, task: Task) -> Policy:
        """Asks who it is, looks up what the gold actions name, carries them out, and says the outputs."""
        script = self._script(task)
        started = False

        def policy(observation: str) -> Proposal:
            nonlocal started
            if not started:
                started = True
                return next(script)
            return script.send(observation)

        return policy

    def mistakes(self, task: Task, expert: Policy, seed: int) -> Policy:
        """Forgets one of its first calls, as an agent in a hurry does: the customer is not found, an order not read."""
        forgotten, calls = random.Random(seed).randrange(3), 0

        def hurried(observation: str) -> Proposal | Turn:
            nonlocal calls
            move = expert(observation)
            if isinstance(move, ToolAction):
                calls += 1
                if calls == forgotten + 1:
                    return expert(observation)
            return move

        return hurried

    @abstractmethod
    def identify(self, task: Task) -> list[Proposal]:
        """The steps that find out who the customer is."""

    @abstractmethod
    def look_up(self, action: ToolAction) -> list[ToolAction]:
        """What must have been read before a gold action is carried out."""

    def replay(self, actions: tuple[ToolAction, ...], world: TauWorld) -> list[str | None]:
        """Carries out actions without guard or customer; the error of each, or None."""
        return [self.toolset.call(action, on=world).error for action in actions]

    def _script(self, task: Task) -> Script:
        goal, first = task.goal, self.identify(task)
        for step in first:
            yield step
        done = {step.key for step in first if isinstance(step, ToolAction)}
        for index, gold in enumerate(goal["actions"]):
            action = ToolAction(gold["name"], gold["arguments"])
            if index in goal["failing"] or action.name.startswith("find_user"):
                continue
            for step in (*self.look_up(action), action):
                if step.key not in done:
                    done.add(step.key)
                    yield step
        solved = goal["changes"] or goal["outputs"]
        closing = ["That is done." if solved else "I am sorry, this cannot be done."]
        while True:
            yield Message(" ".join([*closing, *(f"{one}." for one in goal["outputs"])]))

    def _database_is_gold(self, state: State) -> bool:
        tables = data.tables(self.shop, self.tables)
        return bool(journal.digest(tables, state["changed"]) == state["goal"]["digest"])

    def _task(self, row: data.Row, split: str) -> Task:
        goal: dict[str, Any] = {
            "user_id": row.user_id,
            "instruction": row.instruction,
            "actions": [{"name": one.name, "arguments": one.arguments} for one in row.actions],
            "outputs": sorted(set(row.outputs)),
            "failing": [],
        }
        task = Task(row.id, self.name, split, "", goal, 0)
        world = self.world(task)
        errors = self.replay(row.actions, world)
        goal["failing"] = [index for index, error in enumerate(errors) if error is not None]
        goal["changes"] = len(self.world(task).wanted)
        goal["digest"] = journal.digest(world.journal.tables, world.journal.changed)
        return Task(row.id, self.name, split, self.world(task).opening(), goal, 0)


@functools.cache
def _tasks(scenario: TauScenario, split: str) -> tuple[Task, ...]:
    rows = data.rows(scenario.shop, scenario.parts[split])
    return tuple(scenario._task(row, split) for row in rows)


def _everything_was_said(state: State) -> bool:
    return set(state["told"]) >= set(state["goal"]["outputs"])
