"""References to runs and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from melete.errors import CheckpointError, UnknownNameError
from melete.runs import checkpoints, folder, refs
from melete.settings import Settings


def make(
    home: Settings, name: str | None = None, kind: str = "trial", steps: tuple[int, ...] = (2, 4)
) -> Path:
    path, _ = folder.create(home, "trial.count", name=name)
    for step in steps:
        checkpoints.save(
            path / "checkpoints", kind=kind, step=step, config={}, tensors={}, side_files={"a": b"x"}
        )
    return path


def test_checkpoint_by_id_prefix_name_path_or_latest_is_the_newest_step(home: Settings) -> None:
    run = make(home, name="best")
    newest = run / "checkpoints" / "step_00000004"
    for ref in (run.name, run.name[:-1], "best", str(newest), str(run), "latest"):
        assert refs.checkpoint(home, ref) == newest


def test_checkpoint_with_a_step_is_that_one(home: Settings) -> None:
    run = make(home, name="best")
    assert refs.checkpoint(home, "best:2") == run / "checkpoints" / "step_00000002"


def test_checkpoint_of_a_step_that_does_not_exist_lists_the_steps(home: Settings) -> None:
    make(home, name="best")
    with pytest.raises(CheckpointError, match="Steps: 2, 4"):
        refs.checkpoint(home, "best:3")


def test_name_of_two_runs_is_the_newest(home: Settings) -> None:
    make(home, name="best")
    second = make(home, name="best")
    assert refs.run(home, "best") == second


def test_name_of_a_step_in_a_job_is_the_run_that_executed_it(home: Settings) -> None:
    path, _ = folder.create(home, "trial.count", job="j", step_name="base")
    folder.create(home, "trial.count", job="j", step_name="chat")
    assert refs.run(home, "base") == path


def test_beginning_of_two_runs_is_an_error_that_lists_them(home: Settings) -> None:
    first, second = make(home), make(home)
    with pytest.raises(UnknownNameError, match="More than one run") as caught:
        refs.run(home, "2")
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)


def test_latest_skips_checkpoints_of_other_kinds(home: Settings) -> None:
    model = make(home, kind="llm")
    make(home, kind="tokenizer")
    assert refs.checkpoint(home, "latest", kinds=("llm",)).parent.parent == model


def test_checkpoint_of_another_kind_says_which_is_needed(home: Settings) -> None:
    run = make(home, kind="tokenizer")
    with pytest.raises(CheckpointError, match=r"kind 'tokenizer'(.|\n)*Needed here: llm"):
        refs.checkpoint(home, run.name, kinds=("llm",))


def test_unknown_run_answers_with_the_closest(home: Settings) -> None:
    make(home, name="baseline")
    with pytest.raises(UnknownNameError, match="Did you mean 'baseline'"):
        refs.run(home, "basline")


@pytest.mark.parametrize("ref", ["latest", "x"])
def test_reference_in_an_empty_home_is_an_error(home: Settings, ref: str) -> None:
    with pytest.raises((UnknownNameError, CheckpointError)):
        refs.checkpoint(home, ref)


def test_run_without_a_checkpoint_says_so(home: Settings) -> None:
    run = make(home, steps=())
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        refs.checkpoint(home, run.name)
