"""Handing over to verl: the files are written, its configuration accepts them, and a worker plays what it submits."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agents.desk import echo_model, task
from agents.hubs_at_hand import need_environment
from melete.agents import verl
from melete.agents.hubs._child import Child, python_of
from melete.agents.processes.handover import Config
from melete.errors import ConfigError, HubError
from melete.runs.process import parse_config
from melete.runs.run import Run
from melete.serve.server import Server
from melete.settings import Settings

SMALL = {"steps": 8, "problems": 16, "group": 8, "pool": 3, "held_out": 2, "gpus": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is written for a small job."""
    return written(tmp_path)


def written(place: Path, **options: Any) -> Path:
    config = parse_config("agents.handover", {**SMALL, **options})
    assert isinstance(config, Config)
    return verl.write(config, Run(place))


def composed(folder: Path) -> subprocess.CompletedProcess[str]:
    need_environment("verl")
    return subprocess.run(
        [str(python_of("verl")), "trainer.py", "--check"],
        cwd=folder,
        env={**os.environ, "AGL_KEY": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_configuration_is_accepted_by_the_installed_trainer(folder: Path) -> None:
    done = composed(folder)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["actor_rollout_ref"]["model"]["path"] == "Qwen/Qwen3-4B"
    assert config["actor_rollout_ref"]["rollout"]["n"] == 8
    assert config["actor_rollout_ref"]["rollout"]["engine_kwargs"]["vllm"]["tool_call_parser"] == "hermes"
    assert config["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == "per_rollout_mean"
    assert config["agentlightning"]["trace_aggregator"]["level"] == "trajectory"
    assert config["agentlightning"]["agl_key"] == "secret"
    assert config["data"]["train_batch_size"] == 16


@pytest.mark.parametrize(
    "options", [{"kl": 0.01, "lora_rank": 16}, {"ahead": False, "updates": 2, "save_every": 2}]
)
def test_every_option_that_is_handed_over_is_known_to_the_trainer(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    done = composed(written(tmp_path, **options))
    assert done.returncode == 0, done.stderr


def test_key_that_the_trainer_does_not_have_is_found_by_the_check(folder: Path) -> None:
    path = folder / "trainer.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("train_batch_size", "batch"), encoding="utf-8")
    done = composed(folder)
    assert done.returncode != 0
    assert "Key 'batch' is not in struct" in done.stderr


def test_server_settings_are_those_that_agent_lightning_ships(folder: Path) -> None:
    need_environment("verl")
    (shipped,) = (python_of("verl").parents[1] / "lib").glob(
        "python3*/site-packages/agentlightning/config/server.yaml"
    )
    ours, theirs = (
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in (folder / "server.yaml", shipped)
    )
    assert ours.keys() == theirs.keys()
    assert ours["default_proxy"].keys() == theirs["default_proxy"].keys()
    assert ours["default_proxy"]["model_name"] == "Qwen/Qwen3-4B"
    assert "secret" not in (folder / "server.yaml").read_text(encoding="utf-8")


def test_tasks_are_rows_with_the_same_columns_and_whole_orders(folder: Path) -> None:
    rows = [
        json.loads(line) for line in (folder / "tasks_train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) == 3
    for row in rows:
        assert row.keys() == {"name", "order"}
        assert json.loads(row["order"])["task"]["scenario"] == "customer_support"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "latest"}, "verl trains transformers models"),
        ({"problems": 5, "group": 2}, "5 tasks of 2 tries do not divide among 8 GPUs"),
        ({"updates": 3}, "16 tasks do not divide into 3 updates"),
        ({"parallel": 3}, "3 does not divide 8 GPUs"),
    ],
)
def test_job_that_verl_would_refuse_is_refused_here(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, **options)


@pytest.mark.slow
def test_worker_plays_what_another_client_submits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_environment("agentlightning1")
    from agents.desk import Desk

    monkeypatch.setattr("melete.agents.scenario.load", lambda name: Desk())
    child = Child("agentlightning1", "_server1.py")
    drawn = {"temperature": 1.0}
    child.send({"key": "secret", "default_proxy": {"model_name": "echo", "train": drawn, "val": drawn}})
    url = f"http://127.0.0.1:{child.receive()['port']}"
    over: list[HubError] = []

    def work() -> None:
        try:
            verl.work(
                url, "secret", scenario="desk", framework="openai", max_tokens=64, workers=2, traces=tmp_path
            )
        except HubError as error:
            over.append(error)

    with (
        Server({"echo": echo_model()}, Settings.of(tmp_path)) as server,
        httpx.Client(base_url=url, headers={"Authorization": "Bearer secret"}) as trainer,
    ):
        model = {"model": "echo", "endpoint": f"{server.url}/v1", "version": 4}
        trainer.post("/api/models", json=[model]).raise_for_status()
        order = json.dumps({"task": vars(task("a"))})
        trainer.post("/api/rollouts", json=[{"rollout_id": "r", "input": {"name": "a", "order": order}}])
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        state = ""
        for _ in range(600):
            state = trainer.get("/api/rollouts/r").json()["rollout"]["status"]["state"]
            if state in ("succeeded", "failed"):
                break
            thread.join(0.05)
        events = trainer.get("/api/rollouts/r/events", params={"format": "triplet"}).json()
    child.close()
    thread.join(30)
    assert state == "succeeded"
    by_type = [event["event_type"] for event in events]
    assert by_type == ["model_request"] * 5 + ["reward", "episode"]
    assert all(event["data"]["response_token_ids"] for event in events[:5])
    assert events[5]["data"]["value"] > 0.8
    assert len(over) == 1
