"""What every scenario has to keep, checked by playing it: `melete agents scenarios check NAME` and one test for all.

Each check is a function from a scenario and some of its tasks to the problems it found, as sentences; an empty list is
a pass. They play the scripted expert, a few actions that should be refused, and agents that do nothing or never end.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from melete.actions.action import Message, ToolAction
from melete.actions.guard import Verdict
from melete.agents.environment import Environment
from melete.agents.scenario import Scenario, Task, play
from melete.errors import MeleteError
from melete.records import Conversation

Check = Callable[[Scenario, list[Task]], list[str]]
SAMPLES: dict[str, Any] = {
    "string": "a", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip


def some_tasks(scenario: Scenario, count: int = 2) -> list[Task]:
    """A few tasks of each split."""
    return [task for split in scenario.splits for task in scenario.tasks(split, count)]


def tasks_are_fixed(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """The same tasks come again, their ids differ, and they can be written as JSON."""
    found = []
    if some_tasks(scenario, len(tasks) // len(scenario.splits)) != tasks:
        found.append("tasks() gives other tasks for the same arguments.")
    if len({task.id for task in tasks}) < len(tasks):
        found.append("Two tasks have the same id.")
    for task in tasks:
        if not task.request.strip() or task.scenario != scenario.name or task.split not in scenario.splits:
            found.append(f"{task.id}: no request, or the name or split of something else.")
        if (again := _as_json(dataclasses.asdict(task))) is not None:
            found.append(f"{task.id} cannot be written as JSON: {again}.")
    return found


def goal_is_reachable(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """The scripted expert reaches all criteria, without a failed call."""
    found = []
    for task in tasks:
        outcome = play(scenario.expert(task), scenario.create_environment(task)).outcome
        missed = [name for name, holds in outcome.criteria.items() if not holds]
        if not outcome.success:
            found.append(
                f"{task.id}: the expert does not succeed; missed: {', '.join(missed) or 'a policy'}."
            )
        if outcome.tool_calls_ok < outcome.tool_calls:
            found.append(f"{task.id}: {outcome.tool_calls - outcome.tool_calls_ok} calls of the expert fail.")
    return found


def goal_is_not_reached_at_the_start(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """Something is left to do, and an agent that only says goodbye does not solve everything."""
    found, solved = [], 0
    for task in tasks:
        environment = scenario.create_environment(task)
        environment.reset()
        if all(environment.outcome.criteria.values()):
            found.append(f"{task.id}: all criteria hold before anything was done.")
        environment.step(Message("Goodbye."))
        solved += environment.outcome.success
    if solved == len(tasks):
        found.append("An agent that only says goodbye solves every task.")
    return found


def same_task_gives_the_same_episode(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """Two plays of the expert have the same turns and the same rewards."""
    found = []
    for task in tasks:
        first, second = (play(scenario.expert(task), scenario.create_environment(task)) for _ in range(2))
        if first.turns != second.turns or first.outcome != second.outcome:
            found.append(f"{task.id}: two plays of the expert differ.")
    return found


def guard_refuses(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """Of calls to the scenario's own tools, made as the first thing in an episode, the guard stops at least one."""
    for task in tasks:
        calls = itertools.chain(_calls_of_the_expert(scenario, task), _made_up_calls(scenario))
        for call in calls:
            environment = scenario.create_environment(task)
            environment.reset()
            assert environment.world is not None
            session = scenario.guard.start(environment.world.facts())
            if session.judge(call).verdict in (Verdict.REFUSE, Verdict.ASK, Verdict.ABORT):
                return []
    return ["The guard lets every call to every tool through."]


def rewards_are_in_range(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """Rewards of good and of bad episodes stay in `reward_range`, and a solved task is worth more than one given up."""
    found = []
    for task in tasks:
        try:
            solved = play(scenario.expert(task), scenario.create_environment(task)).outcome.reward
            given_up = _restless(scenario, task).outcome.reward
        except MeleteError as error:
            found.append(f"{task.id}: {error.found}")
            continue
        if solved <= given_up:
            found.append(
                f"{task.id}: solving it is worth {solved:.3f}, calling tools for ever {given_up:.3f}."
            )
    return found


def episodes_end(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """An agent that calls tools for ever is stopped after `max_steps`."""
    late = [task.id for task in tasks if _restless(scenario, task).outcome.steps > scenario.max_steps]
    return [f"{name}: the episode goes on after max_steps." for name in late]


def state_is_json(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """The state can be written as JSON at the start and at the end."""
    found = []
    for task in tasks:
        environment = scenario.create_environment(task)
        environment.reset()
        problem = _as_json(environment.state()) or _as_json(play(scenario.expert(task), environment).state())
        if problem is not None:
            found.append(f"{task.id}: the state cannot be written as JSON: {problem}.")
    return found


def demonstrations_can_be_read(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """Demonstrations, good and bad, are conversations that end with the agent and can be written and read."""
    found = []
    for split in scenario.splits:
        for share in (0.0, 1.0):
            for talk in scenario.demonstrations(split, 2, error_share=share):
                row = json.loads(json.dumps(talk.to_openai()))
                if Conversation.from_openai(row) != talk:
                    found.append(f"A demonstration of {split} is not the same after it was written and read.")
                if [turn.role for turn in talk.turns[:2]] != ["system", "user"]:
                    found.append(f"A demonstration of {split} does not begin with system and user.")
                if not any(turn.role == "assistant" for turn in talk.turns):
                    found.append(f"In a demonstration of {split} the agent says nothing.")
    return found


def gymnasium_accepts_it(scenario: Scenario, tasks: list[Task]) -> list[str]:
    """`gymnasium.utils.env_checker.check_env` finds nothing."""
    import warnings

    from gymnasium.error import Error
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        # It asks for an id in Gymnasium's registry, which scenarios do not have: they are found by file.
        warnings.filterwarnings("ignore", message=".*not having a spec.*")
        try:
            check_env(scenario.create_environment(tasks[0]), skip_render_check=True)
        except (AssertionError, TypeError, ValueError, Error) as error:
            return [f"check_env: {error}"]
    return []


CHECKS: tuple[Check, ...] = (
    tasks_are_fixed,
    goal_is_reachable,
    goal_is_not_reached_at_the_start,
    same_task_gives_the_same_episode,
    guard_refuses,
    rewards_are_in_range,
    episodes_end,
    state_is_json,
    demonstrations_can_be_read,
    gymnasium_accepts_it,
)


def _restless(scenario: Scenario, task: Task) -> Environment:
    """An episode of an agent that repeats the first tool without arguments until it is stopped."""
    first = ToolAction(scenario.toolset.names[0], {})
    return play(lambda observation: first, scenario.create_environment(task))


def _calls_of_the_expert(scenario: Scenario, task: Task) -> list[ToolAction]:
    turns = play(scenario.expert(task), scenario.create_environment(task)).turns
    return [ToolAction.from_call(call) for turn in turns for call in turn.tool_calls]


def _made_up_calls(scenario: Scenario) -> Iterator[ToolAction]:
    """A call of each tool with some value for each argument."""
    for schema in scenario.toolset.schemas:
        function = schema["function"]
        properties = function["parameters"].get("properties", {})
        yield ToolAction(function["name"], {name: _sample(one) for name, one in properties.items()})


def _sample(schema: dict[str, Any]) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "string")
    return SAMPLES.get(kind if isinstance(kind, str) else kind[0], "a")


def _as_json(value: Any) -> str | None:
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        return str(error)
    return None
