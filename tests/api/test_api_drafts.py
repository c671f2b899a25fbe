"""Texts of jobs while they are written, and the log of a job whose last process has said nothing yet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from melete import find
from melete.api.app import create_app
from melete.jobs import child
from melete.settings import Settings

TEXT = """\
# why
name: tiny
processes:
  - process: trial.count
    config: {steps: 3}
  - process: trial.count
    name: two
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An empty home."""
    return Settings.of(tmp_path_factory.mktemp("drafts"))


@pytest.fixture(scope="module")
def client(lab: Settings) -> Iterator[TestClient]:
    """Asks the API over it."""
    with TestClient(create_app(lab), raise_server_exceptions=False) as made:
        yield made


def test_draft_is_changed_checked_and_not_kept(client: TestClient) -> None:
    edit = {"place": ["processes", 0, "config", "steps"], "value": -1}
    answer = client.post("/jobs/draft", json={"text": TEXT, "edits": [edit]}).json()
    assert answer["text"] == TEXT.replace("3", "-1")
    assert answer["values"]["processes"][0]["config"] == {"steps": -1}
    assert [(one["line"], one["place"]) for one in answer["problems"]] == [(5, edit["place"])]
    assert (answer["ok"], answer["steps"]) == (False, [])
    assert client.get("/jobs").json()["data"] == []


def test_draft_that_is_no_yaml_has_no_values(client: TestClient) -> None:
    answer = client.post("/jobs/draft", json={"text": "a: [\n"}).json()
    assert answer["values"] is None
    assert answer["problems"][0]["place"] == []


def test_draft_with_a_place_that_cannot_be_is_400(client: TestClient) -> None:
    refused = client.post(
        "/jobs/draft", json={"text": TEXT, "edits": [{"place": ["processes", 9], "value": {}}]}
    )
    assert (refused.status_code, "processes.9" in refused.json()["error"]["message"]) == (400, True)


def test_schema_of_a_job_file_has_every_process(client: TestClient) -> None:
    schema = client.get("/jobs/schema").json()
    assert schema["$defs"]["Step"]["properties"]["process"]["enum"] == find.processes()


def test_log_followed_from_its_end_goes_on_with_the_process_that_runs(
    client: TestClient, lab: Settings
) -> None:
    job = client.post("/jobs", json={"text": TEXT}).json()["id"]
    first = child.log_file(lab, job, 0, "count")
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text("one\n")
    end = client.get(f"/jobs/{job}/log").json()["end"]
    with Path(first).open("a") as log:
        log.write("two\n")
    assert [line["text"] for line in client.get(f"/jobs/{job}/log?after={end}").json()["data"]] == ["two"]


@pytest.mark.parametrize(
    "text", ["name: \ud800", "name: a\x00b", "- a", "name: [" * 3_000, "1: 2", "%", "\ufeff", "a: &x [*x]"]
)
def test_odd_text_is_answered_with_what_is_wrong(client: TestClient, text: str) -> None:
    edit = {"place": ["processes", 0, "config"], "value": {"a": 1}}
    for body in ({"text": text}, {"text": text, "edits": [edit]}):
        answer = client.post(
            "/jobs/draft", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (200, 400)
        assert answer.status_code == 400 or answer.json()["problems"]
