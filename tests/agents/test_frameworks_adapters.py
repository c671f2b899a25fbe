"""Adapters: an agent of each installed framework practises end to end, brings its tools, and is deployed guarded.

CrewAI lives in an environment of its own, in which `test_frameworks_crewai.py` runs this file.
"""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.desk import Desk, echo_model, policy_at, task
from llm.tiny import own_checkpoint
from melete.actions.tools import Tool, ToolSet
from melete.agents import frameworks
from melete.agents import hub as hubs
from melete.agents.hub import Episode, Played, PolicyRef, Setup
from melete.agents.player import Agent, play
from melete.errors import ConfigError, ScenarioError
from melete.llm import lm as lms
from melete.llm.engine import Engine, Sampling
from melete.serve import models
from melete.serve.recording import Recorder, turn_seed
from melete.serve.server import Server
from melete.settings import Settings

WRONG = (
    'please\ncall nosuch {"a":1}',
    "please\ncall look {broken}",
    'please\ncall look {"tick":1}',
    'please\ncall erase {"ticket":"T1"}',
    "bye",
)
BOTH = ('please\ncall look {"ticket":"T1"}\ncall close {"ticket":"T1","hours":1}', "bye")
LOOK = {"type": "object", "properties": {"ticket": {"type": "string"}}, "required": ["ticket"]}


def openai_agent(base_url: str, api_key: str, tools: list[Any], session: Any = None) -> Any:
    from melete.agents.frameworks.openai import ToolLoop, client_of

    call = session.propose if session else lambda call: "looked"
    return ToolLoop(client_of(base_url, api_key), "echo", [tool.schema for tool in tools], call)


def langchain_agent(base_url: str, api_key: str, tools: list[Any]) -> Any:
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    return create_agent(ChatOpenAI(base_url=base_url, api_key=api_key, model="echo"), tools)  # type: ignore[arg-type]


def autogen_agent(base_url: str, api_key: str, tools: list[Any]) -> Any:
    from autogen_agentchat.agents import AssistantAgent

    from melete.agents.frameworks.autogen import model_client

    model = model_client(base_url, api_key, "echo")
    return AssistantAgent("mine", model_client=model, tools=tools, max_tool_iterations=50)


def crewai_agent(base_url: str, api_key: str, tools: list[Any]) -> Any:
    from crewai import LLM, Agent  # type: ignore[import-not-found]

    model = LLM(model="echo", custom_openai=True, base_url=base_url, api_key=api_key)
    return Agent(role="clerk", goal="help", backstory="You work at a desk.", llm=model, tools=tools)


BUILD: dict[str, Callable[..., Any]] = {
    "openai": openai_agent,
    "langchain": langchain_agent,
    "autogen": autogen_agent,
    "crewai": crewai_agent,
}
INSTALLED = {
    "openai": "openai",
    "langchain": "langchain_openai",
    "autogen": "autogen_agentchat",
    "crewai": "crewai",
}


@pytest.fixture(scope="module", params=frameworks.names())
def name(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(INSTALLED[request.param]) is None:
        pytest.skip(f"{request.param} is not installed here")
    return str(request.param)


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Recorder]]:
    home = tmp_path_factory.mktemp("home")
    checkpoint = own_checkpoint(tmp_path_factory.mktemp("runs") / "tiny", context=512)
    settings = Settings.of(home)
    served = {"echo": echo_model(), **models.load_all([f"tiny={checkpoint}"], settings, device="cpu")}
    recorder = Recorder()
    with Server(served, settings, recorder=recorder) as server:
        yield server, recorder


def played(
    practice: tuple[Server, Recorder],
    agent: Agent,
    name: str,
    lines: tuple[str, ...] = (),
    model: str = "echo",
) -> Episode:
    server, recorder = practice
    env = Desk().create_environment(task(lines=lines) if lines else task())
    policy = policy_at(server.url, model, max_tokens=200 if model == "echo" else 24)
    return play(agent, env, policy, name, 3, 60, recorder=recorder)


def tools_for(name: str) -> list[Any]:
    if name == "openai":
        return [Tool("look", "Looks.", LOOK, lambda ticket: "looked")]
    adapter: Any = frameworks.load(name)
    return [adapter.tool_of("look", "Looks.", LOOK, lambda arguments: f"looked at {arguments['ticket']}")]


def test_default_agent_solves_a_task_and_its_moves_are_one_sequence(
    practice: tuple[Server, Recorder], name: str
) -> None:
    episode = played(practice, frameworks.load(name).default_agent(), f"{name}_default")
    assert (episode.status, episode.error) == ("ok", None)
    assert episode.outcome is not None
    assert (episode.outcome.success, episode.outcome.tool_calls, episode.outcome.tool_calls_ok) == (
        True,
        2,
        2,
    )
    assert len(episode.moves) == 5
    for before, after in zip(episode.moves, episode.moves[1:], strict=False):
        whole = [*before.prompt_ids, *before.response_ids]
        assert after.prompt_ids[: len(whole)] == whole


def test_recorded_ids_equal_what_the_engine_draws(practice: tuple[Server, Recorder], name: str) -> None:
    server, _ = practice
    episode = played(practice, frameworks.load(name).default_agent(), f"{name}_tiny", model="tiny")
    assert episode.moves
    engine = server.models["tiny"].engine
    for turn, move in enumerate(episode.moves):
        sampling = Sampling(max_tokens=24, seed=turn_seed(3, turn), logprobs=0)
        drawn = engine.submit(list(move.prompt_ids), sampling).result(60)
        # The last turn may be cut by the end of the context.
        assert drawn.token_ids[: len(move.response_ids)] == move.response_ids
        assert move.logprobs == pytest.approx(drawn.logprobs[: len(move.response_ids)], abs=1e-4)


def test_calls_that_fail_are_counted_whoever_answers_them(
    practice: tuple[Server, Recorder], name: str
) -> None:
    outcome = played(practice, frameworks.load(name).default_agent(), f"{name}_wrong", WRONG).outcome
    assert outcome is not None
    assert (outcome.tool_calls, outcome.tool_calls_ok, outcome.refused) == (4, 0, 1)


def test_calls_of_one_turn_are_made_in_their_order(practice: tuple[Server, Recorder], name: str) -> None:
    outcome = played(practice, frameworks.load(name).default_agent(), f"{name}_both", BOTH).outcome
    assert outcome is not None
    # Closing first would make looking fail.
    assert (outcome.tool_calls_ok, outcome.success) == (2, True)


def test_users_own_agent_practises_as_the_function_that_builds_it(
    practice: tuple[Server, Recorder], name: str
) -> None:
    agent = frameworks.load(name).wrap_agent(BUILD[name])
    outcome = played(practice, agent, f"{name}_own").outcome
    assert outcome is not None
    assert (outcome.success, outcome.tool_calls_ok) == (True, 2)


def test_agent_that_is_built_already_practises_with_the_sessions_model_and_tools(
    practice: tuple[Server, Recorder], name: str
) -> None:
    agent = BUILD[name]("http://127.0.0.1:9/v1", "none", tools_for(name))
    if name == "langchain":
        with pytest.raises(ConfigError, match="function build"):
            frameworks.load(name).wrap_agent(agent)
        return
    outcome = played(practice, frameworks.load(name).wrap_agent(agent), f"{name}_built").outcome
    assert outcome is not None
    assert (outcome.success, outcome.tool_calls_ok) == (True, 2)


def test_function_that_asks_for_what_practice_has_not_says_what_it_may_ask_for(name: str) -> None:
    def build(base_url: str, temperature: float) -> Any:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"asks for temperature.*\nIt may ask for: base_url, api_key"):
        frameworks.load(name).wrap_agent(build)


def test_users_own_agent_is_found_by_module_and_name(
    practice: tuple[Server, Recorder], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"my_{name}.py").write_text(
        f"from agents.test_frameworks_adapters import BUILD\nbuild = BUILD[{name!r}]\n"
    )
    monkeypatch.chdir(tmp_path)
    outcome = played(practice, frameworks.agent(name, f"my_{name}:build"), f"{name}_found").outcome
    assert outcome is not None
    assert outcome.success


@pytest.mark.parametrize("reference", ["build", "no_such_module:build", "json:build"])
def test_agent_that_cannot_be_imported_is_a_config_error(reference: str) -> None:
    with pytest.raises(ConfigError, match=reference.partition(":")[0]):
        frameworks.agent("openai", reference)


@pytest.mark.parametrize("text", ["def (:", "1 / 0"])
def test_agent_whose_module_raises_is_a_config_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising_agent.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"raising_agent:build cannot be imported: (Syntax|ZeroDivision)Error"
    ):
        frameworks.agent("openai", "raising_agent:build")


def test_tools_of_an_agent_are_extracted_with_schema_and_function(name: str) -> None:
    agent = BUILD[name]("http://127.0.0.1:9/v1", "none", tools_for(name))
    (tool,) = frameworks.load(name).extract_tools(agent)
    assert tool.name == "look"
    assert tool.parameters["properties"]["ticket"]["type"] == "string"
    assert "looked" in str(tool.function(ticket="T1"))


def test_environment_for_an_agent_whose_tools_the_scenario_has_plays_it(name: str) -> None:
    agent = BUILD[name]("http://127.0.0.1:9/v1", "none", tools_for(name))
    env = frameworks.load(name).create_environment(agent, Desk(), task())
    assert env.reset()[0] == task().request


def test_agent_with_a_tool_that_the_scenario_lacks_is_refused(name: str) -> None:
    class Elsewhere(Desk):
        toolset = ToolSet([Desk.toolset["close"]])

    agent = BUILD[name]("http://127.0.0.1:9/v1", "none", tools_for(name))
    with pytest.raises(ScenarioError, match=r"does not have: look\.\nTools of desk: close"):
        frameworks.load(name).create_environment(agent, Elsewhere(), task())


def test_something_that_is_no_agent_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="build"):
        frameworks.load(name).wrap_agent(42)


def test_practice_asks_no_host_but_its_own_server(
    practice: tuple[Server, Recorder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[Any] = []
    look_up = socket.getaddrinfo

    def heard(host: Any, *args: Any, **options: Any) -> Any:
        hosts.append(host)
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", heard)
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "none")
    episode = played(practice, frameworks.load(name).default_agent(), f"{name}_hosts")
    assert episode.status == "ok"
    assert {host.decode() if isinstance(host, bytes) else host for host in hosts} <= {"127.0.0.1"}


def test_agent_of_a_framework_plays_the_episodes_that_the_model_itself_plays(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint = own_checkpoint(tmp_path_factory.mktemp("same") / "tiny", context=512)
    alone, within = (drawn(checkpoint, agent) for agent in (None, frameworks.load(name).default_agent()))
    if name == "crewai":  # it writes a prompt of its own
        assert [len(episode.moves) for episode in within] == [3, 3, 3]
        return
    for one, other in zip(alone, within, strict=True):
        assert [(m.prompt_ids, m.response_ids) for m in one.moves] == [
            (m.prompt_ids, m.response_ids) for m in other.moves
        ]
        assert (one.outcome, one.reward) == (other.outcome, other.reward)


def drawn(checkpoint: Path, agent: Agent | None) -> list[Episode]:
    """Three episodes through the local hub, one after the other so that nothing else is in the batch."""
    device = torch.device("cpu")
    lm = lms.load_checkpoint(checkpoint, device, torch.float32)
    setup = Setup(Desk(), Played(lm, Engine(lm, slots=1)), agent, max_tokens=16, workers=1)
    hub = hubs.open("local", setup)
    hub.publish(PolicyRef("", lm.name, 0))
    episodes = []
    for seed in (10, 11, 12):
        hub.submit([task()], group="g", seeds=[seed], timeout_s=60)
        while not (ended := hub.completed(1.0)):
            pass
        episodes += ended
    hub.close()
    return episodes


def test_folder_holds_the_frameworks_and_no_more() -> None:
    assert frameworks.names() == sorted(BUILD)
    assert Path(frameworks.__file__).parent.name == "frameworks"
