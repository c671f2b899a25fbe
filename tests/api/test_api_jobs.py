"""Jobs over the API: submit, check by line, ask of them, their logs, workers, examples, forms as texts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from melete.api.app import create_app
from melete.jobs import child, claims
from melete.jobs.claims import Ending, Worker
from melete.jobs.queue import opened
from melete.jobs.states import StepState
from melete.runs import folder
from melete.settings import Settings

TWO = """\
name: NAME
processes:
  - {process: trial.count, name: one, config: {steps: 3}}
  - {process: trial.count, name: two}
"""
BROKEN = """\
name: broken
processes:
  - {process: trial.cuont}
  - process: trial.count
    name: second
    config:
      stps: 3
      rate: many
    after: [frist]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home; each test puts its own jobs there."""
    return Settings.of(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def client(lab: Settings) -> Iterator[TestClient]:
    """Asks the API over it."""
    with TestClient(create_app(lab), raise_server_exceptions=False) as made:
        yield made


def submitted(client: TestClient, name: str, **body: Any) -> dict[str, Any]:
    """A job of two processes."""
    answer = client.post("/jobs", json={"text": TWO.replace("NAME", name), **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def talked(client: TestClient, lab: Settings, name: str) -> dict[str, Any]:
    """A job of two processes that have said five lines each."""
    job = submitted(client, name)
    for number, step in enumerate(("one", "two")):
        child.log_file(lab, job["id"], number, step).write_text(
            "".join(f"{step} {line}\n" for line in range(5))
        )
    return job


def asked(client: TestClient, job: dict[str, Any], what: str, **body: Any) -> Any:
    """What comes of asking something of a job."""
    return client.post(f"/jobs/{job['id']}/{what}", json=body)


def test_home_without_a_queue_has_no_jobs_and_gets_no_files(tmp_path: Path) -> None:
    empty = Settings.of(tmp_path)
    with TestClient(create_app(empty)) as client:
        assert client.get("/jobs").json()["data"] == client.get("/workers").json()["data"] == []
        assert client.get("/jobs/latest").status_code == 404
    assert not (tmp_path / "home.id").exists()


def test_submitted_text_is_a_job_that_says_what_it_waits_for(client: TestClient) -> None:
    answer = client.post("/jobs", json={"text": TWO.replace("NAME", "first"), "priority": 3})
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/v1/jobs/{made['id']}")
    assert (made["name"], made["state"], made["priority"], made["done"]) == ("first", "queued", 3, 0)
    one, two = made["steps"]
    assert "no worker is alive" in one["waits"]
    assert two["waits"] == "comes after one"
    assert (one["config"], made["text"]) == ({"steps": 3}, TWO.replace("NAME", "first"))
    assert made["actions"] == ["pause", "stop", "kill"]
    assert client.get(f"/jobs/{made['id']}").json() == made


def test_jobs_are_listed_newest_first_page_by_page(client: TestClient) -> None:
    names = [submitted(client, f"page{number}")["name"] for number in range(3)]
    found, cursor = [], None
    while len(found) < 3:
        page = client.get("/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += [job["name"] for job in page["data"]]
        cursor = page["next_cursor"]
    assert found[:3] == names[::-1]
    assert [job["name"] for job in client.get("/jobs", params={"name": "page1"}).json()["data"]] == ["page1"]
    assert client.get("/jobs", params={"name": "page1", "state": "failed"}).json()["data"] == []
    assert client.get("/jobs", params={"state": "queued", "cursor": cursor or "eA"}).status_code == 400


def test_check_names_every_problem_with_its_line(client: TestClient) -> None:
    found = client.post("/jobs/check", json={"text": BROKEN}).json()
    assert (found["ok"], found["steps"]) == (False, [])
    told = {(one["line"], one["key"]): one["message"] for one in found["problems"]}
    assert set(told) == {(3, "process"), (7, "stps"), (8, "rate"), (9, "after")}
    assert "Did you mean 'trial.count'?" in told[3, "process"]
    assert "Did you mean 'steps'?" in told[7, "stps"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("name: x\nprocesses: [", 2, 13), ("", 1, 1), ("name: &a [*a]", 1, 1)],
)
def test_check_of_what_is_no_yaml_says_where(client: TestClient, text: str, line: int, column: int) -> None:
    answer = client.post("/jobs/check", json={"text": text})
    (problem,) = answer.json()["problems"][:1]
    assert (answer.status_code, problem["line"], problem["column"]) == (200, line, column)


def test_check_of_a_good_text_resolves_each_process_and_queues_nothing(client: TestClient) -> None:
    text = (
        TWO.replace("NAME", "checked") + '  - {process: trial.count, name: three, config: {base: "@two"}}\n'
    )
    before = client.get("/jobs").json()
    found = client.post("/jobs/check", json={"text": text}).json()
    assert (found["ok"], found["name"], found["problems"]) == (True, "checked", [])
    one, two, three = found["steps"]
    assert (one["config"]["steps"], one["given"], one["line"]) == (3, ["steps"], 3)
    assert (two["after"], three["after"]) == (["one"], ["two"])
    assert one["command"] == "melete trial count --steps 3 --name=one"
    assert three["command"] is None  # it needs the run of another process
    assert client.get("/jobs").json() == before


def test_check_warns_of_inputs_that_are_not_there_now(client: TestClient) -> None:
    text = "name: later\nprocesses:\n  - process: trial.count\n    config:\n      base: no-such-run\n"
    found = client.post("/jobs/check", json={"text": text}).json()
    assert found["ok"]
    assert [(one["line"], one["key"]) for one in found["warnings"]] == [(5, "base")]


def test_wrong_text_is_refused_with_its_line_and_nothing_is_made(client: TestClient, lab: Settings) -> None:
    submitted(client, "before")
    before = sorted((lab.home / "jobs").iterdir())
    refused = client.post("/jobs", json={"text": BROKEN})
    assert refused.status_code == 400
    assert (
        "job.yaml:3: process: There is no process named 'trial.cuont'" in refused.json()["error"]["message"]
    )
    assert sorted((lab.home / "jobs").iterdir()) == before


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "text: it is missing"),
        ({"text": "x", "prioriti": 1}, 400, "Did you mean 'priority'?"),
        ({"text": "x", "priority": "high"}, 400, "priority"),
        ({"text": "x" * 1_000_001}, 400, "at most 1000000 characters"),
        ({"text": 3}, 400, "text"),
        ([], 400, "body"),
    ],
)
def test_body_that_is_none_is_refused_by_its_key(
    client: TestClient, body: Any, status: int, says: str
) -> None:
    refused = client.post("/jobs", json=body)
    assert refused.status_code == status
    assert says in refused.json()["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_ten_megabytes_is_413(client: TestClient, chunked: bool) -> None:
    piece = b"x" * 1_000_000
    content: Any = (piece for _ in range(10)) if chunked else piece * 10
    refused = client.post("/jobs", content=content, headers={"Content-Type": "application/json"})
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "too_large"


def test_paused_job_resumes_stopped_one_too_and_what_cannot_be_is_409(client: TestClient) -> None:
    job = submitted(client, "asked")
    paused = asked(client, job, "pause").json()
    assert (paused["state"], paused["actions"]) == ("paused", ["resume", "stop", "kill"])
    assert asked(client, job, "pause").status_code == 409
    assert asked(client, job, "resume").json()["state"] == "queued"
    stopped = asked(client, job, "stop").json()
    assert (stopped["state"], stopped["actions"]) == ("stopped", ["resume", "retry"])
    refused = asked(client, job, "kill")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert client.post(f"/jobs/{job['id']}/resume").json()["state"] == "queued"


def test_retry_with_a_changed_key_is_checked_first(client: TestClient) -> None:
    job = submitted(client, "again")
    asked(client, job, "stop")
    wrong = asked(client, job, "retry", changes={"one": {"steps": -1}})
    assert (wrong.status_code, "one.steps" in wrong.text) == (400, True)
    assert asked(client, job, "retry", changes={"none": {}}).status_code == 404
    changed = asked(client, job, "retry", changes={"one": {"steps": 9}}).json()
    assert (changed["state"], changed["steps"][0]["config"], changed["tries"]) == ("queued", {"steps": 9}, 2)


def test_job_is_found_by_name_and_beginning(client: TestClient) -> None:
    job = submitted(client, "byname")
    for ref in ("byname", "latest", job["id"][:-1]):
        assert client.get(f"/jobs/{ref}").json()["id"] == job["id"]
    assert client.get("/jobs/-x").status_code == 400


def test_log_of_a_job_goes_through_its_processes_in_both_directions(
    client: TestClient, lab: Settings
) -> None:
    job = talked(client, lab, "talks")
    path = f"/jobs/{job['id']}/log"
    last = client.get(path, params={"limit": 7}).json()
    assert [line["text"] for line in last["data"]] == ["one 3", "one 4", *(f"two {n}" for n in range(5))]
    first = client.get(path, params={"limit": 7, "cursor": last["next_cursor"]}).json()
    assert [line["text"] for line in first["data"]] == ["one 0", "one 1", "one 2"]
    assert first["next_cursor"] is None
    with child.log_file(lab, job["id"], 1, "two").open("a") as file:
        file.write("two more\n")
    (new,) = client.get(path, params={"after": last["end"]}).json()["data"]
    assert (new["text"], new["step"]) == ("two more", "two")
    from_start = client.get(path, params={"after": 0, "limit": 6}).json()
    assert [line["text"] for line in from_start["data"]] == [*(f"one {n}" for n in range(5)), "two 0"]
    rest = client.get(path, params={"after": from_start["end"]}).json()
    assert [line["text"] for line in rest["data"]] == [*(f"two {n}" for n in range(1, 5)), "two more"]


def test_log_of_one_process_and_of_a_word(client: TestClient, lab: Settings) -> None:
    path = f"/jobs/{talked(client, lab, 'words')['id']}/log"
    only = client.get(path, params={"step": "one", "limit": 2}).json()
    assert [line["text"] for line in only["data"]] == ["one 3", "one 4"]
    assert client.get(path, params={"step": "three"}).status_code == 404
    found = client.get(path, params={"search": " 4"}).json()["data"]
    assert [line["text"] for line in found] == ["one 4", "two 4"]
    assert client.get(path, params={"after": 2**52}).json()["data"] == []


def test_worker_says_what_it_has_and_what_it_works_on(client: TestClient, lab: Settings) -> None:
    job = submitted(client, "worked", priority=1_000)
    pid = os.getpid()
    with opened(lab) as queue:
        worker = Worker(
            "w-1", queue.home, socket.gethostname(), pid, folder.process_start_s(pid) or 0.0, cpu_slots=2
        )
        claims.enter(queue.engine, worker)
        claim = claims.claim(queue.engine, worker)
        assert claim is not None
        (found,) = client.get("/workers").json()["data"]
        assert (found["id"], found["cpu_slots"], found["cpu_slots_taken"]) == ("w-1", 2, 1)
        assert found["working_on"] == [{"job": job["id"], "step": "one", "run": None}]
        assert 0 <= found["beat_age_s"] < 60
        running = client.get(f"/jobs/{job['id']}").json()
        assert (running["state"], running["steps"][0]["worker"]) == ("running", "w-1")
        assert asked(client, job, "stop").json()["shown_state"] == "stopping"
        assert client.get(f"/jobs/{job['id']}").json()["actions"] == ["kill"]
        claims.finish(queue.engine, job["id"], 0, claim.attempt, Ending(StepState.STOPPED))
        claims.leave(queue.engine, worker)
    assert client.get(f"/jobs/{job['id']}").json()["state"] == "stopped"
    assert client.get("/workers").json()["data"] == []


def test_run_of_a_job_whose_folder_was_deleted_is_marked(client: TestClient, lab: Settings) -> None:
    job = submitted(client, "gone", priority=2_000)
    pid = os.getpid()
    started_s = folder.process_start_s(pid) or 0.0
    with opened(lab) as queue:
        worker = Worker("w-2", queue.home, socket.gethostname(), pid, started_s)
        claims.enter(queue.engine, worker)
        claim = claims.claim(queue.engine, worker)
        assert claim is not None
        claims.begin(
            queue.engine, job["id"], 0, claim.attempt, host=worker.host, pid=pid, pid_started_s=started_s
        )
        claims.note_run(queue.engine, job["id"], 0, claim.attempt, "20200101-000000-count-0000")
        claims.finish(queue.engine, job["id"], 0, claim.attempt, Ending(StepState.FAILED, "It broke."))
        claims.leave(queue.engine, worker)
    found = client.get(f"/jobs/{job['id']}").json()
    assert (found["state"], found["error"], found["steps"][0]["run_gone"]) == (
        "failed",
        "one: It broke.",
        True,
    )
    assert found["actions"] == ["retry"]


def test_every_example_that_ships_passes_the_check_and_says_what_it_does(client: TestClient) -> None:
    listed = client.get("/examples").json()["data"]
    assert "first-steps" in {one["name"] for one in listed}
    for one in listed:
        checked = client.post("/jobs/check", json={"text": one["text"]}).json()
        assert checked["ok"], (one["name"], checked["problems"])
        assert one["description"].endswith((".", "chat", "practice"))
        assert not one["own"]
        assert [step["process"] for step in checked["steps"]] == one["processes"]
        assert checked["name"] == one["name"]


def test_own_example_wins_over_one_that_ships(client: TestClient, lab: Settings) -> None:
    (lab.home / "examples").mkdir()
    (lab.home / "examples" / "first-steps.yaml").write_text("# Mine.\nname: mine\n")
    found = client.get("/examples/first-steps").json()
    assert (found["own"], found["description"], found["processes"]) == (True, "Mine.", [])
    assert client.get("/examples/none").status_code == 404


def test_form_becomes_a_text_and_the_command_that_does_the_same(client: TestClient) -> None:
    body = {"config": {"steps": "4", "rate": 0.5, "loud": True, "words": ["a b", "-c"]}, "name": "mine"}
    found = client.post("/processes/trial.count/job", json=body).json()
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["command"] == "melete trial count --steps 4 --loud --words 'a b' --words=-c --name=mine"
    checked = client.post("/jobs/check", json={"text": found["text"]}).json()
    assert checked["ok"]
    assert checked["name"] == "mine"
    assert checked["steps"][0]["given"] == ["steps", "loud", "words"]  # rate is the default


def test_form_names_each_wrong_field_by_its_path(client: TestClient) -> None:
    body = {"config": {"steps": "many", "stps": 1}, "needs": {"slots": 0}}
    found = client.post("/processes/trial.count/job", json=body).json()
    assert not found["ok"]
    assert found["command"] is None
    assert {one["path"] for one in found["problems"]} == {"steps", "stps", "needs.slots"}
    assert "steps: many" in found["text"]
    assert client.post("/processes/none/job", json={}).status_code == 404


def test_command_of_a_form_is_understood_by_the_command_line(client: TestClient) -> None:
    import shlex

    from melete.cli._process import process_command

    config = {"steps": 7, "words": ["x y", ""], "loud": True, "shape": "steep", "note": "--odd"}
    command = client.post("/processes/trial.count/job", json={"config": config}).json()["command"]
    parsed = process_command("trial.count").make_context("count", shlex.split(command)[3:])
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in parsed.params.items()}
    assert {key: str(told[key]) for key in config} == {key: str(value) for key, value in config.items()}
