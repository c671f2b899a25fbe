"""Next API call in human dialogues (STAR): given a dialogue so far, call what the human agent called, or speak.

A task is one moment of a dialogue between two people. Its request is everything said and done before, as text; the
agent makes one move, and after a call it may say what follows from it, which ends the episode. Right is the human
agent's call with the same arguments, or any message where that agent spoke; a second call spoils it. A right
call returns what the API returned then, any other call fails: there is no world behind it. Every call is a task,
and of each dialogue one moment at which the agent spoke, so that calling always is not right either.

Splits: `unseen` holds the dialogues about three tasks that training never touches, `held_out` whole dialogues about the
others. The data are not in this repository: `melete data card chat_star` says where they come from. Limits: the human
turns are fixed, one answer of several possible ones counts, and texts such as symptoms must be the human agent's words.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from melete import datasets
from melete.actions import prompts
from melete.actions.action import Message, ToolAction, compact_json
from melete.actions.guard import Guard
from melete.actions.tools import Tool, ToolFailure, ToolSet
from melete.agents.scenario import Criterion, Policy, Scenario, State, Task, World
from melete.datasets import Dataset
from melete.datasets.adapters import chat_star
from melete.errors import ConfigError, DatasetError
from melete.records import Conversation, Turn

DATASET = "chat_star"
UNSEEN_TASKS = frozenset({"doctor_followup", "meeting_schedule", "spaceship_life_support"})
HELD_OUT_SHARE = 0.08
NAME_SHARE = 0.4
"""What the right API is worth with no argument right."""

SPEAKERS = {"user": "User", "assistant": "Agent", "system": "Task"}


@dataclass(frozen=True)
class Dialogue:
    """A dialogue between two people, and the APIs that its tasks offer."""

    id: int
    turns: tuple[Turn, ...]
    apis: tuple[str, ...]


class StarWorld(World):
    """One moment of a dialogue; its state is `share`, how much of the answer was right (1 is all of it)."""

    def __init__(self, request: str, goal: dict[str, Any]) -> None:
        self.request, self.goal = request, goal
        self.state = {"share": 0.0, "answered": False}

    def opening(self) -> str:
        """The dialogue so far."""
        return self.request

    def reply(self, text: str) -> str | None:
        """Nothing: the moment is over. As the first move a message is right where the human agent spoke."""
        if not self.state["answered"] and self.goal["call"] is None and text.strip():
            self.state["share"] = 1.0
        self.state["answered"] = True
        return None

    def facts(self) -> dict[str, Any]:
        """The APIs of the dialogue's tasks, for the guard."""
        return dict.fromkeys(self.goal["apis"], True)

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What the API returned then.

        Raises:
            ToolFailure: it is not the call that the human agent made.
        """
        if self.state["answered"]:
            raise ToolFailure("the moment has passed; say what follows from the call")
        self.state["answered"] = True
        gold = self.goal["call"]
        if gold is None or gold["name"] != name:
            raise ToolFailure(f"nothing is known of {name} at this moment")
        right = same_share(gold["arguments"], arguments)
        self.state["share"] = 1.0 if right == 1 else NAME_SHARE + (1 - NAME_SHARE) * right
        if right < 1:
            raise ToolFailure(f"nothing is known of {name} with these arguments")
        return str(self.goal["result"])


class Star(Scenario):
    """The dialogues of STAR, one moment a task; see the head of this file."""

    name = "star"
    description = "Next API call in human customer-service dialogues of 13 domains."
    datasets = (DATASET,)
    max_steps = 2
    prompt = prompts.load("star", Path(__file__).with_suffix(""))
    system_prompt = prompt.render()

    def __init__(self) -> None:
        definitions = {} if self.unavailable() else chat_star.definitions(datasets.open(DATASET).path)
        self.definitions = definitions
        self._whole: dict[str, list[Task]] = {}
        self.toolset = ToolSet([_tool(name, api) for name, api in definitions.items()])
        self.guard = Guard.from_dict(guard_of(definitions), "star")

    def unavailable(self) -> str | None:
        """Says where the data come from, if they are not on this machine."""
        try:
            datasets.open(DATASET)
        except DatasetError as error:
            return str(error)
        return None

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """Moments of a split in a fixed mixed order, as many as there are; `seed` changes nothing."""
        if split not in self.splits:
            raise ConfigError(
                f"{self.name} has no split {split!r}.", allowed=f"Splits: {', '.join(self.splits)}."
            )
        if count is not None:
            return [self._task(split, *moment) for moment in self.moments[split][start : start + count]]
        if split not in self._whole:  # kept, since environments that draw a task ask for it at every reset
            self._whole[split] = [self._task(split, *moment) for moment in self.moments[split]]
        return self._whole[split][start:]

    def world(self, task: Task) -> StarWorld:
        """The moment that the task names."""
        return StarWorld(task.request, task.goal)

    def success_criteria(self) -> list[Criterion]:
        """The one thing that is asked."""
        what = "The one call is the human agent's with the same arguments, or a message where they spoke."
        return [Criterion("match", what, _matches)]

    def progress(self, state: State) -> float:
        """How much of the call was right."""
        return float(state["share"])

    def expert(self, task: Task) -> Policy:
        """Does what the human agent did."""
        gold = task.goal["call"]
        first = [ToolAction(gold["name"], gold["arguments"])] if gold else []
        return _moves([*first, Message(task.goal["said"])])

    def mistakes(self, task: Task, expert: Policy, seed: int) -> Policy:
        """Leaves out an argument, or speaks when it is time to call."""
        draw, gold = random.Random(seed), task.goal["call"]
        if gold is None:
            return expert
        if not gold["arguments"] or draw.random() < 0.5:
            return _moves([Message("One moment, please.")])
        dropped = draw.choice(sorted(gold["arguments"]))
        rest = {key: value for key, value in gold["arguments"].items() if key != dropped}
        return _moves([ToolAction(gold["name"], rest), Message(task.goal["said"])])

    @cached_property
    def moments(self) -> dict[str, list[tuple[Dialogue, int]]]:
        """Dialogue and index of the turn to be made, by split; calls that break their own API's limits are left out."""
        found: dict[str, list[tuple[Dialogue, int]]] = {split: [] for split in self.splits}
        for split, dialogue in _dialogues(datasets.open(DATASET)):
            spoken, guard = [], self.guard.start(dict.fromkeys(dialogue.apis, True))
            for index, turn in enumerate(dialogue.turns):
                if turn.tool_calls:
                    call = ToolAction.from_call(turn.tool_calls[0])
                    if not self.toolset.problems(call) and guard.judge(call).verdict == "allow":
                        found[split].append((dialogue, index))
                elif turn.role == "assistant" and index and dialogue.turns[index - 1].role == "user":
                    spoken.append(index)
            if spoken:
                found[split].append((dialogue, spoken[_hash(f"spoken {dialogue.id}") % len(spoken)]))
        for moments in found.values():
            moments.sort(key=lambda moment: _hash(f"{moment[0].id} {moment[1]}"))
        return found

    def _task(self, split: str, dialogue: Dialogue, index: int) -> Task:
        turn = dialogue.turns[index]
        goal: dict[str, Any] = {
            "apis": list(dialogue.apis),
            "call": None,
            "said": _spoken_from(dialogue, index),
            "result": None,
        }
        if turn.tool_calls:
            call = ToolAction.from_call(turn.tool_calls[0])
            goal["call"] = {"name": call.name, "arguments": call.arguments}
            goal["result"] = dialogue.turns[index + 1].content
        return Task(f"star_{dialogue.id}_{index}", self.name, split, transcript(dialogue, index), goal, 0)


SCENARIO = Star


def _matches(state: State) -> bool:
    episode = state["episode"]
    return bool(state["share"] == 1.0 and episode["calls"] == episode["calls_ok"])


def _moves(moves: list[ToolAction | Message]) -> Policy:
    """A policy that makes these moves in order."""
    waiting = iter(moves)
    return lambda observation: next(waiting)


def guard_of(definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of the guard: the APIs of the dialogue's tasks, and each argument within its API's limits."""
    rules: list[dict[str, Any]] = [{"allow_list": {"tools": list(definitions)}}]
    for name, api in definitions.items():
        why = f"{name} is no API of this dialogue's tasks."
        rules.append({"precondition": {"tool": name, "facts": {name: True}, "reason": why}})
        limits = {one["Name"]: limit for one in api["input"] if (limit := _limit(one))}
        if limits:
            rules.append({"argument_limits": {"tool": name, "arguments": limits}})
    return {"name": "star", "version": "1", "rules": rules}


def same_share(gold: dict[str, Any], given: dict[str, Any]) -> float:
    """Share of the arguments, of either call, that are the same in both; texts without regard to case and spaces."""
    names = gold.keys() | given.keys()
    if not names:
        return 1.0
    return sum(name in gold and name in given and _same(gold[name], given[name]) for name in names) / len(
        names
    )


def transcript(dialogue: Dialogue, end: int) -> str:
    """What was said and done before the turn `end`, one line each."""
    lines = []
    for turn in dialogue.turns[:end]:
        if turn.role == "tool":
            lines.append(f"Result: {turn.content}")
        elif turn.tool_calls:
            lines.append(f"Call: {turn.tool_calls[0].name} {turn.tool_calls[0].arguments}")
        else:
            lines.append(f"{SPEAKERS[turn.role]}: {turn.content}")
    return "\n".join([f"APIs: {', '.join(dialogue.apis)}", *lines])


def _dialogues(dataset: Dataset) -> list[tuple[str, Dialogue]]:
    """Every dialogue with its split; what the dataset keeps for validation is held out here too."""
    converse = chat_star.reader(dataset.path)
    found = []
    for part in ("train", "val"):
        for row in dataset.rows(part):
            conversation = converse(row)
            if conversation is not None:
                found.append((_split(row, part), _dialogue(row, conversation)))
    return found


def _dialogue(row: dict[str, Any], conversation: Conversation) -> Dialogue:
    apis = tuple(tool["function"]["name"] for tool in conversation.tools)
    return Dialogue(row["id"], conversation.turns, apis)


def _split(row: dict[str, Any], part: str) -> str:
    if UNSEEN_TASKS & {one["task"] for one in row["capabilities"]}:
        return "unseen"
    held_out = part == "val" or _hash(f"dialogue {row['id']}") < HELD_OUT_SHARE * 2**32
    return "held_out" if held_out else "train"


def _tool(name: str, api: dict[str, Any]) -> Tool:
    function = chat_star.tool(name, api)["function"]
    return Tool(name, function["description"], function["parameters"], _calling(name), method=True)


def _spoken_from(dialogue: Dialogue, index: int) -> str:
    """What the human agent says at a turn or next after it."""
    spoken = (turn.content for turn in dialogue.turns[index:] if turn.role == "assistant" and turn.content)
    return next(spoken, "Done.")


def _calling(name: str) -> Callable[..., str]:
    def call(world: StarWorld, **arguments: Any) -> str:
        return world.call(name, arguments)

    return call


def _limit(parameter: dict[str, Any]) -> dict[str, Any]:
    """The guard's limit of a parameter; it holds inside a comparison such as `{"at_most": 900}` too."""
    if parameter.get("Categories"):
        return {"enum": parameter["Categories"], "filters": True}
    if "Min" in parameter:
        return {"min": parameter["Min"], "max": parameter["Max"], "filters": True}
    return {}


def _same(one: Any, other: Any) -> bool:
    return compact_json(_plain(one)) == compact_json(_plain(other))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return sorted((_plain(one) for one in value), key=json.dumps)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())
