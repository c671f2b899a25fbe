"""What keeps a process from being run twice: attempts, heartbeats, what dead workers leave; on both databases."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from queue_at_hand import HERE, begin, dead, finish, job_file, queue_of, worker
from sqlalchemy import update

from melete.jobs import claims
from melete.jobs.claims import Ending, Wish
from melete.jobs.queue import STEPS
from melete.jobs.states import JobState, StepState, Wanted
from melete.settings import Settings

GONE = {"pid": 2**22 - 1, "pid_started_s": 1.0}


def claimed(queue: Any, by: Any) -> claims.Claim:
    found = claims.claim(queue.engine, by)
    assert found is not None
    return found


def test_claims_of_many_workers_never_meet(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        for _ in range(24):
            queue.submit(job_file(tmp_path, {}))
        taken: list[str] = []

        def take(name: str) -> None:
            one = worker(queue, name, enter=False, cpu_slots=99)
            while True:
                found = claims.claim(queue.engine, one)
                if found is not None:
                    taken.append(found.job)
                elif not claims.waiting(queue.engine, one):
                    return

        threads = [threading.Thread(target=take, args=(f"w{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == len(set(taken)) == 24


def test_second_child_of_an_attempt_does_not_begin(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {}))
        claim = claimed(queue, worker(queue))
        assert begin(queue, claim) is not None
        assert begin(queue, claim) is None


def test_child_of_an_earlier_attempt_can_write_nothing(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        left = claimed(queue, dead(queue))
        one = worker(queue)
        (found,) = claims.abandoned(queue.engine, one)
        assert found.pid is None
        assert claims.give_back(queue.engine, found)
        again = claimed(queue, one)
        assert again.attempt == left.attempt + 1
        key = (left.job, left.step.number, left.attempt)
        assert begin(queue, left) is None
        assert not claims.note_run(queue.engine, *key, "run-of-nobody")
        assert claims.beat(queue.engine, *key) is Wish.LOST
        assert finish(queue, left) is None
        assert queue.get(job.id).steps[0].run is None
        assert begin(queue, again) is not None


def test_living_child_of_a_dead_worker_is_watched_and_not_run_again(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {}))
        claim = claimed(queue, dead(queue))
        begin(queue, claim)
        one, two = worker(queue, "one"), worker(queue, "two")
        (found,) = claims.abandoned(queue.engine, one)
        assert found.pid is not None
        assert not claims.give_back(queue.engine, found)
        assert claims.adopt(queue.engine, one, found)
        assert not claims.adopt(queue.engine, two, found)
        assert claims.abandoned(queue.engine, two) == []
        assert claims.claim(queue.engine, one) is None  # its slot is taken by what it watches
        assert finish(queue, claim) is JobState.SUCCEEDED


def test_child_that_died_with_its_worker_is_found_once(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {}))
        claim = claimed(queue, dead(queue))
        begin(queue, claim, **GONE)
        one = worker(queue)
        (found,) = claims.abandoned(queue.engine, one)
        assert found.pid is None
        assert not claims.give_back(queue.engine, found)
        lost = Ending(StepState.FAILED, "died", again=True)
        assert finish(queue, found, lost) is JobState.QUEUED
        assert finish(queue, found, lost) is None
        assert claims.abandoned(queue.engine, one) == []


def test_child_on_another_host_is_believed_as_long_as_it_beats(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {}))
        away = worker(queue, "away", host="other")
        claim = claimed(queue, away)
        begin(queue, claim, host="other", pid=1)
        one = worker(queue)
        assert claims.abandoned(queue.engine, one) == []
        with queue.engine.begin() as connection:
            connection.execute(update(claims.WORKERS).where(claims.WORKERS.c.id == "away").values(beat_s=1.0))
        assert claims.abandoned(queue.engine, one) == []
        with queue.engine.begin() as connection:
            connection.execute(update(STEPS).values(beat_s=1.0))
        assert [found.step.host for found in claims.abandoned(queue.engine, one)] == ["other"]


def test_gpu_of_a_process_that_was_given_back_is_free(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        queue.submit(job_file(tmp_path, {"needs": {"device": "cuda"}}))
        claimed(queue, dead(queue, gpus=(0,)))
        one = worker(queue, gpus=(0,))
        (found,) = claims.abandoned(queue.engine, one)
        claims.give_back(queue.engine, found)
        assert claimed(queue, one).step.gpus == [0]


def test_worker_that_ends_gives_its_processes_back(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        one = worker(queue)
        claim = claimed(queue, one)
        begin(queue, claim)
        assert claims.hand_back(queue.engine, one) == 1
        assert claims.beat(queue.engine, claim.job, 0, claim.attempt) is Wish.STOP
        assert finish(queue, claim, Ending(StepState.STOPPED)) is JobState.QUEUED
        assert queue.get(job.id).steps[0].failures == 0
        assert claimed(queue, one).attempt == 2


def test_child_that_begins_after_a_stop_does_nothing(store: Settings, tmp_path: Path) -> None:
    with queue_of(store) as queue:
        job = queue.submit(job_file(tmp_path, {}))
        claim = claimed(queue, worker(queue))
        queue.ask(job.id, Wanted.STOP)
        assert begin(queue, claim) is None
        assert queue.get(job.id).state is JobState.STOPPED


@pytest.mark.parametrize("host", [HERE, "other"])
def test_dead_workers_are_forgotten_once_nobody_needs_them(
    store: Settings, tmp_path: Path, host: str
) -> None:
    with queue_of(store) as queue:
        left = dead(queue, host=host)
        with queue.engine.begin() as connection:
            connection.execute(update(claims.WORKERS).values(beat_s=1.0))
        one = worker(queue)
        claims.forget_dead(queue.engine, one)
        with queue.engine.connect() as connection:
            known = connection.scalars(claims.WORKERS.select().with_only_columns(claims.WORKERS.c.id)).all()
        assert known == ["w"]
        claims.worker_beats(queue.engine, left)  # one that was only slow is known again
        with queue.engine.connect() as connection:
            assert len(connection.execute(claims.WORKERS.select()).all()) == 2
