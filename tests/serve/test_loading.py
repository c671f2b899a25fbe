"""Models that are loaded and unloaded while the server runs, and the server that begins without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from melete.agents.deploy import deploy
from melete.serve.agents import Agents
from melete.serve.server import Server
from melete.settings import Settings

from .conftest import echo_model


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """An empty home."""
    return Settings.of(tmp_path / "home")


@pytest.fixture
def loader(home: Settings) -> Iterator[Server]:
    """A server that began with nothing."""
    served: dict[str, Any] = {}
    with Server(served, home, agents=Agents(served, home, device="cpu", slots=2)) as running:
        yield running


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def said(server: Server, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_checkpoint_is_loaded_answers_and_is_unloaded(loader: Server, checkpoint: Path) -> None:
    made = post(loader, "/v1/models", model=str(checkpoint), name="mine")
    assert (made.status_code, made.json()["id"]) == (201, "mine")
    assert said(loader, "mine").status_code == 200
    engine: Any = loader.models["mine"].engine
    assert httpx.delete(f"{loader.url}/v1/models/mine").status_code == 204
    assert httpx.get(f"{loader.url}/v1/models").json()["data"] == []
    assert said(loader, "mine").json()["error"]["code"] == "model_not_found"
    until_s = time.monotonic() + 10
    while engine._thread is not None and time.monotonic() < until_s:
        time.sleep(0.02)
    assert engine._thread is None


def test_unloading_lets_what_is_being_written_end(home: Settings) -> None:
    served = {"echo": echo_model(interval_s=0.002)}
    agents = Agents(served, home)
    with Server(served, home, agents=agents) as server, httpx.Client(timeout=30) as client:
        body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "x" * 300}]}
        with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert httpx.delete(f"{server.url}/v1/models/echo").status_code == 204
            text = "".join(
                json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in lines
                if line.startswith("data: {") and '"choices"' in line
            )
    assert text == "x" * 300


def test_what_is_loaded_already_is_not_loaded_twice(loader: Server, checkpoint: Path) -> None:
    first = post(loader, "/v1/models", model=str(checkpoint)).json()
    assert post(loader, "/v1/models", model=str(checkpoint)).json() == first
    assert len(loader.models) == 1


def test_name_that_is_taken_is_refused(loader: Server) -> None:
    assert post(loader, "/v1/models", model="echo", name="one").status_code == 201
    refused = post(loader, "/v1/models", model="echo", name="one")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "name_taken")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "no-such-run"}, 404, "checkpoint_not_found"),
        ({"model": ""}, 400, "invalid_value"),
        ({"model": "echo", "name": "../x"}, 400, "invalid_value"),
        ({"modle": "echo"}, 400, None),
    ],
)
def test_request_that_cannot_be_done_is_refused_with_a_reason(
    loader: Server, body: dict[str, str], status: int, code: str | None
) -> None:
    answer = post(loader, "/v1/models", **body)
    assert answer.status_code == status
    assert code is None or answer.json()["error"]["code"] == code


def test_broken_checkpoint_is_refused_and_the_server_lives_on(
    loader: Server, checkpoint: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "runs" / "x" / "checkpoints" / checkpoint.name
    shutil.copytree(checkpoint, broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    refused = post(loader, "/v1/models", model=str(broken))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "checkpoint_refused")
    assert post(loader, "/v1/models", model="echo").status_code == 201


def test_model_larger_than_the_memory_is_refused_before_it_is_read(
    loader: Server, checkpoint: Path, tmp_path: Path
) -> None:
    large = tmp_path / "runs" / "large" / "checkpoints" / checkpoint.name
    shutil.copytree(checkpoint, large)
    record = json.loads((large / "checkpoint.json").read_text())
    name = next(name for name in record["files"] if name.endswith(".safetensors"))
    record["files"][name][0] = 2 * 10**12
    os.truncate(large / name, 2 * 10**12)  # sparse: it takes no room on the disk
    (large / "checkpoint.json").write_text(json.dumps(record))
    refused = post(loader, "/v1/models", model=str(large))
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "not_enough_memory")
    assert "GB are free" in refused.json()["error"]["message"]


def test_deployed_agent_is_loaded_with_its_guard_and_unloaded(loader: Server, home: Settings) -> None:
    made = deploy("echo", home, name="support", scenario="customer_support")
    assert post(loader, "/v1/models", model="support").json()["id"] == "support"
    listed = httpx.get(f"{loader.url}/v1/models").json()["data"]
    assert {one["id"]: one["agent"] for one in listed} == {made.id: "support", "support": "support"}
    call = 'call refund_order {"order": 1, "amount": 5, "reason": "late"}'
    assert post(loader, "/v1/agents/support/act", observation=call).json()["verdict"] == "refuse"
    assert httpx.delete(f"{loader.url}/v1/models/{made.id}").status_code == 204
    assert httpx.get(f"{loader.url}/v1/agents").json()["data"] == []
    assert loader.models == {}


def test_server_without_loading_refuses_to_load(server: Server) -> None:
    assert post(server, "/v1/models", model="echo").status_code == 405


LATER = """
    import json, sys
    from pathlib import Path
    from starlette.testclient import TestClient
    from melete.api.alone import gated
    from melete.settings import Settings

    home = Path(sys.argv[1])
    settings = Settings.of(home)
    said = {}
    with TestClient(gated(settings), base_url="http://127.0.0.1") as client:
        said["before"] = [client.get(path).json() for path in ("/health", "/v1/models", "/v1/agents")]
        refused = client.post("/v1/chat/completions", json={"model": "echo", "messages": []})
        said["refused"] = [refused.status_code, refused.json()["error"]["code"]]
        said["torch_before"] = "torch" in sys.modules
        if "--without-torch" in sys.argv:
            sys.modules["torch"] = None
        loaded = client.post("/v1/models", json={"model": "echo"})
        said["loaded"] = [loaded.status_code, loaded.json()]
        said["after"] = client.get("/health").json()
        talk = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
        said["answer"] = client.post("/v1/chat/completions", json=talk).json()
    print(json.dumps(said))
"""


def later(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a server that begins without a model says, in a process of its own."""
    (folder / "home").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(LATER), str(folder / "home"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_server_without_a_model_imports_torch_when_the_first_is_loaded(tmp_path: Path) -> None:
    said = later(tmp_path)
    empty = {"object": "list", "data": []}
    assert said["before"] == [{"status": "ok", "models": {}}, empty, empty]
    assert said["refused"] == [404, "model_not_found"]
    assert said["torch_before"] is False
    assert said["loaded"][0] == 201
    assert list(said["after"]["models"]) == ["echo"]
    assert said["answer"]["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.slow
def test_missing_library_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    said = later(tmp_path, "--without-torch")
    status, answer = said["loaded"]
    assert (status, answer["error"]["code"]) == (503, "missing_extra")
    assert "pip install 'melete[train]'" in answer["error"]["message"]
    assert said["after"] == {"status": "ok", "models": {}}
