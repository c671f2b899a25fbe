"""Hostile names, texts and logs: no crash, no path that leads elsewhere; two servers on one home; a newer store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from melete.api.app import create_app
from melete.jobs import child
from melete.runs import folder
from melete.settings import Settings
from melete.store import database
from runs_at_hand import fill_queue, fill_runs

NASTY = [
    "<script>alert(1)</script>",
    "'; DROP TABLE run; --",
    '" OR 1=1',
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "a\u202eb",
    "\U0001f4a5" * 50,
    "{{7*7}}",
    "${jndi:x}",
    "x" * 5_000,
]
READS = [
    "/runs/{}", "/runs/{}/log", "/jobs/{}", "/jobs/{}/log", "/models/{}", "/models/{}/download", "/examples/{}",
    "/datasets/{}", "/datasets/{}/rows", "/datasets/{}/card", "/deployments/{}", "/processes/{}", "/checkpoints/{}",
    "/runs/RUN/files/{}", "/scenarios/{}", "/runs?name={}", "/jobs?name={}", "/runs/RUN/log?search={}",
]  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with runs and jobs."""
    home = tmp_path_factory.mktemp("hostile")
    made = Settings.of(home)
    fill_runs(made)
    fill_queue(made)
    return made


@pytest.fixture(scope="module")
def client(lab: Settings) -> Iterator[TestClient]:
    """Asks the API over it."""
    with TestClient(create_app(lab), raise_server_exceptions=False) as made:
        yield made


@pytest.mark.parametrize("path", READS)
def test_nasty_names_in_a_path_are_refused_or_found_nothing(
    client: TestClient, lab: Settings, path: str
) -> None:
    from urllib.parse import quote

    run = folder.ids(lab.runs)[0]
    for name in NASTY:
        answer = client.get(path.replace("RUN", run).format(quote(name, safe="")))
        assert answer.status_code in (200, 400, 404), (name, answer.text[:200])
        assert "root:" not in answer.text
        if answer.status_code != 200:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


BODIES: dict[str, Any] = {
    "/jobs": lambda nasty: {"text": nasty},
    "/jobs/check": lambda nasty: {"text": f"name: {json.dumps(nasty)}\nprocesses: [{{process: {json.dumps(nasty)}}}]"},
    "/processes/trial.count/job": lambda nasty: {"config": {nasty: nasty, "words": [nasty]}},
    "/deployments": lambda nasty: {"model": "echo", "scenario": nasty, "name": nasty},
    "/jobs/waiting/retry": lambda nasty: {"changes": {nasty: {nasty: nasty}}},
}  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "name", [*NASTY, "\ud800", {"deep": [[[[[[]]]]]]}, 1e308, None], ids=lambda one: str(one)[:12]
)
def test_nasty_bodies_never_crash_the_server(client: TestClient, path: str, name: Any) -> None:
    body = json.dumps(
        BODIES[path](name if isinstance(name, str) else "x") | ({} if isinstance(name, str) else {"y": name})
    )
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text[:300]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"text": ' + b"9" * 5_000 + b"}", b'{"text": NaN}', b'{"a":1,"a":2}',
     b"null"],
    ids=["empty", "half", "bytes", "deep", "digits", "nan", "twice", "null"],
)  # fmt: skip
def test_body_that_is_no_json_object_is_400(client: TestClient, content: bytes) -> None:
    refused = client.post("/jobs", content=content, headers={"Content-Type": "application/json"})
    assert (refused.status_code, set(refused.json())) == (400, {"error"})


def test_log_full_of_scripts_and_control_characters_is_text(client: TestClient, lab: Settings) -> None:
    lines = ["<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "\x00\x07", "\u2028", "50%\r100%"]
    file = child.log_file(lab, client.get("/jobs/taken").json()["id"], 0, "one")
    file.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe half" + b"\n" + b"y" * 10_000_000 + b"\n")
    answer = client.get("/jobs/taken/log", params={"limit": 3})
    assert answer.headers["content-type"].startswith("application/json")
    assert len(answer.content) < 50_000
    every = client.get("/jobs/taken/log", params={"after": 0}).json()["data"]
    assert [line["text"] for line in every[:4]] == lines[:4]


def test_entities_that_multiply_are_one_problem(client: TestClient) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
    )
    found = client.post("/jobs/check", json={"text": bomb}).json()
    assert "aliases written out" in found["problems"][0]["message"]


def test_two_servers_on_one_home_both_answer_and_agree(lab: Settings, client: TestClient) -> None:
    job_text = "name: both\nprocesses:\n  - process: trial.count\n"
    with TestClient(create_app(lab), raise_server_exceptions=False) as other:
        made = other.post("/jobs", json={"text": job_text}).json()
        assert client.get(f"/jobs/{made['id']}").json()["state"] == "queued"
        assert client.post(f"/jobs/{made['id']}/stop").status_code == 200
        assert other.post(f"/jobs/{made['id']}/stop").status_code == 409
        run = folder.ids(lab.runs)[0]
        tag = other.get(f"/runs/{run}/note").headers["etag"]
        assert (
            client.put(f"/runs/{run}/note", json={"text": "a"}, headers={"If-Match": tag}).status_code == 200
        )
        assert (
            other.put(f"/runs/{run}/note", json={"text": "b"}, headers={"If-Match": tag}).status_code == 412
        )


def test_store_of_a_newer_version_is_read_no_more_and_not_written(tmp_path: Path) -> None:
    lab = Settings.of(tmp_path)
    with database.connect(lab.database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    body = {"text": "name: later\nprocesses:\n  - process: trial.count\n"}
    with TestClient(create_app(lab), raise_server_exceptions=False) as client:
        for refused in (client.get("/runs"), client.post("/jobs", json=body)):
            assert refused.status_code == 503
            message = refused.json()["error"]["message"]
            assert "9999_future, newer than this program" in message
            assert "Use the newer Melete" in message
    assert not list((tmp_path / "jobs").glob("*"))


def test_server_that_runs_while_the_store_is_upgraded_submits_nothing_more(tmp_path: Path) -> None:
    lab = Settings.of(tmp_path)
    body = {"text": "name: later\nprocesses:\n  - process: trial.count\n"}
    with TestClient(create_app(lab), raise_server_exceptions=False) as client:
        assert client.post("/jobs", json=body).status_code == 201
        with database.connect(lab.database) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
        assert client.post("/jobs", json=body).status_code == 503
        assert len(list((tmp_path / "jobs").iterdir())) == 1
