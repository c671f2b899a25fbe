"""Trained models over the API: what they are made of, where they are in use, downloads, deploying and going back."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from melete.api.app import create_app
from melete.api.serving import Serving
from melete.runs import checkpoints
from melete.settings import Settings
from runs_at_hand import STEPS, fill_runs


@dataclass
class Loaded:
    """What the API looks at of a loaded model."""

    checkpoint: Path | None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with two runs, of which the first saved checkpoints and is deployed."""
    home = tmp_path_factory.mktemp("models")
    made = Settings.of(home)
    fill_runs(made)
    return made


@pytest.fixture(scope="module")
def run(lab: Settings) -> str:
    """The run that saved checkpoints."""
    return sorted(path.name for path in lab.runs.iterdir())[0]


@pytest.fixture(scope="module")
def client(lab: Settings, run: str) -> Iterator[TestClient]:
    """Asks the API of a server that has the model loaded."""
    folder = lab.runs / run / "checkpoints" / f"step_{STEPS:08d}"
    models: Any = {"chat": Loaded(folder), "echo": Loaded(None)}
    with TestClient(create_app(lab, Serving(lambda: models)), raise_server_exceptions=False) as made:
        yield made


def test_models_are_the_runs_that_saved_something_with_what_uses_them(client: TestClient, run: str) -> None:
    (found,) = client.get("/models").json()["data"]
    assert (found["id"], found["name"], found["kind"], found["checkpoints"]) == (run, "first", "trial", 2)
    assert (found["newest"]["id"], found["made_of"]) == (f"{run}:{STEPS}", ["dataset:trial"])
    assert [(one["id"], one["active"]) for one in found["deployments"]] == [("counter_v1.0", True)]
    assert found["served_as"] == ["chat"]
    assert client.get("/models", params={"kind": "llm"}).json()["data"] == []


def test_model_is_told_by_id_or_name_with_its_lineage(client: TestClient, run: str) -> None:
    found = client.get("/models/first").json()
    assert found == client.get(f"/models/{run}").json()
    assert [one["step"] for one in found["all_checkpoints"]] == [STEPS, 20]
    assert {node["kind"] for node in found["lineage"]["nodes"]} == {
        "dataset",
        "run",
        "checkpoint",
        "deployment",
    }


def test_best_checkpoint_is_the_one_with_the_best_validation(
    client: TestClient, lab: Settings, run: str
) -> None:
    metrics = lab.runs / run / "metrics.jsonl"
    before = metrics.read_bytes()
    try:
        metrics.write_text('{"step": 20, "val_loss": 1.0}\n{"step": 40, "val_loss": 2.0}\n')
        found = client.get(f"/models/{run}").json()
        assert (found["best"]["step"], found["best_by"]) == (20, "val_loss")
        assert [one["figures"] for one in found["all_checkpoints"]] == [{"val_loss": 2.0}, {"val_loss": 1.0}]
    finally:
        metrics.write_bytes(before)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/second", 404),
        ("/models/none", 404),
        ("/models/..%2f..", 404),
        ("/models/first/download?step=7", 404),
        ("/models/first/download?step=-1", 400),
        ("/models/-x", 400),
    ],
)
def test_model_that_is_none_is_refused(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_download_is_a_tar_file_of_the_checkpoint_that_opens(
    client: TestClient, lab: Settings, run: str, tmp_path: Path
) -> None:
    answer = client.get("/models/first/download", params={"step": 20})
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as opened:
        opened.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"{run}-step_00000020"
    record = checkpoints.read(folder)
    assert record == checkpoints.read(lab.runs / run / "checkpoints" / "step_00000020")
    for name, (size, sha) in record.files.items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha)
    tag = answer.headers["etag"]
    again = client.get("/models/first/download", params={"step": 20}, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_download_of_a_checkpoint_that_points_elsewhere_gives_nothing_of_it(
    client: TestClient, lab: Settings, run: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    file = lab.runs / run / "checkpoints" / "step_00000020" / "step.txt"
    before = file.read_bytes()
    file.unlink()
    file.symlink_to(secret)
    try:
        refused = client.get("/models/first/download", params={"step": 20})
        assert (refused.status_code, b"secret" in refused.content) == (404, False)
    finally:
        file.unlink()
        file.write_bytes(before)


def test_deploying_makes_the_next_version_and_roll_back_returns_to_the_one_before(client: TestClient) -> None:
    body = {"model": "echo", "scenario": "customer_support", "name": "desk"}
    first = client.post("/deployments", json=body)
    assert (first.status_code, first.headers["location"]) == (201, "/api/v1/deployments/desk/versions/1.0")
    assert client.post("/deployments", json=body).json()["previous"] == "1.0"
    assert client.post("/deployments/desk/roll-back").json()["version"] == "1.0"
    refused = client.post("/deployments/desk/roll-back")
    assert (refused.status_code, "no version before" in refused.text) == (409, True)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "../../etc"}, 400, "model"),
        ({"model": "/etc/passwd"}, 400, "model"),
        ({"model": "echo", "name": "Ä"}, 400, "name"),
        ({"model": "echo"}, 400, "practised no scenario"),
        ({"model": "echo", "scenario": "none"}, 404, "customer_support"),
        ({"model": "first", "scenario": "customer_support"}, 409, "kind 'trial'"),
        ({"model": "no-such-run", "scenario": "customer_support"}, 404, "no-such-run"),
    ],
)
def test_what_cannot_be_deployed_says_why(
    client: TestClient, body: dict[str, Any], status: int, says: str
) -> None:
    refused = client.post("/deployments", json=body)
    assert (refused.status_code, says in refused.json()["error"]["message"]) == (status, True)
