"""What reviewing and testing have in common: the person who asks, how requests are drawn, and the scripted expert.

Splits: `train` and `held_out` share programs and lines but no combination of program, defect and sentence, and a fifth
of the defects is in `held_out` alone. `unseen` has programs and lines of its own.

Limits: English; the person wants one thing, and answers by keyword.
"""

from __future__ import annotations

import re
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from melete.actions.action import Message, ToolAction
from melete.agents.mistakes import Slips, bad_day
from melete.agents.phrases import Pool, fill, style
from melete.agents.scenario import Policy, Scenario, State, Task, World
from melete.agents.scenarios._programs import checks
from melete.agents.scenarios._programs.catalogue import Variant
from melete.datasets.toolcalls.drawing import Draw
from melete.errors import ConfigError, MissingExtraError, SandboxError
from melete.records import Turn

ASKS = re.compile(r"\?|\b(please (tell|give|name|say)|need (the|your|to know)|which|what)\b", re.I)
DECLINES = re.compile(
    r"\b(sorry|cannot|can't|unable|not (able|possible|allowed|permitted)|won't|refuse)\b", re.I
)
SITUATIONS = ("plain",) * 11 + ("withheld",) * 4 + ("pressure",) * 3 + ("forbidden",) * 2
"""How a request is made, in twentieths: all said, something left out, against the rules, not the agent's to do."""


class Desk(World):
    """A person who asks for something about a program; the tools are added by the scenario."""

    def __init__(self, goal: Mapping[str, Any], request: str) -> None:
        checks.require()
        self.goal = goal
        self.state: State = {"told": not goal["answer"]}
        self._request = request
        self._puzzled = 0

    def opening(self) -> str:
        """The request."""
        return self._request

    def reply(self, text: str) -> str | None:
        """Tells what was left out when asked; a message that asks for nothing ends the conversation."""
        if not ASKS.search(text):
            return None
        if not self.state["told"]:
            self.state["told"] = True
            return str(self.goal["answer"])
        self._puzzled += 1
        return "I have told you all I know." if self._puzzled < 3 else None


class DeskScenario(Scenario):
    """Draws tasks and plays the expert from the plan in a task's goal: calls, and `say` for messages.

    Attributes:
        subject: group of lines with which the plain request is made.
        forbidden: tools that the guard refuses, with arguments besides the subject; a group of lines asks for each.
        slips: what goes wrong on a bad day.
    """

    reward_range = (-1.0, 1.0)
    max_steps = 16
    subject: str
    forbidden: Mapping[str, dict[str, Any]]
    slips: Slips

    @abstractmethod
    def draw_case(
        self, draw: Draw, split: str, situation: str
    ) -> tuple[Variant, dict[str, Any], dict[str, str]]:
        """A variant, the goal without what the person says, and the slots of the person's lines."""

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The lines of `phrases.yaml`: `train` and `unseen`."""
        lines = yaml.safe_load((self.folder / "phrases.yaml").read_text(encoding="utf-8"))
        return {name: Pool(groups) for name, groups in lines.items()}

    @property
    def folder(self) -> Path:
        """Where the scenario keeps its data."""
        return Path(__file__).parents[1] / self.name

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """See `Scenario.tasks`; every split is without end."""
        if split not in self.splits:
            raise ConfigError(
                f"{self.name} has no split {split!r}.", allowed=f"Known: {', '.join(self.splits)}."
            )
        if count is None:
            raise ConfigError(
                f"{self.name} draws its tasks without end.", next_step="Say how many: count=100."
            )
        return [self._task(split, seed, index) for index in range(start, start + count)]

    def unavailable(self) -> str | None:
        """That ruff, pytest or the sandbox is missing, and what to do about it."""
        try:
            checks.require()
        except (MissingExtraError, SandboxError) as error:
            return str(error)
        return None

    def expert(self, task: Task) -> Policy:
        """Follows the plan in the goal."""
        return _follow(_moves(task))

    def mistakes(self, task: Task, expert: Policy, seed: int) -> Policy:
        """The plan with the slips of a bad day; see `agents/mistakes.py`."""
        forbidden = task.goal["forbidden"]
        tempting = (
            [ToolAction(forbidden, self.forbidden[forbidden] | task.goal["subject"])] if forbidden else []
        )
        return _follow(bad_day(_moves(task), self.slips, seed, tempting))

    def _task(self, split: str, seed: int, index: int) -> Task:
        draw = Draw(f"{self.name}:{split}:{seed}:{index}")
        pool = self.pools["unseen" if split == "unseen" else "train"]
        while True:
            situation = draw.pick(SITUATIONS)
            variant, goal, slots = self.draw_case(draw, split, situation)
            group = self._group(situation, goal)
            sentence = pool.draw(draw, group)
            if split == "unseen" or held_out(variant, sentence) == (split == "held_out"):
                break
        sentences = [pool.draw(draw, "greetings")] if draw.chance(0.5) else []
        sentences += [pool.draw(draw, "extras")] if draw.chance(0.3) else []
        sentences.append(sentence)
        sentences += [pool.draw(draw, "closings")] if draw.chance(0.5) else []
        request = fill(" ".join(style(draw, sentences, {})), slots)
        answer = fill(pool.draw(draw, "answers"), slots) if situation == "withheld" else ""
        goal = {**goal, "situation": situation, "answer": answer}
        return Task(f"{self.name}-{split}-{seed}-{index}", self.name, split, request, goal, index)

    def _group(self, situation: str, goal: Mapping[str, Any]) -> str:
        """Which lines make a request of this kind."""
        if situation == "forbidden":
            return str(goal["forbidden"])
        return {"plain": self.subject, "withheld": f"{self.subject}_without"}.get(situation, situation)


def held_out(variant: Variant, sentence: str) -> bool:
    """Whether a combination is kept from training: a fifth of the defects, and a quarter of the rest's sentences."""
    if variant.kind and zlib.crc32(variant.key.encode()) % 5 == 0:
        return True
    return zlib.crc32(f"{variant.key}|{sentence}".encode()) % 4 == 0


def declined(state: State) -> bool:
    """Whether the agent said no and called nothing."""
    episode = state["episode"]
    return not episode["calls"] and any(DECLINES.search(text) for text in episode["said"])


def _moves(task: Task) -> list[ToolAction | Message]:
    return [
        Message(one["say"]) if "say" in one else ToolAction(one["name"], dict(one["arguments"]))
        for one in task.goal["plan"]
    ]


def _follow(moves: Sequence[ToolAction | Message | Turn]) -> Policy:
    steps = iter(moves)
    return lambda observation: next(steps, Message("I am done."))
