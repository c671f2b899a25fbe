"""Memory: the budget holds, and every id, call and open question survives the folding."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from melete.actions.memory import TURN_TOKENS, Memory, ids
from melete.errors import ConfigError
from melete.records import ToolCall, Turn

WORDS = st.lists(
    st.sampled_from(["the", "order", "is", "late", "please", "help", "me"]), min_size=1, max_size=30
)
IDS = st.integers(1, 9999).map("O-{}".format)
SAID = st.builds(lambda words, one: f"{' '.join(words)} {one}.", WORDS, IDS)


def count(text: str) -> int:
    """A tokenizer of four characters a token."""
    return (len(text) + 3) // 4


def cost(turns: list[Turn]) -> int:
    texts = [[t.content, *(f"{c.name} {c.arguments}" for c in t.tool_calls)] for t in turns]
    return sum(TURN_TOKENS + sum(count(text) for text in one if text) for one in texts)


@st.composite
def episodes(draw: st.DrawFn) -> list[Turn]:
    turns = [Turn("user", draw(SAID))]
    for i in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            call = ToolCall(f"c{i}", draw(st.sampled_from(["get", "pay"])), json.dumps({"id": draw(IDS)}))
            result = draw(
                st.sampled_from(["Error: no such order", "Refused: ask first", "found ", "x " * 500])
            )
            turns += [Turn("assistant", "", (call,)), Turn("tool", result + draw(IDS), (), call.id)]
        else:
            turns += [Turn("assistant", draw(SAID)), Turn("user", draw(SAID))]
    return turns


def folded(turns: list[Turn], budget: int, system: str = "") -> list[Turn]:
    memory = Memory(budget, count, system)
    for turn in turns:
        memory.add(turn)
    return memory.turns()


@settings(max_examples=60)
@given(episodes(), st.integers(40, 900), st.sampled_from(["", "You are a clerk."]))
def test_budget_holds_and_ids_and_calls_survive(turns: list[Turn], budget: int, system: str) -> None:
    try:
        kept = folded(turns, budget, system)
    except ConfigError:
        assume(False)
        return
    assert cost(kept) <= budget
    text = "\n".join([t.content + "".join(f"{c.name}({c.arguments})" for c in t.tool_calls) for t in kept])
    newest_cut = kept[-1].content != turns[-1].content
    for turn in turns[:-1] if newest_cut else turns:
        for call in turn.tool_calls:
            assert f"{call.name}({call.arguments})" in text
        if turn.role != "tool":
            assert set(ids([turn.content])) <= set(ids([text]))


@settings(max_examples=60)
@given(episodes(), st.integers(40, 900))
def test_calls_stay_together_with_their_results(turns: list[Turn], budget: int) -> None:
    try:
        kept = folded(turns, budget)
    except ConfigError:
        assume(False)
        return
    called = {call.id for turn in kept for call in turn.tool_calls}
    answered = {turn.tool_call_id for turn in kept if turn.role == "tool"}
    assert called == answered


@settings(max_examples=60)
@given(episodes())
def test_conversation_within_the_budget_is_left_as_it_is(turns: list[Turn]) -> None:
    assert folded(turns, cost(turns) + 100) == turns
    assert folded(turns, cost(turns) + 100, "Be kind.") == [Turn("system", "Be kind."), *turns]


def test_asking_twice_and_going_on_gives_the_same_as_adding_at_once() -> None:
    turns = [Turn("user", f"Look at O-{i} please, it is late and it is broken.") for i in range(12)]
    step_by_step = Memory(150, count)
    for turn in turns:
        step_by_step.add(turn)
        step_by_step.turns()
    assert step_by_step.turns() == folded(turns, 150)
    assert step_by_step.folded > 0


EPISODE = [
    Turn("user", "I am ana7@mail.com. Refund O-1042."),
    Turn("assistant", "", (ToolCall("1", "get_order", '{"order_id":"O-1042"}'),)),
    Turn("tool", '{"id":"O-1042","customer":"C-77","lines":' + "[1]" * 300 + "}", (), "1"),
    Turn("assistant", "", (ToolCall("2", "refund", '{"order_id":"O-1042"}'),)),
    Turn("tool", "Refused: identity was not verified.", (), "2"),
    Turn("assistant", "I need to know that it is you. " * 15 + "What is your postal code?"),
]


def note(*more: Turn, room: int) -> str:
    """The system turn where `room` tokens are left beside the newest turn, which is a long one."""
    kept = folded([*EPISODE, *more], cost([more[-1]]) + room, "Be kind.")
    assert kept[1:] == [more[-1]]
    return kept[0].content


LONG = Turn("user", "8004 " + "and some more words " * 40)


def test_note_tells_request_calls_with_outcome_and_ids() -> None:
    text = note(LONG, room=80)
    assert text.startswith("Be kind.\nSo far:\nRequest: I am ana7@mail.com. Refund O-1042.\n")
    assert 'get_order({"order_id":"O-1042"}) → ok' in text
    assert 'refund({"order_id":"O-1042"}) → Refused: identity was not verified.' in text
    assert "Ids: ana7@mail.com, O-1042" in text


def test_open_question_is_kept_until_it_is_answered() -> None:
    assert "Open question: you asked: What is your postal code?" in note(LONG, room=80)
    answer = Turn("user", "It is 8004. " + "word " * 110)
    answered = note(answer, Turn("assistant", "Thank you. " + "word " * 80), room=160)
    assert "Open question" not in answered
    assert "The person said: It is 8004." in answered


def test_ids_of_results_are_kept_while_there_is_room() -> None:
    assert "Seen: C-77" in note(LONG, room=80)
    assert "C-77" not in note(LONG, room=68)


def test_repeated_call_stands_once_with_its_number() -> None:
    turns: list[Turn] = [Turn("user", "look")]
    for i in range(5):
        turns += [
            Turn("assistant", "", (ToolCall(str(i), "look", "{}"),)),
            Turn("tool", "nothing", (), str(i)),
        ]
    kept = folded([*turns, LONG], cost([LONG]) + 20)
    assert "Done: look({}) → ok (5 times)" in kept[0].content


def test_newest_result_that_is_too_long_is_cut_and_says_so() -> None:
    kept = folded([*EPISODE[:2], Turn("tool", "x" * 40_000, (), "1")], 120)
    assert cost(kept) <= 120
    assert kept[-1].content.endswith("[cut]")
    assert len(kept[-1].content) > 50


def test_budget_too_small_for_what_has_to_be_kept_is_an_error_with_the_size() -> None:
    with pytest.raises(ConfigError, match="does not hold what has to be kept: about"):
        folded(EPISODE, 30)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Order O-1042, #W123 and ana@mail.com.", ["O-1042", "#W123", "ana@mail.com"]),
        ('{"id":"cust_7","n":12}', ["cust_7"]),
        ("on 2026-10-11 at 8004 Zurich, twice", ["2026-10-11", "8004"]),
        ("nothing here, 12 times", []),
    ],
)
def test_ids_are_words_with_digits(text: str, found: list[Any]) -> None:
    assert ids([text]) == found
