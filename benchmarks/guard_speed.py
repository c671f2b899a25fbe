"""What the guard costs: CPU time per judged tool call, under a guard of eleven rules that uses every rule type.

Judged are whole episodes of a support desk in order: look-ups, a check of identity, refunds, some of them refused,
clamped or asked for. Each call is timed alone, `judge` and the `record` that follows it, in process CPU time; reading
the clock is part of the figure. The goal is 50 microseconds. Beside it stands what the tool set adds to a call of a
function that does nothing: looking it up, checking three arguments against their schema and making the result.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any, Literal

import peer
from melete.actions.action import ToolAction
from melete.actions.guard import Guard, Verdict
from melete.actions.tools import ToolSet, tool

GOAL_US = 50.0


def episode(number: int) -> list[tuple[ToolAction, bool]]:
    """The proposed calls, and whether each succeeds if it is executed."""
    order, customer = f"O-{1000 + number}", f"C-{number}"
    look = [
        (ToolAction("search_orders", {"query": "blue lamp", "customer_id": customer}), True),
        (ToolAction("get_order", {"order_id": order}), True),
        (ToolAction("get_order", {"order_id": f"order {number}"}), True),
        (ToolAction("list_orders", {"customer_id": customer, "limit": 10}), True),
        (ToolAction("drop_table", {"name": "orders"}), True),
    ]
    act = [
        (ToolAction("refund_order", {"order_id": order, "amount": 20.0, "reason": "late"}), True),
        (ToolAction("verify_identity", {"customer_id": customer, "postal_code": "8004"}), True),
        (ToolAction("refund_order", {"order_id": order, "amount": 20.0, "reason": "late"}), True),
        (ToolAction("refund_order", {"order_id": order, "amount": 900, "reason": "broken"}), True),
        (ToolAction("cancel_order", {"order_id": order}), False),
        (ToolAction("refund_order", {"order_id": order, "amount": 0.001, "reason": "late"}), True),
    ]
    return [*look, *act, *look, *act[::-1]]


def play(guard: Guard, calls: list[tuple[ToolAction, bool]], times_us: dict[str, list[float]]) -> None:
    """Judges and records one episode; adds each call's time to the list of its verdict."""
    session = guard.start({"customer_id": "C-1"})
    for action, ok in calls:
        started_ns = time.process_time_ns()
        judgement = session.judge(action)
        if judgement.verdict in (Verdict.ALLOW, Verdict.CLAMP):
            session.record(judgement.action, ok, {"id": "x"})
        times_us[judgement.verdict].append((time.process_time_ns() - started_ns) / 1e3)


@tool
def refund_order(order_id: str, amount: float, reason: Literal["late", "broken"] = "late") -> str:
    """Does nothing.

    Args:
        order_id: The order's id.
        amount: How much.
        reason: Why.
    """
    return "done"


def tool_calls(count: int) -> list[float]:
    """CPU time of each of some calls of a tool that does nothing, in microseconds."""
    tools = ToolSet([refund_order])
    action = ToolAction("refund_order", {"order_id": "O-1042", "amount": 20.0, "reason": "late"})
    times_us = []
    for _ in range(count):
        started_ns = time.process_time_ns()
        result = tools.call(action)
        times_us.append((time.process_time_ns() - started_ns) / 1e3)
        assert result.ok
    return times_us


def figures(times_us: list[float]) -> dict[str, float]:
    """Count, median and 99th percentile."""
    p99 = statistics.quantiles(times_us, n=100)[98]
    return {"calls": len(times_us), "median": round(statistics.median(times_us), 2), "p99": round(p99, 2)}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=2_000)
    parser.add_argument("--guard", default="support_desk", help="guard file or name")
    args = parser.parse_args()
    guard = Guard.load(args.guard)
    play(guard, episode(0), defaultdict(list))
    times_us: dict[str, list[float]] = defaultdict(list)
    for number in range(args.episodes):
        play(guard, episode(number), times_us)
    result: dict[str, Any] = {
        "system": peer.system(),
        "guard": f"{guard.name} {guard.version}",
        "rules": len(guard.to_dict()["rules"]),
        "cpu_us_per_call": figures([one for times in times_us.values() for one in times]),
        "by_verdict": {str(verdict): figures(times) for verdict, times in times_us.items()},
        "goal_us": GOAL_US,
        "tool_call_cpu_us": figures(tool_calls(20_000)),
    }
    peer.save_result("guard_speed", result)


if __name__ == "__main__":
    main()
