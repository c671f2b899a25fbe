"""Both Agent Lightning hubs: what they hand back, and what happens when their process goes away or is another."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agents.desk import echo_model, task
from agents.hubs_at_hand import all_of, echo_setup, need, opened
from melete.actions import trace
from melete.agents import frameworks
from melete.agents.hub import PolicyRef
from melete.agents.hubs import agentlightning, agentlightning03
from melete.agents.hubs._child import Child
from melete.agents.hubs._relay import Relay
from melete.agents.player import Session
from melete.errors import ConfigError, HubError
from melete.serve.recording import Recorder
from melete.serve.server import Server
from melete.settings import Settings

NAMES = ["agentlightning", pytest.param("agentlightning03", marks=pytest.mark.slow)]
BOTH = pytest.mark.parametrize("name", NAMES)
RAISES, HANGS = 101, 102


def moody(session: Session) -> None:
    """The plain agent, but for two seeds."""
    if session.seed == RAISES:
        raise RuntimeError("not today")
    if session.seed == HANGS:
        session.over.wait(30)
    frameworks.load("openai").default_agent()(session)


@pytest.fixture(scope="module", params=NAMES)
def hub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A hub of each kind whose policy is the echo model; `hub.traces` is where its traces are."""
    traces = tmp_path_factory.mktemp("traces")
    with opened(request.param, echo_setup(agent=moody, traces=traces, run="r1")) as made:
        made.traces = traces  # type: ignore[attr-defined]
        yield made


def test_episodes_come_back_with_tokens_rewards_versions_and_traces(hub: Any) -> None:
    hub.publish(PolicyRef("", "policy", 3))
    ids = hub.submit([task("a"), task("b")], group="g", seeds=[1, 2])
    episodes = all_of(hub, 2)
    assert [episodes[one].task.id for one in ids] == ["a", "b"]
    first = episodes[ids[0]]
    assert (first.status, first.group, first.error) == ("ok", "g", None)
    assert first.outcome.success
    assert first.reward == pytest.approx(first.outcome.reward)
    assert len(first.moves) == 5
    for move in first.moves:
        assert len(move.response_ids) == len(move.logprobs) > 0
        assert (move.policy_version, move.finish) == (3, "stop")
    traced = [step for step in trace.read(hub.traces / "rollouts.jsonl") if step["episode"] in ids]
    assert len(traced) == sum(episode.outcome.steps for episode in episodes.values())
    assert {step["run"] for step in traced} == {"r1"}


@pytest.mark.slow
def test_agent_that_raises_or_hangs_fails_alone(hub: Any) -> None:
    ids = hub.submit([task(str(i)) for i in range(3)], group="g", seeds=[0, RAISES, HANGS], timeout_s=3)
    episodes = all_of(hub, 3)
    assert [episodes[one].status for one in ids] == ["ok", "failed", "timeout"]
    assert episodes[ids[1]].error == "RuntimeError: not today"
    assert episodes[ids[1]].reward == -1.0


@pytest.mark.slow
def test_paused_hub_starts_no_turn_and_resumes(hub: Any) -> None:
    hub.pause()
    ids = hub.submit([task("a")], group="g", seeds=[1])
    assert hub.completed(wait_s=0.3) == []
    hub.resume()
    assert set(all_of(hub, 1)) == set(ids)


def test_hub_with_nothing_under_way_does_not_wait(hub: Any) -> None:
    assert hub.completed() == []


def test_gateway_refuses_a_policy_that_it_cannot_serve(hub: Any) -> None:
    if not isinstance(hub, agentlightning.Hub):
        pytest.skip("0.3 has no gateway")
    with pytest.raises(ConfigError, match="passes on no key"):
        hub.publish(PolicyRef("http://127.0.0.1:1/v1", "policy", 1, api_key="secret"))
    with pytest.raises(ConfigError, match="samples at temperature 1"):
        hub.publish(PolicyRef("", "policy", 1, sampling={"temperature": 0.2}))


def test_second_hub_on_a_server_collects_its_own_episodes_only(hub: Any) -> None:
    if not isinstance(hub, agentlightning.Hub):
        pytest.skip("0.3 has no server that could be shared")
    key = hub._clients.http.headers["authorization"].removeprefix("Bearer ")
    other = agentlightning.Hub(echo_setup(agent=moody), hub._policy, hub.url, key)
    ids = hub.submit([task("a")], group="g", seeds=[1])
    theirs = other.submit([task("b")], group="g", seeds=[1])
    assert set(all_of(hub, 1)) == set(ids)
    assert set(all_of(other, 1)) == set(theirs)
    other.close()


@BOTH
def test_hub_whose_process_is_killed_says_so(name: str) -> None:
    with opened(name, echo_setup()) as hub:
        hub.pause()
        hub.submit([task("b")], group="g", seeds=[1])
        os.kill(hub._child.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(HubError, match=r"\.envs/agentlightning\d+, ended with exit code -9"):
            hub.completed(wait_s=30)
        with pytest.raises(HubError):
            hub.submit([task("c")], group="g", seeds=[1])


@BOTH
def test_missing_environment_names_the_command_that_makes_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melete.__file__", str(tmp_path / "src" / "melete" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    module = agentlightning if name == "agentlightning" else agentlightning03
    with pytest.raises(HubError, match=rf"python tools/envs.py {module.ENVIRONMENT}"):
        module.open(echo_setup())


def test_child_ends_when_the_process_that_started_it_is_gone() -> None:
    need("agentlightning")
    child = Child("agentlightning1", "_server1.py")
    child.send(
        {
            "key": "k",
            "default_proxy": {"model_name": "m", "train": {"temperature": 1}, "val": {"temperature": 1}},
        }
    )
    assert child.receive()["version"].startswith("1.")
    child._process.stdin.close()  # type: ignore[union-attr]
    assert child._process.wait(20) == 0
    child.close()


class Old(http.server.BaseHTTPRequestHandler):
    """A server of the 0.x line, as far as a client of 1.x sees it."""

    def do_GET(self) -> None:
        body = b'{"openapi": "3.1.0", "paths": {"/v1/agl/rollouts": {}}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


def test_server_of_another_version_is_refused_with_what_is_needed() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        policy = PolicyRef("http://127.0.0.1:1/v1", "policy", 0)
        with pytest.raises(HubError, match=r"no Agent Lightning 1\.x server.*\n.*1\.0\.2 or newer"):
            agentlightning.Hub(echo_setup(), policy, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_address_without_a_server_is_one_clear_error() -> None:
    policy = PolicyRef("http://127.0.0.1:1/v1", "policy", 0)
    with pytest.raises(HubError, match="does not answer: ConnectError"):
        agentlightning.Hub(echo_setup(), policy, "http://127.0.0.1:9")


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay in front of the echo model, whose server asks for a token."""
    with Server({"echo": echo_model()}, Settings.of(tmp_path, token="secret")) as server:
        made = Relay(lambda _: f"{server.url}/v1", api_key="secret", version=lambda: 7)
        yield made
        made.stop()


def test_relay_has_what_the_player_asks_a_recorder_for() -> None:
    of_the_server_alone = {"knows", "episode"}
    public = {name for name in vars(Recorder) if not name.startswith("_")} - of_the_server_alone
    assert public <= set(vars(Relay))


def client_of(relay: Relay, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=relay.url, api_key=key, max_retries=0)


HELLO: Any = [{"role": "user", "content": "hello"}]


def test_relay_answers_streamed_requests_and_records_them(relay: Relay) -> None:
    key = relay.open("one", seed=1, max_tokens=8, model="echo")
    with client_of(relay, key) as client:
        stream = client.chat.completions.create(model="any", messages=HELLO, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    (move,) = relay.close("one")
    assert (text, move.turn.content, move.finish) == ("hello", "hello", "stop")
    assert len(move.response_ids) == len(move.logprobs) == 6


def test_relay_refuses_the_key_of_an_episode_that_is_over(relay: Relay) -> None:
    key = relay.open("one", seed=1, model="echo")
    relay.close("one")
    with client_of(relay, key) as client, pytest.raises(openai.PermissionDeniedError, match="over"):
        client.chat.completions.create(model="echo", messages=HELLO)


def test_relay_knows_when_the_context_of_an_episode_is_full(relay: Relay) -> None:
    key = relay.open("one", seed=1, max_tokens=8, model="echo")
    long: Any = [{"role": "user", "content": "x" * 5000}]
    with client_of(relay, key) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="echo", messages=long)
    assert relay.full("one")


def test_relay_hands_the_policy_servers_refusals_to_the_agent(relay: Relay) -> None:
    key = relay.open("one", seed=1, model="nobody")
    with client_of(relay, key) as client, pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="echo", messages=HELLO)
    assert relay.close("one") == []


def test_relay_answers_nonsense_with_an_error(relay: Relay) -> None:
    assert httpx.post(f"{relay.url}/chat/completions", content=b"[").status_code == 404
    assert httpx.post(f"{relay.url}/embeddings", json={}).status_code == 404


def test_limit_of_tokens_that_the_context_has_no_room_for_is_left_to_the_context(relay: Relay) -> None:
    key = relay.open("one", seed=1, max_tokens=100_000, model="echo")
    with client_of(relay, key) as client:
        client.chat.completions.create(model="echo", messages=HELLO)
    (move,) = relay.close("one")
    assert move.finish == "stop"
