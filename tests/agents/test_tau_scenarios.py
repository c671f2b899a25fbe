"""tau-bench's scenarios as they are played: expert, guard, scripted customer, and what counts as solved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from melete import datasets
from melete.actions.action import Message, ToolAction
from melete.agents import scenario
from melete.agents.environment import Environment
from melete.agents.scenario import play
from melete.agents.scenarios._tau import data, person
from melete.agents.scenarios._tau.scenario import TauScenario
from melete.agents.scenarios.tau_airline import TauAirline
from melete.errors import ConfigError, DatasetError

SPLITS = [("retail", "train"), ("retail", "held_out"), ("retail", "unseen"), ("airline", "unseen")]
FIND_OMAR = ToolAction(
    "find_user_id_by_name_zip", {"first_name": "Omar", "last_name": "Anderson", "zip": "19031"}
)
OMARS_ORDER = ToolAction("get_order_details", {"order_id": "#W6067464"})
OMARS_RETURN = ToolAction(
    "return_delivered_order_items",
    {
        "order_id": "#W6067464",
        "item_ids": ["9624127908", "8917609800"],
        "payment_method_id": "credit_card_4190576",
    },
)


def opened(name: str) -> TauScenario:
    found = scenario.load(f"tau_{name}")
    assert isinstance(found, TauScenario)
    missing = found.unavailable()
    if missing:
        pytest.skip(missing)
    return found


@pytest.fixture
def omar() -> Environment:
    """The first training task: Omar Anderson returns a kettle and a clock."""
    shop = opened("retail")
    environment = shop.create_environment(shop.tasks("train", 1)[0])
    environment.reset()
    return environment


def step(environment: Environment, action: ToolAction | Message) -> tuple[str, dict[str, Any]]:
    observation, _, _, _, info = environment.step(action)
    return observation, info


def shape(schema: Any) -> Any:
    """A JSON schema without its descriptions."""
    if isinstance(schema, dict):
        return {key: shape(one) for key, one in schema.items() if key != "description"}
    return schema


@pytest.mark.parametrize("name", ["retail", "airline"])
def test_tools_take_the_arguments_that_the_schemas_in_the_data_name(name: str) -> None:
    shop = opened(name)
    theirs = [row["function"] for row in datasets.open(data.DATASET).rows(f"{name}_tools")]
    ours = {one["function"]["name"]: one["function"]["parameters"] for one in shop.toolset.schemas}
    assert len(ours) == {"retail": 16, "airline": 14}[name]
    expected = {one["name"]: shape(one["parameters"]) for one in theirs}
    for tool, parameters in ours.items():
        described = {key: shape(value) for key, value in parameters["properties"].items()}
        assert described == expected[tool]["properties"], tool
        assert parameters.get("required", []) == expected[tool]["required"]
    assert set(ours) == set(expected)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_expert_solves_every_task_under_the_guard(name: str, split: str) -> None:
    shop = opened(name)
    unsolved = []
    for task in shop.tasks(split):
        outcome = play(shop.expert(task), shop.create_environment(task, split)).outcome
        if not outcome.success or outcome.refused or outcome.tool_calls != outcome.tool_calls_ok:
            unsolved.append((task.id, outcome))
    assert unsolved == []


def test_guard_refuses_to_read_before_the_customer_is_found(omar: Environment) -> None:
    observation, info = step(omar, OMARS_ORDER)
    assert info["verdict"] == "refuse"
    assert "authenticate the user identity" in observation
    assert omar.outcome.policy_broken


def test_guard_refuses_a_change_to_an_order_that_was_not_read(omar: Environment) -> None:
    step(omar, FIND_OMAR)
    observation, info = step(omar, OMARS_RETURN)
    assert info["verdict"] == "refuse"
    assert "You should check its status" in observation


def test_guard_refuses_the_profile_of_another_user(omar: Environment) -> None:
    step(omar, FIND_OMAR)
    observation, info = step(omar, ToolAction("get_user_details", {"user_id": "noah_brown_6181"}))
    assert info["verdict"] == "refuse"
    assert "any other user" in observation


def test_change_that_the_customer_wants_is_carried_out(omar: Environment) -> None:
    step(omar, FIND_OMAR)
    step(omar, OMARS_ORDER)
    observation, info = step(omar, OMARS_RETURN)
    assert info["ok"]
    assert "return requested" in observation


def test_change_that_the_customer_does_not_want_is_refused_and_changes_nothing(omar: Environment) -> None:
    step(omar, FIND_OMAR)
    step(omar, OMARS_ORDER)
    fewer = ToolAction(OMARS_RETURN.name, {**OMARS_RETURN.arguments, "item_ids": ["9624127908"]})
    observation, info = step(omar, fewer)
    assert info["verdict"] == "ask"
    assert "explicit user confirmation" in observation
    assert omar.state()["changed"] == {}


def test_order_whose_items_were_changed_cannot_be_changed_again() -> None:
    shop = opened("retail")
    guard = shop.guard.start({"user_id": "somebody"})
    items = {"order_id": "#W1", "item_ids": ["1"], "new_item_ids": ["2"], "payment_method_id": "paypal_1"}
    for action in (FIND_OMAR, ToolAction("get_order_details", {"order_id": "#W1"})):
        guard.record(action, True, {})
    guard.record(ToolAction("modify_pending_order_items", items), True, {})
    judgement = guard.judge(
        ToolAction("cancel_pending_order", {"order_id": "#W1", "reason": "no longer needed"})
    )
    assert judgement.verdict == "refuse"
    assert any("not be able to modify or cancel" in reason for reason in judgement.reasons)


def test_certificate_of_an_amount_that_the_policy_does_not_know_is_refused() -> None:
    guard = opened("airline").guard.start({"user_id": "mia_li_3668"})
    judgement = guard.judge(ToolAction("send_certificate", {"user_id": "mia_li_3668", "amount": 1000}))
    assert judgement.verdict == "refuse"
    assert "$50 times the number of passengers" in judgement.reasons[0]


def test_customer_tells_who_they_are_only_when_asked(omar: Environment) -> None:
    assert "19031" not in omar.turns[0].content
    observation, _ = step(omar, Message("Hello! What is your zip code?"))
    assert observation == "I am Omar Anderson and my zip code is 19031. I do not remember my email."


def test_customer_names_items_by_their_options_and_not_by_their_ids(omar: Environment) -> None:
    observation, _ = step(omar, Message("What can I do for you?"))
    assert "Electric Kettle (capacity" in observation
    assert "9624127908" not in observation


def test_task_is_unsolved_while_the_database_differs_in_another_order() -> None:
    shop = opened("retail")
    task = shop.tasks("train", 1)[0]
    environment = play(shop.expert(task), shop.create_environment(task))
    state = environment.state()
    assert shop.success(state)
    orders = data.tables("retail", shop.tables)["orders"]
    state["changed"]["orders"]["#W2611340"] = {**orders["#W2611340"], "status": "cancelled"}
    assert not shop.success(state)


def test_task_with_an_output_is_unsolved_until_it_is_said() -> None:
    shop = opened("retail")
    task = next(task for task in shop.tasks("unseen") if task.goal["outputs"] and not task.goal["changes"])
    environment = shop.create_environment(task, "unseen")
    environment.reset()
    for _ in range(25):
        _, _, terminated, truncated, _ = environment.step(Message("I am looking into it."))
        if terminated or truncated:
            break
    assert environment.outcome.criteria == {"database": True, "outputs": False, "answered": True}
    assert not environment.outcome.success


@pytest.mark.parametrize(
    ("message", "wanted", "said"),
    [
        ("That makes $3,646.68 in total.", "3646.68", True),
        ("It is 180.10 dollars.", "180.1", True),
        ("There are 100 of them.", "10", False),
        ("It is made of Cotton.", "cotton", True),
        ("I do not know.", "cotton", False),
    ],
)
def test_says_compares_numbers_by_value_and_words_by_spelling(message: str, wanted: str, said: bool) -> None:
    assert person.says(message, wanted) is said


def test_request_is_said_in_the_first_person_without_name_and_character() -> None:
    instruction = (
        "Your name is Ada Day and your zip code is 12345. You are busy, shy. You want your order sent to you."
    )
    assert person.request(instruction) == "I want my order sent to me."


def test_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Splits: unseen"):
        opened("airline").tasks("train")


def test_scenario_without_its_data_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELETE_DATA", str(tmp_path))
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    shop = TauAirline()
    assert "github.com/sierra-research/tau-bench" in (shop.unavailable() or "")
    data.rows.cache_clear()
    with pytest.raises(DatasetError, match="not on this machine"):
        shop.tasks("unseen")


def test_expert_in_a_hurry_forgets_a_call_and_breaks_the_policy_or_the_goal() -> None:
    shop = opened("retail")
    outcomes = []
    for seed, task in enumerate(shop.tasks("train", 30)):
        policy = shop.mistakes(task, shop.expert(task), seed)
        outcomes.append(play(policy, shop.create_environment(task)).outcome)
    assert sum(outcome.success for outcome in outcomes) < len(outcomes) / 2
    assert any(outcome.policy_broken for outcome in outcomes)


def test_split_has_no_more_tasks_than_the_data() -> None:
    shop = opened("retail")
    assert len(shop.tasks("held_out", 1_000)) == 20
    assert shop.tasks("held_out", 5, start=20) == []


def test_customer_whose_wish_cannot_be_granted_insists_before_giving_up() -> None:
    shop = opened("airline")
    task = next(
        task for task in shop.tasks("unseen") if not task.goal["changes"] and not task.goal["outputs"]
    )
    environment = shop.create_environment(task)
    environment.reset()
    answers = [step(environment, Message("I am sorry, this cannot be done."))[0] for _ in range(3)]
    assert [answer.startswith("I insist.") for answer in answers] == [True, True, False]
    assert environment.outcome.success


def test_customer_does_not_take_news_of_an_email_for_a_question(omar: Environment) -> None:
    step(omar, Message("Please tell me your zip code."))
    for action in (FIND_OMAR, OMARS_ORDER, OMARS_RETURN):
        step(omar, action)
    step(omar, Message("Done. You will receive an email about how to return the items."))
    assert omar.outcome.success
