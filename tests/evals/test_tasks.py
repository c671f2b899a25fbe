"""Every task file: an oracle gets full marks, a guesser stays at chance, ids do not depend on limits."""

from __future__ import annotations

from typing import Any

import pytest

from melete import find, settings
from melete.errors import ConfigError, DatasetError
from melete.evals import task as tasks
from melete.evals.echo import Guesser, Oracle
from melete.evals.model import ScoreRequest, ScoreResult
from melete.evals.task import FewShot, Task, TaskConfig, choose
from melete.records import ToolCall

MULTIPLE_CHOICE = ["arc_challenge", "arc_easy", "mmlu"]


def _open(name: str, seed: int = 0, **options: Any) -> Task:
    config = tasks.config_class(name)(**options)
    try:
        return tasks.open(name, config, settings.load(), seed)
    except DatasetError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", tasks.names())
def test_task_file_has_a_sentence_and_an_example_that_its_config_takes(name: str) -> None:
    assert find.first_sentence(find.folder_of(tasks.TASKS) / f"{name}.py").endswith((".", ",", "?"))
    example = find.load(tasks.TASKS, name, "evaluation task").EXAMPLE
    config = tasks.config_class(name)(**example)
    assert isinstance(config, TaskConfig)
    assert config.limit is not None


@pytest.mark.parametrize("name", tasks.names())
def test_oracle_gets_full_marks_on_every_task(name: str) -> None:
    task = _open(name, **find.load(tasks.TASKS, name, "evaluation task").EXAMPLE)
    items = task.evaluate(Oracle(task.solve(task.rows)), task.rows)
    perfect = 0.0 if name == "bits_per_byte" else 1.0
    assert {item.id for item in items} == {row.id for row in task.rows}
    assert [score.value for score in task.scores(items) if score.count] == pytest.approx(
        [perfect] * sum(score.count > 0 for score in task.scores(items))
    )


@pytest.mark.parametrize("name", MULTIPLE_CHOICE)
def test_guesser_is_within_the_interval_of_chance(name: str) -> None:
    task = _open(name, limit=400)
    (score,) = task.scores(task.evaluate(Guesser(seed=1), task.rows))
    assert score.count == 400
    assert score.low is not None
    assert score.high is not None
    assert score.low <= 0.25 <= score.high


@pytest.mark.slow
def test_guesser_has_a_core_near_zero_and_each_choice_task_near_its_chance() -> None:
    task = _open("core", limit=200)
    head, *groups = task.scores(task.evaluate(Guesser(seed=3), task.rows))
    # Chance of two tasks is given by DCLM as the most frequent answer, so a guesser is a little below zero.
    assert abs(head.value) < 0.08
    uniform = {
        "copa": 0.5,
        "winograd": 0.5,
        "winogrande": 0.5,
        "piqa": 0.5,
        "openbook_qa": 0.25,
        "hellaswag": 0.25,
    }
    for score in groups:
        chance = uniform.get(score.name.removeprefix("core/"))
        assert chance is None or (
            score.low is not None and score.low - 0.06 < chance < (score.high or 0) + 0.06
        )


def test_core_says_which_of_its_tasks_are_absent_and_which_is_a_subset() -> None:
    task = _open("core", limit=1)
    head, *groups = task.scores(task.evaluate(Guesser(), task.rows))
    assert "19 of 22" in head.note
    assert all(name in head.note for name in ("coqa", "jeopardy", "agi_eval_lsat_ar"))
    squad = next(score for score in groups if score.name == "core/squad")
    assert "subset" in squad.note


def test_core_prompt_is_examples_then_question_then_delimiter() -> None:
    task = _open("core", limit=1, groups=["arc_easy"])
    (request,) = task.solve(task.rows).continuations
    assert request.context.count("\nAnswer: ") == 11
    assert request.context.endswith("\nAnswer: ")
    assert request.continuation == task.rows[0].data["choices"][task.rows[0].data["gold"]]


def test_core_with_an_unknown_group_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="'copaa' is not a task of CORE"):
        _open("core", groups=["copaa"])


def test_limit_below_the_number_of_shots_leaves_the_examples_whole() -> None:
    task = _open("core", limit=1, groups=["bigbench_operators"])
    assert [len(row.shots) for row in task.rows] == [10]


def test_smaller_limit_is_a_part_of_a_larger_one() -> None:
    small, large = ({row.id for row in _open("arc_easy", limit=n).rows} for n in (5, 50))
    assert small < large


def test_choose_with_another_seed_draws_other_items() -> None:
    assert choose(1000, 10, 0, "a") != choose(1000, 10, 1, "a")
    assert choose(5, None, 0, "a") == [0, 1, 2, 3, 4]


def test_few_shot_examples_never_hold_the_item_itself() -> None:
    pool = [{"i": i} for i in range(12)]
    shots = FewShot(pool, 10, 0, "x")
    for i in range(12):
        examples = shots.examples(i)
        assert len(examples) == 10
        assert {"i": i} not in examples


class Cut(Guesser):
    """A guesser whose context is too short for everything."""

    def score(self, requests: Any) -> list[ScoreResult]:
        return [
            ScoreResult(r.logprob, r.greedy, r.tokens, r.bytes, cut=True) for r in super().score(requests)
        ]


def test_cut_prompts_are_counted_in_the_note() -> None:
    task = _open("arc_easy", limit=3)
    (score,) = task.scores(task.evaluate(Cut(), task.rows))
    assert "3 prompts cut" in score.note


def test_bits_per_byte_of_a_known_model_is_its_entropy() -> None:
    task = _open("bits_per_byte", limit=8, datasets=["stdlib"])

    class Uniform(Guesser):
        def score(self, requests: Any) -> list[ScoreResult]:
            sizes = [len(request.continuation.encode()) for request in requests]
            return [ScoreResult(-0.6931471805599453 * 8 * size, False, size, size) for size in sizes]

    (score,) = task.scores(task.evaluate(Uniform(), task.rows))
    assert score.value == pytest.approx(8.0)
    assert score.count == 8


def test_score_requests_of_one_question_share_their_context() -> None:
    task = _open("mmlu", limit=1)
    asked: list[ScoreRequest] = []

    class Listener(Guesser):
        def score(self, requests: Any) -> list[ScoreResult]:
            asked.extend(requests)
            return super().score(requests)

    task.evaluate(Listener(), task.rows)
    assert len({request.context for request in asked}) == 1
    assert [request.continuation for request in asked] == ["A", "B", "C", "D"]
    assert asked[0].context.count("Answer: ") == 6


TOOL = {
    "type": "function",
    "function": {
        "name": "set",
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "integer"}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["n"],
        },
    },
}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("set", '{"n": 3}', True),
        ("set", '{"unit": "C", "n": 3}', True),
        ("get", '{"n": 3}', False),
        ("set", "{}", False),
        ("set", '{"n": "3"}', False),
        ("set", '{"n": true}', False),
        ("set", '{"n": 3, "unit": "K"}', False),
        ("set", '{"n": 3, "other": 1}', False),
        ("set", "not json", False),
        ("set", "[3]", False),
    ],
)
def test_call_fits_a_tool_by_name_presence_type_and_enum(name: str, arguments: str, expected: bool) -> None:
    from melete.evals.tasks.toolcalls import fits

    assert fits(ToolCall("1", name, arguments), [TOOL]) is expected
