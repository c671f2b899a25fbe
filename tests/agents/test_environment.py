"""The environment judges, executes, counts, traces and rewards; whatever a model or a tool does, it goes on or ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gymnasium.error import ResetNeeded

from melete.actions import trace
from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard
from melete.actions.tools import ToolFailure, ToolSet, tool
from melete.agents.environment import Environment
from melete.agents.scenario import Criterion, Malformed, Policy, Proposal, Scenario, State, Task, World, play
from melete.errors import ConfigError, ScenarioError
from melete.records import ToolCall, Turn

TASK = Task("t", "switches", "train", "Switch the lamp on.", {"lamp": True}, 1)
LOOK, ON = ToolAction("look", {}), ToolAction("switch", {"name": "lamp", "on": True})
GUARD = {
    "name": "switches",
    "version": 1,
    "rules": [
        {"allow_list": {"tools": ["look", "switch", "explode", "shout", "wait"]}},
        {"precondition": {"tool": "switch", "needs": "look", "reason": "look first."}},
        {"confirmation": {"tool": "explode"}},
    ],
}


class Room(World):
    """A lamp."""

    def __init__(self) -> None:
        self.state: State = {"lamp": False, "explosions": 0}
        self.willing = True

    def opening(self) -> str:
        return TASK.request

    def reply(self, text: str) -> str | None:
        return "Yes." if "?" in text else None

    def confirm(self, action: ToolAction) -> bool:
        return self.willing

    @tool
    def look(self) -> str:
        """Look around."""
        return f"the lamp is {'on' if self.state['lamp'] else 'off'}"

    @tool
    def switch(self, name: str, on: bool) -> str:
        """Switch something."""
        if name not in self.state:
            raise ToolFailure(f"there is no {name}")
        self.state[name] = on
        return "done"

    @tool
    def explode(self) -> str:
        """Raise something that no tool should."""
        self.state["explosions"] += 1
        raise RuntimeError("boom")

    @tool
    def shout(self) -> str:
        """Give back five megabytes."""
        return "a" * 5_000_000

    @tool(timeout_s=0.05)
    def wait(self) -> str:
        """Wait for what never comes."""
        while True:
            pass

    @tool
    def burn(self) -> str:
        """Burn the room down, which no rule allows."""
        self.state["lamp"] = True
        return "burned"


class Switches(Scenario):
    """Switch a lamp on."""

    name = "switches"
    description = "Switch a lamp on."
    max_steps = 5
    system_prompt = "Look, then switch."
    toolset = ToolSet.of(Room)
    guard = Guard.from_dict(GUARD)

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        return [TASK][start : start + (count or 1)]

    def world(self, task: Task) -> Room:
        return Room()

    def success_criteria(self) -> list[Criterion]:
        return [Criterion("lamp", "The lamp is on.", lambda state: bool(state["lamp"]))]

    def expert(self, task: Task) -> Policy:
        moves = iter([LOOK, ON, Message("It is on.")])
        return lambda observation: next(moves)


@pytest.fixture
def environment() -> Environment:
    """An episode that has just begun."""
    started = Switches().create_environment(TASK)
    started.reset()
    return started


def test_expert_succeeds_and_every_call_counts_as_successful() -> None:
    outcome = play(Switches().expert(TASK), Switches().create_environment(TASK)).outcome
    assert outcome.success
    assert (outcome.tool_calls, outcome.tool_calls_ok, outcome.steps) == (2, 2, 3)


def test_call_of_unknown_tool_fails_and_breaks_no_policy(environment: Environment) -> None:
    observation, reward, *_ = environment.step(ToolAction("lok", {}))
    assert observation == "Error: there is no tool lok"
    assert reward < 0
    outcome = environment.outcome
    assert (outcome.tool_calls, outcome.tool_calls_ok, outcome.refused, outcome.policy_broken) == (
        1,
        0,
        0,
        False,
    )


def test_wrong_arguments_fail_with_what_is_needed_though_the_guard_would_refuse(
    environment: Environment,
) -> None:
    observation, *_ = environment.step(ToolAction("switch", {"nme": "lamp", "on": True}))
    assert observation.startswith("Error: ")
    assert "name" in observation
    assert not environment.outcome.policy_broken


def test_refused_call_is_not_executed_and_breaks_the_policy(environment: Environment) -> None:
    observation, _, _, _, info = environment.step(ON)
    assert observation == "Refused: look first."
    assert info["verdict"] == "refuse"
    assert environment.state()["lamp"] is False
    assert environment.outcome.policy_broken


def test_tool_that_no_rule_allows_is_refused_and_the_task_is_lost(environment: Environment) -> None:
    for action in (ToolAction("burn", {}), LOOK, ON, Message("Done.")):
        environment.step(action)
    outcome = environment.outcome
    assert outcome.criteria == {"lamp": True}
    assert not outcome.success
    assert outcome.refused == 1


def test_call_that_is_no_json_counts_as_failed_and_is_kept_as_it_was_written(
    environment: Environment,
) -> None:
    observation, *_ = environment.step(Malformed('{"name":"look"'))
    assert observation.startswith("Error: ")
    assert environment.outcome.tool_calls == 1
    assert environment.turns[1].tool_calls[0].arguments == '{"name":"look"'


def test_tool_that_raises_fails_and_the_episode_goes_on(environment: Environment) -> None:
    observation, _, terminated, _, info = environment.step(ToolAction("explode", {}))
    assert "RuntimeError: boom" in observation
    assert (terminated, info["ok"], info["confirmed"]) == (False, False, True)


def test_tool_that_hangs_fails_in_time_and_the_episode_goes_on(environment: Environment) -> None:
    observation, _, terminated, _, info = environment.step(ToolAction("wait", {}))
    assert "0.05 s" in observation
    assert (terminated, info["ok"]) == (False, False)
    for move in (LOOK, ON, Message("It is on.")):
        environment.step(move)
    assert environment.outcome.success
    assert (environment.outcome.tool_calls, environment.outcome.tool_calls_ok) == (3, 2)


def test_call_that_the_person_does_not_confirm_is_not_executed(environment: Environment) -> None:
    assert isinstance(environment.world, Room)
    environment.world.willing = False
    observation, *_ = environment.step(ToolAction("explode", {}))
    assert observation.startswith("Refused: ")
    assert environment.state()["explosions"] == 0


def test_result_of_five_megabytes_is_cut_and_it_is_said(environment: Environment) -> None:
    observation, *_ = environment.step(ToolAction("shout", {}))
    assert len(observation) < 100_000
    assert "5,000,000" in observation


def test_turn_with_two_calls_takes_both_in_order(environment: Environment) -> None:
    calls = (ToolCall("a", "look", "{}"), ToolCall("b", "switch", '{"name":"lamp","on":true}'))
    observation, *_ = environment.act(Turn("assistant", "One moment.", calls))
    assert observation == "the lamp is off\ndone"
    assert [turn.tool_call_id for turn in environment.turns if turn.role == "tool"] == ["a", "b"]


def test_calls_after_the_cut_count_as_failed_and_are_answered(environment: Environment) -> None:
    calls = tuple(ToolCall(str(i), "look", "{}") for i in range(7))
    *_, truncated, _ = environment.act(Turn("assistant", "", calls))
    assert truncated
    assert (environment.outcome.tool_calls, environment.outcome.tool_calls_ok) == (7, 5)
    assert sum(turn.role == "tool" for turn in environment.turns) == 7


def test_agent_that_calls_for_ever_is_cut_at_max_steps() -> None:
    outcome = play(lambda observation: LOOK, Switches().create_environment(TASK)).outcome
    assert outcome.steps == 5
    assert not outcome.success


def test_message_without_a_question_ends_the_episode_and_a_question_is_answered(
    environment: Environment,
) -> None:
    assert environment.step(Message("Now?"))[:1] == ("Yes.",)
    assert environment.step(Message("Bye."))[2]
    with pytest.raises(ResetNeeded):
        environment.step(LOOK)


def test_same_outcome_costs_more_with_more_words(environment: Environment) -> None:
    short = play(Switches().expert(TASK), Switches().create_environment(TASK)).outcome
    moves = iter([LOOK, ON, Message("It is on. " + "Thank you for your patience. " * 10)])
    long = play(lambda observation: next(moves), Switches().create_environment(TASK)).outcome
    assert short.success
    assert long.success
    assert long.reward < short.reward


def test_reward_outside_its_range_is_an_error_that_names_both() -> None:
    class Generous(Switches):
        """Pays too much."""

        def calculate_reward(self, state: State, action: Proposal, next_state: State) -> float:
            return 3.0

    started = Generous().create_environment(TASK)
    started.reset()
    with pytest.raises(ScenarioError, match=r"a reward of 3\.\n.*-1 to 1"):
        started.step(LOOK)


def test_unknown_split_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="train, held_out, unseen"):
        Switches().create_environment(split="test")


def test_trace_has_a_line_for_each_step_with_what_was_proposed_and_executed(tmp_path: Path) -> None:
    writer = trace.TraceWriter(tmp_path / "t.jsonl")
    played = Switches().create_environment(TASK, trace=writer, run="r", episode="e")
    moves = iter([ON, LOOK, ON, Message("It is on.")])
    play(lambda observation: next(moves), played)
    writer.close()
    rows: list[dict[str, Any]] = list(trace.read(tmp_path / "t.jsonl"))
    assert [row["verdict"] for row in rows] == ["refuse", "allow", "allow", "allow"]
    assert [row["executed"] is None for row in rows] == [True, False, False, False] or rows[3][
        "executed"
    ] is None
    assert rows[0]["observation"] == TASK.request
    assert rows[2]["observation"] == "the lamp is off"
    assert {row["run"] + row["episode"] for row in rows} == {"re"}
    assert sum(row["reward"] for row in rows) == pytest.approx(played.outcome.reward)
