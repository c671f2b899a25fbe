"""Scenarios: task families for agents, with their terms and tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from melete import find
from melete.api import paging
from melete.api.clean import clean
from melete.api.records import NamedText, ScenarioDetail, ScenarioSummary, ScenarioTask
from melete.api.store import PLAIN, Asked, Listed, Store, Text
from melete.errors import ConfigError, ScenarioError

ScenarioName = Annotated[
    str, Path(max_length=100, pattern=PLAIN, description="A scenario's name.", examples=["customer_support"])
]


class TaskAsked(Asked):
    """Which tasks."""

    split: Text = Field("train", examples=["train"])
    seed: int = Field(
        0, ge=0, lt=2**31, description="Another seed is another sequence, where tasks are drawn."
    )


def routes(store: Store) -> APIRouter:
    """A list by name, one of it, and its tasks."""
    router = APIRouter()

    @router.get("")
    def list_scenarios(asked: Annotated[Asked, Query()]) -> Listed[ScenarioSummary]:
        """List scenarios by name; their files are read, not run."""
        from melete.agents import scenario

        ours = find.folder_of(scenario.PACKAGE)
        found = [
            ScenarioSummary(name=name, description=find.first_sentence(file), own=file.parent != ours)
            for name, file in scenario.files().items()
        ]
        return paging.page(
            found, lambda one: one.name, of="scenarios", limit=asked.limit, cursor=asked.cursor
        )

    @router.get("/{name}")
    def get_scenario(name: ScenarioName) -> ScenarioDetail:
        """One scenario: prompt, tools, criteria, splits."""
        from melete.agents import scenario

        found = scenario.load(name)
        own = scenario.files()[name].parent != find.folder_of(scenario.PACKAGE)
        reason = found.unavailable()
        return ScenarioDetail(
            name=name,
            description=found.description,
            own=own,
            version=found.version,
            splits=list(found.splits),
            reward_range=found.reward_range,
            max_steps=found.max_steps,
            system_prompt="" if reason else found.system_prompt,
            tools=[] if reason else clean(list(found.toolset.schemas)),
            criteria=[]
            if reason
            else [NamedText(name=one.name, description=one.description) for one in found.success_criteria()],
            guard={} if reason else clean(found.guard.to_dict()),
            datasets=list(found.datasets),
            unavailable=reason,
        )

    @router.get("/{name}/tasks")
    def list_scenario_tasks(name: ScenarioName, asked: Annotated[TaskAsked, Query()]) -> Listed[ScenarioTask]:
        """Tasks of a split, always the same for the same seed."""
        from melete.agents import scenario

        found = scenario.load(name)
        if reason := found.unavailable():
            raise ScenarioError(f"{name} cannot be played here: {reason}")
        if asked.split not in found.splits:
            raise ConfigError(
                f"{name} has no split {asked.split!r}.", allowed=f"Splits: {', '.join(found.splits)}."
            )
        of = f"tasks {name} {asked.split} {asked.seed}"
        start = paging.place(asked.cursor, of, int) or 0
        tasks = found.tasks(asked.split, asked.limit, start=start, seed=asked.seed)
        data = [
            ScenarioTask(
                id=task.id, index=start + at, split=task.split, request=task.request, goal=clean(task.goal)
            )
            for at, task in enumerate(tasks)
        ]
        more = paging.cursor_at(start + len(data), of) if len(data) == asked.limit else None
        return Listed[ScenarioTask](object="list", data=data, next_cursor=more)

    return router
