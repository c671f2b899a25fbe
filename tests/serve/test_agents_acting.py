"""A deployed agent's conversation: what is judged, executed, refused, confirmed, and read again from elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from melete.actions.guard import Guard
from melete.records import ToolCall, Turn
from melete.serve.acting import Checks, Conversing, OutOfTurn, judge_turn


def tool(name: str, **properties: str) -> dict[str, Any]:
    schema = {name: {"type": kind} for name, kind in properties.items()}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": schema, "required": list(schema)},
        },
    }


TOOLS = (
    tool("verify", order="string"),
    tool("pay", order="string", amount="number"),
    tool("close", order="string"),
)
GUARD = {
    "name": "till", "version": 1,
    "rules": [
        {"allow_list": {"tools": ["verify", "pay", "close"]}},
        {"argument_limits": {"tool": "pay", "arguments": {"amount": {"max": 100}}, "otherwise": "clamp"}},
        {"precondition": {"tool": "pay", "needs": "verify", "match": {"order": "order"}, "reason": "verify first."}},
        {"confirmation": {"tool": "close"}},
        {"abort": {"refusals": 3}},
    ],
}  # fmt: skip


@pytest.fixture
def talk() -> Conversing:
    return Conversing.start(Guard.from_dict(GUARD), Checks(TOOLS))


def call(name: str, call_id: str = "c", **arguments: Any) -> ToolCall:
    return ToolCall(call_id, name, json.dumps(arguments))


def wrote(talk: Conversing, *calls: ToolCall, text: str = "") -> Any:
    talk.wrote(Turn("assistant", text, calls))
    return talk.judge()


def test_call_before_its_precondition_is_refused_and_the_model_reads_why(talk: Conversing) -> None:
    talk.observe("please pay")
    step = wrote(talk, call("pay", order="A", amount=5))
    assert (step.verdict, step.execute, step.rule) == ("refuse", None, "precondition")
    assert talk.turns[-1].content.startswith("Refused: ")
    assert "verify first." in talk.turns[-1].content
    assert talk.due == ""


def test_call_after_its_precondition_succeeded_is_allowed_and_clamped(talk: Conversing) -> None:
    talk.observe("please pay")
    assert wrote(talk, call("verify", order="A")).verdict == "allow"
    assert talk.due == "result"
    talk.observe('{"order": "A"}')
    step = wrote(talk, call("pay", order="A", amount=500))
    assert step.verdict == "clamp"
    assert step.proposed["arguments"]["amount"] == 500
    assert step.execute["arguments"]["amount"] == 100


@pytest.mark.parametrize(("result", "ok"), [("error: no such order", True), ("{}", False)])
def test_precondition_does_not_hold_after_a_call_that_failed(talk: Conversing, result: str, ok: bool) -> None:
    talk.observe("please pay")
    wrote(talk, call("verify", order="A"))
    talk.observe(result, ok)
    assert wrote(talk, call("pay", order="A", amount=5)).verdict == "refuse"


def test_unknown_tool_wrong_arguments_and_unreadable_calls_are_refused_with_reasons(talk: Conversing) -> None:
    talk.observe("x")
    assert "no tool named 'fly'" in wrote(talk, call("fly")).reasons[0]
    assert wrote(talk, call("verify", order=3)).rule == "schema"
    assert wrote(talk, ToolCall("c", "verify", "{")).proposed["type"] == "malformed"
    assert wrote(talk, ToolCall("c", "", "nonsense")).reasons == ("not a tool call with JSON arguments",)


def test_call_that_needs_a_person_waits_for_a_yes(talk: Conversing) -> None:
    talk.observe("close it")
    step = wrote(talk, call("close", order="A"))
    assert (step.verdict, step.execute, talk.due) == ("ask", None, "confirm")
    with pytest.raises(OutOfTurn, match="waits for a confirmation"):
        talk.observe("yes")
    confirmed = talk.confirm(True)
    assert confirmed is not None
    assert confirmed.verdict == "allow"
    assert talk.due == "result"


def test_call_that_was_not_confirmed_is_told_to_the_model(talk: Conversing) -> None:
    talk.observe("close it")
    step = wrote(talk, call("close", order="A"))
    assert talk.confirm(False) is None
    assert talk.turns[-1].content == f"Refused: {step.reasons[0]}"
    talk.must_go_on()


def test_calls_of_one_turn_are_judged_one_after_the_other(talk: Conversing) -> None:
    talk.observe("please pay")
    first = wrote(talk, call("verify", "1", order="A"), call("pay", "2", order="A", amount=5))
    assert first.verdict == "allow"
    assert not talk.wants_turn
    talk.observe('{"order": "A"}')
    assert talk.judge().verdict == "allow"
    talk.observe("{}")
    assert talk.wants_turn
    assert [turn.tool_call_id for turn in talk.turns if turn.role == "tool"] == ["1", "2"]


def test_conversation_ends_after_the_guard_aborts(talk: Conversing) -> None:
    talk.observe("x")
    for _ in range(3):
        step = wrote(talk, call("pay", order="A", amount=5))
    assert step.verdict == "abort"
    assert talk.over
    with pytest.raises(OutOfTurn, match="ended this conversation"):
        talk.observe("again")


def test_agent_is_not_asked_while_something_is_due(talk: Conversing) -> None:
    with pytest.raises(OutOfTurn, match="next message is due"):
        talk.must_go_on()
    talk.observe("x")
    wrote(talk, call("verify", order="A"))
    with pytest.raises(OutOfTurn, match="result of verify is due"):
        talk.must_go_on()
    talk.observe("{}")
    talk.must_go_on()
    assert wrote(talk, text="done").execute == {"type": "message", "text": "done"}
    with pytest.raises(OutOfTurn, match="next message is due"):
        talk.must_go_on()


def test_replayed_conversation_counts_what_was_allowed_and_succeeded(talk: Conversing) -> None:
    history = [
        Turn("user", "pay A and B"),
        Turn("assistant", "", (call("verify", "1", order="A"), call("verify", "2", order="B"))),
        Turn("tool", '{"order": "A"}', (), "1"),
        Turn("tool", "error: unknown", (), "2"),
    ]
    talk.replay(history)
    assert wrote(talk, call("pay", order="A", amount=5)).verdict == "allow"
    talk.observe("{}")
    assert wrote(talk, call("pay", order="B", amount=5)).verdict == "refuse"


def test_replayed_call_that_the_guard_would_refuse_counts_for_nothing() -> None:
    rules = [{"allow_list": {"tools": ["pay"]}}, *GUARD["rules"][2:3]]  # type: ignore[index]
    talk = Conversing.start(Guard.from_dict({**GUARD, "rules": rules}), Checks(TOOLS))
    talk.replay(
        [
            Turn("user", "x"),
            Turn("assistant", "", (call("verify", "1", order="A"),)),
            Turn("tool", '{"order": "A"}', (), "1"),
        ]
    )
    assert wrote(talk, call("pay", order="A", amount=5)).verdict == "refuse"


def test_turn_of_the_openai_url_keeps_allowed_calls_and_says_what_was_held_back(talk: Conversing) -> None:
    content, calls = judge_turn(
        talk,
        "I will.",
        [
            call("verify", "1", order="A"),
            call("pay", "2", order="A", amount=5),
            call("close", "3", order="A"),
        ],
    )
    assert [kept.id for kept in calls] == ["1"]
    assert content.startswith("I will.\n[guard] pay refused: ")
    assert "verify first." in content
    assert "[guard] close needs a person's confirmation" in content


def test_text_of_the_openai_url_passes_as_it_is(talk: Conversing) -> None:
    assert judge_turn(talk, "Hello.", []) == ("Hello.", [])
