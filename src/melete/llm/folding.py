"""Prompts of conversations that have outgrown a model's context: older turns become a note (`melete.actions.memory`).

One rule for practice and deployment: the budget of a prompt is the context less the room of an answer, which is a
sixteenth of the context where the request names none. A prompt within the budget is never touched. A larger one is
folded to three quarters of the budget, so that the next turns go on by its beginning before it has to be folded again;
to the whole budget if what has to be kept needs it.

The note is made of the whole conversation each time, never of another note. System turns are kept whole, and so is a
message that is to be answered now; the newest result of a tool may be cut, and says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from melete.actions.memory import Memory
from melete.errors import ConfigError

if TYPE_CHECKING:
    from melete.llm.lm import LM
    from melete.records import Conversation, Turn

KEPT = 0.75
"""Share of the budget that a folded prompt may fill."""


def budget(context: int, answer_tokens: int | None = None) -> int:
    """Most tokens of a prompt in a context of so many tokens."""
    return context - (answer_tokens or context // 16)


def fold(lm: LM, conversation: Conversation, budget_tokens: int) -> tuple[list[int], int]:
    """The prompt of a conversation in at most `budget_tokens` tokens.

    Returns:
        Token ids that end where the assistant writes, and the number of turns that are no longer whole.

    Raises:
        ConfigError: what has to be kept does not fit.
    """
    try:
        return _fold(lm, conversation, int(KEPT * budget_tokens))
    except ConfigError:
        return _fold(lm, conversation, budget_tokens)


def _fold(lm: LM, conversation: Conversation, budget_tokens: int) -> tuple[list[int], int]:
    system = "\n".join(turn.content for turn in conversation.turns if turn.role == "system")
    said = [turn for turn in conversation.turns if turn.role != "system"]
    memory = Memory(0, lambda text: len(lm.encode(text)), system)
    for turn in said:
        memory.add(turn)
    # What the chat format adds to the texts is only known once they are rendered.
    memory.budget_tokens = memory.tokens
    kept = said
    prompt = lm.chat.render(conversation, generation_prompt=True)[0]
    while (excess := len(prompt) - budget_tokens) > 0:
        memory.budget_tokens -= excess
        turns = memory.turns()
        kept = [turn for turn in turns if turn.role != "system"]
        prompt = lm.chat.render(replace(conversation, turns=tuple(turns)), generation_prompt=True)[0]
    if said and said[-1].role == "user" and kept[-1:] != said[-1:]:
        raise ConfigError(f"The newest message and what has to be kept are more than {budget_tokens} tokens.")
    return prompt, len(said) - _whole(said, kept)


def _whole(said: list[Turn], kept: list[Turn]) -> int:
    """How many of the newest turns are as they were."""
    return sum(before == now for before, now in zip(reversed(said), reversed(kept), strict=False))
