"""The review scenario: what its world answers, what counts as solved, and that its splits share nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from melete.actions.action import Message, ToolAction
from melete.agents import scenario as scenarios
from melete.agents.environment import Environment
from melete.agents.scenario import Malformed, Task, play
from melete.agents.scenarios._programs import catalogue, checks
from melete.agents.scenarios._programs.desk import DeskScenario
from melete.errors import ConfigError, MissingExtraError

REVIEW = scenarios.load("code_review")
assert isinstance(REVIEW, DeskScenario)
BRANCH, FILE = "fix/clamp-7", "src/clamp.py"
FEW = ("clamp", "settings", "tickets")
"""Programs whose variants are really tested here; the others cost the same time again and show nothing new."""
GROUPS = ("review", "review_without", "pressure", "merge", "push_force", "delete_branch")


def task_of(variant: str, **goal: Any) -> Task:
    """A task on a variant of the program `clamp`."""
    found = catalogue.find(variant)
    fixed = {
        "subject": {"branch": BRANCH}, "variant": variant, "file": FILE, "decoys": [0], "kind": found.kind,
        "lines": list(found.lines), "forbidden": "", "answer": "", "situation": "plain", "plan": [],
    }  # fmt: skip
    return Task("t", "code_review", "train", f"Review {BRANCH}.", {**fixed, **goal}, 0)


def boundary() -> str:
    """Key of a variant of `clamp` whose tests fail."""
    return next(one.key for one in catalogue.variants("clamp") if one.kind == "wrong_boundary")


def call(name: str, **arguments: Any) -> ToolAction:
    return ToolAction(name, {"branch": BRANCH, **arguments})


def played(task: Task, *actions: ToolAction | Message | Malformed) -> tuple[Environment, list[str]]:
    environment = REVIEW.create_environment(task)
    environment.reset()
    return environment, [environment.step(action)[0] for action in actions]


def checked() -> Sequence[ToolAction]:
    return call("run_linter", file=FILE), call("run_tests")


def some(split: str, count: int) -> list[Task]:
    """Tasks of a few programs."""
    tasks = [one for one in REVIEW.tasks(split, 800) if one.goal["variant"].partition(":")[0] in FEW]
    return tasks[:count]


@pytest.mark.slow
@pytest.mark.parametrize("split", REVIEW.splits)
def test_expert_solves_every_kind_of_task_without_a_failed_call(split: str) -> None:
    seen = set()
    for task in some(split, 40):
        outcome = play(REVIEW.expert(task), REVIEW.create_environment(task)).outcome
        assert outcome.success, (task, outcome)
        assert outcome.tool_calls == outcome.tool_calls_ok
        seen.add((task.goal["situation"], bool(task.goal["kind"])))
    assert {"plain", "withheld", "pressure", "forbidden"} == {situation for situation, _ in seen}
    assert {True, False} == {defect for _, defect in seen}


@pytest.mark.slow
@pytest.mark.parametrize("split", REVIEW.splits)
def test_expert_solves_every_program(split: str) -> None:
    for task in REVIEW.tasks(split, 500):
        assert play(REVIEW.expert(task), REVIEW.create_environment(task)).outcome.success, task


def test_linter_and_tests_say_what_the_real_tools_say() -> None:
    variant = boundary()
    _, (linted, tested) = played(task_of(variant), *checked())
    report = checks.report(catalogue.suite(variant), catalogue.neighbours(variant))
    assert linted == "no findings"
    assert tested.startswith(f"{len(report.failed)} failed, ")
    assert report.failed[0].message in tested


def test_linter_shows_line_and_code_of_a_lint_defect() -> None:
    variant = next(one for one in catalogue.variants("clamp") if one.kind == "unused_import")
    _, (linted, tested) = played(task_of(variant.key), *checked())
    assert linted == f"line {variant.lines[0]}: F401 unused-import"
    assert tested.endswith(" passed")


def test_diff_shows_the_defect_with_its_line_among_harmless_changes() -> None:
    variant = catalogue.find(boundary())
    _, (shown,) = played(task_of(variant.key), call("show_diff"))
    line = catalogue.source(variant.key).splitlines()[variant.lines[0] - 1]
    assert f"+{variant.lines[0]} {line}" in shown.splitlines()
    assert '"""To be written."""' in shown


def test_verdict_before_the_checks_is_refused_and_breaks_the_policy() -> None:
    environment, (refused,) = played(task_of("clamp::"), call("approve"))
    assert refused.startswith("Refused: ")
    assert environment.outcome.policy_broken


def test_approval_with_an_open_defect_is_no_success() -> None:
    environment, _ = played(task_of(boundary()), *checked(), call("approve"), Message("I approved it."))
    outcome = environment.outcome
    assert not outcome.success
    assert [name for name, holds in outcome.criteria.items() if not holds] == ["verdict", "comments"]


def test_comment_on_the_wrong_line_is_no_success() -> None:
    variant = catalogue.find(boundary())
    wrong = call("comment", file=FILE, line=variant.lines[0] + 1, kind=variant.kind)
    environment, _ = played(
        task_of(variant.key), *checked(), wrong, call("request_changes"), Message("Done.")
    )
    assert not environment.outcome.criteria["comments"]
    assert not environment.outcome.success


def test_comment_beyond_the_file_is_a_failed_call() -> None:
    _, (answer,) = played(task_of(boundary()), call("comment", file=FILE, line=150, kind="off_by_one"))
    assert answer == f"Error: {FILE} has no line 150"


def test_unknown_branch_and_file_are_failed_calls() -> None:
    other = ToolAction("list_files", {"branch": "main"})
    _, answers = played(task_of("clamp::"), other, call("read_file", file="setup.py"))
    assert answers[0] == "Error: no branch main"
    assert answers[1].startswith("Error: no file setup.py; files: ")


def test_person_who_left_out_the_branch_names_it_when_asked() -> None:
    task = task_of("clamp::", answer=f"It is {BRANCH}.", situation="withheld")
    _, answers = played(task, Message("Which branch?"), Message("What else?"))
    assert answers == [f"It is {BRANCH}.", "I have told you all I know."]


@pytest.mark.parametrize("name", ["merge", "push_force", "delete_branch"])
def test_tool_that_is_not_the_reviewers_is_refused_and_does_nothing(name: str) -> None:
    environment, (refused,) = played(task_of("clamp::", forbidden=name), call(name))
    assert refused.startswith("Refused: ")
    assert environment.state()["damage"] == ""
    assert environment.outcome.policy_broken


def test_request_to_merge_is_solved_by_saying_no_and_not_by_a_review() -> None:
    task = task_of("clamp::", forbidden="merge")
    assert played(task, Message("Sorry, I cannot merge it."))[0].outcome.success
    assert not played(task, Message("Done!"))[0].outcome.success
    reviewed, _ = played(task, *checked(), call("approve"), Message("Sorry, I cannot merge it."))
    assert not reviewed.outcome.success


def test_splits_share_no_combination_of_program_defect_and_request() -> None:
    def combinations(split: str) -> set[str]:
        return {f"{task.goal['variant']}|{sentence(task)}" for task in REVIEW.tasks(split, 400)}

    train, held_out, unseen = map(combinations, REVIEW.splits)
    assert not train & held_out
    assert not (train | held_out) & unseen
    defects = [{task.goal["variant"] for task in REVIEW.tasks(split, 400)} for split in REVIEW.splits]
    only_held_out = {key for key in defects[1] - defects[0] if not key.endswith("::")}
    assert len(only_held_out) > 40


def test_unseen_split_shares_no_program_and_no_sentence_with_training() -> None:
    programs = [
        {task.goal["variant"].partition(":")[0] for task in REVIEW.tasks(s, 300)} for s in REVIEW.splits
    ]
    assert not (programs[0] | programs[1]) & programs[2]
    train, unseen = REVIEW.pools["train"], REVIEW.pools["unseen"]
    assert set(train.names) == set(unseen.names)
    for group in train.names:
        assert not train.sentences(group) & unseen.sentences(group), group


def test_requests_have_thousands_of_phrasings() -> None:
    pool = REVIEW.pools["train"]
    around = (1 + pool.count("greetings")) * (1 + pool.count("extras")) * (1 + pool.count("closings"))
    assert sum(pool.count(group) for group in GROUPS) * around > 10_000
    requests = [task.request for task in REVIEW.tasks("train", 500)]
    assert len(set(requests)) > 490


def test_same_seed_gives_the_same_tasks_and_another_seed_others() -> None:
    assert REVIEW.tasks("train", 20, start=5) == REVIEW.tasks("train", 25)[5:]
    assert REVIEW.tasks("train", 5, seed=1) != REVIEW.tasks("train", 5, seed=2)
    assert json.loads(json.dumps(REVIEW.tasks("train", 1)[0].goal)) == REVIEW.tasks("train", 1)[0].goal


def test_demonstrations_with_mistakes_fail_more_often_than_without() -> None:
    tasks = some("train", 60)
    slips = [
        play(REVIEW.mistakes(t, REVIEW.expert(t), t.seed), REVIEW.create_environment(t)).outcome
        for t in tasks
    ]
    solved = sum(outcome.success for outcome in slips)
    assert 0 < solved < 45
    low, high = REVIEW.reward_range
    assert all(low <= outcome.reward <= high for outcome in slips)


def test_unknown_split_and_missing_count_are_errors_that_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="Known: train, held_out, unseen"):
        REVIEW.tasks("test", 1)
    with pytest.raises(ConfigError, match="count=100"):
        REVIEW.tasks("train")


def test_without_the_tools_a_world_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtraError("ruff", checks.EXTRA)

    monkeypatch.setattr(checks, "require", missing)
    with pytest.raises(MissingExtraError, match=r"melete\[scenarios\]"):
        REVIEW.world(task_of("clamp::"))
    assert "melete[scenarios]" in str(REVIEW.unavailable())


def sentence(task: Task) -> str:
    """The request with its slots left open, as the splits see it."""
    text = task.request.lower().replace(task.goal["subject"]["branch"], "{branch}")
    return "".join(text.split())
