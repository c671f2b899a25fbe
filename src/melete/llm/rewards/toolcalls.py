"""The next tool call of a conversation, compared with the demonstrated one: right tool, right arguments.

Problems are the `toolcalls` dataset cut before each assistant turn that follows a user's: where a call is
demonstrated it has to be made, where none is demonstrated none may be made. A wrong call earns a part: a little for
the right tool, more for each right argument, so that a group of near misses still has something to tell apart.
Limit: the wording of a text answer is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from melete import datasets
from melete.llm.chat import call_arguments
from melete.llm.rewards import Problem
from melete.records import Conversation, ToolCall, Turn
from melete.settings import Settings

MOST_CONVERSATIONS = 4_000
"""Far more than a practice draws; making all of the dataset takes seconds."""
RIGHT_TOOL = 0.2
RIGHT_ARGUMENTS = 0.4


class Task:
    """See the head of this file."""

    max_turns = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def problems(self, split: str) -> list[Problem]:
        """Decisions of the assistant in the order of the dataset; the answer is the tuple of calls, possibly empty."""
        every = datasets.open("toolcalls", self.settings).conversations(split)
        return decisions(islice(every, MOST_CONVERSATIONS))

    def reply(self, problem: Problem, call: ToolCall) -> str:
        """Never reached: an episode is one turn."""
        return "error: no tool runs in this task"

    def reward(self, problem: Problem, turns: Sequence[Turn]) -> float:
        """1 for exactly the demonstrated calls; see `call_score`."""
        first = next(turn for turn in turns if turn.role == "assistant")
        return call_score(first.tool_calls, problem.answer)


def decisions(conversations: Iterable[Conversation]) -> list[Problem]:
    """Conversations cut before each assistant turn that answers a user; the answer is the tuple of its calls."""
    return [
        Problem(Conversation(conversation.turns[:i], conversation.tools), turn.tool_calls)
        for conversation in conversations
        for i, turn in enumerate(conversation.turns)
        if turn.role == "assistant" and i and conversation.turns[i - 1].role == "user"
    ]


def call_score(proposed: Sequence[ToolCall], expected: Sequence[ToolCall]) -> float:
    """Mean over the expected calls, each with the best of the proposed ones not yet taken; 1 only if all is exact."""
    if not expected:
        return float(not proposed)
    left = list(proposed)
    total = 0.0
    for wanted in expected:
        scores = [_one(call, wanted) for call in left]
        if scores:
            best = max(range(len(scores)), key=scores.__getitem__)
            total += scores[best]
            left.pop(best)
    return total / max(len(proposed), len(expected))


def _one(call: ToolCall, wanted: ToolCall) -> float:
    if call.name != wanted.name:
        return 0.0
    given, right = call_arguments(call), call_arguments(wanted)
    if given == right and given is not None:
        return 1.0
    if given is None or right is None or not right:
        return RIGHT_TOOL if given is not None else 0.0
    hits = len([name for name in right if name in given and given[name] == right[name]])
    return RIGHT_TOOL + RIGHT_ARGUMENTS * hits / len(right.keys() | given.keys())
