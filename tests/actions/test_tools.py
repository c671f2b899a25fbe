"""Tools: what the model reads when a call is right, wrong, fails, hangs or returns too much."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import slow_tools

from melete.actions.action import ToolAction
from melete.actions.tools import Tool, ToolFailure, ToolSet, tool
from melete.errors import ScenarioError, UnknownNameError

NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


class Shop:
    """A world with a few tools."""

    def __init__(self) -> None:
        self.orders = {"O-1": {"id": "O-1", "total": 30}}
        self.calls = 0

    @tool
    def get_order(self, order_id: str) -> dict[str, Any]:
        """Looks up an order.

        Args:
            order_id: The order's id.
        """
        self.calls += 1
        if order_id not in self.orders:
            raise ToolFailure(f"There is no order {order_id}.")
        return self.orders[order_id]

    @tool
    def count(self, n: int = 1) -> int:
        """Counts."""
        self.calls += 1
        assert type(n) is int
        return n

    @tool
    def broken(self) -> str:
        """Breaks."""
        raise KeyError("stock")

    @tool
    def large(self) -> str:
        """Returns 5 MB."""
        return "x" * 5_000_000

    @tool(timeout_s=0.1)
    def spin(self) -> str:
        """Never returns."""
        while True:
            self.calls += 1

    @tool
    async def later(self) -> str:
        """Is a coroutine."""
        return "done"


TOOLS = ToolSet.of(Shop)


def call(name: str, arguments: dict[str, Any] | None = None, on: Any = None) -> Any:
    return TOOLS.call(ToolAction(name, arguments or {}), on=on or Shop())


def test_tools_of_a_class_are_collected_once_in_order() -> None:
    assert ToolSet.of(Shop) is TOOLS
    assert TOOLS.names == ("get_order", "count", "broken", "large", "spin", "later")
    assert TOOLS.schemas[0] == {
        "type": "function",
        "function": {
            "name": "get_order",
            "description": "Looks up an order.",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string", "description": "The order's id."}},
                "required": ["order_id"],
            },
        },
    }


def test_call_returns_the_value_and_its_text() -> None:
    result = call("get_order", {"order_id": "O-1"})
    assert (result.ok, result.content, result.value) == (
        True,
        '{"id":"O-1","total":30}',
        {"id": "O-1", "total": 30},
    )


def test_marked_method_can_still_be_called_as_before() -> None:
    assert Shop().get_order("O-1")["total"] == 30


def test_failure_of_a_tool_is_told_in_its_own_words() -> None:
    result = call("get_order", {"order_id": "O-9"})
    assert (result.ok, result.error, result.content) == (
        False, "There is no order O-9.", "Error: There is no order O-9.",
    )  # fmt: skip


def test_exception_of_a_tool_is_a_failure_that_names_its_type() -> None:
    assert call("broken").error == "broken failed: KeyError: 'stock'"


def test_unknown_tool_is_answered_with_the_closest() -> None:
    assert "Did you mean 'get_order'?" in call("get_orders").error


def test_wrong_arguments_are_told_and_the_tool_is_not_called() -> None:
    shop = Shop()
    result = call("get_order", {"order_id": 7}, shop)
    assert result.error == "order_id: found 7, an integer; allowed: a string."
    assert (shop.calls, result.attempts) == (0, 0)


def test_argument_that_the_schema_does_not_name_is_refused() -> None:
    assert "loud is no argument of this tool" in call("broken", {"loud": True}).error


def test_whole_float_for_an_integer_arrives_as_an_integer() -> None:
    assert call("count", {"n": 2.0}).value == 2


def test_result_of_five_megabytes_is_cut_and_says_so() -> None:
    result = call("large")
    assert len(result.content) < 17_000
    assert result.content.endswith("[cut: the first 16,000 of 5,000,000 characters]")


def test_coroutine_is_run_to_its_end() -> None:
    assert call("later").content == "done"


def test_coroutine_is_run_where_a_loop_is_running_already() -> None:
    async def inside() -> Any:
        return call("later")

    assert asyncio.run(inside()).content == "done"


def test_tool_that_loops_for_ever_times_out_and_its_loop_is_ended() -> None:
    shop = Shop()
    result = call("spin", on=shop)
    assert result.error == "spin did not answer within 0.1 s."
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s and any(t.name == "tool" for t in threading.enumerate()):
        pass
    assert not any(t.name == "tool" for t in threading.enumerate())


def test_method_without_a_world_is_the_authors_error() -> None:
    with pytest.raises(ScenarioError, match="world"):
        TOOLS.call(ToolAction("broken"))


def test_looking_up_an_unknown_tool_names_the_known_ones() -> None:
    assert TOOLS["count"].description == "Counts."
    with pytest.raises(UnknownNameError, match="get_order"):
        TOOLS["nothing"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "two words"}, "no name of a tool"),
        ({"name": "@message"}, "no name of a tool"),
        (
            {"parameters": {"type": "object", "properties": {"a": {"type": "strng"}}}},
            "no JSON schema; at properties.a",
        ),
        ({"timeout_s": 0.0}, "above 0"),
        ({"sandbox": True}, "child process"),
    ],
)
def test_tool_that_is_wrong_is_refused_when_it_is_made(options: dict[str, Any], words: str) -> None:
    values = {"name": "x", "description": "", "parameters": NOTHING, "function": slow_tools.fail, **options}
    with pytest.raises(ScenarioError, match=words):
        Tool(**values)


def test_two_tools_of_one_name_and_a_function_that_is_none_are_refused() -> None:
    with pytest.raises(ScenarioError, match="Two tools"):
        ToolSet([slow_tools.hang, slow_tools.hang])
    with pytest.raises(ScenarioError, match="no tool"):
        ToolSet([print])


class Flaky:
    """Fails a number of times, in a way that may be tried again or not."""

    def __init__(self, failures: int, retry: bool = True) -> None:
        self.failures, self.retry, self.calls, self.pauses = failures, retry, 0, list[float]()

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise ToolFailure("busy", retry=self.retry)
        return "done"

    def tools(self, **options: Any) -> ToolSet:
        one = Tool("work", "Works.", NOTHING, lambda: self(), **options)
        return ToolSet([one], sleep=self.pauses.append, seed=1)


def test_retryable_failure_is_tried_again_with_growing_pauses() -> None:
    flaky = Flaky(3)
    result = flaky.tools(retries=3).call(ToolAction("work"))
    assert (result.ok, result.attempts) == (True, 4)
    assert all(
        longest / 2 <= pause <= longest for pause, longest in zip(flaky.pauses, (0.1, 0.2, 0.4), strict=True)
    )


def test_pauses_are_the_same_for_the_same_seed() -> None:
    first, second = Flaky(2), Flaky(2)
    for flaky in (first, second):
        flaky.tools(retries=2).call(ToolAction("work"))
    assert first.pauses == second.pauses != []


def test_retries_are_bounded() -> None:
    flaky = Flaky(9)
    assert flaky.tools(retries=2).call(ToolAction("work")).attempts == 3
    assert flaky.calls == 3


def test_failure_that_is_not_retryable_is_not_tried_again() -> None:
    flaky = Flaky(1, retry=False)
    assert not flaky.tools(retries=5).call(ToolAction("work")).ok
    assert flaky.calls == 1


@pytest.mark.parametrize(("repeatable", "attempts"), [(True, 3), (False, 1)])
def test_timeout_is_tried_again_only_where_the_tool_just_reads(repeatable: bool, attempts: int) -> None:
    stop = threading.Event()
    one = Tool(
        "wait", "Waits.", NOTHING, lambda: stop.wait(5), timeout_s=0.02, retries=2, repeatable=repeatable
    )
    assert ToolSet([one], sleep=lambda _: None).call(ToolAction("wait")).attempts == attempts
    stop.set()


def test_sandboxed_tool_sees_neither_environment_nor_folder_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "hunter2")
    result = ToolSet([slow_tools.look_around]).call(ToolAction("look_around", {"secret_name": "SHOP_SECRET"}))
    assert result.ok, result.error
    assert (result.value["variable"], result.value["folder"]) == (None, [])
    assert result.value["pid"] != psutil.Process().pid


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("failure", "no such order"),
        ("crash", "ended with 3"),
        ("memory", "MemoryError"),
        ("other", "KeyError: 'other'"),
    ],
)
def test_sandboxed_tool_that_fails_is_a_failure_like_any_other(kind: str, words: str) -> None:
    result = ToolSet([slow_tools.fail]).call(ToolAction("fail", {"kind": kind}))
    assert not result.ok
    assert words in str(result.error)


def test_sandboxed_tool_that_hangs_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    result = ToolSet([slow_tools.hang]).call(ToolAction("hang", {"path": str(tmp_path / "pid")}))
    assert result.error == "hang did not answer within 1.5 s."
    grandchild = int((tmp_path / "pid").read_text())
    until_s = time.monotonic() + 5
    while psutil.pid_exists(grandchild) and time.monotonic() < until_s:
        if psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            break
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
