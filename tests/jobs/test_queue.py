"""The queue, on SQLite and on a real PostgreSQL: who gets what, in which order, and what people may ask of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from queue_at_hand import begin, finish, job_file, later, queue_of, worker
from sqlalchemy.engine import make_url

from melete.errors import ConfigError, JobFileError, RunStateError, StorageError, UnknownNameError
from melete.jobs import claims, outlook
from melete.jobs.claims import Ending, Wish
from melete.jobs.states import JobState, StepState, Wanted
from melete.settings import Settings
from melete.store import database

CRASH = Ending(StepState.FAILED, "its process was killed by SIGKILL", again=True)
WRONG = Ending(StepState.FAILED, "no such file")


def states(queue: Any, job: str) -> list[str]:
    return [str(step.state) for step in queue.get(job).steps]


def test_submit_of_a_broken_file_leaves_nothing(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        with pytest.raises(JobFileError, match=r"tiny\.yaml:\d+: config\.stps|stps"):
            queue.submit(job_file(tmp_path, {"config": {"stps": 3}}))
        assert queue.list() == []
        assert not list((store.home / "jobs").glob("*"))


def test_submit_keeps_a_copy_of_the_file(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        file = job_file(tmp_path, {}, {})
        job = queue.submit(file, priority=3)
        assert (store.home / "jobs" / job.id / "job.yaml").read_bytes() == file.read_bytes()
        assert (job.priority, job.state, states(queue, job.id)) == (3, JobState.QUEUED, ["queued", "waiting"])


def test_submit_of_a_text_is_checked_as_a_file_is(home: Settings, tmp_path: Path) -> None:
    text = job_file(tmp_path, {"config": {"steps": 3}}).read_text()
    with queue_of(home) as queue:
        job = queue.submit_text(text, priority=2, origin="the form")
        assert (home.home / "jobs" / job.id / "job.yaml").read_text() == text
        assert (job.file, job.priority) == ("the form", 2)
        with pytest.raises(JobFileError, match=r"^job\.yaml:4: stps: unknown key"):
            queue.submit_text(text.replace("steps", "stps"))
        assert len(queue.list()) == 1


def test_claim_goes_by_priority_and_then_by_age(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        file = job_file(tmp_path, {})
        first, second, urgent = (queue.submit(file, priority=rank).id for rank in (0, 0, 5))
        one = worker(queue, cpu_slots=9)
        taken = [claims.claim(queue.engine, one) for _ in range(4)]
        assert [claim and claim.job for claim in taken] == [urgent, first, second, None]


def test_claim_of_a_process_waits_for_the_one_before_it(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}, {}))
        one = worker(queue, cpu_slots=9)
        first = claims.claim(queue.engine, one)
        assert first is not None
        assert claims.claim(queue.engine, one) is None
        begin(queue, first)
        assert finish(queue, first) is JobState.QUEUED
        second = claims.claim(queue.engine, one)
        assert second is not None
        assert second.step.name == "p1"
        assert finish(queue, second) is JobState.SUCCEEDED
        assert queue.get(job.id).ended_s is not None


def test_processes_that_come_after_the_same_one_run_side_by_side(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        file = job_file(tmp_path, {}, {"after": ["p0"]}, {"after": ["p0"]}, {"after": ["p1", "p2"]})
        job = queue.submit(file)
        one = worker(queue, cpu_slots=9)
        first = claims.claim(queue.engine, one)
        assert first is not None
        finish(queue, first)
        assert states(queue, job.id) == ["succeeded", "queued", "queued", "waiting"]


def test_reference_to_a_run_is_a_dependency(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}, {"after": [], "config": {"base": "@p0"}}, {"after": []}))
        assert states(queue, job.id) == ["queued", "waiting", "queued"]


def test_child_is_handed_the_runs_of_the_job(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {}, {"config": {"base": "@p0"}}))
        one = worker(queue)
        first = claims.claim(queue.engine, one)
        assert first is not None
        begin(queue, first)
        assert claims.note_run(queue.engine, first.job, 0, first.attempt, "run-1")
        finish(queue, first)
        second = claims.claim(queue.engine, one)
        assert second is not None
        work = begin(queue, second)
        assert work is not None
        assert work.runs == {"p0": "run-1"}


def test_worker_takes_no_more_than_its_cpu_slots(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {"needs": {"slots": 2}}, {"after": []}, {"after": []}))
        one = worker(queue, cpu_slots=3)
        taken = [claims.claim(queue.engine, one) for _ in range(3)]
        assert [claim and claim.step.name for claim in taken] == ["p0", "p1", None]
        assert taken[1] is not None
        finish(queue, taken[1])
        third = claims.claim(queue.engine, one)
        assert third is not None
        assert third.step.name == "p2"


def test_gpus_of_a_host_are_taken_once_by_any_of_its_workers(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        needs = {"needs": {"device": "cuda", "slots": 2}, "after": []}
        queue.submit(job_file(tmp_path, needs, needs, {"after": []}))
        one, two = worker(queue, "one", gpus=(0, 1, 2)), worker(queue, "two", gpus=(0, 1, 2))
        first = claims.claim(queue.engine, one)
        assert first is not None
        assert first.step.gpus == [0, 1]
        rest = claims.claim(
            queue.engine, two
        )  # the second pair does not fit: the one that needs any slot does
        assert rest is not None
        assert (rest.step.name, rest.step.gpus) == ("p2", [2])
        assert claims.claim(queue.engine, one) is None
        finish(queue, first)
        second = claims.claim(queue.engine, two)
        assert second is not None
        assert (second.step.name, second.step.gpus) == ("p1", [0, 1])


def test_process_for_the_cpu_leaves_the_gpu_alone(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {"needs": {"device": "cpu"}}))
        claim = claims.claim(queue.engine, worker(queue, gpus=(0,)))
        assert claim is not None
        assert claim.step.gpus == []


def test_executor_that_no_worker_offers_waits_and_says_so(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {"executor": "ray"}))
        assert claims.claim(queue.engine, worker(queue)) is None
        why = outlook.reason(job, job.steps[0], outlook.workers(queue.engine, queue.home))
        assert why is not None
        assert "no worker offers the executor ray" in why


def test_process_that_needs_a_gpu_that_nobody_has_says_so(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {"needs": {"device": "cuda"}}))
        assert claims.claim(queue.engine, worker(queue)) is None
        alive = outlook.workers(queue.engine, queue.home)
        assert outlook.reason(job, job.steps[0], alive) == (
            "needs 1 GPU, and the workers that are alive have none"
        )
        assert "no worker is alive" in (outlook.reason(job, job.steps[0], []) or "")


def test_jobs_of_another_home_are_nobody_elses(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {}))
        other = worker(queue, home="another")
        assert claims.claim(queue.engine, other) is None


def test_crash_is_tried_again_after_a_pause_until_its_retries_are_used_up(
    store: Settings, tmp_path: Path
) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {"retries": 1}))
        one = worker(queue)
        first = claims.claim(queue.engine, one)
        assert first is not None
        assert finish(queue, first, CRASH) is JobState.QUEUED
        assert claims.claim(queue.engine, one) is None
        second = claims.claim(queue.engine, one, later())
        assert second is not None
        assert second.attempt == 2
        assert finish(queue, second, CRASH) is JobState.FAILED
        assert queue.get(job.id).error == "p0: its process was killed by SIGKILL"


def test_error_that_would_come_again_is_not_tried_again(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {"retries": 5}, {}, {"after": []}))
        one = worker(queue, cpu_slots=2)
        first, beside = claims.claim(queue.engine, one), claims.claim(queue.engine, one)
        assert first is not None
        assert beside is not None
        assert finish(queue, first, WRONG) is JobState.RUNNING
        assert finish(queue, beside) is JobState.FAILED
        assert states(queue, job.id) == ["failed", "waiting", "succeeded"]


def test_stop_reaches_the_child_with_its_next_beat(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}, {}))
        claim = claims.claim(queue.engine, worker(queue))
        assert claim is not None
        begin(queue, claim)
        key = (claim.job, claim.step.number, claim.attempt)
        assert claims.beat(queue.engine, *key) is Wish.GO_ON
        assert queue.ask(job.id, Wanted.STOP).shown_state == "stopping"
        assert claims.beat(queue.engine, *key) is Wish.STOP
        assert queue.ask(job.id, Wanted.KILL).shown_state == "stopping"
        assert claims.beat(queue.engine, *key) is Wish.KILL
        assert finish(queue, claim, Ending(StepState.STOPPED)) is JobState.STOPPED
        assert states(queue, job.id) == ["stopped", "stopped"]


def test_kill_of_a_process_that_was_asked_to_stop_is_no_failure(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        claim = claims.claim(queue.engine, worker(queue))
        assert claim is not None
        queue.ask(job.id, Wanted.KILL)
        assert finish(queue, claim, CRASH) is JobState.STOPPED


def test_pause_holds_back_and_resume_continues_in_the_same_run(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        one = worker(queue)
        assert queue.ask(job.id, Wanted.PAUSE).state is JobState.PAUSED
        assert claims.claim(queue.engine, one) is None
        assert queue.resume(job.id).state is JobState.QUEUED
        claim = claims.claim(queue.engine, one)
        assert claim is not None
        begin(queue, claim)
        claims.note_run(queue.engine, job.id, 0, claim.attempt, "run-1")
        queue.ask(job.id, Wanted.PAUSE)
        with pytest.raises(RunStateError, match="still running"):
            queue.resume(job.id)
        assert finish(queue, claim, Ending(StepState.STOPPED)) is JobState.PAUSED
        queue.resume(job.id)
        second = claims.claim(queue.engine, one)
        assert second is not None
        assert (second.step.run, second.attempt) == ("run-1", 2)


def test_stop_of_a_job_that_has_ended_is_refused(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        queue.ask(job.id, Wanted.STOP)
        with pytest.raises(RunStateError, match="nothing to stop"):
            queue.ask(job.id, Wanted.STOP)
        with pytest.raises(RunStateError, match="nothing to pause"):
            queue.ask(job.id, Wanted.PAUSE)


def test_run_that_its_user_stopped_stays_stopped(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}, {}))
        claim = claims.claim(queue.engine, worker(queue))
        assert claim is not None
        begin(queue, claim)
        assert finish(queue, claim, Ending(StepState.STOPPED)) is JobState.STOPPED
        assert queue.resume(job.id).state is JobState.QUEUED


def test_retry_continues_what_failed_and_keeps_what_succeeded(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}, {}))
        one = worker(queue)
        for ending in (Ending(StepState.SUCCEEDED), WRONG):
            claim = claims.claim(queue.engine, one)
            assert claim is not None
            begin(queue, claim)
            claims.note_run(queue.engine, job.id, claim.step.number, claim.attempt, f"run-{claim.step.name}")
            finish(queue, claim, ending)
        found = queue.retry(job.id)
        assert [(step.state, step.run) for step in found.steps] == [
            (StepState.SUCCEEDED, "run-p0"),
            (StepState.QUEUED, "run-p1"),
        ]
        assert (found.state, found.tries, found.error) == (JobState.QUEUED, 2, None)


def test_retry_with_a_changed_key_starts_it_and_what_comes_after_it_anew(
    store: Settings, tmp_path: Path
) -> None:
    with queue_of(store) as queue:
        job = queue.submit(
            job_file(tmp_path, {}, {"config": {"steps": 3}}, {}, {"after": ["p0"]}, name="forked")
        )
        one = worker(queue, cpu_slots=2)
        while (claim := claims.claim(queue.engine, one)) is not None:
            begin(queue, claim)
            claims.note_run(queue.engine, job.id, claim.step.number, claim.attempt, f"run-{claim.step.name}")
            finish(queue, claim)
        assert queue.get(job.id).state is JobState.SUCCEEDED
        with pytest.raises(RunStateError, match="nothing is left to retry"):
            queue.retry(job.id)
        found = queue.retry(job.id, {"p1": {"steps": 7}})
        assert [(step.state, step.run) for step in found.steps] == [
            (StepState.SUCCEEDED, "run-p0"), (StepState.QUEUED, None),
            (StepState.WAITING, None), (StepState.SUCCEEDED, "run-p3"),
        ]  # fmt: skip
        assert found.steps[1].config == {"steps": 7}


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"p0": {"stps": 7}}, ConfigError, "Did you mean 'steps'"),
        ({"p9": {"steps": 7}}, UnknownNameError, "no process of this job named 'p9'"),
        ({"p0": {"base": "@p1"}}, UnknownNameError, "no earlier process of this job named 'p1'"),
    ],
)
def test_retry_with_a_wrong_change_changes_nothing(
    home: Settings, tmp_path: Path, changes: Any, error: type[Exception], said: str
) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {}, {}))
        queue.ask(job.id, Wanted.STOP)
        before = queue.get(job.id)
        with pytest.raises(error, match=said):
            queue.retry(job.id, changes)
        assert queue.get(job.id) == before


def test_get_finds_by_beginning_name_and_latest(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        other = queue.submit(job_file(tmp_path, {}, name="other"))
        assert [queue.get(ref).id for ref in (job.id, "tiny", "latest", other.id[:-1])] == [
            job.id, job.id, other.id, other.id,
        ]  # fmt: skip
        with pytest.raises(ConfigError, match="beginning of several"):
            queue.get("20")
        with pytest.raises(UnknownNameError, match="no job named 'tnyi'"):
            queue.get("tnyi")


def test_list_pages_newest_first(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        ids = [queue.submit(job_file(tmp_path, {})).id for _ in range(5)]
        page = queue.list(limit=2)
        rest = queue.list(limit=9, before=(page[-1].created_s, page[-1].id))
        assert [job.id for job in [*page, *rest]] == ids[::-1]
        assert queue.counts() == {"queued": 5}
        assert queue.list(state="failed") == []


def test_store_of_a_newer_version_is_refused(home: Settings, tmp_path: Path) -> None:
    with queue_of(home) as queue, queue.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_later'")
    with pytest.raises(StorageError, match="newer than this program"), queue_of(home):
        pass
    assert make_url(home.database).database
    assert database.newest_revision() != "9999_later"
