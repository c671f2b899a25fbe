"""Whatever a model writes as a call, guard, tools, spaces and trace go on: a verdict, a result, a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melete.actions.action import ToolAction, to_dict
from melete.actions.guard import Guard, Verdict
from melete.actions.tools import ToolSet, tool
from melete.actions.trace import TraceWriter, check, read, replay
from melete.records import ToolCall

GUARD = Guard.load("support_desk")


@tool
def refund_order(
    order_id: str, amount: float, reason: Literal["late", "broken"] = "late", lines: list[int] | None = None
) -> str:
    """Refunds.

    Args:
        order_id: An id.
    """
    return f"{order_id} {amount} {reason} {lines}"


TOOLS = ToolSet([refund_order])
HOSTILE = [
    "", "null", "{}", '{"amount": -0.0}', '{"amount": ' + "9" * 99 + "}", '{"amount": 1e308}', '{"amount": true}',
    '{"order_id": "O-1", "amount": ' + "[" * 60 + "]" * 60 + "}", '{"order_id": {"order_id": {}}, "amount": {}}',
    '{"self": 1, "on": 2, "key": 3}', '{"": 1}', '{"__class__": "x"}', '{"order_id": "\\u0000\\n\\u2028", "amount": 5}',
    '{"amount": 5, "amount": 900, "order_id": "O-1"}', '{"order_id": "' + "O" * 100_000 + '", "amount": 5}',
    '{"order_id": "O-1\\n", "amount": 5}', '{"order_id":"O-1","amount":400,"reason":"late"}',
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["refund_order", "verify_identity", "get_order", "@message", "", "drop table;", "get_\n"]
)
FIELDS = st.sampled_from(["order_id", "amount", "reason", "lines", "customer_id"])


def play(calls: list[tuple[str, str]], path: Path) -> None:
    session = GUARD.start(now_s=0.0)
    with TraceWriter(path, episode="e") as trace:
        for step, (name, text) in enumerate(calls, 1):
            try:
                action = ToolAction.from_call(ToolCall("1", name, text))
            except ValueError:
                continue
            judgement = session.judge(action, now_s=step)
            executed = result = None
            if judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP) and isinstance(
                judgement.action, ToolAction
            ):
                executed = judgement.action
                result = TOOLS.call(executed)
                session.record(executed, result.ok, result.value, now_s=step)
            trace.write(
                time_s=step, step=step, proposed=action, verdict=judgement.verdict, reasons=judgement.reasons,
                executed=executed, result=result, ok=bool(result and result.ok),
            )  # fmt: skip


@pytest.mark.parametrize("name", ["refund_order", "get_order", "nothing"])
def test_hostile_arguments_get_a_verdict_a_result_and_a_line(name: str, tmp_path: Path) -> None:
    play([("verify_identity", "{}"), *((name, text) for text in HOSTILE)], tmp_path / "t.jsonl")
    steps = list(read(tmp_path / "t.jsonl"))
    assert len(steps) > 10
    assert check(steps) == []


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(NAMES, st.dictionaries(FIELDS, JSON, max_size=3)), max_size=6))
def test_any_arguments_are_judged_the_same_when_replayed(
    calls: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.unlink(missing_ok=True)
    play([(name, json.dumps(arguments)) for name, arguments in calls], path)
    assert check(read(path)) == []
    assert replay(read(path), GUARD) == []


def test_text_that_is_no_unicode_reaches_the_trace_all_the_same(tmp_path: Path) -> None:
    action = ToolAction("say", {"text": "half \ud800"})
    with TraceWriter(tmp_path / "t.jsonl") as trace:
        trace.write(proposed=action, model_output="half \ud800")
    assert next(read(tmp_path / "t.jsonl"))["proposed"] == to_dict(action)
