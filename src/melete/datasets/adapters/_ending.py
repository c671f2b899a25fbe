"""Where a converted conversation ends: at the last answer of the assistant, so that nothing hangs open."""

from __future__ import annotations

from melete.records import Conversation, Turn


def closed(turns: list[Turn], tools: list[dict[str, object]]) -> Conversation | None:
    """The conversation up to its last answer; None if the assistant never answers a user."""
    while turns and (turns[-1].role != "assistant" or turns[-1].tool_calls):
        turns = turns[:-1]
    if not any(turn.role == "user" for turn in turns):
        return None
    return Conversation(tuple(turns), tuple(tools))
