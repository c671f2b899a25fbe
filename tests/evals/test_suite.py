"""Suites and their run: strict files, skipped tasks that say why, chunks that can stop and go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from melete import settings
from melete.errors import ConfigError, UnknownNameError
from melete.evals import run, suite
from melete.evals.echo import Guesser
from melete.evals.run import TaskResult
from melete.evals.table import show
from melete.settings import Settings


def _without_data(tmp_path: Path) -> Settings:
    return settings.load({"MELETE_HOME": str(tmp_path), "MELETE_DATA": str(tmp_path / "none")}, cwd=tmp_path)


@pytest.mark.parametrize("name", suite.names())
def test_suite_file_loads_and_has_a_description(name: str) -> None:
    loaded = suite.load(name)
    assert loaded.description.endswith(".")
    assert loaded.tasks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: {}", "task: unknown key"),
        ("description: a.\ntasks: {coree: {}}", "tasks.coree: There is no evaluation task named 'coree'"),
        ("description: a.\ntasks: {core: {limits: 2}}", "tasks.core.limits: Extra inputs are not permitted"),
        (
            "description: a.\ntasks: {core: {limit: none}}",
            "tasks.core.limit: Input should be a valid integer",
        ),
        ("description: a.\ntasks: {core: 3}", "tasks.core: options are a mapping, found 3"),
        ("description: a.\ntasks: []", "tasks: a mapping of task name to options is needed"),
        ("tasks: {core: {}}", "description: a sentence is needed"),
        ("- core", "a suite is a mapping"),
        ("a: [", "the suite cannot be read"),
    ],
)
def test_suite_file_that_is_wrong_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        suite.load(str(path))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_unknown_suite_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)'smoek'.*Did you mean 'smoke'"):
        suite.load("smoek")


def test_task_without_its_dataset_is_skipped_with_the_reason_and_the_way(tmp_path: Path) -> None:
    results = run.evaluate(Guesser(), ["mmlu", "toolcalls"], settings=_without_data(tmp_path), limit=3)
    skipped, ran = results
    assert "eval_mmlu" in skipped.skipped
    assert "MELETE_DATA" in skipped.skipped
    assert ran.complete
    text = show("guesser", "two", results)
    assert "skipped" in text
    assert "toolcalls/restraint" in text


def test_loop_that_ends_early_scores_what_was_asked_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHUNK", 4)
    (result,) = run.evaluate(
        Guesser(),
        ["toolcalls"],
        settings=_without_data(tmp_path),
        limit=10,
        loop=lambda total: range(total)[:1],
    )
    assert not result.complete
    assert result.items == 4
    assert all(f"ended early: 4 of {result.total} items" in score.note for score in result.scores)


def test_task_that_an_early_end_left_out_has_no_score_and_is_shown(tmp_path: Path) -> None:
    results = run.evaluate(
        Guesser(),
        ["toolcalls", "bits_per_byte"],
        settings=_without_data(tmp_path),
        limit=2,
        loop=lambda _: range(1),
    )
    assert results[0].complete
    assert results[1].scores == []
    assert not results[1].complete
    assert "not reached" in show("guesser", "two", results)


def test_task_that_is_done_is_not_asked_again(tmp_path: Path) -> None:
    told: list[str] = []
    results = run.evaluate(
        Guesser(),
        ["toolcalls", "bits_per_byte"],
        settings=_without_data(tmp_path),
        limit=2,
        done={"toolcalls": TaskResult("toolcalls", items=5, total=5)},
        finished=lambda result, items: told.append(result.task),
    )
    assert told == ["bits_per_byte"]
    assert [result.task for result in results] == ["toolcalls", "bits_per_byte"]


def test_same_seed_gives_the_same_scores(tmp_path: Path) -> None:
    once, again = (
        run.evaluate(Guesser(), ["toolcalls"], settings=_without_data(tmp_path), limit=5, seed=7)[0].scores
        for _ in range(2)
    )
    assert once == again
