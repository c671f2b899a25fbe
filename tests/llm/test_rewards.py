"""Rewards: numbers compared as numbers, calls compared as JSON, and nothing short of the solution earns 1."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from melete import datasets
from melete.errors import DatasetError, UnknownNameError
from melete.llm import rewards
from melete.llm.calculator import calculate
from melete.llm.rewards import Problem
from melete.llm.rewards.toolcalls import call_score
from melete.records import Conversation, ToolCall, Turn
from melete.settings import Settings, load

SETTINGS: Settings = load()


def says(text: str) -> Turn:
    return Turn("assistant", text)


def calls(name: str, **arguments: object) -> ToolCall:
    return ToolCall("", name, json.dumps(arguments))


@pytest.mark.parametrize(
    "text",
    ["12", "12.", "12.0", "$12", "#### 12", "#### 12.", "#### 12.0", "####12.00 dollars", "so 3 + 9 = 12"],
)
def test_gsm8k_reward_of_the_right_number_however_written_is_one(text: str) -> None:
    problem = Problem(Conversation((Turn("user", "?"),)), Fraction(12))
    assert rewards.load("gsm8k", SETTINGS).reward(problem, [says(text)]) == 1.0


@pytest.mark.parametrize("text", ["", "none", "####", "12 is wrong, it is 13", "#### 13", "12.5", "120"])
def test_gsm8k_reward_of_another_number_is_zero(text: str) -> None:
    problem = Problem(Conversation((Turn("user", "?"),)), Fraction(12))
    assert rewards.load("gsm8k", SETTINGS).reward(problem, [says(text)]) == 0.0


def test_gsm8k_reward_compares_numbers() -> None:
    task = rewards.load("gsm8k", SETTINGS)
    problem = Problem(Conversation((Turn("user", "?"),)), Fraction(1200))
    assert task.reward(problem, [says("600 * 2 = 1200\n#### $1,200.00")]) == 1.0
    assert task.reward(problem, [says("#### 12")]) == 0.0


def test_gsm8k_problems_are_read_and_solved_by_their_own_answers() -> None:
    try:
        dataset = datasets.open("eval_gsm8k", SETTINGS)
    except (DatasetError, UnknownNameError) as error:
        pytest.skip(f"GSM8K is not at hand: {error}")
    task = rewards.load("gsm8k", SETTINGS)
    problems = task.problems("val")
    answers = [row["answer"] for row in dataset.rows("test")]
    assert sum(
        task.reward(problem, [says(answer)]) for problem, answer in zip(problems, answers, strict=True)
    ) == len(problems)


def test_calculator_problems_solved_by_calling_the_tool_earn_everything() -> None:
    task = rewards.load("calculator", SETTINGS)
    demonstrated = {c.turns[-1].content: c for c in datasets.open("toolcalls", SETTINGS).conversations("val")}
    problems = task.problems("val")
    assert len(problems) > 50
    for problem in problems[:20]:
        shown = next(
            c
            for c in demonstrated.values()
            if c.turns[: len(problem.conversation.turns)] == problem.conversation.turns
        )
        call = next(turn for turn in shown.turns if turn.tool_calls)
        result = Turn("tool", task.reply(problem, call.tool_calls[0]))
        assert task.reward(problem, [call, result, says(f"It is {result.content}.")]) == 1.0


def test_calculator_right_call_without_an_answer_earns_a_part() -> None:
    task = rewards.load("calculator", SETTINGS)
    problem = Problem(Conversation((Turn("user", "6 times 7?"),)), Fraction(42))
    call = Turn("assistant", "", (calls("calculator", expression="6 * 7"),))
    result = Turn("tool", task.reply(problem, call.tool_calls[0]))
    assert result.content == "42"
    assert 0 < task.reward(problem, [call, result, says("I do not know.")]) < 1
    assert 0 < task.reward(problem, [call, result, call]) < 1
    assert task.reward(problem, [says("It is 41.")]) == 0.0
    assert task.reward(problem, [says("42")]) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        calls("other", expression="1"),
        ToolCall("", "calculator", "{broken"),
        calls("calculator", expression=7),
        ToolCall("", "", "x"),
    ],
)
def test_calculator_wrong_call_is_answered_with_an_error_text(call: ToolCall) -> None:
    task = rewards.load("calculator", SETTINGS)
    assert task.reply(Problem(Conversation(()), None), call).startswith("error: ")
    assert calculate("6 * 7") == "42"


@pytest.mark.parametrize(
    ("proposed", "low", "high"),
    [
        ([calls("weather", city="Porto", day="today")], 1.0, 1.0),
        ([calls("weather", day="today", city="Porto")], 1.0, 1.0),
        ([calls("weather", city="Porto", day="tomorrow")], 0.3, 0.9),
        ([calls("weather", city="Porto")], 0.3, 0.9),
        ([calls("weather", city="Porto", day="today", more=1)], 0.3, 0.9),
        ([calls("weather")], 0.1, 0.3),
        ([ToolCall("", "weather", "{broken")], 0.0, 0.0),
        ([calls("forecast", city="Porto", day="today")], 0.0, 0.0),
        ([calls("weather", city="Porto", day="today")] * 2, 0.5, 0.5),
        ([], 0.0, 0.0),
    ],
)
def test_call_score_grows_with_what_is_right(proposed: list[ToolCall], low: float, high: float) -> None:
    assert low <= call_score(proposed, [calls("weather", city="Porto", day="today")]) <= high


def test_call_score_where_no_call_is_due_rewards_none() -> None:
    assert call_score([], []) == 1.0
    assert call_score([calls("weather")], []) == 0.0


def test_toolcalls_problems_solved_by_their_demonstrations_earn_everything() -> None:
    task = rewards.load("toolcalls", SETTINGS)
    problems = task.problems("val")
    assert {bool(problem.answer) for problem in problems} == {True, False}
    for problem in problems:
        assert task.reward(problem, [Turn("assistant", "", problem.answer)]) == 1.0


def test_task_by_a_wrong_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="calculator, gsm8k, toolcalls"):
        rewards.load("calculater", SETTINGS)
