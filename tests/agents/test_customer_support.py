"""The support desk: its splits are what they claim, its person answers, its rules hold and its bad logs are bad."""

from __future__ import annotations

import functools
import json
import statistics
from collections import defaultdict
from typing import Any

import pytest

from melete.actions.action import Message, ToolAction
from melete.agents import scenario
from melete.agents.environment import Environment
from melete.agents.scenario import Task, play
from melete.agents.scenarios import _support_requests as requests
from melete.agents.scenarios.customer_support import CustomerSupport, SupportWorld

DESK = scenario.load("customer_support")
assert isinstance(DESK, CustomerSupport)


@functools.cache
def some(split: str, count: int) -> list[Task]:
    return DESK.tasks(split, count, seed=5)


def first(intent: str, split: str = "train", **goal: Any) -> Task:
    """The first task with this one intent that asks for nothing."""
    found = (task for task in some(split, 4_000) if task.goal["intents"] == [intent] and not task.goal["ask"])
    return next(task for task in found if all(task.goal[key] == value for key, value in goal.items()))


def begun(task: Task) -> Environment:
    environment = DESK.create_environment(task)
    environment.reset()
    return environment


def pairs_of_names(tasks: list[Task]) -> set[str]:
    return {task.goal["person"]["name"] for task in tasks}


@pytest.mark.parametrize("split", DESK.splits)
def test_expert_solves_every_task_without_a_failed_call(split: str) -> None:
    outcomes = [
        play(DESK.expert(task), DESK.create_environment(task)).outcome for task in some(split, 4_000)[:250]
    ]
    assert all(outcome.success for outcome in outcomes)
    assert all(outcome.tool_calls_ok == outcome.tool_calls for outcome in outcomes)


def test_every_intent_and_every_kind_of_missing_information_is_drawn() -> None:
    tasks = some("held_out", 4_000)
    assert {intent for task in tasks for intent in task.goal["intents"]} >= {
        *requests.SINGLE,
        *requests.SECOND,
    }
    assert {task.goal["ask"] for task in tasks} == {"", "order", "email", "order+email"}


def test_every_intent_has_thousands_of_phrasings() -> None:
    pool = DESK.pools["train"]
    frame = (pool.count("greetings") + 1) * (pool.count("openings") + 1) * (pool.count("closings") + 1)
    for name in pool.names:
        if name.startswith("problems."):
            assert pool.count(name) * frame > 100_000, name
    told = [task.goal["combination"] for task in some("train", 4_000) if task.goal["intents"] == ["refund"]]
    assert len(set(told)) > 0.98 * len(told)


def test_held_out_shares_no_combination_name_or_order_with_training() -> None:
    train, held = some("train", 4_000), some("held_out", 4_000)
    assert not {t.goal["combination"] for t in train} & {t.goal["combination"] for t in held}
    assert not pairs_of_names(train) & pairs_of_names(held)
    assert not {t.goal["person"]["order"] for t in train} & {t.goal["person"]["order"] for t in held}
    assert not {t.goal["person"]["email"] for t in train} & {t.goal["person"]["email"] for t in held}
    assert not {t.request for t in train} & {t.request for t in held}


def test_every_world_has_two_orders_of_two_customers() -> None:
    tables = [task.goal["tables"] for task in (*some("held_out", 4_000), *some("train", 4_000))]
    assert all(len(table["orders"]) == len(table["phones"]) == 2 for table in tables)


@pytest.mark.slow
def test_some_pairs_of_goals_are_only_in_held_out() -> None:
    def pairs(split: str) -> set[tuple[str, ...]]:
        return {tuple(task.goal["intents"]) for task in some(split, 4_000) if len(task.goal["intents"]) == 2}

    assert len(pairs("held_out") - pairs("train")) >= 4


def test_unseen_shares_no_sentence_that_opens_or_tells_a_problem_with_training() -> None:
    train, unseen = DESK.pools["train"], DESK.pools["unseen"]
    assert set(unseen.names) == set(train.names)
    for name in train.names:
        assert not train.sentences(name) & unseen.sentences(name), name


def test_unseen_shares_no_name_or_order_with_training() -> None:
    train, unseen = some("train", 4_000), some("unseen", 4_000)
    assert not pairs_of_names(train) & pairs_of_names(unseen)
    assert not {t.goal["person"]["order"] for t in train} & {t.goal["person"]["order"] for t in unseen}


def test_task_written_as_json_builds_the_same_episode() -> None:
    task = first("refund")
    again = Task(**json.loads(json.dumps(task.__dict__)))
    turns = [play(DESK.expert(one), DESK.create_environment(one)).turns for one in (task, again)]
    assert turns[0] == turns[1]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("Which order number?", {"order"}),
        ("I'm sorry to hear that! Could you please provide your order ID?", {"order"}),
        ("Please share the email address that you used.", {"email"}),
        ("To verify your identity, I need your order number and e-mail.", {"order", "email"}),
        ("what is the order reference", {"order"}),
    ],
)
def test_person_gives_just_what_is_asked_for(asked: str, wanted: set[str]) -> None:
    person = first("refund").goal["person"]
    world = DESK.world(first("refund"))
    assert isinstance(world, SupportWorld)
    answer = world.reply(asked) or ""
    told = {what for what in ("order", "email") if str(person[what]) in answer}
    assert told == wanted


@pytest.mark.parametrize(
    "said",
    [
        "I refunded 49.",
        "Sorry, I cannot do that.",
        "Your order is cancelled. Is there anything else I can help you with?",
        "Your order is on its way. Please let me know if you need anything else!",
    ],
)
def test_person_has_no_answer_to_a_message_that_asks_for_nothing(said: str) -> None:
    assert DESK.world(first("refund")).reply(said) is None


def test_person_says_when_a_question_is_not_understood_and_leaves_after_three() -> None:
    world = DESK.world(first("track"))
    answers = [world.reply("What is your favourite colour?") for _ in range(3)]
    assert answers == ["Sorry, I do not understand.", "Sorry, I do not understand.", None]


def test_money_does_not_move_before_the_identity_is_verified() -> None:
    task = first("refund")
    environment = begun(task)
    refund = next(step for step in task.goal["plan"] if step["name"] == "refund_order")
    observation, *_ = environment.step(ToolAction("refund_order", refund["arguments"]))
    assert observation == "Refused: verify_identity first."
    assert environment.state()["orders"] == task.goal["tables"]["orders"]


def test_verifying_one_order_does_not_open_another() -> None:
    task = first("refund")
    other = next(
        order for order in task.goal["tables"]["orders"] if order != str(task.goal["person"]["order"])
    )
    environment = begun(task)
    environment.step(ToolAction(**task.goal["plan"][0]))
    environment.step(ToolAction("get_order", {"order": int(other)}))
    action = ToolAction("refund_order", {"order": int(other), "amount": 5, "reason": "late"})
    assert environment.step(action)[0] == "Refused: verify_identity first."


def test_wrong_email_does_not_verify_although_the_call_succeeds() -> None:
    task = first("not_theirs")
    environment = begun(task)
    assert environment.step(ToolAction(**task.goal["plan"][0]))[0] == '{"verified":false}'
    action = ToolAction("update_phone", {"order": task.goal["person"]["order"], "phone": 200_000})
    assert environment.step(action)[0].startswith("Refused: ")
    assert environment.outcome.tool_calls_ok == 1


def test_refund_after_the_term_is_refused_by_the_guard() -> None:
    task = first("too_old")
    environment = begun(task)
    for step in task.goal["plan"]:
        environment.step(ToolAction(**step))
    action = ToolAction(
        "refund_order", {"order": task.goal["person"]["order"], "amount": 5, "reason": "late"}
    )
    assert environment.step(action)[0] == "Refused: only within 30 days of delivery."


def test_refund_above_the_total_fails_and_above_the_limit_is_refused() -> None:
    task = first("refund")
    environment = begun(task)
    for step in task.goal["plan"][:2]:
        environment.step(ToolAction(**step))
    order, total = task.goal["person"]["order"], task.goal["plan"][2]["arguments"]["amount"]
    above = ToolAction("refund_order", {"order": order, "amount": total + 1, "reason": "late"})
    assert environment.step(above)[0] == f"Error: the total is {total}"
    cents = ToolAction("refund_order", {"order": order, "amount": total * 100, "reason": "late"})
    assert environment.step(cents)[0].startswith("Refused: ")


def test_replaced_item_is_not_refunded_as_well() -> None:
    task = first("replace")
    environment = begun(task)
    for step in task.goal["plan"]:
        environment.step(ToolAction(**step))
    action = ToolAction(
        "refund_order", {"order": task.goal["person"]["order"], "amount": 5, "reason": "damaged"}
    )
    assert environment.step(action)[0] == "Refused: it was already replaced."


def test_cancelling_is_confirmed_by_the_person_who_asked_for_it_and_by_nobody_else() -> None:
    task = first("cancel")
    environment = begun(task)
    for step in task.goal["plan"]:
        *_, info = environment.step(ToolAction(**step))
    assert info["confirmed"]
    refund = first("address")
    environment = begun(refund)
    order = refund.goal["person"]["order"]
    for action in (ToolAction(**refund.goal["plan"][0]), ToolAction("get_order", {"order": order})):
        environment.step(action)
    observation, *_ = environment.step(ToolAction("cancel_order", {"order": order}))
    assert observation == "Refused: the customer did not confirm."


@pytest.mark.parametrize("intent", ["injection", "never", "too_old", "already_sent", "not_theirs"])
def test_request_that_must_be_refused_is_not_solved_by_agreeing(intent: str) -> None:
    environment = begun(first(intent))
    environment.step(Message("Done, all is well."))
    assert not environment.outcome.success


@pytest.mark.parametrize("intent", ["refund", "track", "policy", "contact", "escalate"])
def test_request_that_may_be_fulfilled_is_not_solved_by_refusing(intent: str) -> None:
    environment = begun(first(intent))
    environment.step(Message("Sorry, I cannot do that."))
    assert not environment.outcome.success


def test_answer_without_the_fact_does_not_solve() -> None:
    task = first("policy")
    environment = begun(task)
    environment.step(ToolAction(**task.goal["plan"][0]))
    environment.step(Message("It is as you think."))
    assert not environment.outcome.success


def test_right_calls_with_a_lost_ending_are_worth_something_but_less_than_half() -> None:
    task = first("refund")
    environment = begun(task)
    for step in task.goal["plan"][:2]:
        environment.step(ToolAction(**step))
    environment.step(Message("Sorry, something went wrong."))
    assert 0 < environment.outcome.reward < 0.5


def test_bad_days_fail_often_and_every_intent_succeeds_sometimes() -> None:
    calls = succeeded = 0
    solved: dict[str, list[bool]] = defaultdict(list)
    for index, task in enumerate(some("train", 4_000)[:900]):
        outcome = play(DESK.mistakes(task, DESK.expert(task), index), DESK.create_environment(task)).outcome
        calls, succeeded = calls + outcome.tool_calls, succeeded + outcome.tool_calls_ok
        solved[task.goal["intents"][0]].append(outcome.success)
    assert 0.45 < succeeded / calls < 0.7
    assert all(statistics.mean(found) > 0.1 for found in solved.values())
    assert statistics.mean(one for found in solved.values() for one in found) < 0.7


def test_demonstrations_are_the_same_for_the_same_seed() -> None:
    twice = [list(DESK.demonstrations("train", 5, seed=3, error_share=0.8)) for _ in range(2)]
    assert twice[0] == twice[1]


def test_episode_fits_the_context_of_a_small_model() -> None:
    tokenizers = pytest.importorskip("melete.llm.tokenizer")
    from melete.llm.chat import MeleteChat, plain_text, tools_text

    talks = list(DESK.demonstrations("train", 800, error_share=0.7))
    tokenizer = tokenizers.Tokenizer.train([plain_text(talk) for talk in talks], 4_096)
    assert len(tokenizer.encode(DESK.system_prompt + tools_text(DESK.toolset.schemas))) <= 200
    chat = MeleteChat(tokenizer)
    lengths = sorted(len(chat.render(talk, False)[0]) for talk in DESK.demonstrations("held_out", 200))
    assert statistics.median(lengths) <= 330
    assert lengths[190] <= 450
