"""The commands of the queue as people type them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from queue_at_hand import begin, job_file, queue_of, worker

from melete.jobs import child, claims
from melete.jobs.claims import Ending
from melete.jobs.states import StepState
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]


def test_submit_says_that_nobody_works(home: Settings, tmp_path: Path, call: Call) -> None:
    code, out, _ = call("jobs", "submit", str(job_file(tmp_path, {}, {})))
    assert code == 0
    assert "is in the queue, with 2 processes." in out
    assert "p0: no worker is alive; start one with: melete up" in out


def test_submit_of_a_broken_file_is_one_message(home: Settings, tmp_path: Path, call: Call) -> None:
    file = job_file(tmp_path, {"after": ["p3"]})
    code, out, err = call("jobs", "submit", str(file))
    assert (code, out) == (2, "")
    assert "after: no earlier process is named 'p3'" in err
    assert len(err.splitlines()) == 1


def test_submit_for_an_executor_that_does_not_exist_lists_the_known(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    code, _, err = call("jobs", "submit", str(job_file(tmp_path, {"executor": "rya"})))
    assert code == 2
    assert "Did you mean 'ray'?" in err


def test_list_and_show_tell_the_same_as_their_json(home: Settings, tmp_path: Path, call: Call) -> None:
    file = job_file(tmp_path, {}, {})
    _, out, _ = call("jobs", "submit", str(file), "--priority", "4", "--json")
    job = json.loads(out)
    _, listed, _ = call("jobs", "list")
    assert job["id"] in listed
    assert "0/2" in listed
    _, shown, _ = call("jobs", "show", "latest")
    assert "p1: comes after p0" in shown
    told = json.loads(call("jobs", "show", job["id"], "--json")[1])
    assert told["waits"]["p1"] == "comes after p0"
    assert told["job"]["priority"] == 4
    assert json.loads(call("jobs", "list", "--state", "queued", "--json")[1])[0]["id"] == job["id"]
    assert call("jobs", "list", "--state", "failed")[1].startswith("No jobs yet")


def test_pause_resume_stop_and_retry_say_what_became_of_the_job(
    home: Settings, tmp_path: Path, call: Call
) -> None:
    call("jobs", "submit", str(job_file(tmp_path, {})))
    assert "paused; it continues with: melete jobs resume" in call("jobs", "pause", "tiny")[1]
    assert "queued" in call("jobs", "resume", "tiny")[1]
    assert "stopped; it continues with" in call("jobs", "stop", "tiny")[1]
    assert "queued" in call("jobs", "retry", "tiny", "--set", "p0.steps=7", "--set", "p0.words=[a, b]")[1]
    told = json.loads(call("jobs", "show", "tiny", "--json")[1])
    assert told["job"]["steps"][0]["config"] == {"steps": 7, "words": ["a", "b"]}
    code, _, err = call("jobs", "retry", "tiny", "--set", "steps=7")
    assert code == 2
    assert "--set 'steps=7' is not PROCESS.KEY=VALUE." in err


def test_logs_follow_until_the_job_has_ended(home: Settings, tmp_path: Path, call: Call) -> None:
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {}, {"after": []}))
        one = worker(queue, cpu_slots=2)
        for number in (0, 1):
            claim = claims.claim(queue.engine, one)
            assert claim is not None
            begin(queue, claim)
            file = child.log_file(home, job.id, number, f"p{number}")
            file.write_text(f"first of {number}\nlast of {number}\n")
            claims.finish(queue.engine, job.id, number, 1, Ending(StepState.SUCCEEDED))
    code, out, err = call("jobs", "logs", "-f", "-n", "1", "latest")
    assert code == 0
    assert out.splitlines() == ["== p0", "last of 0", "== p1", "last of 1"]
    assert err == f"{job.id} succeeded\n"
    assert call("jobs", "logs", "latest", "--process", "p1")[1] == "first of 1\nlast of 1\n"
    assert "no process of this job named 'p7'" in call("jobs", "logs", "latest", "--process", "p7")[2]


def test_job_files_of_the_guide_are_right(home: Settings) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    texts = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    with queue_of(home) as queue:
        jobs = [
            queue.submit_text(text if text.startswith("name:") else f"name: part\n{text}") for text in texts
        ]
    assert [step.after for step in jobs[0].steps] == [[], ["base"], ["base"], ["short", "long"]]
    assert len(jobs) == 2


def test_unknown_job_lists_the_known(home: Settings, tmp_path: Path, call: Call) -> None:
    code, _, err = call("jobs", "show", "nothing")
    assert code == 2
    assert "No job exists yet." in err


def test_worker_that_misses_a_gpu_ends_with_one_message(home: Settings, call: Call) -> None:
    code, out, err = call("worker", "--gpus", "3")
    assert (code, out) == (5, "")
    assert "This machine has no GPU '3'." in err
    assert "--gpus none" in err


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_no_job_is_lost_or_done_twice_when_workers_and_server_are_killed(
    home: Settings, request: pytest.FixtureRequest, database: str
) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "queue_kill.py"
    told = ["--jobs", "40", "--kills", "10", "--no-save"]
    if database == "postgresql":
        from postgres_at_hand import empty

        url = str(request.getfixturevalue("postgres"))
        empty(url)
        told += ["--database", url]
    done = subprocess.run([sys.executable, script, *told], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["done once"], result["lost"], result["done twice or more"]) == (40, 0, 0)
