"""Runs in the API: what the index lists and the folder tells; folders that are gone, names that lead elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from melete.api.app import create_app
from melete.jobs.execute import Options, execute
from melete.runs import folder
from melete.settings import Settings
from melete.store import index
from melete.store.database import connect, upsert
from melete.store.models import RunRow
from runs_at_hand import STEPS, fill_runs
from trial_runs import started_run


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two runs in it, made once; tests take a copy."""
    home = tmp_path_factory.mktemp("kept") / "home"
    fill_runs(Settings.of(home))
    return home


@pytest.fixture
def lab(home: Settings, kept: Path) -> Settings:
    """A home with two runs in it."""
    shutil.copytree(kept, home.home)
    index.rebuild(home)
    with connect(home.database) as connection:
        connection.execute(RunRow.__table__.delete().where(RunRow.location != index.location(home)))
    return home


@pytest.fixture
def client(lab: Settings) -> Iterator[TestClient]:
    """Asks the API over them."""
    app = create_app(lab)
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made
    app.state.store.close()


@pytest.fixture
def ids(lab: Settings) -> list[str]:
    """The runs' ids, oldest first."""
    return folder.ids(lab.runs)


def only(client: TestClient, path: str, **asked: Any) -> list[dict[str, Any]]:
    """The rows of a list that has one page."""
    page = client.get(path, params=asked)
    assert page.status_code == 200, page.text
    assert page.json()["next_cursor"] is None
    return list(page.json()["data"])


def test_runs_are_listed_newest_first_with_their_last_figures(client: TestClient, ids: list[str]) -> None:
    found = only(client, "/runs")
    assert [run["id"] for run in found] == ids[::-1]
    assert [(run["name"], run["state"], run["step"], run["folder"]) for run in found] == [
        ("second", "succeeded", 3, "here"),
        ("first", "succeeded", STEPS, "here"),
    ]
    assert set(found[0]["last"]) == {"loss", "tokens_per_s"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"name": "first"}, ["first"]),
        ({"state": "failed"}, []),
        ({"process": "trial.count", "state": "succeeded"}, ["second", "first"]),
        ({"process": "llm.pretrain"}, []),
        ({"since_s": 1e10}, []),
    ],
)
def test_runs_by_filter_are_those_it_means(
    client: TestClient, asked: dict[str, Any], names: list[str]
) -> None:
    assert [run["name"] for run in only(client, "/runs", **asked)] == names


def test_runs_of_other_homes_are_listed_only_when_asked_for(client: TestClient, lab: Settings) -> None:
    other = {
        "location": "there:/srv/home", "id": "20251120-120000-count-0000", "process": "trial.count", "state": "running",
        "name": None, "job": None, "created_s": 1.0, "ended_s": None, "step": None, "last": {}, "error": None,
    }  # fmt: skip
    with connect(lab.database) as connection:
        upsert(connection, RunRow.__table__, [other])
    assert len(only(client, "/runs")) == 2
    assert only(client, "/runs", everywhere=True)[-1]["folder"] == "elsewhere"
    refused = client.get(f"/runs/{other['id']}")
    assert refused.status_code == 404
    assert "there:/srv/home" in refused.json()["error"]["message"]


def test_run_is_told_with_config_provenance_result_and_note(
    client: TestClient, lab: Settings, ids: list[str]
) -> None:
    (lab.runs / ids[0] / "note.md").write_text("A <b>note</b>.", encoding="utf-8")
    found = client.get(f"/runs/{ids[0]}").json()
    assert found["config"]["steps"] == STEPS
    assert found["derived"] == [{"name": "total", "value": "20.0", "reason": "steps times rate"}]
    assert found["result"]["accuracy"]["count"] == 40
    assert found["provenance"]["datasets"] == {"trial": "0" * 64}
    assert found["last"]["step"] == STEPS
    assert found["note"] == "A <b>note</b>."


def test_run_that_is_alive_is_running_and_one_that_was_killed_is_lost(home: Settings) -> None:
    with (
        TestClient(create_app(home)) as client,
        started_run(home, "--hold-s", "60") as (child, path),
    ):
        index.record(home, path)  # as its heartbeat does
        assert [run["id"] for run in client.get("/status").json()["running"]] == [path.name]
        child.kill()
        child.wait()
        assert client.get("/status").json()["running"] == []
        assert only(client, "/runs")[0]["state"] == "lost"
        assert client.get(f"/runs/{path.name}").json()["state"] == "lost"


PARTS = ["", "/metrics", "/log", "/samples", "/files", "/files/config.yaml", "/lineage"]


@pytest.mark.parametrize("part", PARTS)
def test_run_folder_deleted_by_hand_is_one_clear_message(
    client: TestClient, lab: Settings, ids: list[str], part: str
) -> None:
    shutil.rmtree(lab.runs / ids[0])
    assert only(client, "/runs")[1]["folder"] == "gone"
    refused = client.get(f"/runs/{ids[0]}{part}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "gone")
    assert "melete store rebuild" in refused.json()["error"]["message"]


def test_unknown_run_is_404_with_the_newest_ones(client: TestClient, ids: list[str]) -> None:
    refused = client.get(f"/runs/{ids[0]}x")
    assert refused.status_code == 404
    assert f"Did you mean {ids[0]!r}?" in refused.json()["error"]["message"]


def test_torn_record_of_a_run_is_one_clear_message(client: TestClient, lab: Settings, ids: list[str]) -> None:
    (lab.runs / ids[0] / "run.json").write_text('{"id": ', encoding="utf-8")
    refused = client.get(f"/runs/{ids[0]}")
    assert refused.status_code == 400
    assert "run.json cannot be read" in refused.json()["error"]["message"]
    assert len(only(client, "/runs")) == 2


@pytest.mark.parametrize(
    "name", ["..", ".columns", "%2e%2e%2f%2e%2e%2fetc", "a%00b", "a%0ab", "-rf", "x" * 101]
)
def test_run_id_that_is_none_never_reaches_the_disk(client: TestClient, name: str) -> None:
    assert client.get(f"/runs/{name}/files/config.yaml").status_code in (400, 404)


@pytest.mark.parametrize(
    "path",
    [
        "../../melete.db",
        "..%2f..%2fmelete.db",
        "samples/../run.json/../../../melete.db",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        ".reserve",
        ".columns/head.json",
        "checkpoints/.tmp-step/x.json",
        "heartbeat",
        "cloud/task.yaml",
        "secret.pem",
        "samples",
        "config.yaml%00.txt",
        "link.txt",
        "samples/link/passwd.txt",
        "x" * 400 + ".txt",
    ],
)
def test_file_outside_the_allow_list_is_404(
    client: TestClient, lab: Settings, ids: list[str], path: str
) -> None:
    run = lab.runs / ids[0]
    for made in ("secret.pem", "cloud/task.yaml", "checkpoints/.tmp-step/x.json"):
        (run / made).parent.mkdir(exist_ok=True)
        (run / made).write_text("treasure", encoding="utf-8")
    (lab.home / "passwd.txt").write_text("treasure", encoding="utf-8")
    (run / "link.txt").symlink_to(lab.home / "passwd.txt")
    (run / "samples" / "link").symlink_to(lab.home)
    refused = client.get(f"/runs/{ids[0]}/files/{path}")
    assert refused.status_code in (400, 404)
    assert b"treasure" not in refused.content
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    listed = {
        file["path"] for file in client.get(f"/runs/{ids[0]}/files", params={"limit": 200}).json()["data"]
    }
    assert not {path, "link.txt", "secret.pem", "cloud/task.yaml"} & listed


def test_listed_files_can_all_be_read(client: TestClient, lab: Settings, ids: list[str]) -> None:
    found = only(client, f"/runs/{ids[0]}/files", limit=200)
    names = {file["path"] for file in found}
    assert {"config.yaml", "metrics.jsonl", "run.json", "checkpoints/step_00000020/checkpoint.json"} <= names
    assert names >= {"samples/00000040_text.txt"}
    for file in found:
        content = client.get(f"/runs/{ids[0]}/files/{file['path']}")
        assert content.content == (lab.runs / ids[0] / file["path"]).read_bytes()
        assert content.headers["content-type"].startswith(file["media_type"])


def test_page_among_the_files_is_shown_without_its_scripts(client: TestClient, ids: list[str]) -> None:
    answer = client.get(f"/runs/{ids[0]}/files/report.html")
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_file_is_given_out_in_ranges_and_not_again(client: TestClient, ids: list[str]) -> None:
    path = f"/runs/{ids[0]}/files/config.yaml"
    whole = client.get(path)
    part = client.get(path, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole.content[2:6])
    again = client.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_hostile_names_and_numbers_of_a_run_are_an_answer(
    client: TestClient, lab: Settings, ids: list[str]
) -> None:
    file = lab.runs / ids[0] / "run.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values |= {
        "name": "<script>alert(1)</script>'; DROP TABLE runs; --" + "x" * 10_000_000,
        "result": {"loss": float("nan"), "\ud800": float("inf"), "deep": [[[[["\ud800"]]]]]},
    }
    file.write_text(json.dumps(values), encoding="utf-8")
    found = client.get(f"/runs/{ids[0]}")
    assert found.status_code == 200
    assert found.json()["result"] == {"loss": None, "?": None, "deep": [[[[["?"]]]]]}
    assert found.json()["name"].startswith("<script>")
    assert len(found.json()["name"]) == 20_000
    index.rebuild(lab)
    listed = only(client, "/runs")[1]
    assert len(listed["name"]) == 2_000


def test_samples_are_newest_first_and_those_of_hostile_names_are_text(
    client: TestClient, lab: Settings, ids: list[str]
) -> None:
    samples = lab.runs / ids[0] / "samples"
    (samples / "00000007_<script>.txt").write_text("x" * 10_000, encoding="utf-8")
    (samples / "00000009_picture.png").write_bytes(b"\x89PNG")
    (samples / os.fsdecode(b"00000008_\xff.txt")).write_bytes(b"\xff\xfe")
    (samples / "notes.txt").write_text("no sample", encoding="utf-8")
    found = only(client, f"/runs/{ids[0]}/samples")
    assert [(sample["step"], sample["name"]) for sample in found] == [
        (STEPS, "text"), (9, "picture"), (8, "?"), (7, "<script>"),
    ]  # fmt: skip
    assert found[0]["text"] == "counted to <b>the end</b>"
    assert (found[1]["text"], found[1]["media_type"]) == (None, "image/png")
    assert len(found[3]["text"]) == 6_000
    assert client.get(f"/runs/{ids[0]}/files/{found[1]['file']}").content == b"\x89PNG"


def test_checkpoints_are_the_newest_of_each_run_or_all_of_one(client: TestClient, ids: list[str]) -> None:
    assert [one["id"] for one in only(client, "/checkpoints")] == [f"{ids[0]}:{STEPS}"]
    assert [one["step"] for one in only(client, "/checkpoints", run=ids[0])] == [STEPS, 20]
    assert only(client, "/checkpoints", kind="llm") == []
    one = client.get(f"/checkpoints/{ids[0]}:20").json()
    assert (one["kind"], one["bytes"], one["files"][0]["name"]) == ("trial", 2, "step.txt")
    missing = client.get(f"/checkpoints/{ids[0]}:21")
    assert (missing.status_code, f"{ids[0]}:20" in missing.text) == (404, True)


def test_lineage_leads_from_data_to_deployment(client: TestClient, ids: list[str]) -> None:
    saved, found = f"checkpoint:{ids[0]}:{STEPS}", client.get(f"/runs/{ids[0]}/lineage").json()
    assert {(edge["source"], edge["target"]) for edge in found["edges"]} == {
        ("dataset:trial", f"run:{ids[0]}"),
        (f"run:{ids[0]}", saved),
        (saved, "deployment:counter_v1.0"),
    }
    of_second = client.get(f"/runs/{ids[1]}/lineage").json()
    assert (saved, f"run:{ids[1]}") in {(edge["source"], edge["target"]) for edge in of_second["edges"]}
    assert not any(node["missing"] for node in of_second["nodes"])


def test_lineage_shows_what_was_deleted_as_missing(client: TestClient, lab: Settings, ids: list[str]) -> None:
    shutil.rmtree(lab.runs / ids[0])
    found = client.get(f"/runs/{ids[1]}/lineage").json()
    assert {node["id"] for node in found["nodes"] if node["missing"]} == {
        f"run:{ids[0]}",
        f"checkpoint:{ids[0]}:{STEPS}",
    }


def test_status_is_told_without_any_run(home: Settings) -> None:
    with TestClient(create_app(home)) as client:
        found = client.get("/status").json()
    assert (found["running"], found["latest"], found["jobs"]) == ([], [], {})
    assert found["memory"]["total_bytes"] > found["memory"]["free_bytes"] > 0
    assert found["disk"]["total_bytes"] > 0
    assert found["versions"]["melete"]


def test_failed_run_says_why(home: Settings) -> None:
    from melete.errors import TrainingError

    with pytest.raises(TrainingError):
        execute("trial.count", {"fail_at": 1}, Options(home))
    with TestClient(create_app(home)) as client:
        (run,) = only(client, "/runs", state="failed")
        assert "became nan at step 1" in run["error"]
        assert client.get(f"/runs/{run['id']}").json()["error"] == run["error"]
