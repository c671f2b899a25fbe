"""Executing a process: how a run ends, what its folder keeps, how it is resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from melete.errors import ConfigError, RunStateError, StorageError, TrainingError, UnknownNameError
from melete.jobs.execute import Options, execute, read_config, resume
from melete.records import RunRecord, RunState
from melete.runs import checkpoints, folder
from melete.runs.lines import read_json_lines
from melete.settings import Settings
from trial_runs import TRIAL, started_run


def count(home: Settings, **values: Any) -> RunRecord:
    return execute("trial.count", values, Options(home))


def only_run(home: Settings) -> Path:
    (run_id,) = folder.ids(home.runs)
    return home.runs / run_id


def losses(path: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_json_lines(path / "metrics.jsonl")]


def test_execute_keeps_everything_that_the_run_was(home: Settings) -> None:
    record = execute("trial.count", {"steps": 3, "save_every": 2}, Options(home, name="first"))
    path = only_run(home)
    assert folder.read(path) == record
    assert (record.state, record.name, record.result["steps"]) == (RunState.SUCCEEDED, "first", 3)
    assert yaml.safe_load((path / "config.yaml").read_text())["rate"] == 0.5
    assert [step for step, _ in losses(path)] == [1, 2, 3]
    assert [p.name for p in sorted((path / "checkpoints").iterdir())] == ["step_00000002", "step_00000003"]
    provenance = json.loads((path / "provenance.json").read_text())
    assert provenance["datasets"] == {"trial": "0" * 64}
    assert provenance["seed"] == 1337
    assert set(provenance["sittings"][0]) >= {"argv", "code", "python", "platform", "machine", "packages"}
    assert json.loads((path / "plan.json").read_text())[0]["reason"] == "steps times rate"
    assert "</html>" in (path / "report.html").read_text()
    assert not list(path.glob(".*"))


def test_execute_twice_with_one_seed_gives_the_same_figures(home: Settings) -> None:
    count(home, steps=4)
    count(home, steps=4)
    count(home, steps=4, seed=2)
    first, second, third = (losses(home.runs / run_id) for run_id in folder.ids(home.runs))
    assert first == second != third


def test_execute_with_a_wrong_value_makes_no_folder(home: Settings) -> None:
    with pytest.raises(ConfigError, match=r"trial\.count: stps: unknown key\. Did you mean 'steps'"):
        count(home, stps=3)
    assert folder.ids(home.runs) == []


def test_execute_of_an_unknown_process_names_the_closest(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'trial\.count'"):
        execute("trial.cuont", {}, Options(home))


def test_run_that_ends_with_our_error_is_failed_with_its_message(home: Settings) -> None:
    with pytest.raises(TrainingError):
        count(home, fail_at=2, save_every=1)
    record = folder.read(only_run(home))
    assert record.state is RunState.FAILED
    assert record.error is not None
    assert "last good checkpoint is step_00000002" in record.error
    assert "failed" in (only_run(home) / "report.html").read_text()


def test_run_that_ends_with_a_bug_is_failed_and_keeps_the_traceback(home: Settings) -> None:
    with pytest.raises(KeyError):
        count(home, crash_at=1)
    assert folder.read(only_run(home)).error == "KeyError: 'a bug'"
    assert "Traceback" in (only_run(home) / "log.txt").read_text()


def test_resume_of_a_failed_run_gives_each_step_once(home: Settings) -> None:
    with pytest.raises(TrainingError):
        count(home, steps=9, fail_at=5, save_every=2)
    record = resume(only_run(home), Options(home))
    assert (record.state, record.resumed, record.error) == (RunState.SUCCEEDED, 1, None)
    assert [step for step, _ in losses(only_run(home))] == list(range(1, 10))
    provenance = json.loads((only_run(home) / "provenance.json").read_text())
    assert len(provenance["sittings"]) == 2


def test_resume_without_a_checkpoint_starts_the_figures_over(home: Settings) -> None:
    with pytest.raises(TrainingError):
        count(home, steps=6, fail_at=3)
    resume(only_run(home), Options(home))
    assert [step for step, _ in losses(only_run(home))] == [1, 2, 3, 4, 5, 6]


def test_resume_of_a_run_that_succeeded_says_that_nothing_is_left(home: Settings) -> None:
    count(home, steps=1)
    with pytest.raises(RunStateError, match="nothing is left to resume"):
        resume(only_run(home), Options(home))


def test_latest_is_written_down_as_the_checkpoint_it_meant(home: Settings) -> None:
    count(home, steps=4, save_every=2)
    record = count(home, base="latest", save_every=1)
    assert read_config(home.runs / record.id)["base"] == f"{folder.ids(home.runs)[0]}:4"


def test_input_that_does_not_exist_makes_no_folder(home: Settings) -> None:
    with pytest.raises(UnknownNameError):
        count(home, base="nothing")
    assert folder.ids(home.runs) == []


def test_limit_batches_is_kept_with_the_run(home: Settings) -> None:
    record = execute("trial.count", {"steps": 50}, Options(home, limit_batches=2))
    assert record.limit_batches == 2
    assert len(losses(only_run(home))) == 2


def test_killed_run_is_lost_at_once_and_resumes_in_its_folder(home: Settings) -> None:
    child = subprocess.run(
        [sys.executable, str(TRIAL), "trial", "count", "--steps", "9", "--kill-at", "5", "--save-every", "2"],
        capture_output=True,
        check=False,
    )
    assert child.returncode == -9
    assert folder.read(only_run(home)).state is RunState.LOST
    assert resume(only_run(home), Options(home)).state is RunState.SUCCEEDED
    assert [step for step, _ in losses(only_run(home))] == list(range(1, 10))


def test_resume_of_a_run_that_lives_is_refused_and_leaves_it_alone(home: Settings) -> None:
    with started_run(home, "--steps", "100000", "--hold-s", "0.01") as (child, path):
        before = (path / "run.json").read_bytes()
        with pytest.raises(RunStateError, match="melete runs stop"):
            resume(path, Options(home))
        assert (path / "run.json").read_bytes() == before
        child.terminate()
        assert child.wait(30) == 130


@pytest.mark.slow
def test_second_sigint_aborts(home: Settings) -> None:
    with started_run(home, "--steps", "2", "--hold-s", "300") as (child, path):
        child.send_signal(2)
        assert child.stderr is not None
        assert "once more aborts" in child.stderr.readline() + child.stderr.readline()
        child.send_signal(2)
        assert child.wait(30) == 130
        record = folder.read(path)
        assert (record.state, record.error) == (RunState.STOPPED, "aborted by a second signal")


def test_rank_above_zero_writes_nothing(
    home: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert count(home, steps=2, words=["hello"], save_every=1).state is RunState.SUCCEEDED
    assert not home.home.exists()
    assert capsys.readouterr().out == ""


def test_rank_above_zero_on_resume_reads_the_checkpoint_of_rank_zero(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError):
        count(home, steps=6, fail_at=4, save_every=2)
    before = {path: path.read_bytes() for path in only_run(home).rglob("*") if path.is_file()}
    monkeypatch.setenv("RANK", "1")
    assert resume(only_run(home), Options(home)).state is RunState.SUCCEEDED
    assert {path: path.read_bytes() for path in only_run(home).rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_full_disk_while_logging_fails_the_run_and_loses_nothing(
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(1_500_000)
    home = Settings(disk / "home", None, f"sqlite:///{disk.parent}/melete.db")
    with pytest.raises(StorageError, match=r"The disk is full(.|\n)*melete runs resume"):
        count(home, steps=1_000_000, save_every=1_000)
    path = only_run(home)
    record = folder.read(path)
    assert record.state is RunState.FAILED
    assert record.error is not None
    assert "The disk is full" in record.error
    text = (path / "metrics.jsonl").read_text() if (path / "metrics.jsonl").exists() else ""
    assert text.endswith("\n")
    saved = checkpoints.latest(path / "checkpoints")
    assert saved is not None
    assert checkpoints.read_file(saved, "step.txt") == str(checkpoints.read(saved).step).encode()


def test_database_that_is_away_is_a_warning(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    away = Settings(home.home, None, "postgresql://nobody:secret@127.0.0.1:1/none")
    assert execute("trial.count", {}, Options(away)).state is RunState.SUCCEEDED
    warning = capsys.readouterr().err
    assert "cannot be used" in warning
    assert "secret" not in warning
