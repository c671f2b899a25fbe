"""Tasks with a checkable reward, one file each; the file's name is what `melete llm rl --task` takes.

A file holds `class Task` with the methods of `RewardTask` below. An episode starts with a problem's conversation; the
model writes a turn; each of its tool calls is answered by `reply` and the model goes on, until it calls no tool or has
written `max_turns` turns; then `reward` judges what it wrote, in 0 … 1, where 1 is the full solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from melete import find
from melete.records import Conversation, ToolCall, Turn
from melete.settings import Settings


@dataclass(frozen=True)
class Problem:
    """What the model is asked, ending with a turn that is not its own, and what the reward compares with."""

    conversation: Conversation
    answer: Any


class RewardTask(Protocol):
    """A task; built with the settings as its only argument.

    Attributes:
        max_turns: most turns that the model writes in an episode.
    """

    max_turns: int

    def problems(self, split: str) -> list[Problem]:
        """Problems of `train` or `val`, always the same ones in the same order."""
        ...

    def reply(self, problem: Problem, call: ToolCall) -> str:
        """The result of a tool call, as text; a call that cannot be done is answered with an error text."""
        ...

    def reward(self, problem: Problem, turns: Sequence[Turn]) -> float:
        """Reward of the turns that followed the problem: the model's and the tools' results."""
        ...


def load(name: str, settings: Settings) -> RewardTask:
    """The task of a name.

    Raises:
        UnknownNameError: no such task.
    """
    return cast(RewardTask, find.load("melete.llm.rewards", name, "reward task").Task(settings))
