"""Workers with real children: jobs to their end, crashes, stops, dead workers, and what can be wrong around them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from queue_at_hand import job_file, log_of, queue_of, started_worker, until, worker

from melete.errors import DeviceError, StorageError, UnknownNameError
from melete.jobs import claims
from melete.jobs.states import Wanted
from melete.jobs.worker import Loop, Options, work
from melete.records import RunState
from melete.runs import folder as folders
from melete.runs.lines import read_json_lines
from melete.settings import Settings

CPU = Options(gpus="none", executors=("local",), drain=True)


def drain(settings: Settings, **options: Any) -> list[str]:
    """Works until nothing is left; what the worker said."""
    said: list[str] = []
    work(settings, replace(CPU, **options), said.append)
    return said


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(claims, "RETRY_PAUSE_S", 0.0)


@pytest.mark.slow
def test_worker_carries_a_job_through_in_order(store: Settings, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MELETE_DATABASE", store.database)
    first = {"config": {"steps": 3, "save_every": 1, "words": ["hello"]}, "name": "base"}
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, first, {"config": {"base": "@base", "steps": 2}}))
        drain(store)
        found = queue.get(job.id)
    assert found.state == "succeeded"
    one, two = (folders.read(store.runs / (step.run or "")) for step in found.steps)
    assert (one.job, one.step_name, one.state) == (job.id, "base", RunState.SUCCEEDED)
    assert one.ended_s is not None
    assert two.started_s is not None
    assert one.ended_s <= two.started_s
    assert "hello" in log_of(store, found)
    report = (store.home / "jobs" / job.id / "report.html").read_text()
    assert one.id in report
    assert two.id in report


@pytest.mark.slow
def test_process_that_was_killed_continues_from_its_checkpoint(
    home: Settings, tmp_path: Path, no_pause: None
) -> None:
    config = {"steps": 9, "kill_at": 5, "save_every": 2}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": config, "retries": 1}))
        said = drain(home)
        (step,) = queue.get(job.id).steps
    assert (step.state, step.attempt, step.failures) == ("succeeded", 2, 1)
    assert any("was killed by SIGKILL" in line for line in said)
    (run,) = home.runs.iterdir()
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 10))


@pytest.mark.slow
def test_process_that_is_killed_each_time_fails_in_the_end(
    home: Settings, tmp_path: Path, no_pause: None
) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": {"kill_at": 1}, "retries": 0}, {}))
        drain(home)
        found = queue.get(job.id)
    assert (found.state, found.error) == ("failed", "p0: its process was killed by SIGKILL")
    assert found.steps[1].state == "waiting"


@pytest.mark.slow
def test_error_of_the_user_fails_with_its_message_and_continues_after_a_retry(
    home: Settings, tmp_path: Path
) -> None:
    config = {"steps": 6, "fail_at": 4, "save_every": 2}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": config, "retries": 5}))
        drain(home)
        failed = queue.get(job.id)
        assert (failed.state, failed.steps[0].attempt) == ("failed", 1)
        assert "The last good checkpoint is step_00000004" in (failed.error or "")
        queue.retry(job.id)
        drain(home)
        assert queue.get(job.id).state == "succeeded"
    (run,) = home.runs.iterdir()
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 7))


@pytest.mark.slow
def test_run_folder_deleted_by_hand_is_said_and_begun_anew(home: Settings, tmp_path: Path) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": {"steps": 3, "fail_at": 2, "save_every": 1}}))
        drain(home)
        (gone,) = home.runs.iterdir()
        shutil.rmtree(gone)
        queue.retry(job.id)
        drain(home)
        found = queue.get(job.id)
    assert f"The folder of run {gone.name} is gone: a new run is started." in log_of(home, found)
    assert found.steps[0].run != gone.name
    assert "the loss became nan" in (found.error or "").lower()


@pytest.mark.slow
def test_run_folder_that_the_next_process_needs_and_that_was_deleted_is_named(
    home: Settings, tmp_path: Path
) -> None:
    with queue_of(home) as queue:
        first = {"config": {"steps": 1, "save_every": 1}}
        job = queue.submit(job_file(tmp_path, first, {"config": {"base": "@p0", "fail_at": 0}}))
        drain(home)
        gone = queue.get(job.id).steps[0].run or ""
        shutil.rmtree(home.runs / gone)
        queue.retry(job.id, {"p1": {"fail_at": None}})
        drain(home)
        found = queue.get(job.id)
    assert found.state == "failed"
    assert gone in (found.error or "")


@pytest.mark.slow
def test_show_and_status_of_a_job_whose_runs_were_deleted(
    home: Settings, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": {"steps": 1}}))
        drain(home)
    (run,) = home.runs.iterdir()
    shutil.rmtree(run)
    code, out, _ = call("jobs", "show", job.id)
    assert code == 0
    assert f"{run.name} (deleted)" in out


@pytest.mark.slow
def test_process_that_does_not_stop_in_time_is_killed(home: Settings, tmp_path: Path) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": {"hold_s": 600.0}}))
        with started_worker(home, "--gpus", "none", "--grace-s", "0"):
            until(lambda: queue.get(job.id).steps[0].run)
            queue.ask(job.id, Wanted.STOP)
            until(lambda: queue.get(job.id).state == "stopped")


def test_worker_that_is_not_there_for_a_gpu_is_refused(home: Settings) -> None:
    with pytest.raises(DeviceError, match="This machine has no GPU '7'"):
        work(home, Options(gpus="7"))
    with pytest.raises(DeviceError, match="nothing to work with"):
        work(home, Options(gpus="none", cpu_slots=0))


def test_worker_with_an_unknown_executor_lists_the_known(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="Known: local, ray, skypilot"):
        work(home, Options(executors=("locl",)))


def test_worker_takes_nothing_more_once_the_store_is_of_a_newer_version(
    home: Settings, tmp_path: Path
) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        one = worker(queue)
        loop = Loop(home, queue.engine, one, CPU, print)
        with queue.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_later'")
        with pytest.raises(StorageError, match="upgraded by a newer Melete"):
            loop.turn()
        assert queue.get(job.id).steps[0].attempt == 0


@pytest.mark.slow
def test_stop_saves_a_checkpoint_and_resume_goes_on_there(home: Settings, tmp_path: Path) -> None:
    config = {"steps": 400, "hold_s": 0.02, "save_every": 1000}
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": config}))
        with started_worker(home):
            until(lambda: list(home.runs.glob("*/metrics.jsonl")))
            queue.ask(job.id, Wanted.STOP)
            until(lambda: queue.get(job.id).state == "stopped")
            (run,) = home.runs.iterdir()
            assert list((run / "checkpoints").iterdir())
            queue.resume(job.id)
            until(lambda: queue.get(job.id).state == "succeeded")
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 401))


@pytest.mark.slow
def test_worker_that_is_asked_to_end_gives_its_process_back(home: Settings, tmp_path: Path) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": {"steps": 200, "hold_s": 0.03, "save_every": 1000}}))
        with started_worker(home):
            until(lambda: list(home.runs.glob("*/metrics.jsonl")))
        (step,) = queue.get(job.id).steps
        assert (step.state, step.failures) == ("queued", 0)
        drain(home)
        assert queue.get(job.id).state == "succeeded"
    (run,) = home.runs.iterdir()
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 201))


@pytest.mark.slow
@pytest.mark.parametrize("child_too", [False, True])
def test_job_of_a_worker_killed_with_sigkill_is_done_once(
    home: Settings, tmp_path: Path, child_too: bool
) -> None:
    with queue_of(home) as queue:
        config = {"steps": 150, "hold_s": 0.03, "save_every": 1}
        job = queue.submit(job_file(tmp_path, {"config": config}))
        with started_worker(home) as killed:
            until(lambda: list(home.runs.glob("*/checkpoints/step_00000002")))
            killed.kill()
            killed.wait()
        (step,) = queue.get(job.id).steps
        assert step.pid is not None
        if child_too:
            os.kill(step.pid, signal.SIGKILL)
        with started_worker(home):
            until(lambda: queue.get(job.id).state == "succeeded")
        (step,) = queue.get(job.id).steps
    assert step.attempt == (2 if child_too else 1)
    (run,) = home.runs.iterdir()
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 151))
    assert len(json.loads((run / "provenance.json").read_text())["sittings"]) == (2 if child_too else 1)


def fill(path: Path) -> None:
    """Writes until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


@pytest.mark.slow
def test_full_disk_loses_no_job_and_the_worker_goes_on(
    home: Settings, tmp_path: Path, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(6_000_000)
    monkeypatch.setenv("MELETE_HOME", str(disk))
    full = replace(home, home=disk, database=f"sqlite:///{disk / 'melete.db'}")
    said = tmp_path / "said"
    with queue_of(full) as queue, started_worker(full, "--gpus", "none", said=said):
        until(lambda: "slots" in said.read_text())
        fill(disk / "ballast")
        with pytest.raises(StorageError, match="The disk is full"):
            queue.submit(job_file(tmp_path, {}))
        assert queue.list() == []
        assert not list((disk / "jobs").glob("*"))
        until(lambda: "Nothing is lost; it is tried again" in said.read_text())
        os.truncate(disk / "ballast", 0)
        until(lambda: "It works again." in said.read_text())
        job = queue.submit(job_file(tmp_path, {"config": {"steps": 3, "save_every": 1}}))
        until(lambda: queue.get(job.id).state == "succeeded")


@pytest.mark.slow
def test_process_on_a_full_disk_fails_with_one_message_and_continues_after_a_retry(
    home: Settings, tmp_path: Path, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(6_000_000)
    monkeypatch.setenv("MELETE_HOME", str(disk))
    full = replace(home, home=disk)  # its database is on another disk
    config = {"steps": 400, "hold_s": 0.02, "save_every": 1}
    with queue_of(full) as queue:
        job = queue.submit(job_file(tmp_path, {"config": config}))
        with started_worker(full, "--gpus", "none"):
            until(lambda: list((disk / "runs").glob("*/checkpoints/step_00000002")))
            fill(disk / "ballast")
            until(lambda: queue.get(job.id).state == "failed")
            assert "The disk is full" in (queue.get(job.id).error or "")
            os.truncate(disk / "ballast", 0)
            queue.retry(job.id)
            until(lambda: queue.get(job.id).state == "succeeded")
    (run,) = (disk / "runs").iterdir()
    assert [line["step"] for line in read_json_lines(run / "metrics.jsonl")] == list(range(1, 401))
