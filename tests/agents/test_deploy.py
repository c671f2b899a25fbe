"""Deploying: a run becomes a version behind a name, goes back, and is written as a folder that starts elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm.tiny import own_checkpoint
from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard
from melete.agents import deploy, docker
from melete.agents import scenario as scenarios
from melete.errors import (
    CheckpointError,
    ConfigError,
    DeploymentError,
    ScenarioNotFoundError,
    ServerError,
    UnknownNameError,
)
from melete.records import Turn
from melete.runs import folder as folders
from melete.serve import deployment
from melete.serve.acting import Checks, Conversing
from melete.serve.agents import Agents
from melete.serve.server import Server
from melete.settings import Settings

LIMIT_MS = 500.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny model."""
    return own_checkpoint(tmp_path_factory.mktemp("tiny") / "run", context=2048)


@pytest.fixture
def practised(home: Settings, tiny: Path) -> Path:
    """A run of practice with a checkpoint of a tiny model."""
    path, _ = folders.create(
        home, "agents.train", name="practice", job=None, step_name=None, limit_batches=None
    )
    (path / "config.yaml").write_text("scenario: customer_support\nbase: latest\n")
    shutil.copytree(tiny, path / "checkpoints" / tiny.name)
    return path


@pytest.fixture
def server(home: Settings) -> Iterator[Server]:
    """Serves nothing yet, and can load agents."""
    served: dict[str, Any] = {}
    with Server(served, home, agents=Agents(served, home, device="cpu")) as running:
        yield running


def test_run_of_practice_becomes_a_version_with_all_its_parts(home: Settings, practised: Path) -> None:
    made = deploy.deploy("practice", home)
    scenario = scenarios.load("customer_support")
    assert made.id == "customer_support_v1.0"
    read = deployment.load(home, "customer_support")
    assert read.system_prompt == scenario.system_prompt
    assert read.prompt == "customer_support@1"
    assert read.tools == tuple(scenario.toolset.schemas)
    assert read.guard == scenario.guard.to_dict()
    assert [one["name"] for one in read.criteria] == [one.name for one in scenario.success_criteria()]
    assert read.source == f"{practised.name}:1"
    assert read.weights is not None
    assert read.digest == deployment.digest_of(read.weights)


def test_each_deployment_is_the_next_minor_version_and_a_chosen_one_is_kept(
    home: Settings, practised: Path
) -> None:
    ids = [deploy.deploy("practice", home, version=version).version for version in ("", "", "2.0", "")]
    assert ids == ["1.0", "1.1", "2.0", "2.1"]
    with pytest.raises(DeploymentError, match=r"customer_support_v2\.0 exists already[\s\S]*it will be 2\.2"):
        deploy.deploy("practice", home, version="2.0")


def test_weights_that_were_copied_survive_the_run(home: Settings, practised: Path) -> None:
    made = deploy.deploy("practice", home, copy_weights=True)
    shutil.rmtree(practised)
    deployment.load(home, made.id).verify()
    assert not list((made.folder / "weights").glob("state.*"))


@pytest.mark.parametrize(("name", "version"), [("Bad Name", ""), ("../up", ""), ("", "1"), ("", "1.2.3")])
def test_bad_name_or_version_is_refused_and_nothing_is_left(
    home: Settings, practised: Path, name: str, version: str
) -> None:
    with pytest.raises(DeploymentError, match=r"is no name of a deployment|is no version"):
        deploy.deploy("practice", home, name=name, version=version)
    assert not list(deployment.root(home).glob("**/*"))


def test_corrupt_checkpoint_is_refused(home: Settings, practised: Path) -> None:
    (weights,) = practised.glob("checkpoints/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="truncated"):
        deploy.deploy("practice", home)
    assert deployment.names(home) == []


def test_unknown_run_scenario_and_a_run_without_one_are_said(home: Settings, practised: Path) -> None:
    with pytest.raises(UnknownNameError, match="practise"):
        deploy.deploy("practise", home)
    with pytest.raises(ScenarioNotFoundError, match="customer_support"):
        deploy.deploy("practice", home, scenario="customer_suport")
    (practised / "config.yaml").write_text("base: latest\n")
    with pytest.raises(ConfigError, match="practised no scenario"):
        deploy.deploy("practice", home)


def test_deploy_command_puts_it_on_the_running_server_in_under_half_a_second(
    call: Any, home: Settings, practised: Path, server: Server
) -> None:
    code, out, err = call("agents", "deploy", "practice", "--url", server.url)
    assert code == 0, err
    assert "customer_support_v1.0 is in use at" in out
    said = httpx.get(f"{server.url}/v1/agents/customer_support").json()
    assert said["loaded_ms"] < LIMIT_MS
    call("agents", "deploy", "practice", "--url", server.url)
    again = httpx.get(f"{server.url}/v1/agents/customer_support").json()
    assert (again["version"], again["previous"]) == ("1.1", "1.0")
    code, out, _ = call("agents", "deploy", "customer_support", "--rollback", "--url", server.url)
    assert "customer_support_v1.0 is in use" in out
    answer = httpx.post(
        f"{server.url}/v1/agents/customer_support/act", json={"observation": "Hello"}, timeout=30
    )
    assert answer.json()["version"] == "1.0"
    assert answer.json()["verdict"] in ("allow", "refuse")


def test_deploy_command_without_a_server_says_how_to_start_one(call: Any, home: Settings) -> None:
    options = ("--scenario", "customer_support", "--url", "http://127.0.0.1:9")
    code, out, _ = call("agents", "deploy", "echo", *options)
    assert code == 0
    assert "melete serve --agent customer_support" in out
    call("agents", "deploy", "echo", *options)
    code, out, _ = call("agents", "deploy", "--list")
    assert "customer_support_v1.0" in out
    assert "customer_support_v1.1  in use" in out
    code, out, _ = call("agents", "deploy", "customer_support", "--rollback", "--url", "http://127.0.0.1:9")
    assert "back at version 1.0" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("customer_support_v9.9",), "Nothing is deployed by the name 'customer_support_v9.9'"),
        (("nobody",), "There is no run named 'nobody'"),
        (("nobody", "--rollback"), "Nothing is deployed by the name 'nobody'"),
        (("--list", "nobody"), "No agent is deployed yet"),
        ((), "What is to be deployed?"),
    ],
)
def test_deploy_command_with_a_name_that_does_not_exist_says_so(
    call: Any, home: Settings, args: tuple[str, ...], message: str
) -> None:
    code, _, err = call("agents", "deploy", *args, "--url", "http://127.0.0.1:9")
    assert code in (2, 13)
    assert message in err


def test_version_that_does_not_exist_lists_those_that_do(call: Any, home: Settings) -> None:
    deploy.deploy("echo", home, scenario="customer_support")
    code, _, err = call("agents", "deploy", "customer_support_v1.7")
    assert code == DeploymentError.exit_code
    assert "customer_support has no version 1.7." in err
    assert "Deployed: 1.0." in err


def test_server_that_offers_no_agents_is_said(home: Settings) -> None:
    from serve.conftest import echo_model

    deploy.deploy("echo", home, scenario="customer_support")
    with (
        Server({"echo": echo_model()}, home) as plain,
        pytest.raises(ServerError, match=r"does not offer agents[\s\S]*melete serve --agent"),
    ):
        deploy.activate_at(plain.url, "customer_support")


@pytest.mark.slow
def test_docker_folder_starts_in_another_place_without_this_tree(
    call: Any, home: Settings, practised: Path, tmp_path: Path
) -> None:
    deploy.deploy("practice", home)
    code, _, err = call(
        "agents", "deploy", "customer_support", "--to", "docker", "--out", str(tmp_path / "made")
    )
    assert code == 0, err
    elsewhere = tmp_path / "other machine" / "agent"
    elsewhere.parent.mkdir()
    shutil.move(tmp_path / "made", elsewhere)
    shutil.rmtree(home.home)
    port = free_port()
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("MELETE_", "PYTHON"))
    }
    server = subprocess.Popen(
        ["sh", str(elsewhere / "start.sh")], cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**environ, "PORT": str(port), "PYTHON": sys.executable},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        lines = []
        while line := server.stdout.readline():
            lines.append(line)
            if "Stop with" in line:
                break
        url = f"http://127.0.0.1:{port}"
        assert f"Act   {url}/v1/agents/customer_support/act" in "".join(lines)
        said = httpx.get(f"{url}/v1/agents/customer_support").json()
        assert said["id"] == "customer_support_v1.0"
        answer = httpx.post(f"{url}/v1/agents/customer_support/act", json={"observation": "Hi"}, timeout=60)
        assert answer.status_code == 200, answer.text
        traces = elsewhere / "home" / "deployments" / "customer_support" / "traces"
        assert (traces / "v1.0.jsonl").stat().st_size > 0
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def test_docker_folder_names_nothing_of_this_machine(home: Settings, practised: Path, tmp_path: Path) -> None:
    deploy.deploy("practice", home)
    docker.write(home, "customer_support", tmp_path / "made")
    texts = [p for p in (tmp_path / "made").rglob("*") if p.is_file() and "app" not in p.parts]
    assert [p for p in texts if str(home.home).encode() in p.read_bytes()] == []
    pinned = (tmp_path / "made" / "requirements.txt").read_text().splitlines()
    assert all("==" in line and "+" not in line for line in pinned)
    assert {"torch", "fastapi", "uvicorn", "llguidance", "pydantic", "click"} <= {
        line.partition("==")[0] for line in pinned
    }
    dockerfile = (tmp_path / "made" / "Dockerfile").read_text()
    assert "USER agent" in dockerfile
    assert (
        json.loads((tmp_path / "made/home/deployments/customer_support/active.json").read_text())["version"]
        == "1.0"
    )


def test_docker_folder_that_has_content_is_left_alone(home: Settings, tmp_path: Path) -> None:
    deploy.deploy("echo", home, scenario="customer_support")
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(DeploymentError, match="exists and is not empty"):
        docker.write(home, "customer_support", tmp_path)
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_deployed_guard_judges_every_action_as_practice_did(home: Settings) -> None:
    scenario = scenarios.load("customer_support")
    made = deploy.deploy("echo", home, scenario="customer_support")
    judged = 0
    for index, task in enumerate(scenario.tasks("held_out", 12, seed=3)):
        policy = scenario.mistakes(task, scenario.expert(task), index) if index % 2 else scenario.expert(task)
        practice, world = scenario.create_environment(task), scenario.world(task)
        seen, over = practice.reset()[0], False
        talk = Conversing.start(Guard.from_dict(made.guard), Checks(made.tools), world.facts())
        talk.observe(world.opening())
        while not over:
            turn = as_turn(policy(seen), f"c{judged}")
            seen, _, terminated, truncated, info = practice.act(turn)
            over = terminated or truncated
            talk.wrote(turn)
            step = talk.judge()
            answer = None if turn.tool_calls else world.reply(turn.content)
            if answer is not None:
                talk.observe(answer)
            if step.verdict == "ask":
                step = talk.confirm(world.confirm(ToolAction.from_call(turn.tool_calls[0]))) or step
            if turn.tool_calls and step.execute is not None:
                executed = ToolAction(step.execute["name"], step.execute.get("arguments", {}))
                result = scenario.toolset.call(executed, on=world)
                talk.observe(result.content if result.ok else f"Error: {result.error}", result.ok)
            judged += 1
            if step.rule != "schema":
                assert step.verdict == info["verdict"], (task.id, turn)
    assert judged > 40


def as_turn(action: Any, call_id: str) -> Turn:
    """What a policy does as the turn of a model."""
    if isinstance(action, Message):
        return Turn("assistant", action.text)
    turn = action if isinstance(action, Turn) else Turn("assistant", "", (action.to_call(call_id),))
    assert len(turn.tool_calls) <= 1
    return turn


def test_python_of_the_guide_runs(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, {})
    assert capsys.readouterr().out.startswith("customer_support_v1.0 [")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
