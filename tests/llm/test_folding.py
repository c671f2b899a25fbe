"""Folding: a prompt that is too long becomes one that fits, with system, calls, ids and the newest message whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete.errors import ConfigError
from melete.llm.folding import KEPT, fold
from melete.records import Conversation, ToolCall, Turn
from melete.serve import echo

LM = echo.load(context=1024)  # one token a byte
TOOLS = (
    {
        "type": "function",
        "function": {"name": "get", "parameters": {"type": "object", "properties": {"id": {}}}},
    },
)


def conversation(rounds: int, words: int = 8) -> Conversation:
    """A desk where each round is a question, a call, its result and an answer; a question comes last."""
    turns = [Turn("system", "You are a clerk.")]
    for i in range(rounds):
        call = ToolCall(f"c{i}", "get", json.dumps({"id": f"O-{i}"}))
        turns += [
            Turn("user", f"Where is O-{i}? " + "please " * words),
            Turn("assistant", "", (call,)),
            Turn("tool", "on its way " * words, (), call.id),
            Turn("assistant", "It is on its way."),
        ]
    return Conversation((*turns, Turn("user", "And O-99?")), TOOLS)


def whole(given: Conversation) -> list[int]:
    return LM.chat.render(given, generation_prompt=True)[0]


def test_conversation_within_three_quarters_of_the_budget_is_left_as_it_is() -> None:
    given = conversation(2)
    assert fold(LM, given, int(len(whole(given)) / KEPT) + 1) == (whole(given), 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 12), st.integers(1, 60), st.integers(1200, 2000))
def test_folded_prompt_fits_and_keeps_system_tools_and_newest_message(
    rounds: int, words: int, budget: int
) -> None:
    given = conversation(rounds, words)
    prompt, count = fold(LM, given, budget)
    text = LM.decode(prompt)
    assert len(prompt) <= max(KEPT * budget, min(len(whole(given)), budget))
    assert (count > 0) == (prompt != whole(given))
    assert text.startswith("<|bos|><|system|>You are a clerk.")
    assert "<|tools|>get(id?: any)<|end|>" in text
    assert text.endswith("<|user|>And O-99?<|end|><|assistant|>")
    for i in range(rounds):
        assert f'{{"id": "O-{i}"}}' in text


def test_turns_in_the_note_are_counted() -> None:
    given = conversation(6)
    prompt, count = fold(LM, given, 1000)
    text = LM.decode(prompt)
    shown = text.count("<|user|>") + text.count("<|assistant|>") - 1 + text.count("<|tool_result|>")
    assert 0 < count == len(given.turns) - 1 - shown


def test_system_turn_in_the_middle_is_never_folded() -> None:
    given = conversation(8)
    turns = (*given.turns[:9], Turn("system", "It is night."), *given.turns[9:])
    prompt, _ = fold(LM, Conversation(turns, TOOLS), 1200)
    assert "You are a clerk.\nIt is night.\nSo far:" in LM.decode(prompt)


def test_newest_result_that_is_too_long_is_cut_and_counted() -> None:
    call = ToolCall("c", "get", '{"id":"O-1"}')
    turns = (Turn("user", "O-1?"), Turn("assistant", "", (call,)), Turn("tool", "x" * 5000, (), "c"))
    prompt, count = fold(LM, Conversation(turns, TOOLS), 400)
    assert len(prompt) <= 400
    assert LM.decode(prompt).endswith(" [cut]<|end|><|assistant|>")
    assert count == 2  # the request, which the note tells, and the result


def test_message_that_is_too_long_alone_is_not_cut_but_refused() -> None:
    with pytest.raises(ConfigError, match="newest message and what has to be kept"):
        fold(LM, Conversation((Turn("user", "x" * 900),), TOOLS), 500)


def test_what_has_to_be_kept_may_fill_the_whole_budget() -> None:
    turns = (Turn("user", "hello " * 20), Turn("assistant", "yes " * 40), Turn("user", "x" * 300))
    prompt, _ = fold(LM, Conversation(turns), 480)
    assert KEPT * 480 < len(prompt) <= 480
