"""Running a job file: in order, by reference, stopped by a failure, resumed where it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from melete.errors import RunStateError
from melete.jobs import folder as jobs
from melete.jobs import run as job_run
from melete.jobs.execute import read_config
from melete.records import JobRecord, RunState
from melete.runs import folder
from melete.settings import Settings
from trial_runs import TRIAL

Call = Callable[..., tuple[int, str, str]]

JOB = """\
name: tiny
processes:
  - {process: trial.count, name: one, config: {steps: 4, save_every: 2}}
  - {process: trial.count, name: two, config: {steps: 6, base: "@one", FAIL}}
  - {process: trial.count, name: three, config: {steps: 2, base: "@one"}}
"""


def write(tmp_path: Path, fail: str = "") -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace(", FAIL", f", {fail}" if fail else ""))
    return path


def only_job(home: Settings) -> tuple[Path, JobRecord]:
    (job_id,) = folder.ids(home.home / "jobs")
    path = home.home / "jobs" / job_id
    return path, jobs.read(path)


def test_run_executes_the_steps_in_order_and_names_runs_by_reference(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    code, out, _ = call("run", str(write(tmp_path)))
    assert code == 0
    path, job = only_job(home)
    assert job.state is RunState.SUCCEEDED
    assert [step.run for step in job.steps] == folder.ids(home.runs)
    assert job.steps[0].run is not None
    assert job.steps[1].run is not None
    assert read_config(home.runs / job.steps[1].run)["base"] == f"{job.steps[0].run}:4"
    record = folder.read(home.runs / job.steps[1].run)
    assert (record.job, record.step_name) == (job.id, "two")
    assert "share" in out
    assert str(path / "report.html") in out
    page = (path / "report.html").read_text()
    assert all(f'id="{step.run}"' in page for step in job.steps)


def test_run_that_succeeded_says_what_to_try_next(tmp_path: Path, call: Call) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + 'next: ["melete runs list"]\n')
    code, out, _ = call("run", str(path))
    assert code == 0
    assert out.endswith("Try next:\n  melete runs list\n")


def test_run_ends_at_the_first_failure_and_resume_continues_there(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    file = write(tmp_path, "fail_at: 3")
    code, out, err = call("run", str(file))
    assert code == 7
    assert "became nan" in err
    assert "failed" in out
    path, job = only_job(home)
    assert [step.state for step in job.steps] == [RunState.SUCCEEDED, RunState.FAILED, RunState.QUEUED]
    assert (path / "report.html").exists()
    code, _, _ = call("run", str(file), "--resume")
    assert code == 0
    _, resumed = only_job(home)
    assert [step.state for step in resumed.steps] == [RunState.SUCCEEDED] * 3
    assert [step.run for step in resumed.steps[:2]] == [step.run for step in job.steps[:2]]
    assert folder.read(home.runs / str(resumed.steps[0].run)).resumed == 0
    assert folder.read(home.runs / str(resumed.steps[1].run)).resumed == 1


def test_resume_after_an_edit_runs_the_changed_step_anew(home: Settings, tmp_path: Path, call: Call) -> None:
    call("run", str(write(tmp_path, "fail_at: 3")))
    _, before = only_job(home)
    code, _, _ = call("run", str(write(tmp_path, "rate: 0.25")), "--resume")
    assert code == 0
    _, after = only_job(home)
    assert after.steps[0].run == before.steps[0].run
    assert after.steps[1].run != before.steps[1].run


def test_resume_of_a_job_that_succeeded_or_never_ran_is_refused(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    file = write(tmp_path)
    with pytest.raises(RunStateError, match="No job was started"):
        job_run.resume(home, file)
    call("run", str(file))
    with pytest.raises(RunStateError, match="nothing is left to resume"):
        job_run.resume(home, file)


def test_run_with_a_wrong_last_step_runs_nothing(home: Settings, tmp_path: Path, call: Call) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("steps: 2", "steps: two"))
    code, out, err = call("run", str(file))
    assert code == 2
    assert err.startswith(f"error: {file}:5: steps: ")
    assert out == ""
    assert not home.home.exists()


def test_dry_run_of_a_job_shows_each_config_and_writes_nothing(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    code, out, _ = call("run", str(write(tmp_path)), "--dry-run")
    assert code == 0
    assert out.count("(dry run, nothing is written)") == 3
    assert "the run of that step" in out
    assert not home.home.exists()


def test_limit_batches_of_a_job_holds_for_each_step(home: Settings, tmp_path: Path, call: Call) -> None:
    call("run", str(write(tmp_path)), "--limit-batches", "1")
    assert [folder.read(home.runs / run_id).limit_batches for run_id in folder.ids(home.runs)] == [1, 1, 1]


def test_job_under_torchrun_is_refused(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = call("run", str(write(tmp_path)))
    assert code == 2
    assert "under torchrun" in err


@pytest.mark.slow
def test_sigint_stops_the_job_and_resume_continues_the_run(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    file = tmp_path / "job.yaml"
    steps = "steps: 400, save_every: 50, hold_s: 0.01, words: [ready]"
    file.write_text(f"name: long\nprocesses: [{{process: trial.count, config: {{{steps}}}}}]\n")
    child = subprocess.Popen(
        [sys.executable, str(TRIAL), "run", str(file)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    while child.stdout.readline() != "ready\n":
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    _, job = only_job(home)
    assert (job.state, job.steps[0].state) == (RunState.STOPPED, RunState.STOPPED)
    code, _, _ = call("run", str(file), "--resume")
    assert code == 0
    assert folder.read(home.runs / str(job.steps[0].run)).resumed == 1


@pytest.mark.slow
def test_job_that_was_killed_is_lost_and_resumes(home: Settings, tmp_path: Path, call: Call) -> None:
    file = write(tmp_path, "kill_at: 3, save_every: 2")
    child = subprocess.run([sys.executable, str(TRIAL), "run", str(file)], capture_output=True, check=False)
    assert child.returncode == -9
    _, job = only_job(home)
    assert job.state is RunState.LOST
    code, _, _ = call("run", str(file), "--resume")
    assert code == 0
    _, after = only_job(home)
    assert after.steps[1].run == job.steps[1].run
    assert after.state is RunState.SUCCEEDED


def test_run_on_a_full_disk_is_one_message_and_leaves_nothing_half_made(
    home: Settings,
    tmp_path: Path,
    call: Call,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = small_disk(100_000)
    monkeypatch.setenv("MELETE_HOME", str(disk))
    monkeypatch.setenv("MELETE_DATABASE", f"sqlite:///{tmp_path / 'melete.db'}")
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4_096)):
            pass
    code, _, err = call("run", str(write(tmp_path)))
    assert code == 9
    assert err.startswith("error: The disk is full")
    assert not list((disk / "jobs").iterdir())
