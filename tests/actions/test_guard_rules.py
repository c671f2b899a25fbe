"""Each rule type: what it lets through, what it does not, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.actions.action import ContinuousAction, Message, ToolAction, UIAction
from melete.actions.guard import Guard, GuardSession, Verdict

ALLOW, CLAMP, ASK, REFUSE, ABORT = (
    Verdict.ALLOW, Verdict.CLAMP, Verdict.ASK, Verdict.REFUSE, Verdict.ABORT,
)  # fmt: skip


def start(*rules: dict[str, Any], **facts: Any) -> GuardSession:
    everything = {"allow_list": {"tools": ["*", "@*"]}}
    values = {"name": "test", "version": 1, "rules": [everything, *rules]}
    return Guard.from_dict(values).start(facts, now_s=0.0)


def limits(arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"argument_limits": {"tool": "pay", "arguments": arguments, **options}}


def pay(**arguments: Any) -> ToolAction:
    return ToolAction("pay", arguments)


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        ({"min": 0, "max": 5}, [0, 5, 2.5], [-1, 5.01, "3", True, None, float("nan"), {"x": 1}]),
        ({"enum": ["a", 1]}, ["a", 1, 1.0], ["b", True, "1", None]),
        ({"enum": [True, [1]]}, [True, [[1]]], ["true", 1, "[1]", [[2]]]),
        ({"pattern": "O-[0-9]+"}, ["O-1"], ["O-1; drop", "xO-1", 5]),
        ({"max_length": 3}, ["abc", ""], ["abcd", 1]),
        ({"fact": "owner"}, ["C-7"], ["C-8", 7, None]),
        ({"min": 0}, [[1, 2]], [[1, -2], ["1"]]),
        ({"min": [0, 10], "max": [1, 20]}, [[1, 10]], [[1, 9], [1], [1, 10, 3]]),
        ({"max": 5, "filters": True}, [{"at_most": 5}], [{"at_most": 6}]),
    ],
)
def test_argument_limits_let_through_what_they_name_and_nothing_else(
    limit: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    session = start(limits({"x": limit}), owner="C-7")
    assert [session.judge(pay(x=value)).verdict for value in good] == [ALLOW] * len(good)
    assert [session.judge(pay(x=value)).verdict for value in bad] == [REFUSE] * len(bad)


def test_argument_limit_says_what_was_found_and_what_is_allowed() -> None:
    judgement = start(limits({"amount": {"max": 500}})).judge(pay(amount=900))
    assert judgement.reasons == (
        "pay is refused: amount is 900, an integer; allowed: a number of at most 500.",
    )


def test_limit_on_a_fact_that_is_not_known_refuses() -> None:
    assert start(limits({"x": {"fact": "owner"}})).judge(pay(x="C-7")).verdict is REFUSE


def test_argument_that_is_not_given_and_other_tools_are_not_limited() -> None:
    session = start(limits({"amount": {"max": 5}}))
    assert session.judge(pay()).verdict is ALLOW
    assert session.judge(ToolAction("get", {"amount": 9})).verdict is ALLOW


@given(st.integers() | st.floats(allow_nan=False))
def test_clamped_number_is_the_nearest_allowed_one(value: float) -> None:
    judgement = start(limits({"amount": {"min": 1, "max": 5}}, otherwise="clamp")).judge(pay(amount=value))
    assert isinstance(judgement.action, ToolAction)
    amount = judgement.action.arguments["amount"]
    assert amount == min(max(value, 1), 5)
    assert judgement.verdict is (ALLOW if 1 <= value <= 5 else CLAMP)


def test_whole_number_is_clamped_to_a_whole_number() -> None:
    judgement = start(limits({"n": {"max": 2.5}}, otherwise="clamp")).judge(pay(n=9))
    assert judgement.action == pay(n=2)
    assert judgement.reasons == ("n was 9 and is set to 2; allowed: a number of at most 2.5.",)


def test_what_has_no_nearest_value_is_refused_instead_of_clamped() -> None:
    session = start(limits({"x": {"enum": ["a"]}, "y": {"max": 1}}, otherwise="clamp"))
    assert session.judge(pay(x="b")).verdict is REFUSE
    assert session.judge(pay(y="much")).verdict is REFUSE


def test_continuous_action_and_message_can_be_clamped() -> None:
    arm = {"tool": "@continuous", "arguments": {"values": {"min": -1, "max": [1, 2]}}, "otherwise": "clamp"}
    text = {"tool": "@message", "arguments": {"text": {"max_length": 4}}, "otherwise": "clamp"}
    session = start({"argument_limits": arm}, {"argument_limits": text})
    assert session.judge(ContinuousAction((-9.0, 9.0))).action == ContinuousAction((-1, 2))
    assert session.judge(Message("too long")).action == Message("too ")


def test_rate_limit_counts_permissions_within_its_window() -> None:
    session = start({"rate_limit": {"tools": ["get_*"], "calls": 2, "per_s": 10}})
    verdicts = [session.judge(ToolAction("get_order"), now_s=t).verdict for t in (0, 1, 9, 10, 10.5, 11)]
    assert verdicts == [ALLOW, ALLOW, REFUSE, ALLOW, REFUSE, ALLOW]


def test_rate_limit_says_how_long_to_wait_and_spares_other_tools() -> None:
    session = start({"rate_limit": {"tool": "get", "calls": 1, "per_s": 10}})
    session.judge(ToolAction("get"), now_s=0)
    assert session.judge(ToolAction("get"), now_s=4).reasons == (
        "get is refused: 1 calls in 10 s are allowed; wait 6 s or go on without it.",
    )
    assert session.judge(ToolAction("put"), now_s=4).verdict is ALLOW


def test_budget_of_calls_ends() -> None:
    session = start({"budget": {"calls": 2}})
    assert [session.judge(ToolAction("a")).verdict for _ in range(3)] == [ALLOW, ALLOW, REFUSE]
    assert session.judge(Message("a message is no call")).verdict is ALLOW


@given(st.lists(st.floats(-100, 100), max_size=20))
def test_budget_of_a_sum_is_never_exceeded(amounts: list[float]) -> None:
    session = start({"budget": {"tool": "pay", "argument": "amount", "total": 150}})
    moved = [abs(x) for x in amounts if session.judge(pay(amount=x)).verdict is ALLOW]
    assert sum(moved) <= 150 + 1e-9


@pytest.mark.parametrize("amount", ["5", None, True, float("nan"), [5]])
def test_budget_refuses_an_amount_that_cannot_be_counted(amount: Any) -> None:
    session = start({"budget": {"tool": "pay", "argument": "amount", "total": 150}})
    assert session.judge(pay(amount=amount)).verdict is REFUSE
    assert session.judge(pay()).verdict is REFUSE


@pytest.mark.parametrize(("failed", "verdict"), [("free", ALLOW), ("count", REFUSE)])
def test_failed_call_gives_its_budget_back_only_where_the_file_says_so(failed: str, verdict: Verdict) -> None:
    session = start({"budget": {"tool": "pay", "argument": "amount", "total": 100, "failed": failed}})
    session.judge(pay(amount=100))
    session.record(pay(amount=100), ok=False)
    assert session.judge(pay(amount=100)).verdict is verdict


def done(session: GuardSession, name: str, ok: bool = True, **arguments: Any) -> None:
    session.record(ToolAction(name, arguments), ok)


def test_forbidden_sequence_refuses_its_last_step_after_the_others_succeeded() -> None:
    session = start({"forbidden_sequence": {"sequence": ["a", "b", "c"]}})
    done(session, "a")
    done(session, "b", ok=False)
    assert session.judge(ToolAction("c")).verdict is ALLOW
    done(session, "other")
    done(session, "b")
    judgement = session.judge(ToolAction("c"))
    assert (judgement.verdict, judgement.reasons) == (REFUSE, ("c is refused: it may not follow a and b.",))


def test_forbidden_sequence_with_same_is_about_one_object() -> None:
    rule = {"sequence": ["cancel", "refund"], "same": ["order_id"], "verdict": "abort"}
    session = start({"forbidden_sequence": rule})
    done(session, "cancel", order_id="O-1")
    assert session.judge(ToolAction("refund", {"order_id": "O-2"})).verdict is ALLOW
    assert session.judge(ToolAction("refund", {"order_id": "O-1"})).verdict is ABORT


def test_consecutive_sequence_is_broken_by_another_action() -> None:
    session = start({"forbidden_sequence": {"sequence": ["a", "c"], "consecutive": True}})
    done(session, "a")
    assert session.judge(ToolAction("c")).verdict is REFUSE
    done(session, "b")
    assert session.judge(ToolAction("c")).verdict is ALLOW


VERIFIED = {
    "precondition": {
        "tool": "refund",
        "needs": "verify",
        "match": {"customer_id": "customer_id"},
        "within_s": 60,
    }
}


def refund(customer_id: Any = "C-1") -> ToolAction:
    return ToolAction("refund", {"customer_id": customer_id})


def test_precondition_refuses_until_the_other_tool_has_succeeded() -> None:
    session = start(VERIFIED)
    assert session.judge(refund(), 1).reasons == (
        "refund is refused: verify has not succeeded for the same customer_id; call verify first.",
    )
    session.record(ToolAction("verify", {"customer_id": "C-1"}), False, now_s=1)
    assert session.judge(refund(), 1).verdict is REFUSE
    session.record(ToolAction("verify", {"customer_id": "C-1"}), True, now_s=1)
    assert session.judge(refund(), 1).verdict is ALLOW


def test_precondition_holds_for_the_matching_value_and_its_time_only() -> None:
    session = start(VERIFIED)
    session.record(ToolAction("verify", {"customer_id": "C-1"}), True, now_s=1)
    assert session.judge(refund("C-2"), 2).verdict is REFUSE
    assert session.judge(ToolAction("refund", {}), 2).verdict is REFUSE
    assert session.judge(refund(), 62).verdict is REFUSE


@pytest.mark.parametrize("result", [{"customer": {"id": "C-1"}}, '{"customer": {"id": "C-1"}}'])
def test_precondition_matches_a_field_of_the_result(result: Any) -> None:
    rule = {"tool": "refund", "needs": ["verify", "log_in"], "match": {"customer_id": "result.customer.id"}}
    session = start({"precondition": rule})
    session.record(ToolAction("log_in"), True, result)
    assert session.judge(refund("C-1")).verdict is ALLOW
    assert session.judge(refund("C-2")).verdict is REFUSE


def test_precondition_matches_any_element_of_a_list() -> None:
    session = start(
        {"precondition": {"tool": "refund", "needs": "list_orders", "match": {"order_id": "orders"}}}
    )
    session.record(ToolAction("list_orders"), True, {"orders": ["O-1", "O-2"]})
    assert session.judge(ToolAction("refund", {"order_id": "O-2"})).verdict is ALLOW
    assert session.judge(ToolAction("refund", {"order_id": "O-3"})).verdict is REFUSE


def test_precondition_on_facts_holds_where_they_do() -> None:
    rule = {"precondition": {"tool": "refund", "facts": {"verified": True}}}
    assert start(rule, verified=True).judge(refund()).verdict is ALLOW
    assert start(rule, verified=1).judge(refund()).verdict is REFUSE
    assert start(rule).judge(refund()).reasons == ("refund is refused: verified is not True.",)


def test_precondition_of_all_tools_does_not_lock_out_the_tool_that_opens_them() -> None:
    session = start({"precondition": {"needs": "verify"}})
    assert session.judge(ToolAction("verify")).verdict is ALLOW
    assert session.judge(ToolAction("refund")).verdict is REFUSE


def test_reason_of_the_file_takes_the_place_of_the_rules_own() -> None:
    words = "identity was not verified; call verify_identity first."
    session = start({"precondition": {"tool": "refund_order", "needs": "verify_identity", "reason": words}})
    assert session.judge(ToolAction("refund_order")).reasons == (f"refund_order is refused: {words}",)


def test_confirmed_call_is_allowed_once_and_only_with_its_arguments() -> None:
    session = start({"confirmation": {"tool": "pay"}})
    assert session.judge(pay(amount=5)).verdict is ASK
    session.confirm(ToolAction("pay", {"amount": 5}, id="another id"))
    assert session.judge(pay(amount=6)).verdict is ASK
    assert session.judge(pay(amount=5)).verdict is ALLOW
    assert session.judge(pay(amount=5)).verdict is ASK


def test_small_call_needs_no_confirmation_and_one_that_cannot_be_compared_does() -> None:
    session = start({"confirmation": {"tool": "pay", "above": {"amount": 100}}})
    verdicts = [session.judge(pay(amount=x)).verdict for x in (100, 100.5, "5")]
    assert verdicts == [ALLOW, ASK, ASK]


def test_confirming_a_clamped_action_works_by_either_form() -> None:
    for confirmed in (900, 500):
        session = start(
            limits({"amount": {"max": 500}}, otherwise="clamp"), {"confirmation": {"tool": "pay"}}
        )
        judgement = session.judge(pay(amount=900))
        assert (judgement.verdict, judgement.action) == (ASK, pay(amount=500))
        session.confirm(pay(amount=confirmed))
        assert session.judge(pay(amount=900)).verdict is CLAMP


@pytest.mark.parametrize(("verdict", "later"), [("refuse", ALLOW), ("abort", ABORT)])
def test_dead_man_acts_after_too_long_a_silence(verdict: str, later: Verdict) -> None:
    session = start({"dead_man": {"timeout_s": 5, "verdict": verdict}})
    assert session.judge(ToolAction("a"), now_s=5).verdict is ALLOW
    session.beat(now_s=5)
    assert session.judge(ToolAction("a"), now_s=10).verdict is ALLOW
    assert session.judge(ToolAction("a"), now_s=10.1).verdict == verdict
    session.beat(now_s=11)
    assert session.judge(ToolAction("a"), now_s=11).verdict is later


def test_abort_at_the_last_refusal_allowed_keeps_the_reasons() -> None:
    session = start(limits({"amount": {"max": 1}}), {"abort": {"refusals": 2}})
    assert session.judge(pay(amount=2)).verdict is REFUSE
    judgement = session.judge(pay(amount=3))
    assert (judgement.verdict, judgement.rule) == (ABORT, "abort")
    assert "allowed: a number of at most 1" in judgement.reasons[0]
    assert judgement.reasons[1] == "pay ends the episode: 2 actions of this episode were refused."


def test_agent_that_calls_the_same_tool_for_ever_is_ended() -> None:
    session = start({"abort": {"repeats": 3}})
    names = ["a", "a", "b", "a", "a", "a"]
    assert [session.judge(ToolAction(name)).verdict for name in names] == [*[ALLOW] * 5, ABORT]


def test_abort_pattern_looks_into_arguments_of_every_kind_of_action() -> None:
    typed = UIAction("type", text="rm -rf /")
    assert start({"abort": {"tools": ["@ui.*"], "pattern": "rm -rf"}}).judge(typed).verdict is ABORT
    assert start({"abort": {"pattern": "rm -rf"}}).judge(pay(note="rm -rf /")).verdict is ABORT
