"""The scenario `star`: moments of human dialogues, what counts as the right call, and what the guard lets through."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.actions.action import Message, ToolAction
from melete.agents import scenario
from melete.agents.environment import Environment
from melete.agents.scenario import Malformed, Task, play
from melete.agents.scenarios.star import UNSEEN_TASKS, Star, guard_of, same_share
from melete.errors import ConfigError

VALUES = st.one_of(
    st.text("abAB ", max_size=4),
    st.integers(-3, 3),
    st.booleans(),
    st.lists(st.text("ab", max_size=2), max_size=2),
)
ARGUMENTS = st.dictionaries(st.sampled_from("pqrs"), VALUES, max_size=4)
DEFINITIONS: dict[str, dict[str, Any]] = {
    "hotel_search": {
        "input": [
            {"Name": "Cost", "Type": "Categorical", "Categories": ["Cheap", "Expensive"]},
            {"Name": "AverageRating", "Type": "Integer", "Min": 1, "Max": 5},
        ]
    }
}


@functools.cache
def loaded() -> Star:
    found = scenario.load("star")
    assert isinstance(found, Star)
    return found


@pytest.fixture
def star() -> Star:
    missing = loaded().unavailable()
    if missing:
        pytest.skip(missing)
    return loaded()


def start(star: Star, task: Task) -> Environment:
    environment = star.create_environment(task)
    environment.reset()
    return environment


def share_of(star: Star, task: Task, *moves: ToolAction | Message) -> float:
    environment = start(star, task)
    for move in moves:
        environment.step(move)
    return float(environment.state()["share"])


def call_with(star: Star, least: int, api: str = "") -> Task:
    """A task whose call, of this API if one is named, has at least so many arguments."""
    return next(
        task
        for task in star.tasks("held_out")
        if task.goal["call"]
        and len(task.goal["call"]["arguments"]) >= least
        and api in ("", task.goal["call"]["name"])
    )


def spoken(star: Star) -> Task:
    """A task in which the human agent spoke."""
    return next(task for task in star.tasks("held_out", 200) if task.goal["call"] is None)


def test_splits_hold_the_moments_that_the_docs_count(star: Star) -> None:
    counts = {split: len(moments) for split, moments in star.moments.items()}
    calls = {
        split: sum(bool(dialogue.turns[i].tool_calls) for dialogue, i in moments)
        for split, moments in star.moments.items()
    }
    dialogues = {split: len({dialogue.id for dialogue, _ in ms}) for split, ms in star.moments.items()}
    assert counts == {"train": 21046, "held_out": 2464, "unseen": 2593}
    assert calls == {"train": 16645, "held_out": 1966, "unseen": 2012}
    assert dialogues == {"train": 4449, "held_out": 503, "unseen": 583}


def test_no_dialogue_is_in_two_splits_and_no_unseen_api_is_ever_trained(star: Star) -> None:
    ids = {split: {dialogue.id for dialogue, _ in moments} for split, moments in star.moments.items()}
    assert not ids["train"] & ids["held_out"]
    assert not (ids["train"] | ids["held_out"]) & ids["unseen"]
    for split in ("train", "held_out"):
        offered = {api for dialogue, _ in star.moments[split] for api in dialogue.apis}
        assert not offered & UNSEEN_TASKS
    assert all(UNSEEN_TASKS & set(dialogue.apis) for dialogue, _ in star.moments["unseen"])


@pytest.mark.parametrize(("split", "count"), [("train", 1000), ("held_out", None), ("unseen", None)])
def test_expert_is_right_at_every_moment_under_the_guard(star: Star, split: str, count: int | None) -> None:
    wrong = []
    for task in star.tasks(split, count):
        outcome = play(star.expert(task), star.create_environment(task)).outcome
        if not outcome.success or outcome.tool_calls != outcome.tool_calls_ok:
            wrong.append(task.id)
    assert wrong == []


def test_right_call_returns_what_the_api_returned(star: Star) -> None:
    task = call_with(star, 1)
    gold = task.goal["call"]
    observation, *_ = start(star, task).step(ToolAction(gold["name"], gold["arguments"]))
    assert observation == task.goal["result"]


def test_call_is_worth_more_the_more_of_it_is_right(star: Star) -> None:
    task = call_with(star, 2, api="restaurant_search")
    gold = task.goal["call"]
    first, *_ = gold["arguments"]
    fewer = {key: value for key, value in gold["arguments"].items() if key != first}
    other = next(name for name in star.toolset.names if name != gold["name"])
    shares = [
        share_of(star, task, Message("One moment.")),
        share_of(star, task, ToolAction(other, {})),
        share_of(star, task, ToolAction(gold["name"], fewer)),
        share_of(star, task, ToolAction(gold["name"], gold["arguments"])),
    ]
    assert shares[:2] == [0.0, 0.0]
    assert 0.4 < shares[2] < 1.0
    assert shares[3] == 1.0


def test_call_with_other_arguments_fails_and_earns_a_part(star: Star) -> None:
    task = next(
        one for one in star.tasks("train", 400) if one.goal["call"] and one.goal["call"]["name"] == "trivia"
    )
    environment = start(star, task)
    number = task.goal["call"]["arguments"]["QuestionNum"]
    wrong = ToolAction("trivia", {"QuestionNum": 1 if number != 1 else 2})
    observation, reward, *_ = environment.step(wrong)
    assert "nothing is known" in observation
    assert environment.state()["share"] == pytest.approx(0.4)
    assert reward > share_of(star, task, Message("One moment."))
    assert not environment.outcome.success


def test_second_call_is_too_late_and_spoils_the_first(star: Star) -> None:
    task = call_with(star, 1)
    gold = ToolAction(task.goal["call"]["name"], task.goal["call"]["arguments"])
    environment = start(star, task)
    environment.step(gold)
    observation, _, _, truncated, _ = environment.step(gold)
    assert "the moment has passed" in observation
    assert truncated
    assert not environment.outcome.success


def test_right_call_after_one_that_could_not_be_read_is_not_right(star: Star) -> None:
    task = call_with(star, 1)
    environment = start(star, task)
    environment.step(Malformed("{"))
    environment.step(ToolAction(task.goal["call"]["name"], task.goal["call"]["arguments"]))
    assert environment.over
    assert not environment.outcome.success


def test_message_is_right_where_the_human_agent_spoke_and_a_call_is_not(star: Star) -> None:
    task = spoken(star)
    assert share_of(star, task, Message("How can I help?")) == 1.0
    assert share_of(star, task, Message("  ")) == 0.0
    assert share_of(star, task, ToolAction(task.goal["apis"][0], {})) == 0.0


def test_guard_refuses_an_api_of_another_task(star: Star) -> None:
    task = next(one for one in star.tasks("train", 200) if "weather" not in one.goal["apis"])
    environment = start(star, task)
    observation, _, _, _, info = environment.step(ToolAction("weather", {"Day": "Monday"}))
    assert info["verdict"] == "refuse"
    assert "weather is no API of this dialogue's tasks" in observation
    assert environment.outcome.policy_broken


def test_guard_holds_arguments_within_the_limits_of_their_api() -> None:
    from melete.actions.guard import Guard

    session = Guard.from_dict(guard_of(DEFINITIONS)).start({"hotel_search": True})
    verdicts = {
        str(arguments): session.judge(ToolAction("hotel_search", arguments)).verdict
        for arguments in (
            {"Cost": "Cheap", "AverageRating": 5},
            {"AverageRating": {"at_least": 3}},
            {"AverageRating": {"at_least": 9}},
            {"AverageRating": 9},
            {"Cost": "Free"},
            {"Cost": {"one_of": ["Cheap", "Expensive"]}},
            {"Cost": {"one_of": ["Cheap", "Free"]}},
        )
    }
    assert list(verdicts.values()) == ["allow", "allow", "refuse", "refuse", "refuse", "allow", "refuse"]


def test_request_shows_what_was_said_called_and_returned_before(star: Star) -> None:
    task = next(one for one in star.tasks("train", 400) if "\nResult: " in one.request)
    lines = task.request.splitlines()
    assert lines[0].startswith("APIs: ")
    called = next(i for i, line in enumerate(lines) if line.startswith("Call: "))
    assert lines[called + 1].startswith("Result: ")


def test_demonstrations_of_a_bad_day_are_wrong_as_often_as_asked(star: Star) -> None:
    right = 0
    for task in star.tasks("train", 120):
        if task.goal["call"]:
            policy = star.mistakes(task, star.expert(task), seed=1)
            right += play(policy, star.create_environment(task)).outcome.success
    assert right == 0


def test_unknown_split_is_refused_with_the_known_ones(star: Star) -> None:
    with pytest.raises(ConfigError, match="train, held_out, unseen"):
        star.tasks("test")


@given(ARGUMENTS, ARGUMENTS)
def test_same_share_is_symmetric_and_one_only_for_equal_arguments(one: Any, other: Any) -> None:
    share = same_share(one, other)
    assert 0 <= share <= 1
    assert share == same_share(other, one)
    assert same_share(one, one) == 1
    if one.keys() != other.keys():
        assert share < 1


def test_same_share_overlooks_case_spaces_and_the_order_of_choices() -> None:
    gold = {"Name": "Old Town  Inn", "City": {"one_of": ["Bonn", "Kiel"]}}
    assert same_share(gold, {"Name": "old town inn", "City": {"one_of": ["Kiel", "Bonn"]}}) == 1
    assert same_share({"Open": True}, {"Open": 1}) == 0


def test_scenario_without_its_data_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELETE_DATA", str(tmp_path))
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    absent = Star()
    assert "github.com/RasaHQ/STAR" in (absent.unavailable() or "")
    assert absent.toolset.schemas == ()


def test_split_has_no_more_tasks_than_the_data(star: Star) -> None:
    assert len(star.tasks("unseen", 10_000)) == 2593
    assert star.tasks("unseen", 2, start=2592) == star.tasks("unseen")[2592:]
